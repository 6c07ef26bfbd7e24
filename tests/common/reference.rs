//! Reference implementation in plain loops and f64 (docs/method.md, sections 2 to 5): dense sums, direct Fourier transforms, scalar
//! chain rule. Shares no code with the devices.

use std::f64::consts::{PI, TAU};

use rustfft::num_complex::Complex;

/// Raw parameters of a Gaussian: mean, raw scales, quaternion (w, x, y, z), raw amplitude.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Raw {
    pub mu: [f64; 3],
    pub s: [f64; 3],
    pub q: [f64; 4],
    pub a: f64,
}

impl Raw {
    /// The eleven parameters in the order of the planes.
    pub fn numbers(&self) -> [f64; 11] {
        let (m, s, q) = (self.mu, self.s, self.q);
        [m[0], m[1], m[2], s[0], s[1], s[2], q[0], q[1], q[2], q[3], self.a]
    }

    pub fn from_numbers(v: [f64; 11]) -> Self {
        Self { mu: [v[0], v[1], v[2]], s: [v[3], v[4], v[5]], q: [v[6], v[7], v[8], v[9]], a: v[10] }
    }
}

/// An image: pose, place of the origin in pixels from pixel floor(D/2), operators of the point group, CTF (`h[ky][kx]`, D x D in FFT
/// order), and observed pixels (`[y][x]`).
#[derive(Clone)]
pub struct Image {
    pub w: [[f64; 3]; 3],
    pub offset: [f64; 2],
    pub operators: Vec<[[f64; 3]; 3]>,
    pub h: Vec<f64>,
    pub observed: Vec<f64>,
}

fn softplus(x: f64) -> f64 {
    if x > 30.0 { x } else { x.exp().ln_1p() }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn scale(raw: f64) -> f64 {
    softplus(raw).max(1e-3)
}

fn rotation(q: [f64; 4]) -> [[f64; 3]; 3] {
    let n = q.iter().map(|v| v * v).sum::<f64>().sqrt();
    let [w, x, y, z] = q.map(|v| v / n);
    [
        [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)],
        [2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)],
        [2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)],
    ]
}

/// Support and sampling of splats.
#[derive(Clone, Copy, Debug)]
pub struct Support {
    /// Half width in standard deviations of the blurred splat; infinite for all points.
    pub cutoff: f64,
    /// Points along an edge of the sampling grid; `None` for the pixels.
    pub grid: Option<usize>,
    /// Standard deviation of the blur in grid points.
    pub blur: f64,
}

impl Support {
    /// Points along an edge of the grid, for images of `d` pixels.
    fn points(&self, d: usize) -> usize {
        self.grid.unwrap_or(d)
    }
}

impl From<f64> for Support {
    fn from(cutoff: f64) -> Self {
        Self { cutoff, grid: None, blur: 0.0 }
    }
}

/// Blur of band-limited sampling in grid points.
pub const BLUR: f64 = 0.6;

/// Position of the origin, pixel floor(d/2) of `d`, on a grid of `n` points along an edge.
fn origin(n: usize, d: usize) -> f64 {
    (d / 2) as f64 * n as f64 / d as f64
}

/// Magnitude of frequency (i, j) of `d` x `d` in FFT order, in cycles per pixel.
pub fn radius(i: usize, j: usize, d: usize) -> f64 {
    let signed = |i: usize| if 2 * i < d { i as f64 } else { i as f64 - d as f64 };
    signed(i).hypot(signed(j)) / d as f64
}

/// Factor that removes the blur on `grid` points at frequency (i, j) of `d` x `d` in FFT order: the inverse of the transform of the
/// Gaussian inside the Nyquist circle, and zero elsewhere.
pub fn sharpening(i: usize, j: usize, d: usize, grid: usize) -> f64 {
    let (radius, blur) = (radius(i, j, d), BLUR * d as f64 / grid as f64);
    if radius > 0.5 - 1e-6 { 0.0 } else { 1.0 / (-2.0 * (PI * blur * radius).powi(2)).exp() }
}

/// A splat: T (2x3), centre, Sigma2, its inverse C, and the normalisation.
struct Splat {
    t: [[f64; 3]; 2],
    centre: [f64; 2],
    sigma: [[f64; 2]; 2],
    conic: [[f64; 2]; 2],
    norm: f64,
}

