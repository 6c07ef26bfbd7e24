//! The MPI world of this run: who we are, and how to end when something is wrong.

use std::io::Write;

use mpi::collective::CommunicatorCollectives;
use mpi::environment::{Threading, Universe};
use mpi::point_to_point::{Destination, Source};
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::Root;

use super::launcher::{self, Launcher};
use crate::error::{Error, Result};

const TEXT_TAG: i32 = 1;
const STOP_TAG: i32 = 2;
const VALUES_TAG: i32 = 3;

/// Why a rank cannot go on.
#[derive(Debug)]
pub enum Failure {
    /// All ranks know, and stop alike; the error itself is on rank 0, since one line about it is enough.
    Shared(Option<Error>),
    /// Of this rank alone: the others go on, and may wait for it, until the job is ended.
    Own(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Own(error)
    }
}

/// MPI, initialised. Dropping it finalises MPI.
pub struct World {
    // Declared first, so that the communicator is gone before MPI is.
    world: SimpleCommunicator,
    local: SimpleCommunicator,
    local_rank: usize,
    local_size: usize,
    nodes: usize,
    _universe: Universe,
}

impl World {
    /// Initialises MPI. One thread of this process calls it; others compute.
    ///
    /// # Errors
    /// When MPI was initialised before, or the launcher started several programs that do not know of each other.
    pub fn start() -> Result<Self> {
        launcher::warn_of_srun_without_pmix();
        let launcher = Launcher::seen();
        let (universe, _) = mpi::initialize_with_threading(Threading::Funneled)
            .ok_or_else(|| Error::request("MPI is already running", "start the program once"))?;
        let world = universe.world();
        if world.size() == 1
            && let Some(error) = launcher.and_then(Launcher::mismatch)
        {
            return Err(error);
        }
        let local = world.split_shared(world.rank());
        let (local_rank, local_size) = (local.rank() as usize, local.size() as usize);
        let mut nodes = 0u64;
        let first = u64::from(local_rank == 0);
        world.all_reduce_into(&first, &mut nodes, mpi::collective::SystemOperation::sum());
        Ok(Self { world, local, local_rank, local_size, nodes: nodes as usize, _universe: universe })
    }

    /// The name of this machine.
    pub fn host() -> String {
        std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map_or_else(|_| "unknown".into(), |name| name.trim().into())
    }

    /// The processor cores of this machine, hyperthreads included, whichever of them this process may use; `None` where the
    /// system does not say.
    pub fn cores() -> Option<usize> {
        let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
        let count = text.lines().filter(|line| line.starts_with("processor")).count();
        (count > 0).then_some(count)
    }

