//! Strips of a splat: a lane per column.

use crate::render::cpu::project::{SMALL, SplatBlock};
use crate::simd::{LANES, Vector, WIDE};

/// Largest number of rows per evaluation of the exponentials, which is in their middle.
pub const STRETCH: usize = 16;

/// 0, 1, 2, ...: columns relative to the first of a strip, rows relative to the middle of a stretch.
pub(super) const INDICES: [f32; WIDE] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];

/// Squares of [`INDICES`].
pub(super) const SQUARES: [f32; WIDE] = {
    let mut squares = INDICES;
    let mut k = 0;
    while k < WIDE {
        squares[k] *= INDICES[k];
        k += 1;
    }
    squares
};

/// The vector at index `WIDE - n` has n ones, then zeros.
pub(super) const LANE_MASKS: [f32; 2 * WIDE] = {
    let mut places = [0.0; 2 * WIDE];
    let mut k = 0;
    while k < WIDE {
        places[k] = 1.0;
        k += 1;
    }
    places
};

/// One splat of a block.
#[derive(Clone, Copy)]
pub(super) struct Splat<'a> {
    all: &'a SplatBlock,
    lane: usize,
}

/// Accessors of fields of [`SplatBlock`].
macro_rules! numbers {
    ($($name:ident: $type:ty),* $(,)?) => {$(
        #[inline(always)]
        pub fn $name(&self) -> $type {
            self.all.$name[self.lane]
        }
    )*};
}

/// Accessors of counts.
macro_rules! counts {
    ($($name:ident),* $(,)?) => {$(
        #[inline(always)]
        pub fn $name(&self) -> usize {
            self.all.$name[self.lane] as usize
        }
    )*};
}

impl<'a> Splat<'a> {
    #[inline(always)]
    pub fn new(all: &'a SplatBlock, lane: usize) -> Self {
        Self { all, lane: lane % LANES }
    }

    numbers! {
        kind: i32, dx: f32, dy: f32, low_x: f32, low_y: f32, u: f32, slope: f32, twice_shear: f32, fall: f32, curvature: f32,
        peak: f32, growth: f32, decay: f32, norm: f32, weight: f32,
    }

    counts! { x0, y0, width, height }

    /// Factor of the ratio at a row of a small support.
    #[inline(always)]
    pub fn decay_from(&self, row: usize) -> f32 {
        self.all.decays[row % SMALL][self.lane]
    }

    /// Number of stretches, of at most [`STRETCH`] rows.
    #[inline(always)]
    pub fn stretches(&self) -> usize {
        self.height().div_ceil(STRETCH)
    }

    /// Stretch `k` of `count`.
    #[inline(always)]
    pub fn stretch(&self, k: usize, count: usize) -> Stretch {
        let height = self.height();
        let (first, end) =
            if count == 1 { (0, height) } else { (height * k / count, height * (k + 1) / count) };
        let half = (end - first) / 2;
        let off = if count == 1 { 0.0 } else { (first + half) as f32 - (height / 2) as f32 };
        Stretch { first, half, odd: (end - first) % 2, off }
    }
}

/// Splats `first..first + K` of a block.
#[inline(always)]
pub(super) fn group<const K: usize>(block: &SplatBlock, first: usize) -> [Splat<'_>; K] {
    let mut group = [Splat::new(block, first); K];
    for k in 1..K {
        group[k] = Splat::new(block, first + k);
    }
    group
}

/// Rows that start at their middle: [`Stretch::half`] rows above it, and as many below, or one less.
#[derive(Clone, Copy)]
pub(super) struct Stretch {
    /// First row.
    pub first: usize,
    /// Rows above the middle.
    pub half: usize,
    /// 1 if there are as many rows below, else 0.
    pub odd: usize,
    /// Rows from the middle of the support to that of the stretch.
    pub off: f32,
}

impl Stretch {
    /// The middle row.
    #[inline(always)]
    pub fn middle(&self) -> usize {
        self.first + self.half
    }

    /// The last row if there are as many below the middle as above, else the middle, to which zero is added.
    #[inline(always)]
    pub fn last(&self) -> usize {
        self.middle() + self.half * self.odd
    }
}

/// Columns of a splat, one per lane.
#[derive(Clone, Copy)]
pub(super) struct Strip<V> {
    /// Factor of the values; zero for columns outside the support.
    scale: V,
    /// u in the base row.
    u: V,
}

/// Current rows of the recurrence, above and below the middle of a stretch.
#[derive(Clone, Copy)]
pub(super) struct Recurrence<V> {
    /// Values in the row above.
    pub above: V,
    /// Values in the row below.
    pub below: V,
    up: V,
    down: V,
    decay: V,
}

impl<V: Vector<Scalar = f32>> Strip<V> {
    /// The strip whose first column is column `first` of the support; its values are multiplied by `scale`.
    #[inline(always)]
    pub fn new(splat: Splat, first: usize, scale: f32) -> Self {
        let inside = (splat.width() - first).min(V::LEN);
        let columns = V::splat(first as f32) + V::load(&INDICES);
        Self {
            scale: V::load(&LANE_MASKS[WIDE - inside..]) * V::splat(scale),
            u: columns.mul_add(V::splat(splat.slope()), V::splat(splat.u())),
        }
    }

    /// The values in the middle of a stretch, and the recurrence from there.
    #[inline(always)]
    pub fn start(&self, splat: Splat, stretch: &Stretch) -> (V, Recurrence<V>) {
        let (mut u, mut peak, mut growth) = (self.u, splat.peak(), splat.growth());
        if stretch.off != 0.0 {
            let (y, twice_fall) = (splat.dy() + stretch.off, splat.fall() + splat.fall());
            u += V::splat(0.5 * splat.twice_shear() * stretch.off);
            peak = -splat.fall() * y * y;
            growth -= twice_fall * stretch.off;
        }
        let value = (-u).mul_add(u, V::splat(peak)).exp2() * self.scale;
        // u grows by the shear per row. The product of the two ratios is the decay.
        let growth = (-u).mul_add(V::splat(splat.twice_shear()), V::splat(growth));
        let twice_curvature = splat.curvature() + splat.curvature();
        let (down, up) = (growth.exp2(), (-growth - V::splat(twice_curvature)).exp2());
        (
            value,
            Recurrence { above: value * up, below: value * down, up, down, decay: V::splat(splat.decay()) },
        )
    }
}

impl<V: Vector<Scalar = f32>> Recurrence<V> {
    /// Proceeds one row up and one row down.
    #[inline(always)]
    pub fn step(&mut self) {
        self.up = self.up * self.decay;
        self.down = self.down * self.decay;
        self.above = self.above * self.up;
        self.below = self.below * self.down;
    }
}
