//! Images against slices of a reference: normal equations at a pose, and the search over many poses (docs/method.md, section 15).

use rustfft::num_complex::Complex;

use super::residual::GroupWeights;
use crate::imaging::ctf::Ctf;
use crate::imaging::pose::{Rotation, product};
use crate::render::fit_sums::{SLOPE_IMAGE, SLOPE_POWER, SUMS, VECTORS, WITH_IMAGE, WITH_SLOPE, fit_of};
use crate::render::reference::{DEFOCUS_UNIT, REFERENCE_MARGIN, REFERENCE_PADDING, frequencies_below};
use crate::render::{Found, Geometry, ImageFit, Observation, OffsetGrid, Reference};
use crate::simd::{Isa, LANES, Vector, vectorize};

/// Taps of the spline along each axis.
const TAPS: usize = 4;
/// Frequencies that are summed in f32, a multiple of [`LANES`].
const BLOCK: usize = 64 * LANES;

/// A reference with the frequencies that images are compared at, in fits and in searches.
pub(super) struct Comparison {
    reference: Reference,
    fits: Frequencies,
    searches: Frequencies,
}

/// Frequencies within a limit.
struct Frequencies {
    limit: usize,
    /// kx and ky of one frequency of each Friedel pair, in cycles per box; (0, 0), of weight 0, fills the last vector of lanes.
    places: [Vec<f32>; 2],
    /// Index of each in a target, and of its opposite.
    indices: Vec<[u32; 2]>,
    /// Number of frequencies without the filling.
    count: usize,
}

impl Comparison {
    /// For images of `box_size` pixels.
    pub fn new(reference: Reference, box_size: usize) -> Self {
        Self {
            fits: Frequencies::below(reference.limit, box_size),
            searches: Frequencies::below(reference.search_limit, box_size),
            reference,
        }
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.reference.values[..]) + self.fits.bytes() + self.searches.bytes()
    }
}

impl Frequencies {
    fn below(limit: usize, box_size: usize) -> Self {
        let n = box_size as i32;
        let mut all = frequencies_below(limit);
        let count = all.len();
        all.resize(count.next_multiple_of(LANES), [0, 0]);
        let at = |[kx, ky]: [i32; 2]| (kx.rem_euclid(n) * n + ky.rem_euclid(n)) as u32;
        Self {
            places: [0, 1].map(|axis| all.iter().map(|k| k[axis] as f32).collect()),
            indices: all.iter().map(|&[kx, ky]| [at([kx, ky]), at([-kx, -ky])]).collect(),
            count,
            limit,
        }
    }

    fn bytes(&self) -> usize {
        let places: usize = self.places.iter().map(|values| size_of_val(&values[..])).sum();
        places + size_of_val(&self.indices[..])
    }
}

/// An image at the frequencies of a comparison, an array per quantity.
#[derive(Clone, Default)]
struct ImageValues {
    /// F(Y) times the conjugate of the phase of the offset: real and imaginary part.
    image: [Vec<f32>; 2],
    /// H, and its derivative with respect to the defocus.
    ctf: [Vec<f32>; 2],
    /// Noise weights.
    weight: Vec<f32>,
    /// S and its derivatives with respect to the rotation vector: real and imaginary part of each.
    slice: [Vec<f32>; 8],
}

/// Working memory of a thread.
#[derive(Clone, Default)]
pub(super) struct Fitter {
    values: ImageValues,
    /// H and its derivative with respect to gamma on the half plane.
    planes: [Vec<f32>; 2],
}

impl Fitter {
    /// Fits one image, whose target is the spectrum of Y.
    pub fn fit(
        &mut self,
        geometry: &Geometry,
        comparison: &Comparison,
        weights: &GroupWeights,
        observation: &Observation,
        target: &[f32],
    ) -> ImageFit {
        let Comparison { reference, fits: frequencies, .. } = comparison;
        self.load(geometry, frequencies, weights, observation, target);
        let Self { values, .. } = self;
        slices(reference, &frequencies.places, &observation.view.rotation, true, &mut values.slice);
        let premultiplied = observation.view.ctf.coefficients().premultiplied;
        let mut sums = [0.0f64; SUMS];
        let count = frequencies.indices.len();
        for start in (0..count).step_by(BLOCK) {
            let block = start..count.min(start + BLOCK);
            let step = std::f32::consts::TAU / geometry.box_size as f32;
            let of_block = add_up(values, &frequencies.places, block, step, premultiplied);
            sums.iter_mut().zip(of_block).for_each(|(sum, more)| *sum += f64::from(more));
        }
        fit_of(&sums, observation.contrast, geometry.box_size)
    }

