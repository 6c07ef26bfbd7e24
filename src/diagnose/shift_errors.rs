//! Errors of the shifts of single particles: what part of them is a multiple of the shifts that were applied, or the same for all.

use super::subject::Subject;
use crate::error::Result;

/// Part of the errors of single particles that their shifts do not explain, at most, where one factor is wrong for all.
const LARGEST_REST: f64 = 0.5;
/// Least error in common, in pixels of the particle file, that counts, and its least part of the errors' squares.
const LEAST_OFFSET: f64 = 0.4;
const LEAST_COMMON: f64 = 0.5;

/// Errors of the shifts of single particles, as they fit the map of the other half.
pub(super) struct Errors {
    /// Standard deviation about the multiple of the shift that explains most, over the root mean square.
    rest: f64,
    /// Mean, in pixels of the particle file.
    mean: [f64; 2],
    /// Mean square of both axes together.
    square: f64,
}

impl Errors {
    /// Of all particles, or of those of an optics group. `None` where the particles cannot be compared with the maps.
    pub fn of(subject: &Subject, group: Option<u32>) -> Result<Option<Self>> {
        let (sample, fits) = (subject.sample()?, subject.fits()?);
        let (mut mean, mut squares, mut products, mut of_shifts, mut count) = ([0.0; 2], 0.0, 0.0, 0.0, 0.0);
        for (half, of_half) in fits.iter().enumerate() {
            for one in &of_half.particles {
                let Some((image, shift)) = sample.image_of_row(half, one.row) else { continue };
                if group.is_some_and(|group| image.particle.optics_group != group) {
                    continue;
                }
                count += 1.0;
                for axis in 0..2 {
                    let (error, shift) = (one.change.offset[axis], shift[axis] / sample.scale);
                    mean[axis] += error;
                    squares += error * error;
                    products += error * shift;
                    of_shifts += shift * shift;
                }
            }
        }
        if squares <= 0.0 {
            return Ok(None);
        }
        let explained = if of_shifts > 0.0 { products * products / of_shifts } else { 0.0 };
        let rest = (1.0 - explained / squares).max(0.0).sqrt();
        Ok(Some(Self { rest, mean: mean.map(|sum| sum / count), square: squares / count }))
    }

    /// What speaks against one wrong factor of the shifts of all: shifts with large errors of their own fit better at a half of their
    /// values, too.
    pub fn other_cause(&self) -> Option<String> {
        let text =
            || format!("{:.0}% of the errors of single particles have another cause", 100.0 * self.rest);
        (self.rest > LARGEST_REST).then(text)
    }

    /// The error that most particles have in common, if there is one.
    pub fn common(&self) -> Option<[f64; 2]> {
        let square = self.mean[0].powi(2) + self.mean[1].powi(2);
        (square.sqrt() > LEAST_OFFSET && square > LEAST_COMMON * self.square).then_some(self.mean)
    }
}
