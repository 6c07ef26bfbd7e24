use super::*;

fn cube() -> Volume {
    Volume::new(Array3::from_shape_fn((3, 4, 5), |(z, y, x)| (100 * z + 10 * y + x) as f32), 1.5)
}

#[test]
fn a_volume_survives_the_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mrc");
    write_volume(&path, &cube()).unwrap();
    let back = read_volume(&path).unwrap();
    assert_eq!(back.data, cube().data);
    assert!((back.pixel_size - 1.5).abs() < 1e-6);
}

#[test]
fn every_mode_and_both_byte_orders_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.mrc");
    let statistics = Statistics::of([0.0].into_iter());
    for (mode, width) in [(0i32, 1usize), (1, 2), (2, 4), (6, 2), (12, 2)] {
        for big in [false, true] {
            let mut bytes = header_bytes([2, 1, 1], 1.0, true, &statistics).to_vec();
            bytes[12..16].copy_from_slice(&mode.to_le_bytes());
            if big {
                // Text (MAP, stamp, labels) keeps its order; all numbers are reversed.
                for word in (0..56).filter(|w| *w != 52 && *w != 53) {
                    bytes[4 * word..4 * word + 4].reverse();
                }
                bytes[212] = 0x11;
                bytes[213] = 0x11;
            }
            for value in [3.0f32, 7.0] {
                let mut word = match mode {
                    0 => vec![value as u8],
                    1 | 6 => (value as u16).to_le_bytes().to_vec(),
                    2 => value.to_le_bytes().to_vec(),
                    _ => half::f16::from_f32(value).to_le_bytes().to_vec(),
                };
                assert_eq!(word.len(), width);
                if big {
                    word.reverse();
                }
                bytes.extend(word);
            }
            std::fs::write(&path, &bytes).unwrap();
            let volume = read_volume(&path).unwrap();
            assert_eq!(volume.data.as_slice().unwrap(), [3.0, 7.0], "mode {mode}, big {big}");
        }
    }
}

#[test]
fn permuted_axes_are_reordered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.mrc");
    write_volume(&path, &cube()).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    // Columns along z, rows along x, sections along y.
    for (word, axis) in [(16usize, 3i32), (17, 1), (18, 2)] {
        bytes[4 * word..4 * word + 4].copy_from_slice(&axis.to_le_bytes());
    }
    std::fs::write(&path, &bytes).unwrap();
    let turned = read_volume(&path).unwrap();
    assert_eq!(turned.data.dim(), (5, 3, 4));
    assert_eq!(turned.data[[4, 2, 1]], cube().data[[2, 1, 4]]);
}

#[test]
fn truncated_files_and_unsupported_modes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("short.mrc");
    write_volume(&path, &cube()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let message = read_volume(&path).unwrap_err().to_string();
    assert!(message.contains("short.mrc") && message.contains("states 1264"), "{message}");
    for (mode, what) in [(3, "complex 16-bit"), (4, "complex 32-bit"), (101, "4-bit"), (7, "unknown")] {
        let mut other = bytes.clone();
        other[12] = mode;
        std::fs::write(&path, &other).unwrap();
        let message = read_volume(&path).unwrap_err().to_string();
        assert!(message.contains(&format!("mode {mode} ({what}")) && message.contains("mode 2"), "{message}");
    }
    let packed = [&[0x1f, 0x8b, 8][..], &bytes].concat();
    std::fs::write(&path, packed).unwrap();
    assert!(read_volume(&path).unwrap_err().to_string().contains("gunzip"));
}

#[test]
fn an_extended_header_is_skipped_and_a_cell_of_zero_is_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("e.mrc");
    write_volume(&path, &cube()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let (header, data) = bytes.split_at(HEADER);
    let mut header = header.to_vec();
    header[92..96].copy_from_slice(&160i32.to_le_bytes());
    // The cell.
    header[40..52].fill(0);
    std::fs::write(&path, [&header[..], &[0xa5; 160], data].concat()).unwrap();
    let back = read_volume(&path).unwrap();
    assert_eq!((back.data, back.pixel_size), (cube().data, 0.0));
}

