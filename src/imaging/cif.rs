//! A tokenizer for CIF and mmCIF files (Hall, Allen and Brown, Acta Cryst. A47 (1991) 655).

/// A token of a CIF file.
pub(crate) struct Token<'a> {
    /// Text without quotes.
    pub text: &'a str,
    /// Line where the token starts, from 1.
    pub line: usize,
    /// Quoted tokens and text fields are always values.
    quoted: bool,
}

impl<'a> Token<'a> {
    /// True for an unquoted token that starts with `prefix`, ignoring case.
    pub fn starts_with(&self, prefix: &str) -> bool {
        !self.quoted && self.text.get(..prefix.len()).is_some_and(|p| p.eq_ignore_ascii_case(prefix))
    }

    /// The data name without its underscore, if the token is one.
    pub fn data_name(&self) -> Option<&'a str> {
        self.text.strip_prefix('_').filter(|_| !self.quoted)
    }

    /// True for the keyword that starts a table.
    pub fn is_loop(&self) -> bool {
        !self.quoted && self.text.eq_ignore_ascii_case("loop_")
    }

    /// True for a value; false for a data name or a keyword, which end a table.
    pub fn is_value(&self) -> bool {
        !["_", "loop_", "data_", "save_"].iter().any(|prefix| self.starts_with(prefix))
    }
}

/// Iterator over the tokens of a CIF file. Skips comments; resolves quotes and text fields.
pub(crate) struct Tokens<'a> {
    rest: &'a str,
    line: usize,
    line_start: bool,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
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
                    return Some(Token { text, line, quoted: true });
                }
                _ => return Some(self.token(first)),
            }
        }
    }
}

impl<'a> Tokens<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { rest: text, line: 1, line_start: true }
    }

    fn token(&mut self, first: u8) -> Token<'a> {
        self.line_start = false;
        let bytes = self.rest.as_bytes();
        let blank = |at: usize| bytes.get(at).is_none_or(u8::is_ascii_whitespace);
        let quoted = matches!(first, b'\'' | b'"');
        let (from, to, next) = if quoted {
            // A quoted string ends at the same quote before white space, or at the end of the line.
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
        Token { text, line: self.line, quoted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_text_fields_and_comments_are_resolved_with_their_lines() {
        let text = "data_X # a comment\n_a.b 'it''s _c.d' \"x y\"\n;text\nloop_\n;\nloop_ _e.f\n3.5";
        let found: Vec<_> =
            Tokens::new(text).map(|token| (token.text, token.line, token.is_value())).collect();
        assert_eq!(
            found,
            [
                ("data_X", 1, false),
                ("_a.b", 2, false),
                ("it''s _c.d", 2, true),
                ("x y", 2, true),
                ("text\nloop_", 3, true),
                ("loop_", 6, false),
                ("_e.f", 6, false),
                ("3.5", 7, true),
            ]
        );
        let names: Vec<_> = Tokens::new(text).filter_map(|token| token.data_name()).collect();
        assert_eq!(names, ["a.b", "e.f"]);
        assert_eq!(Tokens::new(text).filter(Token::is_loop).count(), 1);
    }
}
