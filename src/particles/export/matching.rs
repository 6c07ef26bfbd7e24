//! Matches the particles of a set with the rows of the metadata file that it was imported from.

use std::collections::HashMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::particles::import::copies::pose_key;
use crate::particles::import::stack_names::StackNames;
use crate::particles::store::{Source, Store};

/// A row of the metadata: its raw image, and the key of its pose if the metadata has poses.
#[derive(Clone, Copy, Debug)]
pub struct OriginalRow {
    /// Stack and image.
    pub source: Source,
    /// Key of the pose ([`pose_key`]).
    pub pose: Option<u64>,
}

/// An image of the set or of the metadata: stack of the metadata, image, row, key of the pose.
type Occurrence = (u32, u64, u32, Option<u64>);

/// For each row of the file `original`, the row of the set `store` with this particle. `stacks` are those of `rows`.
///
/// Particles match by raw image. Of several rows with the same image, the one with the same pose matches; where poses do not
/// decide, the k-th occurrence in the set is the k-th occurrence in the metadata.
///
/// # Errors
/// If a particle has no record of its raw image, or the metadata lacks it.
pub fn match_rows(
    store: &Store,
    original: &Path,
    stacks: &StackNames,
    rows: &[OriginalRow],
) -> Result<Vec<Option<u32>>> {
    let mut wanted = wanted(store, stacks)?;
    let mut there: Vec<Occurrence> = (0u32..)
        .zip(rows)
        .map(|(row, original)| (original.source.file, original.source.index, row, original.pose))
        .collect();
    wanted.sort_unstable();
    there.sort_unstable();
    let image = |occurrence: &Occurrence| (occurrence.0, occurrence.1);
    let mut found = vec![None; rows.len()];
    let mut missing: Vec<u32> = Vec::new();
    let mut rest = &there[..];
    for copies in wanted.chunk_by(|a, b| image(a) == image(b)) {
        let start = rest.partition_point(|occurrence| image(occurrence) < image(&copies[0]));
        let end = rest.partition_point(|occurrence| image(occurrence) <= image(&copies[0]));
        match_copies(copies, &rest[start..end], &mut found, &mut missing);
        rest = &rest[end..];
    }
    match missing.iter().min() {
        None => Ok(found),
        Some(&first) => {
            let image =
                store.origin(first as usize).map(|(stack, image)| format!(", such as {image}@{stack}"));
            let problem = format!(
                "lacks {} images of {}{}",
                missing.len(),
                store.path().display(),
                image.unwrap_or_default()
            );
            Err(Error::input(original, "", problem, "give the file that the set was imported from"))
        }
    }
}

/// The images of the set.
fn wanted(store: &Store, stacks: &StackNames) -> Result<Vec<Occurrence>> {
    let places: HashMap<&str, u32> =
        stacks.all().iter().zip(0..).map(|(stack, index)| (stack.name.as_str(), index)).collect();
    let files = &store.header().source_files;
    // A stack that the metadata lacks sorts after all others.
    let files: Vec<u32> =
        files.iter().map(|name| places.get(name.as_str()).copied().unwrap_or(u32::MAX)).collect();
    let mut wanted = Vec::with_capacity(store.len());
    store.inspect(|row, particle| {
        let source =
            particle.source.and_then(|source| Some((*files.get(source.file as usize)?, source.index)));
        let Some((file, index)) = source else {
            return Err(Error::input(
                store.path(),
                format!("particle {}", row + 1),
                "has no record of its raw image",
                "omit --original, to export the stored images",
            ));
        };
        wanted.push((file, index, row as u32, Some(pose_key(&particle.rotation))));
        Ok(())
    })?;
    Ok(wanted)
}

/// Matches particles with one image (`wanted`) and the rows with that image (`there`), both in order.
fn match_copies(
    wanted: &[Occurrence],
    there: &[Occurrence],
    found: &mut [Option<u32>],
    missing: &mut Vec<u32>,
) {
    if wanted.len() == 1 && there.len() == 1 {
        found[there[0].2 as usize] = Some(wanted[0].2);
        return;
    }
    // The rows by pose, the earliest last.
    let mut by_pose: HashMap<Option<u64>, Vec<u32>> = HashMap::new();
    there.iter().rev().for_each(|&(.., row, pose)| by_pose.entry(pose).or_default().push(row));
    let same_pose = |&(.., row, pose): &Occurrence| match by_pose.get_mut(&pose).and_then(Vec::pop) {
        Some(original) => {
            found[original as usize] = Some(row);
            None
        }
        None => Some(row),
    };
    let others: Vec<u32> = wanted.iter().filter_map(same_pose).collect();
    let mut free = there.iter().map(|occurrence| occurrence.2 as usize);
    for row in others {
        match free.find(|&original| found[original].is_none()) {
            Some(original) => found[original] = Some(row),
            None => missing.push(row),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(wanted: &[(u32, u64)], there: &[Option<u64>]) -> (Vec<Option<u32>>, Vec<u32>) {
        let wanted: Vec<Occurrence> = wanted.iter().map(|&(row, pose)| (0, 0, row, Some(pose))).collect();
        let there: Vec<Occurrence> = (0..).zip(there).map(|(row, &pose)| (0, 0, row, pose)).collect();
        let (mut found, mut missing) = (vec![None; there.len()], Vec::new());
        match_copies(&wanted, &there, &mut found, &mut missing);
        (found, missing)
    }

    #[test]
    fn copies_match_by_pose_and_then_in_order() {
        let [a, b, c] = [Some(1), Some(2), Some(3)];
        assert_eq!(matched(&[(7, 2), (9, 1)], &[a, b, c]), (vec![Some(9), Some(7), None], vec![]));
        // Exact duplicates in order.
        assert_eq!(matched(&[(7, 1), (9, 1)], &[a, a, a]), (vec![Some(7), Some(9), None], vec![]));
        // Poses that were refined since, or that the metadata lacks.
        assert_eq!(matched(&[(7, 5), (9, 6)], &[a, b]), (vec![Some(7), Some(9)], vec![]));
        assert_eq!(matched(&[(7, 5), (8, 1), (9, 6)], &[a, b, c]), (vec![Some(8), Some(7), Some(9)], vec![]));
        assert_eq!(matched(&[(7, 5), (9, 6)], &[None]), (vec![Some(7)], vec![9]));
    }
}
