//! How good a map is, and how to show it: FSC, masks, charts, slices, the report of a run.
//!
//! [`fsc`], [`correction`], [`mod@cross_validation`], [`directional`], [`mask`], [`automask`] and [`postprocess`] compute,
//! [`mod@compare`] sets runs side by side; [`chart`], [`plots`], [`panels`] and [`slices`] draw, over [`picture`]; [`report`]
//! puts it on a page.

pub mod automask;
pub mod chart;
pub mod compare;
pub mod correction;
pub mod cross_validation;
pub mod directional;
mod distance;
pub mod filter;
pub mod fsc;
pub mod guinier;
pub mod maps;
pub mod mask;
pub mod panels;
pub mod picture;
pub mod plots;
pub mod postprocess;
pub mod report;
mod shells;
pub mod slices;

pub use correction::{Correction, Randomization};
pub use cross_validation::CrossValidation;
pub use directional::Directional;
pub use fsc::{Crossing, Fsc};
pub use mask::Mask;
pub use plots::write_fsc_files;
pub use slices::write_slices;
