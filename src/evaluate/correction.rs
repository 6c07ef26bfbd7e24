//! Correction of a masked FSC by phase randomisation (Chen et al., Ultramicroscopy 135 (2013) 24).
//!
//! Multiplying both half maps by the same mask correlates them: it mixes neighbouring Fourier values in the same way, the more so
//! the tighter the mask. To measure this, the phases of both maps are randomised from the first shell whose unmasked FSC is below a
//! threshold. Beyond that shell the maps share no signal, and any masked FSC is due to the mask. With FSC_m the masked FSC and
//! FSC_r that of the randomised maps,
//!
//! > FSC_true = (FSC_m - FSC_r) / (1 - FSC_r)
//!
//! from two shells beyond that shell, and FSC_m before. Definitions are those of RELION's post-processing, except that FSC_r is
//! the mean of several draws.

use std::f64::consts::TAU;

use ndarray::Array3;
use rand::RngExt;
use rustfft::num_complex::Complex;

use crate::error::{Error, Result};
use crate::evaluate::fsc::{Fsc, check_mask, check_pair};
use crate::evaluate::mask::Mask;
use crate::evaluate::shells::{correlations, radius, shell_sums};
use crate::imaging::fourier::fft3;
use crate::imaging::mrc::Volume;
use crate::random::{self, Purpose};

/// Number of randomised shells that keep the masked FSC: the mask mixes non-randomised values into them.
const GUARD: usize = 2;
/// Above this FSC_r, the corrected FSC is 0.
const SATURATED: f64 = 1.0 - 1e-9;

/// Parameters of phase randomisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PhaseRandomization {
    /// Phases are randomised from the first shell whose unmasked FSC is below this.
    pub below: f64,
    /// Number of random draws whose FSC is averaged.
    pub draws: usize,
    /// Seed of the random phases.
    pub seed: u64,
}

impl Default for PhaseRandomization {
    fn default() -> Self {
        Self { below: 0.8, draws: 4, seed: 0 }
    }
}

/// A masked FSC corrected for the mask.
#[derive(Clone, Debug, PartialEq)]
pub struct Correction {
    /// First shell with randomised phases.
    pub from: usize,
    /// FSC_r: the masked FSC of the randomised maps.
    pub randomized: Fsc,
    /// FSC_true.
    pub corrected: Fsc,
}

impl Correction {
    /// Corrects `masked`, the FSC of two half maps under `mask`, given their FSC `unmasked` without it. `None` if the unmasked FSC
    /// is nowhere below the threshold.
    ///
    /// # Errors
    /// As [`Fsc::between_masked`], and when the threshold or the number of draws is out of range.
    pub fn compute(
        first: &Volume,
        second: &Volume,
        mask: &Mask,
        [unmasked, masked]: [&Fsc; 2],
        options: &PhaseRandomization,
    ) -> Result<Option<Self>> {
        check_pair(first, second)?;
        check_mask(first, mask)?;
        options.check()?;
        let Some(from) = (1..unmasked.shells.len()).find(|&s| unmasked.shells[s] < options.below) else {
            return Ok(None);
        };
        let n = first.data.dim().0;
        let pair = PairSpectrum::new(&first.data, &second.data);
        let mut mean = vec![0.0; n / 2];
        for draw in 0..options.draws {
            let mut maps = pair.with_random_phases(from, options.seed, draw as u64);
            fft3(&mut maps, true);
            maps.zip_mut_with(mask.weights(), |value, &weight| *value *= weight);
            fft3(&mut maps, false);
            let masked = PairSpectrum(maps);
            let shells = correlations(&shell_sums(n, |at| masked.at(at)), n);
            mean.iter_mut().zip(shells).for_each(|(mean, shell)| *mean += shell / options.draws as f64);
        }
        let corrected = (masked.shells.iter().zip(&mean).enumerate())
            .map(
                |(shell, (&masked, &random))| {
                    if shell < from + GUARD { masked } else { remove_mask_effect(masked, random) }
                },
            )
            .collect();
        let curve = |shells| Fsc { shells, ..masked.clone() };
        Ok(Some(Self { from, randomized: curve(mean), corrected: curve(corrected) }))
    }
}

