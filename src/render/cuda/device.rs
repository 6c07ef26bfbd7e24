//! The CUDA [`Device`]: a step is one graph, and the host runs ahead of it.

mod compare;
mod fits;
mod graphs;
mod probe;

use cudarc::driver::result;

use self::graphs::Graphs;
use super::DeviceSum;
use super::buffer_plan::{BufferPlan, mib};
use super::comparison::Comparison;
use super::gpu::Gpu;
use super::interface::{Address, PassRecord};
use super::outcome_ring::OutcomeRing;
use super::pass_queue::PassQueue;
use super::pinned::{Pinned, wait};
use super::pipeline::{Pipeline, Stage};
use super::stage_timer::{Mark, StageTimer};
use crate::error::{Error, Result};
use crate::gmm::Gmm;
use crate::imaging::ctf::Ctf;
use crate::imaging::pose::Rotation;
use crate::render::{
    Alone, Device, DeviceState, Found, Geometry, ImageFit, ImageSums, Observation, OffsetGrid, Outcome,
    Reduce, Reference, StageTimes, Step, Target, View,
};

/// Device memory that resident particles leave to the driver, cuFFT and NCCL.
const RESERVED_BYTES: usize = 512 << 20;

/// The view of an image that is prepared and not projected.
const IDENTITY: Rotation = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

/// Uses a group of prepared images while it is on the device: its address, the index of its first image, and the host's images.
type UseGroup<'a> = dyn FnMut(&CudaDevice, Address, usize, &mut [f32]) -> Result<()> + 'a;

/// Options of a [`CudaDevice`].
#[derive(Clone, Copy, Debug)]
pub struct CudaOptions {
    /// Which GPU, of those visible to this process.
    pub ordinal: usize,
    /// Largest number of images of a step on this rank.
    pub batch: usize,
    /// Store resident particles in half precision.
    pub kept_half: bool,
}

/// A mixture and its optimiser on one GPU.
pub struct CudaDevice {
    // Dropped before what they use.
    graphs: Option<Graphs>,
    gpu: Gpu,
    pipeline: Pipeline,
    queue: PassQueue,
    gmm: Gmm,
    outcomes: OutcomeRing,
    timer: StageTimer,
    /// What images are fitted to.
    comparison: Option<Comparison>,
    /// Pinned memory for the gradient and loss, for sums through the host.
    exchange: Option<Pinned<f32>>,
    /// A first pass has loaded the libraries.
    loaded: bool,
    /// A step failed: the stream may never become idle.
    failed: bool,
}

/// Plans the buffers, and checks that they fit.
fn plan_buffers(gpu: &Gpu, gmm: &Gmm, geometry: &Geometry, batch: usize) -> Result<BufferPlan> {
    let (free, total) = gpu.memory()?;
    let sizes = [geometry.box_size, geometry.grid()];
    let counts = [gmm.len(), geometry.symmetry.order()];
    let plan = BufferPlan::new(counts, gmm.shape(), sizes, batch, gpu.multiprocessors, free);
    let needed = plan.bytes();
    if needed > free {
        return Err(Error::Device {
            device: gpu.name().to_owned(),
            action: format!(
                "hold {} Gaussians and {} images of {} pixels with symmetry {}",
                gmm.len(),
                plan.images,
                geometry.box_size,
                geometry.symmetry
            ),
            reason: format!("needs {}, but only {} of {} are free", mib(needed), mib(free), mib(total)),
            remedy: "use fewer --gaussians, a smaller box, or a GPU without other jobs".into(),
        });
    }
    Ok(plan)
}

impl CudaDevice {
    /// Opens a GPU for `gmm`, with the optimiser's moments zero.
    ///
    /// # Errors
    /// When a library is missing, the driver refuses, or memory does not suffice.
    pub fn new(gmm: Gmm, geometry: Geometry, options: &CudaOptions) -> Result<Self> {
        let gpu = Gpu::open(options.ordinal)?;
        let plan = plan_buffers(&gpu, &gmm, &geometry, options.batch)?;
        let pipeline = Pipeline::new(&gpu, plan, &geometry, options.kept_half)?;
        let mut device = Self {
            graphs: None,
            queue: PassQueue::new(&gpu, &pipeline)?,
            outcomes: OutcomeRing::new(&gpu, &pipeline)?,
            timer: StageTimer::new(&gpu)?,
            gpu,
            pipeline,
            gmm,
            comparison: None,
            exchange: None,
            loaded: false,
            failed: false,
        };
        device.upload(None)?;
        Ok(device)
    }

