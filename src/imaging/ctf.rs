//! The contrast transfer function (docs/method.md, section 4).

use std::f64::consts::PI;

use crate::simd::{Isa, LANES, Vector, vectorize};

/// `lambda = WAVELENGTH / sqrt(V + RELATIVISTIC V^2)`, with V in volts and lambda in angstrom (RELION's constant).
pub const WAVELENGTH: f64 = 12.264_324_7;
/// The relativistic term of the wavelength, per volt (RELION's constant).
pub const RELATIVISTIC: f64 = 0.978_466e-6;

/// Optics of a group of particles.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Optics {
    /// Name of the group; empty if it has none.
    pub name: String,
    /// Acceleration voltage in kV.
    pub voltage: f64,
    /// Spherical aberration in mm.
    pub spherical_aberration: f64,
    /// Amplitude contrast, a fraction in [0, 1].
    pub amplitude_contrast: f64,
    /// Even aberration: what is added to gamma.
    pub even: EvenPolynomial,
    /// Matrix M of the anisotropic magnification, row by row: the CTF at k is that of a perfect microscope at M k.
    pub magnification: [[f64; 2]; 2],
    /// True if the images were multiplied by their CTF before they were stored.
    pub premultiplied: bool,
    /// Resolution limit of the images in angstrom: finer detail is not in them, and H is 0 there. 0 for none.
    pub resolution_limit: f64,
}

impl Optics {
    /// The matrix of a magnification that is the same in all directions.
    pub const ISOTROPIC: [[f64; 2]; 2] = [[1.0, 0.0], [0.0, 1.0]];

    /// True if the magnification is that of a microscope: finite, without a mirror, and within a factor of 2.
    pub(crate) fn has_usable_magnification(&self) -> bool {
        let [[a, b], [c, d]] = self.magnification;
        let (determinant, squares) = (a * d - b * c, a * a + b * b + c * c + d * d);
        // The sum of the squared singular values, and their product.
        determinant >= 0.25 && squares <= 8.0
    }

    /// Optics of a group without a name, without even aberrations beyond Cs (voltage in kV, Cs in mm, amplitude contrast in [0, 1]),
    /// with isotropic magnification and images as the detector saw them.
    pub const fn new(voltage: f64, spherical_aberration: f64, amplitude_contrast: f64) -> Self {
        Self {
            name: String::new(),
            voltage,
            spherical_aberration,
            amplitude_contrast,
            even: EvenPolynomial::ZERO,
            magnification: Self::ISOTROPIC,
            premultiplied: false,
            resolution_limit: 0.0,
        }
    }
}

/// An even polynomial of degree 4 in a spatial frequency (kx, ky) in 1/angstrom; values in radians.
///
/// Coefficients in this order: 1; kx^2, kx ky, ky^2; kx^4, kx^3 ky, kx^2 ky^2, kx ky^3, ky^4.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct EvenPolynomial(pub [f64; 9]);

impl EvenPolynomial {
    /// The polynomial 0.
    pub const ZERO: Self = Self([0.0; 9]);

    /// The sum of two polynomials.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    /// The polynomial of k whose value is that of this one at M k.
    #[must_use]
    pub fn transformed(&self, m: &[[f64; 2]; 2]) -> Self {
        // The term kx^(degree - j) ky^j of a form becomes (m00 kx + m01 ky)^(degree - j) (m10 kx + m11 ky)^j.
        let form = |coefficients: &[f64]| {
            let degree = coefficients.len() - 1;
            let mut sum = [0.0; 5];
            for (j, &coefficient) in coefficients.iter().enumerate() {
                let mut term = [coefficient, 0.0, 0.0, 0.0, 0.0];
                for factor in 0..degree {
                    let [x, y] = m[usize::from(factor < j)];
                    for i in (0..=factor + 1).rev() {
                        term[i] = term[i] * x + if i > 0 { term[i - 1] * y } else { 0.0 };
                    }
                }
                sum.iter_mut().zip(term).for_each(|(sum, term)| *sum += term);
            }
            sum
        };
        let mut transformed = *self;
        transformed.0[1..4].copy_from_slice(&form(&self.0[1..4])[..3]);
        transformed.0[4..].copy_from_slice(&form(&self.0[4..]));
        transformed
    }

    /// The value at (`kx`, `ky`), in radians.
    #[inline(always)]
    pub fn at(&self, kx: f64, ky: f64) -> f64 {
        let [phase, xx, xy, yy, xxxx, xxxy, xxyy, xyyy, yyyy] = self.0;
        let k2 = kx * kx + ky * ky;
        // The isotropic part is a term of its own: it alone is large, and it alone is left without astigmatism of higher order.
        let (rest22, rest04) = (xxyy - 2.0 * xxxx, yyyy - xxxx);
        let rest = ky * (xxxy * kx * kx * kx + ky * (rest22 * kx * kx + ky * (xyyy * kx + rest04 * ky)));
        xx * kx * kx + xy * kx * ky + yy * ky * ky + xxxx * k2 * k2 + phase + rest
    }
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

/// The CTF of one particle, ready to be evaluated: `H = scale exp(-B(k)/4) sin(gamma(k))`, and 0 beyond a resolution limit.
///
/// gamma is an even polynomial of degree 4 in (kx, ky): defocus, astigmatism, Cs, phase shift, amplitude contrast, even aberrations
/// and magnification are all in it, and no azimuth is needed. B is a quadratic form: `b_factor k^2`, of the transformed frequency
/// where the magnification is anisotropic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ctf {
    gamma: EvenPolynomial,
    /// Coefficients of kx^2, kx ky and ky^2.
    envelope: [f64; 3],
    scale: f64,
    /// Resolution limit in angstrom; 0 for none.
    limit: f64,
    premultiplied: bool,
    /// Derivative of gamma with respect to the defocus: coefficients of kx^2, kx ky and ky^2.
    slope: [f64; 3],
}

