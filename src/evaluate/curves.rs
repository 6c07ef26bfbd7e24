//! FSC curves as a text table and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::evaluate::fsc::{Crossing, Fsc, GOLD_STANDARD, REFERENCE_THRESHOLD};

/// One line per curve: resolutions and mean FSC. The signs "<" and ">" are explained below the table.
pub(crate) fn to_text(curves: &[(String, Fsc)]) -> String {
    let width = curves.iter().map(|(label, _)| label.chars().count()).fold(17, usize::max);
    let mut text = format!("{:width$} {:>12} {:>12} {:>10}\n", "", "FSC = 0.143", "FSC = 0.5", "mean FSC");
    let short = |crossing| match crossing {
        Crossing::At(resolution) => format!("{resolution:.2} A"),
        Crossing::NeverBelow(finest) => format!("< {finest:.2} A"),
        Crossing::BelowFromStart(coarsest) => format!("> {coarsest:.2} A"),
    };
    let (mut never, mut from_start) = (false, false);
    for (label, fsc) in curves {
        let crossings = [GOLD_STANDARD, REFERENCE_THRESHOLD].map(|t| fsc.crossing(t));
        never |= crossings.iter().any(|c| matches!(c, Crossing::NeverBelow(_)));
        from_start |= crossings.iter().any(|c| matches!(c, Crossing::BelowFromStart(_)));
        let [gold, reference] = crossings.map(short);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{label:width$} {gold:>12} {reference:>12} {:>10.4}", fsc.mean());
    }
    if never {
        text += "<: never below the threshold up to Nyquist; the value is the resolution of the last shell\n";
    }
    if from_start {
        text += ">: below the threshold from the first shell on; the value is the resolution of that shell\n";
    }
    text
}

/// One curve with all its shells.
pub(crate) fn to_json((label, fsc): &(String, Fsc)) -> Value {
    json!({
        "label": label,
        "box_size": fsc.box_size,
        "pixel_size": fsc.pixel_size,
        "fsc_0.143": crossing_to_json(fsc.crossing(GOLD_STANDARD)),
        "fsc_0.5": crossing_to_json(fsc.crossing(REFERENCE_THRESHOLD)),
        "mean": fsc.mean(),
        "shells": fsc.shells,
    })
}

pub(crate) fn crossing_to_json(crossing: Crossing) -> Value {
    let (outcome, resolution) = match crossing {
        Crossing::At(r) => ("crossed", r),
        Crossing::NeverBelow(r) => ("never below", r),
        Crossing::BelowFromStart(r) => ("below from start", r),
    };
    json!({ "outcome": outcome, "resolution": resolution })
}
