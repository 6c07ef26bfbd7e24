//! Parser for the Python literals in headers of `.npy` files.

use std::fmt;

/// Maximal nesting. A header needs 4 levels: dictionary, list of fields, field, shape.
const MAX_DEPTH: usize = 8;

/// A Python literal of the types in a header.
#[derive(Debug)]
pub enum Literal {
    Text(String),
    Number(u64),
    /// `True`, `False` or `None`.
    Word,
    /// A tuple or a list.
    Sequence(Vec<Literal>),
    Dictionary(Vec<(Literal, Literal)>),
}

impl Literal {
    /// Parses the literal at the start of `text`; `None` if it is malformed.
    pub fn read(text: &str) -> Option<Self> {
        Literals { rest: text }.value(MAX_DEPTH)
    }
}

/// Writes the literal as in a header: the outermost sequence is a list, those in it are tuples.
impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequence(items) => {
                let items: Vec<String> = items.iter().map(Self::in_list).collect();
                write!(f, "[{}]", items.join(", "))
            }
            other => f.write_str(&other.in_list()),
        }
    }
}

impl Literal {
    fn in_list(&self) -> String {
        match self {
            Self::Text(text) => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
            Self::Number(number) => number.to_string(),
            Self::Word => "None".into(),
            Self::Sequence(items) => {
                let items: String = items.iter().map(|item| item.in_list() + ", ").collect();
                format!("({})", items.trim_end())
            }
            // A description of fields has none.
            Self::Dictionary(_) => "{}".into(),
        }
    }
}

/// Parses literals from the start of a text.
struct Literals<'a> {
    rest: &'a str,
}

impl Literals<'_> {
    /// The next value, with at most `depth` levels; `None` if it is malformed.
    fn value(&mut self, depth: usize) -> Option<Literal> {
        let depth = depth.checked_sub(1)?;
        self.rest = self.rest.trim_start();
        let first = self.rest.chars().next()?;
        match first {
            '(' | '[' => {
                self.rest = &self.rest[1..];
                let close = if first == '(' { ')' } else { ']' };
                self.until(close, |all| all.value(depth)).map(Literal::Sequence)
            }
            '{' => {
                self.rest = &self.rest[1..];
                let entry = |all: &mut Self| {
                    let key = all.value(depth)?;
                    all.take(':').then_some(())?;
                    Some((key, all.value(depth)?))
                };
                self.until('}', entry).map(Literal::Dictionary)
            }
            '\'' | '"' => self.text(first).map(Literal::Text),
            '0'..='9' => {
                let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
                let (digits, rest) = self.rest.split_at(end);
                // Python 2 writes long integers with the suffix L.
                self.rest = rest.strip_prefix('L').unwrap_or(rest);
                digits.parse().ok().map(Literal::Number)
            }
            _ => {
                let rest = ["True", "False", "None"].iter().find_map(|word| self.rest.strip_prefix(word))?;
                self.rest = rest;
                Some(Literal::Word)
            }
        }
    }

    /// Comma-separated values up to `close`.
    fn until<T>(&mut self, close: char, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut all = Vec::new();
        loop {
            if self.take(close) {
                return Some(all);
            }
            all.push(one(self)?);
            if !self.take(',') {
                return self.take(close).then_some(all);
            }
        }
    }

    /// Skips `letter` if it is next; returns whether it was.
    fn take(&mut self, letter: char) -> bool {
        let rest = self.rest.trim_start().strip_prefix(letter);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// A quoted string. A backslash escapes a quote or a backslash.
    fn text(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        let mut letters = self.rest[1..].char_indices();
        while let Some((at, letter)) = letters.next() {
            if letter == quote {
                self.rest = &self.rest[at + 2..];
                return Some(text);
            }
            text.push(if letter == '\\' { letters.next()?.1 } else { letter });
        }
        None
    }
}
