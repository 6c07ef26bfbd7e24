//! Vectors of numbers.
//!
//! An inner loop is written once, generic over an [`Isa`], and [`vectorize`] compiles it for each set of instructions: AVX-512,
//! AVX2 with FMA, and portably. Which one runs is decided when it is called ([`level()`]). They round differently in the last
//! bit; one machine always takes the same.

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

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
#[cfg(test)]
pub use level::supported;
pub use level::{Level, check_level, level};
pub use pair::Pair;
pub use portable::Portable;
pub use squares::sum_of_squares;

/// Numbers in the vectors [`Isa::F32`] and [`Isa::F64`].
pub const LANES: usize = 8;

/// Numbers in the vector [`Isa::Wide`].
pub const WIDE: usize = 2 * LANES;

/// Numbers that move together.
pub trait Vector:
    Copy
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
{
    /// One of the numbers.
    type Scalar: Copy + Default;
    /// How many there are, at most [`WIDE`].
    const COUNT: usize;
    /// The same value everywhere.
    fn splat(value: Self::Scalar) -> Self;
    /// The first values of a slice.
    ///
    /// # Panics
    /// If it is shorter.
    fn load(slice: &[Self::Scalar]) -> Self;
    /// Into the first places of a slice.
    ///
    /// # Panics
    /// If it is shorter.
    fn store(self, slice: &mut [Self::Scalar]);
    /// `self * a + b`, in one rounding where the processor can.
    fn times_plus(self, a: Self, b: Self) -> Self;
    /// The smaller of each pair.
    fn min(self, other: Self) -> Self;
    /// The larger of each pair.
    fn max(self, other: Self) -> Self;
    /// Square roots.
    fn sqrt(self) -> Self;
    /// Rounded up.
    fn ceil(self) -> Self;
    /// Rounded down.
    fn floor(self) -> Self;
    /// `then` where `self` is above zero, else `otherwise`.
    fn positive(self, then: Self, otherwise: Self) -> Self;
    /// The nearest integers, and the same in the form in which [`Vector::times_power_of_two`] takes them.
    fn nearest(self) -> (Self, Self);
    /// `self * 2^n`, with `n` as [`Vector::nearest`] gives it.
    fn times_power_of_two(self, n: Self) -> Self;

    /// Absolute values.
    #[inline(always)]
    fn abs(self) -> Self {
        self.max(-self)
    }

    /// `2^x`, relative error below 2e-7. Arguments below -125 count as -125, and those above 127 as 127.
    #[inline(always)]
    fn exp2(self) -> Self
    where
        Self: Vector<Scalar = f32>,
    {
        let x = self.max(Self::splat(-125.0)).min(Self::splat(127.0));
        let (n, power) = x.nearest();
        // The polynomial of smallest relative error on [-1/2, 1/2], 1.9e-9.
        // Summed in pairs, which waits less than one power after the other (Estrin).
        let r = x - n;
        let r2 = r * r;
        let low = r.times_plus(Self::splat(6.931_472e-1), Self::splat(1.0));
        let middle = r.times_plus(Self::splat(5.550_328_8e-2), Self::splat(2.402_264_7e-1));
        let high = r.times_plus(Self::splat(1.339_993_1e-3), Self::splat(9.618_489e-3));
        let high = r2.times_plus(Self::splat(1.534_581_2e-4), high);
        (r2 * r2).times_plus(high, r2.times_plus(middle, low)).times_power_of_two(power)
    }

    /// The values of a vector of [`LANES`].
    #[cfg(test)]
    #[inline(always)]
    fn to_array(self) -> [Self::Scalar; LANES] {
        const { assert!(Self::COUNT == LANES) };
        let mut values = [Self::Scalar::default(); LANES];
        self.store(&mut values);
        values
    }

    /// The values of a slice from `at`; past its end `fill`.
    #[inline(always)]
    fn load_padded(slice: &[Self::Scalar], at: usize, fill: Self::Scalar) -> Self {
        let rest = &slice[at..];
        if rest.len() >= Self::COUNT {
            return Self::load(rest);
        }
        let mut values = [fill; WIDE];
        values.iter_mut().zip(rest).for_each(|(lane, &value)| *lane = value);
        Self::load(&values)
    }

    /// Into a slice from `at`, as far as it goes.
    #[inline(always)]
    fn store_cut(self, slice: &mut [Self::Scalar], at: usize) {
        let rest = &mut slice[at..];
        if rest.len() >= Self::COUNT {
            self.store(rest);
        } else {
            let mut values = [Self::Scalar::default(); WIDE];
            self.store(&mut values);
            rest.iter_mut().zip(values).for_each(|(place, value)| *place = value);
        }
    }
}

