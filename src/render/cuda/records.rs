//! The records that host and kernels exchange: kernels/common.cuh has the same, field by field.

use bytemuck::{Pod, Zeroable};

use crate::imaging::ctf::Ctf;
use crate::imaging::pose::Rotation;

/// One image of a pass: `Image` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct ImageRecord {
    /// First two rows of W.
    pub view: [f64; 6],
    /// [`Ctf::coefficients`].
    pub ctf: [f64; 7],
    /// The sum of Y^2.
    pub energy: f64,
    /// Its place among the kept particles, or -1 - its first number among the staged ones.
    pub place: i64,
}

impl ImageRecord {
    /// An image with its view.
    pub fn new(rotation: &Rotation, ctf: &Ctf, energy: f64, place: i64) -> Self {
        let [p, q, _] = *rotation;
        Self { view: [p[0], p[1], p[2], q[0], q[1], q[2]], ctf: ctf.coefficients(), energy, place }
    }
}

/// A pass over some images, and the step that it may end: `Pass` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct PassRecord {
    /// Images that take part.
    pub images: u32,
    /// 1 where the pass is the first of its step.
    pub first: u32,
    /// 1 where it is the last.
    pub last: u32,
    /// Where the step's outcome goes.
    pub outcome: u32,
    /// Learning rate, with the bias corrections.
    pub rate: f32,
    /// Decay of the first moments.
    pub beta1: f32,
    /// Decay of the second moments.
    pub beta2: f32,
    /// 1 - beta1.
    pub fresh1: f32,
    /// 1 - beta2.
    pub fresh2: f32,
    /// Epsilon, with the bias correction.
    pub epsilon: f32,
    /// 1 over the images of the step, over all ranks.
    pub scale: f32,
    /// What the rate is multiplied by: of means, scales, quaternions, amplitudes.
    pub factors: [f32; 4],
    /// Nothing.
    pub reserved: u32,
}

/// What a step came to: `Outcome` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct OutcomeRecord {
    /// Euclidean norm of the sum of the gradients of all ranks' images.
    pub norm: f64,
    /// Sum of the images' losses, over all ranks.
    pub loss: f32,
    /// 1 where the optimiser has taken the step.
    pub applied: u32,
}

/// What stands before the passes on the device: `Ring` there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct RingRecord {
    /// The pass that comes next.
    pub next: u32,
    /// The pass under way.
    pub current: u32,
    /// Bytes from one pass to the next.
    pub pitch: u32,
    /// Nothing.
    pub reserved: u32,
}

/// Bytes of a `Splat`.
pub const SPLAT_BYTES: usize = 48;

/// Bytes of a pass of up to `images` images.
pub const fn pass_bytes(images: usize) -> usize {
    size_of::<PassRecord>() + images * size_of::<ImageRecord>()
}

/// Writes a pass and its images to the start of `to`.
///
/// # Panics
/// If `to` is too short.
pub fn write_pass(pass: &PassRecord, images: &[ImageRecord], to: &mut [u8]) {
    let start = size_of::<PassRecord>();
    to[..start].copy_from_slice(bytemuck::bytes_of(pass));
    for (to, image) in to[start..].chunks_exact_mut(size_of::<ImageRecord>()).zip(images) {
        to.copy_from_slice(bytemuck::bytes_of(image));
    }
    assert!(to.len() >= pass_bytes(images.len()));
}

// The layouts that kernels/common.cuh relies on.
const _: () = assert!(size_of::<ImageRecord>() == 120 && size_of::<PassRecord>() == 64);
const _: () = assert!(size_of::<OutcomeRecord>() == 16);
