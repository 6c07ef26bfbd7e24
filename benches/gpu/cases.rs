//! The measured cases: boxes, mixtures and batches; and the particles of the bench.

use cryosplat_mpi::gmm::{Gmm, Shape, softplus_inverse};
use cryosplat_mpi::imaging::ctf::{Ctf, CtfParameters, Optics};
use cryosplat_mpi::imaging::pose::{Rotation, rotation_from_quaternion};
use cryosplat_mpi::random::{Purpose, Random, stream};
use cryosplat_mpi::render::cpu::activate::Activated;
use cryosplat_mpi::render::cpu::allocate_blocks;
use cryosplat_mpi::render::cpu::project::{SplatBlock, ViewMoments, project};
use cryosplat_mpi::render::{Geometry, Observation, Sampling, Symmetry, Target, View, Weights, energy};
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use serde::Serialize;

/// Box sizes in pixels.
pub const BOXES: [usize; 4] = [64, 128, 192, 256];
/// Numbers of Gaussians, up to that of the paper.
pub const COUNTS: [usize; 4] = [2_048, 5_120, 10_000, 30_000];
/// Images per step.
pub const BATCHES: [usize; 3] = [1, 8, 64];

/// Half width of a splat's support in standard deviations: the program's default.
const CUTOFF: f64 = 3.0;
/// Edge of every box in angstrom.
const EDGE: f64 = 384.0;
/// Radius of the ball that a settled mixture fills, in box units.
const BALL: f64 = 0.3;
/// Standard deviation of a settled Gaussian in pixels: that of a mixture trained in a box of 64 pixels.
const SETTLED_DEVIATION: f64 = 0.75;
/// Standard deviation of a Gaussian at the random start, in box units (docs/method.md, section 2).
const START_DEVIATION: f64 = 0.0075;

/// Pixels of noise from which all particles are taken: 128 MiB, more than a GPU's cache, so that particles are read from device
/// memory as in a run. That makes 512 particles of 256 px, and more of smaller boxes.
const NOISE: usize = 32 << 20;
/// The same for `--quick`: 64 particles of 64 pixels.
const QUICK_NOISE: usize = 64 * 64 * 64;
/// Views over which the mean support is taken.
pub const VIEWS: usize = 16;

/// How the Gaussians are distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mixture {
    /// The random start: a dense ball of small splats in the middle of the box.
    Start,
    /// As after training: spread over the specimen.
    Settled,
}

impl Mixture {
    /// All values.
    pub const ALL: [Self; 2] = [Self::Start, Self::Settled];

    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Settled => "settled",
        }
    }

    /// A mixture of `count` Gaussians for a box of `box_size` pixels.
    pub fn gaussians(self, count: usize, box_size: usize) -> Gmm {
        let mut random = stream(1, Purpose::Start, 1, 0);
        let mut gmm = Gmm::random(count, Shape::Anisotropic, &mut random);
        if self == Self::Settled {
            let deviation = (SETTLED_DEVIATION / box_size as f64).max(START_DEVIATION);
            let values = gmm.values_mut();
            values[3 * count..6 * count].fill(softplus_inverse(deviation) as f32);
            for i in 0..count {
                let mean = in_ball(&mut random);
                (0..3).for_each(|axis| values[axis * count + i] = mean[axis] as f32);
            }
        }
        gmm
    }
}

