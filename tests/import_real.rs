//! `cryosplat-mpi import` of every real file that the project has.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use cryosplat_mpi::figures::colours::Colours;
use cryosplat_mpi::figures::distributions::ParticleCounts;
use cryosplat_mpi::imaging::mrc;
use cryosplat_mpi::particles::Subset;
use cryosplat_mpi::particles::import::cryosparc;
use cryosplat_mpi::particles::import::half_sets::HalfOrigin;
use cryosplat_mpi::particles::import::pickle::Pickle;
use cryosplat_mpi::particles::import::set::{ParticleRow, ParticleSet, ReadOptions};
use cryosplat_mpi::particles::store::Store;

/// The expected result of an import.
enum Outcome {
    /// Number of particles, box size in pixels and pixel size in angstrom, with these options.
    Particles(usize, usize, f64, &'static [&'static str]),
    /// With these options, an error whose line has all of these fragments.
    Refused(&'static [&'static str], &'static [&'static str]),
    /// An error: the file has no particles, but is a pickle with arrays of these shapes.
    Pickle(&'static [&'static [usize]]),
    /// An error: the file has no particles, but is a map with these numbers of voxels in x, y and z.
    Map([usize; 3]),
}

use Outcome::{Map, Particles as Are, Pickle as Arrays, Refused};

/// In options, `@` stands for the folder of the file.
const TOY: &[&str] = &["--poses", "@toy_rot_trans.pkl", "--ctf", "@test_ctf.pkl"];
const NO_OPTIONS: &[&str] = &[];

const EXPECTED: [(&str, Outcome); 29] = [
    ("sample_particles_relion30.star", Are(17, 200, 1.338, NO_OPTIONS)),
    ("sample_particles_relion31.star", Are(17, 200, 1.4, NO_OPTIONS)),
    ("sample.mrcs", Refused(NO_OPTIONS, &["no poses"])),
    // All five particles are in the same half: halves are drawn.
    ("relion31.star", Are(5, 256, 2.806, NO_OPTIONS)),
    ("relion31.v2.star", Are(5, 256, 2.806, NO_OPTIONS)),
    ("relion31.mrcs", Refused(NO_OPTIONS, &["no poses"])),
    ("empiar_10076_7.mrc", Refused(NO_OPTIONS, &["no poses"])),
    ("empiar_10076_7.star", Refused(NO_OPTIONS, &["no poses", "_rlnAngleRot", "refine"])),
    ("empiar_10076_7.cs", Refused(NO_OPTIONS, &["no poses", "alignments3D/pose", "refine"])),
    // The images of these sets are missing.
    (
        "cryosparc_P12_J24_001_particles.cs",
        Refused(NO_OPTIONS, &["particle 1: the stack `J19/extract/", "was not found", "--datadir"]),
    ),
    (
        "t20s_10025_J209_000_particles.cs",
        Refused(NO_OPTIONS, &["particle 1: the stack `J204/extract/", "was not found", "--datadir"]),
    ),
    ("toy_projections.star", Are(1000, 30, 1.0, TOY)),
    ("toy_projections.star", Refused(NO_OPTIONS, &["no poses"])),
    ("toy_projections.mrcs", Are(1000, 30, 1.0, TOY)),
    (
        "toy_projections.mrcs",
        Refused(
            &["--poses", "@toy_rot_trans.pkl", "--ctf", "@empiar10028_ctf.pkl"],
            &["empiar10028_ctf.pkl", "has 105247 rows, expected 1000"],
        ),
    ),
    (
        "toy_projections.mrcs",
        Refused(&["--poses", "@pose.cs.pkl", "--no-ctf"], &["pose.cs.pkl", "has 2019 rows"]),
    ),
    ("hand.mrcs", Are(100, 64, 1.0, &["--poses", "@hand_rot.pkl", "--no-ctf", "--pixel-size", "1"])),
    ("hand.mrcs", Refused(&["--poses", "@hand_rot.pkl"], &["no CTF", "--no-ctf"])),
    (
        "hand.mrcs",
        Refused(&["--poses", "@test_ctf.pkl", "--no-ctf"], &["test_ctf.pkl", "(1000, 9)", "(n, 3, 3)"]),
    ),
    ("toy_rot_trans.pkl", Arrays(&[&[1000, 3, 3], &[1000, 2]])),
    ("pose.cs.pkl", Arrays(&[&[2019, 3, 3], &[2019, 2]])),
    ("hand_rot.pkl", Arrays(&[&[100, 3, 3]])),
    ("test_ctf.pkl", Arrays(&[&[1000, 9]])),
    ("ctf2.pkl", Arrays(&[&[2019, 9]])),
    ("empiar10028_ctf.pkl", Arrays(&[&[105_247, 9]])),
    ("EMD-3001.map", Map([43, 25, 73])),
    ("EMD-3197.map", Map([20, 20, 20])),
    ("EMD-3001.map", Refused(NO_OPTIONS, &["no poses", "MRC"])),
    ("EMD-3197.map", Refused(NO_OPTIONS, &["no poses", "MRC"])),
];

