//! The level AVX-512.

use std::arch::x86_64::*;

use super::registers::{register, row_sums, transpose};
use super::{Isa, LANES, Vector};

/// AVX-512 F, VL and DQ.
#[derive(Clone, Copy, Debug)]
pub struct Avx512;

/// Rounding modes of `roundscale`.
const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
const DOWN: i32 = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
const UP: i32 = _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC;

/// [`Vector::round_ties_even`] for `scalef`, which takes n itself.
#[inline(always)]
fn duplicate<V: Copy>(n: V) -> (V, V) {
    (n, n)
}

register! {
    /// 8 x f32.
    F32(__m256): 8 of f32,
    _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps,
    _mm256_add_ps, _mm256_sub_ps, _mm256_mul_ps, _mm256_div_ps, _mm256_fmadd_ps, _mm256_min_ps, _mm256_max_ps, _mm256_sqrt_ps,
    ceil |x| _mm256_ceil_ps(x),
    floor |x| _mm256_floor_ps(x),
    select_positive |x, then, otherwise|
        _mm256_mask_blend_ps(_mm256_cmp_ps_mask::<_CMP_GT_OQ>(x, _mm256_setzero_ps()), otherwise, then),
    round_ties_even |x| duplicate(Self(_mm256_roundscale_ps::<NEAREST>(x.0))),
    scale_by_pow2 |x, n| _mm256_scalef_ps(x, n),
}

register! {
    /// 16 x f32.
    Wide(__m512): 16 of f32,
    _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps,
    _mm512_add_ps, _mm512_sub_ps, _mm512_mul_ps, _mm512_div_ps, _mm512_fmadd_ps, _mm512_min_ps, _mm512_max_ps, _mm512_sqrt_ps,
    ceil |x| _mm512_roundscale_ps::<UP>(x),
    floor |x| _mm512_roundscale_ps::<DOWN>(x),
    select_positive |x, then, otherwise|
        _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, _mm512_setzero_ps()), otherwise, then),
    round_ties_even |x| duplicate(Self(_mm512_roundscale_ps::<NEAREST>(x.0))),
    scale_by_pow2 |x, n| _mm512_scalef_ps(x, n),
}

register! {
    /// 8 x f64.
    F64(__m512d): 8 of f64,
    _mm512_set1_pd, _mm512_loadu_pd, _mm512_storeu_pd,
    _mm512_add_pd, _mm512_sub_pd, _mm512_mul_pd, _mm512_div_pd, _mm512_fmadd_pd, _mm512_min_pd, _mm512_max_pd, _mm512_sqrt_pd,
    ceil |x| _mm512_roundscale_pd::<UP>(x),
    floor |x| _mm512_roundscale_pd::<DOWN>(x),
    select_positive |x, then, otherwise|
        _mm512_mask_blend_pd(_mm512_cmp_pd_mask::<_CMP_GT_OQ>(x, _mm512_setzero_pd()), otherwise, then),
    round_ties_even |x| duplicate(Self(_mm512_roundscale_pd::<NEAREST>(x.0))),
    scale_by_pow2 |x, n| _mm512_scalef_pd(x, n),
}

impl Isa for Avx512 {
    const REGISTERS: usize = 32;
    type F32 = F32;
    type F64 = F64;
    type Wide = Wide;

    #[inline(always)]
    fn widen(x: F32) -> F64 {
        // SAFETY: see the module `registers`.
        F64(unsafe { _mm512_cvtps_pd(x.0) })
    }

    #[inline(always)]
    fn narrow(x: F64) -> F32 {
        // SAFETY: see the module `registers`.
        F32(unsafe { _mm512_cvtpd_ps(x.0) })
    }

    #[inline(always)]
    fn truncate_to_i32(x: F32) -> [i32; LANES] {
        // SAFETY: see the module `registers`; both types hold 8 x 32 bits.
        unsafe { std::mem::transmute(_mm256_cvttps_epi32(x.0)) }
    }

    #[inline(always)]
    fn split(x: Wide) -> [F32; 2] {
        // SAFETY: see the module `registers`.
        unsafe { [F32(_mm512_castps512_ps256(x.0)), F32(_mm512_extractf32x8_ps::<1>(x.0))] }
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
