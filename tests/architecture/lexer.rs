//! Rust source to tokens: enough to find modules, `use` items and paths. Comments and literals are dropped.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// An identifier, `::`, or one character of punctuation.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub text: String,
    /// From 1.
    pub line: usize,
}

impl Token {
    pub fn is_name(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// The tokens of a source file.
///
/// # Errors
/// Where the file is not Rust.
pub fn tokens(source: &str) -> Result<Vec<Token>, String> {
    let stream: TokenStream = source.parse().map_err(|error| format!("cannot be read: {error}"))?;
    let mut all = Vec::new();
    flatten(stream, &mut all);
    Ok(all)
}

fn flatten(stream: TokenStream, all: &mut Vec<Token>) {
    let mut trees = stream.into_iter().peekable();
    while let Some(tree) = trees.next() {
        let line = tree.span().start().line;
        let mut push = |text: &str, line| all.push(Token { text: text.to_owned(), line });
        match tree {
            TokenTree::Ident(name) => push(name.to_string().trim_start_matches("r#"), line),
            TokenTree::Punct(mark) if mark.as_char() == '\'' => {
                // A lifetime: its name follows.
                trees.next();
            }
            TokenTree::Punct(mark) if mark.as_char() == ':' && mark.spacing() == Spacing::Joint => {
                trees.next();
                push("::", line);
            }
            TokenTree::Punct(mark) => push(&mark.to_string(), line),
            TokenTree::Literal(_) => {}
            TokenTree::Group(group) => {
                let [open, close] = match group.delimiter() {
                    Delimiter::Brace => ["{", "}"],
                    Delimiter::Bracket => ["[", "]"],
                    _ => ["(", ")"],
                };
                push(open, line);
                let end = group.span_close().start().line;
                flatten(group.stream(), all);
                all.push(Token { text: close.to_owned(), line: end });
            }
        }
    }
}

/// The tokens without what only tests see, and the modules that only tests have (`#[cfg(test)] mod tests;`).
pub fn without_tests(tokens: Vec<Token>) -> (Vec<Token>, Vec<String>) {
    let (mut kept, mut modules, mut at) = (Vec::new(), Vec::new(), 0);
    while at < tokens.len() {
        let Some(after) = test_attribute(&tokens, at) else {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        };
        let end = end_of_item(&tokens, after);
        let item = &tokens[after..end];
        if let Some(place) = item.iter().position(|t| t.text == "mod").filter(|_| item.ends_with_text(";")) {
            modules.extend(item.get(place + 1).map(|name| name.text.clone()));
        }
        at = end;
    }
    (kept, modules)
}

trait EndsWithText {
    fn ends_with_text(&self, text: &str) -> bool;
}

impl EndsWithText for [Token] {
    fn ends_with_text(&self, text: &str) -> bool {
        self.last().is_some_and(|token| token.text == text)
    }
}

/// The token after an attribute `#[cfg(...test...)]` at `at`.
fn test_attribute(tokens: &[Token], at: usize) -> Option<usize> {
    let text = |i: usize| tokens.get(i).map_or("", |t| t.text.as_str());
    if [text(at), text(at + 1), text(at + 2)] != ["#", "[", "cfg"] {
        return None;
    }
    let end = closing(tokens, at + 1);
    let inside = |name: &str| tokens[at..end].iter().any(|t| t.text == name);
    (inside("test") && !inside("not")).then_some(end + 1)
}

/// The bracket that closes the one at `open`.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len().saturating_sub(1)
}

/// The token after the item that begins at `at`: after its block, or its semicolon.
fn end_of_item(tokens: &[Token], mut at: usize) -> usize {
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "{" => return closing(tokens, at) + 1,
            "(" | "[" => at = closing(tokens, at),
            ";" => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_hide_what_they_hold() {
        let source =
            "a // crate::x\n/* crate::y */ b \"crate::s\" r#\"crate::r\"# 'c' 'life 1.5 r#type::X\n\nd";
        let all = tokens(source).unwrap();
        let texts: Vec<&str> = all.iter().map(|t| t.text.as_str()).collect();
        assert_eq!(texts, ["a", "b", "type", "::", "X", "d"]);
        assert_eq!(all[5].line, 4);
        assert!(tokens("fn a( {").is_err());
    }

    #[test]
    fn items_of_tests_are_cut_out() {
        let source = "fn a() {} #[cfg(test)] mod tests { fn b() { c } } #[cfg(test)] mod more; #[cfg(test)] #[x] use d::e; fn f() {}";
        let (kept, modules) = without_tests(tokens(source).unwrap());
        let names: Vec<&str> = kept.iter().filter(|t| t.is_name()).map(|t| t.text.as_str()).collect();
        assert_eq!((names, modules), (vec!["fn", "a", "fn", "f"], vec!["more".to_owned()]));
        let (kept, _) = without_tests(tokens("#[cfg(not(test))] fn g() {}").unwrap());
        assert!(kept.iter().any(|t| t.text == "g"));
    }
}
