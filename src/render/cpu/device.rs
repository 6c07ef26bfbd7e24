//! [`CpuDevice`], the [`Device`] of the CPU.

use std::time::Instant;

use rayon::prelude::*;

use super::activate::Activated;
use super::adam::Adam;
use super::batch::BatchAccumulator;
use super::chain;
use crate::error::Result;
use crate::gmm::{Gmm, Shape};
use crate::imaging::pose::Rotation;
use crate::render::outcome::OutcomeQueue;
use crate::render::{
    Device, DeviceState, Found, Geometry, ImageFit, ImageSums, Observation, OffsetGrid, Outcome, Reduce,
    Reference, StageTimes, Step,
};
use crate::simd::sum_of_squares;

/// The CPU device. Runs on the rayon pool it is called from.
pub struct CpuDevice {
    geometry: Geometry,
    gmm: Gmm,
    adam: Adam,
    activated: Activated,
    /// Whether `activated` is out of date.
    stale: bool,
    sums: BatchAccumulator,
    /// Gradient planes, then the loss.
    buffer: Vec<f32>,
    loss: f64,
    outcomes: OutcomeQueue,
    times: StageTimes,
}

impl CpuDevice {
    /// A device for `gmm`, with zero moments of the optimiser.
    pub fn new(gmm: Gmm, geometry: Geometry) -> Self {
        let (count, values) = (gmm.len(), gmm.values().len());
        Self {
            geometry,
            adam: Adam::new(values),
            activated: Activated::new(count),
            stale: true,
            sums: BatchAccumulator::new(count, geometry),
            buffer: vec![0.0; values + 1],
            loss: 0.0,
            outcomes: OutcomeQueue::default(),
            times: StageTimes::default(),
            gmm,
        }
    }

    /// Memory in bytes of a device for a mixture of `count` Gaussians with `views` views each, in batches of `batch` images on the rayon
    /// pool that this is called from, without the pixels of the images.
    pub(crate) fn bytes_for([count, views]: [usize; 2], shape: Shape, batch: usize) -> u128 {
        // Parameters, two moments, gradient, and the copy of the gradient that a sum over ranks receives.
        let planes = 5 * shape.planes() * size_of::<f32>();
        (planes * count) as u128
            + Activated::bytes_for(count)
            + BatchAccumulator::bytes_for([count, views], batch)
    }

    /// The current mixture.
    pub fn gmm(&self) -> &Gmm {
        &self.gmm
    }

    /// Renders one view without a CTF, `[y][x]`: for tests, benches and pictures.
    pub fn render(&mut self, view: &Rotation) -> Vec<f32> {
        self.activate();
        self.sums.render(self.activated.blocks(), view)
    }

    fn activate(&mut self) {
        if self.stale {
            self.activated.update(&self.gmm);
            self.stale = false;
        }
    }

    /// Writes gradient and loss to the buffer of the all-reduce.
    fn gather(&mut self) {
        let values = self.gmm.values().len();
        let slopes = self.activated.slopes();
        chain::finish(self.gmm.shape(), slopes, self.sums.total(), &mut self.buffer[..values]);
        self.buffer[values] = self.loss as f32;
    }

    /// Renders `batch` and accumulates its gradient and loss.
    fn accumulate(&mut self, batch: &[Observation]) {
        self.activate();
        self.loss = self.sums.accumulate(self.activated.blocks(), batch);
    }
}

impl Device for CpuDevice {
    fn name(&self) -> String {
        let instructions = super::instructions();
        match rayon::current_num_threads() {
            1 => format!("CPU, 1 thread, {instructions}"),
            threads => format!("CPU, {threads} threads, {instructions}"),
        }
    }

    fn join(&mut self, _: &mut dyn Reduce) -> Result<()> {
        Ok(())
    }

