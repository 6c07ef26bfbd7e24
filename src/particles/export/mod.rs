//! Export of particle sets: a STAR file with a stack of the stored images ([`star`]), or the selected rows of the STAR file that
//! the set was imported from ([`original`]).

mod matching;
pub mod original;
pub mod star;
