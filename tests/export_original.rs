//! `cryosplat-mpi export --original`: rows of the imported file, with the halves of the set; and the summary of an import.

#[path = "common/arrays.rs"]
mod arrays;
mod common;
#[path = "common/noise_set.rs"]
mod noise_set;

use std::path::Path;
use std::process::Command;

use arrays::Column;
use cryosplat_mpi::particles::store::Particle;
use noise_set::{Folder, IMAGES, cs, star};

/// The half, image and pose of each particle, in this order.
fn described(particles: &[(usize, Particle)]) -> Vec<(usize, u64, Vec<u64>)> {
    let pose = |particle: &Particle| particle.rotation.as_flattened().iter().map(|v| v.to_bits()).collect();
    let mut all: Vec<_> =
        particles.iter().map(|(half, p)| (*half, p.source.unwrap().index, pose(p))).collect();
    all.sort_unstable();
    all
}

/// Exports the rows of `original` that are in out.h5.
fn export(folder: &Folder, kind: &str, original: &str, output: &str) {
    let path = |name: &str| folder.path(name).display().to_string();
    common::succeed(&["export", kind, &path("out.h5"), "--original", &path(original), "-o", &path(output)]);
}

#[test]
fn rows_of_copies_keep_their_halves() {
    let folder = Folder::new();
    // Four copies of each image in two classes, of which one is imported; the halves are drawn.
    let class = |i: usize| if i % 4 < 2 { "1" } else { "2" };
    let rows: Vec<_> = (0..4 * IMAGES).map(|i| (i / 4 + 1, 10 * (i % 4) + i / 4, class(i))).collect();
    let text = star(&["_rlnClassNumber"], &rows);
    folder.write("p.star", &text);
    let (imported, _) = folder.import("p.star", &["--class", "2", "--seed", "5"]);
    assert_eq!(imported.len(), 2 * IMAGES);
    export(&folder, "star", "p.star", "x.star");
    let exported = std::fs::read_to_string(folder.path("x.star")).unwrap();
    let lines = exported.lines().filter(|line| line.contains('@')).count();
    assert_eq!(lines, 2 * IMAGES, "{exported}");
    // The halves of the exported file are now given.
    let (again, said) = folder.import("x.star", &["--seed", "6"]);
    assert_eq!(described(&again), described(&imported));
    assert!(said.contains("given by _rlnRandomSubset"), "{said}");
    // Exact duplicates: as many as were imported.
    let rows: Vec<_> = (0..3 * IMAGES).map(|i| (i % IMAGES + 1, i % IMAGES, "")).collect();
    folder.write("p.star", star(&[], &rows));
    let count = (2 * IMAGES).to_string();
    assert_eq!(folder.import("p.star", &["--first", &count]).0.len(), 2 * IMAGES);
    export(&folder, "star", "p.star", "x.star");
    let exported = std::fs::read_to_string(folder.path("x.star")).unwrap();
    assert_eq!(exported.lines().filter(|line| line.contains('@')).count(), 2 * IMAGES);
}