/// A file of one row of bytes in mode 0, with these header words.
fn bytes_of_mode_0(path: &Path, words: &[(usize, [u8; 4])], big: bool) -> Vec<f32> {
    let statistics = Statistics { min: 0.0, max: -1.0, mean: -2.0, deviation: -1.0 };
    let mut file = header_bytes([4, 1, 1], 1.0, false, &statistics).to_vec();
    file[12..16].copy_from_slice(&0i32.to_le_bytes());
    for (word, value) in words {
        file[4 * (word - 1)..4 * word].copy_from_slice(value);
    }
    if big {
        for word in (0..56).filter(|w| *w != 52 && *w != 53) {
            file[4 * word..4 * word + 4].reverse();
        }
    }
    file.extend([0u8, 127, 128, 255]);
    std::fs::write(path, file).unwrap();
    let mut image = vec![0.0; 4];
    Stack::open(path).unwrap().read_image(0, &mut image, &mut Vec::new()).unwrap();
    assert_eq!(read_volume(path).unwrap().data.as_slice().unwrap(), image, "maps and stacks alike");
    image
}

#[test]
fn bytes_are_signed_or_unsigned_as_the_header_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.mrcs");
    let (signed, unsigned) = ([0.0, 127.0, -128.0, -1.0], [0.0, 127.0, 128.0, 255.0]);
    let stamp = (39, 1_146_047_817i32.to_le_bytes());
    let flags = |flags: i32| (40, flags.to_le_bytes());
    let range = |min: f32, max: f32| [(20, min.to_le_bytes()), (21, max.to_le_bytes())];
    for big in [false, true] {
        assert_eq!(bytes_of_mode_0(&path, &[], big), signed, "nothing known: MRC2014");
        assert_eq!(bytes_of_mode_0(&path, &[stamp, flags(0)], big), unsigned);
        assert_eq!(bytes_of_mode_0(&path, &[stamp, flags(8)], big), unsigned);
        assert_eq!(bytes_of_mode_0(&path, &[stamp, flags(1)], big), signed);
        // The flag counts more than the range, and flags without the stamp are something else.
        let [min, max] = range(0.0, 255.0);
        assert_eq!(bytes_of_mode_0(&path, &[stamp, flags(1), min, max], big), signed);
        assert_eq!(bytes_of_mode_0(&path, &[flags(0)], big), signed);
        assert_eq!(bytes_of_mode_0(&path, &[min, max], big), unsigned);
        for (min, max) in [(-128.0, 127.0), (0.0, 127.0), (-1.0, 200.0), (0.0, 4095.0), (0.0, f32::NAN)] {
            assert_eq!(bytes_of_mode_0(&path, &range(min, max), big), signed, "{min} to {max}");
        }
    }
    let mut file = std::fs::read(&path).unwrap();
    file[152..156].copy_from_slice(&1_146_047_817i32.to_be_bytes());
    file[156..160].copy_from_slice(&16i32.to_be_bytes());
    std::fs::write(&path, file).unwrap();
    let message = Stack::open(&path).unwrap_err().to_string();
    assert!(message.contains("mode 0 (4-bit integers") && message.contains("mode 2"), "{message}");
}

#[test]
fn the_frame_of_a_map_survives_reading_and_writing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.mrc");
    let frame = Frame { start: [-3, 5, 7], origin: [1.5, -20.25, 0.0] };
    write_volume(&path, &cube().in_frame(frame)).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    assert_eq!(read_volume(&path).unwrap().frame, frame);
    assert_eq!(frame.corner([1.5; 3]), frame.origin);
    assert_eq!(Frame { origin: [0.0; 3], ..frame }.corner([1.5; 3]), [-4.5, 7.5, 10.5]);
    // Columns along z, rows along x, sections along y: the starts are those of the stored axes, ORIGIN that of x, y, z.
    for (word, axis) in [(16usize, 3i32), (17, 1), (18, 2)] {
        bytes[4 * word..4 * word + 4].copy_from_slice(&axis.to_le_bytes());
    }
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(read_volume(&path).unwrap().frame, Frame { start: [5, 7, -3], ..frame });
    bytes[196..200].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(read_volume(&path).unwrap().frame, Frame { start: [5, 7, -3], origin: [0.0; 3] });
}
