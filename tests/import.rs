//! `cryosplat-mpi import` on generated sets, and on real RELION files if the project has them.
//!
//! One file of more than 450 lines: all tests share the generated STAR file and stack.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cryosplat_mpi::imaging::ctf::Optics;
use cryosplat_mpi::imaging::mrc::write_stack;
use cryosplat_mpi::imaging::pose::rotation_from_relion;
use cryosplat_mpi::particles::preprocess::BACKGROUND_RADIUS;
use cryosplat_mpi::particles::store::{Dtype, Source, Store};
use tempfile::TempDir;

const BOX: usize = 32;
const PIXEL_SIZE: f64 = 2.0;

/// Five particles in two stacks, in the format of RELION 3.1.
const STAR: &str = "\
# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnImagePixelSize #6
_rlnImageSize #7
1 one 300 2.7 0.1 2.0 32
2 two 200 2.0 0.07 2.0 32

# version 30001

data_particles

loop_
_rlnImageName #1
_rlnAngleRot #2
_rlnAngleTilt #3
_rlnAnglePsi #4
_rlnOriginXAngst #5
_rlnOriginYAngst #6
_rlnDefocusU #7
_rlnDefocusV #8
_rlnDefocusAngle #9
_rlnOpticsGroup #10
_rlnRandomSubset #11
000001@a.mrcs 10 20 30 0 0 15000 14000 10 1 1
000002@a.mrcs 20 30 40 3.1 -1.7 15100 14100 20 1 2
000003@a.mrcs 30 40 50 -2.5 0.5 15200 14200 30 1 1
000001@deep/b.mrcs 40 50 60 1 1 15300 14300 40 2 2
000002@deep/b.mrcs 50 60 70 -1 4 15400 14400 50 2 1
";
/// The line number of the first particle.
const FIRST: usize = 32;

/// The same particles as one table of RELION 3.0: a detector pixel of 5 um, a magnification of 25000, origins in pixels.
fn version_30() -> String {
    let (_, particles) = STAR.split_once("data_particles").unwrap();
    let mut text = String::from("data_\n");
    for line in particles.lines() {
        let line = line.replace("XAngst", "X").replace("YAngst", "Y");
        if line.starts_with("_rlnOpticsGroup") {
            text += "_rlnDetectorPixelSize\n";
        } else if line.starts_with("_rlnRandomSubset") {
            text += "_rlnRandomSubset\n_rlnVoltage\n_rlnSphericalAberration\n_rlnAmplitudeContrast\n_rlnMagnification\n";
        } else if line.contains('@') {
            let mut cells: Vec<String> = line.split(' ').map(str::to_owned).collect();
            for origin in &mut cells[4..6] {
                *origin = (origin.parse::<f64>().unwrap() / PIXEL_SIZE).to_string();
            }
            let microscope = if cells[9] == "1" { "300 2.7 0.1" } else { "200 2.0 0.07" };
            cells[9] = "5".into();
            text += &format!("{} {microscope} 25000\n", cells.join(" "));
        } else {
            text += &line;
            text.push('\n');
        }
    }
    text
}

/// Deterministic noise about a mean, by `seed`.
fn noise(box_size: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 24) as f32
    };
    (0..box_size * box_size).map(|_| 3.0 + next() + next() - next()).collect()
}

/// A Gaussian at (`x`, `y`) pixels from the origin.
fn blob(box_size: usize, x: f64, y: f64) -> Vec<f32> {
    let centre = (box_size / 2) as f64;
    let at = |i: usize| {
        let (dy, dx) = ((i / box_size) as f64 - centre - y, (i % box_size) as f64 - centre - x);
        (-(dx * dx + dy * dy) / 12.5).exp() as f32
    };
    (0..box_size * box_size).map(at).collect()
}

fn write_images(path: &Path, box_size: usize, images: &[Vec<f32>]) {
    write_stack(path, box_size, PIXEL_SIZE, images.iter().map(Vec::as_slice)).unwrap();
}

/// A particle set in its own folder.
struct Set {
    folder: TempDir,
    text: String,
}