    /// The plan of its buffers, and the bytes of cuFFT's work area.
    pub fn plan(&self) -> (BufferPlan, usize) {
        (self.pipeline.plan, self.pipeline.work_bytes())
    }

    /// The GPU.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Copies the parameters to the device, and Adam's moments, zeros if `None`.
    fn upload(&mut self, moments: Option<(&[f32], &[f32])>) -> Result<()> {
        let buffers = &self.pipeline.buffers;
        let zeros = vec![0.0f32; self.gmm.values().len()];
        let (first, second) = moments.unwrap_or((&zeros, &zeros));
        let planes =
            [(&buffers.parameters, self.gmm.values()), (&buffers.first, first), (&buffers.second, second)];
        for (buffer, values) in planes {
            assert!(buffer.bytes() >= size_of_val(values));
            // SAFETY: no longer than the buffer, and alive until the copy has ended.
            unsafe { result::memcpy_htod_async(buffer.address(), values, self.gpu.stream.cu_stream()) }
                .map_err(self.gpu.failed("copy to the device"))?;
        }
        self.pipeline.enqueue_activate(&self.gpu)?;
        self.gpu.stream.synchronize().map_err(self.gpu.failed("take the parameters"))
    }

    fn enqueue(&self, stages: &[Stage]) -> Result<()> {
        stages.iter().try_for_each(|&stage| self.pipeline.enqueue(&self.gpu, stage))
    }

    /// Enqueues the sum of gradient and loss over the ranks, in device memory.
    fn enqueue_sum(&self, sum: &mut dyn DeviceSum) -> Result<()> {
        // SAFETY: gradient and loss have this length.
        unsafe { sum.enqueue(self.gradient_address(), self.values() + 1, self.gpu.stream.cu_stream().cast()) }
    }

    fn gradient_address(&self) -> Address {
        self.pipeline.buffers.gradient.address()
    }

    fn values(&self) -> usize {
        self.pipeline.plan.values()
    }

    /// Sends the passes of a batch (at least one, without images if the batch is empty), each with the numbers of `step`, and
    /// calls `enqueue` to enqueue its stages; it receives whether the pass is the last. If `timed`, marks the start.
    fn each_pass(
        &mut self,
        batch: &[Observation],
        step: PassRecord,
        group: &mut dyn Reduce,
        timed: bool,
        enqueue: impl Fn(&Self, bool) -> Result<()>,
    ) -> Result<()> {
        let passes: Vec<_> =
            if batch.is_empty() { vec![batch] } else { batch.chunks(self.pipeline.plan.images).collect() };
        let last = passes.len() - 1;
        for (k, images) in passes.into_iter().enumerate() {
            let pass = PassRecord {
                images: images.len() as u32,
                first: u32::from(k == 0),
                last: u32::from(k == last),
                ..step
            };
            self.queue.send(&self.gpu, &mut self.pipeline, pass, images, group)?;
            if timed && k == 0 {
                self.timer.mark(&self.gpu, Mark::Start)?;
            }
            self.queue.prepare(&self.gpu, &self.pipeline, images)?;
            enqueue(self, k == last)?;
            self.queue.passed(&self.gpu)?;
        }
        Ok(())
    }

    fn run_step(&mut self, batch: &[Observation], step: &Step, group: &mut dyn Reduce) -> Result<()> {
        self.capture(group)?;
        let numbers = PassRecord::of_step(step, self.outcomes.place());
        let timed = self.timer.begin(&self.gpu)?;
        // A timed step is launched in parts, with marks between them.
        let whole = !timed && self.graphs().step.is_some();
        self.each_pass(batch, numbers, group, timed, |device, last| {
            let graphs = device.graphs();
            let graph = graphs.step.as_ref().filter(|_| last && whole).unwrap_or(&graphs.pass);
            graph.launch().map_err(device.gpu.failed("start a step"))
        })?;
        if !whole {
            self.end_step(timed, group)?;
        }
        self.outcomes.stepped(&self.gpu, step.images)
    }

