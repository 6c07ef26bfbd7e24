//! A vector made of two of half its length.

use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use super::Vector;

/// The low and the high lanes.
#[derive(Clone, Copy, Debug)]
pub struct Pair<V>(pub V, pub V);

macro_rules! binary {
    ($($trait:ident $method:ident),*) => {$(
        impl<V: Vector> $trait for Pair<V> {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self(self.0.$method(other.0), self.1.$method(other.1))
            }
        }
    )*};
}

binary!(Add add, Sub sub, Mul mul, Div div);

impl<V: Vector> Neg for Pair<V> {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Self(-self.0, -self.1)
    }
}

impl<V: Vector> AddAssign for Pair<V> {
    #[inline(always)]
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl<V: Vector> Vector for Pair<V> {
    type Scalar = V::Scalar;
    const LEN: usize = 2 * V::LEN;

    #[inline(always)]
    fn splat(value: V::Scalar) -> Self {
        Self(V::splat(value), V::splat(value))
    }

    #[inline(always)]
    fn load(slice: &[V::Scalar]) -> Self {
        let slice = &slice[..Self::LEN];
        Self(V::load(slice), V::load(&slice[V::LEN..]))
    }

    #[inline(always)]
    fn store(self, slice: &mut [V::Scalar]) {
        let slice = &mut slice[..Self::LEN];
        self.0.store(slice);
        self.1.store(&mut slice[V::LEN..]);
    }

    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        Self(self.0.mul_add(a.0, b.0), self.1.mul_add(a.1, b.1))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(self.0.min(other.0), self.1.min(other.1))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(self.0.max(other.0), self.1.max(other.1))
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(self.0.sqrt(), self.1.sqrt())
    }

    #[inline(always)]
    fn ceil(self) -> Self {
        Self(self.0.ceil(), self.1.ceil())
    }

    #[inline(always)]
    fn floor(self) -> Self {
        Self(self.0.floor(), self.1.floor())
    }

    #[inline(always)]
    fn select_positive(self, then: Self, otherwise: Self) -> Self {
        Self(self.0.select_positive(then.0, otherwise.0), self.1.select_positive(then.1, otherwise.1))
    }

    #[inline(always)]
    fn round_ties_even(self) -> (Self, Self) {
        let ((n, power), (other_n, other_power)) = (self.0.round_ties_even(), self.1.round_ties_even());
        (Self(n, other_n), Self(power, other_power))
    }

    #[inline(always)]
    fn scale_by_pow2(self, n: Self) -> Self {
        Self(self.0.scale_by_pow2(n.0), self.1.scale_by_pow2(n.1))
    }
}
