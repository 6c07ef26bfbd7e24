//! Aberrations in RELION's Zernike polynomials (docs/method.md, section 4).
//!
//! Source: Zivanov, Nakane and Scheres, IUCrJ 7 (2020) 253. The radius is the spatial frequency in 1/angstrom, without
//! normalisation; coefficients are in radians, ordered by n, then by m.

use std::f64::consts::PI;

use rustfft::num_complex::Complex;

use super::ctf::EvenPolynomial;
use super::fourier::frequency;

/// Largest n of an odd polynomial: with more, powers of the frequency lose all digits.
const LARGEST_ODD: usize = 15;

/// An odd aberration: the image is that of a perfect microscope times `exp(i phase(k))`, and `phase(-k) = -phase(k)`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OddAberration {
    /// Coefficients of the polynomials (n, m) = (1, -1), (1, 1), (3, -3), (3, -1), (3, 1), (3, 3), (5, -5), ...
    coefficients: Vec<f64>,
}

impl OddAberration {
    /// The aberration of these Zernike coefficients. `None` if there are more than this program evaluates.
    pub fn new(coefficients: Vec<f64>) -> Option<Self> {
        let order = (LARGEST_ODD.div_ceil(2)) * (LARGEST_ODD.div_ceil(2) + 1);
        (coefficients.len() <= order).then_some(Self { coefficients })
    }

    /// Adds a beam tilt: the phase -2 pi lambda^2 |k|^2 (k . displacement). `displacement` is Cs times the tilt in radians, in
    /// angstrom; lambda in angstrom.
    pub fn add_tilt(&mut self, displacement: [f64; 2], lambda: f64) {
        if displacement == [0.0; 2] {
            return;
        }
        if self.coefficients.len() < 6 {
            self.coefficients.resize(6, 0.0);
        }
        // (3, 1) is (3 r^2 - 2) x, and (1, 1) is x.
        let [x, y] = displacement.map(|d| -2.0 * PI * lambda * lambda * d / 3.0);
        for (place, term) in [(4, x), (3, y), (1, 2.0 * x), (0, 2.0 * y)] {
            self.coefficients[place] += term;
        }
    }

    /// True if the phase is 0 at every frequency.
    pub fn is_zero(&self) -> bool {
        self.coefficients.iter().all(|&c| c == 0.0)
    }

    /// The coefficients of the Zernike polynomials.
    pub fn coefficients(&self) -> &[f64] {
        &self.coefficients
    }

    /// The factors `exp(i phase(M k))` on the half plane of images of `box_size` pixels of `pixel_size` angstrom, `[kx][ky]`; empty
    /// if all are 1. On the Nyquist lines of an even box, where +k and -k share a sample, the mean of both.
    pub fn factors(
        &self,
        box_size: usize,
        pixel_size: f64,
        magnification: &[[f64; 2]; 2],
    ) -> Vec<Complex<f32>> {
        if self.is_zero() {
            return Vec::new();
        }
        let step = 1.0 / (box_size as f64 * pixel_size);
        let [[a, b], [c, d]] = *magnification;
        let factor = |kx: f64, ky: f64| {
            Complex::from_polar(1.0, self.phase(step * (a * kx + b * ky), step * (c * kx + d * ky)))
        };
        let mut factors = Vec::with_capacity((box_size / 2 + 1) * box_size);
        for kx in 0..=box_size / 2 {
            for iy in 0..box_size {
                let (kx, ky) = (kx as f64, frequency(iy, box_size) as f64);
                let edge = |k: f64| if 2.0 * k.abs() == box_size as f64 { -k } else { k };
                let mean: Complex<f64> = 0.5 * (factor(kx, ky) + factor(edge(kx), edge(ky)));
                factors.push(Complex::new(mean.re as f32, mean.im as f32));
            }
        }
        factors
    }

    /// The phase in radians at the frequency (`kx`, `ky`) in 1/angstrom.
    pub fn phase(&self, kx: f64, ky: f64) -> f64 {
        let (radius, azimuth) = (kx.hypot(ky), ky.atan2(kx));
        let mut sum = 0.0;
        let (mut n, mut m) = (1i32, -1i32);
        for coefficient in &self.coefficients {
            if *coefficient != 0.0 {
                let angle = f64::from(m.abs()) * azimuth;
                let angular = if m < 0 { angle.sin() } else { angle.cos() };
                sum += coefficient * radial(n as u32, m.unsigned_abs(), radius) * angular;
            }
            m += 2;
            if m > n {
                n += 2;
                m = -n;
            }
        }
        sum
    }
}

/// The radial Zernike polynomial of order `n` and azimuthal frequency `m`.
fn radial(n: u32, m: u32, radius: f64) -> f64 {
    let factorial = |k: u32| (1..=k).map(f64::from).product::<f64>();
    let term = |k: u32| {
        let sign = if k.is_multiple_of(2) { 1.0 } else { -1.0 };
        let denominator = factorial(k) * factorial((n + m) / 2 - k) * factorial((n - m) / 2 - k);
        sign * factorial(n - k) / denominator * radius.powi((n - 2 * k) as i32)
    };
    (0..=(n - m) / 2).map(term).sum()
}

