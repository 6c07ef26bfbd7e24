//! A run's folder: the only room that knows the names and the documents in it.
//!
//! [`owner`] takes the folder for one job; [`lifecycle`] prepares it and finds where to resume; [`checkpoint`] (with [`appraisal`] and [`refinement`]), [`metrics`]
//! and [`excluded`] are its files during a training run; [`assessment`], [`refinement_file`], [`document`] (`run.json`) and
//! [`report`] are written at the end.

pub mod appraisal;
pub mod assessment;
pub mod checkpoint;
pub mod checkpoint_writer;
pub mod diagnosis;
pub mod document;
pub mod excluded;
pub mod finished;
mod foreign;
pub mod identity;
pub mod lifecycle;
pub(crate) mod log;
pub mod metrics;
pub(crate) mod names;
pub(crate) mod overwriting;
pub mod owner;
mod owner_record;
pub mod refinement;
pub mod refinement_file;
mod refinement_report;
pub mod report;
pub(crate) mod tables;
pub(crate) mod trial;
pub(crate) mod view;
