//! What devices tell of their steps, and what they do about one that is not finite: the same checks for every device.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use cryosplat_mpi::error::Result;
use cryosplat_mpi::gmm::{Gmm, Shape};
use cryosplat_mpi::render::{
    AdamStep, Alone, Device, DeviceState, Observation, Outcome, RateFactors, Reduce, Step, Target,
};

use super::cases::{Case, TOLERANCE, case, planes, seed};
use super::reference;

/// Makes the device under test, with a cutoff of 3.
pub type Make<'a> = &'a (dyn Fn(Gmm, &Case) -> Box<dyn Device> + Sync);

/// The same for every step: what is left out then changes nothing else.
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

fn bits(outcome: &Outcome) -> (u64, u64, bool) {
    (outcome.loss.to_bits(), outcome.gradient_norm.to_bits(), outcome.applied)
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
        assert!(outcome.applied && outcome.is_finite());
    }
}

/// Two ranks, of which the other changes what the sum is.
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

/// A rank that has no images of a step, after one of which it had some.
pub fn a_rank_without_images_adds_nothing(make: Make) {
    let case = case(17, 32, 61, 2, false);
    let mut device = make(planes(&case.gaussians, Shape::Anisotropic), &case);
    let loss = outcome_of(device.as_mut(), &case).loss;
    step(device.as_mut(), &[], 2, &mut Alone);
    let outcome = device.outcomes(true, &mut Alone).unwrap()[0];
    assert!(loss > 0.0 && outcome.applied);
    assert_eq!((outcome.loss, outcome.gradient_norm), (0.0, 0.0));
}

/// Gradients of any size, and each place in which one may not be finite.
pub fn every_value_counts(make: Make) {
    // More values than one block of a GPU takes.
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
    assert!(usual.applied);
    assert_eq!(bits(&outcome(&|_| {}).0), bits(&usual));
    for at in [0, length / 2, length - 1] {
        // Its square is beyond single precision: large, and not broken.
        let (large, state) = outcome(&|buffer| buffer[at] = f32::MAX);
        assert!(large.applied && (large.gradient_norm / (f64::from(f32::MAX) / 2.0) - 1.0).abs() < 1e-12);
        assert!(state.gmm.values().iter().all(|v| v.is_finite()));
    }
    for at in [0, 2047, 2048, length / 2, length - 1, length] {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (broken, state) = outcome(&|buffer| buffer[at] = value);
            assert!(!broken.applied && !broken.is_finite(), "{value} at {at}: {broken:?}");
            assert_eq!(broken.loss.is_finite(), at < length);
            assert_eq!(state.gmm, start);
            assert!(state.first.iter().chain(&state.second).all(|&v| v == 0.0));
        }
    }
}

/// Three images a step from a few, in turns.
fn batch<'a>(all: &[Observation<'a>], number: usize) -> [Observation<'a>; 3] {
    std::array::from_fn(|k| all[(number * 2 + k) % all.len()])
}

