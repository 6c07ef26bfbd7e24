//! The data sets with one entry per particle: names, types, shapes, and how a [`Particle`] is encoded in them.

use hdf5::plist::dataset_create::{AllocTime, FillTime};
use hdf5::types::{FloatSize, IntSize, TypeDescriptor};

use super::{Dtype, Particle, Source};

/// Type of the numbers in a data set, all little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberType {
    U8,
    U32,
    U64,
    F16,
    F32,
    F64,
}

impl NumberType {
    /// Size of a number in bytes.
    pub fn width(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F16 => 2,
            Self::U32 | Self::F32 => 4,
            Self::U64 | Self::F64 => 8,
        }
    }

    /// The HDF5 type.
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

impl From<Dtype> for NumberType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
        }
    }
}

/// Layout of a data set with one entry per particle.
#[derive(Clone, Copy, Debug)]
pub struct DataSetLayout<'a> {
    /// Path, without the leading slash.
    pub name: &'a str,
    /// Type of its numbers.
    pub number_type: NumberType,
    /// DataSetLayout of one entry; empty for a single number.
    pub entry: &'a [usize],
}

impl DataSetLayout<'_> {
    /// DataSetLayout of the data set for `n` particles.
    pub fn shape(&self, n: usize) -> Vec<usize> {
        std::iter::once(n).chain(self.entry.iter().copied()).collect()
    }

    /// Size of one entry in bytes.
    pub fn stride(&self) -> usize {
        self.number_type.width() * self.entry.iter().product::<usize>()
    }

    /// Creates the contiguous, allocated data set for `n` particles, and returns its offset in the file.
    pub fn create(&self, file: &hdf5::File, n: usize) -> hdf5::Result<u64> {
        let set = match self.number_type {
            NumberType::U8 => file.new_dataset::<u8>(),
            NumberType::U32 => file.new_dataset::<u32>(),
            NumberType::U64 => file.new_dataset::<u64>(),
            NumberType::F16 => file.new_dataset::<half::f16>(),
            NumberType::F32 => file.new_dataset::<f32>(),
            NumberType::F64 => file.new_dataset::<f64>(),
        };
        let set = set.alloc_time(Some(AllocTime::Early)).fill_time(FillTime::Never);
        let set = set.shape(self.shape(n)).create(self.name)?;
        set.offset().ok_or_else(|| hdf5::Error::from(format!("/{} has no offset in the file", self.name)))
    }
}

/// Layout of `/images`, with entries of box size squared.
pub fn images(dtype: Dtype, entry: &[usize; 2]) -> DataSetLayout<'_> {
    DataSetLayout { name: "images", number_type: dtype.into(), entry }
}

/// The half of each particle, 0 or 1, sorted.
pub const HALF: DataSetLayout = DataSetLayout { name: "half", number_type: NumberType::U8, entry: &[] };

/// CRC-32 of the bytes of each image.
pub const CHECKSUM: DataSetLayout =
    DataSetLayout { name: "source/checksum", number_type: NumberType::U32, entry: &[] };

/// Sum of the squared pixels of each image.
pub const ENERGY: DataSetLayout =
    DataSetLayout { name: "source/energy", number_type: NumberType::F64, entry: &[] };

/// Shift (x, y) that was applied to each image, in pixels of the stored box; a file may lack it.
pub const APPLIED_SHIFT: DataSetLayout =
    DataSetLayout { name: "pose/applied_shift", number_type: NumberType::F32, entry: &[2] };

/// A data set that holds one field of [`Particle`].
pub struct Column {
    pub shape: DataSetLayout<'static>,
    /// Appends the encoded field.
    pub encode: fn(&Particle, &mut Vec<u8>),
    /// Sets the field from its encoding.
    pub decode: fn(&mut Particle, &[u8]),
}

/// Parts of the identity of a set, by the name that messages use, with their data sets. `/source` beside checksums and energies is in none:
/// where a raw image came from decides nothing. Neither is the shift that was applied to an image: the image shows it.
pub const PARTS: [(&str, &[&str]); 9] = [
    ("images", &["source/checksum", "source/energy"]),
    ("halves", &["half"]),
    ("poses", &["pose/rotation"]),
    ("shifts", &["pose/shift"]),
    ("defocus", &["ctf/defocus_u", "ctf/defocus_v", "ctf/astigmatism_angle"]),
    ("phase shifts", &["ctf/phase_shift"]),
    ("B factors", &["ctf/b_factor"]),
    ("scales of CTFs", &["ctf/scale"]),
    ("optics groups of particles", &["ctf/optics_group"]),
];

