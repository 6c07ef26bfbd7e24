//! How fast a particle file is read from the page cache, on one thread, beside what the system itself takes:
//! `cargo bench --bench reader`.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use cryosplat_mpi::imaging::ctf::{CtfParameters, Optics};
use cryosplat_mpi::imaging::energy;
use cryosplat_mpi::imaging::pose::rotation_from_relion;
use cryosplat_mpi::particles::store::{Block, Dtype, Header, Particle, Reader, Store, Writer};

/// Bytes of images in the file.
const FILE: usize = 256 << 20;
/// Bytes of images in a block.
const BLOCK: usize = 4 << 20;
/// Passes over the file.
const PASSES: usize = 15;

fn main() {
    println!("| GB/s, blocks of 4 MiB | pread | checksums | energies | all three | `read` |");
    println!("|---|--:|--:|--:|--:|--:|");
    for (box_size, dtype) in [(64, Dtype::F32), (128, Dtype::F32), (256, Dtype::F32), (256, Dtype::F16)] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("p.h5");
        let stride = box_size * box_size * if dtype == Dtype::F32 { 4 } else { 2 };
        write(&path, box_size, dtype, FILE / stride);
        let store = Store::open(&path).expect("just written");
        let (reader, file) = (store.reader(), File::open(&path).expect("just written"));
        let count = BLOCK / stride;
        let blocks: Vec<usize> = (0..store.len() / count).map(|block| block * count).collect();

        let mut bytes = vec![0u8; BLOCK];
        let pread = |reader: &Reader, first: usize, bytes: &mut [u8]| {
            let at = reader.bytes_of(first..first + count).start;
            file.read_exact_at(bytes, at).expect("just written");
        };
        let speed_of_pread = best(&blocks, |first| pread(&reader, first, &mut bytes));
        let checksums = best(&blocks, |_| {
            bytes.chunks_exact(stride).for_each(|image| {
                black_box(crc32fast::hash(image));
            });
        });
        let values = vec![0.5f32; count * box_size * box_size];
        let energies = best(&blocks, |_| {
            values.chunks_exact(box_size * box_size).for_each(|image| {
                black_box(energy(image));
            });
        });
        let together = best(&blocks, |first| {
            pread(&reader, first, &mut bytes);
            for (image, values) in bytes.chunks_exact(stride).zip(values.chunks_exact(box_size * box_size)) {
                black_box((crc32fast::hash(image), energy(values)));
            }
        });
        let mut block = Block::default();
        let read =
            best(&blocks, |first| reader.read(first..first + count, &mut block).expect("just written"));
        let name = if dtype == Dtype::F32 { "f32" } else { "f16" };
        println!(
            "| {box_size} px, {name} | {speed_of_pread:.2} | {checksums:.2} | {energies:.2} | {together:.2} | {read:.2} |"
        );
    }
}

/// Stored gigabytes a second in passes over `blocks`, each of which counts at its fastest: on a machine with other work
/// too that is when it was not interrupted.
fn best(blocks: &[usize], mut each: impl FnMut(usize)) -> f64 {
    let mut seconds = vec![f64::INFINITY; blocks.len()];
    for _ in 0..PASSES {
        for (shortest, &first) in seconds.iter_mut().zip(blocks) {
            let started = Instant::now();
            each(first);
            *shortest = shortest.min(started.elapsed().as_secs_f64());
        }
    }
    (blocks.len() * BLOCK) as f64 / seconds.iter().sum::<f64>() / 1e9
}

fn write(path: &Path, box_size: usize, dtype: Dtype, n: usize) {
    let header = Header {
        box_size,
        pixel_size: 1.0,
        normalized: true,
        inverted: false,
        optics: vec![Optics { voltage: 300.0, spherical_aberration: 2.7, amplitude_contrast: 0.1 }],
        halves: [n, 0],
        source_files: Vec::new(),
    };
    let particle = Particle {
        rotation: rotation_from_relion(10.0, 20.0, 30.0),
        shift: [0.0; 2],
        ctf: CtfParameters::default(),
        optics_group: 0,
        source: None,
    };
    // In large pieces, as `import` writes: the system then keeps the file in large pieces too, and reads it faster.
    let count = 256;
    let images: Vec<f32> = (0..count * box_size * box_size).map(|i| (i as f32 * 0.37).sin()).collect();
    let mut writer = Writer::create(path, &header, dtype).expect("a temporary folder");
    for _ in 0..n / count {
        writer.append(0, &vec![particle; count], &images).expect("finite");
    }
    writer.finish().expect("room in the temporary folder");
}