impl Set {
    fn new() -> Self {
        let set = Self { folder: tempfile::tempdir().unwrap(), text: STAR.into() };
        std::fs::create_dir(set.path("deep")).unwrap();
        write_images(&set.path("a.mrcs"), BOX, &[noise(BOX, 1), noise(BOX, 2), noise(BOX, 3)]);
        write_images(&set.path("deep/b.mrcs"), BOX, &[noise(BOX, 4), noise(BOX, 5)]);
        set
    }

    /// The set with a change in the STAR file.
    fn with(from: &str, to: &str) -> Self {
        let mut set = Self::new();
        assert!(set.text.contains(from), "{from}");
        set.text = set.text.replace(from, to);
        set
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn arguments(&self, options: &[&str]) -> Vec<String> {
        std::fs::write(self.path("p.star"), &self.text).unwrap();
        let (star, output) = (self.path("p.star"), self.path("out.h5"));
        let mut arguments =
            vec!["import".into(), star.display().to_string(), "-o".into(), output.display().to_string()];
        arguments.extend(options.iter().map(|o| o.to_string()));
        arguments
    }

    fn import(&self, options: &[&str]) -> Store {
        common::succeed(&self.arguments(options));
        let store = Store::open(&self.path("out.h5")).unwrap();
        store.verify().unwrap();
        store
    }

    /// Checks that the import fails with all of `fragments` and the `;` of the remedy in one line, and leaves the output unchanged.
    fn refuse(&self, options: &[&str], fragments: &[&str]) {
        let arguments = self.arguments(options);
        std::fs::write(self.path("out.h5"), "as it was").unwrap();
        let started = Instant::now();
        common::fail(&arguments, &[fragments, &[";"]].concat());
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        assert_eq!(std::fs::read(self.path("out.h5")).unwrap(), b"as it was");
        let left = std::fs::read_dir(self.folder.path())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("partial"))
            .count();
        assert_eq!(left, 0, "a temporary file is left");
    }
}

fn images(store: &Store) -> Vec<f32> {
    common::whole(store).images.to_vec()
}

/// Compares headers, but for the names of optics groups, which RELION 3.0 does not have, particles and images.
fn assert_same(one: &Store, two: &Store) {
    let [a, b] = [one, two].map(|store| {
        let mut header = store.header().clone();
        header.optics.iter_mut().for_each(|optics| optics.name.clear());
        header
    });
    assert_eq!(a, b);
    let (one, two) = (common::whole(one), common::whole(two));
    assert_eq!(one.particles, two.particles);
    assert_eq!(one.images, two.images);
}

fn line(particle: usize) -> String {
    format!("line {}", FIRST + particle)
}

#[test]
fn a_whole_set_is_imported() {
    let store = Set::new().import(&[]);
    let header = store.header();
    assert_eq!((store.len(), header.box_size, header.pixel_size), (5, BOX, PIXEL_SIZE));
    assert_eq!((header.normalized, header.inverted, store.dtype()), (true, false, Dtype::F32));
    assert_eq!(
        (header.optics[1].voltage, &header.source_files[..]),
        (200.0, &["a.mrcs".into(), "deep/b.mrcs".into()][..])
    );
    // Rows 1, 3 and 5 of the STAR file are in half 1, rows 2 and 4 in half 2.
    assert_eq!(header.halves, [3, 2]);
    let particles = common::whole(&store).particles;
    assert_eq!(particles[4].rotation, rotation_from_relion(40.0, 50.0, 60.0));
    assert!(particles.iter().all(|particle| particle.shift == [0.0; 2]));
    let defoci: Vec<f64> = particles.iter().map(|particle| particle.ctf.defocus_u).collect();
    assert_eq!(defoci, [15000.0, 15200.0, 15400.0, 15100.0, 15300.0]);
    let groups: Vec<u32> = particles.iter().map(|particle| particle.optics_group).collect();
    assert_eq!(groups, [0, 0, 1, 0, 1]);
    let sources: Vec<Option<Source>> = particles.iter().map(|particle| particle.source).collect();
    let expected = [(0, 0), (0, 2), (1, 1), (0, 1), (1, 0)];
    assert_eq!(sources, expected.map(|(file, index)| Some(Source { file, index })));
}

#[test]
fn both_versions_and_any_order_of_tables_give_the_same_file() {
    let set = Set::new();
    let expected = set.import(&[]);
    let (optics, particles) = STAR.split_once("# version 30001\n\ndata_particles").unwrap();
    for text in [version_30(), format!("data_particles{particles}\n\n{optics}"), STAR.replace('\n', "\r\n")] {
        let store = Set { text, ..Set::new() }.import(&[]);
        assert_same(&store, &expected);
    }
}

