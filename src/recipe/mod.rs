//! Recipes: how a model is trained, from the number of particles, the box, the batch and the SNR (docs/method.md, section 7).
//!
//! [`settings`] has the settings, [`rules`] the constants and formulas of the default recipe, [`clock`] the learning rate and
//! Adam's constants of each step.

pub mod clock;
pub mod likelihood;
pub mod refine;
pub mod rules;
pub mod settings;
#[cfg(test)]
mod tests;

pub use clock::Clock;
pub use refine::Refine;
pub use settings::{Choices, InitIdentity, Recipe, Schedule, Settings, Start};
