//! Which rows of the metadata are imported, by conditions, a list of rows, or at random.

use std::path::{Path, PathBuf};

use rand::seq::index;

use super::filter::Filter;
use super::format::{self, Companions};
use super::row::ReadOptions;
use crate::error::{Error, Result};
use crate::files;
use crate::random::{Purpose, stream};

/// What is imported of a set, beside its class and the first rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// A condition that particles fulfil.
    pub filter: Option<Filter>,
    /// A text file with the numbers of rows of the metadata, from 1, one per line.
    pub rows: Option<PathBuf>,
    /// This number of particles, drawn from the others with the seed of the import.
    pub random: Option<usize>,
}

impl Selection {
    /// True if it selects everything.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// For each row of the metadata whether it is imported; `None` for all. Reads the metadata once.
    ///
    /// # Errors
    /// If the metadata or the list of rows cannot be read, or no particle is left.
    pub fn keep(
        &self,
        input: &Path,
        companions: &Companions,
        options: &ReadOptions,
    ) -> Result<Option<Vec<bool>>> {
        if self.is_all() {
            return Ok(None);
        }
        let mut set = format::read(input, companions, &ReadOptions { first: None, ..*options })?;
        let choice = &set.properties().choice;
        let (all, rows): (usize, Vec<usize>) = (choice.all(), choice.rows().collect());
        let stacks: Vec<String> = set.properties().stacks.names();
        let listed = self.rows.as_deref().map(|file| listed(file, all)).transpose()?;
        let mut left = Vec::new();
        match (&self.filter, &listed) {
            (None, None) => left = rows,
            (filter, listed) => {
                for (row, particle) in rows.into_iter().zip(set.rows()) {
                    let particle = particle?;
                    let stack = stacks.get(particle.source.file as usize).map_or("", String::as_str);
                    let accepted = filter.as_ref().is_none_or(|filter| filter.accepts(&particle, stack));
                    if accepted && listed.as_ref().is_none_or(|listed| listed[row]) {
                        left.push(row);
                    }
                }
            }
        }
        if left.is_empty() {
            let filter = self.filter.as_ref().map(|filter| format!(" with {filter}")).unwrap_or_default();
            let listed = self.rows.as_ref().map(|file| format!(" of the rows in {}", file.display()));
            return Err(Error::input(
                input,
                "",
                format!("has no particle{filter}{}", listed.unwrap_or_default()),
                "change --where or --rows; `info` shows the range of each value in an imported set",
            ));
        }
        let mut keep = vec![false; all];
        let drawn = self.random.filter(|&count| count < left.len());
        if let Some(count) = drawn {
            let random = &mut stream(options.seed, Purpose::Selection, 0, 0);
            index::sample(random, left.len(), count).iter().for_each(|place| keep[left[place]] = true);
        } else {
            left.iter().for_each(|&row| keep[row] = true);
        }
        Ok(Some(keep))
    }

    /// What it selects, for the user; `None` for everything.
    pub fn describe(&self, seed: u64) -> Option<String> {
        let mut parts = Vec::new();
        parts.extend(self.filter.as_ref().map(|filter| format!("where {filter}")));
        parts.extend(self.rows.as_ref().map(|file| format!("rows of {}", file.display())));
        parts.extend(self.random.map(|_| format!("drawn at random (seed {seed})")));
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// The rows that a file lists, of `all` rows.
fn listed(file: &Path, all: usize) -> Result<Vec<bool>> {
    let failed = Error::io(file, "read the list of rows", "check the path, and that it is a text file");
    let text = files::read_text(file).map_err(failed)?;
    let mut listed = vec![false; all];
    for (line, number) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let number = number.trim();
        match number.parse::<usize>() {
            Ok(row) if (1..=all).contains(&row) => listed[row - 1] = true,
            _ => {
                return Err(Error::input(
                    file,
                    format!("line {}", line + 1),
                    format!(
                        "is {}, expected the number of a row from 1 to {all}",
                        super::star::excerpt(number)
                    ),
                    "write the number of one row of the particles per line, counted from 1",
                ));
            }
        }
    }
    Ok(listed)
}
