//! Gauss-Newton steps of one particle.

use super::REFINED;
use super::linear::{Matrix, Vector, solve};
use super::prior::{Quadratic, Widths, kind};
use crate::error::Result;
use crate::imaging::pose::{Rotation, product, rotation_from_vector, transposed, vector_from_rotation};
use crate::particles::refinement::Refinement;
use crate::particles::store::{Particle, Reader};
use crate::render::reference::{DEFOCUS, DEFOCUS_UNIT, OFFSET};
use crate::render::{Device, ImageFit, Observation};

/// Largest step of each kind: in radians, pixels, units of the defocus.
const LARGEST_STEP: [f64; 3] = [0.1, 1.5, 0.5];
/// Gain in log-posterior that a step must promise.
const LEAST_GAIN: f64 = 0.02;
/// Part of a step that is tried after it failed.
const SHORTER: f64 = 0.3;
/// Steps that may fail before a particle is left as it is.
const FAILURES: usize = 2;

/// A particle on its way.
#[derive(Clone, Debug)]
pub(crate) struct Descent {
    /// The best change so far, and its fit.
    pub best: Refinement,
    pub fit: ImageFit,
    /// Log-posterior of `best`.
    pub objective: f64,
    /// The change that is tried next; `None` where nothing is left to gain.
    pub trial: Option<Refinement>,
    step: Vector,
    failures: usize,
}

/// What all particles of a model share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Posterior {
    /// The prior of the changes.
    pub widths: Widths,
    /// Variance of an overlap by noise over the power: from sums of fits to log-likelihoods.
    pub noise: f64,
}

impl Posterior {
    /// Log-posterior of a change up to a constant.
    pub fn objective(&self, change: &Refinement, fit: &ImageFit) -> f64 {
        (fit.overlap - 0.5 * fit.power) / self.noise - self.widths.penalty(&numbers(change))
    }
}

/// Steps of a particle in a round, at most.
const STEPS: usize = 8;

/// Particles that are refined side by side.
#[derive(Clone, Copy)]
pub(crate) struct Group<'a> {
    /// The reader of the particles.
    pub reader: &'a Reader,
    /// As stored.
    pub particles: &'a [Particle],
    /// Their images.
    pub observations: &'a [Observation<'a>],
    /// Their changes so far.
    pub starts: &'a [Refinement],
}

/// Refines the particles of a group from their `starts`, in place of the views of their observations.
///
/// # Errors
/// When the device fails.
pub(crate) fn descend(device: &mut dyn Device, group: &Group, posterior: &Posterior) -> Result<Vec<Descent>> {
    let &Group { reader, particles, observations, starts } = group;
    let at = |index: usize, change: &Refinement| Observation {
        view: change.view(reader, &particles[index]),
        ..observations[index]
    };
    let batch: Vec<Observation> =
        starts.iter().enumerate().map(|(index, change)| at(index, change)).collect();
    let fits = device.fit(&batch)?;
    let begun = fits.into_iter().zip(starts).zip(particles);
    let mut all: Vec<Descent> = begun
        .map(|((fit, &change), particle)| Descent::new(change, fit, &particle.rotation, posterior))
        .collect();
    for _ in 0..STEPS {
        let trials: Vec<(usize, Refinement)> =
            all.iter().enumerate().filter_map(|(index, one)| Some((index, one.trial?))).collect();
        if trials.is_empty() {
            break;
        }
        let batch: Vec<Observation> = trials.iter().map(|(index, change)| at(*index, change)).collect();
        for ((index, _), fit) in trials.iter().zip(device.fit(&batch)?) {
            all[*index].tried(fit, &particles[*index].rotation, posterior);
        }
    }
    Ok(all)
}

/// The numbers of a change in the units of a fit.
pub(crate) fn numbers(change: &Refinement) -> Vector {
    let Refinement { rotation: [a, b, c], offset: [x, y], defocus } = *change;
    [a, b, c, x, y, defocus / DEFOCUS_UNIT]
}

impl Descent {
    /// Starts at `change`, whose fit is known, of a particle with the stored pose `pose`.
    pub fn new(change: Refinement, fit: ImageFit, pose: &Rotation, posterior: &Posterior) -> Self {
        let objective = posterior.objective(&change, &fit);
        let mut new = Self { best: change, fit, objective, trial: None, step: [0.0; REFINED], failures: 0 };
        new.propose(pose, posterior);
        new
    }

