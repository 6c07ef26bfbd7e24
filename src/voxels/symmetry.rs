//! Point-group symmetry of Fourier sums.
//!
//! A map with symmetry G has the slice of an image at all poses W g. Operators that map the grid onto itself (permutations of
//! the axes with signs) form a subgroup H, and G is the union of the cosets g H of a few representatives g. Images are inserted
//! at the poses W g of the representatives alone; then the sums are added over H. Both steps are exact: octahedral symmetry
//! takes one insertion, icosahedral symmetry (I1, I2) five.

use rayon::prelude::*;
use rustfft::num_complex::Complex;

use crate::imaging::Symmetry;
use crate::imaging::pose::{Rotation, product};
use crate::voxels::sums::FourierSums;

/// A point group, split into representatives of its cosets and operators of the grid.
#[derive(Clone, Debug)]
pub(super) struct GridCosets {
    /// One operator of each coset; the identity first.
    pub representatives: Vec<Rotation>,
    /// The subgroup H; the identity first.
    operators: Vec<Rotation>,
}

/// Number of poses at which an image of a specimen with `symmetry` is inserted, and of the operators that the sums are added over.
pub(crate) fn insertions(symmetry: Symmetry) -> [usize; 2] {
    let GridCosets { representatives, operators } = GridCosets::new(symmetry);
    [representatives.len(), operators.len()]
}

impl GridCosets {
    pub fn new(symmetry: Symmetry) -> Self {
        let all = symmetry.operators();
        // Entries of 0 and 1 are exact.
        let is_of_grid = |g: &&Rotation| g.iter().flatten().all(|&v| v == 0.0 || v.abs() == 1.0);
        let operators: Vec<Rotation> = all.iter().filter(is_of_grid).copied().collect();
        let mut representatives: Vec<Rotation> = Vec::new();
        let mut covered: Vec<Rotation> = Vec::new();
        for g in all {
            if !covered.iter().any(|known| is_same(known, &g)) {
                covered.extend(operators.iter().map(|h| product(&g, h)));
                representatives.push(g);
            }
        }
        Self { representatives, operators }
    }

    /// Adds `sums` over the operators of the grid.
    pub fn add_over_grid(&self, sums: FourierSums) -> FourierSums {
        if self.operators.len() == 1 {
            return sums;
        }
        let (n, side) = (sums.box_size, sums.side());
        let (edge, centre) = (n as isize, ((side / 2 * side + side / 2) * n) as isize);
        let place = |[x, y, z]: [isize; 3]| (z * side as isize + y) * edge + x;
        let mut all = FourierSums::zero(n);
        let lines = all.data.par_chunks_exact_mut(n).zip(all.weight.par_chunks_exact_mut(n));
        // In f64 these sums of f32 are exact, so equivalent points have the same bits.
        let zeros = || vec![(Complex::new(0.0f64, 0.0), 0.0f64); n];
        lines.enumerate().for_each_init(zeros, |line_sums, (line, (data, weights))| {
            line_sums.fill((Complex::new(0.0, 0.0), 0.0));
            let centred = |i: usize| (i + 1) as isize - edge;
            let (y, z) = (centred(line % side), centred(line / side));
            for h in &self.operators {
                let moved = |point: [isize; 3]| {
                    h.map(|row| (0..3).map(|axis| row[axis] as isize * point[axis]).sum::<isize>())
                };
                let (first, step) = (moved([0, y, z]), moved([1, 0, 0]));
                // A line moves to a line on one side of x = 0, or in that plane, where both points of a Friedel pair are stored.
                let side_of_mates = first[0] < 0 || step[0] < 0;
                let (sign, conjugate) = if side_of_mates { (-1, -1.0) } else { (1, 1.0) };
                let (mut at, stride) = (centre + sign * place(first), sign * place(step));
                for (value, weight) in &mut *line_sums {
                    let of_point = sums.data[at as usize];
                    *value += Complex::new(f64::from(of_point.re), conjugate * f64::from(of_point.im));
                    *weight += f64::from(sums.weight[at as usize]);
                    at += stride;
                }
            }
            for ((data, weight), (value, sum)) in data.iter_mut().zip(weights).zip(&*line_sums) {
                (*data, *weight) = (Complex::new(value.re as f32, value.im as f32), *sum as f32);
            }
        });
        all
    }
}

