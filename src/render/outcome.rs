//! Outcomes of steps, and where their list ends when a step is not finite.

use std::collections::VecDeque;

/// Loss and gradient norm of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Mean loss over the step's images, of all ranks.
    pub loss: f64,
    /// Euclidean norm of the mean gradient of all raw parameters, over the step's images of all ranks.
    pub gradient_norm: f64,
}

impl Outcome {
    /// Whether loss and gradient are finite: the optimiser applies a step only if they are.
    pub fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.gradient_norm.is_finite()
    }
}

/// The outcomes of a device's steps, in order, until they are taken. It ends with the first step that is not finite: later
/// steps have no effect, and their outcomes are dropped.
#[derive(Debug, Default)]
pub(super) struct OutcomeQueue {
    known: VecDeque<Outcome>,
    broken: bool,
}

impl OutcomeQueue {
    /// Appends the outcome of the next step.
    pub fn push(&mut self, outcome: Outcome) {
        if !self.broken {
            self.broken = !outcome.is_finite();
            self.known.push_back(outcome);
        }
    }

    /// Takes all outcomes since the last call.
    pub fn take(&mut self) -> Vec<Outcome> {
        self.known.drain(..).collect()
    }

    /// Whether a step was not finite.
    pub fn is_broken(&self) -> bool {
        self.broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_follows_a_step_that_is_not_finite() {
        let mut queue = OutcomeQueue::default();
        for loss in [0.0, 1.0, f64::NAN, 3.0] {
            queue.push(Outcome { loss, gradient_norm: 1.0 });
        }
        let losses: Vec<f64> = queue.take().iter().map(|outcome| outcome.loss).collect();
        assert!(losses.len() == 3 && losses[..2] == [0.0, 1.0] && losses[2].is_nan(), "{losses:?}");
        queue.push(Outcome { loss: 4.0, gradient_norm: 1.0 });
        assert!(queue.is_broken() && queue.take().is_empty());
    }
}
