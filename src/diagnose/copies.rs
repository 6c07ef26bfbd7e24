//! The same image in both halves: the halves are then not independent, and their FSC is too high.
//!
//! Equal images have equal checksums. Images of the same particle that were cut out twice, some pixels apart, share their noise: after
//! import both are centred on the particle, at nearly the same pose and defocus, and correlate at frequencies where particles have
//! no signal. Such pairs are compared.

use std::collections::HashMap;

use rayon::prelude::*;
use rustfft::num_complex::Complex;

use super::{Outcome, Subject};
use crate::error::Result;
use crate::imaging::fourier::{Fft2, frequency};
use crate::imaging::pose::{Rotation, product, transposed};
use crate::particles::store::{Block, Particle};
use crate::random::spread;
use crate::run_folder::diagnosis::{Finding, Severity};

const EXACT: &str = "equal images in both halves";
const SHIFTED: &str = "images cut out twice";
/// Rows per read.
const ROWS: usize = 4096;
/// Images of half 1 whose neighbours in half 2 are looked for.
const IMAGES: usize = 4_000;
/// Largest difference of the defocus, relative, and of the pose in degrees, of two images of a particle.
const DEFOCUS: f64 = 0.01;
const ANGLE: f64 = 6.0;
/// Pairs that are compared, at most.
const PAIRS: usize = 2_000;
/// Shells of the comparison, in box sizes: beyond most signal.
const BAND: [f64; 2] = [0.3, 0.48];
/// Largest shift of a copy in pixels.
const SHIFT: isize = 8;
/// Correlation of the noise from which two images are copies: independent noise has one below 0.2 in boxes of 32 pixels or more.
const CORRELATED: f64 = 0.5;
/// Smallest box that is tested.
const SMALLEST_BOX: usize = 32;
/// Share of half 1 from which copies are a fault.
const FAULT: f64 = 0.01;

/// Looks for copies.
///
/// # Errors
/// When the particles cannot be read.
pub(super) fn test(subject: &Subject) -> Result<Outcome> {
    let [first, second] = &subject.subsets;
    let reader = subject.store.reader();
    let mut seen: HashMap<(u32, u64), usize> = HashMap::with_capacity(first.rows.len());
    for start in first.rows.clone().step_by(ROWS) {
        let rows = start..first.rows.end.min(start + ROWS);
        for (row, (checksum, energy)) in rows.clone().zip(reader.fingerprints(rows)?) {
            // An image of zeros is another matter.
            if energy > 0.0 {
                seen.insert((checksum, energy.to_bits()), row);
            }
        }
    }
    let mut equal = Vec::new();
    for start in second.rows.clone().step_by(ROWS) {
        let rows = start..second.rows.end.min(start + ROWS);
        for (row, (checksum, energy)) in rows.clone().zip(reader.fingerprints(rows)?) {
            equal.extend(seen.get(&(checksum, energy.to_bits())).map(|&other| [other, row]));
        }
    }
    let count = first.rows.len().min(second.rows.len()).max(1);
    let original =
        subject.store.imported_from().map_or("INPUT".to_owned(), |path| path.display().to_string());
    let all = first.rows.len() + second.rows.len();
    if let Some(&[one, other]) = equal.first() {
        let evidence = format!(
            "checksums of all {all} images: {} of half 2 are also in half 1 (first: particles {} and {})",
            equal.len(),
            one + 1,
            other + 1
        );
        return Ok(Outcome::found(EXACT, finding("equal", equal.len(), count, evidence, &original)));
    }
    let mut outcome = Outcome::sound(EXACT, format!("none of {all}, by checksum"));
    outcome.add(shifted(subject, count, &original)?);
    Ok(outcome)
}

fn finding(kind: &str, copies: usize, count: usize, evidence: String, original: &str) -> Finding {
    let share = copies as f64 / count as f64;
    Finding {
        id: "copies-in-both-halves".into(),
        severity: if share >= FAULT { Severity::Fault } else { Severity::Warning },
        title: format!("{copies} {kind} images are in both halves ({:.1}%)", 100.0 * share),
        evidence,
        cause: "particles were picked or extracted twice, or files with the same particles were joined, before the halves were drawn".into(),
        cost: "the halves share noise: their FSC, and the resolution from it, are too high".into(),
        next: vec![
            format!(
                "relion_star_handler --i {original} --o fixed.star --remove_duplicates 30 # within 30 A; or cryoSPARC's Remove Duplicates"
            ),
            "cryosplat-mpi import fixed.star --redraw-halves -o unique.h5".into(),
        ],
    }
}

