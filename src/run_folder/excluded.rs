//! Particles that a model is trained without (`--skip-bad-particles`), because they have a [`Defect`]. Every rank of the group knows them; the first writes skipped_half1.csv and its like. The place that such a particle
//! has in its batch stays empty: the mean is still over as many images as the batch was to have.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files;
use crate::parallel::Collective;
use crate::particles::store::{Defect, Store};

/// Particles that a message names one by one.
const NAMED: usize = 16;
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

/// The particles that one model is trained without.
#[derive(Debug)]
pub struct LeftOut {
    allowed: usize,
    store: Store,
    /// On the first rank of the group.
    file: Option<PathBuf>,
    /// By row, with the line of the file.
    rows: BTreeMap<usize, String>,
    /// Those that only this rank knows.
    found: Vec<(usize, Defect)>,
}

impl LeftOut {
    /// None yet, and at most `allowed`; the first rank of the group writes `file`.
    pub fn new(allowed: usize, store: Store, file: Option<PathBuf>) -> Self {
        Self { allowed, store, file, rows: BTreeMap::new(), found: Vec::new() }
    }

    /// Goes on with those of a checkpoint.
    pub fn resume(&mut self, rows: &[u64]) {
        let text = self.file.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
        let line_of = |row: usize| {
            let start = format!("{},", row + 1);
            text.lines().find(|line| line.starts_with(&start)).map_or(format!("{start},,,"), str::to_owned)
        };
        self.rows = rows.iter().map(|&row| (row as usize, line_of(row as usize))).collect();
    }

    /// Their rows, sorted.
    pub fn rows(&self) -> Vec<u64> {
        self.rows.keys().map(|&row| row as u64).collect()
    }

    /// Is `row` among them?
    pub fn contains(&self, row: usize) -> bool {
        self.rows.contains_key(&row)
    }

    /// Takes the damaged images of a batch.
    ///
    /// # Errors
    /// Names the first one where none may be left out.
    pub fn find(&mut self, damaged: &[(usize, Defect)]) -> Result<()> {
        for &(row, defect) in damaged {
            if self.allowed == 0 {
                return Err(self.store.image_error(row, defect));
            }
            if !self.contains(row) && !self.found.iter().any(|&(known, _)| known == row) {
                self.found.push((row, defect));
            }
        }
        Ok(())
    }

    /// Are those that are known and those that the ranks have found more than may be left out? Every rank calls it.
    ///
    /// # Errors
    /// On every rank, when they are.
    pub fn foresee(&self, group: &Collective) -> Result<()> {
        let found = group.all_gather(self.found.len() as u64).iter().sum::<u64>() as usize;
        let own: Vec<usize> = self.found.iter().map(|&(row, _)| row).collect();
        self.check(self.rows.len() + found, &own)
    }

    /// How many only this rank knows.
    pub fn untold(&self) -> usize {
        self.found.len()
    }

    /// Tells the group what this rank has found, and learns what the others have. Every rank calls it, after `step` steps.
    ///
    /// # Errors
    /// On every rank, when they are more than may be left out.
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
                (format!("\"{}\"", stack.replace('"', "\"\"")), image.to_string())
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

    /// May `count` be left out? `last` are among them.
    fn check(&self, count: usize, last: &[usize]) -> Result<()> {
        if count <= self.allowed {
            return Ok(());
        }
        Err(Error::Numeric {
            problem: format!(
                "{count} particles cannot be used, and --skip-bad-particles allows {}; the last are {}",
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
        match written {
            Ok(()) => tracing::warn!("{} particles are left out: {}", self.rows.len(), file.display()),
            Err(error) => tracing::warn!("{error}; {} particles are left out", self.rows.len()),
        }
    }

    /// "12 (image 3 of a.mrcs), 40 (...) and 5 more".
    pub fn names(&self, rows: &[usize]) -> String {
        let name = |&row: &usize| match self.store.origin(row) {
            Some((stack, image)) => format!("{} (image {image} of {stack})", row + 1),
            None => format!("{}", row + 1),
        };
        let named: Vec<String> = rows.iter().take(NAMED).map(name).collect();
        let more = rows.len().saturating_sub(NAMED);
        named.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
    }
}

/// Where the particles are listed that `model` was trained without.
pub fn path(folder: &Path, model: &str) -> PathBuf {
    folder.join(format!("skipped_{model}.csv"))
}

/// The rows of the particles that any model of the run in `folder` was trained without, of a set of `count`.
///
/// # Errors
/// When a list cannot be read, or names a particle that the set does not have.
pub fn rows_of_run(folder: &Path, count: usize) -> Result<BTreeSet<usize>> {
    let mut rows = BTreeSet::new();
    for model in ["half1", "half2", "map"] {
        let file = path(folder, model);
        if !file.exists() {
            continue;
        }
        let text =
            std::fs::read_to_string(&file).map_err(Error::io(&file, "read the list", "check the file"))?;
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

/// How many `model` was trained without.
pub fn count(folder: &Path, model: &str) -> usize {
    std::fs::read_to_string(path(folder, model)).map_or(0, |text| text.lines().count().saturating_sub(1))
}