fn is_same(a: &Rotation, b: &Rotation) -> bool {
    a.iter().flatten().zip(b.iter().flatten()).all(|(a, b)| (a - b).abs() < 1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Index in [`FourierSums`] of a point (x, y, z), and whether it holds the point's Friedel mate.
    fn index(box_size: usize, point: [isize; 3]) -> (usize, bool) {
        let is_mate = point[0] < 0;
        let [x, y, z] = if is_mate { point.map(|v| -v) } else { point };
        let line = |v: isize| (v + box_size as isize - 1) as usize;
        ((line(z) * (2 * box_size - 1) + line(y)) * box_size + x as usize, is_mate)
    }

    #[test]
    fn cosets_cover_the_group_once() {
        for (name, insertions) in [
            ("C1", 1),
            ("C2", 1),
            ("C3", 3),
            ("C4", 1),
            ("C6", 3),
            ("D2", 1),
            ("D4", 1),
            ("D7", 7),
            ("T", 12),
            ("O", 1),
        ]
        .into_iter()
        .chain([("I1", 5), ("I2", 5), ("I3", 30), ("I4", 30)])
        {
            let symmetry: Symmetry = name.parse().unwrap();
            let cosets = GridCosets::new(symmetry);
            assert_eq!(cosets.representatives.len(), insertions, "{name}");
            assert_eq!(cosets.representatives[0], symmetry.operators()[0]);
            let covered: Vec<Rotation> = cosets
                .representatives
                .iter()
                .flat_map(|g| cosets.operators.iter().map(move |h| product(g, h)))
                .collect();
            assert_eq!(covered.len(), symmetry.order(), "{name}");
            for g in symmetry.operators() {
                assert_eq!(covered.iter().filter(|other| is_same(other, &g)).count(), 1, "{name}");
            }
        }
    }

    #[test]
    fn sums_over_the_grid_have_equal_bits_at_equivalent_points() {
        let n = 7;
        let side = 2 * n - 1;
        let mut sums = FourierSums::zero(n);
        for (i, (value, weight)) in sums.data.iter_mut().zip(&mut sums.weight).enumerate() {
            *value = Complex::new(((i * 7919) % 101) as f32 / 7.0, ((i * 104_729) % 97) as f32 / 3.0 - 11.0);
            *weight = ((i * 31) % 17) as f32 / 13.0;
        }
        // Both points of a Friedel pair are stored at x = 0.
        for line in 0..side * side / 2 + 1 {
            let mate = side * side - 1 - line;
            let value = sums.data[line * n];
            sums.data[mate * n] = value.conj();
            sums.weight[mate * n] = sums.weight[line * n];
        }
        sums.data[side * side / 2 * n].im = 0.0;
        let cosets = GridCosets::new(Symmetry::O);
        let all = cosets.add_over_grid(sums.clone());
        for (i, value) in all.data.iter().enumerate() {
            let point = [i % n, i / n % side, i / n / side];
            let [x, y, z] =
                [point[0] as isize, point[1] as isize + 1 - n as isize, point[2] as isize + 1 - n as isize];
            let mut expected = Complex::new(0.0f64, 0.0);
            for g in Symmetry::O.operators() {
                let moved = g.map(|row| row[0] as isize * x + row[1] as isize * y + row[2] as isize * z);
                let (at, is_mate) = index(n, moved);
                let of = |sums: &FourierSums| if is_mate { sums.data[at].conj() } else { sums.data[at] };
                assert_eq!(of(&all), *value, "{point:?}");
                assert_eq!(all.weight[at], all.weight[i]);
                let part = of(&sums);
                expected += Complex::new(f64::from(part.re), f64::from(part.im));
            }
            assert!(
                (expected - Complex::new(f64::from(value.re), f64::from(value.im))).norm() < 1e-4,
                "{point:?}"
            );
        }
    }
}