fn in_ball(random: &mut Random) -> [f64; 3] {
    loop {
        let point = [0; 3].map(|_| BALL * (2.0 * random.random::<f64>() - 1.0));
        if point.iter().map(|v| v * v).sum::<f64>() <= BALL * BALL {
            return point;
        }
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Case {
    /// Box size in pixels.
    pub box_size: usize,
    /// Number of Gaussians.
    pub count: usize,
    /// Images per step.
    pub batch: usize,
    /// How they are distributed.
    pub mixture: Mixture,
}

impl Case {
    /// Name, which the filter on the command line is compared with.
    pub fn name(&self) -> String {
        let Self { box_size, count, batch, mixture } = self;
        format!("{box_size} px, {count} Gaussians, batch {batch}, {}", mixture.name())
    }

    /// Geometry of its images.
    pub fn geometry(&self) -> Geometry {
        Geometry {
            box_size: self.box_size,
            pixel_size: EDGE / self.box_size as f64,
            cutoff: CUTOFF,
            sampling: Sampling::BandLimited,
            weights: Weights::UNIFORM,
            symmetry: Symmetry::C1,
        }
    }
}

/// All cases, the largest boxes first, in case the time ends early; with `quick`, a few that are feasible on the emulator.
pub fn all(quick: bool) -> Vec<Case> {
    let (boxes, counts, batches) = if quick {
        (&BOXES[..1], &COUNTS[..1], &BATCHES[..2])
    } else {
        (&BOXES[..], &COUNTS[..], &BATCHES[..])
    };
    let mut cases = Vec::new();
    for &box_size in boxes.iter().rev() {
        for &count in counts {
            for mixture in Mixture::ALL {
                cases.extend(batches.iter().map(|&batch| Case { box_size, count, batch, mixture }));
            }
        }
    }
    cases
}

/// Images of noise with views, for boxes of any size.
pub struct Particles {
    noise: Vec<f32>,
    views: Vec<View>,
}

impl Particles {
    /// Draws noise and views.
    pub fn new(quick: bool) -> Self {
        let pixels = if quick { QUICK_NOISE } else { NOISE };
        let mut random = stream(1, Purpose::Noise, 0, 0);
        let noise = (0..pixels).map(|_| StandardNormal.sample(&mut random)).collect();
        let mut random = stream(1, Purpose::Geometry, 0, 0);
        let optics = Optics::new(300.0, 2.7, 0.1);
        // Underfocus of 1 to 2.5 micrometres, astigmatism of up to 0.05.
        let views = (0..pixels / BOXES[0].pow(2)).map(|_| {
            let defocus = 10_000.0 + 15_000.0 * random.random::<f64>();
            let particle = CtfParameters {
                defocus_u: defocus + 500.0 * random.random::<f64>(),
                defocus_v: defocus,
                astigmatism_angle: 180.0 * random.random::<f64>(),
                ..CtfParameters::default()
            };
            let quaternion = [0; 4].map(|_| StandardNormal.sample(&mut random));
            View::new(rotation_from_quaternion(quaternion), Ctf::new(&optics, &particle))
        });
        let views = views.collect();
        Self { noise, views }
    }

    /// Number of particles of `box_size` pixels.
    pub fn count(&self, box_size: usize) -> usize {
        self.noise.len() / box_size.pow(2)
    }

    /// The images of particles `range`, `[particle][y][x]`.
    pub fn images(&self, range: std::ops::Range<usize>, box_size: usize) -> &[f32] {
        &self.noise[range.start * box_size.pow(2)..range.end * box_size.pow(2)]
    }

    /// Their poses and CTFs.
    pub fn views(&self) -> &[View] {
        &self.views
    }

    /// All particles as residents of a device, each at the place of its number.
    pub fn resident(&self, box_size: usize) -> Vec<Observation<'static>> {
        (0..self.count(box_size))
            .map(|place| {
                let energy = energy(self.images(place..place + 1, box_size));
                Observation::new(self.views[place], Target::Resident(place), energy)
            })
            .collect()
    }
}

/// Mean number of pixels per support, over the Gaussians of `gmm` and some of `views`. Supports are those of the CPU renderer:
/// rectangles of 2 c sigma_x by 2 c sigma_y within the image.
pub fn mean_support(gmm: &Gmm, views: &[View], geometry: &Geometry) -> f64 {
    let count = gmm.len();
    let mut activated = Activated::new(count);
    activated.update(gmm);
    let (mut splats, mut seen) =
        (allocate_blocks::<SplatBlock>(count), allocate_blocks::<ViewMoments>(count));
    let views: Vec<&Rotation> = views.iter().take(VIEWS).map(|view| &view.rotation).collect();
    let mut pixels = 0u64;
    for view in &views {
        project(activated.blocks(), view, [0.0; 2], geometry, &mut splats, &mut seen);
        pixels += splats.iter().map(SplatBlock::pixels).sum::<u64>();
    }
    pixels as f64 / (count * views.len()) as f64
}
