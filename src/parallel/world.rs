//! The MPI world: ranks, nodes, messages between ranks, and abort.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mpi::datatype::Equivalence;
use mpi::datatype::traits::{Buffer, BufferMut};
use mpi::environment::{Threading, Universe};
use mpi::point_to_point::{Destination, Source};
use mpi::request::scope;
use mpi::topology::{Color, Communicator, SimpleCommunicator};

use super::collective::Ranks;
use super::host::host;
use super::launcher::{self, Launcher};
use super::sign_of_life::Channel;
use super::signals::EndSignal;
use super::watch::Watch;
use super::watchdog;
use crate::error::{Error, Result};

const TEXT_TAG: i32 = 1;
const STOP_TAG: i32 = 2;
const VALUES_TAG: i32 = 3;

/// Why a rank fails.
#[derive(Debug)]
pub enum Failure {
    /// All ranks fail together. Only rank 0 has the error, so it is logged once.
    Collective(Option<Error>),
    /// Only this rank fails. Other ranks may wait for it until the job is aborted.
    Local(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Local(error)
    }
}

/// The initialised MPI library. Dropping it finalises MPI.
pub struct World {
    // Declared first, so that the communicators are dropped before MPI is finalised.
    world: Ranks,
    local: Ranks,
    local_rank: usize,
    local_size: usize,
    nodes: usize,
    _end: EndOfMpi,
}

/// Finalises MPI when it is dropped, then ends the watch.
struct EndOfMpi {
    universe: Option<Universe>,
    watch: Arc<Watch>,
}

impl Drop for EndOfMpi {
    fn drop(&mut self) {
        drop(self.universe.take());
        self.watch.finish();
    }
}

/// Bytes of a host name.
const HOST: usize = 64;

impl World {
    /// Initialises MPI. A rank that waits longer than `timeout` for ranks that give no sign of life ends the job; see [`Watch`].
    /// `signal` ends it as the [`super::Stage`] of the watch says.
    ///
    /// # Errors
    /// When MPI is already initialised or cannot be called from two threads in turn, or the launcher started several tasks that MPI
    /// does not connect.
    pub fn start(timeout: Duration, signal: EndSignal) -> Result<Self> {
        launcher::warn_of_srun_without_pmix();
        let launcher = Launcher::detect();
        let by_exit = launcher.is_some_and(Launcher::is_open_mpi);
        watchdog::ENDS_WITH_A_RANK.store(by_exit, Ordering::Relaxed);
        let watch = Watch::start(timeout, signal);
        let (universe, provided) = mpi::initialize_with_threading(Threading::Serialized)
            .ok_or_else(|| Error::request("MPI is already initialised", "initialise it once"))?;
        if provided < Threading::Serialized {
            return Err(Error::request(
                "this MPI library cannot be called from two threads in turn (MPI_THREAD_SERIALIZED)",
                "use one that was built with support for threads",
            ));
        }
        watch.end();
        let world = universe.world();
        if world.size() == 1
            && let Some(error) = launcher.and_then(Launcher::mismatch)
        {
            return Err(error);
        }
        watch.barrier("all ranks to start", &world);
        let local = watch.call(|| world.split_shared(world.rank()));
        let signs_of_life = watch.call(|| world.duplicate());
        let (local_rank, local_size) = (local.rank() as usize, local.size() as usize);
        let [world, local] = [world, local].map(|ranks| Ranks::new(ranks, Arc::clone(&watch)));
        let mut nodes = 0u64;
        world.all_reduce(&u64::from(local_rank == 0), &mut nodes);
        let host: Vec<u8> = Self::host().bytes().chain(std::iter::repeat(0)).take(HOST).collect();
        let mut hosts = vec![0u8; HOST * world.size()];
        world.all_gather(&host[..], &mut hosts[..]);
        let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
        watch.connect(Channel::new(signs_of_life, hosts.chunks(HOST).map(name).collect()));
        let _end = EndOfMpi { universe: Some(universe), watch };
        Ok(Self { world, local, local_rank, local_size, nodes: nodes as usize, _end })
    }

    /// The watch over the waits of this rank.
    pub fn watch(&self) -> &Arc<Watch> {
        &self.world.watch
    }

    /// Host name of this machine.
    pub fn host() -> String {
        host()
    }

