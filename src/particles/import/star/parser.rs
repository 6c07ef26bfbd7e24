//! Parser for the structure of a STAR file: blocks, loops and pairs.

use std::collections::HashSet;
use std::path::Path;

use super::tokens::Tokens;
use super::{Content, Start, Table, excerpt};
use crate::error::{Error, Result};

/// The structure that the current line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A block, or the start of the file.
    Block,
    /// Pairs, which are added to the last table.
    Pairs,
    /// The labels of a loop.
    Labels,
    /// The rows of a loop.
    Rows,
}

/// Finds the tables of a STAR file, line by line.
pub(super) struct Parser<'a> {
    path: &'a Path,
    block: Option<String>,
    state: State,
    tables: Vec<Table>,
    /// The labels of the last table.
    labels: HashSet<String>,
}

impl<'a> Parser<'a> {
    /// A parser before the first line of the file `path`.
    pub(super) fn new(path: &'a Path) -> Self {
        Self { path, block: None, state: State::Block, tables: Vec::new(), labels: HashSet::new() }
    }

    /// The tables of the file; `None` if it has no data_ block.
    pub(super) fn finish(self) -> Option<Vec<Table>> {
        self.block.map(|_| self.tables)
    }

    /// Parses the next line, which starts at `start`.
    pub(super) fn line(&mut self, line: &str, start: Start) -> Result<()> {
        let mut count = 0;
        let mut first = "";
        let mut second = None;
        for token in Tokens(line) {
            let token = token.map_err(|open| {
                self.error(
                    start,
                    format!("the quote of {} is not closed", excerpt(open)),
                    "close it on the same line",
                )
            })?;
            match count {
                0 => first = token,
                1 => second = Some(token),
                _ => {}
            }
            count += 1;
        }
        if count == 0 {
            return Ok(());
        }
        // Keywords are unquoted and alone on their line: a row may start with a folder named data_something.
        let quoted = line.trim_ascii_start().starts_with(['"', '\'']);
        if !quoted && count == 1 && first.starts_with("data_") {
            self.block = Some(first["data_".len()..].to_owned());
            self.state = State::Block;
            return Ok(());
        }
        let Some(block) = &self.block else {
            return Err(self.error(
                start,
                format!("expected a data_ block, found {}", excerpt(line.trim_ascii())),
                "give the STAR file of the particles",
            ));
        };
        if !quoted && count == 1 && first == "loop_" {
            self.tables.push(Table::new(block, start.line, Content::Loop { first: start, rows: 0 }));
            self.labels.clear();
            self.state = State::Labels;
        } else if !quoted && first.starts_with('_') {
            self.label(first, second, start)?;
        } else {
            self.row(line, count, start)?;
        }
        Ok(())
    }

    fn label(&mut self, label: &str, value: Option<&str>, start: Start) -> Result<()> {
        if self.state != State::Labels {
            if value.is_none() {
                return Err(self.error(
                    start,
                    format!("{} has no value", excerpt(label)),
                    "write its value after it, or loop_ before the labels of a table",
                ));
            }
            if self.state != State::Pairs {
                let block = self.block.as_deref().unwrap_or_default();
                self.tables.push(Table::new(block, start.line, Content::Pairs(Vec::new())));
                self.labels.clear();
                self.state = State::Pairs;
            }
        }
        // Both states imply that a table exists.
        let Some(table) = self.tables.last_mut() else { return Ok(()) };
        if !self.labels.insert(label.to_owned()) {
            let block = table.name.clone();
            return Err(self.error(
                start,
                format!("{} occurs twice in data_{block}", excerpt(label)),
                "remove one of the two columns",
            ));
        }
        table.labels.push(label.to_owned());
        if let Content::Pairs(values) = &mut table.content {
            values.push(value.unwrap_or_default().to_owned());
        }
        Ok(())
    }

    fn row(&mut self, line: &str, count: usize, start: Start) -> Result<()> {
        let in_loop = matches!(self.state, State::Labels | State::Rows);
        let Some(table) = self.tables.last_mut().filter(|table| in_loop && !table.labels.is_empty()) else {
            return Err(self.error(
                start,
                format!("expected data_, loop_ or a _label, found {}", excerpt(line.trim_ascii())),
                "check that this is a complete STAR file",
            ));
        };
        if count != table.labels.len() {
            let (expected, name) = (table.labels.len(), table.name.clone());
            return Err(self.error(
                start,
                format!("the row has {count} values, expected {expected}, one per column of data_{name}"),
                "complete the row or remove it (values with spaces must be quoted)",
            ));
        }
        if let Content::Loop { first, rows } = &mut table.content {
            if *rows == 0 {
                *first = start;
            }
            *rows += 1;
        }
        self.state = State::Rows;
        Ok(())
    }

    fn error(&self, start: Start, problem: String, remedy: &str) -> Error {
        Error::input(self.path, format!("line {}", start.line), problem, remedy)
    }
}
