//! The pixel grid of a particle set: one pixel size and box for all optics groups, and how the raw images of each get there.

use super::optics::{PIXEL_SIZE_TOLERANCE, RawImages};
use super::set::SetProperties;
use super::stacks::Stacks;
use crate::error::{Error, Result};
use crate::imaging::ctf::{Ctf, Optics};
use crate::particles::preprocess::{BACKGROUND_RADIUS, Preprocessor, Settings};

/// Relative difference of pixel sizes from which raw images lack part of the set's frequencies.
const COARSER: f64 = 1e-3;
/// Largest box that images are resampled to, in pixels; detectors have fewer than twice as many along an edge.
const LARGEST_BOX: usize = 8192;
/// Pixel sizes in angstrom, as those of the command line.
const PIXEL_SIZES: std::ops::RangeInclusive<f64> = 1e-4..=1000.0;

/// What is asked of the grid and the preprocessing.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Box size of the stored images in pixels; `None` for that of the raw images.
    pub box_size: Option<usize>,
    /// Pixel size in angstrom to which all images are resampled before they are cropped to `box_size`; `None` for the commonest.
    pub pixel_size: Option<f64>,
    /// Invert the contrast of all images.
    pub invert: bool,
    /// Normalise the background.
    pub normalize: bool,
    /// Radius of the particle in output pixels; `None` for the default.
    pub background_radius: Option<f64>,
}

/// The grid of the stored images, and the preprocessing of each kind of raw images.
pub struct Grid {
    /// Box size in pixels.
    pub box_size: usize,
    /// Pixel size in angstrom.
    pub pixel_size: f64,
    /// Largest raw box.
    pub largest_raw_box: usize,
    /// The optics groups, with the resolution limits of raw images with larger pixels.
    pub optics: Vec<Optics>,
    /// For each optics group, the preprocessors by raw box.
    preprocessors: Vec<Vec<Preprocessor>>,
    phase_flipped: Vec<bool>,
}

impl Grid {
    /// Decides the grid, and plans the preprocessing. Logs what is resampled, taken back or premultiplied.
    ///
    /// # Errors
    /// If a requested number or a pixel size of the files is out of range, or the boxes are too large; as [`Preprocessor::new`].
    pub fn plan(properties: &SetProperties, stacks: &Stacks, request: &Request) -> Result<Self> {
        check_pixel_sizes(properties)?;
        let (common_pixel, common_box) = commonest(&properties.raw, stacks);
        let (pixel_size, box_size) = match request.pixel_size {
            None => (common_pixel, common_box),
            Some(pixel) if !(pixel.is_finite() && pixel > 0.0) => {
                return Err(Error::request(
                    format!("the pixel size is {pixel} A, expected a number above 0"),
                    "set --pixel-size to the pixel size of an optics group",
                ));
            }
            Some(pixel) if same(pixel, common_pixel) => (common_pixel, common_box),
            // The same field of view, in an even box.
            Some(pixel) => {
                (pixel, (2.0 * (0.5 * common_pixel * common_box as f64 / pixel).round().max(1.0)) as usize)
            }
        };
        let output_box = request.box_size.unwrap_or(box_size);
        let resampled = request.pixel_size.map(|_| (box_size, "set a larger --pixel-size"));
        let requested = request.box_size.map(|edge| (edge, "set a smaller --box"));
        for (edge, remedy) in [resampled, requested].into_iter().flatten() {
            if edge > LARGEST_BOX {
                let problem = format!(
                    "images of pixels of {pixel_size} A would get boxes of {edge} pixels, more than {LARGEST_BOX}"
                );
                return Err(Error::request(problem, remedy));
            }
        }
        let output_pixel = pixel_size * box_size as f64 / output_box as f64;
        let mut grid = Self {
            box_size: output_box,
            pixel_size: output_pixel,
            largest_raw_box: 0,
            optics: properties.optics.clone(),
            preprocessors: Vec::new(),
            phase_flipped: properties.raw.iter().map(|raw| raw.phase_flipped).collect(),
        };
        for (group, (optics, raw)) in properties.optics.iter().zip(&properties.raw).enumerate() {
            if raw.pixel_size > output_pixel * (1.0 + COARSER) {
                grid.optics[group].resolution_limit = 2.0 * raw.pixel_size;
            }
            let boxes = raw.box_size.map_or_else(|| stacks.box_sizes(), |size| vec![size]);
            grid.largest_raw_box = boxes.iter().copied().fold(grid.largest_raw_box, usize::max);
            let plan = |&input_box: &usize| {
                let settings = Settings {
                    input_box,
                    output_box,
                    invert: request.invert,
                    background_radius: request
                        .normalize
                        .then(|| request.background_radius.unwrap_or(BACKGROUND_RADIUS * output_box as f64)),
                };
                let preprocessor = if input_box == box_size && same(raw.pixel_size, pixel_size) {
                    Preprocessor::new(settings)?
                } else {
                    log_resampling(&properties.label(group), raw.pixel_size, input_box, pixel_size, box_size);
                    Preprocessor::resampling(settings, output_pixel / raw.pixel_size)?
                };
                Ok(preprocessor.with_optics(&raw.odd, &optics.magnification, output_pixel))
            };
            grid.preprocessors.push(boxes.iter().map(plan).collect::<Result<_>>()?);
        }
        log_optics(properties, &grid);
        Ok(grid)
    }

