//! Number types of NumPy, from a type string such as `<f4`: kind, width and byte order.

/// NumberKind of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NumberKind {
    Float,
    Signed,
    Unsigned,
    Boolean,
}

/// Storage format of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumberFormat {
    kind: NumberKind,
    width: usize,
    big_endian: bool,
}

impl NumberFormat {
    /// Parses a NumPy type string: an optional byte order (`<`, `>`, `=`, `|`), a kind (`f`, `i`, `u`, `b`) and the size in
    /// bytes. `None` for other types.
    pub fn parse(text: &str) -> Option<Self> {
        let (order, kind) = match text.as_bytes().first()? {
            b'<' | b'>' | b'=' | b'|' => text.split_at(1),
            _ => ("<", text),
        };
        let (kind, width) = match kind {
            "f2" | "f4" | "f8" => (NumberKind::Float, &kind[1..]),
            "i1" | "i2" | "i4" | "i8" => (NumberKind::Signed, &kind[1..]),
            "u1" | "u2" | "u4" | "u8" => (NumberKind::Unsigned, &kind[1..]),
            "b1" => (NumberKind::Boolean, &kind[1..]),
            _ => return None,
        };
        Some(Self { kind, width: width.parse().ok()?, big_endian: order == ">" })
    }

    /// The same format in the byte order `order` (`<`, `>`, `=` or `|`). Native order (`=`) is taken as little-endian.
    pub fn ordered(self, order: &str) -> Self {
        Self { big_endian: order == ">", ..self }
    }

    /// Size of a number in bytes.
    pub fn width(self) -> usize {
        self.width
    }

    /// True for integers.
    pub fn is_integer(self) -> bool {
        matches!(self.kind, NumberKind::Signed | NumberKind::Unsigned)
    }

    /// True for Booleans.
    pub fn is_boolean(self) -> bool {
        self.kind == NumberKind::Boolean
    }

    /// The bits of the number in `bytes` (of its width), without sign extension.
    pub fn bits(self, bytes: &[u8]) -> u64 {
        let append = |bits: u64, &byte: &u8| bits << 8 | u64::from(byte);
        if self.big_endian { bytes.iter().fold(0, append) } else { bytes.iter().rev().fold(0, append) }
    }

    /// Writes the integer `value` to `bytes` (of its width), in the format of integers; other formats are left as they are.
    pub fn put_integer(self, value: u8, bytes: &mut [u8]) {
        if self.kind == NumberKind::Float {
            return;
        }
        bytes.fill(0);
        let lowest = if self.big_endian { self.width - 1 } else { 0 };
        bytes[lowest] = value;
    }

    /// True for floating-point numbers.
    pub fn is_float(self) -> bool {
        self.kind == NumberKind::Float
    }

    /// Writes `value` to `bytes` (of its width), in the format of floating-point numbers; other formats are left as they are.
    pub fn put_float(self, value: f64, bytes: &mut [u8]) {
        let bits = match (self.kind, self.width) {
            (NumberKind::Float, 2) => u64::from(half::f16::from_f64(value).to_bits()),
            (NumberKind::Float, 4) => u64::from((value as f32).to_bits()),
            (NumberKind::Float, _) => value.to_bits(),
            _ => return,
        };
        for (place, byte) in bytes.iter_mut().enumerate() {
            let place = if self.big_endian { self.width - 1 - place } else { place };
            *byte = (bits >> (8 * place)) as u8;
        }
    }

    /// The number in `bytes` (of its width).
    pub fn value(self, bytes: &[u8]) -> f64 {
        let bits = self.bits(bytes);
        match (self.kind, self.width) {
            (NumberKind::Float, 2) => half::f16::from_bits(bits as u16).to_f64(),
            (NumberKind::Float, 4) => f64::from(f32::from_bits(bits as u32)),
            (NumberKind::Float, _) => f64::from_bits(bits),
            (NumberKind::Unsigned | NumberKind::Boolean, _) => bits as f64,
            (NumberKind::Signed, _) => self.sign_extended(bits) as f64,
        }
    }

    /// The non-negative integer in `bytes`; `None` for negative numbers, floats and Booleans.
    pub fn index(self, bytes: &[u8]) -> Option<u64> {
        let bits = self.bits(bytes);
        match self.kind {
            NumberKind::Float | NumberKind::Boolean => None,
            NumberKind::Unsigned => Some(bits),
            NumberKind::Signed => u64::try_from(self.sign_extended(bits)).ok(),
        }
    }

    fn sign_extended(self, bits: u64) -> i64 {
        let unused = 64 - 8 * self.width as u32;
        (bits << unused) as i64 >> unused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_in_both_byte_orders() {
        let value = |text: &str, bytes: &[u8]| NumberFormat::parse(text).unwrap().value(bytes);
        assert_eq!(value("<f4", &1.5f32.to_le_bytes()), 1.5);
        assert_eq!(value(">f4", &1.5f32.to_be_bytes()), 1.5);
        assert_eq!(value("f8", &(-2.25f64).to_le_bytes()), -2.25);
        assert_eq!(value(">f2", &half::f16::from_f32(0.5).to_be_bytes()), 0.5);
        assert_eq!(value("|i1", &[0xfe]), -2.0);
        assert_eq!(value(">i2", &(-300i16).to_be_bytes()), -300.0);
        assert_eq!(value("<u8", &u64::MAX.to_le_bytes()), u64::MAX as f64);
        assert_eq!(value("|b1", &[1]), 1.0);
        let index = |text: &str, bytes: &[u8]| NumberFormat::parse(text).unwrap().index(bytes);
        assert_eq!(index("<u8", &u64::MAX.to_le_bytes()), Some(u64::MAX));
        assert_eq!(index("<i4", &(-1i32).to_le_bytes()), None);
        assert_eq!(index("<f4", &1f32.to_le_bytes()), None);
        assert_eq!(index("|b1", &[1]), None);
        for text in ["<f2", ">f4", "<f4", ">f8"] {
            let (format, mut bytes) = (NumberFormat::parse(text).unwrap(), [0; 8]);
            format.put_float(-1.625, &mut bytes[..format.width()]);
            assert_eq!(format.value(&bytes[..format.width()]), -1.625, "{text}");
        }
        for text in ["", "<", "O", "S5", "f3", "<c8", "f16", "µ4", "<U1"] {
            assert_eq!(NumberFormat::parse(text), None, "{text}");
        }
    }
}
