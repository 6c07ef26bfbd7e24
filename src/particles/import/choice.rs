//! Chooses which rows of the metadata are imported: those of a class, those of a selection, and the first ones.

use std::collections::BTreeMap;
use std::path::Path;

use super::row::ReadOptions;
use crate::error::{Error, Result};
use crate::particles::Subset;

/// What a row says before it is interpreted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowTraits {
    /// The class of the particle.
    pub class: Option<i64>,
    /// The half that the row gives.
    pub half: Option<Subset>,
}

/// The rows to import, in file order.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// For each row whether it is imported; `None` for all up to `end`.
    chosen: Option<Vec<bool>>,
    /// Number of rows of the file.
    all: usize,
    /// One past the last imported row.
    end: usize,
    count: usize,
    /// Number of particles of each class in the file; empty if it has none.
    classes: BTreeMap<i64, usize>,
}

impl Choice {
    /// Chooses among the `all` rows of the file `path`. `class_column` is the column with the classes, and `has_halves` is
    /// true if the file has halves. `traits` returns those of a row, and is called for each row in order, or not at all.
    ///
    /// With `first`, the first particles are chosen; if the file gives halves, the first of each half, in equal numbers:
    /// files are often sorted by half.
    ///
    /// # Errors
    /// If the file has no particles, or no particle of the class; and the errors of `traits`.
    pub fn new(
        path: &Path,
        all: usize,
        options: &ReadOptions,
        class_column: Option<&str>,
        has_halves: bool,
        mut traits: impl FnMut(usize) -> Result<RowTraits>,
    ) -> Result<Self> {
        let none = |problem: &str| Error::input(path, "", problem, "select particles before importing");
        if options.class.is_some() && class_column.is_none() {
            return Err(Error::input(path, "", "has no classes, but --class is given", "omit --class"));
        }
        let by_half = options.first.is_some() && has_halves && !options.redraw_halves;
        if all == 0 {
            return Err(none("has no particles"));
        }
        if class_column.is_none() && !by_half && options.keep.is_none() {
            let end = all.min(options.first.unwrap_or(usize::MAX));
            return Ok(Self { chosen: None, all, end, count: end, classes: BTreeMap::new() });
        }
        let mut halves = Vec::with_capacity(all);
        let mut classes = BTreeMap::new();
        for row in 0..all {
            let RowTraits { class, half } = traits(row)?;
            class.into_iter().for_each(|class| *classes.entry(class).or_insert(0) += 1);
            let in_class = options.class.is_none() || class == options.class;
            // The file may have changed since the rows were selected.
            let kept = options.keep.is_none_or(|keep| keep.get(row) == Some(&true));
            halves.push((in_class && kept).then_some(half));
        }
        let column = class_column.unwrap_or_default();
        check_class(path, options.class, column, &classes)?;
        let both = by_half && Subset::HALVES.iter().all(|&half| halves.contains(&Some(Some(half))));
        let first = options.first.unwrap_or(usize::MAX);
        let mut left = if both { [first.div_ceil(2), first / 2] } else { [first, 0] };
        let choose = |half: Option<Option<Subset>>| {
            let Some(half) = half else { return false };
            let left = &mut left[usize::from(both && half == Some(Subset::Half2))];
            let chosen = *left > 0;
            *left = left.saturating_sub(1);
            chosen
        };
        let chosen: Vec<bool> = halves.into_iter().map(choose).collect();
        Ok(Self::of(chosen, classes))
    }

    fn of(chosen: Vec<bool>, classes: BTreeMap<i64, usize>) -> Self {
        let end = chosen.iter().rposition(|&one| one).map_or(0, |last| last + 1);
        let count = chosen.iter().filter(|&&one| one).count();
        Self { all: chosen.len(), end, count, classes, chosen: Some(chosen) }
    }

    /// Number of imported rows.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Number of rows of the file.
    pub fn all(&self) -> usize {
        self.all
    }

    /// Number of rows to read from the file: no later row is imported.
    pub fn end(&self) -> usize {
        self.end
    }

