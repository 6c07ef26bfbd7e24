//! The device memory of one mixture, by name.

use super::buffer_plan::{BufferPlan, OPERATOR_BYTES, OUTCOMES};
use super::gpu::{Buffer, Gpu};
use super::interface::OutcomeRecord;
use crate::error::Result;

/// All device memory that steps use; kernels/interface.cuh gives the shapes.
pub(super) struct Buffers {
    pub parameters: Buffer,
    /// Adam's first moments.
    pub first: Buffer,
    /// Adam's second moments.
    pub second: Buffer,
    /// Gradient of the parameters, then the loss.
    pub gradient: Buffer,
    /// Targets of the resident particles.
    pub resident: Option<Buffer>,
    /// Images or targets on their way, `[staging buffer][image][y][x]`.
    pub staged: Option<Buffer>,
    /// Header and passes.
    pub ring: Buffer,
    /// Outcomes of the last steps.
    pub outcomes: Buffer,
    /// Projections of a pass, then the gradient of their points.
    pub projections: Buffer,
    pub activated: Buffer,
    /// Sums of `chain` over the passes of a step.
    pub sums: Buffer,
    pub splats: Buffer,
    pub whitening: Buffer,
    pub moments: Buffer,
    pub bits: Buffer,
    pub slices: Buffer,
    pub spectra: Buffer,
    /// `[transfer, weight][ky][kx]`.
    pub tables: Buffer,
    /// First two rows of W times each operator, for the images of a pass.
    pub views: Buffer,
    /// Operators of the point group.
    pub operators: Buffer,
    /// Noise weights, `[group][shell]`.
    pub noise: Buffer,
    pub partial_losses: Buffer,
    /// Partial sums of `compare`.
    pub comparisons: Buffer,
    /// Slices drawn per tile.
    pub tickets: Buffer,
    /// Loss over the passes of a step.
    pub loss: Buffer,
    pub partial_norms: Buffer,
    /// Blocks of `outcome` that have ended.
    pub norm_ticket: Buffer,
    /// 1 from the first step on that is not finite.
    pub stopped: Buffer,
    pub checksum: Buffer,
}

impl Buffers {
    /// Allocates all buffers but those of particles.
    ///
    /// # Errors
    /// When memory does not suffice.
    pub fn new(gpu: &Gpu, plan: &BufferPlan) -> Result<Self> {
        let mut sizes = plan.buffers().into_iter();
        let mut next = || {
            let (what, bytes) = sizes.next().expect("the plan lists all buffers");
            gpu.allocate(what, bytes)
        };
        // In the order of the plan, whose last entry is the sum of the small buffers.
        Ok(Self {
            parameters: next()?,
            first: next()?,
            second: next()?,
            gradient: next()?,
            activated: next()?,
            sums: next()?,
            splats: next()?,
            whitening: next()?,
            moments: next()?,
            bits: next()?,
            slices: next()?,
            projections: next()?,
            spectra: next()?,
            tables: next()?,
            views: next()?,
            partial_losses: next()?,
            comparisons: next()?,
            resident: None,
            staged: None,
            ring: gpu.allocate("records", plan.ring_bytes())?,
            outcomes: gpu.allocate("records", OUTCOMES * size_of::<OutcomeRecord>())?,
            operators: gpu.allocate("records", plan.views * OPERATOR_BYTES)?,
            noise: gpu.allocate("records", plan.noise_bytes(1))?,
            tickets: gpu.allocate("records", plan.tiles() * plan.images * 4)?,
            loss: gpu.allocate("records", 8)?,
            partial_norms: gpu.allocate("records", plan.norm_blocks() * 8)?,
            norm_ticket: gpu.allocate("records", 4)?,
            stopped: gpu.allocate("records", 4)?,
            checksum: gpu.allocate("records", 8)?,
        })
    }
}
