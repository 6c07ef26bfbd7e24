//! Round trips of `export`, and training runs that start from its files.

mod common;

use std::path::Path;
use std::sync::LazyLock;

use common::{
    BOX, PIXEL_SIZE, assert_same, bytes, fail, path, phantom, ranks_succeed, steps, succeed, train_arguments,
    undo, whole,
};
use cryosplat_mpi::evaluate::Fsc;
use cryosplat_mpi::gmm::{Gmm, Shape, mixture};
use cryosplat_mpi::imaging::ctf::{EvenPolynomial, Optics};
use cryosplat_mpi::imaging::mrc::read_volume;
use cryosplat_mpi::imaging::pose::rotation_from_relion;
use cryosplat_mpi::particles::Subset;
use cryosplat_mpi::particles::store::{Dtype, Header, Store, Writer};
use cryosplat_mpi::random::{Purpose, stream};
use cryosplat_mpi::render::cpu::CpuDevice;
use cryosplat_mpi::render::{Geometry, Sampling, Symmetry, Weights};
use tempfile::TempDir;

/// Options of the run that the tests of mixtures use.
const USUAL: [&str; 4] = ["--gaussians", "120", "--epochs", "12"];

/// A simulated set and a run on it.
static RUN: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let set = phantom(folder.path(), 80);
    succeed(&train_arguments(&set, &path(folder.path(), "run"), &USUAL));
    folder
});

fn of_run(name: &str) -> String {
    path(&RUN.path().join("run"), name)
}

fn set() -> String {
    path(RUN.path(), "p.h5")
}

fn read(file: &str) -> cryosplat_mpi::imaging::mrc::Volume {
    read_volume(Path::new(file)).unwrap()
}

#[test]
fn an_exported_mixture_has_the_map_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let (map, want) = (path(folder.path(), "map.mrc"), read(&of_run("half1.mrc")));
    let grid = ["--box", "32", "--pixel-size", "4"];
    for (name, options) in [("m.pdb", &[][..]), ("m.cif", &[]), ("m.h5", &[]), ("m.ply", &grid)] {
        let file = path(folder.path(), name);
        succeed(&["export", "gmm", &of_run("gmm_half1.h5"), "-o", &file]);
        succeed(&[&["voxelize", &file, "-o", &map], options].concat());
        let fsc = Fsc::between(&read(&map), &want).unwrap();
        assert!(fsc.shells.iter().all(|&shell| shell > 0.9999), "{name}: {:?}", fsc.shells);
        // Conversions between all formats.
        let again = path(folder.path(), "again.cif");
        succeed(&[&["export", "gmm", &file, "-o", &again], options].concat());
        assert_eq!(mixture::read(Path::new(&again)).unwrap().grid, Some((BOX, PIXEL_SIZE)));
    }
    let (h5, ply) = (path(folder.path(), "m.h5"), path(folder.path(), "m.ply"));
    let original = mixture::read(Path::new(&of_run("gmm_half1.h5"))).unwrap();
    assert_eq!(mixture::read(Path::new(&h5)).unwrap(), original);
    assert_eq!(mixture::read(Path::new(&ply)).unwrap().gmm, original.gmm);
}

/// FSC in shells 1 to 4 between a map and a model, by `fsc`, which has its own reader for atoms.
fn low_shells(map: &str, model: &str, folder: &Path) -> Vec<f64> {
    succeed(&["fsc", map, model, "-o", &path(folder, "fsc")]);
    let text = std::fs::read_to_string(folder.join("fsc.csv")).unwrap();
    let rows = text.lines().skip(2).take(4);
    rows.map(|row| row.split(',').nth(3).unwrap().parse().unwrap()).collect()
}

