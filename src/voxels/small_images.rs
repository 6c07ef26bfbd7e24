//! A sample of the particles, downsampled, in memory: for sums of the same images with other metadata.

use rayon::prelude::*;

use super::accumulator::Accumulator;
use super::slice::{Slice, SliceExtractor};
use super::sums::FourierSums;
use crate::error::Result;
use crate::imaging::fourier::{Fft2, Fft2Scratch};
use crate::imaging::{Symmetry, View};
use crate::particles::preprocess::{Preprocessor, Scratch, Settings};
use crate::particles::refinement::Refinement;
use crate::particles::store::{Block, Particle, Reader, Store};
use crate::random::spread;

/// Images per parallel block.
const BLOCK: usize = 250;

/// Downsamples the images of a set.
pub(crate) struct Shrinker {
    reader: Reader,
    preprocessor: Preprocessor,
    box_size: usize,
    pixels: usize,
}

impl Shrinker {
    /// To `box_size` pixels; the field of view stays.
    ///
    /// # Errors
    /// When the box cannot be made of that of the particles.
    pub fn new(store: &Store, box_size: usize) -> Result<Self> {
        let header = store.header();
        let settings = Settings {
            input_box: header.box_size,
            output_box: box_size,
            invert: false,
            background_radius: None,
        };
        let preprocessor = Preprocessor::new(settings)?;
        Ok(Self { reader: store.reader(), preprocessor, box_size, pixels: header.pixels() })
    }

    /// The reader of the particles.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Working memory of a thread.
    pub fn scratch(&self) -> (Block, Vec<f32>, Scratch) {
        (Block::default(), vec![0.0; self.box_size * self.box_size], self.preprocessor.scratch())
    }

    /// Reads the particle in `row`, with what was refined of it, and downsamples its image, centred, to the second part of `scratch`.
    /// `None`: its image cannot be used.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(
        &self,
        (row, refinement): (usize, &Refinement),
        (block, image, scratch): &mut (Block, Vec<f32>, Scratch),
    ) -> Result<Option<Particle>> {
        self.reader.read(row..row + 1, block)?;
        let mut whole = block.images[..self.pixels].to_vec();
        let usable = block.defects.is_empty()
            && self
                .preprocessor
                .run(&mut whole, refinement.offset.map(|offset| -offset), None, image, scratch)
                .is_ok();
        Ok(usable.then(|| refinement.of(&block.particles[0])))
    }
}

/// A particle of a sample.
pub(crate) struct SmallImage {
    pub row: usize,
    pub particle: Particle,
    /// `[y][x]`.
    pub pixels: Vec<f32>,
}

/// A sample of `rows`, of `particles` at most, downsampled, with what `refinement_of` a row returns; `None` leaves it
/// out. Images that cannot be used are left out too.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn small_images(
    store: &Store,
    rows: std::ops::Range<usize>,
    particles: usize,
    box_size: usize,
    refinement_of: impl Fn(usize) -> Option<Refinement> + Sync,
) -> Result<Vec<SmallImage>> {
    let shrinker = Shrinker::new(store, box_size)?;
    let sample = spread(rows, particles);
    let read = sample.par_iter().map_init(
        || shrinker.scratch(),
        |scratch, &row| {
            let Some(refinement) = refinement_of(row) else { return Ok(None) };
            let particle = shrinker.read((row, &refinement), scratch)?;
            Ok(particle.map(|particle| SmallImage { row, particle, pixels: scratch.1.clone() }))
        },
    );
    read.filter_map(Result::transpose).collect()
}

/// What an image is taken for in a sum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Assumption {
    /// Pose, CTF, and where the image shows the specimen's origin, in pixels of the small image.
    pub view: View,
    /// Whether the image was multiplied by the sign of its CTF, which is taken back.
    pub flipped: bool,
}

/// The sums of `images`, of `box_size` pixels of `pixel_size` angstrom, each taken for what `assume` returns for it.
pub(crate) fn sums_of(
    images: &[SmallImage],
    (box_size, pixel_size): (usize, f64),
    symmetry: Symmetry,
    assume: impl Fn(&SmallImage) -> Assumption + Sync,
) -> FourierSums {
    let extractor = SliceExtractor::new(box_size, pixel_size);
    let flipper = Flipper { fft: Fft2::new(box_size), box_size, pixel_size };
    let mut sums = Accumulator::new(box_size, symmetry);
    for images in images.chunks(BLOCK) {
        let slices: Vec<Slice> = images
            .par_iter()
            .map_init(
                || (extractor.scratch(), flipper.fft.scratch()),
                |(cutting, flipping), image| {
                    let Assumption { view, flipped } = assume(image);
                    let mut slice = Slice::default();
                    match flipped {
                        true => {
                            let pixels = flipper.flip(&image.pixels, &view, flipping);
                            extractor.extract(&pixels, &view, &mut slice, cutting);
                        }
                        false => extractor.extract(&image.pixels, &view, &mut slice, cutting),
                    }
                    slice
                },
            )
            .filter(|slice| slice.finite)
            .collect();
        sums.add(&extractor, &slices);
    }
    sums.finish()
}

/// Multiplies images by the sign of their CTF.
struct Flipper {
    fft: Fft2<f32>,
    box_size: usize,
    pixel_size: f64,
}

impl Flipper {
    fn flip(&self, pixels: &[f32], view: &View, scratch: &mut Fft2Scratch<f32>) -> Vec<f32> {
        let (n, length) = (self.box_size, self.fft.spectrum_len());
        let mut spectrum = vec![rustfft::num_complex::Complex::default(); length];
        let mut ctf = vec![0.0; length];
        self.fft.forward(pixels, n, &mut spectrum, scratch);
        view.ctf.half_plane(n, self.pixel_size, &mut ctf);
        for (value, _) in spectrum.iter_mut().zip(&ctf).filter(|(_, h)| **h < 0.0) {
            *value = -*value;
        }
        let mut flipped = vec![0.0; n * n];
        self.fft.inverse(&mut spectrum, &mut flipped, n, scratch);
        flipped
    }
}
