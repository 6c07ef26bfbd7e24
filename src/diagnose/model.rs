//! Whether the model is too small, or was trained too short, for the particles.

use super::{Outcome, Subject};
use crate::error::Result;
use crate::evaluate::fsc::GOLD_STANDARD;
use crate::evaluate::{CrossValidation, Fsc};
use crate::gmm::density::Density;
use crate::particles::selection::most_particles;
use crate::recipe::rules::{self, gaussians_for};
use crate::run_folder::diagnosis::{Finding, Severity};
use crate::voxels::reconstruction::reconstruct;
use crate::voxels::sample::{Sampling, sampled_sums};

const WHAT: &str = "size and training of the model";
/// Particles and box of the map that the number of Gaussians follows from, as in the pilot reconstruction.
const PARTICLES: usize = 2_000;
const BOX: usize = 32;
/// Fraction of the largest density above which a voxel belongs to the specimen.
const THRESHOLD: f32 = 0.1;
/// Part of the number of Gaussians, and of epochs, that the default recipe takes, below which either is small...
const FEW_GAUSSIANS: f64 = 0.5;
const FEW_EPOCHS: f64 = 0.1;
/// ...and part of the number of Gaussians below which that alone is a warning, as few epochs are.
const VERY_FEW_GAUSSIANS: f64 = 0.25;
/// Mean deficit of the FSC of the model from that of voxel maps, over the shells with signal, from which the model is behind...
const DEFICIT: f64 = 0.08;
/// ...and in standard errors.
const ERRORS: f64 = 4.0;
/// Deficit from which a model with the settings of the rules is behind: at a large pixel size, voxels describe the last shells better.
const LARGE_DEFICIT: f64 = 0.25;
/// Fewest shells with signal.
const FEWEST_SHELLS: usize = 3;

/// What the run used, and what the default recipe would use.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// Gaussians of the whole.
    gaussians: usize,
    recommended_gaussians: usize,
    epochs: usize,
    recommended_epochs: usize,
}

/// The model against voxel maps, over the shells in which these have signal.
#[derive(Clone, Copy, Debug)]
struct Behind {
    /// Mean FSC of the voxel maps, and of the half maps cross-validated.
    voxels: f64,
    model: f64,
    /// Standard error of their difference.
    error: f64,
    /// The last of these shells in angstrom.
    resolution: f64,
}

impl Behind {
    fn is_significant(&self) -> bool {
        self.voxels - self.model > DEFICIT.max(ERRORS * self.error)
    }
}

/// Tests the size of the model.
///
/// # Errors
/// When the particles cannot be read.
pub(super) fn test(subject: &Subject) -> Result<Outcome> {
    let Some(settings) = &subject.settings else {
        return Ok(Outcome::untested(WHAT, "the run is a voxel reconstruction"));
    };
    let particles = most_particles(&subject.subsets);
    let order = subject.symmetry.order();
    let box_size = subject.store.header().box_size;
    let filled = filled_fraction(subject)?;
    let sizes = Sizes {
        gaussians: settings.gaussians * order,
        recommended_gaussians: gaussians_for(box_size, particles * order, filled),
        epochs: settings.epochs,
        recommended_epochs: rules::epochs_for(particles * order),
    };
    Ok(judge(&sizes, behind(subject)?.as_ref(), settings.mixtures, [&subject.particles(), &subject.run()]))
}

/// Fraction of the box that the specimen fills, by a map of a sample of half 1.
fn filled_fraction(subject: &Subject) -> Result<Option<f64>> {
    let box_size = (subject.store.header().box_size / 2).clamp(16, BOX).min(subject.store.header().box_size);
    let sampling = Sampling {
        rows: subject.subsets[0].rows.clone(),
        particles: PARTICLES,
        box_size,
        symmetry: subject.symmetry,
    };
    let sampled = sampled_sums::<2>(&subject.store, sampling)?;
    let map = reconstruct(sampled.parts, sampled.pixel_size, true)?.whole.data;
    let largest = map.iter().copied().fold(0.0, f32::max);
    Ok(Density::above(THRESHOLD * largest, &map).map(|density| density.filled_fraction()))
}