#[test]
fn pseudo_atoms_match_the_map_for_any_box_size() {
    let folder = tempfile::tempdir().unwrap();
    let wide = path(folder.path(), "wide.mrc");
    succeed(&["voxelize", &of_run("gmm_half1.h5"), "-o", &wide, "--box", "49", "--pixel-size", "3.3"]);
    for name in ["m.pdb", "m.cif"] {
        let model = path(folder.path(), name);
        for (map, options) in [(of_run("half1.mrc"), vec![]), (wide.clone(), vec!["--map", &wide])] {
            let input = of_run("gmm_half1.h5");
            succeed(&[&["export", "gmm", &input, "-o", &model], &options[..]].concat());
            let found = low_shells(&map, &model, folder.path());
            // Points instead of Gaussians of similar width. An offset of two voxels would change the sign of shell 4 of 32.
            assert!(found.len() == 4 && found.iter().all(|&shell| shell > 0.999), "{map} {name}: {found:?}");
        }
    }
}

#[test]
fn optics_survive_the_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let (h5, star, again) =
        (path(folder.path(), "p.h5"), path(folder.path(), "p.star"), path(folder.path(), "again.h5"));
    let store = Store::open(Path::new(&set())).unwrap();
    let particles = whole(&store);
    let even = EvenPolynomial([0.5, -1.0, 2.0, 3.0, 40.0, -5.0, 60.0, 7.0, 8.0]);
    let optics = Optics {
        name: "of the old camera".into(),
        even,
        magnification: [[1.01, 0.002], [-0.003, 0.99]],
        premultiplied: true,
        ..store.header().optics[0].clone()
    };
    let header = Header { optics: vec![optics.clone()], ..store.header().clone() };
    let mut writer = Writer::create(Path::new(&h5), &header, Dtype::F32).unwrap();
    let first = header.halves[0];
    let pixels = header.pixels();
    writer.append(Subset::Half1, &particles.particles[..first], &particles.images[..first * pixels]).unwrap();
    writer.append(Subset::Half2, &particles.particles[first..], &particles.images[first * pixels..]).unwrap();
    writer.finish().unwrap();
    succeed(&["export", "star", &h5, "-o", &star]);
    succeed(&["import", &star, "-o", &again, "--no-normalize"]);
    let found = Store::open(Path::new(&again)).unwrap().header().optics[0].clone();
    for (found, want) in found.even.0.iter().zip(even.0) {
        assert!((found - want).abs() < 1e-9, "{found} {want}");
    }
    assert_eq!(Optics { even, ..found }, Optics { name: "of_the_old_camera".into(), ..optics });
}

#[test]
fn an_exported_set_survives_the_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let (star, again) = (path(folder.path(), "subset.star"), path(folder.path(), "again.h5"));
    succeed(&["export", "star", &set(), "-o", &star]);
    succeed(&["import", &star, "-o", &again, "--no-normalize"]);
    assert_same_particles(&set(), &again);
    // Twice: all particles, and without those that a run has excluded.
    let run = folder.path().join("run");
    std::fs::create_dir(&run).unwrap();
    std::fs::write(run.join("run.json"), r#"{"state":"training"}"#).unwrap();
    std::fs::write(
        run.join("skipped_half1.csv"),
        "particle,stack,image,reason,step\n3,,,checksum,1\n7,\"a,b\",2,pixels,1\n",
    )
    .unwrap();
    std::fs::write(run.join("skipped_half2.csv"), "particle,stack,image,reason,step\n41,,,checksum,1\n")
        .unwrap();
    let run = run.display().to_string();
    let said = succeed(&["export", "star", &set(), "-o", &star, "--run", &run]);
    assert!(said.contains("77 particles (3 excluded)"), "{said}");
    succeed(&["import", &star, "-o", &again, "--no-normalize"]);
    let (before, after) = (Store::open(Path::new(&set())).unwrap(), Store::open(Path::new(&again)).unwrap());
    assert_eq!(after.header().halves, [38, 39]);
    let (before, after) = (whole(&before), whole(&after));
    let kept: Vec<usize> = (0..80).filter(|row| ![2, 6, 40].contains(row)).collect();
    for (new, &old) in kept.iter().enumerate() {
        assert_eq!(image(&after.images, new), image(&before.images, old), "{old}");
    }
}

