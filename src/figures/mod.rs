//! Figures: charts, slices, panels of images, the report page.
//!
//! [`chart`] writes a line chart as SVG, with [`axis`] and [`colours`]; [`picture`] renders SVG as PNG. [`plots`], [`comparison`],
//! [`distributions`] and [`particles`] make the charts of a run, [`quality`], [`guinier`] and [`spheres`]
//! those of two half maps, [`panels`] and [`slices`] its images; [`report`] puts them on one page. [`particle_page`] is
//! the page about a particle set.
//!
//! SVG is written directly: a plotting library would bring fonts and layout of its own for a few hundred lines saved.

pub(crate) mod axis;
pub(crate) mod chart;
pub mod colours;
pub mod comparison;
pub mod distributions;
pub(crate) mod guinier;
pub(crate) mod panels;
pub mod particle_page;
pub(crate) mod particles;
pub mod picture;
pub(crate) mod plots;
pub(crate) mod postprocessed;
pub(crate) mod quality;
pub(crate) mod report;
pub(crate) mod slices;
pub(crate) mod spheres;

pub use plots::write_fsc_files;
