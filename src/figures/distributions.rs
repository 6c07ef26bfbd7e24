//! Distributions of particles and Gaussians: viewing directions, defocus, sizes, amplitudes.

use std::f64::consts::PI;
use std::fmt::Write;

use crate::figures::axis::Axis;
use crate::figures::chart::{Chart, Curve};
use crate::figures::colours::Colours;
use crate::imaging::pose::Rotation;
use crate::particles::store::Particle;

/// Cells of the map of viewing directions, of equal area: bins of longitude and of the height above the equator.
const LONGITUDES: usize = 48;
const HEIGHTS: usize = 24;
/// Number of cells of the map of viewing directions.
pub const CELLS: usize = LONGITUDES * HEIGHTS;
/// Width of a defocus bin in angstrom.
const DEFOCUS_BIN: f64 = 100.0;
const DEFOCUS_BINS: usize = 1000;
/// Largest number of bars of a histogram.
pub(super) const BARS: usize = 48;

/// Counts of the particles of a set by viewing direction and defocus, in constant memory.
#[derive(Clone, Debug)]
pub struct ParticleCounts {
    directions: Vec<u64>,
    defoci: Vec<u64>,
    all: u64,
}

impl Default for ParticleCounts {
    fn default() -> Self {
        Self { directions: vec![0; CELLS], defoci: vec![0; DEFOCUS_BINS], all: 0 }
    }
}

impl ParticleCounts {
    /// Counts a particle by its viewing direction in the volume and the mean of its two defoci.
    pub fn add(&mut self, particle: &Particle) {
        self.directions[cell(&particle.rotation)] += 1;
        let defocus = 0.5 * (particle.ctf.defocus_u + particle.ctf.defocus_v);
        let bin = (defocus / DEFOCUS_BIN).floor().clamp(0.0, (DEFOCUS_BINS - 1) as f64);
        self.defoci[bin as usize] += 1;
        self.all += 1;
    }

    /// Largest count of a cell over the mean count: near 1 for uniform viewing directions, large for preferred orientation. 0 without
    /// particles.
    pub fn preference(&self) -> f64 {
        let most = self.directions.iter().copied().max().unwrap_or(0) as f64;
        most * self.directions.len() as f64 / (self.all as f64).max(1.0)
    }