    /// Loads image, CTF and weights.
    fn load(
        &mut self,
        geometry: &Geometry,
        frequencies: &Frequencies,
        weights: &GroupWeights,
        observation: &Observation,
        target: &[f32],
    ) {
        let n = geometry.box_size;
        let view = &observation.view;
        let phases = view.offset.map(|offset| phases(n, (n / 2) as f64 + offset));
        self.load_ctf(geometry, frequencies.limit, &view.ctf);
        let ImageValues { image: [re, im], ctf: [ctf, slope], weight, slice } = &mut self.values;
        let length = frequencies.indices.len();
        for values in [re, im, ctf, slope, weight].into_iter().chain(slice) {
            values.resize(length, 0.0);
        }
        let ImageValues { image: [re, im], ctf: [ctf, slope], weight, .. } = &mut self.values;
        let step = 1.0 / (n as f64 * geometry.pixel_size);
        let [xx, xy, yy] = view.ctf.coefficients().slope.map(|v| (v * DEFOCUS_UNIT * step * step) as f32);
        for (i, &[here, there]) in frequencies.indices.iter().enumerate() {
            let (at, opposite) = (here as usize, there as usize);
            let (here, there) = (target[at], target[opposite]);
            let value = Complex::new(0.5 * (there + here), 0.5 * (there - here));
            let turned = value * phases[0][at / n] * phases[1][at % n];
            (re[i], im[i]) = (turned.re, turned.im);
            let [x, y] = [frequencies.places[0][i], frequencies.places[1][i]];
            ctf[i] = self.planes[0][at];
            slope[i] = self.planes[1][at] * (xx * x * x + xy * x * y + yy * y * y);
            weight[i] = if i < frequencies.count { weights.noise()[at] } else { 0.0 };
        }
    }

    /// Evaluates the CTF and its derivative with respect to gamma.
    fn load_ctf(&mut self, geometry: &Geometry, limit: usize, ctf: &Ctf) {
        let n = geometry.box_size;
        for (plane, ctf) in self.planes.iter_mut().zip([*ctf, ctf.quadrature()]) {
            plane.resize(limit * n, 0.0);
            for (kx, line) in plane.chunks_exact_mut(n).enumerate() {
                ctf.half_plane_line(kx, geometry.pixel_size, limit - 1, line);
            }
        }
    }

    /// The best of all candidates for one image.
    pub fn search(
        &mut self,
        geometry: &Geometry,
        comparison: &Comparison,
        weights: &GroupWeights,
        (observation, target): (&Observation, &[f32]),
        (rotations, penalty): (&[Rotation], &[f64]),
        (offsets, offset_penalty): (&OffsetGrid, f64),
    ) -> Found {
        let Comparison { reference, searches: frequencies, .. } = comparison;
        self.load(geometry, frequencies, weights, observation, target);
        let n = geometry.box_size as f64;
        let ImageValues { image: [re, im], ctf: [ctf, _], weight, slice } = &mut self.values;
        // The image becomes w H F(Y), the CTF w H^2.
        let premultiplied = observation.view.ctf.coefficients().premultiplied;
        for (((re, im), ctf), w) in re.iter_mut().zip(im.iter_mut()).zip(ctf.iter_mut()).zip(&*weight) {
            let factor = if premultiplied { *w } else { *ctf * w };
            (*re, *im, *ctf) = (*re * factor, *im * factor, *ctf * *ctf * w);
        }
        let tables = OffsetPhases::new(offsets, &frequencies.places, n);
        let (scale, contrast) = (2.0 / n, observation.contrast);
        let mut best = Found { rotation: 0, offset: [0, 0], gain: f64::NEG_INFINITY };
        let mut products = [vec![0.0f32; re.len()], vec![0.0f32; re.len()]];
        for (index, (rotation, penalty)) in rotations.iter().zip(penalty).enumerate() {
            let pose = product(rotation, &observation.view.rotation);
            slices(reference, &frequencies.places, &pose, false, slice);
            let power = multiply([re, im], ctf, [&slice[0], &slice[1]], &mut products);
            let power = f64::from(power) * scale / n * contrast * contrast;
            tables.each(&products, |offset, sum| {
                let distance =
                    offsets.step.powi(2) * f64::from(offset[0] * offset[0] + offset[1] * offset[1]);
                let overlap = f64::from(sum) * scale * contrast;
                let gain = overlap - 0.5 * power - penalty - offset_penalty * distance;
                if gain > best.gain {
                    best = Found { rotation: index, offset, gain };
                }
            });
        }
        best
    }
}

