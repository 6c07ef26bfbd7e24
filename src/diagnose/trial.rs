//! Trials: voxel maps of both halves of a sample, from the metadata as given and with one of them replaced. The assumption that is
//! right makes the halves agree best (docs/method.md, section 16).

use rayon::prelude::*;

use crate::error::Result;
use crate::imaging::Symmetry;
use crate::imaging::View;
use crate::imaging::ctf::{Ctf, Optics};
use crate::imaging::pose::Rotation;
use crate::particles::refinement::Refinement;
use crate::particles::selection::SubsetRows;
use crate::particles::store::{Particle, Reader, Store};
use crate::voxels::PADDING;
use crate::voxels::small_images::{Assumption, SmallImage, small_images, sums_of};
use crate::voxels::sums::{FourierSums, squared_radius};

/// Particles of each half in a trial, at most, times the number of symmetric poses.
const PARTICLES: usize = 1_200;
/// Fewest particles of each half.
const FEWEST: usize = 150;
/// Largest box of a trial in pixels.
pub(super) const LARGEST_BOX: usize = 64;
/// Standard errors from which on the FSC of a shell counts.
const SIGNIFICANT: f64 = 3.0;
/// Largest FSC that counts: rounding and interpolation limit it.
const LARGEST_FSC: f64 = 0.999;
/// Part of a shell's mean weight that is added to that of each voxel.
const REGULARIZER: f64 = 0.01;

/// A sample of both halves.
pub(super) struct Sample {
    /// Box of the small images in pixels, and their pixel size in angstrom.
    pub box_size: usize,
    pub pixel_size: f64,
    /// Pixels of the small images per pixel of the particle file.
    pub scale: f64,
    pub symmetry: Symmetry,
    reader: Reader,
    halves: [Vec<SmallImage>; 2],
    given: [FourierSums; 2],
    /// Shifts that were applied to the images at import, of each half, in pixels of the small images; `None` if the file does not say.
    shifts: Option<[Vec<[f64; 2]>; 2]>,
}

/// What one of the metadata is replaced by.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    /// As given.
    Nothing,
    /// The rotation, by a function of it, and the applied shift, by this matrix times it.
    Rotation(fn(&Rotation) -> Rotation, [[f64; 2]; 2]),
    /// The applied shift, by this matrix times it.
    Shift([[f64; 2]; 2]),
    /// The applied shift, by adding pixels of the particle file.
    Offset([f64; 2]),
    /// Both defocus values, by this factor.
    Defocus(f64),
    /// Both defocus values, by adding angstrom.
    DefocusOffset(f64),
    /// The voltage in kV.
    Voltage(f64),
    /// The pixel size, by this factor; with `shifts`, the applied shifts were in angstrom, and change with it.
    PixelSize(f64, bool),
    /// The magnification of the images, by this factor.
    Magnification(f64),
    /// The phase shift, by adding degrees; 180 invert the contrast.
    PhaseShift(f64),
    /// The amplitude contrast.
    AmplitudeContrast(f64),
    /// The astigmatism's angle, by adding 90 degrees.
    Astigmatism,
    /// The images were multiplied by the sign of their CTF.
    PhaseFlipped,
    /// The images were multiplied by their CTF.
    Premultiplied,
    /// The images have no CTF.
    NoCtf,
}

/// How well the halves of a sample agree.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Agreement {
    /// FSC of each shell, from 0 on.
    pub fsc: Vec<f64>,
    /// Mutual information of the halves in nats: the sum over shells of -n/2 ln(1 - FSC^2), of shells whose FSC is significant.
    pub information: f64,
}

/// Particles of each half in a trial, at most.
pub(super) fn particles_of(symmetry: Symmetry) -> usize {
    (PARTICLES / symmetry.order()).max(FEWEST)
}

