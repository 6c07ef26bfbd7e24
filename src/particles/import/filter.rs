//! Which particles are imported, by what the metadata says of them: the conditions of `--where`.
//!
//! ```text
//! condition := all { "or" all }        all := one { "and" one }
//! one       := "not" one | "(" condition ")" | NAME COMPARISON NUMBER | "stack" ("~" | "!~") 'TEXT'
//! ```

use std::fmt;
use std::str::FromStr;

use super::row::ParticleRow;
use crate::imaging::pose::relion_from_rotation;
use crate::particles::Subset;

/// A number of a particle that a condition compares.
type Number = fn(&ParticleRow) -> f64;

/// The numbers, by name.
const NUMBERS: [(&str, Number); 12] = [
    ("defocus", |row| 0.5 * (row.particle.ctf.defocus_u + row.particle.ctf.defocus_v)),
    ("defocus_u", |row| row.particle.ctf.defocus_u),
    ("defocus_v", |row| row.particle.ctf.defocus_v),
    ("astigmatism", |row| (row.particle.ctf.defocus_u - row.particle.ctf.defocus_v).abs()),
    ("phase_shift", |row| row.particle.ctf.phase_shift),
    ("optics_group", |row| f64::from(row.particle.optics_group) + 1.0),
    ("half", |row| if row.half == Subset::Half2 { 2.0 } else { 1.0 }),
    ("rot", |row| relion_from_rotation(&row.particle.rotation)[0]),
    ("tilt", |row| relion_from_rotation(&row.particle.rotation)[1]),
    ("psi", |row| relion_from_rotation(&row.particle.rotation)[2]),
    ("shift", |row| row.shift[0].hypot(row.shift[1])),
    ("image", |row| row.source.index as f64 + 1.0),
];
/// The name of the stack, which is compared with a text.
const STACK: &str = "stack";
/// Deepest nesting of a condition.
const DEEPEST: usize = 64;

/// A condition on a particle, as `--where` takes it.
#[derive(Clone, Debug)]
pub struct Filter {
    text: String,
    root: Node,
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// As it was written.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[derive(Clone, Debug)]
enum Node {
    Or(Vec<Node>),
    And(Vec<Node>),
    Not(Box<Node>),
    Compare(Number, Comparison, f64),
    StackHas(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    Unequal,
}

impl Filter {
    /// Whether the particle of `row`, with its image in the stack of this name, is imported.
    pub fn accepts(&self, row: &ParticleRow, stack: &str) -> bool {
        self.root.holds(row, stack)
    }
}

impl Node {
    fn holds(&self, row: &ParticleRow, stack: &str) -> bool {
        match self {
            Self::Or(all) => all.iter().any(|one| one.holds(row, stack)),
            Self::And(all) => all.iter().all(|one| one.holds(row, stack)),
            Self::Not(one) => !one.holds(row, stack),
            Self::StackHas(text) => stack.contains(text.as_str()),
            Self::Compare(number, comparison, value) => {
                let number = number(row);
                match comparison {
                    Comparison::Less => number < *value,
                    Comparison::LessOrEqual => number <= *value,
                    Comparison::Greater => number > *value,
                    Comparison::GreaterOrEqual => number >= *value,
                    Comparison::Equal => number == *value,
                    Comparison::Unequal => number != *value,
                }
            }
        }
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parser = Parser { tokens: tokens(text)?, next: 0 };
        let root = parser.condition(0)?;
        match parser.peek() {
            None => Ok(Self { text: text.trim().to_owned(), root }),
            Some(token) => Err(format!("`{token}` is not expected there; join conditions by `and` or `or`")),
        }
    }
}

/// Splits a condition into words, numbers, texts (with their opening quote) and signs.
fn tokens(text: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if first == '\'' || first == '"' {
            let end = rest[1..].find(first).ok_or_else(|| format!("the text {rest} has no closing quote"))?;
            tokens.push(rest[..=end].to_owned());
            end + 2
        } else {
            let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '+' | '-');
            let signs = ["<=", ">=", "==", "!=", "!~", "&&", "||", "<", ">", "~", "=", "(", ")", "!"];
            let length = match signs.iter().find(|sign| rest.starts_with(**sign)) {
                Some(sign) => sign.len(),
                None => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            };
            if length == 0 {
                return Err(format!("`{first}` is not expected"));
            }
            tokens.push(rest[..length].to_owned());
            length
        };
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

struct Parser {
    tokens: Vec<String>,
    next: usize,
}

impl Parser {
    fn peek(&self) -> Option<&str> {
        self.tokens.get(self.next).map(String::as_str)
    }

    fn take(&mut self, expected: &str) -> Result<String, String> {
        let token =
            self.peek().map(str::to_owned).ok_or_else(|| format!("ends where {expected} is expected"))?;
        self.next += 1;
        Ok(token)
    }

    fn accept(&mut self, tokens: &[&str]) -> bool {
        let found = self.peek().is_some_and(|token| tokens.contains(&token));
        self.next += usize::from(found);
        found
    }

