//! Sums over images on the grid: `CTF F` and `CTF^2` by trilinear interpolation.
//!
//! A slab of the grid takes the samples of all images one after the other, in the order of the images, whichever thread does
//! it: so the sums have the same bits for any number of threads. A slab has one plane more than its own, for samples between
//! its last plane and the next one's first; it is added there at the end.

use rayon::prelude::*;
use rustfft::num_complex::Complex;

use crate::parallel::{Collective, World};
use crate::simd::{Isa, LANES, Vector, vectorize};
use crate::voxels::slice::{SLAB, Sample, Samples, slabs};

/// Numbers at a grid point: real and imaginary part, and weight.
const VALUES: usize = 3;
/// Numbers behind a slab's last: those of two points are added eight at a time.
const TAIL: usize = LANES - 2 * VALUES;

/// Sums as they grow.
pub struct Accumulator {
    box_size: usize,
    slabs: Vec<Vec<f32>>,
}

/// Points of the grid along x, and along y and z: x from 0 to D + 1, y and z from -D to D + 1.
fn points(box_size: usize) -> [usize; 2] {
    [box_size + 2, 2 * box_size + 2]
}

impl Accumulator {
    /// Of no image yet, of images of `box_size` pixels.
    pub fn new(box_size: usize) -> Self {
        let plane = plane(box_size);
        let slabs = (0..slabs(box_size)).map(|_| vec![0.0; (SLAB + 1) * plane + TAIL]).collect();
        Self { box_size, slabs }
    }

    /// Bytes that one takes.
    pub fn bytes(box_size: usize) -> u64 {
        (slabs(box_size) * ((SLAB + 1) * plane(box_size) + TAIL) * size_of::<f32>()) as u64
    }

    /// Adds images, in their order.
    pub fn add(&mut self, images: &[Samples]) {
        let size = points(self.box_size);
        self.slabs.par_iter_mut().enumerate().for_each(|(number, slab)| {
            for image in images {
                add_samples(slab, image.of(number), (number * SLAB) as f32, size);
            }
        });
    }

    /// Adds up over the ranks of a group, on its first; what the others hold is of no use then.
    pub fn reduce_sum(&mut self, group: &mut Collective) {
        self.slabs.iter_mut().for_each(|slab| group.reduce_sum(slab));
    }

    /// The sums on the half space x >= 0, within Nyquist. The slabs go one by one as they are taken over.
    pub fn finish(self) -> Sums {
        let (n, plane) = (self.box_size, plane(self.box_size));
        let width = points(n)[0];
        let mut sums = Sums::zero(n);
        let side = sums.side();
        let mut behind = vec![0.0; plane];
        for (number, mut slab) in self.slabs.into_iter().enumerate() {
            slab[..plane].iter_mut().zip(&behind).for_each(|(sum, more)| *sum += more);
            behind.copy_from_slice(&slab[SLAB * plane..][..plane]);
            for (z, values) in (number * SLAB..).zip(slab.chunks_exact(plane).take(SLAB)) {
                // The grid of the sums begins a point later, along z as along y.
                let Some(z) = z.checked_sub(1).filter(|&z| z < side) else { continue };
                let (data, weight) = sums.plane_mut(z);
                let lines = data.par_chunks_exact_mut(n).zip(weight.par_chunks_exact_mut(n));
                lines.zip(values.par_chunks_exact(width * VALUES).skip(1)).enumerate().for_each(
                    |(y, ((data, weight), values))| {
                        for (x, value) in values.chunks_exact(VALUES).take(n).enumerate() {
                            if inside(n, x, y, z) {
                                data[x] = Complex::new(value[0], value[1]);
                                weight[x] = value[2];
                            }
                        }
                    },
                );
            }
        }
        sums.complete();
        sums
    }
}

/// Numbers of a plane of constant z.
fn plane(box_size: usize) -> usize {
    let [width, height] = points(box_size);
    width * height * VALUES
}

vectorize! {
    /// Adds samples to a slab whose first plane is `origin` and whose planes have `size` points.
    fn add_samples(slab: &mut [f32], samples: &[Sample], origin: f32, size: [usize; 2]) = add_lanes
}

#[inline(always)]
fn add_lanes<I: Isa>(slab: &mut [f32], samples: &[Sample], origin: f32, [width, height]: [usize; 2]) {
    for Sample { place: [x, y, z], values: [re, im, w] } in samples {
        // None is negative: cutting off is rounding down.
        let z = z - origin;
        let (ix, iy, iz) = (*x as usize, *y as usize, z as usize);
        let (fx, fy, fz) = (x - ix as f32, y - iy as f32, z - iz as f32);
        let ex = 1.0 - fx;
        let pair = I::F32::load(&[ex * re, ex * im, ex * w, fx * re, fx * im, fx * w, 0.0, 0.0]);
        let first = ((iz * height + iy) * width + ix) * VALUES;
        for (plane, wz) in [(0, 1.0 - fz), (width * height * VALUES, fz)] {
            for (line, wy) in [(0, 1.0 - fy), (width * VALUES, fy)] {
                let place = &mut slab[first + plane + line..];
                let sum = pair.mul_add(I::F32::splat(wz * wy), I::F32::load(place));
                sum.store(place);
            }
        }
    }
}

