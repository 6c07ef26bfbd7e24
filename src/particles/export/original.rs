//! Copies the rows of the STAR file that a set was imported from, with the halves of the set, for programs that continue with
//! the raw images.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use super::matching::{OriginalRow, match_rows};
use crate::error::{Error, Result};
use crate::files;
use crate::particles::Subset;
use crate::particles::import::relion;
use crate::particles::import::stack_names::{Location, StackNames};
use crate::particles::import::star::cells;
use crate::particles::store::Store;

const SUBSET: &str = "_rlnRandomSubset";

/// Copies the STAR file `original` to `destination`, without particles that are not in `store` or in its rows `excluded`. Sets
/// the column `_rlnRandomSubset` to the halves of the set and copies everything else unchanged. Returns the number of particles.
///
/// # Errors
/// If the original is not a STAR file of particles, lacks a particle of the set, or a file cannot be read or written.
pub fn select(
    store: &Store,
    excluded: &BTreeSet<usize>,
    original: &Path,
    destination: &Path,
) -> Result<usize> {
    let mut stacks = StackNames::default();
    let table = relion::image_table(original, &mut stacks)?;
    let pose = |row: usize| table.poses.as_ref().map(|poses| poses[row]);
    let named = table.images.iter().enumerate();
    let named: Vec<OriginalRow> =
        named.map(|(row, image)| OriginalRow { source: image.source, pose: pose(row) }).collect();
    let matched = match_rows(store, original, &stacks, &named)?;
    let first_half = store.header().halves[0];
    let mut halves = HashMap::new();
    for (image, row) in table.images.iter().zip(matched) {
        let (Location::Line(line), Some(row)) = (image.place, row) else { continue };
        if !excluded.contains(&(row as usize)) {
            halves.insert(line, if (row as usize) < first_half { Subset::Half1 } else { Subset::Half2 });
        }
    }
    let Some(Location::Line(first)) = table.images.first().map(|image| image.place) else {
        return Err(Error::input(
            original,
            "",
            "has no particles",
            "give the STAR file that the set was imported from",
        ));
    };
    let rows: BTreeSet<usize> = table
        .images
        .iter()
        .filter_map(|image| match image.place {
            Location::Line(line) => Some(line),
            Location::Particle(_) => None,
        })
        .collect();
    let input = File::open(original).map_err(Error::io(original, "read the STAR file", "check the path"))?;
    let mut input = BufReader::with_capacity(1 << 20, input);
    files::write_atomically(destination, |writer| {
        let mut text = Vec::new();
        for number in 1.. {
            text.clear();
            if input.read_until(b'\n', &mut text)? == 0 {
                return Ok(());
            }
            if number == first && table.subset.is_none() {
                writeln!(writer, "{SUBSET} #{} ", table.width + 1)?;
            }
            match halves.get(&number) {
                Some(half) => writeln!(
                    writer,
                    "{}",
                    with_half(&String::from_utf8_lossy(&text), table.subset, half.seed_index())
                )?,
                None if rows.contains(&number) => {}
                None => writer.write_all(&text)?,
            }
        }
        Ok(())
    })?;
    Ok(halves.len())
}

/// A row with the random subset set: in `column`, or appended as the last column.
fn with_half(row: &str, column: Option<usize>, subset: u8) -> String {
    let row = row.trim_end();
    let cells = cells(row);
    match column.and_then(|column| cells.get(column)) {
        Some(cell) => format!("{}{subset}{}", &row[..cell.start], &row[cell.end..]),
        None => {
            let end = cells.last().map_or(row.len(), |cell| cell.end);
            // The closing quote of a quoted value follows it.
            let end = end + usize::from(row[end..].starts_with(['"', '\'']));
            format!("{} {subset}{}", &row[..end], &row[end..])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_half_replaces_its_column_or_is_appended() {
        assert_eq!(with_half("a 1 b \n", Some(1), 2), "a 2 b");
        assert_eq!(with_half("'a b' \"1\" c", Some(1), 2), "'a b' \"2\" c");
        assert_eq!(with_half("a 1 b \r\n", None, 2), "a 1 b 2");
        assert_eq!(with_half("a 'b c' # old", None, 1), "a 'b c' 1 # old");
    }
}
