//! The subsets of a particle set that a run works on, and the checks that they pass before any work.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::Subset;
use super::store::{SetDigests, Store};
use crate::error::{Error, Result};
use crate::parallel::group_size;

/// Which models a run trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Models {
    /// One model per half (gold standard).
    Both,
    /// A model of half 1 only.
    #[value(name = "1")]
    #[serde(rename = "1")]
    First,
    /// A model of half 2 only.
    #[value(name = "2")]
    #[serde(rename = "2")]
    Second,
    /// One model of all particles, without an FSC.
    All,
}

impl Models {
    /// Numbers of particles of these models, of a set with halves of this size.
    pub fn particles(self, halves: [usize; 2]) -> Vec<usize> {
        match self {
            Self::Both => halves.to_vec(),
            Self::First => vec![halves[0]],
            Self::Second => vec![halves[1]],
            Self::All => vec![halves[0] + halves[1]],
        }
    }
}

/// A subset and the rows of its particles in the particle file. One model is made from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubsetRows {
    /// The subset; names the outputs of its model.
    pub subset: Subset,
    /// The rows of its particles.
    pub rows: Range<usize>,
}

impl SubsetRows {
    /// The subsets of `store` that `models` are made from.
    pub fn of(store: &Store, models: Models) -> Vec<Self> {
        let subsets: &[Subset] = match models {
            Models::Both => &Subset::HALVES,
            Models::First => &[Subset::Half1],
            Models::Second => &[Subset::Half2],
            Models::All => &[Subset::All],
        };
        subsets.iter().map(|&subset| Self { subset, rows: store.rows(subset) }).collect()
    }

    /// The file-name stem of the outputs: "half1", "half2" or "map".
    pub fn name(&self) -> &'static str {
        self.subset.name()
    }
}

/// The number of particles of the largest of `subsets`.
pub fn most_particles(subsets: &[SubsetRows]) -> usize {
    subsets.iter().map(|subset| subset.rows.len()).max().unwrap_or(0)
}

/// Logs the number of particles of each subset.
pub(crate) fn log(store: &Store, subsets: &[SubsetRows]) {
    let header = store.header();
    let sizes: Vec<String> =
        subsets.iter().map(|subset| format!("{} in {}", subset.rows.len(), subset.name())).collect();
    tracing::info!(
        "{}: {} px at {:.4} A; particles: {}",
        store.path().display(),
        header.box_size,
        header.pixel_size,
        sizes.join(", ")
    );
}

/// Checks that all particles are centred, and returns the digests of the set.
///
/// # Errors
/// Names the first particle with a shift.
pub(crate) fn check_centred(store: &Store) -> Result<SetDigests> {
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

/// Checks that each of `subsets` has a particle for every rank of its group, of `ranks` ranks in all. `verb` ("train") is what
/// the ranks do.
///
/// # Errors
/// When a subset is empty, or has fewer particles than ranks.
pub(crate) fn check_ranks(store: &Store, subsets: &[SubsetRows], ranks: usize, verb: &str) -> Result<()> {
    for (index, subset) in subsets.iter().enumerate() {
        let (name, particles) = (subset.name(), subset.rows.len());
        if particles == 0 {
            return Err(Error::input(
                store.path(),
                "/half",
                format!("no particle is in {name}"),
                "import again with another --seed, or train one model with --half all",
            ));
        }
        let group = group_size(ranks, subsets.len(), index);
        if group > particles {
            return Err(Error::request(
                format!(
                    "{group} ranks are to {verb} {name} with {particles} particles: some would have none"
                ),
                format!("start at most {} ranks", particles * subsets.len()),
            ));
        }
    }
    Ok(())
}
