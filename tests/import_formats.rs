//! `cryosplat-mpi import` of generated cryoSPARC and cryoDRGN sets, compared with the same particles in a STAR file.
//!
//! One file of more than 450 lines: all tests share the generated set and its writers of .cs, .pkl and .mrcs files.

#[path = "common/arrays.rs"]
mod arrays;
mod common;

use std::path::PathBuf;

use arrays::{Column, array, pickled, table};
use cryosplat_mpi::imaging::ctf::Ctf;
use cryosplat_mpi::imaging::mrc::write_stack;
use cryosplat_mpi::imaging::pose::{Rotation, relion_from_rotation};
use cryosplat_mpi::particles::store::{Particle, Store};
use tempfile::TempDir;

const BOX: usize = 16;
const PIXEL_SIZE: f64 = 2.0;
/// Number of particles: three in a.mrcs, then two in b.mrcs.
const COUNT: usize = 5;

/// Rotation vectors; one is longer than half a turn.
const VECTORS: [[f32; 3]; COUNT] =
    [[0.4, -1.2, 0.3], [2.0, 2.5, -1.0], [-0.1, 0.2, 0.0], [0.0, 0.0, 0.0], [1.0, -0.7, 2.0]];
/// In raw pixels.
const SHIFTS: [[f32; 2]; COUNT] = [[0.0, 0.0], [1.5, -0.75], [-2.25, 0.5], [0.25, 0.25], [-1.0, 2.0]];
const DEFOCUS: [[f32; 2]; COUNT] =
    [[15000.0, 14000.0], [15100.0, 14200.0], [15200.0, 14000.0], [15300.0, 15300.0], [15400.0, 14400.0]];
const ANGLES: [f32; COUNT] = [10.0, -20.0, 30.0, 40.0, 85.0];
const SPLIT: [u32; COUNT] = [0, 1, 0, 1, 0];
const VOLTAGE: [f32; COUNT] = [300.0, 300.0, 300.0, 200.0, 200.0];

/// `W`: the transposed matrix of Rodrigues' formula.
fn rotation(vector: [f32; 3]) -> Rotation {
    let v = vector.map(f64::from);
    let angle = v.iter().map(|c| c * c).sum::<f64>().sqrt();
    let k = v.map(|c| if angle > 0.0 { c / angle } else { 0.0 });
    let cross = [[0.0, -k[2], k[1]], [k[2], 0.0, -k[0]], [-k[1], k[0], 0.0]];
    let matrix = |i: usize, j: usize| {
        let unit = f64::from(u8::from(i == j));
        angle.cos() * unit + angle.sin() * cross[i][j] + (1.0 - angle.cos()) * k[i] * k[j]
    };
    std::array::from_fn(|i| std::array::from_fn(|j| matrix(j, i)))
}

fn noise(seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 24) as f32
    };
    (0..BOX * BOX).map(|_| 3.0 + next() + next() - next()).collect()
}

fn floats<const N: usize>(name: &'static str, values: [[f32; N]; COUNT]) -> Column {
    let shape = if N == 1 { String::new() } else { format!(", ({N},)") };
    let bytes = values.map(|value| value.iter().flat_map(|v| v.to_le_bytes()).collect());
    Column(name, format!("'<f4'{shape}"), bytes.to_vec())
}

fn float(name: &'static str, values: [f32; COUNT]) -> Column {
    floats(name, values.map(|value| [value]))
}

fn whole(name: &'static str, values: [u32; COUNT]) -> Column {
    // Big-endian, which files may be.
    Column(name, "'>u4'".into(), values.map(|value| value.to_be_bytes().to_vec()).to_vec())
}

fn uid() -> Column {
    let uid = |i: u64| (u64::MAX - 1000 * i).to_le_bytes().to_vec();
    Column("uid", "'<u8'".into(), (0..COUNT as u64).map(uid).collect())
}

fn paths(names: [&str; COUNT]) -> Column {
    let filled = names.map(|name| {
        let mut bytes = name.as_bytes().to_vec();
        bytes.resize(24, 0);
        bytes
    });
    Column("blob/path", "'|S24'".into(), filled.to_vec())
}

const STACKS: [&str; COUNT] = [">J1/a.mrcs", ">J1/a.mrcs", "J1/a.mrcs", "J1/b.mrcs", "J1/b.mrcs"];

