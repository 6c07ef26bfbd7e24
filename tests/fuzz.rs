//! The readers of other programs' files, on files that were damaged at random: an error in one line or a set, and never a panic,
//! a hang, or more memory than the file accounts for. `CRYOSPLAT_FUZZ_CASES` says how many of each are tried (`make fuzz`).

#[path = "common/arrays.rs"]
mod arrays;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use arrays::{Column, array, pickled, table};
use cryosplat_mpi::error::Result;
use cryosplat_mpi::imaging::mrc::{self, Stack};
use cryosplat_mpi::particles::import::cryodrgn::{CtfFrom, Files};
use cryosplat_mpi::particles::import::format::{self, Companions};
use cryosplat_mpi::particles::import::pickle::Pickle;
use cryosplat_mpi::particles::import::set::Wanted;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

/// Cases for each reader, if the environment does not say.
const CASES: u32 = 300;
/// Memory that a reader may have at once: so much anyway (buffers, most of all), and so many bytes for each of the file. An
/// opcode of a pickle that makes an object and remembers it takes two bytes, and 40 of memory for each when vectors grow.
const ANYWAY: usize = 1 << 20;
const A_BYTE: usize = 100;

/// Counts what each thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // A thread that ends may still give memory back.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call goes to the system's allocator as it came, and counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the pointer came from alloc(), which is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One damage of a file, at places from 0 (its start) to 65535 (its end).
#[derive(Clone, Debug)]
enum Damage {
    Set(u16, u8),
    Word(u16, u32),
    Cut(u16),
    Remove(u16, u8),
    Insert(u16, Vec<u8>),
    Repeat(u16, u8),
}

