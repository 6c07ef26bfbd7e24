//! Copies the records of the cryoSPARC file that a set was imported from, with the halves of the set.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use super::matching::{OriginalRow, match_rows};
use crate::error::{Error, Result};
use crate::files;
use crate::particles::import::cryosparc;
use crate::particles::import::npy::FieldType;
use crate::particles::import::stack_names::StackNames;
use crate::particles::store::Store;

const SPLIT: &str = "alignments3D/split";

/// Copies the `.cs` file `original` to `destination`, without particles that are not in `store` or in its rows `excluded`: all
/// fields, in file order. Sets `alignments3D/split`, if the file has it, to the halves of the set. Returns the number of
/// particles.
///
/// # Errors
/// If the original is not a `.cs` file with image names, lacks a particle of the set, no particle is left, or a file cannot be
/// read or written.
pub fn select(
    store: &Store,
    excluded: &BTreeSet<usize>,
    original: &Path,
    destination: &Path,
) -> Result<usize> {
    let mut stacks = StackNames::default();
    let file = cryosparc::image_table(original, &mut stacks)?;
    let rows: Vec<OriginalRow> =
        file.images.iter().map(|&(source, pose)| OriginalRow { source, pose }).collect();
    let matched = match_rows(store, original, &stacks, &rows)?;
    let kept: Vec<(usize, u8)> = matched
        .iter()
        .enumerate()
        .filter_map(|(record, row)| Some((record, row.map(|row| row as usize)?)))
        .filter(|(_, row)| !excluded.contains(row))
        .map(|(record, row)| (record, u8::from(row >= store.header().halves[0])))
        .collect();
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
    files::write_atomically(destination, |writer| {
        writer.write_all(&file.table.header(kept.len()))?;
        let mut bytes = Vec::new();
        for &(record, half) in &kept {
            bytes.clear();
            bytes.extend(file.table.record(record));
            if let Some((offset, number)) = split {
                number.put_integer(half, &mut bytes[offset..offset + number.width()]);
            }
            writer.write_all(&bytes)?;
        }
        Ok(())
    })?;
    Ok(kept.len())
}
