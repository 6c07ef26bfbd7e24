//! Point-group symmetry: operators, simulated assemblies, and voxel maps.

mod common;

use std::path::Path;
use std::process::Command;

use common::{path, succeed};
use cryosplat_mpi::evaluate::Fsc;
use cryosplat_mpi::imaging::Symmetry;
use cryosplat_mpi::imaging::mrc::read_volume;
use cryosplat_mpi::imaging::pose::{Rotation, product, relion_from_rotation, rotation_from_relion};
use cryosplat_mpi::particles::store::Store;
use ndarray::Array3;

/// Five atoms off the axes of all groups, about 5 A from their centre.
const UNIT: &str = "data_five\nloop_\n_atom_site.type_symbol\n_atom_site.Cartn_x\n_atom_site.Cartn_y\n\
    _atom_site.Cartn_z\n_atom_site.occupancy\nP 28 3 12 1\nZN 24 9 15 1\nC 33 -1 11 1\nO 25 3 22 0.5\nS 30 8 9 1\n#\n";

/// A simulated assembly of `group` in a box of 33 pixels of 3 A: set and true map.
fn assembly(folder: &Path, group: &str, more: &[&str]) -> (String, String) {
    let unit = path(folder, "unit.cif");
    std::fs::write(&unit, UNIT).unwrap();
    let set = path(folder, &format!("{group}.h5"));
    let usual = ["simulate", "--model", &unit, "--symmetry", group, "-o", &set];
    let rest = ["--box", "33", "--pixel-size", "3", "--b-factor", "300", "--seed", "5"];
    succeed(&[&usual[..], &rest, more].concat());
    (set, path(folder, &format!("{group}_truth.mrc")))
}

fn map(path: &str) -> Array3<f32> {
    read_volume(Path::new(path)).unwrap().data
}

/// Largest difference between `map` and its copies under the operators of `group` that permute the axes, relative to the
/// largest value; and the number of these operators.
fn asymmetry(map: &Array3<f32>, group: &str) -> (f32, usize) {
    let middle = (map.dim().0 / 2) as isize;
    let largest = map.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let operators = group.parse::<Symmetry>().unwrap().operators();
    let of_grid =
        operators.iter().skip(1).filter(|g| g.iter().flatten().all(|&v| v == 0.0 || v.abs() == 1.0));
    let mut worst = (0.0f32, 0);
    for g in of_grid {
        worst.1 += 1;
        for ((z, y, x), value) in map.indexed_iter() {
            let at = [x, y, z].map(|i| i as isize - middle);
            let to = g.map(|row| (0..3).map(|axis| row[axis] as isize * at[axis]).sum::<isize>() + middle);
            let [x, y, z] = to.map(|i| i as usize);
            worst.0 = worst.0.max((value - map[[z, y, x]]).abs() / largest);
        }
    }
    worst
}

#[test]
fn simulated_assemblies_are_symmetric() {
    let folder = tempfile::tempdir().unwrap();
    for (group, of_grid) in [("C4", 3), ("D2", 3), ("O", 23), ("I1", 11), ("I2", 11)] {
        let (_, truth) = assembly(folder.path(), group, &["-n", "2"]);
        let truth_map = map(&truth);
        let (worst, operators) = asymmetry(&truth_map, group);
        assert_eq!(operators, of_grid, "{group}");
        assert!(worst < 1e-3, "{group}: {worst}");
        // The unit itself has no symmetry, and neither does the map have that of another setting.
        let other = if group == "I1" { "I2" } else { "O" };
        assert!(group == "O" || group.starts_with('I') || asymmetry(&truth_map, other).0 > 0.2, "{group}");
    }
}

