//! How fast this node is at the work beside the training, which is the CPU's also where a GPU trains: a piece of it is timed.

use std::time::{Duration, Instant};

use crate::error::Result;
use crate::imaging::Symmetry;
use crate::particles::refinement::Refinement;
use crate::particles::selection::SubsetRows;
use crate::particles::store::Store;
use crate::voxels::small_images::{Assumption, SmallImage, small_images, sums_of};

/// Images of the piece, at most, and their largest box in pixels.
const IMAGES: usize = 300;
const LARGEST_BOX: usize = 64;
/// The time of a piece is the mean of those that fit into this time.
const TIME: Duration = Duration::from_millis(250);
/// Seconds of a piece per pixel of an image on two threads of the machine that all constants of an estimate
/// were measured on (benches/results/estimate.md).
const PER_PIXEL: f64 = 3.6e-8;

/// The time of work on this node over that on the machine that the constants were measured on. Insertions of images of `store` into the
/// Fourier sums of a voxel map are timed, with the threads of this rank; it takes some tenths of a second.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn slowness(store: &Store, subsets: &[SubsetRows]) -> Result<f64> {
    let header = store.header();
    let box_size = header.box_size.min(LARGEST_BOX);
    let pixel_size = header.pixel_size * header.box_size as f64 / box_size as f64;
    let images =
        small_images(store, subsets[0].rows.clone(), IMAGES, box_size, |_| Some(Refinement::default()))?;
    let reader = store.reader();
    let insert = || {
        let assume = |image: &SmallImage| Assumption { view: reader.view(&image.particle), flipped: false };
        std::hint::black_box(sums_of(&images, (box_size, pixel_size), Symmetry::C1, assume));
    };
    // The first one reserves memory.
    insert();
    let (started, mut pieces) = (Instant::now(), 0);
    while pieces == 0 || started.elapsed() < TIME {
        insert();
        pieces += 1;
    }
    let seconds = started.elapsed().as_secs_f64() / f64::from(pieces);
    let pixels = (images.len() * box_size * box_size) as f64;
    let expected = PER_PIXEL * pixels;
    tracing::debug!("a piece of {} images took {seconds:.4} s, expected {expected:.4} s", images.len());
    Ok(seconds / expected)
}
