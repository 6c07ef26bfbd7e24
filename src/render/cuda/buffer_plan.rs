//! Sizes of all device buffers of a mixture, known before any is allocated.

use super::interface::{OutcomeRecord, RingRecord, SPLAT_BYTES, pass_bytes};
use crate::gmm::Shape;

/// Edge of a tile in points of the grid.
pub(super) const TILE: usize = 16;
/// Gaussians per plane are padded to a multiple of this.
pub(super) const PADDING: usize = 256;
/// Frequencies per block of `residual`.
const RESIDUAL_FREQUENCIES: usize = 1024;
/// Values of the gradient per block of `outcome`, unless that makes more than [`NORM_BLOCKS`] blocks.
const NORM_VALUES: usize = 2048;
/// Largest number of blocks of `outcome`.
const NORM_BLOCKS: usize = 1024;
/// Planes of the activated mixture, and of the sums of `chain`.
pub(super) const ACTIVATED: usize = 10;
/// Outcomes that the device keeps until the host copies them.
pub(super) const OUTCOMES: usize = 256;
/// Passes that the host may be ahead of the device.
pub(super) const PASSES: usize = 32;
/// Staging buffers: passes whose images are on their way to the device, or in use there.
pub(super) const STAGING_BUFFERS: usize = 3;
/// Bytes of an operator of the point group.
pub(super) const OPERATOR_BYTES: usize = 9 * 8;
/// Largest number of images per pass.
const IMAGES_AT_ONCE: usize = 64;

/// The numbers that determine the sizes of all buffers, and the grids of the kernels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BufferPlan {
    /// Number of Gaussians.
    pub count: usize,
    /// Kind of Gaussians.
    pub shape: Shape,
    /// Views whose sum is an image: operators of the point group.
    pub views: usize,
    /// Box size in pixels.
    pub box_size: usize,
    /// Points along an edge of the grid on which splats are sampled, at least the box size.
    pub grid: usize,
    /// Images per pass.
    pub images: usize,
    /// Blocks of `draw` that share a tile.
    pub slices: usize,
    /// Lanes of `moments` per splat: more where splats are too few to fill the device.
    pub moment_lanes: usize,
    /// Threads of `chain` that share a Gaussian: more where each has several views per image.
    pub chain_parts: usize,
}

impl BufferPlan {
    /// For `count` Gaussians, of which an image shows `views` views, and up to `batch` images per step, on a device with `multiprocessors` multiprocessors and `free` bytes of memory. A pass
    /// takes as many images as a quarter of that memory holds, at least one.
    pub fn new(
        [count, views]: [usize; 2],
        shape: Shape,
        [box_size, grid]: [usize; 2],
        batch: usize,
        multiprocessors: usize,
        free: usize,
    ) -> Self {
        let mut plan = Self {
            count,
            shape,
            views,
            box_size,
            grid,
            images: batch.clamp(1, IMAGES_AT_ONCE),
            slices: 1,
            moment_lanes: 4,
            // An asymmetric unit has few Gaussians, each with many views. A part reads at least 8 Gaussians side by side.
            chain_parts: 4 * views.next_power_of_two().min(8),
        };
        // Enough blocks to fill the device if all Gaussians are in an eighth of the tiles, as they are at the start. From the
        // batch, not from the images that fit: the order of sums must not depend on the free memory.
        plan.slices = (8 * multiprocessors).div_ceil((plan.tiles() / 8).max(1) * plan.images).clamp(1, 8);
        // The kernel's registers allow 1024 threads per multiprocessor.
        plan.moment_lanes = if plan.splats() * plan.images * 4 < multiprocessors * 512 { 16 } else { 4 };
        let fixed = Self { images: 0, ..plan }.bytes();
        let each = Self { images: 1, ..plan }.bytes() - fixed;
        plan.images = plan.images.min((free / 4).saturating_sub(fixed) / each).max(1);
        plan
    }

    /// Gaussians per plane, with the padding.
    pub fn padded(&self) -> usize {
        self.count.next_multiple_of(PADDING)
    }

    /// Splats of an image: those of each view padded to whole warps, and all of them to [`PADDING`].
    pub fn splats(&self) -> usize {
        (self.views * self.count.next_multiple_of(32)).next_multiple_of(PADDING)
    }

    /// Tiles of a projection.
    pub fn tiles(&self) -> usize {
        self.grid.div_ceil(TILE).pow(2)
    }

    /// Pixels of an image.
    pub fn pixels(&self) -> usize {
        self.box_size.pow(2)
    }

    /// Frequencies of the half spectrum of an image.
    pub fn frequencies(&self) -> usize {
        self.box_size * (self.box_size / 2 + 1)
    }

    /// Points of a projection on its grid.
    pub fn points(&self) -> usize {
        self.grid.pow(2)
    }

    /// Frequencies of the half spectrum of a projection.
    pub fn grid_frequencies(&self) -> usize {
        self.grid * (self.grid / 2 + 1)
    }

    /// Partial losses per image: blocks of `residual`.
    pub fn partials(&self) -> usize {
        self.grid_frequencies().div_ceil(RESIDUAL_FREQUENCIES)
    }

