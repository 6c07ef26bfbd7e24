//! Images without a particle, and the spread of the contrast: images of a sample against the map of the other half.

use rayon::prelude::*;

use super::{Outcome, Subject};
use crate::error::Result;
use crate::evaluate::Fsc;
use crate::imaging::projection::Projector;
use crate::particles::noise::NoisePower;
use crate::particles::population::{Measured, Population};
use crate::particles::store::Block;
use crate::random::spread;
use crate::recipe::likelihood::{Contrast, Weighing};
use crate::run_folder::diagnosis::{Finding, Severity};
use crate::voxels::slice::{Slice, SliceExtractor};

const JUNK: &str = "images without a particle";
const SPREAD: &str = "contrast of the particles";
/// Images of each half.
const IMAGES: usize = 600;
/// Fewest images in all.
const FEWEST: usize = 100;
/// FSC of the half maps that ends the shells that are compared.
const SIGNAL: f64 = 0.5;
/// Shells that are compared, at least and at most.
const SHELLS: [usize; 2] = [4, 48];
/// Least mean contrast over its standard deviation by noise for images with and without a particle to differ.
const DISTINCT: f64 = 2.5;
/// Share of images without a particle that counts, beyond three standard errors.
const LEAST_SHARE: f64 = 0.03;
/// Share from which it is a warning even if the run gives such images less weight.
const MUCH: f64 = 0.2;
/// Spread of the contrast over its mean that counts.
const LEAST_SPREAD: f64 = 0.25;

/// Tests a sample of the images of both halves.
///
/// # Errors
/// When the particles cannot be read.
pub(super) fn test(subject: &Subject) -> Result<Outcome> {
    let untested = |reason: &str| {
        let mut all = Outcome::untested(JUNK, reason);
        all.add(Outcome::untested(SPREAD, reason));
        Ok(all)
    };
    let box_size = subject.store.header().box_size;
    let [first, second] = &subject.half_maps;
    if first.data.dim() != (box_size, box_size, box_size) {
        return untested("the maps have another box than the particles");
    }
    let fsc = Fsc::between(first, second)?;
    let end = fsc.shells.iter().skip(1).position(|&fsc| fsc < SIGNAL).map_or(fsc.shells.len(), |at| at + 1);
    let end = end.min(SHELLS[1] + 1);
    if end <= SHELLS[0] {
        return untested("the half maps have too little signal");
    }
    let images = measure(subject, end)?;
    if images.len() < FEWEST {
        return untested("there are too few images");
    }
    let groups = subject.store.header().optics.len();
    let Some(population) = Population::fit(&images, groups) else {
        return untested("the maps explain no image");
    };
    let variance = images.iter().map(|image| image.variance).sum::<f64>() / images.len() as f64;
    let numbers = Numbers {
        images: images.len(),
        share: population.empty.map_or(0.0, |[share, ..]| share),
        spread: population.spread.sqrt() / population.mean,
        distinct: population.mean / variance.sqrt(),
    };
    let likelihood = subject.settings.as_ref().map(|settings| settings.likelihood).unwrap_or_default();
    let mut all = judge_junk(&numbers, likelihood.weigh_particles, subject);
    all.add(judge_spread(&numbers, likelihood.contrast, &subject.particles()));
    Ok(all)
}

/// The distribution of contrasts.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    images: usize,
    /// Share of images without a particle.
    share: f64,
    /// Spread of the contrast over its mean.
    spread: f64,
    /// Mean contrast over its standard deviation by noise.
    distinct: f64,
}

impl Numbers {
    /// Standard error of the share.
    fn error(&self) -> f64 {
        (self.share * (1.0 - self.share) / self.images as f64).sqrt()
    }
}

/// The contrast of a sample of the images of each half, compared with the map of the other half in the shells 1 to below `end`.
fn measure(subject: &Subject, end: usize) -> Result<Vec<Measured>> {
    let (store, header) = (&subject.store, subject.store.header());
    let (reader, n) = (store.reader(), header.box_size);
    let extractor = SliceExtractor::new(n, header.pixel_size);
    let mut images = Vec::new();
    for (half, rows) in subject.subsets.iter().enumerate() {
        let noise = NoisePower::estimate(store, rows.rows.clone())?;
        let map = Projector::new(&subject.half_maps[1 - half].data);
        // Power of a frequency, and half of it in phase with the model.
        let scales: Vec<f64> =
            (0..noise.groups.len()).map(|group| 0.5 * noise.variance(group) * (n * n) as f64).collect();
        let sample = spread(rows.rows.clone(), IMAGES);
        let of_half: Vec<Result<Option<Measured>>> = sample
            .par_iter()
            .map_init(
                || (Block::default(), Slice::default(), extractor.scratch()),
                |(block, slice, scratch), &row| {
                    reader.read(row..row + 1, block)?;
                    let particle = block.particles[0];
                    extractor.extract(&block.images, &reader.view(&particle), slice, scratch);
                    let [overlap, power] = extractor.compare(slice, &map, &(1..end));
                    let group = particle.optics_group as usize;
                    let usable = block.defects.is_empty() && slice.finite && power > 0.0 && power.is_finite();
                    let measured = || Measured {
                        contrast: overlap / power,
                        variance: (scales[group] / power).max(1e-12),
                        group,
                    };
                    Ok(usable.then(measured))
                },
            )
            .collect();
        images.extend(of_half.into_iter().filter_map(Result::transpose).collect::<Result<Vec<_>>>()?);
    }
    Ok(images)
}