#[test]
fn particles_are_centred_by_their_origins() {
    for box_size in [32usize, 33] {
        for output in [box_size, 24, 25] {
            let set = Set::with(" 2.0 32\n", &format!(" 2.0 {box_size}\n"));
            // The origins of the STAR file in pixels.
            let t = [[0.0, 0.0], [1.55, -0.85], [-1.25, 0.25], [0.5, 0.5], [-0.5, 2.0]];
            let raw: Vec<_> = t.iter().map(|t| blob(box_size, -t[0], -t[1])).collect();
            write_images(&set.path("a.mrcs"), box_size, &raw[..3]);
            write_images(&set.path("deep/b.mrcs"), box_size, &raw[3..]);
            let store = set.import(&["--no-normalize", "--box", &output.to_string()]);
            let expected = PIXEL_SIZE * box_size as f64 / output as f64;
            assert!((store.header().pixel_size - expected).abs() < 1e-12);
            // Rows 1, 3, 5, 2, 4 of the STAR file, in pixels of the stored box.
            let stored = [0, 2, 4, 1, 3].map(|row| t[row].map(|t| t * output as f64 / box_size as f64));
            let applied = store.reader().applied_shifts(0..5).unwrap().unwrap();
            for (applied, stored) in applied.as_flattened().iter().zip(stored.as_flattened()) {
                assert!((f64::from(*applied) - stored).abs() < 1e-6, "{applied} {stored}");
            }
            for image in images(&store).chunks_exact(output * output) {
                let (mut mass, mut x, mut y) = (0.0, 0.0, 0.0);
                for (i, &v) in image.iter().enumerate() {
                    mass += f64::from(v);
                    x += f64::from(v) * ((i % output) as f64 - (output / 2) as f64);
                    y += f64::from(v) * ((i / output) as f64 - (output / 2) as f64);
                }
                // The error of a Fourier shift of this Gaussian is rounding, and its tail at the edge of the box.
                assert!((x / mass).abs() < 1e-3 && (y / mass).abs() < 1e-3, "{} {}", x / mass, y / mass);
                assert!((image.iter().copied().fold(0.0, f32::max) - 1.0).abs() < 1e-3, "values are kept");
            }
        }
    }
}

#[test]
fn images_without_preprocessing_are_stored_unchanged() {
    let mut set = Set::new();
    set.text = set.text.replace("XAngst", "XOther").replace("YAngst", "YOther");
    let stored = images(&set.import(&["--no-normalize"]));
    assert_eq!(stored[..BOX * BOX], noise(BOX, 1));
    assert_eq!(stored[2 * BOX * BOX..3 * BOX * BOX], noise(BOX, 5));
    assert_eq!(stored[4 * BOX * BOX..], noise(BOX, 4));
    let inverted = images(&set.import(&["--no-normalize", "--invert"]));
    assert!(stored.iter().zip(&inverted).all(|(a, b)| *a == -b));
    let halved = set.import(&["--no-normalize", "--dtype", "f16"]);
    assert_eq!(halved.dtype(), Dtype::F16);
    // Half a unit in the last place of 11 bits.
    assert!(stored.iter().zip(images(&halved)).all(|(a, b)| (a - b).abs() <= a.abs() / 2048.0));
}

#[test]
fn the_background_is_normalised() {
    let set = Set::new();
    for (radius, options) in
        [(BACKGROUND_RADIUS * BOX as f64, vec![]), (14.5, vec!["--background-radius", "14.5"])]
    {
        for image in images(&set.import(&options)).chunks_exact(BOX * BOX) {
            let outside: Vec<f64> = (0..BOX * BOX)
                .filter(|i| ((i / BOX) as f64 - 16.0).hypot((i % BOX) as f64 - 16.0) > radius)
                .map(|i| f64::from(image[i]))
                .collect();
            let mean = outside.iter().sum::<f64>() / outside.len() as f64;
            let variance = outside.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / outside.len() as f64;
            assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-5, "{mean} {variance}");
        }
    }
}

