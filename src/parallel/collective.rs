//! Collective operations over the ranks of a group. Each starts without blocking, and its end is waited for under [`Watch`].

use std::sync::Arc;

use mpi::Count;
use mpi::collective::{CommunicatorCollectives, SystemOperation};
use mpi::datatype::{
    PartitionMut,
    traits::{Buffer, BufferMut},
};
use mpi::request::scope;
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::Root;

use super::watch::Watch;

/// The MPI communicator of a group of ranks.
pub struct Collective {
    ranks: Ranks,
    received: Vec<f32>,
}

/// A communicator whose operations are watched.
pub(super) struct Ranks {
    /// `None` only while it is dropped.
    communicator: Option<SimpleCommunicator>,
    pub watch: Arc<Watch>,
}

impl Drop for Ranks {
    fn drop(&mut self) {
        self.watch.call(|| drop(self.communicator.take()));
    }
}

impl Ranks {
    pub fn new(communicator: SimpleCommunicator, watch: Arc<Watch>) -> Self {
        Self { communicator: Some(communicator), watch }
    }

    pub fn communicator(&self) -> &SimpleCommunicator {
        self.communicator.as_ref().expect("present until it is dropped")
    }

    pub fn rank(&self) -> usize {
        self.watch.call(|| self.communicator().rank()) as usize
    }

    pub fn size(&self) -> usize {
        self.watch.call(|| self.communicator().size()) as usize
    }

    pub fn broadcast<B: BufferMut + ?Sized>(&self, buffer: &mut B) {
        scope(|scope| {
            let request = self
                .watch
                .call(|| self.communicator().process_at_rank(0).immediate_broadcast_into(scope, buffer));
            self.watch.complete("a broadcast", request);
        });
    }

    pub fn all_gather<S: Buffer + ?Sized, R: BufferMut + ?Sized>(&self, own: &S, all: &mut R) {
        scope(|scope| {
            let request = self.watch.call(|| self.communicator().immediate_all_gather_into(scope, own, all));
            self.watch.complete("a gathering of all ranks' values", request);
        });
    }

    pub fn all_reduce<S: Buffer + ?Sized, R: BufferMut + ?Sized>(&self, own: &S, sum: &mut R) {
        let operation = SystemOperation::sum();
        scope(|scope| {
            let request =
                self.watch.call(|| self.communicator().immediate_all_reduce_into(scope, own, sum, operation));
            self.watch.complete("a sum over all ranks", request);
        });
    }

    pub fn barrier(&self) {
        let request = self.watch.call(|| self.communicator().immediate_barrier());
        self.watch.complete("all ranks to arrive", request);
    }

    /// The bytes of rank 0, on every rank.
    pub fn broadcast_bytes(&self, bytes: &[u8]) -> Vec<u8> {
        let mut length = bytes.len() as u64;
        self.broadcast(&mut length);
        let mut all = bytes.to_vec();
        all.resize(length as usize, 0);
        // rsmpi does not accept an empty buffer.
        if length > 0 {
            self.broadcast(&mut all[..]);
        }
        all
    }
}

impl Collective {
    /// Collectives over all ranks of `communicator`, whose waits `watch` knows.
    pub fn new(communicator: SimpleCommunicator, watch: Arc<Watch>) -> Self {
        Self { ranks: Ranks::new(communicator, watch), received: Vec::new() }
    }

    /// The watch over the waits of this rank.
    pub fn watch(&self) -> &Arc<Watch> {
        &self.ranks.watch
    }

    /// Number of ranks in the group.
    pub fn size(&self) -> usize {
        self.ranks.size()
    }

    /// Rank of this process in the group.
    pub fn rank(&self) -> usize {
        self.ranks.rank()
    }

    /// Broadcasts the bytes of rank 0. `bytes` must have the same length on every rank.
    pub fn broadcast(&self, bytes: &mut [u8]) {
        self.ranks.broadcast(bytes);
    }

    /// The values of all ranks, in rank order, on every rank.
    pub fn all_gather(&self, value: u64) -> Vec<u64> {
        let mut all = vec![0u64; self.size()];
        self.ranks.all_gather(&value, &mut all[..]);
        all
    }

