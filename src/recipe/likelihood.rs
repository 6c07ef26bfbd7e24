//! What the loss takes into account of the particles' noise and contrast (docs/method.md, section 14).

use serde::{Deserialize, Serialize};

/// How the noise counts in the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoiseModel {
    /// The same for all frequencies and optics groups.
    #[default]
    White,
    /// By its power in each optics group and frequency, estimated from the images' corners.
    Spectrum,
}

/// Whether particles have a contrast of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Contrast {
    /// All have the contrast 1, beside the scale of their CTF.
    #[default]
    One,
    /// Estimated by comparison with the model.
    Estimated,
}

/// Whether particles that fit as noise would count less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weighing {
    /// All count alike.
    #[default]
    No,
    /// They are looked for after the first epoch, and count less if there are any.
    Auto,
    /// They count less, and all particles get a score.
    Yes,
}

/// What the loss takes into account. The default is nothing: the mean squared difference of all images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Likelihood {
    /// The noise.
    #[serde(default)]
    pub noise: NoiseModel,
    /// The contrast of the particles.
    #[serde(default)]
    pub contrast: Contrast,
    /// Whether particles that fit as noise would count less.
    #[serde(default)]
    pub weigh_particles: Weighing,
}

impl Likelihood {
    /// Whether nothing is taken into account, and so nothing depends on the noise of the particles.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the particles are compared with the model during the training, whatever is found.
    pub fn compares(&self) -> bool {
        self.contrast == Contrast::Estimated || self.weigh_particles == Weighing::Yes
    }

    /// For the log: "noise by its spectrum, contrast of each particle, particles weighed".
    pub fn describe(&self) -> String {
        let parts = [
            (self.noise == NoiseModel::Spectrum, "noise by its spectrum"),
            (self.contrast == Contrast::Estimated, "contrast of each particle"),
            (self.weigh_particles == Weighing::Yes, "particles weighed"),
            (self.weigh_particles == Weighing::Auto, "images without a particle, if there are any"),
        ];
        parts.iter().filter(|(is_on, _)| *is_on).map(|(_, text)| *text).collect::<Vec<_>>().join(", ")
    }
}
