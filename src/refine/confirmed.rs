//! What the particles of the other half confirm of a model, by frequency.

use ndarray::Array3;
use rayon::prelude::*;

use super::spectrum::Points;
use crate::render::reference::REFERENCE_PADDING;
use crate::voxels::sums::{FourierSums, squared_radius};

/// Least part of a model that must be confirmed.
const LEAST: f64 = 0.1;
/// Shells over which it is averaged, an odd number.
const WINDOW: usize = 3;
/// Largest factor of a model.
const LARGEST: f64 = 2.0;
/// Fewest shells that poses can be refined with.
pub(crate) const FEWEST: usize = 4;

/// The confirmed part of a model's spectrum by shell, 0 to floor(D/2) - 1: the regression <X, Y> / <X, X> of the other half's
/// images Y on the images X of the model's map `[z][y][x]` at their poses. `sums` are those of Y on the Fourier grid. The noise of Y is
/// independent of X and averages out; its signal is that of X as far as the model is right. 0 from the first shell on that is not
/// confirmed.
pub(crate) fn confirmed(model: &Array3<f32>, sums: &FourierSums) -> Vec<f64> {
    let (n, side) = (sums.box_size, sums.side());
    let points = Points { before_origin: 0, width: n, reach: n - 1 };
    let spectrum = points.spectrum(model, &vec![1.0; n]);
    let planes: Vec<Vec<[f64; 2]>> = (0..side)
        .into_par_iter()
        .map(|z| {
            let mut shells = vec![[0.0; 2]; n / 2 + 1];
            for y in 0..side {
                let (of_model, of_sums) = ((y * side + z) * n, (z * side + y) * n);
                for x in 0..n {
                    let radius = (squared_radius(n, x, y, z) as f64).sqrt() / REFERENCE_PADDING as f64;
                    let Some(shell) = shells.get_mut(radius.round() as usize) else { continue };
                    let (model, image) = (spectrum[of_model + x], sums.data[of_sums + x]);
                    shell[0] += f64::from(model.re * image.re + model.im * image.im);
                    shell[1] += f64::from(model.norm_sqr() * sums.weight[of_sums + x]);
                }
            }
            shells
        })
        .collect();
    let mut total = vec![[0.0; 2]; n / 2];
    for plane in &planes {
        for (total, [cross, power]) in total.iter_mut().zip(plane) {
            *total = [total[0] + cross, total[1] + power];
        }
    }
    let part = |shell: usize| {
        let shells = shell.saturating_sub(WINDOW / 2).max(1)..(shell + WINDOW / 2 + 1).min(n / 2);
        let [cross, power] = total[shells].iter().fold([0.0; 2], |[c, p], s| [c + s[0], p + s[1]]);
        if power > 0.0 { (cross / power).min(LARGEST) } else { 0.0 }
    };
    let mut parts: Vec<f64> = (0..n / 2).map(part).collect();
    let end = parts.iter().skip(1).position(|&part| part < LEAST).map_or(parts.len(), |at| at + 1);
    parts[end..].fill(0.0);
    parts
}

/// The number of confirmed shells.
pub(crate) fn limit(confirmed: &[f64]) -> usize {
    confirmed.iter().rposition(|&part| part > 0.0).map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_are_confirmed_up_to_the_first_that_is_not() {
        let n = 16;
        let model =
            Array3::from_shape_fn((n, n, n), |(z, y, x)| ((x * 7 + y * 13 + z * 29) % 17) as f32 - 8.0);
        let points = Points { before_origin: 0, width: n, reach: n - 1 };
        let spectrum = points.spectrum(&model, &vec![1.0; n]);
        let mut sums = FourierSums::zero(n);
        let side = sums.side();
        for z in 0..side {
            for y in 0..side {
                for x in 0..n {
                    let at = (z * side + y) * n + x;
                    let radius = (squared_radius(n, x, y, z) as f64).sqrt() / 2.0;
                    // Half of the model up to shell 5, nothing of it beyond, but in shell 7.
                    let part = if radius < 4.5 || (6.5..7.5).contains(&radius) { 0.5 } else { 0.0 };
                    sums.weight[at] = 1.0 + (x % 3) as f32;
                    sums.data[at] = spectrum[(y * side + z) * n + x] * (part * sums.weight[at]);
                }
            }
        }
        let curve = confirmed(&model, &sums);
        assert_eq!(curve.len(), n / 2);
        assert!(curve[1..4].iter().all(|part| (part - 0.5).abs() < 1e-5), "{curve:?}");
        // An average of three shells.
        assert!((5..=6).contains(&limit(&curve)) && curve[7] == 0.0, "{curve:?}");
        assert_eq!(limit(&[1.0, 0.0, 0.0]), 1);
        assert_eq!(limit(&[]), 0);
    }
}