/// A set of vector instructions.
pub trait Isa: Copy {
    /// Eight numbers in single precision.
    type F32: Vector<Scalar = f32>;
    /// Eight numbers in double precision.
    type F64: Vector<Scalar = f64>;
    /// Sixteen numbers in single precision.
    type Wide: Vector<Scalar = f32>;
    /// Registers that hold vectors.
    const REGISTERS: usize;
    /// Single precision to double.
    fn widen(x: Self::F32) -> Self::F64;
    /// Double precision to single.
    fn narrow(x: Self::F64) -> Self::F32;
    /// The integers between zero and each number.
    fn integers(x: Self::F32) -> [i32; LANES];
    /// The first and the last eight of sixteen numbers.
    fn halves(x: Self::Wide) -> [Self::F32; 2];
    /// The sum of each of eight vectors, in a fixed order.
    fn sums(rows: &[Self::F32; LANES]) -> Self::F32;
    /// Eight vectors, the first of the first numbers of each.
    fn transpose(rows: &[Self::F32; LANES]) -> [Self::F32; LANES];
}

/// What leaves the nearest integer in the low bits of a sum: 1.5 times 2 to the mantissa's bits.
const MAGIC_F32: f32 = 12_582_912.0;
const MAGIC_F64: f64 = 6_755_399_441_055_744.0;

/// [`Vector::nearest`] where 2^n is multiplied by in the exponent's bits: n as it is, and behind `magic`.
#[inline(always)]
fn nearest_behind<V: Vector>(magic: V::Scalar, x: V) -> (V, V) {
    let shifted = x + V::splat(magic);
    (shifted - V::splat(magic), shifted)
}

/// `e^x`, relative error below 2e-15. Arguments below -700 count as -700, and those above 700 as 700.
#[inline(always)]
pub fn exp_f64<V: Vector<Scalar = f64>>(x: V) -> V {
    let x = x.max(V::splat(-700.0)).min(V::splat(700.0));
    let (n, power) = (x * V::splat(std::f64::consts::LOG2_E)).nearest();
    // ln 2 in two parts, so that r keeps its bits (Cody and Waite).
    let r = n.times_plus(V::splat(-6.931_471_803_691_238e-1), x);
    let r = n.times_plus(V::splat(-1.908_214_929_270_587_7e-10), r);
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
        p = p.times_plus(r, V::splat(c));
    }
    p.times_power_of_two(power)
}

/// `(softplus(x), sigmoid(x))` in f64, relative error below 1e-14, also where softplus is tiny.
#[inline(always)]
pub fn softplus_sigmoid<V: Vector<Scalar = f64>>(x: V) -> (V, V) {
    let one = V::splat(1.0);
    // u = exp(-|x|) in (0, 1]; softplus = max(x, 0) + ln(1 + u).
    let u = exp_f64(-x.abs());
    // One division for the two that follow.
    let (one_more, two_more) = (u + one, u + V::splat(2.0));
    let quotient = u / (one_more * two_more);
    // ln(1 + u) = 2 atanh(z), z = u / (2 + u) in (0, 1/3]: no cancellation however small u is.
    let z = quotient * one_more;
    let z2 = z * z;
    let mut p = V::splat(1.0 / 29.0);
    for k in (0..14).rev() {
        p = p.times_plus(z2, V::splat(1.0 / f64::from(2 * k + 1)));
    }
    let softplus = x.max(V::splat(0.0)) + V::splat(2.0) * z * p;
    // sigmoid(-|x|) = u / (1 + u); for positive x its complement.
    let small = quotient * two_more;
    (softplus, x.positive(one - small, small))
}

