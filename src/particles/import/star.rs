//! STAR files: tables of text, as RELION writes them. What the columns mean is [`super::relion`]'s business.
//!
//! A file holds `data_NAME` blocks, and a block holds tables: a `loop_` with its `_labels` and one row a line, or
//! single `_label value` pairs. `#` starts a comment, and values with blanks stand in quotes.
//! The text is kept once, and a table keeps only where its rows begin, so that a file of a million rows takes little
//! more memory than its size.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A text file has none of these; whatever has one among its first bytes is not read further.
const NUL: u8 = 0;
/// How much is read before the file is believed to be text.
const PROBE: u64 = 4096;

/// A STAR file in memory.
#[derive(Clone, Debug)]
pub struct Document {
    path: PathBuf,
    text: String,
    tables: Vec<Table>,
}

/// One table of a [`Document`]: a `loop_`, or the pairs of a block as a table of one row.
#[derive(Clone, Debug)]
pub struct Table {
    name: String,
    line: u32,
    labels: Vec<String>,
    /// Where each row begins; for pairs, where each label's line begins.
    rows: Vec<Start>,
    pairs: bool,
}

#[derive(Clone, Copy, Debug)]
struct Start {
    offset: usize,
    line: u32,
}

impl Table {
    /// The block's name, without `data_`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The line it begins on, from 1.
    pub fn line(&self) -> usize {
        self.line as usize
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        if self.pairs { 1 } else { self.rows.len() }
    }

    /// True for a loop without rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The column of `label` (with its underscore), from 0.
    pub fn column(&self, label: &str) -> Option<usize> {
        self.labels.iter().position(|have| have == label)
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.labels.len()
    }
}

impl Document {
    /// Reads and parses the file `path`.
    ///
    /// # Errors
    /// When it cannot be read or is not a STAR file; the message has the line at fault.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = || Error::io(path, "read the STAR file", "check the path and the right to read it");
        let mut file = File::open(path).map_err(failed())?;
        let mut bytes = Vec::new();
        (&mut file).take(PROBE).read_to_end(&mut bytes).map_err(failed())?;
        if bytes.contains(&NUL) {
            return Err(Error::input(
                path,
                "",
                "holds binary data, expected the text of a STAR file",
                "name the STAR file of the particles, not their stack",
            ));
        }
        file.read_to_end(&mut bytes).map_err(failed())?;
        // Names that are not UTF-8 still parse; only their odd letters are lost.
        let text = String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        Self::parse(path, text)
    }

    /// Parses `text`; `path` is for messages.
    ///
    /// # Errors
    /// When it is not a STAR file: the message has the line, what it holds and what was expected.
    pub fn parse(path: &Path, text: String) -> Result<Self> {
        let mut parser = Parser { path, block: None, state: State::Block, tables: Vec::new() };
        let mut offset = text.len() - text.trim_start_matches('\u{feff}').len();
        let mut number = 0u32;
        while offset < text.len() {
            number = number.saturating_add(1);
            let line = line_at(&text, offset);
            parser.line(line, Start { offset, line: number })?;
            offset += line.len() + 1;
        }
        if parser.block.is_none() {
            return Err(Error::input(
                path,
                "",
                "holds no data_ block, expected a STAR file",
                "name the STAR file of the particles",
            ));
        }
        let tables = parser.tables;
        Ok(Self { path: path.to_path_buf(), text, tables })
    }

    /// Where it came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its tables, in file order. A block with several loops gives several tables of one name.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// Puts the values of row `row` of `table` (one of this document's) into `cells`; returns its line, from 1.
    ///
    /// # Panics
    /// If the table has no such row.
    pub fn cells<'a>(&'a self, table: &Table, row: usize, cells: &mut Vec<&'a str>) -> usize {
        cells.clear();
        // Quotes were checked when the file was parsed.
        if table.pairs {
            for start in &table.rows {
                cells.extend(Tokens(line_at(&self.text, start.offset)).filter_map(Token::ok).nth(1));
            }
            return table.line();
        }
        let start = table.rows[row];
        cells.extend(Tokens(line_at(&self.text, start.offset)).filter_map(Token::ok));
        start.line as usize
    }
}

