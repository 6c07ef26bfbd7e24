//! Outcomes of steps, and non-finite steps: the same checks for every device.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use cryosplat_mpi::error::Result;
use cryosplat_mpi::gmm::{Gmm, Shape};
use cryosplat_mpi::render::{
    AdamStep, Alone, Device, DeviceState, Observation, Outcome, RateFactors, Reduce, Step, Target,
};

use super::cases::{Case, TOLERANCE, case, planes, seed};
use super::reference;

/// Constructor of the device under test, with a cutoff of 3.
pub type Make<'a> = &'a (dyn Fn(Gmm, &Case) -> Box<dyn Device> + Sync);

/// Used for every step.
pub const ADAM: AdamStep = AdamStep {
    rate: 1e-3,
    beta1: 0.9,
    beta2: 0.99,
    epsilon: 1e-15,
    correction1: 0.1,
    correction2: 0.01,
    factors: RateFactors::ONE,
};

fn step(device: &mut dyn Device, batch: &[Observation], images: usize, group: &mut dyn Reduce) {
    device.step(batch, &Step { images: images as u64, adam: ADAM }, group).unwrap();
}

fn bits(outcome: &Outcome) -> (u64, u64) {
    (outcome.loss.to_bits(), outcome.gradient_norm.to_bits())
}

/// The outcome of one step over all images of a case.
pub fn outcome_of(device: &mut dyn Device, case: &Case) -> Outcome {
    let observed = case.observed();
    step(device, &case.observations(&observed), case.images.len(), &mut Alone);
    let outcomes = device.outcomes(true, &mut Alone).unwrap();
    assert_eq!(outcomes.len(), 1);
    outcomes[0]
}

pub fn losses_and_norms_agree_with_the_reference(make: Make) {
    let seed = seed();
    for (k, d, n, images) in [(0, 32, 61, 3), (1, 33, 61, 1), (2, 32, 400, 4)] {
        let case = case(seed + k, d, n, images, false);
        let outcome = outcome_of(make(planes(&case.gaussians, Shape::Anisotropic), &case).as_mut(), &case);
        let loss = reference::loss(&case.gaussians, &case.images, d, 3.0);
        let gradient = reference::gradient(&case.gaussians, &case.images, d, 3.0);
        let norm = gradient.iter().flatten().map(|g| g * g).sum::<f64>().sqrt();
        assert!((outcome.loss / loss - 1.0).abs() < TOLERANCE, "seed {seed}: {outcome:?}, expected {loss}");
        let error = (outcome.gradient_norm / norm - 1.0).abs();
        assert!(error < TOLERANCE, "seed {seed}: {outcome:?}, expected {norm}, off by {error:.1e}");
        assert!(outcome.is_finite());
    }
}

/// Stands for two ranks: applies a function as the contribution of the other rank.
pub struct Planted<'a>(pub &'a dyn Fn(&mut [f32]));

impl Reduce for Planted<'_> {
    fn sum(&mut self, buffer: &mut [f32]) -> Result<()> {
        (self.0)(buffer);
        Ok(())
    }

    fn ranks(&self) -> usize {
        2
    }
}

/// A rank without images in a step, after a step with images.
pub fn a_rank_without_images_adds_nothing(make: Make) {
    let case = case(17, 32, 61, 2, false);
    let mut device = make(planes(&case.gaussians, Shape::Anisotropic), &case);
    let loss = outcome_of(device.as_mut(), &case).loss;
    step(device.as_mut(), &[], 2, &mut Alone);
    let outcome = device.outcomes(true, &mut Alone).unwrap()[0];
    assert!(loss > 0.0);
    assert_eq!((outcome.loss, outcome.gradient_norm), (0.0, 0.0));
}

/// Gradients of any size, with a non-finite value at each position.
pub fn every_value_counts(make: Make) {
    // More values than one GPU block processes.
    let case = case(31, 32, 700, 1, false);
    let observed = case.observed();
    let batch = case.observations(&observed);
    let start = planes(&case.gaussians, Shape::Anisotropic);
    let length = start.values().len();
    let wild = |k: usize| (k as f64 * 0.7).sin() * 10f64.powi((k * 13 % 60) as i32 - 30);
    let norm = (0..length).map(|k| f64::from(wild(k) as f32).powi(2)).sum::<f64>().sqrt() / 2.0;
    let plant = |buffer: &mut [f32]| {
        assert_eq!(buffer.len(), length + 1);
        buffer.iter_mut().take(length).enumerate().for_each(|(k, value)| *value = wild(k) as f32);
    };
    let outcome = |change: &dyn Fn(&mut [f32])| {
        let mut device = make(start.clone(), &case);
        step(device.as_mut(), &batch, 2, &mut Planted(&|buffer| (plant(buffer), change(buffer)).1));
        let outcome = device.outcomes(true, &mut Planted(&plant)).unwrap()[0];
        (outcome, device.state().unwrap())
    };
    let (usual, _) = outcome(&|_| {});
    assert!((usual.gradient_norm / norm - 1.0).abs() < 1e-12, "{usual:?}, expected {norm}");
    assert_eq!(bits(&outcome(&|_| {}).0), bits(&usual));
    for at in [0, length / 2, length - 1] {
        // The square overflows single precision, but the value is finite.
        let (large, state) = outcome(&|buffer| buffer[at] = f32::MAX);
        assert!((large.gradient_norm / (f64::from(f32::MAX) / 2.0) - 1.0).abs() < 1e-12);
        assert!(state.gmm != start && state.gmm.values().iter().all(|v| v.is_finite()));
    }
    for at in [0, 2047, 2048, length / 2, length - 1, length] {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (broken, state) = outcome(&|buffer| buffer[at] = value);
            assert!(!broken.is_finite(), "{value} at {at}: {broken:?}");
            assert_eq!(broken.loss.is_finite(), at < length);
            assert_eq!(state.gmm, start);
            assert!(state.first.iter().chain(&state.second).all(|&v| v == 0.0));
        }
    }
}