impl PhaseRandomization {
    fn check(&self) -> Result<()> {
        if !(self.below > 0.0 && self.below < 1.0) {
            return Err(Error::request(
                format!("cannot randomise phases from where the FSC falls below {}", self.below),
                "give a threshold between 0 and 1",
            ));
        }
        if !(1..=10_000).contains(&self.draws) {
            return Err(Error::request(
                format!("cannot randomise phases {} times", self.draws),
                "choose 1 to 10000",
            ));
        }
        Ok(())
    }
}

fn remove_mask_effect(masked: f64, random: f64) -> f64 {
    if random > SATURATED { 0.0 } else { (masked - random) / (1.0 - random) }
}

/// The spectra of two real maps in one: that of first + i second, so that one transform serves both.
struct PairSpectrum(Array3<Complex<f64>>);

impl PairSpectrum {
    /// Both maps are scaled to the same power, so that rounding affects both alike.
    fn new(first: &Array3<f32>, second: &Array3<f32>) -> Self {
        let scale = |map: &Array3<f32>| {
            let power: f64 = map.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
            if power > 0.0 { power.sqrt().recip() } else { 1.0 }
        };
        let (a, b) = (scale(first), scale(second));
        let mut spectrum = Array3::from_shape_fn(first.dim(), |at| {
            Complex::new(a * f64::from(first[at]), b * f64::from(second[at]))
        });
        fft3(&mut spectrum, false);
        Self(spectrum)
    }

    /// The spectra of the two maps at `at`, separated by their Hermitian symmetry.
    fn at(&self, at: [usize; 3]) -> [Complex<f64>; 2] {
        let (here, there) = (self.0[at], self.0[friedel_mate(at, self.0.dim().0)].conj());
        let difference = here - there;
        [(here + there) * 0.5, Complex::new(difference.im, -difference.re) * 0.5]
    }

    /// A copy with random phases at all radii of `from` and above. The maps stay real; moduli do not change.
    fn with_random_phases(&self, from: usize, seed: u64, draw: u64) -> Array3<Complex<f64>> {
        let n = self.0.dim().0;
        let mut random = [1, 2].map(|half| random::stream(seed, Purpose::Phases, half, draw));
        let mut spectrum = self.0.clone();
        for ((z, y, x), _) in self.0.indexed_iter() {
            let (here, there) = ([z, y, x], friedel_mate([z, y, x], n));
            if there < here || radius(here, n) < from as f64 {
                continue;
            }
            let [mut a, mut b] = self.at(here);
            for (value, random) in [&mut a, &mut b].into_iter().zip(&mut random) {
                let turn: f64 = random.random();
                // A value that is its own Friedel mate stays real.
                let phase = if there == here { (turn + turn).floor() * 0.5 } else { turn };
                *value = Complex::from_polar(value.norm(), TAU * phase);
            }
            let i = Complex::<f64>::i();
            spectrum[here] = a + i * b;
            spectrum[there] = a.conj() + i * b.conj();
        }
        spectrum
    }
}

