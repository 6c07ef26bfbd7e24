//! Arguments of `info`.

use std::path::PathBuf;

use crate::imaging::Symmetry;

/// Arguments of `info`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cryosplat-mpi info particles.h5 --verify\n  \
                        cryosplat-mpi info run_data.star --pictures particles.html\n  \
                        cryosplat-mpi info run run/checkpoints/*.h5 run/gmm_half1.h5 run/map.mrc")]
pub(in crate::cli) struct Args {
    /// Particle files, mixtures and checkpoints (HDF5), maps and stacks (MRC), STAR and .cs files, run folders.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Verify the checksums of all images.
    #[arg(long)]
    pub verify: bool,
    /// Print one JSON object per file.
    #[arg(long)]
    pub json: bool,
    /// Particle files: Gaussians per mixture for the GPU memory estimate, with --symmetry of the whole.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50_000_000), default_value = "30000")]
    pub gaussians: u32,
    /// Particle files: point group for the GPU memory estimate and the views.
    #[arg(long, visible_alias = "sym", default_value_t, value_name = "GROUP")]
    pub symmetry: Symmetry,
    /// Particle files: images per step and rank for the GPU memory estimate.
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u32).range(1..=100_000), default_value = "8")]
    pub batch: u32,
    /// Particle file: write a chart of the viewing directions (SVG).
    #[arg(long, value_name = "FILE.svg")]
    pub directions: Option<PathBuf>,
    /// Particle file: measure the noise of each optics group and half, and write a chart of it (SVG).
    #[arg(long, value_name = "FILE.svg")]
    pub noise: Option<PathBuf>,
    /// Particle file, STAR or .cs file: write a page of pictures of the particles (of a file that is not imported, of a sample).
    #[arg(long, value_name = "FILE.html")]
    pub pictures: Option<PathBuf>,
    /// STAR or .cs file: folder that paths of stacks start from, as for `import`.
    #[arg(long, value_name = "DIR")]
    pub datadir: Option<PathBuf>,
    /// .cs file: a passthrough file, as for `import`.
    #[arg(long, value_name = "CS")]
    pub passthrough: Vec<PathBuf>,
}

impl Args {
    /// The option that draws a particle file, if one is given.
    pub(super) fn drawing(&self) -> Option<&'static str> {
        match (&self.directions, &self.noise, &self.pictures) {
            (Some(_), ..) => Some("--directions"),
            (None, Some(_), _) => Some("--noise"),
            (None, None, Some(_)) => Some("--pictures"),
            (None, None, None) => None,
        }
    }
}