/// Operators that do not permute the axes: averaging a symmetric map changes nothing.
#[test]
fn averaging_the_map_of_an_assembly_over_its_group_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    for (group, wrong) in [("D7", "D5"), ("T", "O"), ("I1", "I2"), ("I4", "I3")] {
        let (_, truth) = assembly(folder.path(), group, &["-n", "2"]);
        let averaged = |by: &str| {
            let set = path(folder.path(), &format!("{group}by{by}.h5"));
            let options = ["--map", &truth, "--symmetry", by, "--box", "33", "--pixel-size", "3", "-n", "2"];
            succeed(&[&["simulate", "-o", &set], &options[..]].concat());
            let by =
                read_volume(Path::new(&path(folder.path(), &format!("{group}by{by}_truth.mrc")))).unwrap();
            Fsc::between(&by, &read_volume(Path::new(&truth)).unwrap()).unwrap()
        };
        let (same, other) = (averaged(group), averaged(wrong));
        assert!(same.shells[1..14].iter().all(|&fsc| fsc > 0.999), "{group}: {:?}", same.shells);
        assert!(other.shells[1..15].iter().any(|&fsc| fsc < 0.7), "{group} by {wrong}: {:?}", other.shells);
    }
}

#[test]
fn symmetric_backprojection_uses_each_image_at_all_poses() {
    let folder = tempfile::tempdir().unwrap();
    for (group, wrong) in [("O", "I2"), ("D3", "D5"), ("I2", "I1")] {
        let (set, truth) = assembly(folder.path(), group, &["-n", "60", "--snr", "0.2"]);
        let quality = |by: &str| {
            let run = path(folder.path(), &format!("{group}_{by}"));
            succeed(&["backproject", &set, "-o", &run, "--symmetry", by, "--truth", &truth]);
            let json: serde_json::Value = serde_json::from_slice(&common::bytes(&run, "run.json")).unwrap();
            assert_eq!(json["settings"]["symmetry"], by);
            (
                json["fsc"]["map against truth"]["mean"].as_f64().unwrap(),
                map(&path(Path::new(&run), "map.mrc")),
            )
        };
        let ((without, _), (with, symmetric), (spoilt, _)) = (quality("C1"), quality(group), quality(wrong));
        assert!(with > without + 0.1 && with > spoilt + 0.2, "{group}: {without} {with} {spoilt}");
        // Sums of the equivalent points have equal bits; the inverse transform rounds.
        assert!(asymmetry(&symmetric, group).0 < 1e-5, "{group}: {:?}", asymmetry(&symmetric, group));
    }
}

