//! Sums of `CTF F` and `CTF^2` over images, on the Fourier grid, by trilinear interpolation.
//!
//! The grid is divided into slabs. Whichever thread works on a slab adds the samples of all images in their order, so the sums
//! have the same bits for any number of threads. A slab has one extra plane, for samples between its last plane and the first of
//! the next slab; it is added to the next slab at the end.

use rayon::prelude::*;
use rustfft::num_complex::Complex;

use crate::imaging::Symmetry;
use crate::parallel::Collective;
use crate::simd::{Isa, LANES, Vector, vectorize};
use crate::voxels::slice::{SLAB, Sample, Samples, Slice, SliceExtractor, slabs};
use crate::voxels::sums::{FourierSums, VALUES, is_within_nyquist};
use crate::voxels::symmetry::GridCosets;

/// Padding at the end of a slab: the values of two points are added as one vector of eight lanes.
const TAIL: usize = LANES - 2 * VALUES;
/// Number of pairs of image and symmetric pose that are placed at a time. It bounds memory; sums do not depend on it.
const SAMPLE_SETS: usize = 64;

/// Running sums on the Fourier grid, `[slab][z][y][x][VALUES]`.
pub(crate) struct Accumulator {
    box_size: usize,
    cosets: GridCosets,
    slabs: Vec<Vec<f32>>,
    /// Working memory of [`Accumulator::add`].
    samples: Vec<Samples>,
}

/// Number of grid points along x (0 to D + 1), and along y and z (-D to D + 1).
fn points(box_size: usize) -> [usize; 2] {
    [box_size + 2, 2 * box_size + 2]
}

impl Accumulator {
    /// Zeros, for images of `box_size` pixels along each edge of a specimen with `symmetry`.
    pub fn new(box_size: usize, symmetry: Symmetry) -> Self {
        let plane = plane(box_size);
        let slabs = (0..slabs(box_size)).map(|_| vec![0.0; (SLAB + 1) * plane + TAIL]).collect();
        Self { box_size, cosets: GridCosets::new(symmetry), slabs, samples: Vec::new() }
    }

    /// Memory in bytes.
    pub fn bytes(box_size: usize) -> u64 {
        (slabs(box_size) * ((SLAB + 1) * plane(box_size) + TAIL) * size_of::<f32>()) as u64
    }

    /// Adds the slices of images, made by `extractor`, in the order of the images; each at its symmetric poses.
    pub fn add(&mut self, extractor: &SliceExtractor, slices: &[Slice]) {
        let size = points(self.box_size);
        let poses = &self.cosets.representatives;
        for slices in slices.chunks((SAMPLE_SETS / poses.len()).max(1)) {
            self.samples.resize_with(slices.len() * poses.len(), Samples::default);
            self.samples.par_iter_mut().enumerate().for_each(|(index, samples)| {
                extractor.place(&slices[index / poses.len()], &poses[index % poses.len()], samples);
            });
            let samples = &self.samples;
            self.slabs.par_iter_mut().enumerate().for_each(|(number, slab)| {
                for samples in samples {
                    add_samples(slab, samples.in_slab(number), (number * SLAB) as f32, size);
                }
            });
        }
    }

    /// Sums over the ranks of a group. The result is on its first rank; the values on the others are undefined.
    pub fn reduce_sum(&mut self, group: &mut Collective) {
        self.slabs.iter_mut().for_each(|slab| group.reduce_sum(slab));
    }

    /// The sums on the half space x >= 0, within Nyquist, over all symmetric poses. Each slab is freed once it is copied.
    pub fn finish(self) -> FourierSums {
        let (n, plane) = (self.box_size, plane(self.box_size));
        let width = points(n)[0];
        let mut sums = FourierSums::zero(n);
        let side = sums.side();
        let mut extra = vec![0.0; plane];
        for (number, mut slab) in self.slabs.into_iter().enumerate() {
            slab[..plane].iter_mut().zip(&extra).for_each(|(sum, more)| *sum += more);
            extra.copy_from_slice(&slab[SLAB * plane..][..plane]);
            for (z, values) in (number * SLAB..).zip(slab.chunks_exact(plane).take(SLAB)) {
                // Along y and z, the grid of `FourierSums` begins one point later.
                let Some(z) = z.checked_sub(1).filter(|&z| z < side) else { continue };
                let (data, weight) = sums.plane_mut(z);
                let lines = data.par_chunks_exact_mut(n).zip(weight.par_chunks_exact_mut(n));
                lines.zip(values.par_chunks_exact(width * VALUES).skip(1)).enumerate().for_each(
                    |(y, ((data, weight), values))| {
                        for (x, value) in values.chunks_exact(VALUES).take(n).enumerate() {
                            if is_within_nyquist(n, x, y, z) {
                                data[x] = Complex::new(value[0], value[1]);
                                weight[x] = value[2];
                            }
                        }
                    },
                );
            }
        }
        sums.add_friedel_pairs();
        self.cosets.add_over_grid(sums)
    }
}

