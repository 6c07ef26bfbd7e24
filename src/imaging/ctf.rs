//! The contrast transfer function (docs/method.md, section 4).

use std::f64::consts::PI;

use crate::simd::{Isa, LANES, Vector, vectorize};

/// `lambda = WAVELENGTH / sqrt(V + RELATIVISTIC V^2)`, with V in volts and lambda in angstrom (RELION's constant).
pub const WAVELENGTH: f64 = 12.264_324_7;
/// The relativistic term of the wavelength, per volt (RELION's constant).
pub const RELATIVISTIC: f64 = 0.978_466e-6;

/// CTF parameters of an optics group.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Optics {
    /// Acceleration voltage in kV.
    pub voltage: f64,
    /// Spherical aberration in mm.
    pub spherical_aberration: f64,
    /// Amplitude contrast, a fraction in [0, 1].
    pub amplitude_contrast: f64,
}

/// CTF parameters of a particle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CtfParameters {
    /// Defocus along the major axis in angstrom, underfocus positive.
    pub defocus_u: f64,
    /// Defocus along the minor axis in angstrom, underfocus positive.
    pub defocus_v: f64,
    /// Angle of the major axis from x, in degrees.
    pub astigmatism_angle: f64,
    /// Phase shift of a phase plate, in degrees.
    pub phase_shift: f64,
    /// B factor of the envelope, in square angstrom.
    pub b_factor: f64,
    /// Scale factor of the image contrast.
    pub scale: f64,
}

impl Default for CtfParameters {
    fn default() -> Self {
        Self {
            defocus_u: 0.0,
            defocus_v: 0.0,
            astigmatism_angle: 0.0,
            phase_shift: 0.0,
            b_factor: 0.0,
            scale: 1.0,
        }
    }
}

/// Electron wavelength in angstrom at `voltage` kV.
pub fn wavelength(voltage: f64) -> f64 {
    let volts = voltage * 1e3;
    WAVELENGTH / (volts + RELATIVISTIC * volts * volts).sqrt()
}

/// The CTF of one particle, ready to be evaluated: `H = scale exp(-B k^2/4) sin(gamma + asin(w))`.
///
/// The argument is a polynomial in (kx, ky), without the azimuth:
/// `gamma = xx kx^2 + xy kx ky + yy ky^2 - quartic k^4 + phase`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ctf {
    xx: f64,
    xy: f64,
    yy: f64,
    quartic: f64,
    phase: f64,
    b_factor: f64,
    scale: f64,
}

impl Ctf {
    /// The CTF of a particle.
    pub fn new(optics: &Optics, particle: &CtfParameters) -> Self {
        Self::with_wavelength(wavelength(optics.voltage), optics, particle)
    }

    /// The CTF at a given wavelength in angstrom. Programs differ in the last digits of the constants of [`wavelength`].
    pub fn with_wavelength(lambda: f64, optics: &Optics, particle: &CtfParameters) -> Self {
        let mean = 0.5 * (particle.defocus_u + particle.defocus_v);
        let half_difference = 0.5 * (particle.defocus_u - particle.defocus_v);
        let (sin2, cos2) = (2.0 * particle.astigmatism_angle.to_radians()).sin_cos();
        let cs = optics.spherical_aberration * 1e7;
        Self {
            xx: PI * lambda * (mean + half_difference * cos2),
            xy: PI * lambda * 2.0 * half_difference * sin2,
            yy: PI * lambda * (mean - half_difference * cos2),
            quartic: 0.5 * PI * cs * lambda.powi(3),
            phase: particle.phase_shift.to_radians() + optics.amplitude_contrast.asin(),
            b_factor: particle.b_factor,
            scale: particle.scale,
        }
    }

    /// `H = 1` at every frequency.
    pub fn identity() -> Self {
        Self { xx: 0.0, xy: 0.0, yy: 0.0, quartic: 0.0, phase: PI / 2.0, b_factor: 0.0, scale: 1.0 }
    }

    /// The coefficients xx, xy, yy, quartic and phase of gamma (radians and angstrom), the B factor and the scale.
    pub fn coefficients(&self) -> [f64; 7] {
        [self.xx, self.xy, self.yy, self.quartic, self.phase, self.b_factor, self.scale]
    }

    /// `H` in f64 at the spatial frequency (`kx`, `ky`) in 1/angstrom.
    #[inline]
    pub fn at(&self, kx: f64, ky: f64) -> f64 {
        let k2 = kx * kx + ky * ky;
        self.argument(kx, ky, k2).sin() * self.scale * (-0.25 * self.b_factor * k2).exp()
    }

    /// Upper bound of `|H|` at squared spatial frequencies from 0 to `k2`, in 1/angstrom^2.
    pub fn amplitude_bound(&self, k2: f64) -> f64 {
        self.scale.abs() * (-0.25 * self.b_factor * k2).max(0.0).exp()
    }

