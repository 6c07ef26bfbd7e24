//! Densification: after some epochs each Gaussian of a mixture becomes two (docs/method.md, section 7).

use crate::error::Result;
use crate::gmm::{Gmm, split};
use crate::recipe::Settings;
use crate::render::{Device, DeviceState};

/// Opens a device for a mixture that starts as `gmm`, with memory for the Gaussians that it has at its end: memory that does not
/// suffice is an error before the training.
///
/// # Errors
/// Those of `open`, or when the device fails.
pub(super) fn open_for_growth(
    gmm: Gmm,
    settings: &Settings,
    open: impl FnOnce(Gmm) -> Result<Box<dyn Device>>,
) -> Result<Box<dyn Device>> {
    if settings.densify.is_empty() {
        return open(gmm);
    }
    let at_end = settings.densify.iter().fold(gmm.clone(), |gmm, _| split(&gmm));
    let mut device = open(at_end)?;
    device.restore(DeviceState::initial(gmm))?;
    Ok(device)
}

/// Splits the Gaussians of the mixture on `device` until there are as many as the settings ask for in epoch `epoch`. Returns the
/// numbers before and after; `None` where there are as many already. No random number is used: all ranks split alike.
///
/// # Errors
/// When the device fails.
pub(super) fn grow(device: &mut dyn Device, settings: &Settings, epoch: usize) -> Result<Option<[usize; 2]>> {
    if settings.densify.is_empty() {
        return Ok(None);
    }
    let mut state = device.state()?;
    let (before, wanted) = (state.gmm.len(), settings.gaussians_in(epoch));
    if before >= wanted {
        return Ok(None);
    }
    while state.gmm.len() < wanted {
        state = doubled(&state);
    }
    device.restore(state)?;
    Ok(Some([before, wanted]))
}

/// The state after a split of each Gaussian. The gradient of each of the two is half of the original's, as all gradients of a
/// Gaussian are proportional to its amplitude, so Adam's first moments are halved and its second moments quartered: the next step
/// is as long as it would have been.
fn doubled(state: &DeviceState) -> DeviceState {
    let count = state.gmm.len();
    let of_pairs = |values: &[f32], factor: f32| -> Vec<f32> {
        values.chunks(count).flat_map(|plane| plane.repeat(2)).map(|value| factor * value).collect()
    };
    DeviceState {
        gmm: split(&state.gmm),
        first: of_pairs(&state.first, 0.5),
        second: of_pairs(&state.second, 0.25),
    }
}
