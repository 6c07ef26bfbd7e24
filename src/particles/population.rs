//! The distribution of contrasts over the particles of a model: a normal distribution about the mean of each optics group, and a
//! share of images that fit as noise would (docs/method.md, section 14).

use std::f64::consts::TAU;

/// Largest number of particles that the distribution is fitted to, spread evenly.
const FITTED: usize = 100_000;
/// Iterations of expectation maximisation.
const ITERATIONS: usize = 60;
/// The mean of all optics groups counts in that of a group as this many particles.
const PRIOR_PARTICLES: f64 = 10.0;
/// Largest mean contrast of images without a particle, which the model follows a little, over that of particles.
const LARGEST_EMPTY: f64 = 0.3;
/// Range of their variance over that of the noise.
const EMPTY_VARIANCE: [f64; 2] = [0.5, 4.0];
/// Log-likelihood that a share of images without a particle must gain, beside 3/2 ln n for its three numbers.
const EVIDENCE: f64 = 10.0;

/// The contrast of one image by least squares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measured {
    /// <X, Y> over <X, X>.
    pub contrast: f64,
    /// Its variance by noise.
    pub variance: f64,
    /// Optics group.
    pub group: usize,
}

/// The distribution of contrasts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Population {
    /// Mean contrast of each optics group.
    pub means: Vec<f64>,
    /// Mean contrast of all particles.
    pub mean: f64,
    /// Variance of the contrast about the mean of its group.
    pub spread: f64,
    /// Share of images without a particle, their mean contrast, and their variance over that of the noise.
    pub empty: Option<[f64; 3]>,
}

/// Density of a normal distribution.
fn normal(x: f64, variance: f64) -> f64 {
    (-0.5 * x * x / variance).exp() / (TAU * variance).sqrt()
}

/// The value below which this share of the contrasts lies.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

impl Population {
    /// Fits the distribution to `images` of `groups` optics groups, with images without a particle if the evidence for them is
    /// strong. `None` where no image has a contrast above 0 on average.
    pub fn fit(images: &[Measured], groups: usize) -> Option<Self> {
        let step = images.len().div_ceil(FITTED).max(1);
        let sample: Vec<Measured> = images.iter().copied().step_by(step).collect();
        let mut sorted: Vec<f64> = sample.iter().map(|image| image.contrast).collect();
        sorted.sort_by(f64::total_cmp);
        if sorted.is_empty() || quantile(&sorted, 0.75) <= 0.0 {
            return None;
        }
        let [low, middle, high] = [0.25, 0.5, 0.75].map(|share| quantile(&sorted, share));
        let alone =
            Self::from_start(&sample, groups, middle.max(0.1 * high), (high - low).max(0.1 * high), None);
        let mixed = Self::from_start(&sample, groups, high, 0.5 * high, Some([0.1, 0.0, 1.0]));
        let gain = mixed.log_likelihood(&sample) - alone.log_likelihood(&sample);
        let chosen = if gain > EVIDENCE + 1.5 * (sample.len() as f64).ln() { mixed } else { alone };
        (chosen.mean > 0.0).then_some(chosen)
    }

    fn from_start(
        images: &[Measured],
        groups: usize,
        mean: f64,
        deviation: f64,
        empty: Option<[f64; 3]>,
    ) -> Self {
        let mut population = Self { means: vec![mean; groups], mean, spread: deviation * deviation, empty };
        for _ in 0..ITERATIONS {
            population = population.improved(images);
        }
        population
    }

    /// One iteration of expectation maximisation.
    fn improved(&self, images: &[Measured]) -> Self {
        let mut of_groups = vec![[0.0f64; 2]; self.means.len()];
        let (mut squares, mut empty) = (0.0, [0.0f64; 4]);
        for image in images {
            let weight = self.weight(image);
            let (contrast, variance) = self.posterior(image);
            let [sum, count] = &mut of_groups[image.group];
            *sum += weight * contrast;
            *count += weight;
            squares += weight * (variance + (contrast - self.means[image.group]).powi(2));
            if let Some([_, mean, _]) = self.empty {
                let (rest, precision) = (1.0 - weight, 1.0 / image.variance);
                empty[0] += rest;
                empty[1] += rest * precision * image.contrast;
                empty[2] += rest * precision;
                empty[3] += rest * precision * (image.contrast - mean).powi(2);
            }
        }
        let [sum, count] = of_groups.iter().fold([0.0, 0.0], |[a, b], [sum, count]| [a + sum, b + count]);
        let count = count.max(1e-9);
        let mean = sum / count;
        let drawn = |[sum, count]: &[f64; 2]| (sum + PRIOR_PARTICLES * mean) / (count + PRIOR_PARTICLES);
        let [least, most] = EMPTY_VARIANCE;
        Self {
            means: of_groups.iter().map(drawn).collect(),
            mean,
            spread: (squares / count).max(1e-6 * mean * mean).max(f64::MIN_POSITIVE),
            empty: self.empty.map(|_| {
                let share = (empty[0] / images.len() as f64).clamp(1e-4, 0.95);
                let largest = LARGEST_EMPTY * mean.max(0.0);
                let of_empty = (empty[1] / empty[2].max(f64::MIN_POSITIVE)).clamp(0.0, largest);
                [share, of_empty, (empty[3] / empty[0].max(1e-9)).clamp(least, most)]
            }),
        }
    }

