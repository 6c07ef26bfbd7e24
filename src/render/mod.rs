//! The interface a device offers to the trainer, and its implementations. Knows nothing of MPI.
//!
//! A device holds the parameters, the gradient and the optimiser's state of one half, and takes steps
//! ([`Device::step`]). It may run behind: what the steps came to is asked for apart ([`Device::outcomes`]).

pub mod cpu;
pub mod cuda;
mod outcome;
mod weights;

use std::f64::consts::TAU;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use outcome::Outcome;
pub use weights::{Weighting, Weights};

use crate::error::Result;
use crate::gmm::{Gmm, Shape};
use crate::imaging::ctf::Ctf;
pub use crate::imaging::{View, energy};

/// Where a device finds what was observed of a particle.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// What [`Device::prepare`] has made of it, for devices of the same kind.
    Prepared(&'a [f32]),
    /// Y itself, `[y][x]`: the device prepares it on the way.
    Observed(&'a [f32]),
    /// A place in the device's own memory, filled by [`Device::store`].
    Kept(usize),
}

/// One particle of a step. All of a step have the same kind of [`Target`].
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// How it was seen.
    pub view: View,
    /// What was observed.
    pub target: Target<'a>,
    /// The sum of Y^2 ([`energy`]).
    pub energy: f64,
}

/// How splats are sampled on the pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampling {
    /// At pixel centres, as published; Gaussians narrower than a pixel alias.
    #[default]
    Points,
    /// On a finer grid with a blur that is divided out in Fourier space; band-limited to the Nyquist frequency.
    BandLimited,
}

impl Sampling {
    /// Standard deviation, in distances of the grid's points, that is added to each splat's, in squares, before it is sampled.
    pub fn blur(self) -> f64 {
        match self {
            Self::Points => 0.0,
            Self::BandLimited => 0.6,
        }
    }

    /// Points along an edge of the grid on which splats of images of `box_size` pixels are sampled: the pixels, or a quarter more
    /// points, and a few, so that their number is even and transforms fast.
    pub fn grid(self, box_size: usize) -> usize {
        match self {
            Self::Points => box_size,
            Self::BandLimited => {
                (box_size + box_size.div_ceil(4)..).find(|&n| transforms_fast(n)).unwrap_or(box_size)
            }
        }
    }
}

/// Whether `points` is even and a product of 2, 3 and 5.
fn transforms_fast(points: usize) -> bool {
    let rest = [2, 3, 5].into_iter().fold(points, |mut rest, prime| {
        while rest > 0 && rest.is_multiple_of(prime) {
            rest /= prime;
        }
        rest
    });
    rest == 1 && points.is_multiple_of(2)
}

/// The square of the Nyquist frequency in cycles a pixel, less a little, so that rounding decides nothing.
const NYQUIST2: f64 = 0.25 - 1e-9;

/// What the images of a device render with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Geometry {
    /// Box size in pixels.
    pub box_size: usize,
    /// Pixel size in angstrom.
    pub pixel_size: f64,
    /// Half width of a splat's support in standard deviations.
    pub cutoff: f64,
    /// How splats are sampled.
    pub sampling: Sampling,
    /// How much each frequency counts.
    pub weights: Weights,
}

impl Geometry {
    /// Points along an edge of the grid on which splats are sampled ([`Sampling::grid`]).
    pub fn grid(&self) -> usize {
        self.sampling.grid(self.box_size)
    }

    /// Where on the grid the origin lies, along each axis: on pixel floor(D/2), wherever that is (docs/method.md, section 1).
    pub fn origin(&self) -> f64 {
        (self.box_size / 2) as f64 * self.grid() as f64 / self.box_size as f64
    }

    /// What the spectrum of a sampled projection is multiplied by at a frequency of `k2` squared cycles a pixel.
    pub fn transfer(&self, k2: f64) -> f64 {
        match self.sampling {
            Sampling::Points => 1.0,
            Sampling::BandLimited if k2 > NYQUIST2 => 0.0,
            Sampling::BandLimited => {
                let blur = self.sampling.blur() * self.box_size as f64 / self.grid() as f64;
                (0.5 * (TAU * blur).powi(2) * k2).exp()
            }
        }
    }
}