fn blob() -> Vec<Column> {
    vec![
        uid(),
        paths(STACKS),
        whole("blob/idx", [0, 1, 2, 0, 1]),
        Column(
            "blob/shape",
            "'<u4', (2,)".into(),
            vec![[BOX as u32; 2].map(u32::to_le_bytes).concat(); COUNT],
        ),
        float("blob/psize_A", [PIXEL_SIZE as f32; COUNT]),
        float("blob/sign", [1.0; COUNT]),
    ]
}

fn ctf() -> Vec<Column> {
    vec![
        uid(),
        float("ctf/accel_kv", VOLTAGE),
        float("ctf/cs_mm", [2.7; COUNT]),
        float("ctf/amp_contrast", [0.1; COUNT]),
        float("ctf/df1_A", DEFOCUS.map(|d| d[0])),
        float("ctf/df2_A", DEFOCUS.map(|d| d[1])),
        float("ctf/df_angle_rad", ANGLES.map(f32::to_radians)),
        float("ctf/phase_shift_rad", [0.5; COUNT]),
        floats("ctf/tilt_A", [[0.0; 2]; COUNT]),
        floats("ctf/anisomag", [[0.0; 4]; COUNT]),
    ]
}

fn alignments() -> Vec<Column> {
    vec![
        uid(),
        floats("alignments3D/pose", VECTORS),
        // In pixels of twice the size of those of the images.
        floats("alignments3D/shift", SHIFTS.map(|shift| shift.map(|s| 0.5 * s))),
        float("alignments3D/psize_A", [2.0 * PIXEL_SIZE as f32; COUNT]),
        whole("alignments3D/split", SPLIT),
    ]
}

/// Joins the columns of several tables, with one `uid`.
fn joined(tables: &[Vec<Column>]) -> Vec<Column> {
    let mut all = tables.concat();
    let mut seen = std::collections::HashSet::new();
    all.retain(|column| seen.insert(column.0));
    all
}

fn set_column(columns: &mut [Column], column: Column) {
    let old = columns.iter_mut().find(|old| old.0 == column.0);
    *old.expect("a column of this name") = column;
}

fn rotations(of: &[usize]) -> Vec<u8> {
    let values: Vec<f32> =
        of.iter().flat_map(|&i| rotation(VECTORS[i]).into_iter().flatten().map(|v| v as f32)).collect();
    array(&[of.len() as u32, 3, 3], &values)
}

fn translations(of: &[usize]) -> Vec<u8> {
    let values: Vec<f32> = of.iter().flat_map(|&i| SHIFTS[i].map(|s| s / BOX as f32)).collect();
    array(&[of.len() as u32, 2], &values)
}

fn parameters(of: &[usize]) -> Vec<f32> {
    let row = |&i: &usize| {
        let [u, v] = DEFOCUS[i];
        let phase = 0.5f32.to_degrees();
        [BOX as f32, PIXEL_SIZE as f32, u, v, ANGLES[i], VOLTAGE[i], 2.7, 0.1, phase]
    };
    of.iter().flat_map(row).collect()
}

fn ctf_pickle(of: &[usize]) -> Vec<u8> {
    pickled(&[array(&[of.len() as u32, 9], &parameters(of))])
}

const ALL: [usize; COUNT] = [0, 1, 2, 3, 4];

/// The particles in a project folder: stacks in J1, metadata in J2.
struct Set {
    folder: TempDir,
}

