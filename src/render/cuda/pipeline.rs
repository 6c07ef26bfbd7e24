//! The stages of a step in order: which kernel or transform runs over which grid, on which buffers.

use super::buffer_plan::{BufferPlan, PADDING};
use super::buffers::Buffers;
use super::compile::{Constants, DRAW_WARPS};
use super::gpu::{Buffer, Gpu};
use super::interface::{
    ActivateArguments, AdamArguments, Address, ChainArguments, ChecksumArguments, DrawArguments,
    MomentsArguments, OutcomeArguments, PrepareArguments, ProjectArguments, ResidualArguments,
    StoreHalfArguments,
};
use super::kernels::Kernels;
use super::transform::Transform;
use crate::error::Result;
use crate::imaging::fourier::squared_frequency;
use crate::render::Geometry;

/// Threads of a block of every kernel but `draw`.
pub(super) const THREADS: usize = 256;

/// A stage of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Gaussians to splats and bit sets of tiles.
    Project,
    /// Splats to pixels.
    Draw,
    /// Projections to spectra.
    Forward,
    /// CTF, residual and loss.
    Residual,
    /// Comparison of the projections with the images, without a gradient.
    Compare,
    /// Spectra to the gradient of the projections.
    Inverse,
    /// Gradient of the projections to moments of the splats.
    Moments,
    /// Moments to the gradient of the parameters.
    Chain,
    /// Loss and gradient norm of the step.
    Outcome,
    /// The optimiser.
    Adam,
}

impl Stage {
    /// The stages of a pass over images.
    pub const PASS: [Self; 7] =
        [Self::Project, Self::Draw, Self::Forward, Self::Residual, Self::Inverse, Self::Moments, Self::Chain];

    /// The stages of a comparison.
    pub const COMPARISON: [Self; 4] = [Self::Project, Self::Draw, Self::Forward, Self::Compare];

    /// The stages that end a step, after the sum over the ranks.
    pub const UPDATE: [Self; 2] = [Self::Outcome, Self::Adam];

    /// Name for the log and benches.
    pub fn name(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::Draw => "draw",
            Self::Forward => "forward FFT",
            Self::Residual => "CTF and residual",
            Self::Compare => "comparison",
            Self::Inverse => "inverse FFT",
            Self::Moments => "moments",
            Self::Chain => "chain",
            Self::Outcome => "outcome",
            Self::Adam => "Adam",
        }
    }
}

/// Kernels, transforms and buffers of one mixture.
pub(super) struct Pipeline {
    /// Sizes of the parts of the buffers that are in use.
    pub plan: BufferPlan,
    /// Sizes of the buffers: those of `plan`, for the largest number of Gaussians.
    largest: BufferPlan,
    pub buffers: Buffers,
    transform: Transform,
    pub kernels: Kernels,
    pub geometry: Geometry,
    /// Resident particles are stored in half precision.
    pub kept_half: bool,
}

/// `[transfer, weight][ky][kx]` of the half spectrum.
fn frequency_tables(geometry: &Geometry) -> Vec<f32> {
    let &Geometry { box_size, weights, .. } = geometry;
    let columns = box_size / 2 + 1;
    let square =
        |at: usize| squared_frequency(at / columns, box_size) + squared_frequency(at % columns, box_size);
    let all = || (0..box_size * columns).map(square);
    all().map(|k2| geometry.transfer(k2) as f32).chain(all().map(|k2| weights.at(k2) as f32)).collect()
}

impl Pipeline {
    /// Compiles the kernels and allocates all buffers but those of particles.
    ///
    /// # Errors
    /// When NVRTC or the driver refuses, or memory does not suffice.
    pub fn new(gpu: &Gpu, plan: BufferPlan, geometry: &Geometry, kept_half: bool) -> Result<Self> {
        let constants = Constants {
            box_size: geometry.box_size,
            grid: plan.grid,
            cutoff: geometry.cutoff,
            sampling: geometry.sampling,
            planes: plan.shape.planes(),
            views: plan.views,
            draw_slices: plan.slices,
            moment_lanes: plan.moment_lanes,
            chain_parts: plan.chain_parts,
            kept_half,
        };
        let buffers = Buffers::new(gpu, &plan)?;
        gpu.upload(&buffers.tables, &frequency_tables(geometry))?;
        gpu.upload(&buffers.operators, geometry.symmetry.operators().as_flattened().as_flattened())?;
        gpu.upload(&buffers.noise, &vec![1.0f32; plan.shells()])?;
        Ok(Self {
            kernels: Kernels::load(gpu, &constants)?,
            transform: Transform::new(gpu, geometry.box_size, plan.grid, plan.images)?,
            buffers,
            geometry: *geometry,
            kept_half,
            plan,
            largest: plan,
        })
    }