/// What `backproject` reports about symmetry.
fn report(folder: &Path, set: &str, group: &str) -> String {
    let said =
        succeed(&["backproject", set, "-o", &path(folder, "report"), "--overwrite", "--symmetry", group]);
    said.lines().filter(|line| line.contains("the symmetry ")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_group_of_the_particles_is_named_and_another_one_questioned() {
    let folder = tempfile::tempdir().unwrap();
    for (group, wrong) in [("O", "I2"), ("D3", "D6"), ("I1", "I2"), ("C5", "D5"), ("T", "O")] {
        let (set, _) = assembly(folder.path(), group, &["-n", "400", "--snr", "0.3"]);
        let found = report(folder.path(), &set, "C1");
        assert!(found.contains(&format!("have the symmetry {group} ")), "{group}: {found}");
        assert!(!found.contains("do not have"), "{group}: {found}");
        assert_eq!(report(folder.path(), &set, group), "");
        let found = report(folder.path(), &set, wrong);
        assert!(found.contains(&format!("do not have the symmetry {wrong}:")), "{group} as {wrong}: {found}");
    }
}

/// Refinement with symmetry leaves the poses in one asymmetric unit, where they cover a part of Fourier space.
#[test]
fn poses_of_one_asymmetric_unit_are_not_questioned() {
    let folder = tempfile::tempdir().unwrap();
    for group in ["O", "I1", "D3"] {
        let (set, _) = assembly(folder.path(), group, &["-n", "400", "--snr", "0.3"]);
        let operators = group.parse::<Symmetry>().unwrap().operators();
        common::edit::<f64>(&set, "pose/rotation", |all| {
            for w in all.chunks_exact_mut(9) {
                let rotation: Rotation = std::array::from_fn(|i| std::array::from_fn(|j| w[3 * i + j]));
                let towards = |g: &&Rotation| {
                    let view = product(&rotation, g)[2];
                    0.2 * view[0] + 0.3 * view[1] + 0.93 * view[2]
                };
                let best = operators.iter().max_by(|a, b| towards(a).total_cmp(&towards(b))).unwrap();
                w.copy_from_slice(product(&rotation, best).as_flattened());
            }
        });
        assert_eq!(report(folder.path(), &set, group), "", "{group}");
    }
}

/// An asymmetric specimen, pure noise, and four units about an axis of which every second one is another molecule.
#[test]
fn no_symmetry_is_named_where_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(report(folder.path(), &common::phantom(folder.path(), 400), "C1"), "");
    let (noise, _) = assembly(folder.path(), "D2", &["-n", "400", "--snr", "1e-6"]);
    assert_eq!(report(folder.path(), &noise, "C1"), "");
    assert_eq!(report(folder.path(), &noise, "O"), "", "noise questions no group");
    let pair = path(folder.path(), "pair.cif");
    // The second molecule is at 90 degrees from the first one, with half its atoms in other places.
    let second = "P -3 28 12 1\nZN -9 24 15 1\nC -4 36 5 1\nO -9 30 14 1\nS -8 22 21 1\n#\n";
    std::fs::write(&pair, UNIT.replace("#\n", second)).unwrap();
    let set = path(folder.path(), "pair.h5");
    let usual = ["simulate", "--model", &pair, "--symmetry", "C2", "-o", &set, "--b-factor", "300"];
    succeed(&[&usual[..], &["--box", "33", "--pixel-size", "3", "-n", "400", "--snr", "0.3"]].concat());
    let found = report(folder.path(), &set, "C1");
    assert!(found.contains("have the symmetry C2 "), "{found}");
}

/// Whether the rows of every image are in one half.
fn copies_share_a_half(set: &str) -> bool {
    let store = Store::open(Path::new(set)).unwrap();
    let first = store.header().halves[0];
    let mut half_of = std::collections::HashMap::new();
    let particles = common::whole(&store).particles;
    particles.iter().enumerate().all(|(row, particle)| {
        let source = particle.source.expect("imported particles have a source");
        *half_of.entry((source.file, source.index)).or_insert(row < first) == (row < first)
    })
}

/// RELION's expansion: each row once per operator.
#[test]
fn expanded_particles_stay_in_one_half_and_make_the_symmetric_map() {
    let folder = tempfile::tempdir().unwrap();
    let star = path(folder.path(), "star");
    assembly(folder.path(), "D3", &["-n", "60", "--snr", "0.3", "--star", &star]);
    let text = std::fs::read_to_string(Path::new(&star).join("particles.star")).unwrap();
    let operators = Symmetry::D(3).operators();
    let expanded: String = text
        .lines()
        .flat_map(|line| {
            let mut fields: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            if !line.contains("@particles.mrcs") {
                return vec![format!("{line}\n")];
            }
            let [rot, tilt, psi] = [2, 3, 4].map(|column| fields[column].parse().unwrap());
            let w = rotation_from_relion(rot, tilt, psi);
            let mut row = |g| {
                for (column, angle) in (2..).zip(relion_from_rotation(&product(&w, g))) {
                    fields[column] = format!("{angle:.8}");
                }
                format!("{}\n", fields.join(" "))
            };
            operators.iter().map(&mut row).collect()
        })
        .collect();
    std::fs::write(Path::new(&star).join("expanded.star"), expanded).unwrap();
    let map_of = |name: &str, group: &str| {
        let set = path(folder.path(), &format!("{name}.h5"));
        succeed(&["import", &path(Path::new(&star), &format!("{name}.star")), "-o", &set]);
        let run = path(folder.path(), name);
        succeed(&["backproject", &set, "-o", &run, "--symmetry", group]);
        (set, map(&path(Path::new(&run), "map.mrc")))
    };
    let ((_, symmetric), (set, expanded)) = (map_of("particles", "D3"), map_of("expanded", "C1"));
    assert!(copies_share_a_half(&set));
    let largest = symmetric.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let apart = symmetric.iter().zip(&expanded).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(apart < 1e-4 * largest, "{apart} of {largest}");
    if let Some(star) = common::shared("data/reports/04-duplicates/symexp.star") {
        let set = path(folder.path(), "report.h5");
        succeed(&["import", star.to_str().unwrap(), "-o", &set]);
        assert!(copies_share_a_half(&set));
    }
}

#[test]
fn wrong_groups_and_overlapping_units_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let set = path(folder.path(), "p.h5");
    let refuse = |arguments: &[&str], fragments: &[&str]| {
        let output = common::program(arguments);
        assert_eq!(output.status.code(), Some(2));
        let said = common::text(&output);
        assert!(fragments.iter().all(|fragment| said.contains(fragment)), "{said}");
    };
    refuse(&["backproject", &set, "-o", "run", "--symmetry", "Oh"], &["mirror planes", "use C1 to C99"]);
    refuse(&["simulate", "--phantom", "-o", &set, "--sym", "X"], &["not a point group of rotations"]);
    let model = ["simulate", "--model", "unit.cif", "-o", &set, "--sym", "C2", "--unit-at", "1,2"];
    refuse(&model, &["three numbers"]);
    let unit = path(folder.path(), "unit.cif");
    std::fs::write(&unit, UNIT).unwrap();
    let said = succeed(&[
        "simulate",
        "--model",
        &unit,
        "--symmetry",
        "D2",
        "--unit-at",
        "1,0,0",
        "-o",
        &set,
        "--box",
        "33",
        "-n",
        "2",
    ]);
    assert!(said.contains("the copies of the unit overlap"), "{said}");
}

