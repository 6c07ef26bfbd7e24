use super::*;

fn settings(input_box: usize, output_box: usize) -> Settings {
    Settings { input_box, output_box, invert: false, background_radius: None }
}

fn run(settings: Settings, mut image: Vec<f32>, shift: [f64; 2]) -> std::result::Result<Vec<f32>, Defect> {
    let preprocessor = Preprocessor::new(settings).unwrap();
    let mut output = vec![0.0; settings.output_box.pow(2)];
    preprocessor.run(&mut image, shift, None, &mut output, &mut preprocessor.scratch())?;
    Ok(output)
}

/// A Gaussian of standard deviation `width` pixels at (`x`, `y`) pixels from the origin.
fn blob(box_size: usize, x: f64, y: f64, width: f64) -> Vec<f32> {
    let centre = (box_size / 2) as f64;
    (0..box_size * box_size)
        .map(|i| {
            let (dy, dx) = ((i / box_size) as f64 - centre - y, (i % box_size) as f64 - centre - x);
            (-(dx * dx + dy * dy) / (2.0 * width * width)).exp() as f32
        })
        .collect()
}

/// Centre of mass (x, y) relative to the origin.
fn centre_of_mass(image: &[f32]) -> [f64; 2] {
    let n = image.len().isqrt();
    let (mut mass, mut x, mut y) = (0.0, 0.0, 0.0);
    for (i, &v) in image.iter().enumerate() {
        mass += f64::from(v);
        x += f64::from(v) * ((i % n) as f64 - (n / 2) as f64);
        y += f64::from(v) * ((i / n) as f64 - (n / 2) as f64);
    }
    [x / mass, y / mass]
}

fn noise(box_size: usize) -> Vec<f32> {
    (0..box_size * box_size).map(|i| ((i * 7919) % 1009) as f32 / 100.0 + 20.0).collect()
}

#[test]
fn an_off_centre_blob_is_moved_to_the_centre() {
    let t = [2.3, -1.7];
    for (input, output) in [(48, 48), (49, 49), (48, 32), (48, 33), (49, 32), (49, 33), (48, 24)] {
        let raw = blob(input, -t[0], -t[1], 3.0);
        let centred = run(settings(input, output), raw, t).unwrap();
        for c in centre_of_mass(&centred) {
            assert!(c.abs() < 1e-3, "{input} to {output}: {c}");
        }
    }
}

#[test]
fn a_crop_keeps_the_values_of_a_smooth_image() {
    for (input, output) in [(48, 32), (48, 33), (49, 32), (49, 33), (64, 16)] {
        let width = 5.0;
        let ratio = input as f64 / output as f64;
        let small = run(settings(input, output), blob(input, 1.5, -2.0, width), [0.0; 2]).unwrap();
        let expected = blob(output, 1.5 / ratio, -2.0 / ratio, width / ratio);
        // The crop removes less than 1e-3 of the height of this Gaussian at 64 to 16, and far less elsewhere.
        let worst = small.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 2e-3, "{input} to {output}: {worst}");
    }
}

#[test]
fn a_shift_and_its_inverse_change_only_nyquist() {
    for n in [32, 33] {
        let image = blob(n, 3.0, 1.0, 2.0);
        let there = run(settings(n, n), image.clone(), [1.25, -0.5]).unwrap();
        let back = run(settings(n, n), there, [-1.25, 0.5]).unwrap();
        assert!(image.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1e-5));
    }
    // Shifts by whole pixels also keep the Nyquist lines.
    let image = noise(16);
    let moved = run(settings(16, 16), image.clone(), [3.0, -2.0]).unwrap();
    for (i, &v) in moved.iter().enumerate() {
        let (y, x) = ((i / 16 + 2) % 16, (i % 16 + 13) % 16);
        assert!((v - image[y * 16 + x]).abs() < 1e-4);
    }
}

#[test]
fn the_background_is_normalised_to_mean_0_and_deviation_1() {
    for n in [32, 33] {
        let radius = BACKGROUND_RADIUS * n as f64;
        let normal =
            run(Settings { background_radius: Some(radius), ..settings(n, n) }, noise(n), [0.4, 0.0])
                .unwrap();
        let outside: Vec<f64> =
            background_pixels(n, radius).unwrap().iter().map(|&i| f64::from(normal[i as usize])).collect();
        let mean = outside.iter().sum::<f64>() / outside.len() as f64;
        let variance = outside.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / outside.len() as f64;
        assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-5, "{mean} {variance}");
        let centre = n / 2;
        assert!(!background_pixels(n, radius).unwrap().contains(&((centre * n + centre) as u32)));
        assert!(background_pixels(n, radius).unwrap().contains(&0));
    }
}

#[test]
fn inversion_negates_the_image_first() {
    let plain =
        run(Settings { background_radius: Some(8.0), ..settings(32, 32) }, noise(32), [0.0; 2]).unwrap();
    let inverted =
        run(Settings { background_radius: Some(8.0), invert: true, ..settings(32, 32) }, noise(32), [0.0; 2])
            .unwrap();
    assert!(plain.iter().zip(&inverted).all(|(a, b)| (a + b).abs() < 1e-5));
}

