//! Optics groups whose metadata differ from what their images show, as in sets that were joined from several data collections: each group is
//! tried with other metadata while the rest stays as given.

use super::explain::{Trial, WIDE, is_better};
use super::outcome::{Judged, Outcome};
use super::shift_errors::Errors;
use super::subject::Subject;
use super::trial::{Agreement, Change, Sample};
use crate::error::Result;
use crate::run_folder::diagnosis::{Finding, Severity};

/// What is tested.
pub(super) const WHAT: &str = "metadata of single optics groups";
/// Images of a group in the sample of both halves, at least, and their part of it.
const FEWEST: usize = 100;
const LEAST_PART: f64 = 0.08;
/// Largest part of a group: without other images, there is nothing to agree with.
const LARGEST_PART: f64 = 0.92;
/// Most groups that are tried.
const MOST_GROUPS: usize = 6;
/// The logarithm of the first step of the magnification and of the defocus, and the number of times that it is halved.
const STEPS: [f64; 2] = [0.06, 0.12];
const HALVINGS: usize = 3;

/// Another treatment of the images of a group: the change, the id and the end of the title, the cause, and what to do.
const TREATMENTS: [(Change, &str, &str, &str, &str); 4] = [
    (
        Change::PhaseShift(180.0),
        "contrast-inverted",
        "the contrast is inverted",
        "sets of both contrasts that were joined",
        "import the sets one by one, the inverted ones with --invert, or invert its stacks",
    ),
    (
        Change::Shift([[-1.0, 0.0], [0.0, -1.0]]),
        "origins-sign",
        "the origins have the wrong sign",
        "metadata of several programs that were joined",
        "multiply rlnOriginXAngst and rlnOriginYAngst of its particles by -1",
    ),
    (
        Change::Shift([[0.0, 0.0], [0.0, 0.0]]),
        "origins-applied-twice",
        "the origins were applied already",
        "particles that were extracted again, centred, while the metadata kept their origins",
        "set rlnOriginXAngst and rlnOriginYAngst of its particles to 0",
    ),
    (
        Change::PhaseFlipped,
        "phase-flipped",
        "the images are phase-flipped already",
        "particles extracted with phase flipping",
        "set rlnCtfDataArePhaseFlipped to 1 in its row of the optics table",
    ),
];

/// Tests each of several optics groups.
///
/// # Errors
/// When the particles cannot be read.
pub(super) fn test(subject: &Subject) -> Result<Judged> {
    let sample = subject.sample()?;
    let counts = sample.in_groups();
    let total: usize = counts.iter().sum();
    let part = |count: usize| count as f64 / total as f64;
    let large = |count: usize| count >= FEWEST && (LEAST_PART..=LARGEST_PART).contains(&part(count));
    let groups: Vec<usize> =
        (0..counts.len()).filter(|&group| large(counts[group])).take(MOST_GROUPS).collect();
    if counts.len() < 2 || groups.is_empty() {
        return Ok(Judged::default());
    }
    let given = Agreement::of(sample.given());
    let mut best: Option<(usize, Trial)> = None;
    for &group in &groups {
        let scattered = Errors::of(subject, Some(group as u32))?.and_then(|errors| errors.other_cause());
        let found = best_of_group(sample, group as u32, &given, scattered.is_none());
        tracing::debug!(
            "optics group {}: {} with {:.0} nats",
            group + 1,
            found.name,
            found.agreement.information
        );
        if best.as_ref().is_none_or(|(_, best)| found.agreement.information > best.agreement.information) {
            best = Some((group, found));
        }
    }
    let Some((group, found)) = best else { return Ok(Judged::default()) };
    if !is_better(&found.agreement, &given, WIDE) {
        let outcome = format!(
            "{} of {} groups were tried with others; none explains the images better",
            groups.len(),
            counts.len()
        );
        return Ok(Outcome::sound(WHAT, outcome).into());
    }
    let information = found.agreement.information;
    Ok(Outcome::found(WHAT, finding(subject, group, part(counts[group]), &found, &given)?).by(information))
}

/// The best of other magnifications, defoci and treatments of a group; `with_scales` of its shifts too.
fn best_of_group(sample: &Sample, group: u32, given: &Agreement, with_scales: bool) -> Trial {
    let trial = |change: Change, name: String| Trial {
        change,
        name,
        agreement: sample.agreement_of_group(change, group),
    };
    let as_given = || Trial { change: Change::Nothing, name: "as given".into(), agreement: given.clone() };
    let mut best = as_given();
    let mut take = |other: Trial| {
        if other.agreement.information > best.agreement.information {
            best = other;
        }
    };
    let treatments =
        TREATMENTS.into_iter().filter(|(_, id, ..)| with_scales || *id != "origins-applied-twice");
    for (change, _, title, ..) in treatments {
        take(trial(change, title.to_owned()));
    }
    let scales: [fn(f64) -> Change; 2] = [Change::Magnification, Change::Defocus];
    for (scale, mut step) in scales.into_iter().zip(STEPS) {
        let (mut at, mut of_scale) = (0.0_f64, as_given());
        for _ in 0..=HALVINGS {
            let start = at;
            for side in [-1.0, 1.0] {
                let other = trial(scale((start + side * step).exp()), String::new());
                if other.agreement.information > of_scale.agreement.information {
                    (at, of_scale) = (start + side * step, other);
                }
            }
            // A step that helped is taken again.
            step *= if at == start { 0.5 } else { 1.0 };
        }
        take(of_scale);
    }
    best
}

fn finding(subject: &Subject, group: usize, part: f64, found: &Trial, given: &Agreement) -> Result<Finding> {
    let header = subject.store.header();
    let name = match header.optics[group].name.as_str() {
        "" => format!("{}", group + 1),
        name => format!("{} ({name})", group + 1),
    };
    let (id, what, cause, remedy) = match found.change {
        Change::Magnification(factor) => (
            "pixel-size",
            format!("the pixel size is wrong: {:.3} times it fits", 1.0 / factor),
            "images that were rescaled, or another magnification, while the metadata kept their pixel size",
            format!("set rlnImagePixelSize to {:.3} times its value in the row of the group", 1.0 / factor),
        ),
        Change::Defocus(factor) => (
            "defocus",
            format!("the defocus values are wrong: {factor:.2} times them fits"),
            "another voltage or unit of the defocus in one of the joined sets",
            format!(
                "multiply rlnDefocusU and rlnDefocusV of its particles by {factor:.3}, or correct its voltage"
            ),
        ),
        _ => {
            let of = TREATMENTS.iter().find(|(_, _, title, ..)| *title == found.name);
            let (_, id, title, cause, remedy) = of.unwrap_or(&TREATMENTS[0]);
            (*id, (*title).to_owned(), *cause, (*remedy).to_owned())
        }
    };
    Ok(Finding {
        id: id.into(),
        severity: Severity::Fault,
        title: format!("optics group {name}: {what}"),
        evidence: format!(
            "{:.0}% of the particles; with theirs corrected, {}",
            100.0 * part,
            subject.sample()?.compared(&found.agreement, given)
        ),
        cause: cause.into(),
        cost: "the particles of the group blur the map, or cancel the others".into(),
        next: vec![format!("{remedy} in {} (fixed.star)", subject.metadata()), subject.import_again()],
    })
}
