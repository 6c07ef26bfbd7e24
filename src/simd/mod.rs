//! SIMD vectors of fixed length.
//!
//! A kernel is written once, generic over [`Isa`], and compiled for AVX-512, for AVX2 with FMA, and portably ([`vectorize`]). The
//! level is chosen once per process ([`level()`]). Levels with and without fused multiply-add differ in the last bit.
//!
//! Invariant: code that runs with `I` = `Avx2` or `Avx512` runs on a CPU that has these instructions. The two types are private
//! to this module. Nothing outside can name them, and inside only [`dispatch`] does, after detection. Kernels are therefore safe
//! code, and the unsafe blocks of `registers`, `avx2` and `avx512` rely on this invariant alone.
//!
//! The vector types are our own: `fearless_simd` is equally fast and safe, but has no level for CPUs with AVX-512 F, VL and DQ only
//! (Skylake-SP, Cascade Lake); `pulp` has no vectors of fixed length. See benches/results/simd.md.

use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod level;
mod pair;
mod portable;
#[cfg(target_arch = "x86_64")]
mod registers;
mod squares;

pub use level::{Level, check_level, level};
pub use squares::sum_of_squares;

use portable::Portable;

/// Lanes of [`Isa::F32`] and [`Isa::F64`]: Gaussians in a SIMD block (AoSoA).
pub const LANES: usize = 8;

/// Lanes of [`Isa::Wide`].
pub const WIDE: usize = 2 * LANES;

