//! Particle sets with a known truth.
