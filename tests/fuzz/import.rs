//! Files of other programs that `import` reads: STAR files, NumPy tables, pickles, maps and stacks.

use std::path::{Path, PathBuf};

use cryosplat_mpi::error::Result;
use cryosplat_mpi::imaging::mrc::{self, Stack};
use cryosplat_mpi::particles::import::cryodrgn::{CtfFrom, Files};
use cryosplat_mpi::particles::import::cryosparc;
use cryosplat_mpi::particles::import::format::{self, Companions};
use cryosplat_mpi::particles::import::pickle::Pickle;
use cryosplat_mpi::particles::import::set::{ParticleSet, ReadOptions};
use cryosplat_mpi::particles::import::star::Document;

use crate::arrays::{Column, array, pickled, table};
use crate::damage::Words;
use crate::target::{Sound, fuzz, fuzz_in};

const STAR: Words = &[
    b"\nloop_\n",
    b"loop_",
    b"\ndata_\n",
    b"\ndata_particles\n\nloop_\n_rlnImageName #1\n",
    b"_rlnImageName #1\n",
    b"_rlnOpticsGroup #1\n",
    b"_rlnOpticsGroup 99999999999\n",
    b"'",
    b"\"",
    b"' '",
    b"\n;",
    b"\n;\n",
    b"\r",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff",
    b"# ",
    b"save_",
    b"18446744073709551616@",
    b"0@",
    b"-1@",
    b"@",
    b"/",
    b"nan",
    b"-inf",
    b"1e999",
    b"1e308",
    b"4294967296",
    b"_",
];

const NUMPY: Words = &[
    b"(99999999999999999999,)",
    b"(18446744073709551615,)",
    b"(4611686018427387904, 4)",
    b"(-1,)",
    b"(0,)",
    b"()",
    b"True",
    b"((((((((((((((((",
    b"[[[[[[[[[[[[[[[[",
    b"{{{{{{{{",
    b"('a', [('b', '<f4')])",
    b"'|O'",
    b"'<f16'",
    b"'>f4'",
    b"'|S99999999999'",
    b"'<U4294967295'",
    b"'|V0'",
    b", (4294967296, 4294967296)",
    b", (0,)",
    b"'fortran_order': True, ",
    b"'descr': [], ",
    b"\\x00",
    b"\\",
    b"'",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
];

/// Opcodes with large lengths, nesting, empty pops, and forbidden names.
const PICKLE: Words = &[
    b"\x8b\xff\xff\xff\x7f",
    b"\x8a\xff",
    b"r\xff\xff\xff\xff",
    b"q\xff",
    b"p18446744073709551615\n",
    b"j\xff\xff\xff\xff",
    b"h\x00",
    b"g0\n",
    b"((((((((((((((((",
    b"]]]]]]]]]]]]]]]]",
    b"\x85\x85\x85\x85\x85\x85\x85\x85",
    b"\x94\x94\x94\x94",
    b"2222222222222222",
    b"]2a2a2a2a",
    b"(2222t2222t2222t",
    b"t",
    b"e",
    b"a",
    b"R",
    b"b",
    b"0",
    b"1",
    b".",
    b"N",
    b"\x88",
    b"K\x00",
    b"J\xff\xff\xff\xff",
    b"X\xff\xff\xff\x7f",
    b"B\xff\xff\xff\xff",
    b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x80\xff",
    b"cos\nsystem\n",
    b"cnumpy\nndarray\n",
    b"cnumpy\ndtype\n",
    b"c_codecs\nencode\n",
    b"\x8c\x03|O8",
    b"I01\n",
    b"L99999999999999999999L\n",
    b"G\x7f\xf0\x00\x00\x00\x00\x00\x00",
    b"\x81",
    b"\x82\x01",
    b"Q",
];

const OPTIONS: ReadOptions =
    ReadOptions { first: None, class: None, seed: 1, redraw_halves: false, datadir: None, keep: None };

/// Reads all metadata of a set, as an import does.
fn metadata(file: &Path, companions: &Companions) -> Result<()> {
    let mut set = format::read(file, companions, &OPTIONS)?;
    set.rows().try_for_each(|row| row.map(drop))
}