/// All fields of [`Particle`].
pub const COLUMNS: [Column; 11] = [
    Column {
        shape: DataSetLayout { name: "pose/rotation", number_type: NumberType::F64, entry: &[3, 3] },
        encode: |particle, bytes| encode(particle.rotation.as_flattened(), bytes),
        decode: |particle, bytes| decode(particle.rotation.as_flattened_mut(), bytes),
    },
    Column {
        shape: DataSetLayout { name: "pose/shift", number_type: NumberType::F64, entry: &[2] },
        encode: |particle, bytes| encode(&particle.shift, bytes),
        decode: |particle, bytes| decode(&mut particle.shift, bytes),
    },
    Column {
        shape: number("ctf/defocus_u"),
        encode: |particle, bytes| encode(&[particle.ctf.defocus_u], bytes),
        decode: |particle, bytes| decode(std::slice::from_mut(&mut particle.ctf.defocus_u), bytes),
    },
    Column {
        shape: number("ctf/defocus_v"),
        encode: |particle, bytes| encode(&[particle.ctf.defocus_v], bytes),
        decode: |particle, bytes| decode(std::slice::from_mut(&mut particle.ctf.defocus_v), bytes),
    },
    Column {
        shape: number("ctf/astigmatism_angle"),
        encode: |particle, bytes| encode(&[particle.ctf.astigmatism_angle], bytes),
        decode: |particle, bytes| decode(std::slice::from_mut(&mut particle.ctf.astigmatism_angle), bytes),
    },
    Column {
        shape: number("ctf/phase_shift"),
        encode: |particle, bytes| encode(&[particle.ctf.phase_shift], bytes),
        decode: |particle, bytes| decode(std::slice::from_mut(&mut particle.ctf.phase_shift), bytes),
    },
    Column {
        shape: number("ctf/b_factor"),
        encode: |particle, bytes| encode(&[particle.ctf.b_factor], bytes),
        decode: |particle, bytes| decode(std::slice::from_mut(&mut particle.ctf.b_factor), bytes),
    },
    Column {
        shape: number("ctf/scale"),
        encode: |particle, bytes| encode(&[particle.ctf.scale], bytes),
        decode: |particle, bytes| decode(std::slice::from_mut(&mut particle.ctf.scale), bytes),
    },
    Column {
        shape: DataSetLayout { name: "ctf/optics_group", number_type: NumberType::U32, entry: &[] },
        encode: |particle, bytes| bytes.extend(particle.optics_group.to_le_bytes()),
        decode: |particle, bytes| particle.optics_group = unsigned(bytes) as u32,
    },
    Column {
        shape: DataSetLayout { name: "source/file", number_type: NumberType::U32, entry: &[] },
        encode: |particle, bytes| {
            bytes.extend(particle.source.map_or(NO_SOURCE, |source| source.file).to_le_bytes());
        },
        decode: |particle, bytes| {
            let file = unsigned(bytes) as u32;
            particle.source = (file != NO_SOURCE).then_some(Source { file, index: 0 });
        },
    },
    // After `source/file`, which decides whether there is a source.
    Column {
        shape: DataSetLayout { name: "source/index", number_type: NumberType::U64, entry: &[] },
        encode: |particle, bytes| {
            bytes.extend(particle.source.map_or(0, |source| source.index).to_le_bytes());
        },
        decode: |particle, bytes| {
            if let Some(source) = &mut particle.source {
                source.index = unsigned(bytes);
            }
        },
    },
];

/// Value of `/source/file` for an image without a source.
const NO_SOURCE: u32 = u32::MAX;

const fn number(name: &'static str) -> DataSetLayout<'static> {
    DataSetLayout { name, number_type: NumberType::F64, entry: &[] }
}

fn encode(values: &[f64], bytes: &mut Vec<u8>) {
    values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
}

fn decode(values: &mut [f64], bytes: &[u8]) {
    for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(8)) {
        *value = f64::from_bits(unsigned(bytes));
    }
}

/// Decodes an unsigned little-endian number of up to eight bytes.
fn unsigned(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// Offset of each data set in bytes from the start of the file.
#[derive(Clone, Debug)]
pub struct Offsets {
    pub images: u64,
    pub half: u64,
    pub checksum: u64,
    pub energy: u64,
    /// In the order of [`COLUMNS`].
    pub columns: [u64; COLUMNS.len()],
    /// `None` if the file lacks it.
    pub applied_shift: Option<u64>,
    /// `None` if the file lacks the record of the import.
    pub import: Option<u64>,
}
