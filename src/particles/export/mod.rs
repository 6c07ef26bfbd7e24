//! Export of particle sets: a STAR file with a stack of the stored images ([`star`]), a particle file ([`particle_file`]), or the
//! selected rows of the STAR file ([`original`]) or the cryoSPARC file ([`cs`]) that the set was imported from; each with the
//! [`results`] of a run.

pub mod cs;
mod matching;
pub mod original;
pub mod particle_file;
mod refined_star;
pub mod results;
pub mod star;
