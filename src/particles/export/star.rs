//! Writes a particle set for RELION 3.1 and later: a STAR file with optics groups, and a stack next to it.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::results::{RunColumns, RunResults, blocks};
use crate::error::{Error, Result};
use crate::files::{Pending, star_word};
use crate::imaging::aberration::even_coefficients;
use crate::imaging::ctf::{EvenPolynomial, Optics};
use crate::imaging::pose::relion_from_rotation;
use crate::imaging::stack_writer::StackWriter;
use crate::particles::store::{Block, Header, Particle, Store};
use crate::progress::Progress;

const REMEDY: &str = "check that the folder is writable and the disk is not full";

/// The columns of the optics table, without `_rln`.
pub const OPTICS: [&str; 8] = [
    "OpticsGroup",
    "OpticsGroupName",
    "Voltage",
    "SphericalAberration",
    "AmplitudeContrast",
    "ImagePixelSize",
    "ImageSize",
    "ImageDimensionality",
];

const PARTICLES: [&str; 15] = [
    "ImageName",
    "MicrographName",
    "AngleRot",
    "AngleTilt",
    "AnglePsi",
    "OriginXAngst",
    "OriginYAngst",
    "DefocusU",
    "DefocusV",
    "DefocusAngle",
    "PhaseShift",
    "CtfBfactor",
    "CtfScalefactor",
    "OpticsGroup",
    "RandomSubset",
];

/// The columns of [`RunColumns`], without `_rln`.
const OF_RUN: [&str; 2] = ["LogLikeliContribution", "ParticleFigureOfMerit"];

/// Writes the head of a STAR table with this name (without `data_`) and these columns (without `_rln`).
///
/// # Errors
/// The errors of the writer.
pub fn begin_table(writer: &mut impl Write, name: &str, columns: &[&str]) -> std::io::Result<()> {
    write!(writer, "\n# version 30001\n\ndata_{name}\n\nloop_ \n")?;
    for (index, column) in columns.iter().enumerate() {
        writeln!(writer, "_rln{column} #{} ", index + 1)?;
    }
    Ok(())
}

/// The path of the stack that belongs to the STAR file `star`.
pub fn stack_of(star: &Path) -> PathBuf {
    star.with_extension("mrcs")
}

/// Writes the particles of `store`, except those that a run excluded, in the order of the set: the STAR file `star`, and the stack next
/// to it ([`stack_of`]), which the STAR file refers to by its bare name. Returns the number of particles written.
///
/// All values are written with full precision, so importing the file gives the same values. `results` of a run: refined poses and
/// defoci, and origins that centre the images; two further columns, and a factor of the scale of the CTF.
///
/// # Errors
/// If the set cannot be read, an image is damaged, all particles are excluded, or a file cannot be written.
pub fn write(store: &Store, results: &RunResults, star: &Path) -> Result<usize> {
    let header = store.header();
    let stack_path = stack_of(star);
    let name = match stack_path.file_name().and_then(|name| name.to_str()) {
        Some(name) if !name.contains(char::is_whitespace) && !name.contains('@') => name.to_owned(),
        _ => {
            let problem = "the name of its stack cannot be written in a STAR file";
            return Err(Error::input(star, "", problem, "choose a name without spaces and without @"));
        }
    };
    results.check_left(store)?;
    let pending = Pending::new(star)?;
    let file = pending.writer().map_err(Error::io(star, "write the STAR file", REMEDY))?;
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    let mut stack = StackWriter::create(&stack_path, header.box_size, header.pixel_size)?;
    let failed = || Error::io(star, "write the STAR file", REMEDY);
    head(&mut writer, header, !results.columns.is_empty()).map_err(failed())?;

    let reader = store.reader();
    let mut block = Block::default();
    let mut count = 0;
    let mut progress = Progress::new("export", store.len() as u64, "images");
    for rows in blocks(store) {
        reader.read(rows.clone(), &mut block)?;
        results.check_images(store, &block)?;
        let images = block.images.chunks_exact(header.pixels());
        for ((row, particle), image) in rows.clone().zip(&block.particles).zip(images) {
            if results.excluded.contains(&row) {
                continue;
            }
            count += 1;
            stack.append(image)?;
            let half = 1 + usize::from(row >= header.halves[0]);
            write!(writer, "{count:06}@{name} ").map_err(failed())?;
            let particle = results.particle(row, particle);
            line(&mut writer, header, &particle, half, results.columns.get(row)).map_err(failed())?;
        }
        progress.advance(rows.len() as u64);
    }
    progress.finish();
    writeln!(writer, " ").and_then(|()| writer.flush()).map_err(failed())?;
    stack.finish()?;
    pending.commit()?;
    Ok(count)
}

