//! The options that describe a mask, and the mask that they make.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::evaluate::Mask;
use crate::evaluate::automask::{AutoMask, Components, DEFAULT_EXTEND, DEFAULT_LOW_PASS, DEFAULT_SOFT_EDGE};
use crate::evaluate::mask::{DEFAULT_EDGE, DEFAULT_RADIUS};
use crate::imaging::mrc::{Volume, write_volume};

/// Options of commands that take `--mask`.
#[derive(Debug, clap::Args)]
pub struct MaskOptions {
    /// Where the spherical mask reaches 0, in angstrom from the centre [default: 0.45 of the box].
    #[arg(long, value_name = "A", allow_negative_numbers = true, help_heading = "Mask")]
    radius: Option<f64>,
    /// Width of the mask's soft edge in angstrom: of a sphere inside its radius [default: 3 pixels], of an automatic mask
    /// around its body [default: 6 pixels].
    #[arg(long, value_name = "A", allow_negative_numbers = true, help_heading = "Mask")]
    edge: Option<f64>,
    /// Automatic mask: low-pass filter before the threshold, in angstrom; 0 for none [default: 15].
    #[arg(long, value_name = "A", allow_negative_numbers = true, help_heading = "Mask")]
    mask_lowpass: Option<f64>,
    /// Automatic mask: density in the filtered map from which on a voxel belongs to the particle [default: a fifth of the
    /// way from the median to the value that one voxel in a thousand exceeds].
    #[arg(long, value_name = "DENSITY", allow_negative_numbers = true, help_heading = "Mask")]
    threshold: Option<f64>,
    /// Automatic mask: keep the largest piece above the threshold (the default), or all.
    #[arg(long, value_enum, help_heading = "Mask")]
    components: Option<Components>,
    /// Automatic mask: by how many angstrom its body is extended [default: 3 pixels].
    #[arg(long, value_name = "A", allow_negative_numbers = true, help_heading = "Mask")]
    extend: Option<f64>,
    /// Write the mask to this file (MRC).
    #[arg(long, value_name = "FILE", help_heading = "Mask")]
    mask_output: Option<PathBuf>,
}

/// A mask and what to say of it.
pub struct Made {
    /// How a curve under it is labelled.
    pub label: &'static str,
    /// The mask.
    pub mask: Mask,
    /// Its description, for a JSON document.
    pub description: Value,
}

impl MaskOptions {
    /// The mask that `choice` names (none, sphere, auto or a file) for maps like `map`, from which an automatic one is
    /// made; written where that is asked for.
    pub fn make(&self, choice: &OsStr, map: &Volume) -> Result<Option<Made>> {
        self.check(choice)?;
        let (box_size, pixel_size) = (map.data.dim().0, map.pixel_size);
        let in_pixels = |a: Option<f64>, default: f64| a.map_or(default, |a| a / pixel_size);
        let (label, mask, mut description) = if choice == "none" {
            return Ok(None);
        } else if choice == "sphere" {
            let radius = in_pixels(self.radius, DEFAULT_RADIUS * box_size as f64);
            let edge = in_pixels(self.edge, DEFAULT_EDGE.min(radius));
            let description =
                json!({"kind": "sphere", "radius": radius * pixel_size, "edge": edge * pixel_size});
            ("spherical mask", Mask::sphere(box_size, radius, edge)?, description)
        } else if choice == "auto" {
            let options = AutoMask {
                low_pass: self.mask_lowpass.unwrap_or(DEFAULT_LOW_PASS),
                threshold: self.threshold,
                components: self.components.unwrap_or(Components::Largest),
                extend: in_pixels(self.extend, DEFAULT_EXTEND),
                edge: in_pixels(self.edge, DEFAULT_SOFT_EDGE),
            };
            let (mask, threshold) = options.of(map)?;
            let description = json!({
                "kind": "auto",
                "low_pass": options.low_pass,
                "threshold": threshold,
                "components": if options.components == Components::All { "all" } else { "largest" },
                "extend": options.extend * pixel_size,
                "edge": options.edge * pixel_size,
            });
            ("automatic mask", mask, description)
        } else {
            let path = Path::new(choice);
            let description = json!({"kind": "file", "file": path.display().to_string()});
            ("masked", Mask::read(path, box_size)?, description)
        };
        description["share_of_box"] = json!(mask.share());
        if let Some(path) = &self.mask_output {
            write_volume(path, &mask.volume(pixel_size))?;
        }
        Ok(Some(Made { label, mask, description }))
    }

    /// An option that describes another mask than the one asked for would be ignored: it is refused.
    fn check(&self, choice: &OsStr) -> Result<()> {
        let automatic = self.mask_lowpass.is_some()
            || self.threshold.is_some()
            || self.components.is_some()
            || self.extend.is_some();
        let refuse = |options: &str, what: &str, remedy: &str| {
            Err(Error::request(
                format!("{options} describe {what}, and the mask is {}", choice.display()),
                format!("add --mask {remedy}"),
            ))
        };
        if self.radius.is_some() && choice != "sphere" {
            return refuse("--radius and --edge", "a sphere", "sphere");
        }
        if self.edge.is_some() && choice != "sphere" && choice != "auto" {
            return refuse("--radius and --edge", "a sphere", "sphere, or --mask auto");
        }
        if automatic && choice != "auto" {
            return refuse(
                "--mask-lowpass, --threshold, --components and --extend",
                "an automatic mask",
                "auto",
            );
        }
        if self.mask_output.is_some() && choice == "none" {
            return refuse("--mask-output and the like", "a mask", "auto");
        }
        Ok(())
    }
}
