//! What a rank computes with: its device ([`devices`]) and the all-reduce of its group ([`all_reduce`]).

pub mod all_reduce;
pub mod devices;
