//! A quick look at particles before a training: where in the box the specimen lies, and how much they tell of it.
//!
//! Some particles of a half, made small, are backprojected as `backproject` does, in a second or two. Each model looks at its
//! own half alone, so that halves stay independent.

use std::f64::consts::PI;
use std::ops::Range;

use rayon::prelude::*;

use crate::error::Result;
use crate::evaluate::Fsc;
use crate::imaging::View;
use crate::particles::parts::Part;
use crate::particles::preprocess::{Preprocessor, SMALLEST_BOX, Settings};
use crate::particles::store::{Block, Store};
use crate::train::init::density::Density;
use crate::voxels::accumulator::Accumulator;
use crate::voxels::reconstruction::reconstruct;
use crate::voxels::slice::{Cutter, Samples};

/// Particles that are looked at.
const PARTICLES: usize = 2_000;
/// The boxes in pixels that images are made smaller to, half their own if that is among them: enough to tell a specimen from
/// solvent, and without the noise of higher frequencies.
const BOXES: std::ops::RangeInclusive<usize> = SMALLEST_BOX..=32;
/// Images at a time.
const AT_A_TIME: usize = 250;
/// What lies above this part of the largest value is specimen.
const THRESHOLD: f32 = 0.1;
/// Two halves never agree better than that, as far as can be told.
const LARGEST_FSC: f64 = 0.9999;

/// The box that images of `box_size` pixels are made smaller to.
fn small_box(box_size: usize) -> usize {
    (box_size / 2).clamp(*BOXES.start(), *BOXES.end()).min(box_size)
}

/// What a look at particles shows.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Their density at low resolution; `None` where they show none.
    pub density: Option<Density>,
    /// Their signal to noise, in power, summed over the Fourier voxels that it is spread over: about that of a pixel times the
    /// pixels of all images.
    pub information: f64,
}

/// What the particles of each part show, for the log too; nothing where they cannot be read.
pub fn of_parts(store: &Store, parts: &[Part]) -> Vec<Look> {
    parts.iter().map(|part| look_at(store, part)).collect()
}

fn look_at(store: &Store, part: &Part) -> Look {
    let (name, rows) = (part.name(), &part.rows);
    let look = match look(store, rows) {
        Ok(look) => look,
        Err(error) => {
            // The training meets the same file, and says what is wrong with it.
            tracing::warn!("{name}: no look at its particles: {error}");
            return Look::default();
        }
    };
    let Some(density) = &look.density else {
        tracing::warn!("{name}: its particles show no specimen yet; the start is the published one");
        return look;
    };
    let header = store.header();
    let edge = header.box_size as f64 * header.pixel_size;
    let (centre, covariance) = density.moments();
    let [x, y, z] = centre.map(|at| edge * at);
    let [a, b, c] = [0, 1, 2].map(|k| edge * covariance[k][k].sqrt());
    let snr = look.information / (rows.len() * header.pixels()) as f64;
    tracing::info!(
        "{name}: the particles show a specimen at ({x:.0}, {y:.0}, {z:.0}) A, with deviations of {a:.0}, {b:.0}, {c:.0} A; \
         signal to noise about {snr:.2}",
    );
    look
}

/// What the particles in `rows` show at low resolution.
///
/// Images that cannot be used are passed over: a training reads them again, and says so.
///
/// # Errors
/// When the file cannot be read.
fn look(store: &Store, rows: &Range<usize>) -> Result<Look> {
    let header = store.header();
    let (pixels, small) = (header.pixels(), small_box(header.box_size));
    let pixel_size = header.pixel_size * header.box_size as f64 / small as f64;
    let shrink = Preprocessor::new(Settings {
        input_box: header.box_size,
        output_box: small,
        invert: false,
        background_radius: None,
    })?;
    let cutter = Cutter::new(small, pixel_size);
    let reader = store.reader();
    let chosen: Vec<usize> = rows.clone().step_by(rows.len().div_ceil(PARTICLES).max(1)).collect();
    let mut halves = [Accumulator::new(small), Accumulator::new(small)];
    for rows in chosen.chunks(AT_A_TIME) {
        let prepare = || (Block::default(), vec![0.0; small * small], shrink.scratch(), cutter.scratch());
        let samples: Vec<Result<Option<Samples>>> = rows
            .par_iter()
            .map_init(prepare, |(block, image, shrinking, cutting), &row| {
                reader.read(row..row + 1, block)?;
                let particle = &block.particles[0];
                let view = View { rotation: particle.rotation, ctf: reader.ctf(particle) };
                let usable = block.defects.is_empty()
                    && shrink.run(&mut block.images[..pixels].to_vec(), [0.0; 2], image, shrinking).is_ok();
                let mut samples = Samples::default();
                if usable {
                    cutter.cut(image, &view, &mut samples, cutting);
                }
                Ok((usable && samples.finite).then_some(samples))
            })
            .collect();
        let samples = samples.into_iter().filter_map(Result::transpose).collect::<Result<Vec<_>>>()?;
        // Two halves of them, so that the Wiener filter knows the noise.
        let (first, second) = samples.split_at(samples.len() / 2);
        halves[0].add(first);
        halves[1].add(second);
    }
    let maps = reconstruct(halves.map(Accumulator::finish), pixel_size, true)?;
    let largest = maps.whole.data.iter().copied().fold(0.0, f32::max);
    let fsc = Fsc::between(&maps.halves[0], &maps.halves[1])?;
    Ok(Look {
        density: Density::above(THRESHOLD * largest, &maps.whole.data),
        information: information(&fsc.shells[..small / 2]) * rows.len() as f64 / chosen.len().max(1) as f64,
    })
}

/// The signal-to-noise ratio that two halves with the FSC `shells` have together, summed over the voxels of these shells.
fn information(shells: &[f64]) -> f64 {
    let of_shell = |(shell, &fsc): (usize, &f64)| {
        let fsc = if fsc.is_nan() { 0.0 } else { fsc.clamp(0.0, LARGEST_FSC) };
        4.0 * PI * (shell * shell) as f64 * 2.0 * fsc / (1.0 - fsc)
    };
    shells.iter().enumerate().map(of_shell).sum()
}

#[cfg(test)]
mod tests {
    use crate::train::init::pilot::*;

    #[test]
    fn information_is_signal_to_noise_over_all_voxels() {
        // Halves with a signal as strong as their noise agree to 1/2, and have twice that together.
        let expected = 4.0 * PI * (1.0 + 4.0) * 2.0;
        assert!((information(&[1.0, 0.5, 0.5, -0.1, f64::NAN]) - expected).abs() < 1e-9);
        assert!(information(&[1.0; 3]).is_finite());
    }
}