/// exp(2 pi i k c / n) of each frequency k in FFT order.
fn phases(n: usize, place: f64) -> Vec<Complex<f32>> {
    let of = |i: usize| {
        let k = if 2 * i < n { i as f64 } else { i as f64 - n as f64 };
        let turns = k * place / n as f64;
        let (sin, cos) = ((turns - turns.round()) * std::f64::consts::TAU).sin_cos();
        Complex::new(cos as f32, sin as f32)
    };
    (0..n).map(of).collect()
}

/// exp(2 pi i k offset / D) of each step of a grid along x and y: real and imaginary part, `[step][frequency]`.
struct OffsetPhases {
    steps: Vec<i32>,
    along: [Vec<[Vec<f32>; 2]>; 2],
}

impl OffsetPhases {
    fn new(offsets: &OffsetGrid, places: &[Vec<f32>; 2], n: f64) -> Self {
        let steps: Vec<i32> = (-(offsets.radius as i32)..=offsets.radius as i32).collect();
        let of_axis = |places: &Vec<f32>| {
            let of_step = |&step: &i32| {
                let turn = std::f64::consts::TAU * f64::from(step) * offsets.step / n;
                [f64::cos, f64::sin]
                    .map(|of| places.iter().map(|&k| of(turn * f64::from(k)) as f32).collect())
            };
            steps.iter().map(of_step).collect()
        };
        Self { along: [of_axis(&places[0]), of_axis(&places[1])], steps }
    }

    /// Calls `visit` with the steps and the sum of the real parts of `products` times the phase, for each offset.
    fn each(&self, products: &[Vec<f32>; 2], mut visit: impl FnMut([i32; 2], f32)) {
        let mut turned = products.clone();
        for (y, along_y) in self.steps.iter().zip(&self.along[1]) {
            turn(products, along_y, &mut turned);
            for (x, along_x) in self.steps.iter().zip(&self.along[0]) {
                visit([*x, *y], real_sum(&turned, along_x));
            }
        }
    }
}

vectorize! {
    /// Complex products of `a` and `b`.
    fn turn(a: &[Vec<f32>; 2], b: &[Vec<f32>; 2], out: &mut [Vec<f32>; 2]) = turn_lanes
}

#[inline(always)]
fn turn_lanes<I: Isa>([re, im]: &[Vec<f32>; 2], [cos, sin]: &[Vec<f32>; 2], [x, y]: &mut [Vec<f32>; 2]) {
    for i in (0..re.len()).step_by(LANES) {
        let load = |values: &[f32]| I::F32::load(&values[i..]);
        let (re, im, cos, sin) = (load(re), load(im), load(cos), load(sin));
        (re * cos - im * sin).store(&mut x[i..]);
        (re * sin + im * cos).store(&mut y[i..]);
    }
}

vectorize! {
    /// Sum of the real parts of the products of `a` and `b`.
    fn real_sum(a: &[Vec<f32>; 2], b: &[Vec<f32>; 2]) -> f32 = real_sum_lanes
}

#[inline(always)]
fn real_sum_lanes<I: Isa>([re, im]: &[Vec<f32>; 2], [cos, sin]: &[Vec<f32>; 2]) -> f32 {
    let mut sum = I::F32::splat(0.0);
    for i in (0..re.len()).step_by(LANES) {
        let load = |values: &[f32]| I::F32::load(&values[i..]);
        sum = load(re).mul_add(load(cos), sum);
        sum = (-load(im)).mul_add(load(sin), sum);
    }
    total::<I>(sum)
}

