//! A round of the refinement of the particles during a training (docs/method.md, section 15).

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Instant;

use ndarray::Array3;

use super::cross_validation;
use super::model::Model;
use crate::error::Result;
use crate::gmm::Gmm;
use crate::gmm::symmetric::whole;
use crate::gmm::voxelize::{Grid, voxelize};
use crate::imaging::Symmetry;
use crate::loader::shard::{Batch, Shard};
use crate::parallel::{Assignment, Collective, EndSignal, Failure, World, first_rank};
use crate::particles::Subset;
use crate::particles::refinement::Refinement;
use crate::particles::selection::SubsetRows;
use crate::particles::store::{Particle, Store};
use crate::recipe::Refine;
use crate::refine::confirmed::{self, confirmed};
use crate::refine::frame::Frame;
use crate::refine::newton::{Posterior, descend, numbers};
use crate::refine::prior::{self, KINDS, PriorSums, Quadratic, Widths};
use crate::refine::search::{Search, Verdict, misfit, take_better};
use crate::refine::spectrum::{map_size, reference_of};
use crate::render::reference::DEFOCUS_UNIT;
use crate::render::{Device, Observation};
use crate::run_folder::refinement::{RefinementState, RoundSummary};

/// Prior widths before the first round: in radians, box edges, angstrom.
const FIRST_WIDTHS: [f64; KINDS] = [0.15, 0.03, 500.0];
/// Range of the widths, in the same units.
const LEAST_WIDTHS: [f64; KINDS] = [5e-4, 5e-5, 5.0];
const LARGEST_WIDTHS: [f64; KINDS] = [0.5, 0.1, 2000.0];
/// Particles of a rank that widths are estimated from, at most.
const ESTIMATED_FROM: usize = 4096;
/// Particles of each half that confirm the model of the other, about.
const CONFIRMING: usize = 20_000;
/// Particles whose poses are read at once.
const ROWS_PER_READ: usize = 4096;
/// Particles that are refined side by side.
const GROUP: usize = 256;
/// Particles of a model that are searched to find out whether all must be.
const SAMPLE: usize = 256;

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
    fn widths(&self, refine: &Refine, box_size: usize) -> Widths {
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

/// The job of which a round is part.
pub(super) struct RoundContext<'a> {
    pub world: &'a World,
    pub store: &'a Store,
    pub subsets: &'a [SubsetRows],
    pub assignment: &'a Assignment,
    pub symmetry: Symmetry,
    /// Whether the job must stop.
    pub signal: &'a EndSignal,
}

/// What a round changes of a model.
pub(super) struct Round {
    /// What was refined of the particles of this rank.
    own: Vec<Refinement>,
    summary: RoundSummary,
}

/// Refines the particles of all models before epoch `epoch`. Every rank calls it, with the models that it trains. Where a signal asks
/// the job to stop, nothing is refined; a resumed run begins the round again.
///
/// # Errors
/// When particles cannot be read, or a device fails.
pub(super) fn round(
    context: &RoundContext,
    models: &mut [Model],
    collective: &mut Collective,
    epoch: usize,
) -> std::result::Result<(), Failure> {
    let world = context.world;
    let needed = models.iter().filter(|model| model.needs_refinement(epoch)).count();
    if world.all_reduce_sum(needed as u64) == 0 {
        return Ok(());
    }
    let curves = confirmed_curves(context, models, collective)?;
    let mut rounds = Vec::new();
    for (model, &index) in models.iter_mut().zip(&context.assignment.models) {
        if !model.needs_refinement(epoch) {
            continue;
        }
        let started = Instant::now();
        let round = model.refine(collective, &curves[index], context, epoch)?;
        rounds.push((model, round, started.elapsed().as_secs_f64()));
    }
    // All models or none: the curves of a round are of the same poses for both halves.
    if world.all_reduce_sum(u64::from(context.signal.received())) > 0 {
        return Ok(());
    }
    for (model, round, seconds) in rounds {
        if world.rank() == 0 {
            log(model.subset(), &round.summary, model.rows(), seconds);
        }
        model.finish_round(round, collective)?;
    }
    Ok(())
}

