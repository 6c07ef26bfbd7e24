//! Adam (Kingma and Ba, 2015), in one pass over parameters and moments.

use super::tasks::for_each;
use crate::gmm::Gmm;
use crate::render::AdamStep;
use crate::simd::{Isa, LANES, Vector, vectorize};

/// Parameters per task; a multiple of [`LANES`].
const VALUES: usize = 8192;

/// The optimiser: first and second moments of the gradient of every parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Adam {
    /// First moments.
    pub first: Vec<f32>,
    /// Second moments.
    pub second: Vec<f32>,
}

impl Adam {
    /// Moments of zero for `count` parameters.
    pub fn new(count: usize) -> Self {
        Self { first: vec![0.0; count], second: vec![0.0; count] }
    }

    /// One step: `parameters -= rate m^ / (sqrt(v^) + epsilon)` with the gradient `scale * gradient`.
    ///
    /// # Panics
    /// If the lengths disagree.
    pub fn step(&mut self, gmm: &mut Gmm, gradient: &[f32], scale: f32, step: &AdamStep) {
        let (shape, count) = (gmm.shape(), gmm.len());
        let parameters = gmm.values_mut();
        assert!(parameters.len() == self.first.len() && gradient.len() == self.first.len());
        let planes = parameters.chunks_exact_mut(count).zip(gradient.chunks_exact(count));
        let moments = self.first.chunks_exact_mut(count).zip(self.second.chunks_exact_mut(count));
        let chunks =
            planes.zip(moments).enumerate().flat_map(|(plane, ((parameters, gradient), (first, second)))| {
                let step = AdamStep { rate: step.rate * step.factors.of_plane(shape, plane), ..*step };
                let values = parameters.chunks_mut(VALUES).zip(gradient.chunks(VALUES));
                let moments = first.chunks_mut(VALUES).zip(second.chunks_mut(VALUES));
                values.zip(moments).map(move |chunk| (step, chunk))
            });
        let parallel = rayon::current_num_threads() > 1;
        for_each(parallel, chunks, |(step, ((parameters, gradient), (first, second)))| {
            update(parameters, first, second, gradient, scale, &step);
        });
    }
}

vectorize! {
    fn update(parameters: &mut [f32], first: &mut [f32], second: &mut [f32], gradient: &[f32], scale: f32, step: &AdamStep)
        = update_lanes
}

/// The constants of a step in every lane.
#[derive(Clone, Copy)]
struct Constants<V> {
    beta1: V,
    beta2: V,
    one_minus_beta1: V,
    one_minus_beta2: V,
    rate: V,
    epsilon: V,
    scale: V,
}

impl<V: Vector<Scalar = f32>> Constants<V> {
    #[inline(always)]
    fn new(step: &AdamStep, scale: f32) -> Self {
        // rate m/c1 / (sqrt(v/c2) + eps) = rate sqrt(c2)/c1 m / (sqrt(v) + eps sqrt(c2))
        let root = step.correction2.sqrt();
        Self {
            beta1: V::splat(step.beta1 as f32),
            beta2: V::splat(step.beta2 as f32),
            // In f64: with beta2 = 0.999 the difference in f32 loses four digits.
            one_minus_beta1: V::splat((1.0 - step.beta1) as f32),
            one_minus_beta2: V::splat((1.0 - step.beta2) as f32),
            rate: V::splat((step.rate * root / step.correction1) as f32),
            epsilon: V::splat((step.epsilon * root) as f32),
            scale: V::splat(scale),
        }
    }

    /// Parameters and both moments after a step with this gradient.
    #[inline(always)]
    fn apply(&self, p: V, m: V, v: V, gradient: V) -> (V, V, V) {
        let g = gradient * self.scale;
        let m = self.beta1.mul_add(m, self.one_minus_beta1 * g);
        let v = self.beta2.mul_add(v, self.one_minus_beta2 * g * g);
        (p - self.rate * m / (v.sqrt() + self.epsilon), m, v)
    }
}

