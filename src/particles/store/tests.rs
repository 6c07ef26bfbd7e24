use super::*;
use crate::imaging::ctf::EvenPolynomial;
use crate::imaging::energy;
use crate::imaging::pose::rotation_from_relion;
use crate::particles::Subset;

const BOX: usize = 8;
const PIXELS: usize = BOX * BOX;

fn header(halves: [usize; 2]) -> Header {
    Header {
        box_size: BOX,
        pixel_size: 2.5,
        normalized: true,
        inverted: false,
        optics: vec![
            Optics::new(300.0, 2.7, 0.1),
            Optics {
                name: "squares of \u{e9}toile".into(),
                even: EvenPolynomial([0.5, -1.0, 2.0, 3.0, 4.0, -5.0, 6.0, 7.0, 8.0]),
                magnification: [[1.01, 0.002], [-0.003, 0.99]],
                premultiplied: true,
                resolution_limit: 3.0,
                ..Optics::new(200.0, 1.4, 0.07)
            },
        ],
        halves,
        source_files: vec!["stack.mrcs".into(), String::new(), "a longer name.mrcs".into()],
        imported_from: Some("../Réfine3D/run_data.star".into()),
    }
}

fn particle(i: usize) -> Particle {
    Particle {
        rotation: rotation_from_relion(i as f64, 40.0, 70.0),
        shift: [i as f64, -0.5],
        ctf: CtfParameters {
            defocus_u: 1.2e4 + i as f64,
            defocus_v: 1.1e4,
            astigmatism_angle: 7.0,
            phase_shift: 3.0,
            b_factor: 2.0,
            scale: 0.9,
        },
        optics_group: (i % 2) as u32,
        source: (!i.is_multiple_of(3)).then_some(Source { file: 0, index: i as u64 + (1 << 40) }),
    }
}

fn image(i: usize) -> Vec<f32> {
    (0..PIXELS).map(|p| ((i * PIXELS + p) % 97) as f32 * 0.25).collect()
}

/// Writes the particles of both halves, alternately, in pieces of `size`.
fn write(path: &Path, halves: [usize; 2], dtype: Dtype, size: usize) {
    let mut writer = Writer::create(path, &header(halves), dtype).unwrap();
    let mut done = [0, 0];
    while done != halves {
        for half in [0, 1] {
            let rows = done[half]..halves[half].min(done[half] + size);
            let first = half * halves[0];
            let particles: Vec<Particle> = rows.clone().map(|i| particle(first + i)).collect();
            let images: Vec<f32> = rows.clone().flat_map(|i| image(first + i)).collect();
            writer.append(Subset::HALVES[half], &particles, &images).unwrap();
            done[half] = rows.end;
        }
    }
    writer.finish().unwrap();
}

fn refused(path: &Path, fragments: &[&str]) {
    let message = Store::open(path).unwrap_err().to_string();
    assert!(fragments.iter().all(|f| message.contains(f)) && !message.contains('\n'), "{message}");
}

#[test]
fn a_set_survives_the_round_trip_in_pieces_of_any_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.h5");
    for (dtype, halves, size) in [
        (Dtype::F32, [70, 61], 10),
        (Dtype::F16, [70, 61], 131),
        (Dtype::F32, [0, 3], 2),
        (Dtype::F16, [3, 0], 1),
    ] {
        write(&path, halves, dtype, size);
        let store = Store::open(&path).unwrap();
        let n = halves[0] + halves[1];
        assert_eq!((store.header(), store.dtype(), store.len()), (&header(halves), dtype, n));
        assert_eq!(
            [store.rows(Subset::Half1), store.rows(Subset::Half2), store.rows(Subset::All)],
            [0..halves[0], halves[0]..n, 0..n]
        );
        store.validate().unwrap();
        store.verify().unwrap();
        let reader = store.reader();
        let mut block = Block::default();
        for rows in [0..n, n / 3..n - 1, n - 1..n, 1..1] {
            reader.read(rows.clone(), &mut block).unwrap();
            assert_eq!((block.first, block.defects.len()), (rows.start, 0));
            assert_eq!(block.particles, rows.clone().map(particle).collect::<Vec<_>>());
            assert_eq!(block.particles, reader.particles(rows.clone()).unwrap());
            assert_eq!(block.images[..], rows.clone().flat_map(image).collect::<Vec<_>>()[..]);
            assert_eq!(block.energies, rows.clone().map(|i| energy(&image(i))).collect::<Vec<_>>());
            let mut again = Block::default();
            reader.read_again(rows, &mut again).unwrap();
            assert_eq!(
                (again.first, &again.particles, &again.images),
                (block.first, &block.particles, &block.images)
            );
            assert_eq!((&again.energies, again.defects.len()), (&block.energies, 0));
        }
    }
}

