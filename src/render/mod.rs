//! The interface a device offers to the trainer, and its implementations. Knows nothing of MPI.
//!
//! A device holds the parameters, the gradient and the optimiser's state of one mixture, and takes steps ([`Device::step`]). Steps
//! may be asynchronous: their outcomes are queried separately ([`Device::outcomes`]).

pub mod cpu;
pub mod cuda;
mod fit_sums;
mod outcome;
pub mod reference;
mod weights;

use std::f64::consts::TAU;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use outcome::Outcome;
pub use reference::{Found, ImageFit, OffsetGrid, Reference};
pub use weights::{Weighting, Weights};

use crate::error::Result;
use crate::gmm::{Gmm, Shape};
use crate::imaging::pose::Rotation;
pub use crate::imaging::{Symmetry, View, energy};

/// The observed image of a particle, in one of three forms.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// Output of [`Device::prepare`] of a device of the same kind.
    Prepared(&'a [f32]),
    /// The image Y, `[y][x]`. The device prepares it.
    Observed(&'a [f32]),
    /// Index of a prepared image in the device's memory, written by [`Device::store`].
    Resident(usize),
}

/// One particle of a step. All of a step have the same kind of [`Target`].
///
/// The model of its image is X = a H F(Q), where Q is the projection and a the contrast. A step minimises the particle's weight
/// times the sum over frequencies of w |X - F(Y)|^2 / D^2, where w is the product of [`Geometry::weights`] and the noise weights of
/// its group ([`Device::set_noise_weights`]). Losses are reported with all weights 1 (docs/method.md, section 4).
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// Pose and CTF.
    pub view: View,
    /// The observed image.
    pub target: Target<'a>,
    /// The sum of Y^2 ([`energy`]).
    pub energy: f64,
    /// Factor a of the image beside the CTF.
    pub contrast: f64,
    /// Weight of the particle in the loss that is minimised.
    pub weight: f64,
    /// Index of the noise weights ([`Device::set_noise_weights`]).
    pub noise_group: usize,
}

impl<'a> Observation<'a> {
    /// A particle of contrast 1 and weight 1 in noise group 0.
    pub fn new(view: View, target: Target<'a>, energy: f64) -> Self {
        Self { view, target, energy, contrast: 1.0, weight: 1.0, noise_group: 0 }
    }
}

/// How an image of the model at contrast 1, X = H F(Q), fits an observed image Y ([`Device::compare`]). Sums over frequencies of
/// the image, with the noise weights w of its group and without [`Geometry::weights`], in the unit of [`energy`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImageSums {
    /// <X, X>_w.
    pub power: f64,
    /// <X, Y>_w. Over `power` it is the contrast of least squares.
    pub overlap: f64,
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
    /// Standard deviation of the blur of splats before sampling, in units of the grid spacing.
    pub fn blur(self) -> f64 {
        match self {
            Self::Points => 0.0,
            Self::BandLimited => 0.6,
        }
    }

    /// Points along an edge of the sampling grid for images of `box_size` pixels: the pixels, or at least a quarter more points, an
    /// even product of 2, 3 and 5.
    pub fn grid(self, box_size: usize) -> usize {
        match self {
            Self::Points => box_size,
            Self::BandLimited => {
                (box_size + box_size.div_ceil(4)..).find(|&n| is_fast_size(n)).unwrap_or(box_size)
            }
        }
    }
}

/// Whether `points` is even and a product of 2, 3 and 5.
fn is_fast_size(points: usize) -> bool {
    let rest = [2, 3, 5].into_iter().fold(points, |mut rest, prime| {
        while rest > 0 && rest.is_multiple_of(prime) {
            rest /= prime;
        }
        rest
    });
    rest == 1 && points.is_multiple_of(2)
}

/// Square of the Nyquist frequency in cycles per pixel, minus a margin for rounding.
const NYQUIST2: f64 = 0.25 - 1e-9;

/// Parameters of rendering that all images of a device share.
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
    /// Weights of frequencies in the loss that is minimised.
    pub weights: Weights,
    /// Point group of the specimen. The Gaussians of a device are its asymmetric unit: an image at pose W is the sum, over the
    /// operators g, of the projections of the unit at W g (docs/method.md, section 3).
    pub symmetry: Symmetry,
}

