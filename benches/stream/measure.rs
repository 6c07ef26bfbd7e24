//! The measurements: raw rates, and those of the particles of a rank.

use std::collections::VecDeque;
use std::fs::File;
use std::hint::black_box;
use std::num::NonZeroU64;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use cryosplat_mpi::gmm::{Gmm, Shape};
use cryosplat_mpi::loader::prefetch::READER_THREADS;
use cryosplat_mpi::loader::sampler::{BLOCKS_PER_WINDOW, Sampler, WINDOWS_PER_SLOT};
use cryosplat_mpi::loader::scratch::ScratchCopy;
use cryosplat_mpi::loader::shard::{Residency, Shard};
use cryosplat_mpi::particles::Subset;
use cryosplat_mpi::particles::store::{Pixels, Reader, Store};
use cryosplat_mpi::progress::Progress;
use cryosplat_mpi::random::{Purpose, stream};
use cryosplat_mpi::render::cpu::CpuDevice;
use cryosplat_mpi::render::{Geometry, Sampling, Symmetry, Target, Weights};
use rustix::fs::{Advice, fadvise};

/// A case, and its rates in GB/s for each repeat.
struct Case {
    name: &'static str,
    rates: Vec<Rates>,
}

/// Rates in GB/s.
#[derive(Clone, Copy)]
pub struct Rates {
    /// Raw rate into memory that stays in the CPU cache; `None` if no file is read.
    pub cached: Option<f64>,
    /// Raw rate into as much memory as the stream uses.
    pub raw: f64,
    /// Rate of an epoch.
    pub epoch: f64,
}

/// A row of the table.
pub struct Line {
    /// Name of the case.
    pub name: &'static str,
    /// Medians over the repeats.
    pub rates: Rates,
    /// Rate of an epoch relative to the raw rate: median over the repeats, each of which measures both.
    pub share: f64,
}

/// State of the measurements.
pub struct Bench {
    store: Store,
    order: Sampler,
    device: CpuDevice,
    /// A shard in host memory, and a contiguous array of the same size.
    host: Shard,
    memory: Pixels,
    /// The number of blocks of the stream.
    blocks: Mutex<VecDeque<Pixels>>,
    folder: PathBuf,
    cases: [Case; 6],
}

impl Bench {
    /// Measures the particles of `store` in batches of `batch`; writes copies to `folder`.
    pub fn new(store: Store, batch: usize, folder: &Path) -> Result<Self> {
        let header = store.header();
        let order = Sampler::new(
            store.rows(Subset::All),
            batch,
            header.pixels() * size_of::<f32>(),
            1,
            Subset::Half1,
        );
        let geometry = Geometry {
            box_size: header.box_size,
            pixel_size: header.pixel_size,
            cutoff: 3.0,
            sampling: Sampling::BandLimited,
            weights: Weights::UNIFORM,
            symmetry: Symmetry::C1,
        };
        let start = Gmm::random(1, Shape::Isotropic, &mut stream(1, Purpose::Start, 1, 0));
        let mut device = CpuDevice::new(start, geometry);
        let progress = Progress::new("read into memory", store.len() as u64, "images");
        let all = 0..order.slots();
        let host = Shard::load(store.reader(), &order, all, 1, Residency::Host, &mut device, progress)?;
        let mut memory = Pixels::default();
        memory.resize(store.len() * header.pixels());
        let mut block = Pixels::default();
        block.resize(order.block() * header.pixels());
        let blocks = vec![block; WINDOWS_PER_SLOT * BLOCKS_PER_WINDOW * order.slots()];
        let case = |name| Case { name, rates: Vec::new() };
        Ok(Self {
            memory,
            blocks: Mutex::new(blocks.into()),
            folder: folder.to_path_buf(),
            cases: [
                case("first epoch, file in the page cache, `--cache none`"),
                case("later epoch, file in the page cache, `--cache none`"),
                case("first epoch, file dropped, `--cache none`"),
                case("later epoch, file dropped, `--cache none`"),
                case("later epoch, copy in the page cache, `--cache scratch`"),
                case("memory, summed by one thread, `--cache host`"),
            ],
            store,
            order,
            device,
            host,
        })
    }

    /// Size of the images in GB.
    pub fn gigabytes(&self) -> f64 {
        self.memory.len() as f64 * 4e-9
    }

    /// Images per block.
    pub fn block(&self) -> usize {
        self.order.block()
    }

    /// Memory of the blocks of the stream, and of one block per thread, in MiB.
    pub fn memories(&self) -> [usize; 2] {
        let blocks = self.blocks.lock().expect("nobody panics");
        [blocks.len(), READER_THREADS].map(|count| (count * blocks[0].len() * size_of::<f32>()) >> 20)
    }

    /// Measures everything once.
    pub fn turn(&mut self) -> Result<()> {
        let file = File::open(self.store.path())?;
        let all = WINDOWS_PER_SLOT * BLOCKS_PER_WINDOW * self.order.slots();
        drop_pages(&file)?;
        let cached = self.raw(&file, READER_THREADS)?;
        drop_pages(&file)?;
        let dropped = (cached, self.raw(&file, all)?);
        let copy = ScratchCopy::create(self.store.path(), &self.folder, false)?;
        let staged = File::open(copy.path())?;
        drop(copy);
        // Pending writes to the disk would disturb the measurement.
        staged.sync_all()?;
        let copied = (self.raw(&staged, READER_THREADS)?, self.raw(&staged, all)?);
        let reader = self.store.reader();
        let [_, later_copied] = self.epochs(reader.on(staged), None)?;
        drop_pages(&file)?;
        let [first_dropped, later_dropped] = self.epochs(reader.clone(), Some(&file))?;
        // Blocks that were prefetched before the file was dropped are read from the disk again.
        self.raw(&file, all)?;
        let held = (self.raw(&file, READER_THREADS)?, self.raw(&file, all)?);
        let [first, later] = self.epochs(reader, None)?;
        let of = |(cached, raw), epoch| Rates { cached: Some(cached), raw, epoch };
        let rates = [
            of(held, first),
            of(held, later),
            of(dropped, first_dropped),
            of(dropped, later_dropped),
            of(copied, later_copied),
            Rates { cached: None, raw: self.memory()?, epoch: self.host()? },
        ];
        for (case, rates) in self.cases.iter_mut().zip(rates) {
            case.rates.push(rates);
        }
        Ok(())
    }

