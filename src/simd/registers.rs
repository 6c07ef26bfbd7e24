//! What the vectors of AVX2 and of AVX-512 have in common.
//!
//! The operators are safe to write, and are sound only in code compiled for the instructions. So the types have no
//! constructor outside this crate's vectorised bodies, which `vectorize!` enters after asking the processor.

use std::arch::x86_64::*;

use super::LANES;

/// Defines a [`super::Vector`] that is one register.
macro_rules! register {
    (
        $(#[$doc:meta])*
        $name:ident($raw:ident): $count:literal of $scalar:ident,
        $splat:ident, $load:ident, $store:ident,
        $add:ident, $sub:ident, $mul:ident, $div:ident, $times_plus:ident, $min:ident, $max:ident, $sqrt:ident,
        ceil |$c:ident| $ceil:expr,
        floor |$f:ident| $floor:expr,
        positive |$p:ident, $then:ident, $otherwise:ident| $positive:expr,
        nearest |$r:ident| $nearest:expr,
        times_power_of_two |$v:ident, $n:ident| $power:expr $(,)?
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name(pub(super) $raw);

        $crate::simd::registers::operators!($name: Add add $add, Sub sub $sub, Mul mul $mul, Div div $div);

        impl std::ops::Neg for $name {
            type Output = Self;
            #[inline(always)]
            fn neg(self) -> Self {
                // Exact, and right for zeros too: -0.0 - 0.0 is -0.0.
                Self::splat(-0.0) - self
            }
        }

        impl std::ops::AddAssign for $name {
            #[inline(always)]
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }

        impl Vector for $name {
            type Scalar = $scalar;
            const COUNT: usize = $count;

            #[inline(always)]
            fn splat(value: $scalar) -> Self {
                // SAFETY: see the module `registers`.
                Self(unsafe { $splat(value) })
            }

            #[inline(always)]
            fn load(slice: &[$scalar]) -> Self {
                let values: &[$scalar; $count] = slice.first_chunk().expect("as many values as lanes");
                // SAFETY: see the module `registers`; the array holds the values that are read.
                Self(unsafe { $load(values.as_ptr()) })
            }

            #[inline(always)]
            fn store(self, slice: &mut [$scalar]) {
                let places: &mut [$scalar; $count] = slice.first_chunk_mut().expect("as many places as lanes");
                // SAFETY: see the module `registers`; the array has room for the values that are written.
                unsafe { $store(places.as_mut_ptr(), self.0) };
            }

            #[inline(always)]
            fn times_plus(self, a: Self, b: Self) -> Self {
                // SAFETY: see the module `registers`.
                Self(unsafe { $times_plus(self.0, a.0, b.0) })
            }

            #[inline(always)]
            fn min(self, other: Self) -> Self {
                // SAFETY: see the module `registers`.
                Self(unsafe { $min(self.0, other.0) })
            }

            #[inline(always)]
            fn max(self, other: Self) -> Self {
                // SAFETY: see the module `registers`.
                Self(unsafe { $max(self.0, other.0) })
            }

            #[inline(always)]
            fn sqrt(self) -> Self {
                // SAFETY: see the module `registers`.
                Self(unsafe { $sqrt(self.0) })
            }

            #[inline(always)]
            fn ceil(self) -> Self {
                let $c = self.0;
                // SAFETY: see the module `registers`.
                Self(unsafe { $ceil })
            }

            #[inline(always)]
            fn floor(self) -> Self {
                let $f = self.0;
                // SAFETY: see the module `registers`.
                Self(unsafe { $floor })
            }

            #[inline(always)]
            fn positive(self, then: Self, otherwise: Self) -> Self {
                let ($p, $then, $otherwise) = (self.0, then.0, otherwise.0);
                // SAFETY: see the module `registers`.
                Self(unsafe { $positive })
            }

            #[inline(always)]
            fn nearest(self) -> (Self, Self) {
                let $r = self;
                // SAFETY: see the module `registers`.
                #[allow(unused_unsafe)]
                unsafe {
                    $nearest
                }
            }

            #[inline(always)]
            fn times_power_of_two(self, n: Self) -> Self {
                let ($v, $n) = (self.0, n.0);
                // SAFETY: see the module `registers`.
                Self(unsafe { $power })
            }
        }
    };
}

/// Operators of such a vector.
macro_rules! operators {
    ($name:ident: $($trait:ident $method:ident $instruction:ident),*) => {$(
        impl std::ops::$trait for $name {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: see the module `registers`.
                Self(unsafe { $instruction(self.0, other.0) })
            }
        }
    )*};
}

pub(super) use {operators, register};

/// The sum of each of eight vectors.
///
/// # Safety
/// The processor must have AVX.
#[inline(always)]
pub(super) unsafe fn sums(rows: [__m256; LANES]) -> __m256 {
    let [a, b, c, d, e, f, g, h] = rows;
    // SAFETY: the caller's.
    unsafe {
        let low = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
        let high = _mm256_hadd_ps(_mm256_hadd_ps(e, f), _mm256_hadd_ps(g, h));
        // Each half register now holds the sums of four lanes; the other four lie in the other half.
        let first = _mm256_permute2f128_ps::<0x20>(low, high);
        let second = _mm256_permute2f128_ps::<0x31>(low, high);
        _mm256_add_ps(first, second)
    }
}

/// Eight vectors, the first of the first numbers of each.
///
/// # Safety
/// The processor must have AVX.
#[inline(always)]
pub(super) unsafe fn transpose(rows: [__m256; LANES]) -> [__m256; LANES] {
    let [a, b, c, d, e, f, g, h] = rows;
    // SAFETY: the caller's.
    unsafe {
        // Halves of rows four apart; then within these halves as four by four.
        let [low0, high0] = [_mm256_permute2f128_ps::<0x20>(a, e), _mm256_permute2f128_ps::<0x31>(a, e)];
        let [low1, high1] = [_mm256_permute2f128_ps::<0x20>(b, f), _mm256_permute2f128_ps::<0x31>(b, f)];
        let [low2, high2] = [_mm256_permute2f128_ps::<0x20>(c, g), _mm256_permute2f128_ps::<0x31>(c, g)];
        let [low3, high3] = [_mm256_permute2f128_ps::<0x20>(d, h), _mm256_permute2f128_ps::<0x31>(d, h)];
        let [c0, c1, c2, c3] = transpose_quarters(low0, low1, low2, low3);
        let [c4, c5, c6, c7] = transpose_quarters(high0, high1, high2, high3);
        [c0, c1, c2, c3, c4, c5, c6, c7]
    }
}

/// Four rows of four in each half of the registers.
///
/// # Safety
/// As [`transpose`].
#[inline(always)]
unsafe fn transpose_quarters(a: __m256, b: __m256, c: __m256, d: __m256) -> [__m256; 4] {
    // SAFETY: the caller's.
    unsafe {
        let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        [
            _mm256_shuffle_ps::<0x44>(ab_low, cd_low),
            _mm256_shuffle_ps::<0xee>(ab_low, cd_low),
            _mm256_shuffle_ps::<0x44>(ab_high, cd_high),
            _mm256_shuffle_ps::<0xee>(ab_high, cd_high),
        ]
    }
}