/// A step over an image with a NaN, with steps before and behind it.
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
    let take_spoilt = |device: &mut dyn Device| step(device, &[all[0], spoilt, all[1]], 3, &mut Alone);
    let told = |device: &mut dyn Device| device.outcomes(true, &mut Alone).unwrap();

    let mut sound = make(start.clone(), &case);
    take(sound.as_mut(), 0..6);
    let (before, checksum) = (sound.state().unwrap(), sound.checksum(&mut Alone).unwrap());
    // A device that is not broken stays as it is.
    sound.mend().unwrap();
    take(sound.as_mut(), 6..12);
    let want = told(sound.as_mut());
    assert!(want.len() == 12 && want.iter().all(|outcome| outcome.applied && outcome.is_finite()));
    let after = sound.state().unwrap();
    assert_ne!(before.gmm, after.gmm);

    let mut device = make(start, &case);
    take(device.as_mut(), 0..6);
    take_spoilt(device.as_mut());
    take(device.as_mut(), 6..9);
    let got = told(device.as_mut());
    assert_eq!(got.len(), 7, "the broken one is the last that is told: {got:?}");
    assert!(!got[6].is_finite() && !got[6].applied);
    assert!(got[..6].iter().zip(&want).all(|(got, want)| bits(got) == bits(want)));
    assert!(told(device.as_mut()).is_empty());
    assert_eq!(device.state().unwrap(), before);
    assert_eq!(device.checksum(&mut Alone).unwrap(), checksum);

    // Not all that came behind it was told of before it is mended.
    take(device.as_mut(), 9..10);
    device.mend().unwrap();
    // Broken anew at once.
    take_spoilt(device.as_mut());
    take(device.as_mut(), 6..7);
    let got = told(device.as_mut());
    assert_eq!(got.len(), 5, "{got:?}");
    assert!(got.iter().all(|outcome| !outcome.applied), "{got:?}");
    assert!(got[..4].iter().all(Outcome::is_finite) && !got[4].is_finite(), "{got:?}");
    assert_eq!((got[0].loss, got[0].gradient_norm), (want[6].loss, want[6].gradient_norm));
    assert_eq!(device.state().unwrap(), before);

    device.mend().unwrap();
    take(device.as_mut(), 6..12);
    let got = told(device.as_mut());
    assert_eq!(got.len(), 7, "{got:?}");
    assert!(!got[0].applied);
    assert!(got[1..].iter().zip(&want[6..]).all(|(got, want)| bits(got) == bits(want)));
    assert_eq!(device.state().unwrap(), after);

    // A state that is put back mends, too.
    take_spoilt(device.as_mut());
    device.restore(before).unwrap();
    take(device.as_mut(), 6..12);
    let got = told(device.as_mut());
    assert!(got.len() == 7 && !got[0].is_finite());
    assert!(got[1..].iter().zip(&want[6..]).all(|(got, want)| bits(got) == bits(want)));
    assert_eq!(device.state().unwrap(), after);
}

/// A rank that is a thread. One that ends early ends the others.
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

/// Runs four ranks, of which one has an image with a NaN in the third step if `spoilt`; all mend behind the fifth.
fn on_four_ranks(make: Make, spoilt: bool) -> Vec<(Vec<Outcome>, Vec<Outcome>, DeviceState)> {
    let case = case(33, 32, 60, 8, false);
    let mut observed = case.observed();
    observed[5][70] = f32::NAN;
    let all = case.observations(&observed);
    let rank = |number: usize, mut group: Rank| {
        let mut device = make(planes(&case.gaussians, Shape::Anisotropic), &case);
        // Image 5 is in batch 2 only, and rank 2's.
        let mut take = |device: &mut dyn Device, batch: usize| {
            let own = if batch == 2 && number == 2 { 5 } else { (number + batch) % 5 };
            step(device, &[all[own]], 4, &mut group);
        };
        let mut outcomes = Vec::new();
        if spoilt {
            (0..5).for_each(|batch| take(device.as_mut(), batch));
            outcomes = device.outcomes(true, &mut Alone).unwrap();
            device.mend().unwrap();
        } else {
            (0..2).for_each(|batch| take(device.as_mut(), batch));
        }
        (3..9).for_each(|batch| take(device.as_mut(), batch));
        let more = device.outcomes(true, &mut Alone).unwrap();
        (outcomes, more, device.state().unwrap())
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

pub fn four_ranks_break_and_mend_together(make: Make) {
    let (sound, broken) = (on_four_ranks(make, false), on_four_ranks(make, true));
    for (outcomes, more, state) in &broken {
        assert_eq!(outcomes.len(), 3, "{outcomes:?}");
        assert!(outcomes[..2].iter().all(|o| o.applied) && !outcomes[2].applied && !outcomes[2].is_finite());
        let (_, want, want_state) = &sound[0];
        // The two steps behind it, then the six again.
        assert_eq!((more.len(), want.len()), (8, 8));
        assert!(more[..2].iter().all(|outcome| !outcome.applied && outcome.is_finite()));
        assert!(outcomes[..2].iter().chain(&more[2..]).zip(want).all(|(got, want)| bits(got) == bits(want)));
        assert_eq!(state, want_state);
        assert_eq!(bits(&outcomes[0]), bits(&broken[0].0[0]));
    }
}