/// A vector of [`Vector::LEN`] numbers. Operations act lane by lane.
pub trait Vector:
    Copy
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
{
    /// `f32` or `f64`.
    type Scalar: Copy + Default;
    /// Number of lanes, at most [`WIDE`].
    const LEN: usize;
    /// `value` in every lane.
    fn splat(value: Self::Scalar) -> Self;
    /// Loads the first values of a slice.
    ///
    /// # Panics
    /// If it has fewer than [`Vector::LEN`].
    fn load(slice: &[Self::Scalar]) -> Self;
    /// Stores to the first places of a slice.
    ///
    /// # Panics
    /// If it has fewer than [`Vector::LEN`].
    fn store(self, slice: &mut [Self::Scalar]);
    /// `self * a + b`, fused where the level has the instruction.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// Minimum.
    fn min(self, other: Self) -> Self;
    /// Maximum.
    fn max(self, other: Self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Rounds up.
    fn ceil(self) -> Self;
    /// Rounds down.
    fn floor(self) -> Self;
    /// `then` where `self > 0`, else `otherwise`.
    fn select_positive(self, then: Self, otherwise: Self) -> Self;
    /// Rounds to the nearest integer, ties to even. Returns the integers n, and n in the form that [`Vector::scale_by_pow2`] takes.
    fn round_ties_even(self) -> (Self, Self);
    /// `self * 2^n`, with n from [`Vector::round_ties_even`].
    fn scale_by_pow2(self, n: Self) -> Self;

    /// Absolute value.
    #[inline(always)]
    fn abs(self) -> Self {
        self.max(-self)
    }

    /// `2^x`, relative error below 2e-7. Arguments are clamped to -125..127.
    #[inline(always)]
    fn exp2(self) -> Self
    where
        Self: Vector<Scalar = f32>,
    {
        let x = self.max(Self::splat(-125.0)).min(Self::splat(127.0));
        let (n, power) = x.round_ties_even();
        // Minimax polynomial on [-1/2, 1/2], relative error 1.9e-9. Estrin's scheme shortens the chain of dependent operations.
        let r = x - n;
        let r2 = r * r;
        let low = r.mul_add(Self::splat(6.931_472e-1), Self::splat(1.0));
        let middle = r.mul_add(Self::splat(5.550_328_8e-2), Self::splat(2.402_264_7e-1));
        let high = r.mul_add(Self::splat(1.339_993_1e-3), Self::splat(9.618_489e-3));
        let high = r2.mul_add(Self::splat(1.534_581_2e-4), high);
        (r2 * r2).mul_add(high, r2.mul_add(middle, low)).scale_by_pow2(power)
    }

    /// The lanes of a vector of [`LANES`].
    #[cfg(test)]
    #[inline(always)]
    fn to_array(self) -> [Self::Scalar; LANES] {
        const { assert!(Self::LEN == LANES) };
        let mut values = [Self::Scalar::default(); LANES];
        self.store(&mut values);
        values
    }

    /// Loads from place `at` of a slice; lanes past its end are `fill`.
    #[inline(always)]
    fn load_padded(slice: &[Self::Scalar], at: usize, fill: Self::Scalar) -> Self {
        let rest = &slice[at..];
        if rest.len() >= Self::LEN {
            return Self::load(rest);
        }
        let mut values = [fill; WIDE];
        values.iter_mut().zip(rest).for_each(|(lane, &value)| *lane = value);
        Self::load(&values)
    }

    /// Stores from place `at` of a slice on; lanes past its end are dropped.
    #[inline(always)]
    fn store_partial(self, slice: &mut [Self::Scalar], at: usize) {
        let rest = &mut slice[at..];
        if rest.len() >= Self::LEN {
            self.store(rest);
        } else {
            let mut values = [Self::Scalar::default(); WIDE];
            self.store(&mut values);
            rest.iter_mut().zip(values).for_each(|(place, value)| *place = value);
        }
    }
}

/// The vector types of a SIMD level.
pub trait Isa: Copy {
    /// [`LANES`] numbers in single precision.
    type F32: Vector<Scalar = f32>;
    /// [`LANES`] numbers in double precision.
    type F64: Vector<Scalar = f64>;
    /// [`WIDE`] numbers in single precision.
    type Wide: Vector<Scalar = f32>;
    /// Number of vector registers.
    const REGISTERS: usize;
    /// Single to double precision.
    fn widen(x: Self::F32) -> Self::F64;
    /// Double to single precision.
    fn narrow(x: Self::F64) -> Self::F32;
    /// Rounds towards zero.
    fn truncate_to_i32(x: Self::F32) -> [i32; LANES];
    /// The first and the last [`LANES`] lanes.
    fn split(x: Self::Wide) -> [Self::F32; 2];
    /// Lane i is the sum of the lanes of row i, added in a fixed order.
    fn row_sums(rows: &[Self::F32; LANES]) -> Self::F32;
    /// Transposes an 8 x 8 matrix.
    fn transpose(rows: &[Self::F32; LANES]) -> [Self::F32; LANES];
}

/// Adding and subtracting 1.5 * 2^(mantissa bits) rounds to the nearest integer, and leaves it in the low bits of the sum.
const MAGIC_F32: f32 = 12_582_912.0;
const MAGIC_F64: f64 = 6_755_399_441_055_744.0;

/// [`Vector::round_ties_even`] for levels that scale by adding to the exponent bits: n, and n + `magic`.
#[inline(always)]
fn round_by_magic<V: Vector>(magic: V::Scalar, x: V) -> (V, V) {
    let shifted = x + V::splat(magic);
    (shifted - V::splat(magic), shifted)
}

/// `e^x`, relative error below 2e-15. Arguments are clamped to -700..700.
#[inline(always)]
pub fn exp_f64<V: Vector<Scalar = f64>>(x: V) -> V {
    let x = x.max(V::splat(-700.0)).min(V::splat(700.0));
    let (n, power) = (x * V::splat(std::f64::consts::LOG2_E)).round_ties_even();
    // ln 2 in two parts keeps the low bits of r (Cody and Waite).
    let r = n.mul_add(V::splat(-6.931_471_803_691_238e-1), x);
    let r = n.mul_add(V::splat(-1.908_214_929_270_587_7e-10), r);
    // Taylor to r^13 on |r| <= ln(2)/2: the next term is below 5e-18.
    let mut p = V::splat(1.0 / 6_227_020_800.0);
    for c in [
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = p.mul_add(r, V::splat(c));
    }
    p.scale_by_pow2(power)
}

/// `(softplus(x), sigmoid(x))` in f64, relative error below 1e-14, also where softplus is tiny.
#[inline(always)]
pub fn softplus_sigmoid<V: Vector<Scalar = f64>>(x: V) -> (V, V) {
    let one = V::splat(1.0);
    // u = exp(-|x|) in (0, 1]; softplus = max(x, 0) + ln(1 + u).
    let u = exp_f64(-x.abs());
    // Both quotients below share one division.
    let (one_plus_u, two_plus_u) = (u + one, u + V::splat(2.0));
    let quotient = u / (one_plus_u * two_plus_u);
    // ln(1 + u) = 2 atanh(z), z = u / (2 + u) in (0, 1/3]: no cancellation however small u is.
    let z = quotient * one_plus_u;
    let z2 = z * z;
    let mut p = V::splat(1.0 / 29.0);
    for k in (0..14).rev() {
        p = p.mul_add(z2, V::splat(1.0 / f64::from(2 * k + 1)));
    }
    let softplus = x.max(V::splat(0.0)) + V::splat(2.0) * z * p;
    // sigmoid(-|x|) = u / (1 + u); for positive x its complement.
    let small = quotient * two_plus_u;
    (softplus, x.select_positive(one - small, small))
}

/// A computation written once for all SIMD levels. [`vectorize`] implements it.
pub trait Kernel {
    type Output;
    /// Must be `#[inline(always)]`, as must all generic functions that it calls: others are compiled without the instructions of `I`.
    fn run<I: Isa>(self) -> Self::Output;
}

/// Runs a kernel at the level of this process.
#[inline]
pub fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    match level() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `level` returns only levels that the CPU supports.
        Level::Avx512 => unsafe { run_avx512(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 => unsafe { run_avx2(kernel) },
        _ => kernel.run::<Portable>(),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx2,fma")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<avx512::Avx512>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<avx2::Avx2>()
}

/// Runs a kernel at every level that the CPU supports, the portable one first.
#[cfg(test)]
pub fn at_every_level<K: Kernel + Copy>(kernel: K) -> Vec<K::Output> {
    let mut outputs = vec![kernel.run::<Portable>()];
    #[cfg(target_arch = "x86_64")]
    if level::supported(Level::Avx2) {
        // SAFETY: the CPU supports the level.
        outputs.push(unsafe { run_avx2(kernel) });
    }
    #[cfg(target_arch = "x86_64")]
    if level::supported(Level::Avx512) {
        // SAFETY: as above.
        outputs.push(unsafe { run_avx512(kernel) });
    }
    outputs
}

/// Defines the function `$name`, which runs `$body::<I>` by [`dispatch`].
macro_rules! vectorize {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $type),*) $(-> $ret)? {
            struct Arguments<T>(T);
            #[allow(unused_parens)]
            impl $crate::simd::Kernel for Arguments<($($type,)*)> {
                type Output = ($($ret)?);
                #[inline(always)]
                fn run<I: $crate::simd::Isa>(self) -> Self::Output {
                    let Arguments(($($arg,)*)) = self;
                    $body::<I>($($arg),*)
                }
            }
            $crate::simd::dispatch(Arguments(($($arg,)*)))
        }
    };
}
pub(crate) use vectorize;