    /// The preprocessing of raw images of `raw_box` pixels of the optics group `group`.
    pub fn preprocessor(&self, group: u32, raw_box: usize) -> &Preprocessor {
        let of_group = &self.preprocessors[group as usize];
        of_group.iter().find(|one| one.input_box() == raw_box).expect("the stacks have no other boxes")
    }

    /// The CTF by whose sign an image of the group was multiplied, if it was: made by `ctf` from the group's optics.
    pub fn flipped(&self, group: u32, ctf: impl FnOnce(&Optics) -> Ctf) -> Option<Ctf> {
        self.phase_flipped[group as usize].then(|| ctf(&self.optics[group as usize]))
    }
}

/// Refuses optics groups with pixels of a size that no microscope has: boxes resampled from them would have no bound.
fn check_pixel_sizes(properties: &SetProperties) -> Result<()> {
    match properties.raw.iter().position(|raw| !PIXEL_SIZES.contains(&raw.pixel_size)) {
        None => Ok(()),
        Some(group) => Err(Error::request(
            format!(
                "{} has pixels of {:e} A, expected {} to {} A",
                properties.label(group),
                properties.raw[group].pixel_size,
                PIXEL_SIZES.start(),
                PIXEL_SIZES.end()
            ),
            "correct the pixel size of the group",
        )),
    }
}

fn same(a: f64, b: f64) -> bool {
    (a / b - 1.0).abs() <= PIXEL_SIZE_TOLERANCE
}

/// The pixel size and the box of most particles; of equally many, the first.
fn commonest(raw: &[RawImages], stacks: &Stacks) -> (f64, usize) {
    let most = |agrees: &dyn Fn(&RawImages, &RawImages) -> bool, among: &[&RawImages]| {
        let mut best: Option<(usize, usize)> = None;
        for (i, one) in among.iter().enumerate() {
            let particles =
                among.iter().filter(|other| agrees(one, other)).map(|other| other.particles).sum();
            if best.is_none_or(|(most, _)| particles > most) {
                best = Some((particles, i));
            }
        }
        best.map(|(_, i)| among[i].clone()).unwrap_or_default()
    };
    let all: Vec<&RawImages> = raw.iter().collect();
    let pixel_size = most(&|a, b| same(a.pixel_size, b.pixel_size), &all).pixel_size;
    let of_size: Vec<&RawImages> = raw.iter().filter(|raw| same(raw.pixel_size, pixel_size)).collect();
    let box_size = most(&|a, b| a.box_size == b.box_size, &of_size).box_size;
    (pixel_size, box_size.unwrap_or_else(|| stacks.first_box()))
}

fn log_resampling(label: &str, raw_pixel: f64, raw_box: usize, pixel_size: f64, box_size: usize) {
    tracing::info!(
        "{label}: images of {raw_box} pixels of {raw_pixel} A are resampled to {box_size} pixels of {pixel_size} A"
    );
}

fn log_optics(properties: &SetProperties, grid: &Grid) {
    for (group, raw) in properties.raw.iter().enumerate() {
        let (label, optics) = (properties.label(group), &grid.optics[group]);
        if optics.resolution_limit > 0.0 {
            tracing::warn!(
                "{label}: its pixels of {} A hold nothing beyond {:.2} A; with --pixel-size {0} all groups reach as far",
                raw.pixel_size,
                optics.resolution_limit
            );
        }
        let taken_back = [(!raw.odd.is_zero(), "odd aberrations"), (raw.phase_flipped, "phase flips")];
        let modelled = [
            (optics.even != crate::imaging::ctf::EvenPolynomial::ZERO, "even aberrations"),
            (optics.magnification != Optics::ISOTROPIC, "anisotropic magnification"),
            (optics.premultiplied, "multiplication by the CTF"),
        ];
        let names = |list: &[(bool, &'static str)]| {
            list.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
        };
        let (taken_back, modelled) = (names(&taken_back), names(&modelled));
        if !taken_back.is_empty() {
            tracing::info!("{label}: taken back on the images: {taken_back}");
        }
        if !modelled.is_empty() {
            tracing::info!("{label}: modelled: {modelled}");
        }
    }
}