/// Defines `$name` as `$body`, compiled for each [`Level`], of which a call takes that of [`level()`].
macro_rules! vectorize {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $type),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn widest($($arg: $type),*) $(-> $ret)? {
                    $body::<$crate::simd::Avx512>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn wide($($arg: $type),*) $(-> $ret)? {
                    $body::<$crate::simd::Avx2>($($arg),*)
                }
                match $crate::simd::level() {
                    // SAFETY: a level is chosen only where the processor has the features that `widest` is compiled for.
                    $crate::simd::Level::Avx512 => return unsafe { widest($($arg),*) },
                    // SAFETY: as above, of `wide`.
                    $crate::simd::Level::Avx2 => return unsafe { wide($($arg),*) },
                    $crate::simd::Level::Portable => {}
                }
            }
            $body::<$crate::simd::Portable>($($arg),*)
        }
    };
}
pub(crate) use vectorize;

#[cfg(test)]
mod tests {
    use super::*;

    /// Every function at `x`, and every operation, against the standard library.
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
                // All values are small multiples of a power of two, exact in f32 but for quotient and root.
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
        same(x.times_plus(y, x), p.times_plus(q, p), |a, b| a * b + a);
        same(x.positive(y, -y), p.positive(q, -q), |a, b| if a > 0.0 { b } else { -b });
        same(I::widen(p), I::narrow(I::widen(p)), |a, _| a);
        let rows = std::array::from_fn(|row| p * I::F32::splat(row as f32));
        for (column, row) in I::transpose(&rows).into_iter().map(Vector::to_array).zip(a) {
            assert!((0..LANES).all(|k| f64::from(column[k]) == row * k as f64));
        }
        for (row, got) in I::sums(&rows).to_array().into_iter().enumerate() {
            assert_eq!(f64::from(got), a.iter().sum::<f64>() * row as f64);
        }
        assert_eq!(I::integers(p), a.map(|a| a as i32));
        let mut twice = [0.0f32; WIDE];
        p.store(&mut twice);
        q.store(&mut twice[LANES..]);
        let both = I::Wide::load(&twice);
        let halves = I::halves(both * both + both).map(Vector::to_array);
        assert_eq!(halves, [p * p + p, q * q + q].map(Vector::to_array));
        let halves = I::halves(both.exp2()).map(Vector::to_array);
        assert_eq!(halves, [p.exp2(), q.exp2()].map(Vector::to_array));
        let mut stored = [9.0f32; 11];
        p.store_cut(&mut stored, 7);
        assert!(stored[..7] == [9.0; 7] && (0..4).all(|k| f64::from(stored[7 + k]) == a[k]));
        let padded = I::F32::load_padded(&stored, 7, 5.0).to_array();
        assert!((0..4).all(|k| f64::from(padded[k]) == a[k]) && padded[4..] == [5.0; 4]);
    }

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
    fn functions_agree_with_the_standard_library() {
        check_all::<Portable>();
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2,fma")]
            fn avx2() {
                check_all::<Avx2>();
            }
            #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx2,fma")]
            fn avx512() {
                check_all::<Avx512>();
            }
            if supported(Level::Avx2) {
                // SAFETY: the processor has what it is compiled for.
                unsafe { avx2() };
            }
            if supported(Level::Avx512) {
                // SAFETY: as above.
                unsafe { avx512() };
            }
        }
    }
}