impl Geometry {
    /// Points along an edge of the grid on which splats are sampled ([`Sampling::grid`]).
    pub fn grid(&self) -> usize {
        self.sampling.grid(self.box_size)
    }

    /// Grid coordinate of the origin along each axis: that of pixel floor(D/2) (docs/method.md, section 1).
    pub fn origin(&self) -> f64 {
        (self.box_size / 2) as f64 * self.grid() as f64 / self.box_size as f64
    }

    /// Factor of the spectrum of a sampled projection at squared frequency `k2` (cycles per pixel): inverts the blur.
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

/// Factors of the learning rate for each kind of parameter.
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
    /// The same rate for all.
    pub const ONE: Self = Self { mean: 1.0, scale: 1.0, quaternion: 1.0, amplitude: 1.0 };

    /// The factor for plane `plane` of a mixture.
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

/// Hyperparameters of one Adam step.
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
    /// Factors of the rate for each kind of parameter.
    pub factors: RateFactors,
}

impl AdamStep {
    /// A rate of zero: runs all arithmetic, but does not change the mixture.
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

impl DeviceState {
    /// The state before the first step.
    pub fn initial(gmm: Gmm) -> Self {
        let zeros = vec![0.0; gmm.values().len()];
        Self { gmm, first: zeros.clone(), second: zeros }
    }
}

/// Parameters of a step that all ranks of a group share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Number of images of the step over all ranks, at least 1.
    pub images: u64,
    /// Hyperparameters of the optimiser.
    pub adam: AdamStep,
}

/// Time of steps by stage: measured, or estimated from a sample of steps where measuring would stall the device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StageTimes {
    /// Rendering and gradients.
    pub compute: Duration,
    /// All-reduce over the ranks, including the wait for the slowest.
    pub reduce: Duration,
    /// The optimiser.
    pub update: Duration,
}

/// All-reduce of gradient and loss, in one buffer, over the ranks of a group.
pub trait Reduce {
    /// Sums `buffer` in host memory. Every rank receives the same bits.
    ///
    /// # Errors
    /// If a rank cannot be reached.
    fn sum(&mut self, buffer: &mut [f32]) -> Result<()>;

    /// The all-reduce in device memory, if there is one.
    fn on_device(&mut self) -> Option<&mut dyn cuda::DeviceSum> {
        None
    }

    /// Ranks in the group.
    fn ranks(&self) -> usize;

    /// Notes what this rank waits for from now on, or that it works again. True if the wait has a deadline, after which the job
    /// ends.
    fn waits(&mut self, what: Option<&'static str>) -> bool {
        let _ = what;
        false
    }
}

/// A group of one rank.
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
/// A step whose loss or gradient, summed over the ranks, is not finite changes neither parameters nor Adam's moments. Nor does any
/// step after it, which may be under way by then: parameters and moments stay as they were before it. All ranks have the same
/// sums, and stop at the same step.
///
/// [`Device::outcomes`] reports it: the outcome of that step is not [`Outcome::is_finite`], and is the last one. *When* an
/// outcome is reported may differ between ranks; with `all`, after the same step, every rank gets the same list.
/// [`Device::gradient`] then finds the images that caused it.
pub trait Device {
    /// A name for the log ("CPU, 8 threads").
    fn name(&self) -> String;

    /// Joins the group. Every rank calls it before anything else.
    ///
    /// # Errors
    /// If the device or the group fails.
    fn join(&mut self, group: &mut dyn Reduce) -> Result<()>;

    /// Replaces observed images (`[image][y][x]`) by their spectra, each with as many real values as pixels.
    ///
    /// # Errors
    /// If the device fails.
    fn prepare(&mut self, images: &mut [f32]) -> Result<()>;

    /// Allocates device memory for `particles` prepared images. Returns false if the device has none, or not enough.
    ///
    /// # Errors
    /// If the device fails.
    fn reserve(&mut self, particles: usize) -> Result<bool>;

    /// Prepares observed images and stores them in that memory, from index `first` on.
    ///
    /// # Errors
    /// If the device fails.
    fn store(&mut self, first: usize, images: &mut [f32]) -> Result<()>;

