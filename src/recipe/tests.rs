//! Defaults, rules and schedules of the recipes.

use super::*;
use crate::render::{RateFactors, Sampling, Weighting};

fn settings(recipe: Recipe) -> Settings {
    Settings::resolve(recipe, &Choices::default(), false, 3.0, 1, 5_000, 64)
}

#[test]
fn defaults_of_the_recipes() {
    let scaled = settings(Recipe::Scaled);
    assert_eq!((scaled.epochs, scaled.batch), (20, 8));
    assert!((scaled.learning_rate - 4e-4).abs() < 1e-12, "for 100,000 images");
    let few = Settings::resolve(Recipe::Scaled, &Choices::default(), false, 3.0, 1, 100, 64);
    assert_eq!((few.epochs, few.gaussians), (100, 1_284));
    let larger = Settings::resolve(Recipe::Scaled, &Choices::default(), false, 3.0, 1, 100, 128);
    assert_eq!(larger.gaussians, 5_138, "0.069 128^2 / 22 for each particle");
    let one = Choices { epochs: Some(1), ..Choices::default() };
    assert_eq!(
        Settings::resolve(Recipe::Scaled, &one, false, 3.0, 1, 100, 64).learning_rate,
        rules::MAX_RATE
    );
    let many = Settings::resolve(Recipe::Scaled, &Choices::default(), false, 3.0, 1, 100_000, 64);
    assert_eq!(many.epochs, 5);
    assert!((many.learning_rate - 8e-5).abs() < 1e-12, "a fifth over five times as many");
    let quarter = Choices { epochs: Some(5), ..Choices::default() };
    let quarter = Settings::resolve(Recipe::Scaled, &quarter, false, 3.0, 1, 5_000, 64);
    assert!((quarter.learning_rate - 8e-4).abs() < 1e-12, "twice over a quarter");
    assert_eq!(scaled.gaussians, 16_384, "64^3 / 16");
    let gaussians = |particles, box_size| {
        Settings::resolve(Recipe::Scaled, &Choices::default(), false, 3.0, 1, particles, box_size).gaussians
    };
    assert_eq!([1_000, 3_000, 5_000, 50_000].map(|n| gaussians(n, 128)), [30_000, 37_809, 60_000, 60_000]);
    assert_eq!([2_000, 3_000, 50_000].map(|n| gaussians(n, 256)), [120_000, 151_236, 240_000]);
    assert_eq!(scaled.start, Start::Fitted);
    let paper = settings(Recipe::Paper);
    assert_eq!(
        (paper.start, paper.start_scale, paper.sampling),
        (Start::Published, 0.0075, Sampling::Points)
    );
    assert_eq!(paper.rate_factors, RateFactors::ONE);
    assert_eq!((scaled.weighting, paper.weighting), (Weighting::Ctf, Weighting::Uniform));
    assert_eq!((paper.epochs, paper.batch, paper.gaussians, paper.learning_rate), (5, 1, 30_000, 1e-3));
}

#[test]
fn gaussians_start_as_wide_as_they_are_apart_but_for_pixels() {
    let pixels =
        |gaussians, box_size, share| rules::start_scale(gaussians, box_size, share) * box_size as f64;
    assert!(
        (settings(Recipe::Scaled).start_scale * 64.0 - 0.31 * 1.150).abs() < 1e-3,
        "(0.095 64^3 / 16,384)^(1/3)"
    );
    assert!((pixels(16_384, 64, 0.2) - 0.31 * 1.474).abs() < 1e-3);
    assert!((pixels(6_400, 64, 0.15) - 0.48).abs() < 1e-12, "no wider than that");
    assert!((pixels(16_384, 64, 0.01) - 0.25).abs() < 1e-12, "no narrower");
    assert!((pixels(30_000, 128, 0.095) - 0.48).abs() < 1e-12);
    assert!((pixels(151_236, 256, 0.095) - 0.31 * 2.192).abs() < 1e-3, "but in a large box");
    assert!((pixels(40_000, 256, 0.095) - 0.96).abs() < 1e-12, "up to twice as wide there");
    assert!((pixels(5_120, 128, 0.095) - 0.25 * 3.388).abs() < 1e-3, "but few must cover the specimen");
}

