//! The GPU's [`Device`]: steps as graphs, the host ahead of them.

mod probe;

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaGraph, result};

use super::card::Card;
use super::feed::{Feed, event};
use super::host::{Pinned, wait};
use super::outcomes::Outcomes;
use super::pipeline::{Pipeline, Stage};
use super::plan::{Plan, mib};
use super::records::PassRecord;
use super::timing::{Mark, Timing};
use crate::error::{Error, Result};
use crate::gmm::Gmm;
use crate::imaging::ctf::Ctf;
use crate::imaging::pose::Rotation;
use crate::render::{
    Alone, Device, DeviceState, Geometry, Observation, Outcome, RateFactors, Reduce, StageTimes, Step,
    Target, View,
};

/// Memory of the device that is left to the driver, cuFFT and NCCL when particles are kept.
const RESERVE: usize = 512 << 20;

/// A view that does not matter.
const UNTURNED: Rotation = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

/// What is done with a group of prepared images while it is on the device: its address, its place, and where it came from.
type Group<'a> = dyn FnMut(&CudaDevice, u64, usize, &mut [f32]) -> Result<()> + 'a;

/// What decides how a GPU is used.
#[derive(Clone, Copy, Debug)]
pub struct CudaOptions {
    /// Which device, of those that this process sees.
    pub ordinal: usize,
    /// Images of a step on this rank, at most.
    pub batch: usize,
    /// Keep particles in 16 bits a pixel.
    pub kept_half: bool,
}

/// The GPU.
pub struct CudaDevice {
    // Graphs go before what they use.
    graphs: Option<Graphs>,
    card: Card,
    pipeline: Pipeline,
    feed: Feed,
    gmm: Gmm,
    outcomes: Outcomes,
    timing: Timing,
    /// The gradient on its way through the host.
    exchange: Option<Pinned<f32>>,
    /// Set when a step failed: the stream may never end.
    failed: bool,
}

/// What is launched again and again.
struct Graphs {
    /// A pass over images.
    pass: CudaGraph,
    /// The sum over the ranks, where it is made on the device.
    sum: Option<CudaGraph>,
    /// A pass with all that ends a step, where that is all on the device.
    step: Option<CudaGraph>,
}

/// The planned size of a device for these numbers, as [`CudaDevice::new`] makes it.
fn plan(card: &Card, gmm: &Gmm, geometry: &Geometry, batch: usize) -> Result<Plan> {
    let (free, total) = card.memory()?;
    let plan =
        Plan::new(gmm.len(), gmm.shape(), [geometry.box_size, geometry.grid()], batch, card.processors, free);
    let wanted = plan.bytes();
    if wanted > free {
        return Err(Error::Device {
            device: card.name().to_owned(),
            action: format!(
                "hold {} Gaussians and {} images of {} pixels",
                gmm.len(),
                plan.images,
                geometry.box_size
            ),
            reason: format!("that takes {}, and {} of {} are free", mib(wanted), mib(free), mib(total)),
            remedy: "use fewer --gaussians, a smaller box, or a GPU that nobody else uses".into(),
        });
    }
    Ok(plan)
}

impl CudaDevice {
    /// A device that holds `gmm`, with an optimiser at rest.
    ///
    /// # Errors
    /// When a library is missing, the device refuses, or its memory does not do.
    pub fn new(gmm: Gmm, geometry: Geometry, options: &CudaOptions) -> Result<Self> {
        let card = Card::open(options.ordinal)?;
        let plan = plan(&card, &gmm, &geometry, options.batch)?;
        let pipeline = Pipeline::new(&card, plan, &geometry, options.kept_half)?;
        let mut device = Self {
            graphs: None,
            feed: Feed::new(&card, &pipeline)?,
            outcomes: Outcomes::new(&card, &pipeline)?,
            timing: Timing::new(&card)?,
            card,
            pipeline,
            gmm,
            exchange: None,
            failed: false,
        };
        device.upload(None)?;
        Ok(device)
    }

    /// What it allocates, and cuFFT's work area in bytes.
    pub fn plan(&self) -> (Plan, usize) {
        (self.pipeline.plan, self.pipeline.work_bytes())
    }

