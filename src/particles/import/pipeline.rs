//! The import pipeline: one thread reads, a pool preprocesses, one thread writes, in chunks and with bounded memory.
//!
//! Chunks pass the stages in the order of the metadata file, and every image is preprocessed on its own: the particle file
//! does not depend on the number of threads. Within a chunk, the particles of half 1 precede those of half 2.
//!
//! The memory for the whole import is one byte per particle (its half), the names of the stacks and, for cryoSPARC and
//! cryoDRGN, the arrays of the metadata files. Before the images are read, copies of images are found with at most 48 bytes
//! per particle.

use std::path::{Component, Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use rayon::prelude::*;

use super::format;
use super::grid::{Grid, Request};
pub use super::options::Options;
use super::set::{ParticleRow, ParticleSet, ReadOptions, SetProperties};
use super::stacks::Stacks;
use super::summary::{Extent, Summary};
use super::units::Units;
use crate::error::{Error, Result};
use crate::files::Claims;
use crate::imaging::ctf::Ctf;
use crate::memory;
use crate::particles::Subset;
use crate::particles::preprocess::{Defect, Scratch};
use crate::particles::store::{Header, Particle, Records, Writer};
use crate::progress::Progress;

/// Maximal number of images per chunk.
const CHUNK_IMAGES: usize = 256;
/// Maximal size of a chunk in bytes, but for [`CHUNK_SMALLEST`].
const CHUNK_BYTES: usize = 64 << 20;
/// Minimal number of images per chunk: enough work for many threads.
const CHUNK_SMALLEST: usize = 16;
/// Capacity of the queues between stages, in chunks.
const WAITING: usize = 2;

/// Imports the particles of the file `input` into the particle file `destination`.
///
/// # Errors
/// If the metadata, a stack or an image is unusable, or the file cannot be written. `destination` is then unchanged.
pub fn import(input: &Path, destination: &Path, options: &Options) -> Result<Summary> {
    let workers =
        rayon::ThreadPoolBuilder::new().num_threads(options.threads.unwrap_or(0)).build().map_err(|e| {
            Error::request(format!("the worker threads cannot start: {e}"), "set fewer --threads")
        })?;
    let read_options = ReadOptions {
        first: options.first,
        class: options.class,
        seed: options.seed,
        redraw_halves: options.redraw_halves,
        datadir: options.datadir.as_deref(),
        keep: None,
    };
    let keep = options.selection.keep(input, &options.companions, &read_options)?;
    let read_options = ReadOptions { keep: keep.as_deref(), ..read_options };
    let particles = format::read(input, &options.companions, &read_options)?;
    let properties = particles.properties();
    let stacks = Stacks::find(properties)?;
    let mut claims = Claims::new();
    reads(&mut claims, properties, &stacks);
    claims.reads_some(options.selection.rows.as_ref(), "the list of rows");
    claims.writes(destination).writes(Summary::path_beside(destination));
    claims.writes(destination.with_extension("html")).check()?;

    let request = Request {
        box_size: options.box_size,
        pixel_size: options.pixel_size,
        invert: options.invert,
        normalize: options.normalize,
        background_radius: options.background_radius,
    };
    let grid = Grid::plan(properties, &stacks, &request)?;
    let header = Header {
        box_size: grid.box_size,
        pixel_size: grid.pixel_size,
        normalized: options.normalize,
        inverted: options.invert || properties.dark,
        optics: grid.optics.clone(),
        halves: properties.halves(),
        source_files: properties.stacks.names(),
        imported_from: relative_path(input, destination),
    };
    check_memory(&grid, properties.halves().iter().sum(), workers.current_num_threads())?;
    let records = Records { applied_shifts: true, import: true };
    let writer = Writer::create_with(destination, &header, options.dtype, &records)?;
    let mut summary = Summary::new(properties, &grid, options);
    let job = Job {
        input,
        count: summary.particles,
        units: Units::new(properties),
        raw_pixel_sizes: properties.raw.iter().map(|raw| raw.pixel_size).collect(),
        grid: &grid,
        inverts: options.invert,
    };
    let (writer, extent) = job.run(particles, stacks, writer, &workers)?;
    summary.complete(extent, options.invert);
    writer.record_import(&summary.record())?;
    writer.finish()?;
    Ok(summary)
}

/// Claims the metadata files and the `stacks` of a set as inputs.
pub(crate) fn reads(claims: &mut Claims, properties: &SetProperties, stacks: &Stacks) {
    for path in std::iter::once(&properties.path).chain(&properties.others) {
        claims.reads(path, "a metadata file of this import");
    }
    for path in stacks.paths() {
        claims.reads(path, "a stack of this import");
    }
}

/// Number of images per chunk of a grid.
fn images_per_chunk(grid: &Grid) -> usize {
    let bytes = grid.largest_raw_box.pow(2) * size_of::<f32>();
    (CHUNK_BYTES / bytes).clamp(CHUNK_SMALLEST, CHUNK_IMAGES)
}

/// Checks that the chunks of `count` images and the transforms of `threads` threads fit the free memory.
fn check_memory(grid: &Grid, count: usize, threads: usize) -> Result<()> {
    let [raw, stored] = [grid.largest_raw_box, grid.box_size].map(|size| (size as u128).pow(2));
    let in_memory = images_per_chunk(grid).min(count) * (WAITING + 2);
    let of_images = (raw + stored) * (in_memory * size_of::<f32>()) as u128;
    // A transform and its scratch, of complex numbers.
    let of_threads = (raw + stored) * (threads * 2 * size_of::<[f64; 2]>()) as u128;
    memory::require(
        of_images + of_threads,
        || format!("importing images of {} pixels along each edge", grid.largest_raw_box),
        "use fewer --threads, bin the images before, or use a machine with more memory",
    )
}

/// The path of `file` relative to the folder of `other`, without links; `None` if it is not UTF-8, or a folder cannot be read.
fn relative_path(file: &Path, other: &Path) -> Option<String> {
    let folder = other.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let (file, folder) = (file.canonicalize().ok()?, folder.canonicalize().ok()?);
    let (file, folder): (Vec<_>, Vec<_>) = (file.components().collect(), folder.components().collect());
    let shared = file.iter().zip(&folder).take_while(|(a, b)| a == b).count();
    let up = folder[shared..].iter().map(|_| Component::ParentDir);
    let path: PathBuf = up.chain(file[shared..].iter().copied()).collect();
    path.to_str().map(str::to_owned)
}

/// Consecutive rows, those of half 1 first, and their images.
struct Chunk {
    rows: Vec<ParticleRow>,
    /// Raw boxes of the rows, while the images are raw.
    boxes: Vec<usize>,
    /// Images, each in a place for the largest one.
    images: Vec<f32>,
}

impl Chunk {
    /// Number of rows in half 1.
    fn in_half1(rows: &[ParticleRow]) -> usize {
        rows.iter().filter(|row| row.half == Subset::Half1).count()
    }
}

/// State shared by the three stages.
struct Job<'a> {
    input: &'a Path,
    count: usize,
    units: Units,
    /// Pixel size of the raw images of each optics group in angstrom.
    raw_pixel_sizes: Vec<f64>,
    grid: &'a Grid,
    /// True if the preprocessors invert every image.
    inverts: bool,
}

