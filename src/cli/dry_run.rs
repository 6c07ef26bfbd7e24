//! `train --dry-run`: what a run would take, of a particle file or of what `import` takes.

use std::path::{Path, PathBuf};

use super::output::print;
use super::sample::{Sample, SetSource};
use super::values;
use crate::error::{Error, Result};
use crate::files::{self, Content};
use crate::parallel::{Failure, World};
use crate::progress::duration;
use crate::train::{DryRun, Ending, RunOptions};

/// Arguments of a dry run.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Dry run")]
pub(super) struct DryRunArgs {
    /// Print what the run would take (Gaussians, mixtures, epochs, time, memory, disk) after timing a few steps; write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Ranks of the run, each on a device like this one [default: the ranks of this command].
    #[arg(long, value_name = "N", requires = "dry_run", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    ranks: Option<u32>,
    /// Print the estimate as JSON.
    #[arg(long, requires = "dry_run")]
    json: bool,
    /// Of a set that is not imported yet: box size in pixels, as for `import`.
    #[arg(long = "box", value_name = "PIXELS", requires = "dry_run")]
    box_size: Option<usize>,
    /// Of a set that is not imported yet: pixel size in angstrom, as for `import`.
    #[arg(long, value_name = "A", requires = "dry_run", value_parser = values::pixel_size)]
    pixel_size: Option<f64>,
    /// Of a set that is not imported yet: folder that paths of stacks start from, as for `import`.
    #[arg(long, value_name = "DIR", requires = "dry_run")]
    datadir: Option<PathBuf>,
    /// Of a set that is not imported yet: a cryoSPARC passthrough file, as for `import`.
    #[arg(long, value_name = "CS", requires = "dry_run")]
    passthrough: Vec<PathBuf>,
    /// Of a set that is not imported yet: poses of cryoDRGN, as for `import`.
    #[arg(long, value_name = "PKL", requires = "dry_run", conflicts_with = "passthrough")]
    poses: Option<PathBuf>,
    /// Of a set that is not imported yet: CTF parameters of cryoDRGN, as for `import` [default: no CTF].
    #[arg(long, value_name = "PKL", requires = "poses")]
    ctf: Option<PathBuf>,
}

/// Estimates the run with these `options`, and prints it on rank 0.
pub(super) fn run(
    args: &DryRunArgs,
    world: &World,
    mut options: RunOptions,
) -> std::result::Result<Ending, Failure> {
    let mut asked = DryRun { ranks: args.ranks.map(|ranks| ranks as usize), whole: None };
    let sampled = world.on_root(|| args.sample(world, &options.particles))?.flatten();
    if let Some(sample) = &sampled {
        options.particles = sample.particles();
        asked.whole = Some(sample.halves);
        tracing::info!(
            "the import of all particles takes about {}, beside the time below",
            duration(sample.import_seconds)
        );
    }
    let estimate = crate::train::dry_run(world, &options, &asked)?;
    if let Some(estimate) = estimate {
        let text = match args.json {
            true => serde_json::to_string_pretty(&estimate).unwrap_or_default() + "\n",
            false => estimate.to_string(),
        };
        print(text.as_bytes()).map_err(|error| {
            Error::request(format!("cannot print the estimate: {error}"), "check where standard output goes")
        })?;
    }
    Ok(Ending::Done)
}

impl DryRunArgs {
    /// The first given option that only an import has.
    fn of_import(&self) -> Option<&'static str> {
        let given = [
            ("--box", self.box_size.is_some()),
            ("--pixel-size", self.pixel_size.is_some()),
            ("--datadir", self.datadir.is_some()),
            ("--passthrough", !self.passthrough.is_empty()),
            ("--poses", self.poses.is_some()),
        ];
        given.into_iter().find_map(|(option, given)| given.then_some(option))
    }

    /// A sample of `input`; `None` if it is a particle file.
    fn sample(&self, world: &World, input: &Path) -> Result<Option<Sample>> {
        let start = files::first_bytes(input, 1024)?;
        if Content::of(&start) == Content::Hdf5 {
            return match self.of_import() {
                None => Ok(None),
                Some(option) => Err(Error::input(
                    input,
                    "",
                    format!("is imported already, so that {option} has no effect"),
                    format!("leave out {option}, or name the STAR or .cs file"),
                )),
            };
        }
        if world.size() > 1 {
            return Err(Error::request(
                "a dry run of particles that are not imported yet takes one rank",
                "start it without mpirun or srun, with --ranks N for the run",
            ));
        }
        let source = SetSource {
            box_size: self.box_size,
            pixel_size: self.pixel_size,
            datadir: self.datadir.clone(),
            passthrough: self.passthrough.clone(),
            poses: self.poses.clone(),
            ctf: self.ctf.clone(),
        };
        Sample::of(input, &source).map(Some)
    }
}
