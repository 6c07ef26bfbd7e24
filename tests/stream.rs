//! The particles of a rank as the trainer receives them: equal from every cache, in bounded memory, with errors reported.
//!
//! One file, although long: all tests share the recording device and the small set.

mod common;

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::{
    bytes, expect_failure, over_mpi, path, phantom, program, program_file, program_with, succeed, text,
    train_arguments,
};
use cryosplat_mpi::error::Result;
use cryosplat_mpi::imaging::ctf::{Ctf, CtfParameters, Optics};
use cryosplat_mpi::imaging::energy;
use cryosplat_mpi::imaging::pose::Rotation;
use cryosplat_mpi::imaging::pose::rotation_from_relion;
use cryosplat_mpi::loader::sampler::{BLOCKS_PER_WINDOW, Sampler, WINDOWS_PER_SLOT};
use cryosplat_mpi::loader::scratch::ScratchCopy;
use cryosplat_mpi::loader::shard::{Batch, Residency, Shard};
use cryosplat_mpi::particles::Subset;
use cryosplat_mpi::particles::store::{Defect, Dtype, Header, Particle, Store, Writer};
use cryosplat_mpi::progress::Progress;
use cryosplat_mpi::render::{
    Device, DeviceState, Found, ImageFit, ImageSums, Observation, OffsetGrid, Outcome, Reduce, Reference,
    StageTimes, Step, Target,
};

/// Locked by each test: a program started while another test has an HDF5 file open would inherit the lock of that file.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A device whose prepared images are the observed ones plus [`PREPARED`].
#[derive(Default)]
struct RecordingDevice {
    pixels: usize,
    kept: Vec<f32>,
}

impl Device for RecordingDevice {
    fn prepare(&mut self, images: &mut [f32]) -> Result<()> {
        images.iter_mut().for_each(|pixel| *pixel += PREPARED);
        Ok(())
    }

    fn reserve(&mut self, particles: usize) -> Result<bool> {
        self.kept = vec![0.0; particles * self.pixels];
        Ok(true)
    }

    fn store(&mut self, first: usize, images: &mut [f32]) -> Result<()> {
        self.prepare(images)?;
        let at = first * self.pixels;
        self.kept[at..at + images.len()].copy_from_slice(images);
        Ok(())
    }

    fn name(&self) -> String {
        "device".into()
    }
    fn join(&mut self, _: &mut dyn Reduce) -> Result<()> {
        Ok(())
    }
    fn set_noise_weights(&mut self, _: &[Vec<f32>]) -> Result<()> {
        unreachable!("nothing is trained")
    }
    fn set_reference(&mut self, _: &Reference) -> Result<()> {
        unreachable!("only steps are recorded")
    }

    fn fit(&mut self, _: &[Observation]) -> Result<Vec<ImageFit>> {
        unreachable!("only steps are recorded")
    }

    fn search(
        &mut self,
        _: &[Observation],
        _: &[Rotation],
        _: &[f64],
        _: &OffsetGrid,
        _: f64,
    ) -> Result<Vec<Found>> {
        unreachable!("only steps are recorded")
    }

    fn compare(&mut self, _: &[Observation]) -> Result<Vec<ImageSums>> {
        unreachable!("nothing is trained")
    }
    fn step(&mut self, _: &[Observation], _: &Step, _: &mut dyn Reduce) -> Result<()> {
        unreachable!("nothing is trained")
    }
    fn outcomes(&mut self, _: bool, _: &mut dyn Reduce) -> Result<Vec<Outcome>> {
        unreachable!("nothing is trained")
    }
    fn gradient(&mut self, _: &[Observation]) -> Result<(Vec<f32>, f64)> {
        unreachable!("nothing is trained")
    }
    fn memory(&self) -> u64 {
        0
    }
    fn times(&mut self) -> Option<StageTimes> {
        None
    }
    fn checksum(&mut self, _: &mut dyn Reduce) -> Result<u64> {
        unreachable!("nothing is trained")
    }
    fn state(&self) -> Result<DeviceState> {
        unreachable!("nothing is trained")
    }
    fn restore(&mut self, _: DeviceState) -> Result<()> {
        unreachable!("nothing is trained")
    }
}

/// What preparing adds to each pixel.
const PREPARED: f32 = 0.5;

/// A value of the CTF that differs between particles.
fn ctf_value(ctf: &Ctf) -> f32 {
    ctf.at(0.01, 0.02) as f32
}

