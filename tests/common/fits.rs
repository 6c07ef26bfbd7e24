//! Fits of images to slices of a reference, and searches, against direct sums in f64 with derivatives by finite differences. Shares no
//! code with the devices but the CTF, which has its own tests.

// Each test file is a separate crate and uses only some of these.
#![allow(dead_code)]

use std::f64::consts::TAU;

use cryosplat_mpi::gmm::{Gmm, Shape};
use cryosplat_mpi::imaging::ctf::{Ctf, CtfParameters, EvenPolynomial, Optics};
use cryosplat_mpi::imaging::pose::{Rotation, product, rotation_from_quaternion, rotation_from_vector};
use cryosplat_mpi::render::reference::{
    CONTRAST, DEFOCUS, DEFOCUS_UNIT, OFFSET, PARAMETERS, REFERENCE_MARGIN, REFERENCE_PADDING,
};
use cryosplat_mpi::render::{
    Device, Found, Geometry, ImageFit, Observation, OffsetGrid, Reference, Sampling, Symmetry, Target, View,
    Weights, energy,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use rustfft::num_complex::Complex;

type Value = Complex<f64>;

/// A round Gaussian: mean and standard deviation in box units, and amplitude.
struct Blob {
    mean: [f64; 3],
    deviation: f64,
    amplitude: f64,
}

/// An image and what is known of it.
#[derive(Clone)]
pub struct FitImage {
    rotation: Rotation,
    optics: Optics,
    particle: CtfParameters,
    offset: [f64; 2],
    contrast: f64,
    noise_group: usize,
    pub observed: Vec<f32>,
    /// Its unnormalised transform about pixel floor(D/2), at the frequencies of the case.
    transform: Vec<Value>,
}

pub struct FitCase {
    box_size: usize,
    blobs: Vec<Blob>,
    pub images: Vec<FitImage>,
    pub noise_weights: Vec<Vec<f32>>,
    pub reference: Reference,
}

const PIXEL_SIZE: f64 = 3.1;

/// Four images of a few Gaussians: a plain one; one with offset, contrast and another noise group; one that is multiplied by its CTF;
/// and one with aberrations and an anisotropic magnification.
pub fn fit_case(seed: u64, box_size: usize, limit: usize) -> FitCase {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut uniform = move || 2.0 * random.random::<f64>() - 1.0;
    let blobs: Vec<Blob> = (0..6)
        .map(|_| Blob {
            mean: [0; 3].map(|_| 0.08 * uniform()),
            deviation: 0.035 + 0.01 * uniform(),
            amplitude: 0.01 + 0.005 * uniform(),
        })
        .collect();
    let images = (0..4)
        .map(|k| {
            let mut optics = Optics::new(300.0, 2.7, 0.1);
            let mut particle = CtfParameters {
                defocus_u: 12_000.0 + 900.0 * k as f64,
                defocus_v: 11_500.0,
                astigmatism_angle: 35.0,
                phase_shift: 8.0 * k as f64,
                ..CtfParameters::default()
            };
            optics.premultiplied = k == 2;
            let pose = rotation_from_quaternion([0; 4].map(|_| uniform()));
            let mut rotation = pose;
            if k == 3 {
                optics.even = EvenPolynomial([0.1, 30.0, -50.0, 20.0, 900.0, -700.0, 600.0, 800.0, -300.0]);
                optics.magnification = [[1.02, 0.015], [-0.01, 0.97]];
                particle = CtfParameters { b_factor: 60.0, scale: 0.8, ..particle };
                let [along_x, along_y] = optics.magnification;
                for (row, (mx, my)) in rotation.iter_mut().zip(along_x.into_iter().zip(along_y)) {
                    *row = std::array::from_fn(|i| mx * pose[0][i] + my * pose[1][i]);
                }
            }
            let (offset, contrast) = if k == 0 {
                ([0.0; 2], 1.0)
            } else {
                ([2.0 * uniform(), 2.0 * uniform()], 0.7 + 0.2 * k as f64)
            };
            let (observed, transform) = (Vec::new(), Vec::new());
            FitImage { rotation, optics, particle, offset, contrast, noise_group: k % 2, observed, transform }
        })
        .collect();
    let weights = |shells: usize, depth: f32| {
        (0..shells).map(|shell| 1.0 + depth * (0.8 * shell as f32).sin()).collect::<Vec<_>>()
    };
    let reference = Reference { limit, search_limit: limit - 2, values: Vec::new() };
    let mut case = FitCase {
        box_size,
        blobs,
        images,
        noise_weights: vec![weights(box_size, 0.6), weights(5, -0.9)],
        reference,
    };
    case.observe(seed);
    case.reference.values = case.coefficients();
    case
}

/// A place in parameter space: distances from an image's own view, in the order of [`PARAMETERS`].
type Step = [f64; PARAMETERS];

impl FitCase {
    /// The transform of the blobs at `k`, in cycles per box, in the scale of an unnormalised transform of D^2 pixels.
    fn exact(&self, k: [f64; 3]) -> Value {
        let k2: f64 = k.iter().map(|k| k * k).sum();
        let of_blob = |blob: &Blob| {
            let along: f64 = k.iter().zip(blob.mean).map(|(k, x)| k * x).sum();
            Value::from_polar(
                blob.amplitude * (-0.5 * (TAU * blob.deviation).powi(2) * k2).exp(),
                -TAU * along,
            )
        };
        self.blobs.iter().map(of_blob).sum::<Value>() * (self.box_size as f64).powi(2)
    }

    /// Coefficients of the spline through the transform: along each axis, sums with the powers of the pole of the inverse filter.
    fn coefficients(&self) -> Vec<f32> {
        const TERMS: i32 = 14;
        let pole = 3.0f64.sqrt() - 2.0;
        let filter: Vec<f64> = (-TERMS..=TERMS).map(|n| 3.0f64.sqrt() * pole.powi(n.abs())).collect();
        let (reach, margin) = (self.reference.reach() as i32, REFERENCE_MARGIN as i32);
        let first = [-reach, -reach, -margin];
        // z, y, x: the first axis shrinks, and becomes the last.
        let mut sizes = [self.reference.side(), self.reference.side(), self.reference.width()];
        let wide = sizes.map(|size| size + filter.len() - 1);
        let place =
            |axis: usize, i: usize| f64::from(first[axis] - TERMS + i as i32) / REFERENCE_PADDING as f64;
        let mut values: Vec<Value> = Vec::new();
        for z in 0..wide[0] {
            for y in 0..wide[1] {
                values.extend((0..wide[2]).map(|x| self.exact([place(2, x), place(1, y), place(0, z)])));
            }
        }
        let mut lengths = wide;
        for _ in 0..3 {
            let inner = lengths[1] * lengths[2];
            let mut next = vec![Value::default(); inner * sizes[0]];
            for (at, place) in next.iter_mut().enumerate() {
                let (rest, i) = (at / sizes[0], at % sizes[0]);
                *place = filter.iter().enumerate().map(|(n, f)| values[(i + n) * inner + rest] * f).sum();
            }
            values = next;
            lengths = [lengths[1], lengths[2], sizes[0]];
            sizes.rotate_left(1);
        }
        values.iter().flat_map(|value| [value.re as f32, value.im as f32]).collect()
    }

    /// The spline at `k`, in cycles per box.
    fn spline(&self, k: [f64; 3]) -> Value {
        let (reach, margin) = (self.reference.reach() as i64, REFERENCE_MARGIN as i64);
        let sign = if k[0] < 0.0 { -1.0 } else { 1.0 };
        let at = k.map(|k| sign * k * REFERENCE_PADDING as f64);
        let weight = |distance: f64| match distance.abs() {
            d if d < 1.0 => 2.0 / 3.0 - d * d + d.powi(3) / 2.0,
            d if d < 2.0 => (2.0 - d).powi(3) / 6.0,
            _ => 0.0,
        };
        let taps = at.map(|at| (-1..3).map(move |i| at.floor() as i64 + i));
        let mut sum = Value::default();
        for z in taps[2].clone() {
            for y in taps[1].clone() {
                for x in taps[0].clone() {
                    let w = weight(at[0] - x as f64) * weight(at[1] - y as f64) * weight(at[2] - z as f64);
                    let row = (z + reach) as usize * self.reference.side() + (y + reach) as usize;
                    let place = 2 * (row * self.reference.width() + (x + margin) as usize);
                    let [re, im] = [0, 1].map(|part| f64::from(self.reference.values[place + part]));
                    sum += Value::new(re, im) * w;
                }
            }
        }
        Value::new(sum.re, sign * sum.im)
    }

    /// All frequencies of a fit: both of each Friedel pair.
    fn frequencies(&self) -> impl Iterator<Item = [i64; 2]> + use<> {
        let limit = self.reference.limit as i64;
        let all = (1 - limit..limit).flat_map(move |x| (1 - limit..limit).map(move |y| [x, y]));
        all.filter(move |[x, y]| (1..limit * limit).contains(&(x * x + y * y)))
    }

    /// X of an image at a distance from its view: H and the slice at the frequencies; for an image that is multiplied by its CTF, H
    /// apart.
    fn model(&self, image: &FitImage, step: &Step, spline: bool) -> Vec<Value> {
        let rotation = product(&image.rotation, &rotation_from_vector([step[0], step[1], step[2]]));
        let defocus = DEFOCUS_UNIT * step[DEFOCUS];
        let ctf = Ctf::new(
            &image.optics,
            &CtfParameters {
                defocus_u: image.particle.defocus_u + defocus,
                defocus_v: image.particle.defocus_v + defocus,
                ..image.particle
            },
        );
        let frequency = 1.0 / (self.box_size as f64 * PIXEL_SIZE);
        let contrast = image.contrast + step[CONTRAST];
        self.frequencies()
            .map(|[x, y]| {
                let (x, y) = (x as f64, y as f64);
                let k = std::array::from_fn(|i| x * rotation[0][i] + y * rotation[1][i]);
                let slice = if spline { self.spline(k) } else { self.exact(k) };
                let [dx, dy] = [0, 1].map(|i| image.offset[i] + step[OFFSET + i]);
                let phase = Value::from_polar(contrast, -TAU * (x * dx + y * dy) / self.box_size as f64);
                slice * phase * ctf.at(x * frequency, y * frequency)
            })
            .collect()
    }

    /// The unnormalised transform of an image about pixel floor(D/2).
    fn transform(&self, observed: &[f32]) -> Vec<Value> {
        let n = self.box_size;
        let wave = |k: i64, i: usize| {
            Value::from_polar(1.0, -TAU * k as f64 * (i as f64 - (n / 2) as f64) / n as f64)
        };
        self.frequencies()
            .map(|[kx, ky]| {
                let of_row = |i: usize| {
                    let row = (0..n).map(|j| wave(kx, j) * f64::from(observed[i * n + j]));
                    row.sum::<Value>() * wave(ky, i)
                };
                (0..n).map(of_row).sum()
            })
            .collect()
    }

    /// Observes each image near its view, with noise.
    fn observe(&mut self, seed: u64) {
        let mut random = ChaCha8Rng::seed_from_u64(seed + 1);
        let n = self.box_size;
        for k in 0..self.images.len() {
            let image = &self.images[k];
            let step = [0.05, -0.03, 0.04, 0.3, -0.4, 0.02, 0.1];
            let mut values = self.model(image, &step, false);
            let factor = |[x, y]: [i64; 2]| {
                let step = 1.0 / (n as f64 * PIXEL_SIZE);
                Ctf::new(&image.optics, &image.particle).at(x as f64 * step, y as f64 * step)
            };
            if image.optics.premultiplied {
                values.iter_mut().zip(self.frequencies()).for_each(|(value, k)| *value *= factor(k));
            }
            let wave = |k: i64, i: usize| TAU * k as f64 * (i as f64 - (n / 2) as f64) / n as f64;
            let pixel = |at: usize| {
                let of = |([kx, ky], value): ([i64; 2], &Value)| {
                    (value * Value::from_polar(1.0, wave(kx, at % n) + wave(ky, at / n))).re
                };
                self.frequencies().zip(&values).map(of).sum::<f64>() / (n * n) as f64
            };
            let observed: Vec<f32> = (0..n * n)
                .map(|at| (pixel(at) + 0.05 * random.sample::<f64, _>(StandardNormal)) as f32)
                .collect();
            self.images[k].transform = self.transform(&observed);
            self.images[k].observed = observed;
        }
    }

    /// Noise weights of an image at the frequencies.
    fn weights(&self, image: &FitImage) -> Vec<f64> {
        let group = &self.noise_weights[image.noise_group];
        let shell = |[x, y]: [i64; 2]| ((x * x + y * y) as f64).sqrt().round() as usize;
        self.frequencies().map(|k| f64::from(group[shell(k).min(group.len() - 1)])).collect()
    }

    /// The sum over the frequencies of w conj(a) b, in the unit of energies.
    fn dot(&self, weights: &[f64], a: &[Value], b: &[Value]) -> f64 {
        let sum: f64 = weights.iter().zip(a.iter().zip(b)).map(|(w, (a, b))| w * (a.conj() * b).re).sum();
        sum / (self.box_size as f64).powi(2)
    }

    /// What takes the place of `values`, X or its derivatives, in products with the image: 1/H times them where the image is multiplied by
    /// its CTF.
    fn partner(&self, image: &FitImage, values: Vec<Value>) -> Vec<Value> {
        if !image.optics.premultiplied {
            return values;
        }
        let step = 1.0 / (self.box_size as f64 * PIXEL_SIZE);
        let ctf = Ctf::new(&image.optics, &image.particle);
        let divide = |(value, [x, y]): (Value, [i64; 2])| value / ctf.at(x as f64 * step, y as f64 * step);
        values.into_iter().zip(self.frequencies()).map(divide).collect()
    }

    /// The expected fit, and for each parameter the largest |<dX/dp, Y>| that vectors of these lengths can have.
    fn expected(&self, image: &FitImage, spline: bool) -> (ImageFit, [f64; PARAMETERS]) {
        let (weights, y) = (self.weights(image), &image.transform);
        let zero = [0.0; PARAMETERS];
        let x = self.model(image, &zero, spline);
        let slopes: Vec<Vec<Value>> = (0..PARAMETERS)
            .map(|p| {
                if p == DEFOCUS && image.optics.premultiplied {
                    return vec![Value::default(); x.len()];
                }
                let h = 1e-5;
                let at = |h: f64| {
                    let mut step = zero;
                    step[p] = h;
                    self.model(image, &step, spline)
                };
                at(h).into_iter().zip(at(-h)).map(|(up, down)| (up - down) / (2.0 * h)).collect()
            })
            .collect();
        let with_image = |vector: &[Value]| self.dot(&weights, &self.partner(image, vector.to_vec()), y);
        let mut fit = ImageFit {
            power: self.dot(&weights, &x, &x),
            overlap: with_image(&x),
            gradient: [0.0; PARAMETERS],
            curvature: [0.0; 28],
        };
        for p in 0..PARAMETERS {
            fit.gradient[p] = with_image(&slopes[p]) - self.dot(&weights, &slopes[p], &x);
            for q in 0..=p {
                fit.curvature[ImageFit::entry(p, q)] = self.dot(&weights, &slopes[p], &slopes[q]);
            }
        }
        let of_image = self.dot(&weights, y, y).sqrt();
        let size = std::array::from_fn(|p| {
            let partner = self.partner(image, slopes[p].clone());
            self.dot(&weights, &partner, &partner).sqrt() * of_image
        });
        (fit, size)
    }

    /// The gain of a candidate.
    fn gain(&self, image: &FitImage, rotation: &Rotation, offset: [f64; 2]) -> f64 {
        let there = FitImage {
            rotation: product(rotation, &image.rotation),
            offset: [0, 1].map(|i| image.offset[i] + offset[i]),
            ..image.clone()
        };
        let mut weights = self.weights(image);
        let limit2 = self.reference.search_limit.pow(2) as i64;
        let beyond = self.frequencies().map(|[x, y]| x * x + y * y >= limit2);
        weights.iter_mut().zip(beyond).filter(|(_, beyond)| *beyond).for_each(|(weight, _)| *weight = 0.0);
        let x = self.model(&there, &[0.0; PARAMETERS], true);
        let power = self.dot(&weights, &x, &x);
        self.dot(&weights, &self.partner(image, x), &image.transform) - 0.5 * power
    }

    /// The sizes of [`FitCase::expected`] of image `k`.
    pub fn sizes(&self, k: usize) -> [f64; PARAMETERS] {
        self.expected(&self.images[k], true).1
    }

    pub fn geometry(&self) -> Geometry {
        Geometry {
            box_size: self.box_size,
            pixel_size: PIXEL_SIZE,
            cutoff: 3.0,
            sampling: Sampling::BandLimited,
            weights: Weights::UNIFORM,
            symmetry: Symmetry::C1,
        }
    }

    /// A mixture for a device that only fits.
    pub fn gmm(&self) -> Gmm {
        Gmm::from_values(Shape::Isotropic, 1, vec![0.0, 0.0, 0.0, -3.0, 0.0])
    }

    /// The images as input of a device, not prepared.
    pub fn observations(&self) -> Vec<Observation<'_>> {
        let of_image = |image: &'_ FitImage| {
            let ctf = Ctf::new(&image.optics, &image.particle);
            View { offset: image.offset, ..View::new(image.rotation, ctf) }
        };
        self.images
            .iter()
            .map(|image| Observation {
                contrast: image.contrast,
                noise_group: image.noise_group,
                ..Observation::new(
                    of_image(image),
                    Target::Observed(&image.observed),
                    energy(&image.observed),
                )
            })
            .collect()
    }

    /// Sets what images are fitted to, and the noise weights.
    pub fn set_up(&self, device: &mut dyn Device) {
        device.set_noise_weights(&self.noise_weights).unwrap();
        device.set_reference(&self.reference).unwrap();
    }
}

