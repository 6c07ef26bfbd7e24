//! A model of a step's time, fitted to measured runs, which predicts runs on more ranks.
//!
//! A step of a group of R ranks, the slowest of which has b images, takes
//!
//! ```text
//! t = max(work, read b)
//! work = overhead + image b + latency log2(R) + (gradient's bytes) 2 (R - 1) / R / bandwidth
//! ```
//!
//! - `overhead`: what a step takes whatever its batch: activating the Gaussians, the end of the chain rule, Adam. Each rank
//!   does it for all Gaussians.
//! - `image`: an image's rendering and differentiation.
//! - `latency` and `bandwidth`: the all-reduce. A tree or recursive doubling has log2(R) rounds; a ring moves each byte
//!   2 (R - 1) / R times over the slowest link. What ranks wait for the slowest of them is in `latency` too.
//! - `read`: the time in which a rank's share of the file system brings an image. Reading runs beside the whole step, so the
//!   slower of the two decides. It is known only from runs that waited for their input, whose waiting is left out of `work`.
//!
//! The parameters are those, none negative, with the least sum of squared RELATIVE errors: steps differ by orders of magnitude.
//! A term that the runs cannot tell from another is left out: `overhead` where all have the same b, `bandwidth` where they
//! have fewer than two values of R above 1. What is then left out makes a prediction no smaller than its neighbour does:
//! log2(R) grows without end, 2 (R - 1) / R does not.
//!
//! The model does not know of networks that get slower beyond a node or a switch when all runs were within one, nor of a file
//! system that many ranks share.

use super::fit;

/// A run that waits for its input for more than this share of the time is bound by it.
const READ_BOUND: f64 = 0.05;

/// A measured step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Ranks of the group.
    pub ranks: usize,
    /// Images of the slowest rank in a step.
    pub images: f64,
    /// Seconds of a step.
    pub seconds: f64,
    /// Seconds of these in which ranks waited for their input, on average; `None` where unknown.
    pub waited: Option<f64>,
}

/// A fitted model. All times in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Of a step, whatever its images.
    pub overhead: f64,
    /// Of an image.
    pub image: f64,
    /// Times log2 of the ranks.
    pub latency: f64,
    /// Seconds a byte of the all-reduce; 0 where it was left out or not noticed.
    pub per_byte: f64,
    /// Bytes of the gradient.
    pub bytes: f64,
    /// Reading an image, where runs waited for that.
    pub read: Option<f64>,
    /// Samples that it was fitted to.
    pub samples: usize,
    /// Samples with ranks and images of their own.
    pub distinct: usize,
    /// Parameters that were fitted.
    pub parameters: usize,
    /// Root of the mean squared relative error over the samples.
    pub residual: f64,
    /// The largest relative error.
    pub worst: f64,
}

impl Model {
    /// Fits `samples`; `bytes` is the gradient's size, 0 where unknown. `None` without a sample.
    pub fn fit(samples: &[Sample], bytes: f64) -> Option<Self> {
        if samples.is_empty() {
            return None;
        }
        let different = |values: Vec<u64>| {
            let mut values = values;
            values.sort_unstable();
            values.dedup();
            values.len()
        };
        let groups = different(samples.iter().map(|s| s.ranks as u64).filter(|&r| r > 1).collect());
        let images = different(samples.iter().map(|s| s.images.to_bits()).collect());
        let kept = [images > 1, true, groups > 0, groups > 1 && bytes > 0.0];
        // However long it waited, it did something.
        let work = |s: &Sample| (s.seconds - s.waited.unwrap_or(0.0)).max(1e-3 * s.seconds);
        let rows: Vec<Vec<f64>> = samples
            .iter()
            .map(|s| {
                let terms = terms(s.ranks, s.images, bytes);
                terms.iter().zip(kept).map(|(term, keep)| if keep { term / work(s) } else { 0.0 }).collect()
            })
            .collect();
        let parameters = fit::nonnegative(&rows, &vec![1.0; samples.len()]);
        let bound: Vec<f64> = samples
            .iter()
            .filter(|s| s.waited.is_some_and(|waited| waited > READ_BOUND * s.seconds))
            .map(|s| s.seconds / s.images)
            .collect();
        let read = (!bound.is_empty()).then(|| bound.iter().sum::<f64>() / bound.len() as f64);
        let mut model = Self {
            overhead: parameters[0],
            image: parameters[1],
            latency: parameters[2],
            per_byte: parameters[3],
            bytes,
            read,
            samples: samples.len(),
            distinct: different(
                samples.iter().map(|s| (s.ranks as u64) << 32 | s.images as u64).collect::<Vec<_>>(),
            ),
            parameters: kept.iter().filter(|&&k| k).count() + usize::from(read.is_some()),
            residual: 0.0,
            worst: 0.0,
        };
        let errors: Vec<f64> =
            samples.iter().map(|s| (model.step(s.ranks, s.images) / s.seconds - 1.0).abs()).collect();
        model.residual = (errors.iter().map(|e| e * e).sum::<f64>() / errors.len() as f64).sqrt();
        model.worst = errors.into_iter().fold(0.0, f64::max);
        Some(model)
    }