#[test]
fn a_copy_of_the_file_reads_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("p.h5"), folder.path().join("copy"));
    write(&path, [5, 4], Dtype::F32, 9);
    let reader = Store::open(&path).unwrap().reader();
    std::fs::copy(&path, &copy).unwrap();
    std::fs::write(&path, b"gone").unwrap();
    let mut block = Block::default();
    reader.on(std::fs::File::open(&copy).unwrap()).read(2..7, &mut block).unwrap();
    assert_eq!(block.images[..], (2..7).flat_map(image).collect::<Vec<_>>()[..]);
    let message = reader.read(2..7, &mut block).unwrap_err().to_string();
    assert!(message.contains("p.h5") && message.contains("truncated"), "{message}");
}

#[test]
fn the_identity_depends_on_the_particles_and_not_on_how_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.h5");
    let identity = |halves, dtype, size| {
        write(&path, halves, dtype, size);
        Store::open(&path).unwrap().validate().unwrap()
    };
    let one = identity([7, 6], Dtype::F32, 3);
    assert_eq!(one, identity([7, 6], Dtype::F32, 7));
    assert_ne!(one, identity([6, 7], Dtype::F32, 7));
    assert_ne!(one, identity([7, 6], Dtype::F16, 7));
}

#[test]
fn damage_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.h5");
    for dtype in [Dtype::F32, Dtype::F16] {
        write(&path, [70, 61], dtype, 50);
        let sound = std::fs::read(&path).unwrap();
        let store = Store::open(&path).unwrap();
        let mut flipped = sound.clone();
        flipped[store.reader().bytes_of(77..78).end as usize - 1] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        let store = Store::open(&path).unwrap();
        let message = store.verify().unwrap_err().to_string();
        let expected = "particle 78 (image 1099511627854 of stack.mrcs): does not match its checksum";
        assert!(message.contains(expected), "{message}");
        let mut block = Block::default();
        store.reader().read(70..80, &mut block).unwrap();
        assert_eq!(block.defects, [(77, Defect::Checksum)]);
        store.reader().read_again(70..80, &mut block).unwrap();
        assert_eq!(block.defects, []);
        store.reader().read(78..80, &mut block).unwrap();
        assert_eq!(block.defects, []);
        for length in [sound.len() / 2, sound.len() - 1] {
            std::fs::write(&path, &sound[..length]).unwrap();
            refused(&path, &["p.h5", "truncated"]);
        }
    }
    std::fs::write(&path, b"not at all").unwrap();
    refused(&path, &["p.h5", "is a text file, expected a particle file"]);
}

/// Overwrites bytes of a data set.
fn poke(path: &Path, name: &str, at: usize, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = hdf5::File::open(path).unwrap();
    let offset = file.dataset(name).unwrap().offset().unwrap();
    drop(file);
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset + at as u64).unwrap();
}

#[test]
fn a_ctf_that_overflows_is_a_defect() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.h5");
    for (name, value) in [("ctf/b_factor", -1e9), ("ctf/scale", -2e12)] {
        write(&path, [3, 3], Dtype::F32, 3);
        poke(&path, name, 4 * 8, &f64::to_le_bytes(value));
        let store = Store::open(&path).unwrap();
        let mut block = Block::default();
        store.reader().read(0..6, &mut block).unwrap();
        assert_eq!(block.defects, [(4, Defect::Ctf)]);
        store.reader().read_again(0..6, &mut block).unwrap();
        assert_eq!(block.defects, [(4, Defect::Ctf)]);
    }
}

