//! Random cases and golden values, with the expected results of devices.

// Each test file is a separate crate and uses only some of these.
#![allow(dead_code)]

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use cryosplat_mpi::gmm::{Gmm, Shape, softplus_inverse};
use cryosplat_mpi::imaging::ctf::{Ctf, CtfParameters, EvenPolynomial, Optics, wavelength};
use cryosplat_mpi::imaging::pose::rotation_from_quaternion;
use cryosplat_mpi::render::{
    Geometry, ImageSums, Observation, Sampling, Symmetry, Target, View, Weights, energy,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use super::reference::{self, Image, Raw, Support};

/// The agreement that docs/architecture.md promises: f32 devices agree with the f64 reference to this, relative to the largest value.
pub const TOLERANCE: f64 = 1e-5;

/// A new seed for each run, which is printed. CRYOSPLAT_TEST_SEED sets it, to repeat a run.
pub fn seed() -> u64 {
    let seed =
        std::env::var("CRYOSPLAT_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| u64::from(time.subsec_nanos()))
        });
    println!("CRYOSPLAT_TEST_SEED={seed}");
    seed
}

pub struct Case {
    pub d: usize,
    pub pixel_size: f64,
    pub gaussians: Vec<Raw>,
    pub images: Vec<Image>,
    pub views: Vec<View>,
    pub sampling: Sampling,
    pub symmetry: Symmetry,
    pub weights: Weights,
    /// Contrast, weight and noise group of each image.
    particles: Vec<(f64, f64, usize)>,
    /// Noise weights of each group, by shell.
    pub noise_weights: Vec<Vec<f32>>,
    /// The images without weights; empty if `images` has none.
    unweighted: Vec<Image>,
}

