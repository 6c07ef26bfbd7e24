//! Numbers as numpy stores them: kind, width and byte order, from a type string as `<f4`.

/// What a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Float,
    Signed,
    Unsigned,
}

/// How a number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    kind: Kind,
    width: usize,
    big_endian: bool,
}

impl Number {
    /// From numpy's type string: an optional byte order (`<`, `>`, `=`, `|`), a kind (`f`, `i`, `u`, `b`) and the bytes of a
    /// number. `None` for what is no real number.
    pub fn parse(text: &str) -> Option<Self> {
        let (order, kind) = match text.as_bytes().first()? {
            b'<' | b'>' | b'=' | b'|' => text.split_at(1),
            _ => ("<", text),
        };
        let (kind, width) = match kind {
            "f2" | "f4" | "f8" => (Kind::Float, &kind[1..]),
            "i1" | "i2" | "i4" | "i8" => (Kind::Signed, &kind[1..]),
            "u1" | "u2" | "u4" | "u8" | "b1" => (Kind::Unsigned, &kind[1..]),
            _ => return None,
        };
        Some(Self { kind, width: width.parse().ok()?, big_endian: order == ">" })
    }

    /// The same in the byte order `order` (`<`, `>`, `=` or `|`). `=` is little-endian, as this program's machines are.
    pub fn ordered(self, order: &str) -> Self {
        Self { big_endian: order == ">", ..self }
    }

    /// Bytes of a number.
    pub fn width(self) -> usize {
        self.width
    }

    /// True for integers (and booleans).
    pub fn is_whole(self) -> bool {
        self.kind != Kind::Float
    }

    /// The bits of the number that `bytes` (of its width) hold, without a sign's extension.
    pub fn bits(self, bytes: &[u8]) -> u64 {
        let append = |bits: u64, &byte: &u8| bits << 8 | u64::from(byte);
        if self.big_endian { bytes.iter().fold(0, append) } else { bytes.iter().rev().fold(0, append) }
    }

    /// The number that `bytes` (of its width) hold.
    pub fn value(self, bytes: &[u8]) -> f64 {
        let bits = self.bits(bytes);
        match (self.kind, self.width) {
            (Kind::Float, 2) => half::f16::from_bits(bits as u16).to_f64(),
            (Kind::Float, 4) => f64::from(f32::from_bits(bits as u32)),
            (Kind::Float, _) => f64::from_bits(bits),
            (Kind::Unsigned, _) => bits as f64,
            (Kind::Signed, _) => self.extended(bits) as f64,
        }
    }

    /// The index that `bytes` hold; `None` for a negative one and for what is no integer.
    pub fn index(self, bytes: &[u8]) -> Option<u64> {
        let bits = self.bits(bytes);
        match self.kind {
            Kind::Float => None,
            Kind::Unsigned => Some(bits),
            Kind::Signed => u64::try_from(self.extended(bits)).ok(),
        }
    }

    fn extended(self, bits: u64) -> i64 {
        let unused = 64 - 8 * self.width as u32;
        (bits << unused) as i64 >> unused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_in_both_orders() {
        let value = |text: &str, bytes: &[u8]| Number::parse(text).unwrap().value(bytes);
        assert_eq!(value("<f4", &1.5f32.to_le_bytes()), 1.5);
        assert_eq!(value(">f4", &1.5f32.to_be_bytes()), 1.5);
        assert_eq!(value("f8", &(-2.25f64).to_le_bytes()), -2.25);
        assert_eq!(value(">f2", &half::f16::from_f32(0.5).to_be_bytes()), 0.5);
        assert_eq!(value("|i1", &[0xfe]), -2.0);
        assert_eq!(value(">i2", &(-300i16).to_be_bytes()), -300.0);
        assert_eq!(value("<u8", &u64::MAX.to_le_bytes()), u64::MAX as f64);
        assert_eq!(value("|b1", &[1]), 1.0);
        let index = |text: &str, bytes: &[u8]| Number::parse(text).unwrap().index(bytes);
        assert_eq!(index("<u8", &u64::MAX.to_le_bytes()), Some(u64::MAX));
        assert_eq!(index("<i4", &(-1i32).to_le_bytes()), None);
        assert_eq!(index("<f4", &1f32.to_le_bytes()), None);
        for text in ["", "<", "O", "S5", "f3", "<c8", "f16", "µ4", "<U1"] {
            assert_eq!(Number::parse(text), None, "{text}");
        }
    }
}
