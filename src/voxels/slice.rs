//! An image as a slice of the map's transform: the values `CTF F` and `CTF^2`, which a pose places on the grid as samples sorted by
//! slab.
//!
//! The grid has [`PADDING`] points per Fourier pixel. A real map's transform is Hermitian, so only x >= 0 is stored: a sample
//! with x < 0 is replaced by its Friedel mate, the complex conjugate at the opposite point.

use std::ops::Range;

use rustfft::num_complex::Complex;

use crate::imaging::View;
use crate::imaging::fourier::{Fft2, Fft2Scratch, frequency, shift_phase};
use crate::imaging::pose::{Rotation, product};
use crate::imaging::projection::Projector;
use crate::voxels::PADDING;

/// Planes of constant z per slab. Each task works on one slab, which fits a core's cache.
pub(crate) const SLAB: usize = 4;

/// A value between grid points.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// x, y, z in grid points from the first grid point, which is at (0, -D, -D).
    pub place: [f32; 3],
    /// Real part of `CTF F`, imaginary part, and `CTF^2`.
    pub values: [f32; 3],
}

/// The values of one image, in its own plane.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slice {
    /// Real part of `CTF F`, imaginary part, and `CTF^2`, for each of the extractor's points.
    values: Vec<[f32; 3]>,
    /// The pose W. Its first two rows span the plane.
    rotation: Rotation,
    /// Whether all values are finite.
    pub finite: bool,
}

/// The samples of one image at one pose.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    sorted: Vec<Sample>,
    /// Index of the first sample of each slab, and of the end.
    starts: Vec<u32>,
    unsorted: Vec<Sample>,
    /// Slab of each unsorted sample.
    slabs: Vec<u16>,
}

impl Samples {
    /// The samples in slab `slab`.
    pub fn in_slab(&self, slab: usize) -> &[Sample] {
        &self.sorted[self.starts[slab] as usize..self.starts[slab + 1] as usize]
    }
}

/// A point of an image's transform.
struct Point {
    /// Index in the transform.
    at: usize,
    /// Frequency in grid points.
    frequency: [f32; 2],
    /// Phase factor that shifts the image's origin to pixel 0.
    phase: Complex<f32>,
}

/// Computes slices from images of one box size. Shared between threads, each with its own [`Scratch`].
pub(crate) struct SliceExtractor {
    fft: Fft2<f32>,
    box_size: usize,
    pixel_size: f64,
    /// The points within Nyquist, one of each Friedel pair.
    points: Vec<Point>,
}

/// Working memory of one thread for a [`SliceExtractor`].
pub(crate) struct Scratch {
    fft: Fft2Scratch<f32>,
    spectrum: Vec<Complex<f32>>,
    ctf: Vec<f32>,
    /// Phase factors that centre an image along x, by column of the spectrum, and along y, by its line.
    centring: [Vec<Complex<f64>>; 2],
}

/// Number of slabs of the grid, for images of `box_size` pixels.
pub(crate) fn slabs(box_size: usize) -> usize {
    // z runs from -D to D + 1.
    (PADDING * box_size + 2).div_ceil(SLAB)
}