impl Set {
    fn new() -> Self {
        let set = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(set.path("J1")).unwrap();
        std::fs::create_dir(set.path("J2")).unwrap();
        let images: Vec<_> = (0..COUNT as u64).map(noise).collect();
        let write = |name: &str, images: &[Vec<f32>]| {
            write_stack(&set.path(name), BOX, PIXEL_SIZE, images.iter().map(Vec::as_slice)).unwrap();
        };
        write("J1/a.mrcs", &images[..3]);
        write("J1/b.mrcs", &images[3..]);
        write("J2/all.mrcs", &images);
        set
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name).display().to_string()
    }

    /// The options with the pickles of all particles.
    fn pickles(&self) -> [String; 4] {
        let poses = self.write("J2/poses.pkl", pickled(&[rotations(&ALL), translations(&ALL)]));
        let ctf = self.write("J2/ctf.pkl", ctf_pickle(&ALL));
        ["--poses".into(), poses, "--ctf".into(), ctf]
    }

    fn arguments(&self, input: &str, options: &[impl AsRef<str>]) -> Vec<String> {
        let output = self.path("out.h5").display().to_string();
        let mut arguments =
            vec!["import".into(), self.path(input).display().to_string(), "-o".into(), output];
        arguments.extend(options.iter().map(|option| option.as_ref().to_owned()));
        arguments
    }

    fn import(&self, input: &str, options: &[impl AsRef<str>]) -> Store {
        common::succeed(&self.arguments(input, options));
        let store = Store::open(&self.path("out.h5")).unwrap();
        store.verify().unwrap();
        store
    }

    fn refuse(&self, input: &str, options: &[impl AsRef<str>], fragments: &[&str]) {
        common::fail(&self.arguments(input, options), &[fragments, &[";"]].concat());
        assert!(!self.path("out.h5").exists());
    }

    /// The same particles in a STAR file, with or without their halves.
    fn star(&self, halves: bool) -> Store {
        let mut text = String::from(
            "data_optics\nloop_\n_rlnOpticsGroup\n_rlnVoltage\n_rlnSphericalAberration\n_rlnAmplitudeContrast\n\
             _rlnImagePixelSize\n_rlnImageSize\n1 300 2.7 0.1 2 16\n2 200 2.7 0.1 2 16\n\ndata_particles\nloop_\n\
             _rlnImageName\n_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n_rlnOriginXAngst\n_rlnOriginYAngst\n\
             _rlnDefocusU\n_rlnDefocusV\n_rlnDefocusAngle\n_rlnPhaseShift\n_rlnOpticsGroup\n",
        );
        text += if halves { "_rlnRandomSubset\n" } else { "_other\n" };
        for i in 0..COUNT {
            let [rot, tilt, psi] = relion_from_rotation(&rotation(VECTORS[i]));
            let [x, y] = SHIFTS[i].map(|s| f64::from(s) * PIXEL_SIZE);
            let ([u, v], angle, group) = (DEFOCUS[i], ANGLES[i], 1 + i / 3);
            let (number, phase) = ([1, 2, 3, 1, 2][i], 0.5f64.to_degrees());
            let stack = STACKS[i].trim_start_matches('>');
            let half = SPLIT[i] + 1;
            text += &format!(
                "{number}@{stack} {rot} {tilt} {psi} {x} {y} {u} {v} {angle} {phase} {group} {half}\n"
            );
        }
        self.write("reference.star", text);
        self.import("reference.star", &["--seed", "3"])
    }
}

fn images(store: &Store) -> Vec<f32> {
    common::whole(store).images.to_vec()
}

/// Compares headers, particles (up to the rounding of 32-bit numbers), images and, if `sources`, the source images.
fn assert_same(one: &Store, two: &Store, sources: bool) {
    let (a, b) = (one.header(), two.header());
    assert_eq!((a.box_size, a.pixel_size, a.halves), (b.box_size, b.pixel_size, b.halves));
    assert_eq!(a.optics.len(), b.optics.len());
    for (a, b) in a.optics.iter().zip(&b.optics) {
        assert_eq!(a.voltage, b.voltage);
        assert!((a.spherical_aberration - b.spherical_aberration).abs() < 1e-6);
        assert!((a.amplitude_contrast - b.amplitude_contrast).abs() < 1e-7);
    }
    if sources {
        assert_eq!(a.source_files, b.source_files);
    }
    let (a, b) = (common::whole(one), common::whole(two));
    for (a, b) in a.particles.iter().zip(&b.particles) {
        let worst = a.rotation.iter().flatten().zip(b.rotation.iter().flatten());
        assert!(worst.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) < 1e-6, "{a:?} {b:?}");
        assert_eq!((a.ctf.defocus_u, a.ctf.defocus_v), (b.ctf.defocus_u, b.ctf.defocus_v));
        assert!((a.ctf.astigmatism_angle - b.ctf.astigmatism_angle).abs() < 1e-5);
        assert!((a.ctf.phase_shift - b.ctf.phase_shift).abs() < 1e-5);
        assert_eq!(
            (a.ctf.b_factor, a.ctf.scale, a.optics_group),
            (b.ctf.b_factor, b.ctf.scale, b.optics_group)
        );
        if sources {
            assert_eq!(a.source, b.source);
        }
    }
    // Shifts differ by up to 1e-7 pixels, in images of a few standard deviations.
    assert!(a.images.iter().zip(b.images.iter()).all(|(a, b)| (a - b).abs() < 1e-4));
}