    /// Number of machines.
    pub fn nodes(&self) -> usize {
        self.nodes
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

    /// The texts of all ranks, in their order, on rank 0; `None` on the others.
    pub fn gather(&self, text: &str) -> Option<Vec<String>> {
        if self.rank() > 0 {
            self.world.process_at_rank(0).send_with_tag(text.as_bytes(), TEXT_TAG);
            return None;
        }
        let others = (1..self.world.size()).map(|rank| {
            let (bytes, _) = self.world.process_at_rank(rank).receive_vec_with_tag::<u8>(TEXT_TAG);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Some(std::iter::once(text.to_owned()).chain(others).collect())
    }

    /// Sends `values` to rank `rank`, which takes them by [`World::receive_values`].
    pub fn send_values(&self, rank: usize, values: &[f32]) {
        self.world.process_at_rank(rank as i32).send_with_tag(values, VALUES_TAG);
    }

    /// Takes what rank `rank` sends by [`World::send_values`], which must be as long as `values`.
    pub fn receive_values(&self, rank: usize, values: &mut [f32]) {
        self.world.process_at_rank(rank as i32).receive_into_with_tag(values, VALUES_TAG);
    }

    /// How many ranks of this machine may run on the same cores as this one, this one included.
    pub fn sharing_cores(&self) -> usize {
        let mine = core_mask();
        let mut all = vec![0u64; self.local_size];
        self.local.all_gather_into(&mine, &mut all[..]);
        all.iter().filter(|&&mask| mask == mine).count()
    }

    /// Lets rank 0 do something that can fail for all: every rank learns whether it did.
    ///
    /// # Errors
    /// [`Failure::Shared`], on every rank.
    pub fn first<T>(&self, work: impl FnOnce() -> Result<T>) -> std::result::Result<Option<T>, Failure> {
        let outcome = (self.rank() == 0).then(work);
        let mut failed = matches!(outcome, Some(Err(_)));
        self.world.process_at_rank(0).broadcast_into(&mut failed);
        match outcome {
            Some(Err(error)) => Err(Failure::Shared(Some(error))),
            Some(Ok(value)) => Ok(Some(value)),
            None if failed => Err(Failure::Shared(None)),
            None => Ok(None),
        }
    }

    /// Tells rank `rank` that this one's group stops.
    pub fn announce_stop(&self, rank: usize) {
        // One byte never waits for its receiver.
        self.world.process_at_rank(rank as i32).send_with_tag(&1u8, STOP_TAG);
    }

    /// Takes one [`World::announce_stop`] to this rank, if one has come.
    pub fn stop_announced(&self) -> bool {
        let came = self.world.any_process().immediate_probe_with_tag(STOP_TAG).is_some();
        if came {
            self.await_stop();
        }
        came
    }

    /// Takes one [`World::announce_stop`] to this rank, and waits for it.
    pub fn await_stop(&self) {
        let _ = self.world.any_process().receive_with_tag::<u8>(STOP_TAG);
    }

    /// The sum of all ranks' values, on every rank.
    pub fn sum(&self, value: u64) -> u64 {
        let mut sum = 0;
        self.world.all_reduce_into(&value, &mut sum, mpi::collective::SystemOperation::sum());
        sum
    }

    /// Rank 0's `value`, on every rank.
    pub fn broadcast(&self, mut value: u64) -> u64 {
        self.world.process_at_rank(0).broadcast_into(&mut value);
        value
    }

    /// Rank 0's `bytes`, on every rank.
    pub fn broadcast_bytes(&self, bytes: &[u8]) -> Vec<u8> {
        broadcast_bytes(&self.world, bytes)
    }

    /// Rank 0's `values`, on every rank, which must hold as many.
    pub fn broadcast_values(&self, values: &mut [f32]) {
        self.world.process_at_rank(0).broadcast_into(values);
    }

    /// The sum of the values of the ranks that share this machine's memory, on each of them.
    pub fn local_sum(&self, value: u64) -> u64 {
        let mut sum = 0;
        self.local.all_reduce_into(&value, &mut sum, mpi::collective::SystemOperation::sum());
        sum
    }

    /// The bytes that the first of the ranks that share this machine's memory has, on each of them.
    pub fn local_first(&self, bytes: &[u8]) -> Vec<u8> {
        broadcast_bytes(&self.local, bytes)
    }

    /// From now on a panic on any thread of this rank ends every rank of the job: the others would wait for it for ever.
    /// Alone, a rank panics as any program does.
    pub fn abort_on_panic(&self) {
        if self.size() == 1 {
            return;
        }
        let rank = self.rank();
        let host = Self::host();
        let standard = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |information| {
            standard(information);
            let _ = writeln!(
                std::io::stderr(),
                "rank {rank} on {host}: ending the job after a panic ({information}); this is a defect of the program: report it",
                information = information.to_string().replace('\n', " ")
            );
            // SAFETY: MPI was initialised before the hook was set; aborting is allowed from any thread, and does not
            // return.
            unsafe { mpi::ffi::MPI_Abort(mpi::ffi::RSMPI_COMM_WORLD, 101) };
        }));
    }

    /// Ends every rank of the job at once.
    pub fn abort(&self, code: i32) -> ! {
        self.world.abort(code)
    }
}

/// The bytes of the first rank of `ranks`, on each of them.
fn broadcast_bytes(ranks: &SimpleCommunicator, bytes: &[u8]) -> Vec<u8> {
    let first = ranks.process_at_rank(0);
    let mut length = bytes.len() as u64;
    first.broadcast_into(&mut length);
    let mut all = bytes.to_vec();
    all.resize(length as usize, 0);
    // MPI takes no broadcast of nothing.
    if length > 0 {
        first.broadcast_into(&mut all[..]);
    }
    all
}

/// A number that tells sets of cores apart: a checksum of the mask that the system holds for this process.
fn core_mask() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed:")).unwrap_or("");
    u64::from(crc32fast::hash(mask.trim().as_bytes()))
}