#[test]
fn rate_and_betas_scale_with_the_batch() {
    let scaled = settings(Recipe::Scaled);
    let mut clock = Clock::default();
    let step = clock.advance(&scaled, 4, 5_000);
    assert!((step.beta2 - 0.999f64.powi(4)).abs() < 1e-15);
    assert!((step.rate / 4e-4 - 2.0).abs() < 1e-6);
    assert!((step.correction1 - (1.0 - 0.9f64.powi(4))).abs() < 1e-15);
    // The last batch of an epoch is shorter, and its step smaller.
    let short = clock.advance(&scaled, 1, 5_000);
    assert!((short.rate / step.rate - 0.5).abs() < 1e-4);
    assert_eq!(clock.images, 5);
}

#[test]
fn low_snr_gives_more_mixtures() {
    let mixtures = |choices: &Choices, particles: usize, snr: f64| {
        let settings = Settings::resolve(Recipe::Scaled, choices, false, 3.0, 1, particles, 64);
        settings.mixtures_for(snr * (particles * 64 * 64) as f64, particles)
    };
    let usual = Choices::default();
    // A hundred thousand images for 12,288,000 pixels: 0.33 divided by the ratio.
    assert_eq!([0.0, 0.08, 0.1, 0.15, 0.2].map(|snr| mixtures(&usual, 3_000, snr)), [4, 4, 3, 2, 1]);
    assert_eq!([0.03, 0.08, 0.11].map(|snr| mixtures(&usual, 5_000, snr)), [2, 2, 1], "in 20 epochs");
    assert_eq!(mixtures(&usual, 50_000, 0.001), 1, "in 5 epochs");
    assert_eq!(mixtures(&usual, 500, 0.1), 4, "in 50,000 images");
    assert_eq!(mixtures(&usual, 100, 0.1), 1, "in 10,000 images");
    let few = Choices { epochs: Some(16), ..usual };
    assert_eq!([1_000, 2_000].map(|particles| mixtures(&few, particles, 0.05)), [2, 2]);
}

#[test]
fn high_snr_halves_the_rate() {
    let settings = settings(Recipe::Scaled);
    let voxels = 64f64.powi(3);
    let ratio = |settings: &Settings, snr: f64, particles: usize, box_size: usize| {
        settings.rate_for(snr * voxels, particles, box_size) / settings.learning_rate
    };
    assert_eq!([10.0, 19.9, 20.1, 1e9].map(|snr| ratio(&settings, snr, 5_000, 64)), [1.0, 1.0, 0.5, 0.5]);
    assert_eq!(ratio(&settings, 100.0, 5_000, 128), 1.0, "eight times as many voxels");
    assert_eq!(ratio(&settings, 100.0, 4_999, 64), 1.0, "in fewer images");
    assert_eq!(ratio(&Settings { mixtures: 2, ..settings }, 100.0, 5_000, 64), 1.0, "of each");
}

