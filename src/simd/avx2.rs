//! Vectors in the registers of AVX2, with fused multiply-add.
//!
//! The operators are safe to write, and are sound only in code compiled for AVX2 and FMA. So the types have no
//! constructor outside this crate's vectorised bodies, which `vectorize!` enters after asking the processor.

use std::arch::x86_64::*;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use super::{Isa, LANES, Vector};

/// AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub struct Avx2;

/// Eight numbers in single precision.
#[derive(Clone, Copy, Debug)]
pub struct F32(__m256);

/// Eight numbers in double precision: lanes 0 to 3 and 4 to 7.
#[derive(Clone, Copy, Debug)]
pub struct F64(__m256d, __m256d);

macro_rules! binary {
    ($trait:ident, $method:ident, $single:ident, $double:ident) => {
        impl $trait for F32 {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: see the module: this code runs only where AVX2 and FMA are there.
                Self(unsafe { $single(self.0, other.0) })
            }
        }
        impl $trait for F64 {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: as above.
                unsafe { Self($double(self.0, other.0), $double(self.1, other.1)) }
            }
        }
    };
}

binary!(Add, add, _mm256_add_ps, _mm256_add_pd);
binary!(Sub, sub, _mm256_sub_ps, _mm256_sub_pd);
binary!(Mul, mul, _mm256_mul_ps, _mm256_mul_pd);
binary!(Div, div, _mm256_div_ps, _mm256_div_pd);

macro_rules! common {
    ($type:ident) => {
        impl Neg for $type {
            type Output = Self;
            #[inline(always)]
            fn neg(self) -> Self {
                // Exact, and right for zeros too: -0.0 - 0.0 is -0.0.
                Self::splat(-0.0) - self
            }
        }
        impl AddAssign for $type {
            #[inline(always)]
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }
    };
}

common!(F32);
common!(F64);

impl Vector for F32 {
    type Scalar = f32;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_set1_ps(value) })
    }

    #[inline(always)]
    fn from_array(values: &[f32; LANES]) -> Self {
        // SAFETY: see the module; the array holds the eight values that are read.
        Self(unsafe { _mm256_loadu_ps(values.as_ptr()) })
    }

    #[inline(always)]
    fn to_places(self, places: &mut [f32; LANES]) {
        // SAFETY: see the module; the array has room for the eight values that are written.
        unsafe { _mm256_storeu_ps(places.as_mut_ptr(), self.0) };
    }

    #[inline(always)]
    fn times_plus(self, a: Self, b: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_fmadd_ps(self.0, a.0, b.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_sqrt_ps(self.0) })
    }

    #[inline(always)]
    fn ceil(self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_ceil_ps(self.0) })
    }

    #[inline(always)]
    fn floor(self) -> Self {
        // SAFETY: see the module.
        Self(unsafe { _mm256_floor_ps(self.0) })
    }

    #[inline(always)]
    fn positive(self, then: Self, otherwise: Self) -> Self {
        // SAFETY: see the module.
        unsafe {
            let above = _mm256_cmp_ps::<_CMP_GT_OQ>(self.0, _mm256_setzero_ps());
            Self(_mm256_blendv_ps(otherwise.0, then.0, above))
        }
    }

    #[inline(always)]
    fn times_power_of_two(self, shifted: Self) -> Self {
        // Adding to the exponent's bits multiplies; what lies above them in `shifted` falls off.
        // SAFETY: see the module.
        unsafe {
            let n = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted.0));
            Self(_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(self.0), n)))
        }
    }
}

impl Vector for F64 {
    type Scalar = f64;

    #[inline(always)]
    fn splat(value: f64) -> Self {
        // SAFETY: see the module.
        unsafe { Self(_mm256_set1_pd(value), _mm256_set1_pd(value)) }
    }

    #[inline(always)]
    fn from_array(values: &[f64; LANES]) -> Self {
        // SAFETY: see the module; the array holds the two times four values that are read.
        unsafe { Self(_mm256_loadu_pd(values.as_ptr()), _mm256_loadu_pd(values.as_ptr().add(4))) }
    }