#[test]
fn any_number_of_threads_writes_the_same_images() {
    // Several chunks, with rows that alternate between stacks.
    let mut set = Set::new();
    let (head, _) = STAR.split_once("000001@a.mrcs").unwrap();
    set.text = head.replace(" 2.0 32\n", " 2.0 16\n");
    for i in 0..700 {
        let (stack, image) = (["a.mrcs", "deep/b.mrcs"][i % 2], i / 2 % 5 + 1);
        set.text += &format!("{image}@{stack} {i} 20 30 {} -1 15000 14000 0 1 {}\n", i % 7, i % 2 + 1);
    }
    let raw: Vec<_> = (0..5).map(|i| noise(16, i)).collect();
    write_images(&set.path("a.mrcs"), 16, &raw);
    write_images(&set.path("deep/b.mrcs"), 16, &raw);
    let [one, two] = ["1", "2"].map(|threads| {
        set.import(&["--threads", threads]);
        std::fs::read(set.path("out.h5")).unwrap()
    });
    assert!(one == two, "the files differ");
}

#[test]
fn rows_may_alternate_between_more_stacks_than_stay_open() {
    const STACKS: u64 = 100;
    let mut set = Set::new();
    let (head, _) = STAR.split_once("000001@a.mrcs").unwrap();
    set.text = head.replace("XAngst", "XOther").replace("YAngst", "YOther").replace(" 2.0 32\n", " 2.0 16\n");
    for image in 0..2 {
        for stack in 0..STACKS {
            set.text += &format!("{}@{stack}.mrcs 10 20 30 0 0 15000 14000 0 1 {}\n", image + 1, image + 1);
        }
    }
    for stack in 0..STACKS {
        let raw = [noise(16, stack), noise(16, stack + STACKS)];
        write_images(&set.path(&format!("{stack}.mrcs")), 16, &raw);
    }
    let stored = images(&set.import(&["--no-normalize"]));
    for (i, image) in stored.chunks_exact(16 * 16).enumerate() {
        assert_eq!(image, noise(16, i as u64), "particle {}", i + 1);
    }
}

