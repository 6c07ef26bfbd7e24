//! Export of particle sets: a STAR file with a stack of the stored images ([`star`]), or the selected rows of the STAR file
//! ([`original`]) or the cryoSPARC file ([`cs`]) that the set was imported from.

pub mod cs;
mod matching;
pub mod original;
pub mod star;