impl Job<'_> {
    /// Runs the stages and returns the writer with all images, and the extreme values of the particles. Of several errors, the first in file order is returned.
    fn run(
        &self,
        particles: Box<dyn ParticleSet>,
        stacks: Stacks,
        writer: Writer,
        workers: &rayon::ThreadPool,
    ) -> Result<(Writer, Extent)> {
        let paths = stacks.paths().to_vec();
        std::thread::scope(|scope| {
            let (raw_sender, raw) = sync_channel(WAITING);
            let (ready, ready_receiver) = sync_channel(WAITING);
            // Buffers are returned to the stage that fills them: faulting in new pages would cost as much as reading.
            let (used_sender, used) = channel();
            let (written_sender, written) = channel();
            scope.spawn(move || self.read(particles, stacks, &raw_sender, &used));
            let writing = scope.spawn(move || self.write(writer, ready_receiver, &written_sender));
            let worked = self.preprocess(workers, &paths, raw, &used_sender, &ready, &written);
            drop(ready);
            let finished = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // Errors of the writer concern earlier images than those of the preprocessing.
            let written = finished?;
            worked.map(|()| written)
        })
    }

    /// Reads in file order until the end, an error, or until the next stage has stopped.
    fn read(
        &self,
        mut particles: Box<dyn ParticleSet>,
        mut stacks: Stacks,
        raw: &SyncSender<Result<Chunk>>,
        used: &Receiver<Vec<f32>>,
    ) {
        let count = images_per_chunk(self.grid);
        let mut units = self.units.clone();
        let mut rows = particles.rows();
        for _ in 0..self.count.div_ceil(count) {
            let some = rows.by_ref().take(count).collect();
            let chunk = self.read_chunk(some, &mut stacks, used.try_recv().unwrap_or_default());
            let failed = chunk.is_err();
            let rows = chunk.iter().flat_map(|chunk| chunk.rows.iter().zip(&chunk.boxes));
            rows.for_each(|(row, &box_size)| units.observe(row, box_size));
            if raw.send(chunk).is_err() || failed {
                return;
            }
        }
        units.warn();
    }

    fn read_chunk(
        &self,
        rows: Result<Vec<ParticleRow>>,
        stacks: &mut Stacks,
        mut images: Vec<f32>,
    ) -> Result<Chunk> {
        let (mut rows, pixels) = (rows?, self.grid.largest_raw_box.pow(2));
        images.resize(rows.len() * pixels, 0.0);
        let mut places = [0, Chunk::in_half1(&rows)];
        for row in &rows {
            let place = &mut places[usize::from(row.half == Subset::Half2)];
            let first = *place * pixels;
            stacks.read(row, &mut images[first..first + stacks.box_of(row).pow(2)])?;
            *place += 1;
        }
        // A stable sort: rows of the same half keep their order.
        rows.sort_by_key(|row| row.half);
        let boxes = rows.iter().map(|row| stacks.box_of(row)).collect();
        Ok(Chunk { rows, boxes, images })
    }

    fn preprocess(
        &self,
        workers: &rayon::ThreadPool,
        paths: &[PathBuf],
        raw: Receiver<Result<Chunk>>,
        used: &Sender<Vec<f32>>,
        ready: &SyncSender<Chunk>,
        written: &Receiver<Vec<f32>>,
    ) -> Result<()> {
        let (pixels, output_pixels) = (self.grid.largest_raw_box.pow(2), self.grid.box_size.pow(2));
        for chunk in raw {
            let Chunk { rows, boxes, mut images } = chunk?;
            let mut outputs = written.try_recv().unwrap_or_default();
            outputs.resize(rows.len() * output_pixels, 0.0);
            let outcomes: Vec<_> = workers.install(|| {
                images
                    .par_chunks_exact_mut(pixels)
                    .zip(outputs.par_chunks_exact_mut(output_pixels))
                    .zip(rows.par_iter().zip(&boxes))
                    .map_init(Vec::new, |scratch, ((image, output), (row, &raw_box))| {
                        self.preprocess_image(&mut image[..raw_box * raw_box], output, row, scratch)
                    })
                    .collect()
            });
            let defects = rows.iter().zip(outcomes).filter_map(|(row, outcome)| Some((row, outcome.err()?)));
            if let Some((row, defect)) = defects.min_by_key(|(row, _)| row.place) {
                return Err(Stacks::image_error(paths, self.input, row, defect.to_string()));
            }
            // If the other stage has stopped, its own result has the reason.
            let _ = used.send(images);
            if ready.send(Chunk { rows, boxes: Vec::new(), images: outputs }).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Preprocesses one raw image. `scratch` has the memory of this thread for each raw box.
    fn preprocess_image(
        &self,
        image: &mut [f32],
        output: &mut [f32],
        row: &ParticleRow,
        scratch: &mut Vec<(usize, Scratch)>,
    ) -> std::result::Result<(), Defect> {
        if row.dark && !self.inverts {
            image.iter_mut().for_each(|value| *value = -*value);
        }
        let (group, raw_box) = (row.particle.optics_group, image.len().isqrt());
        let preprocessor = self.grid.preprocessor(group, raw_box);
        let place = scratch.iter().position(|(size, _)| *size == raw_box).unwrap_or_else(|| {
            scratch.push((raw_box, preprocessor.scratch()));
            scratch.len() - 1
        });
        let flipped = self.grid.flipped(group, |optics| Ctf::new(optics, &row.particle.ctf));
        preprocessor.run(image, row.shift, flipped.as_ref(), output, &mut scratch[place].1)
    }

    /// The shift of an image in pixels of the stored box.
    fn applied_shift(&self, row: &ParticleRow) -> [f32; 2] {
        let raw_pixel_size = self.raw_pixel_sizes[row.particle.optics_group as usize];
        row.shift.map(|shift| (shift * raw_pixel_size / self.grid.pixel_size) as f32)
    }

    fn write(
        &self,
        mut writer: Writer,
        ready: Receiver<Chunk>,
        written: &Sender<Vec<f32>>,
    ) -> Result<(Writer, Extent)> {
        let mut progress = Progress::new("import", self.count as u64, "images");
        let mut missing = self.count;
        let mut extent = Extent::NONE;
        for Chunk { rows, images, .. } in ready {
            let particles: Vec<Particle> = rows.iter().map(|row| row.particle).collect();
            let shifts: Vec<[f32; 2]> = rows.iter().map(|row| self.applied_shift(row)).collect();
            let second = Chunk::in_half1(&rows);
            let (images0, images1) = images.split_at(second * self.grid.box_size.pow(2));
            writer.append_with(Subset::Half1, &particles[..second], &shifts[..second], images0)?;
            writer.append_with(Subset::Half2, &particles[second..], &shifts[second..], images1)?;
            for row in &rows {
                extent.observe(row, self.raw_pixel_sizes[row.particle.optics_group as usize]);
            }
            missing -= rows.len();
            progress.advance(rows.len() as u64);
            let _ = written.send(images);
        }
        // A failed import reports its error instead.
        if missing == 0 {
            progress.finish();
        }
        Ok((writer, extent))
    }
}
