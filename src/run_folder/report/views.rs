//! Particle images, class averages and residuals of the models on the report.

use ndarray::Array2;
use rustfft::num_complex::Complex;

use crate::error::Result;
use crate::figures::panels::{GreyScale, PanelRow, Sheet};
use crate::figures::particles::residual_chart;
use crate::figures::report::Part;
use crate::gmm::files::GmmFile;
use crate::imaging::View;
use crate::imaging::fourier::{Fft2, Fft2Scratch, frequency};
use crate::particles::Subset;
use crate::particles::noise::NoisePower;
use crate::particles::refinement::Refinement;
use crate::particles::store::{Block, Reader, Store};
use crate::render::cpu::CpuDevice;
use crate::render::cpu::residual::Filter;
use crate::render::{Geometry, Sampling, Symmetry, Weights};

/// Number of particle images shown, over all models.
const SHOWN: usize = 4;
/// Resolution at which the low-pass filter of particle images is one half: in pixels, and the smallest in angstrom.
const LOW_PASS: (f64, f64) = (4.0, 20.0);
/// Pixels rendered for the residuals of a model, and the most and fewest images.
const PIXELS: usize = 6_000_000;
const IMAGES: (usize, usize) = (16, 300);

const READ_IMAGES: &str = "Single particles are mostly noise: after the low-pass filter, the specimen should be recognisable where the \
    model with CTF shows it, with the same contrast (bright or dark) and orientation.";
const READ_RESIDUALS: &str = "The power that is left in the images after the model's projection is subtracted, over the power of the \
    noise, which is measured at the rims of the images. 1: the model explains all but noise. Above 1 at low resolution: contrast, \
    neighbours or thick ice; at higher resolution: wrong poses or CTFs, several states, a model that is too small, or a training that was \
    too short. Below 1: the model has learned noise.";

/// A model of a run and the particles it was trained on.
pub(super) struct Viewer<'a> {
    pub(super) store: &'a Store,
    pub(super) reader: Reader,
    /// Refinements by row; empty without any.
    refined: &'a [Refinement],
    block: Block,
    device: CpuDevice,
    microscope: Filter,
    fft: Fft2<f32>,
    scratch: Fft2Scratch<f32>,
}

/// An image and what the model expects of it.
pub(super) struct Pair {
    pub(super) view: View,
    /// Whether the image was multiplied by its CTF before import.
    pub(super) premultiplied: bool,
    pub(super) observed: Vec<f32>,
    /// With the CTF.
    pub(super) expected: Vec<f32>,
    /// Without it.
    projection: Vec<f32>,
}

impl<'a> Viewer<'a> {
    pub(super) fn new(file: &GmmFile, store: &'a Store, refined: &'a [Refinement]) -> Self {
        let header = store.header();
        let geometry = Geometry {
            box_size: header.box_size,
            pixel_size: header.pixel_size,
            cutoff: 4.0,
            sampling: Sampling::BandLimited,
            weights: Weights::UNIFORM,
            symmetry: Symmetry::C1,
        };
        let geometry = Geometry { symmetry: file.symmetry, ..geometry };
        let fft = Fft2::new(header.box_size);
        Self {
            store,
            reader: store.reader(),
            refined,
            block: Block::default(),
            device: CpuDevice::new(file.gmm.clone(), geometry),
            // The device renders band-limited projections without CTF.
            microscope: Filter::new(&Geometry { sampling: Sampling::Points, ..geometry }),
            scratch: fft.scratch(),
            fft,
        }
    }

    /// The particle in a row, and its image according to the model.
    pub(super) fn pair(&mut self, row: usize) -> Result<Pair> {
        let n = self.store.header().box_size;
        self.reader.read(row..row + 1, &mut self.block)?;
        let particle = &self.block.particles[0];
        let refined = self.refined.get(row).copied().unwrap_or_default();
        let view = refined.view(&self.reader, particle);
        let projection = self.device.render(&view.rotation);
        let mut expected = vec![0.0; n * n];
        self.microscope.image(&view.ctf, &projection, n, &mut expected);
        let optics = &self.store.header().optics[particle.optics_group as usize];
        let observed = self.block.images.to_vec();
        Ok(Pair { view, premultiplied: optics.premultiplied, observed, expected, projection })
    }

    /// The half plane of the spectrum of an image, `[kx][y]`.
    pub(super) fn spectrum(&mut self, image: &[f32]) -> Vec<Complex<f32>> {
        let mut spectrum = vec![Complex::default(); self.fft.spectrum_len()];
        self.fft.forward(image, self.store.header().box_size, &mut spectrum, &mut self.scratch);
        spectrum
    }

    /// The image of a spectrum.
    pub(super) fn image(&mut self, mut spectrum: Vec<Complex<f32>>) -> Vec<f32> {
        let n = self.store.header().box_size;
        let mut image = vec![0.0; n * n];
        self.fft.inverse(&mut spectrum, &mut image, n, &mut self.scratch);
        image
    }
}

/// `count` rows spread evenly over the particles of the model `name`.
fn spread_rows(store: &Store, name: &str, count: usize) -> Vec<usize> {
    let rows = store.rows(Subset::from_name(name).unwrap_or(Subset::All));
    let count = count.min(rows.len());
    (0..count).map(|k| rows.start + (2 * k + 1) * rows.len() / (2 * count)).collect()
}