#[test]
fn pixels_that_are_not_finite_are_found_despite_a_valid_checksum() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.h5");
    for value in [f32::NAN, f32::NEG_INFINITY, 1e30] {
        write(&path, [3, 3], Dtype::F32, 3);
        let mut bad = image(4);
        bad[9] = value;
        let bytes: &[u8] = bytemuck::cast_slice(&bad);
        poke(&path, "images", 4 * bytes.len(), bytes);
        poke(&path, "source/checksum", 4 * 4, &crc32fast::hash(bytes).to_le_bytes());
        let store = Store::open(&path).unwrap();
        let mut block = Block::default();
        store.reader().read(0..6, &mut block).unwrap();
        assert_eq!(block.defects, [(4, Defect::NotFinite)]);
        // Also with a matching energy; a wrong energy is refused.
        poke(&path, "source/energy", 4 * 8, &energy(&bad).to_le_bytes());
        store.reader().read(0..6, &mut block).unwrap();
        assert_eq!(block.defects, [(4, Defect::NotFinite)]);
        store.reader().read_again(0..6, &mut block).unwrap();
        assert_eq!(block.defects, [(4, Defect::NotFinite)]);
        poke(&path, "source/energy", 3 * 8, &energy(&image(2)).to_le_bytes());
        store.reader().read(0..4, &mut block).unwrap();
        assert_eq!(block.defects, [(3, Defect::Checksum)]);
        poke(&path, "source/energy", 3 * 8, &energy(&image(3)).to_le_bytes());
        let message = store.verify().unwrap_err().to_string();
        assert!(message.contains("particle 5 (image") && message.contains("not finite"), "{message}");

        let mut writer = Writer::create(&path, &header([1, 0]), Dtype::F32).unwrap();
        let message = writer.append(Subset::Half1, &[particle(0)], &bad).unwrap_err().to_string();
        assert!(message.contains("particle 1: has a pixel that is not finite"), "{message}");
    }
    // Fits f32 but not f16.
    let mut writer = Writer::create(&path, &header([1, 0]), Dtype::F16).unwrap();
    assert!(writer.append(Subset::Half1, &[particle(0)], &[7e4; PIXELS]).is_err());
}

#[test]
fn unsorted_halves_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.h5");
    write(&path, [4, 3], Dtype::F32, 7);
    poke(&path, "half", 5, &[0]);
    refused(&path, &["particle 6", "half 1", "not sorted by half"]);
    poke(&path, "half", 2, &[2]);
    refused(&path, &["particle 3", "the half is 2, expected 0 or 1"]);
    poke(&path, "half", 0, &[0, 1, 1, 1, 1, 1, 1]);
    assert_eq!(Store::open(&path).unwrap().header().halves, [1, 6]);
}

#[test]
fn columns_with_a_wrong_layout_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.h5");
    write(&path, [4, 3], Dtype::F32, 7);
    let names: Vec<String> = columns::COLUMNS.iter().map(|c| c.shape.name.to_owned()).collect();
    let others = ["half", "source/checksum", "source/energy", "images"].map(str::to_owned);
    for name in names.iter().chain(&others) {
        let replaced = |make: &dyn Fn(&hdf5::File)| {
            write(&path, [4, 3], Dtype::F32, 7);
            let file = hdf5::File::open_rw(&path).unwrap();
            file.unlink(name).unwrap();
            make(&file);
        };
        let at = format!("/{name}");
        replaced(&|_| {});
        refused(&path, &["p.h5", &at, "does not exist"]);
        replaced(&|file| {
            file.new_dataset::<i16>().shape(shape_of(name, 7)).create(name.as_str()).unwrap();
        });
        refused(&path, &["p.h5", &at, "int16, expected"]);
        if name != "images" {
            replaced(&|file| create(file, name, shape_of(name, 6), false));
            refused(&path, &["p.h5", &at, "has shape [6", "expected [7"]);
        }
        replaced(&|file| create(file, name, shape_of(name, 7), true));
        refused(&path, &["p.h5", &at, "is chunked, expected contiguous storage"]);
    }
    write(&path, [4, 3], Dtype::F32, 7);
    let file = hdf5::File::open_rw(&path).unwrap();
    file.attr("version").unwrap().write_scalar(&1u32).unwrap();
    file.close().unwrap();
    refused(&path, &["p.h5", "version 1", "expected version 2", "again"]);
}