fn check(file: &Path, outcome: &Outcome) {
    let output = tempfile::tempdir().unwrap();
    let output = output.path().join("out.h5");
    let import = |options: &[&str]| {
        let option = |option: &&str| match option.strip_prefix('@') {
            Some(name) => file.with_file_name(name).display().to_string(),
            None => option.to_string(),
        };
        let mut arguments = vec!["import".into(), file.display().to_string()];
        arguments.extend(["-o".into(), output.display().to_string()]);
        arguments.extend(options.iter().map(option));
        arguments
    };
    match outcome {
        Are(count, box_size, pixel_size, options) => {
            common::succeed(&import(options));
            let store = Store::open(&output).unwrap();
            store.verify().unwrap();
            assert_eq!((store.len(), store.header().box_size), (*count, *box_size));
            // Some files have seven digits.
            assert!((store.header().pixel_size - pixel_size).abs() < 1e-6);
        }
        Refused(options, fragments) => common::fail(&import(options), &[*fragments, &[";"]].concat()),
        Arrays(shapes) => {
            common::fail(&import(NO_OPTIONS), &["is a pickle", "--poses"]);
            let pickle = Pickle::read(file).unwrap();
            let root = [pickle.root()];
            let parts = pickle.items(root[0]).unwrap_or(&root);
            let shape = |&part: &_| pickle.array(part).unwrap().shape().to_vec();
            let found: Vec<Vec<usize>> = parts.iter().map(shape).collect();
            assert_eq!(found, *shapes);
        }
        Map(size) => {
            let (z, y, x) = mrc::read_volume(file).unwrap().data.dim();
            assert_eq!([x, y, z], *size);
        }
    }
}

#[test]
fn every_real_file_is_imported_or_refused_for_its_reason() {
    let Some(folder) = common::shared("data/real") else { return };
    let mut checked: BTreeMap<String, usize> = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        for (_, outcome) in EXPECTED.iter().filter(|(expected, _)| *expected == name) {
            check(&file, outcome);
            *checked.entry(name.clone()).or_default() += 1;
        }
        assert!(checked.contains_key(&name), "nothing is said about {name}");
    }
    assert_eq!(checked.values().sum::<usize>(), EXPECTED.len(), "{checked:?}");
}

/// All rows of a `.cs` file, whose images may be missing.
fn rows(path: &Path) -> Vec<ParticleRow> {
    let wanted = ReadOptions::default();
    cryosparc::read(path, &[], &wanted).unwrap().rows().map(Result::unwrap).collect()
}