#[cfg(test)]
mod tests {
    use super::*;

    /// Every function at `x` against the standard library.
    #[inline(always)]
    fn check<I: Isa>(x: f64) {
        let relative = |got: f64, want: f64| ((got - want) / want).abs();
        let f = x as f32;
        if (-125.0..127.0).contains(&x) {
            let got = I::F32::splat(f).exp2().to_array()[3];
            assert!(relative(f64::from(got), f64::from(f).exp2()) < 2e-7, "exp2({f})");
        }
        let (softplus, sigmoid) = softplus_sigmoid(I::F64::splat(x));
        assert!(
            relative(softplus.to_array()[5], x.max(0.0) + (-x.abs()).exp().ln_1p()) < 1e-14,
            "softplus({x})"
        );
        assert!(relative(sigmoid.to_array()[5], 1.0 / (1.0 + (-x).exp())) < 1e-14, "sigmoid({x})");
        assert!(relative(exp_f64(I::F64::splat(x)).to_array()[0], x.exp()) < 2e-15, "exp({x})");
    }

    #[inline(always)]
    fn check_operations<I: Isa>(a: [f64; LANES], b: [f64; LANES]) {
        let (x, y) = (I::F64::load(&a), I::F64::load(&b));
        let (p, q) = (I::narrow(x), I::narrow(y));
        let same = |got: I::F64, single: I::F32, want: fn(f64, f64) -> f64| {
            for lane in 0..LANES {
                let want = want(a[lane], b[lane]);
                assert_eq!(got.to_array()[lane], want);
                // All values are small multiples of a power of two: exact in f32, except for quotients and roots.
                assert!((f64::from(single.to_array()[lane]) - want).abs() <= 1e-7 * want.abs());
            }
        };
        same(x + y, p + q, |a, b| a + b);
        same(x - y, p - q, |a, b| a - b);
        same(x * y, p * q, |a, b| a * b);
        same(x / y, p / q, |a, b| a / b);
        same(-x, -p, |a, _| -a);
        same(x.min(y), p.min(q), f64::min);
        same(x.max(y), p.max(q), f64::max);
        same(x.abs(), p.abs(), |a, _| a.abs());
        same(x.abs().sqrt(), p.abs().sqrt(), |a, _| a.abs().sqrt());
        same(x.ceil(), p.ceil(), |a, _| a.ceil());
        same(x.floor(), p.floor(), |a, _| a.floor());
        same(x.mul_add(y, x), p.mul_add(q, p), |a, b| a * b + a);
        same(x.select_positive(y, -y), p.select_positive(q, -q), |a, b| if a > 0.0 { b } else { -b });
        same(I::widen(p), I::narrow(I::widen(p)), |a, _| a);
        let rows = std::array::from_fn(|row| p * I::F32::splat(row as f32));
        for (column, row) in I::transpose(&rows).into_iter().map(Vector::to_array).zip(a) {
            assert!((0..LANES).all(|k| f64::from(column[k]) == row * k as f64));
        }
        for (row, got) in I::row_sums(&rows).to_array().into_iter().enumerate() {
            assert_eq!(f64::from(got), a.iter().sum::<f64>() * row as f64);
        }
        assert_eq!(I::truncate_to_i32(p), a.map(|a| a as i32));
        let mut twice = [0.0f32; WIDE];
        p.store(&mut twice);
        q.store(&mut twice[LANES..]);
        let both = I::Wide::load(&twice);
        let halves = I::split(both * both + both).map(Vector::to_array);
        assert_eq!(halves, [p * p + p, q * q + q].map(Vector::to_array));
        let halves = I::split(both.exp2()).map(Vector::to_array);
        assert_eq!(halves, [p.exp2(), q.exp2()].map(Vector::to_array));
        let mut stored = [9.0f32; 11];
        p.store_partial(&mut stored, 7);
        assert!(stored[..7] == [9.0; 7] && (0..4).all(|k| f64::from(stored[7 + k]) == a[k]));
        let padded = I::F32::load_padded(&stored, 7, 5.0).to_array();
        assert!((0..4).all(|k| f64::from(padded[k]) == a[k]) && padded[4..] == [5.0; 4]);
    }

    #[inline(always)]
    fn check_all<I: Isa>() {
        for i in -2000..=2000 {
            check::<I>(f64::from(i) * 0.0432 + 1e-3);
        }
        check_operations::<I>(
            [0.0, -1.5, 2.25, -3.0, 0.5, 7.75, -8.0, 1.0],
            [1.0, -2.5, 3.0, 4.5, -0.25, 6.0, 8.0, -0.5],
        );
    }

    #[test]
    fn functions_agree_with_the_standard_library_at_every_level() {
        #[derive(Clone, Copy)]
        struct CheckAll;
        impl Kernel for CheckAll {
            type Output = ();
            #[inline(always)]
            fn run<I: Isa>(self) {
                check_all::<I>();
            }
        }
        at_every_level(CheckAll);
    }
}
