//! STAR files: tables of text, as RELION writes them. [`super::relion`] interprets the columns.
//!
//! A file has `data_NAME` blocks, and a block has tables: a `loop_` with its `_labels` and one row per line, or single
//! `_label value` pairs. `#` starts a comment. Values with spaces are quoted. The rows of a loop stay in the file: a table
//! stores their offset and number, and [`Rows`] reads them again. The reader is our own code because it must not hold the
//! rows of large files in memory, and must name the line of every error.

mod parser;
mod tokens;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use parser::Parser;
use tokens::{Token, Tokens};

use crate::error::{Error, Result};
use crate::files;

/// A byte that text files do not contain. A file with one among its first bytes is refused.
const NUL: u8 = 0;
/// Number of bytes that are checked for [`NUL`].
const PROBE: u64 = 4096;
/// Maximal length of a line in bytes.
const MAX_LINE: u64 = 1 << 20;

/// A STAR file: its tables, and the open file with their rows.
#[derive(Debug)]
pub struct Document {
    path: PathBuf,
    file: File,
    tables: Vec<Table>,
}

/// A table of a [`Document`]: a `loop_`, or the pairs of a block as a table with one row.
#[derive(Clone, Debug)]
pub struct Table {
    name: String,
    line: u32,
    labels: Vec<String>,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    /// The rows of a loop: position of the first one, and their number.
    Loop { first: Start, rows: usize },
    /// The values of the pairs.
    Pairs(Vec<String>),
}

/// Position of a line in the file.
#[derive(Clone, Copy, Debug)]
struct Start {
    offset: u64,
    line: u32,
}

impl Table {
    fn new(name: &str, line: u32, content: Content) -> Self {
        Self { name: name.to_owned(), line, labels: Vec::new(), content }
    }

    /// The name of the block, without `data_`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first line of the table, from 1.
    pub fn line(&self) -> usize {
        self.line as usize
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        match self.content {
            Content::Loop { rows, .. } => rows,
            Content::Pairs(_) => 1,
        }
    }

    /// True for a loop without rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Index of the column `label` (with the leading underscore).
    pub fn column(&self, label: &str) -> Option<usize> {
        self.labels.iter().position(|have| have == label)
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.labels.len()
    }
}

impl Document {
    /// Reads the file `path` and finds its tables.
    ///
    /// # Errors
    /// If the file cannot be read or is not a STAR file. The error names the line, the value found and the value expected.
    pub fn read(path: &Path) -> Result<Self> {
        let file = files::open_input(path).map_err(failed(path))?;
        let mut bytes = Vec::new();
        Piece { file: &file, at: 0 }.take(PROBE).read_to_end(&mut bytes).map_err(failed(path))?;
        if bytes.contains(&NUL) {
            return Err(Error::input(
                path,
                "",
                "has binary data, expected the text of a STAR file",
                "give the STAR file of the particles, not their stack",
            ));
        }
        let mut parser = Parser::new(path);
        let mut lines = Lines::new(path, &file, Start { offset: 0, line: 1 });
        while let Some(start) = lines.next()? {
            parser.line(&lines.text, start)?;
        }
        let Some(tables) = parser.finish() else {
            return Err(Error::input(
                path,
                "",
                "has no data_ block, expected a STAR file",
                "give the STAR file of the particles",
            ));
        };
        Ok(Self { path: path.to_path_buf(), file, tables })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tables in file order. A block with several loops gives several tables with the same name.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// The rows of `table`, which must be a table of this document.
    pub fn rows<'a>(&'a self, table: &'a Table) -> Rows<'a> {
        let start = match table.content {
            Content::Loop { first, .. } => first,
            Content::Pairs(_) => Start { offset: 0, line: table.line },
        };
        Rows {
            table,
            lines: Lines::new(&self.path, &self.file, start),
            line: table.line(),
            cells: Vec::with_capacity(table.width()),
            left: table.len(),
        }
    }
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    Error::io(path, "read the STAR file", "check the path and the read permission")
}

/// Reads a file from an offset on, independently of other readers of the same file.
struct Piece<'a> {
    file: &'a File,
    at: u64,
}

