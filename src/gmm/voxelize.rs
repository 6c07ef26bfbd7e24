//! A mixture on a grid.
