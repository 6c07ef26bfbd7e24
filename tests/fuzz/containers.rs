//! HDF5 files (particle files, checkpoints, mixtures), damaged with the HDF5 library and byte by byte.

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

/// Byte sequences of HDF5: signatures of its structures, and messages of object headers.
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

/// Environment variable with a folder to save files that crashed the reader.
const KEEP: &str = "CRYOSPLAT_FUZZ_KEEP";

/// Functions of the C library that detect a corrupt heap.
const HEAP: [&str; 4] = ["alloc", "free", "memalign", "calloc"];

/// Memory in bytes that the bindings may take for the names of enumeration members: a type may claim 2^16 of them.
const MEMBERS: usize = 8 << 20;

/// Locked while a file is edited: a process that starts in the meantime would inherit the open file.
static EDITING: Mutex<()> = Mutex::new(());

/// Checks the answer for `file`. Counts crashes inside the HDF5 library.
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
        // Only the HDF5 library writes out of bounds; other code crashes on the heap that it has corrupted.
        Answer::Crashed(libc::SIGABRT, place) if HEAP.iter().any(|name| place.called.contains(name)) => {
            *crashes.entry(format!("heap broken, as {} finds", place.called)).or_default() += 1;
            (0, Outcome::Lost)
        }
        // For a string with a damaged length, the library allocates up to 4 GiB, and the bindings free them.
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

/// Fuzzes one kind of file, created by `make` in a folder.
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
        // A new name for each file: the library does not reopen a file that it still has open.
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
