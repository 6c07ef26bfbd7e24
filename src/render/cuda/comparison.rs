//! The reference in device memory, and the buffers of the fits of images to it and of searches (docs/method.md, section 15).

use std::f64::consts::TAU;

use bytemuck::Pod;
use cudarc::driver::result;

use super::gpu::{Buffer, Gpu};
use super::interface::{Address, FitArguments, FoundRecord, SearchArguments};
use super::pipeline::{Pipeline, THREADS};
use crate::error::Result;
use crate::imaging::pose::Rotation;
use crate::render::fit_sums::SUMS;
use crate::render::reference::frequencies_below;
use crate::render::{OffsetGrid, Reference};

/// Frequencies per block of `fit`.
const FIT_FREQUENCIES: usize = 1024;
/// Largest number of rotations of a launch of `search`.
pub(super) const SEARCH_ROTATIONS: usize = 4096;

/// A reference, and what images are compared with it.
pub(super) struct Comparison {
    fits: Frequencies,
    searches: Frequencies,
    /// Images per pass.
    images: usize,
    reference: Buffer,
    sums: Buffer,
    search: Option<Search>,
}

/// The frequencies below a limit.
struct Frequencies {
    limit: usize,
    count: usize,
    places: Buffer,
    /// First frequency of each kx.
    lines: Buffer,
}

/// The buffers of a search, and its offsets.
struct Search {
    images: Buffer,
    rotations: Buffer,
    phases: Buffer,
    found: Buffer,
    offsets: OffsetGrid,
    offset_penalty: f64,
}

/// Copies from the device, and waits.
fn download<T: Pod>(gpu: &Gpu, address: Address, values: &mut [T]) -> Result<()> {
    let bytes = bytemuck::cast_slice_mut::<T, u8>(values);
    // SAFETY: the callers' buffers are at least as long; the copy is waited for.
    unsafe { result::memcpy_dtoh_async(bytes, address, gpu.stream.cu_stream()) }
        .and_then(|()| gpu.stream.synchronize())
        .map_err(gpu.failed("compare images with the reference"))
}

/// A buffer that holds `values`.
fn uploaded<T: Pod>(gpu: &Gpu, what: &str, values: &[T]) -> Result<Buffer> {
    let buffer = gpu.allocate(what, size_of_val(values))?;
    gpu.upload(&buffer, values)?;
    Ok(buffer)
}

impl Frequencies {
    fn below(gpu: &Gpu, limit: usize) -> Result<Self> {
        let places = frequencies_below(limit);
        let first = |kx: usize| places.partition_point(|place| (place[0] as usize) < kx) as i32;
        let lines: Vec<i32> = (0..=limit).map(first).collect();
        Ok(Self {
            limit,
            count: places.len(),
            places: uploaded(gpu, "frequencies of the reference", &places)?,
            lines: uploaded(gpu, "frequencies of the reference", &lines)?,
        })
    }

    /// Blocks that take `each` of them, at least one.
    fn blocks(&self, each: usize) -> usize {
        self.count.div_ceil(each).max(1)
    }
}

impl Comparison {
    /// Copies the reference to the device, for passes of up to `images` images.
    ///
    /// # Errors
    /// When memory does not suffice, or the driver refuses.
    pub fn new(gpu: &Gpu, reference: &Reference, images: usize) -> Result<Self> {
        let fits = Frequencies::below(gpu, reference.limit)?;
        let partials = fits.blocks(FIT_FREQUENCIES);
        Ok(Self {
            fits,
            searches: Frequencies::below(gpu, reference.search_limit)?,
            images,
            reference: uploaded(gpu, "reference", &reference.values)?,
            sums: gpu.allocate("sums of fits", images * partials * SUMS * size_of::<f64>())?,
            search: None,
        })
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> usize {
        let frequencies = [&self.fits, &self.searches].into_iter().flat_map(|f| [&f.places, &f.lines]);
        let of_search = self.search.iter().flat_map(|s| [&s.images, &s.rotations, &s.phases, &s.found]);
        [&self.reference, &self.sums].into_iter().chain(frequencies).chain(of_search).map(Buffer::bytes).sum()
    }

    /// The sums of [`crate::render::fit_sums`] of the `images` images of the next pass of the ring.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn fit(&self, gpu: &Gpu, pipeline: &Pipeline, images: usize) -> Result<Vec<[f64; SUMS]>> {
        let (resident, staged) = pipeline.targets();
        let arguments = FitArguments {
            ring: pipeline.buffers.ring.address(),
            reference: self.reference.address(),
            places: self.fits.places.address(),
            noise: pipeline.buffers.noise.address(),
            resident,
            staged,
            sums: self.sums.address(),
            frequency_step: pipeline.frequency_step(),
            limit: self.fits.limit as i32,
            frequencies: self.fits.count as i32,
        };
        let partials = self.fits.blocks(FIT_FREQUENCIES);
        // SAFETY: the sums are for as many blocks and images; `places` and `reference` are those of the limit.
        unsafe { pipeline.kernels.fit(gpu, (partials, images), THREADS, &arguments)? };
        let mut parts = vec![[0.0f64; SUMS]; images * partials];
        download(gpu, self.sums.address(), &mut parts)?;
        let sum = |parts: &[[f64; SUMS]]| {
            std::array::from_fn(|which| parts.iter().map(|part| part[which]).sum::<f64>())
        };
        Ok(parts.chunks_exact(partials).map(sum).collect())
    }

