//! The ranks of a group hold the same parameters, bit for bit; a checksum verifies it.

use crate::error::{Error, Result};
use crate::parallel::Collective;
use crate::particles::Subset;

/// Steps between two checks that the parameters of all ranks of a group are bitwise equal.
pub(super) const REPLICA_CHECK: u64 = 100;

/// Checks that the parameters of all ranks of the group are bitwise equal: that they have the same `checksum`.
///
/// # Errors
/// On every rank, when they are not.
pub fn check_replicas(collective: &Collective, checksum: u64, subset: Subset, step: u64) -> Result<()> {
    if collective.all_equal(checksum) {
        return Ok(());
    }
    Err(Error::Numeric {
        problem: format!("the ranks that train {subset} hold different parameters after step {step}"),
        remedy: "one of the nodes computes differently from the others: run on nodes of one kind, and check their memory".into(),
    })
}