impl Read for Piece<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read_at(bytes, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Reads a file line by line.
struct Lines<'a> {
    path: &'a Path,
    reader: BufReader<Piece<'a>>,
    /// Position of the next line.
    next: Start,
    bytes: Vec<u8>,
    /// The last line, without its line end.
    text: String,
}

impl<'a> Lines<'a> {
    fn new(path: &'a Path, file: &'a File, next: Start) -> Self {
        let reader = BufReader::with_capacity(1 << 16, Piece { file, at: next.offset });
        Self { path, reader, next, bytes: Vec::new(), text: String::new() }
    }

    /// Reads a line into `text` and returns its position; `None` at the end of the file.
    fn next(&mut self) -> Result<Option<Start>> {
        self.bytes.clear();
        self.text.clear();
        let limited = &mut (&mut self.reader).take(MAX_LINE);
        let length = limited.read_until(b'\n', &mut self.bytes).map_err(failed(self.path))? as u64;
        if length == 0 {
            return Ok(None);
        }
        let start = self.next;
        if length == MAX_LINE {
            return Err(Error::input(
                self.path,
                format!("line {}", start.line),
                format!("is longer than {MAX_LINE} bytes"),
                "check that this is a complete STAR file",
            ));
        }
        self.next = Start { offset: start.offset + length, line: start.line.saturating_add(1) };
        let line = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        // Lines that are not UTF-8 still parse, with replacement characters.
        self.text.push_str(&String::from_utf8_lossy(line));
        if start.offset == 0 {
            let marks = self.text.len() - self.text.trim_start_matches('\u{feff}').len();
            self.text.drain(..marks);
        }
        Ok(Some(start))
    }
}

/// Iterates over the rows of a table, read from the file.
pub struct Rows<'a> {
    table: &'a Table,
    lines: Lines<'a>,
    line: usize,
    /// Ranges of the cells in the text of the line.
    cells: Vec<Range<usize>>,
    left: usize,
}

impl Rows<'_> {
    /// Moves to the next row; false after the last one.
    ///
    /// # Errors
    /// If the file cannot be read, or has changed since it was opened.
    pub fn advance(&mut self) -> Result<bool> {
        if self.left == 0 {
            return Ok(false);
        }
        self.left -= 1;
        self.cells.clear();
        if let Content::Pairs(values) = &self.table.content {
            self.lines.text.clear();
            for value in values {
                let from = self.lines.text.len();
                self.lines.text.push_str(value);
                self.cells.push(from..self.lines.text.len());
            }
            return Ok(true);
        }
        while self.cells.is_empty() {
            let Some(start) = self.lines.next()? else { return Err(self.changed()) };
            self.line = start.line as usize;
            let text = self.lines.text.as_str();
            self.cells.extend(cell_ranges(text));
        }
        if self.cells.len() == self.table.width() { Ok(true) } else { Err(self.changed()) }
    }

    /// The current line, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The text in column `column` of the current row.
    pub fn cell(&self, column: usize) -> &str {
        &self.lines.text[self.cells[column].clone()]
    }

    /// The error that the file has changed since it was opened.
    pub fn changed(&self) -> Error {
        Error::input(
            self.lines.path,
            format!("line {}", self.line),
            "the file has changed while it was read",
            "import again",
        )
    }
}

/// Ranges of the values of a row in its text, without quotes.
pub fn cells(row: &str) -> Vec<Range<usize>> {
    cell_ranges(row).collect()
}

fn cell_ranges(row: &str) -> impl Iterator<Item = Range<usize>> {
    // The parser has checked the quotes.
    Tokens(row).filter_map(Token::ok).map(|cell| {
        let from = cell.as_ptr() as usize - row.as_ptr() as usize;
        from..from + cell.len()
    })
}

/// A text for an error message: quoted, escaped, and truncated if long.
pub(in crate::particles) fn excerpt(text: &str) -> String {
    const MAX_CHARS: usize = 60;
    let mut short: String = text.chars().take(MAX_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        short.push_str("...");
    }
    format!("`{short}`")
}

#[cfg(test)]
mod tests;