    #[inline(always)]
    fn to_places(self, places: &mut [f64; LANES]) {
        // SAFETY: see the module; the array has room for the two times four values that are written.
        unsafe {
            _mm256_storeu_pd(places.as_mut_ptr(), self.0);
            _mm256_storeu_pd(places.as_mut_ptr().add(4), self.1);
        }
    }

    #[inline(always)]
    fn times_plus(self, a: Self, b: Self) -> Self {
        // SAFETY: see the module.
        unsafe { Self(_mm256_fmadd_pd(self.0, a.0, b.0), _mm256_fmadd_pd(self.1, a.1, b.1)) }
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: see the module.
        unsafe { Self(_mm256_min_pd(self.0, other.0), _mm256_min_pd(self.1, other.1)) }
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: see the module.
        unsafe { Self(_mm256_max_pd(self.0, other.0), _mm256_max_pd(self.1, other.1)) }
    }

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: see the module.
        unsafe {
            let sign = _mm256_set1_pd(-0.0);
            Self(_mm256_andnot_pd(sign, self.0), _mm256_andnot_pd(sign, self.1))
        }
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: see the module.
        unsafe { Self(_mm256_sqrt_pd(self.0), _mm256_sqrt_pd(self.1)) }
    }

    #[inline(always)]
    fn ceil(self) -> Self {
        // SAFETY: see the module.
        unsafe { Self(_mm256_ceil_pd(self.0), _mm256_ceil_pd(self.1)) }
    }

    #[inline(always)]
    fn floor(self) -> Self {
        // SAFETY: see the module.
        unsafe { Self(_mm256_floor_pd(self.0), _mm256_floor_pd(self.1)) }
    }

    #[inline(always)]
    fn positive(self, then: Self, otherwise: Self) -> Self {
        // SAFETY: see the module.
        unsafe {
            let zero = _mm256_setzero_pd();
            let low = _mm256_cmp_pd::<_CMP_GT_OQ>(self.0, zero);
            let high = _mm256_cmp_pd::<_CMP_GT_OQ>(self.1, zero);
            Self(_mm256_blendv_pd(otherwise.0, then.0, low), _mm256_blendv_pd(otherwise.1, then.1, high))
        }
    }

    #[inline(always)]
    fn times_power_of_two(self, shifted: Self) -> Self {
        #[inline(always)]
        fn half(value: __m256d, shifted: __m256d) -> __m256d {
            // SAFETY: see the module.
            unsafe {
                let n = _mm256_slli_epi64::<52>(_mm256_castpd_si256(shifted));
                _mm256_castsi256_pd(_mm256_add_epi64(_mm256_castpd_si256(value), n))
            }
        }
        Self(half(self.0, shifted.0), half(self.1, shifted.1))
    }
}

impl Isa for Avx2 {
    type F32 = F32;
    type F64 = F64;

    #[inline(always)]
    fn widen(x: F32) -> F64 {
        // SAFETY: see the module.
        unsafe {
            F64(
                _mm256_cvtps_pd(_mm256_castps256_ps128(x.0)),
                _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(x.0)),
            )
        }
    }

    #[inline(always)]
    fn narrow(x: F64) -> F32 {
        // SAFETY: see the module.
        unsafe { F32(_mm256_set_m128(_mm256_cvtpd_ps(x.1), _mm256_cvtpd_ps(x.0))) }
    }

    #[inline(always)]
    fn sums(rows: [F32; LANES]) -> F32 {
        // SAFETY: see the module.
        unsafe {
            let [F32(a), F32(b), F32(c), F32(d), F32(e), F32(f), F32(g), F32(h)] = rows;
            let low = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
            let high = _mm256_hadd_ps(_mm256_hadd_ps(e, f), _mm256_hadd_ps(g, h));
            // Each half register now holds the sums of four lanes; the other four lie in the other half.
            let first = _mm256_permute2f128_ps::<0x20>(low, high);
            let second = _mm256_permute2f128_ps::<0x31>(low, high);
            F32(_mm256_add_ps(first, second))
        }
    }
}
