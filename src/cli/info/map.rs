//! `info` of a map or a stack of images.

use std::path::Path;

use serde_json::json;

use super::description::{Description, bytes, length};
use crate::error::{Error, Result};
use crate::imaging::mrc::{Mode, Stack};
use crate::imaging::statistics::ValueStatistics;

pub(super) fn describe(path: &Path, verify: bool) -> Result<Description> {
    let stack = Stack::open(path)?;
    let header = stack.header();
    if verify {
        return Err(Error::input(path, "", "is an MRC file, which has no checksums", "leave out --verify"));
    }
    let mode = match header.mode {
        Mode::I8 => (0, "signed 8-bit integers"),
        Mode::U8 => (0, "unsigned 8-bit integers"),
        Mode::I16 => (1, "16-bit integers"),
        Mode::F32 => (2, "32-bit floats"),
        Mode::U16 => (6, "unsigned 16-bit integers"),
        Mode::F16 => (12, "16-bit floats"),
    };
    let statistics = ValueStatistics::of(&stack)?;
    let size = length(path)?;
    // Space group 0 means a stack of images; a single image may be either.
    let is_stack = header.space_group == 0;
    let mut extent = [0; 3];
    (0..3).for_each(|stored| extent[header.axes[stored]] = header.size[stored]);
    let [x, y, z] = extent;
    let order = header.axes.map(|a| ["x", "y", "z"][a]);
    let voxel = header.voxel_size.map(|v| (v * 1e4).round() / 1e4);
    let known = header.voxel_size.iter().all(|&v| v > 0.0);

    let extent_row = if is_stack {
        ("size", format!("{z} images of {x} x {y} pixels"))
    } else {
        let cubic = if x == y && x == z { "" } else { " (not a cube)" };
        ("size", format!("{x} x {y} x {z} voxels along x, y, z{cubic}"))
    };
    let pixel_row = match voxel {
        _ if is_stack && header.voxel_size[0] > 0.0 => ("pixel size", format!("{} A", voxel[0])),
        [x, y, z] if known && x == y && x == z => ("voxel size", format!("{x} A (Nyquist {:.2} A)", 2.0 * x)),
        [x, y, z] if known => ("voxel size", format!("{x} x {y} x {z} A (not cubic)")),
        _ => ("voxel size", "not given".to_owned()),
    };
    let mut rows = vec![
        extent_row,
        pixel_row,
        (
            "mode",
            format!("{} ({}, {}-endian)", mode.0, mode.1, if header.big_endian { "big" } else { "little" }),
        ),
        (
            "axes",
            format!(
                "columns along {}, rows along {}, sections along {}{}",
                order[0],
                order[1],
                order[2],
                if header.axes == [0, 1, 2] { "" } else { " (reordered to x, y, z on reading)" }
            ),
        ),
    ];
    if header.start != [0, 0, 0] {
        let [columns, rows_start, sections] = header.start;
        rows.push(("start", format!("column {columns}, row {rows_start}, section {sections}")));
    }
    if header.origin != [0.0; 3] {
        let [x, y, z] = header.origin;
        rows.push(("origin", format!("x {x} A, y {y} A, z {z} A")));
    }
    let ValueStatistics { min, max, mean, deviation, not_finite } = statistics;
    rows.push(("values", format!("min {min:.6}, max {max:.6}, mean {mean:.6}, sd {deviation:.6}")));
    if not_finite > 0 {
        rows.push(("not finite", format!("{not_finite} values are NaN or infinite")));
    }
    rows.push(("file", bytes(size)));
    let json = json!({
        "size": extent,
        "voxel_size": header.voxel_size,
        "mode": mode.0,
        "big_endian": header.big_endian,
        "axes": order,
        "start": header.start,
        "origin": header.origin,
        "space_group": header.space_group,
        "min": min,
        "max": max,
        "mean": mean,
        "sd": deviation,
        "not_finite": not_finite,
        "bytes": size,
    });
    Ok(Description { kind: if is_stack { "MRC stack of images" } else { "MRC map" }, rows, json })
}
