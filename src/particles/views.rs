//! How evenly the views of a set sample the directions of Fourier space.

use super::store::Store;
use crate::error::Result;
use crate::imaging::Symmetry;
use crate::imaging::sampling::{FourierSampling, ViewCounts};

/// Largest number of views that are counted, with the symmetric ones.
const VIEWS: usize = 40_000;
/// Particles per read.
const ROWS: usize = 4096;

/// The sampling by the particles of `store`, or a sample of them spread evenly, of a specimen with `symmetry`. `None` for an empty set.
///
/// # Errors
/// When the particles cannot be read.
pub(crate) fn sampling(store: &Store, symmetry: Symmetry) -> Result<Option<FourierSampling>> {
    let (reader, all) = (store.reader(), store.len());
    let step = (all * symmetry.order()).div_ceil(VIEWS).max(1);
    let mut counts = ViewCounts::new(symmetry);
    for start in (0..all).step_by(ROWS) {
        let rows = start..all.min(start + ROWS);
        for (row, particle) in rows.clone().zip(reader.particles(rows)?) {
            if row % step == 0 {
                counts.add(&particle.rotation);
            }
        }
    }
    Ok(counts.sampling())
}