#[test]
fn a_cs_file_imports_as_the_star_file() {
    let set = Set::new();
    let expected = set.star(true);
    let columns = joined(&[blob(), ctf(), alignments()]);
    for version in [1, 2, 3] {
        set.write("J2/p.cs", table(version, &columns));
        assert_same(&set.import("J2/p.cs", &[] as &[&str]), &expected, true);
    }
    // From another folder, with --datadir set to the project folder.
    set.write("p.CS", table(1, &columns));
    let project = set.folder.path().display().to_string();
    assert_same(&set.import("p.CS", &["--datadir", &project]), &expected, true);
    let first = set.import("J2/p.cs", &["--first", "3"]);
    assert_eq!((first.len(), first.header().halves, first.header().optics.len()), (3, [2, 1], 1));
}

#[test]
fn passthrough_files_are_found_by_uid() {
    let set = Set::new();
    let expected = set.star(true);
    set.write("J2/p.cs", table(1, &alignments()));
    // In another order, and with an additional particle.
    let mut other = ctf();
    for (name, _, values) in other.iter_mut().map(|Column(name, kind, values)| (*name, kind, values)) {
        values.reverse();
        let one_more = values[0].clone();
        values.push(if name == "uid" { 7u64.to_le_bytes().to_vec() } else { one_more });
    }
    let ctf = set.write("J2/ctf.cs", table(1, &other));
    let blob = set.write("J2/blob.cs", table(1, &blob()));
    let options = ["--passthrough", &blob, "--passthrough", &ctf];
    assert_same(&set.import("J2/p.cs", &options), &expected, true);
    std::fs::remove_file(set.path("out.h5")).unwrap();
    set.refuse("J2/p.cs", &options[..2], &["p.cs", "no CTF", "ctf/accel_kv", "--passthrough"]);
    set.refuse("J2/p.cs", &options[2..], &["p.cs", "no images", "blob/path", "--passthrough"]);
    other.iter_mut().for_each(|Column(_, _, values)| values.truncate(4));
    set.write("J2/ctf.cs", table(1, &other));
    set.refuse("J2/p.cs", &options, &["p.cs: particle 1: the uid 18446744073709551615 is not in", "ctf.cs"]);
    other.retain(|Column(name, _, _)| *name != "uid");
    set.write("J2/ctf.cs", table(1, &other));
    set.refuse("J2/p.cs", &options, &["ctf.cs", "no column uid"]);
    set.refuse("reference.star", &options, &["reference.star", "--passthrough"]);
}

#[test]
fn dark_images_of_a_cs_file_are_inverted() {
    let set = Set::new();
    let mut columns = joined(&[blob(), ctf(), alignments()]);
    set.write("J2/p.cs", table(1, &columns));
    let kept = set.import("J2/p.cs", &["--no-normalize"]);
    let inverted = set.import("J2/p.cs", &["--no-normalize", "--invert"]);
    set_column(&mut columns, float("blob/sign", [-1.0; COUNT]));
    set.write("J2/p.cs", table(1, &columns));
    let dark = set.import("J2/p.cs", &["--no-normalize"]);
    assert!(!kept.header().inverted && inverted.header().inverted && dark.header().inverted);
    let [kept, inverted, dark] = [&kept, &inverted, &dark].map(images);
    assert_eq!(inverted, dark);
    assert!(kept.iter().zip(&dark).all(|(a, b)| *a == -b));
    // With --invert in addition, they are inverted once.
    let both = set.import("J2/p.cs", &["--no-normalize", "--invert"]);
    assert_eq!(images(&both), dark);
}

#[test]
fn the_contrast_of_a_cs_file_is_a_factor_of_the_ctf() {
    let set = Set::new();
    let mut columns = joined(&[blob(), ctf(), alignments()]);
    let contrast = [0.5, 1.0, 1.5, 2.0, 0.75];
    columns.push(float("ctf/scale", [2.0; COUNT]));
    columns.push(float("alignments3D/alpha", contrast));
    set.write("J2/p.cs", table(1, &columns));
    let store = set.import("J2/p.cs", &[] as &[&str]);
    let mut found: Vec<f64> = common::whole(&store).particles.iter().map(|p| p.ctf.scale).collect();
    found.sort_by(f64::total_cmp);
    assert_eq!(found, [1.0, 1.5, 2.0, 3.0, 4.0]);
}