    /// Changes the number of Gaussians. Addresses and everything that does not depend on it stay.
    ///
    /// # Panics
    /// If the buffers are for fewer Gaussians.
    pub fn resize(&mut self, count: usize) {
        assert!(count <= self.largest.count, "the device was opened for {} Gaussians", self.largest.count);
        self.plan.count = count;
    }

    /// Bytes of all device memory in use.
    pub fn bytes(&self) -> usize {
        let particles = [&self.buffers.resident, &self.buffers.staged];
        let particles: usize = particles.into_iter().flatten().map(Buffer::bytes).sum();
        // The plan counts the noise weights of one group.
        let noise = self.buffers.noise.bytes() - self.plan.noise_bytes(1);
        self.largest.bytes() + self.work_bytes() + particles + noise
    }

    /// Bytes of cuFFT's work area.
    pub fn work_bytes(&self) -> usize {
        self.transform.work_bytes()
    }

    fn count(&self) -> i32 {
        // The command line takes at most 50 million.
        self.plan.count as i32
    }

    fn padded(&self) -> i32 {
        self.plan.padded() as i32
    }

    fn splats(&self) -> i32 {
        // Splats of more than i32 counts would not fit into the memory of any device.
        self.plan.splats() as i32
    }

    /// 1 / (box x pixel size), in 1/A.
    pub fn frequency_step(&self) -> f64 {
        1.0 / (self.geometry.box_size as f64 * self.geometry.pixel_size)
    }

    /// Factors of the sampling on the CTF, `[ky][kx]`.
    fn transfer_table(&self) -> Address {
        self.buffers.tables.address()
    }

    /// Weights of the frequencies, `[ky][kx]`.
    fn weight_table(&self) -> Address {
        self.buffers.tables.address() + (self.plan.frequencies() * size_of::<f32>()) as u64
    }

    /// Replaces the noise weights by those of `groups`, one value or more each. Nothing that uses the old ones may be under way.
    ///
    /// # Errors
    /// When memory does not suffice, or the driver refuses.
    ///
    /// # Panics
    /// If a group has no value.
    pub fn set_noise_weights(&mut self, gpu: &Gpu, groups: &[Vec<f32>]) -> Result<()> {
        let shells = self.plan.shells();
        let of_group = |group: &Vec<f32>| {
            let last = *group.last().expect("a group of noise weights has values");
            let group = group.clone();
            (0..shells).map(move |shell| group.get(shell).copied().unwrap_or(last))
        };
        let table: Vec<f32> = groups.iter().flat_map(of_group).collect();
        self.buffers.noise = gpu.allocate("noise weights", self.plan.noise_bytes(groups.len()))?;
        gpu.upload(&self.buffers.noise, &table)
    }

    /// Number of groups that have noise weights.
    pub fn noise_groups(&self) -> usize {
        self.buffers.noise.bytes() / self.plan.noise_bytes(1)
    }

    /// Enqueues a stage.
    ///
    /// # Errors
    /// When the driver or cuFFT refuses.
    pub fn enqueue(&self, gpu: &Gpu, stage: Stage) -> Result<()> {
        let (projections, spectra) = (self.buffers.projections.address(), self.buffers.spectra.address());
        match stage {
            Stage::Project => self.enqueue_project(gpu),
            Stage::Draw => self.enqueue_draw(gpu),
            // SAFETY: both buffers are for as many images as the transform.
            Stage::Forward => unsafe { self.transform.forward(gpu, projections, spectra) },
            // SAFETY: the arguments are those of the plan, which the grid follows.
            Stage::Residual => unsafe {
                self.kernels.residual(gpu, self.residual_grid(), THREADS, &self.residual_arguments())
            },
            // SAFETY: as above.
            Stage::Compare => unsafe {
                self.kernels.compare(gpu, self.residual_grid(), THREADS, &self.residual_arguments())
            },
            // SAFETY: as above. The projections are not used any more.
            Stage::Inverse => unsafe { self.transform.inverse(gpu, spectra, projections) },
            Stage::Moments => self.enqueue_moments(gpu),
            Stage::Chain => self.enqueue_chain(gpu),
            Stage::Outcome => self.enqueue_outcome(gpu),
            Stage::Adam => self.enqueue_adam(gpu),
        }
    }

