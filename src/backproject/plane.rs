//! An image as samples of the map's transform: where they lie, `CTF F` and `CTF^2`, sorted by the slab of the grid that they
//! fall into.
//!
//! The grid has [`PADDING`] points per Fourier pixel. A real map's transform is Hermitian, so only x >= 0 is kept, and a sample
//! with x < 0 is its mirror image's conjugate.

use rustfft::num_complex::Complex;

use super::PADDING;
use crate::imaging::View;
use crate::imaging::fourier::{Fft2, Fft2Scratch, frequency, shift_phase};

/// Planes of constant z in a slab. Slabs are what threads share out, and what stays in a processor's cache.
pub const SLAB: usize = 4;

/// A value at a place between grid points.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// x, y, z in grid points from the grid's first point; x from 0, y and z from -D.
    pub place: [f32; 3],
    /// Real and imaginary part of `CTF F`, and `CTF^2`.
    pub values: [f32; 3],
}

/// The samples of one image.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    sorted: Vec<Sample>,
    /// Where each slab's begin; one more for the end.
    starts: Vec<u32>,
    /// False where a value is not a finite number.
    pub finite: bool,
    unsorted: Vec<Sample>,
    slabs: Vec<u16>,
}

impl Samples {
    /// Those of slab `slab`.
    pub fn of(&self, slab: usize) -> &[Sample] {
        &self.sorted[self.starts[slab] as usize..self.starts[slab + 1] as usize]
    }
}

/// A point of an image's transform.
struct Point {
    /// Its place in the transform.
    at: usize,
    /// Its frequency in grid points.
    frequency: [f32; 2],
    /// What brings the image's origin to pixel 0.
    phase: Complex<f32>,
}

/// Cuts images of one box. Shared between threads, each with its own [`Scratch`].
pub struct Cutter {
    fft: Fft2<f32>,
    box_size: usize,
    pixel_size: f64,
    /// Those within Nyquist, one of each Hermitian pair.
    points: Vec<Point>,
}

/// What one thread needs to run a [`Cutter`].
pub struct Scratch {
    fft: Fft2Scratch<f32>,
    spectrum: Vec<Complex<f32>>,
    ctf: Vec<f32>,
}

/// Slabs of the grid of images of `box_size` pixels.
pub fn slabs(box_size: usize) -> usize {
    // z runs from -D to D + 1.
    (PADDING * box_size + 2).div_ceil(SLAB)
}

impl Cutter {
    /// For images of `box_size` pixels of `pixel_size` angstrom.
    pub fn new(box_size: usize, pixel_size: f64) -> Self {
        let fft = Fft2::new(box_size);
        let centre = -((box_size / 2) as f64);
        let mut points = Vec::new();
        for column in 0..=box_size / 2 {
            for line in 0..box_size {
                let (kx, ky) = (column as isize, frequency(line, box_size));
                // On the column kx = 0 both of a pair are there.
                let twin = column == 0 && ky < 0;
                if twin || 4 * (kx * kx + ky * ky) >= (box_size * box_size) as isize {
                    continue;
                }
                let phase = shift_phase(kx, ky, centre, centre, box_size);
                points.push(Point {
                    at: column * box_size + line,
                    frequency: [kx, ky].map(|k| (k * PADDING as isize) as f32),
                    phase: Complex::new(phase.re as f32, phase.im as f32),
                });
            }
        }
        Self { fft, box_size, pixel_size, points }
    }

    /// Working memory for one thread.
    pub fn scratch(&self) -> Scratch {
        let length = self.fft.spectrum_len();
        Scratch {
            fft: self.fft.scratch(),
            spectrum: vec![Complex::new(0.0, 0.0); length],
            ctf: vec![0.0; length],
        }
    }

    /// The samples of `image` (box rows of box pixels), seen as `view` says, into `samples`.
    ///
    /// # Panics
    /// If the image has another size.
    pub fn cut(&self, image: &[f32], view: &View, samples: &mut Samples, scratch: &mut Scratch) {
        let Scratch { fft, spectrum, ctf } = scratch;
        let n = self.box_size;
        assert_eq!(image.len(), n * n);
        self.fft.forward(image, n, spectrum, fft);
        view.ctf.half_plane(n, self.pixel_size, ctf);

        // A frequency (kx, ky) of the image is W^T (kx, ky, 0) of the map.
        let [along_x, along_y, _] = view.rotation.map(|row| row.map(|v| v as f32));
        let shift = [0.0, n as f32, n as f32];
        let limit = (n * n) as f32;
        let Samples { sorted, starts, finite, unsorted, slabs: places } = samples;
        starts.clear();
        starts.resize(slabs(n) + 1, 0);
        unsorted.clear();
        places.clear();
        let mut check = 0.0f32;
        for point in &self.points {
            let [kx, ky] = point.frequency;
            let mut place = [0, 1, 2].map(|axis| kx * along_x[axis] + ky * along_y[axis]);
            // A pose is a rotation up to rounding, and the grid ends at Nyquist.
            if place.iter().map(|v| v * v).sum::<f32>() > limit {
                continue;
            }
            let ctf = ctf[point.at];
            let mut value = spectrum[point.at] * point.phase * ctf;
            if place[0] < 0.0 {
                place = place.map(|v| -v);
                value.im = -value.im;
            }
            let place = [0, 1, 2].map(|axis| place[axis] + shift[axis]);
            let values = [value.re, value.im, ctf * ctf];
            // 0 as long as all are finite.
            check += values.iter().map(|v| v * 0.0).sum::<f32>();
            let slab = place[2] as usize / SLAB;
            starts[slab + 1] += 1;
            places.push(slab as u16);
            unsorted.push(Sample { place, values });
        }
        *finite = check == 0.0;
        for slab in 1..starts.len() {
            starts[slab] += starts[slab - 1];
        }
        // Each slab's start moves to its end, which is the next one's start.
        sorted.resize(unsorted.len(), Sample::default());
        for (sample, &slab) in unsorted.iter().zip(&*places) {
            let next = &mut starts[slab as usize];
            sorted[*next as usize] = *sample;
            *next += 1;
        }
        starts.rotate_right(1);
        starts[0] = 0;
    }
}
