//! Which device each rank computes on.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::gmm::Gmm;
use crate::parallel::{Collective, Failure, World};
use crate::render::cpu::CpuDevice;
use crate::render::cuda::{CudaDevice, CudaOptions, gpu, libraries};
use crate::render::{Device, Geometry};
use crate::resources::all_reduce::{AllReduce, CollectiveKind};

/// Where ranks compute.
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

/// What a rank computes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RankDevice {
    /// The processor's cores.
    Cpu,
    /// The GPU of this number, among those that the rank sees.
    Gpu(usize),
}

/// Decides for all ranks alike: models computed on different kinds of devices would drift apart. Every rank calls it.
///
/// # Errors
/// When GPUs are asked for, and this rank has none that it can use.
pub fn choose(kind: DeviceKind, world: &World) -> Result<RankDevice> {
    if kind == DeviceKind::Cpu {
        return Ok(RankDevice::Cpu);
    }
    let visible = gpu::count();
    let usable = if visible == 0 {
        Err(Error::request(
            "this rank sees no GPU",
            "check `nvidia-smi`, CUDA_VISIBLE_DEVICES and the job's request for GPUs, or compute with --device cpu",
        ))
    } else {
        libraries::require()
    };
    let with_gpu = world.all_reduce_sum(u64::from(usable.is_ok())) as usize;
    // One rank a GPU where the launcher shows each rank its own, else the ranks of a machine take turns.
    let choice = usable.map(|()| RankDevice::Gpu(world.local_rank() % visible.max(1)));
    if with_gpu == world.size() || kind == DeviceKind::Cuda {
        return choice;
    }
    if world.rank() == 0 && (with_gpu > 0 || visible > 0) {
        let why = choice.err().map_or_else(String::new, |error| format!(" ({error})"));
        tracing::warn!("{with_gpu} of {} ranks can use a GPU: all compute on processors{why}", world.size());
    }
    Ok(RankDevice::Cpu)
}

/// The device of one model, `batch` images a step on this rank at most.
///
/// # Errors
/// When the GPU refuses, or its memory does not do.
pub fn open(
    choice: RankDevice,
    gmm: Gmm,
    geometry: Geometry,
    batch: usize,
    kept_half: bool,
) -> Result<Box<dyn Device>> {
    Ok(match choice {
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

/// How the ranks of `collective` add up what they compute on `choice`. Every rank calls it, after [`open`].
///
/// # Errors
/// When NCCL is asked for, and there is nothing for it to do or it does not work.
pub fn connect(
    world: &World,
    choice: RankDevice,
    kind: CollectiveKind,
    collective: Collective,
    patience: Duration,
) -> std::result::Result<AllReduce, Failure> {
    match choice {
        RankDevice::Cpu if kind == CollectiveKind::Nccl => {
            // All ranks come to this.
            let error = Error::request(
                "NCCL adds up between GPUs, and this run computes on processors",
                "leave out --collective nccl, or use --device cuda",
            );
            Err(Failure::Collective((world.rank() == 0).then_some(error)))
        }
        RankDevice::Cpu => Ok(AllReduce::over_mpi(collective)),
        RankDevice::Gpu(ordinal) => {
            let gpu = gpu::identity(ordinal)?;
            Ok(AllReduce::between_gpus(collective, kind, gpu, patience)?)
        }
    }
}
