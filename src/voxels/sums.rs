//! Sums of `CTF F` and `CTF^2` on the half space x >= 0 of the oversampled Fourier grid.

use rayon::prelude::*;
use rustfft::num_complex::Complex;

use crate::parallel::World;

/// Values per grid point: real part, imaginary part, weight.
pub(super) const VALUES: usize = 3;

/// Sums on the half space x >= 0 of the oversampled Fourier grid; 0 from Nyquist on.
#[derive(Clone, Debug)]
pub(crate) struct FourierSums {
    /// D: box of the images in pixels.
    pub box_size: usize,
    /// Sum of `CTF F`, `[z][y][x]`: x from 0 to D - 1, y and z from -(D - 1) to D - 1.
    pub data: Vec<Complex<f32>>,
    /// Sum of `CTF^2`, as `data`.
    pub weight: Vec<f32>,
}

impl FourierSums {
    pub(crate) fn zero(box_size: usize) -> Self {
        let side = 2 * box_size - 1;
        let length = side * side * box_size;
        Self { box_size, data: vec![Complex::new(0.0, 0.0); length], weight: vec![0.0; length] }
    }

    /// Adds each Friedel pair in the plane x = 0: a sample was added to one point of the pair only.
    pub(super) fn add_friedel_pairs(&mut self) {
        let (n, lines) = (self.box_size, self.side() * self.side());
        for line in 0..=lines / 2 {
            let (one, other) = (line * n, (lines - 1 - line) * n);
            let (value, weight) =
                (self.data[one] + self.data[other].conj(), self.weight[one] + self.weight[other]);
            (self.data[one], self.data[other]) = (value, value.conj());
            (self.weight[one], self.weight[other]) = (weight, weight);
        }
    }

    /// Data and weights of plane `z`.
    pub(super) fn plane_mut(&mut self, z: usize) -> (&mut [Complex<f32>], &mut [f32]) {
        let plane = self.side() * self.box_size;
        (&mut self.data[z * plane..][..plane], &mut self.weight[z * plane..][..plane])
    }

    /// Sends the sums to rank `rank`, which calls [`FourierSums::receive`].
    pub fn send(&self, world: &World, rank: usize) {
        let plane = self.side() * self.box_size;
        let mut values = Vec::with_capacity(plane * VALUES);
        for (data, weight) in self.data.chunks_exact(plane).zip(self.weight.chunks_exact(plane)) {
            values.clear();
            values.extend(data.iter().zip(weight).flat_map(|(value, &weight)| [value.re, value.im, weight]));
            world.send_values(rank, &values);
        }
    }

    /// Receives the sums that rank `rank` sends, for images of `box_size` pixels.
    pub fn receive(box_size: usize, world: &World, rank: usize) -> Self {
        let mut sums = Self::zero(box_size);
        let mut values = vec![0.0; sums.side() * box_size * VALUES];
        for z in 0..sums.side() {
            world.receive_values(rank, &mut values);
            let (data, weight) = sums.plane_mut(z);
            for ((data, weight), value) in data.iter_mut().zip(weight).zip(values.chunks_exact(VALUES)) {
                (*data, *weight) = (Complex::new(value[0], value[1]), value[2]);
            }
        }
        sums
    }

    /// Number of grid points along y and along z: 2 D - 1.
    pub fn side(&self) -> usize {
        2 * self.box_size - 1
    }

    /// Adds the sums of other images.
    ///
    /// # Panics
    /// If their box size differs.
    pub fn add(&mut self, other: &Self) {
        assert_eq!(self.box_size, other.box_size);
        self.data.par_iter_mut().zip(&other.data).for_each(|(sum, more)| *sum += more);
        self.weight.par_iter_mut().zip(&other.weight).for_each(|(sum, more)| *sum += more);
    }
}

/// Squared distance of the point `[z][y][x]` of [`FourierSums`] from the origin, in grid points.
pub(crate) fn squared_radius(box_size: usize, x: usize, y: usize, z: usize) -> usize {
    let distance = |i: usize| i.abs_diff(box_size - 1);
    x * x + distance(y).pow(2) + distance(z).pow(2)
}

/// Whether the point `[z][y][x]` of [`FourierSums`] is below the Nyquist frequency.
pub(crate) fn is_within_nyquist(box_size: usize, x: usize, y: usize, z: usize) -> bool {
    squared_radius(box_size, x, y, z) < box_size * box_size
}
