//! STAR files: tables of text, as RELION writes them. What the columns mean is [`super::relion`]'s business.
//!
//! A file holds `data_NAME` blocks, and a block holds tables: a `loop_` with its `_labels` and one row a line, or
//! single `_label value` pairs. `#` starts a comment, and values with blanks stand in quotes.
//! The rows of a loop stay in the file: a table keeps where they begin and how many they are, and whoever wants them
//! reads them again ([`Rows`]).

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A text file has none of these; whatever has one among its first bytes is not read further.
const NUL: u8 = 0;
/// How much is read before the file is believed to be text.
const PROBE: u64 = 4096;
/// The most bytes a line may have.
const LONGEST_LINE: u64 = 1 << 20;

/// A STAR file: its tables, and the open file that holds their rows.
#[derive(Debug)]
pub struct Document {
    path: PathBuf,
    file: File,
    tables: Vec<Table>,
}

/// One table of a [`Document`]: a `loop_`, or the pairs of a block as a table of one row.
#[derive(Clone, Debug)]
pub struct Table {
    name: String,
    line: u32,
    labels: Vec<String>,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    /// Where the first row of a loop begins, and their number.
    Loop { first: Start, rows: usize },
    /// The values of pairs.
    Pairs(Vec<String>),
}

/// Where a line begins.
#[derive(Clone, Copy, Debug)]
struct Start {
    offset: u64,
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
        match self.content {
            Content::Loop { rows, .. } => rows,
            Content::Pairs(_) => 1,
        }
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
    /// Reads the file `path` through, and remembers its tables.
    ///
    /// # Errors
    /// When it cannot be read or is not a STAR file: the message has the line, what it holds and what was expected.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(failed(path))?;
        if !file.metadata().map_err(failed(path))?.is_file() {
            return Err(Error::input(
                path,
                "",
                "is no regular file, and a STAR file is read more than once",
                "write the table to a file, and name that",
            ));
        }
        let mut bytes = Vec::new();
        Piece { file: &file, at: 0 }.take(PROBE).read_to_end(&mut bytes).map_err(failed(path))?;
        if bytes.contains(&NUL) {
            return Err(Error::input(
                path,
                "",
                "holds binary data, expected the text of a STAR file",
                "name the STAR file of the particles, not their stack",
            ));
        }
        let mut parser = Parser { path, block: None, state: State::Block, tables: Vec::new() };
        let mut lines = Lines::new(path, &file, Start { offset: 0, line: 1 });
        while let Some(start) = lines.next()? {
            parser.line(&lines.text, start)?;
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
        Ok(Self { path: path.to_path_buf(), file, tables })
    }

    /// Where it came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its tables, in file order. A block with several loops gives several tables of one name.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// Before the first row of `table` (one of this document's).
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
    Error::io(path, "read the STAR file", "check the path and the right to read it")
}

/// A file from a place on, for one reader of several.
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

/// Reads line after line.
struct Lines<'a> {
    path: &'a Path,
    reader: BufReader<Piece<'a>>,
    /// Where the next line begins.
    next: Start,
    bytes: Vec<u8>,
    /// The line that was read last, without its end.
    text: String,
}

impl<'a> Lines<'a> {
    fn new(path: &'a Path, file: &'a File, next: Start) -> Self {
        let reader = BufReader::with_capacity(1 << 16, Piece { file, at: next.offset });
        Self { path, reader, next, bytes: Vec::new(), text: String::new() }
    }

    /// Reads a line into `text`, and says where it begins; `None` at the end.
    fn next(&mut self) -> Result<Option<Start>> {
        self.bytes.clear();
        self.text.clear();
        let limited = &mut (&mut self.reader).take(LONGEST_LINE);
        let length = limited.read_until(b'\n', &mut self.bytes).map_err(failed(self.path))? as u64;
        if length == 0 {
            return Ok(None);
        }
        let start = self.next;
        if length == LONGEST_LINE {
            return Err(Error::input(
                self.path,
                format!("line {}", start.line),
                format!("is longer than {LONGEST_LINE} bytes"),
                "check that this is a STAR file and complete",
            ));
        }
        self.next = Start { offset: start.offset + length, line: start.line.saturating_add(1) };
        let line = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        // Names that are not UTF-8 still parse; only their odd letters are lost.
        self.text.push_str(&String::from_utf8_lossy(line));
        if start.offset == 0 {
            let marks = self.text.len() - self.text.trim_start_matches('\u{feff}').len();
            self.text.drain(..marks);
        }
        Ok(Some(start))
    }
}

/// Walks over the rows of a table, from the file.
pub struct Rows<'a> {
    table: &'a Table,
    lines: Lines<'a>,
    line: usize,
    /// Where the cells of the row are in the text.
    cells: Vec<Range<usize>>,
    left: usize,
}

impl Rows<'_> {
    /// Goes to the next row; false behind the last one.
    ///
    /// # Errors
    /// When the file cannot be read, or is no longer what it was.
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
            self.cells.extend(places(text));
        }
        if self.cells.len() == self.table.width() { Ok(true) } else { Err(self.changed()) }
    }

    /// The line it is on, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The text in column `column` of the row.
    pub fn cell(&self, column: usize) -> &str {
        &self.lines.text[self.cells[column].clone()]
    }

    /// The error that the file is not what it was when it was read first.
    pub fn changed(&self) -> Error {
        Error::input(
            self.lines.path,
            format!("line {}", self.line),
            "the file was changed while it was read",
            "import again",
        )
    }
}

/// Where the values of a row are in its text, without their quotes.
pub fn cells(row: &str) -> Vec<Range<usize>> {
    places(row).collect()
}

fn places(row: &str) -> impl Iterator<Item = Range<usize>> {
    // Quotes were checked when the file was read first.
    Tokens(row).filter_map(Token::ok).map(|cell| {
        let from = cell.as_ptr() as usize - row.as_ptr() as usize;
        from..from + cell.len()
    })
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
            self.tables.push(Table::new(block, start.line, Content::Loop { first: start, rows: 0 }));
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
                self.tables.push(Table::new(block, start.line, Content::Pairs(Vec::new())));
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

impl Table {
    fn new(name: &str, line: u32, content: Content) -> Self {
        Self { name: name.to_owned(), line, labels: Vec::new(), content }
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
