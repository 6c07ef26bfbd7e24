//! The page of `postprocess`.

use std::path::Path;

use crate::error::Result;
use crate::evaluate::headline::{Evidence, Headline, Limit};
use crate::evaluate::mask_choice::LabelledMask;
use crate::evaluate::postprocess::PostProcessed;
use crate::figures::guinier::guinier_chart;
use crate::figures::plots::fsc_chart;
use crate::figures::quality::{self, READ_GUINIER};
use crate::figures::report::{Judgement, Light, Part, ReportData, Surface};
use crate::figures::slices;
use crate::imaging::mrc::Volume;

const READ_FSC: &str = "The correlation of the half maps in shells of Fourier space. The resolution is where \"corrected\" falls below the \
    dashed line, 0.143. \"Phases randomised\" is what the mask alone correlates: it should be near 0 at the resolution; where it is \
    high, the mask is too tight. \"No mask\" lies lower, since it includes the noise of the solvent.";
const READ_SLICES: &str = "Slices through the centre of the sharpened map, and its sum along z. The line is the edge of the mask (at 0.5). \
    Speckles in the solvent as strong as the specimen: too much sharpening, or a resolution that is too fine.";

/// The page about post-processed half maps; `headline` is the resolution to quote, `objection` what is wrong with their run, `command` the
/// command line.
///
/// # Errors
/// When maps cannot be drawn.
pub(crate) fn page(
    processed: &PostProcessed,
    halves: [(&Path, &Volume); 2],
    mask: &LabelledMask,
    (headline, objection): (&Headline, Option<(Light, &str)>),
    command: Vec<String>,
) -> Result<ReportData> {
    let [first, second] = halves.map(|(_, map)| map);
    let png = slices::draw_one(&processed.map, &mask.mask.volume_like(&processed.map))?;
    let picture = Part::Picture {
        heading: "Slices of the map".into(),
        description: "Central slices and projection of the post-processed map with the edge of the mask"
            .into(),
        png,
    }
    .with_guide(READ_SLICES);
    let curves: [(&str, &[_]); 3] = [
        ("sharpened", &processed.guinier_sharpened),
        ("weighted by the FSC", &processed.guinier_weighted),
        ("mean of the half maps", &processed.guinier),
    ];
    let guinier = Part::Chart(guinier_chart(&curves, processed.line.as_ref())).with_guide(READ_GUINIER);
    let fsc = Part::Chart(fsc_chart(&processed.curves(mask))).with_guide(READ_FSC);
    let resolution = processed.headline().angstrom;
    let directions = quality::directions([first, second], Some(&mask.mask), resolution)?;
    let surface = Surface::from_map(&processed.map).map(Part::Surface);
    let parts = [fsc, picture].into_iter().chain(surface).chain([directions, guinier]).collect();
    let files = halves.map(|(path, _)| path.display().to_string());
    Ok(ReportData {
        title: format!("cryosplat-mpi postprocess: {}, {}", files[0], files[1]),
        judgement: Some(judgement(processed, headline, objection)),
        headline: results(processed, mask, headline),
        parts,
        notes: Vec::new(),
        origin: files
            .into_iter()
            .zip(["First half map", "Second half map"])
            .map(|(f, n)| (n.into(), f))
            .collect(),
        settings: Vec::new(),
        command: command.join(" "),
    })
}

fn judgement(processed: &PostProcessed, headline: &Headline, objection: Option<(Light, &str)>) -> Judgement {
    let (light, label) = match (headline.limit, headline.evidence) {
        (Limit::Unconfirmed | Limit::NoSignal, _) => (Light::Amber, "Unconfirmed:"),
        (_, Evidence::HalfMaps) => (Light::Grey, "Not cross-validated:"),
        _ => (Light::Green, "Confirmed by the half maps:"),
    };
    let label = if headline.evidence == Evidence::CrossValidated && light == Light::Green {
        "Cross-validated:"
    } else {
        label
    };
    let mut reasons = Vec::new();
    if *headline != processed.headline() {
        reasons.push(format!("Under the mask of this page alone: {}.", processed.headline()));
    }
    if let (Limit::Unconfirmed, Some(confirmed)) = (headline.limit, headline.angstrom) {
        reasons.push(format!("What this map shows beyond {confirmed:.2} Å may be an artefact of the model."));
    }
    if processed.line.is_none() && processed.b_factor == 0.0 {
        reasons.push("The map is not sharpened: too few shells lie between 10 Å and its resolution.".into());
    }
    let next = match headline.angstrom.filter(|_| headline.limit == Limit::Unconfirmed) {
        Some(confirmed) => {
            vec![format!("cryosplat-mpi postprocess HALF1.mrc HALF2.mrc --low-pass {confirmed:.2}")]
        }
        None => Vec::new(),
    };
    let line = format!("{headline}.");
    if let Some((light, verdict)) = objection {
        reasons.push(format!("The diagnosis of the run: {verdict}."));
        return Judgement {
            light,
            label: if light == Light::Red { "Do not use:" } else { "Doubtful:" }.into(),
            line,
            reasons,
            next,
            ..Judgement::default()
        };
    }
    Judgement { light, label: label.into(), line, reasons, next, ..Judgement::default() }
}

fn results(processed: &PostProcessed, mask: &LabelledMask, headline: &Headline) -> Vec<(String, String)> {
    let filter = processed.low_pass.map_or("none".to_owned(), |resolution| format!("{resolution:.2} Å"));
    let fitted = processed
        .line
        .map_or(String::new(), |line| format!(" (fit {:.1} to {:.1} Å)", line.range[0], line.range[1]));
    let n = processed.map.data.dim().0;
    [
        ("Resolution", headline.number().replace(" A", " Å")),
        ("B factor", format!("{:.0} Å²{fitted}", processed.b_factor)),
        ("Low-pass filter", filter),
        ("Mask", format!("{}, {:.1}% of the box", mask.label, 100.0 * mask.mask.fraction())),
        ("Box", format!("{n} px")),
        ("Pixel size", format!("{:.3} Å", processed.map.pixel_size)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}
