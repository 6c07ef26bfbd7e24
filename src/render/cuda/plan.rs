//! What the device allocates, by name and bytes, known before anything is allocated.

use super::records::{OutcomeRecord, RingRecord, SPLAT_BYTES, pass_bytes};
use crate::gmm::Shape;

/// Edge of a tile in pixels.
pub const TILE: usize = 16;
/// Gaussians' planes are padded to a multiple of this.
pub const PADDING: usize = 256;
/// Frequencies that one block sums the loss of.
const RESIDUAL_FREQUENCIES: usize = 1024;
/// Values of the gradient that one block takes the norm of, where that does not make too many blocks.
const NORM_VALUES: usize = 2048;
/// Blocks that share the norm of the gradient at most.
const NORM_BLOCKS: usize = 1024;
/// Planes of the activated mixture, and of a step's sums.
pub const ACTIVATED: usize = 10;
/// Outcomes of steps that the device holds until they are fetched.
pub const OUTCOMES: usize = 256;
/// Passes that the host may be ahead of the device.
pub const PASSES: usize = 32;
/// Batches of images that are on their way to the device, or being used there.
pub const STAGES: usize = 3;
/// Images that are rendered side by side at most.
const IMAGES_AT_ONCE: usize = 64;

/// The numbers that decide how much is allocated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Gaussians.
    pub count: usize,
    /// Their parameters.
    pub shape: Shape,
    /// Box size in pixels.
    pub box_size: usize,
    /// Points along an edge of the grid that splats are sampled on, no fewer.
    pub grid: usize,
    /// Images rendered side by side.
    pub images: usize,
    /// Blocks that share a tile when splats are drawn.
    pub slices: usize,
    /// Lanes that gather the moments of one splat: more where splats are few, and would not fill the device.
    pub moment_lanes: usize,
}

impl Plan {
    /// For `batch` images a step on this device, which has `processors` multiprocessors and `free` bytes: as many images
    /// side by side as a quarter of that memory holds, at least one.
    pub fn new(
        count: usize,
        shape: Shape,
        [box_size, grid]: [usize; 2],
        batch: usize,
        processors: usize,
        free: usize,
    ) -> Self {
        let mut plan = Self {
            count,
            shape,
            box_size,
            grid,
            images: batch.clamp(1, IMAGES_AT_ONCE),
            slices: 1,
            moment_lanes: 4,
        };
        // Enough blocks to fill the device where all Gaussians are in an eighth of the tiles, as they are at the start. From
        // the images that are wanted, not those that fit: how sums are cut must not depend on what memory is free.
        plan.slices = (8 * processors).div_ceil((plan.tiles() / 8).max(1) * plan.images).clamp(1, 8);
        // The kernel's registers leave room for 1024 threads a multiprocessor.
        plan.moment_lanes = if plan.padded() * plan.images * 4 < processors * 512 { 16 } else { 4 };
        let fixed = Self { images: 0, ..plan }.bytes();
        let each = Self { images: 1, ..plan }.bytes() - fixed;
        plan.images = plan.images.min((free / 4).saturating_sub(fixed) / each).max(1);
        plan
    }

    /// Gaussians with the padding.
    pub fn padded(&self) -> usize {
        self.count.next_multiple_of(PADDING)
    }

    /// Tiles of a projection.
    pub fn tiles(&self) -> usize {
        self.grid.div_ceil(TILE).pow(2)
    }

    /// Pixels of an image.
    pub fn pixels(&self) -> usize {
        self.box_size.pow(2)
    }

    /// Frequencies of its half spectrum.
    pub fn frequencies(&self) -> usize {
        self.box_size * (self.box_size / 2 + 1)
    }

    /// Points of a projection.
    pub fn points(&self) -> usize {
        self.grid.pow(2)
    }

    /// Frequencies of its half spectrum.
    pub fn grid_frequencies(&self) -> usize {
        self.grid * (self.grid / 2 + 1)
    }

