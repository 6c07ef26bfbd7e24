//! `cryosplat-mpi import`: halves keep the copies of an image, and the segments of a filament, together.

#[path = "common/arrays.rs"]
mod arrays;
mod common;
#[path = "common/noise_set.rs"]
mod noise_set;

use std::collections::{BTreeMap, BTreeSet};

use arrays::{Column, array, pickled};
use cryosplat_mpi::particles::store::Particle;
use noise_set::{Folder, IMAGES, cs, line, star};

/// The halves that each image is in.
fn halves_of_images(particles: &[(usize, Particle)]) -> BTreeMap<u64, BTreeSet<usize>> {
    let mut halves: BTreeMap<u64, BTreeSet<usize>> = BTreeMap::new();
    for (half, particle) in particles {
        halves.entry(particle.source.unwrap().index).or_default().insert(*half);
    }
    halves
}

fn assert_images_share_a_half(particles: &[(usize, Particle)]) {
    let halves = halves_of_images(particles);
    assert!(halves.values().all(|halves| halves.len() == 1), "{halves:?}");
    let both: BTreeSet<usize> = halves.values().flatten().copied().collect();
    assert_eq!(both.len(), 2);
}

/// Each image four times, with four poses.
fn expanded() -> Vec<(usize, usize, &'static str)> {
    (0..4 * IMAGES).map(|i| (i / 4 + 1, 10 * (i % 4) + i / 4, "")).collect()
}

#[test]
fn copies_of_an_image_share_a_random_half() {
    let folder = Folder::new();
    folder.write("p.star", star(&[], &expanded()));
    for seed in ["0", "1", "2", "3"] {
        let (particles, said) = folder.import("p.star", &["--seed", seed]);
        assert_images_share_a_half(&particles);
        assert_eq!(particles.iter().filter(|(half, _)| *half == 0).count(), 24);
        assert!(said.contains("36 particles are further copies") && !said.contains("WARN"), "{said}");
    }
    // Not in a row, and of two names for one file.
    let mut rows = expanded();
    rows.sort_by_key(|&(image, angle, _)| (angle * 31 + image * 17) % 101);
    let text = star(&[], &rows);
    folder.write("p.star", text.replacen("3@s.mrcs", "3@./s.mrcs", 2).replacen("4@s.mrcs", "4@link.mrcs", 2));
    std::os::unix::fs::symlink(folder.path("s.mrcs"), folder.path("link.mrcs")).unwrap();
    assert_images_share_a_half(&folder.import("p.star", &[]).0);
    // Only images with copies differ from the halves of a set without copies.
    folder.write("p.star", star(&[], &[(1, 1, ""), (1, 2, ""), (1, 3, "")]));
    folder.refuse("p.star", &[], &["p.star", "all 3 particles are copies of one image"]);
}

#[test]
fn exact_duplicates_are_named() {
    let folder = Folder::new();
    let rows: Vec<_> = (0..2 * IMAGES).map(|i| (i % IMAGES + 1, i % IMAGES, "")).collect();
    folder.write("p.star", star(&[], &rows));
    let (particles, said) = folder.import("p.star", &[]);
    assert_images_share_a_half(&particles);
    let repeats = format!("{} repeats {}", line(0, IMAGES), line(0, 0));
    assert!(
        said.contains("WARN") && said.contains("12 particles repeat") && said.contains(&repeats),
        "{said}"
    );
    // A set without copies keeps the halves that it always had.
    folder.write("p.star", star(&[], &rows[..IMAGES]));
    let (particles, said) = folder.import("p.star", &["--seed", "5"]);
    assert!(!said.contains("repeat") && !said.contains("copies"), "{said}");
    for (i, half) in cryosplat_mpi::particles::halves::draw(IMAGES, 5).into_iter().enumerate() {
        let expected = BTreeSet::from([half.code().unwrap() as usize]);
        assert_eq!(halves_of_images(&particles)[&(i as u64)], expected, "image {i}");
    }
}

#[test]
fn given_halves_that_separate_copies_are_refused() {
    let folder = Folder::new();
    let half = |i: usize| if i.is_multiple_of(2) { "1" } else { "2" };
    let rows: Vec<_> = (0..2 * IMAGES).map(|i| (i / 2 + 1, i, half(i))).collect();
    folder.write("p.star", star(&["_rlnRandomSubset"], &rows));
    let first = format!("{} and {}", line(1, 0), line(1, 1));
    folder.refuse("p.star", &[], &["p.star", &first, "image 1 of s.mrcs", "11 further", "--redraw-halves"]);
    let (particles, _) = folder.import("p.star", &["--redraw-halves", "--seed", "4"]);
    assert_images_share_a_half(&particles);
    // Copies in one half are as they should be.
    let rows: Vec<_> = (0..2 * IMAGES).map(|i| (i / 2 + 1, i, half(i / 2))).collect();
    folder.write("p.star", star(&["_rlnRandomSubset"], &rows));
    let (particles, _) = folder.import("p.star", &[]);
    let expected = (0..IMAGES as u64).map(|i| (i, BTreeSet::from([(i % 2) as usize]))).collect();
    assert_eq!(halves_of_images(&particles), expected);
}