    fn condition(&mut self, depth: usize) -> Result<Node, String> {
        if depth > DEEPEST {
            return Err(format!("is nested more than {DEEPEST} times"));
        }
        let mut all = vec![self.all(depth)?];
        while self.accept(&["or", "||"]) {
            all.push(self.all(depth)?);
        }
        Ok(Node::Or(all))
    }

    fn all(&mut self, depth: usize) -> Result<Node, String> {
        let mut all = vec![self.one(depth)?];
        while self.accept(&["and", "&&"]) {
            all.push(self.one(depth)?);
        }
        Ok(Node::And(all))
    }

    fn one(&mut self, depth: usize) -> Result<Node, String> {
        if self.accept(&["not", "!"]) {
            if depth > DEEPEST {
                return Err(format!("is nested more than {DEEPEST} times"));
            }
            return Ok(Node::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.accept(&["("]) {
            let inner = self.condition(depth + 1)?;
            return if self.accept(&[")"]) { Ok(inner) } else { Err("has no closing parenthesis".into()) };
        }
        let name = self.take("a name")?;
        if name == STACK {
            let sign = self.take("~")?;
            let text = self.take("a text in quotes")?;
            let Some(text) = text.strip_prefix(['\'', '"']) else {
                return Err(format!("`{text}` is no text in quotes, as in stack ~ 'mic_01'"));
            };
            let has = Node::StackHas(text.to_owned());
            return match sign.as_str() {
                "~" => Ok(has),
                "!~" => Ok(Node::Not(Box::new(has))),
                other => Err(format!("`{other}` does not compare texts: use ~ (contains) or !~")),
            };
        }
        let Some((_, number)) = NUMBERS.iter().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = NUMBERS.iter().map(|(name, _)| *name).collect();
            return Err(format!(
                "`{name}` is no value of a particle; those are {}, {STACK}",
                names.join(", ")
            ));
        };
        let comparison = match self.take("a comparison")?.as_str() {
            "<" => Comparison::Less,
            "<=" => Comparison::LessOrEqual,
            ">" => Comparison::Greater,
            ">=" => Comparison::GreaterOrEqual,
            "==" | "=" => Comparison::Equal,
            "!=" => Comparison::Unequal,
            other => return Err(format!("`{other}` is no comparison: use <, <=, >, >=, == or !=")),
        };
        let value = self.take("a number")?;
        match value.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Node::Compare(*number, comparison, value)),
            _ => Err(format!("`{value}` is no number")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::ctf::CtfParameters;
    use crate::imaging::pose::rotation_from_relion;
    use crate::particles::import::stack_names::Location;
    use crate::particles::store::{Particle, Source};

    fn accepts(condition: &str) -> bool {
        let source = Source { file: 0, index: 4 };
        let ctf = CtfParameters { defocus_u: 2.2e4, defocus_v: 2e4, ..CtfParameters::default() };
        let rotation = rotation_from_relion(30.0, 70.0, -20.0);
        let particle = Particle { rotation, shift: [0.0; 2], ctf, optics_group: 1, source: Some(source) };
        let row = ParticleRow {
            particle,
            source,
            shift: [3.0, 4.0],
            half: Subset::Half2,
            dark: false,
            place: Location::Line(1),
        };
        condition.parse::<Filter>().unwrap().accepts(&row, "Extract/mic_07.mrcs")
    }

    #[test]
    fn conditions_compare_the_values_of_a_particle() {
        for (condition, expected) in [
            ("defocus < 2.5e4 and optics_group == 2", true),
            ("defocus<2.1e4", false),
            ("defocus <= 21000 && astigmatism >= 2e3", true),
            ("optics_group == 1 or (half = 2 and not shift > 5)", true),
            ("tilt > 69.9 and tilt < 70.1 and psi > -20.1 and psi < -19.9", true),
            ("stack ~ 'mic_07' and image == 5", true),
            ("stack !~ \"mic_07\" || rot > 31", false),
            ("!(half == 2)", false),
            // `and` binds more tightly.
            ("half == 2 or half == 1 and half == 3", true),
        ] {
            assert_eq!(accepts(condition), expected, "{condition}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (condition, fragment) in [
            ("", "ends where a name"),
            ("defokus < 3", "`defokus` is no value of a particle; those are defocus,"),
            ("defocus 3", "`3` is no comparison"),
            ("defocus < much", "`much` is no number"),
            ("defocus < inf", "`inf` is no number"),
            ("defocus < 3 half == 1", "`half` is not expected there"),
            ("(defocus < 3", "no closing parenthesis"),
            ("stack ~ mic", "in quotes"),
            ("stack == 'mic'", "does not compare texts"),
            ("stack ~ 'mic", "no closing quote"),
            ("defocus < 3;", "`;` is not expected"),
            (&"(".repeat(200), "nested more than"),
            (&"not ".repeat(200), "nested more than"),
        ] {
            let message = condition.parse::<Filter>().unwrap_err();
            assert!(message.contains(fragment), "{condition}: {message}");
        }
    }
}
