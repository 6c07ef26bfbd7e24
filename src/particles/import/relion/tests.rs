use super::*;
use crate::imaging::aberration::OddAberration;
use crate::imaging::ctf::{Optics, wavelength};
use crate::particles::Subset;
use crate::particles::halves;
use crate::particles::import::half_sets::HalfOrigin;
use crate::particles::import::set::ParticleSet as _;
use crate::particles::import::stack_names::Location;
use crate::particles::store::Source;

const ROWS: [&str; 3] = [
    "1@a.mrcs 10 20 30 15000 14000 12 1 300 2.7 0.1",
    "3@b.mrcs -40 50 60 16000 15500 -8 2 300 2.7 0.1",
    "2@a.mrcs 70 80 -90 17000 16800 3 1 200 2.0 0.07",
];

const COLUMNS: &str = "loop_\n_rlnImageName\n_rlnAngleRot\n_rlnAngleTilt\n_rlnAnglePsi\n_rlnDefocusU\n_rlnDefocusV\n\
                       _rlnDefocusAngle\n_rlnRandomSubset\n";

fn document(text: &str) -> Result<Document> {
    // The file needs no name once it is open.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.star");
    std::fs::write(&path, text).unwrap();
    Document::read(&path)
}

const WANTED: ReadOptions =
    ReadOptions { first: None, class: None, seed: 1, redraw_halves: false, datadir: None, keep: None };

fn interpreted(text: &str) -> Result<Particles> {
    interpret(document(text)?, &WANTED)
}

/// All rows, which must be the same each time they are read.
fn rows(particles: &mut Particles) -> Vec<ParticleRow> {
    let rows: Vec<ParticleRow> = particles.rows().map(Result::unwrap).collect();
    assert_eq!(rows, particles.rows().map(Result::unwrap).collect::<Vec<_>>());
    rows
}

fn names(particles: &Particles) -> Vec<(&str, Location)> {
    particles.properties.stacks.all().iter().map(|stack| (stack.name.as_str(), stack.place)).collect()
}

fn refused(text: &str, fragments: &[&str]) {
    let message = interpreted(text).unwrap_err().to_string();
    assert!(fragments.iter().all(|f| message.contains(f)), "{message}");
}

/// Version 3.0: one table; 5 um pixels at 25000 times make 2 A. Origins of 1.5 and -0.25 pixels.
fn version_30() -> String {
    let mut text = format!(
        "data_\n\n{COLUMNS}_rlnVoltage\n_rlnSphericalAberration\n_rlnAmplitudeContrast\n_rlnMagnification\n\
         _rlnDetectorPixelSize\n_rlnOriginX\n_rlnOriginY\n"
    );
    ROWS.iter().for_each(|row| text += &format!("{row} 25000 5 1.5 -0.25\n"));
    text
}

fn optics_31() -> &'static str {
    "data_optics\n\nloop_\n_rlnOpticsGroupName\n_rlnOpticsGroup\n_rlnVoltage\n_rlnSphericalAberration\n\
     _rlnAmplitudeContrast\n_rlnImagePixelSize\n_rlnImageSize\nfirst 7 300 2.7 0.1 2 64\nsecond 9 200 2 0.07 2 64\n"
}

/// The same particles with the same origins (3 and -0.5 A) in the form of version 3.1.
fn particles_31() -> String {
    let mut text =
        format!("data_particles\n\n{COLUMNS}_rlnOpticsGroup\n_rlnOriginXAngst\n_rlnOriginYAngst\n");
    for (row, group) in ROWS.iter().zip([7, 7, 9]) {
        let cells: Vec<&str> = row.split(' ').take(8).collect();
        text += &format!("{} {group} 3 -0.5\n", cells.join(" "));
    }
    text
}