    /// The GPU.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// Parameters to the device, and Adam's moments, zeros if `None`.
    fn upload(&mut self, moments: Option<(&[f32], &[f32])>) -> Result<()> {
        let buffers = &self.pipeline.buffers;
        let zeros = vec![0.0f32; self.gmm.values().len()];
        let (first, second) = moments.unwrap_or((&zeros, &zeros));
        let planes =
            [(&buffers.parameters, self.gmm.values()), (&buffers.first, first), (&buffers.second, second)];
        for (buffer, values) in planes {
            assert_eq!(buffer.bytes(), size_of_val(values));
            // SAFETY: as long as the buffer, and waited for before `values` goes.
            unsafe { result::memcpy_htod_async(buffer.address(), values, self.card.stream.cu_stream()) }
                .map_err(self.card.failed("copy to the device"))?;
        }
        self.pipeline.enqueue_activate(&self.card)?;
        self.card.stream.synchronize().map_err(self.card.failed("take the parameters"))
    }

    /// Captures the stages once; every step replays them.
    fn capture(&mut self, group: &mut dyn Reduce) -> Result<()> {
        if self.graphs.is_some() {
            return Ok(());
        }
        if self.pipeline.buffers.kept.is_none() {
            self.pipeline.make_stages(&self.card)?;
        }
        // Outside a capture first, over no images: libraries load what they need when first used.
        let idle = PassRecord { first: 1, ..PassRecord::default() };
        self.feed.send(&self.card, &mut self.pipeline, idle, &[], group)?;
        self.enqueue(&Stage::PASS, None)?;
        if let Some(sum) = group.on_device() {
            self.add_up(sum)?;
        }
        self.feed.passed(&self.card)?;
        self.wait_here(group)?;

        let alone = group.ranks() == 1;
        let pass = self.graph(&Stage::PASS, None, &[])?;
        let (sum, step) = match group.on_device() {
            Some(sum) => (
                Some(self.graph(&[], Some(&mut *sum), &[])?),
                Some(self.graph(&Stage::PASS, Some(sum), &Stage::UPDATE)?),
            ),
            None if alone => (None, Some(self.graph(&Stage::PASS, None, &Stage::UPDATE)?)),
            None => (None, None),
        };
        self.graphs = Some(Graphs { pass, sum, step });
        Ok(())
    }