/// Writes a set with `halves` particles of `size` pixels, all with different images. Returns the images.
fn set(file: &Path, halves: [usize; 2], size: usize, dtype: Dtype) -> Vec<f32> {
    let header = Header {
        box_size: size,
        pixel_size: 2.0,
        normalized: false,
        inverted: false,
        optics: vec![Optics::new(300.0, 2.7, 0.1)],
        halves,
        source_files: Vec::new(),
        imported_from: None,
    };
    let mut writer = Writer::create(file, &header, dtype).unwrap();
    let mut all = Vec::new();
    let mut row = 0;
    for (half, count) in halves.into_iter().enumerate() {
        for _ in 0..count {
            let particle = Particle {
                rotation: rotation_from_relion(row as f64, 30.0, 10.0),
                shift: [0.0; 2],
                ctf: CtfParameters {
                    defocus_u: 1e4 + row as f64,
                    defocus_v: 1e4,
                    ..CtfParameters::default()
                },
                optics_group: 0,
                source: None,
            };
            // Multiples of 1/8, which are exact in 16 bits.
            let image: Vec<f32> =
                (0..size * size).map(|i| ((row * 31 + i * 7) % 1009) as f32 / 8.0 - 63.0).collect();
            writer.append(Subset::HALVES[half], &[particle], &image).unwrap();
            all.extend(image);
            row += 1;
        }
    }
    writer.finish().unwrap();
    all
}

/// Bytes per image for which a block is four images.
const QUARTER: usize = 1 << 20;

/// A small set in many small blocks: 90 particles in half 2, in 6 slots of 15 rows, with 4 rows per block.
struct Small {
    _folder: tempfile::TempDir,
    file: PathBuf,
    images: Vec<f32>,
}

const PIXELS: usize = 64;

impl Small {
    fn new(dtype: Dtype) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.h5");
        let images = set(&file, [10, 90], 8, dtype);
        Self { _folder: folder, file, images }
    }

    fn order(&self) -> Sampler {
        Sampler::new(10..100, 6, QUARTER, 5, Subset::Half2)
    }

    fn shard(&self, residency: Residency) -> (Shard, RecordingDevice) {
        let mut device = RecordingDevice { pixels: PIXELS, ..RecordingDevice::default() };
        let (store, order) = (Store::open(&self.file).unwrap(), self.order());
        // Rank 1 of three.
        let slots = order.slots_of(1, 3);
        if residency == Residency::Device {
            device.reserve(order.shard(slots.clone()).len()).unwrap();
        }
        let reader = store.reader();
        (Shard::load(reader, &order, slots, 3, residency, &mut device, Progress::silent()).unwrap(), device)
    }
}

/// Content of a step: rows, prepared images plus a value of their CTF, energies, and skipped rows.
type StepContent = (Vec<usize>, Vec<Vec<f32>>, Vec<f64>, Vec<(usize, Defect)>);

fn content(batch: &Batch, device: &RecordingDevice) -> StepContent {
    let prepared = |seen: &Observation| match seen.target {
        Target::Observed(image) => image.iter().map(|pixel| pixel + PREPARED).collect(),
        Target::Prepared(image) => image.to_vec(),
        Target::Resident(index) => device.kept[index * PIXELS..(index + 1) * PIXELS].to_vec(),
    };
    let image = |seen: &Observation| {
        let ctf = ctf_value(&seen.view.ctf);
        prepared(seen).into_iter().map(|pixel| pixel + ctf).collect()
    };
    let images = batch.observations.iter().map(image).collect();
    let energies = batch.observations.iter().map(|seen| seen.energy).collect();
    (batch.rows.clone(), images, energies, batch.skipped.clone())
}

