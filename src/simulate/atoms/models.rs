//! Which models of a file are read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Atom;
use super::elements::{UNKNOWN, is_known, scattering};
use crate::error::{Error, Result};

/// The models of a file to read: NMR ensembles hold alternatives, and files of biological assemblies hold copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModelChoice {
    /// The first in the file, with a warning if there are more.
    #[default]
    First,
    /// That with this number.
    Number(i32),
    /// All of them, as one specimen.
    All,
}

/// The atoms of the chosen models, in file order.
pub(super) struct ModelAtoms {
    choice: ModelChoice,
    first: Option<i32>,
    models: BTreeSet<i32>,
    atoms: Vec<Atom>,
    /// Number of atoms of each element without a scattering factor.
    unknown: BTreeMap<String, usize>,
}

impl ModelAtoms {
    pub fn new(choice: ModelChoice) -> Self {
        Self { choice, first: None, models: BTreeSet::new(), atoms: Vec::new(), unknown: BTreeMap::new() }
    }

    /// Notes an atom of model `model`; true if it is to be read.
    pub fn wants(&mut self, model: i32) -> bool {
        self.models.insert(model);
        let first = *self.first.get_or_insert(model);
        match self.choice {
            ModelChoice::First => model == first,
            ModelChoice::Number(number) => model == number,
            ModelChoice::All => true,
        }
    }

    /// Adds an atom of an element; `None` if the file does not name it.
    pub fn push(&mut self, position: [f64; 3], element: Option<&str>, occupancy: f64) {
        let element = element.unwrap_or("X");
        if !is_known(element) {
            *self.unknown.entry(element.to_uppercase()).or_default() += 1;
        }
        self.atoms.push(Atom { position, weight: scattering(element) * occupancy });
    }

    /// The atoms, after warnings about models that were left out and elements without a scattering factor.
    pub fn finish(self, path: &Path) -> Result<Vec<Atom>> {
        let count = self.models.len();
        match self.choice {
            ModelChoice::First if count > 1 => tracing::warn!(
                "{}: holds {count} models ({}), of which the first is used; choose another with --model-number, or take all \
                 with --all-models",
                path.display(),
                self.numbers()
            ),
            ModelChoice::Number(number) if count > 0 && !self.models.contains(&number) => {
                return Err(Error::input(
                    path,
                    "",
                    format!("holds no model {number}, but {}", self.numbers()),
                    "give one of these to --model-number",
                ));
            }
            _ => {}
        }
        if !self.unknown.is_empty() {
            let named = |(element, count): (&String, &usize)| match element.as_str() {
                "X" | "?" | "." | "" => format!("{count} of no element"),
                _ => format!("{count} of {element}"),
            };
            let all: Vec<String> = self.unknown.iter().map(named).collect();
            tracing::warn!(
                "{}: atoms without a scattering factor count as {UNKNOWN} A, like carbon: {}",
                path.display(),
                all.join(", ")
            );
        }
        Ok(self.atoms)
    }

    /// "1", or the first and the last: "1 to 20".
    fn numbers(&self) -> String {
        match (self.models.first(), self.models.last()) {
            (Some(first), Some(last)) if first != last => format!("{first} to {last}"),
            (Some(only), _) => only.to_string(),
            _ => "none".into(),
        }
    }
}