fn judge_junk(numbers: &Numbers, weighing: Weighing, subject: &Subject) -> Outcome {
    junk(numbers, weighing, &subject.run(), &subject.particles())
}

/// The outcome for images without a particle.
fn junk(numbers: &Numbers, weighing: Weighing, run: &str, particles: &str) -> Outcome {
    let Numbers { images, share, distinct, .. } = *numbers;
    let error = numbers.error();
    if distinct < DISTINCT {
        let reason = format!(
            "the images are too noisy: the contrast of one is {distinct:.1} times its standard deviation by noise (at least {DISTINCT} are needed)"
        );
        return Outcome::untested(JUNK, reason);
    }
    let evidence = format!(
        "of {images} images compared with the map of the other half, {:.1} +- {:.1}% fit as noise would",
        100.0 * share,
        100.0 * error
    );
    if share - 3.0 * error < LEAST_SHARE {
        return Outcome::sound(JUNK, evidence);
    }
    let weighed = weighing != Weighing::No;
    Outcome::found(
        JUNK,
        Finding {
            id: "junk".into(),
            severity: if weighed && share < MUCH { Severity::Note } else { Severity::Warning },
            title: format!("about {:.0}% of the images show no particle in their pose", 100.0 * share),
            evidence,
            cause: "picks of ice, carbon or damaged particles; or images with the poses of others (mixed-up rows)"
                .into(),
            cost: if weighed {
                "little: the run found them and gave them less weight".into()
            } else {
                format!("noise without signal: an SNR of {:.2} of that of the particles alone", 1.0 - share)
            },
            next: vec![
                format!("cryosplat-mpi train {particles} --weigh-particles=yes -o run_weighed"),
                format!("cryosplat-mpi export star {particles} --run {run} -o selected.star"),
            ],
        },
    )
}

/// The outcome for the spread of the contrast.
fn judge_spread(numbers: &Numbers, contrast: Contrast, particles: &str) -> Outcome {
    let Numbers { images, spread, distinct, .. } = *numbers;
    if distinct < DISTINCT {
        return Outcome::untested(SPREAD, "the images are too noisy");
    }
    let evidence = format!(
        "+-{:.0}% about the mean, in {images} images compared with the map of the other half",
        100.0 * spread
    );
    if spread < LEAST_SPREAD || contrast == Contrast::Estimated {
        return Outcome::sound(SPREAD, evidence);
    }
    Outcome::found(
        SPREAD,
        Finding {
            id: "contrast-spread".into(),
            severity: Severity::Note,
            title: format!("the contrast of the particles differs by +-{:.0}%", 100.0 * spread),
            evidence,
            cause: "ice of different thickness, or poses of different quality".into(),
            cost: "weak particles count too much: about 0.004 in mean FSC where it differs by 30%".into(),
            next: vec![format!("cryosplat-mpi train {particles} --contrast estimated -o run_contrast")],
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: Numbers = Numbers { images: 1000, share: 0.0, spread: 0.1, distinct: 5.0 };

    #[test]
    fn a_share_beyond_its_error_is_found() {
        let judge =
            |share, images| junk(&Numbers { share, images, ..SOUND }, Weighing::No, "run", "p.h5").findings;
        assert!(judge(0.0, 1000).is_empty() && judge(0.04, 1000).is_empty() && judge(0.1, 100).is_empty());
        let found = &judge(0.3, 1000)[0];
        assert_eq!((found.id.as_str(), found.severity), ("junk", Severity::Warning));
        assert!(found.evidence.contains("30.0 +- 1.4%"), "{}", found.evidence);
        let noisy = junk(&Numbers { share: 0.3, distinct: 1.0, ..SOUND }, Weighing::No, "run", "p.h5");
        assert!(noisy.findings.is_empty() && !noisy.tested[0].done);
        let weighed =
            |share| junk(&Numbers { share, ..SOUND }, Weighing::Auto, "run", "p.h5").findings[0].severity;
        assert_eq!([weighed(0.1), weighed(0.3)], [Severity::Note, Severity::Warning]);
    }

    #[test]
    fn a_large_spread_is_a_note_unless_the_run_estimates_contrasts() {
        let judge = |spread, contrast| judge_spread(&Numbers { spread, ..SOUND }, contrast, "p.h5").findings;
        assert!(judge(0.1, Contrast::One).is_empty() && judge(0.4, Contrast::Estimated).is_empty());
        assert_eq!(judge(0.4, Contrast::One)[0].id, "contrast-spread");
    }
}
