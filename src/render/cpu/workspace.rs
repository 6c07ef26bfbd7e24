//! One image on one thread: its views drawn, compared with the observed image, and their moments.

use super::activate::GaussianBlock;
use super::fit::{Comparison, Fitter};
use super::project::{SplatBlock, ViewMoments, project};
use super::raster::{self, Canvas};
use super::residual::{Filter, GroupWeights};
use super::tasks::{blocks_per_task, for_each};
use crate::imaging::pose::{Rotation, product};
use crate::render::{Found, Geometry, ImageFit, ImageSums, Observation, OffsetGrid, Target, View};
use crate::simd::LANES;

/// What all images of a device share.
pub(super) struct Shared {
    pub geometry: Geometry,
    /// Gaussians of the mixture, the asymmetric unit.
    pub count: usize,
    /// The operators of the point group.
    operators: Vec<Rotation>,
    pub filter: Filter,
    /// Weights of frequencies for each noise group.
    groups: Vec<GroupWeights>,
    /// What images are fitted to.
    pub comparison: Option<Comparison>,
}

impl Shared {
    /// For a mixture of `count` Gaussians, with one noise group of ones.
    pub fn new(count: usize, geometry: Geometry) -> Self {
        Self {
            count,
            operators: geometry.symmetry.operators(),
            filter: Filter::new(&geometry),
            groups: vec![GroupWeights::new(&geometry, &[1.0])],
            comparison: None,
            geometry,
        }
    }

    /// Sets the noise weights, `[group][shell]`.
    pub fn set_noise_weights(&mut self, groups: &[Vec<f32>]) {
        self.groups = groups.iter().map(|noise| GroupWeights::new(&self.geometry, noise)).collect();
    }

    /// What images are fitted to.
    ///
    /// # Panics
    /// If no reference was set.
    fn comparison(&self) -> &Comparison {
        self.comparison.as_ref().expect("a reference is set before images are fitted")
    }

    /// Size of the buffers in bytes.
    pub fn bytes(&self) -> usize {
        let comparison = self.comparison.as_ref().map_or(0, Comparison::bytes);
        self.filter.bytes() + self.groups.iter().map(GroupWeights::bytes).sum::<usize>() + comparison
    }

    /// The views of an image at pose `rotation`: W g for each operator g, of which the first is the identity.
    pub fn views(&self, rotation: &Rotation) -> impl Iterator<Item = Rotation> {
        let rotation = *rotation;
        let view = move |(view, operator)| if view == 0 { rotation } else { product(&rotation, operator) };
        self.operators.iter().enumerate().map(view)
    }

    /// Default values for all views of all blocks, `[view][block]`.
    pub fn allocate_views<T: Clone + Default>(&self) -> Vec<T> {
        vec![T::default(); self.operators.len() * self.count.div_ceil(LANES)]
    }

    /// The values of each view, of those of [`Shared::allocate_views`].
    pub fn of_views<'a, T>(&self, values: &'a [T]) -> impl Iterator<Item = &'a [T]> {
        values.chunks((values.len() / self.operators.len()).max(1))
    }
}

/// Results of one image, until they are added.
pub(super) struct Image {
    /// Of all views of all blocks, `[view][block]`.
    pub view_moments: Vec<ViewMoments>,
    pub loss: f64,
}

/// Buffers for one image at a time, which stay in the cache of a thread.
pub(super) struct Workspace {
    /// Of all views of all blocks, `[view][block]`.
    splats: Vec<SplatBlock>,
    pub projection: Canvas,
    gradient: Canvas,
    /// An observed image, prepared in place.
    observed: Vec<f32>,
    filter: Filter,
    fitter: Fitter,
}

impl Workspace {
    pub fn new(shared: &Shared) -> Self {
        let Shared { geometry, filter, .. } = shared;
        Self {
            splats: shared.allocate_views(),
            projection: Canvas::new(geometry.grid()),
            gradient: Canvas::new(geometry.grid()),
            observed: Vec::new(),
            filter: filter.clone(),
            fitter: Fitter::default(),
        }
    }

    /// Size of the buffers in bytes.
    pub fn bytes(&self) -> usize {
        let Self { splats, projection, gradient, observed, filter, .. } = self;
        size_of_val(&splats[..])
            + size_of_val(&projection.pixels[..])
            + size_of_val(&gradient.pixels[..])
            + observed.capacity() * size_of::<f32>()
            + filter.bytes()
    }

