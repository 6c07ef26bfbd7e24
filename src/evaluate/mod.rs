//! How good a map is, and how to show it: FSC, masks, charts, slices, the report of a run.
//!
//! [`fsc`] and [`mask`] compute, and [`mod@compare`] sets runs side by side; [`chart`], [`plots`] and [`slices`] draw, over [`picture`]; [`report`] puts it on a page.

pub mod chart;
pub mod compare;
pub mod fsc;
pub mod maps;
pub mod mask;
pub mod picture;
pub mod plots;
pub mod report;
pub mod slices;

pub use fsc::{Crossing, Fsc};
pub use mask::Mask;
pub use plots::write_fsc_files;
pub use report::{ReportData, write_report};
pub use slices::write_slices;
