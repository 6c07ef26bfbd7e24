//! From the particle file to the device: which particle comes when, and where it is kept between epochs.
//!
//! [`sampler`] decides the order of particles, [`cache`] where they are kept, and [`shard`] delivers a rank's part of each
//! batch: from memory ([`resident`]), or streamed from the file or a node-local copy ([`windows`], [`prefetch`], [`scratch`]).

pub mod cache;
mod permutation;
pub mod prefetch;
mod resident;
pub mod sampler;
pub mod scratch;
pub mod shard;
mod windows;
