//! Markdown as far as the tests need it: code, links, headings.

/// A piece of a document, with its line from 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    pub text: String,
    pub line: usize,
}

/// What a document names.
#[derive(Debug, Default)]
pub struct Document {
    /// Code spans, of all but blocks.
    pub spans: Vec<Piece>,
    /// Lines of code blocks, without comments; a line that ends with `\` is one with the next.
    pub commands: Vec<Piece>,
    /// Targets of links.
    pub links: Vec<Piece>,
    /// The anchors that GitHub gives to the headings.
    pub anchors: Vec<String>,
    /// Paragraphs outside of blocks, a line each.
    pub paragraphs: Vec<Piece>,
}

impl Document {
    pub fn read(source: &str) -> Self {
        let mut document = Self::default();
        let mut paragraph: Option<Piece> = None;
        let (mut fenced, mut continued, mut blank) = (false, false, true);
        for (text, line) in source.lines().zip(1..) {
            let fence = text.trim_start().starts_with("```");
            let indented = text.starts_with("    ") && (blank || continued) && paragraph.is_none();
            if fence || fenced || indented {
                document.paragraphs.extend(paragraph.take());
                if !fence {
                    document.add_command(text, line, continued);
                    continued = text.trim_end().ends_with('\\');
                }
                fenced ^= fence;
                continue;
            }
            continued = false;
            blank = text.trim().is_empty() || text.starts_with("    ") && blank;
            let starts_anew = blank || text.starts_with(['#', '|', '-']);
            if starts_anew {
                document.paragraphs.extend(paragraph.take());
            }
            if let Some(heading) = text.strip_prefix('#') {
                let anchor = anchor(heading.trim_start_matches('#').trim());
                let before = document.anchors.iter().filter(|known| {
                    known.trim_end_matches(|c: char| c.is_ascii_digit()) == format!("{anchor}-")
                        || **known == anchor
                });
                let number = before.count();
                document.anchors.push(if number > 0 { format!("{anchor}-{number}") } else { anchor });
            }
            if blank {
                continue;
            }
            match &mut paragraph {
                Some(open) => open.text += &format!(" {}", text.trim()),
                None => paragraph = Some(Piece { text: text.trim().to_owned(), line }),
            }
            if text.starts_with(['#', '|']) {
                document.paragraphs.extend(paragraph.take());
            }
        }
        document.paragraphs.extend(paragraph);
        for Piece { text, line } in &document.paragraphs {
            let piece = |text: &str| Piece { text: text.to_owned(), line: *line };
            document.spans.extend(text.split('`').skip(1).step_by(2).map(piece));
            // Spans may hold brackets.
            let outside: String =
                text.split('`').enumerate().map(|(i, part)| if i % 2 == 0 { part } else { "code" }).collect();
            let targets = outside.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            document.links.extend(targets.map(piece));
        }
        document
    }

    fn add_command(&mut self, text: &str, line: usize, continued: bool) {
        let text = text.split(" #").next().unwrap_or_default().trim().trim_end_matches('\\').trim();
        match self.commands.last_mut().filter(|_| continued) {
            Some(last) => last.text += &format!(" {text}"),
            None if text.starts_with('#') => {}
            None => self.commands.push(Piece { text: text.to_owned(), line }),
        }
    }
}

/// The anchor of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .collect::<String>();
    kept.replace(' ', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pieces: &[Piece]) -> Vec<&str> {
        pieces.iter().map(|piece| piece.text.as_str()).collect()
    }

    #[test]
    fn code_links_and_headings_are_found() {
        let source = "# The `x`: what, where?\n\nSee [it](a.md#b) and `one\ntwo` or ![pic](c.png).\n- [in `[a](b)` code](d)\n\n    run --this \\\n        --that  # why\n    more\n\n```sh\nfenced\n```\n| `cell` |\n## Again\n## Again\n";
        let document = Document::read(source);
        assert_eq!(document.anchors, ["the-x-what-where", "again", "again-1"]);
        assert_eq!(texts(&document.links), ["a.md#b", "c.png", "d"]);
        assert_eq!(texts(&document.spans), ["x", "one two", "[a](b)", "cell"]);
        assert_eq!(texts(&document.commands), ["run --this --that", "more", "fenced"]);
        assert_eq!(document.commands[1].line, 9);
    }
}
