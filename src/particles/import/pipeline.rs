//! The way of the images: one thread reads, all preprocess, one writes, in chunks and in bounded memory.
//!
//! Chunks go through in the order of the metadata file, whose rows are read on the way, and every image is worked on alone,
//! so the file that comes out does not depend on the number of threads. Within a chunk the particles of half 1 stand in
//! front of those of half 2, as the writer takes them.
//!
//! What is held for the whole import is one byte a particle, its half; the stacks' names; and, where the metadata are
//! arrays (cryoSPARC's and cryoDRGN's), these arrays.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use rayon::prelude::*;

use super::format::{self, Companions};
use super::set::{Particles, Row, Wanted};
use super::stacks::Stacks;
use crate::error::{Error, Result};
use crate::particles::Subset;
use crate::particles::preprocess::{BACKGROUND_RADIUS, Preprocessor, Settings};
use crate::particles::store::{Dtype, Header, Particle, Writer};
use crate::progress::Progress;

/// The most images a chunk holds.
const CHUNK_IMAGES: usize = 256;
/// A chunk holds fewer images when they are large (but never fewer than [`CHUNK_SMALLEST`]).
const CHUNK_BYTES: usize = 64 << 20;
/// Enough for many threads to share.
const CHUNK_SMALLEST: usize = 16;
/// Chunks that wait between two stages.
const WAITING: usize = 2;

/// How to import.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The files that belong to the one that is imported.
    pub companions: Companions,
    /// Where the stacks are, if not where the metadata file says.
    pub datadir: Option<PathBuf>,
    /// Box of the stored images in pixels; `None` keeps the raw one.
    pub box_size: Option<usize>,
    /// Invert the contrast of all images, and not only of those of which the metadata say that the specimen is dark.
    pub invert: bool,
    /// Normalise by the background.
    pub normalize: bool,
    /// Radius of the circle that the background lies outside of, in output pixels; `None` for RELION's 37.5 % of the box.
    pub background_radius: Option<f64>,
    /// How pixels are stored.
    pub dtype: Dtype,
    /// Draws the halves where the file has none.
    pub seed: u64,
    /// Worker threads; `None` for one a core.
    pub threads: Option<usize>,
    /// Import only this many particles from the start of the file.
    pub first: Option<usize>,
}

/// What came in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Particles.
    pub particles: usize,
    /// Box of the stored images, in pixels.
    pub box_size: usize,
    /// Pixel size of the stored images, in angstrom.
    pub pixel_size: f64,
    /// Particles in each half.
    pub halves: [usize; 2],
}

/// Imports the particles of the file `input` into the particle file `destination`.
///
/// # Errors
/// When the metadata, a stack or an image cannot be used, or the file cannot be written; `destination` is then as it
/// was before.
pub fn import(input: &Path, destination: &Path, options: &Options) -> Result<Summary> {
    let workers =
        rayon::ThreadPoolBuilder::new().num_threads(options.threads.unwrap_or(0)).build().map_err(|e| {
            Error::request(format!("the worker threads cannot start: {e}"), "ask for fewer --threads")
        })?;
    let wanted = Wanted { first: options.first, seed: options.seed, datadir: options.datadir.as_deref() };
    let particles = format::read(input, &options.companions, &wanted)?;
    let common = particles.common();
    let stacks = Stacks::find(common)?;
    let inputs = std::iter::once(&common.path).chain(&common.others).chain(stacks.paths());
    refuse_overwriting_input(destination, inputs)?;

    let input_box = stacks.box_size();
    let output_box = options.box_size.unwrap_or(input_box);
    let radius = options.background_radius.unwrap_or(BACKGROUND_RADIUS * output_box as f64);
    let preprocessor = Preprocessor::new(Settings {
        input_box,
        output_box,
        invert: options.invert,
        background_radius: options.normalize.then_some(radius),
    })?;
    let header = Header {
        box_size: output_box,
        pixel_size: common.pixel_size * input_box as f64 / output_box as f64,
        normalized: options.normalize,
        inverted: options.invert || common.dark,
        optics: common.optics.clone(),
        halves: common.halves(),
        source_files: common.stacks.names(),
    };
    let writer = Writer::create(destination, &header, options.dtype)?;
    let summary = Summary {
        particles: common.len(),
        box_size: output_box,
        pixel_size: header.pixel_size,
        halves: header.halves,
    };
    let job = Job {
        input,
        count: summary.particles,
        preprocessor: &preprocessor,
        inverts: options.invert,
        input_box,
        output_box,
    };
    job.run(particles, stacks, writer, &workers)?.finish()?;
    Ok(summary)
}

/// An output that is one of the inputs would replace it.
fn refuse_overwriting_input<'a>(
    destination: &Path,
    mut inputs: impl Iterator<Item = &'a PathBuf>,
) -> Result<()> {
    let identity = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    let Some(existing) = identity(destination) else { return Ok(()) };
    match inputs.find(|path| identity(path) == Some(existing)) {
        Some(_) => Err(Error::input(
            destination,
            "",
            "is an input of this import, and would be replaced",
            "name another output file",
        )),
        None => Ok(()),
    }
}

/// Consecutive rows, those of half 1 first, and their images.
struct Chunk {
    rows: Vec<Row>,
    images: Vec<f32>,
}

