//! Point groups of rotations (docs/method.md, section 1): their names, and their operators about RELION's axes.

use std::f64::consts::TAU;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::imaging::pose::{Rotation, product, transposed};

/// Largest n of C_n and D_n, as in RELION.
const LARGEST_FOLD: u8 = 99;
/// Largest difference between entries of equal operators. Different operators of any group differ by more than 0.06.
const TOLERANCE: f64 = 1e-6;
const IDENTITY: Rotation = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

/// A point group of rotations, with RELION's axes through the origin of the box.
///
/// Written as RELION names it: "C4", "D7", "T", "O", "I2". Names are read in upper or lower case; "I" is I2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Symmetry {
    /// No symmetry.
    #[default]
    C1,
    /// Cyclic: an n-fold axis along z. n is from 2 to 99.
    C(u8),
    /// Dihedral: an n-fold axis along z and a twofold axis along x. n is from 1 to 99.
    D(u8),
    /// Tetrahedral: a threefold axis along z, and a twofold axis in the plane x = 0.
    T,
    /// Octahedral: fourfold axes along x, y and z.
    O,
    /// Icosahedral: twofold axes along x, y and z; the fivefold axes of the plane y = 0 are the nearer to x. I2 turned by 90 degrees
    /// about z.
    I1,
    /// Icosahedral, RELION's default: twofold axes along x, y and z; the fivefold axes of the plane y = 0 are the nearer to z.
    I2,
    /// Icosahedral: a fivefold axis along z, and a twofold axis in the plane y = 0 with x < 0 < z.
    I3,
    /// Icosahedral: as I3, with x > 0 and z > 0.
    I4,
}

impl Symmetry {
    /// Number of operators, |G|.
    pub fn order(self) -> usize {
        match self {
            Self::C1 => 1,
            Self::C(fold) => usize::from(fold),
            Self::D(fold) => 2 * usize::from(fold),
            Self::T => 12,
            Self::O => 24,
            Self::I1 | Self::I2 | Self::I3 | Self::I4 => 60,
        }
    }

    /// The operators g: the density is V(r) = V(g r). The identity is first; the order of C, D and T is that of RELION 3.1.3.
    ///
    /// Accurate to the last bits of f64; entries that are 0, 1/2 or 1 in magnitude are exact.
    pub fn operators(self) -> Vec<Rotation> {
        let mut powers = Vec::new();
        for (fold, axis) in self.axes() {
            powers.extend((1..fold).map(|turn| rotation_about(axis, f64::from(turn) / f64::from(fold))));
        }
        let mut operators = closure(powers);
        debug_assert_eq!(operators.len() + 1, self.order());
        operators.insert(0, IDENTITY);
        operators
    }

    /// Operators that generate the group: one step about each of its generating axes. C1 has none.
    pub(crate) fn generators(self) -> Vec<Rotation> {
        let step = |(fold, axis): (u8, [f64; 3])| rotation_about(axis, 1.0 / f64::from(fold));
        self.axes().into_iter().filter(|&(fold, _)| fold > 1).map(step).collect()
    }

    /// The generating axis of the most operators: its fold and its direction, of length 1. C1 has none.
    pub(crate) fn main_axis(self) -> Option<(u8, [f64; 3])> {
        let (fold, axis) =
            self.axes().into_iter().filter(|&(fold, _)| fold > 1).max_by_key(|&(fold, _)| fold)?;
        let length = axis.iter().map(|part| part * part).sum::<f64>().sqrt();
        Some((fold, axis.map(|part| part / length)))
    }

    /// The axes that generate the group, with their folds, in RELION's order. Lengths are arbitrary.
    fn axes(self) -> Vec<(u8, [f64; 3])> {
        let golden = 0.5 * (1.0 + 5f64.sqrt());
        // The threefold axis nearest to the fivefold axis z of I3 and I4.
        let tan_54 = (1.0 + 2.0 / 5f64.sqrt()).sqrt();
        match self {
            Self::C1 => vec![],
            Self::C(fold) => vec![(fold, [0.0, 0.0, 1.0])],
            Self::D(fold) => vec![(fold, [0.0, 0.0, 1.0]), (2, [1.0, 0.0, 0.0])],
            Self::T => vec![(3, [0.0, 0.0, 1.0]), (2, [0.0, 2f64.sqrt(), 1.0])],
            Self::O => vec![(3, [1.0, 1.0, 1.0]), (4, [0.0, 0.0, 1.0])],
            Self::I1 => {
                vec![(2, [1.0, 0.0, 0.0]), (5, [golden, 0.0, -1.0]), (3, [golden * golden, 1.0, 0.0])]
            }
            Self::I2 => vec![(2, [0.0, 0.0, 1.0]), (5, [1.0, 0.0, golden]), (3, [0.0, 1.0, golden * golden])],
            Self::I3 => {
                vec![(2, [-1.0, 0.0, golden]), (5, [0.0, 0.0, 1.0]), (3, [-tan_54, 1.0, golden * tan_54])]
            }
            Self::I4 => {
                vec![(2, [1.0, 0.0, golden]), (5, [2.0, 0.0, 1.0]), (3, [tan_54, 1.0, golden * tan_54])]
            }
        }
    }
}

