//! Collective operations over the ranks of a group.

use mpi::Count;
use mpi::collective::{CommunicatorCollectives, SystemOperation};
use mpi::datatype::PartitionMut;
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::Root;

/// The MPI communicator of a group of ranks.
pub struct Collective {
    communicator: SimpleCommunicator,
    received: Vec<f32>,
}

impl Collective {
    /// Collectives over all ranks of `communicator`.
    pub fn new(communicator: SimpleCommunicator) -> Self {
        Self { communicator, received: Vec::new() }
    }

    /// Number of ranks in the group.
    pub fn size(&self) -> usize {
        self.communicator.size() as usize
    }

    /// Rank of this process in the group.
    pub fn rank(&self) -> usize {
        self.communicator.rank() as usize
    }

    /// Broadcasts the bytes of rank 0. `bytes` must have the same length on every rank.
    pub fn broadcast(&self, bytes: &mut [u8]) {
        self.communicator.process_at_rank(0).broadcast_into(bytes);
    }

    /// The values of all ranks, in rank order, on every rank.
    pub fn all_gather(&self, value: u64) -> Vec<u64> {
        let mut all = vec![0u64; self.size()];
        self.communicator.all_gather_into(&value, &mut all[..]);
        all
    }

    /// [`Collective::all_gather`] of plain structs.
    pub fn all_gather_pod<T: bytemuck::Pod>(&self, value: &T) -> Vec<T> {
        let mut all = vec![T::zeroed(); self.size()];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut all);
        self.communicator.all_gather_into(bytemuck::bytes_of(value), bytes);
        all
    }

    /// The values of all ranks on every rank: the first value of each rank, in their order, then the second of each, and so on.
    pub fn all_gather_lists(&self, values: &[u64]) -> Vec<u64> {
        let lengths = self.all_gather(values.len() as u64);
        let longest = lengths.iter().copied().max().unwrap_or(0) as usize;
        let mut all = Vec::new();
        for k in 0..longest {
            let each = self.all_gather(values.get(k).copied().unwrap_or(0));
            all.extend(
                each.iter().zip(&lengths).filter(|&(_, &length)| k < length as usize).map(|(&v, _)| v),
            );
        }
        all
    }

    /// The values of all ranks on every rank: all of the first rank, then all of the second, and so on.
    ///
    /// # Panics
    /// With 2^31 values or more.
    pub fn all_gather_in_rank_order(&self, values: &[u64]) -> Vec<u64> {
        let lengths = self.all_gather(values.len() as u64);
        assert!(lengths.iter().sum::<u64>() < 1 << 31, "MPI counts in 32 bits");
        let counts: Vec<Count> = lengths.into_iter().map(|length| length as Count).collect();
        let starts: Vec<Count> = counts
            .iter()
            .scan(0, |next, count| {
                let start = *next;
                *next += count;
                Some(start)
            })
            .collect();
        let mut all = vec![0u64; counts.iter().map(|&count| count as usize).sum()];
        let mut parts = PartitionMut::new(&mut all[..], counts, starts);
        self.communicator.all_gather_varcount_into(values, &mut parts);
        all
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
        self.communicator.all_reduce_into(buffer, &mut self.received[..], SystemOperation::sum());
        buffer.copy_from_slice(&self.received);
    }

    /// Sums `buffer` over the ranks, in place on rank 0 (reduce). Other ranks keep their values.
    pub fn reduce_sum(&mut self, buffer: &mut [f32]) {
        let root = self.communicator.process_at_rank(0);
        match (self.size(), self.rank()) {
            (1, _) => {}
            (_, 0) => {
                self.received.resize(buffer.len(), 0.0);
                root.reduce_into_root(&*buffer, &mut self.received[..], SystemOperation::sum());
                buffer.copy_from_slice(&self.received);
            }
            _ => root.reduce_into(&*buffer, SystemOperation::sum()),
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
        self.communicator.barrier();
    }
}
