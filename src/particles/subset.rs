//! The halves of a particle set for the gold-standard FSC, and the set as a whole.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The particles of one half, or all particles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Subset {
    /// The first half.
    #[serde(rename = "half1")]
    Half1,
    /// The second half.
    #[serde(rename = "half2")]
    Half2,
    /// All particles.
    #[serde(rename = "map")]
    All,
}

impl Subset {
    /// Both halves, in the order of the particle file.
    pub const HALVES: [Self; 2] = [Self::Half1, Self::Half2];
    /// Every subset.
    pub const ALL: [Self; 3] = [Self::Half1, Self::Half2, Self::All];

    /// The file-name stem of its outputs: "half1", "half2" or "map".
    pub const fn name(self) -> &'static str {
        match self {
            Self::Half1 => "half1",
            Self::Half2 => "half2",
            Self::All => "map",
        }
    }

    /// The subset with this [`Subset::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|subset| subset.name() == name)
    }

    /// The code in the `/half` data set of a particle file: 0 or 1; `None` for all particles.
    pub const fn code(self) -> Option<u8> {
        match self {
            Self::Half1 => Some(0),
            Self::Half2 => Some(1),
            Self::All => None,
        }
    }

    /// The half with this [`Subset::code`].
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Half1),
            1 => Some(Self::Half2),
            _ => None,
        }
    }

    /// The number that separates its random streams ([`crate::random::stream`]): 1 and 2 for the halves, 0 for all.
    pub const fn seed_index(self) -> u8 {
        match self {
            Self::Half1 => 1,
            Self::Half2 => 2,
            Self::All => 0,
        }
    }
}

impl fmt::Display for Subset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_round_trip() {
        for subset in Subset::ALL {
            assert_eq!(Subset::from_name(subset.name()), Some(subset));
            assert_eq!(serde_json::to_value(subset).unwrap(), subset.name());
        }
        for (code, half) in Subset::HALVES.into_iter().enumerate() {
            assert_eq!(half.code().map(usize::from), Some(code));
            assert_eq!(Subset::from_code(code as u8), Some(half));
        }
        assert_eq!(Subset::from_name("half3"), None);
        assert_eq!(Subset::from_code(2), None);
    }
}