fn shape_of(name: &str, n: usize) -> Vec<usize> {
    match name {
        "images" => vec![n, BOX, BOX],
        "pose/rotation" => vec![n, 3, 3],
        "pose/shift" => vec![n, 2],
        _ => vec![n],
    }
}

/// A data set of the right type.
fn create(file: &hdf5::File, name: &str, shape: Vec<usize>, chunked: bool) {
    let set = match name {
        "half" => file.new_dataset::<u8>(),
        "images" => file.new_dataset::<f32>(),
        "source/checksum" | "source/file" | "ctf/optics_group" => file.new_dataset::<u32>(),
        "source/index" => file.new_dataset::<u64>(),
        _ => file.new_dataset::<f64>(),
    };
    let set = if chunked { set.chunk(shape.clone()) } else { set };
    set.shape(shape).create(name).unwrap();
}

#[test]
fn invalid_particles_are_refused_on_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.h5");
    let refuse = |change: &dyn Fn(&mut Particle), fragment: &str| {
        let mut writer = Writer::create(&path, &header([3, 3]), Dtype::F32).unwrap();
        let mut particles = [3, 4, 5].map(particle);
        change(&mut particles[1]);
        let message = writer.append(Subset::Half2, &particles, &[0.0; 3 * PIXELS]).unwrap_err().to_string();
        assert!(message.contains("particle 5") && message.contains(fragment), "{message}");
    };
    refuse(&|p| p.rotation[0][0] = f64::NAN, "not a rotation");
    refuse(&|p| p.ctf.defocus_u = f64::INFINITY, "not finite");
    refuse(&|p| p.shift[1] = f64::NAN, "not finite");
    refuse(&|p| p.optics_group = 2, "optics group is 2 (from 0), but the set has 2");
    // An incomplete set leaves no file.
    let message =
        Writer::create(&path, &header([1, 1]), Dtype::F32).unwrap().finish().unwrap_err().to_string();
    assert!(message.contains("[0, 0] of [1, 1]"), "{message}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Data sets without storage may claim any size; so may damaged metadata.
#[test]
fn sizes_beyond_the_file_are_refused_before_anything_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.h5");
    for shape in [[7, 1 << 20, 1 << 20], [7, 1 << 32, 1 << 32]] {
        write(&path, [4, 3], Dtype::F32, 4);
        let file = hdf5::File::open_rw(&path).unwrap();
        let place = file.dataset("images").unwrap().offset().unwrap();
        file.close().unwrap();
        // The dataspace in the object header of the images: three consecutive dimensions.
        let mut bytes = std::fs::read(&path).unwrap();
        let words = |shape: [u64; 3]| shape.map(u64::to_le_bytes).concat();
        let stored = words([7, BOX as u64, BOX as u64]);
        let at = bytes[..place as usize].windows(stored.len()).position(|w| w == stored).unwrap();
        bytes[at..at + stored.len()].copy_from_slice(&words(shape));
        std::fs::write(&path, bytes).unwrap();
        refused(&path, &["p.h5"]);
    }
}

#[test]
fn the_largest_source_index_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.h5");
    write(&path, [4, 3], Dtype::F32, 4);
    poke(&path, "source/index", 8, &u64::MAX.to_le_bytes());
    let message = Store::open(&path).unwrap().image_error(1, Defect::Checksum).to_string();
    assert!(message.contains(&format!("image {} of stack.mrcs", u64::MAX)), "{message}");
}

/// Turns a file into one of version 2: texts of variable length, and no aberrations.
fn make_version_2(path: &Path) {
    use hdf5::types::VarLenUnicode;
    let file = hdf5::File::open_rw(path).unwrap();
    for name in ["name", "even_aberration", "magnification", "premultiplied", "resolution_limit"] {
        file.unlink(&format!("optics/{name}")).unwrap();
    }
    file.unlink("source/files").unwrap();
    let text = |text: &str| text.parse::<VarLenUnicode>().unwrap();
    let names: Vec<VarLenUnicode> = header([1, 1]).source_files.iter().map(|name| text(name)).collect();
    file.new_dataset_builder().with_data(&names).create("source/files").unwrap();
    file.delete_attr("format").unwrap();
    file.new_attr::<VarLenUnicode>().create("format").unwrap().write_scalar(&text(FORMAT)).unwrap();
    file.attr("version").unwrap().write_scalar(&2u32).unwrap();
    file.close().unwrap();
}

