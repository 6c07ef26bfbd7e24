//! Splits a line of a STAR file into values.

/// A value, or the text from an unclosed quote on.
pub(super) type Token<'a> = std::result::Result<&'a str, &'a str>;

/// Iterator over the values of a line, without quotes, up to a comment.
pub(super) struct Tokens<'a>(pub &'a str);

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
            // A quote inside a value ('5' end') does not close it: the closing quote is followed by a space or the line end.
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