    fn prepare(&mut self, images: &mut [f32]) -> Result<()> {
        let filter = self.sums.filter();
        let pixels = self.geometry.box_size.pow(2);
        images
            .par_chunks_exact_mut(pixels)
            .for_each_init(|| filter.clone(), |filter, image| filter.prepare(image));
        Ok(())
    }

    fn reserve(&mut self, _: usize) -> Result<bool> {
        Ok(false)
    }

    fn store(&mut self, _: usize, _: &mut [f32]) -> Result<()> {
        unreachable!("the CPU device keeps no particles")
    }

    fn set_noise_weights(&mut self, groups: &[Vec<f32>]) -> Result<()> {
        self.sums.set_noise_weights(groups);
        Ok(())
    }

    fn compare(&mut self, batch: &[Observation]) -> Result<Vec<ImageSums>> {
        self.activate();
        Ok(self.sums.compare(self.activated.blocks(), batch))
    }

    fn set_reference(&mut self, reference: &Reference) -> Result<()> {
        self.sums.set_reference(reference.clone());
        Ok(())
    }

    fn fit(&mut self, batch: &[Observation]) -> Result<Vec<ImageFit>> {
        Ok(self.sums.fit(batch))
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
        Ok(self.sums.search(batch, (rotations, penalty), (offsets, offset_penalty)))
    }

    fn step(&mut self, batch: &[Observation], step: &Step, group: &mut dyn Reduce) -> Result<()> {
        let start = Instant::now();
        self.accumulate(batch);
        self.gather();
        let computed = Instant::now();
        group.sum(&mut self.buffer)?;
        let reduced = Instant::now();

        let values = self.gmm.values().len();
        let (gradient, loss) = self.buffer.split_at(values);
        let images = step.images as f64;
        self.outcomes.push(Outcome {
            loss: f64::from(loss[0]) / images,
            gradient_norm: sum_of_squares(gradient).sqrt() / images,
        });
        if !self.outcomes.is_broken() {
            self.adam.step(&mut self.gmm, gradient, (1.0 / images) as f32, &step.adam);
            self.stale = true;
        }
        self.times.compute += computed - start;
        self.times.reduce += reduced - computed;
        self.times.update += reduced.elapsed();
        Ok(())
    }

    fn outcomes(&mut self, _: bool, _: &mut dyn Reduce) -> Result<Vec<Outcome>> {
        Ok(self.outcomes.take())
    }

    fn gradient(&mut self, batch: &[Observation]) -> Result<(Vec<f32>, f64)> {
        self.accumulate(batch);
        self.gather();
        let values = self.gmm.values().len();
        let count = batch.len() as f32;
        let gradient = self.buffer[..values].iter().map(|g| g / count).collect();
        Ok((gradient, self.loss / batch.len() as f64))
    }

    fn times(&mut self) -> Option<StageTimes> {
        Some(std::mem::take(&mut self.times))
    }

    fn memory(&self) -> u64 {
        let values = [self.gmm.values(), &self.adam.first[..], &self.adam.second[..], &self.buffer[..]];
        let bytes =
            values.map(size_of_val).iter().sum::<usize>() + self.activated.bytes() + self.sums.bytes();
        bytes as u64
    }

    fn checksum(&mut self, _: &mut dyn Reduce) -> Result<u64> {
        Ok(u64::from(self.gmm.checksum()))
    }

    fn state(&self) -> Result<DeviceState> {
        Ok(DeviceState {
            gmm: self.gmm.clone(),
            first: self.adam.first.clone(),
            second: self.adam.second.clone(),
        })
    }

    fn restore(&mut self, state: DeviceState) -> Result<()> {
        let (count, values) = (state.gmm.len(), state.gmm.values().len());
        if count != self.gmm.len() {
            self.activated = Activated::new(count);
            self.sums.resize(count);
            self.buffer = vec![0.0; values + 1];
        }
        self.adam = Adam { first: state.first, second: state.second };
        self.gmm = state.gmm;
        self.stale = true;
        Ok(())
    }
}
