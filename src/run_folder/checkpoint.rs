//! Checkpoints: one HDF5 file per model and step, written atomically; the last two are kept.

mod digest;

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files;
use crate::gmm::Gmm;
use crate::gmm::files::{read_planes, write_planes};
use crate::hdf5::{check_format, numeric_dataset, open, scalar_attribute, text_attribute, write_format};
use crate::particles::Subset;
use crate::recipe::{Clock, Settings};
use crate::render::DeviceState;
use crate::run_folder::appraisal::Appraisal;
use crate::run_folder::identity::RunIdentity;
use crate::run_folder::refinement::{self, RefinementState};

/// Value of the root attribute `format`.
pub const FORMAT: &str = "cryosplat-checkpoint";
/// Value of the root attribute `version`.
pub const VERSION: u32 = 5;
/// Number of checkpoints per model that are kept.
const KEPT: usize = 2;

const REMEDY_READ: &str = "remove the file to resume from the one before it, or start without --resume";

/// The state of one model between two steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// How far the model is trained.
    pub position: Position,
    /// Steps, images and bias corrections.
    pub clock: Clock,
    /// Parameters and Adam's moments.
    pub state: DeviceState,
    /// Fully trained mixtures of the model.
    pub trained: Vec<Gmm>,
    /// Rows of the excluded particles.
    pub excluded: Vec<u64>,
    /// What it takes into account of its particles; `None` where that is nothing.
    pub appraisal: Option<Appraisal>,
    /// What it has refined of its particles; `None` where it refines nothing.
    pub refinement: Option<RefinementState>,
    /// Ranks that trained the model: on as many ranks, a resumed run gives the same bits.
    pub ranks: usize,
    /// A run resumes only from a checkpoint of its own identity.
    pub identity: RunIdentity,
}

/// How far a model is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Position {
    /// Finished epochs.
    pub epoch: usize,
    /// Steps done in the epoch after them.
    pub step: usize,
    /// Sum of the losses over the images of those steps.
    pub loss: f64,
    /// Number of those images.
    pub images: u64,
}

/// The file of the model of `subset` after `step` steps.
pub fn path(folder: &Path, subset: Subset, step: u64) -> PathBuf {
    folder.join(format!("{subset}_step{step:09}.h5"))
}

/// Steps of the checkpoints of the model of `subset` in `folder`, in ascending order.
pub fn steps(folder: &Path, subset: Subset) -> Vec<u64> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<u64> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            name.strip_prefix(subset.name())?.strip_prefix("_step")?.strip_suffix(".h5")?.parse().ok()
        })
        .collect();
    found.sort_unstable();
    found
}

/// Name of the group of a fully trained mixture.
fn trained_name(number: u64) -> String {
    format!("trained_{number}")
}

fn open_checkpoint(path: &Path) -> Result<hdf5::File> {
    let file = open(path, "a checkpoint of `train`", REMEDY_READ)?;
    check_format(&file, path, FORMAT, VERSION, REMEDY_READ)?;
    Ok(file)
}

/// Whether the file is a checkpoint, of any version.
pub(crate) fn is_checkpoint(path: &Path) -> bool {
    let format =
        open(path, "a checkpoint of `train`", REMEDY_READ).ok().map(|f| text_attribute(&f, "format"));
    format.is_some_and(|format| format.is_ok_and(|format| format == FORMAT))
}

/// The identity of the run that the checkpoint in the file is of.
///
/// # Errors
/// As [`Checkpoint::read`].
pub(crate) fn read_identity(path: &Path) -> Result<RunIdentity> {
    identity_in(&open_checkpoint(path)?, path)
}

/// Checks that the checkpoint of `model` after `step` steps is not under the name of another one.
fn check_name(path: &Path, model: &str, step: u64) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let of_other = |&subset: &Subset| {
        let number = name.strip_prefix(subset.name()).and_then(|rest| rest.strip_prefix("_step"));
        let number = number.and_then(|rest| rest.strip_suffix(".h5")).and_then(|text| text.parse().ok());
        number.is_some_and(|number: u64| number != step || subset.name() != model)
    };
    if !Subset::ALL.iter().any(of_other) {
        return Ok(());
    }
    let problem = format!("is the checkpoint of {model} after step {step}, under another name");
    Err(Error::input(path, "", problem, REMEDY_READ))
}

fn identity_in(file: &hdf5::File, path: &Path) -> Result<RunIdentity> {
    let text = text_attribute(file, "identity");
    RunIdentity::from_json(path, &text.map_err(Error::hdf5(path, "read the checkpoint", REMEDY_READ))?)
}

