//! What the GPU libraries of this machine report of themselves and of the GPUs. Broken libraries may block or end the process that asks
//! them: `check` asks in a process of its own.

use std::ffi::{CStr, c_char, c_int};

use cudarc::driver::{CudaContext, DriverError, result, sys};
use serde::{Deserialize, Serialize};

use super::{compile, gpu, libraries};

/// Drivers, libraries and GPUs that this process sees.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// Newest version of CUDA that the driver supports, as 1000 times the major plus 10 times the minor number; `None` without a driver.
    pub driver: Option<i32>,
    /// Why the driver lists no GPUs.
    pub problem: Option<String>,
    /// The GPUs that this process sees, by ordinal.
    pub gpus: Vec<GpuRecord>,
    /// NVRTC, or why it does not answer; `None` without the library.
    pub nvrtc: Option<Result<Compiler, String>>,
    /// Version of cuFFT, as 1000 times the major plus 100 times the minor number and the patch; `None` without the library.
    pub cufft: Option<i32>,
}

/// NVRTC, which compiles the kernels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Compiler {
    /// Version, major and minor.
    pub version: (i32, i32),
    /// Compute capabilities that it compiles for: 80 for 8.0.
    pub capabilities: Vec<i32>,
}

/// A GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuRecord {
    /// Name.
    pub name: String,
    /// UUID, as nvidia-smi prints it.
    pub uuid: String,
    /// Address on the PCI bus.
    pub bus: String,
    /// Compute capability, 10 times the major plus the minor number.
    pub capability: i32,
    /// Free and total memory in bytes.
    pub memory: (u64, u64),
    /// Ordinals of the GPUs whose memory this one can access.
    pub peers: Vec<usize>,
    /// Why it cannot be used.
    pub problem: Option<String>,
}

impl Inventory {
    /// Asks the libraries.
    pub fn take() -> Self {
        let mut found = Self::default();
        if libraries::nvrtc_present() {
            let compiler = compile::version()
                .and_then(|version| Ok(Compiler { version, capabilities: compile::supported()? }));
            found.nvrtc = Some(compiler.map_err(|error| error.to_string()));
        }
        if libraries::cufft_present() {
            found.cufft = cudarc::cufft::result::get_version().ok();
        }
        if !libraries::driver_present() {
            return found;
        }
        let mut version = 0;
        // SAFETY: the library is present, and the call writes one number.
        let asked = unsafe { sys::cuDriverGetVersion(&raw mut version) }.result();
        found.driver = asked.ok().map(|()| version);
        match result::init().and_then(|()| CudaContext::device_count()) {
            Ok(count) => {
                found.gpus = (0..count.max(0)).map(|ordinal| GpuRecord::of(ordinal, count)).collect()
            }
            Err(error) => found.problem = Some(gpu::text(error)),
        }
        found
    }
}

impl GpuRecord {
    fn of(ordinal: c_int, count: c_int) -> Self {
        let mut found = Self::default();
        if let Err(error) = found.ask(ordinal, count) {
            found.problem = Some(gpu::text(error));
        }
        found
    }

    fn ask(&mut self, ordinal: c_int, count: c_int) -> Result<(), DriverError> {
        let device = result::device::get(ordinal)?;
        self.name = result::device::get_name(device)?;
        self.uuid = uuid(&result::device::get_uuid(device)?.bytes);
        let mut bus = [0 as c_char; 32];
        // SAFETY: the buffer has the length that is passed, and the text ends with a zero byte.
        unsafe { sys::cuDeviceGetPCIBusId(bus.as_mut_ptr(), bus.len() as c_int, device) }.result()?;
        let bytes = bus.map(|byte| byte as u8);
        self.bus = CStr::from_bytes_until_nul(&bytes).unwrap_or_default().to_string_lossy().into_owned();
        for other in (0..count).filter(|&other| other != ordinal) {
            let mut can = 0;
            // SAFETY: both ordinals are those of GPUs, and the call writes one number.
            unsafe { sys::cuDeviceCanAccessPeer(&raw mut can, device, result::device::get(other)?) }
                .result()?;
            if can != 0 {
                self.peers.push(other as usize);
            }
        }
        // Fails where another process has the GPU for itself.
        let context = CudaContext::new(ordinal as usize)?;
        let (major, minor) = context.compute_capability()?;
        self.capability = 10 * major + minor;
        let (free, total) = context.mem_get_info()?;
        self.memory = (free as u64, total as u64);
        Ok(())
    }
}

/// The text of a UUID: "GPU-" and groups of 4, 2, 2, 2 and 6 bytes.
fn uuid(bytes: &[c_char; 16]) -> String {
    let groups = [0..4, 4..6, 6..8, 8..10, 10..16];
    let hex = |range: std::ops::Range<usize>| -> String {
        bytes[range].iter().map(|&byte| format!("{:02x}", byte as u8)).collect()
    };
    format!("GPU-{}", groups.map(hex).join("-"))
}