/// Largest error of a fit, relative to the largest values that vectors of these lengths can have.
pub fn fit_error(got: &ImageFit, want: &ImageFit, size: &[f64; PARAMETERS]) -> f64 {
    let mut worst = (got.power / want.power - 1.0).abs();
    let ratio = |error: f64, size: f64| if error == 0.0 { 0.0 } else { error.abs() / size };
    worst = worst.max(ratio(got.overlap - want.overlap, size[CONTRAST]));
    for (p, &size) in size.iter().enumerate() {
        worst = worst.max(ratio(got.gradient[p] - want.gradient[p], size));
        for q in 0..=p {
            let [pp, qq] = [p, q].map(|p| want.curvature[ImageFit::entry(p, p)]);
            let at = ImageFit::entry(p, q);
            worst = worst.max(ratio(got.curvature[at] - want.curvature[at], (pp * qq).sqrt()));
        }
    }
    assert!(worst.is_finite(), "{got:?}");
    worst
}

/// An even and an odd box.
pub fn fit_cases(seed: u64) -> [FitCase; 2] {
    [fit_case(seed, 24, 10), fit_case(seed + 1, 25, 12)]
}

/// Compares fits with direct sums over the spline's slices, which they agree with but for rounding, and over exact ones.
pub fn fits_agree(seed: u64, make: &dyn Fn(&FitCase) -> Box<dyn Device>) {
    for case in fit_cases(seed) {
        let got = make(&case).fit(&case.observations()).unwrap();
        assert_eq!(got.len(), case.images.len());
        for (k, (got, image)) in got.iter().zip(&case.images).enumerate() {
            let [(spline, size), (exact, _)] = [true, false].map(|spline| case.expected(image, spline));
            let errors = [&spline, &exact].map(|want| fit_error(got, want, &size));
            println!(
                "box {}, image {k}: off by {:.1e}, from exact slices {:.1e}",
                case.box_size, errors[0], errors[1]
            );
            assert!(
                errors[0] < 1e-5 && errors[1] < 1e-3,
                "seed {seed}, image {k}: {errors:?}\n{got:?}\n{spline:?}"
            );
            if image.optics.premultiplied {
                assert!(got.gradient[DEFOCUS] == 0.0 && got.curvature[ImageFit::entry(DEFOCUS, 2)] == 0.0);
            }
        }
    }
}

