//! `cryosplat-mpi import`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::values;
use crate::cli::output::{name_of, print};
use crate::cli::threads;
use crate::error::Error;
use crate::figures::particle_page;
use crate::files;
use crate::particles::import::cryodrgn::{CtfFrom, Files};
use crate::particles::import::filter::Filter;
use crate::particles::import::format::Companions;
use crate::particles::import::pipeline::{self, Options};
use crate::particles::import::selected::Selection;
use crate::particles::import::summary::Summary;
use crate::particles::store::{Dtype, Store};

/// Arguments of `import`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each image is checked, inverted (--invert), centred by its shift, Fourier-cropped (--box) and normalised by its \
                        background. Halves are those of the file (_rlnRandomSubset, alignments3D/split), or drawn with \
                        --seed.\n\n\
                        RELION: the STAR file of a refinement; for images outside its project, --datadir is the folder of the paths.\n\
                        cryoSPARC: particles.cs of a refinement, with --passthrough for missing columns. Images with a \
                        negative blob/sign are inverted.\n\
                        cryoDRGN: a stack, a .txt list of stacks or a STAR file, with --poses and --ctf.\n\n\
                        Examples:\n  \
                        cryosplat-mpi import run_data.star -o particles.h5 --datadir /data/relion_project --box 128\n  \
                        cryosplat-mpi import P1/J24/particles.cs -o particles.h5 --passthrough P1/J24/P1_J24_passthrough_particles.cs\n  \
                        cryosplat-mpi import particles.mrcs --poses poses.pkl --ctf ctf.pkl -o particles.h5\n  \
                        cryosplat-mpi import particles.star -o quick.h5 --random 5000 --where 'defocus < 2.5e4'"
)]
pub(super) struct Args {
    /// RELION STAR file (3.0 or later), cryoSPARC .cs file, or with --poses images for cryoDRGN (.mrcs, .txt, .star).
    #[arg(value_name = "FILE")]
    input: PathBuf,
    /// Output particle file (HDF5).
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Folder that paths of stacks start from [default: the input's folder, those above it, and the working directory].
    #[arg(long, value_name = "DIR")]
    datadir: Option<PathBuf>,
    /// cryoSPARC file with columns that the input lacks, such as a passthrough file; may be repeated.
    #[arg(long, value_name = "CS")]
    passthrough: Vec<PathBuf>,
    /// cryoDRGN poses: rotations, or rotations and translations.
    #[arg(long, value_name = "PKL", conflicts_with = "passthrough")]
    poses: Option<PathBuf>,
    /// cryoDRGN CTF parameters.
    #[arg(long, value_name = "PKL", requires = "poses")]
    ctf: Option<PathBuf>,
    /// The images have no CTF.
    #[arg(long, requires = "poses", conflicts_with = "ctf")]
    no_ctf: bool,
    /// Indices of the images to import, from 0, as cryoDRGN's --ind.
    #[arg(long, value_name = "PKL", requires = "poses")]
    ind: Option<PathBuf>,
    /// Pixel size in angstrom that all images are resampled to, before --box [default: the commonest]; with --no-ctf that of the
    /// raw images [default: from the stack's header].
    #[arg(long, value_name = "A", value_parser = values::pixel_size)]
    pixel_size: Option<f64>,
    /// Box size of the stored images in pixels, by Fourier cropping [default: the raw box].
    #[arg(long = "box", value_name = "PIXELS")]
    box_size: Option<usize>,
    /// Invert the contrast, for raw images with a dark specimen (for cryoSPARC, taken from blob/sign).
    #[arg(long)]
    invert: bool,
    /// Keep pixel values: do not normalise the background to mean 0 and standard deviation 1.
    #[arg(long)]
    no_normalize: bool,
    /// Radius of the particle in stored pixels; the background lies outside [default: 0.375 of the box].
    #[arg(long, value_name = "PIXELS", conflicts_with = "no_normalize")]
    background_radius: Option<f64>,
    /// Storage of the pixels; f16 halves the file, with rounding far below the noise.
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Dtype,
    /// Seed of the random halves, if the input has none.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Draw random halves even if the input has halves.
    #[arg(long)]
    redraw_halves: bool,
    /// Threads [default: one per core].
    #[arg(long, value_name = "T")]
    threads: Option<NonZeroUsize>,
    /// Import only the particles of class K, as the input numbers classes (RELION from 1, cryoSPARC from 0).
    #[arg(long, value_name = "K")]
    class: Option<i64>,
    /// Import only the first N particles; if the input has halves, the first N/2 of each.
    #[arg(long, value_name = "N")]
    first: Option<NonZeroUsize>,
    /// Import only N particles, drawn at random with --seed.
    #[arg(long, value_name = "N", conflicts_with = "first")]
    random: Option<NonZeroUsize>,
    /// Import only particles that fulfil a condition, such as 'defocus < 2.5e4 and optics_group == 1'; see docs/guide.md, Selecting.
    #[arg(long = "where", value_name = "CONDITION", value_parser = str::parse::<Filter>)]
    filter: Option<Filter>,
    /// Import only the rows that this file lists: numbers of particles in the input, from 1, one per line.
    #[arg(long, value_name = "FILE")]
    rows: Option<PathBuf>,
    /// Write a page of pictures, NAME.html: images, averages of like views, power spectrum, directions, shifts [auto: from 1,000 particles on].
    #[arg(long, value_enum, num_args = 0..=1, default_value = "auto", default_missing_value = "yes", require_equals = true, value_name = "WHEN")]
    pictures: Pictures,
}

/// Whether the page of pictures is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Pictures {
    Yes,
    No,
    /// From 1,000 particles on, where it costs a small part of the import.
    Auto,
}

