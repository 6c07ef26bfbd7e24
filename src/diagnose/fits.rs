//! Particles of a sample against the map of the other half: poses, shifts and defoci that fit better than those given, by the
//! refinement's own steps (docs/method.md, sections 15 and 16).

use ndarray::Array3;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use rustfft::num_complex::Complex;

use crate::error::Result;
use crate::gmm::{Gmm, Shape};
use crate::imaging::fourier::{Fft2, frequency, shift_phase};
use crate::imaging::mrc::Volume;
use crate::imaging::{Symmetry, energy, resample};
use crate::particles::noise::NoisePower;
use crate::particles::refinement::Refinement;
use crate::particles::store::Particle;
use crate::random::{Purpose, stream};
use crate::refine::confirmed::{FEWEST, confirmed, limit};
use crate::refine::newton::{Group, Posterior, descend, numbers};
use crate::refine::prior::{KINDS, Quadratic, Widths, estimate};
use crate::refine::search::{Search, misfit, take_better};
use crate::refine::spectrum::{reference_of, value_at};
use crate::render::cpu::CpuDevice;
use crate::render::reference::DEFOCUS_UNIT;
use crate::render::{Device, Geometry, ImageFit, Observation, Sampling, Target, Weights};
use crate::voxels::small_images::SmallImage;
use crate::voxels::sums::FourierSums;

/// Prior widths at the start: in radians, box edges, units of the defocus; and the range of the estimates.
const WIDTHS: [f64; KINDS] = [0.15, 0.03, 0.5];
const LEAST_WIDTHS: [f64; KINDS] = [5e-4, 5e-5, 5e-3];
const LARGEST_WIDTHS: [f64; KINDS] = [0.5, 0.1, 2.0];
/// Gain in log-posterior from which on a particle fits better elsewhere.
pub(super) const BETTER: f64 = 3.0;

/// Misfit, in standard deviations of noise, of an image that shows no particle, or another one.
const NO_PARTICLE: f64 = -3.0;

/// Contrast, as a part of that of the best fifth, below which an image shows no particle...
const LEAST_CONTRAST: f64 = 0.4;
/// ...where the contrast of the best fifth is this many standard deviations of noise.
const DISTINCT: f64 = 2.5;

/// A particle compared with the map of the other half.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fitted {
    /// Row of the particle file.
    pub row: usize,
    /// What leads where it fits best: offset in pixels of the particle file.
    pub change: Refinement,
    /// Gain in log-posterior.
    pub gain: f64,
}

/// Particles of a half against the map of the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Fits {
    /// The particles that were compared; empty where too little of the map is confirmed.
    pub particles: Vec<Fitted>,
    /// Standard deviations of the errors of poses in degrees, of shifts in pixels of the particle file, of defoci in angstrom.
    pub errors: [f64; KINDS],
    /// The same of images that were imitated with right metadata: what chance and the noise of the maps make of none.
    pub floor: [f64; KINDS],
    /// The highest frequency that was compared, in 1/angstrom.
    pub limit: f64,
}

