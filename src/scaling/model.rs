//! A model of the time per step, fitted to measured runs, which predicts runs on more ranks.
//!
//! A step of a group of R ranks, with b images on the slowest rank, takes
//!
//! ```text
//! t = max(work, read b)
//! work = overhead + image b + latency log2(R) + (gradient's bytes) 2 (R - 1) / R / bandwidth
//! ```
//!
//! - `overhead`: the time that does not depend on the batch: activating the Gaussians, the last part of the chain rule, Adam.
//!   Each rank does this for all Gaussians.
//! - `image`: rendering and differentiating one image.
//! - `latency` and `bandwidth`: the all-reduce. A tree or recursive doubling has log2(R) rounds; a ring moves each byte
//!   2 (R - 1) / R times over the slowest link. Waiting for the slowest rank is part of `latency`.
//! - `read`: the time to read one image with a rank's share of the file system. Reading overlaps with the step, so the slower of
//!   the two counts. It is known only from runs that waited for input; their waiting time is subtracted from `work`.
//!
//! The fit minimises the sum of squared RELATIVE errors with non-negative parameters, because steps differ by orders of magnitude.
//! Terms that the runs cannot distinguish are omitted: `overhead` if all runs have the same b, `bandwidth` if they have fewer than
//! two values of R above 1. `latency` then covers both; it is the pessimistic choice, since log2(R) grows without bound and
//! 2 (R - 1) / R does not.
//!
//! The model does not cover networks that are slower between nodes or switches if all runs were within one, nor a file system
//! that is shared by many ranks.

use super::fit;

/// A run that waits for input for more than this fraction of the time is input-bound.
const READ_BOUND: f64 = 0.05;

/// A measured step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepSample {
    /// Ranks per group.
    pub ranks: usize,
    /// Images per step on the slowest rank.
    pub images: f64,
    /// Seconds per step.
    pub seconds: f64,
    /// Seconds per step spent waiting for input, mean over the ranks; `None` if unknown.
    pub waited: Option<f64>,
}

/// A fitted model. Times are in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct StepTimeModel {
    /// Per step.
    pub overhead: f64,
    /// Per image.
    pub image: f64,
    /// Per round of the all-reduce, of which there are log2(ranks).
    pub latency: f64,
    /// Per byte of the all-reduce; 0 if the term was omitted or fitted to zero.
    pub per_byte: f64,
    /// Bytes of the gradient.
    pub bytes: f64,
    /// Reading one image; `None` if no run was input-bound.
    pub read: Option<f64>,
    /// Number of samples.
    pub samples: usize,
    /// Number of distinct pairs of ranks and images.
    pub distinct: usize,
    /// Number of fitted parameters.
    pub parameters: usize,
    /// Root mean square of the relative errors.
    pub residual: f64,
    /// Largest relative error.
    pub max_error: f64,
}

impl StepTimeModel {
    /// Fits `samples`; `bytes` is the size of the gradient, 0 if unknown. `None` without samples.
    pub fn fit(samples: &[StepSample], bytes: f64) -> Option<Self> {
        if samples.is_empty() {
            return None;
        }
        let count_distinct = |mut values: Vec<u64>| {
            values.sort_unstable();
            values.dedup();
            values.len()
        };
        let groups = count_distinct(samples.iter().map(|s| s.ranks as u64).filter(|&r| r > 1).collect());
        let images = count_distinct(samples.iter().map(|s| s.images.to_bits()).collect());
        let fitted = [images > 1, true, groups > 0, groups > 1 && bytes > 0.0];
        // At least a small part is work, also if the waiting time was overestimated.
        let work = |s: &StepSample| (s.seconds - s.waited.unwrap_or(0.0)).max(1e-3 * s.seconds);
        let rows: Vec<Vec<f64>> = samples
            .iter()
            .map(|s| {
                let terms = terms(s.ranks, s.images, bytes);
                terms
                    .iter()
                    .zip(fitted)
                    .map(|(term, fitted)| if fitted { term / work(s) } else { 0.0 })
                    .collect()
            })
            .collect();
        let parameters = fit::nonnegative(&rows, &vec![1.0; samples.len()]);
        let read_times: Vec<f64> = samples
            .iter()
            .filter(|s| s.waited.is_some_and(|waited| waited > READ_BOUND * s.seconds))
            .map(|s| s.seconds / s.images)
            .collect();
        let read = (!read_times.is_empty()).then(|| read_times.iter().sum::<f64>() / read_times.len() as f64);
        let mut model = Self {
            overhead: parameters[0],
            image: parameters[1],
            latency: parameters[2],
            per_byte: parameters[3],
            bytes,
            read,
            samples: samples.len(),
            distinct: count_distinct(
                samples.iter().map(|s| (s.ranks as u64) << 32 | s.images as u64).collect::<Vec<_>>(),
            ),
            parameters: fitted.iter().filter(|&&k| k).count() + usize::from(read.is_some()),
            residual: 0.0,
            max_error: 0.0,
        };
        let errors: Vec<f64> =
            samples.iter().map(|s| (model.step(s.ranks, s.images) / s.seconds - 1.0).abs()).collect();
        model.residual = (errors.iter().map(|e| e * e).sum::<f64>() / errors.len() as f64).sqrt();
        model.max_error = errors.into_iter().fold(0.0, f64::max);
        Some(model)
    }

    /// Predicted seconds per step for `ranks` ranks with `images` images on the slowest one.
    pub fn step(&self, ranks: usize, images: f64) -> f64 {
        let parameters = [self.overhead, self.image, self.latency, self.per_byte];
        let work: f64 = terms(ranks, images, self.bytes).iter().zip(parameters).map(|(t, p)| t * p).sum();
        work.max(self.read.unwrap_or(0.0) * images)
    }

