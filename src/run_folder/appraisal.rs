//! What a training run has found out about its particles: the noise of their optics groups, and the contrast, score and weight of
//! each (docs/method.md, section 14). Kept in the checkpoints;
//! [`tables`](crate::run_folder::tables) are written at the end.

use std::path::Path;

use crate::error::{Error, Result};
use crate::hdf5::{exists, numeric_dataset};
use crate::particles::noise::NoisePower;

/// Name of the group of a checkpoint.
const GROUP: &str = "appraisal";

/// What a model takes into account of its particles.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Appraisal {
    /// The noise of the optics groups.
    pub noise: NoisePower,
    /// The epoch, from 0, before which they were compared last; 0: not yet.
    pub epoch: usize,
    /// One for each row of the model; empty before the first comparison.
    pub particles: Vec<Appraised>,
}

/// How a particle fits the model.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Appraised {
    /// 1: fits as its CTF, contrast and noise let one expect; -1: the model explains nothing of it. NaN where it was not compared.
    pub score: f32,
    /// Gain in log-likelihood that the model brings.
    pub gain: f32,
    /// Contrast, with a mean of 1 over the particles of the model.
    pub contrast: f32,
    /// Weight in the loss, 0 to 1.
    pub weight: f32,
}

impl Appraised {
    /// A particle that could not be compared.
    pub const UNKNOWN: Self = Self { score: f32::NAN, gain: f32::NAN, contrast: 1.0, weight: 1.0 };
    /// Whether it was compared with its model.
    pub(super) fn is_compared(&self) -> bool {
        self.score.is_finite()
    }
}

impl Appraisal {
    /// Writes the group of a checkpoint.
    pub(super) fn write(&self, file: &hdf5::File) -> hdf5::Result<()> {
        let group = file.create_group(GROUP)?;
        let (groups, shells) = (self.noise.groups.len(), self.noise.groups.first().map_or(0, Vec::len));
        group.new_attr::<u64>().create("shells")?.write_scalar(&(shells as u64))?;
        group.new_attr::<u64>().create("epoch")?.write_scalar(&(self.epoch as u64))?;
        let particles: Vec<u64> = self.noise.particles.iter().map(|&n| n as u64).collect();
        debug_assert_eq!(groups, particles.len());
        group.new_dataset_builder().with_data(&self.noise.groups.concat()).create("noise")?;
        group.new_dataset_builder().with_data(&particles).create("group_sizes")?;
        let values: &[f32] = bytemuck::cast_slice(&self.particles);
        group.new_dataset_builder().with_data(values).create("particles")?;
        Ok(())
    }

    /// Reads the group of the checkpoint in the file `path`; `None` if there is none.
    ///
    /// # Errors
    /// When its data sets do not fit each other.
    pub(super) fn read(file: &hdf5::File, path: &Path, remedy: &'static str) -> Result<Option<Self>> {
        let fail = || Error::hdf5(path, "read the checkpoint", remedy);
        if !exists(file, GROUP).map_err(fail())? {
            return Ok(None);
        }
        let group = crate::hdf5::group(file, GROUP).map_err(fail())?;
        let shells: u64 = crate::hdf5::scalar_attribute(&group, "shells").map_err(fail())?;
        let epoch: u64 = crate::hdf5::scalar_attribute(&group, "epoch").map_err(fail())?;
        let noise: Vec<f64> = numeric_dataset(&group, "noise").map_err(fail())?;
        let sizes: Vec<u64> = numeric_dataset(&group, "group_sizes").map_err(fail())?;
        let values: Vec<f32> = numeric_dataset(&group, "particles").map_err(fail())?;
        let bad =
            |at: &str, problem: String| Err(Error::input(path, format!("/{GROUP}/{at}"), problem, remedy));
        if noise.is_empty() || Some(noise.len() as u64) != shells.checked_mul(sizes.len() as u64) {
            let problem =
                format!("holds {} values, expected {} groups of {shells}", noise.len(), sizes.len());
            return bad("noise", problem);
        }
        if let Some(value) = noise.iter().find(|value| !(value.is_finite() && **value >= 0.0)) {
            return bad("noise", format!("holds {value}, expected a power of 0 or more"));
        }
        let particles: Vec<Appraised> = values
            .chunks_exact(4)
            .map(|v| Appraised { score: v[0], gain: v[1], contrast: v[2], weight: v[3] })
            .collect();
        if let Some(row) = particles.iter().position(|p| !(p.contrast.is_finite() && p.weight.is_finite())) {
            return bad(
                "particles",
                format!("entry {} has a contrast or weight that is not finite", row + 1),
            );
        }
        let groups = noise.chunks_exact(shells as usize).map(<[f64]>::to_vec).collect();
        let noise = NoisePower { groups, particles: sizes.iter().map(|&n| n as usize).collect() };
        Ok(Some(Self { noise, epoch: epoch as usize, particles }))
    }
}
