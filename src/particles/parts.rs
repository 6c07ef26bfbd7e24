//! The models of a run, each with the particles that it is made of; what must hold of these before any work.

use std::ops::Range;

use serde::Serialize;

use super::Subset;
use super::store::{DataSetId, Store};
use crate::error::{Error, Result};
use crate::parallel::{World, group_size};

/// Which models a run trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Models {
    /// One model of each half: gold standard.
    Both,
    /// A model of half 1 alone.
    #[value(name = "1")]
    #[serde(rename = "1")]
    First,
    /// A model of half 2 alone.
    #[value(name = "2")]
    #[serde(rename = "2")]
    Second,
    /// One model of all particles: no FSC.
    All,
}

/// One model of the run and its particles.
#[derive(Clone, Debug)]
pub struct Part {
    /// The subset of the particles that it is trained on; names its outputs.
    pub subset: Subset,
    /// The rows of its particles.
    pub rows: Range<usize>,
}

impl Part {
    /// The file-name stem of its outputs.
    pub fn name(&self) -> &'static str {
        self.subset.name()
    }
}

/// The models of a run over a particle set.
pub fn parts(store: &Store, models: Models) -> Vec<Part> {
    let subsets: &[Subset] = match models {
        Models::Both => &Subset::HALVES,
        Models::First => &[Subset::Half1],
        Models::Second => &[Subset::Half2],
        Models::All => &[Subset::All],
    };
    subsets.iter().map(|&subset| Part { subset, rows: store.rows(subset) }).collect()
}

/// Broadcasts the identity of the particle set, which rank 0 has read, to all ranks.
pub fn share_identity(world: &World, set: Option<DataSetId>) -> DataSetId {
    let bytes = world.broadcast_bytes(set.as_ref().map_or(&[], |set| set.as_bytes()));
    DataSetId::from_bytes(bytes.try_into().expect("rank 0 has read the particle set"))
}

/// Particles of the largest part.
pub fn largest(parts: &[Part]) -> usize {
    parts.iter().map(|p| p.rows.len()).max().unwrap_or(0)
}

/// Says what the particles of a run are.
pub fn introduce(store: &Store, parts: &[Part]) {
    let header = store.header();
    let sizes: Vec<String> =
        parts.iter().map(|part| format!("{} in {}", part.rows.len(), part.name())).collect();
    tracing::info!(
        "{}: {} px at {:.4} A; particles: {}",
        store.path().display(),
        header.box_size,
        header.pixel_size,
        sizes.join(", ")
    );
}

/// Checks that every particle can be used as it is. Gives the set's identity.
///
/// # Errors
/// Names the first particle that cannot be.
pub fn inspect(store: &Store) -> Result<DataSetId> {
    store.inspect(|row, particle| {
        if particle.shift == [0.0; 2] {
            return Ok(());
        }
        Err(Error::input(
            store.path(),
            format!("particle {}", row + 1),
            format!("has a shift of {:?} pixels still to apply", particle.shift),
            "make the file with `cryosplat-mpi import`, which centres the particles",
        ))
    })
}

/// Checks that part `index` of `parts` has a particle for each of its ranks, of `size` in all, which are to `work` ("train")
/// on it.
///
/// # Errors
/// When there is none, or there are too few.
pub fn check_part(store: &Store, parts: &[Part], index: usize, size: usize, work: &str) -> Result<()> {
    let part = &parts[index];
    let (name, n) = (part.name(), part.rows.len());
    if n == 0 {
        return Err(Error::input(
            store.path(),
            "/half",
            format!("no particle is in {name}"),
            "import again with another --seed, or train one model with --half all",
        ));
    }
    let ranks = group_size(size, parts.len(), index);
    if ranks > n {
        return Err(Error::request(
            format!("{ranks} ranks are to {work} {name} with {n} particles: some would have none"),
            format!("start at most {} ranks", n * parts.len()),
        ));
    }
    Ok(())
}
