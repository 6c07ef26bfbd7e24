//! Whether the noise is white where the run takes it for white, and whether images have the same level of noise.

use rayon::prelude::*;

use super::{Outcome, Subject};
use crate::error::Result;
use crate::particles::noise::NoisePower;
use crate::particles::store::Block;
use crate::random::spread;
use crate::recipe::likelihood::NoiseModel;
use crate::run_folder::diagnosis::{Finding, Severity};

const SPECTRUM: &str = "noise spectrum";
const LEVELS: &str = "noise levels";
/// Ratio of the power at low to that at high frequencies, or its inverse, from which the noise is coloured.
const COLOURED: f64 = 2.0;
/// Ratio of the variances of two optics groups from which they differ.
const GROUPS: f64 = 1.5;
/// Images whose level is measured.
const IMAGES: usize = 1_000;
/// Fewest of these.
const FEWEST: usize = 50;
/// Radius in boxes beyond which pixels are background.
const BACKGROUND: f64 = 0.48;
/// Ratio of the variances of background that 5% and 95% of the images are below, from which levels differ.
const UNEVEN: f64 = 2.5;
/// Largest part of the power of an image that its background must have, on average, for it to be noise.
const LEAST_NOISE: f64 = 0.3;

/// Tests the noise.
///
/// # Errors
/// When the particles cannot be read.
pub(super) fn test(subject: &Subject) -> Result<Outcome> {
    let levels = levels(subject)?;
    let mean = |of: fn(&[f64; 2]) -> f64| levels.iter().map(of).sum::<f64>() / levels.len().max(1) as f64;
    if levels.len() < FEWEST || mean(|[background, _]| *background) < LEAST_NOISE * mean(|[_, all]| *all) {
        let reason = "the images have too little background noise, or are too few";
        let mut all = Outcome::untested(SPECTRUM, reason);
        all.add(Outcome::untested(LEVELS, reason));
        return Ok(all);
    }
    let mut all = spectrum(subject)?;
    let mut variances: Vec<f64> = levels.iter().map(|[background, _]| *background).collect();
    variances.sort_by(f64::total_cmp);
    let [low, high] = [0.05, 0.95].map(|share| variances[((variances.len() - 1) as f64 * share) as usize]);
    all.add(judge_levels(high / low.max(f64::MIN_POSITIVE), levels.len(), &original(subject)));
    Ok(all)
}

/// The file that the particles were imported from, for commands.
fn original(subject: &Subject) -> String {
    subject.store.imported_from().map_or("INPUT".to_owned(), |path| path.display().to_string())
}

/// The noise of the images as the loss takes it.
fn spectrum(subject: &Subject) -> Result<Outcome> {
    let noise = NoisePower::estimate(&subject.store, 0..subject.store.len())?;
    let Some(settings) = &subject.settings else {
        return Ok(Outcome::sound(SPECTRUM, format!("a voxel reconstruction; {}", noise.describe())));
    };
    if settings.likelihood.noise == NoiseModel::Spectrum {
        return Ok(Outcome::sound(SPECTRUM, format!("the run uses it; {}", noise.describe())));
    }
    let variances: Vec<f64> = (0..noise.groups.len())
        .filter(|&group| noise.particles[group] > 0)
        .map(|group| noise.variance(group))
        .collect();
    let [least, most] =
        variances.iter().fold([f64::INFINITY, 0.0], |[l, m], &v| [f64::min(l, v), f64::max(m, v)]);
    Ok(judge_spectrum(
        noise.fall(),
        most / least.max(f64::MIN_POSITIVE),
        variances.len(),
        &subject.particles(),
    ))
}

