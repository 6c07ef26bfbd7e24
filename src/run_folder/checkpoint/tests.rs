use crate::gmm::Shape;
use crate::particles::store::SetDigests;
use crate::random::{Purpose, stream};
use crate::recipe::{Choices, Recipe};
use crate::run_folder::checkpoint::*;

fn checkpoint() -> Checkpoint {
    let gmm = Gmm::random(5, Shape::Anisotropic, &mut stream(1, Purpose::Start, 1, 0));
    Checkpoint {
        position: Position { epoch: 2, step: 17, loss: 0.25, images: 100 },
        clock: Clock::default(),
        state: DeviceState { first: vec![0.5; 55], second: vec![0.25; 55], gmm },
        trained: vec![Gmm::random(5, Shape::Anisotropic, &mut stream(1, Purpose::Start, 1, 1))],
        excluded: vec![],
        appraisal: None,
        refinement: None,
        ranks: 3,
        identity: RunIdentity::new(&SetDigests::default(), &settings()),
    }
}

/// Three mixtures in five epochs of 20 steps over 150 particles: the first mixture has one epoch.
fn settings() -> Settings {
    let choices = Choices { gaussians: Some(5), mixtures: Some(3), epochs: Some(5), ..Choices::default() };
    Settings::resolve(Recipe::Scaled, &choices, false, 3.0, 1, 150, 32)
}

fn within(checkpoint: &Checkpoint) -> Result<()> {
    checkpoint.check_within(Path::new("c.h5"), &settings(), 20, &(50..200))
}

#[test]
fn checkpoints_out_of_range_are_refused() {
    let refused = |change: fn(&mut Checkpoint), fragment: &str| {
        let mut checkpoint = checkpoint();
        change(&mut checkpoint);
        let message = within(&checkpoint).unwrap_err().to_string();
        assert!(message.contains(fragment) && message.contains("c.h5"), "{message}");
    };
    assert!(within(&checkpoint()).is_ok());
    refused(|c| c.position.epoch = usize::MAX, "attribute epoch");
    refused(|c| c.position.epoch = 5, "of epoch 6, which has 0 and 0");
    refused(|c| c.position.step = 21, "after 21 steps");
    refused(|c| c.position.images = 151, "151 images");
    fn with(count: usize, shape: Shape) -> Gmm {
        Gmm::random(count, shape, &mut stream(1, Purpose::Start, 1, 0))
    }
    refused(|c| c.state.gmm = with(4, Shape::Anisotropic), "/gmm: holds 4 anisotropic Gaussians");
    refused(|c| c.state.gmm = with(5, Shape::Isotropic), "/gmm: holds 5 isotropic Gaussians");
    refused(|c| c.excluded = vec![50, 199, 200], "row 200");
    refused(|c| c.excluded = vec![u64::MAX], "/left_out");
    let one = || RefinementState { particles: vec![Default::default()], ..Default::default() };
    let mut other = checkpoint();
    other.refinement = Some(one());
    assert!(within(&other).unwrap_err().to_string().contains("/refinement/particles: holds 1"));
}

#[test]
fn the_number_of_trained_mixtures_follows_from_the_epoch() {
    let trained = |count: usize, epoch: usize, step: usize| {
        let mut checkpoint = checkpoint();
        checkpoint.trained = vec![checkpoint.state.gmm.clone(); count];
        (checkpoint.position.epoch, checkpoint.position.step) = (epoch, step);
        checkpoint.position.images = step as u64;
        within(&checkpoint).map_err(|error| error.to_string())
    };
    // They begin with epochs 1, 2 and 4.
    for (count, epoch, step) in [(0, 0, 3), (1, 1, 3), (1, 2, 3), (2, 3, 3), (2, 4, 3)] {
        assert_eq!(trained(count, epoch, step), Ok(()));
        let message = trained(count + 1, epoch, step).unwrap_err();
        assert!(message.contains(&format!("attribute trained: is {}", count + 1)), "{message}");
        assert!(count == 0 || trained(count - 1, epoch, step).is_err());
    }
    // Where one has just ended, it may still be on the device.
    for (count, epoch) in [(0, 1), (1, 1), (1, 3), (2, 3), (2, 5), (3, 5)] {
        assert_eq!(trained(count, epoch, 0), Ok(()));
    }
    assert!(trained(0, 2, 0).is_err() && trained(1, 5, 0).is_err());
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |change: fn(&mut Checkpoint), fragment: &str| {
        let mut checkpoint = checkpoint();
        change(&mut checkpoint);
        checkpoint.write(folder.path(), Subset::Half1).unwrap();
        let message = Checkpoint::read(&path(folder.path(), Subset::Half1, 0)).unwrap_err().to_string();
        assert!(message.contains(fragment), "{message}");
    };
    refused(|c| c.clock.beta2_power = f64::NAN, "attribute beta2_power: is NaN");
    refused(|c| c.position.loss = f64::INFINITY, "attribute epoch_loss: is inf");
    refused(|c| c.state.second[7] = f32::NAN, "/adam/second: value 8 is NaN");
    refused(|c| c.trained[0].values_mut()[7] = f32::NAN, "/mean_y: value 3 is NaN");
}

