//! Particles that a model is trained without (`--skip-bad-particles`), because they have a [`Defect`].
//!
//! Every rank of the group knows them; the first writes skipped_half1.csv and the like. Such a particle leaves a gap in its batch:
//! the mean is still over the full number of images.
//!
//! The list is written without the csv crate: its stack column is always quoted, and reading needs the first column only.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files;
use crate::parallel::Collective;
use crate::particles::Subset;
use crate::particles::store::{Defect, Store};

/// Number of particles that a message lists.
const LISTED: usize = 16;
const HEADER: &str = "particle,stack,image,reason,step";

/// The defects, in the order of their codes in a message between ranks.
const DEFECTS: [Defect; 3] = [Defect::Checksum, Defect::NotFinite, Defect::Ctf];

/// The column `reason` of the file.
fn reason(defect: Defect) -> &'static str {
    match defect {
        Defect::Checksum => "checksum",
        Defect::NotFinite => "pixels",
        Defect::Ctf => "ctf",
    }
}

/// The particles that one model is trained without (`--skip-bad-particles`).
#[derive(Debug)]
pub struct Excluded {
    allowed: usize,
    store: Store,
    /// On the first rank of the group.
    file: Option<PathBuf>,
    /// Line of the file, by row.
    rows: BTreeMap<usize, String>,
    /// Found on this rank, not shared yet.
    found: Vec<(usize, Defect)>,
}

impl Excluded {
    /// None yet, and at most `allowed`. The first rank of the group writes `file`.
    pub fn new(allowed: usize, store: Store, file: Option<PathBuf>) -> Self {
        Self { allowed, store, file, rows: BTreeMap::new(), found: Vec::new() }
    }

    /// Restores the rows of a checkpoint.
    pub fn resume(&mut self, rows: &[u64]) {
        let text = self.file.as_ref().and_then(|file| files::read_text(file).ok()).unwrap_or_default();
        let line_of = |row: usize| {
            let start = format!("{},", row + 1);
            text.lines().find(|line| line.starts_with(&start)).map_or(format!("{start},,,"), str::to_owned)
        };
        self.rows = rows.iter().map(|&row| (row as usize, line_of(row as usize))).collect();
    }

    /// Rows of the excluded particles, sorted.
    pub fn rows(&self) -> Vec<u64> {
        self.rows.keys().map(|&row| row as u64).collect()
    }

    /// Whether the particle in `row` is excluded.
    pub fn contains(&self, row: usize) -> bool {
        self.rows.contains_key(&row)
    }

    /// Adds the unusable particles of a batch on this rank, until [`Excluded::share`].
    ///
    /// # Errors
    /// Names the first one if none may be excluded.
    pub fn find(&mut self, damaged: &[(usize, Defect)]) -> Result<()> {
        for &(row, defect) in damaged {
            if self.allowed == 0 {
                return Err(self.store.image_error(row, defect));
            }
            if !self.contains(row) && !self.found.iter().any(|&(found, _)| found == row) {
                self.found.push((row, defect));
            }
        }
        Ok(())
    }

    /// Checks that the excluded particles and those that the ranks have found are not more than allowed. Every rank calls it.
    ///
    /// # Errors
    /// On every rank, when they are more.
    pub fn check_budget(&self, group: &Collective) -> Result<()> {
        let found = group.all_gather(self.found.len() as u64).iter().sum::<u64>() as usize;
        let own: Vec<usize> = self.found.iter().map(|&(row, _)| row).collect();
        self.check(self.rows.len() + found, &own)
    }

    /// Number of particles found on this rank that the group does not know yet.
    pub fn unshared(&self) -> usize {
        self.found.len()
    }

    /// Shares what the ranks have found. Every rank calls it, after `step` steps.
    ///
    /// # Errors
    /// On every rank, when more particles are excluded than allowed.
    pub fn share(&mut self, group: &Collective, step: u64) -> Result<()> {
        let encode = |&(row, defect): &(usize, Defect)| {
            let code = DEFECTS.iter().position(|&other| other == defect).expect("all defects have a code");
            (row * DEFECTS.len() + code) as u64
        };
        let own: Vec<u64> = self.found.drain(..).map(|found| encode(&found)).collect();
        let decode = |word: u64| (word as usize / DEFECTS.len(), DEFECTS[word as usize % DEFECTS.len()]);
        let all: Vec<_> = group.all_gather_lists(&own).into_iter().map(decode).collect();
        self.add(&all, step)
    }

