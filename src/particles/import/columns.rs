//! Typed access to the columns of a STAR table, with errors that name line, label and value.

use super::star::{Document, Rows, Table, excerpt};
use crate::error::{Error, Result};

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    index: usize,
    /// Label, with the leading underscore.
    pub label: &'static str,
}

/// The column `label` of `table`; `None` if it does not exist.
pub fn find(table: &Table, label: &'static str) -> Option<Column> {
    table.column(label).map(|index| Column { index, label })
}

/// The column `label` of `table`; an error if it does not exist.
pub fn require(document: &Document, table: &Table, label: &'static str) -> Result<Column> {
    find(table, label).ok_or_else(|| {
        Error::input(
            document.path(),
            format!("line {}", table.line()),
            format!("data_{} has no column {label}", table.name()),
            "add the column, or export the particles again with it",
        )
    })
}

/// Iterates over the rows of a table.
pub struct Cursor<'a> {
    document: &'a Document,
    rows: Rows<'a>,
}

impl<'a> Cursor<'a> {
    /// A cursor before the first row of `table`.
    pub fn new(document: &'a Document, table: &'a Table) -> Self {
        Self { document, rows: document.rows(table) }
    }

    /// Moves to the next row; false after the last one.
    pub fn advance(&mut self) -> Result<bool> {
        self.rows.advance()
    }

    /// The current line, from 1.
    pub fn line(&self) -> usize {
        self.rows.line()
    }

    /// The text in `column`.
    pub fn text(&self, column: Column) -> &str {
        self.rows.cell(column.index)
    }

    /// The number in `column`, which must be finite.
    pub fn number(&self, column: Column) -> Result<f64> {
        match self.text(column).parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(value),
            Ok(_) => Err(self.refuse(column, "a finite number")),
            Err(_) => Err(self.refuse(column, "a number")),
        }
    }

    /// The number in `column`, or `default` if the table has no such column.
    pub fn number_or(&self, column: Option<Column>, default: f64) -> Result<f64> {
        column.map_or(Ok(default), |column| self.number(column))
    }

    /// The number in `column`, which must be above 0.
    pub fn positive(&self, column: Column) -> Result<f64> {
        let value = self.number(column)?;
        if value > 0.0 { Ok(value) } else { Err(self.refuse(column, "a number above 0")) }
    }

    /// The integer in `column`, which may be written as "2.000000".
    pub fn integer(&self, column: Column) -> Result<i64> {
        let value = self.number(column)?;
        if value.fract() == 0.0 && value.abs() < 1e15 {
            Ok(value as i64)
        } else {
            Err(self.refuse(column, "an integer"))
        }
    }

    /// The error that the value in `column` is not `expected`.
    pub fn refuse(&self, column: Column, expected: &str) -> Error {
        self.error(
            format!("{} is {}, expected {expected}", column.label, excerpt(self.text(column))),
            "correct the value or remove the row",
        )
    }

    /// An error in this row.
    pub fn error(&self, problem: impl Into<String>, remedy: impl Into<String>) -> Error {
        Error::input(self.document.path(), format!("line {}", self.line()), problem, remedy)
    }

    /// The error that the file has changed since it was opened.
    pub fn changed(&self) -> Error {
        self.rows.changed()
    }
}
