//! `cryosplat-mpi import`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::particles::import::pipeline::{self, Options};
use crate::particles::store::Dtype;

/// Arguments of `import`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each image is checked, inverted (--invert), moved by its origin so that the particle is centred, \
                        cropped in Fourier space (--box), and normalised by its background. Poses are RELION's rot, \
                        tilt and psi; halves are _rlnRandomSubset, or drawn with --seed.\n\n\
                        Examples:\n  \
                        cryosplat-mpi import run_data.star -o particles.h5 --datadir /data/relion_project --box 128\n  \
                        cryosplat-mpi import particles.star -o quick.h5 --first 5000 --dtype f16"
)]
pub struct Args {
    /// STAR file of particles with poses and CTFs: RELION 3.1 and later, or 3.0.
    #[arg(value_name = "STAR")]
    star: PathBuf,
    /// The particle file to write (HDF5). An existing one is replaced when the new one is complete.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Folder that the stacks' paths in the STAR file begin from, such as RELION's project folder.
    ///
    /// A stack is tried there under its path as given, then under its bare file name. Default: the STAR file's folder.
    #[arg(long, value_name = "DIR")]
    datadir: Option<PathBuf>,
    /// Box size of the stored images in pixels, 16 or more.
    ///
    /// A smaller box than the raw one is reached by cropping in Fourier space: the same field of view, larger pixels,
    /// and a resolution of at best two of them. Training time and file size go with its square. Default: the raw box.
    #[arg(long = "box", value_name = "PIXELS")]
    box_size: Option<usize>,
    /// Invert the contrast: for raw images with a dark specimen. The program expects a bright one.
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
    /// Seed that draws the FSC halves where the STAR file has no _rlnRandomSubset.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Worker threads. Default: one a core. The file written is the same for any number.
    #[arg(long, value_name = "T")]
    threads: Option<NonZeroUsize>,
    /// Import only the first N particles of the STAR file.
    #[arg(long, value_name = "N")]
    first: Option<NonZeroUsize>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let options = Options {
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
    let summary = pipeline::import(&args.star, &args.output, &options)?;
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
