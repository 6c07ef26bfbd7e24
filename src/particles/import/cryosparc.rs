//! Interprets cryoSPARC's particle sets: `.cs` files, which are NumPy tables ([`super::npy`]), and the passthrough files
//! with further columns.

mod classes;
mod files;
mod images;

use std::path::{Path, PathBuf};

use classes::Alignments;
use files::{Column, Files};
use images::ImageColumns;
pub(crate) use images::image_table;

use super::choice::Choice;
use super::copies::filament_key;
use super::half_sets::HalfCollector;
use super::optics::{Groups, RawImages};
use super::set::{self, ParticleRow, ReadOptions, SetProperties, ViewingDirections};
use super::stack_names::{StackFolders, StackNames};
use crate::error::{Error, Result};
use crate::imaging::aberration::OddAberration;
use crate::imaging::ctf::{CtfParameters, Optics, wavelength};
use crate::particles::Subset;
use crate::particles::store::{Particle, Source};

/// The particles of a `.cs` file. In memory are the arrays and, for each particle, its half and its record numbers in the
/// passthrough files.
#[derive(Debug)]
pub struct Particles {
    files: Files,
    columns: Columns,
    groups: Groups,
    properties: SetProperties,
}

/// Reads the particles of the file `path`. Columns that it lacks come from the files `passthrough`, matched by `uid`. Paths
/// of stacks are relative to its folder, or to the parent folder (the project).
///
/// # Errors
/// If a file cannot be read, poses, CTFs or images are missing, or a value is not finite. The error names particle and column.
pub fn read(path: &Path, passthrough: &[PathBuf], options: &ReadOptions) -> Result<Particles> {
    let mut files = Files::read(path, passthrough)?;
    let columns = Columns::find(&files, options.class)?;
    let alignments = &columns.alignments;
    let all = files.len();
    let choice =
        Choice::new(path, all, options, alignments.class_column(), alignments.split.is_some(), |particle| {
            alignments.traits(&files, particle)
        })?;
    files.choose(&choice);
    let count = choice.count();
    let mut groups = Groups::default();
    let mut stacks = StackNames::default();
    let mut directions = ViewingDirections::default();
    let mut halves = HalfCollector::new(alignments.split.map(|column| column.name));
    let mut dark = 0;
    let mut ignored = vec![false; columns.unmodelled.len()];
    for particle in 0..count {
        let row = columns.row(&files, particle, &mut groups, &mut stacks)?;
        groups.count(row.particle.optics_group);
        halves.add(&row, alignments.half(&files, particle)?, columns.filament(&files, particle, row.source));
        directions.observe(&row.particle);
        dark += usize::from(row.dark);
        for (column, seen) in columns.unmodelled.iter().zip(&mut ignored) {
            *seen |= (0..column.field.count).any(|k| files.number(column, particle, k) != 0.0);
        }
    }
    directions.warn(path, count);
    let ignored = columns.unmodelled.iter().zip(ignored).filter(|(_, seen)| *seen);
    let ignored: Vec<_> = ignored.map(|(column, _)| column.name).collect();
    set::warn_about_ignored(path, &ignored);
    if dark > 0 {
        tracing::info!("{}: inverting {dark} of {count} images, whose {SIGN} is negative", path.display());
    }
    let folders = StackFolders::beside(path, options.datadir);
    let half_sets = halves.decide(path, &stacks, &folders, options)?;
    let properties = SetProperties {
        path: path.to_path_buf(),
        others: passthrough.to_vec(),
        optics: groups.optics.clone(),
        raw: groups.raw.clone(),
        box_from: format!("{SHAPE} of {}", path.display()),
        columns: ["ctf/accel_kv", "ctf/df1_A", "alignments3D/shift"],
        choice,
        half_sets,
        ignored,
        dark: dark > 0,
        stacks,
        folders,
    };
    Ok(Particles { files, columns, groups, properties })
}

impl set::ParticleSet for Particles {
    fn properties(&self) -> &SetProperties {
        &self.properties
    }

