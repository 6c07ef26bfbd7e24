//! The way of the images: one thread reads, all preprocess, one writes, in chunks and in bounded memory.
//!
//! Chunks go through in the order of the STAR file and every image is worked on alone, so the file that comes out does
//! not depend on the number of threads.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use rayon::prelude::*;

use super::relion::{self, Particles};
use super::stacks::Stacks;
use crate::error::{Error, Result};
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
    /// Where the stacks are, if not where the STAR file is.
    pub datadir: Option<PathBuf>,
    /// Box of the stored images in pixels; `None` keeps the raw one.
    pub box_size: Option<usize>,
    /// Invert the contrast.
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

/// Imports the particles of the STAR file `star` into the particle file `destination`.
///
/// # Errors
/// When the STAR file, a stack or an image cannot be used, or the file cannot be written; `destination` is then as it
/// was before.
pub fn import(star: &Path, destination: &Path, options: &Options) -> Result<Summary> {
    let workers =
        rayon::ThreadPoolBuilder::new().num_threads(options.threads.unwrap_or(0)).build().map_err(|e| {
            Error::request(format!("the worker threads cannot start: {e}"), "ask for fewer --threads")
        })?;
    let particles = relion::read(star, options.first, options.seed)?;
    let stacks = Stacks::find(star, options.datadir.as_deref(), &particles)?;
    refuse_overwriting_input(destination, star, stacks.paths())?;

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
        pixel_size: particles.pixel_size * input_box as f64 / output_box as f64,
        normalized: options.normalize,
        inverted: options.invert,
        optics: particles.groups.iter().map(|group| group.optics).collect(),
        halves: [0, 1].map(|half| particles.half.iter().filter(|&&h| h == half).count()),
        source_files: particles.stacks.clone(),
    };
    let writer = Writer::create(destination, &header, options.dtype)?;
    let summary = Summary {
        particles: particles.len(),
        box_size: output_box,
        pixel_size: header.pixel_size,
        halves: header.halves,
    };
    let job = Job { star, particles: &particles, preprocessor: &preprocessor, input_box, output_box };
    job.run(stacks, writer, &workers)?.finish()?;
    Ok(summary)
}

/// An output that is one of the inputs would replace it.
fn refuse_overwriting_input(destination: &Path, star: &Path, stacks: &[PathBuf]) -> Result<()> {
    let identity = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    let Some(existing) = identity(destination) else { return Ok(()) };
    let input = std::iter::once(star).chain(stacks.iter().map(PathBuf::as_path));
    match input.into_iter().find(|path| identity(path) == Some(existing)) {
        Some(_) => Err(Error::input(
            destination,
            "",
            "is an input of this import, and would be replaced",
            "name another output file",
        )),
        None => Ok(()),
    }
}

/// Consecutive images, from particle `first` on.
struct Chunk {
    first: usize,
    images: Vec<f32>,
}

/// What the three stages share.
struct Job<'a> {
    star: &'a Path,
    particles: &'a Particles,
    preprocessor: &'a Preprocessor,
    input_box: usize,
    output_box: usize,
}

impl Job<'_> {
    /// Runs the stages; gives the writer back when every image is in it. The first error in file order wins.
    fn run(&self, stacks: Stacks, writer: Writer, workers: &rayon::ThreadPool) -> Result<Writer> {
        let paths = stacks.paths().to_vec();
        std::thread::scope(|scope| {
            let (raw_sender, raw) = sync_channel(WAITING);
            let (ready, ready_receiver) = sync_channel(WAITING);
            // Buffers go back to the stage that fills them: fresh pages would cost as much as reading.
            let (used_sender, used) = channel();
            let (written_sender, written) = channel();
            scope.spawn(move || self.read(stacks, &raw_sender, &used));
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
    fn read(&self, mut stacks: Stacks, raw: &SyncSender<Result<Chunk>>, used: &Receiver<Vec<f32>>) {
        let pixels = self.input_box * self.input_box;
        let count = (CHUNK_BYTES / (pixels * size_of::<f32>())).clamp(CHUNK_SMALLEST, CHUNK_IMAGES);
        for first in (0..self.particles.len()).step_by(count) {
            let mut images = used.try_recv().unwrap_or_default();
            images.resize(count.min(self.particles.len() - first) * pixels, 0.0);
            let read = images
                .chunks_exact_mut(pixels)
                .enumerate()
                .try_for_each(|(k, image)| stacks.read(self.particles, first + k, image));
            let failed = read.is_err();
            if raw.send(read.map(|()| Chunk { first, images })).is_err() || failed {
                return;
            }
        }
    }

    fn preprocess(
        &self,
        workers: &rayon::ThreadPool,
        paths: &[PathBuf],
        raw: Receiver<Result<Chunk>>,
        used: &Sender<Vec<f32>>,
        ready: &SyncSender<Vec<f32>>,
        written: &Receiver<Vec<f32>>,
    ) -> Result<()> {
        let (pixels, output_pixels) = (self.input_box.pow(2), self.output_box.pow(2));
        for chunk in raw {
            let Chunk { first, mut images } = chunk?;
            let mut outputs = written.try_recv().unwrap_or_default();
            outputs.resize(images.len() / pixels * output_pixels, 0.0);
            let defects: Vec<_> = workers.install(|| {
                images
                    .par_chunks_exact_mut(pixels)
                    .zip(outputs.par_chunks_exact_mut(output_pixels))
                    .enumerate()
                    .map_init(
                        || self.preprocessor.scratch(),
                        |scratch, (k, (image, output))| {
                            self.preprocessor.run(image, self.particles.shift[first + k], output, scratch)
                        },
                    )
                    .collect()
            });
            for (k, outcome) in defects.into_iter().enumerate() {
                outcome.map_err(|defect| {
                    Stacks::image_error(self.particles, paths, self.star, first + k, defect.to_string())
                })?;
            }
            // A stage that is gone has its reason with it.
            let _ = used.send(images);
            if ready.send(outputs).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn write(
        &self,
        mut writer: Writer,
        ready: Receiver<Vec<f32>>,
        written: &Sender<Vec<f32>>,
    ) -> Result<Writer> {
        let mut progress = Progress::new("import", self.particles.len() as u64, "images");
        let mut missing = self.particles.len();
        let pixels = self.output_box.pow(2);
        for images in ready {
            let count = images.len() / pixels;
            let first = self.particles.len() - missing;
            for half in [0, 1] {
                let members: Vec<usize> =
                    (first..first + count).filter(|&i| self.particles.half[i] == half).collect();
                let chosen: Vec<f32> = members
                    .iter()
                    .flat_map(|i| &images[(i - first) * pixels..(i - first + 1) * pixels])
                    .copied()
                    .collect();
                let particles: Vec<Particle> = members.iter().map(|&i| self.particles.particle(i)).collect();
                writer.append(half, &particles, &chosen)?;
            }
            missing -= count;
            progress.advance(count as u64);
            let _ = written.send(images);
        }
        // An import that breaks off has another last word.
        if missing == 0 {
            progress.finish();
        }
        Ok(writer)
    }
}