#[test]
fn an_extension_continues_the_last_mixture_as_if_it_had_been_longer() {
    let choices = |epochs, mixtures, extensions: &[usize]| Choices {
        epochs: Some(epochs),
        mixtures: Some(mixtures),
        extensions: extensions.to_vec(),
        ..Choices::default()
    };
    let resolve = |choices: &Choices| Settings::resolve(Recipe::Scaled, choices, false, 3.0, 1, 5_000, 64);
    let extended = resolve(&choices(8, 3, &[4, 2]));
    assert_eq!((extended.epochs, extended.epochs_unextended()), (14, 8));
    assert_eq!([0, 1, 2, 3].map(|mixture| extended.first_epoch(mixture)), [0, 2, 5, 14]);
    assert_eq!(
        [4, 5, 7, 8, 11, 12, 13, 14].map(|epoch| extended.mixture_in(epoch)),
        [1, 2, 2, 2, 2, 2, 2, 3]
    );
    let cycles = [4, 5, 7, 8, 11, 12, 13, 14].map(|epoch| extended.cycle_in(epoch));
    assert_eq!(cycles, [2..5, 5..8, 5..8, 5..12, 5..12, 5..14, 5..14, 14..14]);
    assert_eq!(extended.learning_rate, resolve(&choices(8, 3, &[])).learning_rate);
    assert_eq!(extended.epochs_of_shortest_mixture(), 2);
    // The rate is that of a run of all epochs, and Adam's bias corrections do not start again.
    let (short, long) = (resolve(&choices(3, 1, &[2])), resolve(&choices(5, 1, &[])));
    let long = Settings { learning_rate: short.learning_rate, ..long };
    let clock = Clock { images: 30, beta1_power: 0.5, beta2_power: 0.25, step: 30 };
    let steps = [&short, &long].map(|settings| clock.clone().advance(settings, 1, 10));
    assert_eq!(steps[0].rate, steps[1].rate);
    assert!(steps[0].correction1 > 0.5);
    // Before the extension it was that of the shorter run.
    let before = Clock { images: 20, ..clock };
    let base = resolve(&choices(3, 1, &[]));
    assert_eq!(before.scheduled_rate(&short, 1, 10), before.scheduled_rate(&base, 1, 10));
}

#[test]
fn mixtures_share_the_epochs() {
    let mut settings = settings(Recipe::Scaled);
    (settings.mixtures, settings.epochs) = (3, 8);
    assert_eq!([0, 1, 2, 3].map(|mixture| settings.first_epoch(mixture)), [0, 2, 5, 8]);
    let in_epoch: Vec<usize> = (0..=8).map(|epoch| settings.mixture_in(epoch)).collect();
    assert_eq!(in_epoch, [0, 0, 1, 1, 1, 2, 2, 2, 3]);
    // Each mixture runs through the whole schedule, with fresh moments.
    let mut clocks =
        [0, 10, 25].map(|images| Clock { images, beta1_power: 0.5, beta2_power: 0.25, step: images });
    let starts = clocks.each_mut().map(|clock| clock.advance(&settings, 1, 5));
    for (start, total) in starts.into_iter().zip([10.0, 15.0, 15.0]) {
        let rate = 0.5 * (1.0 + (0.5 * std::f64::consts::PI / total).cos()) * settings.learning_rate;
        assert!((start.rate / rate - 1.0).abs() < 1e-12, "{start:?}");
        assert_eq!((start.correction1, start.correction2), (1.0 - 0.9, 1.0 - 0.999));
    }
    let second = clocks[1].advance(&settings, 1, 5);
    assert_eq!((second.correction1, second.correction2), (1.0 - 0.9 * 0.9, 1.0 - 0.999 * 0.999));
    for images in [9, 24, 39] {
        let clock = Clock { images, ..Clock::default() };
        assert!(clock.scheduled_rate(&settings, 1, 5) < 7e-3 * settings.learning_rate);
    }
}

#[test]
fn schedules_end_where_they_should() {
    let mut paper = settings(Recipe::Paper);
    let late = Clock { images: 24_999, ..Clock::default() };
    assert!((late.scheduled_rate(&paper, 1, 5_000) / 1e-7 - 1.0).abs() < 1e-9);
    paper.schedule = Schedule::Cosine;
    assert!(late.scheduled_rate(&paper, 1, 5_000) < 1e-11);
}

