//! What was refined of a model's particles, and the prior of the next round (docs/method.md, section 15).

use crate::parallel::Collective;
use crate::particles::refinement::Refinement;
use crate::recipe::Refine;
use crate::refine::prior::{KINDS, Widths};
use crate::render::reference::DEFOCUS_UNIT;
use crate::run_folder::refinement::{RefinementState, RoundSummary};

/// Prior widths before the first round: in radians, box edges, angstrom.
const FIRST_WIDTHS: [f64; KINDS] = [0.15, 0.03, 500.0];
/// Range of the widths, in the same units.
const LEAST_WIDTHS: [f64; KINDS] = [5e-4, 5e-5, 5.0];
const LARGEST_WIDTHS: [f64; KINDS] = [0.5, 0.1, 2000.0];

/// What was refined of a model's particles.
#[derive(Clone, Debug)]
pub(super) struct RefinedModel {
    /// Of the particles of this rank.
    own: Vec<Refinement>,
    /// The rounds; and on the first rank of the group, what was refined of all particles.
    pub state: RefinementState,
}

impl RefinedModel {
    /// After the rounds of `state`, of the rank with the rows `own` of those from `first` on.
    pub fn new(state: Option<RefinementState>, own: std::ops::Range<usize>, first: usize) -> Self {
        let state = state.unwrap_or_default();
        let own = match state.particles.get(own.start - first..own.end - first) {
            Some(own) => own.to_vec(),
            None => vec![Refinement::default(); own.len()],
        };
        Self { own, state }
    }

    /// Of the particles of this rank.
    pub fn own(&self) -> &[Refinement] {
        &self.own
    }

    /// Of the particles in `rows`, where `first` is the first row of this rank.
    pub fn of_rows(&self, rows: &[usize], first: usize) -> Vec<Refinement> {
        rows.iter().map(|row| self.own[row - first]).collect()
    }

    /// Of all particles of the model, on every rank of the group. Every rank calls it.
    pub fn gather(&self, collective: &Collective) -> Vec<Refinement> {
        let own: &[u64] = bytemuck::cast_slice(&self.own);
        bytemuck::cast_slice(&collective.all_gather_in_rank_order(own)).to_vec()
    }

    /// Ends a round. Every rank of the group calls it.
    pub fn finish(&mut self, Round { own, summary }: Round, collective: &Collective) {
        self.own = own;
        self.state.rounds.push(summary);
        let all = self.gather(collective);
        if collective.rank() == 0 {
            self.state.particles = all;
        }
    }

    /// The prior of the next round, for images of `box_size` pixels.
    pub fn widths(&self, refine: &Refine, box_size: usize) -> Widths {
        let [rotation, offset, defocus] = FIRST_WIDTHS;
        let last = self.state.rounds.last().copied().unwrap_or(RoundSummary {
            rotation_width: rotation,
            offset_width: offset * box_size as f64,
            defocus_width: defocus,
            ..RoundSummary::default()
        });
        of_refined(refine, [last.rotation_width, last.offset_width, last.defocus_width])
    }
}

/// Widths in radians, pixels and angstrom as those of fits; 0 where nothing is refined.
fn of_refined(refine: &Refine, [rotation, offset, defocus]: [f64; KINDS]) -> Widths {
    let on = |is_on: bool, width: f64| if is_on { width } else { 0.0 };
    Widths([
        on(refine.poses, rotation),
        on(refine.shifts, offset),
        on(refine.defocus, defocus / DEFOCUS_UNIT),
    ])
}

/// The least and the largest widths, for images of `box_size` pixels.
pub(super) fn range_of_widths(refine: &Refine, box_size: usize) -> [Widths; 2] {
    [LEAST_WIDTHS, LARGEST_WIDTHS]
        .map(|[rotation, offset, defocus]| of_refined(refine, [rotation, offset * box_size as f64, defocus]))
}

/// What a round changes of a model.
pub(super) struct Round {
    /// What was refined of the particles of this rank.
    pub own: Vec<Refinement>,
    pub summary: RoundSummary,
}