/// `fall`: power at low over that at high frequencies. `ratio`: of the variances of the `groups` optics groups.
fn judge_spectrum(fall: f64, ratio: f64, groups: usize, particles: &str) -> Outcome {
    let of_groups = if groups > 1 {
        format!("; variances of the optics groups differ by {ratio:.2}")
    } else {
        String::new()
    };
    let evidence =
        format!("the noise has {fall:.2} times as much power at low as at high frequencies{of_groups}");
    let is_coloured = fall.max(1.0 / fall) >= COLOURED;
    let differs = groups > 1 && ratio >= GROUPS;
    if !is_coloured && !differs {
        return Outcome::sound(SPECTRUM, evidence);
    }
    Outcome::found(
        SPECTRUM,
        Finding {
            id: "noise-coloured".into(),
            severity: Severity::Note,
            title: if differs {
                "optics groups differ in noise, which the run takes for the same"
            } else {
                "the noise is not white, as the run takes it"
            }
            .into(),
            evidence,
            cause:
                "solvent, ice and detector give more noise at low frequencies; sessions and detectors differ"
                    .into(),
            cost: if differs {
                "noisy groups count as much as good ones: about 0.015 in mean FSC where two groups differ fourfold".into()
            } else {
                "little within one optics group: frequencies with much noise count more than they should"
                    .into()
            },
            next: vec![format!("cryosplat-mpi train {particles} --noise spectrum -o run_spectrum")],
        },
    )
}

/// `ratio`: of the variances of background that 95% and 5% of the `images` images are below.
fn judge_levels(ratio: f64, images: usize, original: &str) -> Outcome {
    let evidence = format!(
        "the variance of the background of {images} images: the 95% quantile is {ratio:.2} times the 5% quantile (alike below {UNEVEN})"
    );
    if ratio < UNEVEN {
        return Outcome::sound(LEVELS, evidence);
    }
    Outcome::found(
        LEVELS,
        Finding {
            id: "normalisation".into(),
            severity: Severity::Warning,
            title: "images differ in their level of noise: they are not normalised alike".into(),
            evidence,
            cause: "images were imported with --no-normalize, or the radius of the background is inside the particle or a neighbour".into(),
            cost: "images with a larger scale count more, by its square".into(),
            next: vec![format!("cryosplat-mpi import {original} -o normalised.h5")],
        },
    )
}

/// Variance of the background, and mean square of all pixels, of a sample of the images.
fn levels(subject: &Subject) -> Result<Vec<[f64; 2]>> {
    let (store, reader) = (&subject.store, subject.store.reader());
    let n = store.header().box_size;
    let is_background: Vec<bool> = (0..n * n)
        .map(|i| {
            [i % n, i / n].map(|v| v as f64 - (n / 2) as f64).iter().map(|v| v * v).sum::<f64>().sqrt()
                > BACKGROUND * n as f64
        })
        .collect();
    let rows = spread(0..store.len(), IMAGES);
    let all: Vec<Result<Option<[f64; 2]>>> = rows
        .par_iter()
        .map_init(Block::default, |block, &row| {
            reader.read(row..row + 1, block)?;
            let (mut sums, mut square) = ([0.0; 3], 0.0);
            for (&value, &outside) in block.images.iter().zip(&is_background) {
                let value = f64::from(value);
                square += value * value;
                if outside {
                    sums = [sums[0] + 1.0, sums[1] + value, sums[2] + value * value];
                }
            }
            let [count, sum, squares] = sums;
            let variance = squares / count - (sum / count).powi(2);
            Ok(block.defects.is_empty().then_some([variance, square / (n * n) as f64]))
        })
        .collect();
    all.into_iter().filter_map(Result::transpose).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coloured_noise_and_unlike_groups_are_notes() {
        let judge = |fall, ratio, groups| judge_spectrum(fall, ratio, groups, "p.h5").findings;
        assert!(
            judge(1.05, 1.0, 1).is_empty() && judge(0.9, 1.2, 2).is_empty() && judge(1.5, 9.0, 1).is_empty()
        );
        for found in [judge(4.0, 1.0, 1), judge(0.3, 1.0, 1), judge(1.0, 4.0, 2)] {
            assert_eq!((found[0].id.as_str(), found[0].severity), ("noise-coloured", Severity::Note));
            assert!(found[0].next[0].contains("--noise spectrum"));
        }
    }

    #[test]
    fn images_of_unlike_levels_are_not_normalised() {
        assert!(judge_levels(1.3, 500, "in.star").findings.is_empty());
        let found = &judge_levels(4.0, 500, "in.star").findings[0];
        assert_eq!(found.id, "normalisation");
        assert_eq!(found.next, ["cryosplat-mpi import in.star -o normalised.h5"]);
    }
}