/// Sum of the lanes.
#[inline(always)]
fn total<I: Isa>(lanes: I::F32) -> f32 {
    let mut values = [0.0f32; LANES];
    lanes.store(&mut values);
    let [a, b, c, d, e, f, g, h] = values;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

vectorize! {
    /// `image` times the conjugate of `slice`; returns the sum of `power` times |slice|^2.
    fn multiply(image: [&mut Vec<f32>; 2], power: &[f32], slice: [&Vec<f32>; 2], out: &mut [Vec<f32>; 2]) -> f32 = multiply_lanes
}

#[inline(always)]
fn multiply_lanes<I: Isa>(
    [re, im]: [&mut Vec<f32>; 2],
    power: &[f32],
    [a, b]: [&Vec<f32>; 2],
    [x, y]: &mut [Vec<f32>; 2],
) -> f32 {
    let mut sum = I::F32::splat(0.0);
    for i in (0..power.len()).step_by(LANES) {
        let load = |values: &[f32]| I::F32::load(&values[i..]);
        let (re, im, a, b) = (load(re), load(im), load(a), load(b));
        (re * a + im * b).store(&mut x[i..]);
        (im * a - re * b).store(&mut y[i..]);
        sum = load(power).mul_add(a * a + b * b, sum);
    }
    total::<I>(sum)
}

vectorize! {
    /// Sums over the frequencies of `block` of the real parts of conj(u) v: for the lower triangle of the [`VECTORS`], weighted by
    /// H^2 w; of each and Y, by H w; of each and S, by H dH w; then |S|^2 by dH^2 w, and conj(S) Y by dH w. dH: derivative of H with
    /// respect to the defocus. `step`: from cycles per box to radians per pixel.
    fn add_up(
        values: &ImageValues,
        places: &[Vec<f32>; 2],
        block: std::ops::Range<usize>,
        step: f32,
        premultiplied: bool,
    ) -> [f32; SUMS] = add_up_lanes
}

#[inline(always)]
fn add_up_lanes<I: Isa>(
    values: &ImageValues,
    places: &[Vec<f32>; 2],
    block: std::ops::Range<usize>,
    step: f32,
    premultiplied: bool,
) -> [f32; SUMS] {
    let ImageValues { image, ctf, weight, slice } = values;
    let zero = I::F32::splat(0.0);
    let step = I::F32::splat(step);
    let mut sums = [zero; SUMS];
    for i in block.step_by(LANES) {
        let load = |values: &[f32]| I::F32::load(&values[i..i + LANES]);
        let (h, w) = (load(&ctf[0]), load(weight));
        let slope = if premultiplied { zero } else { load(&ctf[1]) };
        let (y, hw) = ([load(&image[0]), load(&image[1])], h * w);
        let of_image = if premultiplied { w } else { hw };
        let [kx, ky] = [load(&places[0]) * step, load(&places[1]) * step];
        let s = [load(&slice[0]), load(&slice[1])];
        // The derivative with respect to the offset is -i k S.
        let vectors = [
            s,
            [load(&slice[2]), load(&slice[3])],
            [load(&slice[4]), load(&slice[5])],
            [load(&slice[6]), load(&slice[7])],
            [kx * s[1], -(kx * s[0])],
            [ky * s[1], -(ky * s[0])],
        ];
        let dot = |u: [I::F32; 2], v: [I::F32; 2]| u[0].mul_add(v[0], u[1] * v[1]);
        let (square, mixed) = (hw * h, hw * slope);
        let mut entry = 0;
        for p in 0..VECTORS {
            for q in 0..=p {
                sums[entry] = square.mul_add(dot(vectors[p], vectors[q]), sums[entry]);
                entry += 1;
            }
            sums[WITH_IMAGE + p] = of_image.mul_add(dot(vectors[p], y), sums[WITH_IMAGE + p]);
            sums[WITH_SLOPE + p] = mixed.mul_add(dot(vectors[p], s), sums[WITH_SLOPE + p]);
        }
        let weighted = slope * w;
        sums[SLOPE_POWER] = (weighted * slope).mul_add(dot(s, s), sums[SLOPE_POWER]);
        sums[SLOPE_IMAGE] = weighted.mul_add(dot(s, y), sums[SLOPE_IMAGE]);
    }
    sums.map(|sum| total::<I>(sum))
}

vectorize! {
    /// Slices of `reference` at the frequencies `places` at the pose `rotation`: S and its derivatives with respect to the rotation
    /// vector in volume coordinates, real and imaginary part of each. Without `derivatives` only S.
    fn slices(reference: &Reference, places: &[Vec<f32>; 2], rotation: &Rotation, derivatives: bool, out: &mut [Vec<f32>; 8]) = slices_lanes
}

/// Weights of the four taps of a cubic B-spline at `t` behind the second tap, and their derivatives.
#[inline(always)]
fn spline(t: f32) -> [[f32; TAPS]; 2] {
    const SIXTH: f32 = 1.0 / 6.0;
    let (u, t2) = (1.0 - t, t * t);
    let t3 = t2 * t;
    let weights = [
        u * u * u * SIXTH,
        (3.0 * t3 - 6.0 * t2 + 4.0) * SIXTH,
        (3.0 * (t2 + t - t3) + 1.0) * SIXTH,
        t3 * SIXTH,
    ];
    [weights, [-0.5 * u * u, 1.5 * t2 - 2.0 * t, t - 1.5 * t2 + 0.5, 0.5 * t2]]
}

#[inline(always)]
fn slices_lanes<I: Isa>(
    reference: &Reference,
    places: &[Vec<f32>; 2],
    rotation: &Rotation,
    derivatives: bool,
    out: &mut [Vec<f32>; 8],
) {
    let (width, side) = (reference.width(), reference.side());
    let values = &reference.values[..];
    let padding = REFERENCE_PADDING as f64;
    let [along_x, along_y, _] = rotation.map(|row| row.map(|v| (v * padding) as f32));
    let last = (reference.reach() - REFERENCE_MARGIN) as f32 + 0.5;
    let origin = [REFERENCE_MARGIN, reference.reach(), reference.reach()].map(|v| v as f32);
    for (index, (&kx, &ky)) in places[0].iter().zip(&places[1]).enumerate() {
        let place: [f32; 3] = std::array::from_fn(|axis| kx * along_x[axis] + ky * along_y[axis]);
        // Of a pair of opposite points, that with x >= 0 is on the grid, with the conjugate value and the opposite gradient.
        let sign = if place[0] < 0.0 { -1.0 } else { 1.0 };
        // A magnification can move a frequency off the grid.
        if place.iter().any(|v| v.abs() > last) {
            out.iter_mut().for_each(|values| values[index] = 0.0);
            continue;
        }
        let mut first = [0usize; 3];
        let mut taps = [[[0.0f32; TAPS]; 2]; 3];
        for axis in 0..3 {
            let at = sign * place[axis] + origin[axis];
            let cell = at as usize;
            first[axis] = cell - 1;
            taps[axis] = spline(at - cell as f32);
        }
        let [[wx, dx], [wy, dy], [wz, dz]] = taps;
        let zero = I::F32::splat(0.0);
        let [mut plain, mut by_y, mut by_z] = [zero; 3];
        for z in 0..TAPS {
            let plane = (first[2] + z) * side + first[1];
            for y in 0..TAPS {
                let start = 2 * ((plane + y) * width + first[0]);
                let row = I::F32::load(&values[start..start + LANES]);
                plain = row.mul_add(I::F32::splat(wz[z] * wy[y]), plain);
                if !derivatives {
                    continue;
                }
                by_y = row.mul_add(I::F32::splat(wz[z] * dy[y]), by_y);
                by_z = row.mul_add(I::F32::splat(dz[z] * wy[y]), by_z);
            }
        }
        let twice = |w: [f32; TAPS]| I::F32::load(&[w[0], w[0], w[1], w[1], w[2], w[2], w[3], w[3]]);
        let (along, slope) = (twice(wx), twice(dx));
        let parts = |v: I::F32| {
            let mut lanes = [0.0f32; LANES];
            v.store(&mut lanes);
            [
                (lanes[0] + lanes[2]) + (lanes[4] + lanes[6]),
                sign * ((lanes[1] + lanes[3]) + (lanes[5] + lanes[7])),
            ]
        };
        let value = parts(plain * along);
        (out[0][index], out[1][index]) = (value[0], value[1]);
        if !derivatives {
            continue;
        }
        let [gx, gy, gz] = [plain * slope, by_y * along, by_z * along].map(parts);
        let [x, y, z] = place.map(|v| sign * v);
        for part in 0..2 {
            // -(k x gradient), which both change sign.
            out[2 + part][index] = z * gy[part] - y * gz[part];
            out[4 + part][index] = x * gz[part] - z * gx[part];
            out[6 + part][index] = y * gx[part] - x * gy[part];
        }
    }
}
