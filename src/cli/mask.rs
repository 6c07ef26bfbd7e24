//! Mask options, shared by several commands.

use std::ffi::OsStr;
use std::path::PathBuf;

use super::values::length;
use crate::error::{Error, Result};
use crate::evaluate::automask::{Components, DEFAULT_LOW_PASS};
use crate::evaluate::maps::MapReader;
use crate::evaluate::mask_choice::{LabelledMask, MaskChoice};
use crate::files::Claims;
use crate::imaging::mrc::{Volume, write_volume};

/// Options of commands with `--mask`.
#[derive(Debug, clap::Args)]
pub(super) struct MaskOptions {
    /// Sphere: radius at which the mask reaches 0, in angstrom [default: 0.45 of the box].
    #[arg(long, value_name = "A", allow_negative_numbers = true, value_parser = length, help_heading = "Mask")]
    radius: Option<f64>,
    /// Width of the soft edge in angstrom [default: sphere: 3 pixels, auto: 6 pixels].
    #[arg(long, value_name = "A", allow_negative_numbers = true, value_parser = length, help_heading = "Mask")]
    edge: Option<f64>,
    /// Auto: low-pass filter applied before the threshold, in angstrom; 0 for none [default: 15].
    #[arg(long, value_name = "A", allow_negative_numbers = true, value_parser = length, help_heading = "Mask")]
    mask_lowpass: Option<f64>,
    /// Auto: density threshold in the filtered map [default: chosen from the map's histogram].
    #[arg(long, value_name = "DENSITY", allow_negative_numbers = true, help_heading = "Mask")]
    threshold: Option<f64>,
    /// Auto: connected components to keep [default: largest].
    #[arg(long, value_enum, help_heading = "Mask")]
    components: Option<Components>,
    /// Auto: extension of the thresholded region in angstrom [default: 3 pixels].
    #[arg(long, value_name = "A", allow_negative_numbers = true, value_parser = length, help_heading = "Mask")]
    extend: Option<f64>,
    /// Write the mask to this file (MRC).
    #[arg(long, value_name = "FILE", help_heading = "Mask")]
    mask_output: Option<PathBuf>,
}

impl MaskOptions {
    /// Makes the mask that `choice` names ("none", "sphere", "auto" or a file) and writes it if `--mask-output` is given.
    /// `reader` reads a mask file.
    pub(super) fn make(
        &self,
        choice: &OsStr,
        map: &Volume,
        reader: &MapReader,
    ) -> Result<Option<LabelledMask>> {
        let made = self.choice(choice)?.make(map, reader)?;
        if let (Some(made), Some(path)) = (&made, &self.mask_output) {
            write_volume(path, &made.mask.volume_like(map))?;
        }
        Ok(made)
    }

    /// Claims the mask file that is `choice` as an input, and the file of `--mask-output` as an output.
    pub(super) fn claim(&self, claims: &mut Claims, choice: &OsStr) {
        if !["none", "sphere", "auto"].iter().any(|name| choice == *name) {
            claims.reads(choice, "the mask");
        }
        if let Some(output) = &self.mask_output {
            claims.writes(output);
        }
    }

    /// Refuses options of a mask other than the chosen one: they would have no effect.
    pub(super) fn choice(&self, choice: &OsStr) -> Result<MaskChoice> {
        let automatic = self.mask_lowpass.is_some()
            || self.threshold.is_some()
            || self.components.is_some()
            || self.extend.is_some();
        let refuse = |options: &str, what: &str, remedy: &str| {
            Err(Error::request(
                format!("{options} describe {what}, but the mask is {}", choice.display()),
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
            return refuse("--mask-output and related options", "a mask", "auto");
        }
        Ok(if choice == "none" {
            MaskChoice::None
        } else if choice == "sphere" {
            MaskChoice::Sphere { radius: self.radius, edge: self.edge }
        } else if choice == "auto" {
            MaskChoice::Auto {
                low_pass: self.mask_lowpass.unwrap_or(DEFAULT_LOW_PASS),
                threshold: self.threshold,
                components: self.components.unwrap_or(Components::Largest),
                extend: self.extend,
                edge: self.edge,
            }
        } else {
            MaskChoice::File(choice.into())
        })
    }
}
