//! Whether particles have a point group: rotated copies of voxel maps against the maps themselves (docs/method.md, section 9).
//!
//! The maps of two halves without symmetry, A and B, correlate over all shells with signal. Where the specimen has symmetry G, A
//! correlates as well with each rotated copy of B, by the same amount: rotations mix no noise of one half with that of the
//! other. Spherical averages, which any rotation keeps, are taken out first: the shells of ferritin and viruses are mostly round. Both correlations are taken over the regions of Fourier space that particles cover, because poses refined with
//! symmetry lie in one asymmetric unit and cover a part of it.

use std::f64::consts::TAU;

use rayon::prelude::*;
use rustfft::num_complex::Complex;

use super::gridding::reciprocals;
use super::reconstruction::regularized_map;
use super::sample::{SampledSums, Sampling, sampled_sums};
use super::sums::FourierSums;
use super::wiener::{WienerFilter, mean_weights};
use crate::error::Result;
use crate::imaging::Symmetry;
use crate::imaging::pose::{Rotation, transposed};
use crate::imaging::projection::Projector;
use crate::particles::selection::SubsetRows;
use crate::particles::store::Store;
use crate::voxels::PADDING;

/// Number of particles of each half.
const PARTICLES: usize = 2_000;
/// Largest box, in pixels, that images are downsampled to.
const LARGEST_BOX: usize = 64;
/// The first shell that counts: those below have few voxels and little shape.
const FIRST_SHELL: usize = 3;
/// Largest number of Fourier voxels of a shell that are compared.
const LARGEST_SAMPLE: usize = 800;
/// Shells count up to the first one whose FSC is below this.
const SIGNAL: f64 = 0.3;
/// Fewest shells with signal.
const FEWEST_SHELLS: usize = 4;
/// Largest n of the groups C_n and D_n that are searched for.
const LARGEST_FOLD: u8 = 12;
/// Largest standard error of an agreement that counts as measured.
const LARGEST_ERROR: f64 = 0.1;
/// Agreement with the rotated copies from which a map is said to have a symmetry.
const HAS: f64 = 0.85;
/// Agreement with the rotated copies below which a map is said not to have it, by three standard errors.
const LACKS: f64 = 0.75;
/// Agreement with copies rotated by other angles: above it, the shells with signal cannot tell a symmetry from roundness.
const ROUND: f64 = 0.6;
/// Angles of these copies, as fractions of the smallest rotation of the group about z.
const OTHER_ANGLES: [f64; 3] = [0.5, 0.38, 0.25];

/// Agreement of a map with a rotated copy: the ratio of two correlations, 1 for a map with this symmetry.
#[derive(Clone, Copy, Debug)]
struct Agreement {
    ratio: f64,
    /// Standard error.
    error: f64,
}

/// A symmetry that the voxel maps have, or do not have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finding {
    /// The group.
    pub symmetry: Symmetry,
    /// The least agreement with copies rotated by its generators: 1 for a map with this symmetry.
    pub agreement: f64,
    /// The resolution in angstrom up to which the maps have signal.
    pub resolution: f64,
}

/// What the voxel maps of a sample of the particles say about the symmetry that is given.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Evidence {
    /// The maps have too little signal.
    None,
    /// They have no symmetry, or the given one.
    AsGiven,
    /// C1 is given, and they have a symmetry.
    Unused(Finding),
    /// They do not have the given symmetry.
    Absent(Finding),
}

/// Compares voxel maps of a sample of the particles with their rotated copies: for C1 with those of all groups, else with those of the
/// symmetry `given`. It takes about a second.
///
/// # Errors
/// When the particles cannot be read.
pub(crate) fn evidence(store: &Store, subsets: &[SubsetRows], given: Symmetry) -> Result<Evidence> {
    let Some(maps) = RotatedMaps::of_sample(store, subsets)? else { return Ok(Evidence::None) };
    let found = match given {
        Symmetry::C1 => maps.search().map(Evidence::Unused),
        _ => maps.lacks(given).map(Evidence::Absent),
    };
    Ok(found.unwrap_or(Evidence::AsGiven))
}