/// What the particles of a half are compared with.
pub(super) struct Comparison<'a> {
    /// The maps of the particles' own half, and of the other.
    pub maps: [&'a Volume; 2],
    /// Sums of the particles' own half on the grid of the small images, and of the other.
    pub sums: [&'a FourierSums; 2],
    /// Noise of the particles' half, at the box of the particle file.
    pub noise: &'a NoisePower,
    /// Pixel size of the small images, and pixels of them per pixel of the particle file.
    pub pixel_size: f64,
    pub scale: f64,
    /// The reader of the particles.
    pub reader: &'a crate::particles::store::Reader,
}

/// Contrast of least squares.
fn contrast(fit: &ImageFit) -> f64 {
    fit.overlap / fit.power.max(f64::MIN_POSITIVE)
}

/// The contrast below which images show no particle: none, where noise does not let one tell.
fn least_contrast(fits: &[ImageFit], noise: f64) -> f64 {
    let mut sorted: Vec<f64> = fits.iter().map(contrast).collect();
    sorted.sort_by(f64::total_cmp);
    let best = sorted[4 * sorted.len() / 5];
    let power = fits.iter().map(|fit| fit.power).sum::<f64>() / fits.len() as f64;
    let deviation = (noise / power.max(f64::MIN_POSITIVE)).sqrt();
    if best > DISTINCT * deviation { LEAST_CONTRAST * best } else { f64::NEG_INFINITY }
}

/// The confirmed part of a map for images of the grid of `sums`, which confirm it: the map on that grid, the part of each shell, and
/// the number of confirmed shells.
fn confirmed_map(map: &Volume, sums: &FourierSums, scale: f64) -> (Array3<f32>, Vec<f64>, usize) {
    let n = sums.box_size;
    // Values of a map are those of a density over the edge of its box in pixels.
    let mut small = resample::to_size(map.data.clone(), n);
    small.mapv_inplace(|value| (f64::from(value) / scale) as f32);
    let curve = confirmed(&small, sums);
    let end = limit(&curve).min(n / 2);
    (small, curve, end)
}

impl Comparison<'_> {
    /// Compares `images`, which are of the sums' box, with the other half's map.
    ///
    /// # Errors
    /// When the device fails.
    pub fn run(&self, images: &[&SmallImage]) -> Result<Fits> {
        let n = self.sums[0].box_size;
        let (map, curve, end) = confirmed_map(self.maps[1], self.sums[0], self.scale);
        if end < FEWEST || images.is_empty() {
            return Ok(Fits::default());
        }
        let geometry = Geometry {
            box_size: n,
            pixel_size: self.pixel_size,
            cutoff: 3.0,
            sampling: Sampling::Points,
            weights: Weights::UNIFORM,
            symmetry: Symmetry::C1,
        };
        // The mixture is not used.
        let mut device = CpuDevice::new(Gmm::from_values(Shape::Isotropic, 1, vec![0.0; 5]), geometry);
        let (weights, noise) = self.small_noise(n).weights();
        device.set_noise_weights(&weights)?;
        let reference = reference_of(&map, n, end, &curve);
        device.set_reference(&reference)?;
        let in_pixels =
            |[rotation, offset, defocus]: [f64; KINDS]| Widths([rotation, offset * n as f64, defocus]);
        let posterior = Posterior { widths: in_pixels(WIDTHS), noise };
        let search = Search::new(reference.search_limit, n, &posterior);
        let particles: Vec<Particle> = images.iter().map(|image| image.particle).collect();
        let starts = vec![Refinement::default(); images.len()];
        let observations: Vec<Observation> = images
            .iter()
            .map(|image| {
                let view = self.reader.view(&image.particle);
                let target = Target::Observed(&image.pixels);
                Observation {
                    noise_group: image.particle.optics_group as usize,
                    ..Observation::new(view, target, energy(&image.pixels))
                }
            })
            .collect();
        let given = device.fit(&observations)?;
        let group = Group {
            reader: self.reader,
            particles: &particles,
            observations: &observations,
            starts: &starts,
        };
        let mut descents = descend(&mut device, &group, &posterior)?;
        let others = search.run(&mut device, &group, &posterior, false)?;
        take_better(&mut descents, others);
        let mut fitted = Vec::with_capacity(images.len());
        let mut quadratics: Vec<Quadratic> = Vec::with_capacity(images.len());
        let nothing = numbers(&Refinement::default());
        let least_contrast = least_contrast(&given, noise);
        for (((descent, particle), given), image) in descents.iter().zip(&particles).zip(given).zip(images) {
            let change =
                Refinement { offset: descent.best.offset.map(|offset| offset / self.scale), ..descent.best };
            let of_given = (given.overlap - 0.5 * given.power) / noise - posterior.widths.penalty(&nothing);
            fitted.push(Fitted { row: image.row, change, gain: descent.objective - of_given });
            // Particles that are none have no pose.
            if misfit(descent, &posterior) > NO_PARTICLE && contrast(&given) > least_contrast {
                quadratics.push(descent.quadratic(&particle.rotation, &posterior));
            }
        }
        let range = [&in_pixels(LEAST_WIDTHS), &in_pixels(LARGEST_WIDTHS)];
        let [rotation, offset, defocus] = estimate(&quadratics, &posterior.widths, range, |sums| sums).0;
        let errors = [rotation.to_degrees(), offset / self.scale, defocus * DEFOCUS_UNIT];
        let limit = end as f64 / (n as f64 * self.pixel_size);
        Ok(Fits { particles: fitted, errors, limit, ..Fits::default() })
    }

    /// Images as `images` would be if the map of their own half and their metadata were right, with noise of the same spectrum. What
    /// [`Comparison::run`] finds in them is chance, and the noise of the maps.
    pub fn imitated(&self, images: &[&SmallImage]) -> Vec<SmallImage> {
        let n = self.sums[0].box_size;
        let (map, curve, end) = confirmed_map(self.maps[0], self.sums[1], self.scale);
        let reference = reference_of(&map, n, end, &curve);
        let noise = self.small_noise(n);
        let fft = Fft2::<f32>::new(n);
        let imitate = |image: &&SmallImage| {
            let view = self.reader.view(&image.particle);
            let power = &noise.groups[image.particle.optics_group as usize];
            let mut random = stream(0, Purpose::Noise, 0, image.row as u64);
            let mut ctf = vec![0.0; fft.spectrum_len()];
            view.ctf.half_plane(n, self.pixel_size, &mut ctf);
            let centre = (n / 2) as f64;
            let mut spectrum = vec![Complex::default(); fft.spectrum_len()];
            for (at, value) in spectrum.iter_mut().enumerate() {
                let (kx, ky) = ((at / n) as isize, frequency(at % n, n));
                let radius = (kx as f64).hypot(ky as f64);
                let level = power[(radius.round() as usize).min(power.len() - 1)];
                let mut normal = || -> f64 { StandardNormal.sample(&mut random) };
                let mut total = Complex::new(normal(), normal()) * (n as f64 * (0.5 * level).sqrt());
                if kx == 0 {
                    // The inverse transform takes the mean of this column and its mirror image.
                    total *= std::f64::consts::SQRT_2;
                }
                if radius > 0.0 && radius < end as f64 {
                    let [x, y, _] = view.rotation;
                    let k = [0, 1, 2].map(|axis| kx as f64 * x[axis] + ky as f64 * y[axis]);
                    let slice = value_at(&reference, k) * shift_phase(kx, ky, centre, centre, n);
                    total += slice * f64::from(ctf[at]);
                }
                *value = Complex::new(total.re as f32, total.im as f32);
            }
            let mut pixels = vec![0.0; n * n];
            fft.inverse(&mut spectrum, &mut pixels, n, &mut fft.scratch());
            SmallImage { row: image.row, particle: image.particle, pixels }
        };
        images.par_iter().map(imitate).collect()
    }

    /// The noise of the small images.
    fn small_noise(&self, n: usize) -> NoisePower {
        let power =
            |group: &Vec<f64>| group.iter().take(n / 2 + 1).map(|p| p * self.scale * self.scale).collect();
        NoisePower {
            groups: self.noise.groups.iter().map(power).collect(),
            particles: self.noise.particles.clone(),
        }
    }
}