const IDENTITY: [[f64; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

/// A random case with extreme values: thin and wide Gaussians, some outside the box, one with an amplitude near zero.
pub fn case(seed: u64, d: usize, n: usize, images: usize, isotropic: bool) -> Case {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // Uniform in [-1, 1].
    let uniform = |random: &mut ChaCha8Rng| 2.0 * random.random::<f64>() - 1.0;
    let gaussians: Vec<Raw> = (0..n)
        .map(|i| {
            let spread = if i % 7 == 3 { 0.7 } else { 0.25 };
            // Standard deviations of 0.2 to 3.6 pixels.
            let s = [0; 3].map(|_| softplus_inverse(0.9 * 4.0f64.powf(uniform(&mut random)) / d as f64));
            let q = [0; 4].map(|_| uniform(&mut random) + 0.1);
            Raw {
                mu: [0; 3].map(|_| spread * uniform(&mut random)),
                s: match (isotropic, i % 11) {
                    (true, _) => [s[0]; 3],
                    (_, 5) => [softplus_inverse(0.002), s[1], softplus_inverse(4.0 / d as f64)],
                    // As wide as the box.
                    _ if i % 17 == 12 => [0.3, 0.4, 0.5].map(softplus_inverse),
                    // Below the minimum scale, where the derivative is zero.
                    (_, 7) => [softplus_inverse(0.0005), s[1], s[2]],
                    _ => s,
                },
                q: if isotropic { [1.0, 0.0, 0.0, 0.0] } else { q },
                a: if i == 2 { -20.0 } else { uniform(&mut random) },
            }
        })
        .map(|g| Raw::from_numbers(g.numbers().map(|v| f64::from(v as f32))))
        .collect();
    let pixel_size = 3.1;
    let mut made = Vec::new();
    let mut views = Vec::new();
    for k in 0..images {
        let q = [0; 4].map(|_| uniform(&mut random));
        let w = rotation_from_quaternion(q);
        let p = [14_000.0 + 900.0 * k as f64, 13_500.0, 37.0 * k as f64, 300.0, 2.7, 0.1, 10.0 * k as f64];
        let observed = (0..d * d).map(|_| f64::from(random.sample::<f32, _>(StandardNormal))).collect();
        let h = reference::ctf(d, pixel_size, wavelength(300.0), &p);
        made.push(Image { w, offset: [0.0; 2], operators: vec![IDENTITY], h, observed });
        views.push(View::new(w, ctf(&p, wavelength(300.0))));
    }
    Case::new(d, pixel_size, gaussians, made, views)
}

/// CTF of (defocus U, defocus V, angle, voltage, Cs, amplitude contrast, phase shift), the order of the golden values.
fn ctf(p: &[f64], lambda: f64) -> Ctf {
    let optics = Optics::new(p[3], p[4], p[5]);
    let particle = CtfParameters {
        defocus_u: p[0],
        defocus_v: p[1],
        astigmatism_angle: p[2],
        phase_shift: p[6],
        ..CtfParameters::default()
    };
    Ctf::with_wavelength(lambda, &optics, &particle)
}

pub fn planes(gaussians: &[Raw], shape: Shape) -> Gmm {
    let columns: &[usize] = match shape {
        Shape::Anisotropic => &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
        Shape::Isotropic => &[0, 1, 2, 3, 10],
    };
    let values = columns.iter().flat_map(|&c| gaussians.iter().map(move |g| g.numbers()[c] as f32)).collect();
    Gmm::from_values(shape, gaussians.len(), values)
}

impl Case {
    fn new(d: usize, pixel_size: f64, gaussians: Vec<Raw>, images: Vec<Image>, views: Vec<View>) -> Self {
        let (sampling, weights) = (Sampling::Points, Weights::UNIFORM);
        Self {
            particles: vec![(1.0, 1.0, 0); images.len()],
            noise_weights: vec![vec![1.0]],
            symmetry: Symmetry::C1,
            unweighted: Vec::new(),
            d,
            pixel_size,
            gaussians,
            images,
            views,
            sampling,
            weights,
        }
    }

    /// Gives each image optics with even aberrations, anisotropic magnification (also of the view), an envelope and a resolution limit;
    /// to be called first.
    pub fn aberrated(mut self) -> Self {
        let (d, step) = (self.d, 1.0 / (self.d as f64 * self.pixel_size));
        let signed = |i: usize| step * if 2 * i < d { i as f64 } else { i as f64 - d as f64 };
        for (k, (view, image)) in self.views.iter_mut().zip(&mut self.images).enumerate() {
            let magnification = [[1.02, 0.01 * k as f64], [-0.015, 0.97]];
            let optics = Optics {
                even: EvenPolynomial([0.1, 30.0, -50.0, 20.0, 900.0, -700.0, 600.0, 800.0, -300.0]),
                magnification,
                resolution_limit: 2.3 * self.pixel_size,
                ..Optics::new(300.0, 2.7, 0.1)
            };
            let particle = CtfParameters {
                defocus_u: 15_000.0 + 700.0 * k as f64,
                defocus_v: 14_000.0,
                astigmatism_angle: 25.0,
                phase_shift: 10.0,
                b_factor: 80.0,
                scale: 0.8,
            };
            view.ctf = Ctf::new(&optics, &particle);
            let [p, q, rest] = image.w;
            let row = |m: [f64; 2]| std::array::from_fn(|i| m[0] * p[i] + m[1] * q[i]);
            view.rotation = [row(magnification[0]), row(magnification[1]), rest];
            image.w = view.rotation;
            let h = |at: usize| {
                let (i, j) = (at / d, at % d);
                let there = view.ctf.at(signed((d - j) % d), signed((d - i) % d));
                0.5 * (view.ctf.at(signed(j), signed(i)) + there)
            };
            image.h = (0..d * d).map(h).collect();
            assert!(image.h.contains(&0.0));
        }
        self
    }

    /// Gives each image another place of the origin, the last one far from the centre.
    pub fn shifted(mut self) -> Self {
        let last = self.views.len() - 1;
        for k in 0..=last {
            let offset = if k == last { [9.3, -12.6] } else { [0.4 + 1.3 * k as f64, -2.7 + 0.8 * k as f64] };
            self.views[k].offset = offset;
            for image in [Some(&mut self.images[k]), self.unweighted.get_mut(k)].into_iter().flatten() {
                image.offset = offset;
            }
        }
        self
    }

    /// Makes the Gaussians the asymmetric unit of `symmetry`.
    pub fn symmetric(mut self, symmetry: Symmetry) -> Self {
        self.symmetry = symmetry;
        for image in self.images.iter_mut().chain(&mut self.unweighted) {
            image.operators = symmetry.operators();
        }
        self
    }

    /// Gives each image its own contrast and weight, and one of two noise groups; to be called after [`Case::band_limited`]. One group
    /// has weights for all shells of the box and its corners, the other for the first few.
    pub fn individual(mut self) -> Self {
        let weights = |shells: usize, depth: f32| {
            (0..shells).map(|shell| 1.0 + depth * (0.8 * shell as f32).sin()).collect::<Vec<_>>()
        };
        self.noise_weights = vec![weights(self.d, 0.6), weights(5, -0.9)];
        for k in 0..self.images.len() {
            let (contrast, weight, group) = (0.6 + 0.3 * k as f64, 1.7 / (1 + k) as f64, (k + 1) % 2);
            self.particles[k] = (contrast, weight, group);
            for image in [Some(&mut self.images[k]), self.unweighted.get_mut(k)].into_iter().flatten() {
                image.h.iter_mut().for_each(|h| *h *= contrast);
            }
        }
        let particles = self.particles.clone();
        let noise: Vec<Vec<f64>> = (0..self.noise_weights.len()).map(|group| self.noise(group)).collect();
        self.weigh(|k, at| particles[k].1 * noise[particles[k].2][at]);
        self
    }

    /// The noise weights of a group at the frequencies of the images, in FFT order.
    fn noise(&self, group: usize) -> Vec<f64> {
        let (d, weights) = (self.d, &self.noise_weights[group]);
        let shell = |at: usize| (reference::radius(at / d, at % d, d) * d as f64).round() as usize;
        (0..d * d).map(|at| f64::from(weights[shell(at).min(weights.len() - 1)])).collect()
    }

    /// Gives the reference CTFs and images times the square root of `weight(image, frequency)`.
    fn weigh(&mut self, weight: impl Fn(usize, usize) -> f64) {
        if self.unweighted.is_empty() {
            self.unweighted = self.images.clone();
        }
        let d = self.d;
        for (k, Image { h, observed, .. }) in self.images.iter_mut().enumerate() {
            let roots: Vec<f64> = (0..d * d).map(|at| weight(k, at).sqrt()).collect();
            h.iter_mut().zip(&roots).for_each(|(h, root)| *h *= root);
            *observed = reference::filter(observed, d, &roots, d, d);
        }
    }

    /// <X, X>_w and <X, Y>_w of each image at contrast 1, with the noise weights alone.
    pub fn sums(&self, cutoff: f64) -> Vec<[f64; 2]> {
        let (d, support) = (self.d, self.support(cutoff));
        let of_image = |(image, &(contrast, _, group)): (&Image, &(f64, f64, usize))| {
            let roots: Vec<f64> = self.noise(group).into_iter().map(f64::sqrt).collect();
            let mut weighted = image.clone();
            weighted.h.iter_mut().zip(&roots).for_each(|(h, root)| *h *= root / contrast);
            weighted.observed = reference::filter(&image.observed, d, &roots, d, d);
            reference::sums(&self.gaussians, &weighted, d, support)
        };
        self.unweighted().iter().zip(&self.particles).map(of_image).collect()
    }

    /// Adds the weights of the CTFs; to be called after [`Case::band_limited`].
    pub fn weighted(mut self) -> Self {
        let (d, ctfs) = (self.d, self.views.iter().map(|view| view.ctf).collect::<Vec<_>>());
        self.weights = Weights::of(&ctfs, self.pixel_size);
        let weights = self.weights;
        let weight = |_, at: usize| weights.at(reference::radius(at / d, at % d, d).powi(2));
        assert!((0..d * d).any(|at| weight(0, at) < 0.64));
        self.weigh(weight);
        self
    }

    /// The images that devices get.
    fn unweighted(&self) -> &[Image] {
        if self.unweighted.is_empty() { &self.images } else { &self.unweighted }
    }

    /// The unweighted loss.
    pub fn loss(&self, cutoff: f64) -> f64 {
        reference::loss(&self.gaussians, self.unweighted(), self.d, self.support(cutoff))
    }

    /// Uses band-limited sampling. The reference gets [`Case::support`], and CTFs times the sharpening that removes the blur.
    pub fn band_limited(mut self) -> Self {
        self.sampling = Sampling::BandLimited;
        let (d, grid) = (self.d, self.sampling.grid(self.d));
        for image in &mut self.images {
            for (at, h) in image.h.iter_mut().enumerate() {
                *h *= reference::sharpening(at / d, at % d, d, grid);
            }
        }
        self
    }

    /// Support and sampling of the reference.
    pub fn support(&self, cutoff: f64) -> Support {
        let (grid, blur) = match self.sampling {
            Sampling::Points => (None, 0.0),
            Sampling::BandLimited => (Some(self.sampling.grid(self.d)), reference::BLUR),
        };
        Support { cutoff, grid, blur }
    }

    /// Expected rendering of the pose of a view, centred, without CTF and with the blur removed.
    pub fn projection(&self, view: &View, cutoff: f64) -> Vec<f64> {
        let d = self.d;
        let operators = self.symmetry.operators();
        let support = self.support(cutoff);
        let sampled =
            reference::project_views(&self.gaussians, &view.rotation, [0.0; 2], &operators, d, support);
        let grid = self.sampling.grid(d);
        let sharpening = |at| reference::sharpening(at / d, at % d, d, grid);
        match self.sampling {
            Sampling::Points => sampled,
            Sampling::BandLimited => {
                reference::filter(&sampled, grid, &(0..d * d).map(sharpening).collect::<Vec<f64>>(), d, d)
            }
        }
    }

    pub fn geometry(&self, cutoff: f64) -> Geometry {
        let &Self { d, pixel_size, sampling, symmetry, weights, .. } = self;
        Geometry { box_size: d, pixel_size, cutoff, sampling, weights, symmetry }
    }

    /// The observed images.
    pub fn observed(&self) -> Vec<Vec<f32>> {
        self.unweighted().iter().map(|image| image.observed.iter().map(|&v| v as f32).collect()).collect()
    }

    /// The images as input of a device, not prepared.
    pub fn observations<'a>(&self, observed: &'a [Vec<f32>]) -> Vec<Observation<'a>> {
        self.views
            .iter()
            .zip(observed)
            .zip(&self.particles)
            .map(|((&view, image), &(contrast, weight, noise_group))| Observation {
                contrast,
                weight,
                noise_group,
                ..Observation::new(view, Target::Observed(image), energy(image))
            })
            .collect()
    }
}

