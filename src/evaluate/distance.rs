//! Exact Euclidean distance transform (Felzenszwalb and Huttenlocher, Theory of Computing 8 (2012) 415).

use ndarray::Array3;
use rayon::prelude::*;

/// Squared distance of each voxel of a cube to the nearest voxel of `set`, in voxels^2; infinite if the set is empty.
pub(super) fn squared_distances(set: &Array3<bool>) -> Array3<f64> {
    let n = set.dim().0;
    let mut values: Vec<f64> = set.iter().map(|&inside| if inside { 0.0 } else { f64::INFINITY }).collect();
    // One pass per axis: each processes the rows, then rotates the axes of the cube.
    for _ in 0..3 {
        values.par_chunks_mut(n).for_each_init(|| Envelope::new(n), |envelope, row| envelope.lower(row));
        let turned = |a: usize| (0..n * n).map(move |bc| (a, bc));
        values = (0..n).into_par_iter().flat_map_iter(turned).map(|(a, bc)| values[bc * n + a]).collect();
    }
    Array3::from_shape_vec(set.dim(), values).expect("three rotations restore the order of the axes")
}

/// Lower envelope of the parabolas about each position of a row.
struct Envelope {
    /// Height and position of each parabola on the envelope.
    parabolas: Vec<(f64, usize)>,
    /// Start of the interval in which each is the lowest.
    starts: Vec<f64>,
}

impl Envelope {
    fn new(n: usize) -> Self {
        Self { parabolas: Vec::with_capacity(n), starts: Vec::with_capacity(n) }
    }

    /// Replaces heights f(q) by the minimum over q of (p - q)^2 + f(q), at each position p.
    fn lower(&mut self, row: &mut [f64]) {
        self.parabolas.clear();
        self.starts.clear();
        for (place, &height) in row.iter().enumerate().filter(|(_, height)| height.is_finite()) {
            let mut start = f64::NEG_INFINITY;
            while let (Some(&(other, at)), Some(&begins)) = (self.parabolas.last(), self.starts.last()) {
                let (p, q) = (place as f64, at as f64);
                start = ((height + p * p) - (other + q * q)) / (2.0 * (p - q));
                if start > begins {
                    break;
                }
                self.parabolas.pop();
                self.starts.pop();
                start = f64::NEG_INFINITY;
            }
            self.parabolas.push((height, place));
            self.starts.push(start);
        }
        let mut lowest = 0;
        for (place, value) in row.iter_mut().enumerate() {
            while self.starts.get(lowest + 1).is_some_and(|&start| start < place as f64) {
                lowest += 1;
            }
            if let Some(&(height, at)) = self.parabolas.get(lowest) {
                *value = (place as f64 - at as f64).powi(2) + height;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_match_brute_force() {
        let n = 9;
        for modulus in [5, 37, 211] {
            let set =
                Array3::from_shape_fn((n, n, n), |(z, y, x)| (x * 31 + y * 17 + z * 7 + 3) % modulus == 0);
            let found = squared_distances(&set);
            for ((z, y, x), &value) in found.indexed_iter() {
                let square = |a: usize, b: usize| (a as f64 - b as f64).powi(2);
                let distance = |(i, j, k)| square(z, i) + square(y, j) + square(x, k);
                let inside = set.indexed_iter().filter(|(_, inside)| **inside);
                let want = inside.map(|(at, _)| distance(at)).fold(f64::INFINITY, f64::min);
                assert_eq!(value, want, "{modulus}: {x} {y} {z}");
            }
        }
        assert!(squared_distances(&Array3::from_elem((3, 3, 3), false)).iter().all(|v| v.is_infinite()));
    }
}
