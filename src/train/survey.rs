//! A quick look at particles before a training: where in the box the specimen lies.
//!
//! Some particles of a half, made small, are backprojected as `backproject` does, in a second or two. Each model looks at its
//! own half alone, so that halves stay independent.

use std::ops::Range;

use rayon::prelude::*;

use super::density::Density;
use crate::backproject::plane::{Cutter, Samples};
use crate::backproject::run::reconstruct;
use crate::backproject::sums::Accumulator;
use crate::error::Result;
use crate::imaging::View;
use crate::particles::preprocess::{Preprocessor, SMALLEST_BOX, Settings};
use crate::particles::store::{Block, Store};

/// Particles that are looked at.
const PARTICLES: usize = 2_000;
/// The boxes in pixels that images are made smaller to, half their own if that is among them: enough to tell a specimen from
/// solvent, and without the noise of higher frequencies.
const BOXES: std::ops::RangeInclusive<usize> = SMALLEST_BOX..=32;
/// Images at a time.
const AT_A_TIME: usize = 250;
/// What lies above this part of the largest value is specimen.
const THRESHOLD: f32 = 0.1;

/// The box that images of `box_size` pixels are made smaller to.
fn small_box(box_size: usize) -> usize {
    (box_size / 2).clamp(*BOXES.start(), *BOXES.end()).min(box_size)
}

/// The density of the particles in `rows` at low resolution; `None` where they show none.
///
/// Images that cannot be used are passed over: a training reads them again, and says so.
///
/// # Errors
/// When the file cannot be read.
pub fn density(store: &Store, rows: &Range<usize>) -> Result<Option<Density>> {
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
    let map = reconstruct(halves.map(Accumulator::finish), pixel_size, true)?.whole;
    let largest = map.data.iter().copied().fold(0.0, f32::max);
    Ok(Density::above(THRESHOLD * largest, &map.data))
}
