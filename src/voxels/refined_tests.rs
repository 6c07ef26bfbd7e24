//! Sums with refinements against those of a particle file that holds the refined values.

use std::path::Path;

use rustfft::num_complex::Complex;

use super::half_sums::{Part, ParticleSample, accumulate};
use super::sums::FourierSums;
use crate::imaging::Symmetry;
use crate::imaging::ctf::{CtfParameters, Optics};
use crate::imaging::pose::{product, rotation_from_relion, rotation_from_vector, transposed};
use crate::particles::Subset;
use crate::particles::refinement::{RefinedRows, Refinement};
use crate::particles::store::{Dtype, Header, Particle, Store, Writer};
use crate::progress::Progress;

const BOX: usize = 32;
const PARTICLES: usize = 9;

/// What was refined of particle `i`: its offset is a number of whole pixels.
fn refinement(i: usize) -> Refinement {
    let i = i as f64;
    Refinement {
        rotation: [0.05 * i, -0.1, 0.02 * i * i],
        offset: [(3.0 - i).round(), i],
        defocus: 50.0 * i - 120.0,
    }
}

/// A particle file with the refined values, or with those before, and images that are moved by the offsets.
fn write(path: &Path, is_refined: bool) -> Store {
    let optics = |premultiplied| Optics { premultiplied, ..Optics::new(300.0, 2.7, 0.1) };
    let header = Header {
        box_size: BOX,
        pixel_size: 3.0,
        normalized: true,
        inverted: false,
        optics: vec![optics(false), optics(true)],
        halves: [PARTICLES, 0],
        source_files: Vec::new(),
        imported_from: None,
    };
    let mut writer = Writer::create(path, &header, Dtype::F32).expect("a file");
    for i in 0..PARTICLES {
        let Refinement { rotation, offset, defocus } = refinement(i);
        let right = rotation_from_relion(40.0 * i as f64, 70.0, 20.0);
        let mut particle = Particle {
            rotation: right,
            shift: [0.0; 2],
            ctf: CtfParameters { defocus_u: 12_000.0, defocus_v: 11_000.0, ..CtfParameters::default() },
            optics_group: (i % 2) as u32,
            source: None,
        };
        let mut image: Vec<f32> = (0..BOX * BOX).map(|p| ((p * 7919 + 31 * i) % 101) as f32 - 50.0).collect();
        if !is_refined {
            particle.rotation = product(&transposed(&rotation_from_vector(rotation)), &right);
            particle.ctf.defocus_u -= defocus;
            particle.ctf.defocus_v -= defocus;
            let [x, y] = offset.map(|pixels| pixels.rem_euclid(BOX as f64) as usize);
            image = (0..BOX * BOX)
                .map(|p| image[(p / BOX + BOX - y) % BOX * BOX + (p % BOX + BOX - x) % BOX])
                .collect();
        }
        writer.append(Subset::Half1, &[particle], &image).expect("a row");
    }
    writer.finish().expect("a whole file");
    Store::open(path).expect("the file that was written")
}

fn assert_same(left: &FourierSums, right: &FourierSums) {
    let largest = right.data.iter().map(|v| v.norm()).fold(0.0, f32::max);
    assert!(largest > 0.0);
    // Points near a cell's edge are interpolated from another cell after rounding; sums of a point agree all the same.
    let difference = left.data.iter().zip(&right.data).map(|(a, b): (&Complex<f32>, _)| (a - b).norm());
    assert!(difference.fold(0.0, f32::max) < 1e-4 * largest);
    let heaviest = right.weight.iter().copied().fold(0.0, f32::max);
    let difference = left.weight.iter().zip(&right.weight).map(|(a, b)| (a - b).abs());
    assert!(difference.fold(0.0, f32::max) < 1e-4 * heaviest);
}

#[test]
fn refinements_give_the_sums_of_a_file_with_the_refined_values() {
    let folder = tempfile::tempdir().expect("a folder");
    let before = write(&folder.path().join("before.h5"), false);
    let after = write(&folder.path().join("after.h5"), true);
    let refinements: Vec<Refinement> = (0..PARTICLES).map(refinement).collect();
    // The first rows are not among these.
    for (rows, symmetry) in [(0..PARTICLES, Symmetry::C1), (2..PARTICLES, "D2".parse().expect("a group"))] {
        let refined = RefinedRows::new(rows.start, &refinements[rows.start..]);
        let whole = |store: &Store, refined| {
            let part = Part { rows: rows.clone(), fraction: 1.0, weights: None, refined };
            let sample = ParticleSample { symmetry, ..ParticleSample::default() };
            let (sums, _) = accumulate(store, part, &sample, Progress::silent()).expect("readable particles");
            sums.finish()
        };
        let expected = whole(&after, RefinedRows::default());
        assert_same(&whole(&before, refined), &expected);
        // Without them the sums differ.
        let unrefined = whole(&before, RefinedRows::default());
        let largest = expected.data.iter().map(|v| v.norm()).fold(0.0, f32::max);
        assert!(unrefined.data.iter().zip(&expected.data).any(|(a, b)| (a - b).norm() > 0.1 * largest));
    }
}