    /// Densities of an image as one with a particle, and as one without, times their shares.
    fn densities(&self, image: &Measured) -> [f64; 2] {
        let [share, mean, factor] = self.empty.unwrap_or([0.0, 0.0, 1.0]);
        let particle = normal(image.contrast - self.means[image.group], self.spread + image.variance);
        let none = if share > 0.0 { normal(image.contrast - mean, factor * image.variance) } else { 0.0 };
        [(1.0 - share) * particle, share * none]
    }

    fn log_likelihood(&self, images: &[Measured]) -> f64 {
        let of = |image| self.densities(image).iter().sum::<f64>().max(f64::MIN_POSITIVE).ln();
        images.iter().map(of).sum()
    }

    /// Probability that the image has a particle.
    pub fn weight(&self, image: &Measured) -> f64 {
        let Some([_, mean, _]) = self.empty else { return 1.0 };
        let [particle, none] = self.densities(image);
        if particle + none > 0.0 {
            particle / (particle + none)
        } else {
            // Far from both.
            f64::from(u8::from(image.contrast > 0.5 * (mean + self.means[image.group])))
        }
    }

    /// Mean and variance of the contrast of a particle, given its image.
    pub fn posterior(&self, image: &Measured) -> (f64, f64) {
        let mean = self.means[image.group];
        let share = self.spread / (self.spread + image.variance);
        (mean + share * (image.contrast - mean), share * image.variance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, stream};
    use rand_distr::{Distribution, StandardNormal};

    /// Images of two groups with these means and this spread, every `every`-th without a particle.
    fn images(means: [f64; 2], spread: f64, every: usize) -> (Vec<Measured>, Vec<Option<f64>>) {
        let random = &mut stream(3, Purpose::Noise, 0, 0);
        let mut normal = || -> f64 { StandardNormal.sample(random) };
        let one = |i: usize| {
            let (group, variance) = (i / 2 % 2, 0.005 + 0.01 * (i % 3) as f64);
            let truth = (i % every != 1).then(|| means[group] + spread * normal());
            let contrast = truth.unwrap_or(0.0) + variance.sqrt() * normal();
            (Measured { contrast, variance, group }, truth)
        };
        (0..6000).map(one).unzip()
    }

    #[test]
    fn means_spread_and_share_are_found() {
        let (images, truths) = images([1.0, 0.6], 0.2, 5);
        let found = Population::fit(&images, 2).unwrap();
        assert!((found.means[0] - 1.0).abs() < 0.02 && (found.means[1] - 0.6).abs() < 0.02, "{found:?}");
        assert!((found.spread.sqrt() - 0.2).abs() < 0.02, "{found:?}");
        let [share, mean, _] = found.empty.expect("a fifth is empty");
        assert!((share - 0.2).abs() < 0.02 && mean < 0.05, "{found:?}");
        let right = images.iter().zip(&truths).filter(|(i, t)| (found.weight(i) > 0.5) == t.is_some());
        assert!(right.count() > 5700);
        // The posterior is closer to the truth than least squares.
        let error = |of: &dyn Fn(&Measured) -> f64| -> f64 {
            images.iter().zip(&truths).filter_map(|(i, t)| Some((of(i) - (*t)?).powi(2))).sum()
        };
        assert!(error(&|i| found.posterior(i).0) < 0.95 * error(&|i| i.contrast));
    }

    #[test]
    fn sets_of_particles_alone_have_no_empty_share() {
        for spread in [0.0, 0.3] {
            let (images, _) = images([1.0, 1.0], spread, usize::MAX);
            let found = Population::fit(&images, 2).unwrap();
            assert_eq!(found.empty, None, "{spread}");
            assert!((found.spread.sqrt() - spread).abs() < 0.05, "{found:?}");
            assert!(images.iter().all(|image| found.weight(image) == 1.0));
        }
    }

    #[test]
    fn more_than_half_may_be_empty_and_nothing_may_fit() {
        let (some, _) = images([1.0, 1.0], 0.2, 2);
        let found = Population::fit(&some, 2).unwrap();
        assert!((found.empty.unwrap()[0] - 0.5).abs() < 0.05, "{found:?}");
        let none: Vec<Measured> =
            some.iter().map(|image| Measured { contrast: -image.contrast.abs(), ..*image }).collect();
        assert_eq!(Population::fit(&none, 2), None);
        assert_eq!(Population::fit(&[], 2), None);
    }
}
