//! The power of the noise per optics group and spatial frequency, estimated from the images outside the particle (docs/method.md,
//! section 14).

use std::ops::Range;

use rayon::prelude::*;
use rustfft::num_complex::Complex;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::imaging::ctf::Ctf;
use crate::imaging::fourier::{Fft2, squared_frequency};
use crate::particles::store::{Block, Particle, Store};

/// The window that leaves the noise is 0 up to the first radius and 1 from the second on, in box sizes from the origin.
const WINDOW: [f64; 2] = [0.375, 0.45];
/// Images measured per optics group, at most.
const IMAGES_PER_GROUP: usize = 512;
/// Images measured in all, about, and the fewest per group where there are many groups.
const IMAGES: usize = 4096;
const FEWEST_PER_GROUP: usize = 16;
/// The mean spectrum of all groups counts in that of a group as this many images.
const PRIOR_IMAGES: f64 = 4.0;
/// Least mean of the squared CTF that the power of premultiplied images is divided by.
const LEAST_SQUARED_CTF: f64 = 0.01;
/// Images per parallel block.
const BLOCK: usize = 256;
/// No frequency or group has more weight than this times that of another.
const LARGEST_RATIO: f64 = 100.0;

/// The noise of a set of particles.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NoisePower {
    /// Power `[optics group][shell]`: the variance per pixel of white noise that has this power at all frequencies. Shell s holds the
    /// frequencies k with round(k) = s, k in cycles per box, 0 to half the box size.
    pub groups: Vec<Vec<f64>>,
    /// Particles of each group.
    pub particles: Vec<usize>,
}