fn epoch(shard: &mut Shard, device: &RecordingDevice, epoch: usize, first: usize) -> Vec<StepContent> {
    let mut all = Vec::new();
    shard
        .each_batch(epoch, first, |number, batch| {
            assert_eq!(number, first + all.len());
            all.push(content(batch, device));
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    all
}

const RESIDENCIES: [Residency; 3] = [Residency::Device, Residency::Host, Residency::Streamed];

#[test]
fn every_cache_gives_the_images_of_the_order() {
    let _alone = alone();
    for dtype in [Dtype::F32, Dtype::F16] {
        let small = Small::new(dtype);
        let order = small.order();
        let mut by_residency = RESIDENCIES.map(|residency| {
            let (mut shard, device) = small.shard(residency);
            (0..3).map(|number| epoch(&mut shard, &device, number, 0)).collect::<Vec<_>>()
        });
        let reference = std::mem::take(&mut by_residency[2]);
        for (number, steps) in reference.iter().enumerate() {
            assert_eq!(steps.len(), order.steps());
            for (step, (rows, images, energies, skipped)) in steps.iter().enumerate() {
                assert_eq!(rows, &order.batch(number, step, order.slots_of(1, 3)));
                assert!(skipped.is_empty());
                for ((&row, image), &seen) in rows.iter().zip(images).zip(energies) {
                    let wanted = &small.images[row * PIXELS..(row + 1) * PIXELS];
                    assert!((seen - energy(wanted)).abs() == 0.0);
                    // All pixels have the same offset: that of the image's CTF.
                    let offset = image[0] - wanted[0];
                    assert!(image.iter().zip(wanted).all(|(a, b)| (a - b - offset).abs() < 1e-4));
                }
            }
        }
        assert_eq!(by_residency[0], reference);
        assert_eq!(by_residency[1], reference);
    }
}

#[test]
fn an_epoch_can_start_and_stop_at_any_step() {
    let _alone = alone();
    let small = Small::new(Dtype::F32);
    for residency in RESIDENCIES {
        let (mut shard, device) = small.shard(residency);
        let whole: Vec<_> = (0..3).map(|number| epoch(&mut shard, &device, number, 0)).collect();
        assert_eq!(epoch(&mut shard, &device, 1, 7), whole[1][7..]);
        for stop in [0, 3, 14] {
            let mut seen = Vec::new();
            let step = |number: usize, batch: &Batch| {
                seen.push(content(batch, &device));
                Ok(if number == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            };
            shard.each_batch(2, 0, step).unwrap();
            assert_eq!(seen, whole[2][..=stop]);
            // As after a checkpoint: start at the next step.
            assert_eq!(epoch(&mut shard, &device, 2, stop + 1), whole[2][stop + 1..]);
        }
        // An error of the callback is returned, and the shard can be dropped during an epoch.
        let failing = |_: usize, _: &Batch| {
            Err(cryosplat_mpi::error::Error::request("no more of this", "as the test wants"))
        };
        let message = shard.each_batch(0, 2, failing).unwrap_err().to_string();
        assert!(message.contains("no more of this"), "{message}");
    }
}

#[test]
fn dropping_a_shard_ends_its_readers() {
    let _alone = alone();
    let small = Small::new(Dtype::F32);
    for stop in [0, 1, 5] {
        let (mut shard, _) = small.shard(Residency::Streamed);
        let step = |number: usize, _: &Batch| {
            Ok(if number == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        };
        shard.each_batch(0, 0, step).unwrap();
        drop(shard);
    }
}

#[test]
fn the_next_epoch_is_prefetched() {
    let _alone = alone();
    let small = Small::new(Dtype::F32);
    let (mut shard, device) = small.shard(Residency::Streamed);
    epoch(&mut shard, &device, 0, 0);
    // Each slot is one window: after the first epoch the readers prefetch the second one, and wait.
    let row = PIXELS * 4;
    let mut read = 0;
    while read < 2 * 30 * row as u64 {
        read += shard.traffic().bytes;
        std::thread::sleep(Duration::from_millis(1));
    }
    epoch(&mut shard, &device, 1, 0);
    epoch(&mut shard, &device, 2, 0);
    // Each row is read once per epoch, and no further epoch is read.
    assert_eq!(read + shard.traffic().bytes, 3 * 30 * row as u64);
}

#[test]
fn a_damaged_image_is_skipped_in_its_batch_with_any_cache() {
    let _alone = alone();
    let small = Small::new(Dtype::F32);
    let store = Store::open(&small.file).unwrap();
    let order = small.order();
    let damaged = order.batch(1, 4, order.slots_of(1, 3))[1];
    let at = store.reader().bytes_of(damaged..damaged + 1).start;
    let file = File::options().read(true).write(true).open(&small.file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at + 77).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at + 77).unwrap();
    for residency in RESIDENCIES {
        let (mut shard, device) = small.shard(residency);
        for (step, (rows, images, ..)) in epoch(&mut shard, &device, 0, 0).into_iter().enumerate() {
            let mut wanted = order.batch(0, step, order.slots_of(1, 3));
            wanted.retain(|&row| row != damaged);
            assert_eq!(rows, wanted);
            assert_eq!(images.len(), rows.len());
        }
        let fourth = &epoch(&mut shard, &device, 1, 4)[0];
        assert_eq!(fourth.3, [(damaged, Defect::Checksum)]);
        assert_eq!(fourth.0.len(), 1);
    }
}

#[test]
fn an_image_damaged_during_a_run_is_found_once_in_eight_epochs() {
    let _alone = alone();
    let small = Small::new(Dtype::F32);
    let store = Store::open(&small.file).unwrap();
    let (order, mut device) =
        (small.order(), RecordingDevice { pixels: PIXELS, ..RecordingDevice::default() });
    let (slots, damaged) = (order.slots_of(1, 3), order.shard(order.slots_of(1, 3)).start + 9);
    let progress = Progress::silent();
    let mut shard =
        Shard::load(store.reader(), &order, slots, 30, Residency::Streamed, &mut device, progress).unwrap();
    let mut found = |number| -> Vec<_> {
        epoch(&mut shard, &device, number, 0).into_iter().flat_map(|(.., skipped)| skipped).collect()
    };
    assert!((0..3).all(|number| found(number).is_empty()));
    let at = store.reader().bytes_of(damaged..damaged + 1).start;
    let file = File::options().write(true).open(&small.file).unwrap();
    file.write_all_at(&[0x55; 4], at + 40).unwrap();
    // Two epochs may have been prefetched.
    for number in 3..5 {
        found(number);
    }
    for first in [5, 13, 21] {
        let eight: Vec<_> = (first..first + 8).flat_map(&mut found).collect();
        assert_eq!(eight, [(damaged, Defect::Checksum)]);
    }
}

#[test]
fn a_resumed_run_verifies_all_images_in_its_first_whole_epoch() {
    let _alone = alone();
    let small = Small::new(Dtype::F32);
    let store = Store::open(&small.file).unwrap();
    let order = small.order();
    // One or two per block of four.
    let damaged: Vec<usize> = order.shard(order.slots_of(1, 3)).step_by(3).collect();
    let file = File::options().write(true).open(&small.file).unwrap();
    for &row in &damaged {
        let at = store.reader().bytes_of(row..row + 1).start;
        file.write_all_at(&[0x55; 4], at + 40).unwrap();
    }
    for (first, step) in [(0, 0), (1, 0), (0, 7), (1, 14)] {
        let (mut shard, device) = small.shard(Residency::Streamed);
        let mut found = |number, step| -> Vec<_> {
            let steps = epoch(&mut shard, &device, number, step);
            let mut rows: Vec<_> =
                steps.into_iter().flat_map(|(.., skipped)| skipped).map(|(row, _)| row).collect();
            rows.sort_unstable();
            rows
        };
        let whole = if step > 0 { first + 1 } else { first };
        if step > 0 {
            found(first, step);
        }
        assert_eq!(found(whole, 0), damaged, "from step {step} of epoch {first} on");
    }
}

#[test]
fn a_truncated_file_ends_the_epoch_with_an_error() {
    let _alone = alone();
    let small = Small::new(Dtype::F32);
    let (mut shard, device) = small.shard(Residency::Streamed);
    // Only rows that are not prefetched are affected.
    File::options().write(true).open(&small.file).unwrap().set_len(3000).unwrap();
    let message = shard.each_batch(0, 0, |_, _| Ok(ControlFlow::Continue(()))).unwrap_err().to_string();
    assert!(message.contains("p.h5") && message.contains("truncated"), "{message}");
    drop((shard, device));
}

/// Runs test `name` of this file in a separate process, with `path` in the environment variable `variable`.
fn part(name: &str, variable: &str, path: &Path) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(variable, path)
        .output()
        .unwrap()
}

/// Environment variable with the file for [`streaming`].
const STREAM: &str = "CRYOSPLAT_TEST_STREAM";
/// Box size: 64 images of 64 KiB are a block.
const LARGE: usize = 128;
const SLOTS: usize = 2;

#[test]
fn an_epoch_of_a_large_file_uses_only_the_memory_of_its_windows() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.h5");
    let count = 3200;
    set(&file, [count, 0], LARGE, Dtype::F32);
    let said = text(&part("streaming", STREAM, &file));
    let peak: usize = said
        .lines()
        .find_map(|line| line.split_once("peak in KiB: ")?.1.trim().parse().ok())
        .unwrap_or_else(|| panic!("{said}"));
    let windows = WINDOWS_PER_SLOT * BLOCKS_PER_WINDOW * SLOTS * (4 << 20);
    let (peak, file) = (peak * 1024, count * LARGE * LARGE * 4);
    println!("{} MiB of {} MiB in windows of {} MiB", peak >> 20, file >> 20, windows >> 20);
    // Plus memory of the program, its libraries and threads.
    assert!(peak < windows + (40 << 20), "{peak} bytes");
    assert!(windows + (40 << 20) < file / 3 * 2);
}

#[test]
fn streaming() {
    let Some(file) = std::env::var_os(STREAM) else { return };
    let store = Store::open(Path::new(&file)).unwrap();
    let order = Sampler::new(store.rows(Subset::All), SLOTS, LARGE * LARGE * 4, 1, Subset::Half1);
    let mut device = RecordingDevice { pixels: LARGE * LARGE, ..RecordingDevice::default() };
    let (reader, progress) = (store.reader(), Progress::silent());
    let mut shard =
        Shard::load(reader, &order, 0..SLOTS, 2, Residency::Streamed, &mut device, progress).unwrap();
    let mut images = 0;
    for number in 0..2 {
        shard
            .each_batch(number, 0, |_, batch| {
                images += batch.observations.len();
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
    }
    assert_eq!(images, 2 * store.len());
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println!("peak in KiB: {}", peak.trim().trim_end_matches(" kB"));
}

#[test]
fn a_scratch_copy_is_made_once_per_node_and_removed() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 60);
    let disk = tempfile::tempdir().unwrap();
    let disk_path = disk.path().display().to_string();
    let (plain, copied) = (path(folder.path(), "plain"), path(folder.path(), "copied"));
    let usual = ["--gaussians", "100", "--epochs", "2"];
    let options = |own: &[&'static str]| [&usual, own].concat();
    succeed(&train_arguments(&set, &plain, &options(&["--cache", "none"])));
    let mut arguments = train_arguments(&set, &copied, &options(&["--cache", "scratch"]));
    arguments.extend(["--scratch".into(), disk_path.clone(), "--log-all-ranks".into()]);
    let output = over_mpi(2, &program_file(), &arguments);
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches(&format!("copy to {disk_path}: ")).count(), 1, "{said}");
    assert!(!said.contains("no scratch copy of the particles"), "{said}");
    assert_eq!(std::fs::read_dir(disk.path()).unwrap().count(), 0);
    for half in ["gmm_half1.ply", "gmm_half2.ply"] {
        assert!(bytes(&plain, half) == bytes(&copied, half), "{half}");
    }
    // Without --scratch, the copy goes to the folder for temporary files.
    let arguments = train_arguments(&set, &path(folder.path(), "third"), &options(&["--cache", "scratch"]));
    let environment = [("TMPDIR", &disk_path[..]), ("SLURM_TMPDIR", "")];
    let said = text(&program_with(&arguments, &environment));
    assert!(said.contains(&format!("copy to {disk_path}: ")), "{said}");
    assert_eq!(std::fs::read_dir(disk.path()).unwrap().count(), 0);
}

/// Environment variable with the folder for [`copying`], which contains the file to copy and the destination folder.
const COPY: &str = "CRYOSPLAT_TEST_COPY";

#[test]
fn a_full_disk_leaves_no_partial_copy() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("p.h5"), vec![7; 3 << 20]).unwrap();
    std::fs::create_dir(folder.path().join("disk")).unwrap();
    let said = text(&part("copying", COPY, folder.path()));
    assert!(said.contains("refused: ") && said.contains("--scratch"), "{said}");
    assert_eq!(std::fs::read_dir(folder.path().join("disk")).unwrap().count(), 0);
}

