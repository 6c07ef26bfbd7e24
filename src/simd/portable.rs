//! Vectors as plain arrays, for every processor.

use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use super::{Isa, LANES, MAGIC_F32, MAGIC_F64, Pair, Vector, nearest_behind};

/// Plain arrays, which the compiler may or may not turn into vector instructions.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

/// Eight numbers in an array.
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
            const COUNT: usize = LANES;
            #[inline(always)]
            fn splat(value: $type) -> Self {
                Self([value; LANES])
            }
            #[inline(always)]
            fn load(slice: &[$type]) -> Self {
                Self(*slice.first_chunk().expect("as many values as lanes"))
            }
            #[inline(always)]
            fn store(self, slice: &mut [$type]) {
                *slice.first_chunk_mut().expect("as many places as lanes") = self.0;
            }
            #[inline(always)]
            fn times_plus(self, a: Self, b: Self) -> Self {
                // The baseline of aarch64 has a fused instruction; elsewhere it would be a slow call into a library.
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
            fn positive(self, then: Self, otherwise: Self) -> Self {
                Self(std::array::from_fn(
                    |lane| {
                        if self.0[lane] > 0.0 { then.0[lane] } else { otherwise.0[lane] }
                    },
                ))
            }
            #[inline(always)]
            fn nearest(self) -> (Self, Self) {
                nearest_behind($magic, self)
            }
            #[inline(always)]
            fn times_power_of_two(self, n: Self) -> Self {
                // Adding to the exponent's bits multiplies; what lies above them in `n` falls off.
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
    fn integers(x: Lanes<f32>) -> [i32; LANES] {
        x.0.map(|v| v as i32)
    }

    #[inline(always)]
    fn halves(x: Pair<Lanes<f32>>) -> [Lanes<f32>; 2] {
        [x.0, x.1]
    }

    #[inline(always)]
    fn transpose(rows: &[Lanes<f32>; LANES]) -> [Lanes<f32>; LANES] {
        std::array::from_fn(|column| Lanes(std::array::from_fn(|row| rows[row].0[column])))
    }

    #[inline(always)]
    fn sums(rows: &[Lanes<f32>; LANES]) -> Lanes<f32> {
        Lanes(rows.map(|Lanes(v)| ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]))))
    }
}
