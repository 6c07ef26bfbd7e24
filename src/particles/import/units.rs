//! Values that are probably in another unit than the one expected.

use std::collections::BTreeSet;

use super::set::{ParticleRow, SetProperties};

/// Voltage in kV above which a value is probably in V.
const LARGEST_VOLTAGE: f64 = 5e3;
/// Defocus in angstrom below which all values are probably in micrometres.
const SMALLEST_DEFOCUS: f64 = 50.0;

/// Defocus in angstrom above which a value is in another unit, or damaged: a tenth of a millimetre.
const LARGEST_DEFOCUS: f64 = 1e6;
/// Voltage in kV below which a value is in another unit.
const SMALLEST_VOLTAGE: f64 = 10.0;

/// Stacks, one for each micrograph, or particles from which on one defocus for all is not plausible.
const MANY_STACKS: usize = 5;
const MANY_PARTICLES: usize = 2_000;

/// Looks for implausible values, and warns once for each column.
#[derive(Clone, Debug)]
pub struct Units {
    file: String,
    columns: [&'static str; 3],
    voltages: Vec<f64>,
    /// Largest defocus, in angstrom.
    defocus: f64,
    /// Defocus U and V of the first particle, and whether all have it.
    first: Option<[f64; 2]>,
    varies: bool,
    particles: usize,
    /// Some of the stacks.
    stacks: BTreeSet<u32>,
    /// Number of particles whose shift leads out of their box, and the first such shift and box in pixels.
    far: usize,
    farthest: (f64, usize),
}

impl Units {
    /// For the particles of this set.
    pub fn new(properties: &SetProperties) -> Self {
        Self {
            file: properties.path.display().to_string(),
            columns: properties.columns,
            voltages: properties.optics.iter().map(|optics| optics.voltage).collect(),
            defocus: 0.0,
            first: None,
            varies: false,
            particles: 0,
            stacks: BTreeSet::new(),
            far: 0,
            farthest: (0.0, 0),
        }
    }

    /// Records the values of a particle, whose raw image has a box of `box_size` pixels.
    pub fn observe(&mut self, row: &ParticleRow, box_size: usize) {
        let ctf = &row.particle.ctf;
        self.defocus = self.defocus.max(ctf.defocus_u.abs()).max(ctf.defocus_v.abs());
        let values = [ctf.defocus_u, ctf.defocus_v];
        self.varies |= *self.first.get_or_insert(values) != values;
        self.particles += 1;
        if self.stacks.len() < MANY_STACKS {
            self.stacks.insert(row.source.file);
        }
        let distance = row.shift[0].abs().max(row.shift[1].abs());
        if 2.0 * distance > box_size as f64 {
            self.far += 1;
            if distance > self.farthest.0 {
                self.farthest = (distance, box_size);
            }
        }
    }

    /// Warns about the values seen.
    pub fn warn(&self) {
        let [voltage, defocus, origin] = self.columns;
        if let Some(volts) = self.voltages.iter().find(|&&volts| volts > LARGEST_VOLTAGE) {
            tracing::warn!("{}: {voltage} is {volts}, expected kV: this seems to be in V", self.file);
        }
        if let Some(low) = self.voltages.iter().find(|&&kilovolts| kilovolts < SMALLEST_VOLTAGE) {
            tracing::warn!(
                "{}: {voltage} is {low}, expected kV: this seems to be in another unit",
                self.file
            );
        }
        if self.defocus > LARGEST_DEFOCUS {
            tracing::warn!(
                "{}: {defocus} is {:e} at most, expected angstrom: this seems to be in another unit, or damaged",
                self.file,
                self.defocus
            );
        }
        if self.defocus > 0.0 && self.defocus < SMALLEST_DEFOCUS {
            tracing::warn!(
                "{}: {defocus} is {} at most, expected angstrom: this seems to be in micrometres; multiply both defocus columns by 10000, or the CTF stays uncorrected",
                self.file,
                self.defocus
            );
        }
        let many = self.stacks.len() >= MANY_STACKS || self.particles >= MANY_PARTICLES;
        if let (true, false, Some([u, _])) = (many && self.defocus > 0.0, self.varies, self.first) {
            tracing::warn!(
                "{}: {defocus} is {u} for all {} particles: the CTF of one micrograph seems to be given to all; join the columns of the CTF \
                 estimation again",
                self.file,
                self.particles
            );
        }
        if self.far > 0 {
            let (distance, box_size) = self.farthest;
            tracing::warn!(
                "{}: {origin} of {} particles lies outside their box (up to {distance:.1} pixels in a box of {box_size}): check its \
                 unit",
                self.file,
                self.far
            );
        }
    }
}
