//! The device of each rank, and the all-reduce between devices.

use crate::error::{Error, Result};
use crate::gmm::Gmm;
use crate::parallel::{Collective, Failure, World};
use crate::render::cpu::CpuDevice;
use crate::render::cuda::{CudaDevice, CudaOptions, gpu, libraries};
use crate::render::{Device, Geometry};
use crate::resources::all_reduce::{AllReduce, CollectiveKind};

/// The device requested on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// GPU if every rank has one, else CPU.
    Auto,
    /// CPU cores.
    Cpu,
    /// One NVIDIA GPU per rank.
    Cuda,
}

/// Whether the ranks will use the CPU device, as far as this rank can know alone.
pub(crate) fn expects_cpu(kind: DeviceKind) -> bool {
    kind == DeviceKind::Cpu || (kind == DeviceKind::Auto && gpu::count() == 0)
}

/// The device of a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RankDevice {
    Cpu,
    /// The GPU with this ordinal, among those visible to the rank.
    Gpu(usize),
}

/// Chooses this rank's device. All ranks use the same kind of device: replicas on different kinds would diverge by rounding. Every
/// rank calls it.
///
/// # Errors
/// With [`DeviceKind::Cuda`], when this rank has no usable GPU.
pub(crate) fn choose(kind: DeviceKind, world: &World) -> Result<RankDevice> {
    if kind == DeviceKind::Cpu {
        return Ok(RankDevice::Cpu);
    }
    let found = gpu::visible();
    let (visible, cannot_start) = (*found.as_ref().unwrap_or(&0), found.is_err());
    let usable = match found {
        Err(error) => Err(error),
        Ok(0) => Err(Error::request(
            "this rank sees no GPU",
            "check `nvidia-smi`, CUDA_VISIBLE_DEVICES and the job's request for GPUs, or use --device cpu",
        )),
        Ok(_) => libraries::require(),
    };
    let with_gpu = world.all_reduce_sum(u64::from(usable.is_ok())) as usize;
    // Ordinal 0 if the launcher shows each rank only its own GPU; else the ranks of a node share its GPUs round-robin.
    let device = usable.map(|()| RankDevice::Gpu(world.local_rank() % visible.max(1)));
    if with_gpu == world.size() || kind == DeviceKind::Cuda {
        return device;
    }
    // A driver that cannot start is a fault of its node.
    if (world.rank() == 0 && (with_gpu > 0 || visible > 0)) || (cannot_start && world.local_rank() == 0) {
        let reason = device.err().map_or_else(String::new, |error| format!(" ({error})"));
        tracing::warn!("{with_gpu} of {} ranks can use a GPU: all use the CPU device{reason}", world.size());
    }
    Ok(RankDevice::Cpu)
}

/// Number of GPUs that a job of a single rank on `device` could use, if there are more than its own.
pub(crate) fn more_gpus(world: &World, device: RankDevice) -> Option<usize> {
    let is_alone = world.size() == 1 && device != RankDevice::Cpu;
    is_alone.then(gpu::count).filter(|&count| count > 1)
}

/// Opens the device of one model, for at most `batch` images per step on this rank. With `kept_half`, resident images are stored
/// in half precision.
///
/// # Errors
/// When the GPU fails, or has too little memory.
pub(crate) fn open(
    device: RankDevice,
    gmm: Gmm,
    geometry: Geometry,
    batch: usize,
    kept_half: bool,
) -> Result<Box<dyn Device>> {
    Ok(match device {
        RankDevice::Cpu => Box::new(CpuDevice::new(gmm, geometry)),
        RankDevice::Gpu(ordinal) => {
            let device = CudaDevice::new(gmm, geometry, &CudaOptions { ordinal, batch, kept_half })?;
            let (plan, work) = device.plan();
            tracing::debug!(
                "{}: {} MiB allocated, {} images at once",
                device.name(),
                (plan.bytes() + work) >> 20,
                plan.images
            );
            Box::new(device)
        }
    })
}

/// Sets up the all-reduce of the ranks of `collective`, which compute on `device`. Every rank calls it, after [`open`].
///
/// # Errors
/// When NCCL is requested on the CPU device, or fails.
pub(crate) fn connect(
    world: &World,
    device: RankDevice,
    kind: CollectiveKind,
    collective: Collective,
) -> std::result::Result<AllReduce, Failure> {
    match device {
        RankDevice::Cpu if kind == CollectiveKind::Nccl => {
            // All ranks fail here; rank 0 reports it.
            let error = Error::request(
                "--collective nccl needs GPUs, but this run uses the CPU device",
                "omit --collective nccl, or use --device cuda",
            );
            Err(Failure::Collective((world.rank() == 0).then_some(error)))
        }
        RankDevice::Cpu => Ok(AllReduce::over_mpi(collective)),
        RankDevice::Gpu(ordinal) => {
            let gpu = gpu::identity(ordinal)?;
            Ok(AllReduce::between_gpus(collective, kind, gpu)?)
        }
    }
}
