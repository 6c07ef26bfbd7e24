//! The quality of maps in numbers: FSC, masks, post-processing, cross-validation. [`crate::figures`] draws them.

pub(crate) mod automask;
pub mod compare;
pub(crate) mod correction;
pub(crate) mod cross_validation;
mod curves;
pub(crate) mod directional;
mod distance;
pub(crate) mod filter;
pub(crate) mod fsc;
pub mod fsc_table;
pub(crate) mod guinier;
pub mod headline;
pub(crate) mod map_pair;
pub(crate) mod maps;
pub(crate) mod mask;
pub(crate) mod mask_choice;
pub(crate) mod postprocess;
mod postprocess_document;
pub(crate) mod ranking;
pub(crate) mod reference;
mod shells;

pub(crate) use correction::{Correction, PhaseRandomization};
pub(crate) use cross_validation::CrossValidation;
pub use fsc::{Crossing, Fsc};
pub use headline::Headline;
pub use maps::MapReader;
pub use mask::Mask;