#[test]
fn unusable_images_report_the_defect() {
    let normal = Settings { background_radius: Some(12.0), ..settings(32, 32) };
    for value in [f32::NAN, f32::INFINITY] {
        let mut image = noise(32);
        image[2 * 32 + 5] = value;
        let message = run(normal, image, [0.0; 2]).unwrap_err().to_string();
        assert!(message.contains("row 3, column 6"), "{message}");
    }
    for shift in [[0.0; 2], [0.3, 0.7]] {
        for level in [0.0, 1234.5] {
            let flat = run(normal, vec![level; 32 * 32], shift).unwrap_err();
            assert!(matches!(flat, Defect::FlatBackground(_)), "{flat}");
        }
    }
    let huge = noise(32).iter().map(|v| v * 1e37).collect();
    assert_eq!(run(settings(32, 32), huge, [0.5, 0.0]).unwrap_err(), Defect::Overflow);
}

#[test]
fn invalid_settings_are_refused() {
    let refused = |settings, fragment: &str| {
        let message = Preprocessor::new(settings).err().unwrap().to_string();
        assert!(message.contains(fragment), "{message}");
    };
    refused(settings(32, 33), "box of 33");
    refused(settings(32, 15), "box of 15");
    for radius in [0.0, -1.0, f64::NAN, 40.0] {
        refused(Settings { background_radius: Some(radius), ..settings(32, 32) }, "background radius");
    }
}

#[test]
fn resampling_preserves_a_smooth_image_at_any_ratio() {
    for (input, output, ratio) in
        [(48, 48, 1.0006), (48, 40, 1.37), (32, 48, 0.8), (33, 40, 1.0), (48, 33, 1.1)]
    {
        let width = 4.0;
        let preprocessor = Preprocessor::resampling(settings(input, output), ratio).unwrap();
        let mut resampled = vec![0.0; output * output];
        let mut raw = blob(input, 1.5 - 2.3, -2.0 + 1.7, width);
        preprocessor.run(&mut raw, [2.3, -1.7], None, &mut resampled, &mut preprocessor.scratch()).unwrap();
        let expected = blob(output, 1.5 / ratio, -2.0 / ratio, width / ratio);
        let worst = resampled.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 2e-3, "{input} to {output}: {worst}");
    }
}

#[test]
fn an_odd_aberration_is_taken_back_with_and_without_resampling() {
    let mut odd = OddAberration::new(vec![0.5, -0.8, 90.0, 20.0, -30.0, 60.0]).unwrap();
    odd.add_tilt([2e4, -1e4], 0.02);
    let m = [[1.02, 0.01], [-0.02, 0.97]];
    let (n, pixel_size) = (48, 2.0);
    let image = blob(n, 1.0, -2.0, 2.0);
    // The opposite aberration first.
    let coefficients = odd.coefficients().iter().map(|c| -c).collect();
    let opposite = OddAberration::new(coefficients).unwrap();
    let spoil = Preprocessor::new(settings(n, n)).unwrap().with_optics(&opposite, &m, pixel_size);
    let run = |preprocessor: &Preprocessor, mut image: Vec<f32>| {
        let mut output = vec![0.0; image.len()];
        preprocessor.run(&mut image, [0.0; 2], None, &mut output, &mut preprocessor.scratch()).unwrap();
        output
    };
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let spoilt = run(&spoil, image.clone());
    assert!(distance(&spoilt, &image) > 0.05, "{}", distance(&spoilt, &image));
    let crop = Preprocessor::new(settings(n, n)).unwrap();
    let resampling = Preprocessor::resampling(settings(n, n), 1.0).unwrap();
    for preprocessor in [crop, resampling] {
        let mended = run(&preprocessor.with_optics(&odd, &m, pixel_size), spoilt.clone());
        assert!(distance(&mended, &image) < 2e-3, "{}", distance(&mended, &image));
    }
}

#[test]
fn phase_flips_are_taken_back() {
    use crate::imaging::ctf::{CtfParameters, Optics};
    let n = 32;
    let parameters = CtfParameters { defocus_u: 1.5e4, defocus_v: 1.2e4, ..CtfParameters::default() };
    let ctf = Ctf::new(&Optics::new(300.0, 2.7, 0.1), &parameters);
    let preprocessor = Preprocessor::new(settings(n, n)).unwrap().with_optics(
        &OddAberration::default(),
        &Optics::ISOTROPIC,
        2.0,
    );
    let flip = |mut image: Vec<f32>| {
        let mut output = vec![0.0; n * n];
        preprocessor.run(&mut image, [0.0; 2], Some(&ctf), &mut output, &mut preprocessor.scratch()).unwrap();
        output
    };
    let image = noise(n);
    let flipped = flip(image.clone());
    assert!(flipped.iter().zip(&image).any(|(a, b)| (a - b).abs() > 1.0));
    assert!(flip(flipped).iter().zip(&image).all(|(a, b)| (a - b).abs() < 1e-4));
}
