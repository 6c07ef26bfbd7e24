use super::*;

const OPTICS: Optics = Optics::new(300.0, 2.7, 0.1);

/// Optics with every term of the polynomials.
fn anisotropic() -> Optics {
    let even = EvenPolynomial([0.1, 3.0, -5.0, 2.0, 40.0, -25.0, 60.0, 35.0, -30.0]);
    Optics { even, magnification: [[1.01, 0.004], [-0.007, 0.985]], resolution_limit: 2.5, ..OPTICS }
}

fn particle() -> CtfParameters {
    CtfParameters {
        defocus_u: 21_000.0,
        defocus_v: 18_500.0,
        astigmatism_angle: 33.0,
        phase_shift: 20.0,
        b_factor: 30.0,
        scale: 0.9,
    }
}

/// The formula of docs/method.md, section 4, with the azimuth.
fn textbook(optics: &Optics, p: &CtfParameters, kx: f64, ky: f64) -> f64 {
    let lambda = wavelength(optics.voltage);
    let even = optics.even.0;
    if optics.resolution_limit > 0.0 && kx.hypot(ky) > 1.0 / optics.resolution_limit {
        return 0.0;
    }
    let [[a, b], [c, d]] = optics.magnification;
    let (kx, ky) = (a * kx + b * ky, c * kx + d * ky);
    let (k2, alpha) = (kx * kx + ky * ky, ky.atan2(kx));
    let terms = [(0, 0), (2, 0), (1, 1), (0, 2), (4, 0), (3, 1), (2, 2), (1, 3), (0, 4)];
    let aberration: f64 =
        terms.iter().zip(even).map(|(&(i, j), coefficient)| coefficient * kx.powi(i) * ky.powi(j)).sum();
    let df = 0.5
        * (p.defocus_u
            + p.defocus_v
            + (p.defocus_u - p.defocus_v) * (2.0 * (alpha - p.astigmatism_angle.to_radians())).cos());
    let gamma = PI * lambda * df * k2
        - PI / 2.0 * optics.spherical_aberration * 1e7 * lambda.powi(3) * k2 * k2
        + p.phase_shift.to_radians()
        + aberration;
    let w = optics.amplitude_contrast;
    p.scale * (-p.b_factor * k2 / 4.0).exp() * ((1.0 - w * w).sqrt() * gamma.sin() + w * gamma.cos())
}

#[test]
fn agrees_with_the_textbook_formula() {
    for optics in [OPTICS, anisotropic()] {
        let ctf = Ctf::new(&optics, &particle());
        for (kx, ky) in [(0.0, 0.0), (0.1, 0.02), (-0.05, 0.3), (0.2, -0.45)] {
            let (ours, theirs) = (ctf.at(kx, ky), textbook(&optics, &particle(), kx, ky));
            assert!((ours - theirs).abs() < 1e-10, "{ours} {theirs}");
        }
    }
}

#[test]
fn the_fast_grid_agrees_with_f64_and_is_even() {
    for (box_size, optics) in [(32, OPTICS), (33, OPTICS), (32, anisotropic()), (33, anisotropic())] {
        let ctf = Ctf::new(&optics, &particle());
        let mut h = vec![0.0f32; (box_size / 2 + 1) * box_size];
        ctf.half_plane(box_size, 1.1, &mut h);
        let step = 1.0 / (box_size as f64 * 1.1);
        for ix in 0..=box_size / 2 {
            for iy in 0..box_size {
                let ky = if 2 * iy < box_size { iy as f64 } else { iy as f64 - box_size as f64 };
                let on_nyquist = 2 * ix == box_size || 2 * iy == box_size;
                let corner = 2 * ix == box_size && 2 * iy == box_size;
                let expected = if corner {
                    ctf.at(ix as f64 * step, -ky * step)
                } else if on_nyquist {
                    0.5 * (ctf.at(ix as f64 * step, ky * step) + ctf.at(ix as f64 * step, -ky * step))
                } else {
                    ctf.at(ix as f64 * step, ky * step)
                };
                let got = f64::from(h[ix * box_size + iy]);
                assert!((got - expected).abs() < 4e-7, "{ix} {iy}: {got} {expected}");
            }
        }
    }
}

#[test]
fn a_partial_line_equals_the_whole_grid() {
    for box_size in [40, 41, 64] {
        let ctf = Ctf::new(&anisotropic(), &particle());
        let mut whole = vec![0.0f32; (box_size / 2 + 1) * box_size];
        ctf.half_plane(box_size, 1.1, &mut whole);
        for (kx, whole) in whole.chunks_exact(box_size).enumerate() {
            for reach in 0..box_size / 2 {
                let mut line = vec![f32::NAN; box_size];
                ctf.half_plane_line(kx, 1.1, reach, &mut line);
                assert_eq!(line[..=reach], whole[..=reach], "{box_size} {kx} {reach}");
                let below = box_size - reach;
                assert_eq!(line[below..], whole[below..], "{box_size} {kx} -{reach}");
            }
        }
    }
}

#[test]
fn amplitudes_are_bounded_in_every_direction() {
    let growing = CtfParameters { b_factor: -80.0, ..particle() };
    let ctf = Ctf::new(&anisotropic(), &growing);
    let bound = ctf.amplitude_bound(0.09);
    let largest = (0..720)
        .map(|i| f64::from(i) * PI / 360.0)
        .map(|turn| ctf.envelope_at(0.3 * turn.cos(), 0.3 * turn.sin()));
    let largest = largest.fold(0.0, f64::max);
    assert!(largest <= bound && largest > 0.999 * bound, "{largest} {bound}");
}

#[test]
fn identity_is_one() {
    let mut h = vec![0.0f32; 5 * 8];
    Ctf::identity().half_plane(8, 2.0, &mut h);
    assert!(h.iter().all(|v| (v - 1.0).abs() < 1e-6));
}