#[test]
fn densification_counts_epochs_within_each_mixture() {
    let choices = Choices {
        gaussians: Some(1_003),
        epochs: Some(8),
        mixtures: Some(2),
        densify: vec![1, 3],
        ..Choices::default()
    };
    let settings = Settings::resolve(Recipe::Scaled, &choices, false, 3.0, 1, 5_000, 64);
    assert_eq!((settings.gaussians_at_start(), settings.gaussians), (250, 1_000), "a multiple of four");
    let in_epochs: Vec<usize> = (0..=8).map(|epoch| settings.gaussians_in(epoch)).collect();
    assert_eq!(in_epochs, [250, 500, 500, 1_000, 250, 500, 500, 1_000, 1_000]);
    assert_eq!(settings.densification(), ", from 250 by doubling after epochs 1 and 3 of each mixture");
    assert_eq!(settings.start_scale, rules::start_scale(250, 64, rules::ELLIPSOID_FRACTION));
    let plain = Settings { densify: Vec::new(), ..settings };
    assert_eq!((plain.gaussians_in(0), plain.densification()), (1_000, String::new()));
}

#[test]
fn a_refining_mixture_comes_first_and_is_counted_apart() {
    let refine = Refine { poses: true, ..Refine::default() };
    let choices = Choices { refine, mixtures: Some(2), ..Choices::default() };
    let resolve = |choices: &Choices| Settings::resolve(Recipe::Scaled, choices, false, 3.0, 1, 1_500, 64);
    let (settings, plain) =
        (resolve(&choices), resolve(&Choices { refine: Refine::default(), ..choices.clone() }));
    assert_eq!(settings.refine.rounds, [5, 8, 11, 14], "7,500 images, then 4,500");
    assert_eq!((settings.epochs, plain.epochs), (14 + 67, 67));
    assert_eq!((settings.learning_rate, settings.gaussians), (plain.learning_rate, plain.gaussians));
    assert!((settings.refine.learning_rate / (4e-4 * (100.0f64 / 21.0).sqrt()) - 1.0).abs() < 1e-9);
    assert_eq!([0, 13, 14, 46, 47, 80, 81].map(|epoch| settings.mixture_in(epoch)), [0, 0, 1, 1, 2, 2, 3]);
    assert_eq!([0, 1, 2, 3].map(|mixture| settings.first_epoch(mixture)), [0, 14, 47, 81]);
    assert_eq!(
        [0, 4, 5, 13, 14, 50].map(|epoch| settings.cycle_in(epoch)),
        [0..5, 0..5, 5..8, 11..14, 14..47, 47..81]
    );
    let rounds: Vec<usize> = (0..=81).filter(|&epoch| settings.refines_before(epoch)).collect();
    assert_eq!(rounds, [5, 8, 11, 14]);
    assert!((0..=67).all(|epoch| !plain.refines_before(epoch)));
    // Each cycle starts at the full rate; Adam's bias corrections start with a mixture.
    let rate = |epoch: u64| {
        let clock = Clock { images: epoch * 1_500, ..Clock::default() };
        clock.scheduled_rate(&settings, 1, 1_500)
    };
    for epoch in [0, 5, 11] {
        assert!((rate(epoch) / settings.refine.learning_rate - 1.0).abs() < 1e-3);
    }
    assert!((rate(14) / settings.learning_rate - 1.0).abs() < 1e-3 && rate(13) < 0.3 * rate(11));
    let corrections = |epoch: u64| {
        let mut clock = Clock { images: epoch * 1_500, beta1_power: 0.5, beta2_power: 0.5, step: 9 };
        clock.advance(&settings, 1, 1_500).correction1
    };
    assert!((corrections(14) - 0.1).abs() < 1e-12 && (corrections(5) - 0.55).abs() < 1e-12);
    // Two rounds at least, within few epochs of many particles, or of few if the user wants few epochs.
    assert_eq!(rules::rounds_for(5, 50_000), [1, 2]);
    assert_eq!(rules::rounds_for(1, 50_000), [1, 2]);
    assert_eq!(rules::rounds_for(12, 120), [2, 4]);
    assert_eq!(rules::rounds_for(100, 500), [15, 24, 33]);
}