    /// Seconds of a step of `ranks` ranks, the slowest of which has `images` images.
    pub fn step(&self, ranks: usize, images: f64) -> f64 {
        let parameters = [self.overhead, self.image, self.latency, self.per_byte];
        let work: f64 = terms(ranks, images, self.bytes).iter().zip(parameters).map(|(t, p)| t * p).sum();
        work.max(self.read.unwrap_or(0.0) * images)
    }

    /// The formula with its numbers, for a reader.
    pub fn formula(&self) -> String {
        let mut formula =
            format!("t = {} + {} b + {} log2(R)", time(self.overhead), time(self.image), time(self.latency));
        if self.per_byte > 0.0 {
            let (bytes, rate) = (self.bytes / 1e6, 1e-9 / self.per_byte);
            formula += &format!(" + {bytes:.2} MB x 2 (R - 1) / R / ({rate:.2} GB/s)");
        }
        if let Some(read) = self.read {
            formula += &format!(", at least {} b to read", time(read));
        }
        formula
    }
}

/// What the parameters are multiplied by.
fn terms(ranks: usize, images: f64, bytes: f64) -> [f64; 4] {
    let r = ranks as f64;
    [1.0, images, r.log2(), bytes * 2.0 * (r - 1.0) / r]
}

/// Seconds in a unit that suits them.
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

    fn truth() -> Model {
        Model {
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
            worst: 0.0,
        }
    }

    fn sample(model: &Model, ranks: usize, images: f64) -> Sample {
        Sample { ranks, images, seconds: model.step(ranks, images), waited: Some(0.0) }
    }

    fn strong_and_weak(model: &Model) -> Vec<Sample> {
        [1, 2, 4, 8]
            .iter()
            .flat_map(|&r| [(r, 64.0 / r as f64), (r, 16.0)])
            .map(|(r, b)| sample(model, r, b))
            .collect()
    }

    #[test]
    fn what_the_model_made_gives_the_model_back() {
        let truth = truth();
        let fitted = Model::fit(&strong_and_weak(&truth), BYTES).unwrap();
        for (name, found, wanted) in [
            ("overhead", fitted.overhead, truth.overhead),
            ("image", fitted.image, truth.image),
            ("latency", fitted.latency, truth.latency),
            ("per byte", fitted.per_byte, truth.per_byte),
        ] {
            assert!((found / wanted - 1.0).abs() < 1e-6, "{name}: {found} for {wanted}");
        }
        assert!(fitted.worst < 1e-9 && fitted.parameters == 4 && fitted.samples == 8 && fitted.distinct == 7);
        assert!((fitted.step(64, 1.0) / truth.step(64, 1.0) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn noise_shows_in_the_residual_and_no_term_becomes_negative() {
        let mut samples = strong_and_weak(&truth());
        for (k, sample) in samples.iter_mut().enumerate() {
            sample.seconds *= if k % 2 == 0 { 1.04 } else { 0.96 };
        }
        let fitted = Model::fit(&samples, BYTES).unwrap();
        assert!((0.01..0.08).contains(&fitted.residual) && fitted.worst >= fitted.residual, "{fitted:?}");
        assert!([fitted.overhead, fitted.image, fitted.latency, fitted.per_byte].iter().all(|&p| p >= 0.0));
    }

    #[test]
    fn terms_that_the_runs_cannot_tell_apart_are_left_out() {
        let truth = truth();
        let weak: Vec<Sample> = [1, 2].iter().map(|&r| sample(&truth, r, 16.0)).collect();
        let fitted = Model::fit(&weak, BYTES).unwrap();
        assert_eq!((fitted.parameters, fitted.overhead, fitted.per_byte), (2, 0.0, 0.0));
        assert!(fitted.worst < 1e-9, "both are met: {fitted:?}");
        let alone = Model::fit(&[sample(&truth, 1, 8.0)], BYTES).unwrap();
        assert_eq!((alone.parameters, alone.latency), (1, 0.0));
        assert!(Model::fit(&[], BYTES).is_none());
    }

    #[test]
    fn runs_that_wait_for_their_input_tell_how_fast_it_comes() {
        let truth = Model { read: Some(5e-3), ..truth() };
        let waiting = |ranks, images| {
            let work = Model { read: None, ..truth.clone() }.step(ranks, images);
            let seconds = truth.step(ranks, images);
            Sample { ranks, images, seconds, waited: Some(seconds - work) }
        };
        let samples: Vec<Sample> =
            [(1, 64.0), (2, 32.0), (4, 16.0), (4, 1.0), (2, 1.0)].map(|(r, b)| waiting(r, b)).to_vec();
        assert!(samples[0].waited.unwrap() > 0.1 && samples[3].waited.unwrap() < 1e-6, "{samples:?}");
        let fitted = Model::fit(&samples, BYTES).unwrap();
        assert!((fitted.read.unwrap() / 5e-3 - 1.0).abs() < 1e-9 && fitted.worst < 1e-6, "{fitted:?}");
        assert!((fitted.image / truth.image - 1.0).abs() < 1e-6, "waiting is no work: {fitted:?}");
        assert!(fitted.formula().contains("at least 5.00 ms b to read"), "{}", fitted.formula());
    }
}
