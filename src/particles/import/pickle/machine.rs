//! Interpreter for pickle opcodes.

use std::collections::HashMap;
use std::path::Path;

use super::Id;
use super::objects::{Known, Memory, NONE, Object, Order, Span};
use super::text::{unescaped_bytes, unescaped_text, unquoted};
use crate::error::{Error, Result};
use crate::particles::import::number::NumberFormat;
use crate::particles::import::star::excerpt;

const REMEDY: &str = "save the arrays again with NumPy and pickle, as cryoDRGN does";

/// State of the interpreter.
pub struct Machine<'a> {
    path: &'a Path,
    pub memory: Memory,
    at: usize,
    stack: Vec<Id>,
    /// Height of the stack at each mark.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<'a> Machine<'a> {
    /// Starts at the first opcode of `file`. `path` is for error messages.
    pub fn new(path: &'a Path, file: Vec<u8>) -> Self {
        let memory = Memory { file, decoded: Vec::new(), objects: vec![Object::None] };
        Self { path, memory, at: 0, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() }
    }

    /// Runs to the end and returns the resulting object. Over 80 lines: one arm per opcode.
    pub fn run(&mut self) -> Result<Id> {
        loop {
            let opcode = self.take::<1>()?[0];
            match opcode {
                b'.' => return self.pop(),
                0x80 => {
                    let [version] = self.take()?;
                    if version > 5 {
                        return Err(self.refuse(format!("is of protocol {version}, expected 0 to 5")));
                    }
                }
                // The length of a frame, which matters to streaming readers only.
                0x95 => drop(self.take::<8>()?),
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.above_mark()?),
                b'2' => {
                    let top = self.top()?;
                    self.stack.push(top);
                }
                b'N' => self.stack.push(NONE),
                0x88 | 0x89 => self.push(Object::Boolean(opcode == 0x88))?,
                b'J' | b'K' | b'M' | 0x8a | 0x8b | b'I' | b'L' => self.integer(opcode)?,
                b'G' => {
                    let value = f64::from_be_bytes(self.take()?);
                    self.push(Object::Float(value))?;
                }
                b'F' => {
                    let value = self.parsed::<f64>()?;
                    self.push(Object::Float(value))?;
                }
                b'S' | b'V' => self.escaped(opcode)?,
                b'T' | b'U' | b'B' | b'C' | 0x8e | 0x96 => {
                    let span = self.counted(opcode)?;
                    self.push(Object::Bytes(span))?;
                }
                b'X' | 0x8c | 0x8d => {
                    let span = self.counted(opcode)?;
                    self.push(Object::Text(span))?;
                }
                b')' | b']' => self.sequence(Vec::new(), opcode == b']')?,
                b't' | b'l' => {
                    let items = self.above_mark()?;
                    self.sequence(items, opcode == b'l')?;
                }
                0x85..=0x87 => {
                    let count = usize::from(opcode - 0x84);
                    let from = self.stack.len().checked_sub(count).filter(|&from| from >= self.floor());
                    let items = from.map(|from| self.stack.split_off(from));
                    let items = items.ok_or_else(|| self.broken("pops from an empty stack"))?;
                    self.sequence(items, false)?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.extend(&[item])?;
                }
                b'e' => {
                    let items = self.above_mark()?;
                    self.extend(&items)?;
                }
                b'p' | b'q' | b'r' | 0x94 => self.remember(opcode)?,
                b'g' | b'h' | b'j' => {
                    let key = self.key(opcode)?;
                    let id = self.memo.get(&key).copied();
                    let id = id.ok_or_else(|| self.broken("refers to an unknown memo key"))?;
                    self.stack.push(id);
                }
                b'c' | 0x93 => self.global(opcode)?,
                b'R' => self.call()?,
                b'b' => self.build()?,
                // READONLY_BUFFER has no effect here.
                0x98 => {}
                other => return Err(self.refuse(unwanted(other))),
            }
        }
    }

    fn refuse(&self, problem: impl Into<String>) -> Error {
        Error::input(self.path, format!("byte {}", self.at), problem, REMEDY)
    }

    fn broken(&self, what: &str) -> Error {
        self.refuse(format!("is not a valid pickle: it {what}"))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let rest = &self.memory.file[self.at..];
        let bytes = rest.first_chunk::<N>().copied().ok_or_else(|| self.broken("is truncated"))?;
        self.at += N;
        Ok(bytes)
    }

    /// The next `len` bytes.
    fn span(&mut self, len: u64) -> Result<Span> {
        let left = self.memory.file.len() - self.at;
        let len = usize::try_from(len).ok().filter(|&len| len <= left);
        let len = len.ok_or_else(|| self.broken("is truncated"))?;
        let span = Span { decoded: false, start: self.at, len };
        self.at += len;
        Ok(span)
    }

    /// The rest of the line.
    fn line(&mut self) -> Result<Span> {
        let rest = &self.memory.file[self.at..];
        let end = rest.iter().position(|&byte| byte == b'\n').ok_or_else(|| self.broken("is truncated"))?;
        let span = self.span(end as u64)?;
        self.at += 1;
        Ok(span)
    }

    /// The rest of the line, parsed as a number.
    fn parsed<T: std::str::FromStr>(&mut self) -> Result<T> {
        let line = self.line()?;
        self.parsed_from(line)
    }

    fn parsed_from<T: std::str::FromStr>(&self, line: Span) -> Result<T> {
        let text = std::str::from_utf8(self.memory.bytes(line)).ok();
        let number = text.and_then(|text| text.trim_end_matches('L').parse().ok());
        number.ok_or_else(|| self.broken("has text in place of a number"))
    }

    /// The bytes of an opcode with a length prefix.
    fn counted(&mut self, opcode: u8) -> Result<Span> {
        let len = match opcode {
            b'U' | b'C' | 0x8c => u64::from(self.take::<1>()?[0]),
            b'T' | b'B' | b'X' => u64::from(u32::from_le_bytes(self.take()?)),
            _ => u64::from_le_bytes(self.take()?),
        };
        self.span(len)
    }

    fn push(&mut self, object: Object) -> Result<()> {
        let id = u32::try_from(self.memory.objects.len()).map_err(|_| self.refuse("has too many objects"))?;
        self.memory.objects.push(object);
        self.stack.push(Id(id));
        Ok(())
    }

    fn sequence(&mut self, items: Vec<Id>, list: bool) -> Result<()> {
        self.push(if list { Object::List(items) } else { Object::Tuple(items) })
    }

    /// Height of the stack at the last mark: objects below it cannot be popped.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id> {
        let above = self.stack.get(self.floor()..).and_then(<[Id]>::last);
        above.copied().ok_or_else(|| self.broken("pops from an empty stack"))
    }

    fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn above_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(|| self.broken("pops from an empty stack"))?;
        Ok(self.stack.split_off(mark))
    }

    fn integer(&mut self, opcode: u8) -> Result<()> {
        let long = |machine: &mut Self, len: u64| -> Result<i64> {
            let span = machine.span(len)?;
            let bytes = machine.memory.bytes(span);
            let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
            let mut all = [if negative { 0xff } else { 0 }; 8];
            let Some(low) = all.get_mut(..bytes.len()) else {
                return Err(machine.refuse("has an integer of more than 8 bytes"));
            };
            low.copy_from_slice(bytes);
            Ok(i64::from_le_bytes(all))
        };
        let value = match opcode {
            b'J' => i64::from(i32::from_le_bytes(self.take()?)),
            b'K' => i64::from(self.take::<1>()?[0]),
            b'M' => i64::from(u16::from_le_bytes(self.take()?)),
            b'I' => {
                let line = self.line()?;
                // Protocols 0 and 1 write Booleans as these integers.
                if let value @ (b"00" | b"01") = self.memory.bytes(line) {
                    let value = value == b"01";
                    return self.push(Object::Boolean(value));
                }
                self.parsed_from(line)?
            }
            0x8a => {
                let [len] = self.take()?;
                long(self, u64::from(len))?
            }
            0x8b => {
                let len = u32::from_le_bytes(self.take()?);
                long(self, u64::from(len))?
            }
            _ => self.parsed()?,
        };
        self.push(Object::Integer(value))
    }

    /// The strings of protocol 0: quoted with escapes (`S`), or raw with Unicode escapes (`V`).
    fn escaped(&mut self, opcode: u8) -> Result<()> {
        let line = self.line()?;
        let text = self.memory.bytes(line);
        let decoded = match opcode {
            b'S' => unquoted(text).and_then(unescaped_bytes),
            _ => unescaped_text(text).map(String::into_bytes),
        };
        let decoded = decoded.ok_or_else(|| self.broken("has a malformed string"))?;
        let span = self.store_decoded(&decoded)?;
        self.push(if opcode == b'S' { Object::Bytes(span) } else { Object::Text(span) })
    }

    /// Stores decoded bytes.
    fn store_decoded(&mut self, bytes: &[u8]) -> Result<Span> {
        let start = self.memory.decoded.len();
        // A string is decoded at most twice, to at most two bytes per byte.
        if start + bytes.len() > 4 * self.memory.file.len() {
            return Err(self.refuse("decodes the same string repeatedly"));
        }
        self.memory.decoded.extend_from_slice(bytes);
        Ok(Span { decoded: true, start, len: bytes.len() })
    }

    fn extend(&mut self, items: &[Id]) -> Result<()> {
        let list = self.top()?;
        match &mut self.memory.objects[list.0 as usize] {
            Object::List(list) => list.extend_from_slice(items),
            _ => return Err(self.broken("appends to an object that is not a list")),
        }
        Ok(())
    }

    fn key(&mut self, opcode: u8) -> Result<u64> {
        match opcode {
            b'p' | b'g' => self.parsed(),
            b'q' | b'h' => Ok(u64::from(self.take::<1>()?[0])),
            b'r' | b'j' => Ok(u64::from(u32::from_le_bytes(self.take()?))),
            _ => Ok(self.memo.len() as u64),
        }
    }

    fn remember(&mut self, opcode: u8) -> Result<()> {
        let key = self.key(opcode)?;
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn global(&mut self, opcode: u8) -> Result<()> {
        let (module, name) = if opcode == b'c' {
            let (module, name) = (self.line()?, self.line()?);
            (self.memory.bytes(module), self.memory.bytes(name))
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            let text = |id| self.memory.text(id).map(str::as_bytes).unwrap_or_default();
            (text(module), text(name))
        };
        let (module, name) = (String::from_utf8_lossy(module), String::from_utf8_lossy(name));
        let known = Known::named(&module, &name).ok_or_else(|| {
            self.refuse(format!(
                "contains a {}, expected only NumPy arrays, tuples, lists, numbers and strings",
                excerpt(&format!("{module}.{name}"))
            ))
        })?;
        self.push(Object::Known(known))
    }

    /// Calls a function with a tuple of arguments. Only functions that build arrays, their types and their bytes are known.
    fn call(&mut self) -> Result<()> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let memory = &self.memory;
        let (Object::Known(function), Some(arguments)) = (memory.object(function), memory.tuple(arguments))
        else {
            return Err(self.broken("calls an object that is not a function"));
        };
        let made = match (function, arguments) {
            // build() fills the array.
            (Known::Reconstruct, [class, ..])
                if matches!(memory.object(*class), Object::Known(Known::Array)) =>
            {
                Some(Object::Known(Known::Array))
            }
            (Known::Type, [name, ..]) => {
                let name = memory.text(*name).unwrap_or_default();
                let number = NumberFormat::parse(name).ok_or_else(|| {
                    self.refuse(format!("has values of type {}, expected numbers", excerpt(name)))
                })?;
                Some(Object::Type(number))
            }
            (Known::Scalar, [kind, values]) => memory.array_of(&[], *kind, Order::Rows, *values),
            (Known::FromBuffer, [values, kind, shape, order, axes @ ..]) => {
                let order = match (memory.text(*order), axes) {
                    (Some("C"), []) => Some(Order::Rows),
                    (Some("F"), []) => Some(Order::Columns),
                    (Some("K"), [axes]) => memory.tuple(*axes).map(Order::Axes),
                    _ => None,
                };
                let shape = memory.tuple(*shape);
                shape.zip(order).and_then(|(shape, order)| memory.array_of(shape, *kind, order, *values))
            }
            (Known::Bytes, []) => Some(Object::Bytes(Span { decoded: false, start: 0, len: 0 })),
            (Known::Bytes, [bytes]) => match *memory.object(*bytes) {
                Object::Bytes(span) => Some(Object::Bytes(span)),
                _ => None,
            },
            (Known::Encode | Known::Bytes, [text, _]) => {
                // Pickles use this for bytes, encoded as Latin-1: one character per byte.
                let letters = memory.text(*text).map(|text| text.chars().map(|c| u8::try_from(c).ok()));
                let bytes: Option<Vec<u8>> = letters.and_then(Iterator::collect);
                let bytes = bytes.ok_or_else(|| self.broken("encodes a string that is not Latin-1"))?;
                Some(Object::Bytes(self.store_decoded(&bytes)?))
            }
            _ => None,
        };
        let made = made.ok_or_else(|| self.broken("builds an array in an unknown way"))?;
        self.push(made)
    }

    /// Sets the content of an array, or the byte order of a type.
    fn build(&mut self) -> Result<()> {
        let (state, object) = (self.pop()?, self.top()?);
        let memory = &self.memory;
        let state = memory.tuple(state).unwrap_or_default();
        let built = match (memory.object(object), state) {
            (Object::Known(Known::Array), [.., shape, kind, fortran, values]) => {
                let fortran = matches!(memory.object(*fortran), Object::Integer(1) | Object::Boolean(true));
                let order = if fortran { Order::Columns } else { Order::Rows };
                memory.tuple(*shape).and_then(|shape| memory.array_of(shape, *kind, order, *values))
            }
            (Object::Type(number), [_, order, ..]) => {
                memory.text(*order).map(|order| Object::Type(number.ordered(order)))
            }
            _ => None,
        };
        let built = built.ok_or_else(|| self.broken("sets the state of an array in an unknown way"))?;
        self.memory.objects[object.0 as usize] = built;
        Ok(())
    }
}

/// Describes the object that a refused opcode would build.
fn unwanted(opcode: u8) -> String {
    let what = match opcode {
        b'}' | b'd' | b's' | b'u' => "a dictionary",
        0x8f..=0x91 => "a set",
        b'i' | b'o' | 0x81 | 0x92 => "an object of some class",
        b'P' | b'Q' | 0x82..=0x84 | 0x97 => "an object that is not in the file",
        other => return format!("has the unknown opcode {other:#04x}"),
    };
    format!("contains {what}, expected only NumPy arrays, tuples, lists, numbers and strings")
}
