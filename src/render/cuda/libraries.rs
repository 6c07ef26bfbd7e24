//! Presence of CUDA's libraries. cudarc opens them at their first use, so that one program runs with and without them; a missing
//! one must be found before, because its first use would panic.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::cache;
use crate::error::{Error, Result};

/// Environment variable that is set when the program restarts itself with links to libraries.
const LINKED: &str = "CRYOSPLAT_LIBRARIES_LINKED";

/// Libraries that many installations have only under versioned names, which cudarc does not try: the name that it tries, and the
/// versioned ones.
const VERSIONED: [(&str, &[&str]); 3] = [
    ("libnccl.so", &["libnccl.so.2"]),
    ("libnvrtc.so", &["libnvrtc.so.13", "libnvrtc.so.14"]),
    ("libcufft.so", &["libcufft.so.13", "libcufft.so.14"]),
];

/// If libraries are present only under versioned names, restarts this program with a folder of links, under the names that cudarc
/// tries, first in its library path. Does nothing otherwise. Must be called before MPI starts.
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
    // Without links the libraries are missing; `require` reports it.
    if let Err(error) = restart_with_links(&found) {
        // The log has not started yet.
        eprintln!("warning: no links to CUDA libraries are made: {error}");
    }
}

/// Why this user's cache of compiled kernels cannot be used; `None` if it can.
pub fn cache_problem() -> Option<Error> {
    cache::base().and_then(|base| cache::private(&base, &["kernels"])).err()
}

/// Path of the library that the dynamic loader finds by `name`.
fn locate(name: &str) -> Option<PathBuf> {
    let text = CString::new(name).ok()?;
    // SAFETY: the name ends with a zero byte; the initialisers of these libraries are safe to run.
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

fn restart_with_links(found: &[(&str, PathBuf)]) -> Result<()> {
    let hash = Sha256::digest(format!("{found:?}"));
    let name: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let folder = cache::private(&cache::base()?, &["libraries", &name])?;
    for (name, library) in found {
        cache::link(library, &folder.join(name))?;
    }
    let paths = library_path(folder, std::env::var_os("LD_LIBRARY_PATH").as_deref());
    let program = std::env::current_exe().map_err(Error::io("/proc/self/exe", "find this program", ""))?;
    let reason = std::process::Command::new(&program)
        .args(std::env::args_os().skip(1))
        .env("LD_LIBRARY_PATH", paths)
        .env(LINKED, "1")
        .exec();
    Err(Error::io(&program, "restart", "put the libraries' folders into LD_LIBRARY_PATH")(reason))
}

/// The library path `others` with `folder` before it, and without empty elements: they mean the working directory.
fn library_path(folder: PathBuf, others: Option<&OsStr>) -> OsString {
    let others = others.unwrap_or_default().as_bytes().split(|&byte| byte == b':');
    let others = others.filter(|path| !path.is_empty()).map(OsStr::from_bytes);
    let mut paths = folder.into_os_string();
    for other in others {
        paths.push(":");
        paths.push(other);
    }
    paths
}

/// Whether the driver's library is present.
pub fn driver_present() -> bool {
    // SAFETY: the initialisers of this library are safe to run.
    unsafe { cudarc::driver::sys::is_culib_present() }
}

/// Whether NCCL is present under a name that cudarc tries.
pub fn nccl_present() -> bool {
    // SAFETY: as above.
    unsafe { cudarc::nccl::sys::is_culib_present() }
}

pub(super) fn nvrtc_present() -> bool {
    // SAFETY: as above.
    unsafe { cudarc::nvrtc::sys::is_culib_present() }
}

pub(super) fn cufft_present() -> bool {
    // SAFETY: as above.
    unsafe { cudarc::cufft::sys::is_culib_present() }
}

/// Checks that the libraries of the CUDA device are present: the driver, NVRTC and cuFFT.
///
/// # Errors
/// When one is missing; names it.
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
        "load the module of CUDA, or put the libraries' folders into LD_LIBRARY_PATH; or use --device cpu",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_working_directory_is_not_in_the_library_path() {
        for (others, expected) in [
            (None, "/links"),
            (Some(""), "/links"),
            (Some("/a:/b"), "/links:/a:/b"),
            (Some(":/a::/b:"), "/links:/a:/b"),
        ] {
            assert_eq!(library_path("/links".into(), others.map(OsStr::new)), expected);
        }
    }
}
