//! The appraisal of the particles of a model, by comparison of their images with it: contrast, score and weight of each
//! (docs/method.md, section 14). It takes place between epochs of the first mixture; later mixtures use its last result.

use std::ops::ControlFlow;

use crate::error::Result;
use crate::loader::factors::ParticleFactors;
use crate::loader::shard::Shard;
use crate::parallel::Collective;
use crate::particles::noise::NoisePower;
use crate::particles::population::{Measured, Population};
use crate::particles::selection::SubsetRows;
use crate::recipe::Settings;
use crate::recipe::likelihood::{Contrast, Likelihood, NoiseModel, Weighing};
use crate::render::{Device, ImageSums};
use crate::run_folder::appraisal::{Appraisal, Appraised};

/// Least variance of a contrast by noise: images of simulations may have none.
const LEAST_VARIANCE: f64 = 1e-12;
/// Largest contrast of a particle, over the mean.
const LARGEST_CONTRAST: f64 = 10.0;

/// Whether the particles are appraised before epoch `epoch`, from 0: before epochs 1, 2, 4, 8 and so on of the first
/// mixture after the refining one, and
/// when it is finished. Where images without a particle are only looked for, and the first appraisal has found none, it is the last.
pub(super) fn is_due(settings: &Settings, epoch: usize, appraisal: &Appraisal) -> bool {
    let (begin, refining) = (settings.refine.epochs(), settings.refining_mixtures());
    let Some(epoch) = epoch.checked_sub(begin) else { return false };
    let end = settings.first_epoch(refining + 1) - begin;
    let is_point = epoch == end || (epoch.is_power_of_two() && epoch < end);
    let Likelihood { weigh_particles, .. } = settings.likelihood;
    let looks = match weigh_particles {
        Weighing::Auto => has_empty(&appraisal.particles) || (epoch == 1 && begin + epoch < settings.epochs),
        Weighing::No | Weighing::Yes => false,
    };
    is_point && (settings.likelihood.compares() || looks)
}

/// Whether some of the particles count less than others.
pub(super) fn has_empty(particles: &[Appraised]) -> bool {
    particles.iter().any(|particle| particle.weight < 1.0)
}

/// The noise weights `[optics group][shell]` of a device, and for each group the variance of an overlap <X, Y> of noise over the
/// power <X, X>.
pub(super) fn noise_weights(likelihood: &Likelihood, noise: &NoisePower) -> (Vec<Vec<f32>>, Vec<f64>) {
    let groups = noise.groups.len();
    match likelihood.noise {
        NoiseModel::White => {
            (vec![vec![1.0]; groups], (0..groups).map(|group| noise.variance(group)).collect())
        }
        NoiseModel::Spectrum => {
            let (weights, scale) = noise.weights();
            (weights, vec![scale; groups])
        }
    }
}

/// The contrasts and weights of an appraisal that a step takes into account.
pub(super) fn factors(likelihood: &Likelihood, rows: &SubsetRows, appraisal: &Appraisal) -> ParticleFactors {
    let column = |is_used: bool, of: fn(&Appraised) -> f32| -> Vec<f32> {
        if is_used { appraisal.particles.iter().map(of).collect() } else { Vec::new() }
    };
    ParticleFactors {
        first: rows.rows.start,
        contrast: column(likelihood.contrast == Contrast::Estimated, |particle| particle.contrast),
        weight: column(likelihood.weigh_particles != Weighing::No, |particle| particle.weight),
    }
}

/// Compares the model on `device` with the images of all ranks of the group, and appraises the particles in `rows`. `epoch` is the
/// next one. Every rank of the group gets the same result.
///
/// # Errors
/// When particles cannot be read, or the device fails.
pub(super) fn appraise(
    device: &mut dyn Device,
    shard: &mut Shard,
    collective: &Collective,
    (settings, subset): (&Settings, &SubsetRows),
    epoch: usize,
    noise: &NoisePower,
) -> Result<Vec<Appraised>> {
    // Row, optics group, power and overlap of each image.
    let mut own: Vec<u64> = Vec::new();
    shard.each_batch(epoch, 0, |_, batch| {
        let sums = device.compare(&batch.observations)?;
        for ((&row, observation), ImageSums { power, overlap }) in
            batch.rows.iter().zip(&batch.observations).zip(sums)
        {
            let group = observation.noise_group as u64;
            own.extend([row as u64, group, power.to_bits(), overlap.to_bits()]);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let all = collective.all_gather_in_rank_order(&own);
    let mut sums: Vec<(usize, usize, ImageSums)> = all
        .chunks_exact(4)
        .map(|v| {
            let sums = ImageSums { power: f64::from_bits(v[2]), overlap: f64::from_bits(v[3]) };
            (v[0] as usize, v[1] as usize, sums)
        })
        .filter(|(_, _, sums)| sums.power > 0.0 && sums.power.is_finite() && sums.overlap.is_finite())
        .collect();
    sums.sort_unstable_by_key(|(row, ..)| *row);
    let (_, scales) = noise_weights(&settings.likelihood, noise);
    let images: Vec<Measured> = sums
        .iter()
        .map(|&(_, group, ImageSums { power, overlap })| Measured {
            contrast: overlap / power,
            variance: (scales[group] / power).max(LEAST_VARIANCE),
            group,
        })
        .collect();
    let mut particles = vec![Appraised::UNKNOWN; subset.rows.len()];
    let Some(population) = Population::fit(&images, scales.len()) else {
        if collective.rank() == 0 {
            tracing::warn!("{}: the model explains no image: contrast and weight stay 1", subset.name());
        }
        return Ok(particles);
    };
    let weighed: Vec<(f64, f64)> =
        images.iter().map(|image| (population.weight(image), population.posterior(image).0)).collect();
    let count: f64 = weighed.iter().map(|(weight, _)| weight).sum();
    let mean = weighed.iter().map(|(weight, contrast)| weight * contrast).sum::<f64>() / count.max(1e-9);
    for ((image, &(row, group, sums)), &(weight, contrast)) in images.iter().zip(&sums).zip(&weighed) {
        let gain = (contrast * sums.overlap - 0.5 * contrast * contrast * sums.power) / scales[group];
        particles[row - subset.rows.start] = Appraised {
            score: (2.0 * image.contrast / population.means[group] - 1.0) as f32,
            gain: gain as f32,
            contrast: (contrast / mean).clamp(0.0, LARGEST_CONTRAST) as f32,
            weight: weight as f32,
        };
    }
    if collective.rank() == 0 {
        log(subset, epoch, &population);
    }
    Ok(particles)
}

fn log(subset: &SubsetRows, epoch: usize, population: &Population) {
    let empty = match population.empty {
        Some([share, ..]) => format!("{:.1}% of the images fit as noise would", 100.0 * share),
        None => "all images fit as particles".into(),
    };
    tracing::info!(
        "{} after epoch {epoch}: contrast of the particles +-{:.0}% about the mean; {empty}",
        subset.name(),
        100.0 * population.spread.sqrt() / population.mean,
    );
}