#[test]
fn both_versions_say_the_same() {
    let mut old = interpreted(&version_30()).unwrap();
    assert_eq!((old.properties.raw[0].pixel_size, old.properties.raw[0].box_size), (2.0, None));
    assert_eq!(names(&old), [("a.mrcs", Location::Line(19)), ("b.mrcs", Location::Line(20))]);
    assert_eq!(
        (old.properties.halves(), old.properties.half_sets.origin),
        ([2, 1], HalfOrigin::Column("_rlnRandomSubset"))
    );
    let of_old = rows(&mut old);
    let ctf = CtfParameters {
        defocus_u: 16000.0,
        defocus_v: 15500.0,
        astigmatism_angle: -8.0,
        phase_shift: 0.0,
        b_factor: 0.0,
        scale: 1.0,
    };
    let source = Source { file: 1, index: 2 };
    let particle = Particle {
        rotation: rotation_from_relion(-40.0, 50.0, 60.0),
        shift: [0.0; 2],
        ctf,
        optics_group: 0,
        source: Some(source),
    };
    assert_eq!(
        of_old[1],
        ParticleRow {
            particle,
            source,
            shift: [1.5, -0.25],
            half: Subset::Half2,
            dark: false,
            place: Location::Line(20)
        }
    );
    let sources: Vec<(u32, u64)> = of_old.iter().map(|row| (row.source.file, row.source.index)).collect();
    assert_eq!(sources, [(0, 0), (1, 2), (0, 1)]);
    assert_eq!(
        of_old.iter().map(|row| row.half).collect::<Vec<_>>(),
        [Subset::Half1, Subset::Half2, Subset::Half1]
    );
    assert_eq!(of_old.iter().map(|row| row.particle.optics_group).collect::<Vec<_>>(), [0, 0, 1]);
    assert_eq!(old.properties.optics[1].voltage, 200.0);
    for text in [optics_31().to_owned() + &particles_31(), particles_31() + "\n" + optics_31()] {
        let mut new = interpreted(&text).unwrap();
        assert_eq!((new.properties.raw[1].pixel_size, new.properties.raw[1].box_size), (2.0, Some(64)));
        assert_eq!(new.properties.raw.iter().map(|raw| raw.particles).collect::<Vec<_>>(), [2, 1]);
        for (new, old) in rows(&mut new).iter().zip(&of_old) {
            assert_eq!(ParticleRow { place: old.place, ..*new }, *old);
        }
        assert_eq!(new.properties.stacks.names(), old.properties.stacks.names());
        for (new, old) in new.properties.optics.iter().zip(&old.properties.optics) {
            assert_eq!(Optics { name: String::new(), ..new.clone() }, *old);
        }
        assert_eq!(new.properties.optics[1].name, "second");
    }
}

#[test]
fn optional_columns_count_and_halves_are_drawn() {
    let text = version_30()
        .replace("_rlnRandomSubset", "_rlnPhaseShift")
        .replace("_rlnOriginX", "_rlnCtfBfactor")
        .replace("_rlnOriginY", "_rlnCtfScalefactor");
    let mut particles = interpreted(&text).unwrap();
    let all = rows(&mut particles);
    let ctf = all[1].particle.ctf;
    assert_eq!((ctf.phase_shift, ctf.b_factor, ctf.scale), (2.0, 1.5, -0.25));
    assert!(all.iter().all(|row| row.shift == [0.0; 2]));
    assert!(all.iter().map(|row| row.half).eq(halves::draw(3, 1)));
    assert_eq!(particles.properties.half_sets.origin, HalfOrigin::Drawn(1));
}

#[test]
fn the_first_particles_alone_are_read() {
    let mut particles =
        interpret(document(&version_30()).unwrap(), &ReadOptions { first: Some(2), ..WANTED }).unwrap();
    assert_eq!((particles.properties.len(), particles.properties.optics.len()), (2, 1));
    assert_eq!(rows(&mut particles).len(), 2);
}

