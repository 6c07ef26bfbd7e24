//! The contrast transfer function as given: defocus, voltage, pixel size, phase flips.

use super::explain::{NARROW, Trial, WIDE, best, is_better};
use super::outcome::{Judged, Outcome};
use super::subject::Subject;
use super::trial::{Agreement, Change, Sample};
use crate::error::Result;
use crate::imaging::ctf::wavelength;
use crate::run_folder::diagnosis::{Finding, Severity};

/// What is tested.
pub(super) const WHAT: &str = "CTF (defocus, voltage, pixel size, phase flips)";
/// Factors of the defocus that are tried first.
const FACTORS: [f64; 10] = [0.1, 0.25, 0.5, 0.63, 0.8, 1.25, 1.6, 2.0, 4.0, 10.0];
/// The logarithm of the first step from the best of them, and the number of times that it is halved.
const STEP: f64 = 0.12;
const HALVINGS: usize = 4;
/// The first step from the offset of the defocus that has the effect of the best factor, as a part of it, and the number of times that
/// it is halved.
const OFFSET_STEP: f64 = 0.4;
const OFFSET_HALVINGS: usize = 3;
/// The usual amplitude contrast, and how far another is from it for it to be tried.
const AMPLITUDE: f64 = 0.1;
const OTHER_AMPLITUDE: f64 = 0.08;
/// Voltages of microscopes in kV.
const VOLTAGES: [f64; 4] = [100.0, 120.0, 200.0, 300.0];
/// Information in nats by which one explanation beats another.
const DECISIVE: f64 = 8.0;
/// A factor of the pixel size is that of binning if it is this close to 2 or 1/2.
const NEAR_BINNING: f64 = 0.08;
/// Defocus in angstrom below which none is given.
const LEAST_DEFOCUS: f64 = 500.0;
/// Astigmatism in angstrom below which its angle makes no difference.
const LEAST_ASTIGMATISM: f64 = 300.0;

/// Another treatment of the images: the change, the id and title of the finding, its cause, and what to do.
const TREATMENTS: [(Change, &str, &str, &str, &str); 6] = [
    (
        Change::PhaseFlipped,
        "phase-flipped",
        "the images are phase-flipped already",
        "particles extracted with phase flipping",
        "add the column rlnCtfDataArePhaseFlipped with the value 1 to the optics table of the STAR file, or extract without phase flipping",
    ),
    (
        Change::Premultiplied,
        "premultiplied",
        "the images were multiplied by their CTF already",
        "particles extracted with CTF premultiplication",
        "add the column rlnCtfDataAreCtfPremultiplied with the value 1 to the optics table of the STAR file",
    ),
    (
        Change::NoCtf,
        "ctf-corrected",
        "the images have no CTF: it was corrected already",
        "particles whose CTF was corrected in full, or images without CTF",
        "cryosplat-mpi import particles.star -o fixed.h5 --no-ctf",
    ),
    (
        Change::PhaseShift(90.0),
        "phase-shift",
        "the images have a phase shift of about 90 degrees more",
        "a phase plate that the metadata do not mention",
        "give rlnPhaseShift in the STAR file (90 where it was not measured)",
    ),
    (
        Change::Astigmatism,
        "astigmatism-angle",
        "the angle of the astigmatism is off by 90 degrees",
        "defocus U and V exchanged, or an angle of another convention",
        "exchange rlnDefocusU and rlnDefocusV in the STAR file",
    ),
    (
        Change::AmplitudeContrast(AMPLITUDE),
        "amplitude-contrast",
        "the amplitude contrast is wrong: 0.1 fits",
        "a default of another program, or percent in place of a fraction",
        "set rlnAmplitudeContrast to 0.1 in the table data_optics of particles.star, and save it as fixed.star",
    ),
];