    /// Takes the trial if it is better, and proposes the next. Returns whether it was taken.
    pub fn tried(&mut self, fit: ImageFit, pose: &Rotation, posterior: &Posterior) -> bool {
        let Some(trial) = self.trial.take() else { return false };
        let objective = posterior.objective(&trial, &fit);
        if objective > self.objective {
            (self.best, self.fit, self.objective, self.failures) = (trial, fit, objective, 0);
            self.propose(pose, posterior);
            return true;
        }
        self.failures += 1;
        if self.failures <= FAILURES {
            self.step = self.step.map(|v| SHORTER * v);
            self.trial = Some(moved(&self.best, &self.step, pose));
        }
        false
    }

    /// Solves the normal equations at the best change.
    fn propose(&mut self, pose: &Rotation, posterior: &Posterior) {
        let Posterior { widths, noise } = posterior;
        let mut matrix = self.curvature(*noise);
        // In volume coordinates as the fit: the change so far is turned there.
        let so_far = in_volume(&self.best, pose);
        let mut drive: Vector = std::array::from_fn(|p| self.fit.gradient[p] / noise);
        let precision = widths.precisions(&so_far);
        for p in 0..REFINED {
            matrix[p][p] += precision[p];
            drive[p] -= precision[p] * so_far[p];
        }
        let Some(mut step) = solve(&matrix, &drive, |p| widths.is_refined(p)) else { return };
        let promised: f64 = 0.5 * step.iter().zip(&drive).map(|(s, d)| s * d).sum::<f64>();
        // Also where it is not a number.
        if promised.is_nan() || promised <= LEAST_GAIN {
            return;
        }
        for (kind_of, largest) in LARGEST_STEP.iter().enumerate() {
            let length =
                (0..REFINED).filter(|&p| kind(p) == kind_of).map(|p| step[p] * step[p]).sum::<f64>().sqrt();
            if length > *largest {
                (0..REFINED).filter(|&p| kind(p) == kind_of).for_each(|p| step[p] *= largest / length);
            }
        }
        self.step = step;
        self.trial = Some(moved(&self.best, &step, pose));
    }

    /// The curvature of the log-likelihood at the best change.
    fn curvature(&self, noise: f64) -> Matrix {
        std::array::from_fn(|p| std::array::from_fn(|q| self.fit.curvature[ImageFit::entry(p, q)] / noise))
    }

    /// The log-likelihood to second order about the best change, in volume coordinates.
    pub fn quadratic(&self, pose: &Rotation, posterior: &Posterior) -> Quadratic {
        let curvature = self.curvature(posterior.noise);
        let so_far = in_volume(&self.best, pose);
        let drive = std::array::from_fn(|p| {
            let moved: f64 = (0..REFINED)
                .filter(|&q| posterior.widths.is_refined(q))
                .map(|q| curvature[p][q] * so_far[q])
                .sum();
            self.fit.gradient[p] / posterior.noise + moved
        });
        Quadratic { curvature, drive, weight: posterior.widths.regularity(&so_far) }
    }
}

/// The numbers of a change with its rotation vector in volume coordinates.
pub(crate) fn in_volume(change: &Refinement, pose: &Rotation) -> Vector {
    let mut numbers = numbers(change);
    for axis in 0..3 {
        numbers[axis] = (0..3).map(|k| pose[k][axis] * change.rotation[k]).sum();
    }
    numbers
}

/// `change` and a step after it: the pose W becomes `W exp([eta]x)`, with eta the first numbers of `step`. `pose` is the stored one.
fn moved(change: &Refinement, step: &Vector, pose: &Rotation) -> Refinement {
    let eta = [step[0], step[1], step[2]];
    Refinement {
        rotation: turned(&change.rotation, &rotation_from_vector(eta), pose),
        offset: [0, 1].map(|axis| change.offset[axis] + step[OFFSET + axis]),
        defocus: change.defocus + DEFOCUS_UNIT * step[DEFOCUS],
    }
}

/// The rotation vector in view coordinates of a change of the stored `pose` by `rotation`, then by `by` in volume coordinates.
pub(crate) fn turned(rotation: &[f64; 3], by: &Rotation, pose: &Rotation) -> [f64; 3] {
    // exp([rotation]x) W by W^T.
    let turn = product(&product(pose, by), &transposed(pose));
    vector_from_rotation(&product(&rotation_from_vector(*rotation), &turn))
}

