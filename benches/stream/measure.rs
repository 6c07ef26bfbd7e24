//! The measurements: raw rates, and those of a rank's particles.

use std::fs::File;
use std::hint::black_box;
use std::ops::{ControlFlow, Range};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Result, ensure};
use cryosplat_mpi::gmm::{Gmm, Shape};
use cryosplat_mpi::particles::store::{Pixels, Reader, Store};
use cryosplat_mpi::particles::stream::READERS;
use cryosplat_mpi::progress::Progress;
use cryosplat_mpi::random::{Purpose, stream};
use cryosplat_mpi::render::cpu::CpuDevice;
use cryosplat_mpi::render::{Geometry, Target};
use cryosplat_mpi::train::order::Order;
use cryosplat_mpi::train::scratch::Copy;
use cryosplat_mpi::train::shard::{Place, Shard};

/// What is measured, and its rates in GB/s, a raw one and one of an epoch for each repeat.
struct Case {
    name: &'static str,
    raw: Vec<f64>,
    rate: Vec<f64>,
}

/// A line of the table.
pub struct Line {
    /// What was read from.
    pub name: &'static str,
    /// The raw rate in GB/s.
    pub raw: f64,
    /// That of an epoch.
    pub rate: f64,
    /// What part of the raw rate that is: the median over the turns, in which both stand side by side.
    pub share: f64,
}

/// All that is measured with.
pub struct Bench {
    store: Store,
    order: Order,
    device: CpuDevice,
    /// A shard in host memory, and as many numbers in one piece.
    host: Shard,
    memory: Pixels,
    folder: PathBuf,
    cases: [Case; 4],
}

impl Bench {
    /// For the particles of `store` in batches of `batch`; copies go to `folder`.
    pub fn new(store: Store, batch: usize, folder: &Path) -> Result<Self> {
        let header = store.header();
        let order = Order::new(store.rows(None), batch, header.pixels() * size_of::<f32>(), 1, 1);
        let geometry = Geometry { box_size: header.box_size, pixel_size: header.pixel_size, cutoff: 3.0 };
        let start = Gmm::random(1, Shape::Isotropic, &mut stream(1, Purpose::Start, 1, 0));
        let mut device = CpuDevice::new(start, geometry);
        let progress = Progress::new("read into memory", store.len() as u64, "images");
        let all = 0..order.slots();
        let host = Shard::load(store.reader(), &order, all, 1, Place::Host, &mut device, progress)?;
        let mut memory = Pixels::default();
        memory.resize(store.len() * header.pixels());
        let case = |name| Case { name, raw: Vec::new(), rate: Vec::new() };
        Ok(Self {
            memory,
            folder: folder.to_path_buf(),
            cases: [
                case("file in the page cache, `--cache none`"),
                case("file dropped, `--cache none`"),
                case("copy in the page cache, `--cache scratch`"),
                case("memory, summed by one thread, `--cache host`"),
            ],
            store,
            order,
            device,
            host,
        })
    }

    /// Images of the file, in GB.
    pub fn gigabytes(&self) -> f64 {
        self.memory.len() as f64 * 4e-9
    }

    /// Images in a block.
    pub fn block(&self) -> usize {
        self.order.block()
    }

    /// Measures everything once.
    pub fn turn(&mut self) -> Result<()> {
        let file = File::open(self.store.path())?;
        self.raw(&file)?;
        let cached = (self.raw(&file)?, self.epoch(self.store.reader(), true)?);
        drop_pages(&file)?;
        let raw = self.raw(&file)?;
        drop_pages(&file)?;
        let dropped = (raw, self.epoch(self.store.reader(), false)?);
        let copy = Copy::make(self.store.path(), &self.folder, false)?;
        let staged = File::open(copy.path())?;
        drop(copy);
        // What is still to be written to the disk would disturb.
        staged.sync_all()?;
        let copied = (self.raw(&staged)?, self.epoch(self.store.reader().on(staged), true)?);
        let memory = (self.memory()?, self.host()?);
        for (case, (raw, rate)) in self.cases.iter_mut().zip([cached, dropped, copied, memory]) {
            case.raw.push(raw);
            case.rate.push(rate);
        }
        Ok(())
    }

