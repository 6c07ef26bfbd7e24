//! Comparison of the model with images, without a step.

use cudarc::driver::result;

use super::super::interface::PassRecord;
use super::super::pipeline::Stage;
use super::CudaDevice;
use crate::error::Result;
use crate::render::{Alone, ImageSums, Observation};

impl CudaDevice {
    /// Sums of each image, pass after pass.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn compare_passes(&mut self, batch: &[Observation]) -> Result<Vec<ImageSums>> {
        let (images_at_once, partials) = (self.pipeline.plan.images, self.pipeline.plan.partials());
        let mut sums = Vec::with_capacity(batch.len());
        for images in batch.chunks(images_at_once) {
            let pass = PassRecord { images: images.len() as u32, first: 1, ..PassRecord::default() };
            self.queue.send(&self.gpu, &mut self.pipeline, pass, images, &mut Alone)?;
            self.queue.prepare(&self.gpu, &self.pipeline, images)?;
            self.enqueue(&Stage::COMPARISON)?;
            self.queue.passed(&self.gpu)?;
            let mut parts = vec![[0.0f64; 2]; images.len() * partials];
            let address = self.pipeline.buffers.comparisons.address();
            // SAFETY: the buffer has the partial sums of as many images; the copy is waited for.
            unsafe {
                result::memcpy_dtoh_async(parts.as_flattened_mut(), address, self.gpu.stream.cu_stream())
            }
            .map_err(self.gpu.failed("copy from the device"))?;
            self.gpu.stream.synchronize().map_err(self.gpu.failed("compare"))?;
            sums.extend(parts.chunks_exact(partials).map(|parts| {
                let sum = |which: usize| parts.iter().map(|part| part[which]).sum();
                ImageSums { power: sum(0), overlap: sum(1) }
            }));
        }
        Ok(sums)
    }
}