    fn graphs(&self) -> &Graphs {
        self.graphs.as_ref().expect("captured before the first step")
    }

    /// Sums over the ranks and updates the parameters, after the passes of a step that is launched in parts.
    fn end_step(&mut self, timed: bool, group: &mut dyn Reduce) -> Result<()> {
        let mark = |device: &Self, mark| if timed { device.timer.mark(&device.gpu, mark) } else { Ok(()) };
        mark(self, Mark::Computed)?;
        let Graphs { sum, step, .. } = self.graphs();
        match (sum, step) {
            (Some(sum), _) => sum.launch().map_err(self.gpu.failed("sum a gradient over the ranks"))?,
            (None, Some(_)) => {}
            (None, None) => self.sum_through_host(group)?,
        }
        mark(self, Mark::Reduced)?;
        self.enqueue(&Stage::UPDATE)?;
        mark(self, Mark::End)?;
        self.queue.extend_last(&self.gpu)
    }

    /// Sums gradient and loss over the ranks in host memory.
    fn sum_through_host(&mut self, group: &mut dyn Reduce) -> Result<()> {
        self.download_gradient(group)?;
        let (length, gradient) = (self.values() + 1, self.gradient_address());
        let host = self.exchange.as_mut().expect("allocated by the download");
        // SAFETY: the download has ended, and the upload is not yet enqueued.
        group.sum(unsafe { host.write(0..length) })?;
        // SAFETY: as long as gradient and loss; written again only after the next download, which waits.
        unsafe { host.copy_to(&self.gpu, &self.gpu.stream, 0..length, gradient) }
    }

    /// Copies gradient and loss to `exchange`, and waits.
    fn download_gradient(&mut self, group: &mut dyn Reduce) -> Result<()> {
        let (length, gradient) = (self.values() + 1, self.gradient_address());
        if self.exchange.is_none() {
            self.exchange = Some(Pinned::zeros(&self.gpu, length)?);
        }
        let host = self.exchange.as_mut().expect("just allocated");
        // SAFETY: as long as gradient and loss; read only after the wait.
        unsafe { host.copy_from(&self.gpu, &self.gpu.stream, 0..length, gradient)? };
        self.wait_here(group)
    }

    fn collect_all(&mut self, group: &mut dyn Reduce) -> Result<()> {
        self.outcomes.enqueue_copies(&self.gpu)?;
        self.wait_here(group)?;
        self.outcomes.collect(&self.gpu)
    }

    /// Copies planes of parameters or moments to the host.
    fn download(&self, address: Address) -> Result<Vec<f32>> {
        let mut values = vec![0.0f32; self.values()];
        // SAFETY: the planes have that length; the copy is waited for.
        unsafe { result::memcpy_dtoh_async(&mut values, address, self.gpu.stream.cu_stream()) }
            .map_err(self.gpu.failed("copy from the device"))?;
        self.gpu.stream.synchronize().map_err(self.gpu.failed("compute"))?;
        Ok(values)
    }

    fn checksum_of_parameters(&self, group: &mut dyn Reduce) -> Result<u64> {
        let address = self.pipeline.buffers.checksum.address();
        let mut sum = [0u64];
        let fail = || self.gpu.failed("compute a checksum of its parameters");
        let stream = &self.gpu.stream;
        // SAFETY: the buffer has eight bytes.
        unsafe { result::memset_d8_async(address, 0, 8, stream.cu_stream()) }.map_err(fail())?;
        self.pipeline.enqueue_checksum(&self.gpu)?;
        // Steps that wait for other ranks may be under way.
        self.wait_here(group)?;
        // SAFETY: eight bytes; the copy is waited for.
        unsafe { result::memcpy_dtoh_async(&mut sum, address, stream.cu_stream()) }.map_err(fail())?;
        stream.synchronize().map_err(fail())?;
        Ok(sum[0])
    }