    /// Excludes `all` from now on; they were found in step `step`. Every rank calls it with the same particles.
    fn add(&mut self, all: &[(usize, Defect)], step: u64) -> Result<()> {
        let before = self.rows.len();
        for &(row, defect) in all {
            let origin = self.store.origin(row);
            let (stack, image) = origin.map_or((String::new(), String::new()), |(stack, image)| {
                (files::csv_cell(stack), image.to_string())
            });
            let line = format!("{},{stack},{image},{},{step}", row + 1, reason(defect));
            self.rows.entry(row).or_insert(line);
        }
        if self.rows.len() > before {
            self.record();
        }
        let new: Vec<usize> = all.iter().map(|&(row, _)| row).collect();
        self.check(self.rows.len(), &new)
    }

    /// Checks that `count` particles may be excluded; `last` are those found last.
    fn check(&self, count: usize, last: &[usize]) -> Result<()> {
        if count <= self.allowed {
            return Ok(());
        }
        Err(Error::Numeric {
            problem: format!(
                "{count} particles are unusable, but --skip-bad-particles allows only {}; the most recent are {}",
                self.allowed,
                self.names(last)
            ),
            remedy: "repair or remove them, or allow more".into(),
        })
    }

    fn record(&self) {
        let (Some(file), true) = (&self.file, !self.rows.is_empty()) else { return };
        let written = files::write_atomically(file, |w| {
            writeln!(w, "{HEADER}")?;
            self.rows.values().try_for_each(|line| writeln!(w, "{line}"))
        });
        let excluded = match self.rows.len() {
            1 => "1 particle is excluded".to_owned(),
            count => format!("{count} particles are excluded"),
        };
        match written {
            Ok(()) => tracing::warn!("{excluded}: {}", file.display()),
            Err(error) => tracing::warn!("{error}; {excluded}"),
        }
    }

    /// "12 (image 3 of a.mrcs), 40 (...) and 5 more".
    pub fn names(&self, rows: &[usize]) -> String {
        let name = |&row: &usize| match self.store.origin(row) {
            Some((stack, image)) => format!("{} (image {image} of {stack})", row + 1),
            None => format!("{}", row + 1),
        };
        let named: Vec<String> = rows.iter().take(LISTED).map(name).collect();
        let more = rows.len().saturating_sub(LISTED);
        named.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
    }
}

/// The list of the particles that the model of `subset` was trained without.
pub fn path(folder: &Path, subset: Subset) -> PathBuf {
    folder.join(format!("skipped_{subset}.csv"))
}

/// The rows of the particles that some model of the run in `folder` was trained without, in a set of `count` particles.
///
/// # Errors
/// When a list cannot be read, or names a particle that the set does not have.
pub fn rows_of_run(folder: &Path, count: usize) -> Result<BTreeSet<usize>> {
    let mut rows = BTreeSet::new();
    for subset in Subset::ALL {
        let file = path(folder, subset);
        if !file.exists() {
            continue;
        }
        let text = files::read_text(&file).map_err(Error::io(&file, "read the list", "check the file"))?;
        for (index, line) in text.lines().enumerate().skip(1) {
            let first = line.split(',').next().unwrap_or(line);
            let row = first.parse().ok().filter(|row| (1..=count).contains(row)).ok_or_else(|| {
                let problem = format!("the particle is \"{first}\", expected 1 to {count}");
                Error::input(
                    &file,
                    format!("line {}", index + 1),
                    problem,
                    "give the run of this particle set",
                )
            })?;
            rows.insert(row - 1);
        }
    }
    Ok(rows)
}

/// Number of particles that the model of `subset` was trained without.
pub fn count(folder: &Path, subset: Subset) -> usize {
    files::read_text(&path(folder, subset)).map_or(0, |text| text.lines().count().saturating_sub(1))
}