#[test]
fn what_a_run_has_found_out_goes_to_the_star_file() {
    let folder = tempfile::tempdir().unwrap();
    let (star, again) = (path(folder.path(), "found.star"), path(folder.path(), "again.h5"));
    let run = folder.path().join("run");
    std::fs::create_dir(&run).unwrap();
    std::fs::write(run.join("run.json"), r#"{"state":"training"}"#).unwrap();
    let lines: String =
        (1..=80).map(|row| format!("{row},1,1,0.9,{}.5,0.25,1.{row:03},,\n", 2 * row)).collect();
    std::fs::write(run.join("particles.csv"), format!("head\n{lines}")).unwrap();
    succeed(&["export", "star", &set(), "-o", &star, "--run", &run.display().to_string()]);
    let text = std::fs::read_to_string(&star).unwrap();
    assert!(text.contains("_rlnLogLikeliContribution #") && text.contains("_rlnParticleFigureOfMerit #"));
    let rows: Vec<&str> = text.lines().filter(|line| line.contains('@')).collect();
    assert_eq!(rows.len(), 80);
    assert!(rows[6].trim_end().ends_with(" 14.5 0.25"), "{}", rows[6]);
    // The contrast counts when the set is imported again.
    succeed(&["import", &star, "-o", &again, "--no-normalize"]);
    let [before, after] = [set(), again].map(|file| whole(&Store::open(Path::new(&file)).unwrap()).particles);
    for (row, (before, after)) in before.iter().zip(&after).enumerate() {
        let contrast = 1.0 + 1e-3 * (row + 1) as f64;
        assert!((after.ctf.scale / before.ctf.scale / contrast - 1.0).abs() < 1e-6, "{row}");
    }
    std::fs::write(run.join("particles.csv"), "head\n81,1,1,1,1,1,1,,\n").unwrap();
    let run = run.display().to_string();
    fail(&["export", "star", &set(), "-o", &star, "--run", &run], &["particles.csv", "names particle 81"]);
}

fn image(images: &[f32], row: usize) -> &[f32] {
    &images[row * BOX * BOX..(row + 1) * BOX * BOX]
}

/// Checks for the same images, poses, CTFs and halves, in the same order.
fn assert_same_particles(one: &str, other: &str) {
    let [a, b] = [one, other].map(|file| Store::open(Path::new(file)).unwrap());
    assert_eq!(a.header().halves, b.header().halves);
    assert_eq!((a.header().box_size, a.header().pixel_size), (b.header().box_size, b.header().pixel_size));
    assert_eq!(a.header().optics, b.header().optics);
    let [a, b] = [a, b].map(|store| whole(&store));
    assert!(a.images[..] == b.images[..], "the images differ");
    for (a, b) in a.particles.iter().zip(&b.particles) {
        assert_eq!((a.ctf, a.shift, a.optics_group), (b.ctf, b.shift, b.optics_group));
        let entries = a.rotation.as_flattened().iter().zip(b.rotation.as_flattened());
        // The angles have 15 digits and pass through sines and cosines.
        assert!(entries.clone().all(|(a, b)| (a - b).abs() < 1e-13), "{a:?} {b:?}");
    }
}

#[test]
fn rows_of_the_original_have_the_halves_of_the_set() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    let star = path(&raw, "particles.star");
    let made = path(folder.path(), "made.h5");
    let size = BOX.to_string();
    succeed(&[
        "simulate",
        "--phantom",
        "-o",
        &made,
        "--star",
        &raw.display().to_string(),
        "--box",
        &size,
        "--pixel-size",
        "4",
        "-n",
        "40",
        "--seed",
        "5",
    ]);
    let given = std::fs::read_to_string(&star).unwrap();
    let drawn = given.replace("_rlnRandomSubset", "_rlnSomething");
    for (what, text, columns) in [("given", given, 14), ("drawn", drawn, 15)] {
        std::fs::write(&star, &text).unwrap();
        let (set, again) = (path(folder.path(), "set.h5"), path(folder.path(), "again.h5"));
        succeed(&["import", &star, "-o", &set, "--first", "25", "--seed", "9"]);
        let subset = path(&raw, "subset.star");
        let said = succeed(&["export", "star", &set, "-o", &subset, "--original", &star]);
        assert!(said.contains("25 particles"), "{what}: {said}");
        let kept = std::fs::read_to_string(&subset).unwrap();
        let rows: Vec<&str> = kept.lines().filter(|line| line.contains('@')).collect();
        assert!(
            rows.len() == 25 && rows.iter().all(|row| row.split_whitespace().count() == columns),
            "{kept}"
        );
        // Everything but the half is unchanged.
        assert!(
            rows.iter().zip(text.lines().filter(|line| line.contains('@'))).all(|(a, b)| a[..60] == b[..60])
        );
        succeed(&["import", &subset, "-o", &again, "--seed", "1"]);
        assert_same_particles(&set, &again);
    }
    let cut: Vec<String> =
        std::fs::read_to_string(&star).unwrap().lines().take(40).map(str::to_owned).collect();
    let short = path(&raw, "short.star");
    std::fs::write(&short, cut.join("\n") + "\n").unwrap();
    let output = path(&raw, "no.star");
    let set = path(folder.path(), "set.h5");
    let refused = ["export", "star", &set, "-o", &output, "--original", &short];
    fail(&refused, &["short.star", "lacks", "@particles.mrcs", "imported from"]);
    assert!(!Path::new(&output).exists());
}