/// Pairs of images with nearly the same pose and defocus whose noise correlates.
fn shifted(subject: &Subject, count: usize, original: &str) -> Result<Outcome> {
    let n = subject.store.header().box_size;
    if n < SMALLEST_BOX {
        return Ok(Outcome::untested(SHIFTED, format!("a box of {n} pixels is too small")));
    }
    let pairs = neighbours(subject)?;
    let reader = subject.store.reader();
    let fft = Fft2::new(n);
    let correlations: Vec<Result<f64>> = pairs
        .par_iter()
        .map_init(Block::default, |block, rows| {
            let spectra: Vec<Vec<Complex<f32>>> = rows
                .iter()
                .map(|&row| {
                    reader.read(row..row + 1, block)?;
                    let mut spectrum = vec![Complex::default(); fft.spectrum_len()];
                    fft.forward(&block.images, n, &mut spectrum, &mut fft.scratch());
                    Ok(spectrum)
                })
                .collect::<Result<_>>()?;
            Ok(noise_correlation(&fft, n, &spectra[0], &spectra[1]))
        })
        .collect();
    let correlations = correlations.into_iter().collect::<Result<Vec<_>>>()?;
    let copies = correlations.iter().filter(|&&value| value >= CORRELATED).count();
    let largest = correlations.iter().copied().fold(0.0, f64::max);
    let of_pairs = format!(
        "{} pairs of images with poses within {ANGLE} degrees and defoci within {:.0}%",
        pairs.len(),
        100.0 * DEFOCUS
    );
    if copies == 0 {
        return Ok(Outcome::sound(
            SHIFTED,
            format!("of {of_pairs}, none shares its noise (largest correlation {largest:.2})"),
        ));
    }
    if has_signal(&correlations) {
        return Ok(Outcome::untested(SHIFTED, "the images have signal at all frequencies"));
    }
    let evidence = format!(
        "of {of_pairs}, {copies} share their noise (correlation of {largest:.2} at frequencies without signal)"
    );
    Ok(Outcome::found(SHIFTED, finding("nearly equal", copies, count, evidence, original)))
}

/// Whether pairs correlate by their signal: then most values lie between those of noise and those of copies.
fn has_signal(correlations: &[f64]) -> bool {
    let between = correlations.iter().filter(|&&value| (0.25..CORRELATED).contains(&value)).count();
    let copies = correlations.iter().filter(|&&value| value >= CORRELATED).count();
    between > copies
}

/// Pairs of a row of half 1 and one of half 2 that may show the same particle.
fn neighbours(subject: &Subject) -> Result<Vec<[usize; 2]>> {
    let operators = subject.symmetry.operators();
    let [first, second] = &subject.subsets;
    let reader = subject.store.reader();
    let defocus = |particle: &Particle| 0.5 * (particle.ctf.defocus_u + particle.ctf.defocus_v);
    let mut others: Vec<(f64, usize, Rotation)> = Vec::with_capacity(second.rows.len());
    for start in second.rows.clone().step_by(ROWS) {
        let rows = start..second.rows.end.min(start + ROWS);
        let particles = reader.particles(rows.clone())?;
        others
            .extend(rows.zip(&particles).map(|(row, particle)| (defocus(particle), row, particle.rotation)));
    }
    others.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    // The trace of a rotation by an angle is 1 + 2 cos.
    let least = 1.0 + 2.0 * ANGLE.to_radians().cos();
    let sample = spread(first.rows.clone(), IMAGES);
    let found: Vec<Result<Vec<[usize; 2]>>> = sample
        .par_iter()
        .map(|&row| {
            let particle = reader.particles(row..row + 1)?[0];
            let (own, width) = (defocus(&particle), DEFOCUS * defocus(&particle).abs());
            let start = others.partition_point(|other| other.0 < own - width);
            let near = others[start..].iter().take_while(|other| other.0 <= own + width);
            let is_same = |other: &Rotation| {
                operators.iter().any(|operator| {
                    let difference = product(&product(&particle.rotation, operator), &transposed(other));
                    (0..3).map(|i| difference[i][i]).sum::<f64>() >= least
                })
            };
            Ok(near.filter(|(_, _, rotation)| is_same(rotation)).map(|&(_, other, _)| [row, other]).collect())
        })
        .collect();
    let all: Vec<[usize; 2]> = found.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    let step = all.len().div_ceil(PAIRS).max(1);
    Ok(all.into_iter().step_by(step).collect())
}