/// Logs the [`evidence`] on the calling rank: a warning where the particles do not have the symmetry `given`, and for C1 a hint where they
/// have one.
pub(crate) fn report(store: &Store, subsets: &[SubsetRows], given: Symmetry) {
    match evidence(store, subsets, given) {
        Ok(Evidence::None) => tracing::debug!("the voxel maps have too little signal to look for symmetry"),
        // The particles are read again, and the error is reported then.
        Err(error) => tracing::debug!("symmetry was not looked for: {error}"),
        Ok(Evidence::AsGiven) => {}
        Ok(Evidence::Unused(Finding { symmetry, agreement, resolution })) => tracing::info!(
            "to {resolution:.0} A, the particles have the symmetry {symmetry} (agreement {agreement:.2} between the voxel \
             map and its rotated copies); if the specimen has it, use --symmetry {symmetry}"
        ),
        Ok(Evidence::Absent(Finding { symmetry, agreement, resolution })) => tracing::warn!(
            "to {resolution:.0} A, the particles do not have the symmetry {symmetry}: the agreement between the voxel map and \
             its rotated copies is {agreement:.2}, expected about 1; check the group, its setting (axes as in RELION), and that \
             its axes pass through the centre of the box"
        ),
    }
}

/// The maps of two halves, ready to be compared with rotated copies.
struct RotatedMaps {
    /// The half that is rotated.
    second: RotatedHalf,
    shells: Vec<Shell>,
    /// The resolution in angstrom of the last shell.
    resolution: f64,
}

/// A shell with signal.
struct Shell {
    /// Some of its Fourier voxels.
    sample: Vec<Voxel>,
    /// Number of its Fourier voxels, one of each Friedel pair.
    voxels: usize,
    /// Spherical averages of the halves for a coverage of 1.
    spherical: [f64; 2],
    /// FSC of the halves without their spherical averages.
    fsc: f64,
    /// Their correlation for a coverage of 1, without rotation.
    correlation: f64,
}

/// A Fourier voxel.
struct Voxel {
    /// x, y, z in cycles per box.
    frequency: [f64; 3],
    /// The first half's value and coverage.
    value: Complex<f32>,
    coverage: f64,
}

/// The map of a half, and how well particles cover its Fourier space.
struct RotatedHalf {
    projector: Projector,
    /// The map's gain at each point of [`FourierSums`]: proportional to w/(w + mean weight of the shell).
    coverage: Vec<f32>,
}

impl RotatedHalf {
    fn new(sums: &FourierSums, pixel_size: f64, means: &[f64]) -> Result<Self> {
        let weights = WienerFilter::proportional(means, 1.0).weights(sums);
        let coverage = sums.weight.iter().zip(reciprocals(weights.clone())).map(|(w, r)| w * r).collect();
        let map = regularized_map(sums, weights, pixel_size)?;
        Ok(Self { projector: Projector::new(&map.data), coverage })
    }

    /// Coverage at a frequency in cycles per box, by trilinear interpolation.
    fn coverage_at(&self, frequency: [f64; 3]) -> f64 {
        let n = self.projector.box_size();
        let side = 2 * n - 1;
        let sign = if frequency[0] < 0.0 { -1.0 } else { 1.0 };
        let place = frequency.map(|k| sign * k * PADDING as f64);
        let place = [place[0], place[1] + (n - 1) as f64, place[2] + (n - 1) as f64];
        let [x, y, z] = place.map(|v| (v.max(0.0) as usize, v - v.floor()));
        let mut sum = 0.0;
        for (iz, wz) in [(z.0, 1.0 - z.1), (z.0 + 1, z.1)] {
            for (iy, wy) in [(y.0, 1.0 - y.1), (y.0 + 1, y.1)] {
                let line = &self.coverage[(iz * side + iy) * n..];
                sum += wz * wy * ((1.0 - x.1) * f64::from(line[x.0]) + x.1 * f64::from(line[x.0 + 1]));
            }
        }
        sum
    }
}

/// The Fourier voxels (x, y, z) of each shell below Nyquist, one of each Friedel pair. In the last shells, rotated points would
/// leave the grid.
fn frequencies_of_shells(box_size: usize) -> Vec<Vec<[f64; 3]>> {
    let mut shells = vec![Vec::new(); box_size / 2 - 1];
    let end = box_size as isize / 2;
    let axis = || 1 - end..end;
    for (z, y, x) in axis().flat_map(|z| axis().flat_map(move |y| axis().map(move |x| (z, y, x)))) {
        let shell = ((x * x + y * y + z * z) as f64).sqrt().round() as usize;
        if (x, y, z) > (0, 0, 0) && shell < shells.len() {
            shells[shell].push([x, y, z].map(|v| v as f64));
        }
    }
    shells
}