    fn enqueue_project(&self, gpu: &Gpu) -> Result<()> {
        let (b, plan) = (&self.buffers, &self.plan);
        let arguments = ProjectArguments {
            ring: b.ring.address(),
            activated: b.activated.address(),
            operators: b.operators.address(),
            views: b.views.address(),
            splats: b.splats.address(),
            whitening: b.whitening.address(),
            bits: b.bits.address(),
            count: self.count(),
            padded: self.padded(),
        };
        // SAFETY: the buffers have the plan's sizes, which grid and constants follow.
        unsafe { self.kernels.project(gpu, (plan.splats() / PADDING, plan.images), THREADS, &arguments) }
    }

    fn enqueue_draw(&self, gpu: &Gpu) -> Result<()> {
        let (b, plan) = (&self.buffers, &self.plan);
        let arguments = DrawArguments {
            ring: b.ring.address(),
            splats: b.splats.address(),
            bits: b.bits.address(),
            projections: b.projections.address(),
            slices: b.slices.address(),
            tickets: b.tickets.address(),
            splats_per_image: self.splats(),
            reserved: 0,
        };
        let grid = (plan.tiles() * plan.slices, plan.images);
        // SAFETY: the buffers have the plan's sizes, which grid and constants follow.
        unsafe { self.kernels.draw(gpu, grid, DRAW_WARPS * 32, &arguments) }
    }

    fn residual_grid(&self) -> (usize, usize) {
        (self.plan.partials(), self.plan.images)
    }

    /// Addresses of resident and staged targets, 0 where they were not allocated: then no pass has any.
    pub fn targets(&self) -> (Address, Address) {
        let or_null = |buffer: &Option<Buffer>| buffer.as_ref().map_or(0, Buffer::address);
        (or_null(&self.buffers.resident), or_null(&self.buffers.staged))
    }

    /// Arguments of `residual` and `compare`.
    fn residual_arguments(&self) -> ResidualArguments {
        let b = &self.buffers;
        let (resident, staged) = self.targets();
        ResidualArguments {
            ring: b.ring.address(),
            spectra: b.spectra.address(),
            transfer: self.transfer_table(),
            weights: self.weight_table(),
            noise: b.noise.address(),
            resident,
            staged,
            partial_losses: b.partial_losses.address(),
            comparisons: b.comparisons.address(),
            frequency_step: self.frequency_step(),
        }
    }

    fn enqueue_moments(&self, gpu: &Gpu) -> Result<()> {
        let (b, plan) = (&self.buffers, &self.plan);
        let arguments = MomentsArguments {
            ring: b.ring.address(),
            splats: b.splats.address(),
            gradient: b.projections.address(),
            moments: b.moments.address(),
            splats_per_image: self.splats(),
            reserved: 0,
        };
        let grid = (plan.splats() * plan.moment_lanes / THREADS, plan.images);
        // SAFETY: the buffers have the plan's sizes, which grid and constants follow.
        unsafe { self.kernels.moments(gpu, grid, THREADS, &arguments) }
    }

    fn enqueue_chain(&self, gpu: &Gpu) -> Result<()> {
        let b = &self.buffers;
        let arguments = ChainArguments {
            ring: b.ring.address(),
            activated: b.activated.address(),
            views: b.views.address(),
            whitening: b.whitening.address(),
            moments: b.moments.address(),
            parameters: b.parameters.address(),
            sums: b.sums.address(),
            partial_losses: b.partial_losses.address(),
            loss: b.loss.address(),
            gradient: b.gradient.address(),
            count: self.count(),
            padded: self.padded(),
        };
        let grid = (self.plan.padded() * self.plan.chain_parts / THREADS, 1);
        // SAFETY: the buffers have the plan's sizes, which grid and constants follow.
        unsafe { self.kernels.chain(gpu, grid, THREADS, &arguments) }
    }

