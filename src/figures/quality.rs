//! Parts of a page about two half maps: the resolution by direction, and the Guinier plot.

use crate::error::Result;
use crate::evaluate::Mask;
use crate::evaluate::directional::{DIRECTIONS, Directional};
use crate::evaluate::fsc::GOLD_STANDARD;
use crate::evaluate::guinier;
use crate::evaluate::maps::mean;
use crate::evaluate::postprocess::FIT_FROM;
use crate::figures::colours::Colours;
use crate::figures::guinier::guinier_chart;
use crate::figures::plots::{direction_band, fsc_chart_with_band};
use crate::figures::report::Part;
use crate::figures::spheres::directional_svg;
use crate::imaging::fourier::spectrum_of_volume;
use crate::imaging::mrc::Volume;
use crate::imaging::resample;

/// The directional FSC is computed up to this multiple of the resolution's shell: maps are cropped in Fourier space.
const RANGE: f64 = 1.5;
/// Smallest box of maps that are cropped.
const SMALLEST_BOX: usize = 32;

const READ_DIRECTIONS: &str = "The FSC in cones about 256 directions (one hemisphere, seen along z; the other is its mirror image). The \
    band holds all cones. Views that are missing or rare blur the map along some directions: dark spots. The grey band is wide \
    where there are few Fourier values in a cone, at low resolution.";
pub(crate) const READ_GUINIER: &str = "The fall of the amplitudes of the mean of the half maps with resolution. A straight line of slope B/4 \
    remains for proteins beyond 10 Å; `postprocess` divides it out. A curve that bends upwards at the end is noise.";

/// The directional FSC of `halves` under `mask`, up to 1.5 times the shell of `resolution` in angstrom, or of the whole band without one.
///
/// # Errors
/// As [`Directional::between`].
pub(crate) fn directions(halves: [&Volume; 2], mask: Option<&Mask>, resolution: Option<f64>) -> Result<Part> {
    let n = halves[0].data.dim().0;
    let edge = n as f64 * halves[0].pixel_size;
    let even = |size: usize| (size + size % 2).max(SMALLEST_BOX).min(n);
    let size = resolution.map_or(n, |resolution| even((2.0 * RANGE * edge / resolution).ceil() as usize));
    let small = |map: &Volume| Volume::new(resample::to_size(map.data.clone(), size), edge / size as f64);
    let [first, second] = halves.map(small);
    let mask = mask.map(|mask| mask.resampled(size));
    let directional = Directional::between(&first, &second, mask.as_ref(), DIRECTIONS)?;
    let place = if mask.is_some() { "in the mask" } else { "no mask" };
    let whole = [(format!("all directions, {place}"), directional.whole.clone())];
    let mut chart = fsc_chart_with_band(&whole, Some(direction_band(&directional, GOLD_STANDARD)));
    chart.title = "Directional FSC".into();
    let sphere = directional_svg(&directional, GOLD_STANDARD, &Colours::css_variables());
    Ok(Part::Pair(chart, sphere).with_guide(READ_DIRECTIONS))
}

/// The Guinier plot of the mean of `halves`, fitted from 10 angstrom to `resolution`.
pub(crate) fn guinier([half1, half2]: [&Volume; 2], resolution: Option<f64>) -> Part {
    let edge = half1.data.dim().0 as f64 * half1.pixel_size;
    let points = guinier::plot(&spectrum_of_volume(&mean(half1, half2).data), edge);
    let line = resolution.and_then(|fine| guinier::fit(&points, FIT_FROM, fine));
    Part::Chart(guinier_chart(&[("mean of the half maps", &points)], line.as_ref())).with_guide(READ_GUINIER)
}
