//! The simulated set for RELION: `particles.mrcs` and `particles.star` (RELION 3.1) in one folder.

use std::io::Write;
use std::path::Path;

use super::geometry::{ANGLE_DECIMALS, DEFOCUS_DECIMALS, SHIFT_DECIMALS, SimulatedParticle};
use crate::error::Result;
use crate::files;
use crate::imaging::ctf::Optics;
use crate::particles::Subset;
use crate::particles::export::star::{OPTICS, begin_table};

/// File name of the image stack.
pub const STACK: &str = "particles.mrcs";
/// File name of the STAR file.
pub const STAR: &str = "particles.star";
/// File name of the true map.
pub const TRUTH: &str = "truth.mrc";

/// File name of the truth of each particle.
pub const TRUTH_TABLE: &str = "truth.csv";

/// What the STAR file says of one particle.
pub struct Row {
    /// Pose, origin and CTF.
    pub particle: SimulatedParticle,
    /// Its half; half 1 is random subset 1.
    pub half: Subset,
    /// Optics group, from 0.
    pub optics_group: usize,
}

/// Particles per micrograph name.
const PER_MICROGRAPH: usize = 100;

/// Writes the STAR file of all particles, in the order of the image stack, with these `optics` groups and a beam tilt (x, y) in
/// mrad.
///
/// # Errors
/// When the file cannot be written.
pub fn write_star(
    path: &Path,
    particles: impl Iterator<Item = Row>,
    optics: &[Optics],
    beam_tilt: [f64; 2],
    box_size: usize,
    pixel_size: f64,
) -> Result<()> {
    files::write_atomically(path, |file| {
        const PARTICLES: [&str; 14] = [
            "ImageName",
            "MicrographName",
            "AngleRot",
            "AngleTilt",
            "AnglePsi",
            "OriginXAngst",
            "OriginYAngst",
            "DefocusU",
            "DefocusV",
            "DefocusAngle",
            "PhaseShift",
            "OpticsGroup",
            "RandomSubset",
            "GroupNumber",
        ];
        let tilted = beam_tilt != [0.0; 2];
        let more: &[&str] = if tilted { &["BeamTiltX", "BeamTiltY"] } else { &[] };
        begin_table(file, "optics", &[&OPTICS, more].concat())?;
        for (group, optics) in (1..).zip(optics) {
            let Optics { name, voltage, spherical_aberration, amplitude_contrast, .. } = optics;
            write!(file, "{group} {name} {voltage} {spherical_aberration} {amplitude_contrast} ")?;
            write!(file, "{pixel_size} {box_size} 2 ")?;
            if tilted {
                write!(file, "{} {} ", beam_tilt[0], beam_tilt[1])?;
            }
            writeln!(file)?;
        }
        writeln!(file, " ")?;
        begin_table(file, "particles", &PARTICLES)?;
        for (index, Row { particle, half, optics_group }) in particles.enumerate() {
            write!(file, "{:06}@{STACK} micrograph{:05}.mrc", index + 1, index / PER_MICROGRAPH + 1)?;
            for angle in particle.angles {
                write!(file, " {angle:.ANGLE_DECIMALS$}")?;
            }
            for origin in particle.origin {
                write!(file, " {origin:.SHIFT_DECIMALS$}")?;
            }
            let ctf = &particle.ctf;
            for value in [ctf.defocus_u, ctf.defocus_v, ctf.astigmatism_angle, ctf.phase_shift] {
                write!(file, " {value:.DEFOCUS_DECIMALS$}")?;
            }
            let group = optics_group + 1;
            writeln!(file, " {group} {} {group} ", half.seed_index())?;
        }
        writeln!(file, " ")
    })
}
