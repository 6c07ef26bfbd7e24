//! Batched Fourier transforms of images by cuFFT.

use std::ffi::c_int;

use cudarc::cufft::{result, sys};

use super::gpu::{Buffer, Gpu};
use crate::error::{Error, Result};

/// Transforms of real images `[image][y][x]` to half spectra `[image][ky][kx]`, and of projections on their grid to half spectra
/// and back, all without normalisation.
pub(super) struct Transform {
    images: Handle,
    forward: Handle,
    inverse: Handle,
    work: Buffer,
}

/// A cuFFT plan, destroyed when dropped.
struct Handle(sys::cufftHandle);

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: created by `plan`, destroyed only here. A failure has no consequence.
        let _ = unsafe { result::destroy(self.0) };
    }
}

/// Converts an error of cuFFT.
fn failed(gpu: &Gpu, action: &'static str) -> impl FnOnce(result::CufftError) -> Error {
    let device = gpu.name().to_owned();
    move |error| Error::Device {
        device,
        action: action.into(),
        reason: format!("{:?}", error.0),
        remedy: "check the installation of cuFFT; with little free memory, use a smaller --batch".into(),
    }
}

fn plan(gpu: &Gpu, size: usize, images: usize, kind: sys::cufftType) -> Result<(Handle, usize)> {
    let handle = Handle(result::create().map_err(failed(gpu, "plan a Fourier transform"))?);
    let mut size = [size as c_int; 2];
    let null = std::ptr::null_mut();
    // SAFETY: the handle is new, and `size` has two values; null embeddings mean contiguous images.
    let work = unsafe {
        result::set_auto_allocation(handle.0, false).map_err(failed(gpu, "plan a Fourier transform"))?;
        result::make_plan_many(handle.0, 2, size.as_mut_ptr(), null, 1, 0, null, 1, 0, kind, images as c_int)
            .map_err(failed(gpu, "plan a Fourier transform"))?
    };
    // SAFETY: the handle and the stream live as long as the plan is used.
    unsafe { result::set_stream(handle.0, gpu.stream.cu_stream().cast()) }
        .map_err(failed(gpu, "plan a Fourier transform"))?;
    Ok((handle, work))
}

impl Transform {
    /// For batches of `images` images of `box_size` pixels, and as many projections on grids of `grid` points along an edge.
    ///
    /// # Errors
    /// When cuFFT refuses, or its work area does not fit.
    pub fn new(gpu: &Gpu, box_size: usize, grid: usize, images: usize) -> Result<Self> {
        let (of_images, images_work) = plan(gpu, box_size, images, sys::cufftType::CUFFT_R2C)?;
        let (forward, forward_work) = plan(gpu, grid, images, sys::cufftType::CUFFT_R2C)?;
        let (inverse, inverse_work) = plan(gpu, grid, images, sys::cufftType::CUFFT_C2R)?;
        // The transforms run one after another, and share the work area.
        let largest = images_work.max(forward_work).max(inverse_work);
        let work = gpu.allocate("work area of the Fourier transforms", largest)?;
        for handle in [&of_images, &forward, &inverse] {
            // SAFETY: the area is as large as the largest plan needs, and lives as long as the plans.
            unsafe { result::set_work_area(handle.0, work.address() as *mut _) }
                .map_err(failed(gpu, "plan a Fourier transform"))?;
        }
        Ok(Self { images: of_images, forward, inverse, work })
    }

    /// Bytes of the work area.
    pub fn work_bytes(&self) -> usize {
        self.work.bytes()
    }

    /// Enqueues the transform of images at address `images` to spectra at address `spectra`.
    ///
    /// # Errors
    /// When cuFFT refuses.
    ///
    /// # Safety
    /// Both are device memory for as many images as planned.
    pub unsafe fn images(&self, gpu: &Gpu, images: u64, spectra: u64) -> Result<()> {
        // SAFETY: guaranteed by the caller (see `# Safety`).
        unsafe { result::exec_r2c(self.images.0, images as *mut _, spectra as *mut _) }
            .map_err(failed(gpu, "transform images"))
    }

    /// Enqueues the transform of projections at address `projections` to spectra at address `spectra`.
    ///
    /// # Errors
    /// When cuFFT refuses.
    ///
    /// # Safety
    /// Both are device memory for as many projections as planned.
    pub unsafe fn forward(&self, gpu: &Gpu, projections: u64, spectra: u64) -> Result<()> {
        // SAFETY: guaranteed by the caller (see `# Safety`).
        unsafe { result::exec_r2c(self.forward.0, projections as *mut _, spectra as *mut _) }
            .map_err(failed(gpu, "transform projections"))
    }

    /// Enqueues the transform of spectra, which are overwritten, to projections.
    ///
    /// # Errors
    /// When cuFFT refuses.
    ///
    /// # Safety
    /// As [`Transform::forward`].
    pub unsafe fn inverse(&self, gpu: &Gpu, spectra: u64, projections: u64) -> Result<()> {
        // SAFETY: guaranteed by the caller (see `# Safety`).
        unsafe { result::exec_c2r(self.inverse.0, spectra as *mut _, projections as *mut _) }
            .map_err(failed(gpu, "transform projections"))
    }
}
