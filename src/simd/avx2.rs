//! The level AVX2 with fused multiply-add.

use std::arch::x86_64::*;

use super::pair::Pair;
use super::registers::{register, row_sums, transpose};
use super::{Isa, LANES, MAGIC_F32, MAGIC_F64, Vector, round_by_magic};

/// AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub struct Avx2;

register! {
    /// 8 x f32.
    F32(__m256): 8 of f32,
    _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps,
    _mm256_add_ps, _mm256_sub_ps, _mm256_mul_ps, _mm256_div_ps, _mm256_fmadd_ps, _mm256_min_ps, _mm256_max_ps, _mm256_sqrt_ps,
    ceil |x| _mm256_ceil_ps(x),
    floor |x| _mm256_floor_ps(x),
    select_positive |x, then, otherwise|
        _mm256_blendv_ps(otherwise, then, _mm256_cmp_ps::<_CMP_GT_OQ>(x, _mm256_setzero_ps())),
    round_ties_even |x| round_by_magic(MAGIC_F32, x),
    // Adds n to the exponent bits. The shift drops the higher bits of n.
    scale_by_pow2 |x, n| _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(x), _mm256_slli_epi32::<23>(_mm256_castps_si256(n)))
    ),
}

register! {
    /// 4 x f64.
    F64(__m256d): 4 of f64,
    _mm256_set1_pd, _mm256_loadu_pd, _mm256_storeu_pd,
    _mm256_add_pd, _mm256_sub_pd, _mm256_mul_pd, _mm256_div_pd, _mm256_fmadd_pd, _mm256_min_pd, _mm256_max_pd, _mm256_sqrt_pd,
    ceil |x| _mm256_ceil_pd(x),
    floor |x| _mm256_floor_pd(x),
    select_positive |x, then, otherwise|
        _mm256_blendv_pd(otherwise, then, _mm256_cmp_pd::<_CMP_GT_OQ>(x, _mm256_setzero_pd())),
    round_ties_even |x| round_by_magic(MAGIC_F64, x),
    scale_by_pow2 |x, n| _mm256_castsi256_pd(
        _mm256_add_epi64(_mm256_castpd_si256(x), _mm256_slli_epi64::<52>(_mm256_castpd_si256(n)))
    ),
}

impl Isa for Avx2 {
    const REGISTERS: usize = 16;
    type F32 = F32;
    type F64 = Pair<F64>;
    type Wide = Pair<F32>;

    #[inline(always)]
    fn widen(x: F32) -> Pair<F64> {
        // SAFETY: see the module `registers`.
        unsafe {
            Pair(
                F64(_mm256_cvtps_pd(_mm256_castps256_ps128(x.0))),
                F64(_mm256_cvtps_pd(_mm256_extractf128_ps::<1>(x.0))),
            )
        }
    }

    #[inline(always)]
    fn narrow(x: Pair<F64>) -> F32 {
        // SAFETY: see the module `registers`.
        unsafe { F32(_mm256_set_m128(_mm256_cvtpd_ps(x.1.0), _mm256_cvtpd_ps(x.0.0))) }
    }

    #[inline(always)]
    fn truncate_to_i32(x: F32) -> [i32; LANES] {
        // SAFETY: see the module `registers`; both types hold 8 x 32 bits.
        unsafe { std::mem::transmute(_mm256_cvttps_epi32(x.0)) }
    }

    #[inline(always)]
    fn split(x: Pair<F32>) -> [F32; 2] {
        [x.0, x.1]
    }

    #[inline(always)]
    fn row_sums(rows: &[F32; LANES]) -> F32 {
        let [a, b, c, d, e, f, g, h] = *rows;
        // SAFETY: see the module `registers`.
        F32(unsafe { row_sums([a.0, b.0, c.0, d.0, e.0, f.0, g.0, h.0]) })
    }

    #[inline(always)]
    fn transpose(rows: &[F32; LANES]) -> [F32; LANES] {
        let [a, b, c, d, e, f, g, h] = *rows;
        // SAFETY: see the module `registers`.
        let [a, b, c, d, e, f, g, h] = unsafe { transpose([a.0, b.0, c.0, d.0, e.0, f.0, g.0, h.0]) };
        [F32(a), F32(b), F32(c), F32(d), F32(e), F32(f), F32(g), F32(h)]
    }
}