/// Largest difference, relative to the largest value.
pub fn worst(got: impl Iterator<Item = f64>, want: impl Iterator<Item = f64>) -> f64 {
    let (mut difference, mut size) = (0.0f64, 0.0f64);
    for (g, w) in got.zip(want) {
        assert!(g.is_finite());
        difference = difference.max((g - w).abs());
        size = size.max(w.abs());
    }
    difference / size
}

pub const KINDS: [(&str, std::ops::Range<usize>); 4] =
    [("mean", 0..3), ("scale", 3..6), ("quaternion", 6..10), ("amplitude", 10..11)];

pub fn compare_gradients(label: &str, got: &[f32], want: &[[f64; 11]]) {
    let n = want.len();
    for (kind, range) in KINDS {
        let pairs = range.flat_map(|c| (0..n).map(move |i| (c, i)));
        let error =
            worst(pairs.clone().map(|(c, i)| f64::from(got[c * n + i])), pairs.map(|(c, i)| want[i][c]));
        assert!(error < TOLERANCE, "{label}: {kind} gradient off by {error:.1e}");
    }
}

/// Compares the planes of an isotropic gradient with the reference, whose three derivatives by scales add up.
pub fn compare_isotropic_gradients(got: &[f32], want: &[[f64; 11]]) {
    let n = want.len();
    let column = |plane: usize, g: &[f64; 11]| if plane == 3 { g[3] + g[4] + g[5] } else { g[plane] };
    for (plane, numbers) in [(0, 0), (1, 1), (2, 2), (3, 3), (4, 10)] {
        let got = (0..n).map(|i| f64::from(got[plane * n + i]));
        let error = worst(got, want.iter().map(|g| column(numbers, g)));
        assert!(error < TOLERANCE, "plane {plane}: {error:.1e}");
    }
}