impl Chunk {
    /// Number of rows in half 1.
    fn in_half1(rows: &[Row]) -> usize {
        rows.iter().filter(|row| row.half == Subset::Half1).count()
    }
}

/// What the three stages share.
struct Job<'a> {
    input: &'a Path,
    count: usize,
    preprocessor: &'a Preprocessor,
    /// True where the preprocessor inverts every image.
    inverts: bool,
    input_box: usize,
    output_box: usize,
}

impl Job<'_> {
    /// Runs the stages; gives the writer back when every image is in it. The first error in file order wins.
    fn run(
        &self,
        particles: Box<dyn Particles>,
        stacks: Stacks,
        writer: Writer,
        workers: &rayon::ThreadPool,
    ) -> Result<Writer> {
        let paths = stacks.paths().to_vec();
        std::thread::scope(|scope| {
            let (raw_sender, raw) = sync_channel(WAITING);
            let (ready, ready_receiver) = sync_channel(WAITING);
            // Buffers go back to the stage that fills them: fresh pages would cost as much as reading.
            let (used_sender, used) = channel();
            let (written_sender, written) = channel();
            scope.spawn(move || self.read(particles, stacks, &raw_sender, &used));
            let writing = scope.spawn(move || self.write(writer, ready_receiver, &written_sender));
            let worked = self.preprocess(workers, &paths, raw, &used_sender, &ready, &written);
            drop(ready);
            let finished = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // What the writer refused came before what later images were refused for.
            let writer = finished?;
            worked.map(|()| writer)
        })
    }

    /// Reads in file order until the end, an error, or a following stage that is gone.
    fn read(
        &self,
        mut particles: Box<dyn Particles>,
        mut stacks: Stacks,
        raw: &SyncSender<Result<Chunk>>,
        used: &Receiver<Vec<f32>>,
    ) {
        let bytes = self.input_box.pow(2) * size_of::<f32>();
        let count = (CHUNK_BYTES / bytes).clamp(CHUNK_SMALLEST, CHUNK_IMAGES);
        let mut rows = particles.rows();
        for _ in 0..self.count.div_ceil(count) {
            let some = rows.by_ref().take(count).collect();
            let chunk = self.read_chunk(some, &mut stacks, used.try_recv().unwrap_or_default());
            let failed = chunk.is_err();
            if raw.send(chunk).is_err() || failed {
                return;
            }
        }
    }

    fn read_chunk(&self, rows: Result<Vec<Row>>, stacks: &mut Stacks, mut images: Vec<f32>) -> Result<Chunk> {
        let (mut rows, pixels) = (rows?, self.input_box.pow(2));
        images.resize(rows.len() * pixels, 0.0);
        let mut places = [0, Chunk::in_half1(&rows)];
        for row in &rows {
            let place = &mut places[usize::from(row.half == Subset::Half2)];
            stacks.read(row, &mut images[*place * pixels..(*place + 1) * pixels])?;
            *place += 1;
        }
        // Rows of one half keep their order.
        rows.sort_by_key(|row| row.half);
        Ok(Chunk { rows, images })
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
        let (pixels, output_pixels) = (self.input_box.pow(2), self.output_box.pow(2));
        for chunk in raw {
            let Chunk { rows, mut images } = chunk?;
            let mut outputs = written.try_recv().unwrap_or_default();
            outputs.resize(rows.len() * output_pixels, 0.0);
            let outcomes: Vec<_> = workers.install(|| {
                images
                    .par_chunks_exact_mut(pixels)
                    .zip(outputs.par_chunks_exact_mut(output_pixels))
                    .zip(&rows)
                    .map_init(
                        || self.preprocessor.scratch(),
                        |scratch, ((image, output), row)| {
                            if row.dark && !self.inverts {
                                image.iter_mut().for_each(|value| *value = -*value);
                            }
                            self.preprocessor.run(image, row.shift, output, scratch)
                        },
                    )
                    .collect()
            });
            let defects = rows.iter().zip(outcomes).filter_map(|(row, outcome)| Some((row, outcome.err()?)));
            if let Some((row, defect)) = defects.min_by_key(|(row, _)| row.place) {
                return Err(Stacks::image_error(paths, self.input, row, defect.to_string()));
            }
            // A stage that is gone has its reason with it.
            let _ = used.send(images);
            if ready.send(Chunk { rows, images: outputs }).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn write(
        &self,
        mut writer: Writer,
        ready: Receiver<Chunk>,
        written: &Sender<Vec<f32>>,
    ) -> Result<Writer> {
        let mut progress = Progress::new("import", self.count as u64, "images");
        let mut missing = self.count;
        for Chunk { rows, images } in ready {
            let particles: Vec<Particle> = rows.iter().map(|row| row.particle).collect();
            let second = Chunk::in_half1(&rows);
            let (images0, images1) = images.split_at(second * self.output_box.pow(2));
            writer.append(Subset::Half1, &particles[..second], images0)?;
            writer.append(Subset::Half2, &particles[second..], images1)?;
            missing -= rows.len();
            progress.advance(rows.len() as u64);
            let _ = written.send(images);
        }
        // An import that breaks off has another last word.
        if missing == 0 {
            progress.finish();
        }
        Ok(writer)
    }
}