impl Shell {
    /// The shell of the Fourier voxels at `frequencies`.
    fn new(frequencies: &[[f64; 3]], halves: &[RotatedHalf; 2]) -> Self {
        let sample = frequencies.iter().step_by(frequencies.len().div_ceil(LARGEST_SAMPLE).max(1));
        let voxel = |&frequency: &[f64; 3]| Voxel {
            frequency,
            value: halves[0].projector.at(frequency),
            coverage: halves[0].coverage_at(frequency),
        };
        let sample: Vec<Voxel> = sample.map(voxel).collect();
        let averages = sample.iter().fold([0.0; 4], |sums, voxel| {
            let [a, b] = [voxel.coverage, halves[1].coverage_at(voxel.frequency)];
            let other = halves[1].projector.at(voxel.frequency);
            let of_voxel = [a * f64::from(voxel.value.re), a * a, b * f64::from(other.re), b * b];
            [0, 1, 2, 3].map(|i| sums[i] + of_voxel[i])
        });
        let spherical = [averages[0] / averages[1], averages[2] / averages[3]];
        let shell = Self { sample, voxels: frequencies.len(), spherical, fsc: 0.0, correlation: 0.0 };
        let [cross, coverage, first, second] = sums_of_shell(&halves[1], &shell, &IDENTITY);
        Self { fsc: cross / (first * second).sqrt(), correlation: cross / coverage, ..shell }
    }
}