fn damage() -> impl Strategy<Value = Damage> {
    let word = prop_oneof![
        select(&[0u32, u32::MAX, 0x7fff_ffff, 0x8000_0000, 0x7fc0_0000][..]),
        0..1000u32,
        any::<u32>()
    ];
    let text = select(&["\n", "nan", "@", "(", "'", "999999999999", " "][..]);
    prop_oneof![
        4 => any::<(u16, u8)>().prop_map(|(at, byte)| Damage::Set(at, byte)),
        2 => (any::<u16>(), word).prop_map(|(at, word)| Damage::Word(at, word)),
        1 => any::<u16>().prop_map(Damage::Cut),
        2 => any::<(u16, u8)>().prop_map(|(at, len)| Damage::Remove(at, len)),
        1 => (any::<u16>(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => (any::<u16>(), text).prop_map(|(at, text)| Damage::Insert(at, text.into())),
        1 => any::<(u16, u8)>().prop_map(|(at, len)| Damage::Repeat(at, len)),
    ]
}

fn damaged(sound: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    for damage in damages {
        let len = bytes.len();
        let place = |at: u16| usize::from(at) * len / 65536;
        match damage {
            Damage::Set(at, byte) => {
                if let Some(old) = bytes.get_mut(place(*at)) {
                    *old = *byte;
                }
            }
            Damage::Word(at, word) => {
                let at = place(*at) / 4 * 4;
                bytes.iter_mut().skip(at).zip(word.to_le_bytes()).for_each(|(old, new)| *old = new);
            }
            Damage::Cut(at) => bytes.truncate(place(*at)),
            Damage::Remove(at, count) => {
                let at = place(*at);
                bytes.drain(at..(at + usize::from(*count)).min(len));
            }
            Damage::Insert(at, some) => {
                let at = place(*at);
                bytes.splice(at..at, some.iter().copied());
            }
            Damage::Repeat(at, count) => {
                let at = place(*at);
                let again = bytes[at..(at + usize::from(*count)).min(len)].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
    bytes
}

/// Damages the file `sound`, called `name`, and has it `read` from a folder where `others` lie too.
fn fuzz(name: &str, sound: &[u8], others: &[(&str, Vec<u8>)], read: impl Fn(&Path) -> Result<()>) {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in others {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let file = folder.path().join(name);
    std::fs::write(&file, sound).unwrap();
    if let Err(error) = read(&file) {
        panic!("the sound file is refused: {error}");
    }
    let cases = std::env::var("CRYOSPLAT_FUZZ_CASES").ok().map(|cases| cases.parse().expect("a number"));
    let config = Config { cases: cases.unwrap_or(CASES), failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&vec(damage(), 1..6), |damages| {
        let bytes = damaged(sound, &damages);
        std::fs::write(&file, &bytes).unwrap();
        let before = HELD.get();
        PEAK.set(before);
        let outcome = read(&file);
        let used = (PEAK.get() - before) as usize;
        prop_assert!(used < ANYWAY + A_BYTE * bytes.len(), "{used} bytes for a file of {}", bytes.len());
        if let Err(error) = outcome {
            let message = error.to_string();
            prop_assert!(!message.contains('\n') && message.contains("; "), "{message}");
        }
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{name}: {failure}");
    }
}

const WANTED: Wanted = Wanted { first: None, seed: 1, datadir: None };

/// Reads the metadata of a set through, as an import does.
fn metadata(file: &Path, companions: &Companions) -> Result<()> {
    let mut set = format::read(file, companions, &WANTED)?;
    set.rows().try_for_each(|row| row.map(drop))
}

#[test]
fn star_files() {
    let mut text = String::from(
        "data_optics\nloop_\n_rlnOpticsGroup\n_rlnVoltage\n_rlnSphericalAberration\n_rlnAmplitudeContrast\n\
         _rlnImagePixelSize\n_rlnImageSize\n1 300 2.7 0.1 2 16\n2 200 2.7 0.1 2 16\n\n# more\ndata_particles\nloop_\n\
         _rlnImageName #1\n_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n_rlnOriginXAngst\n_rlnOriginYAngst\n\
         _rlnDefocusU\n_rlnDefocusV\n_rlnDefocusAngle\n_rlnOpticsGroup\n_rlnRandomSubset\n",
    );
    for i in 1..30 {
        text += &format!("{i:06}@a.mrcs {i} 20 30 1.5 -2 15000 14000 {i} {} {}\n", 1 + i % 2, 1 + i % 2);
    }
    fuzz("p.star", text.as_bytes(), &[], |file| metadata(file, &Companions::Alone));
}

#[test]
fn cs_files() {
    const COUNT: usize = 12;
    let column = |name, kind: &str, bytes: &dyn Fn(usize) -> Vec<u8>| {
        Column(name, kind.to_owned(), (0..COUNT).map(bytes).collect())
    };
    let float = |name, value: f32| column(name, "'<f4'", &|_| value.to_le_bytes().to_vec());
    let columns = [
        column("uid", "'<u8'", &|i| (i as u64).to_le_bytes().to_vec()),
        column("blob/path", "'|S8'", &|_| b">a.mrcs\0".to_vec()),
        column("blob/idx", "'<u4'", &|i| (i as u32).to_le_bytes().to_vec()),
        column("blob/shape", "'<u4', (2,)", &|_| [16u32, 16].map(u32::to_le_bytes).concat()),
        float("blob/psize_A", 2.0),
        float("ctf/accel_kv", 300.0),
        float("ctf/cs_mm", 2.7),
        float("ctf/amp_contrast", 0.1),
        float("ctf/df1_A", 15000.0),
        float("ctf/df2_A", 14000.0),
        float("ctf/df_angle_rad", 0.5),
        column("alignments3D/pose", "'<f4', (3,)", &|i| [0.1, i as f32, 0.2].map(f32::to_le_bytes).concat()),
        column("alignments3D/shift", "'<f4', (2,)", &|_| [0.5f32, 1.0].map(f32::to_le_bytes).concat()),
        column("alignments3D/split", "'<u4'", &|i| (i as u32 % 2).to_le_bytes().to_vec()),
    ];
    for version in [1, 3] {
        let sound = table(version, &columns);
        fuzz("p.cs", &sound, &[], |file| metadata(file, &Companions::Alone));
        // What the main file lacks comes from the damaged one.
        fuzz("more.cs", &sound, &[("p.cs", table(1, &columns[..5]))], |file| {
            let more = Companions::Passthrough(vec![file.to_path_buf()]);
            metadata(&file.with_file_name("p.cs"), &more)
        });
    }
}

/// Twelve poses and CTFs, and a stack of their images.
fn pickles() -> [(&'static str, Vec<u8>); 3] {
    const COUNT: u32 = 12;
    let rotations = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0].repeat(COUNT as usize);
    let parameters = [2.0, 1.5, 15000.0, 14000.0, 20.0, 300.0, 2.7, 0.1, 0.0].repeat(COUNT as usize);
    let translations = vec![0.125; 2 * COUNT as usize];
    [
        ("poses.pkl", pickled(&[array(&[COUNT, 3, 3], &rotations), array(&[COUNT, 2], &translations)])),
        ("ctf.pkl", pickled(&[array(&[COUNT, 9], &parameters)])),
        ("a.mrcs", stack(COUNT as usize)),
    ]
}

/// A stack of images of two by two pixels.
fn stack(count: usize) -> Vec<u8> {
    let statistics = mrc::Statistics::of([0.0].into_iter());
    let mut bytes = mrc::header_bytes([2, 2, count], 1.5, false, &statistics).to_vec();
    (0..4 * count).for_each(|i| bytes.extend((i as f32).to_le_bytes()));
    bytes
}

#[test]
fn pickles_of_poses_and_ctfs() {
    let files = pickles();
    for damaged in ["poses.pkl", "ctf.pkl"] {
        let (_, sound) = files.iter().find(|(name, _)| *name == damaged).unwrap();
        fuzz(damaged, sound, &files, |file| {
            let beside = |name: &str| file.with_file_name(name);
            let of_set =
                Files { poses: beside("poses.pkl"), ctf: CtfFrom::File(beside("ctf.pkl")), chosen: None };
            metadata(&beside("a.mrcs"), &Companions::CryoDrgn(of_set))
        });
    }
}

/// Opcodes in any order, with enough of them known to get somewhere.
#[test]
fn opcodes_at_random() {
    let texts = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\n\
                  \x8c\x02f4K\x00K\x01\x87R(K\x03\x8c\x01<NNNK\x01K\x01K\x00tb\x89C\x08abcdefghtb]q\x00h\x00a(K\x01I2\nL3L\n\
                  G12345678F1.5\ne\x94\x8a\x01\x05c_codecs\nencode\nV\\u0041b\nVlatin1\n\x86R0S'a\\x00'\n\x880(1N2\x86((N)lt.";
    fuzz("p.pkl", texts, &[], |file| Pickle::read(file).map(drop));
}

#[test]
fn mrc_files() {
    fuzz("a.mrcs", &stack(12), &[], |file| {
        let stack = Stack::open(file)?;
        let (mut image, mut bytes) = (vec![0.0; stack.image_len()], Vec::new());
        (0..stack.len().min(64)).try_for_each(|index| stack.read_image(index, &mut image, &mut bytes))?;
        mrc::read_volume(file).map(drop)
    });
}
