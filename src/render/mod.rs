//! The interface a device offers to the trainer, and its implementations. Knows nothing of MPI.
//!
//! A device holds the parameters, the gradient and the optimiser's state of one half. A step is
//! [`Device::accumulate`] (once or more), [`Device::reduce`], [`Device::step`].

pub mod cpu;

use crate::error::Result;
use crate::gmm::Gmm;
use crate::imaging::ctf::Ctf;
use crate::imaging::pose::Rotation;

/// How one particle was seen.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// `W`: volume to view.
    pub rotation: Rotation,
    /// Its CTF.
    pub ctf: Ctf,
}

/// One particle, prepared by [`Device::prepare`].
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// How it was seen.
    pub view: View,
    /// F^-1(H F Y), `[y][x]`.
    pub target: &'a [f32],
    /// The sum of Y^2.
    pub energy: f64,
}

/// What the images of a device render with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Geometry {
    /// Box size in pixels.
    pub box_size: usize,
    /// Pixel size in angstrom.
    pub pixel_size: f64,
    /// Half width of a splat's support in standard deviations.
    pub cutoff: f64,
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

/// The sum over the images of a step, after the reduction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOutcome {
    /// Mean loss of the images that took part.
    pub loss: f64,
    /// Number of images that took part, on all ranks.
    pub images: u64,
}

/// A device: renders, compares, differentiates and updates one mixture.
pub trait Device {
    /// A name for the log ("CPU, 8 threads").
    fn name(&self) -> String;

    /// Turns an observed image (`[y][x]`) into F^-1(H F Y), in place; returns the sum of Y^2.
    fn prepare(&self, ctf: &Ctf, image: &mut [f32]) -> f64;

    /// Renders `batch`, and adds its gradient, loss and count to the step's sums.
    fn accumulate(&mut self, batch: &[Observation]);

    /// Lets `sum` add up the step's sums over the ranks of a group: the gradient, the loss and the count, in one buffer.
    ///
    /// # Errors
    /// What `sum` returns.
    fn reduce(&mut self, sum: &mut dyn FnMut(&mut [f32]) -> Result<()>) -> Result<()>;

    /// Divides the sums by their count, takes an Adam step, and clears the sums.
    /// `adam` is asked for the step's numbers once the count is known.
    ///
    /// # Errors
    /// When the loss or the gradient is not finite.
    fn step(&mut self, adam: &mut dyn FnMut(u64) -> AdamStep) -> Result<StepOutcome>;

    /// The state, copied from the device.
    fn state(&self) -> DeviceState;

    /// Replaces the state.
    fn restore(&mut self, state: DeviceState);
}