#[test]
fn records_of_a_cryosparc_file_are_selected() {
    let folder = Folder::new();
    let images: Vec<u32> = (0..2 * IMAGES as u32).map(|i| i % IMAGES as u32).collect();
    let split: Vec<u32> = images.iter().map(|i| i % 2).collect();
    let whole =
        |value: &dyn Fn(u32) -> u32| images.iter().map(|&i| value(i).to_le_bytes().to_vec()).collect();
    let further = [
        Column("alignments3D/class", "'<u4'".into(), whole(&|i| u32::from(i < 4))),
        // A field that the import does not read.
        Column(
            "location/note",
            "'<U3'".into(),
            vec![[0xb5u32, 0, 0].map(u32::to_le_bytes).concat(); images.len()],
        ),
    ];
    folder.write("p.cs", cs(&images, Some(&split), &further));
    let (imported, _) = folder.import("p.cs", &["--class", "0", "--redraw-halves", "--seed", "3"]);
    assert_eq!(imported.len(), 2 * (IMAGES - 4));
    export(&folder, "cs", "p.cs", "x.cs");
    let (again, said) = folder.import("x.cs", &["--seed", "7"]);
    assert_eq!(described(&again), described(&imported));
    assert!(said.contains("given by alignments3D/split"), "{said}");
    // Records are bytes of the original but for the half.
    let [all, some] = ["p.cs", "x.cs"].map(|name| std::fs::read(folder.path(name)).unwrap());
    let start = |bytes: &[u8]| 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let width = (all.len() - start(&all)) / images.len();
    assert_eq!((some.len() - start(&some), start(&some) % 64), (width * imported.len(), 0));
    let note = [0xb5u8, 0, 0, 0];
    assert!(some[start(&some)..].chunks(width).all(|record| record.windows(4).any(|four| four == note)));
    check_with_numpy(&folder, imported.len());
    // What is not the original is refused.
    folder.write("other.cs", cs(&images[..3], None, &[]));
    let path = |name: &str| folder.path(name).display().to_string();
    let arguments = ["export", "cs", &path("out.h5"), "--original", &path("other.cs"), "-o", &path("y.cs")];
    common::fail(&arguments, &["other.cs", "lacks 16 images", "imported from"]);
    let arguments = ["export", "cs", &path("out.h5"), "--original", &path("p.cs"), "-o", &path("p.cs")];
    common::fail(&arguments, &["p.cs", "the original"]);
}

/// NumPy reads the exported file, with the fields of the original.
fn check_with_numpy(folder: &Folder, count: usize) {
    const SCRIPT: &str = "import sys, numpy as np\n\
        a, b = (np.load(f) for f in sys.argv[1:3])\n\
        assert a.dtype == b.dtype, (a.dtype, b.dtype)\n\
        assert len(b) == int(sys.argv[3])\n\
        rest = [n for n in a.dtype.names if n != 'alignments3D/split']\n\
        kept = a[np.isin(a['uid'], b['uid'])]\n\
        assert all((kept[n] == b[n]).all() for n in rest)\n";
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/judges-venv/bin/python");
    let python = if venv.exists() { venv } else { "python3".into() };
    let has = Command::new(&python).args(["-c", "import numpy"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        common::report_skipped("python has no numpy");
        return;
    }
    let [original, exported] = ["p.cs", "x.cs"].map(|name| folder.path(name));
    let mut check = Command::new(&python);
    let output =
        check.args(["-c", SCRIPT]).args([original, exported]).arg(count.to_string()).output().unwrap();
    assert!(output.status.success(), "{}", common::text(&output));
}

#[test]
fn an_import_is_summarised() {
    let folder = Folder::new();
    let rows: Vec<_> = (0..IMAGES + 2).map(|i| (i % IMAGES + 1, i % IMAGES, "5")).collect();
    folder.write("p.star", star(&["_rlnClassNumber"], &rows));
    let (_, said) = folder.import("p.star", &["--seed", "9", "--invert"]);
    for part in [
        "14 of 14 rows",
        "7 and 7, drawn at random (seed 9)",
        "12 distinct in 1 stacks; 2 copies, 2 of them exact duplicates",
        "16 pixels of 2.0000 A; resolution limit (Nyquist) 4.00 A",
        "14 particles, 300 kV, Cs 2.7 mm, amplitude contrast 0.1; raw 16 pixels of 2 A",
        "1.45 to 1.45 um",
        "contrast           14 images inverted",
        "standard deviation 1",
    ] {
        assert!(said.contains(part), "no {part:?} in:\n{said}");
    }
    let json = std::fs::read_to_string(folder.path("out.import.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["particles"], 14);
    assert_eq!(
        (&json["halves"], &json["seed"], &json["exact_duplicates"]),
        (&serde_json::json!([7, 7]), &9.into(), &2.into())
    );
    assert_eq!((&json["optics_groups"][0]["voltage"], &json["nyquist"]), (&300.0.into(), &4.0.into()));
    assert_eq!(json["defocus"], serde_json::json!([14500.5, 14506.0]));
}
