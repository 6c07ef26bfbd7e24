//! What the ranks of a group say to each other.

use mpi::collective::{CommunicatorCollectives, SystemOperation};
use mpi::topology::{Communicator, SimpleCommunicator};

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

    /// Adds `buffer` up over the ranks, in place. Every rank receives the same bits.
    pub fn sum(&mut self, buffer: &mut [f32]) {
        if self.size() == 1 {
            return;
        }
        self.received.resize(buffer.len(), 0.0);
        self.communicator.all_reduce_into(buffer, &mut self.received[..], SystemOperation::sum());
        buffer.copy_from_slice(&self.received);
    }

    /// True on every rank exactly if `value` is the same on all.
    pub fn all_equal(&self, value: u64) -> bool {
        let (mut low, mut high) = (0u64, 0u64);
        self.communicator.all_reduce_into(&value, &mut low, SystemOperation::min());
        self.communicator.all_reduce_into(&value, &mut high, SystemOperation::max());
        low == high
    }

    /// Waits for the group.
    pub fn barrier(&self) {
        self.communicator.barrier();
    }
}