#[inline(always)]
fn update_lanes<I: Isa>(
    parameters: &mut [f32],
    first: &mut [f32],
    second: &mut [f32],
    gradient: &[f32],
    scale: f32,
    step: &AdamStep,
) {
    let constants = Constants::<I::F32>::new(step, scale);
    // Whole vectors without bounds checks (25% faster), then the rest.
    let (p_vectors, p_rest) = parameters.as_chunks_mut::<LANES>();
    let (m_vectors, m_rest) = first.as_chunks_mut::<LANES>();
    let (v_vectors, v_rest) = second.as_chunks_mut::<LANES>();
    let (g_vectors, g_rest) = gradient.as_chunks::<LANES>();
    let state = p_vectors.iter_mut().zip(m_vectors).zip(v_vectors);
    for (((p, m), v), g) in state.zip(g_vectors) {
        let (new_p, new_m, new_v) =
            constants.apply(I::F32::load(p), I::F32::load(m), I::F32::load(v), I::F32::load(g));
        new_p.store(p);
        new_m.store(m);
        new_v.store(v);
    }
    let (p, m, v) = constants.apply(
        I::F32::load_padded(p_rest, 0, 0.0),
        I::F32::load_padded(m_rest, 0, 0.0),
        I::F32::load_padded(v_rest, 0, 0.0),
        I::F32::load_padded(g_rest, 0, 0.0),
    );
    p.store_partial(p_rest, 0);
    m.store_partial(m_rest, 0);
    v.store_partial(v_rest, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gmm::Shape;
    use crate::render::RateFactors;

    /// One isotropic Gaussian whose five parameters have the same value.
    fn one(value: f32) -> Gmm {
        Gmm::from_values(Shape::Isotropic, 1, vec![value; 5])
    }

    #[test]
    fn the_first_step_goes_down_by_the_rate_of_each_kind() {
        let (mut adam, mut gmm) = (Adam::new(5), one(1.0));
        let step = AdamStep {
            rate: 0.01,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-15,
            correction1: 0.1,
            correction2: 0.001,
            factors: RateFactors { scale: 0.5, amplitude: 3.0, ..RateFactors::ONE },
        };
        adam.step(&mut gmm, &[4.0, -2e-6, 0.0, 1.0, -1.0], 0.5, &step);
        for (got, want) in gmm.values().iter().zip([0.99, 1.01, 1.0, 0.995, 1.03]) {
            assert!((got - want).abs() < 1e-6, "{:?}", gmm.values());
        }
    }

    #[test]
    fn steps_follow_the_textbook() {
        let (mut adam, mut gmm) = (Adam::new(5), one(0.3));
        let (mut m, mut v, mut x) = (0.0f64, 0.0f64, f64::from(0.3f32));
        for t in 1..=20 {
            let g = (f64::from(t) * 0.7).sin();
            m = 0.9 * m + 0.1 * g;
            v = 0.99 * v + 0.01 * g * g;
            let (c1, c2) = (1.0 - 0.9f64.powi(t), 1.0 - 0.99f64.powi(t));
            x -= 1e-3 * (m / c1) / ((v / c2).sqrt() + 1e-8);
            let step = AdamStep {
                rate: 1e-3,
                beta1: 0.9,
                beta2: 0.99,
                epsilon: 1e-8,
                correction1: c1,
                correction2: c2,
                factors: RateFactors::ONE,
            };
            adam.step(&mut gmm, &[g as f32; 5], 1.0, &step);
        }
        assert!((f64::from(gmm.values()[0]) - x).abs() < 1e-6);
    }

    #[test]
    fn every_plane_has_the_factor_of_its_kind() {
        let factors = RateFactors { mean: 1.0, scale: 2.0, quaternion: 3.0, amplitude: 4.0 };
        let of = |shape: Shape| (0..shape.planes()).map(|k| factors.of_plane(shape, k)).collect::<Vec<_>>();
        assert_eq!(of(Shape::Anisotropic), [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0, 4.0]);
        assert_eq!(of(Shape::Isotropic), [1.0, 1.0, 1.0, 2.0, 4.0]);
    }
}