/// Rotation about `axis` by `turn` full turns, clockwise as seen from the tip of the axis, which is RELION's sense.
fn rotation_about(axis: [f64; 3], turn: f64) -> Rotation {
    let norm = axis.iter().map(|v| v * v).sum::<f64>().sqrt();
    let [x, y, z] = axis.map(|v| v / norm);
    let (sin, cos) = (-TAU * turn).sin_cos();
    let cross = [[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]];
    let unit = [x, y, z];
    exact(std::array::from_fn(|i| {
        std::array::from_fn(|j| cos * IDENTITY[i][j] + sin * cross[i][j] + (1.0 - cos) * unit[i] * unit[j])
    }))
}

/// The group that `operators` generate, without the identity.
///
/// As in RELION, products are tried along diagonals of the growing table of pairs; one factor is always a generator.
fn closure(mut operators: Vec<Rotation>) -> Vec<Rotation> {
    let generators = operators.len();
    let mut last = 0;
    while last < operators.len() {
        let down = (0..=last).map(|row| (row, last));
        let back = (0..last).rev().map(|column| (last, column));
        for (row, column) in down.chain(back) {
            if row >= generators && column >= generators {
                continue;
            }
            let found = exact(product(&operators[row], &operators[column]));
            if !equal(&found, &IDENTITY) && operators.iter().all(|known| !equal(known, &found)) {
                operators.push(found);
            }
        }
        last += 1;
    }
    operators
}

/// Whether two operators of a group are the same, up to rounding.
fn equal(a: &Rotation, b: &Rotation) -> bool {
    a.iter().flatten().zip(b.iter().flatten()).all(|(a, b)| (a - b).abs() < TOLERANCE)
}

/// `w` without its rounding errors: orthonormal to the last bits, and with exact entries where they are 0, 1/2 or 1 in magnitude.
fn exact(w: Rotation) -> Rotation {
    let gram = product(&w, &transposed(&w));
    let orthonormal: Rotation = std::array::from_fn(|i| {
        std::array::from_fn(|j| 1.5 * w[i][j] - 0.5 * (0..3).map(|k| gram[i][k] * w[k][j]).sum::<f64>())
    });
    orthonormal.map(|row| {
        row.map(|value| {
            let rounded = 0.5 * (2.0 * value).round();
            // Adding 0 makes -0 positive.
            if (value - rounded).abs() < 1e-12 { rounded + 0.0 } else { value }
        })
    })
}

impl fmt::Display for Symmetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::C1 => f.pad("C1"),
            Self::C(fold) => f.pad(&format!("C{fold}")),
            Self::D(fold) => f.pad(&format!("D{fold}")),
            Self::T => f.pad("T"),
            Self::O => f.pad("O"),
            Self::I1 => f.pad("I1"),
            Self::I2 => f.pad("I2"),
            Self::I3 => f.pad("I3"),
            Self::I4 => f.pad("I4"),
        }
    }
}

impl FromStr for Symmetry {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let name = text.trim().to_ascii_uppercase();
        let fold = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            digits.parse::<u8>().ok().filter(|fold| plain && (1..=LARGEST_FOLD).contains(fold))
        };
        let group = match name.as_str() {
            "T" => Some(Self::T),
            "O" => Some(Self::O),
            "I" | "I2" => Some(Self::I2),
            "I1" => Some(Self::I1),
            "I3" => Some(Self::I3),
            "I4" => Some(Self::I4),
            other => match other.split_at_checked(1) {
                Some(("C", digits)) => fold(digits).map(|n| if n == 1 { Self::C1 } else { Self::C(n) }),
                Some(("D", digits)) => fold(digits).map(Self::D),
                _ => None,
            },
        };
        group.ok_or_else(|| {
            let remedy = format!(
                "use C1 to C{LARGEST_FOLD}, D1 to D{LARGEST_FOLD}, T, O, I (I2), I1, I2, I3 or I4, with RELION's axes"
            );
            if is_improper(&name) {
                Error::request(
                    format!("symmetry {text:?} has mirror planes or an inversion, which chiral molecules never have"),
                    remedy,
                )
            } else {
                Error::request(format!("symmetry {text:?} is not a point group of rotations"), remedy)
            }
        })
    }
}