impl SliceExtractor {
    /// For images of `box_size` pixels along each edge, of `pixel_size` angstrom.
    pub fn new(box_size: usize, pixel_size: f64) -> Self {
        let fft = Fft2::new(box_size);
        let centre = -((box_size / 2) as f64);
        let mut points = Vec::new();
        for column in 0..=box_size / 2 {
            for line in 0..box_size {
                let (kx, ky) = (column as isize, frequency(line, box_size));
                // The column kx = 0 holds both points of each Friedel pair.
                let is_mate = column == 0 && ky < 0;
                if is_mate || 4 * (kx * kx + ky * ky) >= (box_size * box_size) as isize {
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
            centring: Default::default(),
        }
    }

    /// Computes the slice of `image` (`[y][x]`, D pixels each), whose pose, CTF and offset are in `view`. The image is moved by minus the
    /// offset.
    ///
    /// # Panics
    /// If the image has another size.
    pub fn extract(&self, image: &[f32], view: &View, slice: &mut Slice, scratch: &mut Scratch) {
        let Scratch { fft, spectrum, ctf, centring } = scratch;
        let n = self.box_size;
        assert_eq!(image.len(), n * n);
        self.fft.forward(image, n, spectrum, fft);
        if view.offset != [0.0; 2] {
            self.centre(spectrum, view.offset, centring);
        }
        view.ctf.half_plane(n, self.pixel_size, ctf);
        slice.rotation = view.rotation;
        slice.values.clear();
        // Images that were multiplied by their CTF already are not multiplied again.
        let premultiplied = view.ctf.coefficients().premultiplied;
        let mut check = 0.0f32;
        slice.values.extend(self.points.iter().map(|point| {
            let ctf = ctf[point.at];
            let value = spectrum[point.at] * point.phase * if premultiplied { 1.0 } else { ctf };
            let values = [value.re, value.im, ctf * ctf];
            // Stays 0 while all values are finite.
            check += values.iter().map(|v| v * 0.0).sum::<f32>();
            values
        }));
        slice.finite = check == 0.0;
    }

    /// Moves the image whose transform is `spectrum` by minus `offset` pixels. The phase factors go to `centring`.
    fn centre(
        &self,
        spectrum: &mut [Complex<f32>],
        offset: [f64; 2],
        [columns, lines]: &mut [Vec<Complex<f64>>; 2],
    ) {
        let n = self.box_size;
        columns.clear();
        columns.extend((0..=n / 2).map(|kx| shift_phase(kx as isize, 0, -offset[0], 0.0, n)));
        lines.clear();
        lines.extend((0..n).map(|line| shift_phase(0, frequency(line, n), 0.0, -offset[1], n)));
        for Point { at, .. } in &self.points {
            let phase = columns[at / n] * lines[at % n];
            spectrum[*at] *= Complex::new(phase.re as f32, phase.im as f32);
        }
    }

    /// Compares an image, as `slice`, with the projection X of a map at its pose, times its CTF: the sums of Re(X* Y) and of |X|² over one
    /// frequency of each Friedel pair, from `shells.start` to below `shells.end` cycles per box.
    pub fn compare(&self, slice: &Slice, map: &Projector, shells: &Range<usize>) -> [f64; 2] {
        let [along_x, along_y, _] = &slice.rotation;
        let [start, end] = [shells.start, shells.end].map(|shell| (PADDING * shell) as f32);
        let mut sums = [0.0; 2];
        for (&[re, im, square], point) in slice.values.iter().zip(&self.points) {
            let [kx, ky] = point.frequency;
            if !(start * start..end * end).contains(&(kx * kx + ky * ky)) {
                continue;
            }
            let [kx, ky] = [kx, ky].map(|k| f64::from(k) / PADDING as f64);
            let value = map.at(std::array::from_fn(|axis| kx * along_x[axis] + ky * along_y[axis]));
            sums[0] += f64::from(value.re * re + value.im * im);
            sums[1] += f64::from(square * value.norm_sqr());
        }
        sums
    }

    /// Multiplies the sums of `slice` by the noise weights `weights` of its image: of the shell round(|k|), k in cycles per box. The last
    /// value holds for all shells beyond.
    pub fn weigh(&self, slice: &mut Slice, weights: &[f32]) {
        for (values, point) in slice.values.iter_mut().zip(&self.points) {
            let [kx, ky] = point.frequency;
            let shell = (kx.hypot(ky) / PADDING as f32).round() as usize;
            let weight = weights[shell.min(weights.len() - 1)];
            values.iter_mut().for_each(|value| *value *= weight);
        }
    }

    /// Places `slice` on the grid at the pose W `operator`.
    pub fn place(&self, slice: &Slice, operator: &Rotation, samples: &mut Samples) {
        let n = self.box_size;
        // Frequency (kx, ky) of the image is frequency W^T (kx, ky, 0) of the map.
        let [along_x, along_y, _] = product(&slice.rotation, operator).map(|row| row.map(|v| v as f32));
        let shift = [0.0, n as f32, n as f32];
        let limit = (n * n) as f32;
        let Samples { sorted, starts, unsorted, slabs: slab_of } = samples;
        starts.clear();
        starts.resize(slabs(n) + 1, 0);
        unsorted.clear();
        slab_of.clear();
        for (point, &[re, im, weight]) in self.points.iter().zip(&slice.values) {
            let [kx, ky] = point.frequency;
            let mut place = [0, 1, 2].map(|axis| kx * along_x[axis] + ky * along_y[axis]);
            // By rounding of the pose, a point can lie beyond Nyquist, outside the grid.
            if place.iter().map(|v| v * v).sum::<f32>() > limit {
                continue;
            }
            let mut values = [re, im, weight];
            if place[0] < 0.0 {
                place = place.map(|v| -v);
                values[1] = -im;
            }
            let place = [0, 1, 2].map(|axis| place[axis] + shift[axis]);
            let slab = place[2] as usize / SLAB;
            starts[slab + 1] += 1;
            slab_of.push(slab as u16);
            unsorted.push(Sample { place, values });
        }
        for slab in 1..starts.len() {
            starts[slab] += starts[slab - 1];
        }
        // A counting sort: each slab's start advances to its end, the start of the next slab.
        sorted.resize(unsorted.len(), Sample::default());
        for (sample, &slab) in unsorted.iter().zip(&*slab_of) {
            let next = &mut starts[slab as usize];
            sorted[*next as usize] = *sample;
            *next += 1;
        }
        starts.rotate_right(1);
        starts[0] = 0;
    }
}

#[cfg(test)]
mod tests {
    use crate::imaging::ctf::{Ctf, CtfParameters, Optics};
    use crate::imaging::pose::{rotation_from_relion, transposed};
    use crate::voxels::slice::*;
    use std::f64::consts::TAU;

    #[test]
    fn samples_are_the_transform_about_the_centre_times_the_ctf_in_the_plane_of_the_pose() {
        let optics = Optics::new(300.0, 2.7, 0.1);
        let (defocus_u, defocus_v) = (9000.0, 7000.0);
        let particle =
            CtfParameters { defocus_u, defocus_v, astigmatism_angle: 25.0, ..CtfParameters::default() };
        let (ctf, pixel_size) = (Ctf::new(&optics, &particle), 2.0);
        for n in [8, 9] {
            let rotation = rotation_from_relion(30.0, 70.0, -110.0);
            let image: Vec<f32> = (0..n * n).map(|p| ((p * 7919) % 101) as f32 - 50.0).collect();
            let extractor = SliceExtractor::new(n, pixel_size);
            let (mut slice, mut samples) = (Slice::default(), Samples::default());
            // The pose is split into a pose and an operator.
            let operator = rotation_from_relion(-20.0, 35.0, 80.0);
            let view = View::new(product(&rotation, &transposed(&operator)), ctf);
            extractor.extract(&image, &view, &mut slice, &mut extractor.scratch());
            assert!(slice.finite);
            extractor.place(&slice, &operator, &mut samples);
            let mut found = std::collections::BTreeSet::new();
            for (slab, sample) in (0..slabs(n)).flat_map(|s| samples.in_slab(s).iter().map(move |v| (s, v))) {
                let [x, y, z] = sample.place.map(f64::from);
                assert!(x >= 0.0 && (slab * SLAB..(slab + 1) * SLAB).contains(&(z as usize)));
                let place = [x, y - n as f64, z - n as f64];
                let [kx, ky, kz] =
                    rotation.map(|row| row.iter().zip(place).map(|(w, p)| w * p).sum::<f64>() / 2.0);
                assert!(kz.abs() < 1e-5 && (kx - kx.round()).abs() < 1e-5 && (ky - ky.round()).abs() < 1e-5);
                let (kx, ky) = (kx.round(), ky.round());
                // Either point of a Friedel pair.
                found.insert((kx as i32, ky as i32).max((-kx as i32, -ky as i32)));
                let transform: Complex<f64> = (0..n * n)
                    .map(|p| {
                        let [x, y] = [p % n, p / n].map(|v| v as f64 - (n / 2) as f64);
                        Complex::from_polar(f64::from(image[p]), -TAU * (kx * x + ky * y) / n as f64)
                    })
                    .sum();
                let edge = n as f64 * pixel_size;
                let h = ctf.at(kx / edge, ky / edge);
                let [re, im, weight] = sample.values.map(f64::from);
                assert!((transform * h - Complex::new(re, im)).norm() < 1e-3, "{kx} {ky}");
                assert!((h * h - weight).abs() < 1e-5);
            }
            let limit = n as i32;
            let all = (-limit..=limit).flat_map(|kx| (-limit..=limit).map(move |ky| (kx, ky)));
            let within = all.filter(|(kx, ky)| 4 * (kx * kx + ky * ky) < limit * limit).count();
            // One point of each Friedel pair, and none missing.
            assert_eq!(found.len(), within.div_ceil(2), "{n}");
            assert_eq!(samples.sorted.len(), found.len());
        }
    }
}
