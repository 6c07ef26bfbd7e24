//! What a rank computes with: its device ([`devices`]), free memory ([`memory`]) and the all-reduce of its group ([`all_reduce`]).

pub mod all_reduce;
pub mod devices;
pub mod memory;