    /// Partial sums of the loss of an image.
    pub fn partials(&self) -> usize {
        self.grid_frequencies().div_ceil(RESIDUAL_FREQUENCIES)
    }

    /// Blocks that share the norm of the gradient, and their partial sums.
    pub fn norm_blocks(&self) -> usize {
        self.values().div_ceil(NORM_VALUES).min(NORM_BLOCKS)
    }

    /// All raw parameters.
    pub fn values(&self) -> usize {
        self.shape.planes() * self.count
    }

    /// Every buffer: what for, and its bytes. cuFFT's work area is not among them: cuFFT says how large it is.
    pub fn buffers(&self) -> [(&'static str, usize); 16] {
        let (padded, images) = (self.padded(), self.images);
        let slices = if self.slices > 1 { self.tiles() * self.slices * TILE * TILE * 4 * images } else { 4 };
        [
            ("parameters", self.values() * 4),
            ("first moments", self.values() * 4),
            ("second moments", self.values() * 4),
            ("gradient and loss", (self.values() + 1) * 4),
            ("activated Gaussians", ACTIVATED * padded * 8),
            ("sums over passes", ACTIVATED * padded * 8),
            ("splats", padded * SPLAT_BYTES * images),
            ("whitening", 3 * padded * 8 * images),
            ("moments of splats", 6 * padded * 4 * images),
            ("tiles' lists", self.tiles() * padded / 8 * images),
            ("tiles' slices", slices),
            ("projections", self.points() * 4 * images),
            ("spectra", self.grid_frequencies() * 8 * images),
            ("tables of frequencies", 2 * self.frequencies() * 4),
            ("partial losses", self.partials() * 8 * images),
            (
                "records",
                self.ring_bytes()
                    + self.tiles() * 4 * images
                    + OUTCOMES * size_of::<OutcomeRecord>()
                    + self.norm_blocks() * 8
                    + 24,
            ),
        ]
    }

    /// Bytes of the passes that are on their way.
    pub fn ring_bytes(&self) -> usize {
        size_of::<RingRecord>() + PASSES * pass_bytes(self.images)
    }

    /// Bytes of all [`Plan::buffers`].
    pub fn bytes(&self) -> usize {
        self.buffers().iter().map(|(_, bytes)| bytes).sum()
    }

    /// About what cuFFT's work area takes: it says how much on the device only, and takes up to the spectra's size, or twice
    /// that for boxes with large prime factors.
    pub fn work_estimate(&self) -> usize {
        2 * self.grid_frequencies() * 8 * self.images
    }

    /// Values from one batch of images on its way to the next: rounded up, so that each starts where transforms like it.
    pub fn stage_pitch(&self) -> usize {
        (self.images * self.pixels()).next_multiple_of(64)
    }

    /// Bytes of the images that are on their way, where particles are not kept on the device.
    pub fn staged_bytes(&self) -> usize {
        STAGES * self.stage_pitch() * 4
    }

    /// Bytes of `particles` kept images.
    pub fn kept_bytes(&self, particles: usize, half_precision: bool) -> usize {
        particles * self.pixels() * if half_precision { 2 } else { 4 }
    }
}

/// "17.3 MiB".
pub fn mib(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paper_fits_into_100_mib() {
        let plan = Plan::new(30_000, Shape::Anisotropic, [256, 320], 1, 132, 80 << 30);
        assert_eq!((plan.images, plan.slices, plan.moment_lanes), (1, 8, 4));
        let all = plan.bytes() + plan.staged_bytes() + plan.work_estimate();
        assert!(all < 100 << 20, "{all}");
    }

    #[test]
    fn a_small_device_takes_fewer_images_at_once() {
        let plan = |free: usize| Plan::new(30_000, Shape::Anisotropic, [256, 320], 500, 132, free).images;
        assert_eq!(plan(80 << 30), IMAGES_AT_ONCE);
        assert!((1..64).contains(&plan(200 << 20)));
        assert_eq!(plan(0), 1);
    }
}