/// Tests the CTF.
///
/// # Errors
/// When the particles cannot be read.
pub(super) fn test(subject: &Subject) -> Result<Judged> {
    let sample = subject.sample()?;
    let given = Agreement::of(sample.given());
    if sample.mean_defocus() < LEAST_DEFOCUS {
        return Ok(of_unit(subject, sample, &given));
    }
    let optics = &subject.store.header().optics;
    let mut treatments = TREATMENTS.to_vec();
    treatments.retain(|(change, ..)| match change {
        Change::Premultiplied | Change::PhaseFlipped => optics.iter().all(|optics| !optics.premultiplied),
        Change::Astigmatism => sample.mean_astigmatism() > LEAST_ASTIGMATISM,
        Change::AmplitudeContrast(usual) => {
            optics.iter().any(|optics| (optics.amplitude_contrast - usual).abs() > OTHER_AMPLITUDE)
        }
        _ => true,
    });
    let scales = FACTORS.map(|factor| (Change::Defocus(factor), format!("defocus times {factor}")));
    let others = treatments.iter().map(|(change, _, title, ..)| (*change, (*title).to_owned()));
    let (Some(scale), Some(other)) = (best(sample, scales.to_vec()), best(sample, others.collect())) else {
        return Ok(Judged::default());
    };
    // A defocus between the factors may be off by less than they are apart.
    let scale = refined(sample, scale, &given);
    let offset = of_offset(sample, &scale);
    let at_least = scale.agreement.information.max(other.agreement.information) + DECISIVE;
    if offset.agreement.information > at_least && is_better(&offset.agreement, &given, NARROW) {
        return Ok(
            Outcome::found(WHAT, by_offset(subject, &offset, &given)?).by(offset.agreement.information)
        );
    }
    let found = if scale.agreement.information >= other.agreement.information { &scale } else { &other };
    let margin = if std::ptr::eq(found, &scale) { NARROW } else { WIDE };
    if !is_better(&found.agreement, &given, margin) {
        let outcome = format!(
            "no other defocus, voltage, pixel size or treatment of the images explains them better (best: {}, {:.3} of the information)",
            found.name,
            found.agreement.information / given.information.max(1.0)
        );
        return Ok(Outcome::sound(WHAT, outcome).into());
    }
    if let Some((_, id, title, cause, remedy)) =
        treatments.iter().find(|(_, _, title, ..)| *title == found.name && std::ptr::eq(found, &other))
    {
        let evidence = format!("treated so, {}", sample.compared(&found.agreement, &given));
        let remedy = remedy.replace("particles.star", &subject.metadata());
        let is_import = remedy.starts_with("cryosplat-mpi import");
        let mut next = vec![remedy];
        next.extend((!is_import).then(|| subject.import_again()));
        return Ok(Outcome::found(
            WHAT,
            Finding {
                id: (*id).into(),
                severity: Severity::Fault,
                title: (*title).into(),
                evidence,
                cause: (*cause).into(),
                cost: "frequencies of the wrong sign or weight: most of the detail beyond the first zero of the CTF".into(),
                next,
            },
        )
        .by(found.agreement.information));
    }
    Ok(Outcome::found(WHAT, of_scale(subject, sample, &scale, &given)).by(scale.agreement.information))
}

/// The outcome where hardly any defocus is given: another unit fits, or the defocus cannot be tested.
fn of_unit(subject: &Subject, sample: &Sample, given: &Agreement) -> Judged {
    let mean = sample.mean_defocus();
    let units = [(1e4, "micrometres"), (10.0, "nanometres")];
    let trials = units.map(|(factor, unit)| (Change::Defocus(factor), unit.to_owned()));
    let found = if mean > 0.0 { best(sample, trials.to_vec()) } else { None };
    match found {
        Some(found) if is_better(&found.agreement, given, WIDE) => {
            let factor =
                units.iter().find(|(_, unit)| *unit == found.name).map_or(1.0, |(factor, _)| *factor);
            let finding = Finding {
                id: "defocus".into(),
                severity: Severity::Fault,
                title: format!("the defocus values are in {}, not in angstrom", found.name),
                evidence: format!(
                    "the mean defocus is {mean:.2} A; taken in {}, {}",
                    found.name,
                    sample.compared(&found.agreement, given)
                ),
                cause: "metadata converted from a program with another unit".into(),
                cost: "no CTF correction: frequencies of either sign cancel".into(),
                next: vec![
                    subject.multiplied(["rlnDefocusU", "rlnDefocusV"], factor),
                    subject.import_again(),
                ],
            };
            Outcome::found(WHAT, finding).by(found.agreement.information)
        }
        _ if mean > 0.0 => Outcome::untested(WHAT, format!("the mean defocus is only {mean:.1} A")).into(),
        _ => Outcome::untested(WHAT, "no defocus is given").into(),
    }
}

