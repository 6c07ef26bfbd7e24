//! The `cryosplat-mpi` program: everything is in the library.

fn main() -> std::process::ExitCode {
    cryosplat_mpi::cli::main()
}