    fn graph(
        &self,
        stages: &[Stage],
        sum: Option<&mut dyn super::DeviceSum>,
        update: &[Stage],
    ) -> Result<CudaGraph> {
        let fail = || self.card.failed("capture a step");
        self.card.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED).map_err(fail())?;
        let enqueued = self.enqueue(stages, sum).and_then(|()| self.enqueue(update, None));
        let graph = self.card.stream.end_capture(CUgraphInstantiate_flags(0));
        enqueued?;
        let graph = graph.map_err(fail())?.ok_or_else(|| Error::Device {
            device: self.card.name().to_owned(),
            action: "capture a step".into(),
            reason: "the capture is empty".into(),
            remedy: "this is a defect of the program or of the driver: report it".into(),
        })?;
        graph.upload().map_err(fail())?;
        Ok(graph)
    }

    fn enqueue(&self, stages: &[Stage], sum: Option<&mut dyn super::DeviceSum>) -> Result<()> {
        for &stage in stages {
            self.pipeline.enqueue(&self.card, stage)?;
        }
        match sum {
            Some(sum) => self.add_up(sum),
            None => Ok(()),
        }
    }

    /// Puts the sum of gradient and loss over the ranks into the stream.
    fn add_up(&self, sum: &mut dyn super::DeviceSum) -> Result<()> {
        // SAFETY: the gradient with its loss has this length.
        unsafe {
            sum.enqueue(self.gradient_address(), self.values() + 1, self.card.stream.cu_stream().cast())
        }
    }

    fn gradient_address(&self) -> u64 {
        self.pipeline.buffers.gradient.address()
    }

    fn values(&self) -> usize {
        self.pipeline.plan.values()
    }

    /// Sends the passes of a batch (at least one, of no images where it is empty), each with the step's numbers in `step`, and
    /// lets `enqueue` put the stages of each into the stream; it is told which is the last. Where `timed`, marks their start.
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
            self.feed.send(&self.card, &mut self.pipeline, pass, images, group)?;
            if timed && k == 0 {
                self.timing.mark(&self.card, Mark::Start)?;
            }
            self.feed.prepare(&self.card, &self.pipeline, images)?;
            enqueue(self, k == last)?;
            self.feed.passed(&self.card)?;
        }
        Ok(())
    }

    fn run_step(&mut self, batch: &[Observation], step: &Step, group: &mut dyn Reduce) -> Result<()> {
        self.capture(group)?;
        let adam = &step.adam;
        // rate m/c1 / (sqrt(v/c2) + eps) = rate sqrt(c2)/c1 m / (sqrt(v) + eps sqrt(c2))
        let root = adam.correction2.sqrt();
        let numbers = PassRecord {
            outcome: self.outcomes.place(),
            rate: (adam.rate * root / adam.correction1) as f32,
            beta1: adam.beta1 as f32,
            beta2: adam.beta2 as f32,
            // From f64: with beta2 = 0.999 the difference in f32 loses four digits.
            fresh1: (1.0 - adam.beta1) as f32,
            fresh2: (1.0 - adam.beta2) as f32,
            epsilon: (adam.epsilon * root) as f32,
            scale: (1.0 / step.images as f64) as f32,
            factors: {
                let RateFactors { mean, scale, quaternion, amplitude } = adam.factors;
                [mean, scale, quaternion, amplitude].map(|factor| factor as f32)
            },
            ..PassRecord::default()
        };
        let timed = self.timing.begin(&self.card)?;
        // A step that is timed is taken in pieces, with marks between them.
        let whole = !timed && self.graphs().step.is_some();
        self.each_pass(batch, numbers, group, timed, |device, last| {
            let graphs = device.graphs();
            let graph = graphs.step.as_ref().filter(|_| last && whole).unwrap_or(&graphs.pass);
            graph.launch().map_err(device.card.failed("start a step"))
        })?;
        if !whole {
            self.end_step(timed, group)?;
        }
        self.outcomes.stepped(&self.card, step.images)
    }

    fn graphs(&self) -> &Graphs {
        self.graphs.as_ref().expect("captured before the first step")
    }

    /// What comes after the passes of a step.
    fn end_step(&mut self, timed: bool, group: &mut dyn Reduce) -> Result<()> {
        let mark = |device: &Self, mark| if timed { device.timing.mark(&device.card, mark) } else { Ok(()) };
        mark(self, Mark::Computed)?;
        let Graphs { sum, step, .. } = self.graphs();
        match (sum, step) {
            (Some(sum), _) => sum.launch().map_err(self.card.failed("add up a gradient"))?,
            (None, Some(_)) => {}
            (None, None) => self.exchange(group)?,
        }
        mark(self, Mark::Reduced)?;
        self.enqueue(&Stage::UPDATE, None)?;
        mark(self, Mark::End)?;
        self.feed.read_on(&self.card)
    }

    /// Adds the gradient up over the ranks through host memory.
    fn exchange(&mut self, group: &mut dyn Reduce) -> Result<()> {
        self.download_gradient(group)?;
        let (length, gradient) = (self.values() + 1, self.gradient_address());
        let host = self.exchange.as_mut().expect("made by the download");
        // SAFETY: the download has been waited for, and the upload comes after.
        group.sum(unsafe { host.write(0..length) })?;
        // SAFETY: as long as the gradient with its loss; written again only after the next download, which waits.
        unsafe { host.copy_to(&self.card, &self.card.stream, 0..length, gradient) }
    }

    fn download_gradient(&mut self, group: &mut dyn Reduce) -> Result<()> {
        let (length, gradient) = (self.values() + 1, self.gradient_address());
        if self.exchange.is_none() {
            self.exchange = Some(Pinned::zeros(&self.card, length)?);
        }
        let host = self.exchange.as_mut().expect("just made");
        // SAFETY: as long as the gradient with its loss; read only after the wait.
        unsafe { host.copy_from(&self.card, &self.card.stream, 0..length, gradient)? };
        self.wait_here(group)
    }

    fn collect_all(&mut self, group: &mut dyn Reduce) -> Result<()> {
        self.outcomes.report(&self.card)?;
        self.wait_here(group)?;
        self.outcomes.collect(&self.card)
    }

    fn download(&self, address: u64) -> Result<Vec<f32>> {
        let mut values = vec![0.0f32; self.values()];
        // SAFETY: the planes have that length; the copy is waited for.
        unsafe { result::memcpy_dtoh_async(&mut values, address, self.card.stream.cu_stream()) }
            .map_err(self.card.failed("copy from the device"))?;
        self.card.stream.synchronize().map_err(self.card.failed("compute"))?;
        Ok(values)
    }

    fn sum_up(&self, group: &mut dyn Reduce) -> Result<u64> {
        let address = self.pipeline.buffers.checksum.address();
        let mut sum = [0u64];
        let fail = || self.card.failed("add up its parameters");
        let stream = &self.card.stream;
        // SAFETY: eight bytes of the device's own.
        unsafe { result::memset_d8_async(address, 0, 8, stream.cu_stream()) }.map_err(fail())?;
        self.pipeline.enqueue_checksum(&self.card)?;
        // Steps may be under way that wait for other ranks.
        self.wait_here(group)?;
        // SAFETY: eight bytes; the copy is waited for.
        unsafe { result::memcpy_dtoh_async(&mut sum, address, stream.cu_stream()) }.map_err(fail())?;
        stream.synchronize().map_err(fail())?;
        Ok(sum[0])
    }

    /// Waits for all that is enqueued.
    fn wait_here(&self, group: &mut dyn Reduce) -> Result<()> {
        let here = event(&self.card)?;
        here.record(&self.card.stream).map_err(self.card.failed("order its streams"))?;
        wait(&self.card, &here, group)
    }

    /// After a failure nothing is waited for. If it comes from another rank, the network's words say more than the device's.
    fn judge(&mut self, outcome: Result<()>, group: &mut dyn Reduce) -> Result<()> {
        if outcome.is_ok() {
            return Ok(());
        }
        self.failed = true;
        group.on_device().map_or(Ok(()), |sum| sum.check())?;
        outcome
    }

    /// Prepares observed images, as many as the plan has at a time, and hands each group to `then` while it is on the device
    /// (its address, its place among all, its images).
    fn prepare_groups(&mut self, ctfs: &[Ctf], images: &mut [f32], then: &mut Group) -> Result<()> {
        let pixels = self.pipeline.plan.pixels();
        let group = self.pipeline.plan.images;
        for (k, (ctfs, images)) in ctfs.chunks(group).zip(images.chunks_mut(group * pixels)).enumerate() {
            let place = |n: usize| &images[n * pixels..(n + 1) * pixels];
            let seen: Vec<Observation> = ctfs
                .iter()
                .enumerate()
                .map(|(n, &ctf)| Observation {
                    view: View { rotation: UNTURNED, ctf },
                    target: Target::Observed(place(n)),
                    energy: 0.0,
                })
                .collect();
            let pass = PassRecord { images: seen.len() as u32, ..PassRecord::default() };
            self.feed.send(&self.card, &mut self.pipeline, pass, &seen, &mut Alone)?;
            self.feed.prepare(&self.card, &self.pipeline, &seen)?;
            let address = self.feed.last_stage(&self.pipeline);
            then(self, address, k * group, images)?;
            self.feed.dropped(&self.card)?;
        }
        Ok(())
    }
}

