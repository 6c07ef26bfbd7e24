//! The portable level: vectors are arrays.

use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use super::pair::Pair;
use super::{Isa, LANES, MAGIC_F32, MAGIC_F64, Vector, round_by_magic};

/// Arrays, which the compiler may vectorise for the baseline of the target.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

/// [`LANES`] numbers.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub struct Lanes<T>([T; LANES]);

impl<T: Copy> Lanes<T> {
    #[inline(always)]
    fn map(self, f: impl Fn(T) -> T) -> Self {
        Self(self.0.map(f))
    }

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(T, T) -> T) -> Self {
        Self(std::array::from_fn(|lane| f(self.0[lane], other.0[lane])))
    }
}

macro_rules! lanes {
    ($type:ty, $mantissa:expr, $magic:expr) => {
        impl Add for Lanes<$type> {
            type Output = Self;
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.zip(other, |a, b| a + b)
            }
        }
        impl Sub for Lanes<$type> {
            type Output = Self;
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                self.zip(other, |a, b| a - b)
            }
        }
        impl Mul for Lanes<$type> {
            type Output = Self;
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                self.zip(other, |a, b| a * b)
            }
        }
        impl Div for Lanes<$type> {
            type Output = Self;
            #[inline(always)]
            fn div(self, other: Self) -> Self {
                self.zip(other, |a, b| a / b)
            }
        }
        impl Neg for Lanes<$type> {
            type Output = Self;
            #[inline(always)]
            fn neg(self) -> Self {
                self.map(|a| -a)
            }
        }
        impl AddAssign for Lanes<$type> {
            #[inline(always)]
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }
        impl Vector for Lanes<$type> {
            type Scalar = $type;
            const LEN: usize = LANES;
            #[inline(always)]
            fn splat(value: $type) -> Self {
                Self([value; LANES])
            }
            #[inline(always)]
            fn load(slice: &[$type]) -> Self {
                Self(*slice.first_chunk().expect("a slice of at least one vector"))
            }
            #[inline(always)]
            fn store(self, slice: &mut [$type]) {
                *slice.first_chunk_mut().expect("a slice of at least one vector") = self.0;
            }
            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self {
                // The baseline of aarch64 has a fused instruction; elsewhere `mul_add` would be a slow library call.
                if cfg!(target_arch = "aarch64") {
                    Self(std::array::from_fn(|lane| self.0[lane].mul_add(a.0[lane], b.0[lane])))
                } else {
                    self * a + b
                }
            }
            #[inline(always)]
            fn min(self, other: Self) -> Self {
                self.zip(other, <$type>::min)
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                self.zip(other, <$type>::max)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                self.map(<$type>::sqrt)
            }
            #[inline(always)]
            fn ceil(self) -> Self {
                self.map(<$type>::ceil)
            }
            #[inline(always)]
            fn floor(self) -> Self {
                self.map(<$type>::floor)
            }
            #[inline(always)]
            fn select_positive(self, then: Self, otherwise: Self) -> Self {
                Self(std::array::from_fn(
                    |lane| {
                        if self.0[lane] > 0.0 { then.0[lane] } else { otherwise.0[lane] }
                    },
                ))
            }
            #[inline(always)]
            fn round_ties_even(self) -> (Self, Self) {
                round_by_magic($magic, self)
            }
            #[inline(always)]
            fn scale_by_pow2(self, n: Self) -> Self {
                // Adds n to the exponent bits. The shift drops the higher bits of n.
                self.zip(n, |value, n| {
                    <$type>::from_bits(value.to_bits().wrapping_add(n.to_bits() << $mantissa))
                })
            }
        }
    };
}

lanes!(f32, 23, MAGIC_F32);
lanes!(f64, 52, MAGIC_F64);

impl Isa for Portable {
    const REGISTERS: usize = 16;
    type F32 = Lanes<f32>;
    type F64 = Lanes<f64>;
    type Wide = Pair<Lanes<f32>>;

    #[inline(always)]
    fn widen(x: Lanes<f32>) -> Lanes<f64> {
        Lanes(x.0.map(f64::from))
    }

    #[inline(always)]
    fn narrow(x: Lanes<f64>) -> Lanes<f32> {
        Lanes(x.0.map(|v| v as f32))
    }

    #[inline(always)]
    fn truncate_to_i32(x: Lanes<f32>) -> [i32; LANES] {
        x.0.map(|v| v as i32)
    }

    #[inline(always)]
    fn split(x: Pair<Lanes<f32>>) -> [Lanes<f32>; 2] {
        [x.0, x.1]
    }

    #[inline(always)]
    fn transpose(rows: &[Lanes<f32>; LANES]) -> [Lanes<f32>; LANES] {
        std::array::from_fn(|column| Lanes(std::array::from_fn(|row| rows[row].0[column])))
    }

    #[inline(always)]
    fn row_sums(rows: &[Lanes<f32>; LANES]) -> Lanes<f32> {
        Lanes(rows.map(|Lanes(v)| ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]))))
    }
}
