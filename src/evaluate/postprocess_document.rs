//! The results of post-processing as curves, as JSON and as text.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::evaluate::curves::{self, crossing_to_json};
use crate::evaluate::fsc::Fsc;
use crate::evaluate::headline::{Evidence, Headline};
use crate::evaluate::mask_choice::LabelledMask;
use crate::evaluate::postprocess::{Options, PostProcessed};

impl PostProcessed {
    /// All FSC curves by label; the first is the one to quote.
    pub(crate) fn curves(&self, mask: &LabelledMask) -> Vec<(String, Fsc)> {
        let mut curves = Vec::new();
        let correction = self.correction.as_ref();
        curves.extend(correction.map(|c| ("corrected".to_owned(), c.corrected.clone())));
        curves.push((mask.label.to_owned(), self.masked.clone()));
        curves.extend(correction.map(|c| ("phases randomised".to_owned(), c.randomized.clone())));
        curves.push(("no mask".to_owned(), self.unmasked.clone()));
        curves
    }

    /// The resolution that these half maps alone give.
    pub(crate) fn headline(&self) -> Headline {
        let fsc = self.correction.as_ref().map_or(&self.masked, |c| &c.corrected);
        Headline::new(fsc, true, Evidence::HalfMaps, None)
    }

    /// All numbers, of the half maps in the files `half_maps`; `headline` is the resolution to quote.
    pub(crate) fn to_json(
        &self,
        half_maps: [&Path; 2],
        mask: &LabelledMask,
        options: &Options,
        headline: &Headline,
    ) -> Value {
        json!({
            "program": "cryosplat-mpi",
            "version": env!("CARGO_PKG_VERSION"),
            "half_maps": half_maps.map(|path| path.display().to_string()),
            "box_size": self.map.data.dim().0,
            "pixel_size": self.map.pixel_size,
            "mask": mask.description,
            "resolution": headline,
            "resolution_0.143": crossing_to_json(self.resolution),
            "resolution_shell": self.resolution_shell,
            "randomized_from_shell": self.correction.as_ref().map(|c| c.from),
            "b_factor": self.b_factor,
            "b_factor_fit": self.line,
            "fsc_weighting": options.weighting,
            "low_pass": self.low_pass,
            "curves": self.curves(mask).iter().map(curves::to_json).collect::<Vec<_>>(),
            "guinier": self.guinier,
            "guinier_weighted": self.guinier_weighted,
            "guinier_sharpened": self.guinier_sharpened,
        })
    }

    /// A table for people; `headline` is the resolution to quote.
    pub(crate) fn to_text(&self, mask: &LabelledMask, headline: &Headline) -> String {
        let mut text = curves::to_text(&self.curves(mask));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "resolution        {headline}");
        if *headline != self.headline() {
            let _ = writeln!(text, "under this mask   {}", self.headline());
        }
        if self.correction.is_none() {
            text +=
                "not corrected for the mask: the unmasked FSC never falls low enough to randomise phases\n";
        }
        let _ = match &self.line {
            Some(line) => writeln!(
                text,
                "B factor          {:.1} A^2, fitted to {} shells from {:.2} to {:.2} A (correlation {:.3})",
                self.b_factor, line.shells, line.range[0], line.range[1], line.correlation
            ),
            None if self.b_factor == 0.0 => writeln!(text, "B factor          none: not sharpened"),
            None => writeln!(text, "B factor          {:.1} A^2", self.b_factor),
        };
        let _ = match self.low_pass {
            Some(resolution) => writeln!(text, "low-pass filter   {resolution:.2} A"),
            None => writeln!(text, "low-pass filter   none"),
        };
        text
    }
}
