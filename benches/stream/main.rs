//! Measures how fast particles are read, compared with what the machine can read: `cargo bench --bench stream`.
//!
//! All rates of a row are measured alternately in one run; the table, benches/results/stream.md, has their medians.

mod measure;

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use cryosplat_mpi::imaging::ctf::{CtfParameters, Optics};
use cryosplat_mpi::loader::prefetch::READER_THREADS;
use cryosplat_mpi::particles::Subset;
use cryosplat_mpi::particles::store::{Dtype, Header, Particle, Store, Writer};

use measure::{Bench, Line, Rates};

/// Box of the particles, in pixels.
const BOX: usize = 128;
/// Images per step.
const BATCH: usize = 8;

/// Measures how fast particles are read.
#[derive(Parser)]
struct Options {
    /// Particles in the file: 64 KiB each
    #[arg(long, default_value = "24000")]
    particles: usize,
    /// Repeats of each measurement
    #[arg(long, default_value = "7")]
    repeats: usize,
    /// Folder for the file and its copy
    #[arg(long, value_name = "DIR", default_value = "target/bench-stream")]
    folder: PathBuf,
    /// File to write the table to
    #[arg(long, value_name = "FILE", default_value = "benches/results/stream.md")]
    table: PathBuf,
    /// Passed by cargo bench
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    std::fs::create_dir_all(&options.folder)?;
    let file = options.folder.join("particles.h5");
    let store = particles(&file, options.particles)?;
    let mut bench = Bench::new(store, BATCH, &options.folder)?;
    for repeat in 0..options.repeats {
        bench.turn()?;
        println!("{} of {} repeats", repeat + 1, options.repeats);
    }
    let table = table(&options, &bench);
    print!("{table}");
    std::fs::write(&options.table, table).with_context(|| options.table.display().to_string())
}

/// The file of `count` particles, written if it does not exist.
fn particles(file: &Path, count: usize) -> Result<Store> {
    if let Ok(store) = Store::open(file)
        && store.len() == count
    {
        return Ok(store);
    }
    let header = Header {
        box_size: BOX,
        pixel_size: 2.0,
        normalized: true,
        inverted: false,
        optics: vec![Optics::new(300.0, 2.7, 0.1)],
        halves: [count, 0],
        source_files: Vec::new(),
        imported_from: None,
    };
    let particle = Particle {
        rotation: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        shift: [0.0; 2],
        ctf: CtfParameters { defocus_u: 15_000.0, defocus_v: 15_000.0, ..CtfParameters::default() },
        optics_group: 0,
        source: None,
    };
    let mut writer = Writer::create(file, &header, Dtype::F32)?;
    for first in (0..count).step_by(64) {
        let some = vec![particle; 64.min(count - first)];
        let images: Vec<f32> =
            (0..some.len() * BOX * BOX).map(|i| ((first + i) as f32 * 0.618).fract()).collect();
        writer.append(Subset::Half1, &some, &images)?;
    }
    writer.finish()?;
    // Data that is not on the disk yet cannot be dropped from the page cache.
    File::open(file)?.sync_all()?;
    Ok(Store::open(file)?)
}

fn table(options: &Options, bench: &Bench) -> String {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let [window, small] = bench.memories();
    let mut text = format!(
        "{} particles of {BOX} px in f32 ({:.1} GB), batch {BATCH}, one rank; {READER_THREADS} threads read blocks of {} images.\n\
         \n\
         Raw rates: `pread` of the same blocks in as many threads, into {small} MiB of memory, which stay in the CPU cache, and \
         into\n{window} MiB, which shuffling needs. The share is relative to the latter. The first epoch verifies the checksum of \
         every image\nand touches its memory for the first time; the later epoch is the second of three and verifies one image in \
         eight.\nMedians of {} interleaved repeats, in GB/s; the share is the median over the repeats. \"Dropped\": the file was \
         removed from\nthe page cache before (fdatasync, then posix_fadvise DONTNEED), so that it comes from the disk or its \
         own caches.\n\n",
        options.particles,
        bench.gigabytes(),
        bench.block(),
        options.repeats,
    );
    let _ = writeln!(
        text,
        "| {}, {cores} cores | Raw, {small} MiB | Raw, {window} MiB | One epoch | Share |",
        processor()
    );
    text.push_str("|---|--:|--:|--:|--:|\n");
    for Line { name, rates: Rates { cached, raw, epoch }, share } in bench.lines() {
        let cached = cached.map_or(String::new(), |rate| format!("{rate:.2}"));
        let share = 100.0 * share;
        let _ = writeln!(text, "| {name} | {cached} | {raw:.2} | {epoch:.2} | {share:.0}% |");
    }
    text.push_str("\nBy `cargo bench --bench stream` (`make bench-stream`).\n");
    text
}

/// Name of the CPU.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
    name.map_or_else(|| "unknown processor".into(), |name| name.trim().to_owned())
}
