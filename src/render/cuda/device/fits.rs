//! Images against slices of the reference: fits and searches, pass after pass.

use super::super::comparison::{Comparison, SEARCH_ROTATIONS};
use super::super::interface::PassRecord;
use super::CudaDevice;
use crate::error::Result;
use crate::imaging::pose::Rotation;
use crate::render::fit_sums::fit_of;
use crate::render::{Alone, Found, ImageFit, Observation, OffsetGrid, Reference};

impl CudaDevice {
    /// Replaces the reference.
    ///
    /// # Errors
    /// When the device fails, or its memory does not suffice.
    pub(super) fn replace_reference(&mut self, reference: &Reference) -> Result<()> {
        // The old one may take most of the memory.
        self.comparison = None;
        self.comparison = Some(Comparison::new(&self.gpu, reference, self.pipeline.plan.images)?);
        Ok(())
    }

    fn comparison(&self) -> &Comparison {
        self.comparison.as_ref().expect("a reference is set before images are fitted")
    }

    /// Sends `batch` in passes, and calls `compare` for each while its targets are on the device.
    fn each_comparison(
        &mut self,
        batch: &[Observation],
        mut compare: impl FnMut(&Self, &[Observation]) -> Result<()>,
    ) -> Result<()> {
        for images in batch.chunks(self.pipeline.plan.images) {
            let pass = PassRecord { images: images.len() as u32, ..PassRecord::default() };
            self.queue.send(&self.gpu, &mut self.pipeline, pass, images, &mut Alone)?;
            self.queue.prepare(&self.gpu, &self.pipeline, images)?;
            compare(self, images)?;
            self.queue.dropped(&self.gpu)?;
        }
        Ok(())
    }

    /// Fits each image of `batch`.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn fit_passes(&mut self, batch: &[Observation]) -> Result<Vec<ImageFit>> {
        let box_size = self.pipeline.geometry.box_size;
        let mut fits = Vec::with_capacity(batch.len());
        self.each_comparison(batch, |device, images| {
            let sums = device.comparison().fit(&device.gpu, &device.pipeline, images.len())?;
            fits.extend(sums.iter().zip(images).map(|(sums, image)| fit_of(sums, image.contrast, box_size)));
            Ok(())
        })?;
        Ok(fits)
    }

    /// The best of many poses and offsets of each image of `batch`.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn search_passes(
        &mut self,
        batch: &[Observation],
        (rotations, penalty): (&[Rotation], &[f64]),
        offsets: (&OffsetGrid, f64),
    ) -> Result<Vec<Found>> {
        let box_size = self.pipeline.geometry.box_size;
        let comparison = self.comparison.as_mut().expect("a reference is set before images are fitted");
        comparison.begin_search(&self.gpu, box_size, rotations, offsets)?;
        let mut all = Vec::with_capacity(batch.len());
        self.each_comparison(batch, |device, images| {
            let none = Found { rotation: 0, offset: [0, 0], gain: f64::NEG_INFINITY };
            let mut best = vec![none; images.len()];
            let comparison = device.comparison();
            comparison.observe(&device.gpu, &device.pipeline, images.len())?;
            for first in (0..rotations.len()).step_by(SEARCH_ROTATIONS) {
                let count = (rotations.len() - first).min(SEARCH_ROTATIONS);
                let found = comparison.search(&device.gpu, &device.pipeline, images.len(), (first, count))?;
                for (best, found) in best.iter_mut().zip(found.chunks_exact(count)) {
                    for (found, rotation) in found.iter().zip(first..) {
                        let gain = found.gain - penalty[rotation];
                        // The smallest number: no gain was a number.
                        if gain > best.gain && found.gain > -f64::MAX {
                            *best = Found { rotation, offset: [found.x, found.y], gain };
                        }
                    }
                }
            }
            all.extend(best);
            Ok(())
        })?;
        Ok(all)
    }
}