    #[inline(always)]
    fn argument(&self, kx: f64, ky: f64, k2: f64) -> f64 {
        self.xx * kx * kx + self.xy * kx * ky + self.yy * ky * ky - self.quartic * k2 * k2 + self.phase
    }

    /// Fills `h` with `H` on the half-plane grid of [`super::fourier::Fft2`]: `h[kx * box + ky]`, kx in 0..=box/2,
    /// ky in FFT order; `pixel_size` in angstrom.
    ///
    /// On the Nyquist lines of an even box, +k and -k share a sample. `H` is their mean there, which keeps the filtered image
    /// real. The argument is reduced in f64, and the sine computed in f32 (error below 2e-7).
    ///
    /// # Panics
    /// If `h` does not have `(box/2 + 1) * box` values.
    pub fn half_plane(&self, box_size: usize, pixel_size: f64, h: &mut [f32]) {
        assert_eq!(h.len(), (box_size / 2 + 1) * box_size);
        for (kx, line) in h.chunks_exact_mut(box_size).enumerate() {
            self.half_plane_line(kx, pixel_size, box_size / 2, line);
        }
    }

    /// Fills the line of constant kx of [`Ctf::half_plane`] (one box long) for ky from -`reach` to `reach`. Other values are
    /// unspecified.
    pub fn half_plane_line(&self, kx: usize, pixel_size: f64, reach: usize, line: &mut [f32]) {
        let n = line.len();
        let step = 1.0 / (n as f64 * pixel_size);
        let nyquist = n.is_multiple_of(2).then_some(n / 2);
        let frequency = kx as f64 * step;
        self.line(frequency, step, reach, line);
        if nyquist == Some(kx) {
            // Sample (N, ky) is also (-N, ky), whose CTF is that of (N, -ky).
            let one_sided = line.to_vec();
            for (ky, value) in line.iter_mut().enumerate() {
                *value = 0.5 * (one_sided[ky] + one_sided[(n - ky) % n]);
            }
        }
        if let Some(nyquist) = nyquist.filter(|&nyquist| nyquist <= reach) {
            let ky = nyquist as f64 * step;
            // The corner (N, N) is also (-N, -N). Elsewhere on the line, (kx, N) is also (kx, -N).
            let partner = if kx == nyquist { ky } else { -ky };
            line[nyquist] = (0.5 * (self.at(frequency, ky) + self.at(frequency, partner))) as f32;
        }
    }

    /// A line of constant kx, ky in FFT order, for ky from -`reach` to `reach`.
    fn line(&self, kx: f64, step: f64, reach: usize, line: &mut [f32]) {
        fill(self, kx, step, reach, line);
        if self.scale != 1.0 || self.b_factor != 0.0 {
            let n = line.len();
            for (iy, value) in line.iter_mut().enumerate() {
                let ky = if 2 * iy < n { iy as f64 } else { iy as f64 - n as f64 } * step;
                let envelope = self.scale * (-0.25 * self.b_factor * (kx * kx + ky * ky)).exp();
                *value *= envelope as f32;
            }
        }
    }
}

vectorize! {
/// The CTF without its envelope along a line of constant kx, ky in FFT order, for ky from -`reach` to `reach`.
    fn fill(ctf: &Ctf, kx: f64, step: f64, reach: usize, line: &mut [f32]) = fill_lanes
}