    /// Number of CPU cores of this machine, including hyperthreads and cores that this process may not use; `None` if unknown.
    pub fn cores() -> Option<usize> {
        let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
        let count = text.lines().filter(|line| line.starts_with("processor")).count();
        (count > 0).then_some(count)
    }

    /// Number of nodes.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// Rank of this process, from 0.
    pub fn rank(&self) -> usize {
        self.world.rank()
    }

    /// Number of ranks.
    pub fn size(&self) -> usize {
        self.world.size()
    }

    /// Rank of this process on its node.
    pub fn local_rank(&self) -> usize {
        self.local_rank
    }

    /// Number of ranks on this node.
    pub fn local_size(&self) -> usize {
        self.local_size
    }

    /// A communicator of the same ranks for other uses. Every rank calls it.
    pub fn duplicate(&self) -> SimpleCommunicator {
        self.world.barrier();
        self.watch().call(|| self.world.communicator().duplicate())
    }

    /// The communicator of the ranks that give the same `color`. Every rank calls it.
    pub(super) fn split_by_color(&self, color: Color) -> SimpleCommunicator {
        self.world.barrier();
        let group = self.watch().call(|| self.world.communicator().split_by_color(color));
        group.expect("the colour is not undefined")
    }

    /// Waits until all ranks call it.
    pub fn barrier(&self) {
        self.world.barrier();
    }

    /// Waits until all ranks of this node call it.
    pub fn local_barrier(&self) {
        self.local.barrier();
    }

