//! Random damage to the bytes of a file, and damage with words of its format.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Words of a format with a meaning to its reader, valid or not.
pub type Words = &'static [&'static [u8]];

/// A kind of damage.
#[derive(Clone, Debug)]
pub enum Damage {
    Set(Place, u8),
    Word(Place, u32),
    Long(Place, u64),
    Cut(Place),
    Remove(Place, u8),
    Insert(Place, Vec<u8>),
    Over(Place, Vec<u8>),
    Repeat(Place, u8),
    /// Copies the lines at a position to another one.
    Lines(Place, Place, u8),
    /// Repeats a byte: very long lines, deep nesting.
    Run(Place, u8),
    /// Windows line ends.
    Returns,
}

/// A position in a file. Half of them are near the start, where headers are.
#[derive(Clone, Copy, Debug)]
pub struct Place(u16);

impl Place {
    fn in_length(self, len: usize) -> usize {
        const START: usize = 4096;
        let span = if self.0 < 1 << 15 { len.min(START) } else { len };
        (usize::from(self.0 & 0x7fff) * span) >> 15
    }
}

fn place() -> impl Strategy<Value = Place> {
    any::<u16>().prop_map(Place)
}

const TEXT: Words =
    &[b"\n", b"nan", b"@", b"(", b"'", b"999999999999", b" ", b"\0", b"\xff\xfe", b"-1", b"1e999"];

/// Up to five kinds of damage, for a format with these `words`.
pub fn damages(words: Words) -> impl Strategy<Value = Vec<Damage>> {
    let word = prop_oneof![
        select(&[0u32, u32::MAX, 0x7fff_ffff, 0x8000_0000, 0x7fc0_0000][..]),
        0..1000u32,
        any::<u32>()
    ];
    let long = prop_oneof![
        select(&[0, u64::MAX, i64::MAX as u64, 1 << 40, 1 << 32, u64::MAX - 7][..]),
        0..1000u64,
        any::<u64>()
    ];
    let known = select(if words.is_empty() { TEXT } else { words });
    let damage = prop_oneof![
        6 => (place(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        3 => (place(), word).prop_map(|(at, word)| Damage::Word(at, word)),
        2 => (place(), long).prop_map(|(at, word)| Damage::Long(at, word)),
        2 => place().prop_map(Damage::Cut),
        3 => (place(), any::<u8>()).prop_map(|(at, len)| Damage::Remove(at, len)),
        2 => (place(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        2 => (place(), select(TEXT)).prop_map(|(at, text)| Damage::Insert(at, text.into())),
        4 => (place(), known.clone()).prop_map(|(at, text)| Damage::Insert(at, text.into())),
        3 => (place(), known).prop_map(|(at, text)| Damage::Over(at, text.into())),
        2 => (place(), any::<u8>()).prop_map(|(at, len)| Damage::Repeat(at, len)),
        2 => (place(), place(), 1..9u8).prop_map(|(from, to, count)| Damage::Lines(from, to, count)),
        1 => (place(), any::<u8>()).prop_map(|(at, byte)| Damage::Run(at, byte)),
        1 => Just(Damage::Returns),
    ];
    vec(damage, 1..6)
}

/// `sound` with `damages` applied in order.
pub fn damaged(sound: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    for damage in damages {
        let len = bytes.len();
        let over = |bytes: &mut Vec<u8>, at: usize, some: &[u8]| {
            bytes.iter_mut().skip(at).zip(some).for_each(|(old, new)| *old = *new);
        };
        match damage {
            Damage::Set(at, byte) => over(&mut bytes, at.in_length(len), &[*byte]),
            Damage::Word(at, word) => over(&mut bytes, at.in_length(len) / 4 * 4, &word.to_le_bytes()),
            Damage::Long(at, word) => over(&mut bytes, at.in_length(len) / 8 * 8, &word.to_le_bytes()),
            Damage::Over(at, some) => over(&mut bytes, at.in_length(len), some),
            Damage::Cut(at) => bytes.truncate(at.in_length(len)),
            Damage::Remove(at, count) => {
                let at = at.in_length(len);
                bytes.drain(at..(at + usize::from(*count)).min(len));
            }
            Damage::Insert(at, some) => {
                let at = at.in_length(len);
                bytes.splice(at..at, some.iter().copied());
            }
            Damage::Repeat(at, count) => {
                let at = at.in_length(len);
                let again = bytes[at..(at + usize::from(*count)).min(len)].to_vec();
                bytes.splice(at..at, again);
            }
            Damage::Lines(from, to, count) => {
                let from = from.in_length(len);
                let some = bytes[from..].split_inclusive(|&byte| byte == b'\n').take(usize::from(*count));
                let again = some.collect::<Vec<_>>().concat();
                let to = to.in_length(len);
                bytes.splice(to..to, again);
            }
            Damage::Run(at, byte) => {
                let at = at.in_length(len);
                bytes.splice(at..at, std::iter::repeat_n(*byte, 20_000));
            }
            Damage::Returns => {
                bytes = bytes.split(|&byte| byte == b'\n').collect::<Vec<_>>().join(&b"\r\n"[..]);
            }
        }
    }
    bytes
}
