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
        self.communicator.all_gather_varcount_into(values, &mut parts);
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
