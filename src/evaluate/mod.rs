//! How good a map is, and how to show it: FSC, masks, charts, slices, the report of a run.
//!
//! [`fsc`] and [`mask`] compute; [`chart`], [`plots`], [`panels`] and [`slices`] draw, over [`picture`]; [`report`] puts it on a
//! page.

pub mod chart;
pub mod fsc;
pub mod maps;
pub mod mask;
pub mod panels;
pub mod picture;
pub mod plots;
pub mod report;
pub mod slices;

pub use fsc::{Crossing, Fsc};
pub use mask::Mask;
pub use plots::write_fsc_files;
pub use slices::write_slices;