/// Writes the optics table and the head of the particle table.
fn head(writer: &mut impl Write, header: &Header, with_run: bool) -> std::io::Result<()> {
    // What the images of the set have: odd aberrations and phase flips were taken back when they were imported.
    let any = |has: fn(&Optics) -> bool| header.optics.iter().any(has);
    let premultiplied = any(|optics| optics.premultiplied);
    let even = any(|optics| optics.even != EvenPolynomial::ZERO);
    let magnified = any(|optics| optics.magnification != Optics::ISOTROPIC);
    let mut columns = OPTICS.to_vec();
    for (present, names) in [
        (premultiplied, &["CtfDataAreCtfPremultiplied"][..]),
        (even, &["EvenZernike"]),
        (magnified, &["MagMat00", "MagMat01", "MagMat10", "MagMat11"]),
    ] {
        columns.extend(names.iter().filter(|_| present));
    }
    begin_table(writer, "optics", &columns)?;
    for (group, optics) in (1..).zip(&header.optics) {
        let name = star_word(&optics.name);
        let name = if name.is_empty() { format!("opticsGroup{group}") } else { name };
        write!(
            writer,
            "{group} {name} {} {} {} {} {} 2 ",
            optics.voltage,
            optics.spherical_aberration,
            optics.amplitude_contrast,
            header.pixel_size,
            header.box_size
        )?;
        if premultiplied {
            write!(writer, "{} ", u8::from(optics.premultiplied))?;
        }
        if even {
            let coefficients = even_coefficients(&optics.even).map(|value| value.to_string());
            write!(writer, "[{}] ", coefficients.join(","))?;
        }
        if magnified {
            let [[a, b], [c, d]] = optics.magnification;
            write!(writer, "{a} {b} {c} {d} ")?;
        }
        writeln!(writer)?;
    }
    writeln!(writer, " ")?;
    let of_run: &[&str] = if with_run { &OF_RUN } else { &[] };
    begin_table(writer, "particles", &[&PARTICLES, of_run].concat())
}

/// Writes the rest of a particle's row, after the name of its image.
fn line(
    writer: &mut impl Write,
    header: &Header,
    particle: &Particle,
    half: usize,
    found: Option<&RunColumns>,
) -> std::io::Result<()> {
    let stack = particle.source.and_then(|source| header.source_files.get(source.file as usize));
    // RELION groups particles by micrograph. The original stack is the closest substitute.
    let micrograph = stack.map_or("unknown".into(), |name| star_word(name));
    write!(writer, "{micrograph}")?;
    let ctf = &particle.ctf;
    let angles = relion_from_rotation(&particle.rotation);
    let origin = particle.shift.map(|pixels| pixels * header.pixel_size);
    let ctf = [ctf.defocus_u, ctf.defocus_v, ctf.astigmatism_angle, ctf.phase_shift, ctf.b_factor, ctf.scale];
    for value in angles.iter().chain(&origin).chain(&ctf) {
        write!(writer, " {value}")?;
    }
    write!(writer, " {} {half} ", particle.optics_group + 1)?;
    match found {
        Some(RunColumns { gain, weight, .. }) => writeln!(writer, "{gain} {weight} "),
        None => writeln!(writer),
    }
}
