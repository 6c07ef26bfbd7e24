//! The masks a user can choose: none, a sphere, an automatic mask, or a file.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::error::Result;
use crate::evaluate::automask::{AutoMask, Components};
use crate::evaluate::maps::MapReader;
use crate::evaluate::mask::{DEFAULT_EDGE, DEFAULT_RADIUS, Mask};
use crate::imaging::mrc::Volume;

/// Which mask to use. Lengths are in angstrom; `None` takes the default.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum MaskChoice {
    None,
    Sphere {
        radius: Option<f64>,
        edge: Option<f64>,
    },
    Auto {
        low_pass: f64,
        threshold: Option<f64>,
        components: Components,
        extend: Option<f64>,
        edge: Option<f64>,
    },
    File(PathBuf),
}

/// A mask, with its label and description.
pub(crate) struct LabelledMask {
    /// Label of a curve computed under the mask.
    pub label: &'static str,
    pub mask: Mask,
    /// Parameters of the mask, for a JSON document.
    pub description: Value,
}

impl MaskChoice {
    /// Makes the mask for maps with the box and pixel size of `map`; an automatic mask is made from `map` itself. `None` where
    /// no mask is chosen. `reader` reads a mask file.
    pub(crate) fn make(&self, map: &Volume, reader: &MapReader) -> Result<Option<LabelledMask>> {
        let (box_size, pixel_size) = (map.data.dim().0, map.pixel_size);
        let in_pixels = |a: Option<f64>, default: f64| a.map_or(default, |a| a / pixel_size);
        let (label, mask, mut description) = match self {
            Self::None => return Ok(None),
            Self::Sphere { radius, edge } => {
                let radius = in_pixels(*radius, DEFAULT_RADIUS * box_size as f64);
                let edge = in_pixels(*edge, DEFAULT_EDGE.min(radius));
                let description =
                    json!({"kind": "sphere", "radius": radius * pixel_size, "edge": edge * pixel_size});
                ("spherical mask", Mask::sphere(box_size, radius, edge)?, description)
            }
            Self::Auto { low_pass, threshold, components, extend, edge } => {
                let default = AutoMask::default();
                let options = AutoMask {
                    low_pass: *low_pass,
                    threshold: *threshold,
                    components: *components,
                    extend: in_pixels(*extend, default.extend),
                    edge: in_pixels(*edge, default.edge),
                };
                let (mask, threshold) = options.mask_from(map)?;
                let description = json!({
                    "kind": "auto",
                    "low_pass": options.low_pass,
                    "threshold": threshold,
                    "components": if options.components == Components::All { "all" } else { "largest" },
                    "extend": options.extend * pixel_size,
                    "edge": options.edge * pixel_size,
                });
                ("automatic mask", mask, description)
            }
            Self::File(path) => {
                let description = json!({"kind": "file", "file": path.display().to_string()});
                ("masked", Mask::read(path, map, reader)?, description)
            }
        };
        description["share_of_box"] = json!(mask.fraction());
        Ok(Some(LabelledMask { label, mask, description }))
    }
}