    /// Blocks of `outcome`.
    pub fn norm_blocks(&self) -> usize {
        self.values().div_ceil(NORM_VALUES).min(NORM_BLOCKS)
    }

    /// Number of raw parameters.
    pub fn values(&self) -> usize {
        self.shape.planes() * self.count
    }

    /// Name and bytes of every buffer but those of particles. cuFFT's work area is excluded: cuFFT decides its size.
    pub fn buffers(&self) -> [(&'static str, usize); 18] {
        let (padded, splats, images) = (self.padded(), self.splats(), self.images);
        let slices = if self.slices > 1 { self.tiles() * self.slices * TILE * TILE * 4 * images } else { 4 };
        [
            ("parameters", self.values() * 4),
            ("first moments", self.values() * 4),
            ("second moments", self.values() * 4),
            ("gradient and loss", (self.values() + 1) * 4),
            ("activated Gaussians", ACTIVATED * padded * 8),
            ("sums over passes", ACTIVATED * padded * 8),
            ("splats", splats * SPLAT_BYTES * images),
            ("whitening", 3 * splats * 8 * images),
            ("moments of splats", 6 * splats * 4 * images),
            ("tiles' lists", self.tiles() * splats / 8 * images),
            ("tiles' slices", slices),
            ("projections", self.points() * 4 * images),
            ("spectra", self.grid_frequencies() * 8 * images),
            ("tables of frequencies", 2 * self.frequencies() * 4),
            ("views", self.views * 6 * 8 * images),
            ("partial losses", self.partials() * 8 * images),
            ("comparisons", self.partials() * 2 * 8 * images),
            (
                "records",
                self.ring_bytes()
                    + self.tiles() * 4 * images
                    + OUTCOMES * size_of::<OutcomeRecord>()
                    + self.norm_blocks() * 8
                    + self.views * OPERATOR_BYTES
                    + self.noise_bytes(1)
                    + 24,
            ),
        ]
    }

    /// Values of the noise weights of a group: more than there are shells up to the corners of the spectrum.
    pub fn shells(&self) -> usize {
        self.box_size
    }

    /// Bytes of the noise weights of `groups` groups.
    pub fn noise_bytes(&self, groups: usize) -> usize {
        groups * self.shells() * 4
    }

    /// Bytes of the ring of passes.
    pub fn ring_bytes(&self) -> usize {
        size_of::<RingRecord>() + PASSES * pass_bytes(self.images)
    }

    /// Bytes of all [`BufferPlan::buffers`].
    pub fn bytes(&self) -> usize {
        self.buffers().iter().map(|(_, bytes)| bytes).sum()
    }

    /// Estimated bytes of cuFFT's work area, which cuFFT reports only on a device: at most the size of the spectra, or twice
    /// that for sizes with large prime factors.
    pub fn work_estimate(&self) -> usize {
        2 * self.grid_frequencies() * 8 * self.images
    }

    /// Values from one staging buffer to the next, rounded up to the alignment that cuFFT prefers.
    pub fn staging_pitch(&self) -> usize {
        (self.images * self.pixels()).next_multiple_of(64)
    }

    /// Bytes of the staging buffers, for particles that are not resident on the device.
    pub fn staged_bytes(&self) -> usize {
        STAGING_BUFFERS * self.staging_pitch() * 4
    }

    /// Bytes of `particles` resident targets.
    pub fn resident_bytes(&self, particles: usize, half_precision: bool) -> usize {
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
        let plan = BufferPlan::new([30_000, 1], Shape::Anisotropic, [256, 320], 1, 132, 80 << 30);
        assert_eq!((plan.images, plan.slices, plan.moment_lanes), (1, 8, 4));
        let all = plan.bytes() + plan.staged_bytes() + plan.work_estimate();
        assert!(all < 100 << 20, "{all}");
    }

    #[test]
    fn views_multiply_splats_and_nothing_else() {
        let plan = |counts| BufferPlan::new(counts, Shape::Anisotropic, [256, 320], 8, 132, 80 << 30);
        let (whole, unit) = (plan([24 * 1280, 1]), plan([1280, 24]));
        assert_eq!((whole.splats(), whole.slices), (unit.splats(), unit.slices));
        assert_eq!((whole.moment_lanes, whole.chain_parts, unit.chain_parts), (unit.moment_lanes, 4, 32));
        for ((name, whole), (_, unit)) in whole.buffers().into_iter().zip(unit.buffers()) {
            let ratio = match name {
                "parameters"
                | "first moments"
                | "second moments"
                | "activated Gaussians"
                | "sums over passes" => 24,
                "splats" | "whitening" | "moments of splats" | "tiles' lists" | "projections" | "spectra" => {
                    1
                }
                _ => continue,
            };
            assert_eq!(whole, ratio * unit, "{name}");
        }
    }

    #[test]
    fn a_small_device_takes_fewer_images_at_once() {
        let plan =
            |free: usize| BufferPlan::new([30_000, 1], Shape::Anisotropic, [256, 320], 500, 132, free).images;
        assert_eq!(plan(80 << 30), IMAGES_AT_ONCE);
        assert!((1..64).contains(&plan(200 << 20)));
        assert_eq!(plan(0), 1);
    }
}