#[test]
fn a_cs_file_without_halves_gets_random_ones() {
    let set = Set::new();
    let expected = set.star(false);
    let mut columns = joined(&[blob(), ctf(), alignments()]);
    set_column(&mut columns, whole("alignments3D/split", [0; COUNT]));
    set.write("J2/p.cs", table(1, &columns));
    assert_same(&set.import("J2/p.cs", &["--seed", "3"]), &expected, true);
    let said = common::succeed(&set.arguments("J2/p.cs", &[] as &[&str]));
    assert!(said.contains("WARN") && said.contains("alignments3D/split"), "{said}");
    columns.retain(|column| column.0 != "alignments3D/split");
    set.write("J2/p.cs", table(1, &columns));
    assert_same(&set.import("J2/p.cs", &["--seed", "3"]), &expected, true);
}

#[test]
fn ignored_aberrations_of_a_cs_file_are_reported() {
    let set = Set::new();
    let mut columns = joined(&[blob(), ctf(), alignments()]);
    set.write("J2/p.cs", table(1, &columns));
    assert!(!common::succeed(&set.arguments("J2/p.cs", &[] as &[&str])).contains("WARN"));
    let mut tilt = [[0.0; 2]; COUNT];
    tilt[3] = [0.0, 0.1];
    columns.push(floats("ctf/trefoil_A", tilt));
    set.write("J2/p.cs", table(1, &columns));
    let said = common::succeed(&set.arguments("J2/p.cs", &[] as &[&str]));
    assert!(
        said.contains("WARN") && said.contains("ctf/trefoil_A") && !said.contains("ctf/tilt_A"),
        "{said}"
    );
    columns.retain(|column| column.0 != "ctf/trefoil_A");
    set_column(&mut columns, floats("ctf/tilt_A", tilt));
    set.write("J2/p.cs", table(1, &columns));
    let said = common::succeed(&set.arguments("J2/p.cs", &[] as &[&str]));
    assert!(
        !said.contains("WARN") && said.contains("optics group 2") && said.contains("odd aberrations"),
        "{said}"
    );
}

#[test]
fn errors_in_a_cs_file_are_named() {
    let set = Set::new();
    let columns = joined(&[blob(), ctf(), alignments()]);
    let refuse = |column: Column, fragments: &[&str]| {
        let mut columns = columns.clone();
        set_column(&mut columns, column);
        set.write("J2/p.cs", table(1, &columns));
        set.refuse("J2/p.cs", &[] as &[&str], &[&["p.cs"], fragments].concat());
    };
    let with = |values: &[f32; COUNT], value: f32| {
        let mut values = *values;
        values[1] = value;
        values
    };
    let mut vectors = VECTORS;
    vectors[1][2] = f32::NAN;
    refuse(floats("alignments3D/pose", vectors), &["particle 2", "alignments3D/pose is NaN", "finite"]);
    refuse(float("ctf/df2_A", with(&[1e4; COUNT], f32::INFINITY)), &["particle 2", "ctf/df2_A is inf"]);
    refuse(float("ctf/accel_kv", with(&VOLTAGE, 0.0)), &["particle 2", "ctf/accel_kv is 0", "above 0"]);
    refuse(float("ctf/amp_contrast", with(&[0.1; COUNT], 7.0)), &["particle 2", "is 7", "0 to 1"]);
    refuse(
        float("blob/psize_A", with(&[2.0; COUNT], -2.5)),
        &["particle 2", "blob/psize_A is -2.5", "above 0"],
    );
    refuse(whole("alignments3D/split", [0, 2, 0, 1, 1]), &["particle 2", "split is 2", "0 or 1"]);
    refuse(whole("blob/idx", [0, 3, 2, 0, 1]), &["particle 2", "image 4", "a.mrcs", "has 3 images"]);
    refuse(float("blob/idx", [0.0; COUNT]), &["particle 1", "blob/idx is 0"]);
    refuse(paths(["a", "", "a", "a", "a"]), &["particle 2", "blob/path"]);
    refuse(
        paths(["J1/a.mrcs", "J1/c.mrcs", "a", "a", "a"]),
        &["particle 2", "`J1/c.mrcs` was not found", "--datadir"],
    );
    let mut shapes = blob()[3].clone();
    shapes.2[1] = [16u32, 18].map(u32::to_le_bytes).concat();
    refuse(shapes.clone(), &["particle 2", "16 x 18"]);
    shapes.2[1] = [18u32, 18].map(u32::to_le_bytes).concat();
    let set_of_18 = &["16 x 16 pixels, expected 18 x 18", "blob/shape"];
    let mut columns = columns.clone();
    set_column(&mut columns, shapes);
    set.write("J2/p.cs", table(1, &columns));
    set.refuse("J2/p.cs", &[] as &[&str], set_of_18);
    refuse(Column("ctf/df1_A", "'|S4'".into(), vec![b"abcd".to_vec(); COUNT]), &["ctf/df1_A", "1 numbers"]);
    // Missing columns.
    set.write("J2/p.cs", table(1, &joined(&[blob(), ctf()])));
    set.refuse("J2/p.cs", &[] as &[&str], &["p.cs", "no poses", "alignments3D/pose", "refine"]);
    let whole = table(1, &columns);
    set.write("J2/p.cs", &whole[..whole.len() - 1]);
    set.refuse("J2/p.cs", &[] as &[&str], &["p.cs", "states 5 records"]);
    set.write("J2/p.cs", b"\x94CSDAT stream");
    set.refuse("J2/p.cs", &[] as &[&str], &["p.cs", "CSDAT", "NUMPY_FORMAT"]);
}

