//! The mixtures of one model, trained one after the other: their mean is the model.
//!
//! Each starts from random Gaussians of its own. What a start has put into a mixture, and what that has followed of the noise from
//! there, is another thing in each; the mean keeps what they have in common.

use crate::error::Result;
use crate::gmm::Gmm;
use crate::render::{Device, DeviceState};

/// All mixtures of a model but the one on its device.
#[derive(Debug, Default)]
pub struct Mixtures {
    /// Where those that have not begun start, each in its place.
    starts: Vec<Option<Gmm>>,
    /// Those that are trained to their end.
    trained: Vec<Gmm>,
}

impl Mixtures {
    /// Those that begin from `starts`: of each mixture, or `None` where it has begun already.
    pub fn new(starts: Vec<Option<Gmm>>) -> Self {
        Self { starts, trained: Vec::new() }
    }

    /// Goes on behind the mixtures that were `trained` before.
    pub fn resume(&mut self, trained: Vec<Gmm>) {
        self.trained = trained;
    }

    /// Those that are trained to their end and have left the device.
    pub fn trained(&self) -> &[Gmm] {
        &self.trained
    }

    /// Lets `device` train mixture `wanted`, if it holds one before it, which is trained to its end.
    ///
    /// # Errors
    /// When the device fails.
    pub fn begin(&mut self, wanted: usize, device: &mut dyn Device) -> Result<()> {
        if self.trained.len() == wanted {
            return Ok(());
        }
        let gmm = self.starts[wanted].take().expect("a mixture that has not begun has a start");
        self.trained.push(device.state()?.gmm);
        let rest = vec![0.0; gmm.values().len()];
        device.restore(DeviceState { gmm, first: rest.clone(), second: rest })
    }

    /// What the model is the mean of: the mixtures that are trained to their end, with that on the device where it is `ended`; or
    /// the one on the device, as it stands, where there is no other.
    ///
    /// # Errors
    /// When the device fails.
    pub fn all(&self, device: &dyn Device, ended: bool) -> Result<Vec<Gmm>> {
        let mut all = self.trained.clone();
        if ended || all.is_empty() {
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
    use crate::render::{Geometry, Sampling, Weights};
    use crate::train::ensemble::*;

    #[test]
    fn each_begins_at_its_start_and_at_rest() {
        let start = |number| Gmm::random(5, Shape::Anisotropic, &mut stream(1, Purpose::Start, 1, number));
        let moments = |value| vec![value; 55];
        let geometry = Geometry {
            box_size: 16,
            pixel_size: 4.0,
            cutoff: 3.0,
            sampling: Sampling::Points,
            weights: Weights::UNIFORM,
        };
        let mut device = CpuDevice::new(start(0), geometry);
        let mut mixtures = Mixtures::new(vec![None, Some(start(1)), Some(start(2))]);
        mixtures.begin(0, &mut device).unwrap();
        assert_eq!(device.state().unwrap().gmm, start(0), "it holds the first already");
        for number in [1, 2] {
            // What training might have made of it.
            let end = start(10 + number);
            let state = DeviceState { gmm: end.clone(), first: moments(0.5), second: moments(0.25) };
            device.restore(state).unwrap();
            let before = [mixtures.trained(), std::slice::from_ref(&end)].concat();
            let shown = mixtures.all(&device, false).unwrap();
            assert_eq!(shown, if number == 1 { before.clone() } else { before[..1].to_vec() });
            assert_eq!(mixtures.all(&device, true).unwrap(), before);
            for _ in 0..2 {
                // Once more, as after a stop between them, changes nothing.
                mixtures.begin(number as usize, &mut device).unwrap();
                let DeviceState { gmm, first, second } = device.state().unwrap();
                assert_eq!((gmm, first, second), (start(number), moments(0.0), moments(0.0)));
                assert_eq!(mixtures.trained(), before);
            }
        }
    }
}