/// Whether `name`, in upper case, is a point group with mirror planes or an inversion, in RELION's names.
fn is_improper(name: &str) -> bool {
    let after_digits = name.get(1..).map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    match name.get(..1) {
        Some("C") => name == "CI" || name == "CS" || matches!(after_digits, Some("V" | "H")),
        Some("D") => matches!(after_digits, Some("V" | "H" | "D")),
        Some("S") => name.len() > 1 && after_digits == Some(""),
        Some("T") => matches!(after_digits, Some("D" | "H")),
        Some("O" | "I") => after_digits == Some("H"),
        _ => false,
    }
}

impl TryFrom<String> for Symmetry {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Symmetry> for String {
    fn from(symmetry: Symmetry) -> Self {
        symmetry.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::pose::distance_from_rotation;

    fn all() -> Vec<Symmetry> {
        let mut groups: Vec<Symmetry> = (1..=12).map(|n| format!("C{n}").parse().unwrap()).collect();
        groups.extend((1..=8).chain([99]).map(Symmetry::D));
        use Symmetry::{I1, I2, I3, I4, O, T};
        groups.extend([T, O, I1, I2, I3, I4]);
        groups
    }

    #[test]
    fn operators_form_a_group() {
        for group in all() {
            let operators = group.operators();
            assert_eq!(operators.len(), group.order(), "{group}");
            assert_eq!(operators[0], IDENTITY, "{group}");
            for (i, a) in operators.iter().enumerate() {
                assert!(distance_from_rotation(a) < 1e-15, "{group} {i}: {a:?}");
                assert_eq!(operators.iter().filter(|b| equal(a, b)).count(), 1, "{group} {i}");
                for b in &operators {
                    let ab = product(a, b);
                    let error = |c: &Rotation| {
                        c.iter()
                            .flatten()
                            .zip(ab.iter().flatten())
                            .map(|(c, d)| (c - d).abs())
                            .fold(0.0, f64::max)
                    };
                    assert!(operators.iter().map(error).fold(1.0, f64::min) < 1e-14, "{group} {i}");
                }
            }
        }
    }

    #[test]
    fn axes_are_where_the_documentation_says() {
        let golden = 0.5 * (1.0 + 5f64.sqrt());
        let has = |group: Symmetry, fold: u32, axis: [f64; 3]| {
            let turned = rotation_about(axis, 1.0 / f64::from(fold));
            group.operators().iter().any(|g| equal(g, &turned))
        };
        let [x, y, z] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        assert!(has(Symmetry::C(7), 7, z) && has(Symmetry::D(5), 5, z) && has(Symmetry::D(5), 2, x));
        assert!(has(Symmetry::D(1), 2, x) && !has(Symmetry::D(5), 2, y));
        assert!(has(Symmetry::T, 3, z) && has(Symmetry::T, 2, [0.0, 2f64.sqrt(), 1.0]));
        assert!(has(Symmetry::O, 4, x) && has(Symmetry::O, 4, y) && has(Symmetry::O, 4, z));
        for (group, five) in [(Symmetry::I1, [golden, 0.0, 1.0]), (Symmetry::I2, [1.0, 0.0, golden])] {
            assert!([x, y, z].iter().all(|&axis| has(group, 2, axis)), "{group}");
            assert!(has(group, 5, five) && !has(group, 5, [five[2], 0.0, five[0]]), "{group}");
        }
        assert!(has(Symmetry::I3, 5, z) && has(Symmetry::I3, 2, [-1.0, 0.0, golden]));
        assert!(has(Symmetry::I4, 5, z) && has(Symmetry::I4, 2, [1.0, 0.0, golden]));
        assert!(!has(Symmetry::I3, 2, [1.0, 0.0, golden]) && !has(Symmetry::I4, 2, [-1.0, 0.0, golden]));
    }

    #[test]
    fn names_survive_the_round_trip() {
        for group in all() {
            assert_eq!(group.to_string().to_lowercase().parse::<Symmetry>().unwrap(), group);
            let json = serde_json::to_string(&group).unwrap();
            assert_eq!(json, format!("\"{group}\""));
            assert_eq!(serde_json::from_str::<Symmetry>(&json).unwrap(), group);
        }
        assert_eq!("i".parse::<Symmetry>().unwrap(), Symmetry::I2);
        assert_eq!(Symmetry::default().operators(), [IDENTITY]);
    }

    #[test]
    fn other_names_are_refused_with_a_remedy() {
        for name in
            ["", "C", "C0", "C100", "D0", "C300", "C+3", "X2", "T2", "I5", "I6", "C3 x", "é", "helical"]
        {
            let message = name.parse::<Symmetry>().unwrap_err().to_string();
            assert!(message.contains("not a point group of rotations; use C1 to C99"), "{name}: {message}");
        }
        for name in ["Ci", "Cs", "C3v", "C3h", "D4v", "D4h", "S4", "Td", "Th", "Oh", "Ih", "I2h"] {
            let message = name.parse::<Symmetry>().unwrap_err().to_string();
            assert!(message.contains("mirror planes or an inversion"), "{name}: {message}");
        }
    }
}