    /// Waits for everything that is enqueued.
    fn wait_here(&self, group: &mut dyn Reduce) -> Result<()> {
        let here = self.gpu.event()?;
        self.gpu.record(&here, &self.gpu.stream)?;
        wait(&self.gpu, &here, group)
    }

    /// Notes a failure, after which nothing is waited for. An error of the network replaces `outcome`: if another rank is the
    /// cause, it says more.
    fn check_failure(&mut self, outcome: Result<()>, group: &mut dyn Reduce) -> Result<()> {
        if outcome.is_ok() {
            return Ok(());
        }
        self.failed = true;
        group.on_device().map_or(Ok(()), |sum| sum.check())?;
        outcome
    }

    /// Prepares observed images in groups as large as a pass, and calls `then` for each group while it is on the device.
    fn prepare_groups(&mut self, images: &mut [f32], then: &mut UseGroup) -> Result<()> {
        let pixels = self.pipeline.plan.pixels();
        let group = self.pipeline.plan.images;
        // Preparing does not use the view.
        let view = View::new(IDENTITY, Ctf::identity());
        for (k, images) in images.chunks_mut(group * pixels).enumerate() {
            let observe = |image| Observation::new(view, Target::Observed(image), 0.0);
            let observations: Vec<Observation> = images.chunks_exact(pixels).map(observe).collect();
            let pass = PassRecord { images: observations.len() as u32, ..PassRecord::default() };
            self.queue.send(&self.gpu, &mut self.pipeline, pass, &observations, &mut Alone)?;
            self.queue.prepare(&self.gpu, &self.pipeline, &observations)?;
            let address = self.queue.last_staged(&self.pipeline);
            then(self, address, k * group, images)?;
            self.queue.dropped(&self.gpu)?;
        }
        Ok(())
    }
}

impl Device for CudaDevice {
    fn name(&self) -> String {
        self.gpu.name().to_owned()
    }

    fn join(&mut self, group: &mut dyn Reduce) -> Result<()> {
        // A network allocates memory at its first use: before particles fill the rest.
        let outcome = match group.on_device() {
            Some(sum) => self.enqueue_sum(sum).and_then(|()| self.wait_here(group)),
            None => Ok(()),
        };
        self.check_failure(outcome, group)
    }

    fn prepare(&mut self, images: &mut [f32]) -> Result<()> {
        self.prepare_groups(images, &mut |device, address, _, images| {
            // SAFETY: a staging buffer holds these images; the copy has ended before `images` is returned.
            unsafe { result::memcpy_dtoh_async(images, address, device.gpu.stream.cu_stream()) }
                .map_err(device.gpu.failed("copy from the device"))
        })
    }

    fn reserve(&mut self, particles: usize) -> Result<bool> {
        assert!(self.graphs.is_none(), "memory is reserved before the first step");
        let bytes = self.pipeline.plan.resident_bytes(particles, self.pipeline.kept_half);
        let (free, _) = self.gpu.memory()?;
        if bytes.saturating_add(RESERVED_BYTES).saturating_add(self.pipeline.plan.staged_bytes()) > free {
            return Ok(false);
        }
        // Another process may have taken the memory meanwhile: then particles are kept elsewhere.
        self.pipeline.buffers.resident = self.gpu.allocate("particles", bytes).ok();
        Ok(self.pipeline.buffers.resident.is_some())
    }

    fn store(&mut self, first: usize, images: &mut [f32]) -> Result<()> {
        let pixels = self.pipeline.plan.pixels();
        self.prepare_groups(images, &mut |device, address, place, images| {
            let half_precision = device.pipeline.kept_half;
            let resident = device.pipeline.buffers.resident.as_ref().expect("memory was reserved");
            let offset = (first + place) * pixels * if half_precision { 2 } else { 4 };
            let to = resident.address() + offset as u64;
            if half_precision {
                // SAFETY: a staging buffer holds these images, and the reserved memory has these places.
                unsafe { device.pipeline.enqueue_store_half(&device.gpu, address, to, images.len()) }
            } else {
                let bytes = size_of_val(images);
                // SAFETY: as above.
                unsafe { result::memcpy_dtod_async(to, address, bytes, device.gpu.stream.cu_stream()) }
                    .map_err(device.gpu.failed("store particles"))
            }
        })
    }

