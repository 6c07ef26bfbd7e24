//! Graphs of the stages, captured once and launched at every step.

use cudarc::driver::CudaGraph;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};

use super::super::DeviceSum;
use super::super::interface::PassRecord;
use super::super::pipeline::Stage;
use super::CudaDevice;
use crate::error::{Error, Result};
use crate::render::Reduce;

/// The captured graphs.
pub(super) struct Graphs {
    /// A pass over images.
    pub pass: CudaGraph,
    /// The sum over the ranks, if it is in device memory.
    pub sum: Option<CudaGraph>,
    /// The last pass of a step with everything that ends the step, if all of it is on the device.
    pub step: Option<CudaGraph>,
}

impl CudaDevice {
    /// Captures the graphs, before the first step and after a change of the buffers.
    ///
    /// # Errors
    /// When the device or the group fails.
    pub(super) fn capture(&mut self, group: &mut dyn Reduce) -> Result<()> {
        if self.graphs.is_some() {
            return Ok(());
        }
        if self.pipeline.buffers.resident.is_none() {
            self.pipeline.allocate_staging(&self.gpu)?;
        }
        if !self.loaded {
            self.load_libraries(group)?;
        }
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

    /// Runs a pass without images, outside a capture: libraries load at their first use.
    fn load_libraries(&mut self, group: &mut dyn Reduce) -> Result<()> {
        let empty = PassRecord { first: 1, ..PassRecord::default() };
        self.queue.send(&self.gpu, &mut self.pipeline, empty, &[], group)?;
        self.enqueue(&Stage::PASS)?;
        if let Some(sum) = group.on_device() {
            self.enqueue_sum(sum)?;
        }
        self.queue.passed(&self.gpu)?;
        self.wait_here(group)?;
        self.loaded = true;
        Ok(())
    }

    /// Captures the stages before the sum over the ranks, the sum, and the stages after it.
    fn graph(&self, before: &[Stage], sum: Option<&mut dyn DeviceSum>, after: &[Stage]) -> Result<CudaGraph> {
        let fail = || self.gpu.failed("capture a step");
        self.gpu.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED).map_err(fail())?;
        let enqueued = self
            .enqueue(before)
            .and_then(|()| sum.map_or(Ok(()), |sum| self.enqueue_sum(sum)))
            .and_then(|()| self.enqueue(after));
        let graph = self.gpu.stream.end_capture(CUgraphInstantiate_flags(0));
        enqueued?;
        let graph = graph.map_err(fail())?.ok_or_else(|| Error::Device {
            device: self.gpu.name().to_owned(),
            action: "capture a step".into(),
            reason: "the capture is empty".into(),
            remedy: "this is a bug in cryosplat-mpi or in the driver: report it".into(),
        })?;
        graph.upload().map_err(fail())?;
        Ok(graph)
    }
}