#[test]
fn segments_of_a_filament_share_a_half() {
    let folder = Folder::new();
    // Three micrographs with two filaments each, numbered from 1 in each micrograph.
    let names: Vec<String> = (0..IMAGES).map(|i| format!("m{}.mrc {}", i / 4, i / 2 % 2 + 1)).collect();
    let rows: Vec<_> = names.iter().enumerate().map(|(i, name)| (i + 1, i, name.as_str())).collect();
    let columns = ["_rlnMicrographName", "_rlnHelicalTubeID"];
    folder.write("p.star", star(&columns, &rows));
    for seed in ["0", "1", "2"] {
        let (particles, _) = folder.import("p.star", &["--seed", seed]);
        let halves: Vec<usize> = halves_of_images(&particles).values().map(|h| *h.first().unwrap()).collect();
        assert!(halves.chunks(2).all(|pair| pair[0] == pair[1]), "{halves:?}");
        assert_eq!(halves.iter().sum::<usize>(), IMAGES / 2);
    }
    // Given halves that separate segments are kept, with a warning.
    let names: Vec<String> =
        names.iter().enumerate().map(|(i, name)| format!("{name} {}", i % 2 + 1)).collect();
    let rows: Vec<_> = names.iter().enumerate().map(|(i, name)| (i + 1, i, name.as_str())).collect();
    folder.write("p.star", star(&[columns[0], columns[1], "_rlnRandomSubset"], &rows));
    let (_, said) = folder.import("p.star", &[]);
    assert!(
        said.contains("WARN") && said.contains("6 filaments") && said.contains("--redraw-halves"),
        "{said}"
    );
}

#[test]
fn halves_that_are_not_assigned_are_drawn() {
    let folder = Folder::new();
    let write = |half: &dyn Fn(usize) -> &'static str| {
        let rows: Vec<_> = (0..IMAGES).map(|i| (i + 1, i, half(i))).collect();
        folder.write("p.star", star(&["_rlnRandomSubset"], &rows));
    };
    let without = |half: &'static str| {
        write(&move |_| half);
        let (particles, said) = folder.import("p.star", &["--seed", "3"]);
        assert!(
            said.contains("WARN") && said.contains("_rlnRandomSubset") && said.contains("drawn"),
            "{said}"
        );
        let drawn = cryosplat_mpi::particles::halves::draw(IMAGES, 3);
        for (half, particle) in particles {
            let index = particle.source.unwrap().index as usize;
            assert_eq!(drawn[index].code().map(usize::from), Some(half));
        }
    };
    ["0", "1", "2"].into_iter().for_each(without);
    write(&|i| ["1", "2", "0"][i % 3]);
    let line = line(1, 2);
    folder.refuse("p.star", &[], &[&line, "gives no half for 4 of 12 particles", "--redraw-halves"]);
    assert_eq!(folder.import("p.star", &["--redraw-halves"]).0.len(), IMAGES);
    write(&|i| ["1", "2", "3"][i % 3]);
    folder.refuse("p.star", &[], &[&line, "_rlnRandomSubset is `3`, expected 1 or 2"]);
}

#[test]
fn cryosparc_files_follow_the_same_rules() {
    let folder = Folder::new();
    let images: Vec<u32> = (0..2 * IMAGES as u32).map(|i| i % IMAGES as u32).collect();
    folder.write("p.cs", cs(&images, None, &[]));
    assert_images_share_a_half(&folder.import("p.cs", &[]).0);
    let split: Vec<u32> = (0..2 * IMAGES as u32).map(|i| i / IMAGES as u32).collect();
    folder.write("p.cs", cs(&images, Some(&split), &[]));
    folder.refuse("p.cs", &[], &["p.cs", "particle 1 and particle 13", "both halves", "--redraw-halves"]);
    assert_images_share_a_half(&folder.import("p.cs", &["--redraw-halves"]).0);
    let whole: Vec<u32> = (0..IMAGES as u32).collect();
    let filament = |i: u64| (1000 + i / 3).to_le_bytes().to_vec();
    let filaments =
        Column("filament/filament_uid", "'<u8'".into(), (0..IMAGES as u64).map(filament).collect());
    folder.write("p.cs", cs(&whole, None, &[filaments]));
    let halves = halves_of_images(&folder.import("p.cs", &[]).0);
    let halves: Vec<_> = halves.into_values().collect();
    assert!(halves.chunks(3).all(|three| three[0] == three[1] && three[0] == three[2]), "{halves:?}");
}

