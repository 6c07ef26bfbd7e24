//! What is drawn: charts, slices, panels of images, the report page.
//!
//! [`picture`] turns SVG into pixels; [`chart`] writes a line chart as SVG; [`plots`], [`comparison`] and [`distributions`] make the
//! charts of a run, [`panels`] and [`slices`] its images; [`report`] puts them on one page.

pub mod axis;
pub mod chart;
pub mod colours;
pub mod comparison;
pub mod distributions;
pub mod panels;
pub mod picture;
pub mod plots;
pub mod report;
pub mod slices;

pub use plots::write_fsc_files;
pub use slices::write_slices;