fn splat(g: &Raw, w: &[[f64; 3]; 3], offset: [f64; 2], d: usize, support: Support) -> Splat {
    let r = rotation(g.q);
    let s = g.s.map(scale);
    let mut t = [[0.0; 3]; 2];
    let mut centre = [0.0; 2];
    for i in 0..2 {
        for j in 0..3 {
            t[i][j] = (0..3).map(|k| w[i][k] * r[k][j]).sum::<f64>() * s[j];
        }
        centre[i] = (0..3).map(|k| w[i][k] * g.mu[k]).sum::<f64>() + offset[i] / d as f64;
    }
    let mut sigma = [[0.0; 2]; 2];
    for i in 0..2 {
        for j in 0..2 {
            sigma[i][j] = (0..3).map(|k| t[i][k] * t[j][k]).sum();
        }
        sigma[i][i] += (support.blur / support.points(d) as f64).powi(2);
    }
    let det = sigma[0][0] * sigma[1][1] - sigma[0][1] * sigma[1][0];
    let conic = [[sigma[1][1] / det, -sigma[0][1] / det], [-sigma[1][0] / det, sigma[0][0] / det]];
    let norm = 1.0 / (TAU * det.sqrt());
    Splat { t, centre, sigma, conic, norm }
}

/// Calls `visit(point, d, G)` for every point of the grid in the support.
fn visit(s: &Splat, d: usize, support: Support, mut visit: impl FnMut(usize, [f64; 2], f64)) {
    let n = support.points(d);
    let origin = origin(n, d);
    for i in 0..n {
        for j in 0..n {
            let dx = (j as f64 - origin) / n as f64 - s.centre[0];
            let dy = (i as f64 - origin) / n as f64 - s.centre[1];
            if dx.abs() > support.cutoff * s.sigma[0][0].sqrt()
                || dy.abs() > support.cutoff * s.sigma[1][1].sqrt()
            {
                continue;
            }
            let q = s.conic[0][0] * dx * dx + 2.0 * s.conic[0][1] * dx * dy + s.conic[1][1] * dy * dy;
            visit(i * n + j, [dx, dy], s.norm * (-0.5 * q).exp());
        }
    }
}

/// The sampled projection Q of a centred image on its grid, `[y][x]`.
pub fn project(gaussians: &[Raw], w: &[[f64; 3]; 3], d: usize, support: impl Into<Support>) -> Vec<f64> {
    project_at(gaussians, w, [0.0; 2], d, support.into())
}

/// The sampled projection with the origin `offset` pixels from pixel floor(D/2).
fn project_at(
    gaussians: &[Raw],
    w: &[[f64; 3]; 3],
    offset: [f64; 2],
    d: usize,
    support: Support,
) -> Vec<f64> {
    let mut image = vec![0.0; support.points(d).pow(2)];
    for g in gaussians {
        let amplitude = softplus(g.a);
        visit(&splat(g, w, offset, d, support), d, support, |point, _, value| {
            image[point] += amplitude * value
        });
    }
    image
}

/// The poses W g of the views of an image.
pub fn views(w: &[[f64; 3]; 3], operators: &[[[f64; 3]; 3]]) -> Vec<[[f64; 3]; 3]> {
    let product = |g: &[[f64; 3]; 3]| {
        std::array::from_fn(|i| std::array::from_fn(|j| (0..3).map(|k| w[i][k] * g[k][j]).sum()))
    };
    operators.iter().map(product).collect()
}

/// The sampled projection of a symmetric mixture, of which `gaussians` is the asymmetric unit.
pub fn project_views(
    gaussians: &[Raw],
    w: &[[f64; 3]; 3],
    offset: [f64; 2],
    operators: &[[[f64; 3]; 3]],
    d: usize,
    support: Support,
) -> Vec<f64> {
    let mut image = vec![0.0; support.points(d).pow(2)];
    for view in views(w, operators) {
        let one = project_at(gaussians, &view, offset, d, support);
        image.iter_mut().zip(one).for_each(|(sum, value)| *sum += value);
    }
    image
}

/// <X, X> and <X, Y> of an image.
pub fn sums(gaussians: &[Raw], image: &Image, d: usize, support: Support) -> [f64; 2] {
    let x = model(gaussians, image, d, support);
    [x.iter().map(|x| x * x).sum(), x.iter().zip(&image.observed).map(|(x, y)| x * y).sum()]
}

