//! The environment of a measurement: the GPU, CUDA's libraries, the program.

use std::process::Command;

use anyhow::{Context, Result};
use cryosplat_mpi::parallel::nccl;
use cryosplat_mpi::render::cuda::gpu::Gpu;
use cudarc::driver::sys::CUdevice_attribute;
use serde::Serialize;

/// Exponentials per cycle of a multiprocessor: 16 special-function units, on every architecture since 2014.
const EXPONENTIALS_PER_CYCLE: f64 = 16.0;

/// Environment variable with the commit of the source, set by the scripts that build the program.
const COMMIT: &str = "CRYOSPLAT_COMMIT";

/// What a result depends on besides the case.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Name of the GPU.
    pub device: String,
    /// Compute capability.
    pub compute_capability: String,
    /// Number of multiprocessors.
    pub multiprocessors: usize,
    /// Highest clock.
    pub clock_megahertz: f64,
    /// Exponentials per second of the special-function units, at that clock.
    pub exponentials_per_second: f64,
    /// Total device memory.
    pub memory_bytes: usize,
    /// CUDA version of the driver.
    pub driver_cuda_version: String,
    /// Version of the driver, where the system reports it.
    pub driver_version: Option<String>,
    /// Version of NVRTC.
    pub nvrtc_version: String,
    /// Version of NCCL, if present.
    pub nccl_version: Option<String>,
    /// Version of this program.
    pub program_version: &'static str,
    /// Commit of its source.
    pub commit: Option<String>,
    /// Start of the measurement, in UTC.
    pub date: String,
}

impl Machine {
    /// Queries `gpu` and the libraries.
    ///
    /// # Errors
    /// When a query fails.
    pub fn of(gpu: &Gpu) -> Result<Self> {
        let kilohertz = gpu
            .context
            .attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)
            .map_err(gpu.failed("report its clock"))?;
        let clock = f64::from(kilohertz) * 1e3;
        let (major, minor) = gpu.capability;
        Ok(Self {
            device: gpu.name().to_owned(),
            compute_capability: format!("{major}.{minor}"),
            multiprocessors: gpu.multiprocessors,
            clock_megahertz: clock * 1e-6,
            exponentials_per_second: gpu.multiprocessors as f64 * EXPONENTIALS_PER_CYCLE * clock,
            memory_bytes: gpu.memory()?.1,
            driver_cuda_version: driver_cuda_version()?,
            driver_version: std::fs::read_to_string("/sys/module/nvidia/version")
                .ok()
                .map(|text| text.trim().to_owned()),
            nvrtc_version: nvrtc_version()?,
            // 2.28.3 is 22,803.
            nccl_version: nccl::version().map(|v| format!("{}.{}.{}", v / 10_000, v / 100 % 100, v % 100)),
            program_version: env!("CARGO_PKG_VERSION"),
            commit: std::env::var(COMMIT).ok(),
            date: date()?,
        })
    }

    /// As lines of text.
    pub fn lines(&self) -> String {
        let unknown = || "unknown".to_owned();
        format!(
            "{}, compute capability {}, {} multiprocessors at {:.0} MHz, {:.1} GiB\n\
             CUDA {} by driver {}, NVRTC {}, NCCL {}\n\
             cryosplat-mpi {}, commit {}, {}\n",
            self.device,
            self.compute_capability,
            self.multiprocessors,
            self.clock_megahertz,
            self.memory_bytes as f64 / f64::from(1 << 30),
            self.driver_cuda_version,
            self.driver_version.clone().unwrap_or_else(unknown),
            self.nvrtc_version,
            self.nccl_version.as_deref().unwrap_or("not found"),
            self.program_version,
            self.commit.clone().unwrap_or_else(unknown),
            self.date
        )
    }
}

fn driver_cuda_version() -> Result<String> {
    let mut version = 0;
    // SAFETY: the driver is present, since a GPU is open; it writes one number.
    unsafe { cudarc::driver::sys::cuDriverGetVersion(&raw mut version) }
        .result()
        .context("the driver does not report its version")?;
    // 13.0 is 13,000, 12.8 is 12,080.
    Ok(format!("{}.{}", version / 1000, version % 1000 / 10))
}

fn nvrtc_version() -> Result<String> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: NVRTC is present, since a GPU is open; it writes two numbers.
    unsafe { cudarc::nvrtc::sys::nvrtcVersion(&raw mut major, &raw mut minor) }
        .result()
        .context("NVRTC does not report its version")?;
    Ok(format!("{major}.{minor}"))
}

fn date() -> Result<String> {
    let output = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output().context("date")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
