//! `cryosplat-mpi import`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::error::Error;
use crate::particles::import::cryodrgn::{CtfFrom, Files};
use crate::particles::import::format::Companions;
use crate::particles::import::pipeline::{self, Options};
use crate::particles::store::Dtype;

/// Arguments of `import`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each image is checked, inverted (--invert), moved by its origin so that the particle is centred, \
                        cropped in Fourier space (--box), and normalised by its background. Halves are those of the file \
                        (_rlnRandomSubset, alignments3D/split), or drawn with --seed.\n\n\
                        RELION: the STAR file of a refinement. --datadir is the project's folder.\n\
                        cryoSPARC: the particles.cs of a refinement, and with --passthrough the files that have the \
                        columns it lacks. Images whose blob/sign is below 0 are inverted.\n\
                        cryoDRGN: a stack, a .txt list of stacks or a STAR file, with --poses and --ctf.\n\n\
                        Examples:\n  \
                        cryosplat-mpi import run_data.star -o particles.h5 --datadir /data/relion_project --box 128\n  \
                        cryosplat-mpi import P1/J24/particles.cs -o particles.h5 --passthrough P1/J24/passthrough.cs\n  \
                        cryosplat-mpi import particles.mrcs --poses poses.pkl --ctf ctf.pkl -o particles.h5\n  \
                        cryosplat-mpi import particles.star -o quick.h5 --first 5000 --dtype f16"
)]
pub struct Args {
    /// Particles with poses and CTFs: a STAR file of RELION 3.0 or later, a .cs file of cryoSPARC, or, with --poses, images
    /// for cryoDRGN (.mrcs, .txt or .star).
    #[arg(value_name = "FILE")]
    input: PathBuf,
    /// The particle file to write (HDF5). An existing one is replaced when the new one is complete.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Folder that the stacks' paths begin from, such as the project's folder.
    ///
    /// A stack is tried there under its path as given, then under its bare file name. Default: the input's folder, and
    /// for a .cs file also the one above.
    #[arg(long, value_name = "DIR")]
    datadir: Option<PathBuf>,
    /// A .cs file with columns that the input lacks, such as a passthrough file; may be repeated. Particles are found by
    /// their uid.
    #[arg(long, value_name = "CS")]
    passthrough: Vec<PathBuf>,
    /// cryoDRGN's poses of the images: rotations, or rotations and translations.
    #[arg(long, value_name = "PKL", conflicts_with = "passthrough")]
    poses: Option<PathBuf>,
    /// cryoDRGN's CTF parameters of the images.
    #[arg(long, value_name = "PKL", requires = "poses")]
    ctf: Option<PathBuf>,
    /// The images have no CTF, as simulated ones may.
    #[arg(long, requires = "poses", conflicts_with = "ctf")]
    no_ctf: bool,
    /// Which of the images to take, as cryoDRGN's --ind: indices from 0.
    #[arg(long, value_name = "PKL", requires = "poses")]
    ind: Option<PathBuf>,
    /// Pixel size of the raw images in angstrom, with --no-ctf. Default: what the stack's header says.
    #[arg(long, value_name = "A", requires = "no_ctf")]
    pixel_size: Option<f64>,
    /// Box size of the stored images in pixels, 16 or more.
    ///
    /// A smaller box than the raw one is reached by cropping in Fourier space: the same field of view, larger pixels,
    /// and a resolution of at best two of them. Training time and file size go with its square. Default: the raw box.
    #[arg(long = "box", value_name = "PIXELS")]
    box_size: Option<usize>,
    /// Invert the contrast: for raw images with a dark specimen. The program expects a bright one. (A .cs file says it by
    /// itself.)
    #[arg(long)]
    invert: bool,
    /// Keep the pixel values, instead of bringing each image's background to mean 0 and standard deviation 1.
    #[arg(long)]
    no_normalize: bool,
    /// Radius of the circle about the particle, in stored pixels, that the background lies outside of.
    ///
    /// Default: 0.375 times the box, as RELION extracts particles.
    #[arg(long, value_name = "PIXELS", conflicts_with = "no_normalize")]
    background_radius: Option<f64>,
    /// How pixels are stored: f16 halves the file, and rounds them to 3 digits, far below the noise.
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Dtype,
    /// Seed that draws the FSC halves where the input has none.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Worker threads. Default: one a core. The file written is the same for any number.
    #[arg(long, value_name = "T")]
    threads: Option<NonZeroUsize>,
    /// Import only the first N particles of the input.
    #[arg(long, value_name = "N")]
    first: Option<NonZeroUsize>,
}

impl Args {
    /// The files that belong to the input.
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
                    "the particles have no CTF: --poses is given, and --ctf is not",
                    "give cryoDRGN's CTF parameters with --ctf, or --no-ctf for images that have none",
                ));
            }
        };
        Ok(Companions::CryoDrgn(Files { poses, ctf, chosen: self.ind.clone() }))
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let options = Options {
        companions: args.companions()?,
        datadir: args.datadir.clone(),
        box_size: args.box_size,
        invert: args.invert,
        normalize: !args.no_normalize,
        background_radius: args.background_radius,
        dtype: args.dtype,
        seed: args.seed,
        threads: args.threads.map(NonZeroUsize::get),
        first: args.first.map(NonZeroUsize::get),
    };
    let summary = pipeline::import(&args.input, &args.output, &options)?;
    let bytes = std::fs::metadata(&args.output).map(|m| m.len()).unwrap_or_default();
    tracing::info!(
        "{} particles (half 1: {}, half 2: {}), box {} px at {:.4} A, {:.1} MB in {}",
        summary.particles,
        summary.halves[0],
        summary.halves[1],
        summary.box_size,
        summary.pixel_size,
        bytes as f64 / 1e6,
        args.output.display()
    );
    Ok(())
}