/// By how much the learning rate of each kind of parameter differs from that of the step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateFactors {
    /// Of means.
    pub mean: f64,
    /// Of raw scales.
    pub scale: f64,
    /// Of quaternions.
    pub quaternion: f64,
    /// Of raw amplitudes.
    pub amplitude: f64,
}

impl RateFactors {
    /// One rate for all.
    pub const ONE: Self = Self { mean: 1.0, scale: 1.0, quaternion: 1.0, amplitude: 1.0 };

    /// That of plane `plane` of a mixture.
    pub fn of_plane(&self, shape: Shape, plane: usize) -> f64 {
        if plane < 3 {
            self.mean
        } else if shape.scales().contains(&plane) {
            self.scale
        } else if plane + 1 == shape.planes() {
            self.amplitude
        } else {
            self.quaternion
        }
    }
}

/// The numbers of one Adam step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// Learning rate.
    pub rate: f64,
    /// Decay of the first moments for this step.
    pub beta1: f64,
    /// Decay of the second moments for this step.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// 1 minus the product of all beta1 so far.
    pub correction1: f64,
    /// 1 minus the product of all beta2 so far.
    pub correction2: f64,
    /// What the rate of each kind of parameter is multiplied by.
    pub factors: RateFactors,
}

impl AdamStep {
    /// A rate of zero: the same mixture in every step, through all of the optimiser's arithmetic.
    pub const IDLE: Self = Self {
        rate: 0.0,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-15,
        correction1: 0.5,
        correction2: 0.5,
        factors: RateFactors::ONE,
    };
}

/// The state a checkpoint needs: raw parameters and Adam's moments.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceState {
    /// The mixture.
    pub gmm: Gmm,
    /// Adam's first moments, in the order of [`Gmm::values`].
    pub first: Vec<f32>,
    /// Adam's second moments.
    pub second: Vec<f32>,
}

/// What a step of all ranks of a group has in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Number of images that take part, on all ranks; at least 1.
    pub images: u64,
    /// The optimiser's numbers.
    pub adam: AdamStep,
}

/// Time that steps have taken, stage by stage: measured, or where that would hold the device up, estimated from some of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StageTimes {
    /// Rendering and differentiating.
    pub compute: Duration,
    /// Sums over the ranks, waiting for the slowest included.
    pub reduce: Duration,
    /// The optimiser.
    pub update: Duration,
}

/// How a step's sums (gradient and loss, in one buffer) are added up over the ranks of a group.
pub trait Reduce {
    /// Adds `buffer` up in host memory; every rank receives the same bits.
    ///
    /// # Errors
    /// When a rank cannot be reached.
    fn sum(&mut self, buffer: &mut [f32]) -> Result<()>;

    /// The way to add up where the device keeps the buffer, if there is one.
    fn on_device(&mut self) -> Option<&mut dyn cuda::DeviceSum> {
        None
    }

    /// Ranks in the group.
    fn ranks(&self) -> usize;
}

/// A group of one rank: nothing to add.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Reduce for Alone {
    fn sum(&mut self, _: &mut [f32]) -> Result<()> {
        Ok(())
    }

    fn ranks(&self) -> usize {
        1
    }
}

/// A device: renders, compares, differentiates and updates one mixture.
///
/// # Steps that are not finite
/// A step whose loss or gradient, summed over the ranks, is not finite changes neither parameters nor moments. Nor does any
/// step after it, which may be under way by then: parameters and moments stay as they were before it. All ranks have the same
/// sums, and stop at the same step.
///
/// [`Device::outcomes`] reports it: the outcome of that step is not [`Outcome::is_finite`], and is the last one. *When* an
/// outcome is reported may differ between ranks; with `all`, after the same step, every rank gets the same list.
/// [`Device::gradient`] then finds the images that caused it.
pub trait Device {
    /// A name for the log ("CPU, 8 threads").
    fn name(&self) -> String;