impl Sample {
    /// A sample of the particles of both halves, with what `refinement_of` a row returns; `None` leaves it out.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(
        store: &Store,
        subsets: &[SubsetRows; 2],
        symmetry: Symmetry,
        refinement_of: impl Fn(usize) -> Option<Refinement> + Sync,
    ) -> Result<Self> {
        let header = store.header();
        let box_size = header.box_size.min(LARGEST_BOX);
        let particles = particles_of(symmetry);
        let half = |half: usize| {
            small_images(store, subsets[half].rows.clone(), particles, box_size, &refinement_of)
        };
        let halves = [half(0)?, half(1)?];
        let reader = store.reader();
        let scale = box_size as f64 / header.box_size as f64;
        let shifts_of = |half: usize| -> Result<Option<Vec<[f64; 2]>>> {
            let rows = subsets[half].rows.clone();
            let Some(all) = reader.applied_shifts(rows.clone())? else { return Ok(None) };
            let of_row =
                |image: &SmallImage| all[image.row - rows.start].map(|shift| f64::from(shift) * scale);
            Ok(Some(halves[half].iter().map(of_row).collect()))
        };
        let shifts = match (shifts_of(0)?, shifts_of(1)?) {
            (Some(first), Some(second)) => Some([first, second]),
            _ => None,
        };
        let mut sample = Self {
            given: [FourierSums::zero(1), FourierSums::zero(1)],
            box_size,
            pixel_size: header.pixel_size / scale,
            scale,
            symmetry,
            shifts,
            reader,
            halves,
        };
        sample.given = sample.sums(Change::Nothing);
        Ok(sample)
    }

    /// The sums of both halves with the metadata as given.
    pub fn given(&self) -> &[FourierSums; 2] {
        &self.given
    }

    /// Number of particles of the smaller half.
    pub fn particles(&self) -> usize {
        self.halves[0].len().min(self.halves[1].len())
    }

    /// Root mean square of the applied shifts along an axis, in pixels of the small images; `None` if the file does not say.
    pub fn shift_width(&self) -> Option<f64> {
        let shifts = self.shifts.as_ref()?;
        let squares = shifts.iter().flatten().map(|[x, y]| 0.5 * (x * x + y * y));
        let count = (shifts[0].len() + shifts[1].len()).max(1);
        Some((squares.sum::<f64>() / count as f64).sqrt())
    }

    /// Mean defocus in angstrom.
    pub fn mean_defocus(&self) -> f64 {
        self.mean(|particle| 0.5 * (particle.ctf.defocus_u + particle.ctf.defocus_v).abs())
    }

    /// Mean difference of the defoci in angstrom.
    pub fn mean_astigmatism(&self) -> f64 {
        self.mean(|particle| (particle.ctf.defocus_u - particle.ctf.defocus_v).abs())
    }

    fn mean(&self, of: impl Fn(&Particle) -> f64) -> f64 {
        let all = || self.halves.iter().flatten();
        all().map(|image| of(&image.particle)).sum::<f64>() / all().count().max(1) as f64
    }

    /// The small images of a half.
    pub fn images(&self, half: usize) -> &[SmallImage] {
        &self.halves[half]
    }

    /// The reader of the particles.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The agreement of the halves with `change`.
    pub fn agreement(&self, change: Change) -> Agreement {
        Agreement::of(&self.sums(change))
    }

    /// The agreement of the halves with `change` of the images of optics group `group`.
    pub fn agreement_of_group(&self, change: Change, group: u32) -> Agreement {
        let of =
            |image: &SmallImage| if image.particle.optics_group == group { change } else { Change::Nothing };
        Agreement::of(&self.sums_by((self.box_size, self.pixel_size), of))
    }

    /// Number of the images of each optics group.
    pub fn in_groups(&self) -> Vec<usize> {
        let mut counts = vec![0; self.reader.header().optics.len()];
        for image in self.halves.iter().flatten() {
            counts[image.particle.optics_group as usize] += 1;
        }
        counts
    }

    /// The sums of both halves with `change`.
    pub fn sums(&self, change: Change) -> [FourierSums; 2] {
        let grid = match change {
            Change::PixelSize(factor, _) => (self.box_size, self.pixel_size * factor),
            _ => (self.box_size, self.pixel_size),
        };
        self.sums_by(grid, |_| change)
    }

    fn sums_by(
        &self,
        grid: (usize, f64),
        change_of: impl Fn(&SmallImage) -> Change + Sync,
    ) -> [FourierSums; 2] {
        [0, 1].map(|half| {
            let first = &self.halves[half];
            let place = |image: &SmallImage| first.partition_point(|other| other.row < image.row);
            let assume =
                |image: &SmallImage| self.assume(image, self.shift_of(half, place(image)), change_of(image));
            sums_of(first, grid, self.symmetry, assume)
        })
    }

    /// The small image of `row` of a half, and the shift that was applied to it in pixels of the small images (0 if it is not known);
    /// `None` if it is not in the sample.
    pub fn image_of_row(&self, half: usize, row: usize) -> Option<(&SmallImage, [f64; 2])> {
        let place = self.halves[half].binary_search_by_key(&row, |image| image.row).ok()?;
        Some((&self.halves[half][place], self.shift_of(half, place)))
    }

    fn shift_of(&self, half: usize, place: usize) -> [f64; 2] {
        self.shifts.as_ref().map_or([0.0; 2], |shifts| shifts[half][place])
    }

    fn assume(&self, image: &SmallImage, shift: [f64; 2], change: Change) -> Assumption {
        let mut particle = image.particle;
        let mut flipped = false;
        let mut optics = None;
        // What the shift should have been, in pixels of the small images.
        let mut right = shift;
        let all_optics = &self.reader.header().optics;
        let own = || all_optics[particle.optics_group as usize].clone();
        match change {
            Change::Nothing => {}
            Change::Rotation(of, shifts) => {
                particle.rotation = of(&particle.rotation);
                right = times(&shifts, shift);
            }
            Change::Shift(matrix) => right = times(&matrix, shift),
            Change::Offset(added) => right = [0, 1].map(|axis| shift[axis] + added[axis] * self.scale),
            Change::Defocus(factor) => {
                particle.ctf.defocus_u *= factor;
                particle.ctf.defocus_v *= factor;
            }
            Change::DefocusOffset(added) => {
                particle.ctf.defocus_u += added;
                particle.ctf.defocus_v += added;
            }
            Change::Voltage(voltage) => optics = Some(Optics { voltage, ..own() }),
            Change::AmplitudeContrast(amplitude_contrast) => {
                optics = Some(Optics { amplitude_contrast, ..own() })
            }
            Change::Magnification(factor) => {
                let magnification = own().magnification.map(|row| row.map(|value| value * factor));
                optics = Some(Optics { magnification, ..own() });
            }
            Change::PixelSize(factor, true) => right = shift.map(|value| value / factor),
            Change::PixelSize(_, false) => {}
            Change::PhaseShift(degrees) => particle.ctf.phase_shift += degrees,
            Change::Astigmatism => particle.ctf.astigmatism_angle += 90.0,
            Change::PhaseFlipped => flipped = true,
            Change::Premultiplied => optics = Some(Optics { premultiplied: true, ..own() }),
            Change::NoCtf => {}
        }
        let mut view = self.reader.view(&particle);
        if let Some(optics) = optics {
            view.ctf = Ctf::new(&optics, &particle.ctf);
        }
        if let Change::Magnification(factor) = change {
            for value in view.rotation[..2].iter_mut().flatten() {
                *value *= factor;
            }
        }
        if matches!(change, Change::NoCtf) {
            view.ctf = Ctf::identity();
        }
        // The image was moved by the shift as given.
        let offset = [0, 1].map(|axis| shift[axis] - right[axis]);
        Assumption { view: View { offset, ..view }, flipped }
    }
}