    /// The map of viewing directions as SVG: longitude to the right, height above the equator upwards, in cells of equal area, with
    /// an opacity proportional to the count.
    pub fn directions_svg(&self, colours: &Colours) -> String {
        const CELL: (f64, f64) = (18.0, 13.0);
        const LEFT: f64 = 62.0;
        const TOP: f64 = 44.0;
        let Colours { ink, muted, paper, curves, .. } = colours;
        let strong = &curves[0];
        let most = self.directions.iter().copied().max().unwrap_or(0).max(1) as f64;
        let (width, height) =
            (LEFT + LONGITUDES as f64 * CELL.0 + 20.0, TOP + HEIGHTS as f64 * CELL.1 + 50.0);
        let (right, bottom) = (LEFT + LONGITUDES as f64 * CELL.0, TOP + HEIGHTS as f64 * CELL.1);
        let mut svg = format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="DejaVu Sans, sans-serif" font-size="12" role="img" aria-label="Viewing directions"><rect width="{width}" height="{height}" fill="{paper}"/><text x="16" y="26" font-size="15" font-weight="bold" fill="{ink}">Viewing directions: largest cell {:.1} times the mean</text>"#,
            self.preference()
        );
        // Writing to a String cannot fail.
        for (i, &count) in self.directions.iter().enumerate().filter(|(_, count)| **count > 0) {
            let (x, y) = (i % LONGITUDES, i / LONGITUDES);
            let _ = write!(
                svg,
                r#"<rect x="{:.1}" y="{:.1}" width="{}" height="{}" fill="{strong}" fill-opacity="{:.3}"/>"#,
                LEFT + x as f64 * CELL.0,
                bottom - (y + 1) as f64 * CELL.1,
                CELL.0,
                CELL.1,
                count as f64 / most
            );
        }
        let _ =
            write!(svg, r#"<path d="M{LEFT} {TOP}H{right}V{bottom}H{LEFT}Z" fill="none" stroke="{muted}"/>"#);
        for longitude in [-180, -90, 0, 90, 180] {
            let x = LEFT + (f64::from(longitude) + 180.0) / 360.0 * (right - LEFT);
            let _ = write!(
                svg,
                r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle" fill="{muted}">{longitude}°</text>"#,
                bottom + 18.0
            );
        }
        for (latitude, label) in
            [(90f64, "90°"), (30.0, "30°"), (0.0, "0°"), (-30.0, "-30°"), (-90.0, "-90°")]
        {
            let y = bottom - (latitude.to_radians().sin() + 1.0) / 2.0 * (bottom - TOP);
            let _ = write!(
                svg,
                r#"<text x="{:.1}" y="{:.1}" text-anchor="end" fill="{muted}">{label}</text>"#,
                LEFT - 8.0,
                y + 4.0
            );
        }
        let _ = write!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="middle" fill="{ink}">Longitude and latitude of the viewing direction in the map (poles: z)</text></svg>"#,
            (LEFT + right) / 2.0,
            height - 12.0
        );
        svg
    }

    /// The histogram of the defocus.
    pub fn defocus_chart(&self) -> Chart {
        let first = self.defoci.iter().position(|&count| count > 0).unwrap_or(0);
        let last = self.defoci.iter().rposition(|&count| count > 0).unwrap_or(0);
        let width = (last - first + 1).div_ceil(BARS);
        let counts: Vec<u64> =
            self.defoci[first..=last].chunks(width).map(|bins| bins.iter().sum()).collect();
        let micrometre = |bin: usize| (first + bin * width) as f64 * DEFOCUS_BIN / 1e4;
        let edges: Vec<f64> = (0..=counts.len()).map(micrometre).collect();
        histogram(
            "Defocus",
            "Defocus (µm, mean of U and V)",
            "Particles",
            &edges,
            &[(String::new(), counts)],
            false,
        )
    }
}

/// The cell of the viewing direction, the last row of W (docs/method.md, section 1).
fn cell(rotation: &Rotation) -> usize {
    let [x, y, z] = rotation[2];
    let longitude = (y.atan2(x) + PI) / (2.0 * PI);
    let place = |share: f64, cells: usize| ((share * cells as f64) as usize).min(cells - 1);
    place((z + 1.0) / 2.0, HEIGHTS) * LONGITUDES + place(longitude, LONGITUDES)
}

/// The histogram of labelled positive values on a common logarithmic axis.
pub fn logarithmic_chart(title: &str, label: &str, sets: &[(String, Vec<f64>)]) -> Chart {
    let sound = |value: &f64| value.is_finite() && *value > 0.0;
    let all = sets.iter().flat_map(|(_, values)| values).copied().filter(sound);
    let (low, high) =
        all.fold((f64::INFINITY, 0.0f64), |(low, high), value| (low.min(value), high.max(value)));
    // Values more than six decades below the largest are put in the first bar.
    let (low, high) = if low <= high { (low.max(high * 1e-6), high) } else { (0.5, 1.0) };
    let (low, high) = (low / 1.05, high * 1.05);
    let edge = |i: usize| low * (high / low).powf(i as f64 / BARS as f64);
    let edges: Vec<f64> = (0..=BARS).map(edge).collect();
    let count = |values: &[f64]| {
        let mut counts = vec![0u64; BARS];
        for value in values.iter().filter(|value| sound(value)) {
            let place = (value.max(low) / low).ln() / (high / low).ln() * BARS as f64;
            counts[(place as usize).min(BARS - 1)] += 1;
        }
        counts
    };
    let sets: Vec<_> = sets.iter().map(|(name, values)| (name.clone(), count(values))).collect();
    histogram(title, label, "Gaussians", &edges, &sets, true)
}

