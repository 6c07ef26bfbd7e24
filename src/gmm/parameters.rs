//! Raw parameters as a structure of arrays, one plane per parameter, and their random initialisation.

use rand_distr::{Distribution, StandardNormal};

use crate::random::Random;

/// Smallest standard deviation of a Gaussian, in box units (docs/method.md, section 2).
pub const S_MIN: f64 = 1e-3;
/// Initial standard deviation of a Gaussian, in box units.
pub const START_SCALE: f64 = 0.0075;
/// Standard deviation of the initial means, in box units.
pub const START_SPREAD: f64 = 0.075;
/// Sum of the initial amplitudes of the whole.
pub const START_MASS: f64 = 0.5;

/// Below this argument, softplus equals the exponential function in double precision.
const SMALL: f64 = -40.0;

/// The parameters of a Gaussian, and the order of their planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Mean (3), raw scale (3), quaternion w x y z (4), raw amplitude (1).
    Anisotropic,
    /// Mean (3), raw scale (1), raw amplitude (1).
    Isotropic,
}

impl Shape {
    /// Number of parameters per Gaussian; the amplitude is the last.
    pub fn planes(self) -> usize {
        match self {
            Self::Anisotropic => 11,
            Self::Isotropic => 5,
        }
    }

    /// Planes of the scales.
    pub fn scales(self) -> std::ops::Range<usize> {
        match self {
            Self::Anisotropic => 3..6,
            Self::Isotropic => 3..4,
        }
    }

    /// Name in files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Anisotropic => "anisotropic",
            Self::Isotropic => "isotropic",
        }
    }
}

/// The raw parameters of a Gaussian mixture: box units, before softplus and normalisation (docs/method.md, section 2).
#[derive(Clone, Debug, PartialEq)]
pub struct Gmm {
    shape: Shape,
    count: usize,
    values: Vec<f32>,
}

impl Gmm {
    /// A mixture of `count` Gaussians from its planes, `[plane][gaussian]`, in the order of [`Shape`].
    ///
    /// # Panics
    /// If `values` has another length, or `count` is 0.
    pub fn from_values(shape: Shape, count: usize, values: Vec<f32>) -> Self {
        assert!(count > 0 && values.len() == shape.planes() * count);
        Self { shape, count, values }
    }

    /// Random initialisation (docs/method.md, section 7): mu ~ N(0, 0.075^2 I), s = 0.0075, q = 1, A = 1/(2N).
    pub fn random(count: usize, shape: Shape, random: &mut Random) -> Self {
        let mut values = vec![0.0f32; shape.planes() * count];
        for i in 0..count {
            for axis in 0..3 {
                let normal: f64 = StandardNormal.sample(random);
                values[axis * count + i] = (START_SPREAD * normal) as f32;
            }
        }
        let scale = softplus_inverse(START_SCALE) as f32;
        let amplitude = softplus_inverse(START_MASS / count as f64) as f32;
        let mut plane = |index: usize, value: f32| values[index * count..(index + 1) * count].fill(value);
        match shape {
            Shape::Anisotropic => {
                (3..6).for_each(|k| plane(k, scale));
                plane(6, 1.0);
            }
            Shape::Isotropic => plane(3, scale),
        }
        plane(shape.planes() - 1, amplitude);
        Self { shape, count, values }
    }

    /// Sets all scales to `scale` box units.
    pub fn set_scale(&mut self, scale: f64) {
        let scales = self.shape.scales();
        self.values[scales.start * self.count..scales.end * self.count].fill(softplus_inverse(scale) as f32);
    }

    /// Sets all amplitudes to `amplitude`.
    pub fn set_amplitude(&mut self, amplitude: f64) {
        let plane = self.shape.planes() - 1;
        self.values[plane * self.count..].fill(softplus_inverse(amplitude) as f32);
    }

