//! What `fsc` prints: a table for people, a JSON document for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use super::Found;
use crate::evaluate::directional::HALF_ANGLE;
use crate::evaluate::fsc::{GOLD_STANDARD, HALF};
use crate::evaluate::{Crossing, Fsc};

pub(super) fn as_table(found: &Found) -> String {
    let mut text = table(&found.curves);
    if let Some((directional, threshold)) = &found.directional {
        let summary = directional.summary(*threshold);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{} cones of {HALF_ANGLE} degrees, FSC = {threshold}: lowest resolution {:.2} A, mean {:.2} A, highest {:.2} A, spread {:.2} A",
            directional.directions.len(),
            summary.lowest,
            summary.mean,
            summary.highest,
            summary.spread
        );
        if summary.open > 0 {
            let _ = writeln!(
                text,
                "{} of them never cross it: they count with the shell that they end at",
                summary.open
            );
        }
    }
    for note in &found.notes {
        text += note;
        text.push('\n');
    }
    text
}

/// The curves, a line each, and what the signs in it mean.
pub fn table(curves: &[(String, Fsc)]) -> String {
    let width = curves.iter().map(|(label, _)| label.chars().count()).fold(17, usize::max);
    let mut text = format!("{:width$} {:>12} {:>12} {:>10}\n", "", "FSC = 0.143", "FSC = 0.5", "mean FSC");
    let short = |crossing| match crossing {
        Crossing::At(resolution) => format!("{resolution:.2} A"),
        Crossing::NeverBelow(finest) => format!("< {finest:.2} A"),
        Crossing::BelowFromStart(coarsest) => format!("> {coarsest:.2} A"),
    };
    let (mut never, mut from_start) = (false, false);
    for (label, fsc) in curves {
        let crossings = [GOLD_STANDARD, HALF].map(|t| fsc.crossing(t));
        never |= crossings.iter().any(|c| matches!(c, Crossing::NeverBelow(_)));
        from_start |= crossings.iter().any(|c| matches!(c, Crossing::BelowFromStart(_)));
        let [gold, half] = crossings.map(short);
        let _ = writeln!(text, "{label:width$} {gold:>12} {half:>12} {:>10.4}", fsc.mean());
    }
    if never {
        text += "< means: never below the threshold up to Nyquist; the last shell is given\n";
    }
    if from_start {
        text += "> means: below the threshold from the first shell on, which is given\n";
    }
    text
}

pub(super) fn as_json(found: &Found) -> String {
    let mut document = json!({ "curves": found.curves.iter().map(curve).collect::<Vec<_>>() });
    if let Some(mask) = &found.mask {
        document["mask"] = mask.clone();
    }
    if let Some(shell) = found.randomized_from {
        document["randomized_from_shell"] = json!(shell);
    }
    if let Some(found) = &found.cross_validation {
        document["cross_validation"] = found.clone();
    }
    if let Some((directional, threshold)) = &found.directional {
        document["directional"] = json!({
            "directions": directional.directions.len(),
            "half_angle": HALF_ANGLE,
            "threshold": threshold,
            "resolution": directional.summary(*threshold),
        });
    }
    document.to_string() + "\n"
}

/// One curve with all its shells.
pub fn curve((label, fsc): &(String, Fsc)) -> Value {
    json!({
        "label": label,
        "box_size": fsc.box_size,
        "pixel_size": fsc.pixel_size,
        "fsc_0.143": crossing(fsc.crossing(GOLD_STANDARD)),
        "fsc_0.5": crossing(fsc.crossing(HALF)),
        "mean": fsc.mean(),
        "shells": fsc.shells,
    })
}

/// A crossing and its kind.
pub fn crossing(crossing: Crossing) -> Value {
    let (outcome, resolution) = match crossing {
        Crossing::At(r) => ("crossed", r),
        Crossing::NeverBelow(r) => ("never below", r),
        Crossing::BelowFromStart(r) => ("below from start", r),
    };
    json!({ "outcome": outcome, "resolution": resolution })
}