/// The FFT index of -k (the Friedel mate).
fn friedel_mate(at: [usize; 3], n: usize) -> [usize; 3] {
    at.map(|i| (n - i) % n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::fsc::spectrum;
    use rand_distr::{Distribution, StandardNormal};

    fn noise(n: usize, stream: u64) -> Volume {
        let mut random = random::stream(3, Purpose::Noise, 0, stream);
        let data = Array3::from_shape_simple_fn((n, n, n), || StandardNormal.sample(&mut random));
        Volume::new(data, 2.0)
    }

    #[test]
    fn pair_spectrum_separates_both_maps() {
        for n in [8, 9] {
            let (a, b) = (noise(n, 0), noise(n, 1));
            let pair = PairSpectrum::new(&a.data, &b.data);
            let norm = |v: &Volume| v.data.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            let (sa, sb) = (spectrum(&a, "", None).unwrap(), spectrum(&b, "", None).unwrap());
            for ((z, y, x), value) in sa.indexed_iter() {
                let [pa, pb] = pair.at([z, y, x]);
                assert!((pa * norm(&a) - value).norm() < 1e-9);
                assert!((pb * norm(&b) - sb[[z, y, x]]).norm() < 1e-9);
            }
        }
    }

    #[test]
    fn random_phases_keep_moduli_and_lower_shells() {
        for n in [8, 9] {
            let (a, b) = (noise(n, 0), noise(n, 1));
            let pair = PairSpectrum::new(&a.data, &b.data);
            let turned = PairSpectrum(pair.with_random_phases(3, 7, 0));
            let mut moved = 0;
            for ((z, y, x), _) in pair.0.indexed_iter() {
                let at = [z, y, x];
                for (before, after) in pair.at(at).into_iter().zip(turned.at(at)) {
                    assert!((before.norm() - after.norm()).abs() < 1e-12);
                    let same = (before - after).norm() < 1e-9;
                    assert!(same || radius(at, n) >= 3.0);
                    moved += usize::from(!same);
                }
            }
            // All but self-conjugate values whose random sign is unchanged.
            assert!(moved > n * n * n);
            assert_ne!(pair.with_random_phases(3, 7, 0), pair.with_random_phases(3, 7, 1));
            assert_ne!(pair.with_random_phases(3, 7, 0), pair.with_random_phases(3, 8, 0));
        }
    }

    #[test]
    fn correction_removes_effect_of_tight_mask() {
        // A strong common signal in shells 1 to 5, and noise: a tight mask leaks the signal into higher shells.
        let n = 48;
        let signal = crate::evaluate::filter::low_pass(&noise(n, 0), 2.0 * n as f64 / 5.0);
        let half = |stream| Volume::new(&signal * 3.0 + &noise(n, stream).data * 0.1, 2.0);
        let (a, b) = (half(1), half(2));
        let mask = Mask::sphere(n, 7.0, 1.0).unwrap();
        let unmasked = Fsc::between(&a, &b).unwrap();
        let masked = Fsc::between_masked(&a, &b, &mask).unwrap();
        let options = PhaseRandomization { draws: 6, ..PhaseRandomization::default() };
        let correction = Correction::compute(&a, &b, &mask, [&unmasked, &masked], &options).unwrap().unwrap();
        let Correction { from, randomized, corrected } = &correction;
        assert!((5..8).contains(from), "{from}");
        assert_eq!(corrected.shells[..from + 2], masked.shells[..from + 2]);
        for shell in from + 2..n / 2 {
            let (m, r, c) = (masked.shells[shell], randomized.shells[shell], corrected.shells[shell]);
            assert!((c - (m - r) / (1.0 - r)).abs() < 1e-15);
        }
        let mean = |fsc: &Fsc| fsc.shells[from + 2..].iter().sum::<f64>() / (n / 2 - from - 2) as f64;
        assert!(mean(corrected) < mean(&masked), "{} {}", mean(corrected), mean(&masked));
        assert_eq!(
            Correction::compute(&a, &b, &mask, [&unmasked, &masked], &options).unwrap().unwrap(),
            correction
        );
        // The same maps: never below the threshold.
        let one = Fsc::between(&a, &a).unwrap();
        assert_eq!(Correction::compute(&a, &a, &mask, [&one, &one], &options).unwrap(), None);
        let none = PhaseRandomization { draws: 0, ..options };
        assert!(Correction::compute(&a, &b, &mask, [&unmasked, &masked], &none).is_err());
    }
}
