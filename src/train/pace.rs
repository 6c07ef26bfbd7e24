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
/// The time of a piece is the median of several windows of time, in each of them of several pieces.
const WINDOWS: usize = 5;
const WINDOW: Duration = Duration::from_millis(100);
/// Seconds of a piece per pixel of an image, and per voxel of the box, on two threads of the machine that all constants of an estimate
/// were measured on (benches/results/estimate.md).
const PER_PIXEL: f64 = 1.05e-8;
const PER_VOXEL: f64 = 7.7e-8;

/// The time of work on this node over that on the machine that the constants were measured on. Insertions of images of `store` into the
/// Fourier sums of a voxel map are timed, with the threads of this rank; it takes about a second.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn slowness(store: &Store, subsets: &[SubsetRows]) -> Result<f64> {
    let header = store.header();
    let box_size = header.box_size.min(LARGEST_BOX);
    let pixel_size = header.pixel_size * header.box_size as f64 / box_size as f64;
    let reader = store.reader();
    // How fast memory is depends on its pages: each window has others.
    let mut kept = Vec::new();
    let mut window = || -> Result<f64> {
        let images =
            small_images(store, subsets[0].rows.clone(), IMAGES, box_size, |_| Some(Refinement::default()))?;
        let insert = || {
            let assume =
                |image: &SmallImage| Assumption { view: reader.view(&image.particle), flipped: false };
            sums_of(&images, (box_size, pixel_size), Symmetry::C1, assume)
        };
        // The first one reserves memory.
        let first = insert();
        let (started, mut pieces) = (Instant::now(), Vec::new());
        while pieces.is_empty() || started.elapsed() < WINDOW {
            let begun = Instant::now();
            std::hint::black_box(insert());
            pieces.push(begun.elapsed().as_secs_f64());
        }
        pieces.sort_by(f64::total_cmp);
        let median = pieces[pieces.len() / 2];
        let [pixels, voxels] = [2, 3].map(|power| (box_size as f64).powi(power));
        let expected = PER_PIXEL * images.len() as f64 * pixels + PER_VOXEL * voxels;
        kept.push((images, first));
        Ok(median / expected)
    };
    let mut medians = (0..WINDOWS).map(|_| window()).collect::<Result<Vec<f64>>>()?;
    tracing::debug!("time of a piece over that on the machine of the constants: {medians:.2?}");
    medians.sort_by(f64::total_cmp);
    Ok(medians[medians.len() / 2])
}
