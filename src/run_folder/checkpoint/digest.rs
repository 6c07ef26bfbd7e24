//! The SHA-256 of everything that a checkpoint holds: a damaged value could otherwise be a plausible one.

use bytemuck::Pod;
use sha2::{Digest, Sha256};

use super::Checkpoint;
use crate::gmm::Gmm;

/// The hash of values, each list after its length.
struct Values(Sha256);

impl Values {
    fn add<T: Pod>(&mut self, values: &[T]) {
        self.0.update((values.len() as u64).to_le_bytes());
        self.0.update(bytemuck::cast_slice::<T, u8>(values));
    }

    fn add_mixture(&mut self, gmm: &Gmm) {
        self.add(gmm.shape().name().as_bytes());
        self.add(gmm.values());
    }
}

impl Checkpoint {
    /// The hash as hexadecimal digits. Values count as they lie in memory, which is little-endian on all machines that the program
    /// supports.
    pub(super) fn digest(&self) -> String {
        let Self { position, clock, state, trained, excluded, appraisal, refinement, ranks, identity } = self;
        let mut values = Values(Sha256::new());
        values.add(identity.to_json().as_bytes());
        let counts = [*ranks as u64, position.epoch as u64, position.step as u64, position.images];
        values.add(&counts);
        values.add(&[clock.step, clock.images]);
        values.add(&[position.loss, clock.beta1_power, clock.beta2_power]);
        values.add_mixture(&state.gmm);
        values.add(&state.first);
        values.add(&state.second);
        values.add(&[trained.len() as u64]);
        trained.iter().for_each(|gmm| values.add_mixture(gmm));
        values.add(excluded);
        if let Some(appraisal) = appraisal {
            values.add(&[appraisal.epoch as u64]);
            appraisal.noise.groups.iter().for_each(|power| values.add(power));
            values.add(&appraisal.noise.particles.iter().map(|&n| n as u64).collect::<Vec<_>>());
            values.add(&appraisal.particles);
        }
        if let Some(refinement) = refinement {
            values.add(&refinement.rounds);
            values.add(&refinement.particles);
        }
        values.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
