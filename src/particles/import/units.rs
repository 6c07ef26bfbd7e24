//! Values that are probably in another unit than the one expected.

use super::optics::RawImages;
use super::set::{ParticleRow, SetProperties};

/// Voltage in kV above which a value is probably in V.
const LARGEST_VOLTAGE: f64 = 5e3;
/// Defocus in angstrom below which all values are probably in micrometres.
const SMALLEST_DEFOCUS: f64 = 50.0;

/// Looks for implausible values, and warns once for each column.
#[derive(Clone, Debug)]
pub struct Units {
    file: String,
    columns: [&'static str; 3],
    voltages: Vec<f64>,
    raw: Vec<RawImages>,
    /// Largest defocus, in angstrom.
    defocus: f64,
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
            raw: properties.raw.clone(),
            defocus: 0.0,
            far: 0,
            farthest: (0.0, 0),
        }
    }

    /// Records the values of a particle.
    pub fn observe(&mut self, row: &ParticleRow) {
        let ctf = &row.particle.ctf;
        self.defocus = self.defocus.max(ctf.defocus_u.abs()).max(ctf.defocus_v.abs());
        let raw = &self.raw[row.particle.optics_group as usize];
        let distance = row.shift[0].abs().max(row.shift[1].abs());
        if let Some(box_size) = raw.box_size.filter(|&box_size| 2.0 * distance > box_size as f64) {
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
        if self.defocus > 0.0 && self.defocus < SMALLEST_DEFOCUS {
            tracing::warn!(
                "{}: {defocus} is {} at most, expected angstrom: this seems to be in micrometres",
                self.file,
                self.defocus
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
