//! Particle sets, checkpoints and mixtures in HDF5: damaged by the library itself, and byte by byte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cryosplat_mpi::gmm::Shape;

use crate::damage::{damaged, damages};
use crate::edits::{edit, edits};
use crate::memory::allowed;
use crate::reader::{Answer, Kind, Reader};
use crate::samples;
use crate::target::{Outcome, explore};

/// Words of HDF5: what its structures begin with, and messages of its object headers.
const WORDS: &[&[u8]] = &[
    b"\x89HDF\r\n\x1a\n",
    b"TREE",
    b"SNOD",
    b"HEAP",
    b"GCOL",
    b"OHDR",
    b"FRHP",
    b"BTHD",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\0\0\0\0\0\0\0\0",
    b"\x01\0\0\0",
    b"\x03\0\0\0",
    b"\x08\0\0\0",
    b"\x0c\0\0\0",
    b"\x10\0\0\0",
    b"\x11\0\0\0",
    b"\xff\xff",
];

/// Names the folder to keep the files in that ended a process.
const KEEP: &str = "CRYOSPLAT_FUZZ_KEEP";

/// The functions of the C library that find its books of the heap overwritten.
const HEAP: [&str; 4] = ["alloc", "free", "memalign", "calloc"];

/// Bytes that the bindings take for the names of an enumeration's members; a type may claim 2^16 of them, whatever the file's length.
const MEMBERS: usize = 8 << 20;

/// Held while a file is edited here: a process that starts meanwhile would have it open too.
static EDITING: Mutex<()> = Mutex::new(());

/// Judges the answer for `file`. Deaths inside of the library are counted.
fn judge(
    answer: Answer,
    file: &Path,
    crashes: &mut BTreeMap<String, usize>,
) -> std::result::Result<Outcome, String> {
    if let (Some(folder), Answer::Crashed(..) | Answer::Ended(_)) = (std::env::var_os(KEEP), &answer) {
        let name = format!("{:08x}.h5", crc32fast::hash(&std::fs::read(file).unwrap()));
        std::fs::copy(file, Path::new(&folder).join(name)).unwrap();
    }
    let (held, outcome) = match answer {
        Answer::Read(held) => (held, Outcome::Read),
        Answer::Refused(held, message) => (held, Outcome::Refused(message)),
        Answer::Crashed(signal, place) if place.file.contains("libhdf5") => {
            let how = if signal == libc::SIGPROF { "endless".into() } else { format!("signal {signal}") };
            *crashes.entry(format!("{how} in {} {}", place.file, place.function)).or_default() += 1;
            (0, Outcome::Lost)
        }
        // Nothing that reads here writes past its memory but that library: others only meet what it has left.
        Answer::Crashed(libc::SIGABRT, place) if HEAP.iter().any(|name| place.called.contains(name)) => {
            *crashes.entry(format!("heap broken, as {} finds", place.called)).or_default() += 1;
            (0, Outcome::Lost)
        }
        // The library takes up to 4 GiB for a text whose length is damaged, and the bindings give them back.
        Answer::Crashed(libc::SIGPROF, place) if place.called.contains("free") => {
            *crashes.entry("long: a text of gigabytes".into()).or_default() += 1;
            (0, Outcome::Lost)
        }
        Answer::Crashed(signal, place) => return Err(format!("ended by signal {signal} in {place:?}")),
        Answer::Panicked(message) => return Err(format!("panicked: {message}")),
        Answer::Ended(how) => return Err(format!("ended without a word: {how}")),
    };
    let length = file.metadata().unwrap().len() as usize;
    if held > allowed(length) + MEMBERS {
        return Err(format!("{held} bytes of memory for a file of {length}"));
    }
    Ok(outcome)
}

/// Explores one kind of file, made by `make` in a folder.
fn fuzz(name: &str, kind: Kind, make: impl Fn(&Path) -> PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let sound = std::fs::read(make(folder.path())).unwrap();
    let file = folder.path().join("damaged.h5");
    let mut reader = Reader::default();
    let mut crashes = BTreeMap::new();
    std::fs::write(&file, &sound).unwrap();
    let answer = reader.ask(kind, &file);
    assert!(matches!(answer, Answer::Read(_)), "the sound file: {answer:?}");

    explore(&format!("{name}, edited"), 1, edits(), |edits| {
        // Another file of the same name: one that the library still knows is not opened again.
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, &sound).unwrap();
        {
            let _alone = EDITING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            edit(&file, &edits);
        }
        judge(reader.ask(kind, &file), &file, &mut crashes)
    });
    explore(&format!("{name}, damaged"), 1, damages(WORDS), |damages| {
        std::fs::write(&file, damaged(&sound, &damages)).unwrap();
        judge(reader.ask(kind, &file), &file, &mut crashes)
    });
    for (crash, count) in crashes {
        println!("fuzz: {name}: {count} times {crash}");
    }
}

#[test]
fn particle_sets() {
    fuzz("particles.h5", Kind::Particles, samples::particles);
}

#[test]
fn checkpoints() {
    fuzz("checkpoint.h5", Kind::Checkpoint, samples::checkpoint);
}

#[test]
fn mixtures() {
    fuzz("gmm.h5", Kind::Gaussians, |folder| samples::gaussians(folder, Shape::Anisotropic));
    fuzz("isotropic gmm.h5", Kind::Gaussians, |folder| samples::gaussians(folder, Shape::Isotropic));
}
