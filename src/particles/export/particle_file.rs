//! Writes a particle set with the results of a run as a particle file.

use std::path::Path;

use rayon::prelude::*;

use super::results::{RunResults, blocks};
use crate::error::{Error, Result};
use crate::particles::Subset;
use crate::particles::preprocess::{Preprocessor, Settings};
use crate::particles::store::{Block, Header, Particle, Records, Store, Writer};
use crate::progress::Progress;

/// Writes the particles of `store`, except those that a run excluded, to the particle file `destination`: with refined poses and defoci,
/// and the contrast as a factor of the scale of the CTF. Images are moved as a Fourier phase, so that they are centred again (as an
/// import moves them). Returns the number of particles.
///
/// # Errors
/// If the set cannot be read, an image is damaged, all particles are excluded, or the file cannot be written.
pub fn write(store: &Store, results: &RunResults, destination: &Path) -> Result<usize> {
    results.check_left(store)?;
    let header = store.header();
    let kept = |half: Subset| store.rows(half).filter(|row| !results.excluded.contains(row)).count();
    let halves = Subset::HALVES.map(kept);
    // The poses are not those of the file that was imported, and neither are the places in the images.
    let refined = Header { halves, imported_from: None, ..header.clone() };
    let reader = store.reader();
    let mut import = store.import_record().to_vec();
    let records =
        Records { applied_shifts: reader.applied_shifts(0..0)?.is_some(), import: !import.is_empty() };
    let mut writer = Writer::create_with(destination, &refined, store.dtype(), &records)?;
    import.push("refined: poses, shifts and defoci by a run, without excluded particles".into());
    writer.record_import(&import)?;
    let (box_size, pixels) = (header.box_size, header.pixels());
    let settings =
        Settings { input_box: box_size, output_box: box_size, invert: false, background_radius: None };
    let preprocessor = Preprocessor::new(settings)?;
    let mut block = Block::default();
    let mut moved = Vec::new();
    let mut progress = Progress::new("export", store.len() as u64, "images");
    for rows in blocks(store) {
        reader.read(rows.clone(), &mut block)?;
        results.check_images(store, &block)?;
        let kept: Vec<usize> = rows.clone().filter(|row| !results.excluded.contains(row)).collect();
        let mut particles: Vec<Particle> =
            kept.iter().map(|&row| results.particle(row, &block.particles[row - rows.start])).collect();
        // What was applied before, and now.
        let mut applied = reader.applied_shifts(rows.clone())?.unwrap_or_default();
        if !applied.is_empty() {
            applied = kept.iter().map(|&row| applied[row - rows.start]).collect();
            for (applied, particle) in applied.iter_mut().zip(&particles) {
                *applied = [0, 1].map(|axis| applied[axis] + particle.shift[axis] as f32);
            }
        }
        moved.resize(kept.len() * pixels, 0.0f32);
        let images = &block.images;
        moved.par_chunks_exact_mut(pixels).zip(&mut particles).zip(&kept).try_for_each_init(
            || (preprocessor.scratch(), vec![0.0f32; pixels]),
            |(scratch, image), ((moved, particle), &row)| {
                let at = (row - rows.start) * pixels;
                image.copy_from_slice(&images[at..at + pixels]);
                let shift = std::mem::take(&mut particle.shift);
                preprocessor.run(image, shift, None, moved, scratch).map_err(|defect| {
                    let at = format!("particle {}", row + 1);
                    Error::input(store.path(), at, defect.to_string(), "import again without this particle")
                })
            },
        )?;
        let in_half1 = kept.partition_point(|&row| row < header.halves[0]);
        let (images1, images2) = moved.split_at(in_half1 * pixels);
        let (applied1, applied2) = applied.split_at(in_half1.min(applied.len()));
        writer.append_with(Subset::Half1, &particles[..in_half1], applied1, images1)?;
        writer.append_with(Subset::Half2, &particles[in_half1..], applied2, images2)?;
        progress.advance(rows.len() as u64);
    }
    progress.finish();
    writer.finish()?;
    Ok(halves.iter().sum())
}