#[inline(always)]
fn fill_lanes<I: Isa>(ctf: &Ctf, kx: f64, step: f64, reach: usize, line: &mut [f32]) {
    // The argument in turns, as a polynomial in ky.
    let turn = 1.0 / (2.0 * PI);
    let constant = I::F64::splat((ctf.xx * kx * kx - ctf.quartic * kx.powi(4) + ctf.phase) * turn);
    let linear = I::F64::splat(ctf.xy * kx * turn);
    let square = I::F64::splat((ctf.yy - 2.0 * ctf.quartic * kx * kx) * turn);
    let quartic = I::F64::splat(-ctf.quartic * turn);
    // Adding and subtracting 1.5 * 2^52 rounds to the nearest integer.
    let magic = I::F64::splat(6_755_399_441_055_744.0);
    let n = line.len();
    let fold = (n.div_ceil(2)) as f64;
    for at in (0..n).step_by(LANES) {
        if at > reach && at + LANES + reach <= n {
            continue;
        }
        let index = I::F64::splat(at as f64) + I::F64::load(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        // Indices from n / 2 on have negative frequencies.
        let negative = index - I::F64::splat(n as f64);
        let ky = (index - I::F64::splat(fold - 0.5)).select_positive(negative, index) * I::F64::splat(step);
        let k2 = ky * ky;
        let even = quartic.mul_add(k2, square).mul_add(k2, constant);
        let t = linear.mul_add(ky, even);
        sin_turns(I::narrow(t - ((t + magic) - magic))).store_partial(line, at);
    }
}

/// `sin(2 pi t)` for t in [-0.5, 0.5]. Error below 2e-7.
#[inline(always)]
fn sin_turns<V: Vector<Scalar = f32>>(t: V) -> V {
    // sin(2 pi t) is odd about 0 and symmetric about 1/4: fold |t| to [0, 1/4].
    let a = t.abs();
    let x = a.min(V::splat(0.5) - a) * V::splat(std::f32::consts::TAU);
    let x2 = x * x;
    // Taylor series of sin on [0, pi/2]; the first omitted term is below 6e-8.
    let mut p = V::splat(-1.0 / 39_916_800.0);
    for c in [1.0 / 362_880.0, -1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0, 1.0] {
        p = p.mul_add(x2, V::splat(c));
    }
    let sine = x * p;
    t.select_positive(sine, -sine)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTICS: Optics = Optics { voltage: 300.0, spherical_aberration: 2.7, amplitude_contrast: 0.1 };

    fn particle() -> CtfParameters {
        CtfParameters {
            defocus_u: 21_000.0,
            defocus_v: 18_500.0,
            astigmatism_angle: 33.0,
            phase_shift: 20.0,
            b_factor: 30.0,
            scale: 0.9,
        }
    }

    /// The formula of docs/method.md, section 4, with the azimuth.
    fn textbook(optics: &Optics, p: &CtfParameters, kx: f64, ky: f64) -> f64 {
        let lambda = wavelength(optics.voltage);
        let (k2, alpha) = (kx * kx + ky * ky, ky.atan2(kx));
        let df = 0.5
            * (p.defocus_u
                + p.defocus_v
                + (p.defocus_u - p.defocus_v) * (2.0 * (alpha - p.astigmatism_angle.to_radians())).cos());
        let gamma = PI * lambda * df * k2
            - PI / 2.0 * optics.spherical_aberration * 1e7 * lambda.powi(3) * k2 * k2
            + p.phase_shift.to_radians();
        let w = optics.amplitude_contrast;
        p.scale * (-p.b_factor * k2 / 4.0).exp() * ((1.0 - w * w).sqrt() * gamma.sin() + w * gamma.cos())
    }

    #[test]
    fn agrees_with_the_textbook_formula() {
        let ctf = Ctf::new(&OPTICS, &particle());
        for (kx, ky) in [(0.0, 0.0), (0.1, 0.02), (-0.05, 0.3), (0.2, -0.45)] {
            let (ours, theirs) = (ctf.at(kx, ky), textbook(&OPTICS, &particle(), kx, ky));
            assert!((ours - theirs).abs() < 1e-10, "{ours} {theirs}");
        }
    }

    #[test]
    fn the_fast_grid_agrees_with_f64_and_is_even() {
        for box_size in [32, 33] {
            let ctf = Ctf::new(&OPTICS, &particle());
            let mut h = vec![0.0f32; (box_size / 2 + 1) * box_size];
            ctf.half_plane(box_size, 1.1, &mut h);
            let step = 1.0 / (box_size as f64 * 1.1);
            for ix in 0..=box_size / 2 {
                for iy in 0..box_size {
                    let ky = if 2 * iy < box_size { iy as f64 } else { iy as f64 - box_size as f64 };
                    let on_nyquist = 2 * ix == box_size || 2 * iy == box_size;
                    let corner = 2 * ix == box_size && 2 * iy == box_size;
                    let expected = if corner {
                        ctf.at(ix as f64 * step, -ky * step)
                    } else if on_nyquist {
                        0.5 * (ctf.at(ix as f64 * step, ky * step) + ctf.at(ix as f64 * step, -ky * step))
                    } else {
                        ctf.at(ix as f64 * step, ky * step)
                    };
                    let got = f64::from(h[ix * box_size + iy]);
                    assert!((got - expected).abs() < 4e-7, "{ix} {iy}: {got} {expected}");
                }
            }
        }
    }

    #[test]
    fn a_partial_line_equals_the_whole_grid() {
        for box_size in [40, 41, 64] {
            let ctf = Ctf::new(&OPTICS, &particle());
            let mut whole = vec![0.0f32; (box_size / 2 + 1) * box_size];
            ctf.half_plane(box_size, 1.1, &mut whole);
            for (kx, whole) in whole.chunks_exact(box_size).enumerate() {
                for reach in 0..box_size / 2 {
                    let mut line = vec![f32::NAN; box_size];
                    ctf.half_plane_line(kx, 1.1, reach, &mut line);
                    assert_eq!(line[..=reach], whole[..=reach], "{box_size} {kx} {reach}");
                    let below = box_size - reach;
                    assert_eq!(line[below..], whole[below..], "{box_size} {kx} -{reach}");
                }
            }
        }
    }

    #[test]
    fn identity_is_one() {
        let mut h = vec![0.0f32; 5 * 8];
        Ctf::identity().half_plane(8, 2.0, &mut h);
        assert!(h.iter().all(|v| (v - 1.0).abs() < 1e-6));
    }
}