/// What the even Zernike coefficients (RELION's `rlnEvenZernike`) add to gamma of the CTF. RELION subtracts them from gamma.
///
/// # Errors
/// With the index of the first coefficient that is not zero and belongs to an order above 4.
pub fn even_polynomial(coefficients: &[f64]) -> Result<EvenPolynomial, usize> {
    /// The polynomials (0, 0), (2, -2), (2, 0), (2, 2), (4, -4), (4, -2), (4, 0), (4, 2), (4, 4).
    const TERMS: [[f64; 9]; 9] = [
        [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [-1.0, 2.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 4.0, 0.0, -4.0, 0.0],
        [0.0, 0.0, -6.0, 0.0, 0.0, 8.0, 0.0, 8.0, 0.0],
        [1.0, -6.0, 0.0, -6.0, 6.0, 0.0, 12.0, 0.0, 6.0],
        [0.0, -3.0, 0.0, 3.0, 4.0, 0.0, 0.0, 0.0, -4.0],
        [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, -6.0, 0.0, 1.0],
    ];
    if let Some(above) = coefficients.iter().skip(TERMS.len()).position(|&c| c != 0.0) {
        return Err(TERMS.len() + above);
    }
    let term = |k: usize| TERMS.iter().zip(coefficients).map(|(term, c)| -c * term[k]).sum();
    Ok(EvenPolynomial(std::array::from_fn(term)))
}

/// The nine even Zernike coefficients of a polynomial: the inverse of [`even_polynomial`].
pub fn even_coefficients(polynomial: &EvenPolynomial) -> [f64; 9] {
    let [q0, xx, xy, yy, xxxx, xxxy, xxyy, xyyy, yyyy] = polynomial.0.map(|value| 0.0 - value);
    let half_sum = 0.5 * (xxxx + yyyy);
    let (c4, c5, c7) = ((xxxy - xyyy) / 8.0, (xxxy + xyyy) / 16.0, (xxxx - yyyy) / 8.0);
    let c6 = (6.0 * half_sum + xxyy) / 48.0;
    let c8 = half_sum - 6.0 * c6;
    let (c1, c2, c3) = (0.5 * xy + 3.0 * c5, 0.25 * (xx + yy) + 3.0 * c6, 0.5 * (xx - yy) + 3.0 * c7);
    [q0 + c2 - c6, c1, c2, c3, c4, c5, c6, c7, c8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beam_tilt_is_the_textbook_phase() {
        let mut odd = OddAberration::default();
        let (lambda, displacement) = (0.0197, [2.7e7 * 8e-3, -2.7e7 * 5e-3]);
        odd.add_tilt(displacement, lambda);
        for (kx, ky) in [(0.1, 0.0), (0.05, -0.12), (-0.2, 0.07)] {
            let (dx, dy) = (displacement[0] * kx, displacement[1] * ky);
            let want = -2.0 * PI * lambda * lambda * (kx * kx + ky * ky) * (dx + dy);
            assert!((odd.phase(kx, ky) - want).abs() < 1e-9 * want.abs().max(1.0));
            assert!((odd.phase(-kx, -ky) + want).abs() < 1e-9 * want.abs().max(1.0));
        }
        assert!(OddAberration::new(vec![0.0; 80]).is_none());
    }

    #[test]
    fn even_polynomials_are_zernike_polynomials() {
        let (kx, ky): (f64, f64) = (0.21, -0.34);
        let (radius, azimuth) = (kx.hypot(ky), ky.atan2(kx));
        let orders = [(0, 0), (2, -2), (2, 0), (2, 2), (4, -4), (4, -2), (4, 0), (4, 2), (4, 4)];
        for (place, (n, m)) in orders.into_iter().enumerate() {
            let mut coefficients = vec![0.0; 9];
            coefficients[place] = 1.5;
            let angle = f64::from(i32::abs(m)) * azimuth;
            let angular = if m < 0 { angle.sin() } else { angle.cos() };
            let want = -1.5 * radial(n, m.unsigned_abs(), radius) * angular;
            assert!((even_polynomial(&coefficients).unwrap().at(kx, ky) - want).abs() < 1e-12, "{n} {m}");
        }
        assert_eq!(even_polynomial(&[0.0; 16]).unwrap(), EvenPolynomial::ZERO);
        let coefficients = [0.5, -1.0, 2.0, 3.0, -4.0, 5.0, 6.0, -7.0, 8.0];
        for (got, want) in
            even_coefficients(&even_polynomial(&coefficients).unwrap()).iter().zip(coefficients)
        {
            assert!((got - want).abs() < 1e-12, "{got} {want}");
        }
        let mut high = vec![0.0; 16];
        high[11] = 0.1;
        assert_eq!(even_polynomial(&high), Err(11));
    }
}
