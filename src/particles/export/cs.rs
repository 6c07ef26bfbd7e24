//! Copies the records of the cryoSPARC file that a set was imported from, with the halves of the set and what a run has refined.

use std::io::Write;
use std::path::Path;

use super::matching::{OriginalRow, match_rows};
use super::results::{RunResults, check_pose};
use crate::error::{Error, Result};
use crate::files;
use crate::imaging::pose::{product, rotation_from_vector, transposed, vector_from_rotation};
use crate::particles::import::cryosparc;
use crate::particles::import::npy::{Field, FieldType, Table};
use crate::particles::import::number::NumberFormat;
use crate::particles::import::stack_names::StackNames;
use crate::particles::refinement::Refinement;
use crate::particles::store::Store;

const SPLIT: &str = "alignments3D/split";
const POSE: &str = "alignments3D/pose";
const SHIFT: &str = "alignments3D/shift";
const DEFOCUS: [&str; 2] = ["ctf/df1_A", "ctf/df2_A"];

/// A record that is copied: its row in the set, and its half.
struct Kept {
    record: usize,
    row: usize,
    half: u8,
}

/// Copies the `.cs` file `original` to `destination`, without particles that are not in `store` or that a run excluded: all fields, in
/// file order. Sets `alignments3D/split`, if the file has it, to the halves of the set, and poses, shifts and defoci to what the run has
/// refined. Returns the number of particles.
///
/// # Errors
/// If the original is not a `.cs` file with image names, lacks a particle of the set, has no poses or others than the set where a run has
/// refined them, no particle is left, or a file cannot be read or written.
pub fn select(store: &Store, results: &RunResults, original: &Path, destination: &Path) -> Result<usize> {
    let mut stacks = StackNames::default();
    let file = cryosparc::image_table(original, &mut stacks)?;
    let rows: Vec<OriginalRow> =
        file.images.iter().map(|&(source, pose)| OriginalRow { source, pose }).collect();
    let matched = match_rows(store, original, &stacks, &rows)?;
    let first_half = store.header().halves[0];
    let kept = matched.iter().enumerate().filter_map(|(record, row)| {
        let row = (*row)? as usize;
        (!results.excluded.contains(&row)).then(|| Kept { record, row, half: u8::from(row >= first_half) })
    });
    let kept: Vec<Kept> = kept.collect();
    if kept.is_empty() {
        return Err(Error::input(original, "", "no particle is left to export", "exclude fewer particles"));
    }
    let split = file.table.field(SPLIT).and_then(|field| match field.field_type {
        FieldType::NumberFormat(number) if number.is_integer() => Some((field.offset, number)),
        _ => None,
    });
    if split.is_none() {
        tracing::info!("{}: has no column {SPLIT}: the halves are not written", original.display());
    }
    let refined = match results.refined.is_empty() {
        true => None,
        false => Some(RefinedFields::find(&file.table, store.header().pixel_size, results)?),
    };
    if let Some(fields) = &refined {
        fields.check_poses(store, results, &kept)?;
    }
    files::write_atomically(destination, |writer| {
        writer.write_all(&file.table.header(kept.len()))?;
        let mut bytes = Vec::new();
        for &Kept { record, row, half } in &kept {
            bytes.clear();
            bytes.extend(file.table.record(record));
            if let Some((offset, number)) = split {
                number.put_integer(half, &mut bytes[offset..offset + number.width()]);
            }
            if let Some(fields) = &refined {
                fields.put(record, &results.refinement(row), &mut bytes);
            }
            writer.write_all(&bytes)?;
        }
        Ok(())
    })?;
    Ok(kept.len())
}

/// The fields of a `.cs` file that a refinement replaces.
struct RefinedFields<'a> {
    table: &'a Table,
    pose: (Field, NumberFormat),
    shift: (Field, NumberFormat),
    /// Pixel size of the shifts.
    shift_pixel: Field,
    /// Absent in files without CTFs, which are then in a passthrough file.
    defocus: [Option<(Field, NumberFormat)>; 2],
    /// Pixel size of the set in angstrom.
    pixel_size: f64,
}

impl<'a> RefinedFields<'a> {
    fn find(table: &'a Table, pixel_size: f64, results: &RunResults) -> Result<Self> {
        let float = |name: &str, count: usize| match table.field(name) {
            Some(field) if field.count == count => match field.field_type {
                FieldType::NumberFormat(number) if number.is_float() => Some((field, number)),
                _ => None,
            },
            _ => None,
        };
        let required = |name: &str, count: usize| {
            float(name, count).ok_or_else(|| {
                let problem = format!("has no column {name}, which the refinement of the run replaces");
                Error::input(table.path(), "", problem, "give the file with the poses of the particles")
            })
        };
        let defocus = DEFOCUS.map(|name| float(name, 1));
        if results.has_defoci() && defocus.iter().any(Option::is_none) {
            tracing::warn!("{}: has no defoci, so that refined ones are not written", table.path().display());
        }
        // Shifts are in pixels of the alignment, or of the images.
        let pixel = float("alignments3D/psize_A", 1).map_or_else(|| required("blob/psize_A", 1), Ok)?;
        Ok(Self {
            table,
            pose: required(POSE, 3)?,
            shift: required(SHIFT, 2)?,
            shift_pixel: pixel.0,
            defocus,
            pixel_size,
        })
    }

    /// Checks that the refined particles have the poses of the set, and pixel sizes.
    fn check_poses(&self, store: &Store, results: &RunResults, kept: &[Kept]) -> Result<()> {
        let mut records = vec![None; store.len()];
        kept.iter().for_each(|kept| records[kept.row] = Some(kept.record));
        let path = self.table.path();
        store.inspect(|row, particle| {
            let Some(record) = records[row].filter(|_| results.refinement(row) != Refinement::default())
            else {
                return Ok(());
            };
            let at = format!("particle {}", record + 1);
            let pixel = self.table.number(self.shift_pixel, record, 0);
            if !(pixel.is_finite() && pixel > 0.0) {
                let problem = format!("the pixel size of its shift is {pixel}, expected a number above 0");
                return Err(Error::input(path, at, problem, "correct the value"));
            }
            let vector = [0, 1, 2].map(|k| self.table.number(self.pose.0, record, k));
            check_pose(path, at, &transposed(&rotation_from_vector(vector)), &particle.rotation)
        })?;
        Ok(())
    }

    /// Puts what is refined into the bytes of a record.
    fn put(&self, record: usize, refined: &Refinement, bytes: &mut [u8]) {
        if *refined == Refinement::default() {
            return;
        }
        let mut put = |(field, number): (Field, NumberFormat), k: usize, value: f64| {
            let at = field.offset + k * number.width();
            number.put_float(value, &mut bytes[at..at + number.width()]);
        };
        let value = |(field, _): (Field, NumberFormat), k: usize| self.table.number(field, record, k);
        // The file's matrix is W^T.
        let pose = transposed(&rotation_from_vector([0, 1, 2].map(|k| value(self.pose, k))));
        let pose = product(&rotation_from_vector(refined.rotation), &pose);
        let vector = vector_from_rotation(&transposed(&pose));
        vector.into_iter().enumerate().for_each(|(k, component)| put(self.pose, k, component));
        let unit = self.pixel_size / self.table.number(self.shift_pixel, record, 0);
        for (k, offset) in refined.offset.into_iter().enumerate() {
            put(self.shift, k, value(self.shift, k) - offset * unit);
        }
        for field in self.defocus.into_iter().flatten() {
            put(field, 0, value(field, 0) + refined.defocus);
        }
    }
}
