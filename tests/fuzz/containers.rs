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

/// Held while a file is edited here: a process that starts meanwhile would have it open too.
static EDITING: Mutex<()> = Mutex::new(());

/// Judges the answer for a file of `length` bytes. Deaths inside of the library are counted.
fn judge(
    answer: Answer,
    length: usize,
    crashes: &mut BTreeMap<String, usize>,
) -> std::result::Result<Outcome, String> {
    let (held, outcome) = match answer {
        Answer::Read(held) => (held, Outcome::Read),
        Answer::Refused(held, message) => (held, Outcome::Refused(message)),
        Answer::Crashed(signal, object) if object.contains("libhdf5") => {
            let how = if signal == libc::SIGPROF { "endless".into() } else { format!("signal {signal}") };
            *crashes.entry(format!("{how} in {object}")).or_default() += 1;
            (0, Outcome::Lost)
        }
        Answer::Crashed(signal, object) => return Err(format!("ended by signal {signal} in {object}")),
        Answer::Panicked(message) => return Err(format!("panicked: {message}")),
        Answer::Ended(how) => return Err(format!("ended without a word: {how}")),
    };
    if held > allowed(length) {
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
        let length = file.metadata().unwrap().len() as usize;
        judge(reader.ask(kind, &file), length, &mut crashes)
    });
    explore(&format!("{name}, damaged"), 1, damages(WORDS), |damages| {
        let bytes = damaged(&sound, &damages);
        std::fs::write(&file, &bytes).unwrap();
        judge(reader.ask(kind, &file), bytes.len(), &mut crashes)
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
