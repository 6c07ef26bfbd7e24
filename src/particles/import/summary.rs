//! What an import has done, for its user: a table and a JSON document.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::grid::Grid;
use super::half_sets::HalfOrigin;
use super::options::Options;
use super::row::ParticleRow;
use super::set::SetProperties;
use crate::imaging::ctf::{EvenPolynomial, Optics};
use crate::particles::preprocess::BACKGROUND_RADIUS;
use crate::particles::store::Dtype;

/// The result of an import.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The metadata file.
    pub input: PathBuf,
    /// Number of rows of the metadata.
    pub rows: usize,
    /// The imported class, if one was chosen.
    pub class: Option<i64>,
    /// Number of particles of each class in the metadata; empty if it has none.
    pub classes: BTreeMap<i64, usize>,
    /// Number of particles.
    pub particles: usize,
    /// Number of particles in each half.
    pub halves: [usize; 2],
    /// The column that the halves are from; `None` if they were drawn.
    pub halves_from: Option<&'static str>,
    /// The seed that the halves were drawn with; `None` if they are from a column.
    pub seed: Option<u64>,
    /// Number of distinct raw images.
    pub images: usize,
    /// Number of particles with the image and the pose of an earlier one.
    pub exact_duplicates: usize,
    /// Number of filaments, if the metadata names them.
    pub filaments: Option<usize>,
    /// Number of stacks.
    pub stacks: usize,
    /// Box size of the stored images in pixels.
    pub box_size: usize,
    /// Pixel size of the stored images in angstrom.
    pub pixel_size: f64,
    /// Nyquist resolution of the stored images in angstrom.
    pub nyquist: f64,
    /// The optics groups with particles.
    pub optics_groups: Vec<GroupSummary>,
    /// Values of the particles.
    #[serde(flatten)]
    pub extent: Extent,
    /// Number of inverted images.
    pub inverted: usize,
    /// True if the background was normalised.
    pub normalized: bool,
    /// Radius in stored pixels outside of which the background lies; `None` if it was not normalised.
    pub background_radius: Option<f64>,
    /// The column that the shifts are from, if there is one.
    pub shifts_from: &'static str,
    /// Which particles were selected; `None` for all.
    pub selection: Option<String>,
    /// Columns that were ignored.
    pub ignored: Vec<&'static str>,
    /// How pixels are stored.
    pub dtype: Dtype,
}

/// An optics group, and what was done to its images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupSummary {
    /// Name; empty if it has none.
    pub name: String,
    /// Number of particles.
    pub particles: usize,
    /// Voltage in kV.
    pub voltage: f64,
    /// Spherical aberration in mm.
    pub spherical_aberration: f64,
    /// Amplitude contrast.
    pub amplitude_contrast: f64,
    /// Pixel size of the raw images in angstrom.
    pub raw_pixel_size: f64,
    /// Box size of the raw images in pixels, if the metadata has it.
    pub raw_box_size: Option<usize>,
    /// What was taken back on its images, or is modelled.
    pub treatment: Vec<&'static str>,
}

/// Extreme values of the particles.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Extent {
    /// Smallest and largest mean defocus in angstrom.
    pub defocus: [f64; 2],
    /// Largest difference of the defoci U and V in angstrom.
    pub astigmatism: f64,
    /// Largest shift in angstrom.
    pub shift: f64,
    /// Root mean square of the shifts in angstrom.
    pub shift_rms: f64,
    /// Number of images with dark specimen according to the metadata.
    #[serde(skip)]
    dark: usize,
    /// Sum of the squared shifts.
    #[serde(skip)]
    shift2: f64,
}

impl Extent {
    /// Before the first particle.
    pub(super) const NONE: Self = Self {
        defocus: [f64::INFINITY, f64::NEG_INFINITY],
        astigmatism: 0.0,
        shift: 0.0,
        shift_rms: 0.0,
        dark: 0,
        shift2: 0.0,
    };

    /// Records a particle whose raw image has this pixel size.
    pub(super) fn observe(&mut self, row: &ParticleRow, raw_pixel_size: f64) {
        let ctf = &row.particle.ctf;
        let defocus = 0.5 * (ctf.defocus_u + ctf.defocus_v);
        self.defocus = [self.defocus[0].min(defocus), self.defocus[1].max(defocus)];
        self.astigmatism = self.astigmatism.max((ctf.defocus_u - ctf.defocus_v).abs());
        let shift = row.shift[0].hypot(row.shift[1]) * raw_pixel_size;
        self.shift = self.shift.max(shift);
        self.shift2 += shift * shift;
        self.dark += usize::from(row.dark);
    }
}