#[test]
fn mixtures_that_differ_from_the_last_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let gmm = |count, shape| Gmm::random(count, shape, &mut stream(1, Purpose::Start, 1, 0));
    let mut other = checkpoint();
    other.trained.push(gmm(5, Shape::Isotropic));
    other.write(folder.path(), Subset::Half1).unwrap();
    let message = Checkpoint::read(&path(folder.path(), Subset::Half1, 0)).unwrap_err().to_string();
    assert!(message.contains("/trained_1: holds isotropic Gaussians, but /gmm"), "{message}");
    let mut more = checkpoint();
    more.trained[0] = gmm(6, Shape::Anisotropic);
    let message = within(&more).unwrap_err().to_string();
    assert!(message.contains("/trained_0: holds 6 anisotropic Gaussians"), "{message}");
}

#[test]
fn the_number_of_gaussians_follows_from_the_epoch() {
    // Two mixtures of three epochs, of 2, 4 and 8 Gaussians.
    let settings = Settings { mixtures: 2, epochs: 6, gaussians: 8, densify: vec![1, 2], ..settings() };
    let gmm = |count| Gmm::random(count, Shape::Anisotropic, &mut stream(1, Purpose::Start, 1, 0));
    let within = |epoch: usize, step: usize, count: usize| {
        let mut checkpoint = checkpoint();
        checkpoint.position = Position { epoch, step, loss: 0.0, images: step as u64 };
        checkpoint.state.gmm = gmm(count);
        checkpoint.trained = vec![gmm(8); settings.mixture_in(epoch)];
        checkpoint.check_within(Path::new("c.h5"), &settings, 20, &(50..200)).is_ok()
    };
    for (epoch, in_epoch, before) in
        [(0, 2, 2), (1, 4, 2), (2, 8, 4), (3, 2, 8), (4, 4, 2), (5, 8, 4), (6, 8, 8)]
    {
        for count in [1, 2, 4, 8, 16] {
            assert_eq!(within(epoch, 0, count), [in_epoch, before].contains(&count), "{epoch} {count}");
            assert_eq!(within(epoch, 3, count), epoch < 6 && count == in_epoch, "{epoch} {count}");
        }
    }
}

#[test]
fn a_checkpoint_under_the_name_of_another_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut own = checkpoint();
    own.clock.step = 7;
    own.write(folder.path(), Subset::Half2).unwrap();
    let written = path(folder.path(), Subset::Half2, 7);
    for other in [path(folder.path(), Subset::Half1, 7), path(folder.path(), Subset::Half2, 8)] {
        std::fs::copy(&written, &other).unwrap();
        let message = Checkpoint::read(&other).unwrap_err().to_string();
        assert!(message.contains("is the checkpoint of half2 after step 7"), "{message}");
    }
    let copy = folder.path().join("copy.h5");
    std::fs::copy(&written, &copy).unwrap();
    assert_eq!(Checkpoint::read(&copy).unwrap(), own);
}

#[test]
fn the_last_two_are_kept_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut checkpoint = checkpoint();
    checkpoint.refinement =
        Some(RefinementState { particles: vec![Default::default(); 2], ..Default::default() });
    for step in 1..=4 {
        checkpoint.clock.step = step;
        checkpoint.clock.images = 10 * step;
        checkpoint.excluded.push(7 * step);
        checkpoint.write(folder.path(), Subset::Half1).unwrap();
    }
    assert_eq!(steps(folder.path(), Subset::Half1), [3, 4]);
    assert_eq!(Checkpoint::read(&path(folder.path(), Subset::Half1, 4)).unwrap(), checkpoint);
}

#[test]
fn a_damaged_value_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let written = checkpoint();
    written.write(folder.path(), Subset::Half1).unwrap();
    let path = path(folder.path(), Subset::Half1, written.clock.step);
    assert_eq!(Checkpoint::read(&path).unwrap(), written);
    for name in ["gmm/mean_x", "adam/first", "adam/second", "trained_0/mean_x"] {
        let file = hdf5::File::open_rw(&path).unwrap();
        let set = file.dataset(name).unwrap();
        let sound = set.read_raw::<f32>().unwrap();
        let mut values = sound.clone();
        values[1] = f32::from_bits(values[1].to_bits() ^ 1);
        set.write_raw(&values).unwrap();
        file.close().unwrap();
        let message = Checkpoint::read(&path).unwrap_err().to_string();
        assert!(message.contains("is damaged: its values do not match"), "{name}: {message}");
        let file = hdf5::File::open_rw(&path).unwrap();
        file.dataset(name).unwrap().write_raw(&sound).unwrap();
        file.close().unwrap();
    }
    assert!(Checkpoint::read(&path).is_ok());
}