/// Compares images, loss and gradient (planes) of a device with the reference.
pub fn assert_agrees(
    label: &str,
    case: &Case,
    cutoff: f64,
    mut render: impl FnMut(&View) -> Vec<f32>,
    gradient: impl FnOnce() -> (Vec<f32>, f64),
) {
    let (d, support) = (case.d, case.support(cutoff));
    let label = format!("{label}, box {d}, cutoff {cutoff}");
    for view in &case.views {
        let got = render(view);
        let error = worst(got.iter().map(|&v| f64::from(v)), case.projection(view, cutoff).into_iter());
        assert!(error < TOLERANCE, "{label}: off by {error:.1e}");
    }
    let (got, loss) = gradient();
    let want = case.loss(cutoff);
    assert!((loss / want - 1.0).abs() < TOLERANCE, "{label}: loss {loss}, expected {want}");
    compare_gradients(&label, &got, &reference::gradient(&case.gaussians, &case.images, d, support));
}

/// Compares the sums of [`Device::compare`](cryosplat_mpi::render::Device::compare) with the reference.
pub fn assert_sums_agree(label: &str, case: &Case, cutoff: f64, got: &[ImageSums]) {
    let want = case.sums(cutoff);
    assert_eq!(got.len(), want.len());
    for (k, (got, [power, overlap])) in got.iter().zip(want).enumerate() {
        assert!((got.power / power - 1.0).abs() < TOLERANCE, "{label}, image {k}: {got:?}, expected {power}");
        // Noise hardly correlates with the model: the error is that of the norms.
        let size = (power * case.unweighted()[k].observed.iter().map(|y| y * y).sum::<f64>()).sqrt();
        let error = (got.overlap - overlap).abs() / size;
        assert!(error < TOLERANCE, "{label}, image {k}: {got:?}, expected {overlap}");
    }
}