/// The finding where a pixel size of twice or half that given fits, with the shifts.
pub(super) fn of_binning(
    subject: &Subject,
    sample: &Sample,
    factor: f64,
    (trial, given): (&Trial, &Agreement),
) -> Finding {
    let pixel_size = subject.store.header().pixel_size;
    Finding {
        id: "pixel-size".into(),
        severity: Severity::Fault,
        title: format!(
            "the pixel size is wrong: {:.3} A fits, {pixel_size:.3} A is given",
            factor * pixel_size
        ),
        evidence: format!(
            "with {} and the shifts in angstrom as given, {} (lengths by the given pixel size)",
            trial.name,
            sample.compared(&trial.agreement, given)
        ),
        cause: "images that were binned or rescaled while the metadata kept their pixel size".into(),
        cost: format!(
            "particles are moved by {:.1} times their shifts, the CTF is wrong, and so is every length in the map",
            factor
        ),
        next: vec![of_pixel_size(subject, factor), subject.import_again()],
    }
}

/// The remedy where the pixel size is to be multiplied by `factor`.
fn of_pixel_size(subject: &Subject, factor: f64) -> String {
    let given = subject.store.header().pixel_size;
    let value = format!("{factor:.3} times its value ({:.4} where it is {given:.4})", factor * given);
    remedy_in_optics(subject, "rlnImagePixelSize", &value)
}

/// What to change in the optics table, which no tool of RELION edits.
fn remedy_in_optics(subject: &Subject, column: &str, value: &str) -> String {
    format!(
        "set {column} to {value} in the table data_optics of {}, and save it as fixed.star",
        subject.metadata()
    )
}

/// The factor of the defocus that is best near that of `start`, or near 1 if that is better.
fn refined(sample: &Sample, start: Trial, given: &Agreement) -> Trial {
    let Change::Defocus(factor) = start.change else { return start };
    let trial = |factor: f64| Trial {
        change: Change::Defocus(factor),
        name: format!("defocus times {factor:.2}"),
        agreement: sample.agreement(Change::Defocus(factor)),
    };
    let (mut best, mut at) = (start, factor.ln());
    if given.information > best.agreement.information {
        at = 0.0;
        best = Trial { change: Change::Defocus(1.0), name: "as given".into(), agreement: given.clone() };
    }
    let mut step = STEP;
    for _ in 0..=HALVINGS {
        for side in [-step, step] {
            let other = trial((at + side).exp());
            if other.agreement.information > best.agreement.information {
                best = other;
            }
        }
        let Change::Defocus(factor) = best.change else { return best };
        at = factor.ln();
        step *= 0.5;
    }
    best
}

/// What is to be added to all defoci, near what has the effect of the factor `scale` on average.
fn of_offset(sample: &Sample, scale: &Trial) -> Trial {
    let Change::Defocus(factor) = scale.change else { return scale.clone() };
    let trial = |added: f64| Trial {
        change: Change::DefocusOffset(added),
        name: String::new(),
        agreement: sample.agreement(Change::DefocusOffset(added)),
    };
    let mut at = (factor - 1.0) * sample.mean_defocus();
    let mut best = trial(at);
    let mut step = OFFSET_STEP * at;
    for _ in 0..=OFFSET_HALVINGS {
        for added in [at - step, at + step] {
            let other = trial(added);
            if other.agreement.information > best.agreement.information {
                (best, at) = (other, added);
            }
        }
        step *= 0.5;
    }
    best
}

/// The finding where adding the same to all defoci fits.
fn by_offset(subject: &Subject, found: &Trial, given: &Agreement) -> Result<Finding> {
    let Change::DefocusOffset(added) = found.change else { unreachable!("the trial adds to the defocus") };
    let sample = subject.sample()?;
    Ok(Finding {
        id: "defocus".into(),
        severity: Severity::Fault,
        title: format!("the defocus values are wrong: {added:+.0} A fits"),
        evidence: format!(
            "with {added:+.0} A added to all defoci, of {:.0} A on average, {}",
            sample.mean_defocus(),
            sample.compared(&found.agreement, given)
        ),
        cause: "defocus of another plane, or of another phase shift or spherical aberration".into(),
        cost: "frequencies of the wrong sign cancel: most of the detail beyond the first zeros of the CTF"
            .into(),
        next: vec![
            format!("add {added:.0} to rlnDefocusU and rlnDefocusV in the STAR file (fixed.star)"),
            subject.import_again(),
        ],
    })
}