    /// Projects and draws all views of all Gaussians; `split_image`: in parallel within the image.
    pub fn draw(
        &mut self,
        shared: &Shared,
        gaussians: &[GaussianBlock],
        view: &View,
        view_moments: &mut [ViewMoments],
        split_image: bool,
    ) {
        let &View { rotation, offset, .. } = view;
        let Self { splats, projection: Canvas { pixels, stride, box_size }, .. } = self;
        let stride = *stride;
        let (count, size) = (gaussians.len().max(1), blocks_per_task(gaussians.len()));
        let of_views = splats.chunks_mut(count).zip(view_moments.chunks_mut(count));
        let tasks = shared.views(&rotation).zip(of_views).flat_map(|(view, (splats, view_moments))| {
            let chunks = splats.chunks_mut(size).zip(view_moments.chunks_mut(size));
            gaussians.chunks(size).zip(chunks).map(move |task| (view, task))
        });
        if !split_image {
            // Draw splats while they are in cache.
            pixels.fill(0.0);
            for (view, (gaussians, (splats, view_moments))) in tasks {
                project(gaussians, &view, offset, &shared.geometry, splats, view_moments);
                raster::draw(splats, view_moments, pixels, 0, stride);
            }
            return;
        }
        for_each(true, tasks, |(view, (gaussians, (splats, view_moments)))| {
            project(gaussians, &view, offset, &shared.geometry, splats, view_moments)
        });
        let rows = box_size.div_ceil(rayon::current_num_threads());
        for_each(true, pixels.chunks_mut(rows * stride).enumerate(), |(band, pixels)| {
            pixels.fill(0.0);
            raster::draw(splats, view_moments, pixels, band * rows, stride);
        });
    }

    /// Computes the moments of all splats in the gradient image.
    fn compute_moments(&self, view_moments: &mut [ViewMoments], split_image: bool) {
        let size = blocks_per_task(view_moments.len());
        let tasks = self.splats.chunks(size).zip(view_moments.chunks_mut(size));
        for_each(split_image, tasks, |(splats, view_moments)| {
            raster::moments(splats, &self.gradient, view_moments)
        });
    }

    /// Renders one image and computes its loss and moments.
    pub fn run(
        &mut self,
        shared: &Shared,
        gaussians: &[GaussianBlock],
        observation: &Observation,
        image: &mut Image,
        split_image: bool,
    ) {
        self.draw(shared, gaussians, &observation.view, &mut image.view_moments, split_image);
        let Self { projection, gradient, observed, filter, .. } = self;
        let target = target_of(filter, observation, observed);
        let weights = &shared.groups[observation.noise_group];
        image.loss = filter.residual(observation, weights, projection, target, gradient);
        self.compute_moments(&mut image.view_moments, split_image);
    }

    /// Renders one image and compares it with the observed one.
    pub fn compare(
        &mut self,
        shared: &Shared,
        gaussians: &[GaussianBlock],
        observation: &Observation,
        image: &mut Image,
    ) -> ImageSums {
        self.draw(shared, gaussians, &observation.view, &mut image.view_moments, false);
        let Self { projection, observed, filter, .. } = self;
        let target = target_of(filter, observation, observed);
        filter.sums(&observation.view.ctf, &shared.groups[observation.noise_group], projection, target)
    }

    /// Fits one image to the reference.
    pub fn fit(&mut self, shared: &Shared, observation: &Observation) -> ImageFit {
        let Self { observed, filter, fitter, .. } = self;
        let target = target_of(filter, observation, observed);
        let weights = &shared.groups[observation.noise_group];
        fitter.fit(&shared.geometry, shared.comparison(), weights, observation, target)
    }

    /// The best of many poses and offsets of one image.
    pub fn search(
        &mut self,
        shared: &Shared,
        observation: &Observation,
        rotations: (&[Rotation], &[f64]),
        offsets: (&OffsetGrid, f64),
    ) -> Found {
        let Self { observed, filter, fitter, .. } = self;
        let target = target_of(filter, observation, observed);
        let weights = &shared.groups[observation.noise_group];
        let observed = (observation, target);
        fitter.search(&shared.geometry, shared.comparison(), weights, observed, rotations, offsets)
    }
}

/// The target of an observation; `observed` is room for an observed image, which is prepared in place.
fn target_of<'a>(
    filter: &mut Filter,
    observation: &Observation<'a>,
    observed: &'a mut Vec<f32>,
) -> &'a [f32] {
    match observation.target {
        Target::Prepared(target) => target,
        Target::Observed(image) => {
            observed.clear();
            observed.extend_from_slice(image);
            filter.prepare(observed);
            observed
        }
        Target::Resident(_) => unreachable!("the CPU device keeps no particles"),
    }
}