    /// [`Collective::all_gather`] of plain structs.
    pub fn all_gather_pod<T: bytemuck::Pod>(&self, value: &T) -> Vec<T> {
        let mut all = vec![T::zeroed(); self.size()];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut all);
        self.ranks.all_gather(bytemuck::bytes_of(value), bytes);
        all
    }

    /// The values of all ranks on every rank: the first value of each rank, in their order, then the second of each, and so on.
    ///
    /// # Panics
    /// With 2^31 values or more.
    pub fn all_gather_lists(&self, values: &[u64]) -> Vec<u64> {
        let (all, starts) = self.all_gather_parts(values);
        let parts: Vec<&[u64]> = starts.windows(2).map(|part| &all[part[0]..part[1]]).collect();
        let longest = parts.iter().map(|part| part.len()).max().unwrap_or(0);
        (0..longest).flat_map(|k| parts.iter().filter_map(move |part| part.get(k).copied())).collect()
    }

    /// The values of all ranks on every rank: all of the first rank, then all of the second, and so on.
    ///
    /// # Panics
    /// With 2^31 values or more.
    pub fn all_gather_in_rank_order(&self, values: &[u64]) -> Vec<u64> {
        self.all_gather_parts(values).0
    }

    /// The values of all ranks, in rank order, and where those of each rank begin; the last start is the number of values.
    fn all_gather_parts(&self, values: &[u64]) -> (Vec<u64>, Vec<usize>) {
        let lengths = self.all_gather(values.len() as u64);
        let mut starts = vec![0];
        starts.extend(lengths.iter().scan(0, |end, &length| {
            *end += length as usize;
            Some(*end)
        }));
        let count = starts[lengths.len()];
        assert!(count < 1 << 31, "MPI counts in 32 bits");
        let mut all = vec![0u64; count];
        let counts: Vec<Count> = lengths.iter().map(|&length| length as Count).collect();
        let displacements: Vec<Count> = starts[..lengths.len()].iter().map(|&start| start as Count).collect();
        let mut parts = PartitionMut::new(&mut all[..], counts, displacements);
        let Ranks { watch, .. } = &self.ranks;
        scope(|scope| {
            let ranks = self.ranks.communicator();
            let request = watch.call(|| ranks.immediate_all_gather_varcount_into(scope, values, &mut parts));
            watch.complete("a gathering of all ranks' lists", request);
        });
        (all, starts)
    }

    /// [`Collective::all_gather`] of real numbers.
    pub fn all_gather_f64(&self, value: f64) -> Vec<f64> {
        self.all_gather(value.to_bits()).into_iter().map(f64::from_bits).collect()
    }

    /// Sums `buffer` over the ranks, in place (all-reduce). Every rank receives the same bits.
    pub fn all_reduce_sum(&mut self, buffer: &mut [f32]) {
        if self.size() == 1 {
            return;
        }
        self.received.resize(buffer.len(), 0.0);
        self.ranks.all_reduce(&*buffer, &mut self.received[..]);
        buffer.copy_from_slice(&self.received);
    }

    /// Sums `buffer` over the ranks, in place on rank 0 (reduce). Other ranks keep their values.
    pub fn reduce_sum(&mut self, buffer: &mut [f32]) {
        const WHAT: &str = "a sum on the first rank";
        let (size, rank) = (self.size(), self.rank());
        if size == 1 {
            return;
        }
        let Self { ranks, received } = self;
        let (watch, operation) = (&ranks.watch, SystemOperation::sum());
        let root = watch.call(|| ranks.communicator().process_at_rank(0));
        if rank == 0 {
            received.resize(buffer.len(), 0.0);
            scope(|scope| {
                let (own, sum) = (&*buffer, &mut received[..]);
                let request = watch.call(|| root.immediate_reduce_into_root(scope, own, sum, operation));
                watch.complete(WHAT, request);
            });
            buffer.copy_from_slice(received);
        } else {
            scope(|scope| {
                let request = watch.call(|| root.immediate_reduce_into(scope, &*buffer, operation));
                watch.complete(WHAT, request);
            });
        }
    }

    /// True, on every rank, if `value` is equal on all ranks.
    pub fn all_equal(&self, value: u64) -> bool {
        self.all_gather(value).iter().all(|&other| other == value)
    }

    /// Returns an `error` that all ranks of the group have. Rank 0 returns it at once, so it is logged once; the other ranks wait
    /// for the abort.
    pub fn report_once<E>(&self, error: E) -> E {
        if self.rank() > 0 {
            self.barrier();
        }
        error
    }

    /// Waits until all ranks of the group call it.
    pub fn barrier(&self) {
        self.ranks.barrier();
    }
}
