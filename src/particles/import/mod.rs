//! Readers of other programs' particle sets.