impl NoisePower {
    /// Estimates the noise of the particles in `rows`, from a sample spread evenly over each optics group. Images that cannot be used
    /// are skipped. The power of images that were multiplied by their CTF is divided by the mean of its square, which gives that of
    /// the images before. The result does not depend on the number of threads.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn estimate(store: &Store, rows: Range<usize>) -> Result<Self> {
        let header = store.header();
        let reader = store.reader();
        let mut particles = vec![0; header.optics.len()];
        let mut group_of = Vec::with_capacity(rows.len());
        for start in rows.clone().step_by(1 << 14) {
            for particle in reader.particles(start..rows.end.min(start + (1 << 14)))? {
                particles[particle.optics_group as usize] += 1;
                group_of.push(particle.optics_group);
            }
        }
        let meter = PowerMeter::new(header.box_size);
        let of_ctf = |particle: &Particle| {
            let optics = header.optics.get(particle.optics_group as usize);
            let is_multiplied = optics.is_some_and(|optics| optics.premultiplied);
            // The device multiplies by 1 in place of this CTF.
            let square = || meter.squared_ctf(&reader.ctf(particle), header.pixel_size);
            if is_multiplied { square() } else { Vec::new() }
        };
        let mut sums = vec![vec![0.0; meter.shells()]; particles.len()];
        let mut ctfs = vec![Vec::new(); particles.len()];
        let mut measured = vec![0usize; particles.len()];
        let sample = sample(&group_of, &particles);
        for places in sample.chunks(BLOCK) {
            let all: Vec<Result<Option<Measured>>> = places
                .par_iter()
                .map_init(Block::default, |block, &place| {
                    let row = rows.start + place;
                    reader.read(row..row + 1, block)?;
                    let measure = || Measured {
                        power: meter.power(&block.images),
                        squared_ctf: of_ctf(&block.particles[0]),
                    };
                    // An image that overflows is found, and reported, by the training.
                    Ok(block.defects.is_empty().then(measure).filter(Measured::is_finite))
                })
                .collect();
            for (&place, image) in places.iter().zip(all) {
                let Some(Measured { power, squared_ctf }) = image? else { continue };
                let group = group_of[place] as usize;
                measured[group] += 1;
                add(&mut sums[group], &power);
                add(&mut ctfs[group], &squared_ctf);
            }
        }
        for ((sum, ctf), &n) in sums.iter_mut().zip(&ctfs).zip(&measured) {
            for (power, square) in sum.iter_mut().zip(ctf) {
                *power /= (square / n as f64).max(LEAST_SQUARED_CTF);
            }
        }
        Ok(Self { groups: shrunk(&sums, &measured, &particles), particles })
    }

    /// Weights 1/power `[optics group][shell]`, times the number that gives them a mean of 1 over frequencies and particles, which is
    /// returned beside them. No weight is above [`LARGEST_RATIO`] times another.
    pub fn weights(&self) -> (Vec<Vec<f32>>, f64) {
        let largest = self.groups.iter().flatten().copied().fold(0.0, f64::max);
        if !(largest.is_finite() && largest > 0.0) {
            return (self.groups.iter().map(|group| vec![1.0; group.len()]).collect(), 1.0);
        }
        let inverse = |power: f64| 1.0 / power.max(largest / LARGEST_RATIO);
        let mean = self.mean(inverse);
        let of_group = |group: &Vec<f64>| group.iter().map(|&power| (inverse(power) / mean) as f32).collect();
        (self.groups.iter().map(of_group).collect(), 1.0 / mean)
    }

    /// Mean of `of` the power over the frequencies within Nyquist and the particles.
    fn mean(&self, of: impl Fn(f64) -> f64) -> f64 {
        let (mut sum, mut count) = (0.0, 0.0);
        for (group, &particles) in self.groups.iter().zip(&self.particles) {
            for (shell, &power) in group.iter().enumerate() {
                let frequencies = shell as f64 * particles as f64;
                sum += frequencies * of(power);
                count += frequencies;
            }
        }
        sum / count
    }

    /// Mean power over the frequencies within Nyquist of a group.
    pub fn variance(&self, group: usize) -> f64 {
        let (mut sum, mut count) = (0.0, 0.0);
        for (shell, &power) in self.groups[group].iter().enumerate() {
            sum += shell as f64 * power;
            count += shell as f64;
        }
        sum / count
    }

    /// For the log: "standard deviation 1.003, 0.712, 4.1 times as much power at low as at high frequencies".
    pub fn describe(&self) -> String {
        const SHOWN: usize = 8;
        let groups = self.groups.len();
        let deviation = |group: usize| format!("{:.3}", self.variance(group).sqrt());
        let deviations: Vec<String> = (0..groups.min(SHOWN)).map(deviation).collect();
        let more = if groups > SHOWN { ", ..." } else { "" };
        format!(
            "standard deviation {}{more}, {:.1} times as much power at low as at high frequencies",
            deviations.join(", "),
            self.fall()
        )
    }

    /// Mean power in the lowest third of the shells over that in the upper half, for all groups.
    pub(crate) fn fall(&self) -> f64 {
        let mean = |shells: Range<usize>| {
            let groups = self.groups.iter().zip(&self.particles);
            groups.map(|(group, &n)| n as f64 * group[shells.clone()].iter().sum::<f64>()).sum::<f64>()
                / shells.len() as f64
        };
        let shells = self.groups.first().map_or(0, Vec::len);
        if shells < 6 { 1.0 } else { mean(1..shells.div_ceil(3)) / mean(shells / 2..shells) }
    }
}

/// One image outside the particle.
struct Measured {
    /// Power per shell.
    power: Vec<f64>,
    /// Mean of the squared CTF per shell; empty unless the image was multiplied by it.
    squared_ctf: Vec<f64>,
}

impl Measured {
    fn is_finite(&self) -> bool {
        self.power.iter().chain(&self.squared_ctf).all(|value| value.is_finite())
    }
}

/// Adds `values` to `sums`, which takes their length where it is empty.
fn add(sums: &mut Vec<f64>, values: &[f64]) {
    sums.resize(sums.len().max(values.len()), 0.0);
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}

/// Places of the particles that are measured: of each group as many as [`IMAGES_PER_GROUP`] and [`IMAGES`] allow, spread evenly.
fn sample(group_of: &[u32], particles: &[usize]) -> Vec<usize> {
    let per_group = (IMAGES / particles.len().max(1)).clamp(FEWEST_PER_GROUP, IMAGES_PER_GROUP);
    let mut seen = vec![0usize; particles.len()];
    let mut places = Vec::new();
    for (place, &group) in group_of.iter().enumerate() {
        let (all, number) = (particles[group as usize], seen[group as usize]);
        seen[group as usize] += 1;
        // As many as `per_group` of the numbers 0 to `all` step to another multiple.
        let wanted = per_group.min(all);
        if number * wanted / all < (number + 1) * wanted / all {
            places.push(place);
        }
    }
    places
}

