//! `cryosplat-mpi export`: results for other programs.

mod cs;
mod gmm;
mod star;

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Export a mixture as pseudo-atoms for ChimeraX and others (.pdb, .cif), .ply or .h5.
    Gmm(gmm::Args),
    /// Export particles for cryoSPARC: the records of the imported .cs file.
    Cs(cs::Args),
    /// Export particles for RELION: a STAR file with a stack, or the rows of the imported STAR file.
    Star(star::Args),
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        What::Cs(args) => cs::run(args),
        What::Gmm(args) => gmm::run(args),
        What::Star(args) => star::run(args),
    }
}