    /// The formula with the fitted numbers, as text.
    pub fn formula(&self) -> String {
        let mut formula =
            format!("t = {} + {} b + {} log2(R)", time(self.overhead), time(self.image), time(self.latency));
        if self.per_byte > 0.0 {
            let (bytes, rate) = (self.bytes / 1e6, 1e-9 / self.per_byte);
            formula += &format!(" + {bytes:.2} MB x 2 (R - 1) / R / ({rate:.2} GB/s)");
        }
        if let Some(read) = self.read {
            formula += &format!(", at least {} b for reading", time(read));
        }
        formula
    }
}

/// The factors of the four parameters.
fn terms(ranks: usize, images: f64, bytes: f64) -> [f64; 4] {
    let r = ranks as f64;
    [1.0, images, r.log2(), bytes * 2.0 * (r - 1.0) / r]
}

/// Formats seconds with a suitable unit.
pub fn time(seconds: f64) -> String {
    match seconds {
        0.0 => "0".into(),
        s if s < 1e-3 => format!("{:.1} µs", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: f64 = 1.32e6;

    fn reference() -> StepTimeModel {
        StepTimeModel {
            overhead: 3e-3,
            image: 2e-3,
            latency: 4e-4,
            per_byte: 1e-9,
            bytes: BYTES,
            read: None,
            samples: 0,
            distinct: 0,
            parameters: 0,
            residual: 0.0,
            max_error: 0.0,
        }
    }

    fn sample(model: &StepTimeModel, ranks: usize, images: f64) -> StepSample {
        StepSample { ranks, images, seconds: model.step(ranks, images), waited: Some(0.0) }
    }

    fn strong_and_weak(model: &StepTimeModel) -> Vec<StepSample> {
        [1, 2, 4, 8]
            .iter()
            .flat_map(|&r| [(r, 64.0 / r as f64), (r, 16.0)])
            .map(|(r, b)| sample(model, r, b))
            .collect()
    }

    #[test]
    fn the_fit_recovers_the_parameters() {
        let reference = reference();
        let fitted = StepTimeModel::fit(&strong_and_weak(&reference), BYTES).unwrap();
        for (name, found, wanted) in [
            ("overhead", fitted.overhead, reference.overhead),
            ("image", fitted.image, reference.image),
            ("latency", fitted.latency, reference.latency),
            ("per byte", fitted.per_byte, reference.per_byte),
        ] {
            assert!((found / wanted - 1.0).abs() < 1e-6, "{name}: {found} for {wanted}");
        }
        assert!(
            fitted.max_error < 1e-9 && fitted.parameters == 4 && fitted.samples == 8 && fitted.distinct == 7
        );
        assert!((fitted.step(64, 1.0) / reference.step(64, 1.0) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn noise_increases_the_residual_and_no_term_is_negative() {
        let mut samples = strong_and_weak(&reference());
        for (k, sample) in samples.iter_mut().enumerate() {
            sample.seconds *= if k % 2 == 0 { 1.04 } else { 0.96 };
        }
        let fitted = StepTimeModel::fit(&samples, BYTES).unwrap();
        assert!((0.01..0.08).contains(&fitted.residual) && fitted.max_error >= fitted.residual, "{fitted:?}");
        assert!([fitted.overhead, fitted.image, fitted.latency, fitted.per_byte].iter().all(|&p| p >= 0.0));
    }

    #[test]
    fn terms_that_the_runs_cannot_distinguish_are_omitted() {
        let reference = reference();
        let weak: Vec<StepSample> = [1, 2].iter().map(|&r| sample(&reference, r, 16.0)).collect();
        let fitted = StepTimeModel::fit(&weak, BYTES).unwrap();
        assert_eq!((fitted.parameters, fitted.overhead, fitted.per_byte), (2, 0.0, 0.0));
        assert!(fitted.max_error < 1e-9, "both samples are met: {fitted:?}");
        let alone = StepTimeModel::fit(&[sample(&reference, 1, 8.0)], BYTES).unwrap();
        assert_eq!((alone.parameters, alone.latency), (1, 0.0));
        assert!(StepTimeModel::fit(&[], BYTES).is_none());
    }

    #[test]
    fn input_bound_runs_give_the_reading_time() {
        let reference = StepTimeModel { read: Some(5e-3), ..reference() };
        let waiting = |ranks, images| {
            let work = StepTimeModel { read: None, ..reference.clone() }.step(ranks, images);
            let seconds = reference.step(ranks, images);
            StepSample { ranks, images, seconds, waited: Some(seconds - work) }
        };
        let samples: Vec<StepSample> =
            [(1, 64.0), (2, 32.0), (4, 16.0), (4, 1.0), (2, 1.0)].map(|(r, b)| waiting(r, b)).to_vec();
        assert!(samples[0].waited.unwrap() > 0.1 && samples[3].waited.unwrap() < 1e-6, "{samples:?}");
        let fitted = StepTimeModel::fit(&samples, BYTES).unwrap();
        assert!((fitted.read.unwrap() / 5e-3 - 1.0).abs() < 1e-9 && fitted.max_error < 1e-6, "{fitted:?}");
        assert!((fitted.image / reference.image - 1.0).abs() < 1e-6, "waiting is not work: {fitted:?}");
        assert!(fitted.formula().contains("at least 5.00 ms b for reading"), "{}", fitted.formula());
    }
}