/// Spectra of the groups from sums over `measured` images, drawn to the mean of all groups where there are few. A group without any
/// gets that mean.
fn shrunk(sums: &[Vec<f64>], measured: &[usize], particles: &[usize]) -> Vec<Vec<f64>> {
    let shells = sums.first().map_or(0, Vec::len);
    let total: f64 = measured.iter().zip(particles).filter(|(n, _)| **n > 0).map(|(_, &p)| p as f64).sum();
    let mean: Vec<f64> = (0..shells)
        .map(|shell| {
            let groups = sums.iter().zip(measured).zip(particles).filter(|((_, n), _)| **n > 0);
            groups.map(|((sum, &n), &p)| sum[shell] / n as f64 * p as f64).sum::<f64>() / total.max(1.0)
        })
        .collect();
    let level = |spectrum: &[f64]| spectrum.iter().sum::<f64>();
    sums.iter()
        .zip(measured)
        .map(|(sum, &n)| {
            // The shape is drawn to the mean, the level is the group's own.
            let own = if n > 0 { level(sum) / n as f64 } else { level(&mean) };
            let scale = if level(&mean) > 0.0 { own / level(&mean) } else { 0.0 };
            let drawn =
                |(sum, mean): (&f64, &f64)| (sum + PRIOR_IMAGES * scale * mean) / (n as f64 + PRIOR_IMAGES);
            sum.iter().zip(&mean).map(drawn).collect()
        })
        .collect()
}

/// Measures the power spectrum of images outside the particle.
struct PowerMeter {
    fft: Fft2<f32>,
    box_size: usize,
    window: Vec<f32>,
    /// Sum of the squared window.
    weight: f64,
    /// Shell of each frequency of the half plane, and how often it counts.
    places: Vec<(usize, f64)>,
    /// Sum of these counts for each shell.
    counts: Vec<f64>,
}

impl PowerMeter {
    fn new(box_size: usize) -> Self {
        let n = box_size;
        let centre = (n / 2) as f64;
        let [start, end] = WINDOW;
        let window: Vec<f32> = (0..n * n)
            .map(|i| {
                let radius = (((i % n) as f64 - centre).hypot((i / n) as f64 - centre)) / n as f64;
                let part = ((radius - start) / (end - start)).clamp(0.0, 1.0);
                (0.5 - 0.5 * (std::f64::consts::PI * part).cos()) as f32
            })
            .collect();
        let weight = window.iter().map(|&w| f64::from(w).powi(2)).sum();
        let place = |i: usize| {
            let k2 = squared_frequency(i / n, n) + squared_frequency(i % n, n);
            // The half plane stands for all frequencies: kx = 0 and Nyquist once, the others twice.
            let count = if (n - i / n) % n == i / n { 1.0 } else { 2.0 };
            ((k2.sqrt() * n as f64).round() as usize, count)
        };
        let places: Vec<(usize, f64)> = (0..(n / 2 + 1) * n).map(place).collect();
        let mut counts = vec![0.0; n / 2 + 1];
        for &(shell, count) in places.iter().filter(|(shell, _)| *shell <= n / 2) {
            counts[shell] += count;
        }
        Self { fft: Fft2::new(n), box_size, window, weight, places, counts }
    }

    fn shells(&self) -> usize {
        self.counts.len()
    }

    /// Mean of the squared CTF per shell.
    fn squared_ctf(&self, ctf: &Ctf, pixel_size: f64) -> Vec<f64> {
        let mut h = vec![0.0; self.places.len()];
        ctf.half_plane(self.box_size, pixel_size, &mut h);
        self.means(h.iter().map(|&h| f64::from(h).powi(2)))
    }

    /// Mean per shell of `values` on the half plane.
    fn means(&self, values: impl Iterator<Item = f64>) -> Vec<f64> {
        let mut means = vec![0.0; self.shells()];
        for (value, &(shell, count)) in values.zip(&self.places) {
            if let Some(sum) = means.get_mut(shell) {
                *sum += count * value;
            }
        }
        means.iter_mut().zip(&self.counts).for_each(|(sum, count)| *sum /= count);
        means
    }