/// Imports `n` rows that refer to the same five images, on one thread. Returns the peak of resident memory in KiB.
fn peak_of_import(n: usize) -> u64 {
    let mut set = Set::new();
    let (head, _) = STAR.split_once("000001@a.mrcs").unwrap();
    set.text = head.replace(" 2.0 32\n", " 2.0 16\n");
    for i in 0..n {
        let (image, angle) = (i % 5 + 1, i % 1009);
        set.text += &format!("{image}@a.mrcs {angle} 20 30 0 0 15000 14000 0 1 {}\n", image % 2 + 1);
    }
    let raw: Vec<_> = (0..5).map(|i| noise(16, i)).collect();
    write_images(&set.path("a.mrcs"), 16, &raw);
    let arguments = set.arguments(&["--threads", "1"]);
    let mut import =
        Command::new(common::program_file()).args(&arguments).stderr(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", import.id());
    let mut peak = 0;
    // The kernel reports the peak so far; only growth after the last read is missed.
    while import.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(peak);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(import.wait().unwrap().success());
    let store = Store::open(&set.path("out.h5")).unwrap();
    assert_eq!(store.len(), n);
    store.validate().unwrap();
    peak
}

#[test]
fn memory_does_not_grow_with_the_set() {
    let [few, many] = [2_000, 100_000].map(peak_of_import);
    println!("{few} and {many} KiB");
    // Both fill all chunks of the pipeline. 98,000 more particles are 98 KB of halves, and up to 48 bytes each before the images
    // are read; their rows would be 4.9 MB of text, and their metadata 19 MB. The allocator varies by about 1 MB between runs.
    assert!(few > 0 && many < few + 2_000 + 98_000 * 32 / 1024, "{few} and {many} KiB");
}

#[test]
fn stacks_are_found_below_the_data_folder_also_with_first() {
    let set = Set::with("@deep/", "@Extract/job7/");
    set.refuse(&[], &["p.star", &line(3), "Extract/job7/b.mrcs", "--datadir"]);
    let other = set.path("elsewhere");
    std::fs::create_dir(&other).unwrap();
    for (from, to) in [("a.mrcs", "a.mrcs"), ("deep/b.mrcs", "b.mrcs")] {
        std::fs::rename(set.path(from), other.join(to)).unwrap();
    }
    let folder = other.display().to_string();
    assert_eq!(set.import(&["--datadir", &folder]).len(), 5);
    assert_eq!(set.import(&["--datadir", &folder, "--first", "3"]).header().halves, [2, 1]);
    std::fs::remove_file(other.join("b.mrcs")).unwrap();
    set.refuse(&["--datadir", &folder], &["elsewhere/Extract/job7/b.mrcs, ", "elsewhere/b.mrcs"]);
}

#[test]
fn random_halves_depend_on_the_seed() {
    let set = Set::with("_rlnRandomSubset", "_other");
    let particles = common::whole(&set.import(&["--seed", "3"])).particles;
    // The defoci identify the rows of the STAR file.
    let rows: Vec<usize> = particles.iter().map(|p| ((p.ctf.defocus_u - 15000.0) / 100.0) as usize).collect();
    let mut expected = vec![0, 1, 2, 3, 4];
    let halves = cryosplat_mpi::particles::halves::draw(5, 3);
    expected.sort_by_key(|&row| halves[row]);
    assert_eq!(rows, expected);
    set.refuse(&["--first", "1"], &["p.star", "half 2 has none of the 1 particles"]);
}

#[test]
fn aberrations_are_reported() {
    let set = Set::with("_rlnDefocusAngle", "_rlnBeamTiltX");
    set.refuse(&[], &["no CTF", "_rlnDefocusAngle"]);
    let mut set = Set::with("_rlnImageSize", "_rlnBeamTiltY");
    let said = common::succeed(&set.arguments(&[]));
    assert!(!said.contains("WARN") && said.contains("taken back on the images: odd aberrations"), "{said}");
    set.text = STAR.replace("_rlnImageSize", "_rlnBeamTiltY").replace(" 2.0 32\n", " 2.0 0.0\n");
    assert!(!common::succeed(&set.arguments(&[])).contains("aberrations"));
}

#[test]
fn groups_of_other_pixels_and_boxes_are_resampled_to_the_commonest() {
    // The second group: the same field of view of 64 A, in 40 pixels; each of its images is a blob that is off the centre.
    let set = Set::with("0.07 2.0 32", "0.07 1.6 40");
    let blobs = |box_size: usize, pixel_size: f64| {
        let width = (box_size / 2) as f64;
        let at = |i: usize, [x, y]: [f64; 2]| {
            let offset = |i: usize, at: f64| (i as f64 - width) * pixel_size - at;
            let (dy, dx) = (offset(i / box_size, y), offset(i % box_size, x));
            (-(dx * dx + dy * dy) / 72.0).exp() as f32
        };
        // Origins (1, 1) and (-1, 4) A centre them.
        [[-1.0, -1.0], [1.0, -4.0]]
            .map(|place| (0..box_size * box_size).map(|i| at(i, place)).collect::<Vec<f32>>())
    };
    write_stack(&set.path("deep/b.mrcs"), 40, 1.6, blobs(40, 1.6).iter().map(Vec::as_slice)).unwrap();
    let said = common::succeed(&set.arguments(&["--no-normalize"]));
    assert!(
        said.contains("(two)") && said.contains("40 pixels of 1.6 A are resampled to 32 pixels of 2 A"),
        "{said}"
    );
    assert!(!said.contains("WARN"), "{said}");
    let store = Store::open(&set.path("out.h5")).unwrap();
    let header = store.header();
    assert_eq!((header.box_size, header.pixel_size), (32, 2.0));
    // The fifth particle, of the second group: its origin of (-1, 4) A in pixels of the first group.
    assert_eq!(store.reader().applied_shifts(2..3).unwrap().unwrap(), [[-0.5, 2.0]]);
    let whole = common::whole(&store);
    let centred: Vec<f32> = (0..32 * 32)
        .map(|i: usize| {
            let offset = |i: usize| (i as f64 - 16.0) * 2.0;
            (-(offset(i / 32).powi(2) + offset(i % 32).powi(2)) / 72.0).exp() as f32
        })
        .collect();
    for (particle, image) in whole.particles.iter().zip(whole.images.chunks_exact(32 * 32)) {
        if particle.optics_group == 1 {
            let worst = image.iter().zip(&centred).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 2e-3, "{worst}");
        }
    }
    // To the pixels of neither group, then cropped; the first group's pixels are then the coarser ones.
    let said = common::succeed(&set.arguments(&["--pixel-size", "1.6"]));
    assert!(said.contains("WARN") && said.contains("nothing beyond 4.00 A"), "{said}");
    let store = Store::open(&set.path("out.h5")).unwrap();
    let header = store.header();
    assert_eq!((header.box_size, header.pixel_size, header.optics[0].resolution_limit), (40, 1.6, 4.0));
    let small = set.import(&["--pixel-size", "1.6", "--box", "20"]);
    assert_eq!((small.header().box_size, small.header().pixel_size), (20, 3.2));
}

