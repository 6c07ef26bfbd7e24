//! What the ranks of a group say to each other.

use mpi::collective::{CommunicatorCollectives, SystemOperation};
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::Root;

/// Sums and agreements over the ranks of one group, over MPI.
pub struct Collective {
    communicator: SimpleCommunicator,
    received: Vec<f32>,
}

impl Collective {
    /// Over all ranks of `communicator`.
    pub fn new(communicator: SimpleCommunicator) -> Self {
        Self { communicator, received: Vec::new() }
    }

    /// Ranks in the group.
    pub fn size(&self) -> usize {
        self.communicator.size() as usize
    }

    /// This rank in the group.
    pub fn rank(&self) -> usize {
        self.communicator.rank() as usize
    }

    /// The bytes of the group's first rank, on every rank; of the same length there.
    pub fn broadcast(&self, bytes: &mut [u8]) {
        self.communicator.process_at_rank(0).broadcast_into(bytes);
    }

    /// The values of all ranks, in their order, on every rank.
    pub fn gather(&self, value: u64) -> Vec<u64> {
        let mut all = vec![0u64; self.size()];
        self.communicator.all_gather_into(&value, &mut all[..]);
        all
    }

    /// [`Collective::gather`] of real numbers.
    pub fn gather_real(&self, value: f64) -> Vec<f64> {
        self.gather(value.to_bits()).into_iter().map(f64::from_bits).collect()
    }

    /// Adds `buffer` up over the ranks, in place. Every rank receives the same bits.
    pub fn sum(&mut self, buffer: &mut [f32]) {
        if self.size() == 1 {
            return;
        }
        self.received.resize(buffer.len(), 0.0);
        self.communicator.all_reduce_into(buffer, &mut self.received[..], SystemOperation::sum());
        buffer.copy_from_slice(&self.received);
    }

    /// Adds `buffer` up over the ranks, in place on the group's first; the others keep theirs.
    pub fn sum_at_first(&mut self, buffer: &mut [f32]) {
        let first = self.communicator.process_at_rank(0);
        match (self.size(), self.rank()) {
            (1, _) => {}
            (_, 0) => {
                self.received.resize(buffer.len(), 0.0);
                first.reduce_into_root(&*buffer, &mut self.received[..], SystemOperation::sum());
                buffer.copy_from_slice(&self.received);
            }
            _ => first.reduce_into(&*buffer, SystemOperation::sum()),
        }
    }

    /// True on every rank exactly if `value` is the same on all.
    pub fn all_equal(&self, value: u64) -> bool {
        self.gather(value).iter().all(|&other| other == value)
    }

    /// `error`, which every rank of the group has: its first rank goes on to say it and to end the job, and the others wait
    /// for that here.
    pub fn first_says<E>(&self, error: E) -> E {
        if self.rank() > 0 {
            self.barrier();
        }
        error
    }

    /// Waits for the group.
    pub fn barrier(&self) {
        self.communicator.barrier();
    }
}