    /// Meets the other ranks of the group, before anything else. Every rank calls it.
    ///
    /// # Errors
    /// When the device or the group fails.
    fn join(&mut self, group: &mut dyn Reduce) -> Result<()>;

    /// Turns observed images Y (`[image][y][x]`, one of each of `ctfs`) into spectra of F^-1(H F Y), each of as many real numbers
    /// as there are pixels, in place.
    ///
    /// # Errors
    /// When the device fails.
    fn prepare(&mut self, ctfs: &[Ctf], images: &mut [f32]) -> Result<()>;

    /// Makes room for `particles` prepared images in the device's own memory. False where there is no such memory, or not
    /// enough.
    ///
    /// # Errors
    /// When the device fails.
    fn keep(&mut self, particles: usize) -> Result<bool>;

    /// Prepares observed images and stores them in that room, from place `first` on.
    ///
    /// # Errors
    /// When the device fails.
    fn store(&mut self, first: usize, ctfs: &[Ctf], images: &mut [f32]) -> Result<()>;

    /// Renders `batch` (this rank's images of the step; it may have none), sums gradient and loss over the ranks, and
    /// takes an Adam step on the mean, if this and the steps before it are finite.
    ///
    /// # Errors
    /// When the device or the sum fails.
    fn step(&mut self, batch: &[Observation], step: &Step, group: &mut dyn Reduce) -> Result<()>;

    /// Outcomes of the steps that have ended since the last call, in order; with `all`, waits for all steps. A step that is not
    /// finite is the last one.
    ///
    /// # Errors
    /// As [`Device::step`].
    fn outcomes(&mut self, all: bool, group: &mut dyn Reduce) -> Result<Vec<Outcome>>;

    /// The mean gradient, in the order of [`Gmm::values`], and the mean loss of `batch` on this rank, without a step.
    ///
    /// # Errors
    /// When the device fails.
    fn gradient(&mut self, batch: &[Observation]) -> Result<(Vec<f32>, f64)>;

    /// The times of the stages since the last call; `None` where they are not known.
    fn times(&mut self) -> Option<StageTimes>;

    /// Bytes of the device's memory that this mixture takes, the particles kept there included. What libraries take for
    /// themselves is not known.
    fn memory(&self) -> u64;

    /// A number that differs if a bit of the parameters does.
    ///
    /// # Errors
    /// When the device fails.
    fn checksum(&mut self, group: &mut dyn Reduce) -> Result<u64>;

    /// The state, copied from the device.
    ///
    /// # Errors
    /// When the device fails.
    fn state(&self) -> Result<DeviceState>;

    /// Replaces the state, of a device that took no step that is not finite.
    ///
    /// # Errors
    /// When the device fails.
    fn restore(&mut self, state: DeviceState) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_is_a_quarter_finer_and_transforms_fast() {
        let grids = [32, 33, 64, 72, 96, 100, 128, 200, 256, 360, 512].map(|n| Sampling::BandLimited.grid(n));
        assert_eq!(grids, [40, 48, 80, 90, 120, 128, 160, 250, 320, 450, 640]);
        assert_eq!(Sampling::Points.grid(33), 33);
    }

    #[test]
    fn the_origin_lies_where_it_lies_among_the_pixels() {
        let origin = |box_size, sampling| {
            let (pixel_size, cutoff, weights) = (1.0, 3.0, Weights::UNIFORM);
            Geometry { box_size, pixel_size, cutoff, sampling, weights }.origin()
        };
        assert_eq!([64, 33].map(|n| origin(n, Sampling::Points)), [32.0, 16.0]);
        assert_eq!(origin(64, Sampling::BandLimited), 40.0);
        // Pixel 16 of 33, on 48 points: their distance is 33/48 of a pixel.
        assert!((origin(33, Sampling::BandLimited) - 16.0 * 48.0 / 33.0).abs() < 1e-12);
    }
}
