//! `cryosplat-mpi check`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::logging::{self, LogOptions};
use super::output::print;
use crate::check::{CheckOptions, Level, Page, Probe, RankRecord};
use crate::files::{self, Claims};
use crate::parallel::{EndSignal, World};
use crate::particles::sources;
use crate::particles::store::Store;

const AFTER_HELP: &str = "\
Each line is ok, a warning (a training runs, but slower than it could, or with a risk) or a problem (it would fail), with a remedy. \
Start it as you start `train`, with the same launcher and in the same job. The exit code is 0 without problems, else 1.

Examples:
  cryosplat-mpi check
  mpirun -n 4 cryosplat-mpi check particles.h5 -o /scratch/me/runs
  srun --mpi=pmix cryosplat-mpi check particles.h5 --json check.json";

/// Longest time that a rank waits for the others.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct Args {
    /// Particle file to open and to read from.
    particles: Option<PathBuf>,
    /// Folder in which run folders will be made.
    #[arg(short, long, value_name = "FOLDER", default_value = ".")]
    output: PathBuf,
    /// Folder for particle copies [default: $SLURM_TMPDIR, $TMPDIR or /tmp].
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Also write the page and what each rank found as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Answer one question as JSON, for the process that asks it.
    #[arg(long, num_args = 1..=2, hide = true, exclusive = true)]
    probe: Vec<String>,
}

pub(super) fn run(args: &Args, log: &LogOptions) -> ExitCode {
    if !args.probe.is_empty() {
        return answer(&args.probe);
    }
    let record = RankRecord::find(&CheckOptions {
        particles: args.particles.clone(),
        output: args.output.clone(),
        scratch: args.scratch.clone(),
    });
    let world = match World::start(TIMEOUT, EndSignal::default()) {
        Ok(world) => world,
        Err(error) => {
            logging::start(log, 0);
            return show(args, &Page::without_mpi(record, error.to_string()));
        }
    };
    logging::start(log, world.rank());
    let record = record.placed(&world);
    let text = serde_json::to_string(&record).unwrap_or_default();
    let Some(texts) = world.gather_text(&text) else { return ExitCode::SUCCESS };
    let ranks = texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
    show(args, &Page::of(ranks))
}

/// Prints the page, and writes it as JSON.
fn show(args: &Args, page: &Page) -> ExitCode {
    let written = args.json.as_ref().map_or(Ok(()), |file| {
        let mut claims = Claims::new();
        claims.writes(file).reads_some(args.particles.as_ref(), "the particle file");
        if let Some(store) = args.particles.as_deref().and_then(|path| Store::open(path).ok()) {
            sources::reads(&mut claims, &store);
        }
        claims.check()?;
        let document = serde_json::to_value(page)?;
        Ok::<(), anyhow::Error>(files::write_json(file, &document)?)
    });
    if let Err(error) = print(page.to_string().as_bytes()).and(written) {
        tracing::error!("{error:#}");
        return ExitCode::FAILURE;
    }
    if page.count(Level::Problem) > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn answer(words: &[String]) -> ExitCode {
    let answered = Probe::from_words(words)
        .map_err(anyhow::Error::msg)
        .and_then(|probe| print(probe.answer().to_string().as_bytes()));
    match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