/// The particles sorted by defocus, to compare sets in different order.
fn by_defocus(store: &Store) -> Vec<Particle> {
    let mut particles = common::whole(store).particles;
    particles.sort_by(|a, b| a.ctf.defocus_u.total_cmp(&b.ctf.defocus_u));
    particles
}

#[test]
fn pickles_import_as_the_star_file() {
    let set = Set::new();
    let expected = set.star(false);
    let mut options = set.pickles().to_vec();
    options.extend(["--seed".into(), "3".into()]);
    assert_same(&set.import("J2/all.mrcs", &options), &expected, false);
    set.write("list.txt", "J1/a.mrcs\n\nJ1/b.mrcs\n");
    assert_same(&set.import("list.txt", &options), &expected, true);
    // A STAR file with image names only.
    let names: String =
        (0..COUNT).map(|i| format!("{}@{}\n", [1, 2, 3, 1, 2][i], &STACKS[i].replace('>', ""))).collect();
    set.write("names.star", format!("data_\nloop_\n_rlnImageName\n{names}"));
    assert_same(&set.import("names.star", &options), &expected, true);
    // Without translations, the particles are centred.
    set.write("J2/poses.pkl", pickled(&[rotations(&ALL)]));
    let centred = set.import("J2/all.mrcs", &[&options[..], &["--no-normalize".into()]].concat());
    assert!(images(&centred).chunks(BOX * BOX).any(|image| image == noise(1)));
}

#[test]
fn selected_images_have_poses_per_image_or_per_selected_image() {
    let set = Set::new();
    let options = set.pickles();
    let chosen = [4, 0, 3];
    // A list of integers, and an array of them.
    let list = set.write("ind.pkl", b"\x80\x03](K\x04K\x00K\x03e.");
    let options = [&options[..], &["--ind".into(), list.clone()]].concat();
    let one = set.import("J2/all.mrcs", &options);
    assert_eq!(one.len(), 3);
    set.write("J2/ctf.pkl", ctf_pickle(&chosen));
    let two = set.import("J2/all.mrcs", &options);
    assert_same(&one, &two, true);
    let defoci: Vec<f64> = by_defocus(&one).iter().map(|p| p.ctf.defocus_u).collect();
    assert_eq!(defoci, [15000.0, 15300.0, 15400.0]);
    let mut sources: Vec<u64> = by_defocus(&one).iter().map(|p| p.source.unwrap().index).collect();
    sources.sort_unstable();
    assert_eq!(sources, [0, 3, 4]);
    std::fs::remove_file(set.path("out.h5")).unwrap();
    set.write("ind.pkl", b"\x80\x03](K\x04K\x05e.");
    set.refuse("J2/all.mrcs", &options, &["ind.pkl: index 2: is 5", "0 to 4"]);
    set.write("ind.pkl", b"\x80\x03](K\x04J\xff\xff\xff\xffe.");
    set.refuse("J2/all.mrcs", &options, &["ind.pkl: index 2: is not an index"]);
    set.write("ind.pkl", pickled(&[rotations(&ALL)]));
    set.refuse("J2/all.mrcs", &options, &["ind.pkl", "shape (5, 3, 3)", "integers"]);
}