#[test]
fn impossible_exports_are_refused_and_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| path(folder.path(), name);
    let gmm = of_run("gmm_half1.h5");
    let refuse = |arguments: &[&str], fragments: &[&str]| {
        fail(&[&["export"], arguments].concat(), &[fragments, &[";"]].concat());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    };
    refuse(&["gmm", &gmm, "-o", &out("m.xyz")], &["m.xyz", ".pdb, .cif, .ply or .h5"]);
    refuse(&["gmm", &of_run("gmm_half1.ply"), "-o", &out("m.cif")], &["neither a box nor a pixel size"]);
    refuse(&["gmm", &gmm, "-o", &out("m.ply"), "--map", &of_run("half1.mrc")], &["--map"]);
    refuse(
        &["gmm", &of_run("fsc.csv"), "-o", &out("m.cif")],
        &["fsc.csv", "is a text file, expected a mixture or pseudo-atoms"],
    );
    refuse(&["gmm", &set(), "-o", &out("m.cif")], &["p.h5", "is a particle file, expected a mixture"]);
    refuse(&["gmm", &gmm, "-o", &out("no/m.cif")], &["no/m.cif", "does not exist"]);
    refuse(&["star", &set(), "-o", &out("p.txt")], &["p.txt", ".star"]);
    refuse(&["star", &set(), "-o", &out("a b.star")], &["a b.star", "without spaces"]);
    refuse(&["star", &gmm, "-o", &out("p.star")], &["gmm_half1.h5"]);
    refuse(
        &["star", &set(), "-o", &out("p.star"), "--original", &set()],
        &["p.h5", "binary data, expected the text of a STAR file"],
    );
    let elsewhere = tempfile::tempdir().unwrap();
    let raw = path(elsewhere.path(), "raw.star");
    std::fs::write(&raw, "data_particles\nloop_\n_rlnImageName\n1@raw.mrcs\n").unwrap();
    refuse(
        &["star", &set(), "-o", &out("p.star"), "--original", &raw],
        &["p.h5", "particle 1", "no record of its raw image"],
    );
    refuse(&["star", &set(), "-o", &out("p.star"), "--run", &out("none")], &["run.json", "read the run"]);
    let other = tempfile::tempdir().unwrap();
    let identity = "0badf00d".repeat(8);
    let document = format!(r#"{{"particles":{{"identity":"{identity}"}}}}"#);
    std::fs::write(other.path().join("run.json"), document).unwrap();
    let other = other.path().display().to_string();
    refuse(&["star", &set(), "-o", &out("p.star"), "--run", &other], &["run.json", "0badf00d"]);
    let before = std::fs::read(&gmm).unwrap();
    fail(&["export", "gmm", &gmm, "-o", &gmm], &["the mixture to read"]);
    assert!(std::fs::read(&gmm).unwrap() == before);
}