/// The largest correlation of two images of `n` pixels over shifts of up to [`SHIFT`] pixels, in [`BAND`], from their spectra.
fn noise_correlation(fft: &Fft2<f32>, n: usize, a: &[Complex<f32>], b: &[Complex<f32>]) -> f64 {
    let [low, high] = BAND.map(|part| (part * n as f64).powi(2));
    let mut cross = vec![Complex::default(); a.len()];
    let mut powers = [0.0f64; 2];
    for (i, value) in cross.iter_mut().enumerate() {
        let (kx, ky) = (i / n, frequency(i % n, n));
        let square = (kx * kx) as f64 + (ky * ky) as f64;
        if (low..high).contains(&square) {
            *value = a[i] * b[i].conj();
            // Column 0 holds both of each Friedel pair.
            let twice = if kx == 0 { 1.0 } else { 2.0 };
            powers[0] += twice * f64::from(a[i].norm_sqr());
            powers[1] += twice * f64::from(b[i].norm_sqr());
        }
    }
    let mut image = vec![0.0f32; n * n];
    fft.inverse(&mut cross, &mut image, n, &mut fft.scratch());
    let scale = (n * n) as f64 / (powers[0] * powers[1]).sqrt().max(f64::MIN_POSITIVE);
    let within = |i: usize| frequency(i, n).abs() <= SHIFT;
    let values = image.iter().enumerate().filter(|(i, _)| within(i % n) && within(i / n));
    values.map(|(_, &value)| scale * f64::from(value)).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, stream};
    use rand_distr::{Distribution, StandardNormal};

    fn spectrum(fft: &Fft2<f32>, n: usize, image: &[f32]) -> Vec<Complex<f32>> {
        let mut spectrum = vec![Complex::default(); fft.spectrum_len()];
        fft.forward(image, n, &mut spectrum, &mut fft.scratch());
        spectrum
    }

    #[test]
    fn shifted_copies_share_their_noise_and_other_images_do_not() {
        for n in [32, 64] {
            let fft = Fft2::new(n);
            let random = &mut stream(1, Purpose::Noise, 0, 0);
            let mut noise = || -> Vec<f32> { (0..n * n).map(|_| StandardNormal.sample(random)).collect() };
            let first = noise();
            // Moved by (3, -2) pixels, with a part that is not shared at the edges.
            let other = noise();
            let copy: Vec<f32> = (0..n * n)
                .map(|i| {
                    let (x, y) = ((i % n) as isize - 3, (i / n) as isize + 2);
                    let inside = (0..n as isize).contains(&x) && (0..n as isize).contains(&y);
                    if inside { first[y as usize * n + x as usize] } else { other[i] }
                })
                .collect();
            let of = |image: &[f32]| spectrum(&fft, n, image);
            let found = noise_correlation(&fft, n, &of(&first), &of(&copy));
            assert!(found > 0.7, "{n}: {found}");
            for _ in 0..20 {
                let found = noise_correlation(&fft, n, &of(&first), &of(&noise()));
                assert!(found < 0.25, "{n}: {found}");
            }
        }
    }

    #[test]
    fn signal_at_all_frequencies_is_not_taken_for_copies() {
        assert!(!has_signal(&[0.05, 0.1, 0.9, 0.95]));
        assert!(has_signal(&[0.3, 0.4, 0.45, 0.55]));
    }

    #[test]
    fn many_copies_are_a_fault() {
        let found = finding("equal", 5, 1000, "evidence".into(), "in.star");
        assert_eq!((found.severity, found.title.contains("0.5%")), (Severity::Warning, true));
        assert_eq!(finding("equal", 100, 1000, "evidence".into(), "in.star").severity, Severity::Fault);
    }
}
