//! Escape sequences of strings in pickles of protocol 0.

/// The text between quotes.
pub fn unquoted(text: &[u8]) -> Option<&[u8]> {
    match text.trim_ascii() {
        [first @ (b'\'' | b'"'), inner @ .., last] if first == last => Some(inner),
        _ => None,
    }
}

/// Decodes a Python string literal to bytes.
pub fn unescaped_bytes(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let (escape, after) = rest.split_first()?;
        rest = after;
        bytes.push(match escape {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'\\' | b'\'' | b'"' => *escape,
            b'x' => {
                let (digits, after) = rest.split_at_checked(2)?;
                rest = after;
                code(digits)? as u8
            }
            _ => return None,
        });
    }
    Some(bytes)
}

/// Decodes Python's `raw-unicode-escape`: Latin-1 with `\u0123` and `\U00012345`.
pub fn unescaped_text(text: &[u8]) -> Option<String> {
    let mut letters = String::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let digits = match rest {
            [b'\\', b'u', ..] => 4,
            [b'\\', b'U', ..] => 8,
            _ => {
                letters.push(char::from(*first));
                rest = after;
                continue;
            }
        };
        letters.push(char::from_u32(code(rest.get(2..2 + digits)?)?)?);
        rest = &rest[2 + digits..];
    }
    Some(letters)
}

/// Parses hexadecimal digits.
fn code(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |code, &digit| Some(code << 4 | char::from(digit).to_digit(16)?))
}