    /// The mixture whose density is the mean of the densities of `mixtures`: all Gaussians, with amplitudes divided by the number of
    /// mixtures.
    ///
    /// # Panics
    /// If `mixtures` is empty, or the shapes differ.
    pub fn mean(mixtures: &[Self]) -> Self {
        let shape = mixtures[0].shape;
        assert!(mixtures.iter().all(|mixture| mixture.shape == shape));
        let factor = 1.0 / mixtures.len() as f64;
        let values = (0..shape.planes()).flat_map(|plane| {
            mixtures.iter().flat_map(move |mixture| mixture.plane(plane)).map(move |&value| {
                // A single mixture is copied without rounding.
                let scaled = plane + 1 == shape.planes() && mixtures.len() > 1;
                if scaled { scaled_amplitude(f64::from(value), factor) as f32 } else { value }
            })
        });
        Self::from_values(shape, mixtures.iter().map(Self::len).sum(), values.collect())
    }

    /// The mixture as an anisotropic one; isotropic Gaussians get three equal scales.
    pub fn anisotropic(&self) -> Self {
        if self.shape == Shape::Anisotropic {
            return self.clone();
        }
        let ([zeros, ones], scale) = ([0.0, 1.0].map(|value| vec![value; self.count]), self.plane(3));
        let quaternion = [&ones[..], &zeros, &zeros, &zeros].concat();
        let means = &self.values[..3 * self.count];
        let values = [means, scale, scale, scale, &quaternion, self.plane(4)].concat();
        Self::from_values(Shape::Anisotropic, self.count, values)
    }

    /// The mixture in a box whose edge is `1 / ratio` times as long. The projection of a Gaussian keeps its position, width and
    /// values in physical units. Scales are at least [`S_MIN`].
    pub fn rescaled(&self, ratio: f64) -> Self {
        let amplitude = self.shape.planes() - 1;
        let scales = self.shape.scales();
        let values = self.values.iter().enumerate().map(|(i, &value)| {
            let (plane, value) = (i / self.count, f64::from(value));
            let scaled = if plane < 3 {
                value * ratio
            } else if scales.contains(&plane) {
                softplus_inverse((softplus(value).max(S_MIN) * ratio).max(S_MIN))
            } else if plane == amplitude {
                scaled_amplitude(value, ratio * ratio)
            } else {
                value
            };
            scaled as f32
        });
        Self { values: values.collect(), ..*self }
    }

    /// Amplitudes, one per Gaussian.
    pub fn amplitudes(&self) -> impl Iterator<Item = f64> {
        self.plane(self.shape.planes() - 1).iter().map(|&raw| softplus(f64::from(raw)))
    }

    /// Standard deviations along the principal axes in box units, `[axis][gaussian]`: one or three axes.
    pub fn scales(&self) -> impl Iterator<Item = f64> {
        let planes = self.shape.scales().flat_map(|plane| self.plane(plane));
        planes.map(|&raw| softplus(f64::from(raw)).max(S_MIN))
    }

    /// Number of Gaussians.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Always false: a mixture has at least one Gaussian.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Parameters per Gaussian.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// All raw parameters, `[plane][gaussian]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All raw parameters, `[plane][gaussian]`, mutable.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Plane `index`, in the order of [`Shape`].
    pub fn plane(&self, index: usize) -> &[f32] {
        &self.values[index * self.count..(index + 1) * self.count]
    }

    /// CRC-32 of the bits of all parameters.
    pub fn checksum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        let mut bytes = Vec::with_capacity(4096 * 4);
        for chunk in self.values.chunks(4096) {
            bytes.clear();
            chunk.iter().for_each(|v| bytes.extend(v.to_le_bytes()));
            hasher.update(&bytes);
        }
        hasher.finalize()
    }
}

/// The raw parameter of `factor` times the amplitude of `raw`.
pub(super) fn scaled_amplitude(raw: f64, factor: f64) -> f64 {
    if raw < SMALL { raw + factor.ln() } else { softplus_inverse(softplus(raw) * factor) }
}

/// `softplus(x) = ln(1 + e^x)`, which maps raw scales and amplitudes to positive values.
pub fn softplus(x: f64) -> f64 {
    if x > 30.0 { x } else { x.exp().ln_1p() }
}

/// `softplus^-1(y) = ln(e^y - 1)`; in f64, because it approaches ln(y) for small y.
pub fn softplus_inverse(y: f64) -> f64 {
    if y > 30.0 { y } else { y.exp_m1().ln() }
}