impl RotatedMaps {
    /// The maps of a sample of the particles, without symmetry. `None` without enough signal.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn of_sample(store: &Store, subsets: &[SubsetRows]) -> Result<Option<Self>> {
        let header = store.header();
        let sampling = |subset: &SubsetRows, particles| Sampling {
            rows: subset.rows.clone(),
            particles,
            box_size: header.box_size.min(LARGEST_BOX),
            symmetry: Symmetry::C1,
        };
        let (pixel_size, sums) = match subsets {
            [first, second] => {
                let [first, second] =
                    [first, second].map(|half| sampled_sums(store, sampling(half, PARTICLES)));
                let SampledSums { parts: [first], pixel_size, .. } = first?;
                let [second] = second?.parts;
                (pixel_size, [first, second])
            }
            others => {
                let sampled = sampled_sums(store, sampling(&others[0], 2 * PARTICLES))?;
                (sampled.pixel_size, sampled.parts)
            }
        };
        Self::new([&sums[0], &sums[1]], pixel_size)
    }

    /// The maps of the sums of two halves. `None` without enough signal.
    ///
    /// # Errors
    /// When the box has no voxels.
    fn new(sums: [&FourierSums; 2], pixel_size: f64) -> Result<Option<Self>> {
        let n = sums[0].box_size;
        let means = mean_weights(sums);
        let half = |sums| RotatedHalf::new(sums, pixel_size, &means);
        let halves = [half(sums[0])?, half(sums[1])?];
        let mut shells = Vec::new();
        for frequencies in frequencies_of_shells(n).into_iter().skip(FIRST_SHELL) {
            let shell = Shell::new(&frequencies, &halves);
            if shell.fsc.is_nan() || shell.fsc <= SIGNAL {
                break;
            }
            shells.push(shell);
        }
        let resolution = n as f64 * pixel_size / (FIRST_SHELL + shells.len()).saturating_sub(1) as f64;
        tracing::debug!("voxel maps of box {n}: {} shells with signal, to {resolution:.1} A", shells.len());
        let [_, second] = halves;
        Ok((shells.len() >= FEWEST_SHELLS).then_some(Self { second, shells, resolution }))
    }

    /// The agreement with the copy rotated by `g`. Shells count by their numbers of voxels times the FSC.
    fn agreement(&self, g: &Rotation) -> Agreement {
        let back = transposed(g);
        let shells: Vec<[f64; 3]> = self
            .shells
            .par_iter()
            .map(|shell| {
                // A rotated by the inverse, and B by g.
                let [cross, coverage, ..] = sums_of_shell(&self.second, shell, g);
                let [other, other_coverage, ..] = sums_of_shell(&self.second, shell, &back);
                let weight = shell.voxels as f64 * shell.fsc;
                let ratio = (cross + other) / (coverage + other_coverage) / shell.correlation;
                // Of a sum of products of values whose correlation is the FSC, over independent voxels: noise of both halves.
                let variance =
                    2.0 * (1.0 - shell.fsc * shell.fsc) / shell.sample.len() as f64 / shell.fsc.powi(2);
                [weight, weight * ratio, weight * weight * variance]
            })
            .collect();
        let [weight, sum, variance] =
            shells.iter().fold([0.0; 3], |sums, shell| [0, 1, 2].map(|i| sums[i] + shell[i]));
        Agreement { ratio: sum / weight, error: variance.sqrt() / weight }
    }

    /// The least agreement with the copies rotated by the generators of `symmetry`, or the first one below `enough`.
    fn agreement_of(&self, symmetry: Symmetry, enough: f64) -> Agreement {
        let mut least = Agreement { ratio: 1.0, error: 0.0 };
        for (number, g) in symmetry.generators().iter().enumerate() {
            let found = self.agreement(g);
            if number == 0 || found.ratio < least.ratio {
                least = found;
            }
            if least.ratio < enough {
                break;
            }
        }
        let Agreement { ratio, error } = least;
        tracing::debug!(
            "{symmetry}: agreement of the rotated voxel maps {ratio:.3}, standard error {error:.3}"
        );
        least
    }

    fn finding(&self, symmetry: Symmetry, agreement: f64) -> Finding {
        Finding { symmetry, agreement, resolution: self.resolution }
    }

    /// The finding where the maps do not have `symmetry`.
    fn lacks(&self, symmetry: Symmetry) -> Option<Finding> {
        let Agreement { ratio, error } = self.agreement_of(symmetry, f64::NEG_INFINITY);
        (ratio + 3.0 * error < LACKS).then(|| self.finding(symmetry, ratio))
    }

    /// The largest group that the maps have.
    fn search(&self) -> Option<Finding> {
        let has = |symmetry: Symmetry| {
            let Agreement { ratio, error } = self.agreement_of(symmetry, HAS);
            (ratio > HAS && error < LARGEST_ERROR).then(|| self.finding(symmetry, ratio))
        };
        let cyclic: Vec<(u8, Finding)> =
            (2..=LARGEST_FOLD).filter_map(|fold| Some((fold, has(Symmetry::C(fold))?))).collect();
        let polyhedral = [Symmetry::I1, Symmetry::I2, Symmetry::I3, Symmetry::I4, Symmetry::O, Symmetry::T];
        let mut found = polyhedral.into_iter().find_map(has);
        if let (None, Some(&(fold, along_z))) = (found, cyclic.last()) {
            // Other folds that are no divisors: round.
            if cyclic.iter().all(|&(other, _)| fold % other == 0) {
                found = has(Symmetry::D(fold)).or(Some(along_z));
            }
        }
        found.filter(|found| !self.is_round(found.symmetry))
    }

    /// Whether copies rotated about z by other angles than those of `symmetry` agree too.
    fn is_round(&self, symmetry: Symmetry) -> bool {
        let along_z = symmetry.operators().iter().filter(|g| g[2][2] == 1.0).count().max(2);
        let about_z = |turn: f64| {
            let (sin, cos) = (TAU * turn).sin_cos();
            [[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]]
        };
        let agreements =
            OTHER_ANGLES.map(|fraction| self.agreement(&about_z(fraction / along_z as f64)).ratio);
        tracing::debug!("agreements at other angles: {agreements:.3?}");
        agreements.into_iter().fold(f64::INFINITY, f64::min) > ROUND
    }
}

const IDENTITY: Rotation = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

/// Of a shell, for the first half and the `second` half rotated by `g`: the sums of the products of their values without
/// spherical averages, of the products of their coverages, and of the powers of either.
fn sums_of_shell(second: &RotatedHalf, shell: &Shell, g: &Rotation) -> [f64; 4] {
    let mut sums = [0.0; 4];
    for Voxel { frequency, value, coverage } in &shell.sample {
        let rotated = g.map(|row| row.iter().zip(frequency).map(|(g, k)| g * k).sum());
        let other = second.coverage_at(rotated);
        let a = value - (coverage * shell.spherical[0]) as f32;
        let b = second.projector.at(rotated) - (other * shell.spherical[1]) as f32;
        let product = |a: Complex<f32>, b: Complex<f32>| f64::from(a.re * b.re + a.im * b.im);
        let of_voxel = [product(a, b), coverage * other, product(a, a), product(b, b)];
        sums = [0, 1, 2, 3].map(|i| sums[i] + of_voxel[i]);
    }
    sums
}