/// An image as an array `[y][x]`.
pub(super) fn square(pixels: Vec<f32>, box_size: usize) -> Array2<f32> {
    Array2::from_shape_vec((box_size, box_size), pixels).expect("an image has box x box pixels")
}

/// Particle images of each model and the projections of the model.
pub(super) fn images(models: &[(&str, GmmFile)], store: &Store, refined: &[Refinement]) -> Result<Part> {
    let header = store.header();
    let n = header.box_size;
    let mut rows = Vec::new();
    for (name, file) in models {
        let mut viewer = Viewer::new(file, store, refined);
        for row in spread_rows(store, name, SHOWN / models.len()) {
            let Pair { observed, expected, projection, .. } = viewer.pair(row)?;
            let spectrum = viewer.spectrum(&observed);
            let smooth = viewer.image(low_passed(spectrum, n, header.pixel_size));
            let panels = [observed, smooth, expected, projection].into_iter().map(|pixels| {
                let image = square(pixels, n);
                let scale = GreyScale::for_images(std::iter::once(&image));
                (image, scale)
            });
            rows.push(PanelRow::new(format!("{name}, particle {}", row + 1), panels.collect()));
        }
    }
    let sheet = Sheet {
        columns: ["observed", "observed, low-pass", "model with CTF", "model"].map(str::to_owned).to_vec(),
        rows,
        edge: n as f64 * header.pixel_size,
        remark: format!(
            "low-pass: Gaussian, 0.5 at {:.1} Å; separate grey scale for each image",
            half_at(header.pixel_size)
        ),
    };
    let picture = Part::Picture {
        heading: "Particle images and projections of the model".into(),
        description:
            "Particle images, observed and low-pass filtered, and projections of the model with and without CTF"
                .into(),
        png: sheet.to_png()?,
    };
    Ok(picture.with_guide(READ_IMAGES))
}

/// Resolution in angstrom at which the low-pass filter is one half.
fn half_at(pixel_size: f64) -> f64 {
    (LOW_PASS.0 * pixel_size).max(LOW_PASS.1)
}

/// The half plane `spectrum` after the low-pass filter.
fn low_passed(mut spectrum: Vec<Complex<f32>>, box_size: usize, pixel_size: f64) -> Vec<Complex<f32>> {
    let exponent =
        std::f64::consts::LN_2 * half_at(pixel_size).powi(2) / (box_size as f64 * pixel_size).powi(2);
    for (i, value) in spectrum.iter_mut().enumerate() {
        let (kx, ky) = ((i / box_size) as f64, frequency(i % box_size, box_size) as f64);
        *value *= (-exponent * (kx * kx + ky * ky)).exp() as f32;
    }
    spectrum
}

/// The shell of each value of a half plane, and how often it counts.
pub(super) fn shells(box_size: usize) -> Vec<(usize, f64)> {
    let place = |i: usize| {
        let (kx, ky) = (i / box_size, frequency(i % box_size, box_size) as f64);
        let shell = (kx as f64).hypot(ky).round() as usize;
        (shell, if kx == 0 || 2 * kx == box_size { 1.0 } else { 2.0 })
    };
    (0..(box_size / 2 + 1) * box_size).map(place).collect()
}

/// The power of the residuals of each model over that of the noise, by spatial frequency. `None` for images that were multiplied by
/// their CTF, whose noise is not that of the rims.
pub(super) fn residuals(
    models: &[(&str, GmmFile)],
    store: &Store,
    refined: &[Refinement],
) -> Result<Option<Part>> {
    let header = store.header();
    if header.optics.iter().any(|optics| optics.premultiplied) {
        return Ok(None);
    }
    let n = header.box_size;
    let shells = shells(n);
    let mut curves = Vec::new();
    for (name, file) in models {
        let noise = NoisePower::estimate(store, store.rows(Subset::from_name(name).unwrap_or(Subset::All)))?;
        let mut viewer = Viewer::new(file, store, refined);
        let (mut left, mut of_noise) = (vec![0.0; n / 2], vec![0.0; n / 2]);
        for row in spread_rows(store, name, (PIXELS / (n * n)).clamp(IMAGES.0, IMAGES.1)) {
            let Pair { mut observed, expected, .. } = viewer.pair(row)?;
            // A scale for each image: the contrast of particles varies.
            let product = |a: &[f32], b: &[f32]| -> f64 {
                a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
            };
            let power = product(&expected, &expected);
            let scale = if power > 0.0 { product(&observed, &expected) / power } else { 0.0 };
            observed.iter_mut().zip(&expected).for_each(|(pixel, &model)| *pixel -= scale as f32 * model);
            let group = viewer.reader.particles(row..row + 1)?[0].optics_group as usize;
            for (value, &(shell, count)) in viewer.spectrum(&observed).iter().zip(&shells) {
                if shell < n / 2 {
                    left[shell] += count * f64::from(value.norm_sqr()) / (n * n) as f64;
                    of_noise[shell] += count * noise.groups[group][shell];
                }
            }
        }
        let point = |shell: usize| {
            [
                shell as f64 / (n as f64 * header.pixel_size),
                left[shell] / of_noise[shell].max(f64::MIN_POSITIVE),
            ]
        };
        curves.push(((*name).to_owned(), (1..n / 2).map(point).collect::<Vec<_>>()));
    }
    Ok(Some(Part::Chart(residual_chart(&curves)).with_guide(READ_RESIDUALS)))
}
