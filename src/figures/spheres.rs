//! The resolution by direction on a hemisphere.

use std::f64::consts::PI;
use std::fmt::Write as _;

use crate::evaluate::directional::{Directional, HALF_ANGLE};
use crate::figures::colours::Colours;

/// Size in user units.
const SIZE: (f64, f64) = (490.0, 360.0);
/// Centre and radius of the disk.
const CENTRE: (f64, f64) = (180.0, 200.0);
const RADIUS: f64 = 128.0;

/// The resolution at `threshold` of each direction as SVG: the hemisphere above the xy plane, seen along z, in equal-area projection. The
/// worse the resolution, the stronger the colour.
pub(crate) fn directional_svg(directional: &Directional, threshold: f64, colours: &Colours) -> String {
    let Colours { paper, ink, muted, curves, .. } = colours;
    let resolutions = directional.resolutions(threshold);
    let values = || resolutions.iter().map(|(resolution, _)| *resolution);
    let (finest, coarsest) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let (width, height) = SIZE;
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="DejaVu Sans, sans-serif" font-size="12" role="img" aria-label="Resolution by direction"><rect width="{width}" height="{height}" fill="{paper}"/><text x="16" y="26" font-size="15" font-weight="bold" fill="{ink}">Resolution by direction</text>"#
    );
    // The area of a direction's dot is its part of the hemisphere.
    let dot = RADIUS / (directional.directions.len() as f64).sqrt() * 1.05;
    let strength = |resolution: f64| {
        let span = 1.0 / finest - 1.0 / coarsest;
        // Below 2%, all directions are alike.
        let share = if span * coarsest > 0.02 { (1.0 / finest - 1.0 / resolution) / span } else { 0.0 };
        0.12 + 0.88 * share.clamp(0.0, 1.0)
    };
    // Writing to a String cannot fail.
    let _ = write!(
        svg,
        r#"<circle cx="{}" cy="{}" r="{:.1}" fill="none" stroke="{muted}"/>"#,
        CENTRE.0,
        CENTRE.1,
        RADIUS + dot
    );
    for ([x, y, z], (resolution, _)) in directional.directions.iter().zip(&resolutions) {
        // Lambert's projection: a direction at the angle t from z lies at sqrt(2) sin(t / 2), 1 at the equator.
        let scale = RADIUS / (1.0 + z).sqrt();
        let _ = write!(
            svg,
            r#"<circle cx="{:.1}" cy="{:.1}" r="{dot:.1}" fill="{}" fill-opacity="{:.3}"><title>{resolution:.2} Å</title></circle>"#,
            CENTRE.0 + scale * x,
            CENTRE.1 - scale * y,
            curves[1],
            strength(*resolution)
        );
    }
    for (label, angle) in [("x", 0.0), ("y", 0.5 * PI)] {
        let r = RADIUS + dot + 12.0;
        let _ = write!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="middle" fill="{muted}">{label}</text>"#,
            CENTRE.0 + r * f64::cos(angle),
            CENTRE.1 - r * f64::sin(angle) + 4.0
        );
    }
    for (row, (resolution, label)) in
        [(finest, "best"), (directional.summary(threshold).mean, "mean"), (coarsest, "worst")]
            .into_iter()
            .enumerate()
    {
        let y = 150.0 + 28.0 * row as f64;
        let _ = write!(
            svg,
            r#"<circle cx="354" cy="{:.1}" r="7" fill="{}" fill-opacity="{:.3}"/><text x="368" y="{y:.1}" fill="{ink}">{label} {resolution:.2} Å</text>"#,
            y - 4.0,
            curves[1],
            strength(resolution)
        );
    }
    let _ = write!(
        svg,
        r#"<text x="350" y="262" fill="{muted}">cones of {HALF_ANGLE}°,</text><text x="350" y="278" fill="{muted}">FSC = {threshold}</text></svg>"#
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::mrc::Volume;
    use crate::random::{Purpose, stream};
    use ndarray::Array3;
    use rand_distr::{Distribution, StandardNormal};

    #[test]
    fn a_dot_for_each_direction_and_no_odd_numbers() {
        let mut random = stream(3, Purpose::Noise, 0, 0);
        let data = Array3::from_shape_simple_fn((16, 16, 16), || StandardNormal.sample(&mut random));
        let map = Volume::new(data, 2.0);
        for other in [map.clone(), Volume::new(Array3::zeros((16, 16, 16)), 2.0)] {
            let directional = Directional::between(&map, &other, None, 40).unwrap();
            let svg = directional_svg(&directional, 0.143, &Colours::light());
            assert_eq!(svg.matches("<title>").count(), 40);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