/// A pickle of a one-dimensional array of this type.
fn flat(kind: &str, width: usize, bytes: &[u8]) -> Vec<u8> {
    let floats = pickled(&[array(&[(bytes.len() / width) as u32], &[])]);
    let text: Vec<u8> = floats;
    let find = |needle: &[u8]| text.windows(needle.len()).position(|window| window == needle).unwrap();
    let (start, end) = (find(b"\x8c\x02f4"), find(b"\x89B"));
    let mut out = text[..start].to_vec();
    out.extend(b"\x8c\x02");
    out.extend(kind.as_bytes());
    out.extend(&text[start + 4..end + 2]);
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend(bytes);
    out.extend(b"tb.");
    out
}

/// The options with poses of all images, and no CTF.
fn poses(folder: &Folder) -> Vec<String> {
    let values: Vec<f32> = (0..IMAGES)
        .flat_map(|i| {
            let (sin, cos) = (0.1 * i as f32).sin_cos();
            [cos, -sin, 0.0, sin, cos, 0.0, 0.0, 0.0, 1.0]
        })
        .collect();
    let poses = folder.write("poses.pkl", pickled(&[array(&[IMAGES as u32, 3, 3], &values)]));
    vec!["--poses".into(), poses, "--no-ctf".into(), "--pixel-size".into(), "2".into()]
}

#[test]
fn a_mask_of_booleans_selects_images() {
    let folder = Folder::new();
    let mut options = poses(&folder);
    let chosen: Vec<u8> = (0..IMAGES).map(|i| u8::from(i % 3 != 0)).collect();
    options.extend(["--ind".into(), folder.write("ind.pkl", flat("b1", 1, &chosen))]);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let indices = || {
        let (particles, _) = folder.import("s.mrcs", &options);
        halves_of_images(&particles).into_keys().collect::<Vec<u64>>()
    };
    assert_eq!(indices(), [1, 2, 4, 5, 7, 8, 10, 11]);
    // As a Python list, in binary and in text.
    let list: Vec<u8> = chosen.iter().map(|&one| if one == 1 { 0x88 } else { 0x89 }).collect();
    folder.write("ind.pkl", [b"\x80\x02](", &list[..], b"e."].concat());
    assert_eq!(indices(), [1, 2, 4, 5, 7, 8, 10, 11]);
    let text: String = chosen.iter().map(|one| format!("I0{one}\na")).collect();
    folder.write("ind.pkl", format!("(l{text}."));
    assert_eq!(indices(), [1, 2, 4, 5, 7, 8, 10, 11]);
    // Integers 0 and 1 are indices.
    folder.write("ind.pkl", flat("u1", 1, &[0, 1]));
    assert_eq!(indices(), [0, 1]);
    folder.write("ind.pkl", flat("b1", 1, &chosen[1..]));
    folder.refuse("s.mrcs", &options, &["ind.pkl", "a mask of 11 Booleans", "one per image: 12"]);
    folder.write("ind.pkl", b"\x80\x02](K\x01\x88e.");
    folder.refuse("s.mrcs", &options, &["ind.pkl", "a list of 2", "--ind"]);
}

#[test]
fn repeated_indices_and_star_files_with_poses_follow_the_same_rules() {
    let folder = Folder::new();
    let mut options = poses(&folder);
    folder.write("p.star", star(&[], &(0..IMAGES).map(|i| (i + 1, i, "")).collect::<Vec<_>>()));
    let repeated: Vec<u8> = (0..IMAGES as u8).chain(0..IMAGES as u8).collect();
    let mut with_ind = options.clone();
    with_ind.extend(["--ind".into(), folder.write("ind.pkl", flat("u1", 1, &repeated))]);
    let with_ind: Vec<&str> = with_ind.iter().map(String::as_str).collect();
    for file in ["s.mrcs", "p.star"] {
        let (particles, said) = folder.import(file, &with_ind);
        assert_images_share_a_half(&particles);
        assert!(said.contains("WARN") && said.contains("12 particles repeat"), "{said}");
    }
    // The halves of the STAR file count.
    let half = |i: usize| if i.is_multiple_of(4) { "2" } else { "1" };
    let rows: Vec<_> = (0..IMAGES).map(|i| (i + 1, i, half(i))).collect();
    folder.write("p.star", star(&["_rlnRandomSubset"], &rows));
    options.push("--no-normalize".into());
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let expected = (0..IMAGES as u64).map(|i| (i, BTreeSet::from([usize::from(i % 4 == 0)]))).collect();
    assert_eq!(halves_of_images(&folder.import("p.star", &options).0), expected);
}
