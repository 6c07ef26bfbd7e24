//! From the particle file to the device: the order of particles, and where they are kept between epochs.
//!
//! [`sampler`] computes the order of particles, [`cache`] decides where they are kept, and [`shard`] delivers a rank's part of
//! each batch: from memory ([`resident`]), or streamed from the file or a scratch copy ([`windows`], [`prefetch`], [`scratch`]).
//! [`factors`] are what a step takes into account of each particle beside its view.

pub mod cache;
pub(crate) mod factors;
mod permutation;
pub mod prefetch;
mod resident;
pub mod sampler;
pub mod scratch;
pub mod shard;
mod windows;
