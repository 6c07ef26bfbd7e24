//! The data sets with one entry a particle: their names, types and shapes, and how a particle goes into them and back.

use hdf5::plist::dataset_create::{AllocTime, FillTime};
use hdf5::types::{FloatSize, IntSize, TypeDescriptor};

use super::{Dtype, Particle, Source};

/// What the numbers of a data set are; little-endian, all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    U8,
    U32,
    U64,
    F16,
    F32,
    F64,
}

impl Kind {
    /// Bytes of a number.
    pub fn width(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F16 => 2,
            Self::U32 | Self::F32 => 4,
            Self::U64 | Self::F64 => 8,
        }
    }

    /// As HDF5 describes it.
    pub fn descriptor(self) -> TypeDescriptor {
        match self {
            Self::U8 => TypeDescriptor::Unsigned(IntSize::U1),
            Self::U32 => TypeDescriptor::Unsigned(IntSize::U4),
            Self::U64 => TypeDescriptor::Unsigned(IntSize::U8),
            Self::F16 => TypeDescriptor::Float(FloatSize::U2),
            Self::F32 => TypeDescriptor::Float(FloatSize::U4),
            Self::F64 => TypeDescriptor::Float(FloatSize::U8),
        }
    }
}

impl From<Dtype> for Kind {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
        }
    }
}

/// A data set with one entry a particle.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// Its path, without the slash in front.
    pub name: &'a str,
    /// What its numbers are.
    pub kind: Kind,
    /// The shape of an entry; empty for a number.
    pub entry: &'a [usize],
}

impl Shape<'_> {
    /// Its shape for `n` particles.
    pub fn of(&self, n: usize) -> Vec<usize> {
        std::iter::once(n).chain(self.entry.iter().copied()).collect()
    }

    /// Bytes of an entry.
    pub fn stride(&self) -> usize {
        self.kind.width() * self.entry.iter().product::<usize>()
    }

    /// Makes it for `n` particles, all in one piece and with its place in the file, which is returned.
    pub fn create(&self, file: &hdf5::File, n: usize) -> hdf5::Result<u64> {
        let set = match self.kind {
            Kind::U8 => file.new_dataset::<u8>(),
            Kind::U32 => file.new_dataset::<u32>(),
            Kind::U64 => file.new_dataset::<u64>(),
            Kind::F16 => file.new_dataset::<half::f16>(),
            Kind::F32 => file.new_dataset::<f32>(),
            Kind::F64 => file.new_dataset::<f64>(),
        };
        let set = set.alloc_time(Some(AllocTime::Early)).fill_time(FillTime::Never);
        let set = set.shape(self.of(n)).create(self.name)?;
        set.offset().ok_or_else(|| hdf5::Error::from(format!("/{} has no place in the file", self.name)))
    }
}

/// The images of a box.
pub fn images(dtype: Dtype, entry: &[usize; 2]) -> Shape<'_> {
    Shape { name: "images", kind: dtype.into(), entry }
}

/// The half, 0 or 1, in rising order.
pub const HALF: Shape = Shape { name: "half", kind: Kind::U8, entry: &[] };

/// CRC-32 of each image's bytes.
pub const CHECKSUM: Shape = Shape { name: "source/checksum", kind: Kind::U32, entry: &[] };

/// The sum of the squares of each image's pixels.
pub const ENERGY: Shape = Shape { name: "source/energy", kind: Kind::F64, entry: &[] };

/// A part of a [`Particle`].
pub struct Column {
    pub shape: Shape<'static>,
    /// Appends its bytes.
    pub put: fn(&Particle, &mut Vec<u8>),
    /// Takes it from its bytes.
    pub get: fn(&mut Particle, &[u8]),
}

/// The place of `/pose/rotation` among [`COLUMNS`].
pub const ROTATION: usize = 0;