impl Summary {
    pub(super) fn new(properties: &SetProperties, grid: &Grid, options: &Options) -> Self {
        let halves = &properties.half_sets;
        let (halves_from, seed) = match halves.origin {
            HalfOrigin::Column(column) => (Some(column), None),
            HalfOrigin::Drawn(seed) => (None, Some(seed)),
        };
        let groups = properties.raw.iter().zip(&grid.optics).filter(|(raw, _)| raw.particles > 0);
        Self {
            input: properties.path.clone(),
            rows: properties.choice.all(),
            class: options.class,
            classes: properties.choice.classes().clone(),
            particles: properties.len(),
            halves: properties.halves(),
            halves_from,
            seed,
            images: halves.copies.images,
            exact_duplicates: halves.copies.exact,
            filaments: halves.copies.filaments,
            stacks: properties.stacks.all().len(),
            box_size: grid.box_size,
            pixel_size: grid.pixel_size,
            nyquist: 2.0 * grid.pixel_size,
            optics_groups: groups
                .map(|(raw, optics)| GroupSummary {
                    name: optics.name.clone(),
                    particles: raw.particles,
                    voltage: optics.voltage,
                    spherical_aberration: optics.spherical_aberration,
                    amplitude_contrast: optics.amplitude_contrast,
                    raw_pixel_size: raw.pixel_size,
                    raw_box_size: raw.box_size,
                    treatment: treatment(optics, !raw.odd.is_zero(), raw.phase_flipped),
                })
                .collect(),
            extent: Extent::NONE,
            inverted: 0,
            normalized: options.normalize,
            background_radius: options
                .normalize
                .then(|| options.background_radius.unwrap_or(BACKGROUND_RADIUS * grid.box_size as f64)),
            shifts_from: properties.columns[2],
            selection: options.selection.describe(options.seed),
            ignored: properties.ignored.clone(),
            dtype: options.dtype,
        }
    }

    /// Completes the summary with the values of the particles; `inverts` is true if all images were inverted.
    pub(super) fn complete(&mut self, extent: Extent, inverts: bool) {
        self.inverted = if inverts { self.particles } else { extent.dark };
        self.extent = extent;
        self.extent.shift_rms = (extent.shift2 / self.particles as f64).sqrt();
    }

    /// What the import has done to the images, one line each, as the particle file keeps it.
    pub fn record(&self) -> Vec<String> {
        self.deeds().into_iter().map(|(label, text)| format!("{label}: {text}")).collect()
    }

    /// What the import has done: contrast, halves, shifts, box, background, CTF; and what it selected.
    fn deeds(&self) -> Vec<(&'static str, String)> {
        let contrast = match self.inverted {
            0 => "as in the input (the specimen must be bright)".into(),
            all if all == self.particles => format!("{all} images inverted"),
            some => format!("{some} of {} images inverted, those of dark specimen", self.particles),
        };
        let origin = match (self.halves_from, self.seed) {
            (Some(column), _) => format!("given by {column}"),
            (None, seed) => format!("drawn at random (seed {})", seed.unwrap_or_default()),
        };
        let Extent { defocus, shift, shift_rms, .. } = self.extent;
        let shifts = match shift {
            0.0 => "none: the images are centred as they are".into(),
            _ => {
                format!("{} applied: up to {shift:.1} A, root mean square {shift_rms:.1} A", self.shifts_from)
            }
        };
        let stored = format!("{} pixels of {:.4} A", self.box_size, self.pixel_size);
        let raw: Vec<String> = self.optics_groups.iter().filter_map(|group| group.cropped(self)).collect();
        let stored = match &raw[..] {
            [] => format!("{stored}, as the raw images"),
            [one] => format!("{stored}, from {one}"),
            [first, rest @ ..] if rest.iter().all(|other| other == first) => {
                format!("{stored}, from {first}")
            }
            [first, rest @ ..] => format!("{stored}, from {first} and {} other kinds", rest.len()),
        };
        let background = match self.background_radius {
            Some(radius) => {
                format!("mean 0 and standard deviation 1 outside a radius of {} pixels", short(radius))
            }
            None => "as in the input".into(),
        };
        let groups = match self.optics_groups.len() {
            1 => "1 optics group".to_owned(),
            several => format!("{several} optics groups"),
        };
        let mut ctf = format!("{groups}, defocus {:.2} to {:.2} um", defocus[0] / 1e4, defocus[1] / 1e4);
        let mut treatments: Vec<&str> =
            self.optics_groups.iter().flat_map(|group| group.treatment.iter().copied()).collect();
        treatments.sort_unstable();
        treatments.dedup();
        treatments.iter().for_each(|treatment| ctf += &format!(", {treatment}"));
        let mut deeds = vec![
            ("contrast", contrast),
            ("halves", format!("{} and {}, {origin}", self.halves[0], self.halves[1])),
            ("shifts", shifts),
            ("box", stored),
            ("background", background),
            ("CTF", ctf),
        ];
        let selected = self.selection.as_ref();
        deeds.extend(
            selected.map(|selected| {
                ("selection", format!("{} of {} rows, {selected}", self.particles, self.rows))
            }),
        );
        deeds
    }

