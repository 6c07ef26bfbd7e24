//! Copies the rows of the STAR file that a set was imported from, with the halves of the set, for programs that continue with
//! the raw images.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

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
    let mut selected = selected(store, excluded)?;
    let mut stacks = StackNames::default();
    let table = relion::image_table(original, &mut stacks)?;
    let mut halves = HashMap::new();
    for (source, place) in &table.images {
        let Location::Line(line) = *place else { continue };
        let key = (stacks.all()[source.file as usize].name.as_str(), source.index);
        if let Some((half, found)) = selected.get_mut(&key) {
            *found = true;
            halves.insert(line, *half);
        }
    }
    if let Some(((stack, index), _)) = selected.iter().find(|(_, (_, found))| !found) {
        let missing = selected.values().filter(|(_, found)| !found).count();
        let problem =
            format!("lacks {missing} images of {}, such as {}@{stack}", store.path().display(), index + 1);
        return Err(Error::input(original, "", problem, "give the STAR file that the set was imported from"));
    }
    let Some((_, Location::Line(first))) = table.images.first().copied() else {
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
        .filter_map(|(_, place)| match place {
            Location::Line(line) => Some(*line),
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

/// Stack name and image index of a particle.
type Image<'a> = (&'a str, u64);

/// The half of each particle to export, by its image, and false: it is not found yet.
fn selected<'a>(store: &'a Store, excluded: &BTreeSet<usize>) -> Result<HashMap<Image<'a>, (Subset, bool)>> {
    let header = store.header();
    let mut selected = HashMap::with_capacity(store.len());
    store.inspect(|row, particle| {
        if excluded.contains(&row) {
            return Ok(());
        }
        let half = if row < header.halves[0] { Subset::Half1 } else { Subset::Half2 };
        let source = particle.source;
        let stack = source.and_then(|source| header.source_files.get(source.file as usize));
        let (Some(source), Some(stack)) = (source, stack) else {
            return Err(Error::input(
                store.path(),
                format!("particle {}", row + 1),
                "has no record of its raw image",
                "omit --original, to export the stored images",
            ));
        };
        selected.insert((stack.as_str(), source.index), (half, false));
        Ok(())
    })?;
    Ok(selected)
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