    /// Makes the buffers of a search, in place of those of the last one.
    ///
    /// # Errors
    /// When memory does not suffice, or the driver refuses.
    pub fn begin_search(
        &mut self,
        gpu: &Gpu,
        box_size: usize,
        rotations: &[Rotation],
        (offsets, offset_penalty): (&OffsetGrid, f64),
    ) -> Result<()> {
        self.search = None;
        let launch = rotations.len().min(SEARCH_ROTATIONS);
        self.search = Some(Search {
            images: gpu.allocate("images of a search", self.images * self.searches.count * 16)?,
            rotations: uploaded(gpu, "rotations of a search", rotations.as_flattened().as_flattened())?,
            phases: uploaded(gpu, "phases of a search", &phases(offsets, self.searches.limit, box_size))?,
            found: gpu.allocate("candidates of a search", self.images * launch * size_of::<FoundRecord>())?,
            offsets: *offsets,
            offset_penalty,
        });
        Ok(())
    }

    /// Reads the `images` images of the next pass of the ring. [`Comparison::search`] then searches rotations for them.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn observe(&self, gpu: &Gpu, pipeline: &Pipeline, images: usize) -> Result<()> {
        let grid = (self.searches.blocks(THREADS), images);
        // SAFETY: the buffer of the images is for as many, at all frequencies.
        unsafe { pipeline.kernels.observe(gpu, grid, THREADS, &self.search_arguments(pipeline, 0)) }
    }

    /// The best offset of each image at each of `count` rotations from `first` on, `[image][rotation]`, without the penalties of
    /// rotations. At most [`SEARCH_ROTATIONS`].
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn search(
        &self,
        gpu: &Gpu,
        pipeline: &Pipeline,
        images: usize,
        (first, count): (usize, usize),
    ) -> Result<Vec<FoundRecord>> {
        let arguments = self.search_arguments(pipeline, first);
        // SAFETY: the results are for as many images and rotations; the images were read by `observe`.
        unsafe { pipeline.kernels.search(gpu, (count, images), THREADS, &arguments)? };
        let mut found = vec![FoundRecord::default(); images * count];
        download(gpu, arguments.found, &mut found)?;
        Ok(found)
    }

    /// Arguments for rotations from `first` on.
    fn search_arguments(&self, pipeline: &Pipeline, first: usize) -> SearchArguments {
        let search = self.search.as_ref().expect("a search was begun");
        let (resident, staged) = pipeline.targets();
        SearchArguments {
            ring: pipeline.buffers.ring.address(),
            reference: self.reference.address(),
            places: self.searches.places.address(),
            lines: self.searches.lines.address(),
            noise: pipeline.buffers.noise.address(),
            resident,
            staged,
            images: search.images.address(),
            rotations: search.rotations.address() + (first * size_of::<Rotation>()) as u64,
            phases: search.phases.address(),
            found: search.found.address(),
            frequency_step: pipeline.frequency_step(),
            offset_penalty: search.offset_penalty * search.offsets.step.powi(2),
            limit: self.searches.limit as i32,
            frequencies: self.searches.count as i32,
            radius: search.offsets.radius as i32,
            reference_limit: self.fits.limit as i32,
        }
    }
}

/// exp(2 pi i k offset / box) of each step of a grid of offsets, `[step][k]`, for k from 1 - `limit` to `limit` - 1.
fn phases(offsets: &OffsetGrid, limit: usize, box_size: usize) -> Vec<[f32; 2]> {
    let (radius, last) = (offsets.radius as i32, limit as i32 - 1);
    let of_step = |step: i32| {
        let turn = TAU * f64::from(step) * offsets.step / box_size as f64;
        (-last..=last).map(move |k| [f64::cos, f64::sin].map(|of| of(turn * f64::from(k)) as f32))
    };
    (-radius..=radius).flat_map(of_step).collect()
}
