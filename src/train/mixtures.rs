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