/// For each frequency k of `d` pixels, in FFT order, a row of e^(sign 2 pi i k x), with x the position of each of `n` points divided by the box.
fn waves(sign: f64, n: usize, d: usize) -> Vec<Vec<Complex<f64>>> {
    let signed = |k: usize| if 2 * k < d { k as f64 } else { k as f64 - d as f64 };
    let place = |x: usize| (x as f64 - origin(n, d)) / n as f64;
    (0..d)
        .map(|k| (0..n).map(|x| Complex::from_polar(1.0, sign * TAU * signed(k) * place(x))).collect())
        .collect()
}

/// Transforms the last axis, from `[a][b]` to `[k][a]`: two passes restore the order of the axes.
fn pass(input: &[Complex<f64>], waves: &[Vec<Complex<f64>>]) -> Vec<Complex<f64>> {
    let n = waves[0].len();
    let sum = |row: &[Complex<f64>], wave: &[Complex<f64>]| row.iter().zip(wave).map(|(v, w)| v * w).sum();
    waves.iter().flat_map(|wave| input.chunks(n).map(move |row| sum(row, wave))).collect()
}

/// F^-1(H F image) by direct sums over the frequencies of `d` pixels, from a grid of `from` points along an edge to one of `to`: from
/// the sampling grid to the pixels, or the transpose.
pub fn filter(image: &[f64], from: usize, h: &[f64], d: usize, to: usize) -> Vec<f64> {
    let image: Vec<_> = image.iter().map(|&v| Complex::new(v, 0.0)).collect();
    let there = waves(-1.0, from, d);
    let mut spectrum = pass(&pass(&image, &there), &there);
    spectrum.iter_mut().zip(h).for_each(|(value, h)| *value *= h);
    let columns = waves(1.0, to, d);
    let back: Vec<Vec<_>> = (0..to).map(|x| columns.iter().map(|wave| wave[x]).collect()).collect();
    let points = from.max(to).pow(2) as f64;
    pass(&pass(&spectrum, &back), &back).into_iter().map(|value| value.re / points).collect()
}

/// X of one image, on the pixels.
fn model(gaussians: &[Raw], image: &Image, d: usize, support: Support) -> Vec<f64> {
    let sampled = project_views(gaussians, &image.w, image.offset, &image.operators, d, support);
    filter(&sampled, support.points(d), &image.h, d, d)
}

/// X - Y of one image, on the pixels.
fn residual(gaussians: &[Raw], image: &Image, d: usize, support: Support) -> Vec<f64> {
    let x = model(gaussians, image, d, support);
    x.iter().zip(&image.observed).map(|(x, y)| x - y).collect()
}

/// Mean over images and pixels of (X - Y)^2.
pub fn loss(gaussians: &[Raw], images: &[Image], d: usize, support: impl Into<Support>) -> f64 {
    let support = support.into();
    let total: f64 = images
        .iter()
        .map(|image| residual(gaussians, image, d, support).iter().map(|r| r.powi(2)).sum::<f64>())
        .sum();
    total / (images.len() * d * d) as f64
}

/// The gradient of [`loss`] with respect to the eleven raw numbers of every Gaussian.
pub fn gradient(
    gaussians: &[Raw],
    images: &[Image],
    d: usize,
    support: impl Into<Support>,
) -> Vec<[f64; 11]> {
    let support = support.into();
    let mut out = vec![[0.0; 11]; gaussians.len()];
    for image in images {
        let residual = residual(gaussians, image, d, support);
        let per_pixel = 2.0 / (images.len() * d * d) as f64;
        let back = filter(&residual, d, &image.h, d, support.points(d));
        let g: Vec<f64> = back.iter().map(|v| v * per_pixel).collect();
        for view in views(&image.w, &image.operators) {
            for (gaussian, out) in gaussians.iter().zip(&mut out) {
                one(gaussian, &view, image.offset, &g, d, support, out);
            }
        }
    }
    out
}