#[test]
fn images_without_a_ctf_are_imported_unchanged() {
    let set = Set::new();
    let [poses, file, ..] = set.pickles();
    let store = set.import("J2/all.mrcs", &[poses.as_str(), &file, "--no-ctf", "--pixel-size", "3.5"]);
    assert_eq!(store.header().pixel_size, 3.5);
    let header = store.header().clone();
    for particle in common::whole(&store).particles {
        let ctf = Ctf::new(&header.optics[0], &particle.ctf);
        for k in [0.0, 0.1, 0.4] {
            assert!((ctf.at(k, -0.5 * k) - 1.0).abs() < 1e-12);
        }
    }
    let from_header = set.import("J2/all.mrcs", &[poses.as_str(), &file, "--no-ctf"]);
    assert_eq!(from_header.header().pixel_size, PIXEL_SIZE);
    std::fs::remove_file(set.path("out.h5")).unwrap();
    set.refuse("J2/all.mrcs", &[poses.as_str(), &file], &["no CTF", "--ctf", "--no-ctf"]);
    let mut bytes = std::fs::read(set.path("J2/all.mrcs")).unwrap();
    bytes[40..52].fill(0);
    set.write("J2/all.mrcs", bytes);
    let options = [poses.as_str(), &file, "--no-ctf"];
    set.refuse("J2/all.mrcs", &options, &["all.mrcs", "pixel size is 0 A", "--pixel-size"]);
}

#[test]
fn errors_in_pickles_are_named() {
    let set = Set::new();
    let options = set.pickles();
    let sound = std::fs::read(set.path("J2/poses.pkl")).unwrap();
    let poses = |bytes: Vec<u8>, fragments: &[&str]| {
        set.write("J2/poses.pkl", bytes);
        set.refuse("J2/all.mrcs", &options, &[&["poses.pkl"], fragments].concat());
    };
    poses(pickled(&[rotations(&ALL[1..]), translations(&ALL[1..])]), &["has 4 rows, expected 5", "--ind"]);
    poses(
        pickled(&[rotations(&ALL), translations(&ALL[1..])]),
        &["a tuple of 2", "shape (5, 3, 3)", "shape (4, 2)"],
    );
    poses(pickled(&[array(&[COUNT as u32, 9], &[0.0; 9 * COUNT])]), &["shape (5, 9)", "(n, 3, 3)"]);
    poses(pickled(&[array(&[COUNT as u32, 3, 3], &[0.5; 9 * COUNT])]), &["particle 1", "not a rotation"]);
    let mut pixels = [0.0; 2 * COUNT];
    pixels[3] = -7.5;
    let pixels = array(&[COUNT as u32, 2], &pixels);
    poses(pickled(&[rotations(&ALL), pixels]), &["particle 2", "-7.5", "fractions of the box"]);
    poses(b"\x80\x03cos\nsystem\nX\x04\x00\x00\x00true\x85R.".to_vec(), &["byte 13", "`os.system`", "NumPy"]);
    poses(sound[..sound.len() / 2].to_vec(), &["truncated"]);
    poses(Vec::new(), &["truncated"]);
    set.write("J2/poses.pkl", sound);
    let ctf = |column: usize, value: f32, fragments: &[&str]| {
        let mut values = parameters(&ALL);
        values[9 + column] = value;
        set.write("J2/ctf.pkl", pickled(&[array(&[COUNT as u32, 9], &values)]));
        set.refuse("J2/all.mrcs", &options, &[&["ctf.pkl: particle 2"], fragments].concat());
    };
    ctf(0, 18.0, &["the box is 18, but 16 for particle 1"]);
    ctf(1, 2.5, &["the pixel size is 2.5, but 2 for particle 1"]);
    ctf(2, f32::NAN, &["defocus U (column 3) is NaN", "finite"]);
    ctf(5, -300.0, &["the voltage (column 6) is -300", "above 0"]);
    ctf(7, 1.5, &["amplitude contrast (column 8) is 1.5", "0 to 1"]);
    let mut values = parameters(&ALL);
    values.iter_mut().step_by(9).for_each(|size| *size = 32.0);
    set.write("J2/ctf.pkl", pickled(&[array(&[COUNT as u32, 9], &values)]));
    // CTFs of images that were downsampled later: the field of view stays.
    let said = common::succeed(&set.arguments("J2/all.mrcs", &options));
    assert!(
        said.contains("box of 32 pixels of 2.0000 A for images of 16 pixels: their pixel size is 4.0000 A"),
        "{said}"
    );
    std::fs::remove_file(set.path("out.h5")).unwrap();
    set.write("J2/ctf.pkl", pickled(&[rotations(&ALL)]));
    set.refuse("J2/all.mrcs", &options, &["ctf.pkl", "shape (5, 3, 3)", "(n, 9)"]);
    set.write("list.txt", "J1/a.mrcs\nJ1/c.mrcs\n");
    set.refuse("list.txt", &options, &["list.txt: line 2", "`J1/c.mrcs` was not found"]);
}

