//! The MPI world of this run: who we are, and how to end when something is wrong.

use mpi::collective::CommunicatorCollectives;
use mpi::environment::{Threading, Universe};
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::Root;

use crate::error::{Error, Result};

/// MPI, initialised. Dropping it finalises MPI.
pub struct World {
    // Declared first, so that the communicator is gone before MPI is.
    world: SimpleCommunicator,
    local_rank: usize,
    local_size: usize,
    _universe: Universe,
}

impl World {
    /// Initialises MPI. One thread of this process calls it; others compute.
    ///
    /// # Errors
    /// When MPI was initialised before, or the launcher started several programs that do not know of each other.
    pub fn start() -> Result<Self> {
        let (universe, _) = mpi::initialize_with_threading(Threading::Funneled)
            .ok_or_else(|| Error::request("MPI is already running", "start the program once"))?;
        let world = universe.world();
        if world.size() == 1 && launched_tasks() > 1 {
            return Err(Error::request(
                format!(
                    "the launcher started {} tasks, and MPI sees only one: each would train alone",
                    launched_tasks()
                ),
                "launch with `srun --mpi=pmix`, or with the `mpirun` of the MPI library that the program was built with",
            ));
        }
        let local = world.split_shared(world.rank());
        let (local_rank, local_size) = (local.rank() as usize, local.size() as usize);
        Ok(Self { world, local_rank, local_size, _universe: universe })
    }

    /// Rank of this process, from 0.
    pub fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    /// Number of ranks.
    pub fn size(&self) -> usize {
        self.world.size() as usize
    }

    /// Rank among those that share this machine's memory.
    pub fn local_rank(&self) -> usize {
        self.local_rank
    }

    /// Number of ranks that share this machine's memory.
    pub fn local_size(&self) -> usize {
        self.local_size
    }

    /// The communicator of all ranks.
    pub fn communicator(&self) -> &SimpleCommunicator {
        &self.world
    }

    /// Waits for all ranks.
    pub fn barrier(&self) {
        self.world.barrier();
    }

    /// Rank 0's text, on every rank.
    pub fn broadcast(&self, text: &mut String) {
        let root = self.world.process_at_rank(0);
        let mut length = text.len() as u64;
        root.broadcast_into(&mut length);
        let mut bytes = std::mem::take(text).into_bytes();
        bytes.resize(length as usize, 0);
        root.broadcast_into(&mut bytes[..]);
        *text = String::from_utf8_lossy(&bytes).into_owned();
    }

    /// Lets rank 0 do something that can fail for all: every rank learns whether it did.
    ///
    /// # Errors
    /// Rank 0's own error there; on the others `None`, since one line about it is enough.
    pub fn first<T>(
        &self,
        work: impl FnOnce() -> Result<T>,
    ) -> std::result::Result<Option<T>, Option<Error>> {
        let outcome = (self.rank() == 0).then(work);
        let mut failed = matches!(outcome, Some(Err(_)));
        self.world.process_at_rank(0).broadcast_into(&mut failed);
        match outcome {
            Some(Err(error)) => Err(Some(error)),
            Some(Ok(value)) => Ok(Some(value)),
            None if failed => Err(None),
            None => Ok(None),
        }
    }

    /// Ends every rank of the job at once.
    pub fn abort(&self, code: i32) -> ! {
        self.world.abort(code)
    }
}

/// How many tasks SLURM says it started in this step; 1 elsewhere.
fn launched_tasks() -> usize {
    // Inside an allocation but without srun there is no step, and the number is the allocation's.
    if std::env::var_os("SLURM_STEP_ID").is_none() {
        return 1;
    }
    let tasks = std::env::var("SLURM_STEP_NUM_TASKS").ok().and_then(|v| v.parse().ok());
    tasks.unwrap_or(1)
}