/// For each model, the part that the other half's particles confirm, by shell. The halves exchange these curves alone.
fn confirmed_curves(
    context: &RoundContext,
    models: &[Model],
    collective: &mut Collective,
) -> std::result::Result<Vec<Vec<f64>>, Failure> {
    let RoundContext { world, store, subsets, assignment, symmetry, .. } = *context;
    let refined: Vec<Vec<Refinement>> =
        models.iter().map(|model| model.gather_refinements(collective)).collect();
    let rows = models.iter().flat_map(|model| model.excluded().rows());
    let excluded: BTreeSet<usize> = rows.map(|row| row as usize).collect();
    let sample = (CONFIRMING, symmetry);
    let group = (assignment, &mut *collective);
    let sums = cross_validation::half_sums(world, store, subsets, group, sample, &excluded, &refined)?;
    // Rank 0 takes the map of the other group's model.
    let n = store.header().box_size;
    let mut maps = Vec::new();
    if assignment.rank == 0 {
        for model in models {
            maps.push(map_of(&model.mixtures()?, symmetry, n, n));
        }
    }
    let sender = first_rank(world.size(), subsets.len(), 1);
    if sender > 0 && world.rank() == sender {
        world.send_values(0, maps[0].as_slice().expect("a map in standard layout"));
    }
    if sender > 0 && world.rank() == 0 {
        let mut map = Array3::zeros((n, n, n));
        world.receive_values(sender, map.as_slice_mut().expect("a new array"));
        maps.push(map);
    }
    let curves = match sums {
        Some([first, second]) => vec![confirmed(&maps[0], &second), confirmed(&maps[1], &first)],
        // On other ranks, or where the sums do not fit into memory.
        None => vec![Vec::new(); 2],
    };
    world.broadcast_json(&curves)
}

/// The map of the mean of `mixtures` on a grid of `size` voxels over the box.
fn map_of(mixtures: &[Gmm], symmetry: Symmetry, size: usize, box_size: usize) -> Array3<f32> {
    let gmm = whole(&Gmm::mean(mixtures), symmetry);
    voxelize(&gmm, &Grid { size, per_box: size as f64, box_size })
}

fn log(subset: Subset, summary: &RoundSummary, particles: usize, seconds: f64) {
    let RoundSummary { epoch, limit, accepted, searched, .. } = *summary;
    if limit == 0 {
        tracing::warn!(
            "{subset}: not refined after epoch {epoch}: the other half confirms too few shells of its model"
        );
        return;
    }
    let [rotation, offset, defocus] =
        [summary.rotation_width.to_degrees(), summary.offset_width, summary.defocus_width];
    tracing::info!(
        "{subset} refined after epoch {epoch} below shell {limit}: {accepted} of {particles} particles moved, {searched} searched; \
         errors of poses, shifts, defoci about {rotation:.2} degrees, {offset:.2} px, {defocus:.0} A; {:.0} particles/s",
        particles as f64 / seconds.max(1e-9)
    );
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
        let mut round = Round { own: self.refined.own.clone(), summary: RoundSummary::default() };
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
            let [least, most] = [LEAST_WIDTHS, LARGEST_WIDTHS].map(|[rotation, offset, defocus]| {
                of_refined(self.refine, [rotation, offset * box_size as f64, defocus])
            });
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
            let starts: Vec<Refinement> = rows.iter().map(|row| refined.own[row - first]).collect();
            let mut descents = descend(&mut **device, &reader, particles, observations, &starts, posterior)?;
            let others =
                search.run(&mut **device, &reader, particles, observations, &starts, posterior, false)?;
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
        let mut own = refined.own.clone();
        let (mut quadratics, mut steps) = (Vec::new(), Steps::default());
        // Streamed particles come in the order of the epoch; sums are in the order of the rows.
        shard.each_group(*epoch, GROUP, |Batch { observations, rows, particles, .. }| {
            let starts: Vec<Refinement> = rows.iter().map(|row| refined.own[row - first]).collect();
            let mut descents = descend(&mut **device, &reader, particles, observations, &starts, posterior)?;
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
                let found = search.run(&mut **device, &reader, &of, &some, &from, posterior, wide)?;
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
        refined.own.iter().zip(&own).for_each(|(from, to)| steps.add(from, to));
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
