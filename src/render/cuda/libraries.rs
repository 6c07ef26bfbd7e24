//! Which of CUDA's libraries are there. They are opened when first used, so that one program runs with and without them;
//! what is missing must be known before, since the first use would end the program.

use std::ffi::{CString, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::compile;
use crate::error::{Error, Result};
use crate::files;

/// Set in a program that was started again with links to libraries.
const LINKED: &str = "CRYOSPLAT_LIBRARIES_LINKED";

/// Libraries that many installations have only under names with a version, which are not tried when they are opened: the name
/// that is, and those that may be there.
const VERSIONED: [(&str, &[&str]); 3] = [
    ("libnccl.so", &["libnccl.so.2"]),
    ("libnvrtc.so", &["libnvrtc.so.13", "libnvrtc.so.14"]),
    ("libcufft.so", &["libcufft.so.13", "libcufft.so.14"]),
];

/// Where libraries are there only under such names: starts this program again, with links under the names that are tried first
/// in its search path. Does nothing otherwise. To be called before MPI starts.
pub fn link_versioned() {
    if std::env::var_os(LINKED).is_some() || !driver_present() {
        return;
    }
    let present = [nccl_present(), nvrtc_present(), cufft_present()];
    let found: Vec<(&str, PathBuf)> = VERSIONED
        .into_iter()
        .zip(present)
        .filter(|(_, present)| !present)
        .filter_map(|((name, others), _)| Some((name, others.iter().find_map(|other| locate(other))?)))
        .collect();
    if found.is_empty() {
        return;
    }
    // Without links the libraries are missing, which is told when they are needed.
    if let Err(error) = start_again(&found) {
        tracing::debug!("no links to libraries: {error}");
    }
}

/// The file of a library that the system's loader finds by `name`.
fn locate(name: &str) -> Option<PathBuf> {
    let text = CString::new(name).ok()?;
    // SAFETY: the name ends with a zero byte; opening a library runs its initialisers, which is what it is there for.
    let library = unsafe { libc::dlopen(text.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
    if library.is_null() {
        return None;
    }
    let stem = name.split(".so").next().unwrap_or(name);
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines()
        .filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])))
        .find(|path| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            file.strip_prefix(stem).is_some_and(|rest| rest.starts_with(".so"))
        })
        .map(Path::to_path_buf)
}

fn start_again(found: &[(&str, PathBuf)]) -> Result<()> {
    let nowhere = || Error::request("there is no cache folder", "set HOME or XDG_CACHE_HOME");
    let cache = compile::cache().ok_or_else(nowhere)?;
    let hash = Sha256::digest(format!("{found:?}"));
    let name: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let folder = cache.with_file_name("libraries").join(name);
    files::make_folder(&folder)?;
    for (name, library) in found {
        let link = folder.join(name);
        match std::os::unix::fs::symlink(library, &link) {
            // Another rank was first; the folder's name says that it is the same.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            outcome => {
                outcome.map_err(Error::io(&link, "link a library", "check the folder's permissions"))?
            }
        }
    }
    let mut paths = OsString::from(&folder);
    if let Some(others) = std::env::var_os("LD_LIBRARY_PATH").filter(|others| !others.is_empty()) {
        paths.push(":");
        paths.push(others);
    }
    let program = std::env::current_exe().map_err(Error::io("/proc/self/exe", "find this program", ""))?;
    let reason = std::process::Command::new(&program)
        .args(std::env::args_os().skip(1))
        .env("LD_LIBRARY_PATH", paths)
        .env(LINKED, "1")
        .exec();
    Err(Error::io(&program, "start again", "put the libraries' folders into LD_LIBRARY_PATH")(reason))
}

/// Is the driver's library there?
pub fn driver_present() -> bool {
    // SAFETY: opening a library runs its initialisers, which is what it is there for.
    unsafe { cudarc::driver::sys::is_culib_present() }
}

/// Is NCCL there, under a name by which it can be opened?
pub fn nccl_present() -> bool {
    // SAFETY: as above.
    unsafe { cudarc::nccl::sys::is_culib_present() }
}

fn nvrtc_present() -> bool {
    // SAFETY: as above.
    unsafe { cudarc::nvrtc::sys::is_culib_present() }
}

fn cufft_present() -> bool {
    // SAFETY: as above.
    unsafe { cudarc::cufft::sys::is_culib_present() }
}

/// All that a GPU is computed with: the driver, NVRTC and cuFFT.
///
/// # Errors
/// When one is missing, with its name.
pub fn require() -> Result<()> {
    let missing: Vec<&str> = [
        (driver_present(), "libcuda.so.1 (the NVIDIA driver)"),
        (nvrtc_present(), "libnvrtc.so (NVRTC, of the CUDA toolkit)"),
        (cufft_present(), "libcufft.so (cuFFT, of the CUDA toolkit)"),
    ]
    .into_iter()
    .filter_map(|(present, name)| (!present).then_some(name))
    .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::request(
        format!("a GPU cannot be used without {}", missing.join(", ")),
        "load the module of CUDA, or put the libraries' folders into LD_LIBRARY_PATH; or compute with --device cpu",
    ))
}