/// Rotations to search, with their penalties.
pub fn rotations(count: usize) -> (Vec<Rotation>, Vec<f64>) {
    let vector = |k: usize| [0.11 * (k % 3) as f64 - 0.1, 0.07 * (k / 3 % 3) as f64, 0.05 * (k / 9) as f64];
    (0..count).map(|k| (rotation_from_vector(vector(k)), 0.03 * k as f64)).unzip()
}

/// Compares searches with direct sums: a few offsets, and more than fit a block.
pub fn searches_agree(seed: u64, make: &dyn Fn(&FitCase) -> Box<dyn Device>) {
    for case in fit_cases(seed) {
        let mut device = make(&case);
        for (count, offsets) in
            [(20, OffsetGrid { step: 0.7, radius: 2 }), (3, OffsetGrid { step: 0.21, radius: 9 })]
        {
            let (rotations, penalty) = rotations(count);
            let found = device.search(&case.observations(), &rotations, &penalty, &offsets, 0.02).unwrap();
            for (k, (found, image)) in found.iter().zip(&case.images).enumerate() {
                let gain = |rotation: usize, offset: [i32; 2]| {
                    let offset = offset.map(|step| f64::from(step) * offsets.step);
                    let distance = offset[0] * offset[0] + offset[1] * offset[1];
                    case.gain(image, &rotations[rotation], offset) - penalty[rotation] - 0.02 * distance
                };
                let want = gain(found.rotation, found.offset);
                let error = (found.gain / want - 1.0).abs();
                println!("box {}, image {k}: {found:?}, off by {error:.1e}", case.box_size);
                assert!(error < 1e-5, "seed {seed}: {found:?}, expected {want}");
                // No other is better: all rotations at some offsets, and all offsets around the best.
                let radius = offsets.radius as i32;
                let around = |at: i32| (at - 2).max(-radius)..=(at + 2).min(radius);
                for rotation in 0..count {
                    for y in around(found.offset[1]) {
                        for x in around(found.offset[0]).filter(|&x| rotation == found.rotation || x == y) {
                            let other = gain(rotation, [x, y]);
                            assert!(
                                other <= want + 1e-5 * want.abs(),
                                "{found:?} {want}, {rotation} {x} {y} {other}"
                            );
                        }
                    }
                }
            }
        }
    }
}

/// Results of a fit and a search of all images.
pub fn all_results(case: &FitCase, device: &mut dyn Device) -> (Vec<ImageFit>, Vec<Found>) {
    let observations = case.observations();
    let fits = device.fit(&observations).unwrap();
    let (rotations, penalty) = rotations(7);
    let offsets = OffsetGrid { step: 0.5, radius: 3 };
    (fits, device.search(&observations, &rotations, &penalty, &offsets, 0.01).unwrap())
}

/// Of equal candidates the first is found.
pub fn the_first_of_equals_is_found(make: &dyn Fn(&FitCase) -> Box<dyn Device>) {
    let case = fit_case(5, 24, 10);
    let mut device = make(&case);
    let rotation = rotation_from_vector([0.05, 0.0, 0.0]);
    let offsets = OffsetGrid { step: 0.0, radius: 1 };
    let found = device.search(&case.observations(), &[rotation; 5], &[0.0; 5], &offsets, 0.0).unwrap();
    for found in found {
        assert_eq!((found.rotation, found.offset), (0, [-1, -1]));
    }
}
