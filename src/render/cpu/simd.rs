//! Eight lanes at a time, as plain arrays that the compiler turns into vector instructions.
//!
//! [`vectorize`] compiles a function twice, for the machine's AVX2 and FMA where they are there and for the baseline,
//! and chooses when called. The two round differently in the last bit; one machine always takes the same.

use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// Number of lanes.
pub const LANES: usize = 8;

/// Eight numbers that move together.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub struct Lanes<T>(pub [T; LANES]);

macro_rules! operators {
    ($type:ty) => {
        operators!($type, Add, add, +);
        operators!($type, Sub, sub, -);
        operators!($type, Mul, mul, *);
        operators!($type, Div, div, /);
        impl Neg for Lanes<$type> {
            type Output = Self;
            #[inline(always)]
            fn neg(self) -> Self {
                self.map(|v| -v)
            }
        }
        impl AddAssign for Lanes<$type> {
            #[inline(always)]
            fn add_assign(&mut self, other: Self) {
                *self = *self + other;
            }
        }
        impl Lanes<$type> {
            /// The same value in every lane.
            #[inline(always)]
            pub fn splat(value: $type) -> Self {
                Self([value; LANES])
            }
            /// The first eight values of a slice.
            #[inline(always)]
            pub fn load(slice: &[$type]) -> Self {
                let mut lanes = [0.0; LANES];
                lanes.copy_from_slice(&slice[..LANES]);
                Self(lanes)
            }
            /// Into the first eight places of a slice.
            #[inline(always)]
            pub fn store(self, slice: &mut [$type]) {
                slice[..LANES].copy_from_slice(&self.0);
            }
            /// `f` of every lane.
            #[inline(always)]
            pub fn map(self, f: impl Fn($type) -> $type) -> Self {
                let mut out = self;
                for value in &mut out.0 {
                    *value = f(*value);
                }
                out
            }
            /// `f` of every pair of lanes.
            #[inline(always)]
            pub fn zip(self, other: Self, f: impl Fn($type, $type) -> $type) -> Self {
                let mut out = self;
                for lane in 0..LANES {
                    out.0[lane] = f(self.0[lane], other.0[lane]);
                }
                out
            }
            /// The sum of the lanes, in a fixed order.
            #[inline(always)]
            pub fn sum(self) -> $type {
                let v = self.0;
                ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
            }
            /// `self * a + b`, in one rounding where `FMA`.
            #[inline(always)]
            pub fn times_plus<const FMA: bool>(self, a: Self, b: Self) -> Self {
                let mut out = self;
                for lane in 0..LANES {
                    out.0[lane] = if FMA {
                        self.0[lane].mul_add(a.0[lane], b.0[lane])
                    } else {
                        self.0[lane] * a.0[lane] + b.0[lane]
                    };
                }
                out
            }
        }
    };
    ($type:ty, $trait:ident, $method:ident, $op:tt) => {
        impl $trait for Lanes<$type> {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                self.zip(other, |a, b| a $op b)
            }
        }
    };
}

operators!(f32);
operators!(f64);

/// `exp` of every lane, relative error below 2e-7. Arguments below -87 count as -87.
#[inline(always)]
pub fn exp<const FMA: bool>(x: Lanes<f32>) -> Lanes<f32> {
    // exp(x) = 2^n exp(r): adding 1.5 * 2^23 leaves round(x / ln 2) in the low bits of the sum.
    const MAGIC: f32 = 12_582_912.0;
    let x = x.map(|v| v.clamp(-87.0, 88.0));
    let shifted =
        x.times_plus::<FMA>(Lanes::<f32>::splat(std::f32::consts::LOG2_E), Lanes::<f32>::splat(MAGIC));
    let n = shifted - Lanes::<f32>::splat(MAGIC);
    // ln 2 in two parts, so that r keeps its bits (Cody and Waite).
    let r = n.times_plus::<FMA>(Lanes::<f32>::splat(-0.693_359_4), x);
    let r = n.times_plus::<FMA>(Lanes::<f32>::splat(2.121_944_4e-4), r);
    let mut p = Lanes::<f32>::splat(1.0 / 5040.0);
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p.times_plus::<FMA>(r, Lanes::<f32>::splat(c));
    }
    let mut out = p;
    for lane in 0..LANES {
        let power = (shifted.0[lane].to_bits() << 23).wrapping_add(127 << 23);
        out.0[lane] = p.0[lane] * f32::from_bits(power);
    }
    out
}

