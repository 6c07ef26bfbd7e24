//! The refinement of the particles of a rank against its model (docs/method.md, section 15).

use std::ops::ControlFlow;

use ndarray::Array3;

use super::refined_model::{RefinedModel, Round, range_of_widths};
use crate::error::Result;
use crate::gmm::Gmm;
use crate::gmm::symmetric::whole;
use crate::gmm::voxelize::{Grid, voxelize};
use crate::imaging::Symmetry;
use crate::loader::shard::{Batch, Shard};
use crate::parallel::{Collective, EndSignal};
use crate::particles::refinement::Refinement;
use crate::particles::store::Particle;
use crate::recipe::Refine;
use crate::refine::confirmed;
use crate::refine::frame::Frame;
use crate::refine::newton::{Group, Posterior, descend, numbers};
use crate::refine::prior::{self, PriorSums, Quadratic, Widths};
use crate::refine::search::{Search, Verdict, misfit, take_better};
use crate::refine::spectrum::{map_size, reference_of};
use crate::render::reference::DEFOCUS_UNIT;
use crate::render::{Device, Observation};
use crate::run_folder::refinement::RoundSummary;

/// Particles of a rank that widths are estimated from, at most.
const ESTIMATED_FROM: usize = 4096;
/// Particles whose poses are read at once.
const ROWS_PER_READ: usize = 4096;
/// Particles that are refined side by side.
const GROUP: usize = 256;
/// Particles of a model that are searched to find out whether all must be.
const SAMPLE: usize = 256;

/// The map of the mean of `mixtures` on a grid of `size` voxels over the box.
pub(super) fn map_of(mixtures: &[Gmm], symmetry: Symmetry, size: usize, box_size: usize) -> Array3<f32> {
    let gmm = whole(&Gmm::mean(mixtures), symmetry);
    voxelize(&gmm, &Grid { size, per_box: size as f64, box_size })
}

/// What the particles of a rank are refined with.
pub(super) struct Refiner<'a> {
    pub device: &'a mut dyn Device,
    pub shard: &'a mut Shard,
    pub collective: &'a Collective,
    pub refined: &'a RefinedModel,
    /// What is refined.
    pub refine: &'a Refine,
    /// Variance of an overlap by noise over the power.
    pub noise: f64,
    pub epoch: usize,
    pub signal: &'a EndSignal,
}

/// Counts and sums of the steps of a rank's particles.
#[derive(Clone, Copy, Debug, Default)]
struct Steps {
    accepted: u64,
    searched: u64,
    rotation: f64,
    offset: f64,
}