/// Sums on the half space x >= 0 of the oversampled grid, 0 from Nyquist on.
#[derive(Clone, Debug)]
pub struct Sums {
    /// D: box of the images in pixels.
    pub box_size: usize,
    /// Sum of `CTF F`, `[z][y][x]`: x from 0 to D - 1, y and z from -(D - 1) to D - 1.
    pub data: Vec<Complex<f32>>,
    /// Sum of `CTF^2`.
    pub weight: Vec<f32>,
}

impl Sums {
    pub(super) fn zero(box_size: usize) -> Self {
        let side = 2 * box_size - 1;
        let length = side * side * box_size;
        Self { box_size, data: vec![Complex::new(0.0, 0.0); length], weight: vec![0.0; length] }
    }

    /// Gives both of each pair of mirror images in the plane x = 0 what either got: a sample is added to one half space.
    fn complete(&mut self) {
        let (n, lines) = (self.box_size, self.side() * self.side());
        for line in 0..=lines / 2 {
            let (one, other) = (line * n, (lines - 1 - line) * n);
            let (value, weight) =
                (self.data[one] + self.data[other].conj(), self.weight[one] + self.weight[other]);
            (self.data[one], self.data[other]) = (value, value.conj());
            (self.weight[one], self.weight[other]) = (weight, weight);
        }
    }

    /// Data and weights of plane `z`.
    fn plane_mut(&mut self, z: usize) -> (&mut [Complex<f32>], &mut [f32]) {
        let plane = self.side() * self.box_size;
        (&mut self.data[z * plane..][..plane], &mut self.weight[z * plane..][..plane])
    }

    /// Sends them to rank `rank`, which takes them by [`Sums::receive`].
    pub fn send(&self, world: &World, rank: usize) {
        let plane = self.side() * self.box_size;
        let mut values = Vec::with_capacity(plane * VALUES);
        for (data, weight) in self.data.chunks_exact(plane).zip(self.weight.chunks_exact(plane)) {
            values.clear();
            values.extend(data.iter().zip(weight).flat_map(|(value, &weight)| [value.re, value.im, weight]));
            world.send_values(rank, &values);
        }
    }

    /// What rank `rank` sends of images of `box_size` pixels.
    pub fn receive(box_size: usize, world: &World, rank: usize) -> Self {
        let mut sums = Self::zero(box_size);
        let mut values = vec![0.0; sums.side() * box_size * VALUES];
        for z in 0..sums.side() {
            world.receive_values(rank, &mut values);
            let (data, weight) = sums.plane_mut(z);
            for ((data, weight), value) in data.iter_mut().zip(weight).zip(values.chunks_exact(VALUES)) {
                (*data, *weight) = (Complex::new(value[0], value[1]), value[2]);
            }
        }
        sums
    }

    /// Points along y and along z.
    pub fn side(&self) -> usize {
        2 * self.box_size - 1
    }

    /// Adds those of other images.
    ///
    /// # Panics
    /// If these have another box.
    pub fn add(&mut self, other: &Self) {
        assert_eq!(self.box_size, other.box_size);
        self.data.par_iter_mut().zip(&other.data).for_each(|(sum, more)| *sum += more);
        self.weight.par_iter_mut().zip(&other.weight).for_each(|(sum, more)| *sum += more);
    }
}

/// Square of the distance from the origin of the point `[z][y][x]` of [`Sums`].
pub fn square(box_size: usize, x: usize, y: usize, z: usize) -> usize {
    let distance = |i: usize| i.abs_diff(box_size - 1);
    x * x + distance(y).pow(2) + distance(z).pow(2)
}

/// Is the point within Nyquist?
pub fn inside(box_size: usize, x: usize, y: usize, z: usize) -> bool {
    square(box_size, x, y, z) < box_size * box_size
}

#[cfg(test)]
mod tests {
    use crate::imaging::View;
    use crate::imaging::ctf::Ctf;
    use crate::imaging::pose::rotation_from_relion;
    use crate::voxels::accumulator::*;
    use crate::voxels::slice::Cutter;

    /// One pixel lit at the origin: its transform is 1 everywhere, whatever the pose.
    fn spike(n: usize) -> Vec<f32> {
        let mut image = vec![0.0; n * n];
        image[(n / 2) * n + n / 2] = 1.0;
        image
    }

