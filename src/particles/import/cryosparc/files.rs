//! The columns of a `.cs` file and its passthrough files, by particle.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::particles::import::choice::Choice;
use crate::particles::import::npy::{Field, FieldType, Table};
use crate::particles::import::stack_names::Location;

pub(super) const REMEDY: &str = "correct the value or remove the particle (with cryosparc-tools)";
const UID: &str = "uid";

/// The main file and the passthrough files.
#[derive(Debug)]
pub(super) struct Files {
    main: Table,
    /// Passthrough files, each with the record numbers of the particles of the main file.
    others: Vec<(Table, Vec<u32>)>,
    /// The record of each chosen particle in the main file; `None` for all.
    chosen: Option<Vec<u32>>,
}

/// A column of one of the files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub name: &'static str,
    /// Index of its file: 0 for the main file, then the passthrough files.
    pub file: usize,
    pub field: Field,
    /// Number of values of a particle before those in use: those of other classes.
    pub first: usize,
}

impl Files {
    pub fn read(path: &Path, passthrough: &[PathBuf]) -> Result<Self> {
        let mut files =
            Self { main: Table::read(path)?, others: Vec::with_capacity(passthrough.len()), chosen: None };
        for path in passthrough {
            let other = Table::read(path)?;
            let records = matched(&files.main, &other)?;
            files.others.push((other, records));
        }
        Ok(files)
    }

    /// The column `name` with `count` numbers per particle, in the first file that has it.
    pub fn find(&self, name: &'static str, count: usize) -> Result<Option<Column>> {
        let Some(column) = self.any(name) else { return Ok(None) };
        if matches!(column.field.field_type, FieldType::NumberFormat(_)) && column.field.count == count {
            return Ok(Some(column));
        }
        Err(Error::input(
            self.table(column.file).path(),
            "header",
            format!("the column {name} does not have {count} numbers per particle"),
            "export the particles again",
        ))
    }

    pub fn any(&self, name: &'static str) -> Option<Column> {
        let files = 0..=self.others.len();
        files
            .into_iter()
            .find_map(|file| Some(Column { name, file, field: self.table(file).field(name)?, first: 0 }))
    }

    /// The numeric column with the name `full`, which errors call `name`.
    pub fn named(&self, name: &'static str, full: &str) -> Option<Column> {
        let column = |file| Some(Column { name, file, field: self.table(file).field(full)?, first: 0 });
        let found = (0..=self.others.len()).find_map(column)?;
        matches!(found.field.field_type, FieldType::NumberFormat(_)).then_some(found)
    }

    /// The main file.
    pub fn into_main(self) -> Table {
        self.main
    }

    /// The path of the main file.
    pub fn path(&self) -> &Path {
        self.main.path()
    }

    /// Number of particles: those of the main file, or those chosen.
    pub fn len(&self) -> usize {
        self.chosen.as_ref().map_or(self.main.len(), Vec::len)
    }

    /// Restricts the particles to those of `choice`.
    pub fn choose(&mut self, choice: &Choice) {
        if choice.count() < self.main.len() {
            self.chosen = Some(choice.rows().map(|row| row as u32).collect());
        }
    }

    fn main_record(&self, particle: usize) -> usize {
        self.chosen.as_ref().map_or(particle, |chosen| chosen[particle] as usize)
    }

    /// The location of the particle in the main file.
    pub fn place(&self, particle: usize) -> Location {
        Location::Particle(self.main_record(particle) + 1)
    }

    pub fn table(&self, file: usize) -> &Table {
        if file == 0 { &self.main } else { &self.others[file - 1].0 }
    }

    /// Record number of the particle in the file of the column.
    pub fn record(&self, column: &Column, particle: usize) -> usize {
        let main = self.main_record(particle);
        if column.file == 0 { main } else { self.others[column.file - 1].1[main] as usize }
    }

    pub fn number(&self, column: &Column, particle: usize, k: usize) -> f64 {
        self.table(column.file).number(column.field, self.record(column, particle), column.first + k)
    }

    /// The number in `column`, which must be finite.
    pub fn finite(&self, column: &Column, particle: usize, k: usize) -> Result<f64> {
        let value = self.number(column, particle, k);
        if value.is_finite() { Ok(value) } else { Err(self.refuse(column, particle, k, "a finite number")) }
    }

    pub fn positive(&self, column: &Column, particle: usize) -> Result<f64> {
        let value = self.finite(column, particle, 0)?;
        if value > 0.0 { Ok(value) } else { Err(self.refuse(column, particle, 0, "a number above 0")) }
    }

    pub fn refuse(&self, column: &Column, particle: usize, k: usize, expected: &str) -> Error {
        let value = self.number(column, particle, k);
        self.error(column, particle, format!("{} is {value}, expected {expected}", column.name), REMEDY)
    }

    pub fn error(&self, column: &Column, particle: usize, problem: String, remedy: &str) -> Error {
        let place = Location::Particle(self.record(column, particle) + 1);
        Error::input(self.table(column.file).path(), place.to_string(), problem, remedy)
    }
}

/// For each record of `main`, the record number in `other` with the same `uid`.
fn matched(main: &Table, other: &Table) -> Result<Vec<u32>> {
    let uid = |table: &Table| {
        table.field(UID).filter(|field| table.is_empty() || table.index(*field, 0).is_some()).ok_or_else(
            || {
                let problem = format!("has no column {UID}, which matches the records of the files");
                Error::input(table.path(), "header", problem, "give a passthrough file of the same particles")
            },
        )
    };
    let (of_main, of_other) = (uid(main)?, uid(other)?);
    let mut records = HashMap::with_capacity(other.len());
    for record in 0..other.len() {
        if records.insert(other.index(of_other, record), record as u32).is_some() {
            return Err(Error::input(
                other.path(),
                Location::Particle(record + 1).to_string(),
                format!("the {UID} occurs twice"),
                "export the particles again",
            ));
        }
    }
    let found = |record: usize| {
        let uid = main.index(of_main, record);
        records.get(&uid).copied().ok_or_else(|| {
            Error::input(
                main.path(),
                Location::Particle(record + 1).to_string(),
                format!("the {UID} {} is not in {}", uid.unwrap_or_default(), other.path().display()),
                "give the passthrough file of the same job",
            )
        })
    };
    (0..main.len()).map(found).collect()
}
