//! The stages of a step, in order: which kernel runs over what, on which buffers.

use std::sync::Arc;

use cudarc::driver::{CudaFunction, CudaModule, LaunchConfig, PushKernelArg, result};
use cudarc::nvrtc::Ptx;

use super::buffers::Buffers;
use super::card::{Buffer, Card};
use super::compile::{self, CHAIN_PARTS, Constants, DRAW_WARPS};
use super::plan::{PADDING, Plan};
use super::transform::Transform;
use crate::error::Result;
use crate::imaging::fourier::squared_frequency;
use crate::render::Geometry;

/// Threads of a block, unless a kernel says otherwise.
const THREADS: usize = 256;

/// A stage, named as in the log and in benches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Gaussians to splats, and to tiles' lists.
    Project,
    /// Splats to pixels.
    Draw,
    /// Projections to spectra.
    Forward,
    /// The CTF, what was observed, and the loss.
    Residual,
    /// Spectra to the gradient of the projections.
    Inverse,
    /// Pixels to moments.
    Moments,
    /// Moments to the gradient.
    Chain,
    /// What the step came to.
    Outcome,
    /// The optimiser.
    Adam,
}

impl Stage {
    /// Those of a pass over images.
    pub const PASS: [Self; 7] =
        [Self::Project, Self::Draw, Self::Forward, Self::Residual, Self::Inverse, Self::Moments, Self::Chain];

    /// Those that end a step, after the sum over the ranks.
    pub const UPDATE: [Self; 2] = [Self::Outcome, Self::Adam];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::Draw => "draw",
            Self::Forward => "forward FFT",
            Self::Residual => "CTF and residual",
            Self::Inverse => "inverse FFT",
            Self::Moments => "moments",
            Self::Chain => "chain",
            Self::Outcome => "outcome",
            Self::Adam => "Adam",
        }
    }
}

/// The kernels, loaded.
struct Kernels {
    project: CudaFunction,
    draw: CudaFunction,
    prepare: CudaFunction,
    residual: CudaFunction,
    moments: CudaFunction,
    chain: CudaFunction,
    outcome: CudaFunction,
    adam: CudaFunction,
    activate: CudaFunction,
    checksum: CudaFunction,
    store_half: CudaFunction,
}

impl Kernels {
    fn load(card: &Card, constants: &Constants) -> Result<Self> {
        let load = |image: Vec<u8>| card.context.load_module(Ptx::from_binary(image));
        let image = compile::kernels(constants, card.capability, false)?;
        let module: Arc<CudaModule> = match load(image) {
            Ok(module) => module,
            // Kept code that this driver does not take: a driver that was exchanged for an older one, say.
            Err(_) => load(compile::kernels(constants, card.capability, true)?)
                .map_err(card.failed("load the kernels"))?,
        };
        let function = |name: &str| module.load_function(name).map_err(card.failed("find a kernel"));
        Ok(Self {
            project: function("project")?,
            draw: function("draw")?,
            prepare: function("prepare")?,
            residual: function("residual")?,
            moments: function("moments")?,
            chain: function("chain")?,
            outcome: function("outcome")?,
            adam: function("adam")?,
            activate: function("activate")?,
            checksum: function("checksum")?,
            store_half: function("store_half")?,
        })
    }
}

/// Kernels, transforms and buffers of one mixture.
pub struct Pipeline {
    /// What is allocated.
    pub plan: Plan,
    /// The memory.
    pub buffers: Buffers,
    transform: Transform,
    kernels: Kernels,
    /// What it renders with.
    pub geometry: Geometry,
    /// 1 / (box x pixel size), in 1/A.
    step: f64,
    /// Particles are kept in 16 bits a pixel.
    pub kept_half: bool,
}