    fn set_noise_weights(&mut self, groups: &[Vec<f32>]) -> Result<()> {
        // Steps that use the present weights may be under way, and graphs hold their address.
        self.wait_here(&mut Alone)?;
        self.graphs = None;
        self.pipeline.set_noise_weights(&self.gpu, groups)
    }

    fn compare(&mut self, batch: &[Observation]) -> Result<Vec<ImageSums>> {
        self.compare_passes(batch)
    }

    fn set_reference(&mut self, reference: &Reference) -> Result<()> {
        self.replace_reference(reference)
    }

    fn fit(&mut self, batch: &[Observation]) -> Result<Vec<ImageFit>> {
        self.fit_passes(batch)
    }

    fn search(
        &mut self,
        batch: &[Observation],
        rotations: &[Rotation],
        penalty: &[f64],
        offsets: &OffsetGrid,
        offset_penalty: f64,
    ) -> Result<Vec<Found>> {
        assert_eq!(rotations.len(), penalty.len());
        self.search_passes(batch, (rotations, penalty), (offsets, offset_penalty))
    }

    fn step(&mut self, batch: &[Observation], step: &Step, group: &mut dyn Reduce) -> Result<()> {
        let outcome = self.run_step(batch, step, group);
        self.check_failure(outcome, group)
    }

    fn outcomes(&mut self, all: bool, group: &mut dyn Reduce) -> Result<Vec<Outcome>> {
        let outcome = if all { self.collect_all(group) } else { self.outcomes.collect(&self.gpu) };
        self.check_failure(outcome, group)?;
        Ok(self.outcomes.take())
    }

    fn gradient(&mut self, batch: &[Observation]) -> Result<(Vec<f32>, f64)> {
        self.each_pass(batch, PassRecord::default(), &mut Alone, false, |device, _| {
            device.enqueue(&Stage::PASS)
        })?;
        self.download_gradient(&mut Alone)?;
        let host = self.exchange.as_ref().expect("allocated by the download");
        // SAFETY: the download has ended.
        let sums = unsafe { host.read(0..self.values() + 1) };
        let count = batch.len() as f32;
        let (gradient, loss) = sums.split_at(self.values());
        Ok((gradient.iter().map(|g| g / count).collect(), f64::from(loss[0]) / batch.len() as f64))
    }

    fn times(&mut self) -> Option<StageTimes> {
        self.timer.take(&self.gpu)
    }

    fn memory(&self) -> u64 {
        (self.pipeline.bytes() + self.comparison.as_ref().map_or(0, Comparison::bytes)) as u64
    }

    fn checksum(&mut self, group: &mut dyn Reduce) -> Result<u64> {
        let outcome = self.checksum_of_parameters(group);
        let sum = *outcome.as_ref().unwrap_or(&0);
        self.check_failure(outcome.map(|_| ()), group).map(|()| sum)
    }

    fn state(&self) -> Result<DeviceState> {
        let buffers = &self.pipeline.buffers;
        let values = self.download(buffers.parameters.address())?;
        Ok(DeviceState {
            gmm: Gmm::from_values(self.gmm.shape(), self.gmm.len(), values),
            first: self.download(buffers.first.address())?,
            second: self.download(buffers.second.address())?,
        })
    }

    fn restore(&mut self, state: DeviceState) -> Result<()> {
        if state.gmm.len() != self.gmm.len() {
            // Graphs hold the number of Gaussians: the next step captures them again.
            self.gpu.stream.synchronize().map_err(self.gpu.failed("compute"))?;
            (self.graphs, self.exchange) = (None, None);
            self.pipeline.resize(state.gmm.len());
        }
        self.gmm = state.gmm;
        self.upload(Some((&state.first, &state.second)))
    }
}

impl Drop for CudaDevice {
    fn drop(&mut self) {
        // Enqueued work uses the memory that is about to be freed. After a failure it may never end; the process then exits.
        if !self.failed {
            let _ = self.gpu.stream.synchronize();
            let _ = self.gpu.copies.synchronize();
        }
    }
}
