//! The identity of a particle set.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Identifies a particle set: SHA-256 over its [`SetDigests`]. Two files of the same particles have the same identity, however they were
/// written; where their raw images came from does not count.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DataSetId([u8; 32]);

/// SHA-256 of each part of a particle set that decides the results of a run: the images (CRC-32 and energy of each, both verified when an
/// image is first read), halves, poses, shifts, CTFs and optics. Each by the name that messages use, in a fixed order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetDigests(Vec<(String, String)>);

impl SetDigests {
    /// Adds the digest of the part `name`, whose data are passed to `hash` in pieces.
    ///
    /// # Errors
    /// What `hash` returns.
    pub(super) fn add<E>(
        &mut self,
        name: &str,
        hash: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut hasher = Sha256::new();
        hash(&mut |bytes| hasher.update(bytes))?;
        self.0.push((name.into(), DataSetId(hasher.finalize().into()).to_string()));
        Ok(())
    }

    /// The identity of the set.
    pub fn id(&self) -> DataSetId {
        let mut hasher = Sha256::new();
        for (name, digest) in &self.0 {
            // No name contains a line end.
            hasher.update(format!("{name}\n{digest}\n"));
        }
        DataSetId(hasher.finalize().into())
    }

    /// Names of the parts that differ between this set and `other`.
    pub fn differences_from(&self, other: &Self) -> Vec<&str> {
        let differs = |part: &&(String, String)| !other.0.contains(part);
        self.0.iter().filter(differs).map(|(name, _)| name.as_str()).collect()
    }
}

impl DataSetId {
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

    fn digests(parts: &[(&str, &[&[u8]])]) -> SetDigests {
        let mut digests = SetDigests::default();
        for (name, pieces) in parts {
            let hash = |hash: &mut dyn FnMut(&[u8])| {
                pieces.iter().for_each(|piece| hash(piece));
                Ok::<(), ()>(())
            };
            digests.add(name, hash).unwrap();
        }
        digests
    }

    #[test]
    fn parts_decide_the_identity_and_those_that_differ_are_named() {
        let set = digests(&[("poses", &[b"ab", b"c"]), ("defocus", &[b"d"])]);
        assert_eq!(set, digests(&[("poses", &[b"a", b"bc"]), ("defocus", &[b"d"])]));
        let text = serde_json::to_string(&set).unwrap();
        assert!(text.contains("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"), "{text}");
        assert_eq!(serde_json::from_str::<SetDigests>(&text).unwrap(), set);
        let other = digests(&[("poses", &[b"abc"]), ("defocus", &[b"e"])]);
        assert_eq!(other.differences_from(&set), ["defocus"]);
        assert_ne!(other.id(), set.id());
        assert_ne!(digests(&[("poses", &[b"abcd"]), ("defocus", &[b""])]).id(), set.id());
    }

    #[test]
    fn text_round_trips() {
        let id = DataSetId(Sha256::digest(b"abc").into());
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