/// The numbers of a [`Ctf`]: `H = scale exp(-B(k)/4) sin(gamma(k))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients {
    /// gamma.
    pub gamma: EvenPolynomial,
    /// Coefficients of kx^2, kx ky and ky^2 of the form B, in square angstrom.
    pub envelope: [f64; 3],
    /// The scale.
    pub scale: f64,
    /// Resolution limit in angstrom: H is 0 where `limit^2 k^2 > 1`. 0 for none.
    pub limit: f64,
    /// True if observed images were already multiplied by H.
    pub premultiplied: bool,
    /// Derivative of gamma with respect to the defocus, per angstrom: coefficients of kx^2, kx ky and ky^2.
    pub slope: [f64; 3],
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
        let quartic = -0.5 * PI * cs * lambda.powi(3);
        let mut gamma = EvenPolynomial([
            particle.phase_shift.to_radians() + optics.amplitude_contrast.asin(),
            PI * lambda * (mean + half_difference * cos2),
            PI * lambda * 2.0 * half_difference * sin2,
            PI * lambda * (mean - half_difference * cos2),
            quartic,
            0.0,
            2.0 * quartic,
            0.0,
            quartic,
        ]);
        if optics.even != EvenPolynomial::ZERO {
            gamma = gamma.plus(&optics.even);
        }
        let b = particle.b_factor;
        let mut envelope = EvenPolynomial([0.0, b, 0.0, b, 0.0, 0.0, 0.0, 0.0, 0.0]);
        let per_defocus = PI * lambda;
        let mut slope = EvenPolynomial([0.0, per_defocus, 0.0, per_defocus, 0.0, 0.0, 0.0, 0.0, 0.0]);
        if optics.magnification != Optics::ISOTROPIC {
            [gamma, envelope, slope] =
                [gamma, envelope, slope].map(|polynomial| polynomial.transformed(&optics.magnification));
        }
        let form = |polynomial: EvenPolynomial| [1, 2, 3].map(|i| polynomial.0[i]);
        Self {
            gamma,
            envelope: form(envelope),
            scale: particle.scale,
            limit: optics.resolution_limit,
            premultiplied: optics.premultiplied,
            slope: form(slope),
        }
    }

    /// `H = 1` at every frequency.
    pub fn identity() -> Self {
        let mut gamma = EvenPolynomial::ZERO;
        gamma.0[0] = PI / 2.0;
        Self { gamma, envelope: [0.0; 3], scale: 1.0, limit: 0.0, premultiplied: false, slope: [0.0; 3] }
    }

    /// The CTF whose gamma is larger by a quarter of a turn: `scale exp(-B(k)/4) cos(gamma(k))`, the derivative of H with respect to
    /// gamma.
    #[must_use]
    pub fn quadrature(&self) -> Self {
        let mut gamma = self.gamma;
        gamma.0[0] += PI / 2.0;
        Self { gamma, ..*self }
    }

    /// The numbers of this CTF.
    pub fn coefficients(&self) -> Coefficients {
        let &Self { gamma, envelope, scale, limit, premultiplied, slope } = self;
        Coefficients { gamma, envelope, scale, limit, premultiplied, slope }
    }

    /// `H` in f64 at the spatial frequency (`kx`, `ky`) in 1/angstrom.
    #[inline]
    pub fn at(&self, kx: f64, ky: f64) -> f64 {
        self.gamma.at(kx, ky).sin() * self.envelope_at(kx, ky)
    }

    /// Upper bound of `|H|` at squared spatial frequencies from 0 to `k2`, in 1/angstrom^2.
    pub fn amplitude_bound(&self, k2: f64) -> f64 {
        let [xx, xy, yy] = self.envelope;
        // The smaller eigenvalue of the form: B in the direction where the envelope falls least or grows most.
        let smallest = 0.5 * (xx + yy) - (0.5 * (xx - yy)).hypot(0.5 * xy);
        self.scale.abs() * (-0.25 * smallest * k2).max(0.0).exp()
    }

    /// The scale times the envelope; 0 beyond the resolution limit.
    #[inline(always)]
    fn envelope_at(&self, kx: f64, ky: f64) -> f64 {
        let [xx, xy, yy] = self.envelope;
        let k2 = kx * kx + ky * ky;
        if self.limit * self.limit * k2 > 1.0 {
            return 0.0;
        }
        // For an isotropic form B k^2, exactly.
        let b = xx * k2 + ky * (xy * kx + (yy - xx) * ky);
        self.scale * (-0.25 * b).exp()
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
        if self.scale != 1.0 || self.envelope != [0.0; 3] || self.limit != 0.0 {
            let n = line.len();
            for (iy, value) in line.iter_mut().enumerate() {
                let ky = if 2 * iy < n { iy as f64 } else { iy as f64 - n as f64 } * step;
                *value *= self.envelope_at(kx, ky) as f32;
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
    let [phase, xx, xy, yy, xxxx, xxxy, xxyy, xyyy, yyyy] = ctf.gamma.0;
    let constant = I::F64::splat((xx * kx * kx + xxxx * kx.powi(4) + phase) * turn);
    let linear = I::F64::splat((xy + xxxy * kx * kx) * kx * turn);
    let square = I::F64::splat((yy + xxyy * kx * kx) * turn);
    let cubic = I::F64::splat(xyyy * kx * turn);
    let quartic = I::F64::splat(yyyy * turn);
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
        let t = cubic.mul_add(k2, linear).mul_add(ky, even);
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
mod tests;
