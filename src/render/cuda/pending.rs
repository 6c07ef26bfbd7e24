//! What the CPU device computes and this one does not: refused in one place, rather than left out of a result.

use crate::error::{Error, Result};
use crate::render::{Geometry, Observation, Symmetry};

/// The error of a device that cannot do `action`.
pub(super) fn missing(device: &str, action: &str) -> Error {
    Error::Device {
        device: device.to_owned(),
        action: action.to_owned(),
        reason: "the CUDA device does not implement it".into(),
        remedy: "use --device cpu".into(),
    }
}

/// Refuses symmetry.
///
/// # Errors
/// If the group has more than the identity.
pub(super) fn check_geometry(device: &str, geometry: &Geometry) -> Result<()> {
    match geometry.symmetry {
        Symmetry::C1 => Ok(()),
        symmetry => Err(missing(device, &format!("render particles of symmetry {symmetry}"))),
    }
}

/// Refuses contrasts, weights and noise groups other than the defaults.
///
/// # Errors
/// If there is one.
pub(super) fn check_observations(device: &str, batch: &[Observation]) -> Result<()> {
    let plain = |seen: &Observation| seen.contrast == 1.0 && seen.weight == 1.0 && seen.noise_group == 0;
    if batch.iter().all(plain) {
        return Ok(());
    }
    Err(missing(device, "use the contrast, weight or noise group of a particle"))
}

/// Refuses noise weights other than one group of ones.
///
/// # Errors
/// If there is one.
pub(super) fn check_noise_weights(device: &str, groups: &[Vec<f32>]) -> Result<()> {
    if groups.len() == 1 && groups[0].iter().all(|&weight| weight == 1.0) {
        return Ok(());
    }
    Err(missing(device, "use noise weights"))
}