impl Device for CudaDevice {
    fn name(&self) -> String {
        self.card.name().to_owned()
    }

    fn join(&mut self, group: &mut dyn Reduce) -> Result<()> {
        // A network takes its memory when it is first used: before particles take what is left.
        let outcome = match group.on_device() {
            Some(sum) => self.add_up(sum).and_then(|()| self.wait_here(group)),
            None => Ok(()),
        };
        self.judge(outcome, group)
    }

    fn prepare(&mut self, ctfs: &[Ctf], images: &mut [f32]) -> Result<()> {
        self.prepare_groups(ctfs, images, &mut |device, address, _, images| {
            // SAFETY: a stage holds these images; the copy into them is waited for before they are given back.
            unsafe { result::memcpy_dtoh_async(images, address, device.card.stream.cu_stream()) }
                .map_err(device.card.failed("copy from the device"))
        })
    }

    fn keep(&mut self, particles: usize) -> Result<bool> {
        assert!(self.graphs.is_none(), "room is made before the first step");
        let bytes = self.pipeline.plan.kept_bytes(particles, self.pipeline.kept_half);
        let (free, _) = self.card.memory()?;
        if bytes.saturating_add(RESERVE).saturating_add(self.pipeline.plan.staged_bytes()) > free {
            return Ok(false);
        }
        // Somebody else may have been quicker: then they are kept elsewhere.
        self.pipeline.buffers.kept = self.card.allocate("particles", bytes).ok();
        Ok(self.pipeline.buffers.kept.is_some())
    }