impl Checkpoint {
    /// Writes the checkpoint of the model of `subset`, and removes those older than the last two.
    ///
    /// # Errors
    /// When it cannot be written; older ones are then untouched.
    pub fn write(&self, folder: &Path, subset: Subset) -> Result<()> {
        let path = path(folder, subset, self.clock.step);
        files::write_hdf5(&path, "write the checkpoint", |file| {
            write_format(file, FORMAT, VERSION)?;
            let text: hdf5::types::VarLenUnicode =
                self.identity.to_json().parse().expect("JSON holds no NUL");
            file.new_attr::<hdf5::types::VarLenUnicode>().create("identity")?.write_scalar(&text)?;
            let whole = |name: &str, value: u64| file.new_attr::<u64>().create(name)?.write_scalar(&value);
            let real = |name: &str, value: f64| file.new_attr::<f64>().create(name)?.write_scalar(&value);
            let model: hdf5::types::FixedAscii<8> =
                hdf5::types::FixedAscii::from_ascii(subset.name()).expect("a short name in ASCII");
            file.new_attr::<hdf5::types::FixedAscii<8>>().create("model")?.write_scalar(&model)?;
            let digest: hdf5::types::FixedAscii<64> =
                hdf5::types::FixedAscii::from_ascii(&self.digest()).expect("64 digits");
            file.new_attr::<hdf5::types::FixedAscii<64>>().create("sha256")?.write_scalar(&digest)?;
            whole("ranks", self.ranks as u64)?;
            whole("step", self.clock.step)?;
            whole("images", self.clock.images)?;
            real("beta1_power", self.clock.beta1_power)?;
            real("beta2_power", self.clock.beta2_power)?;
            whole("epoch", self.position.epoch as u64)?;
            whole("epoch_steps", self.position.step as u64)?;
            real("epoch_loss", self.position.loss)?;
            whole("epoch_images", self.position.images)?;
            file.new_dataset_builder().with_data(&self.excluded).create("left_out")?;
            write_planes(&file.create_group("gmm")?, &self.state.gmm)?;
            whole("trained", self.trained.len() as u64)?;
            for (number, gmm) in self.trained.iter().enumerate() {
                write_planes(&file.create_group(&trained_name(number as u64))?, gmm)?;
            }
            if let Some(appraisal) = &self.appraisal {
                appraisal.write(file)?;
            }
            if let Some(refinement) = &self.refinement {
                refinement.write(file, refinement::GROUP)?;
            }
            let adam = file.create_group("adam")?;
            adam.new_dataset_builder().with_data(&self.state.first).create("first")?;
            adam.new_dataset_builder().with_data(&self.state.second).create("second")?;
            Ok(())
        })?;
        let all = steps(folder, subset);
        for &old in all.iter().rev().skip(KEPT) {
            // A file that cannot be removed only takes space.
            let _ = std::fs::remove_file(self::path(folder, subset, old));
        }
        Ok(())
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// When it does not exist, is truncated, of another version or inconsistent.
    pub fn read(path: &Path) -> Result<Self> {
        let file = open_checkpoint(path)?;
        let fail = || Error::hdf5(path, "read the checkpoint", REMEDY_READ);
        let whole = |name: &str| scalar_attribute::<u64>(&file, name).map_err(fail());
        let real = |name: &str| -> Result<f64> {
            let value: f64 = scalar_attribute(&file, name).map_err(fail())?;
            if value.is_finite() {
                return Ok(value);
            }
            Err(Error::input(path, format!("attribute {name}"), format!("is {value}"), REMEDY_READ))
        };
        check_name(path, &text_attribute(&file, "model").map_err(fail())?, whole("step")?)?;
        let gmm = read_planes(&crate::hdf5::group(&file, "gmm").map_err(fail())?, path)?;
        let moments = |name: &str| -> Result<Vec<f32>> {
            let values: Vec<f32> = numeric_dataset(&file, name).map_err(fail())?;
            let bad = |problem: String| Err(Error::input(path, format!("/{name}"), problem, REMEDY_READ));
            if values.len() != gmm.values().len() {
                return bad(format!("holds {} values, expected {}", values.len(), gmm.values().len()));
            }
            match values.iter().position(|v| !v.is_finite()) {
                Some(i) => bad(format!("value {} is {}", i + 1, values[i])),
                None => Ok(values),
            }
        };
        let excluded = numeric_dataset(&file, "left_out").map_err(fail())?;
        let trained = (0..whole("trained")?).map(|number| {
            let name = trained_name(number);
            let trained = read_planes(&crate::hdf5::group(&file, &name).map_err(fail())?, path)?;
            if trained.shape() == gmm.shape() {
                return Ok(trained);
            }
            let [trained, gmm] = [trained, gmm.clone()].map(|gmm| gmm.shape().name());
            let problem = format!("holds {trained} Gaussians, but /gmm holds {gmm} ones");
            Err(Error::input(path, format!("/{name}"), problem, REMEDY_READ))
        });
        let trained = trained.collect::<Result<_>>()?;
        let checkpoint = Self {
            position: Position {
                epoch: whole("epoch")? as usize,
                step: whole("epoch_steps")? as usize,
                loss: real("epoch_loss")?,
                images: whole("epoch_images")?,
            },
            trained,
            excluded,
            appraisal: Appraisal::read(&file, path, REMEDY_READ)?,
            refinement: RefinementState::read(&file, refinement::GROUP, path, REMEDY_READ)?,
            ranks: whole("ranks")? as usize,
            clock: Clock {
                step: whole("step")?,
                images: whole("images")?,
                beta1_power: real("beta1_power")?,
                beta2_power: real("beta2_power")?,
            },
            state: DeviceState { first: moments("adam/first")?, second: moments("adam/second")?, gmm },
            identity: identity_in(&file, path)?,
        };
        if text_attribute(&file, "sha256").map_err(fail())? == checkpoint.digest() {
            return Ok(checkpoint);
        }
        Err(Error::input(path, "", "is damaged: its values do not match their SHA-256", REMEDY_READ))
    }

    /// Checks that the checkpoint, in the file `path`, is possible in a run with `settings` and `steps` steps per epoch over the particles
    /// in `rows`.
    ///
    /// # Errors
    /// Names the attribute or data set that is out of range.
    pub fn check_within(
        &self,
        path: &Path,
        settings: &Settings,
        steps: usize,
        rows: &Range<usize>,
    ) -> Result<()> {
        let epochs = settings.epochs;
        let bad = |at: &str, problem: String| Err(Error::input(path, at, problem, REMEDY_READ));
        let Position { epoch, step, images, .. } = self.position;
        if epoch > epochs {
            return bad("attribute epoch", format!("is {epoch}, but the run has {epochs}"));
        }
        let (steps, most) = if epoch == epochs { (0, 0) } else { (steps, rows.len() as u64) };
        if step > steps || images > most {
            let problem = format!(
                "is after {step} steps and {images} images of epoch {}, which has {steps} and {most}",
                epoch.saturating_add(1)
            );
            return bad("", problem);
        }
        // Between two mixtures, the one that has ended may not be among them yet.
        let (wanted, trained) = (settings.mixture_in(epoch), self.trained.len());
        let ended = step == 0 && epoch > 0 && settings.mixture_in(epoch - 1) < wanted;
        if trained != wanted && !(ended && trained + 1 == wanted) {
            let problem =
                format!("is {trained}, but {wanted} mixtures were complete before epoch {}", epoch + 1);
            return bad("attribute trained", problem);
        }
        // Before the first step of an epoch, the Gaussians may not be split yet, or the last mixture still be on the device.
        let before = epoch - usize::from(step == 0 && epoch > 0);
        check_mixture(path, "gmm", &self.state.gmm, settings, [epoch, before])?;
        for (number, trained) in self.trained.iter().enumerate() {
            check_mixture(path, &trained_name(number as u64), trained, settings, [epochs; 2])?;
        }
        if let Some(appraisal) = &self.appraisal
            && ![0, rows.len()].contains(&appraisal.particles.len())
        {
            let problem =
                format!("holds {} particles, but the model has {}", appraisal.particles.len(), rows.len());
            return bad("/appraisal/particles", problem);
        }
        if let Some(refinement) = &self.refinement {
            refinement.check_within(path, rows.len(), epoch, REMEDY_READ)?;
        }
        let inside = |&row: &u64| usize::try_from(row).is_ok_and(|row| rows.contains(&row));
        match self.excluded.iter().find(|row| !inside(row)) {
            Some(row) => bad("/left_out", format!("names row {row}, but its particles are rows {rows:?}")),
            None => Ok(()),
        }
    }
}

/// Checks that the mixture in the group `name` of a checkpoint has as many Gaussians as in one of `in_epochs`.
fn check_mixture(
    path: &Path,
    name: &str,
    gmm: &Gmm,
    settings: &Settings,
    in_epochs: [usize; 2],
) -> Result<()> {
    let counts = in_epochs.map(|epoch| settings.gaussians_in(epoch));
    if gmm.shape() == settings.shape() && counts.contains(&gmm.len()) {
        return Ok(());
    }
    let problem = format!(
        "holds {} {} Gaussians, but the run has {} {} ones then",
        gmm.len(),
        gmm.shape().name(),
        counts[0],
        settings.shape().name()
    );
    Err(Error::input(path, format!("/{name}"), problem, REMEDY_READ))
}

#[cfg(test)]
mod tests;
