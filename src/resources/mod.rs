//! What a rank computes with: its device ([`devices`]), free memory ([`memory`]), and the all-reduce of its group ([`reduction`]).

pub mod devices;
pub mod memory;
pub mod reduction;