#[test]
fn files_of_version_2_are_read_without_their_texts_passing_through_hdf5() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.h5");
    write(&path, [3, 2], Dtype::F32, 5);
    let digests = |store: &Store| store.inspect(|_, _| Ok(())).unwrap();
    let before = digests(&Store::open(&path).unwrap());
    make_version_2(&path);
    let store = Store::open(&path).unwrap();
    assert_eq!(store.header().source_files, header([3, 2]).source_files);
    assert_eq!(store.header().optics[1], Optics::new(200.0, 1.4, 0.07));
    // The file had aberrations.
    assert_eq!(digests(&store).differences_from(&before), ["optics"]);
    // Damage to the heap of texts is an error, whatever byte it hits.
    let sound = std::fs::read(&path).unwrap();
    let heap = sound.windows(4).position(|bytes| bytes == b"GCOL").unwrap();
    let mut refusals = 0;
    for at in heap..heap + 96 {
        for value in [0x00, 0x7f, 0xff] {
            let mut bytes = sound.clone();
            bytes[at] = value;
            std::fs::write(&path, &bytes).unwrap();
            refusals += usize::from(Store::open(&path).is_err());
        }
    }
    assert!(refusals > 20, "{refusals}");
}

#[test]
fn views_have_the_magnification_of_their_optics_group() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.h5");
    write(&path, [3, 2], Dtype::F32, 5);
    let reader = Store::open(&path).unwrap().reader();
    let particles = reader.particles(0..2).unwrap();
    assert_eq!(reader.view(&particles[0]).rotation, particles[0].rotation);
    let (view, w) = (reader.view(&particles[1]).rotation, particles[1].rotation);
    // The slice through the map at k is that at M k: P^T k = W^T M k.
    let k = [0.3, -0.2];
    let transformed = [1.01 * k[0] + 0.002 * k[1], -0.003 * k[0] + 0.99 * k[1]];
    for axis in 0..3 {
        let got = view[0][axis] * k[0] + view[1][axis] * k[1];
        let want = w[0][axis] * transformed[0] + w[1][axis] * transformed[1];
        assert!((got - want).abs() < 1e-15);
    }
}

#[test]
fn applied_shifts_are_kept_where_the_writer_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.h5");
    write(&path, [3, 2], Dtype::F32, 2);
    let without = Store::open(&path).unwrap();
    assert_eq!(without.reader().applied_shifts(0..5).unwrap(), None);
    let shifts: Vec<[f32; 2]> = (0..5).map(|i| [0.5 * i as f32, -1.25]).collect();
    let other = folder.path().join("q.h5");
    let records = Records { applied_shifts: true, import: true };
    let mut writer = Writer::create_with(&other, &header([3, 2]), Dtype::F32, &records).unwrap();
    // Half 2 first.
    for (half, rows) in [(Subset::Half2, 3..5), (Subset::Half1, 0..1), (Subset::Half1, 1..3)] {
        let particles: Vec<Particle> = rows.clone().map(particle).collect();
        let images: Vec<f32> = rows.clone().flat_map(image).collect();
        writer.append_with(half, &particles, &shifts[rows], &images).unwrap();
    }
    let lines = ["contrast: inverted".to_owned(), "\u{e9}".repeat(400)];
    writer.record_import(&lines).unwrap();
    writer.finish().unwrap();
    let store = Store::open(&other).unwrap();
    assert_eq!(store.import_record(), [lines[0].clone(), "\u{e9}".repeat(256)]);
    assert!(without.import_record().is_empty());
    for rows in [0..5, 2..4, 4..4] {
        assert_eq!(store.reader().applied_shifts(rows.clone()).unwrap().unwrap(), shifts[rows]);
    }
    // They are no part of the identity: the images show them.
    assert_eq!(store.validate().unwrap(), without.validate().unwrap());
}
