//! The folder of a run for other commands: the report page written again, and what the run has found out about its particles.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::evaluate::Headline;
use crate::files::{self, Claims};
use crate::particles::Subset;
use crate::particles::export::results::{RunColumns, RunResults};
use crate::particles::export::{cs, original};
use crate::particles::selection::SubsetRows;
use crate::particles::sources;
use crate::particles::store::{DataSetId, Store};
use crate::run_folder::appraisal::Appraised;
use crate::run_folder::diagnosis::{Diagnosis, Severity, Verdict};
use crate::run_folder::refinement::RefinementState;
use crate::run_folder::{excluded, names, refinement_file, report, tables};

/// Writes report.html again into the folder of the finished run `run`. The particles are read from `particles`, or from the file that
/// run.json names; the FSC of the runs in `baselines` is added. Returns the path of the page.
///
/// # Errors
/// As [`open`] and [`report::write`], or when the page would replace a source of the set.
pub(crate) fn rewrite_report(run: &Path, particles: Option<&Path>, baselines: &[PathBuf]) -> Result<PathBuf> {
    let (document, store) = open(run, particles)?;
    let page = run.join(names::REPORT);
    let mut claims = Claims::new();
    sources::reads(claims.writes(&page), &store);
    claims.check()?;
    report::write(run, &document, &store, baselines)?;
    Ok(page)
}

/// The record of the finished run `run`, and its particles: those in `particles`, or in the file that the record names.
///
/// # Errors
/// When the run is not finished, or the particle file is missing or of another set.
pub(crate) fn open(run: &Path, particles: Option<&Path>) -> Result<(Value, Store)> {
    let path = run.join(names::RUN);
    let text = files::read_text(&path).map_err(Error::io(
        &path,
        "read the run's record",
        "name the folder of a finished run",
    ))?;
    let document: Value = serde_json::from_str(&text)
        .map_err(|error| Error::input(&path, "", error.to_string(), "run `train` again"))?;
    if document["state"] != "done" {
        return Err(Error::input(
            &path,
            "state",
            format!("is {}, not \"done\"", document["state"]),
            "wait for the end of the run, or resume it (train --resume auto)",
        ));
    }
    let named = || {
        let remedy = "name the particle file with --particles";
        let named = report::particles_of(&document)
            .ok_or_else(|| Error::input(&path, "particles.file", "is missing", remedy))?;
        if !named.exists() {
            let problem = format!("is {}, which does not exist", named.display());
            return Err(Error::input(&path, "particles.file", problem, remedy));
        }
        Ok(named)
    };
    let particles = particles.map_or_else(named, |path| Ok(path.to_owned()))?;
    let store = Store::open(&particles)?;
    let identity = store.validate()?;
    let recorded = &document["particles"]["identity"];
    if recorded.as_str().is_none_or(|recorded| is_other_set(recorded, identity, &path)) {
        return Err(Error::input(
            &particles,
            "",
            format!("is set {identity}, but the run used set {recorded}"),
            "name the particle file of the run with --particles",
        ));
    }
    Ok((document, store))
}

/// The resolution that a finished run has recorded for its two half maps; `None` if the files are not those of one run.
pub(crate) fn resolution_of(half_maps: [&Path; 2]) -> Option<Headline> {
    let document = files::read_text(&run_of(half_maps)?.join(names::RUN)).ok()?;
    let document: Value = serde_json::from_str(&document).ok()?;
    (document["state"] == "done").then(|| Headline::from_document(&document))?
}

/// What is wrong with the run of two half maps, as its diagnosis says: a warning or a fault; `None` if there is none.
pub(crate) fn objection_to(half_maps: [&Path; 2]) -> Option<Verdict> {
    let diagnosis = Diagnosis::read(run_of(half_maps)?).ok()??;
    Some(diagnosis.verdict).filter(|verdict| verdict.severity >= Severity::Warning)
}

/// The folder of the run whose half maps these are.
fn run_of(half_maps: [&Path; 2]) -> Option<&Path> {
    let folder = half_maps[0].parent()?;
    let own = Subset::HALVES.map(|half| folder.join(names::map(half)));
    (own == half_maps).then_some(folder)
}

/// The mixtures in the run folder `path`, whose mean is the density of the run; `path` itself where it is a file.
///
/// # Errors
/// When the folder holds no mixture, or only that of one half of a run of both.
pub(crate) fn mixtures(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let of = |subsets: &[Subset]| {
        subsets.iter().map(|subset| path.join(names::mixture(subset))).filter(|file| file.exists()).collect()
    };
    let found: Vec<PathBuf> = [of(&Subset::HALVES), of(&Subset::ALL)]
        .into_iter()
        .find(|found: &Vec<_>| !found.is_empty())
        .unwrap_or_default();
    if found.is_empty() {
        let problem = "holds no mixture of a run of `train`";
        return Err(Error::input(path, "", problem, "name the folder of a finished run, or a mixture"));
    }
    if let [only] = &found[..] {
        // A run of one half has no other. Without a record, the mixture is all that is known of the run.
        let document = files::read_text(&path.join(names::RUN)).unwrap_or_default();
        let document: Value = serde_json::from_str(&document).unwrap_or_default();
        let mut halves = Subset::HALVES.iter().map(|half| path.join(names::mixture(half)));
        if let Some(missing) = halves.find(|file| file != only && document["half"] == "both") {
            let problem = "is missing, in a run of both halves";
            let remedy = format!("bring it back, or name {} for its half map", only.display());
            return Err(Error::input(missing, "", problem, remedy));
        }
    }
    Ok(found)
}