#[test]
fn boxes_that_only_the_stacks_tell_are_resampled() {
    let set = Set { text: version_30(), ..Set::new() };
    write_images(&set.path("deep/b.mrcs"), 40, &[noise(40, 4), noise(40, 5)]);
    let said = common::succeed(&set.arguments(&[]));
    assert!(said.contains("40 pixels of 2 A are resampled to 32 pixels of 2 A"), "{said}");
}

#[test]
fn values_in_other_units_are_reported() {
    let warned = |from: &str, to: &str, fragments: &[&str]| {
        let said = common::succeed(&Set::with(from, to).arguments(&[]));
        let lines: Vec<&str> = said.lines().filter(|line| line.contains("WARN")).collect();
        assert!(lines.len() == 1 && fragments.iter().all(|f| lines[0].contains(f)), "{lines:?}");
    };
    warned("one 300 ", "one 300000 ", &["_rlnVoltage is 300000, expected kV", "in V"]);
    warned("40 3.1 -1.7", "40 3.1 -170", &["_rlnOriginXAngst of 1 particles", "85.0 pixels in a box of 32"]);
    warned("0.07 2.0 32", "0.07 1.9 32", &["header has a pixel size of 2.0000 A", "metadata gives 1.9000 A"]);
    let mut set = Set::new();
    for (angstrom, micrometres) in
        [("15000 14000", "1.5 1.4"), ("15100 14100", "1.51 1.41"), ("15200 14200", "1.5 1.4")]
    {
        set.text = set.text.replace(angstrom, micrometres);
    }
    for (angstrom, micrometres) in [("15300 14300", "1.5 1.4"), ("15400 14400", "1.5 1.4")] {
        set.text = set.text.replace(angstrom, micrometres);
    }
    let said = common::succeed(&set.arguments(&[]));
    assert!(said.contains("_rlnDefocusU is 1.51 at most, expected angstrom"), "{said}");
}

#[test]
fn one_defocus_for_many_micrographs_is_reported() {
    let of = |second: &str| {
        let mut set = Set::new();
        let row = set.text.lines().find(|line| line.contains("000001@a.mrcs")).unwrap().to_owned();
        set.text.truncate(set.text.find(&row).unwrap());
        for stack in 0..5 {
            write_images(&set.path(&format!("c{stack}.mrcs")), BOX, &[noise(BOX, stack)]);
            let row = row.replace("a.mrcs", &format!("c{stack}.mrcs"));
            let row = if stack == 1 { row.replace("15000 14000", second) } else { row };
            set.text += &format!("{}{}\n", row.strip_suffix('1').unwrap(), 1 + stack % 2);
        }
        common::succeed(&set.arguments(&[]))
    };
    let (same, varied) = (of("15000 14000"), of("15000 14001"));
    assert!(same.contains("_rlnDefocusU is 15000 for all 5 particles"), "{same}");
    assert!(!varied.contains("for all 5 particles"), "{varied}");
}

#[test]
fn phase_flips_are_taken_back_on_import() {
    // Images that are flipped in name only: what import makes of them is not what it makes of the plain ones.
    let flipped = Set::with("_rlnImageSize", "_rlnCtfDataArePhaseFlipped");
    let mut set = flipped;
    set.text = set.text.replace(" 2.0 32\n", " 2.0 1\n");
    let said = common::succeed(&set.arguments(&[]));
    assert!(said.contains("taken back on the images: phase flips"), "{said}");
    let changed = images(&Store::open(&set.path("out.h5")).unwrap());
    assert_ne!(changed, images(&Set::new().import(&[])));
}