    fn rows(&mut self) -> Box<dyn Iterator<Item = Result<ParticleRow>> + '_> {
        let Self { files, columns, groups, properties } = self;
        let stacks = &mut properties.stacks;
        Box::new(properties.half_sets.of.iter().enumerate().map(|(particle, &half)| {
            let row = columns.row(files, particle, groups, stacks)?;
            Ok(ParticleRow { half, ..row })
        }))
    }
}

const SHAPE: &str = "blob/shape";
const SIGN: &str = "blob/sign";

/// Columns of aberrations whose convention is not published; 0 means "none".
const UNMODELLED: [(&str, usize); 3] = [("ctf/shift_A", 2), ("ctf/trefoil_A", 2), ("ctf/tetra_A", 4)];

/// The columns in use.
#[derive(Debug)]
struct Columns {
    images: ImageColumns,
    shape: Column,
    pixel_size: Column,
    sign: Option<Column>,
    alignments: Alignments,
    filament: Option<Column>,
    micrograph: Option<Column>,
    microscope: [Column; 3],
    defocus: [Column; 3],
    phase_shift: Option<Column>,
    b_factor: Option<Column>,
    scale: Option<Column>,
    /// Contrast of the particle.
    alpha: Option<Column>,
    tilt: Option<Column>,
    magnification: Option<Column>,
    unmodelled: Vec<Column>,
}