/// Number of values in a plane of constant z.
fn plane(box_size: usize) -> usize {
    let [width, height] = points(box_size);
    width * height * VALUES
}

vectorize! {
    /// Adds samples to a slab whose first plane is at z = `origin` and whose planes have `size` points.
    fn add_samples(slab: &mut [f32], samples: &[Sample], origin: f32, size: [usize; 2]) = add_lanes
}

#[inline(always)]
fn add_lanes<I: Isa>(slab: &mut [f32], samples: &[Sample], origin: f32, [width, height]: [usize; 2]) {
    for Sample { place: [x, y, z], values: [re, im, w] } in samples {
        // Coordinates are not negative, so truncation is floor.
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

#[cfg(test)]
mod tests {
    use crate::imaging::View;
    use crate::imaging::ctf::Ctf;
    use crate::imaging::pose::{Rotation, product, rotation_from_relion};
    use crate::voxels::accumulator::*;

    /// A delta function at the origin: its transform is 1 everywhere, for any pose.
    fn delta(n: usize) -> Vec<f32> {
        let mut image = vec![0.0; n * n];
        image[(n / 2) * n + n / 2] = 1.0;
        image
    }

    fn placed(extractor: &SliceExtractor, slices: &[Slice]) -> Vec<Samples> {
        let identity = Symmetry::C1.operators()[0];
        let place = |slice: &Slice| {
            let mut samples = Samples::default();
            extractor.place(slice, &identity, &mut samples);
            samples
        };
        slices.iter().map(place).collect()
    }

    #[test]
    fn a_delta_function_gives_data_equal_to_weights() {
        for n in [8, 9] {
            let extractor = SliceExtractor::new(n, 2.0);
            let mut scratch = extractor.scratch();
            let rotations = [[0.0, 0.0, 0.0], [20.0, 65.0, -130.0], [200.0, 178.0, 11.0]];
            let mut images = vec![Slice::default(); 3];
            for (slice, [rot, tilt, psi]) in images.iter_mut().zip(rotations) {
                let view = View::new(rotation_from_relion(rot, tilt, psi), Ctf::identity());
                extractor.extract(&delta(n), &view, slice, &mut scratch);
                assert!(slice.finite);
            }
            let count: usize = placed(&extractor, &images)
                .iter()
                .flat_map(|s| (0..slabs(n)).map(|slab| s.in_slab(slab).len()))
                .sum();
            let mut sums = Accumulator::new(n, Symmetry::C1);
            sums.add(&extractor, &images);
            let sums = sums.finish();
            let mut weights = 0.0;
            for (value, weight) in sums.data.iter().zip(&sums.weight) {
                assert!((value - Complex::new(*weight, 0.0)).norm() < 1e-4, "{value} {weight}");
                weights += f64::from(*weight);
            }
            // Samples in the plane x = 0 count twice; parts beyond Nyquist do not count.
            assert!(weights > 0.6 * count as f64 && weights < 1.5 * count as f64, "{weights} of {count}");
        }
    }

    /// The reference is in f64, over the whole grid instead of a half space in slabs.
    #[test]
    fn each_sample_and_its_friedel_mate_are_interpolated_to_eight_points() {
        let n = 9;
        let extractor = SliceExtractor::new(n, 2.0);
        let mut scratch = extractor.scratch();
        let mut images = vec![Slice::default(); 4];
        for (i, slice) in images.iter_mut().enumerate() {
            let rotation = rotation_from_relion(70.0 * i as f64, 40.0 * i as f64, 11.0);
            let image: Vec<f32> = (0..n * n).map(|p| ((p * (i + 3) * 7919) % 101) as f32 - 50.0).collect();
            extractor.extract(&image, &View::new(rotation, Ctf::identity()), slice, &mut scratch);
        }
        let width = 2 * n + 4;
        let mut expected = vec![[0.0f64; 3]; width * width * width];
        let samples = placed(&extractor, &images);
        for sample in samples.iter().flat_map(|image| (0..slabs(n)).flat_map(|slab| image.in_slab(slab))) {
            for sign in [1.0, -1.0] {
                let [x, y, z] = sample.place.map(f64::from);
                let place = [x, y - n as f64, z - n as f64].map(|v| sign * v + (n + 2) as f64);
                let [re, im, weight] = sample.values.map(f64::from);
                let cell = place.map(|v| (v.floor() as usize, v - v.floor()));
                for corner in 0..8 {
                    let (mut at, mut share) = (0, 1.0);
                    for (axis, (low, above)) in cell.into_iter().enumerate().rev() {
                        let high = corner >> axis & 1;
                        at = at * width + low + high;
                        share *= if high == 1 { above } else { 1.0 - above };
                    }
                    let sums = &mut expected[at];
                    *sums = [sums[0] + share * re, sums[1] + share * sign * im, sums[2] + share * weight];
                }
            }
        }
        let mut sums = Accumulator::new(n, Symmetry::C1);
        sums.add(&extractor, &images);
        let sums = sums.finish();
        let side = sums.side();
        for (i, (value, &weight)) in sums.data.iter().zip(&sums.weight).enumerate() {
            let (x, y, z) = (i % n, i / n % side, i / n / side);
            let [re, im, w] = match is_within_nyquist(n, x, y, z) {
                true => expected[((z + 3) * width + y + 3) * width + x + n + 2],
                false => [0.0; 3],
            };
            let found = [value.re, value.im, weight].map(f64::from);
            let error = [found[0] - re, found[1] - im, 100.0 * (found[2] - w)];
            assert!(error.iter().all(|v| v.abs() < 2e-2), "{x} {y} {z}: {found:?} and {:?}", [re, im, w]);
        }
    }

    #[test]
    fn sums_have_the_same_bits_for_any_threads_and_batches() {
        let n = 12;
        let extractor = SliceExtractor::new(n, 2.0);
        let mut scratch = extractor.scratch();
        let mut images = vec![Slice::default(); 5];
        for (i, slice) in images.iter_mut().enumerate() {
            let rotation = rotation_from_relion(50.0 * i as f64, 31.0 * i as f64, 7.0);
            let image: Vec<f32> = (0..n * n).map(|p| ((p * (i + 3) * 7919) % 101) as f32 - 50.0).collect();
            extractor.extract(&image, &View::new(rotation, Ctf::identity()), slice, &mut scratch);
        }
        let bits = |symmetry: Symmetry, threads: usize, parts: &[usize]| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut sums = Accumulator::new(n, symmetry);
            let mut rest = &images[..];
            for &count in parts {
                let (some, others) = rest.split_at(count);
                pool.install(|| sums.add(&extractor, some));
                rest = others;
            }
            let sums = sums.finish();
            sums.data.iter().flat_map(|v| [v.re.to_bits(), v.im.to_bits()]).collect::<Vec<u32>>()
        };
        for symmetry in [Symmetry::C1, Symmetry::D(3), Symmetry::I2] {
            let expected = bits(symmetry, 1, &[5]);
            assert!(expected.iter().any(|&v| v != 0));
            assert_eq!(bits(symmetry, 3, &[5]), expected);
            assert_eq!(bits(symmetry, 2, &[1, 3, 1]), expected);
        }
    }

    /// Expanding the images by hand gives the same sums, up to the order of addition.
    #[test]
    fn symmetric_sums_are_those_of_the_expanded_images() {
        let n = 10;
        let extractor = SliceExtractor::new(n, 2.0);
        let mut scratch = extractor.scratch();
        let image: Vec<f32> = (0..n * n).map(|p| ((p * 7919) % 101) as f32 - 50.0).collect();
        let rotation = rotation_from_relion(50.0, 31.0, 7.0);
        let mut at = |rotation: Rotation| {
            let mut slice = Slice::default();
            extractor.extract(&image, &View::new(rotation, Ctf::identity()), &mut slice, &mut scratch);
            slice
        };
        for symmetry in [Symmetry::C(5), Symmetry::D(2), Symmetry::T, Symmetry::O, Symmetry::I1] {
            let mut sums = Accumulator::new(n, symmetry);
            sums.add(&extractor, &[at(rotation)]);
            let sums = sums.finish();
            let expanded: Vec<Slice> =
                symmetry.operators().iter().map(|g| at(product(&rotation, g))).collect();
            let mut expected = Accumulator::new(n, Symmetry::C1);
            expected.add(&extractor, &expanded);
            let expected = expected.finish();
            let largest = expected.data.iter().map(|v| v.norm()).fold(0.0, f32::max);
            for (found, expected) in sums.data.iter().zip(&expected.data) {
                assert!((found - expected).norm() < 1e-5 * largest, "{symmetry}: {found} {expected}");
            }
            for (found, expected) in sums.weight.iter().zip(&expected.weight) {
                assert!(
                    (found - expected).abs() < 1e-4 * expected.max(1.0),
                    "{symmetry}: {found} {expected}"
                );
            }
        }
    }
}
