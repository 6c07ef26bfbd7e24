//! Texts that come from files, on their way into tables and lists that other programs open.

use crate::error::printable;

/// `text` as a quoted cell of a CSV file. A text that a spreadsheet would take for a formula begins with an apostrophe.
pub(crate) fn csv_cell(text: &str) -> String {
    format!("\"{}\"", csv_text(text).replace('"', "\"\""))
}

/// The content of [`csv_cell`], not quoted yet.
pub(crate) fn csv_text(text: &str) -> String {
    let is_formula = text.trim_start().starts_with(['=', '+', '-', '@']);
    let apostrophe = if is_formula { "'" } else { "" };
    format!("{apostrophe}{}", printable(text))
}

/// `text` as one word of a STAR file: no spaces, and no beginning that has a meaning there.
pub(crate) fn star_word(text: &str) -> String {
    let word = printable(text).replace(char::is_whitespace, "_");
    let has_meaning = word.starts_with(['#', '_', '"', '\'', ';', '$', '[', ']'])
        || ["data_", "loop_", "save_", "stop_", "global_"]
            .iter()
            .any(|name| word.to_lowercase().starts_with(name));
    if has_meaning { format!("./{word}") } else { word }
}

/// A word of a command line as it is typed in a shell.
pub(crate) fn shell_word(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./=,:+@%".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_no_formulas_and_hold_no_control_characters() {
        assert_eq!(csv_cell("a \"b\".mrcs"), "\"a \"\"b\"\".mrcs\"");
        for formula in ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\r@x"] {
            assert!(csv_cell(formula).starts_with("\"'"), "{formula:?}");
        }
        assert_eq!(csv_cell("a\u{1b}[31m\r\nb"), "\"a [31m  b\"");
    }

    #[test]
    fn words_are_one_word_of_a_star_file() {
        assert_eq!(star_word("a b\nc\u{1b}.mrcs"), "a_b_c_.mrcs");
        for name in ["#1.mrcs", "_rln", "'a", "data_x.mrcs", "Loop_"] {
            assert_eq!(star_word(name), format!("./{name}"));
        }
        assert_eq!(star_word("mydata_x.mrcs"), "mydata_x.mrcs");
    }
}
