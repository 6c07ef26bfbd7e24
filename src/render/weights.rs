//! Weights of frequencies in the loss that is minimised.
//!
//! The curvature of the squared error at a frequency is the mean of H^2 there. It nearly vanishes below the first maximum of the
//! CTF, where specimens have most of their power. Adam takes steps of the same size for noise as for signal, so these frequencies
//! converge last. Weights of 1 / mean(H^2) make all frequencies converge at the same rate. Noise is independent between
//! frequencies: the optimum of a model that can represent all frequencies does not change.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::imaging::ctf::Ctf;

/// Rule for the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weighting {
    /// Equal weights, as published.
    #[default]
    Uniform,
    /// By the inverse mean squared CTF of the particles, up to its first maximum.
    Ctf,
}

/// Number of knots of the weights, at the Nyquist frequency times (n / ([`KNOTS`] - 1))^2.
const KNOTS: usize = 33;
/// Directions over which CTFs are averaged, in half a turn.
const DIRECTIONS: usize = 8;
/// Largest ratio of two weights.
const LARGEST_RATIO: f64 = 25.0;

/// Weight of each frequency by its radius, at most 1. Linear between knots.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "Vec<f64>", try_from = "Vec<f64>")]
pub struct Weights([f32; KNOTS]);

impl From<Weights> for Vec<f64> {
    fn from(weights: Weights) -> Self {
        weights.0.map(f64::from).to_vec()
    }
}

impl TryFrom<Vec<f64>> for Weights {
    type Error = String;

    fn try_from(values: Vec<f64>) -> Result<Self, String> {
        let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
        let count = values.len();
        values.try_into().map(Self).map_err(|_| format!("{count} weights, expected {KNOTS}"))
    }
}

impl Weights {
    /// Weight 1 for all frequencies.
    pub const UNIFORM: Self = Self([1.0; KNOTS]);

    /// Weights for particles with these CTFs, `pixel_size` in angstrom: m(0) / m(k), where m(k) is the maximum of mean(H^2) up to
    /// frequency k, clamped to half of its overall maximum, the mean of an oscillating CTF.
    pub fn of(ctfs: &[Ctf], pixel_size: f64) -> Self {
        let mean = |k: f64| {
            let turned = |ctf: &Ctf| -> f64 {
                let turn = |i| (PI * i as f64 / DIRECTIONS as f64).sin_cos();
                (0..DIRECTIONS).map(turn).map(|(sine, cosine)| ctf.at(k * cosine, k * sine).powi(2)).sum()
            };
            ctfs.iter().map(turned).sum::<f64>()
        };
        let nyquist = 0.5 / pixel_size;
        let mut largest: [f64; KNOTS] =
            std::array::from_fn(|i| mean(nyquist * (i as f64 / (KNOTS - 1) as f64).powi(2)));
        for i in 1..KNOTS {
            largest[i] = largest[i].max(largest[i - 1]);
        }
        let most = 0.5 * largest[KNOTS - 1];
        if !(most.is_finite() && most > 0.0) {
            return Self::UNIFORM;
        }
        let largest = largest.map(|mean| mean.clamp(most / LARGEST_RATIO, most));
        Self(largest.map(|mean| (largest[0] / mean) as f32))
    }

    /// The weight at squared frequency `k2`, in cycles per pixel.
    pub fn at(&self, k2: f64) -> f64 {
        let place = (4.0 * k2).sqrt().sqrt().min(1.0) * (KNOTS - 1) as f64;
        let below = (place as usize).min(KNOTS - 2);
        let [low, high] = [self.0[below], self.0[below + 1]].map(f64::from);
        low + (high - low) * (place - below as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::ctf::{CtfParameters, Optics};

    fn ctf(defocus: f64, phase_shift: f64, b_factor: f64) -> Ctf {
        let optics = Optics::new(300.0, 2.7, 0.1);
        let particle = CtfParameters {
            defocus_u: defocus + 200.0,
            defocus_v: defocus - 200.0,
            phase_shift,
            b_factor,
            ..CtfParameters::default()
        };
        Ctf::new(&optics, &particle)
    }

    #[test]
    fn weights_fall_to_the_first_maximum_and_are_constant_beyond() {
        let ctfs: Vec<Ctf> = (0..20).map(|i| ctf(10_000.0 + 1_000.0 * f64::from(i), 0.0, 0.0)).collect();
        let pixel_size = 3.0;
        let weights = Weights::of(&ctfs, pixel_size);
        assert_eq!(weights.at(0.0), 1.0);
        let mean = |k: f64| ctfs.iter().map(|ctf| ctf.at(k, 0.0).powi(2)).sum::<f64>() / 20.0;
        // 1 / H^2, as far as the knots follow it: at 100 A against 160 and 70.
        for k in [0.00625, 0.0143] {
            let want = mean(0.01) / mean(k);
            let got = weights.at((k * pixel_size).powi(2)) / weights.at((0.01 * pixel_size).powi(2));
            assert!((got / want - 1.0).abs() < 0.1, "{k}: {got}, expected {want}");
        }
        let ends = [0.1, 0.2, 0.25, 0.5].map(|k2| weights.at(k2));
        assert!(ends.iter().all(|&end| end == ends[0] && (0.039..0.06).contains(&end)), "{ends:?}");
    }

    #[test]
    fn envelopes_phase_plates_and_absent_ctfs_gain_no_weight() {
        let faded = Weights::of(&[ctf(15_000.0, 0.0, 500.0)], 3.0);
        assert_eq!(faded.at(0.25), faded.at(0.1), "frequencies removed by the envelope stay removed");
        assert!(faded.at(0.1) < 0.1, "low frequencies count more all the same");
        let [low, high] = [0.0, 0.25].map(|k2| Weights::of(&[ctf(5_000.0, 90.0, 0.0)], 3.0).at(k2));
        assert_eq!([low, high], [1.0; 2]);
        assert_eq!(Weights::of(&[Ctf::identity()], 3.0), Weights::UNIFORM);
        assert_eq!(Weights::of(&[], 3.0), Weights::UNIFORM);
    }

    #[test]
    fn weights_of_a_vanishing_ctf_are_limited() {
        let optics = Optics::new(300.0, 2.7, 0.0);
        let particle = CtfParameters { defocus_u: 15_000.0, defocus_v: 15_000.0, ..CtfParameters::default() };
        let weights = Weights::of(&[Ctf::new(&optics, &particle)], 3.0);
        assert!((weights.at(0.25) - 0.04).abs() < 1e-6);
    }
}