/// Claims the page that [`rewrite_report`] writes as an output; it also reports a run that does not exist.
pub(crate) fn claim_report<'a>(claims: &'a mut Claims, run: &Path) -> &'a mut Claims {
    claims.creates(run).writes(run.join(names::REPORT))
}

/// The rows that the run in the folder `run` excluded. The run must be of the particle set `store`, whose identity is `set`.
///
/// # Errors
/// When run.json cannot be read or is of another set, or as [`excluded::rows_of_run`].
fn excluded_rows(run: &Path, store: &Store, set: DataSetId) -> Result<BTreeSet<usize>> {
    let file = run.join(names::RUN);
    let remedy = "give the folder of a run of this particle set";
    let text = files::read_text(&file).map_err(Error::io(&file, "read the run", remedy))?;
    let document: Value = serde_json::from_str(&text)
        .map_err(|error| Error::input(&file, "", format!("is not JSON ({error})"), remedy))?;
    let found = document["particles"]["identity"].as_str();
    if let Some(found) = found.filter(|found| is_other_set(found, set, &file)) {
        let problem = format!("belongs to particle set {found}, but {} is {set}", store.path().display());
        return Err(Error::input(&file, "", problem, remedy));
    }
    excluded::rows_of_run(run, store.len())
}

/// What the run in the folder `run` has found out about the particles of `store`, whose identity is `set`.
///
/// # Errors
/// When a file of the run cannot be read, or is of another set.
pub(crate) fn results(run: &Path, store: &Store, set: DataSetId) -> Result<RunResults> {
    Ok(RunResults {
        excluded: excluded_rows(run, store, set)?,
        refined: refinement_file::read(run, store, set)?.unwrap_or_default().rows,
        columns: appraised_rows(run, store)?,
    })
}

/// Writes what a run on the particles of `store`, whose identity is `set`, has refined in each model: refinement.h5; and particles.star or
/// particles.cs, a copy of the file that the set was imported from, if it is still there. A copy that fails is logged.
///
/// # Errors
/// When refinement.h5 cannot be written.
pub fn write_refinement(
    folder: &Path,
    store: &Store,
    set: DataSetId,
    models: &[(&SubsetRows, &RefinementState)],
) -> Result<()> {
    refinement_file::write(folder, set, models)?;
    let original = store.imported_from();
    let extension = original.as_ref().and_then(|file| file.extension());
    let kind = names::ORIGINALS.into_iter().find(|(kind, _)| extension.is_some_and(|found| found == *kind));
    let (Some(original), Some((kind, name))) = (original, kind) else { return Ok(()) };
    let copy = folder.join(name);
    let written = results(folder, store, set).and_then(|results| match kind {
        "cs" => cs::select(store, &results, &original, &copy),
        _ => original::select(store, &results, &original, &copy),
    });
    match written {
        Ok(count) => tracing::info!("{count} refined particles: {}", copy.display()),
        Err(error) => tracing::warn!(
            "{} is not written: {error}; `export {kind} --original --run` writes it later",
            copy.display()
        ),
    }
    Ok(())
}

/// What the run in the folder `run` has found out about each row of `store`, in particles.csv; empty if it has compared none.
/// [`excluded_rows`] has checked that the run is of this set.
fn appraised_rows(run: &Path, store: &Store) -> Result<Vec<RunColumns>> {
    let Some(table) = tables::read_particles(run)? else { return Ok(Vec::new()) };
    if table.iter().all(|(_, particle)| !particle.is_compared()) {
        return Ok(Vec::new());
    }
    let mut rows = vec![RunColumns { gain: 0.0, weight: 1.0, contrast: 1.0 }; store.len()];
    for (row, Appraised { gain, weight, contrast, .. }) in table {
        let Some(of_row) = rows.get_mut(row) else {
            let problem =
                format!("names particle {}, but {} has {}", row + 1, store.path().display(), store.len());
            let remedy = "give the folder of a run of this particle set";
            return Err(Error::input(run.join(names::PARTICLES), "", problem, remedy));
        };
        let or = |value: f32, default: f64| if value.is_finite() { f64::from(value) } else { default };
        *of_row = RunColumns { gain: or(gain, 0.0), weight: or(weight, 1.0), contrast: or(contrast, 1.0) };
    }
    Ok(rows)
}

/// Whether the identity that the run's record `file` holds is of another particle set than `set`. Earlier versions recorded a
/// CRC-32, which cannot be compared: it is accepted, with a warning.
fn is_other_set(recorded: &str, set: DataSetId, file: &Path) -> bool {
    let is_crc32 = recorded.len() == 8 && recorded.bytes().all(|digit| digit.is_ascii_hexdigit());
    if is_crc32 {
        tracing::warn!(
            "{}: the run is of an earlier version; whether it used these particles is not checked",
            file.display()
        );
    }
    !is_crc32 && recorded != set.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_another_unless_its_identity_is_equal_or_of_an_earlier_version() {
        let set = DataSetId::from_bytes([7; 32]);
        let is_other = |recorded: &str| is_other_set(recorded, set, Path::new("run.json"));
        assert!(!is_other(&set.to_string()));
        assert!(!is_other("0ba800c8"));
        for other in [&DataSetId::from_bytes([8; 32]).to_string(), "", "0ba800c", "synthetic"] {
            assert!(is_other(other), "{other}");
        }
    }
}