    /// Medians over the repeats.
    pub fn lines(&self) -> Vec<Line> {
        let line = |Case { name, rates }: &Case| {
            let of = |value: fn(&Rates) -> Option<f64>| median(rates.iter().filter_map(value).collect());
            let medians = Rates {
                cached: of(|rates| rates.cached),
                raw: of(|rates| Some(rates.raw)).unwrap_or(0.0),
                epoch: of(|rates| Some(rates.epoch)).unwrap_or(0.0),
            };
            Line { name, rates: medians, share: of(|rates| Some(rates.epoch / rates.raw)).unwrap_or(0.0) }
        };
        self.cases.iter().map(line).collect()
    }

    /// Reads the blocks of an epoch in the order of the stream, with the same number of threads, into `count` blocks cyclically.
    fn raw(&self, file: &File, count: usize) -> Result<f64> {
        let free =
            Mutex::new(self.blocks.lock().expect("nobody panics").drain(..count).collect::<VecDeque<_>>());
        let order = self.order.clone();
        let blocks: Vec<Range<u64>> = order
            .clone()
            .windows(0..order.slots(), (0, 0), 1)
            .flat_map(|window| order.blocks_of(window))
            .map(|rows| self.store.reader().bytes_of(rows))
            .collect();
        let next = Mutex::new(blocks.into_iter());
        let rate = self.timed(|| {
            std::thread::scope(|scope| -> Result<()> {
                let read = || -> Result<()> {
                    loop {
                        let Some(Range { start, end }) = next.lock().expect("nobody panics").next() else {
                            return Ok(());
                        };
                        advise(file, start..end, Advice::WillNeed)?;
                        let mut block =
                            free.lock().expect("nobody panics").pop_front().expect("one a thread");
                        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut block);
                        file.read_exact_at(&mut bytes[..(end - start) as usize], start)?;
                        free.lock().expect("nobody panics").push_back(black_box(block));
                    }
                };
                let threads: Vec<_> = (0..READER_THREADS).map(|_| scope.spawn(read)).collect();
                threads.into_iter().try_for_each(|thread| thread.join().expect("nobody panics"))
            })
        });
        self.blocks.lock().expect("nobody panics").append(&mut free.lock().expect("nobody panics"));
        rate
    }

    /// Times the first two of three epochs of the stream, without using the images. Each epoch except the first begins and ends with
    /// the same amount of prefetched data. `dropped`, if given, is removed from the page cache before the second one.
    fn epochs(&mut self, reader: Reader, dropped: Option<&File>) -> Result<[f64; 2]> {
        let all = 0..self.order.slots();
        let progress = Progress::silent();
        let mut shard =
            Shard::load(reader, &self.order, all, 3, Residency::Streamed, &mut self.device, progress)?;
        let mut epoch = |number| -> Result<f64> {
            let mut images = 0;
            let rate = self.timed(|| {
                Ok(shard.each_batch(number, 0, |_, batch| {
                    images += batch.observations.len();
                    Ok(ControlFlow::Continue(()))
                })?)
            })?;
            ensure!(images == self.store.len(), "{images} images");
            Ok(rate)
        };
        let first = epoch(0)?;
        dropped.map_or(Ok(()), drop_pages)?;
        Ok([first, epoch(1)?])
    }

    fn memory(&self) -> Result<f64> {
        self.timed(|| {
            black_box(sum(&self.memory));
            Ok(())
        })
    }

    fn host(&mut self) -> Result<f64> {
        let gigabytes = self.gigabytes();
        let start = Instant::now();
        self.host.each_batch(0, 0, |_, batch| {
            for seen in &batch.observations {
                if let Target::Prepared(image) = seen.target {
                    black_box(sum(image));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(gigabytes / start.elapsed().as_secs_f64())
    }

    /// Rate in GB/s of `work`, which reads all images.
    fn timed(&self, work: impl FnOnce() -> Result<()>) -> Result<f64> {
        let start = Instant::now();
        work()?;
        Ok(self.gigabytes() / start.elapsed().as_secs_f64())
    }
}

/// Sums over several accumulators, so that the CPU adds in parallel.
fn sum(values: &[f32]) -> f32 {
    let mut sums = [0.0f32; 32];
    for values in values.chunks(sums.len()) {
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
    sums.iter().sum()
}

/// `None` for an empty slice.
fn median(mut rates: Vec<f64>) -> Option<f64> {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied()
}

/// Drops a file from the page cache.
fn drop_pages(file: &File) -> Result<()> {
    file.sync_data()?;
    advise(file, 0..0, Advice::DontNeed)
}

/// Advises the system about a part of a file, or all of it if the end is 0.
fn advise(file: &File, bytes: Range<u64>, advice: Advice) -> Result<()> {
    let length = NonZeroU64::new(bytes.end - bytes.start);
    fadvise(file, bytes.start, length, advice).context("posix_fadvise")
}