/// Particles from which on the page is written by itself.
const MANY: usize = 1_000;

impl Args {
    fn companions(&self) -> Result<Companions, Error> {
        let Some(poses) = self.poses.clone() else {
            let passthrough = self.passthrough.clone();
            let alone = passthrough.is_empty();
            return Ok(if alone { Companions::Alone } else { Companions::Passthrough(passthrough) });
        };
        let ctf = match &self.ctf {
            Some(file) => CtfFrom::File(file.clone()),
            None if self.no_ctf => CtfFrom::Nowhere(self.pixel_size),
            None => {
                return Err(Error::request(
                    "the particles have no CTF: --poses is given without --ctf",
                    "give cryoDRGN's CTF parameters with --ctf, or --no-ctf for images that have none",
                ));
            }
        };
        Ok(Companions::CryoDrgn(Files { poses, ctf, selected: self.ind.clone() }))
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let options = Options {
        companions: args.companions()?,
        datadir: args.datadir.clone(),
        box_size: args.box_size,
        pixel_size: args.pixel_size.filter(|_| !args.no_ctf),
        invert: args.invert,
        normalize: !args.no_normalize,
        background_radius: args.background_radius,
        dtype: args.dtype,
        seed: args.seed,
        redraw_halves: args.redraw_halves,
        threads: args.threads.map(|threads| threads::check(threads.get())).transpose()?,
        first: args.first.map(NonZeroUsize::get),
        class: args.class,
        selection: Selection {
            filter: args.filter.clone(),
            rows: args.rows.clone(),
            random: args.random.map(NonZeroUsize::get),
        },
    };
    let summary = pipeline::import(&args.input, &args.output, &options)?;
    let bytes = std::fs::metadata(&args.output).map(|m| m.len()).unwrap_or_default();
    let beside = Summary::path_beside(&args.output);
    files::write_json(&beside, &serde_json::to_value(&summary)?)?;
    print(summary.to_string().as_bytes())?;
    let page = args.output.with_extension("html");
    let draws = match args.pictures {
        Pictures::Yes => true,
        Pictures::No => false,
        Pictures::Auto => summary.particles >= MANY,
    };
    if draws {
        particle_page::write(&page, &Store::open(&args.output)?, &name_of(&args.output))?;
        tracing::info!("pictures of the particles in {}", page.display());
    }
    tracing::info!(
        "{:.1} MB in {}, summary in {}",
        bytes as f64 / 1e6,
        args.output.display(),
        beside.display()
    );
    let set = files::shell_word(&args.output.to_string_lossy());
    tracing::info!("next: mpirun -n 2 --bind-to none cryosplat-mpi train {set} -o run");
    Ok(())
}