fn times(matrix: &[[f64; 2]; 2], [x, y]: [f64; 2]) -> [f64; 2] {
    matrix.map(|[a, b]| a * x + b * y)
}

impl Agreement {
    /// Of the sums of both halves.
    pub fn of(sums: &[FourierSums; 2]) -> Self {
        let n = sums[0].box_size;
        let shells = n / 2;
        let side = sums[0].side();
        let per_plane = |of: &(dyn Fn(usize, usize) -> Option<[f64; 4]> + Sync)| -> Vec<[f64; 4]> {
            let planes: Vec<Vec<[f64; 4]>> = (0..side)
                .into_par_iter()
                .map(|z| {
                    let mut totals = vec![[0.0; 4]; shells];
                    for y in 0..side {
                        for x in 0..n {
                            let radius = (squared_radius(n, x, y, z) as f64).sqrt() / PADDING as f64;
                            let shell = radius.round() as usize;
                            if shell >= shells {
                                continue;
                            }
                            if let Some(values) = of((z * side + y) * n + x, shell) {
                                totals[shell] = [0, 1, 2, 3].map(|i| totals[shell][i] + values[i]);
                            }
                        }
                    }
                    totals
                })
                .collect();
            let mut totals = vec![[0.0; 4]; shells];
            for plane in planes {
                for (total, part) in totals.iter_mut().zip(plane) {
                    *total = [0, 1, 2, 3].map(|i| total[i] + part[i]);
                }
            }
            totals
        };
        let [first, second] = sums;
        let weights =
            per_plane(&|at, _| Some([f64::from(first.weight[at]), f64::from(second.weight[at]), 1.0, 0.0]));
        let means: Vec<[f64; 2]> =
            weights.iter().map(|w| [w[0] / w[2].max(1.0), w[1] / w[2].max(1.0)]).collect();
        let products = per_plane(&|at, shell| {
            let [w1, w2] = [f64::from(first.weight[at]), f64::from(second.weight[at])];
            if w1 <= 0.0 || w2 <= 0.0 {
                return None;
            }
            let scale1 = 1.0 / (w1 + REGULARIZER * means[shell][0]);
            let scale2 = 1.0 / (w2 + REGULARIZER * means[shell][1]);
            let (a, b) = (first.data[at], second.data[at]);
            let cross = f64::from(a.re * b.re + a.im * b.im) * (scale1 * scale2).sqrt();
            Some([cross, f64::from(a.norm_sqr()) * scale1, f64::from(b.norm_sqr()) * scale2, 1.0])
        });
        let mut information = 0.0;
        let mut fsc = vec![1.0; shells];
        for (shell, [cross, a, b, count]) in products.into_iter().enumerate().skip(1) {
            let norm = (a * b).sqrt();
            let value = if norm > 0.0 { cross / norm } else { 0.0 };
            fsc[shell] = value;
            // Values of a grid that is twice as fine along each axis, in independent real numbers.
            let independent = (2.0 * count / (PADDING as f64).powi(3)).max(1.0);
            if value > SIGNIFICANT / independent.sqrt() {
                let value = value.min(LARGEST_FSC);
                information -= 0.5 * independent * (1.0 - value * value).ln();
            }
        }
        Self { fsc, information }
    }
}
