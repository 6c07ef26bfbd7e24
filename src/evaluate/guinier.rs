//! Guinier plots and the sharpening B factor of a map (Rosenthal and Henderson, J. Mol. Biol. 333 (2003) 721).

use ndarray::Array3;
use rustfft::num_complex::Complex;

use crate::evaluate::shells::radius;

/// One shell of a Guinier plot.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Point {
    /// 1/d^2 in 1/angstrom^2, with d the resolution of the shell.
    pub inverse_square: f64,
    /// Natural logarithm of the mean modulus in the shell; `None` if that is 0.
    pub log_amplitude: Option<f64>,
}

/// A straight line fitted to a Guinier plot.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Line {
    /// Low and high resolution limit of the fit in angstrom.
    pub range: [f64; 2],
    /// Number of shells.
    pub shells: usize,
    /// Slope in angstrom^2: a quarter of the B factor.
    pub slope: f64,
    /// Logarithm of the modulus at 1/d^2 = 0.
    pub intercept: f64,
    /// Correlation coefficient of the points.
    pub correlation: f64,
}

impl Line {
    /// The B factor in angstrom^2: negative if amplitudes fall off, so that the map needs sharpening.
    pub fn b_factor(&self) -> f64 {
        4.0 * self.slope
    }
}

/// The Guinier plot of a cubic spectrum, shells 1 to floor(D/2) - 1; `edge` is the edge of the box in angstrom.
pub fn plot(spectrum: &Array3<Complex<f64>>, edge: f64) -> Vec<Point> {
    let n = spectrum.dim().0;
    let mut sums = vec![(0.0, 0.0); n + 1];
    for ((z, y, x), value) in spectrum.indexed_iter() {
        let sum = &mut sums[radius([z, y, x], n).round() as usize];
        *sum = (sum.0 + value.norm(), sum.1 + 1.0);
    }
    let point = |shell: usize| {
        let mean: f64 = sums[shell].0 / sums[shell].1;
        Point {
            inverse_square: (shell as f64 / edge).powi(2),
            log_amplitude: (mean > 0.0).then(|| mean.ln()),
        }
    };
    (1..n / 2).map(point).collect()
}

/// Least-squares line through the shells from `coarse` to `fine` angstrom; `None` if fewer than 3 have power.
pub fn fit(points: &[Point], coarse: f64, fine: f64) -> Option<Line> {
    // A limit computed from a shell must include that shell in spite of rounding.
    let within =
        |p: &&Point| (fine * (1.0 - 1e-9)..=coarse * (1.0 + 1e-9)).contains(&p.inverse_square.sqrt().recip());
    let used: Vec<(f64, f64)> =
        points.iter().filter(within).filter_map(|p| Some((p.inverse_square, p.log_amplitude?))).collect();
    if used.len() < 3 {
        return None;
    }
    let n = used.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| used.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    for (px, py) in &used {
        xx += (px - x).powi(2);
        xy += (px - x) * (py - y);
        yy += (py - y).powi(2);
    }
    let slope = xy / xx;
    let correlation = if yy > 0.0 { xy / (xx * yy).sqrt() } else { 0.0 };
    Some(Line { range: [coarse, fine], shells: used.len(), slope, intercept: y - slope * x, correlation })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fit_recovers_b_factor_of_envelope() {
        let (n, edge, b) = (32, 64.0, 90.0);
        let spectrum = Array3::from_shape_fn((n, n, n), |(z, y, x)| {
            let k = radius([z, y, x], n) / edge;
            Complex::from_polar(7.0 * (-b / 4.0 * k * k).exp(), (x + 2 * y + 3 * z) as f64)
        });
        let points = plot(&spectrum, edge);
        assert_eq!(points.len(), 15);
        let line = fit(&points, 12.0, 64.0 / 15.0).unwrap();
        // The values of a shell lie near its radius, not on it.
        assert!((line.b_factor() + b).abs() < 1.0, "{line:?}");
        assert_eq!(line.shells, 10);
        assert!((line.intercept - 7f64.ln()).abs() < 0.02 && line.correlation < -0.999, "{line:?}");
        assert_eq!(fit(&points, 12.0, 10.0), None);
        let empty = Array3::from_elem((n, n, n), Complex::new(0.0, 0.0));
        assert_eq!(fit(&plot(&empty, edge), 64.0, 4.0), None);
    }
}
