//! Splats to pixels, and pixels to moments (docs/method.md, sections 3 and 5).
//!
//! The ratio of consecutive rows of a Gaussian changes by a constant factor per row. A group of columns therefore costs two
//! exponentials, and two multiplications per row (the row recurrence):
//!   G(y+1) = G(y) U(y),   U(y+1) = U(y) exp(-c),   U(y) = exp(-(b dx + c dy + c/2)).
//! Supports of up to 8 columns and rows, the majority, start at their first row, several splats side by side ([`small`]). Larger
//! ones are divided into strips of 8 or 16 columns, and start at a middle row in both directions ([`strip`]). Mispredicted branches
//! cost more than rows: a group of small splats iterates over the rows of the highest, and values below a support are zero.
//! The exponentials are evaluated again every 16 rows, which bounds the rounding error to 3e-6 of the peak. In a band of an image
//! every pixel receives the same values in the same order as in the whole image.

// Index loops instead of iterators: closures are not always inlined, and then compiled without vector instructions.
#![allow(clippy::needless_range_loop)]

mod draw;
mod fine;
mod moments;
mod small;
mod strip;

pub use strip::STRETCH;

use super::project::{SplatBlock, ViewMoments};
use crate::simd::{LANES, vectorize};

/// An image with padded rows: a vector can be loaded and stored at any pixel of the box.
#[derive(Clone, Debug)]
pub struct Canvas {
    /// `[y][x]`, rows of [`Canvas::stride`] values. The padding is ignored in projections and zero in gradients.
    pub pixels: Vec<f32>,
    /// Box size in pixels.
    pub box_size: usize,
    /// Distance of consecutive rows in values.
    pub stride: usize,
}

impl Canvas {
    /// A zero image of `box_size` x `box_size` pixels.
    pub fn new(box_size: usize) -> Self {
        let stride = box_size + LANES;
        Self { pixels: vec![0.0; box_size * stride], box_size, stride }
    }

    /// The rows without their padding.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.pixels.chunks_exact(self.stride).map(|row| &row[..self.box_size])
    }
}

vectorize! {
    /// Adds all splats to a band of an image: rows from `first_row` on, `stride` values apart. `view_moments` holds the whitening.
    pub fn draw(splats: &[SplatBlock], view_moments: &[ViewMoments], band: &mut [f32], first_row: usize, stride: usize) = draw_lanes
}
use draw::draw as draw_lanes;

vectorize! {
    /// Computes the moments of all splats in the gradient image `g`, from the whitening in `view_moments`.
    pub fn moments(splats: &[SplatBlock], g: &Canvas, view_moments: &mut [ViewMoments]) = moments_lanes
}
use moments::moments as moments_lanes;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gmm::{Gmm, Shape};
    use crate::imaging::pose::rotation_from_quaternion;
    use crate::random::{Purpose, stream};
    use crate::render::cpu::activate::Activated;
    use crate::render::cpu::allocate_blocks;
    use crate::render::cpu::project::{kind, project};
    use crate::render::{Geometry, Sampling, Symmetry, Weights};
    use crate::simd::{Isa, Kernel, at_every_level};

    const BOX: usize = 40;
    const COUNT: usize = 203;

    struct Scene {
        splats: Vec<SplatBlock>,
        view_moments: Vec<ViewMoments>,
    }

    impl Scene {
        /// Alternately blocks of small splats, of larger ones, and of splats of several stretches.
        fn new() -> Self {
            let gmm = Gmm::random(COUNT, Shape::Anisotropic, &mut stream(3, Purpose::Start, 1, 0));
            let mut gaussians = Activated::new(COUNT);
            gaussians.update(&gmm);
            let mut blocks = gaussians.blocks().to_vec();
            for (block, (xx, yy)) in
                blocks.iter_mut().zip([(3e-4, 2e-4), (0.003, 0.002), (0.02, 0.03)].into_iter().cycle())
            {
                block.covariance[0].iter_mut().for_each(|v| *v += xx);
                block.covariance[3].iter_mut().for_each(|v| *v += yy);
            }
            let (mut splats, mut view_moments) =
                (allocate_blocks::<SplatBlock>(COUNT), allocate_blocks::<ViewMoments>(COUNT));
            let view = rotation_from_quaternion([0.3, -0.5, 0.7, 0.2]);
            let geometry = Geometry {
                box_size: BOX,
                pixel_size: 1.0,
                cutoff: 3.0,
                sampling: Sampling::Points,
                weights: Weights::UNIFORM,
                symmetry: Symmetry::C1,
            };
            project(&blocks, &view, [0.0; 2], &geometry, &mut splats, &mut view_moments);
            let of = |wanted: i32| splats.iter().filter(|block| block.kind.contains(&wanted)).count();
            assert!(of(kind::SMALL) >= 8 && of(kind::STEPPED) >= 16);
            assert!(splats.iter().flat_map(|block| block.height).any(|height| height > 16));
            Self { splats, view_moments }
        }
    }

    /// Draws the scene, and takes its moments in a fixed gradient image.
    #[derive(Clone, Copy)]
    struct DrawAndMeasure<'a>(&'a Scene);

    impl Kernel for DrawAndMeasure<'_> {
        /// The drawn pixels, and the six moments of all splats.
        type Output = (Vec<f32>, [Vec<f32>; 6]);

        #[inline(always)]
        fn run<I: Isa>(self) -> Self::Output {
            let Scene { splats, view_moments } = self.0;
            let mut drawn = Canvas::new(BOX);
            let stride = drawn.stride;
            draw_lanes::<I>(splats, view_moments, &mut drawn.pixels, 0, stride);
            let mut gradient = Canvas::new(BOX);
            // Without a trend, whose moments would cancel.
            for (k, pixel) in gradient.pixels.iter_mut().enumerate() {
                *pixel = (k as f32 * 0.7).sin() + (k as f32 * 1.9).cos();
            }
            let mut view_moments = view_moments.clone();
            moments_lanes::<I>(splats, &gradient, &mut view_moments);
            let moment =
                |k: usize| view_moments.iter().flat_map(|view_moments| view_moments.moments[k]).collect();
            (drawn.pixels, std::array::from_fn(moment))
        }
    }

    fn assert_close(a: &[f32], b: &[f32]) {
        let size = a.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        assert!(size > 0.0);
        for (a, b) in a.iter().zip(b) {
            // Each is within 3e-6 of the exact value.
            assert!((a - b).abs() < 6e-6 * size, "{a} {b}");
        }
    }

    #[test]
    fn every_simd_level_draws_and_measures_the_same() {
        let scene = Scene::new();
        let outputs = at_every_level(DrawAndMeasure(&scene));
        let (portable, others) = outputs.split_first().unwrap();
        for (pixels, moments) in others {
            assert_close(pixels, &portable.0);
            for (moment, want) in moments.iter().zip(&portable.1) {
                assert_close(moment, want);
            }
        }
    }

    #[test]
    fn bands_have_the_bits_of_the_whole() {
        let scene = Scene::new();
        let whole = |rows: usize| {
            let mut canvas = Canvas::new(BOX);
            let stride = canvas.stride;
            for (k, band) in canvas.pixels.chunks_mut(rows * stride).enumerate() {
                draw(&scene.splats, &scene.view_moments, band, k * rows, stride);
            }
            canvas.pixels
        };
        let one = whole(BOX);
        for rows in [1, 3, 7, 8, 9, 20] {
            assert_eq!(whole(rows), one, "{rows} rows");
        }
    }
}