    #[test]
    fn what_is_added_is_the_weight_times_the_value_and_all_of_it_stays() {
        for n in [8, 9] {
            let cutter = Cutter::new(n, 2.0);
            let mut scratch = cutter.scratch();
            let rotations = [[0.0, 0.0, 0.0], [20.0, 65.0, -130.0], [200.0, 178.0, 11.0]];
            let mut images = vec![Samples::default(); 3];
            for (samples, [rot, tilt, psi]) in images.iter_mut().zip(rotations) {
                let view = View { rotation: rotation_from_relion(rot, tilt, psi), ctf: Ctf::identity() };
                cutter.cut(&spike(n), &view, samples, &mut scratch);
                assert!(samples.finite);
            }
            let count: usize = images.iter().flat_map(|s| (0..slabs(n)).map(|slab| s.of(slab).len())).sum();
            let mut sums = Accumulator::new(n);
            sums.add(&images);
            let sums = sums.finish();
            let mut weights = 0.0;
            for (value, weight) in sums.data.iter().zip(&sums.weight) {
                assert!((value - Complex::new(*weight, 0.0)).norm() < 1e-4, "{value} {weight}");
                weights += f64::from(*weight);
            }
            // Those of the plane x = 0 count twice, and those that reach beyond Nyquist not at all.
            assert!(weights > 0.6 * count as f64 && weights < 1.5 * count as f64, "{weights} of {count}");
        }
    }

    /// In f64, over the whole grid instead of a half of it in slabs.
    #[test]
    fn each_sample_and_its_mirror_image_go_to_the_eight_points_about_them() {
        let n = 9;
        let cutter = Cutter::new(n, 2.0);
        let mut scratch = cutter.scratch();
        let mut images = vec![Samples::default(); 4];
        for (i, samples) in images.iter_mut().enumerate() {
            let rotation = rotation_from_relion(70.0 * i as f64, 40.0 * i as f64, 11.0);
            let image: Vec<f32> = (0..n * n).map(|p| ((p * (i + 3) * 7919) % 101) as f32 - 50.0).collect();
            cutter.cut(&image, &View { rotation, ctf: Ctf::identity() }, samples, &mut scratch);
        }
        let width = 2 * n + 4;
        let mut expected = vec![[0.0f64; 3]; width * width * width];
        for sample in images.iter().flat_map(|image| (0..slabs(n)).flat_map(|slab| image.of(slab))) {
            for sign in [1.0, -1.0] {
                let [x, y, z] = sample.place.map(f64::from);
                let place = [x, y - n as f64, z - n as f64].map(|v| sign * v + (n + 2) as f64);
                let [re, im, weight] = sample.values.map(f64::from);
                let near = place.map(|v| (v.floor() as usize, v - v.floor()));
                for corner in 0..8 {
                    let (mut at, mut share) = (0, 1.0);
                    for (axis, (low, above)) in near.into_iter().enumerate().rev() {
                        let high = corner >> axis & 1;
                        at = at * width + low + high;
                        share *= if high == 1 { above } else { 1.0 - above };
                    }
                    let sums = &mut expected[at];
                    *sums = [sums[0] + share * re, sums[1] + share * sign * im, sums[2] + share * weight];
                }
            }
        }
        let mut sums = Accumulator::new(n);
        sums.add(&images);
        let sums = sums.finish();
        let side = sums.side();
        for (i, (value, &weight)) in sums.data.iter().zip(&sums.weight).enumerate() {
            let (x, y, z) = (i % n, i / n % side, i / n / side);
            let [re, im, w] = match inside(n, x, y, z) {
                true => expected[((z + 3) * width + y + 3) * width + x + n + 2],
                false => [0.0; 3],
            };
            let found = [value.re, value.im, weight].map(f64::from);
            let apart = [found[0] - re, found[1] - im, 100.0 * (found[2] - w)];
            assert!(apart.iter().all(|v| v.abs() < 2e-2), "{x} {y} {z}: {found:?} and {:?}", [re, im, w]);
        }
    }

    #[test]
    fn parts_of_a_set_add_up_in_any_threads_to_the_same_bits() {
        let n = 12;
        let cutter = Cutter::new(n, 2.0);
        let mut scratch = cutter.scratch();
        let mut images = vec![Samples::default(); 5];
        for (i, samples) in images.iter_mut().enumerate() {
            let rotation = rotation_from_relion(50.0 * i as f64, 31.0 * i as f64, 7.0);
            let image: Vec<f32> = (0..n * n).map(|p| ((p * (i + 3) * 7919) % 101) as f32 - 50.0).collect();
            cutter.cut(&image, &View { rotation, ctf: Ctf::identity() }, samples, &mut scratch);
        }
        let bits = |threads: usize, parts: &[usize]| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut sums = Accumulator::new(n);
            let mut rest = &images[..];
            for &count in parts {
                let (some, others) = rest.split_at(count);
                pool.install(|| sums.add(some));
                rest = others;
            }
            let sums = sums.finish();
            sums.data.iter().flat_map(|v| [v.re.to_bits(), v.im.to_bits()]).collect::<Vec<u32>>()
        };
        let expected = bits(1, &[5]);
        assert!(expected.iter().any(|&v| v != 0));
        assert_eq!(bits(3, &[5]), expected);
        assert_eq!(bits(2, &[1, 3, 1]), expected);
    }
}
