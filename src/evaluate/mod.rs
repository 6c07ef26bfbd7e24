//! The quality of maps in numbers: FSC, masks, post-processing, cross-validation. [`crate::figures`] draws them.

pub mod automask;
pub mod compare;
pub mod correction;
pub mod cross_validation;
mod curves;
pub mod directional;
mod distance;
pub mod filter;
pub mod fsc;
pub mod fsc_table;
pub mod guinier;
pub mod map_pair;
pub mod maps;
pub mod mask;
pub mod mask_choice;
pub mod postprocess;
mod postprocess_document;
pub mod reference;
mod shells;

pub use correction::{Correction, PhaseRandomization};
pub use cross_validation::CrossValidation;
pub use directional::Directional;
pub use fsc::{Crossing, Fsc};
pub use mask::Mask;
