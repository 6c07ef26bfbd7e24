//! Vector types of AVX2 and AVX-512.
//!
//! Safety of every intrinsic below: the CPU has the instructions, because only [`super::dispatch`] names the two levels (the
//! invariant of the module [`super`]).

use std::arch::x86_64::*;

use super::LANES;

/// Implements [`super::Vector`] for one register.
macro_rules! register {
    (
        $(#[$doc:meta])*
        $name:ident($raw:ident): $count:literal of $scalar:ident,
        $splat:ident, $load:ident, $store:ident,
        $add:ident, $sub:ident, $mul:ident, $div:ident, $mul_add:ident, $min:ident, $max:ident, $sqrt:ident,
        ceil |$c:ident| $ceil:expr,
        floor |$f:ident| $floor:expr,
        select_positive |$p:ident, $then:ident, $otherwise:ident| $select_positive:expr,
        round_ties_even |$r:ident| $round_ties_even:expr,
        scale_by_pow2 |$v:ident, $n:ident| $power:expr $(,)?
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name(pub(super) $raw);

        $crate::simd::registers::operators!($name: Add add $add, Sub sub $sub, Mul mul $mul, Div div $div);

        impl std::ops::Neg for $name {
            type Output = Self;
            #[inline(always)]
            fn neg(self) -> Self {
                // Exact, also for zeros: -0.0 - 0.0 is -0.0.
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
            const LEN: usize = $count;

            #[inline(always)]
            fn splat(value: $scalar) -> Self {
                // SAFETY: see the module.
                Self(unsafe { $splat(value) })
            }

            #[inline(always)]
            fn load(slice: &[$scalar]) -> Self {
                let values: &[$scalar; $count] = slice.first_chunk().expect("a slice of at least one vector");
                // SAFETY: see the module; the array holds the values that are read.
                Self(unsafe { $load(values.as_ptr()) })
            }

            #[inline(always)]
            fn store(self, slice: &mut [$scalar]) {
                let places: &mut [$scalar; $count] = slice.first_chunk_mut().expect("a slice of at least one vector");
                // SAFETY: see the module; the array has room for the values that are written.
                unsafe { $store(places.as_mut_ptr(), self.0) };
            }

            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self {
                // SAFETY: see the module.
                Self(unsafe { $mul_add(self.0, a.0, b.0) })
            }

            #[inline(always)]
            fn min(self, other: Self) -> Self {
                // SAFETY: see the module.
                Self(unsafe { $min(self.0, other.0) })
            }

            #[inline(always)]
            fn max(self, other: Self) -> Self {
                // SAFETY: see the module.
                Self(unsafe { $max(self.0, other.0) })
            }

            #[inline(always)]
            fn sqrt(self) -> Self {
                // SAFETY: see the module.
                Self(unsafe { $sqrt(self.0) })
            }

            #[inline(always)]
            fn ceil(self) -> Self {
                let $c = self.0;
                // SAFETY: see the module.
                Self(unsafe { $ceil })
            }

            #[inline(always)]
            fn floor(self) -> Self {
                let $f = self.0;
                // SAFETY: see the module.
                Self(unsafe { $floor })
            }

            #[inline(always)]
            fn select_positive(self, then: Self, otherwise: Self) -> Self {
                let ($p, $then, $otherwise) = (self.0, then.0, otherwise.0);
                // SAFETY: see the module.
                Self(unsafe { $select_positive })
            }

            #[inline(always)]
            fn round_ties_even(self) -> (Self, Self) {
                let $r = self;
                // SAFETY: see the module.
                #[allow(unused_unsafe)]
                unsafe {
                    $round_ties_even
                }
            }

            #[inline(always)]
            fn scale_by_pow2(self, n: Self) -> Self {
                let ($v, $n) = (self.0, n.0);
                // SAFETY: see the module.
                Self(unsafe { $power })
            }
        }
    };
}

/// Implements binary operators.
macro_rules! operators {
    ($name:ident: $($trait:ident $method:ident $instruction:ident),*) => {$(
        impl std::ops::$trait for $name {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: see the module.
                Self(unsafe { $instruction(self.0, other.0) })
            }
        }
    )*};
}

pub(super) use {operators, register};

/// Sums of the lanes of eight vectors.
///
/// # Safety
/// The CPU must have AVX.
#[inline(always)]
pub(super) unsafe fn row_sums(rows: [__m256; LANES]) -> __m256 {
    let [a, b, c, d, e, f, g, h] = rows;
    // SAFETY: the caller guarantees AVX.
    unsafe {
        let low = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
        let high = _mm256_hadd_ps(_mm256_hadd_ps(e, f), _mm256_hadd_ps(g, h));
        // Each 128-bit half holds the sums of four lanes; the sums of the other four are in the other half.
        let first = _mm256_permute2f128_ps::<0x20>(low, high);
        let second = _mm256_permute2f128_ps::<0x31>(low, high);
        _mm256_add_ps(first, second)
    }
}

/// Transposes an 8 x 8 matrix.
///
/// # Safety
/// The CPU must have AVX.
#[inline(always)]
pub(super) unsafe fn transpose(rows: [__m256; LANES]) -> [__m256; LANES] {
    let [a, b, c, d, e, f, g, h] = rows;
    // SAFETY: the caller guarantees AVX.
    unsafe {
        // Exchange the halves of rows i and i + 4, then transpose the 4 x 4 blocks within the halves.
        let [low0, high0] = [_mm256_permute2f128_ps::<0x20>(a, e), _mm256_permute2f128_ps::<0x31>(a, e)];
        let [low1, high1] = [_mm256_permute2f128_ps::<0x20>(b, f), _mm256_permute2f128_ps::<0x31>(b, f)];
        let [low2, high2] = [_mm256_permute2f128_ps::<0x20>(c, g), _mm256_permute2f128_ps::<0x31>(c, g)];
        let [low3, high3] = [_mm256_permute2f128_ps::<0x20>(d, h), _mm256_permute2f128_ps::<0x31>(d, h)];
        let [c0, c1, c2, c3] = transpose_blocks(low0, low1, low2, low3);
        let [c4, c5, c6, c7] = transpose_blocks(high0, high1, high2, high3);
        [c0, c1, c2, c3, c4, c5, c6, c7]
    }
}

/// Transposes a 4 x 4 block in each half of the registers.
///
/// # Safety
/// As [`transpose`].
#[inline(always)]
unsafe fn transpose_blocks(a: __m256, b: __m256, c: __m256, d: __m256) -> [__m256; 4] {
    // SAFETY: the caller guarantees AVX.
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