/// Three images per step, cyclically.
fn batch<'a>(all: &[Observation<'a>], number: usize) -> [Observation<'a>; 3] {
    std::array::from_fn(|k| all[(number * 2 + k) % all.len()])
}

/// A step over an image with a NaN, with steps before and after it.
pub fn a_step_that_is_not_finite_changes_nothing(make: Make) {
    let case = case(32, 32, 90, 7, false);
    let observed = case.observed();
    let all = case.observations(&observed);
    let mut spoilt_image = observed[3].clone();
    spoilt_image[500] = f32::NAN;
    let spoilt = Observation {
        target: Target::Observed(&spoilt_image),
        energy: cryosplat_mpi::render::energy(&spoilt_image),
        ..all[3]
    };
    let start = planes(&case.gaussians, Shape::Anisotropic);
    let take = |device: &mut dyn Device, numbers: std::ops::Range<usize>| {
        for number in numbers {
            step(device, &batch(&all, number), 3, &mut Alone);
        }
    };
    let outcomes = |device: &mut dyn Device| device.outcomes(true, &mut Alone).unwrap();

    let mut sound = make(start.clone(), &case);
    take(sound.as_mut(), 0..6);
    let want = outcomes(sound.as_mut());
    assert!(want.len() == 6 && want.iter().all(Outcome::is_finite));
    let (before, checksum) = (sound.state().unwrap(), sound.checksum(&mut Alone).unwrap());

    let mut device = make(start, &case);
    take(device.as_mut(), 0..6);
    step(device.as_mut(), &[all[0], spoilt, all[1]], 3, &mut Alone);
    take(device.as_mut(), 6..9);
    let got = outcomes(device.as_mut());
    assert_eq!(got.len(), 7, "the step that is not finite is the last one: {got:?}");
    assert!(!got[6].is_finite());
    assert!(got[..6].iter().zip(&want).all(|(got, want)| bits(got) == bits(want)));
    assert_eq!(device.state().unwrap(), before);
    assert_eq!(device.checksum(&mut Alone).unwrap(), checksum);
    // Later steps have no effect.
    take(device.as_mut(), 9..10);
    assert!(outcomes(device.as_mut()).is_empty());
    assert_eq!(device.state().unwrap(), before);
    // The image that caused it is identified.
    let found = [all[0], spoilt, all[1]].map(|one| device.gradient(&[one]).unwrap().1.is_finite());
    assert_eq!(found, [true, false, true]);
}

/// A rank that runs as a thread. If one ends early, the others end too.
struct Rank {
    to: Vec<Sender<Arc<Vec<f32>>>>,
    from: Vec<Receiver<Arc<Vec<f32>>>>,
}

impl Reduce for Rank {
    fn sum(&mut self, buffer: &mut [f32]) -> Result<()> {
        let mine = Arc::new(buffer.to_vec());
        self.to.iter().for_each(|to| to.send(mine.clone()).expect("the other ranks are there"));
        buffer.fill(0.0);
        for from in &self.from {
            let part = from.recv().expect("the other ranks are there");
            buffer.iter_mut().zip(part.iter()).for_each(|(sum, value)| *sum += value);
        }
        Ok(())
    }

    fn ranks(&self) -> usize {
        self.to.len()
    }
}

fn ranks<const N: usize>() -> Vec<Rank> {
    let mut ranks: Vec<Rank> = (0..N).map(|_| Rank { to: Vec::new(), from: Vec::new() }).collect();
    for from in 0..N {
        for to in 0..N {
            let (sender, receiver) = channel();
            ranks[from].to.push(sender);
            ranks[to].from.push(receiver);
        }
    }
    ranks
}

/// Runs four ranks over two steps; if `spoilt`, over three more, of which the first has an image with a NaN on one rank.
fn on_four_ranks(make: Make, spoilt: bool) -> Vec<(Vec<Outcome>, DeviceState)> {
    let case = case(33, 32, 60, 8, false);
    let mut observed = case.observed();
    observed[5][70] = f32::NAN;
    let all = case.observations(&observed);
    let rank = |number: usize, mut group: Rank| {
        let mut device = make(planes(&case.gaussians, Shape::Anisotropic), &case);
        for batch in 0..if spoilt { 5 } else { 2 } {
            // Image 5 is only in batch 2, on rank 2.
            let own = if batch == 2 && number == 2 { 5 } else { (number + batch) % 5 };
            step(device.as_mut(), &[all[own]], 4, &mut group);
        }
        (device.outcomes(true, &mut Alone).unwrap(), device.state().unwrap())
    };
    let rank = &rank;
    std::thread::scope(|scope| {
        let threads: Vec<_> = ranks::<4>()
            .into_iter()
            .enumerate()
            .map(|(number, group)| scope.spawn(move || rank(number, group)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

pub fn four_ranks_stop_at_the_same_step(make: Make) {
    let (sound, broken) = (on_four_ranks(make, false), on_four_ranks(make, true));
    let (want, want_state) = &sound[0];
    for (outcomes, state) in &broken {
        assert!(outcomes.len() == 3 && !outcomes[2].is_finite(), "{outcomes:?}");
        assert!(outcomes[..2].iter().zip(want).all(|(got, want)| bits(got) == bits(want)));
        assert_eq!(state, want_state);
    }
}