#[test]
fn one_pair_table_of_optics_is_enough() {
    let pairs = "data_optics\n_rlnOpticsGroup 7\n_rlnVoltage 300\n_rlnSphericalAberration 2.7\n\
                 _rlnAmplitudeContrast 0.1\n_rlnImagePixelSize 2.0\n";
    let rows: Vec<String> = particles_31().lines().map(|l| l.replace(" 9 3 ", " 7 3 ")).collect();
    assert_eq!(
        interpreted(&(pairs.to_owned() + &rows.join("\n"))).unwrap().properties.raw[0].pixel_size,
        2.0
    );
}

#[test]
fn missing_columns_are_named() {
    let without = |label: &str| version_30().replace(label, "_other");
    refused(&without("_rlnImageName"), &["_rlnImageName", "run_data.star"]);
    refused(&without("_rlnAngleTilt"), &["p.star: line 3", "no poses", "_rlnAngleTilt", "refine"]);
    refused(&without("_rlnDefocusV"), &["no CTF", "_rlnDefocusV"]);
    refused(&without("_rlnVoltage"), &["no CTF", "_rlnVoltage"]);
    refused(&without("_rlnMagnification"), &["no pixel size", "_rlnMagnification"]);
    refused(&without("_rlnOriginY"), &["_rlnOriginX", "other origin"]);
    let both = optics_31().to_owned() + &particles_31();
    refused(&both.replace("_rlnImagePixelSize", "_other"), &["data_optics", "_rlnImagePixelSize"]);
    refused(&both.replace("_rlnSphericalAberration", "_other"), &["no CTF", "data_optics"]);
}

#[test]
fn bad_values_are_named_with_their_line() {
    let with = |from: &str, to: &str| version_30().replacen(from, to, 1);
    refused(
        &with("3@b.mrcs -40", "3@b.mrcs forty"),
        &["line 20", "_rlnAngleRot is `forty`", "expected a number"],
    );
    refused(&with("3@b.mrcs -40", "3@b.mrcs nan"), &["line 20", "`nan`", "finite"]);
    refused(&with("-0.25", "inf"), &["line 19", "_rlnOriginY is `inf`", "finite"]);
    refused(&with("1@a.mrcs", "0@a.mrcs"), &["line 19", "`0@a.mrcs`", "from 1"]);
    refused(&with("1@a.mrcs", "a.mrcs"), &["line 19", "NUMBER@STACK"]);
    refused(&with("1@a.mrcs", "1@"), &["line 19", "NUMBER@STACK"]);
    refused(&with(" -8 2 ", " -8 3 "), &["line 20", "_rlnRandomSubset is `3`", "1 or 2"]);
    refused(&with(" -8 2 ", " -8 0 "), &["line 20", "gives no half for 1 of 3", "--redraw-halves"]);
    refused(&with("300 2.7", "-300 2.7"), &["line 19", "_rlnVoltage is `-300`", "above 0"]);
    refused(&with("2.7 0.1", "2.7 7"), &["line 19", "_rlnAmplitudeContrast is `7`", "0 to 1"]);
    refused(&with("25000", "0"), &["line 19", "_rlnMagnification is `0`"]);
}

#[test]
fn optics_groups_must_fit_together() {
    let both = optics_31().to_owned() + &particles_31();
    let with = |from: &str, to: &str| both.replacen(from, to, 1);
    refused(&with("second 9", "second 7"), &["optics group 7 occurs twice"]);
    refused(&with("second 9", "second 8"), &["optics group 9", "does not have"]);
    refused(&with("second 9", "second x"), &["_rlnOpticsGroup is `x`"]);
    // A group that no particle is of may have any values.
    let mut unused = interpreted(&with("data_particles", "zeroth 3 nan 2.7 7 0 -1\ndata_particles")).unwrap();
    assert_eq!(unused.properties.optics.len(), 2);
    let mut before = interpreted(&both).unwrap();
    for (row, before) in rows(&mut unused).iter().zip(rows(&mut before)) {
        assert_eq!(row.particle.optics_group, before.particle.optics_group);
    }
    let premultiplied = with("_rlnImageSize", "_rlnCtfDataAreCtfPremultiplied").replace(" 2 64\n", " 2 1\n");
    assert!(interpreted(&premultiplied).unwrap().properties.optics[1].premultiplied);
    refused(&premultiplied.replace(" 2 1\n", " 2 3\n"), &["_rlnCtfDataAreCtfPremultiplied is `3`", "0 or 1"]);
}