/// The rotation vector of a change by `rotation`, then by `by` in view coordinates.
pub(crate) fn turned_in_view(rotation: &[f64; 3], by: &Rotation) -> [f64; 3] {
    vector_from_rotation(&product(by, &rotation_from_vector(*rotation)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::pose::rotation_from_relion;
    use crate::render::reference::ENTRIES;

    /// The log-likelihood -1/2 |x - c|^2 `curvature` of an image, in place of a device: x are the numbers in volume coordinates.
    fn fit(change: &Refinement, pose: &Rotation, best: &Vector, curvature: f64) -> ImageFit {
        let x = in_volume(change, pose);
        let mut of = ImageFit { power: 0.0, overlap: 0.0, gradient: [0.0; 7], curvature: [0.0; ENTRIES] };
        for p in 0..REFINED {
            of.gradient[p] = curvature * (best[p] - x[p]);
            of.overlap -= 0.5 * curvature * (best[p] - x[p]).powi(2);
            of.curvature[ImageFit::entry(p, p)] = curvature;
        }
        of
    }

    fn descended(best: &Vector, curvature: f64, widths: Widths) -> (Refinement, usize) {
        let pose = rotation_from_relion(30.0, 70.0, -110.0);
        let posterior = Posterior { widths, noise: 1.0 };
        let start = Refinement::default();
        let mut descent = Descent::new(start, fit(&start, &pose, best, curvature), &pose, &posterior);
        let mut steps = 0;
        while let Some(trial) = descent.trial {
            assert!(descent.tried(fit(&trial, &pose, best, curvature), &pose, &posterior), "each step gains");
            steps += 1;
        }
        (descent.best, steps)
    }

    #[test]
    fn a_particle_descends_to_its_minimum_and_no_farther_than_its_prior_lets_it() {
        let best = [0.02, -0.03, 0.01, 0.7, -0.4, 0.05];
        let pose = rotation_from_relion(30.0, 70.0, -110.0);
        let (found, steps) = descended(&best, 1e6, Widths([1.0, 10.0, 10.0]));
        for (a, b) in in_volume(&found, &pose).iter().zip(best) {
            assert!((a - b).abs() < 2e-4, "{found:?}");
        }
        assert!(steps <= 3, "{steps}");
        // As strong a prior as the likelihood: half of the way.
        let (half, _) = descended(&best, 1e4, Widths([0.01, 0.01, 0.01]));
        assert!((half.offset[0] - 0.35).abs() < 1e-6, "{half:?}");
        // Defoci are not refined.
        let (some, _) = descended(&best, 1e6, Widths([1.0, 10.0, 0.0]));
        assert_eq!(some.defocus, 0.0);
        assert!((some.offset[1] + 0.4).abs() < 1e-3);
    }

    #[test]
    fn steps_are_limited_and_turn_the_pose_in_volume_coordinates() {
        let pose = rotation_from_relion(30.0, 70.0, -110.0);
        let step = [0.3, -0.2, 0.1, 0.0, 0.0, 0.0];
        let start = Refinement { rotation: [0.05, 0.1, -0.2], ..Refinement::default() };
        let there = moved(&start, &step, &pose);
        let turned = product(&rotation_from_vector(there.rotation), &pose);
        let before = product(&rotation_from_vector(start.rotation), &pose);
        let expected = product(&before, &rotation_from_vector([0.3, -0.2, 0.1]));
        for (a, b) in turned.iter().flatten().zip(expected.iter().flatten()) {
            assert!((a - b).abs() < 1e-12);
        }
        let far = [1.0, 0.0, 0.0, 9.0, 0.0, 0.0];
        let posterior = Posterior { widths: Widths([9.0, 99.0, 9.0]), noise: 1.0 };
        let start = Refinement::default();
        let descent = Descent::new(start, fit(&start, &pose, &far, 1e6), &pose, &posterior);
        let trial = descent.trial.unwrap();
        let angle =
            vector_from_rotation(&rotation_from_vector(trial.rotation)).map(|v| v * v).iter().sum::<f64>();
        assert!(
            (angle.sqrt() - LARGEST_STEP[0]).abs() < 1e-12
                && (trial.offset[0] - LARGEST_STEP[1]).abs() < 1e-12
        );
    }

    #[test]
    fn a_step_that_fails_is_shortened_and_then_given_up() {
        let pose = rotation_from_relion(0.0, 0.0, 0.0);
        let posterior = Posterior { widths: Widths([1.0, 10.0, 0.0]), noise: 1.0 };
        let start = Refinement::default();
        let right = fit(&start, &pose, &[0.01; REFINED], 1e6);
        let mut descent = Descent::new(start, right, &pose, &posterior);
        let first = descent.trial.unwrap();
        let worse = ImageFit { overlap: right.overlap - 1.0, ..right };
        assert!(!descent.tried(worse, &pose, &posterior));
        let second = descent.trial.unwrap();
        assert!((second.offset[0] - SHORTER * first.offset[0]).abs() < 1e-12);
        while descent.trial.is_some() {
            descent.tried(worse, &pose, &posterior);
        }
        assert_eq!(descent.best, start);
    }
}