/// A histogram over `edges`, one stepped line per set of counts.
pub(super) fn histogram(
    title: &str,
    x: &str,
    y: &str,
    edges: &[f64],
    sets: &[(String, Vec<u64>)],
    logarithmic: bool,
) -> Chart {
    let stairs = |(name, counts): &(String, Vec<u64>)| {
        let mut points = vec![[edges[0], 0.0]];
        for (ends, &count) in edges.windows(2).zip(counts) {
            points.extend([[ends[0], count as f64], [ends[1], count as f64]]);
        }
        points.push([edges[edges.len() - 1], 0.0]);
        Curve { legend: name.clone(), points, ..Curve::default() }
    };
    let most = sets.iter().flat_map(|(_, counts)| counts).copied().max().unwrap_or(0).max(1);
    let axis = |label: &str, low, high, logarithmic| Axis {
        label: label.to_owned(),
        low,
        high,
        logarithmic,
        marks: Vec::new(),
    };
    Chart {
        title: title.to_owned(),
        x: axis(x, edges[0], edges[edges.len() - 1], logarithmic),
        y: axis(y, 0.0, 1.05 * most as f64, false),
        resolution_on_top: false,
        curves: sets.iter().map(stairs).collect(),
        thresholds: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::ctf::CtfParameters;
    use crate::imaging::pose::rotation_from_relion;

    fn particle(rot: f64, tilt: f64, defocus: f64) -> Particle {
        Particle {
            rotation: rotation_from_relion(rot, tilt, 10.0),
            shift: [0.0; 2],
            ctf: CtfParameters { defocus_u: defocus, defocus_v: defocus, ..CtfParameters::default() },
            optics_group: 0,
            source: None,
        }
    }

    #[test]
    fn uniform_directions_fill_cells_evenly() {
        let mut counts = ParticleCounts::default();
        // Uniform on the sphere: uniform in longitude and in the cosine of the tilt.
        for i in 0..LONGITUDES {
            for k in 0..HEIGHTS {
                let height = (k as f64 + 0.5) / HEIGHTS as f64 * 2.0 - 1.0;
                counts.add(&particle(i as f64 * 7.5 + 3.0, height.acos().to_degrees(), 1e4));
            }
        }
        assert!(counts.directions.iter().all(|&count| count == 1), "{:?}", counts.directions);
        assert!(counts.directions_svg(&Colours::light()).contains("largest cell 1.0 times the mean"));
        // RELION's viewing direction is (cos rot sin tilt, sin rot sin tilt, cos tilt).
        let mut one = ParticleCounts::default();
        one.add(&particle(90.0, 90.0, 1e4));
        let place = one.directions.iter().position(|&count| count == 1).unwrap();
        assert_eq!((place % LONGITUDES, place / LONGITUDES), (LONGITUDES * 3 / 4, HEIGHTS / 2));
    }

    #[test]
    fn histograms_count_every_value() {
        let mut counts = ParticleCounts::default();
        for i in 0..500 {
            counts.add(&particle(0.0, 0.0, 8000.0 + 40.0 * f64::from(i)));
        }
        let total = |chart: &Chart| -> f64 {
            // Each bar is two points.
            chart.curves[0].points.iter().skip(1).step_by(2).map(|point| point[1]).sum()
        };
        let chart = counts.defocus_chart();
        assert_eq!(total(&chart), 500.0);
        assert!((chart.x.low - 0.8).abs() < 1e-9 && (chart.x.high - 2.8).abs() < 0.06, "{:?}", chart.x);
        let values: Vec<f64> = (1..=300).map(|i| f64::from(i) * 0.02).collect();
        let sizes = logarithmic_chart("Sizes", "A", &[("half1".into(), values)]);
        assert_eq!(total(&sizes), 300.0);
        for odd in [vec![], vec![0.0, f64::NAN], vec![2.0; 4]] {
            let svg =
                logarithmic_chart("t", "x", &[("a".into(), odd)]).to_svg(&Colours::light(), 400.0, 300.0);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
        let nothing = ParticleCounts::default();
        assert!(!nothing.directions_svg(&Colours::light()).contains("NaN"));
        assert!(!nothing.defocus_chart().to_svg(&Colours::light(), 400.0, 300.0).contains("NaN"));
    }
}