/// The operators of RELION 3.1.3, in its order, for all kinds of groups.
#[test]
fn operators_are_those_of_relion() {
    let mut names: Vec<String> = (1..=12).map(|n| format!("C{n}")).collect();
    names.extend((1..=8).map(|n| format!("D{n}")));
    names.extend(["T", "O", "I", "I1", "I2", "I3", "I4"].map(str::to_owned));
    for name in names {
        let printed = Command::new("relion_refine").args(["--print_symmetry_ops", "--sym", &name]).output();
        let Ok(printed) = printed else {
            common::report_skipped("relion_refine is not there");
            return;
        };
        let text = String::from_utf8(printed.stdout).unwrap();
        let mut lines = text.lines();
        let mut theirs: Vec<Rotation> = Vec::new();
        while lines.by_ref().any(|line| line.trim_start().starts_with("R(")) {
            theirs.push(std::array::from_fn(|_| {
                let row: Vec<f64> =
                    lines.next().unwrap().split_whitespace().map(|v| v.parse().unwrap()).collect();
                row.try_into().unwrap()
            }));
        }
        let ours = name.parse::<Symmetry>().unwrap().operators();
        assert_eq!(ours.len(), theirs.len(), "{name}: {text}");
        // RELION prints five or more digits; its axes have six.
        let is_equal = |a: &Rotation, b: &Rotation| {
            a.iter().flatten().zip(b.iter().flatten()).all(|(a, b)| (a - b).abs() < 2e-5)
        };
        for (number, (first, theirs)) in ours.iter().zip(&theirs).enumerate() {
            let place = ours.iter().position(|g| is_equal(g, theirs));
            assert!(place.is_some(), "{name}: R({}) {theirs:?} is missing", number + 1);
            // The order of O and I is another one.
            let is_ordered = name.starts_with(['O', 'I']) || place == Some(number);
            assert!(is_ordered, "{name}: R({}) is {theirs:?}, expected {first:?}", number + 1);
        }
    }
}
