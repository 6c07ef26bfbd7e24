//! refinement.h5: what a finished run has refined of its particles, in f64. `export` takes it with `--run`.

use std::path::Path;

use crate::error::{Error, Result};
use crate::files;
use crate::hdf5::{check_format, open, scalar_attribute, text_attribute, write_format};
use crate::particles::Subset;
use crate::particles::refinement::Refinement;
use crate::particles::selection::SubsetRows;
use crate::particles::store::{DataSetId, Store};
use crate::run_folder::names;
use crate::run_folder::refinement::{RefinementState, RoundSummary};

/// Value of the root attribute `format`.
const FORMAT: &str = "cryosplat-refinement";
/// Value of the root attribute `version`.
const VERSION: u32 = 1;
/// Attribute of a group: the first row of its model.
const FIRST: &str = "first_row";
const REMEDY: &str = "give the folder of a run of this particle set, or run `train --refine` again";

/// What a run has refined, for a whole particle set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunRefinement {
    /// One for each row of the set; the default for rows of no model.
    pub rows: Vec<Refinement>,
    /// The rounds of each model.
    pub rounds: Vec<(Subset, Vec<RoundSummary>)>,
}

/// Writes refinement.h5: what the run in `folder` has refined of the set `set`, by model.
///
/// # Errors
/// When it cannot be written.
pub fn write(folder: &Path, set: DataSetId, models: &[(&SubsetRows, &RefinementState)]) -> Result<()> {
    let path = folder.join(names::REFINEMENT);
    files::write_hdf5(&path, "write the refinement", |file| {
        write_format(file, FORMAT, VERSION)?;
        let identity: hdf5::types::VarLenUnicode = set.to_string().parse().unwrap_or_default();
        file.new_attr::<hdf5::types::VarLenUnicode>().create("particles")?.write_scalar(&identity)?;
        for (model, state) in models {
            state.write(file, model.name())?;
            let group = file.group(model.name())?;
            group.new_attr::<u64>().create(FIRST)?.write_scalar(&(model.rows.start as u64))?;
        }
        Ok(())
    })
}

/// Reads refinement.h5 of the run in `folder`, which must be of the particle set `store`, whose identity is `set`; `None` if there is no
/// such file.
///
/// # Errors
/// When the file is damaged, or of another set.
pub fn read(folder: &Path, store: &Store, set: DataSetId) -> Result<Option<RunRefinement>> {
    let path = folder.join(names::REFINEMENT);
    if !path.exists() {
        return Ok(None);
    }
    let file = open(&path, "the refinement of a run", REMEDY)?;
    check_format(&file, &path, FORMAT, VERSION, REMEDY)?;
    let fail = || Error::hdf5(&path, "read the refinement", REMEDY);
    let found = text_attribute(&file, "particles").map_err(fail())?;
    if found != set.to_string() {
        let problem = format!("belongs to particle set {found}, but {} is {set}", store.path().display());
        return Err(Error::input(&path, "", problem, REMEDY));
    }
    let mut refinement = RunRefinement { rows: vec![Refinement::default(); store.len()], rounds: Vec::new() };
    for subset in Subset::ALL {
        let Some(state) = RefinementState::read(&file, subset.name(), &path, REMEDY)? else { continue };
        let group = crate::hdf5::group(&file, subset.name()).map_err(fail())?;
        let (first, count) = (scalar_attribute::<u64>(&group, FIRST).map_err(fail())?, state.particles.len());
        let rows = store.rows(subset);
        if first != rows.start as u64 || ![0, rows.len()].contains(&count) {
            let problem =
                format!("holds {count} particles from row {first}, but {subset} of the set is rows {rows:?}");
            return Err(Error::input(&path, format!("/{subset}"), problem, REMEDY));
        }
        refinement.rows[rows.start..rows.start + count].copy_from_slice(&state.particles);
        refinement.rounds.push((subset, state.rounds));
    }
    Ok(Some(refinement))
}