    /// Power per shell of `image`. The mean under the window is taken off: it is no noise, but what a normalisation has left.
    fn power(&self, image: &[f32]) -> Vec<f64> {
        let sums = image.iter().zip(&self.window).fold([0.0, 0.0], |[sum, weights], (value, w)| {
            [sum + f64::from(value * w), weights + f64::from(*w)]
        });
        let mean = (sums[0] / sums[1]) as f32;
        let windowed: Vec<f32> = image.iter().zip(&self.window).map(|(v, w)| (v - mean) * w).collect();
        let mut spectrum = vec![Complex::default(); self.fft.spectrum_len()];
        self.fft.forward(&windowed, self.box_size, &mut spectrum, &mut self.fft.scratch());
        let mut power = self.means(
            spectrum
                .iter()
                .map(|value| (f64::from(value.re).powi(2) + f64::from(value.im).powi(2)) / self.weight),
        );
        // The mean that was taken off is missing here: the window has smeared it from frequency 0 over the first shell.
        if let Some(&second) = power.get(2) {
            power[..2].fill(second);
        }
        power
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_noise_has_its_variance_at_all_frequencies() {
        use rand_distr::{Distribution, StandardNormal};
        for n in [32usize, 33] {
            let meter = PowerMeter::new(n);
            let mut sums = vec![0.0; meter.shells()];
            let images = 400;
            for index in 0..images {
                let mut random = crate::random::stream(1, crate::random::Purpose::Noise, 0, index);
                let image: Vec<f32> = (0..n * n)
                    .map(|_| {
                        let v: f32 = StandardNormal.sample(&mut random);
                        1.5 * v + 0.3
                    })
                    .collect();
                sums.iter_mut().zip(meter.power(&image)).for_each(|(sum, power)| *sum += power);
            }
            for (shell, sum) in sums.iter().enumerate().skip(2) {
                let variance = sum / images as f64;
                assert!((variance / 2.25 - 1.0).abs() < 0.1, "{n} {shell}: {variance}");
            }
        }
    }

    #[test]
    fn the_sample_is_spread_evenly_over_each_group() {
        let group_of: Vec<u32> = (0..3000).map(|i| u32::from(i % 3 == 0)).collect();
        let places = sample(&group_of, &[2000, 1000]);
        for group in 0..2 {
            let own: Vec<usize> = places.iter().copied().filter(|&p| group_of[p] == group).collect();
            assert_eq!(own.len(), IMAGES_PER_GROUP);
            let lower = own.iter().filter(|&&p| p < 1500).count();
            assert!((250..262).contains(&lower), "{lower}");
        }
        assert_eq!(sample(&[0, 0, 1], &[2, 1]), [0, 1, 2]);
    }

    #[test]
    fn weights_are_inverse_powers_with_a_mean_of_one() {
        let noise = NoisePower { groups: vec![vec![1.0; 9], vec![4.0; 9]], particles: vec![100, 300] };
        let (weights, scale) = noise.weights();
        assert!((weights[0][3] / weights[1][5] - 4.0).abs() < 1e-6);
        let mean = (100.0 * f64::from(weights[0][4]) + 300.0 * f64::from(weights[1][4])) / 400.0;
        assert!((mean - 1.0).abs() < 1e-6, "{mean}");
        assert!((scale / f64::from(weights[0][1]) - 1.0).abs() < 1e-6);
        // No noise at all, and frequencies without any, have finite weights.
        let none = NoisePower { groups: vec![vec![0.0; 9]], particles: vec![5] };
        assert_eq!(none.weights(), (vec![vec![1.0; 9]], 1.0));
        let gap = NoisePower { groups: vec![vec![0.0, 1.0, 1.0, 0.0]], particles: vec![5] };
        let (weights, _) = gap.weights();
        assert!((weights[0][3] / weights[0][1] - 100.0).abs() < 1e-3);
    }

    #[test]
    fn small_groups_take_the_shape_of_all_and_keep_their_level() {
        let large = vec![400.0, 200.0, 200.0];
        let small = vec![3.0, 9.0, 0.0];
        let groups = shrunk(&[large, small, vec![0.0; 3]], &[200, 1, 0], &[1000, 2, 1]);
        assert!((groups[0][0] - 2.0).abs() < 0.05);
        let total: f64 = groups[1].iter().sum();
        assert!((total - 12.0).abs() < 1e-9, "{total}");
        assert!(groups[1][2] > 0.5 * groups[1][1] * 0.5, "{:?}", groups[1]);
        assert!(groups[2].iter().all(|&power| power > 0.0));
    }
}
