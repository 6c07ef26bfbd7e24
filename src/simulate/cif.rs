//! The words of CIF files (Hall, Allen and Brown, Acta Cryst. A47 (1991) 655).

/// A word of a CIF file.
pub struct Word<'a> {
    /// Its text, without quotes.
    pub text: &'a str,
    /// The line it begins on, from 1.
    pub line: usize,
    /// Quoted words and text fields are values, whatever they look like.
    pub quoted: bool,
}

impl Word<'_> {
    /// True for a plain word that begins with `prefix`, in any case.
    pub fn starts(&self, prefix: &str) -> bool {
        !self.quoted && self.text.get(..prefix.len()).is_some_and(|p| p.eq_ignore_ascii_case(prefix))
    }

    /// True for a word that cannot be a value: the table is over.
    pub fn ends_table(&self) -> bool {
        ["_", "loop_", "data_", "save_"].iter().any(|prefix| self.starts(prefix))
    }
}

/// The words of a CIF file in order: comments skipped, quotes and text fields resolved.
pub struct Words<'a> {
    rest: &'a str,
    line: usize,
    line_start: bool,
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        loop {
            let first = *self.rest.as_bytes().first()?;
            match first {
                b'\n' => {
                    self.rest = &self.rest[1..];
                    self.line += 1;
                    self.line_start = true;
                }
                _ if first.is_ascii_whitespace() => {
                    self.rest = &self.rest[1..];
                    self.line_start = false;
                }
                b'#' => self.rest = &self.rest[self.rest.find('\n').unwrap_or(self.rest.len())..],
                b';' if self.line_start => {
                    let end = self.rest[1..].find("\n;").map_or(self.rest.len(), |at| at + 1);
                    let (text, line) = (&self.rest[1..end], self.line);
                    self.line += text.matches('\n').count() + 1;
                    self.rest = self.rest.get(end + 2..).unwrap_or("");
                    self.line_start = false;
                    return Some(Word { text, line, quoted: true });
                }
                _ => return Some(self.word(first)),
            }
        }
    }
}

impl<'a> Words<'a> {
    /// The words of `text`.
    pub fn of(text: &'a str) -> Self {
        Self { rest: text, line: 1, line_start: true }
    }

    fn word(&mut self, first: u8) -> Word<'a> {
        self.line_start = false;
        let bytes = self.rest.as_bytes();
        let blank = |at: usize| bytes.get(at).is_none_or(u8::is_ascii_whitespace);
        let quoted = matches!(first, b'\'' | b'"');
        let (from, to, next) = if quoted {
            // A quote ends where the same mark is followed by a blank, or with the line.
            let close = (1..bytes.len())
                .find(|&at| bytes[at] == b'\n' || bytes[at] == first && blank(at + 1))
                .unwrap_or(bytes.len());
            (1, close, if bytes.get(close) == Some(&first) { close + 1 } else { close })
        } else {
            let end = (0..bytes.len()).find(|&at| blank(at)).unwrap_or(bytes.len());
            (0, end, end)
        };
        let text = &self.rest[from..to];
        self.rest = &self.rest[next..];
        Word { text, line: self.line, quoted }
    }
}