/// The loss of the first step of half 1.
fn first_loss(run: &str) -> f64 {
    let first = steps(run).into_iter().find(|line| line["step"] == 1).unwrap();
    first["loss"].as_f64().unwrap()
}

/// Runs a short training and returns its folder.
fn start(folder: &Path, name: &str, set: &str, options: &[&str]) -> String {
    let run = path(folder, name);
    let epochs: &[&str] = if options.contains(&"--epochs") { &[] } else { &["--epochs", "1"] };
    succeed(&train_arguments(set, &run, &[&["--metrics-every", "1"], epochs, options].concat()));
    run
}

#[test]
fn training_starts_from_any_file_of_a_mixture() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let random = first_loss(&start(place, "random", &set(), &["--gaussians", "120"]));
    let h5 = first_loss(&start(place, "h5", &set(), &["--init", &of_run("gmm_half1.h5")]));
    // Noise and signal both have a variance of 1.
    assert!(h5 < random - 0.1, "{h5} {random}");
    let kinds = [("m.ply", 0.0), ("m.cif", 1e-5), ("m.pdb", 1e-2)];
    for (name, tolerance) in kinds {
        let file = path(place, name);
        succeed(&["export", "gmm", &of_run("gmm_half1.h5"), "-o", &file]);
        let loss =
            first_loss(&start(place, name.split('.').next_back().unwrap(), &set(), &["--init", &file]));
        assert!((loss / h5 - 1.0).abs() <= tolerance, "{name}: {loss} {h5}");
    }
    // A wider field of view of the same specimen.
    let wide = path(place, "wide.h5");
    succeed(&[
        "simulate",
        "--map",
        &path(RUN.path(), "p_truth.mrc"),
        "-o",
        &wide,
        "--box",
        "48",
        "--pixel-size",
        "4",
        "-n",
        "80",
        "--snr",
        "1",
        "--seed",
        "3",
    ]);
    let wide_random = first_loss(&start(place, "wide_random", &wide, &["--gaussians", "120"]));
    let wide_start = first_loss(&start(place, "wide_start", &wide, &["--init", &of_run("gmm_half1.h5")]));
    assert!(wide_start < wide_random - 0.1, "{wide_start} {wide_random}");
}

#[test]
fn a_start_from_a_map_does_not_depend_on_ranks_and_identifies_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let truth = path(RUN.path(), "p_truth.mrc");
    let with_map = ["--gaussians", "150", "--init", &truth, "--init-lowpass", "20"];
    let one = start(place, "one", &set(), &[&with_map[..], &["--epochs", "2"]].concat());
    let said = ranks_succeed(2, &{
        let little = ["--epochs", "2", "--metrics-every", "1"];
        train_arguments(&set(), &path(place, "two"), &[&little[..], &with_map].concat())
    });
    assert!(said.contains("both halves start from this map, filtered at 20 A"), "{said}");
    assert_same(&["half1.mrc", "half2.mrc"], &one, &path(place, "two"), "one rank and two");
    let random = start(place, "random", &set(), &["--gaussians", "150"]);
    assert!(first_loss(&one) < first_loss(&random), "{} {}", first_loss(&one), first_loss(&random));
    assert!(bytes(&one, "gmm_half1.ply") != bytes(&one, "gmm_half2.ply"));
    let document: serde_json::Value = serde_json::from_slice(&bytes(&one, "run.json")).unwrap();
    assert_eq!(document["settings"]["init"]["low_pass"], 20.0);
    assert_eq!(document["init"], truth.as_str());
    // Another start is another run; the same start is a finished run.
    let again =
        |options: &[&str]| train_arguments(&set(), &one, &[&["--epochs", "2", "--resume"], options].concat());
    fail(&again(&["--gaussians", "150"]), &["of another run", "init was {", "and is null", "--overwrite"]);
    let other = of_run("map.mrc");
    fail(
        &again(&["--gaussians", "150", "--init", &other, "--init-lowpass", "20"]),
        &["of another run", "init was {"],
    );
    succeed(&again(&with_map));
    // Resumed after a stop before its last checkpoint, it gives the same result.
    let whole = bytes(&one, "gmm_half1.h5");
    std::fs::remove_file(Path::new(&one).join("gmm_half1.h5")).unwrap();
    undo(&one, "half1");
    let said = succeed(&again(&with_map));
    assert!(said.contains("resuming after"), "{said}");
    assert!(bytes(&one, "gmm_half1.h5") == whole);
}