/// The finding where another scale of the CTF fits: defocus, voltage and pixel size have nearly the same effect.
fn of_scale(subject: &Subject, sample: &Sample, scale: &Trial, given: &Agreement) -> Finding {
    let Change::Defocus(factor) = scale.change else { unreachable!("scales are factors of the defocus") };
    let header = subject.store.header();
    let voltage = header.optics.first().map_or(300.0, |optics| optics.voltage);
    let pixel = factor.powf(-0.5);
    let near = |voltage_of: &f64| {
        let ratio = wavelength(*voltage_of) / wavelength(voltage);
        (ratio / factor).ln().abs() < 0.1 && (voltage_of - voltage).abs() > 1.0
    };
    let voltages: Vec<_> =
        VOLTAGES.into_iter().filter(near).map(|v| (Change::Voltage(v), format!("{v:.0} kV"))).collect();
    let of_voltage = best(sample, voltages);
    let with_shifts = sample.shift_width().is_some();
    let of_pixel = best(sample, vec![(Change::PixelSize(pixel, with_shifts), String::new())]);
    let information =
        |trial: &Option<Trial>| trial.as_ref().map_or(f64::NEG_INFINITY, |t| t.agreement.information);
    let (defocus, by_voltage, by_pixel) =
        (scale.agreement.information, information(&of_voltage), information(&of_pixel));
    let is_binning = (pixel.ln().abs() - 2f64.ln()).abs() < NEAR_BINNING;
    let best_of_all = defocus.max(by_voltage).max(by_pixel);
    let can_be = |information: f64| information > best_of_all - DECISIVE;
    let new_pixel = header.pixel_size * pixel;
    let names = [
        (can_be(by_pixel), format!("pixel size of {new_pixel:.3} A in place of {:.3} A", header.pixel_size)),
        (
            can_be(by_voltage),
            format!("voltage of {} in place of {voltage:.0} kV", of_voltage.as_ref().map_or("", |t| &t.name)),
        ),
        (can_be(defocus), format!("defocus times {factor:.2}")),
    ];
    let which = if can_be(by_pixel) && (is_binning || !can_be(defocus)) {
        0
    } else if can_be(by_voltage) {
        1
    } else {
        2
    };
    let (id, title, cause, next) = match which {
        0 => (
            "pixel-size",
            format!("the pixel size is wrong: {new_pixel:.3} A fits, {:.3} A is given", header.pixel_size),
            "images that were binned or rescaled while the metadata kept their pixel size, or a wrong calibration",
            of_pixel_size(subject, pixel),
        ),
        1 => (
            "voltage",
            format!(
                "the voltage is wrong: {} fits, {voltage:.0} kV is given",
                of_voltage.as_ref().map_or("", |t| &t.name)
            ),
            "optics of another microscope",
            remedy_in_optics(
                subject,
                "rlnVoltage",
                of_voltage.as_ref().map_or("", |t| t.name.trim_end_matches(" kV")),
            ),
        ),
        _ => (
            "defocus",
            format!("the defocus values are wrong: {factor:.2} times them fits"),
            "defocus of another unit, micrograph or pixel size",
            subject.multiplied(["rlnDefocusU", "rlnDefocusV"], (1e3 * factor).round() / 1e3),
        ),
    };
    let possible: Vec<&str> = names.iter().filter(|(can, _)| *can).map(|(_, name)| name.as_str()).collect();
    let alike = if possible.len() > 1 {
        format!("; the images cannot tell apart: {}", possible.join(", "))
    } else {
        String::new()
    };
    Finding {
        id: id.into(),
        severity: Severity::Fault,
        title,
        evidence: format!(
            "with the rings of the CTF as of {factor:.2} times the defocus, {}{alike}",
            sample.compared(&scale.agreement, given)
        ),
        cause: cause.into(),
        cost: "frequencies of the wrong sign cancel: most of the detail beyond the first zero of the CTF"
            .into(),
        next: vec![next, subject.import_again()],
    }
}
