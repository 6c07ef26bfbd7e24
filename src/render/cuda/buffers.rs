//! The device memory of one mixture, by name.

use super::card::{Buffer, Card};
use super::plan::{OUTCOMES, Plan};
use super::records::OutcomeRecord;
use crate::error::Result;

/// All device memory that steps use.
pub struct Buffers {
    /// `[plane][Gaussian]`.
    pub parameters: Buffer,
    /// Adam's first moments.
    pub first: Buffer,
    /// Adam's second moments.
    pub second: Buffer,
    /// `[plane][Gaussian]`, then the loss.
    pub gradient: Buffer,
    /// Targets, kept between epochs.
    pub kept: Option<Buffer>,
    /// Images on their way: `[stage][image][y][x]`.
    pub staged: Option<Buffer>,
    /// The passes that the kernels read, one after the other.
    pub ring: Buffer,
    /// What the last steps came to.
    pub outcomes: Buffer,
    /// Projections of the pass on their grid, then the gradient of its points, `[image][y][x]`.
    pub projections: Buffer,
    /// What projections start from.
    pub activated: Buffer,
    /// A step's sums over its passes.
    pub sums: Buffer,
    /// Splats of the pass, `[image][Gaussian]`.
    pub splats: Buffer,
    /// Their whitening, `[image][plane][Gaussian]`.
    pub whitening: Buffer,
    /// Their moments, `[image][moment][Gaussian]`.
    pub moments: Buffer,
    /// Which splats touch a tile, `[image][tile][word]`.
    pub bits: Buffer,
    /// Tiles, slice by slice, where several blocks share one.
    pub slices: Buffer,
    /// Half spectra, `[image][ky][kx]`.
    pub spectra: Buffer,
    /// Of each frequency, what it is multiplied by beside the CTF, and its weight: `[2][ky][kx]`.
    pub tables: Buffer,
    /// Parts of the losses.
    pub partial: Buffer,
    /// How many slices of a tile are drawn.
    pub tickets: Buffer,
    /// The loss of a step's passes so far.
    pub loss: Buffer,
    /// Parts of the gradient's norm.
    pub norms: Buffer,
    /// How many of them are there.
    pub norm_ticket: Buffer,
    /// 1 from a step that was not finite on.
    pub broken: Buffer,
    /// A sum over the parameters' bits.
    pub checksum: Buffer,
}

impl Buffers {
    /// Allocates everything but particles.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn new(card: &Card, plan: &Plan) -> Result<Self> {
        let mut sizes = plan.buffers().into_iter();
        let mut next = || {
            let (what, bytes) = sizes.next().expect("the plan has all buffers");
            card.allocate(what, bytes)
        };
        // In the order of the plan; records are several.
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
            partial: next()?,
            kept: None,
            staged: None,
            ring: card.allocate("records", plan.ring_bytes())?,
            outcomes: card.allocate("records", OUTCOMES * size_of::<OutcomeRecord>())?,
            tickets: card.allocate("records", plan.tiles() * plan.images * 4)?,
            loss: card.allocate("records", 8)?,
            norms: card.allocate("records", plan.norm_blocks() * 8)?,
            norm_ticket: card.allocate("records", 4)?,
            broken: card.allocate("records", 4)?,
            checksum: card.allocate("records", 8)?,
        })
    }
}
