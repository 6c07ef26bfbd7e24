//! Small particle sets of noise for tests of the import.

// Each test file uses only some of these.
#![allow(dead_code)]

use std::path::PathBuf;

use cryosplat_mpi::imaging::mrc::write_stack;
use cryosplat_mpi::particles::store::{Particle, Store};
use tempfile::TempDir;

use crate::arrays::{Column, table};
use crate::common;

const BOX: usize = 16;
/// Number of images in the stack.
pub const IMAGES: usize = 12;

const OPTICS: &str = "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnVoltage\n_rlnSphericalAberration\n_rlnAmplitudeContrast\n\
                      _rlnImagePixelSize\n_rlnImageSize\n1 300 2.7 0.1 2 16\n\n";
const COLUMNS: &str = "data_particles\n\nloop_\n_rlnImageName\n_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n_rlnDefocusU\n\
                       _rlnDefocusV\n_rlnDefocusAngle\n_rlnOpticsGroup\n";

/// The line of a row (from 0) in a STAR file with this number of further columns.
pub fn line(columns: usize, row: usize) -> String {
    const FIRST: usize = 23;
    format!("line {}", FIRST + columns + row)
}

/// A folder with a stack of noise, and files beside it.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let image = |i: usize| -> Vec<f32> {
            (0..BOX * BOX).map(|k| ((k * (2 * i + 3) * 7919 + i * 104_729) % 1009) as f32 / 500.0).collect()
        };
        let images: Vec<_> = (0..IMAGES).map(image).collect();
        write_stack(&folder.path("s.mrcs"), BOX, 2.0, images.iter().map(Vec::as_slice)).unwrap();
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name).display().to_string()
    }

    pub fn arguments(&self, file: &str, options: &[&str]) -> Vec<String> {
        let output = self.path("out.h5").display().to_string();
        let mut arguments = vec!["import".into(), self.path(file).display().to_string(), "-o".into(), output];
        arguments.extend(options.iter().map(|&option| option.to_owned()));
        arguments
    }

    /// Imports `file`. Returns each particle with its half (0 or 1), and the log.
    pub fn import(&self, file: &str, options: &[&str]) -> (Vec<(usize, Particle)>, String) {
        let said = common::succeed(&self.arguments(file, options));
        let _alone = common::alone();
        let store = Store::open(&self.path("out.h5")).unwrap();
        let first = store.header().halves[0];
        let particles = common::whole(&store).particles.into_iter().enumerate();
        (particles.map(|(row, particle)| (usize::from(row >= first), particle)).collect(), said)
    }

    pub fn refuse(&self, file: &str, options: &[&str], fragments: &[&str]) {
        common::fail(&self.arguments(file, options), fragments);
    }
}

/// A STAR file with a row for each of `rows`: image (from 1), angle, and the values of `columns`.
pub fn star(columns: &[&str], rows: &[(usize, usize, &str)]) -> String {
    let mut text = OPTICS.to_owned() + COLUMNS;
    columns.iter().for_each(|column| text += &format!("{column}\n"));
    for (image, angle, values) in rows {
        // The defocus identifies the image.
        text += &format!("{image}@s.mrcs {angle} 20 30 {} 14000 0 1 {values}\n", 15000 + image);
    }
    text
}

/// A .cs file of these images, in halves if given, with a pose each and `further` columns, which replace others.
pub fn cs(images: &[u32], split: Option<&[u32]>, further: &[Column]) -> Vec<u8> {
    let count = images.len();
    let of = |name, kind: &str, value: &dyn Fn(usize) -> Vec<u8>| {
        Column(name, kind.to_owned(), (0..count).map(value).collect())
    };
    let float = |name, value: f32| of(name, "'<f4'", &|_| value.to_le_bytes().to_vec());
    let whole = |name, values: &[u32]| of(name, "'<u4'", &|i| values[i].to_le_bytes().to_vec());
    let mut columns = vec![
        of("uid", "'<u8'", &|i| (7 * i as u64).to_le_bytes().to_vec()),
        of("blob/path", "'|S6'", &|_| b"s.mrcs".to_vec()),
        whole("blob/idx", images),
        of("blob/shape", "'<u4', (2,)", &|_| [BOX as u32; 2].map(u32::to_le_bytes).concat()),
        float("blob/psize_A", 2.0),
        float("ctf/accel_kv", 300.0),
        float("ctf/cs_mm", 2.7),
        float("ctf/amp_contrast", 0.1),
        float("ctf/df1_A", 15000.0),
        float("ctf/df2_A", 14000.0),
        float("ctf/df_angle_rad", 0.0),
        of("alignments3D/pose", "'<f4', (3,)", &|i| {
            [0.1 * i as f32, 0.2, 0.3].map(f32::to_le_bytes).concat()
        }),
    ];
    columns.extend(split.map(|split| whole("alignments3D/split", split)));
    columns.retain(|column| further.iter().all(|other| other.0 != column.0));
    columns.extend(further.iter().filter(|column| !column.2.is_empty()).cloned());
    table(1, &columns)
}