#[test]
fn invalid_rows_are_refused_by_line() {
    let refuse = |from: &str, to: &str, fragments: &[&str]| Set::with(from, to).refuse(&[], fragments);
    let second = line(1);
    refuse("000002@a", "000004@a", &["p.star", &second, "image 4", "a.mrcs", "has 3 images"]);
    refuse("000002@a", "000000@a", &["p.star", &second, "`000000@a.mrcs`", "from 1"]);
    refuse("20 30 40 3.1", "nan 30 40 3.1", &["p.star", &second, "_rlnAngleRot is `nan`", "finite"]);
    refuse("20 30 40 3.1", "20 inf 40 3.1", &["p.star", &second, "_rlnAngleTilt is `inf`", "finite"]);
    refuse("20 30 40 3.1", "20 30 4O 3.1", &["p.star", &second, "_rlnAnglePsi is `4O`", "a number"]);
    refuse(" 20 1 2\n", " 20 1\n", &["p.star", &second, "has 10 values, expected 11"]);
    refuse(" 20 1 2\n", " 20 5 2\n", &["p.star", &second, "optics group 5", "does not have"]);
    refuse("0.07 2.0 32", "0.07 2.0 30", &["32 x 32 pixels, expected 30 x 30", "_rlnImageSize", "p.star"]);
    refuse(
        " 2.0 32\n",
        " 2.0 64\n",
        &["a.mrcs", "32 x 32 pixels, expected 64 x 64", "_rlnImageSize", "p.star"],
    );
    refuse("_rlnAngleTilt", "_other", &["p.star", "no poses", "_rlnAngleTilt"]);
    refuse("_rlnDefocusU", "_other", &["p.star", "no CTF", "_rlnDefocusU"]);
    refuse("_rlnImageName", "_other", &["p.star", "_rlnImageName"]);
    refuse("_rlnOpticsGroup #10", "_other", &["p.star", "_rlnOpticsGroup"]);
}

#[test]
fn damaged_stacks_are_refused_by_name() {
    let set = Set::new();
    let b = set.path("deep/b.mrcs");
    let sound = std::fs::read(&b).unwrap();
    std::fs::write(&b, &sound[..sound.len() - 5]).unwrap();
    set.refuse(&[], &["b.mrcs", "has 9211 bytes", "states 9216"]);
    let mut promising = sound.clone();
    promising[8..12].copy_from_slice(&2_000_000_000i32.to_le_bytes());
    std::fs::write(&b, &promising).unwrap();
    set.refuse(&[], &["b.mrcs", "has 9216 bytes", "states"]);
    std::fs::write(&b, &sound[..100]).unwrap();
    set.refuse(&[], &["b.mrcs", "has 100 bytes"]);
    write_images(&b, 30, &[noise(30, 1), noise(30, 2)]);
    set.refuse(&[], &["b.mrcs", "30 x 30 pixels, expected 32 x 32"]);
    std::fs::remove_file(&b).unwrap();
    set.refuse(&[], &["p.star", &line(3), "`deep/b.mrcs` was not found", "--datadir"]);
}

#[test]
fn unusable_images_are_refused_by_name() {
    let set = Set::new();
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut bad = noise(BOX, 5);
        bad[3 * BOX + 9] = value;
        write_images(&set.path("deep/b.mrcs"), BOX, &[noise(BOX, 4), bad]);
        let value = value.to_string();
        set.refuse(&[], &["b.mrcs", "image 2", "p.star", &line(4), &value, "row 4, column 10"]);
    }
    write_images(&set.path("deep/b.mrcs"), BOX, &[noise(BOX, 4), vec![7.0; BOX * BOX]]);
    set.refuse(&[], &["b.mrcs", "image 2", &line(4), "zero variance"]);
    assert_eq!(set.import(&["--no-normalize"]).len(), 5);
}

#[test]
fn invalid_options_are_refused() {
    let set = Set::new();
    set.refuse(&["--box", "48"], &["box of 48", "32"]);
    set.refuse(&["--box", "8"], &["box of 8", "16 to 32"]);
    set.refuse(&["--background-radius", "100"], &["radius of 100", "no background"]);
    set.refuse(&["--background-radius", "nan"], &["radius is NaN"]);
}