    /// The texts of all ranks, in rank order, on rank 0; `None` on other ranks.
    pub fn gather_text(&self, text: &str) -> Option<Vec<String>> {
        if self.rank() > 0 {
            self.send(0, text.as_bytes(), TEXT_TAG);
            return None;
        }
        let others = (1..self.size()).map(|rank| {
            let watch = self.watch();
            let process = watch.call(|| self.world.communicator().process_at_rank(rank as i32));
            let mut status = None;
            watch.wait("the text of a rank", || {
                status = process.immediate_probe_with_tag(TEXT_TAG);
                status.is_some()
            });
            let length = status.map_or(0, |status| status.count(u8::equivalent_datatype()));
            let mut bytes = vec![0u8; length.max(0) as usize];
            self.receive(rank, &mut bytes[..], TEXT_TAG);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Some(std::iter::once(text.to_owned()).chain(others).collect())
    }

    fn send<B: Buffer + ?Sized>(&self, rank: usize, values: &B, tag: i32) {
        let (watch, communicator) = (self.watch(), self.world.communicator());
        scope(|scope| {
            let request = watch.call(|| {
                communicator.process_at_rank(rank as i32).immediate_send_with_tag(scope, values, tag)
            });
            watch.complete("a rank to receive a message", request);
        });
    }

    fn receive<B: BufferMut + ?Sized>(&self, rank: usize, values: &mut B, tag: i32) {
        let (watch, communicator) = (self.watch(), self.world.communicator());
        scope(|scope| {
            let request = watch.call(|| {
                communicator.process_at_rank(rank as i32).immediate_receive_into_with_tag(scope, values, tag)
            });
            watch.complete("the message of a rank", request);
        });
    }

    /// Sends `values` to rank `rank`, which receives them with [`World::receive_values`].
    pub fn send_values(&self, rank: usize, values: &[f32]) {
        self.send(rank, values, VALUES_TAG);
    }

    /// Receives what rank `rank` sends with [`World::send_values`]. `values` must have the same length there.
    pub fn receive_values(&self, rank: usize, values: &mut [f32]) {
        self.receive(rank, values, VALUES_TAG);
    }

    /// Number of ranks on this node that have the same CPU affinity mask as this one, including this one.
    pub fn ranks_sharing_cores(&self) -> usize {
        let own = affinity_mask();
        let mut all = vec![0u64; self.local_size];
        self.local.all_gather(&own, &mut all[..]);
        all.iter().filter(|&&mask| mask == own).count()
    }

    /// Runs `work` on rank 0; every rank learns whether it failed. Returns `None` on other ranks.
    ///
    /// # Errors
    /// [`Failure::Collective`], on every rank.
    pub fn on_root<T>(&self, work: impl FnOnce() -> Result<T>) -> std::result::Result<Option<T>, Failure> {
        let outcome = (self.rank() == 0).then(work);
        let mut failed = matches!(outcome, Some(Err(_)));
        self.world.broadcast(&mut failed);
        match outcome {
            Some(Err(error)) => Err(Failure::Collective(Some(error))),
            Some(Ok(value)) => Ok(Some(value)),
            None if failed => Err(Failure::Collective(None)),
            None => Ok(None),
        }
    }

    /// Sends rank `rank` the message that the group of this rank stops.
    pub fn announce_stop(&self, rank: usize) {
        self.send(rank, &[1u8][..], STOP_TAG);
    }

    /// Receives one message of [`World::announce_stop`] if there is one; does not wait.
    pub fn stop_announced(&self) -> bool {
        let communicator = self.world.communicator();
        let sender = self.watch().call(|| {
            communicator.any_process().immediate_probe_with_tag(STOP_TAG).map(|status| status.source_rank())
        });
        if let Some(sender) = sender {
            self.receive(sender as usize, &mut [0u8][..], STOP_TAG);
        }
        sender.is_some()
    }

    /// Waits for one message of [`World::announce_stop`].
    pub fn await_stop(&self) {
        let communicator = self.world.communicator();
        let mut sender = 0;
        self.watch().wait("the other half to stop", || {
            let status = communicator.any_process().immediate_probe_with_tag(STOP_TAG);
            sender = status.map_or(0, |status| status.source_rank());
            status.is_some()
        });
        self.receive(sender as usize, &mut [0u8][..], STOP_TAG);
    }

    /// The sum of the values of all ranks, on every rank.
    pub fn all_reduce_sum(&self, value: u64) -> u64 {
        let mut sum = 0;
        self.world.all_reduce(&value, &mut sum);
        sum
    }

    /// Rank 0's `value`, on every rank, by way of JSON: floats arrive bit for bit.
    ///
    /// # Errors
    /// [`Failure::Collective`], on every rank, when the value cannot be expressed in JSON (a float that is not finite).
    pub fn broadcast_json<T: serde::Serialize + serde::de::DeserializeOwned>(
        &self,
        value: &T,
    ) -> std::result::Result<T, Failure> {
        let encode = || {
            let text = serde_json::to_vec(value)?;
            serde_json::from_slice::<T>(&text).map(|_| text)
        };
        let failed = |error: serde_json::Error| {
            let problem = format!("the settings cannot be sent to all ranks: {error}");
            Error::request(problem, "check that all numbers on the command line are finite")
        };
        let text = self.on_root(|| encode().map_err(failed))?.unwrap_or_default();
        let text = self.broadcast_bytes(&text);
        serde_json::from_slice(&text).map_err(|error| Failure::Local(failed(error)))
    }

    /// The `bytes` of rank 0, on every rank.
    pub fn broadcast_bytes(&self, bytes: &[u8]) -> Vec<u8> {
        self.world.broadcast_bytes(bytes)
    }

    /// Broadcasts the `values` of rank 0. `values` must have the same length on every rank.
    pub fn broadcast_values(&self, values: &mut [f32]) {
        self.world.broadcast(values);
    }

    /// The sum of the values of the ranks on this node, on each of them.
    pub fn local_all_reduce_sum(&self, value: u64) -> u64 {
        let mut sum = 0;
        self.local.all_reduce(&value, &mut sum);
        sum
    }

    /// The bytes of the first rank on this node, on every rank of the node.
    pub fn local_broadcast(&self, bytes: &[u8]) -> Vec<u8> {
        self.local.broadcast_bytes(bytes)
    }

    /// Installs a panic hook: a panic on any thread of this rank aborts the job, because other ranks would wait forever. With one rank,
    /// the standard hook stays.
    pub fn abort_on_panic(&self) {
        if self.size() == 1 {
            return;
        }
        let rank = self.rank();
        let host = Self::host();
        let watch = Arc::clone(self.watch());
        let standard = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |information| {
            standard(information);
            let _ = writeln!(
                std::io::stderr(),
                "rank {rank} on {host}: ending the job after a panic ({information}); this is a bug in the program: please report it",
                information = information.to_string().replace('\n', " ")
            );
            watch.announce_end();
            watchdog::abort(101);
        }));
    }

    /// Aborts all ranks of the job with exit code `code`.
    pub fn abort(&self, code: i32) -> ! {
        self.watch().announce_end();
        watchdog::abort(code)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.watch().disconnect();
    }
}

/// A checksum of the CPU affinity mask of this process, to compare masks.
fn affinity_mask() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed:")).unwrap_or("");
    u64::from(crc32fast::hash(mask.trim().as_bytes()))
}
