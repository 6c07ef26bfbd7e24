//! Compiles kernels/*.cu with NVRTC when the program starts, and caches the machine code.

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::Path;

use cudarc::nvrtc::{result, sys};
use sha2::{Digest, Sha256};

use super::cache;
use crate::error::{Error, Result};
use crate::render::Sampling;

/// Name and text of each file of kernels/: first the kernels, then the headers.
const SOURCES: [(&str, &str); 15] = [
    ("project.cu", include_str!("../../../kernels/project.cu")),
    ("draw.cu", include_str!("../../../kernels/draw.cu")),
    ("prepare.cu", include_str!("../../../kernels/prepare.cu")),
    ("residual.cu", include_str!("../../../kernels/residual.cu")),
    ("fit.cu", include_str!("../../../kernels/fit.cu")),
    ("search.cu", include_str!("../../../kernels/search.cu")),
    ("moments.cu", include_str!("../../../kernels/moments.cu")),
    ("chain.cu", include_str!("../../../kernels/chain.cu")),
    ("adam.cu", include_str!("../../../kernels/adam.cu")),
    ("interface.cuh", include_str!("../../../kernels/interface.cuh")),
    ("common.cuh", include_str!("../../../kernels/common.cuh")),
    ("ctf.cuh", include_str!("../../../kernels/ctf.cuh")),
    ("target.cuh", include_str!("../../../kernels/target.cuh")),
    ("slice.cuh", include_str!("../../../kernels/slice.cuh")),
    ("gaussian.cuh", include_str!("../../../kernels/gaussian.cuh")),
];

/// Constants that the kernels are compiled with; see kernels/common.cuh.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Constants {
    /// Box size in pixels.
    pub box_size: usize,
    /// Points along an edge of the grid on which splats are sampled.
    pub grid: usize,
    /// Half width of a splat's support in standard deviations.
    pub cutoff: f64,
    /// How splats are sampled.
    pub sampling: Sampling,
    /// Parameters of a Gaussian.
    pub planes: usize,
    /// Views of an image.
    pub views: usize,
    /// Blocks of `draw` that share a tile.
    pub draw_slices: usize,
    /// Lanes of `moments` per splat: 4, 8, 16 or 32.
    pub moment_lanes: usize,
    /// Threads of `chain` that share a Gaussian.
    pub chain_parts: usize,
    /// Resident particles are stored in half precision.
    pub kept_half: bool,
}

/// Warps of a block of `draw`.
pub(super) const DRAW_WARPS: usize = 8;

impl Constants {
    fn options(&self, architecture: &str) -> Vec<String> {
        vec![
            format!("--gpu-architecture={architecture}"),
            "--std=c++17".into(),
            "-default-device".into(),
            format!("-DBOX={}", self.box_size),
            format!("-DGRID={}", self.grid),
            // `{:?}` writes 3.0 as "3.0", a double in C++ too.
            format!("-DCUTOFF={:?}", self.cutoff),
            format!("-DBLUR={:?}", self.sampling.blur()),
            format!("-DPLANES={}", self.planes),
            format!("-DVIEWS={}", self.views),
            format!("-DDRAW_WARPS={DRAW_WARPS}"),
            format!("-DDRAW_SLICES={}", self.draw_slices),
            format!("-DMOMENT_LANES={}", self.moment_lanes),
            format!("-DCHAIN_PARTS={}", self.chain_parts),
            format!("-DKEPT_HALF={}", u8::from(self.kept_half)),
        ]
    }
}

/// The kernels for a device of compute capability `capability` (major, minor), as an image for `cuModuleLoadData`: from the cache,
/// unless `fresh`, or compiled.
///
/// # Errors
/// When NVRTC fails, with its log.
pub(super) fn kernels(constants: &Constants, capability: (i32, i32), fresh: bool) -> Result<Vec<u8>> {
    let (architecture, exact) = architecture(capability)?;
    let options = constants.options(&architecture);
    let (major, minor) = version()?;
    let mut hash = Sha256::new();
    hash.update(format!("{} NVRTC {major}.{minor}\n{options:?}\n", env!("CARGO_PKG_VERSION")));
    for (name, text) in SOURCES {
        hash.update(format!("{name} {}\n{text}", text.len()));
    }
    let folder = cache::base().and_then(|base| cache::private(&base, &["kernels"]));
    if let Err(error) = &folder {
        tracing::debug!("compiled kernels are not cached: {error}");
    }
    let file = folder.ok().map(|folder| {
        let name: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        folder.join(name + ".kernels")
    });
    if let Some(image) = file.as_deref().filter(|_| !fresh).and_then(read) {
        return Ok(image);
    }
    tracing::info!("compiling the kernels for {architecture}");
    let image = compile(&options, exact)?;
    if let Some(Err(error)) = file.map(|file| write(&file, &image)) {
        tracing::debug!("the compiled kernels are not cached: {error}");
    }
    Ok(image)
}