#[test]
fn copying() {
    let Some(folder) = std::env::var_os(COPY).map(PathBuf::from) else { return };
    let limit = libc::rlimit { rlim_cur: 2 << 20, rlim_max: 2 << 20 };
    // SAFETY: no other thread of this process depends on the signal or the limit. A write beyond the limit then fails, like one to
    // a full disk, and does not kill the process.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
    let error = ScratchCopy::create(&folder.join("p.h5"), &folder.join("disk"), false).unwrap_err();
    println!("refused: {error}");
}

#[test]
fn a_run_without_a_scratch_copy_continues_with_a_warning() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 60);
    let run = path(folder.path(), "run");
    let options = ["--gaussians", "50", "--epochs", "1", "--cache", "scratch", "--scratch", &set];
    let arguments = train_arguments(&set, &run, &options);
    let output = over_mpi(2, &program_file(), &arguments);
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("no scratch copy of the particles").count(), 1, "{said}");
    assert!(said.contains("2 ranks stream"), "{said}");
    assert!(Path::new(&run).join("half1.mrc").exists());
    let other = path(folder.path(), "other");
    let arguments = train_arguments(&set, &other, &["--cache", "none", "--scratch", "/tmp"]);
    expect_failure(&program(&arguments), &["--scratch", "--cache scratch"]);
}