#[test]
fn poses_and_ctfs_of_cryosparc_agree_with_cryodrgn() {
    let files = ["cryosparc_P12_J24_001_particles.cs", "pose.cs.pkl", "ctf2.pkl"];
    let [Some(particles), Some(poses), Some(ctf)] =
        files.map(|name| common::shared(&format!("data/real/{name}")))
    else {
        return;
    };
    let wanted = ReadOptions::default();
    let mut set = cryosparc::read(&particles, &[], &wanted).unwrap();
    let (poses, ctf) = (Pickle::read(&poses).unwrap(), Pickle::read(&ctf).unwrap());
    let parts = poses.items(poses.root()).unwrap();
    let [rotations, translations] = [0, 1].map(|k| poses.array(parts[k]).unwrap());
    let ctf = ctf.array(ctf.root()).unwrap();
    let (box_size, pixel_size, optics) = (
        set.properties().raw[0].box_size.unwrap(),
        set.properties().raw[0].pixel_size,
        set.properties().optics.clone(),
    );
    assert_eq!(
        (set.properties().len(), optics.len(), set.properties().half_sets.origin),
        (2019, 1, HalfOrigin::Column("alignments3D/split"))
    );
    for (i, row) in set.rows().map(Result::unwrap).enumerate() {
        for (j, value) in row.particle.rotation.iter().flatten().enumerate() {
            // Both come from the same 32-bit vectors; the pickle was computed in single precision.
            assert!((value - rotations.value(&[i, j / 3, j % 3])).abs() < 1e-6, "{i}");
        }
        for k in 0..2 {
            let expected = translations.value(&[i, k]) * box_size as f64;
            assert!((row.shift[k] - expected).abs() < 1e-5, "{i}");
        }
        let (of, own) = (&optics[row.particle.optics_group as usize], &row.particle.ctf);
        let found = [
            box_size as f64,
            pixel_size,
            own.defocus_u,
            own.defocus_v,
            own.astigmatism_angle,
            of.voltage,
            of.spherical_aberration,
            of.amplitude_contrast,
            own.phase_shift,
        ];
        for (k, value) in found.into_iter().enumerate() {
            // Single precision, and a conversion from radians to degrees.
            let expected = ctf.value(&[i, k]);
            assert!((value - expected).abs() <= 1e-6 * expected.abs(), "{i} {k}: {value} {expected}");
        }
        assert!(row.dark, "the file says so");
    }
}

#[test]
fn metadata_of_cryosparc_is_read_completely() {
    let Some(file) = common::shared("data/real/t20s_10025_J209_000_particles.cs") else { return };
    let rows = rows(&file);
    assert_eq!(rows.len(), 11_764);
    let second = rows.iter().filter(|row| row.half == Subset::Half2).count();
    assert!((5_000..7_000).contains(&second), "{second}");
    assert!(rows.iter().all(|row| row.source.file < 196 && row.shift.iter().all(|s| s.abs() < 64.0)));
}

#[test]
fn viewing_directions_show_the_preference_of_a_proteasome() {
    let Some(file) = common::shared("data/real/t20s_10025_J209_000_particles.cs") else { return };
    let rows = rows(&file);
    let mut counts = ParticleCounts::default();
    rows.iter().for_each(|row| counts.add(&row.particle));
    assert!(counts.preference() > 20.0, "{}", counts.preference());
    // Most viewing directions are close to the x axis of the map; 9% of the sphere is that close.
    let along_x = rows.iter().filter(|row| row.particle.rotation[2][0].abs() > 0.91).count();
    assert!(along_x as f64 > 0.8 * rows.len() as f64, "{along_x} of {}", rows.len());
    let svg = counts.directions_svg(&Colours::light());
    let strongest = svg.split("<rect ").find(|cell| cell.contains("fill-opacity=\"1.000\"")).unwrap();
    let at = |name: &str| -> f64 {
        let (_, rest) = strongest.split_once(&format!("{name}=\"")).unwrap();
        rest.split_once('"').unwrap().0.parse().unwrap()
    };
    let equator = svg.split("<text ").find(|text| text.contains(">0°<") && text.contains("end")).unwrap();
    let equator: f64 = equator.split_once("y=\"").unwrap().1.split_once('"').unwrap().0.parse().unwrap();
    assert!((at("y") - equator).abs() < 20.0, "{strongest}");
}