#[test]
fn origins_count_in_pixels_of_their_group() {
    let text = optics_31().replacen("0.07 2 64", "0.07 4 48", 1) + &particles_31();
    let mut particles = interpreted(&text).unwrap();
    assert_eq!(particles.properties.raw[1].pixel_size, 4.0);
    assert_eq!(
        rows(&mut particles).iter().map(|row| row.shift).collect::<Vec<_>>()[1..],
        [[1.5, -0.25], [0.75, -0.125]]
    );
}

#[test]
fn pixel_sizes_that_contradict_each_other_are_refused() {
    let both = |size: &str| {
        version_30()
            .replace("_rlnOriginX", "_rlnImagePixelSize")
            .replace("_rlnOriginY", "_other")
            .replace("1.5 -0.25", &format!("{size} 0"))
    };
    assert_eq!(interpreted(&both("2.0005")).unwrap().properties.raw[0].pixel_size, 2.0);
    refused(&both("2.1"), &["line 19", "_rlnImagePixelSize is 2.1 A", "_rlnMagnification give 2.0000 A"]);
}

#[test]
fn a_file_without_particles_is_refused() {
    let empty: String = version_30().lines().filter(|l| !l.contains('@')).map(|l| format!("{l}\n")).collect();
    refused(&empty, &["line 3", "no particles"]);
    refused(optics_31(), &["_rlnImageName"]);
}

#[test]
fn aberrations_of_the_optics_table_are_read() {
    let columns = [
        ("_rlnBeamTiltX", "8"),
        ("_rlnBeamTiltY", "-5"),
        ("_rlnOddZernike", "[0.5,0,0,2,0,1]"),
        ("_rlnEvenZernike", "[0,1,0,0,0,0,0,0,2]"),
        ("_rlnMagMat00", "1.01"),
        ("_rlnMagMat01", "0.002"),
        ("_rlnMagMat10", "0.003"),
        ("_rlnMagMat11", "0.99"),
        ("_rlnCtfDataArePhaseFlipped", "1"),
    ];
    let (labels, values): (Vec<&str>, Vec<&str>) = columns.into_iter().unzip();
    let with = |values: &str| {
        let table =
            optics_31().replace("_rlnImageSize\n", &format!("_rlnImageSize\n{}\n", labels.join("\n")));
        table.replace(" 64\n", &format!(" 64 {values}\n")) + &particles_31()
    };
    let values = values.join(" ");
    let properties = interpreted(&with(&values)).unwrap().properties;
    let (optics, raw) = (&properties.optics[0], &properties.raw[0]);
    assert_eq!(optics.magnification, [[1.01, 0.002], [0.003, 0.99]]);
    // -2 x y of the second polynomial, and (4, 4).
    assert_eq!(optics.even.0, [0.0, 0.0, -2.0, 0.0, -2.0, 0.0, 12.0, 0.0, -2.0]);
    assert!(raw.phase_flipped);
    let mut odd = OddAberration::new(vec![0.5, 0.0, 0.0, 0.0, 0.0, 1.0]).unwrap();
    odd.add_tilt([2.7e7 * 8e-3, 2.7e7 * -5e-3], wavelength(300.0));
    assert!((raw.odd.phase(0.1, 0.05) - odd.phase(0.1, 0.05)).abs() < 1e-9);
    refused(
        &with(&values.replace("0,2]", "0,2,0,0.1]")),
        &["_rlnEvenZernike", "coefficient 11", "order above 4"],
    );
    refused(&with(&values.replace("[0.5", "[half")), &["_rlnOddZernike is `[half", "[0.1,0,-0.2]"]);
    refused(&with(&values.replace("1.01", "-1.01")), &["_rlnMagMat00", "magnification matrix"]);
}