/// Launches `$function` with `$grid` (x, y) blocks of `$threads` threads.
macro_rules! launch {
    ($card:expr, $function:expr, $grid:expr, $threads:expr, $($argument:expr),+ $(,)?) => {{
        let (x, y): (usize, usize) = $grid;
        let mut launch = $card.stream.launch_builder($function);
        $(
            let argument = $argument;
            launch.arg(&argument);
        )+
        let configuration = LaunchConfig {
            grid_dim: (x as u32, y as u32, 1),
            block_dim: ($threads as u32, 1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: the arguments are those of the kernel of that name, in its order and of its types; the buffers are as
        // large as the plan, which grid and constants follow, says.
        unsafe { launch.launch(configuration) }.map(|_| ()).map_err($card.failed("start a kernel"))
    }};
}

/// `[transfer, weight][ky][kx]` of the half spectrum.
fn tables(geometry: &Geometry) -> Vec<f32> {
    let &Geometry { box_size, weights, .. } = geometry;
    let columns = box_size / 2 + 1;
    let square =
        |at: usize| squared_frequency(at / columns, box_size) + squared_frequency(at % columns, box_size);
    let all = || (0..box_size * columns).map(square);
    all().map(|k2| geometry.transfer(k2) as f32).chain(all().map(|k2| weights.at(k2) as f32)).collect()
}

impl Pipeline {
    /// Compiles the kernels and allocates everything but particles.
    ///
    /// # Errors
    /// When the device refuses, or the plan does not fit.
    pub fn new(card: &Card, plan: Plan, geometry: &Geometry, kept_half: bool) -> Result<Self> {
        let constants = Constants {
            box_size: geometry.box_size,
            grid: plan.grid,
            cutoff: geometry.cutoff,
            sampling: geometry.sampling,
            planes: plan.shape.planes(),
            draw_slices: plan.slices,
            moment_lanes: plan.moment_lanes,
            kept_half,
        };
        let buffers = Buffers::new(card, &plan)?;
        let tables = tables(geometry);
        // SAFETY: two tables of the plan's frequencies, and waited for before they go.
        unsafe { result::memcpy_htod_async(buffers.tables.address(), &tables, card.stream.cu_stream()) }
            .and_then(|()| card.stream.synchronize())
            .map_err(card.failed("copy to the device"))?;
        Ok(Self {
            kernels: Kernels::load(card, &constants)?,
            transform: Transform::new(card, geometry.box_size, plan.grid, plan.images)?,
            buffers,
            geometry: *geometry,
            step: 1.0 / (geometry.box_size as f64 * geometry.pixel_size),
            kept_half,
            plan,
        })
    }

    /// Bytes of all device memory in use.
    pub fn bytes(&self) -> usize {
        let particles = [&self.buffers.kept, &self.buffers.staged];
        let particles: usize = particles.into_iter().flatten().map(Buffer::bytes).sum();
        self.plan.bytes() + self.work_bytes() + particles
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

    /// Puts a stage into the stream.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn enqueue(&self, card: &Card, stage: Stage) -> Result<()> {
        let (b, plan, k) = (&self.buffers, &self.plan, &self.kernels);
        let ring = b.ring.address();
        let images = plan.images;
        let gaussians = plan.padded() / PADDING;
        let (count, padded) = (self.count(), self.padded());
        let or_null = |buffer: &Option<Buffer>| buffer.as_ref().map_or(0, Buffer::address);
        match stage {
            Stage::Project => launch!(
                card,
                &k.project,
                (gaussians, images),
                THREADS,
                ring,
                b.activated.address(),
                b.splats.address(),
                b.whitening.address(),
                b.bits.address(),
                count,
                padded
            ),
            Stage::Draw => launch!(
                card,
                &k.draw,
                (plan.tiles() * plan.slices, images),
                DRAW_WARPS * 32,
                ring,
                b.splats.address(),
                b.bits.address(),
                b.projections.address(),
                b.slices.address(),
                b.tickets.address(),
                padded
            ),
            // SAFETY: both buffers are for as many images as the transform.
            Stage::Forward => unsafe {
                self.transform.forward(card, b.projections.address(), b.spectra.address())
            },
            Stage::Residual => launch!(
                card,
                &k.residual,
                (plan.partials(), images),
                THREADS,
                ring,
                b.spectra.address(),
                self.table(0),
                self.table(1),
                or_null(&b.kept),
                or_null(&b.staged),
                b.partial.address(),
                self.step
            ),
            // SAFETY: as above. The projections have been used.
            Stage::Inverse => unsafe {
                self.transform.inverse(card, b.spectra.address(), b.projections.address())
            },
            Stage::Moments => launch!(
                card,
                &k.moments,
                (plan.padded() * plan.moment_lanes / THREADS, images),
                THREADS,
                ring,
                b.splats.address(),
                b.projections.address(),
                b.moments.address(),
                padded
            ),
            Stage::Chain => launch!(
                card,
                &k.chain,
                (plan.padded() * CHAIN_PARTS / THREADS, 1),
                THREADS,
                ring,
                b.activated.address(),
                b.whitening.address(),
                b.moments.address(),
                b.parameters.address(),
                b.sums.address(),
                b.partial.address(),
                b.loss.address(),
                b.gradient.address(),
                count,
                padded
            ),
            Stage::Outcome => launch!(
                card,
                &k.outcome,
                (plan.norm_blocks(), 1),
                THREADS,
                ring,
                b.gradient.address(),
                b.norms.address(),
                b.norm_ticket.address(),
                b.outcomes.address(),
                b.broken.address(),
                plan.values() as u64
            ),
            Stage::Adam => launch!(
                card,
                &k.adam,
                (gaussians, 1),
                THREADS,
                ring,
                b.gradient.address(),
                b.parameters.address(),
                b.first.address(),
                b.second.address(),
                b.activated.address(),
                b.broken.address(),
                count,
                padded
            ),
        }
    }

    /// The address of a table of frequencies.
    fn table(&self, number: usize) -> u64 {
        self.buffers.tables.address() + (number * self.plan.frequencies() * 4) as u64
    }

    /// Turns the images of the pass into their targets, in place: observed ones at address `images`, as many as the plan has.
    ///
    /// # Errors
    /// When the device refuses.
    ///
    /// # Safety
    /// `images` is device memory for them.
    pub unsafe fn enqueue_prepare(&self, card: &Card, images: u64) -> Result<()> {
        // SAFETY: the caller's word; the spectra are for as many.
        unsafe { self.transform.images(card, images, self.buffers.spectra.address())? };
        launch!(
            card,
            &self.kernels.prepare,
            (self.plan.frequencies().div_ceil(THREADS), self.plan.images),
            THREADS,
            self.buffers.ring.address(),
            self.buffers.spectra.address(),
            self.table(0),
            images,
            self.step
        )
    }

    /// The planes that projections start from, of the parameters as they are.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn enqueue_activate(&self, card: &Card) -> Result<()> {
        launch!(
            card,
            &self.kernels.activate,
            (self.plan.padded() / PADDING, 1),
            THREADS,
            self.buffers.parameters.address(),
            self.buffers.activated.address(),
            self.count(),
            self.padded()
        )
    }

    /// Adds a number that depends on every bit of the parameters to `checksum`.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn enqueue_checksum(&self, card: &Card) -> Result<()> {
        let blocks = self.plan.values().div_ceil(THREADS).min(1024);
        launch!(
            card,
            &self.kernels.checksum,
            (blocks, 1),
            THREADS,
            self.buffers.parameters.address(),
            self.buffers.checksum.address(),
            self.plan.values() as u64
        )
    }

    /// Stores `count` numbers of targets at `targets` as halves at `kept`.
    ///
    /// # Errors
    /// When the device refuses.
    ///
    /// # Safety
    /// Both are device memory for that many.
    pub unsafe fn enqueue_store_half(
        &self,
        card: &Card,
        targets: u64,
        kept: u64,
        count: usize,
    ) -> Result<()> {
        launch!(
            card,
            &self.kernels.store_half,
            (count.div_ceil(THREADS), 1),
            THREADS,
            targets,
            kept,
            count as u64
        )
    }

    /// Room for images on their way, if there is none yet.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn make_stages(&mut self, card: &Card) -> Result<()> {
        if self.buffers.staged.is_none() {
            self.buffers.staged = Some(card.allocate("particles on their way", self.plan.staged_bytes())?);
        }
        Ok(())
    }
}