    fn enqueue_outcome(&self, gpu: &Gpu) -> Result<()> {
        let b = &self.buffers;
        let arguments = OutcomeArguments {
            ring: b.ring.address(),
            gradient: b.gradient.address(),
            partial_norms: b.partial_norms.address(),
            ticket: b.norm_ticket.address(),
            outcomes: b.outcomes.address(),
            stopped: b.stopped.address(),
            length: self.plan.values() as u64,
        };
        // SAFETY: the buffers have the plan's sizes, which the grid follows.
        unsafe { self.kernels.outcome(gpu, (self.plan.norm_blocks(), 1), THREADS, &arguments) }
    }

    fn enqueue_adam(&self, gpu: &Gpu) -> Result<()> {
        let b = &self.buffers;
        let arguments = AdamArguments {
            ring: b.ring.address(),
            gradient: b.gradient.address(),
            parameters: b.parameters.address(),
            first: b.first.address(),
            second: b.second.address(),
            activated: b.activated.address(),
            stopped: b.stopped.address(),
            count: self.count(),
            padded: self.padded(),
        };
        // SAFETY: the buffers have the plan's sizes, which the grid follows.
        unsafe { self.kernels.adam(gpu, (self.plan.padded() / PADDING, 1), THREADS, &arguments) }
    }

    /// Turns observed images of the next pass, at device address `images`, into their targets, in place.
    ///
    /// # Errors
    /// When the driver or cuFFT refuses.
    ///
    /// # Safety
    /// `images` is device memory for as many images as the plan has.
    pub unsafe fn enqueue_prepare(&self, gpu: &Gpu, images: Address) -> Result<()> {
        let spectra = self.buffers.spectra.address();
        let arguments = PrepareArguments { ring: self.buffers.ring.address(), spectra, targets: images };
        let grid = (self.plan.frequencies().div_ceil(THREADS), self.plan.images);
        // SAFETY: guaranteed by the caller (see `# Safety`); the spectra are for as many images.
        unsafe {
            self.transform.images(gpu, images, spectra)?;
            self.kernels.prepare(gpu, grid, THREADS, &arguments)
        }
    }

    /// Activates the parameters.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn enqueue_activate(&self, gpu: &Gpu) -> Result<()> {
        let arguments = ActivateArguments {
            parameters: self.buffers.parameters.address(),
            activated: self.buffers.activated.address(),
            count: self.count(),
            padded: self.padded(),
        };
        // SAFETY: the buffers have the plan's sizes, which the grid follows.
        unsafe { self.kernels.activate(gpu, (self.plan.padded() / PADDING, 1), THREADS, &arguments) }
    }

    /// Adds a checksum of the parameters to the buffer `checksum`.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn enqueue_checksum(&self, gpu: &Gpu) -> Result<()> {
        let arguments = ChecksumArguments {
            values: self.buffers.parameters.address(),
            sum: self.buffers.checksum.address(),
            length: self.plan.values() as u64,
        };
        let blocks = self.plan.values().div_ceil(THREADS).min(1024);
        // SAFETY: the buffers have these lengths.
        unsafe { self.kernels.checksum(gpu, (blocks, 1), THREADS, &arguments) }
    }

    /// Stores `length` values of targets at `targets` in half precision at `resident`.
    ///
    /// # Errors
    /// When the driver refuses.
    ///
    /// # Safety
    /// Both are device memory for that many.
    pub unsafe fn enqueue_store_half(
        &self,
        gpu: &Gpu,
        targets: Address,
        resident: Address,
        length: usize,
    ) -> Result<()> {
        let arguments = StoreHalfArguments { targets, resident, length: length as u64 };
        // SAFETY: guaranteed by the caller (see `# Safety`).
        unsafe { self.kernels.store_half(gpu, (length.div_ceil(THREADS), 1), THREADS, &arguments) }
    }

    /// Allocates the staging buffers, if they are not there.
    ///
    /// # Errors
    /// When memory does not suffice.
    pub fn allocate_staging(&mut self, gpu: &Gpu) -> Result<()> {
        if self.buffers.staged.is_none() {
            self.buffers.staged = Some(gpu.allocate("staging buffers", self.plan.staged_bytes())?);
        }
        Ok(())
    }
}