/// All parts of a [`Particle`].
pub const COLUMNS: [Column; 11] = [
    Column {
        shape: Shape { name: "pose/rotation", kind: Kind::F64, entry: &[3, 3] },
        put: |particle, bytes| put(particle.rotation.as_flattened(), bytes),
        get: |particle, bytes| get(particle.rotation.as_flattened_mut(), bytes),
    },
    Column {
        shape: Shape { name: "pose/shift", kind: Kind::F64, entry: &[2] },
        put: |particle, bytes| put(&particle.shift, bytes),
        get: |particle, bytes| get(&mut particle.shift, bytes),
    },
    Column {
        shape: number("ctf/defocus_u"),
        put: |particle, bytes| put(&[particle.ctf.defocus_u], bytes),
        get: |particle, bytes| get(std::slice::from_mut(&mut particle.ctf.defocus_u), bytes),
    },
    Column {
        shape: number("ctf/defocus_v"),
        put: |particle, bytes| put(&[particle.ctf.defocus_v], bytes),
        get: |particle, bytes| get(std::slice::from_mut(&mut particle.ctf.defocus_v), bytes),
    },
    Column {
        shape: number("ctf/astigmatism_angle"),
        put: |particle, bytes| put(&[particle.ctf.astigmatism_angle], bytes),
        get: |particle, bytes| get(std::slice::from_mut(&mut particle.ctf.astigmatism_angle), bytes),
    },
    Column {
        shape: number("ctf/phase_shift"),
        put: |particle, bytes| put(&[particle.ctf.phase_shift], bytes),
        get: |particle, bytes| get(std::slice::from_mut(&mut particle.ctf.phase_shift), bytes),
    },
    Column {
        shape: number("ctf/b_factor"),
        put: |particle, bytes| put(&[particle.ctf.b_factor], bytes),
        get: |particle, bytes| get(std::slice::from_mut(&mut particle.ctf.b_factor), bytes),
    },
    Column {
        shape: number("ctf/scale"),
        put: |particle, bytes| put(&[particle.ctf.scale], bytes),
        get: |particle, bytes| get(std::slice::from_mut(&mut particle.ctf.scale), bytes),
    },
    Column {
        shape: Shape { name: "ctf/optics_group", kind: Kind::U32, entry: &[] },
        put: |particle, bytes| bytes.extend(particle.optics_group.to_le_bytes()),
        get: |particle, bytes| particle.optics_group = whole(bytes) as u32,
    },
    Column {
        shape: Shape { name: "source/file", kind: Kind::U32, entry: &[] },
        put: |particle, bytes| {
            bytes.extend(particle.source.map_or(NO_SOURCE, |source| source.file).to_le_bytes());
        },
        get: |particle, bytes| {
            let file = whole(bytes) as u32;
            particle.source = (file != NO_SOURCE).then_some(Source { file, index: 0 });
        },
    },
    // Behind the file, which says whether there is a source at all.
    Column {
        shape: Shape { name: "source/index", kind: Kind::U64, entry: &[] },
        put: |particle, bytes| {
            bytes.extend(particle.source.map_or(0, |source| source.index).to_le_bytes());
        },
        get: |particle, bytes| {
            if let Some(source) = &mut particle.source {
                source.index = whole(bytes);
            }
        },
    },
];

/// What `/source/file` says of an image that came from none.
const NO_SOURCE: u32 = u32::MAX;

const fn number(name: &'static str) -> Shape<'static> {
    Shape { name, kind: Kind::F64, entry: &[] }
}

fn put(values: &[f64], bytes: &mut Vec<u8>) {
    values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
}

fn get(values: &mut [f64], bytes: &[u8]) {
    for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(8)) {
        *value = f64::from_bits(whole(bytes));
    }
}

/// A little-endian number of up to eight bytes.
fn whole(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// Where everything lies in a file, in bytes from its start.
#[derive(Clone, Debug)]
pub struct Places {
    pub images: u64,
    pub half: u64,
    pub checksum: u64,
    pub energy: u64,
    /// Of each of [`COLUMNS`].
    pub columns: [u64; COLUMNS.len()],
}
