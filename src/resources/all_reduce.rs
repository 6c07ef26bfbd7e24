//! The all-reduce of a group of ranks: NCCL between GPUs, or MPI through host memory.

use std::ffi::c_void;

use crate::error::{Error, Result};
use crate::parallel::Collective;
use crate::parallel::nccl::{Nccl, shares_gpus, usable};
use crate::render::Reduce;
use crate::render::cuda::DeviceSum;

/// The library that sums gradients over ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CollectiveKind {
    /// NCCL if every rank has its own GPU and the library is found, else MPI.
    Auto,
    /// NCCL, in GPU memory.
    Nccl,
    /// MPI, through host memory.
    Mpi,
}

/// The all-reduce of a group of ranks.
pub(crate) struct AllReduce {
    nccl: Option<Nccl>,
    /// The MPI communicator of the group.
    pub collective: Collective,
}

impl AllReduce {
    /// Sums over MPI, through host memory.
    pub fn over_mpi(collective: Collective) -> Self {
        Self { nccl: None, collective }
    }

    /// Sums with the library that `kind` names, for ranks on GPUs; `gpu` identifies this rank's GPU. Every rank calls it, with its
    /// GPU current in the calling thread.
    ///
    /// # Errors
    /// When NCCL is requested and is missing, or two ranks have the same GPU; or when NCCL fails.
    pub fn between_gpus(collective: Collective, kind: CollectiveKind, gpu: u64) -> Result<Self> {
        // A single rank uses NCCL only if it is requested, to test it.
        if kind == CollectiveKind::Mpi || (collective.size() == 1 && kind == CollectiveKind::Auto) {
            return Ok(Self::over_mpi(collective));
        }
        // All ranks must decide the same way.
        let present = collective.all_gather(u64::from(usable())).iter().all(|&p| p == 1);
        let mut gpus = collective.all_gather(gpu);
        gpus.sort_unstable();
        let shared = gpus.windows(2).any(|pair| pair[0] == pair[1]);
        let may_share = collective.all_gather(u64::from(shares_gpus())).iter().all(|&m| m == 1);
        let refusal = if !present {
            Some((
                "libnccl.so, 2.14 or newer, is not found on every rank",
                "load the NCCL module, or use --collective mpi",
            ))
        } else if shared && !may_share {
            Some((
                "two ranks have the same GPU, which NCCL supports from version 2.30 on with NCCL_MULTI_RANK_GPU_ENABLE=1",
                "start one rank per GPU, or use --collective mpi",
            ))
        } else {
            None
        };
        match refusal {
            Some((problem, remedy)) if kind == CollectiveKind::Nccl => Err(Error::request(problem, remedy)),
            Some((problem, _)) => {
                if collective.rank() == 0 {
                    tracing::warn!("gradients are summed by MPI through host memory: {problem}");
                }
                Ok(Self::over_mpi(collective))
            }
            None => Ok(Self { nccl: Some(Nccl::connect(&collective)?), collective }),
        }
    }

    /// Closes the communicators, after the devices are dropped. Every rank calls it.
    ///
    /// # Errors
    /// When NCCL fails.
    pub fn finish(self) -> Result<()> {
        self.nccl.map_or(Ok(()), Nccl::finish)
    }

    /// Name of the library, for the log.
    pub fn name(&self) -> &'static str {
        if self.nccl.is_some() { "NCCL" } else { "MPI" }
    }
}

impl Reduce for AllReduce {
    fn sum(&mut self, buffer: &mut [f32]) -> Result<()> {
        self.collective.all_reduce_sum(buffer);
        Ok(())
    }

    fn on_device(&mut self) -> Option<&mut dyn DeviceSum> {
        self.nccl.as_mut().map(|nccl| nccl as &mut dyn DeviceSum)
    }

    fn ranks(&self) -> usize {
        self.collective.size()
    }

    fn waits(&mut self, what: Option<&'static str>) -> bool {
        match what {
            Some(what) => self.collective.watch().begin(what),
            None => self.collective.watch().end(),
        }
        true
    }
}

impl DeviceSum for Nccl {
    unsafe fn enqueue(&mut self, buffer: u64, length: usize, stream: *mut c_void) -> Result<()> {
        // SAFETY: the caller's word.
        unsafe { self.all_reduce_sum(buffer, length, stream) }
    }

    fn check(&mut self) -> Result<()> {
        Nccl::check(self)
    }
}
