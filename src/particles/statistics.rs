//! Statistics of a particle set.

use crate::particles::store::Particle;

/// Statistics of the particles added to it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ParticleStatistics {
    /// Smallest mean of defocus U and V, in angstrom.
    pub min_defocus: f64,
    /// Largest mean of defocus U and V, in angstrom.
    pub max_defocus: f64,
    defocus_sum: f64,
    particles: usize,
    /// Number of particles with a shift to apply.
    pub shifted: usize,
    /// Number of particles in each optics group.
    pub group_sizes: Vec<usize>,
}

impl ParticleStatistics {
    pub(crate) fn new(optics_groups: usize) -> Self {
        Self {
            min_defocus: f64::INFINITY,
            max_defocus: f64::NEG_INFINITY,
            defocus_sum: 0.0,
            particles: 0,
            shifted: 0,
            group_sizes: vec![0; optics_groups],
        }
    }

    pub(crate) fn add(&mut self, particle: &Particle) {
        let defocus = 0.5 * (particle.ctf.defocus_u + particle.ctf.defocus_v);
        self.min_defocus = self.min_defocus.min(defocus);
        self.max_defocus = self.max_defocus.max(defocus);
        self.defocus_sum += defocus;
        self.particles += 1;
        self.shifted += usize::from(particle.shift != [0.0; 2]);
        self.group_sizes[particle.optics_group as usize] += 1;
    }

    /// Mean of defocus U and V over all particles, in angstrom.
    pub(crate) fn mean_defocus(&self) -> f64 {
        self.defocus_sum / self.particles as f64
    }
}