/// Adds the gradient of one Gaussian from one image (docs/method.md, section 5, through T).
fn one(
    g: &Raw,
    w: &[[f64; 3]; 3],
    offset: [f64; 2],
    pixels: &[f64],
    d: usize,
    support: Support,
    out: &mut [f64; 11],
) {
    let s = splat(g, w, offset, d, support);
    let (mut s0, mut s1, mut s2) = (0.0, [0.0; 2], [[0.0; 2]; 2]);
    visit(&s, d, support, |pixel, delta, value| {
        let weight = pixels[pixel] * value;
        s0 += weight;
        for i in 0..2 {
            s1[i] += weight * delta[i];
            for j in 0..2 {
                s2[i][j] += weight * delta[i] * delta[j];
            }
        }
    });
    let (amplitude, c) = (softplus(g.a), s.conic);
    out[10] += s0 * sigmoid(g.a);
    let dmu2 = [0, 1].map(|i| amplitude * (c[i][0] * s1[0] + c[i][1] * s1[1]));
    for k in 0..3 {
        out[k] += w[0][k] * dmu2[0] + w[1][k] * dmu2[1];
    }
    let mut dsigma = [[0.0; 2]; 2];
    for i in 0..2 {
        for j in 0..2 {
            let mut sum = -s0 * c[i][j];
            for k in 0..2 {
                for l in 0..2 {
                    sum += c[i][k] * s2[k][l] * c[l][j];
                }
            }
            dsigma[i][j] = 0.5 * amplitude * sum;
        }
    }
    let dt: [[f64; 3]; 2] = std::array::from_fn(|i| {
        std::array::from_fn(|j| 2.0 * (dsigma[i][0] * s.t[0][j] + dsigma[i][1] * s.t[1][j]))
    });
    let r = rotation(g.q);
    let mut dr = [[0.0; 3]; 3];
    for j in 0..3 {
        let mut ds = 0.0;
        for i in 0..2 {
            ds += dt[i][j] * (0..3).map(|k| w[i][k] * r[k][j]).sum::<f64>();
            for (k, row) in dr.iter_mut().enumerate() {
                row[j] += w[i][k] * dt[i][j] * scale(g.s[j]);
            }
        }
        if softplus(g.s[j]) >= 1e-3 {
            out[3 + j] += ds * sigmoid(g.s[j]);
        }
    }
    // dR/dq by the definition of R, entry by entry.
    let n = g.q.iter().map(|v| v * v).sum::<f64>().sqrt();
    let [qw, x, y, z] = g.q.map(|v| v / n);
    let slopes = [
        [[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]],
        [[0.0, y, z], [y, -2.0 * x, -qw], [z, qw, -2.0 * x]],
        [[-2.0 * y, x, qw], [x, 0.0, z], [-qw, z, -2.0 * y]],
        [[-2.0 * z, -qw, x], [qw, -2.0 * z, y], [x, y, 0.0]],
    ];
    let unit = slopes.map(|slope| {
        (0..3)
            .flat_map(|i| (0..3).map(move |j| (i, j)))
            .map(|(i, j)| 2.0 * slope[i][j] * dr[i][j])
            .sum::<f64>()
    });
    let along = [qw, x, y, z].iter().zip(unit).map(|(q, d)| q * d).sum::<f64>();
    for (k, q) in [qw, x, y, z].into_iter().enumerate() {
        out[6 + k] += (unit[k] - q * along) / n;
    }
}

/// The CTF of docs/method.md, section 4 on the full grid `[ky][kx]` in FFT order, the mean of H(k) and H(-k) on Nyquist lines.
pub fn ctf(d: usize, pixel_size: f64, lambda: f64, p: &[f64; 7]) -> Vec<f64> {
    let [defocus_u, defocus_v, angle, _, cs, w, phase] = *p;
    let one = |kx: f64, ky: f64| {
        let (k2, alpha) = (kx * kx + ky * ky, ky.atan2(kx));
        let df = 0.5
            * (defocus_u + defocus_v + (defocus_u - defocus_v) * (2.0 * (alpha - angle.to_radians())).cos());
        let gamma =
            PI * lambda * df * k2 - PI / 2.0 * cs * 1e7 * lambda.powi(3) * k2 * k2 + phase.to_radians();
        (1.0 - w * w).sqrt() * gamma.sin() + w * gamma.cos()
    };
    let step = 1.0 / (d as f64 * pixel_size);
    let signed = |i: usize| if 2 * i < d { i as f64 } else { i as f64 - d as f64 };
    let mirrored = |i: usize| signed((d - i) % d);
    let mut h = vec![0.0; d * d];
    for i in 0..d {
        for j in 0..d {
            h[i * d + j] =
                0.5 * (one(signed(j) * step, signed(i) * step) + one(mirrored(j) * step, mirrored(i) * step));
        }
    }
    h
}