fn line_at(text: &str, offset: usize) -> &str {
    let rest = &text[offset..];
    rest.find('\n').map_or(rest, |end| &rest[..end])
}

/// A value, or the text after a quote that is not closed.
type Token<'a> = std::result::Result<&'a str, &'a str>;

/// The values of one line, without quotes and up to a comment.
struct Tokens<'a>(&'a str);

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let rest = self.0.trim_ascii_start();
        let bytes = rest.as_bytes();
        let first = *bytes.first()?;
        if first == b'#' {
            self.0 = "";
            return None;
        }
        if first == b'"' || first == b'\'' {
            // A quote inside a word ('5' end') does not close it: the closing one ends the line or stands before a blank.
            let closes =
                |&at: &usize| bytes[at] == first && bytes.get(at + 1).is_none_or(u8::is_ascii_whitespace);
            let Some(end) = (1..bytes.len()).find(closes) else {
                self.0 = "";
                return Some(Err(rest));
            };
            self.0 = &rest[end + 1..];
            return Some(Ok(&rest[1..end]));
        }
        let end = bytes.iter().position(u8::is_ascii_whitespace).unwrap_or(bytes.len());
        self.0 = &rest[end..];
        Some(Ok(&rest[..end]))
    }
}

/// What the lines so far have opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A block, or nothing.
    Block,
    /// A block with pairs: the last table takes more of them.
    Pairs,
    /// A loop whose labels are being named.
    Labels,
    /// A loop whose rows have begun.
    Rows,
}

struct Parser<'a> {
    path: &'a Path,
    block: Option<String>,
    state: State,
    tables: Vec<Table>,
}

impl Parser<'_> {
    fn line(&mut self, line: &str, start: Start) -> Result<()> {
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
        // Keywords are never quoted, and stand alone: a row may well begin with a folder named data_something.
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
                "name the STAR file of the particles",
            ));
        };
        if !quoted && count == 1 && first == "loop_" {
            self.tables.push(Table::new(block, start.line, false));
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
                    "write its value behind it, or loop_ before the labels of a table",
                ));
            }
            if self.state != State::Pairs {
                let block = self.block.as_deref().unwrap_or_default();
                self.tables.push(Table::new(block, start.line, true));
                self.state = State::Pairs;
            }
        }
        // Both states follow the making of a table.
        let Some(table) = self.tables.last_mut() else { return Ok(()) };
        if table.labels.iter().any(|have| have == label) {
            let block = table.name.clone();
            return Err(self.error(
                start,
                format!("{} is there twice in data_{block}", excerpt(label)),
                "remove one of the two columns",
            ));
        }
        table.labels.push(label.to_owned());
        if table.pairs {
            table.rows.push(start);
        }
        Ok(())
    }

    fn row(&mut self, line: &str, count: usize, start: Start) -> Result<()> {
        let in_loop = matches!(self.state, State::Labels | State::Rows);
        let Some(table) = self.tables.last_mut().filter(|table| in_loop && !table.labels.is_empty()) else {
            return Err(self.error(
                start,
                format!("expected data_, loop_ or a _label, found {}", excerpt(line.trim_ascii())),
                "check that this is a STAR file and complete",
            ));
        };
        if count != table.labels.len() {
            let (expected, name) = (table.labels.len(), table.name.clone());
            return Err(self.error(
                start,
                format!(
                    "the row holds {count} values, expected {expected}, one for each column of data_{name}"
                ),
                "complete the row or remove it (a value with blanks stands in quotes)",
            ));
        }
        table.rows.push(start);
        self.state = State::Rows;
        Ok(())
    }

    fn error(&self, start: Start, problem: String, remedy: &str) -> Error {
        Error::input(self.path, format!("line {}", start.line), problem, remedy)
    }
}

impl Table {
    fn new(name: &str, line: u32, pairs: bool) -> Self {
        Self { name: name.to_owned(), line, labels: Vec::new(), rows: Vec::new(), pairs }
    }
}

/// A found text for a message: quoted, without control characters, and not too long.
pub(super) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut short: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push_str("...");
    }
    format!("`{short}`")
}

#[cfg(test)]
mod tests;