#[test]
fn an_incompatible_start_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let run = path(folder.path(), "run");
    let refuse = |options: &[&str], fragments: &[&str]| {
        let arguments = train_arguments(&set(), &run, &[&["--epochs", "1"], options].concat());
        fail(&arguments, &[fragments, &[";"]].concat());
    };
    let gmm = of_run("gmm_half1.h5");
    refuse(&["--init", &gmm, "--gaussians", "60"], &["holds 120 Gaussians", "--gaussians asks for 60"]);
    refuse(&["--init", &gmm, "--isotropic"], &["anisotropic Gaussians", "--isotropic"]);
    refuse(&["--init", &gmm, "--init-lowpass", "20"], &["is not a map", "--init-lowpass"]);
    refuse(&["--init", "missing.h5"], &["missing.h5", "No such file"]);
    refuse(&["--init", &set()], &["p.h5", "is a particle file, expected a mixture"]);
    refuse(
        &["--init", &of_run("fsc.csv")],
        &["fsc.csv", "is a text file, expected a mixture or pseudo-atoms"],
    );
    refuse(
        &["--init", &of_run("map.mrc"), "--init-lowpass", "100"],
        &["128.0 A", "--init-lowpass 64 or less"],
    );
    // A mixture in a box of 1.3 A, a hundred times too small.
    let tiny = path(folder.path(), "tiny.h5");
    succeed(&["export", "gmm", &of_run("gmm_half1.ply"), "-o", &tiny, "--box", "32", "--pixel-size", "0.04"]);
    refuse(&["--init", &tiny], &["tiny.h5", "1.3 A", "128.0 A"]);
}

#[test]
fn a_mixture_in_a_larger_box_gives_the_same_image() {
    let gmm = mixture::read(Path::new(&of_run("gmm_half1.h5"))).unwrap().gmm;
    let image = |gmm: Gmm, box_size: usize| {
        let geometry = Geometry {
            box_size,
            pixel_size: PIXEL_SIZE,
            cutoff: 4.0,
            sampling: Sampling::Points,
            weights: Weights::UNIFORM,
            symmetry: Symmetry::C1,
        };
        CpuDevice::new(gmm, geometry).render(&rotation_from_relion(20.0, 50.0, 70.0))
    };
    for wide in [48usize, 47] {
        let (small, large) = (image(gmm.clone(), BOX), image(gmm.rescaled(BOX as f64 / wide as f64), wide));
        let peak = small.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let start = wide / 2 - BOX / 2;
        for (at, &value) in small.iter().enumerate() {
            let other = large[(start + at / BOX) * wide + start + at % BOX];
            assert!((value - other).abs() < 1e-3 * peak, "{wide} {at}: {value} {other}");
        }
    }
    let round = Gmm::random(5, Shape::Isotropic, &mut stream(1, Purpose::Start, 1, 0));
    assert_eq!(image(round.clone(), BOX), image(round.anisotropic(), BOX));
}