    fn store(&mut self, first: usize, ctfs: &[Ctf], images: &mut [f32]) -> Result<()> {
        let pixels = self.pipeline.plan.pixels();
        self.prepare_groups(ctfs, images, &mut |device, address, place, images| {
            let half_precision = device.pipeline.kept_half;
            let kept = device.pipeline.buffers.kept.as_ref().expect("room was made");
            let offset = (first + place) * pixels * if half_precision { 2 } else { 4 };
            let to = kept.address() + offset as u64;
            if half_precision {
                // SAFETY: a stage holds these images, and the room these places.
                unsafe { device.pipeline.enqueue_store_half(&device.card, address, to, images.len()) }
            } else {
                // SAFETY: as above.
                unsafe {
                    result::memcpy_dtod_async(
                        to,
                        address,
                        size_of_val(images),
                        device.card.stream.cu_stream(),
                    )
                }
                .map_err(device.card.failed("keep particles"))
            }
        })
    }

    fn step(&mut self, batch: &[Observation], step: &Step, group: &mut dyn Reduce) -> Result<()> {
        let outcome = self.run_step(batch, step, group);
        self.judge(outcome, group)
    }

    fn outcomes(&mut self, all: bool, group: &mut dyn Reduce) -> Result<Vec<Outcome>> {
        let outcome = if all { self.collect_all(group) } else { self.outcomes.collect(&self.card) };
        self.judge(outcome, group)?;
        Ok(self.outcomes.take())
    }

    fn gradient(&mut self, batch: &[Observation]) -> Result<(Vec<f32>, f64)> {
        self.each_pass(batch, PassRecord::default(), &mut Alone, false, |device, _| {
            device.enqueue(&Stage::PASS, None)
        })?;
        self.download_gradient(&mut Alone)?;
        let host = self.exchange.as_ref().expect("made by the download");
        // SAFETY: the download has been waited for.
        let sums = unsafe { host.read(0..self.values() + 1) };
        let count = batch.len() as f32;
        let (gradient, loss) = sums.split_at(self.values());
        Ok((gradient.iter().map(|g| g / count).collect(), f64::from(loss[0]) / batch.len() as f64))
    }

    fn times(&mut self) -> Option<StageTimes> {
        self.timing.take(&self.card)
    }

    fn memory(&self) -> u64 {
        self.pipeline.bytes() as u64
    }

    fn checksum(&mut self, group: &mut dyn Reduce) -> Result<u64> {
        let outcome = self.sum_up(group);
        let sum = *outcome.as_ref().unwrap_or(&0);
        self.judge(outcome.map(|_| ()), group).map(|()| sum)
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
        self.gmm = state.gmm;
        self.upload(Some((&state.first, &state.second)))
    }
}

impl Drop for CudaDevice {
    fn drop(&mut self) {
        // What is enqueued uses the memory that now goes. After a failure it may never end; then the process does.
        if !self.failed {
            let _ = self.card.stream.synchronize();
            let _ = self.card.copies.synchronize();
        }
    }
}