/// Name of the architecture to compile for, and whether it is the device's own. For a device that is newer than this NVRTC, it is
/// the newest virtual architecture that NVRTC knows, whose PTX the driver compiles.
fn architecture((major, minor): (i32, i32)) -> Result<(String, bool)> {
    let own = 10 * major + minor;
    let known = supported()?;
    if known.contains(&own) {
        return Ok((format!("sm_{own}"), true));
    }
    match known.iter().filter(|&&k| k < own).max() {
        Some(newest) => Ok((format!("compute_{newest}"), false)),
        None => Err(Error::request(
            format!("NVRTC does not support compute capability {major}.{minor}"),
            "use a newer GPU or an older CUDA toolkit, or use --device cpu",
        )),
    }
}

/// Compute capabilities that NVRTC, which must be present, compiles for: 80 for 8.0.
///
/// # Errors
/// When NVRTC fails.
pub(super) fn supported() -> Result<Vec<i32>> {
    let mut count = 0;
    // SAFETY: the library is present (`libraries::require`), and writes one number.
    unsafe { sys::nvrtcGetNumSupportedArchs(&raw mut count) }
        .result()
        .map_err(nvrtc("list architectures"))?;
    let mut known = vec![0; count.max(0) as usize];
    // SAFETY: the vector has room for the number of architectures.
    unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) }
        .result()
        .map_err(nvrtc("list architectures"))?;
    Ok(known)
}

/// Version of NVRTC, which must be present.
///
/// # Errors
/// When NVRTC fails.
pub(super) fn version() -> Result<(i32, i32)> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: it writes two numbers.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }
        .result()
        .map_err(nvrtc("report its version"))?;
    Ok((major, minor))
}

fn nvrtc(action: &'static str) -> impl FnOnce(result::NvrtcError) -> Error {
    move |error| {
        Error::request(
            format!("NVRTC cannot {action}: {:?}", error.0),
            "check the installation of the CUDA toolkit, or use --device cpu",
        )
    }
}

/// An NVRTC program, destroyed when dropped.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: created by `compile`, destroyed only here. A failure has no consequence.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

fn compile(options: &[String], exact: bool) -> Result<Vec<u8>> {
    let text = |text: &str| CString::new(text).expect("no source has a zero byte");
    let main: String = SOURCES
        .iter()
        .filter(|(name, _)| name.ends_with(".cu"))
        .map(|(n, _)| format!("#include \"{n}\"\n"))
        .collect();
    let (main, name) = (text(&main), c"cryosplat.cu");
    let (names, texts): (Vec<CString>, Vec<CString>) =
        SOURCES.iter().map(|(n, t)| (text(n), text(t))).unzip();
    let pointers = |all: &[CString]| all.iter().map(|t| t.as_ptr()).collect::<Vec<*const c_char>>();
    let (names_at, texts_at) = (pointers(&names), pointers(&texts));
    let mut program = Program(std::ptr::null_mut());
    // SAFETY: all texts end with a zero byte and live until the call returns; NVRTC copies them.
    unsafe {
        sys::nvrtcCreateProgram(
            &raw mut program.0,
            main.as_ptr(),
            name.as_ptr(),
            SOURCES.len() as c_int,
            texts_at.as_ptr(),
            names_at.as_ptr(),
        )
    }
    .result()
    .map_err(nvrtc("take the kernels"))?;
    // SAFETY: the program was just created.
    let compiled = unsafe { result::compile_program(program.0, options) };
    if let Err(error) = compiled {
        // SAFETY: as above; the log ends with a zero byte.
        let log = unsafe { result::get_program_log(program.0) }.unwrap_or_default();
        let log: Vec<u8> = log.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
        return Err(Error::request(
            format!(
                "NVRTC cannot compile the kernels ({:?}): {}",
                error.0,
                String::from_utf8_lossy(&log).trim()
            ),
            "this is a bug in cryosplat-mpi or in the CUDA toolkit: report it, and use --device cpu",
        ));
    }
    if exact { machine_code(&program) } else { intermediate(&program) }
}

fn machine_code(program: &Program) -> Result<Vec<u8>> {
    let mut size = 0;
    // SAFETY: the program was compiled for a real architecture, and the buffer has the reported size.
    unsafe {
        sys::nvrtcGetCUBINSize(program.0, &raw mut size).result().map_err(nvrtc("report the code's size"))?;
        let mut image = vec![0u8; size];
        sys::nvrtcGetCUBIN(program.0, image.as_mut_ptr().cast())
            .result()
            .map_err(nvrtc("return the code"))?;
        Ok(image)
    }
}

fn intermediate(program: &Program) -> Result<Vec<u8>> {
    // SAFETY: the program was compiled for a virtual architecture; the returned text ends with a zero byte.
    let text = unsafe { result::get_ptx(program.0) }.map_err(nvrtc("return the code"))?;
    // `c_char` is signed on some platforms.
    let bytes: Vec<u8> = text.iter().map(|&c| c as u8).collect();
    debug_assert!(CStr::from_bytes_until_nul(&bytes).is_ok());
    Ok(bytes)
}

/// Reads a cached image, which follows its checksum; `None` if the file is absent or damaged.
fn read(file: &Path) -> Option<Vec<u8>> {
    let bytes = cache::read(file)?;
    let (checksum, image) = bytes.split_at_checked(32)?;
    (Sha256::digest(image)[..] == *checksum).then(|| image.to_vec())
}

fn write(file: &Path, image: &[u8]) -> Result<()> {
    let mut bytes = Sha256::digest(image).to_vec();
    bytes.extend_from_slice(image);
    cache::write(file, &bytes)
}