impl Refiner<'_> {
    /// Refines the particles against the mean of `mixtures`, of which `curve` is confirmed. Every rank of the group calls it.
    pub fn run(mut self, (mixtures, symmetry): (&[Gmm], Symmetry), curve: &[f64]) -> Result<Round> {
        let mut round = Round { own: self.refined.own().to_vec(), summary: RoundSummary::default() };
        let box_size = self.shard.reader().header().box_size;
        let limit = confirmed::limit(curve).min(box_size / 2);
        let known = self.refined.widths(self.refine, box_size);
        let mut widths = known;
        if self.epoch < self.refine.first_with_defocus() {
            widths.0[2] = 0.0;
        }
        let summary = &mut round.summary;
        summary.epoch = self.epoch as u64;
        if limit >= confirmed::FEWEST {
            summary.limit = limit as u64;
            let map = map_of(mixtures, symmetry, map_size(limit, box_size), box_size);
            let reference = reference_of(&map, box_size, limit, curve);
            self.device.set_reference(&reference)?;
            let posterior = Posterior { widths, noise: self.noise };
            let search = Search::new(reference.search_limit, box_size, &posterior);
            let verdict = self.look(&search, &posterior)?;
            let (own, quadratics, steps) = self.descend_all(&search, &verdict, &posterior)?;
            round.own = own;
            self.keep_frame(&mut round.own, symmetry, &posterior)?;
            let [least, most] = range_of_widths(self.refine, box_size);
            let stride = quadratics.len().div_ceil(ESTIMATED_FROM).max(1);
            let some: Vec<Quadratic> = quadratics.into_iter().step_by(stride).collect();
            let found = prior::estimate(&some, &widths, [&least, &most], |sums| self.total(sums));
            // A kind that is not refined in this round keeps its width.
            let found = Widths(std::array::from_fn(|kind| match widths.0[kind] {
                0.0 => known.0[kind],
                _ => found.0[kind],
            }));
            let [accepted, searched, rotation, offset] =
                self.total([steps.accepted as f64, steps.searched as f64, steps.rotation, steps.offset]);
            (summary.accepted, summary.searched) = (accepted as u64, searched as u64);
            summary.mean_rotation_step = rotation / accepted.max(1.0);
            summary.mean_offset_step = offset / accepted.max(1.0);
            set_widths(summary, &found);
        } else {
            set_widths(summary, &known);
        }
        // What was read for it does not count as the next epoch's.
        self.shard.traffic();
        Ok(round)
    }

    /// Sums over the ranks, in their order.
    fn total(&self, values: PriorSums) -> PriorSums {
        values.map(|value| self.collective.all_gather_f64(value).iter().sum())
    }

    /// Searches a sample of the particles.
    fn look(&mut self, search: &Search, posterior: &Posterior) -> Result<Verdict> {
        let Self { device, shard, collective, refined, epoch, signal, .. } = self;
        let wanted = SAMPLE.div_ceil(collective.size());
        let (reader, first) = (shard.reader().clone(), shard.rows().start);
        let (mut misfits, mut gaining) = (Vec::new(), 0);
        shard.each_batch(*epoch, 0, |_, Batch { observations, rows, particles, .. }| {
            let starts = refined.of_rows(rows, first);
            let group = Group { reader: &reader, particles, observations, starts: &starts };
            let mut descents = descend(&mut **device, &group, posterior)?;
            let others = search.run(&mut **device, &group, posterior, false)?;
            gaining += take_better(&mut descents, others);
            misfits.extend(descents.iter().map(|descent| misfit(descent, posterior).to_bits()));
            let more = misfits.len() < wanted && !signal.received();
            Ok(if more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        let all = self.collective.all_gather_in_rank_order(&misfits);
        let gaining: u64 = self.collective.all_gather(gaining as u64).iter().sum();
        Ok(Verdict::new(all.into_iter().map(f64::from_bits).collect(), gaining as usize))
    }

    /// Turns and moves all changes back by their mean, as far as the symmetry leaves it free: nothing else holds the model in the frame of
    /// the stored poses.
    fn keep_frame(&self, own: &mut [Refinement], symmetry: Symmetry, posterior: &Posterior) -> Result<()> {
        let (reader, rows) = (self.shard.reader(), self.shard.rows());
        let mut frame = Frame::default();
        let mut poses = Vec::with_capacity(own.len());
        for start in rows.clone().step_by(ROWS_PER_READ) {
            let particles = reader.particles(start..rows.end.min(start + ROWS_PER_READ))?;
            poses.extend(particles.iter().map(|particle| particle.rotation));
        }
        for (change, pose) in own.iter().zip(&poses) {
            frame.add(change, pose, posterior.widths.regularity(&numbers(change)));
        }
        let sums = frame.sums.map(|sum| self.collective.all_gather_f64(sum).iter().sum());
        if let Some(drift) = (Frame { sums }).drift(symmetry) {
            own.iter_mut().zip(&poses).for_each(|(change, pose)| drift.undo(change, pose));
        }
        Ok(())
    }

    /// Refines all particles of this rank.
    fn descend_all(
        &mut self,
        search: &Search,
        verdict: &Verdict,
        posterior: &Posterior,
    ) -> Result<(Vec<Refinement>, Vec<Quadratic>, Steps)> {
        let Self { device, shard, refined, epoch, signal, .. } = self;
        let (reader, first) = (shard.reader().clone(), shard.rows().start);
        let mut own = refined.own().to_vec();
        let (mut quadratics, mut steps) = (Vec::new(), Steps::default());
        // Streamed particles come in the order of the epoch; sums are in the order of the rows.
        shard.each_group(*epoch, GROUP, |Batch { observations, rows, particles, .. }| {
            let starts = refined.of_rows(rows, first);
            let group = Group { reader: &reader, particles, observations, starts: &starts };
            let mut descents = descend(&mut **device, &group, posterior)?;
            for wide in [false, true] {
                let wanted: Vec<usize> = (0..descents.len())
                    .filter(|&i| {
                        (verdict.search_all && !wide) || misfit(&descents[i], posterior) < verdict.bad
                    })
                    .collect();
                let some: Vec<Observation> = wanted.iter().map(|&i| observations[i]).collect();
                let of: Vec<Particle> = wanted.iter().map(|&i| particles[i]).collect();
                let from: Vec<Refinement> = wanted.iter().map(|&i| starts[i]).collect();
                if some.is_empty() {
                    continue;
                }
                let part = Group { reader: &reader, particles: &of, observations: &some, starts: &from };
                let found = search.run(&mut **device, &part, posterior, wide)?;
                for (i, found) in wanted.into_iter().zip(found) {
                    take_better(&mut descents[i..=i], vec![found]);
                    steps.searched += u64::from(!wide);
                }
            }
            for ((descent, &row), particle) in descents.iter().zip(rows).zip(particles) {
                own[row - first] = descent.best;
                quadratics.push((row, descent.quadratic(&particle.rotation, posterior)));
            }
            Ok(if signal.received() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        quadratics.sort_by_key(|(row, _)| *row);
        refined.own().iter().zip(&own).for_each(|(from, to)| steps.add(from, to));
        Ok((own, quadratics.into_iter().map(|(_, quadratic)| quadratic).collect(), steps))
    }
}

fn set_widths(summary: &mut RoundSummary, widths: &Widths) {
    let [rotation, offset, defocus] = widths.0;
    (summary.rotation_width, summary.offset_width) = (rotation, offset);
    summary.defocus_width = defocus * DEFOCUS_UNIT;
}

impl Steps {
    fn add(&mut self, from: &Refinement, to: &Refinement) {
        if from == to {
            return;
        }
        self.accepted += 1;
        let length = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        self.rotation += length(&from.rotation, &to.rotation);
        self.offset += length(&from.offset, &to.offset);
    }
}