impl Columns {
    fn find(files: &Files, class: Option<i64>) -> Result<Self> {
        let missing = |problem: String, remedy: &str| Error::input(files.path(), "", problem, remedy);
        let alignments = Alignments::find(files, class)?;
        let of_ctf = |name: &'static str| {
            files.find(name, 1)?.ok_or_else(|| {
                missing(
                    format!("the particles have no CTF: the column {name} does not exist"),
                    "estimate CTFs first, or give the file with this column as --passthrough",
                )
            })
        };
        let of_images =
            |name: &'static str, count| files.find(name, count)?.ok_or_else(|| images::missing(files, name));
        let mut unmodelled = Vec::new();
        for (name, count) in UNMODELLED {
            unmodelled.extend(files.find(name, count)?);
        }
        Ok(Self {
            images: ImageColumns::find(files)?,
            shape: of_images(SHAPE, 2)?,
            pixel_size: of_images("blob/psize_A", 1)?,
            sign: files.find(SIGN, 1)?,
            alignments,
            filament: files.find("filament/filament_uid", 1)?,
            micrograph: files.find("location/micrograph_uid", 1)?,
            microscope: [of_ctf("ctf/accel_kv")?, of_ctf("ctf/cs_mm")?, of_ctf("ctf/amp_contrast")?],
            defocus: [of_ctf("ctf/df1_A")?, of_ctf("ctf/df2_A")?, of_ctf("ctf/df_angle_rad")?],
            phase_shift: files.find("ctf/phase_shift_rad", 1)?,
            b_factor: files.find("ctf/bfactor", 1)?,
            scale: files.find("ctf/scale", 1)?,
            alpha: files.find("alignments3D/alpha", 1)?,
            tilt: files.find("ctf/tilt_A", 2)?,
            magnification: files.find("ctf/anisomag", 4)?,
            unmodelled,
        })
    }

    /// Reads a particle. The caller sets its half.
    fn row(
        &self,
        files: &Files,
        particle: usize,
        groups: &mut Groups,
        stacks: &mut StackNames,
    ) -> Result<ParticleRow> {
        let place = files.place(particle);
        let source = self.images.read(files, particle, stacks)?;
        let (optics, raw) = self.optics(files, particle)?;
        let optics_group = groups.index(optics, raw);
        let particle_of = Particle {
            rotation: self.alignments.rotation(files, particle)?,
            shift: [0.0; 2],
            ctf: self.ctf(files, particle)?,
            optics_group,
            source: Some(source),
        };
        let dark = match &self.sign {
            Some(sign) => files.finite(sign, particle, 0)? < 0.0,
            None => false,
        };
        Ok(ParticleRow {
            particle: particle_of,
            source,
            shift: self.shift(files, particle)?,
            half: Subset::Half1,
            dark,
            place,
        })
    }

    /// The shift in pixels of the images. The file gives it in pixels of the alignment.
    fn shift(&self, files: &Files, particle: usize) -> Result<[f64; 2]> {
        let Some(shift) = &self.alignments.shift else { return Ok([0.0; 2]) };
        let unit = match &self.alignments.shift_pixel {
            Some(column) => files.positive(column, particle)? / files.positive(&self.pixel_size, particle)?,
            None => 1.0,
        };
        Ok([unit * files.finite(shift, particle, 0)?, unit * files.finite(shift, particle, 1)?])
    }

    fn ctf(&self, files: &Files, particle: usize) -> Result<CtfParameters> {
        let or = |column: &Option<Column>, default: f64| match column {
            Some(column) => files.finite(column, particle, 0),
            None => Ok(default),
        };
        let [u, v, angle] = &self.defocus;
        Ok(CtfParameters {
            defocus_u: files.finite(u, particle, 0)?,
            defocus_v: files.finite(v, particle, 0)?,
            astigmatism_angle: files.finite(angle, particle, 0)?.to_degrees(),
            phase_shift: or(&self.phase_shift, 0.0)?.to_degrees(),
            b_factor: or(&self.b_factor, 0.0)?,
            scale: or(&self.scale, 1.0)? * or(&self.alpha, 1.0)?,
        })
    }

    /// The optics group of a particle. `ctf/tilt_A` is Cs times the beam tilt, and `ctf/anisomag` is M - I, both as pyem and other
    /// converters to RELION read them.
    fn optics(&self, files: &Files, particle: usize) -> Result<(Optics, RawImages)> {
        let [voltage, aberration, contrast] = &self.microscope;
        let amplitude_contrast = files.finite(contrast, particle, 0)?;
        if !(0.0..=1.0).contains(&amplitude_contrast) {
            return Err(files.refuse(contrast, particle, 0, "a fraction from 0 to 1"));
        }
        let mut optics = Optics::new(
            files.positive(voltage, particle)?,
            files.finite(aberration, particle, 0)?,
            amplitude_contrast,
        );
        let mut odd = OddAberration::default();
        if let Some(column) = &self.tilt {
            let tilt = [files.finite(column, particle, 0)?, files.finite(column, particle, 1)?];
            odd.add_tilt(tilt, wavelength(optics.voltage));
        }
        if let Some(column) = &self.magnification {
            for (k, value) in optics.magnification.as_flattened_mut().iter_mut().enumerate() {
                *value += files.finite(column, particle, k)?;
            }
            if !optics.has_usable_magnification() {
                return Err(files.refuse(
                    column,
                    particle,
                    0,
                    "a magnification matrix less the identity, near 0",
                ));
            }
        }
        let pixel_size = files.positive(&self.pixel_size, particle)?;
        let box_size = Some(self.box_size(files, particle)?);
        Ok((optics, RawImages { pixel_size, box_size, odd, ..RawImages::default() }))
    }

    /// The key of the filament that the particle is a segment of. Filaments that were imported are numbered per micrograph.
    fn filament(&self, files: &Files, particle: usize, source: Source) -> Option<u64> {
        let index = |column: &Column| {
            files.table(column.file).index(column.field, files.record(column, particle)).unwrap_or_default()
        };
        let filament = index(self.filament.as_ref()?);
        Some(match &self.micrograph {
            Some(micrograph) => filament_key((index(micrograph), filament)),
            None => filament_key((u64::from(source.file), filament)),
        })
    }

    /// The box size. The box must be square.
    fn box_size(&self, files: &Files, particle: usize) -> Result<usize> {
        let [rows, columns] = [0, 1].map(|k| files.number(&self.shape, particle, k));
        if rows != columns || rows < 1.0 || rows.fract() != 0.0 {
            let problem = format!("{SHAPE} is {rows} x {columns}, expected a square box");
            return Err(files.error(&self.shape, particle, problem, "extract the particles in square boxes"));
        }
        Ok(rows as usize)
    }
}
