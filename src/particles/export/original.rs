//! Copies the rows of the STAR file that a set was imported from, with the halves of the set and what a run has refined, for
//! programs that continue with the raw images.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use super::matching::{OriginalRow, match_rows};
use super::refined_star::{Edit, RefinedColumns};
use super::results::RunResults;
use crate::error::{Error, Result};
use crate::files;
use crate::particles::Subset;
use crate::particles::import::relion::{self, ImageTable};
use crate::particles::import::stack_names::{Location, StackNames};
use crate::particles::import::star::cells;
use crate::particles::store::Store;

/// A row that is copied: its place in the table, its row in the set, and its half.
struct Kept {
    record: usize,
    row: usize,
    half: Subset,
}

/// Copies the STAR file `original` to `destination`, without particles that are not in `store` or that a run excluded. Sets the column
/// `_rlnRandomSubset` to the halves of the set, and angles, origins and defoci to what the run has refined; copies everything else
/// unchanged. Returns the number of particles.
///
/// # Errors
/// If the original is not a STAR file of particles, lacks a particle of the set, has other poses than the set where the run has refined
/// them, or a file cannot be read or written.
pub fn select(store: &Store, results: &RunResults, original: &Path, destination: &Path) -> Result<usize> {
    let mut stacks = StackNames::default();
    let table = relion::image_table(original, &mut stacks)?;
    let kept = kept_rows(store, results, original, &table, &stacks)?;
    let lines: BTreeSet<usize> = table
        .images
        .iter()
        .filter_map(|image| match image.place {
            Location::Line(line) => Some(line),
            Location::Particle(_) => None,
        })
        .collect();
    let Some(&first) = lines.first() else {
        let remedy = "give the STAR file that the set was imported from";
        return Err(Error::input(original, "", "has no particles", remedy));
    };
    let refined = match results.refined.is_empty() {
        true => None,
        false => Some(RefinedColumns::find(store, results, original, &table)?),
    };
    let subset = table.table.column(relion::SUBSET);
    let appended = refined.iter().flat_map(RefinedColumns::appended);
    let appended: Vec<&str> = appended.chain(subset.is_none().then_some(relion::SUBSET)).collect();
    let edits = |line: usize, text: &str, kept: &Kept| -> Result<Vec<Edit>> {
        let mut edits = match &refined {
            Some(refined) => {
                refined.edits(line, text, kept.record, kept.row, &results.refinement(kept.row))?
            }
            None => Vec::new(),
        };
        edits.push((subset, kept.half.seed_index().to_string()));
        Ok(edits)
    };
    let mut input = open(original)?;
    let mut failure = None;
    let written = files::write_atomically(destination, |writer| {
        let mut bytes = Vec::new();
        for number in 1.. {
            bytes.clear();
            if input.read_until(b'\n', &mut bytes)? == 0 {
                return Ok(());
            }
            if number == first {
                for (label, column) in appended.iter().zip(table.table.width() + 1..) {
                    writeln!(writer, "{label} #{column} ")?;
                }
            }
            let Some(kept) = kept.get(&number) else {
                if !lines.contains(&number) {
                    writer.write_all(&bytes)?;
                }
                continue;
            };
            let text = String::from_utf8_lossy(&bytes);
            match edits(number, &text, kept) {
                Ok(edits) => writeln!(writer, "{}", edited(&text, &edits))?,
                Err(error) => {
                    let stop = std::io::Error::other(error.to_string());
                    failure = Some(error);
                    return Err(stop);
                }
            }
        }
        Ok(())
    });
    match failure {
        Some(error) => Err(error),
        None => written.map(|()| kept.len()),
    }
}

/// The rows to copy, by line.
fn kept_rows(
    store: &Store,
    results: &RunResults,
    original: &Path,
    table: &ImageTable,
    stacks: &StackNames,
) -> Result<HashMap<usize, Kept>> {
    let pose = |row: usize| table.poses.as_ref().map(|poses| poses[row]);
    let named = table.images.iter().enumerate();
    let named: Vec<OriginalRow> =
        named.map(|(row, image)| OriginalRow { source: image.source, pose: pose(row) }).collect();
    let matched = match_rows(store, original, stacks, &named)?;
    let first_half = store.header().halves[0];
    let mut kept = HashMap::new();
    for ((record, image), row) in table.images.iter().enumerate().zip(matched) {
        let (Location::Line(line), Some(row)) = (image.place, row) else { continue };
        let row = row as usize;
        if !results.excluded.contains(&row) {
            let half = if row < first_half { Subset::Half1 } else { Subset::Half2 };
            kept.insert(line, Kept { record, row, half });
        }
    }
    Ok(kept)
}

fn open(path: &Path) -> Result<BufReader<File>> {
    let file = files::open_input(path).map_err(Error::io(path, "read the STAR file", "check the path"))?;
    Ok(BufReader::with_capacity(1 << 20, file))
}

/// A row with the texts of some cells replaced, and others appended in order.
fn edited(row: &str, edits: &[Edit]) -> String {
    let row = row.trim_end();
    let cells = cells(row);
    let end = cells.last().map_or(row.len(), |cell| cell.end);
    // The closing quote of a quoted value follows it.
    let end = end + usize::from(row[end..].starts_with(['"', '\'']));
    let mut text = row.to_owned();
    let appended: String =
        edits.iter().filter(|(column, _)| column.is_none()).map(|(_, value)| format!(" {value}")).collect();
    text.insert_str(end, &appended);
    let mut replaced: Vec<_> =
        edits.iter().filter_map(|(column, value)| Some((cells.get((*column)?)?.clone(), value))).collect();
    replaced.sort_unstable_by_key(|(cell, _)| std::cmp::Reverse(cell.start));
    replaced.into_iter().for_each(|(cell, value)| text.replace_range(cell, value));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_replaced_or_appended() {
        let edited = |row: &str, edits: &[(Option<usize>, &str)]| {
            let edits: Vec<Edit> = edits.iter().map(|&(column, text)| (column, text.to_owned())).collect();
            super::edited(row, &edits)
        };
        assert_eq!(edited("a 1 b \n", &[(Some(1), "2")]), "a 2 b");
        assert_eq!(edited("'a b' \"1\" c", &[(Some(1), "2")]), "'a b' \"2\" c");
        assert_eq!(edited("a 1 b \r\n", &[(None, "2")]), "a 1 b 2");
        assert_eq!(edited("a 'b c' # old", &[(None, "1")]), "a 'b c' 1 # old");
        let several = [(Some(2), "-1.25"), (None, "x"), (Some(0), "long"), (None, "y")];
        assert_eq!(edited("a  1 b # note", &several), "long  1 -1.25 x y # note");
    }
}