/// The model against voxel maps; `None` where these have another box or too little signal.
fn behind(subject: &Subject) -> Result<Option<Behind>> {
    let [g1, g2] = &subject.half_maps;
    let [v1, v2] = &subject.voxels()?.maps;
    if g1.data.dim() != v1.data.dim() {
        return Ok(None);
    }
    let found = CrossValidation::compute([g1, g2], [v1, v2], None, Fsc::between(g1, g2)?)?;
    let voxels = Fsc::between(v1, v2)?;
    let shells = voxels.shells.iter().skip(1).take_while(|&&fsc| fsc >= GOLD_STANDARD).count();
    let shells = shells.min(found.curve.last_shell());
    if shells < FEWEST_SHELLS {
        return Ok(None);
    }
    let mean = |curve: &Fsc| curve.mean_to(shells);
    let error =
        found.errors[1..=shells].iter().map(|error| error * error).sum::<f64>().sqrt() / shells as f64;
    let resolution = 1.0 / voxels.frequency(shells as f64);
    Ok(Some(Behind { voxels: mean(&voxels), model: mean(&found.curve), error, resolution }))
}

/// The outcome; `mixtures` of the run, and the names of its particles and folder.
fn judge(sizes: &Sizes, behind: Option<&Behind>, mixtures: usize, [particles, run]: [&str; 2]) -> Outcome {
    let &Sizes { gaussians, recommended_gaussians, epochs, recommended_epochs } = sizes;
    let is_small = (gaussians as f64) < FEW_GAUSSIANS * recommended_gaussians as f64;
    let is_short = (epochs as f64) < FEW_EPOCHS * recommended_epochs as f64;
    let significant = behind.filter(|behind| behind.is_significant());
    let mut evidence = format!(
        "{gaussians} Gaussians ({recommended_gaussians} by the rules for these particles), {epochs} epochs in {mixtures} {} \
         ({recommended_epochs} by the rules)",
        if mixtures == 1 { "mixture" } else { "mixtures" }
    );
    if let Some(Behind { voxels, model, resolution, .. }) = behind {
        evidence += &format!(
            "; to {resolution:.1} A, the half maps have a cross-validated FSC of {model:.2} on average, and voxel maps of the same particles one of {voxels:.2}"
        );
        if model > voxels {
            evidence += "; a full model would be better still";
        }
    }
    let short = (epochs as f64) < 0.5 * recommended_epochs as f64;
    let (id, title) = match (is_small, is_short || (short && significant.is_some())) {
        (false, false) if significant.is_none_or(|behind| behind.voxels - behind.model < LARGE_DEFICIT) => {
            return Outcome::sound(WHAT, evidence);
        }
        (true, true) => {
            ("model-too-small", "the model is too small, and was trained too short, for these particles")
        }
        (true, false) => ("model-too-small", "the model is too small for these particles"),
        (false, true) => ("training-too-short", "the training was too short for these particles"),
        (false, false) => {
            ("model-behind-voxels", "the model describes the particles worse than a voxel map does")
        }
    };
    let cause = match id {
        "model-behind-voxels" => {
            "details that Gaussians of this number and width cannot describe, or a training that went astray"
        }
        _ => {
            "--gaussians, --epochs or --mixtures were set by hand, or the settings of a smaller set were used"
        }
    };
    let cost = match significant {
        Some(Behind { voxels, model, resolution, .. }) => format!(
            "the particles hold more: {:.2} in mean FSC to {resolution:.1} A, {:.0}% of what they have",
            voxels - model,
            100.0 * (1.0 - model / voxels)
        ),
        None => "details that the particles hold are missing".into(),
    };
    let is_tiny = (gaussians as f64) < VERY_FEW_GAUSSIANS * recommended_gaussians as f64;
    let is_serious = significant.is_some() || is_tiny || is_short;
    let severity = if is_serious { Severity::Warning } else { Severity::Note };
    let more = gaussians.max(recommended_gaussians);
    let longer = epochs.max(recommended_epochs);
    let next = format!("cryosplat-mpi train {particles} --gaussians {more} --epochs {longer} -o run_larger");
    let mut all = vec![next];
    if id == "training-too-short" {
        let more = recommended_epochs - epochs;
        all.insert(
            0,
            format!(
                "cryosplat-mpi train {particles} -o {run} --extend-epochs {more}, with the options of the run"
            ),
        );
    }
    let finding = Finding {
        id: id.into(),
        severity,
        title: title.into(),
        evidence,
        cause: cause.into(),
        cost,
        next: all,
    };
    Outcome::found(WHAT, finding)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Sizes =
        Sizes { gaussians: 9_000, recommended_gaussians: 10_000, epochs: 50, recommended_epochs: 50 };
    const BEHIND: Behind = Behind { voxels: 0.8, model: 0.5, error: 0.01, resolution: 12.0 };
    const AHEAD: Behind = Behind { voxels: 0.8, model: 0.9, ..BEHIND };

    fn id(sizes: Sizes, behind: Option<Behind>) -> Option<(String, Severity)> {
        let outcome = judge(&sizes, behind.as_ref(), 1, ["p.h5", "run"]);
        outcome.findings.first().map(|found| (found.id.clone(), found.severity))
    }

    #[test]
    fn settings_of_the_rules_are_sound() {
        assert_eq!(id(DEFAULT, None), None);
        assert_eq!(id(DEFAULT, Some(AHEAD)), None);
        assert_eq!(id(DEFAULT, Some(Behind { model: 0.77, ..BEHIND })), None);
        assert_eq!(id(DEFAULT, Some(Behind { error: 0.1, ..BEHIND })), None, "not significant");
        assert_eq!(id(DEFAULT, Some(Behind { model: 0.66, ..BEHIND })), None, "limited by the pixel size");
        assert_eq!(id(Sizes { epochs: 10, ..DEFAULT }, Some(AHEAD)), None);
    }

    #[test]
    fn few_gaussians_and_epochs_are_named_with_the_numbers_to_take() {
        let small = Sizes { gaussians: 64, ..DEFAULT };
        assert_eq!(id(small, Some(BEHIND)), Some(("model-too-small".into(), Severity::Warning)));
        assert_eq!(id(small, None), Some(("model-too-small".into(), Severity::Warning)));
        let fewer = Sizes { gaussians: 4_000, ..DEFAULT };
        assert_eq!(id(fewer, Some(AHEAD)), Some(("model-too-small".into(), Severity::Note)));
        let short = Sizes { epochs: 1, ..DEFAULT };
        assert_eq!(id(short, Some(AHEAD)), Some(("training-too-short".into(), Severity::Warning)));
        assert_eq!(id(short, Some(BEHIND)), Some(("training-too-short".into(), Severity::Warning)));
        let next = judge(&short, Some(&AHEAD), 1, ["p.h5", "run"]).findings.remove(0).next;
        assert!(next[0].contains("-o run --extend-epochs 49"), "{next:?}");
        assert_eq!(id(DEFAULT, Some(BEHIND)), Some(("model-behind-voxels".into(), Severity::Warning)));
        let found =
            judge(&Sizes { epochs: 1, ..small }, Some(&BEHIND), 1, ["p.h5", "run"]).findings.remove(0);
        assert!(found.title.contains("too small, and was trained too short"));
        assert_eq!(found.next, ["cryosplat-mpi train p.h5 --gaussians 10000 --epochs 50 -o run_larger"]);
    }
}
