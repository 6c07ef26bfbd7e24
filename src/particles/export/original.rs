//! The rows of the STAR file that a set was imported from, with the set's halves: for programs that go on with the raw images.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use crate::error::{Error, Result};
use crate::files;
use crate::particles::import::relion;
use crate::particles::import::stack_names::{Location, StackNames};
use crate::particles::import::star::cells;
use crate::particles::store::Store;

const SUBSET: &str = "_rlnRandomSubset";

/// Copies the STAR file `original` to `destination`, without the particles that are not in `store` or are in its rows
/// `left_out`. All else stays as it is, but for the column `_rlnRandomSubset`, which is the set's. Returns how many rows are
/// left.
///
/// # Errors
/// When the original is no STAR file of particles, a particle of the set is not in it, or a file cannot be read or written.
pub fn select(
    store: &Store,
    left_out: &BTreeSet<usize>,
    original: &Path,
    destination: &Path,
) -> Result<usize> {
    let mut wanted = wanted(store, left_out)?;
    let mut stacks = StackNames::default();
    let table = relion::image_table(original, &mut stacks)?;
    let mut halves = HashMap::new();
    for (source, place) in &table.images {
        let Location::Line(line) = *place else { continue };
        let key = (stacks.all()[source.file as usize].name.as_str(), source.index);
        if let Some((half, found)) = wanted.get_mut(&key) {
            *found = true;
            halves.insert(line, *half);
        }
    }
    if let Some(((stack, index), _)) = wanted.iter().find(|(_, (_, found))| !found) {
        let missing = wanted.values().filter(|(_, found)| !found).count();
        let problem = format!(
            "does not name {missing} images of {}, such as {}@{stack}",
            store.path().display(),
            index + 1
        );
        return Err(Error::input(original, "", problem, "give the STAR file that the set was imported from"));
    }
    let Some((_, Location::Line(first))) = table.images.first().copied() else {
        return Err(Error::input(original, "", "holds no particles", "give the file of the import"));
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
                    with_half(&String::from_utf8_lossy(&text), table.subset, half + 1)
                )?,
                None if rows.contains(&number) => {}
                None => writer.write_all(&text)?,
            }
        }
        Ok(())
    })?;
    Ok(halves.len())
}

/// Stack and image of a particle.
type Image<'a> = (&'a str, u64);

/// The half of each image that is wanted, and whether it was found.
fn wanted<'a>(store: &'a Store, left_out: &BTreeSet<usize>) -> Result<HashMap<Image<'a>, (u8, bool)>> {
    let header = store.header();
    let mut wanted = HashMap::with_capacity(store.len());
    store.inspect(|row, particle| {
        if left_out.contains(&row) {
            return Ok(());
        }
        let source = particle.source;
        let stack = source.and_then(|source| header.source_files.get(source.file as usize));
        let (Some(source), Some(stack)) = (source, stack) else {
            return Err(Error::input(
                store.path(),
                format!("particle {}", row + 1),
                "does not say where its image came from",
                "leave out --original: its image is in the set",
            ));
        };
        wanted.insert((stack.as_str(), source.index), (u8::from(row >= header.halves[0]), false));
        Ok(())
    })?;
    Ok(wanted)
}

/// A row with its random subset, in place of the one it had or behind the others.
fn with_half(row: &str, column: Option<usize>, subset: u8) -> String {
    let row = row.trim_end();
    let cells = cells(row);
    match column.and_then(|column| cells.get(column)) {
        Some(cell) => format!("{}{subset}{}", &row[..cell.start], &row[cell.end..]),
        None => {
            let end = cells.last().map_or(row.len(), |cell| cell.end);
            // The mark of a quoted value stands behind it.
            let end = end + usize::from(row[end..].starts_with(['"', '\'']));
            format!("{} {subset}{}", &row[..end], &row[end..])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_half_goes_into_its_column_or_behind_the_last() {
        assert_eq!(with_half("a 1 b \n", Some(1), 2), "a 2 b");
        assert_eq!(with_half("'a b' \"1\" c", Some(1), 2), "'a b' \"2\" c");
        assert_eq!(with_half("a 1 b \r\n", None, 2), "a 1 b 2");
        assert_eq!(with_half("a 'b c' # old", None, 1), "a 'b c' 1 # old");
    }
}
