//! Which of CUDA's libraries are there. They are opened when first used, so that one program runs with and without them;
//! what is missing must be known before, since the first use would end the program.

use crate::error::{Error, Result};

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

/// All that a GPU is computed with: the driver, NVRTC and cuFFT.
///
/// # Errors
/// When one is missing, with its name.
pub fn require() -> Result<()> {
    // SAFETY: as above.
    let (nvrtc, cufft) =
        unsafe { (cudarc::nvrtc::sys::is_culib_present(), cudarc::cufft::sys::is_culib_present()) };
    let missing: Vec<&str> = [
        (driver_present(), "libcuda.so.1 (the NVIDIA driver)"),
        (nvrtc, "libnvrtc.so (NVRTC, of the CUDA toolkit)"),
        (cufft, "libcufft.so (cuFFT, of the CUDA toolkit)"),
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