#[test]
fn files_without_particles_are_refused() {
    let set = Set::new();
    let options = set.pickles();
    let none: &[&str] = &[];
    set.refuse("J2/all.mrcs", none, &["all.mrcs", "no poses", "--poses"]);
    set.refuse("J2/poses.pkl", none, &["poses.pkl", "is a pickle", "--poses"]);
    set.write("list.txt", "J1/a.mrcs\n");
    set.refuse("list.txt", none, &["list.txt", "no poses"]);
    set.write("p.cs", table(1, &joined(&[blob(), ctf(), alignments()])));
    set.refuse("p.cs", &options, &["p.cs", "--poses"]);
    set.write("all.mrcs.gz", [&[0x1f, 0x8b, 8][..], &[0; 2000]].concat());
    set.refuse("all.mrcs.gz", &options, &["all.mrcs.gz", "gzip", "gunzip"]);
    set.write("list.txt", "all.mrcs.gz\n");
    set.refuse("list.txt", &options, &["all.mrcs.gz", "gzip", "gunzip"]);
    set.write("p.h5", b"\x89HDF\r\n\x1a\n");
    set.refuse("p.h5", none, &["p.h5", "HDF5"]);
    // An input is not overwritten.
    let output = set.path("J2/poses.pkl").display().to_string();
    let mut arguments = set.arguments("J2/all.mrcs", &options);
    arguments[3] = output.clone();
    common::fail(&arguments, &[&output, "and an output of this command"]);
}

#[test]
fn a_stack_whose_box_looks_like_a_pickle_is_a_stack() {
    let set = Set::new();
    // 0x80 0x00, the first bytes for a box of 128 pixels, resemble a pickle.
    let image = vec![0.5f32; 128 * 128];
    write_stack(&set.path("big.mrcs"), 128, 1.0, std::iter::once(&image[..])).unwrap();
    set.refuse("big.mrcs", &[] as &[&str], &["big.mrcs", "no poses", "an MRC file"]);
}

/// A RELION 5 refinement, with more tables and columns than the import reads.
const RELION_5: &str = "\
# version 50001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMtfFileName #3
_rlnMicrographOriginalPixelSize #4
_rlnVoltage #5
_rlnSphericalAberration #6
_rlnAmplitudeContrast #7
_rlnImagePixelSize #8
_rlnImageSize #9
_rlnImageDimensionality #10
_rlnCtfDataAreCtfPremultiplied #11
opticsGroup1 1 mtf.star 1.0 300 2.7 0.1 2 16 2 0

# version 50001

data_particles

loop_
_rlnCoordinateX #1
_rlnCoordinateY #2
_rlnImageName #3
_rlnMicrographName #4
_rlnOpticsGroup #5
_rlnGroupNumber #6
_rlnAngleRot #7
_rlnAngleTilt #8
_rlnAnglePsi #9
_rlnOriginXAngst #10
_rlnOriginYAngst #11
_rlnDefocusU #12
_rlnDefocusV #13
_rlnDefocusAngle #14
_rlnCtfBfactor #15
_rlnCtfScalefactor #16
_rlnPhaseShift #17
_rlnNormCorrection #18
_rlnRandomSubset #19
_rlnHelicalTubeID #20
_rlnAngleTiltPrior #21
";

#[test]
fn relion_5_with_many_stacks_is_imported() {
    const STACKS: usize = 200;
    let set = Set::new();
    let mut text = RELION_5.to_owned();
    std::fs::create_dir_all(set.path("project/Extract/job012/movies")).unwrap();
    for i in 0..STACKS {
        let name = format!("Extract/job012/movies/m{i:03}.mrcs");
        let image = noise(i as u64);
        write_stack(&set.path(&format!("project/{name}")), BOX, PIXEL_SIZE, std::iter::once(&image[..]))
            .unwrap();
        let half = 1 + i % 2;
        text += &format!("10 20 1@{name} m.mrc 1 1 {i} 20 30 0 0 15000 14000 1 0 1 0 0.9 {half} 1 90\n");
    }
    set.write("run_data.star", text + "\n");
    let project = set.path("project").display().to_string();
    let store = set.import("run_data.star", &["--datadir", &project, "--no-normalize"]);
    assert_eq!((store.len(), store.header().source_files.len()), (STACKS, STACKS));
    let images = images(&store);
    assert_eq!(images[..BOX * BOX], noise(0));
    assert_eq!(images[BOX * BOX..2 * BOX * BOX], noise(2));
}