    /// The path of the JSON document beside the particle file: `particles.import.json` for `particles.h5`.
    pub fn path_beside(output: &Path) -> PathBuf {
        output.with_extension("import.json")
    }
}

fn treatment(optics: &Optics, odd: bool, phase_flipped: bool) -> Vec<&'static str> {
    let all = [
        (odd, "odd aberrations taken back"),
        (phase_flipped, "phase flips taken back"),
        (optics.even != EvenPolynomial::ZERO, "even aberrations modelled"),
        (optics.magnification != Optics::ISOTROPIC, "anisotropic magnification modelled"),
        (optics.premultiplied, "multiplied by the CTF"),
    ];
    all.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect()
}

/// The table for the terminal, one line for each property.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |label: &str, value: String| writeln!(f, "{label:<18} {value}");
        let mut particles = format!("{} of {} rows", self.particles, self.rows);
        if let Some(class) = self.class {
            write!(particles, ", class {class}")?;
        }
        line("particles", particles)?;
        if self.classes.len() > 1 && self.class.is_none() {
            line("classes", format!("{} imported together", self.classes.len()))?;
        }
        let copies = self.particles - self.images;
        let mut images = format!("{} distinct in {} stacks", self.images, self.stacks);
        if copies > 0 {
            write!(images, "; {copies} copies, {} of them exact duplicates", self.exact_duplicates)?;
        }
        line("images", images)?;
        if let Some(filaments) = self.filaments {
            line("filaments", filaments.to_string())?;
        }
        let (stored, pixel) = (self.box_size, self.pixel_size);
        line(
            "stored",
            format!("{stored} pixels of {pixel:.4} A; resolution limit (Nyquist) {:.2} A", self.nyquist),
        )?;
        for (index, group) in self.optics_groups.iter().enumerate() {
            line(&format!("optics group {}", index + 1), group.describe(stored, pixel))?;
        }
        let Extent { defocus, astigmatism, .. } = self.extent;
        line(
            "defocus",
            format!(
                "{:.2} to {:.2} um; astigmatism up to {astigmatism:.0} A",
                defocus[0] / 1e4,
                defocus[1] / 1e4
            ),
        )?;
        if !self.ignored.is_empty() {
            line("ignored columns", self.ignored.join(", "))?;
        }
        self.deeds().into_iter().try_for_each(|(label, text)| line(label, text))
    }
}

/// Rounds to four decimals: arrays of 32-bit numbers give more digits than they have.
fn short(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

impl GroupSummary {
    /// The raw grid, if it is not that of the stored images of `summary`, and how the images came from it.
    fn cropped(&self, summary: &Summary) -> Option<String> {
        let raw = self.raw_box_size?;
        let pixel = short(self.raw_pixel_size);
        if raw == summary.box_size && (self.raw_pixel_size / summary.pixel_size - 1.0).abs() < 1e-6 {
            return None;
        }
        let fields = [raw as f64 * self.raw_pixel_size, summary.box_size as f64 * summary.pixel_size];
        let how =
            if (fields[0] / fields[1] - 1.0).abs() < 1e-6 { "cropped in Fourier space" } else { "resampled" };
        Some(format!("{raw} pixels of {pixel} A, {how}"))
    }

    /// A line; `stored` and `pixel` are the box and the pixel size of the stored images.
    fn describe(&self, stored: usize, pixel: f64) -> String {
        let name = if self.name.is_empty() { String::new() } else { format!("{}: ", self.name) };
        let raw = self.raw_box_size.map_or(String::new(), |size| format!("{size} pixels of "));
        let mut text = format!(
            "{name}{} particles, {} kV, Cs {} mm, amplitude contrast {}; raw {raw}{} A",
            self.particles,
            short(self.voltage),
            short(self.spherical_aberration),
            short(self.amplitude_contrast),
            short(self.raw_pixel_size)
        );
        // The field of view of the raw and the stored images is the same unless they are resampled to another grid.
        if let Some(size) = self.raw_box_size
            && size != stored
        {
            let crop = (size as f64 * self.raw_pixel_size / (stored as f64 * pixel) - 1.0).abs() < 1e-6;
            text += if crop { ", cropped in Fourier space" } else { ", resampled" };
        }
        self.treatment.iter().for_each(|treatment| text += &format!(", {treatment}"));
        text
    }
}
