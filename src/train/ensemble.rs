//! Ensemble of mixtures: one model is the mean of several mixtures, trained one after the other.
//!
//! Each starts from random Gaussians of its own. The errors that come from the start and from fitting noise differ between mixtures,
//! and average out; the signal is common to all.

use crate::error::Result;
use crate::gmm::Gmm;
use crate::render::{Device, DeviceState};

/// The mixtures of a model, except the one on its device.
#[derive(Debug, Default)]
pub(super) struct Ensemble {
    /// Initial Gaussians of each mixture; `None` for those that have started.
    starts: Vec<Option<Gmm>>,
    /// Fully trained mixtures.
    trained: Vec<Gmm>,
    /// Mixtures, the first ones, that are not part of the model.
    refining: usize,
}

impl Ensemble {
    /// `starts` are the initial Gaussians of each mixture, or `None` where it has started already.
    /// The first `refining` mixtures are not part of the model.
    pub fn new(starts: Vec<Option<Gmm>>, refining: usize) -> Self {
        Self { starts, trained: Vec::new(), refining }
    }

    /// Continues after the `trained` mixtures of a checkpoint.
    pub fn resume(&mut self, trained: Vec<Gmm>) {
        self.trained = trained;
    }

    /// The fully trained mixtures that are no longer on the device.
    pub fn trained(&self) -> &[Gmm] {
        &self.trained
    }

    /// Puts mixture `wanted` on `device` in place of the one before it, which is fully trained. Does nothing where it is there already.
    ///
    /// # Errors
    /// When the device fails.
    pub fn begin(&mut self, wanted: usize, device: &mut dyn Device) -> Result<()> {
        if self.trained.len() == wanted {
            return Ok(());
        }
        let gmm = self.starts[wanted].take().expect("a mixture that has not started has initial Gaussians");
        self.trained.push(device.state()?.gmm);
        device.restore(DeviceState::initial(gmm))
    }

    /// The mixtures whose mean is the model: the fully trained ones, but for refining ones, including that on the device if `device_is_trained`; before any
    /// is, the current state of the device.
    ///
    /// # Errors
    /// When the device fails.
    pub fn mixtures(&self, device: &dyn Device, device_is_trained: bool) -> Result<Vec<Gmm>> {
        let mut all = self.trained[self.refining.min(self.trained.len())..].to_vec();
        if device_is_trained || all.is_empty() {
            all.push(device.state()?.gmm);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use crate::gmm::Shape;
    use crate::random::{Purpose, stream};
    use crate::render::cpu::CpuDevice;
    use crate::render::{Geometry, Sampling, Symmetry, Weights};
    use crate::train::ensemble::*;

    fn start(number: u64) -> Gmm {
        Gmm::random(5, Shape::Anisotropic, &mut stream(1, Purpose::Start, 1, number))
    }

    /// With the first mixture.
    fn device() -> CpuDevice {
        let geometry = Geometry {
            box_size: 16,
            pixel_size: 4.0,
            cutoff: 3.0,
            sampling: Sampling::Points,
            weights: Weights::UNIFORM,
            symmetry: Symmetry::C1,
        };
        CpuDevice::new(start(0), geometry)
    }

    #[test]
    fn each_mixture_begins_with_its_start_and_zero_moments() {
        let moments = |value| vec![value; 55];
        let mut device = device();
        let mut ensemble = Ensemble::new(vec![None, Some(start(1)), Some(start(2))], 0);
        ensemble.begin(0, &mut device).unwrap();
        assert_eq!(device.state().unwrap().gmm, start(0), "the first mixture is on the device already");
        for number in [1, 2] {
            // The state after some training.
            let end = start(10 + number);
            let state = DeviceState { gmm: end.clone(), first: moments(0.5), second: moments(0.25) };
            device.restore(state).unwrap();
            let before = [ensemble.trained(), std::slice::from_ref(&end)].concat();
            let shown = ensemble.mixtures(&device, false).unwrap();
            assert_eq!(shown, if number == 1 { before.clone() } else { before[..1].to_vec() });
            assert_eq!(ensemble.mixtures(&device, true).unwrap(), before);
            for _ in 0..2 {
                // A second call, as after a resume between mixtures, changes nothing.
                ensemble.begin(number as usize, &mut device).unwrap();
                let DeviceState { gmm, first, second } = device.state().unwrap();
                assert_eq!((gmm, first, second), (start(number), moments(0.0), moments(0.0)));
                assert_eq!(ensemble.trained(), before);
            }
        }
    }
    #[test]
    fn a_refining_mixture_is_not_part_of_the_model() {
        let mut device = device();
        let mut ensemble = Ensemble::new(vec![None, Some(start(1)), Some(start(2))], 1);
        assert_eq!(ensemble.mixtures(&device, true).unwrap(), [start(0)], "until there is another");
        for number in [1, 2] {
            ensemble.begin(number, &mut device).unwrap();
            assert_eq!(device.state().unwrap().gmm, start(number as u64));
        }
        assert_eq!(ensemble.mixtures(&device, true).unwrap(), [start(1), start(2)]);
    }
}
