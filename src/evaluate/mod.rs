//! How good a map is, in numbers: FSC, masks, post-processing, cross-validation. Figures are drawn by [`crate::figures`].

pub mod automask;
pub mod compare;
pub mod correction;
pub mod cross_validation;
pub mod directional;
mod distance;
pub mod filter;
pub mod fsc;
pub mod fsc_table;
pub mod guinier;
pub mod maps;
pub mod mask;
pub mod postprocess;
mod shells;

pub use correction::{Correction, Randomization};
pub use cross_validation::CrossValidation;
pub use directional::Directional;
pub use fsc::{Crossing, Fsc};
pub use mask::Mask;
