//! What steps came to, and which of them are told when one was not finite.

use std::collections::VecDeque;

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Mean loss over the step's images, of all ranks.
    pub loss: f64,
    /// Euclidean norm of the mean gradient of all raw parameters, over the step's images of all ranks.
    pub gradient_norm: f64,
    /// The optimiser has taken the step. Else parameters and moments are what they were before it: the step was not
    /// finite, or came after one that was not, before [`super::Device::mend`].
    pub applied: bool,
}

impl Outcome {
    /// Are loss and gradient numbers?
    pub fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.gradient_norm.is_finite()
    }
}

/// The outcomes of a device's steps, in order, until they are asked for.
#[derive(Debug, Default)]
pub(super) struct OutcomeQueue {
    known: VecDeque<Outcome>,
    /// Steps whose outcomes were taken.
    taken: u64,
    /// Steps before the last mending.
    mended: u64,
    /// The outcome of a step that broke the device was the last that was taken.
    broken: bool,
}

impl OutcomeQueue {
    /// The outcome of the next step.
    pub fn push(&mut self, outcome: Outcome) {
        self.known.push_back(outcome);
    }

    /// Steps whose outcomes are known.
    pub fn steps(&self) -> u64 {
        self.taken + self.known.len() as u64
    }

    /// Takes what is known, up to a step that broke the device.
    pub fn take(&mut self) -> Vec<Outcome> {
        let mut taken = Vec::new();
        while !self.broken
            && let Some(outcome) = self.known.pop_front()
        {
            self.taken += 1;
            // Of the steps after a mending, the first without effect is the one that was not finite.
            self.broken = !outcome.applied && self.taken > self.mended;
            taken.push(outcome);
        }
        taken
    }

    /// The device was mended after `steps` steps.
    pub fn mend(&mut self, steps: u64) {
        self.broken = false;
        self.mended = steps;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_told_behind_a_broken_step_until_it_is_mended() {
        let outcome = |loss: f64, applied: bool| Outcome { loss, gradient_norm: 1.0, applied };
        let mut queue = OutcomeQueue::default();
        let losses = |queue: &mut OutcomeQueue| -> Vec<f64> { queue.take().iter().map(|o| o.loss).collect() };
        for (loss, applied) in [(0.0, true), (1.0, true), (2.0, false), (3.0, false)] {
            queue.push(outcome(loss, applied));
        }
        assert_eq!(losses(&mut queue), [0.0, 1.0, 2.0]);
        queue.push(outcome(4.0, false));
        assert!(losses(&mut queue).is_empty());
        // One more step was taken before, whose outcome comes later; the one after that breaks the device anew.
        queue.mend(queue.steps() + 1);
        assert_eq!(losses(&mut queue), [3.0, 4.0]);
        for (loss, applied) in [(5.0, false), (6.0, false), (7.0, false)] {
            queue.push(outcome(loss, applied));
        }
        assert_eq!(losses(&mut queue), [5.0, 6.0]);
        queue.mend(queue.steps());
        queue.push(outcome(8.0, true));
        assert_eq!(losses(&mut queue), [7.0, 8.0]);
    }
}