    /// True if this row is imported.
    pub fn contains(&self, row: usize) -> bool {
        row < self.end && self.chosen.as_ref().is_none_or(|chosen| chosen[row])
    }

    /// The imported rows.
    pub fn rows(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.end).filter(|&row| self.contains(row))
    }

    /// Number of particles of each class in the file; empty if it has none.
    pub fn classes(&self) -> &BTreeMap<i64, usize> {
        &self.classes
    }
}

/// Checks that the file has particles of `class`, and warns if classes are mixed.
fn check_class(path: &Path, class: Option<i64>, column: &str, classes: &BTreeMap<i64, usize>) -> Result<()> {
    match class {
        Some(class) if !classes.contains_key(&class) => Err(Error::input(
            path,
            "",
            format!("has no particle of class {class}: {column} has {}", listed(classes)),
            "give one of these classes with --class",
        )),
        None if classes.len() > 1 => {
            tracing::warn!(
                "{}: particles of {} classes are imported together ({column}: {}): --class K imports class K",
                path.display(),
                classes.len(),
                listed(classes)
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Lists classes with their numbers of particles, the first ones if there are many.
pub(super) fn listed(classes: &BTreeMap<i64, usize>) -> String {
    const MOST: usize = 20;
    let some = classes.iter().take(MOST).map(|(class, count)| format!("{count} in class {class}"));
    let more = if classes.len() > MOST { ", ..." } else { "" };
    some.collect::<Vec<_>>().join(", ") + more
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(rows: &[(i64, u8)], class: Option<i64>, first: Option<usize>) -> Result<Vec<usize>> {
        let options = ReadOptions { class, first, ..ReadOptions::default() };
        let traits = |row: usize| {
            let half = Subset::from_code(rows[row].1.wrapping_sub(1));
            Ok(RowTraits { class: Some(rows[row].0), half })
        };
        let choice = Choice::new(Path::new("p.star"), rows.len(), &options, Some("class"), true, traits)?;
        assert_eq!(choice.rows().count(), choice.count());
        Ok(choice.rows().collect())
    }

    #[test]
    fn first_takes_from_both_halves() {
        let sorted = [(1, 1), (1, 1), (1, 1), (1, 2), (1, 2), (1, 2)];
        assert_eq!(chosen(&sorted, None, Some(2)).unwrap(), [0, 3]);
        assert_eq!(chosen(&sorted, None, Some(3)).unwrap(), [0, 1, 3]);
        assert_eq!(chosen(&sorted, None, Some(50)).unwrap(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(chosen(&sorted[..3], None, Some(2)).unwrap(), [0, 1]);
        assert_eq!(chosen(&[(1, 0); 4], None, Some(3)).unwrap(), [0, 1, 2]);
    }

    #[test]
    fn a_selection_is_made_before_the_first_particles() {
        let path = Path::new("x.star");
        let keep = [false, true, true, false, true];
        let options = ReadOptions { keep: Some(&keep), first: Some(2), ..ReadOptions::default() };
        let traits = |_| Ok(RowTraits::default());
        let choice = Choice::new(path, 5, &options, None, false, traits).unwrap();
        assert_eq!((choice.rows().collect::<Vec<_>>(), choice.all()), (vec![1, 2], 5));
    }

    #[test]
    fn a_class_is_chosen_before_the_first_particles() {
        let rows = [(2, 1), (1, 1), (2, 1), (2, 2), (1, 2), (2, 2)];
        assert_eq!(chosen(&rows, Some(2), None).unwrap(), [0, 2, 3, 5]);
        assert_eq!(chosen(&rows, Some(1), None).unwrap(), [1, 4]);
        assert_eq!(chosen(&rows, Some(2), Some(2)).unwrap(), [0, 3]);
        let message = chosen(&rows, Some(3), None).unwrap_err().to_string();
        assert!(message.contains("2 in class 1, 4 in class 2") && message.contains("--class"), "{message}");
    }
}
