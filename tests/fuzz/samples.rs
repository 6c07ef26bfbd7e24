//! Small undamaged files of this program's formats.

use std::path::{Path, PathBuf};

use cryosplat_mpi::gmm::files::GmmFile;
use cryosplat_mpi::gmm::{Gmm, Shape};
use cryosplat_mpi::imaging::Symmetry;
use cryosplat_mpi::imaging::ctf::{CtfParameters, Optics};
use cryosplat_mpi::imaging::pose::rotation_from_relion;
use cryosplat_mpi::particles::Subset;
use cryosplat_mpi::particles::noise::NoisePower;
use cryosplat_mpi::particles::refinement::Refinement;
use cryosplat_mpi::particles::store::{DataSetId, Dtype, Header, Particle, SetDigests, Source, Writer};
use cryosplat_mpi::random::{Purpose, stream};
use cryosplat_mpi::recipe::{Choices, Clock, Recipe, Settings};
use cryosplat_mpi::render::DeviceState;
use cryosplat_mpi::run_folder::appraisal::{Appraisal, Appraised};
use cryosplat_mpi::run_folder::checkpoint::{self, Checkpoint, Position};
use cryosplat_mpi::run_folder::identity::RunIdentity;
use cryosplat_mpi::run_folder::refinement::{RefinementState, RoundSummary};

/// Box size of the particles in pixels, and pixel size in angstrom.
pub const BOX: usize = 8;
pub const PIXEL_SIZE: f64 = 4.0;

fn mixture(shape: Shape) -> Gmm {
    Gmm::random(9, shape, &mut stream(1, Purpose::Start, 1, 0))
}

/// Writes a particle file with seven particles.
pub fn particles(folder: &Path) -> PathBuf {
    let path = folder.join("particles.h5");
    let halves = [4, 3];
    let header = Header {
        box_size: BOX,
        pixel_size: PIXEL_SIZE,
        normalized: true,
        inverted: false,
        optics: vec![
            Optics::new(300.0, 2.7, 0.1),
            Optics {
                name: "of a second camera".into(),
                premultiplied: true,
                ..Optics::new(200.0, 1.4, 0.07)
            },
        ],
        halves,
        source_files: vec!["first.mrcs".into(), "second.mrcs".into()],
        imported_from: Some("../run_data.star".into()),
    };
    let mut writer = Writer::create(&path, &header, Dtype::F32).unwrap();
    for (half, count) in halves.into_iter().enumerate() {
        let particle = |i: usize| Particle {
            rotation: rotation_from_relion(i as f64, 40.0, 70.0),
            shift: [0.0; 2],
            ctf: CtfParameters {
                defocus_u: 1.2e4 + i as f64,
                defocus_v: 1.1e4,
                astigmatism_angle: 7.0,
                phase_shift: 0.0,
                b_factor: 2.0,
                scale: 0.9,
            },
            optics_group: (i % 2) as u32,
            source: (i > 0).then_some(Source { file: 1, index: i as u64 }),
        };
        let all: Vec<Particle> = (0..count).map(particle).collect();
        let images: Vec<f32> = (0..count * BOX * BOX).map(|i| (i % 97) as f32 * 0.25).collect();
        writer.append(Subset::HALVES[half], &all, &images).unwrap();
    }
    writer.finish().unwrap();
    path
}

/// Writes a checkpoint.
pub fn checkpoint(folder: &Path) -> PathBuf {
    let gmm = mixture(Shape::Anisotropic);
    let moments = gmm.values().len();
    let checkpoint = Checkpoint {
        position: Position { epoch: 1, step: 2, loss: 0.25, images: 3 },
        clock: Clock { step: 5, images: 10, ..Clock::default() },
        state: DeviceState { first: vec![0.5; moments], second: vec![0.25; moments], gmm },
        trained: vec![mixture(Shape::Anisotropic)],
        excluded: vec![2, 3],
        appraisal: Some(Appraisal {
            noise: NoisePower { groups: vec![vec![1.0, 0.5]; 2], particles: vec![6, 4] },
            epoch: 1,
            particles: vec![Appraised::UNKNOWN; 10],
        }),
        refinement: Some(RefinementState {
            rounds: vec![RoundSummary { epoch: 1, accepted: 9, ..RoundSummary::default() }],
            particles: vec![Refinement { rotation: [0.1, 0.2, 0.3], offset: [1.0, -0.5], defocus: 90.0 }; 10],
        }),
        ranks: 2,
        identity: RunIdentity {
            particles: DataSetId::from_bytes([7; 32]),
            columns: SetDigests::default(),
            settings: Settings::resolve(Recipe::Paper, &Choices::default(), false, 3.0, 1, 10, BOX),
        },
    };
    checkpoint.write(folder, Subset::Half1).unwrap();
    checkpoint::path(folder, Subset::Half1, 5)
}

/// Writes a mixture of this shape.
pub fn gaussians(folder: &Path, shape: Shape) -> PathBuf {
    let path = folder.join("gmm_half1.h5");
    GmmFile { gmm: mixture(shape), symmetry: Symmetry::C(3), box_size: BOX, pixel_size: PIXEL_SIZE }
        .write(&path)
        .unwrap();
    path
}