#[test]
fn files_other_than_particle_star_files_are_refused() {
    let mut set = Set::new();
    let (head, _) = STAR.split_once("000001@a.mrcs").unwrap();
    set.text = head.into();
    set.refuse(&[], &["p.star", "no particles"]);
    set.text = "\u{0}\u{1}\u{2}garbage\u{0}".repeat(100);
    set.refuse(&[], &["p.star", "binary"]);
    set.text = "just a letter\n".into();
    set.refuse(&[], &["p.star", "line 1", "`just a letter`"]);
    set.text = String::new();
    set.refuse(&[], &["p.star", "no data_ block"]);
    let missing = set.path("missing.star").display().to_string();
    common::fail(
        &["import", &missing, "-o", &set.path("out.h5").display().to_string()],
        &["missing.star", "No such file"],
    );
}

#[test]
fn unwritable_outputs_are_refused() {
    let set = Set::new();
    set.arguments(&[]);
    let star = set.path("p.star").display().to_string();
    for output in ["a.mrcs/out.h5", "nowhere/out.h5", "deep"] {
        let output = set.path(output).display().to_string();
        common::fail(&["import", &star, "-o", &output], &[&output, ";"]);
    }
    for input in ["p.star", "a.mrcs"] {
        let before = std::fs::read(set.path(input)).unwrap();
        let output = set.path(input).display().to_string();
        common::fail(&["import", &star, "-o", &output], &[&output, "of this import to read"]);
        assert_eq!(std::fs::read(set.path(input)).unwrap(), before);
    }
}

/// Imports a real STAR file, changed by `edit`, with its stacks.
fn import_real(star: &Path, edit: impl Fn(String) -> String) -> Store {
    let mut set = Set::new();
    set.text = edit(std::fs::read_to_string(star).unwrap());
    set.import(&["--datadir", &star.parent().unwrap().display().to_string()])
}

#[test]
fn real_particles_of_relion_30_and_31() {
    let (Some(old), Some(new)) = (
        common::shared("data/real/sample_particles_relion30.star"),
        common::shared("data/real/sample_particles_relion31.star"),
    ) else {
        return;
    };
    let (old, new) = (import_real(&old, |text| text), import_real(&new, |text| text));
    assert_eq!((old.len(), old.header().box_size, new.len(), new.header().box_size), (17, 200, 17, 200));
    // The version 3.1 file has another pixel size.
    assert!((old.header().pixel_size - 1.338).abs() < 1e-6 && new.header().pixel_size == 1.4);
    assert_eq!((old.header().optics.len(), old.header().optics[1].voltage), (2, 200.0));
    let unnamed = |store: &Store| {
        let optics = store.header().optics.clone();
        optics.into_iter().map(|optics| Optics { name: String::new(), ..optics }).collect::<Vec<_>>()
    };
    assert_eq!((unnamed(&old), old.header().halves), (unnamed(&new), new.header().halves));
    let (old, new) = (common::whole(&old).particles, common::whole(&new).particles);
    let mut others = 0;
    for (old, new) in old.iter().zip(&new) {
        let mut new = *new;
        if new.rotation != old.rotation {
            // Row 15 of the version 3.1 file repeats the angles of row 14.
            others += 1;
            new.rotation = old.rotation;
        }
        assert_eq!(*old, new);
    }
    assert_eq!(others, 1);
}

#[test]
fn real_particles_with_tables_in_either_order() {
    let (Some(one), Some(two)) =
        (common::shared("data/real/relion31.star"), common::shared("data/real/relion31.v2.star"))
    else {
        return;
    };
    // All five particles are in the same half: random halves are drawn.
    let (one, two) = (import_real(&one, |text| text), import_real(&two, |text| text));
    assert_eq!(one.header().halves, [3, 2]);
    assert_eq!((one.len(), one.header().box_size, one.header().pixel_size), (5, 256, 2.806));
    assert_same(&one, &two);
}

#[test]
fn real_particles_without_poses_are_refused() {
    for name in ["empiar_10076_7.star", "toy_projections.star"] {
        let Some(star) = common::shared(&format!("data/real/{name}")) else { return };
        let output = tempfile::tempdir().unwrap().path().join("out.h5");
        common::fail(
            &["import", &star.display().to_string(), "-o", &output.display().to_string()],
            &[name, "no poses", "_rlnAngleRot", "refine"],
        );
    }
}