/// A case with known results.
pub struct Golden {
    pub name: &'static str,
    pub case: Case,
    /// The CTF, symmetrised, on the centred full grid `[image][ky][kx]`.
    pub ctf: Vec<f64>,
    /// `[image][y][x]`.
    pub projections: Vec<f64>,
    pub loss: f64,
    pub gradient: Vec<[f64; 11]>,
}

/// The golden values in `path`: an even and an odd box.
pub fn golden(path: &Path) -> Vec<Golden> {
    let file = hdf5::File::open(path).unwrap();
    [("D32", 32usize), ("D33", 33)]
        .into_iter()
        .map(|(name, d)| {
            let group = file.group(name).unwrap();
            let read = |key: &str| group.dataset(key).unwrap().read_raw::<f64>().unwrap();
            let (mu, s, q, a) = (read("mu"), read("raw_s"), read("q"), read("raw_a"));
            let n = a.len();
            let gaussians: Vec<Raw> = (0..n)
                .map(|i| Raw {
                    mu: [mu[3 * i], mu[3 * i + 1], mu[3 * i + 2]],
                    s: [s[3 * i], s[3 * i + 1], s[3 * i + 2]],
                    q: [q[4 * i], q[4 * i + 1], q[4 * i + 2], q[4 * i + 3]],
                    a: a[i],
                })
                .collect();
            let (w, parameters) = (read("W"), read("ctf_params"));
            let (projections, observed) = (read("noflip/proj"), read("noflip/obs"));
            // The golden values were computed with cryoDRGN's constants of the wavelength.
            let lambda = 12.2639 / (300e3f64 + 0.97845e-6 * 300e3 * 300e3).sqrt();
            let (mut views, mut images) = (Vec::new(), Vec::new());
            for (k, p) in parameters.chunks_exact(7).enumerate() {
                let m = &w[9 * k..9 * k + 9];
                let rotation = [[m[0], m[1], m[2]], [m[3], m[4], m[5]], [m[6], m[7], m[8]]];
                views.push(View::new(rotation, ctf(p, lambda)));
                let observed = observed[k * d * d..(k + 1) * d * d].to_vec();
                images.push(Image {
                    w: rotation,
                    offset: [0.0; 2],
                    operators: vec![IDENTITY],
                    h: Vec::new(),
                    observed,
                });
            }

            let (dmu, ds, dq, da) =
                (read("noflip/d_mu"), read("noflip/d_raw_s"), read("noflip/d_q"), read("noflip/d_raw_a"));
            let gradient = (0..n)
                .map(|i| {
                    Raw {
                        mu: [dmu[3 * i], dmu[3 * i + 1], dmu[3 * i + 2]],
                        s: [ds[3 * i], ds[3 * i + 1], ds[3 * i + 2]],
                        q: [dq[4 * i], dq[4 * i + 1], dq[4 * i + 2], dq[4 * i + 3]],
                        a: da[i],
                    }
                    .numbers()
                })
                .collect();
            let case = Case::new(d, 4.0, gaussians, images, views);
            Golden { name, case, ctf: read("ctf"), projections, loss: read("noflip/loss")[0], gradient }
        })
        .collect()
}
