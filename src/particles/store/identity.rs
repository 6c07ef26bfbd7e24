//! The identity of a particle set.

use std::fmt;

use sha2::{Digest, Sha256};

/// Identifies a particle set: SHA-256 over the image checksums, the poses and the halves of all particles, in that
/// order and as stored. Two files of the same particles have the same identity, however they were written.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DataSetId([u8; 32]);

impl DataSetId {
    /// The identity of a set whose data are passed to `hash` in pieces.
    ///
    /// # Errors
    /// What `hash` returns.
    pub(super) fn of<E>(hash: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>) -> Result<Self, E> {
        let mut hasher = Sha256::new();
        hash(&mut |bytes| hasher.update(bytes))?;
        Ok(Self(hasher.finalize().into()))
    }

    /// The digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The identity whose digest is `bytes`.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// Writes 64 hexadecimal digits in lower case.
impl fmt::Display for DataSetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DataSetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataSetId({self})")
    }
}

impl serde::Serialize for DataSetId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for DataSetId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bad = || serde::de::Error::custom(format!("is {text:?}, expected 64 hexadecimal digits"));
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (k, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * k..2 * k + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        let id = DataSetId::of(|hash| {
            hash(b"ab");
            hash(b"c");
            Ok::<(), ()>(())
        })
        .unwrap();
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(id.to_string(), text);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<DataSetId>(&json).unwrap(), id);
        for bad in ["\"\"", "\"0a0b\"", &json.replace('b', "g"), &json.replace("ba", "é")] {
            assert!(serde_json::from_str::<DataSetId>(bad).is_err(), "{bad}");
        }
    }
}
