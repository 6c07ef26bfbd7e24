//! The Python literals of which the headers of `.npy` files consist.

/// The deepest nesting that a header needs is a shape in a field in the list of fields in the dictionary.
const DEEPEST: usize = 8;

/// A Python literal of those that a header has.
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
    /// The literal that `text` begins with; `None` where there is none.
    pub fn read(text: &str) -> Option<Self> {
        Literals { rest: text }.value(DEEPEST)
    }
}

/// Reads literals from the start of a text.
struct Literals<'a> {
    rest: &'a str,
}

impl Literals<'_> {
    /// The next value, nested no deeper than `depth`; `None` where there is none.
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
                // Python 2 marks long numbers.
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

    /// Values and commas up to `close`.
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

    /// Goes past `letter` where that is next.
    fn take(&mut self, letter: char) -> bool {
        let rest = self.rest.trim_start().strip_prefix(letter);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// A text in quotes, in which a backslash only stands before a quote or another.
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