    /// Sets the noise weights, `[group][shell]`: the factor of frequency k in the loss that is minimised, in shell round(|k| D), k in
    /// cycles per pixel. The last value of a group holds for all shells beyond. A new device has one group of ones.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// If a group has no value.
    fn set_noise_weights(&mut self, groups: &[Vec<f32>]) -> Result<()>;

    /// Compares the model with each image of `batch`, without a step. Ignores their contrast and weight.
    ///
    /// # Errors
    /// If the device fails.
    fn compare(&mut self, batch: &[Observation]) -> Result<Vec<ImageSums>>;

    /// Sets the spectrum that [`Device::fit`] and [`Device::search`] compare images with, in place of the mixture's.
    ///
    /// # Errors
    /// If the device fails.
    fn set_reference(&mut self, reference: &Reference) -> Result<()>;

    /// Compares the reference with each image of `batch`, at its view and contrast, and differentiates. Ignores weights.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// Without a reference.
    fn fit(&mut self, batch: &[Observation]) -> Result<Vec<ImageFit>>;

    /// The best of many poses and offsets for each image of `batch`, compared below [`Reference::search_limit`]: R W for each R of
    /// `rotations` (all rows of the view's rotation are turned), and the view's offset plus those of `offsets`. `penalty` is subtracted from the gain of each rotation; that of an offset is `offset_penalty` times its squared
    /// distance from the view's in pixels. Of equal candidates the first is taken.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// Without a reference, or if there are not as many penalties as rotations.
    fn search(
        &mut self,
        batch: &[Observation],
        rotations: &[Rotation],
        penalty: &[f64],
        offsets: &OffsetGrid,
        offset_penalty: f64,
    ) -> Result<Vec<Found>>;

    /// Renders `batch` (the images of this rank; may be empty), sums gradient and loss over the ranks, and takes an Adam step with
    /// their mean, if this and all earlier steps are finite.
    ///
    /// # Errors
    /// If the device or the all-reduce fails.
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
    /// If the device fails.
    fn gradient(&mut self, batch: &[Observation]) -> Result<(Vec<f32>, f64)>;

    /// Times of the stages since the last call; `None` if unknown.
    fn times(&mut self) -> Option<StageTimes>;

    /// Bytes of device memory of this mixture, including resident particles, but not the memory of libraries.
    fn memory(&self) -> u64;

    /// Checksum of the parameters.
    ///
    /// # Errors
    /// If the device fails.
    fn checksum(&mut self, group: &mut dyn Reduce) -> Result<u64>;

    /// A copy of the state.
    ///
    /// # Errors
    /// If the device fails.
    fn state(&self) -> Result<DeviceState>;

    /// Replaces the state, of a device that took no step that is not finite. The mixture may have another number of Gaussians, up to
    /// that of the mixture that the device was opened for.
    ///
    /// # Errors
    /// If the device fails.
    fn restore(&mut self, state: DeviceState) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_is_a_quarter_finer_and_a_fast_size() {
        let grids = [32, 33, 64, 72, 96, 100, 128, 200, 256, 360, 512].map(|n| Sampling::BandLimited.grid(n));
        assert_eq!(grids, [40, 48, 80, 90, 120, 128, 160, 250, 320, 450, 640]);
        assert_eq!(Sampling::Points.grid(33), 33);
    }

    #[test]
    fn the_origin_is_the_same_on_pixels_and_grid() {
        let origin = |box_size, sampling| {
            let (pixel_size, cutoff, weights) = (1.0, 3.0, Weights::UNIFORM);
            let symmetry = Symmetry::C1;
            Geometry { box_size, pixel_size, cutoff, sampling, weights, symmetry }.origin()
        };
        assert_eq!([64, 33].map(|n| origin(n, Sampling::Points)), [32.0, 16.0]);
        assert_eq!(origin(64, Sampling::BandLimited), 40.0);
        // Pixel 16 of 33, on 48 points spaced by 33/48 of a pixel.
        assert!((origin(33, Sampling::BandLimited) - 16.0 * 48.0 / 33.0).abs() < 1e-12);
    }
}
