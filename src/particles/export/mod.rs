//! Particle sets for other programs: a STAR file with a stack of the images as they are in the set ([`star`]), or the rows of the
//! STAR file that the set came from ([`original`]).

pub mod original;
pub mod star;