/// `exp` of every lane in f64, relative error below 2e-15. Arguments below -700 count as -700.
#[inline(always)]
pub fn exp_f64<const FMA: bool>(x: Lanes<f64>) -> Lanes<f64> {
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    let x = x.map(|v| v.clamp(-700.0, 700.0));
    let shifted =
        x.times_plus::<FMA>(Lanes::<f64>::splat(std::f64::consts::LOG2_E), Lanes::<f64>::splat(MAGIC));
    let n = shifted - Lanes::<f64>::splat(MAGIC);
    let r = n.times_plus::<FMA>(Lanes::<f64>::splat(-6.931_471_803_691_238e-1), x);
    let r = n.times_plus::<FMA>(Lanes::<f64>::splat(-1.908_214_929_270_587_7e-10), r);
    // Taylor to r^13 on |r| <= ln(2)/2: the next term is below 5e-18.
    let mut p = Lanes::<f64>::splat(1.0 / 6_227_020_800.0);
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
        p = p.times_plus::<FMA>(r, Lanes::<f64>::splat(c));
    }
    let mut out = p;
    for lane in 0..LANES {
        let power = (shifted.0[lane].to_bits() << 52).wrapping_add(1023 << 52);
        out.0[lane] = p.0[lane] * f64::from_bits(power);
    }
    out
}

/// `(softplus(x), sigmoid(x))` of every lane in f64, relative error below 1e-14, also where softplus is tiny.
#[inline(always)]
pub fn softplus_sigmoid<const FMA: bool>(x: Lanes<f64>) -> (Lanes<f64>, Lanes<f64>) {
    let one = Lanes::<f64>::splat(1.0);
    // u = exp(-|x|) in (0, 1]; softplus = max(x, 0) + ln(1 + u).
    let u = exp_f64::<FMA>(x.map(|v| -v.abs()));
    // ln(1 + u) = 2 atanh(z), z = u / (2 + u) in (0, 1/3]: no cancellation however small u is.
    let z = u / (u + Lanes::<f64>::splat(2.0));
    let z2 = z * z;
    let mut p = Lanes::<f64>::splat(1.0 / 29.0);
    for k in (0..14).rev() {
        p = p.times_plus::<FMA>(z2, Lanes::<f64>::splat(1.0 / f64::from(2 * k + 1)));
    }
    let softplus = x.map(|v| v.max(0.0)) + Lanes::<f64>::splat(2.0) * z * p;
    // sigmoid(-|x|) = u / (1 + u); for positive x its complement.
    let small = u / (one + u);
    let sigmoid = x.zip(small, |x, s| if x > 0.0 { 1.0 - s } else { s });
    (softplus, sigmoid)
}

/// Defines `$name` as `$body::<FMA>` compiled for AVX2 and FMA where the machine has them, else for the baseline.
macro_rules! vectorize {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $type),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn wide($($arg: $type),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
                    // SAFETY: the features that `wide` is compiled for were detected on this processor.
                    return unsafe { wide($($arg),*) };
                }
            }
            // Elsewhere the baseline has a fused multiply-add (aarch64), or calls a slow library for it (x86-64).
            $body::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    };
}
pub(crate) use vectorize;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(x: f64) {
        let relative = |got: f64, want: f64| ((got - want) / want).abs();
        let f = x as f32;
        if (-87.0..88.0).contains(&x) {
            for got in [exp::<false>(Lanes::<f32>::splat(f)), exp::<true>(Lanes::<f32>::splat(f))] {
                assert!(relative(f64::from(got.0[3]), f64::from(f).exp()) < 2e-7, "exp({f})");
            }
        }
        for (softplus, sigmoid) in [
            softplus_sigmoid::<false>(Lanes::<f64>::splat(x)),
            softplus_sigmoid::<true>(Lanes::<f64>::splat(x)),
        ] {
            assert!(relative(softplus.0[5], x.max(0.0) + (-x.abs()).exp().ln_1p()) < 1e-14, "softplus({x})");
            assert!(relative(sigmoid.0[5], 1.0 / (1.0 + (-x).exp())) < 1e-14, "sigmoid({x})");
        }
        assert!(relative(exp_f64::<false>(Lanes::<f64>::splat(x)).0[0], x.exp()) < 2e-15, "exp({x})");
    }

    #[test]
    fn functions_agree_with_the_standard_library() {
        for i in -2000..=2000 {
            check(f64::from(i) * 0.0432 + 1e-3);
        }
    }
}