/// Real files with the suffix `ending` that the project has, except large ones.
fn real(ending: &str) -> Vec<PathBuf> {
    const LARGEST: u64 = 600_000;
    let folder = std::env::var_os("CRYOSPLAT_TEST_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let entries = std::fs::read_dir(folder.join("data/real")).into_iter().flatten().flatten();
    let fits = |file: &PathBuf| {
        file.to_string_lossy().ends_with(ending) && file.metadata().is_ok_and(|m| m.len() <= LARGEST)
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(fits).collect();
    files.sort();
    files
}

/// Damages each real file with the suffix `ending`. Other tests read the undamaged ones.
fn fuzz_real(ending: &str, words: Words, read: impl Fn(&Path) -> Result<()>) {
    let folder = tempfile::tempdir().unwrap();
    for file in real(ending) {
        let (name, bytes) = (file.file_name().unwrap().to_str().unwrap(), std::fs::read(&file).unwrap());
        let sound = Sound { share: 4, ..Sound::new(name, &bytes, words) };
        fuzz_in(&folder.path().join(name), &sound, &read);
    }
}

/// Reads every cell of every table of a STAR file.
fn cells(file: &Path) -> Result<()> {
    let document = Document::read(file)?;
    for table in document.tables() {
        let mut rows = document.rows(table);
        while rows.advance()? {
            (0..table.width()).for_each(|column| drop(rows.cell(column).to_owned()));
        }
    }
    Ok(())
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
    fuzz(&Sound::new("p.star", text.as_bytes(), STAR), |file| metadata(file, &Companions::Alone));
    fuzz(&Sound::new("cells.star", text.as_bytes(), STAR), cells);
}

#[test]
fn real_star_files() {
    fuzz_real(".star", STAR, |file| {
        cells(file)?;
        metadata(file, &Companions::Alone)
    });
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
    for (version, name, more) in [(1, "p.cs", "more.cs"), (3, "p3.cs", "more3.cs")] {
        let bytes = table(version, &columns);
        fuzz(&Sound::new(name, &bytes, NUMPY), |file| metadata(file, &Companions::Alone));
        // Columns that the main file lacks come from the damaged file.
        let beside = [("main.cs", table(1, &columns[..5]))];
        let sound = Sound { beside: &beside, ..Sound::new(more, &bytes, NUMPY) };
        fuzz(&sound, |file| {
            let more = Companions::Passthrough(vec![file.to_path_buf()]);
            metadata(&file.with_file_name("main.cs"), &more)
        });
    }
}

#[test]
fn real_cs_files() {
    fuzz_real(".cs", NUMPY, |file| {
        let mut set = cryosparc::read(file, &[], &OPTIONS)?;
        set.rows().try_for_each(|row| row.map(drop))
    });
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
        let (_, bytes) = files.iter().find(|(name, _)| *name == damaged).unwrap();
        fuzz(&Sound { beside: &files, ..Sound::new(damaged, bytes, PICKLE) }, |file| {
            let beside = |name: &str| file.with_file_name(name);
            let of_set =
                Files { poses: beside("poses.pkl"), ctf: CtfFrom::File(beside("ctf.pkl")), selected: None };
            metadata(&beside("a.mrcs"), &Companions::CryoDrgn(of_set))
        });
    }
}

/// Reads every value of every array of a pickle.
fn values(file: &Path) -> Result<()> {
    let pickle = Pickle::read(file)?;
    let root = [pickle.root()];
    for &id in pickle.items(pickle.root()).unwrap_or(&root) {
        pickle.describe(id);
        let Some(array) = pickle.array(id) else { continue };
        if let &[rows, columns] = array.shape() {
            let places =
                (0..rows.min(100)).flat_map(|row| (0..columns.min(9)).map(move |column| [row, column]));
            std::hint::black_box(places.map(|place| array.value(&place)).sum::<f64>());
        }
    }
    Ok(())
}

#[test]
fn real_pickles() {
    fuzz_real(".pkl", PICKLE, values);
}

/// Opcodes in random order, most of them valid.
#[test]
fn random_opcodes() {
    let texts = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\n\
                  \x8c\x02f4K\x00K\x01\x87R(K\x03\x8c\x01<NNNK\x01K\x01K\x00tb\x89C\x08abcdefghtb]q\x00h\x00a(K\x01I2\nL3L\n\
                  G12345678F1.5\ne\x94\x8a\x01\x05c_codecs\nencode\nV\\u0041b\nVlatin1\n\x86R0S'a\\x00'\n\x880(1N2\x86((N)lt.";
    fuzz(&Sound::new("p.pkl", texts, PICKLE), values);
}

/// Nesting far deeper than the call stack: no recursion may depend on it.
#[test]
fn a_million_nested_tuples_are_no_stack_overflow() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("deep.pkl");
    for opcode in [&b"\x85"[..], b"]2a"] {
        let deep = [b"\x80\x04N", &opcode.repeat(1 << 20)[..], b"."].concat();
        std::fs::write(&file, deep).unwrap();
        values(&file).unwrap();
    }
}

/// Reads a file as a stack, as an import does, and as a map, as an evaluation does.
fn images(file: &Path) -> Result<()> {
    let stack = Stack::open(file)?;
    let (mut image, mut bytes) = (vec![0.0; stack.image_len()], Vec::new());
    (0..stack.len().min(64)).try_for_each(|index| stack.read_image(index, &mut image, &mut bytes))?;
    mrc::read_volume(file).map(drop)
}

#[test]
fn mrc_files() {
    fuzz(&Sound::new("a.mrcs", &stack(12), &[]), images);
}

#[test]
fn real_maps() {
    fuzz_real(".map", &[], images);
}