    /// The medians.
    pub fn lines(&self) -> Vec<Line> {
        let line = |Case { name, raw, rate }: &Case| {
            let shares: Vec<f64> = rate.iter().zip(raw).map(|(rate, raw)| rate / raw).collect();
            Line { name, raw: median(raw), rate: median(rate), share: median(&shares) }
        };
        self.cases.iter().map(line).collect()
    }

    /// The blocks of an epoch in the stream's order, read by as many threads into memory that is used again, page by page.
    fn raw(&self, file: &File) -> Result<f64> {
        let order = self.order.clone();
        let blocks: Vec<Range<u64>> = order
            .clone()
            .windows(0..order.slots(), (0, 0), 1)
            .flat_map(|window| order.blocks_of(window))
            .map(|rows| self.store.reader().bytes_of(rows))
            .collect();
        let next = Mutex::new(blocks.into_iter());
        self.timed(|| {
            std::thread::scope(|scope| -> Result<()> {
                let read = || -> Result<()> {
                    let mut block = Pixels::default();
                    loop {
                        let Some(Range { start, end }) = next.lock().expect("nobody panics").next() else {
                            return Ok(());
                        };
                        advise(file, start..end, libc::POSIX_FADV_WILLNEED)?;
                        block.resize((end - start) as usize / size_of::<f32>());
                        file.read_exact_at(bytemuck::cast_slice_mut(&mut block), start)?;
                        black_box(&mut block);
                    }
                };
                let threads: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
                threads.into_iter().try_for_each(|thread| thread.join().expect("nobody panics"))
            })
        })
    }

    /// An epoch of the stream, whose images nobody looks at: a second one of three, where so much is read ahead at its end
    /// as at its start, or the first and only one.
    fn epoch(&mut self, reader: Reader, second: bool) -> Result<f64> {
        let all = 0..self.order.slots();
        let epochs = if second { 3 } else { 1 };
        let progress = Progress::silent();
        let mut shard =
            Shard::load(reader, &self.order, all, epochs, Place::File, &mut self.device, progress)?;
        let mut images = 0;
        let mut epoch = |number| {
            shard.each_batch(number, 0, |_, batch| {
                images += batch.observations.len();
                Ok(ControlFlow::Continue(()))
            })
        };
        if second {
            epoch(0)?;
        }
        let rate = self.timed(|| Ok(epoch(usize::from(second))?))?;
        ensure!(images == self.store.len() * if second { 2 } else { 1 }, "{images} images");
        Ok(rate)
    }

    fn memory(&self) -> Result<f64> {
        self.timed(|| {
            black_box(sum(&self.memory));
            Ok(())
        })
    }

    fn host(&mut self) -> Result<f64> {
        let gigabytes = self.gigabytes();
        let begun = Instant::now();
        self.host.each_batch(0, 0, |_, batch| {
            for seen in &batch.observations {
                if let Target::Prepared(image) = seen.target {
                    black_box(sum(image));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(gigabytes / begun.elapsed().as_secs_f64())
    }

    /// GB/s of `work`, which reads all images.
    fn timed(&self, work: impl FnOnce() -> Result<()>) -> Result<f64> {
        let begun = Instant::now();
        work()?;
        Ok(self.gigabytes() / begun.elapsed().as_secs_f64())
    }
}

/// Sums of their own for neighbours, which the processor adds side by side.
fn sum(values: &[f32]) -> f32 {
    let mut sums = [0.0f32; 32];
    for values in values.chunks(sums.len()) {
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
    sums.iter().sum()
}

fn median(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Drops a file from the page cache.
fn drop_pages(file: &File) -> Result<()> {
    file.sync_data()?;
    advise(file, 0..0, libc::POSIX_FADV_DONTNEED)
}

/// Tells the system about a part of a file; all of it where the end is 0.
fn advise(file: &File, bytes: Range<u64>, advice: i32) -> Result<()> {
    let length = bytes.end - bytes.start;
    // SAFETY: the descriptor is open.
    let outcome = unsafe { libc::posix_fadvise(file.as_raw_fd(), bytes.start as i64, length as i64, advice) };
    ensure!(outcome == 0, "posix_fadvise: {}", std::io::Error::from_raw_os_error(outcome));
    Ok(())
}
