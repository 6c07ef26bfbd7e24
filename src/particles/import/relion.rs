//! Interprets RELION's particle STAR files: version 3.1 and later (an optics table and a particle table) and version 3.0
//! (one table).

mod images;

use std::collections::HashMap;
use std::path::Path;

pub use images::{ANGLES, ImageTable, NamedImage, SUBSET, image_table};
use images::{ImageColumns, particle_table};

use super::choice::Choice;
use super::columns::{Column, Cursor, find, require};
use super::half_sets::HalfCollector;
use super::optics::{self, Groups, ImplicitGroups, OverriddenColumns, RawImages};
use super::set::{self, ParticleRow, ReadOptions, SetProperties, ViewingDirections};
use super::stack_names::{StackFolders, StackNames};
use super::star::{Document, Table};
use crate::error::{Error, Result};
use crate::imaging::ctf::CtfParameters;
use crate::imaging::pose::{Rotation, rotation_from_relion};
use crate::particles::Subset;
use crate::particles::store::Particle;

/// The particles of a STAR file. The rows stay in the file and are read again when needed; only the halves are in memory.
#[derive(Debug)]
pub struct Particles {
    document: Document,
    /// Index of the particle table in the document.
    table: usize,
    interpreter: Interpreter,
    properties: SetProperties,
}

/// Reads the particles of the STAR file `path`. Paths of stacks are relative to its folder.
///
/// Reads the file twice, first to find the tables and then to check all rows.
///
/// # Errors
/// If the file is not a STAR file, has no particles, poses or CTFs, has values that are not finite or pixel sizes that contradict
/// each other, or has a half without particles. The error names line and column.
pub fn read(path: &Path, options: &ReadOptions) -> Result<Particles> {
    interpret(Document::read(path)?, options)
}

fn interpret(document: Document, options: &ReadOptions) -> Result<Particles> {
    let place = particle_table(&document)?;
    let table = &document.tables()[place];
    if table.is_empty() {
        return Err(Error::input(
            document.path(),
            format!("line {}", table.line()),
            format!("data_{} has no particles", table.name()),
            "select particles before importing",
        ));
    }
    let columns = Columns::find(&document, table)?;
    let images = &columns.images;
    let (class_column, has_halves) = (images.class_column(), images.half_column().is_some());
    let mut cursor = Cursor::new(&document, table);
    let choice = Choice::new(document.path(), table.len(), options, class_column, has_halves, |_| {
        cursor.advance()?;
        images.traits(&cursor)
    })?;
    let optics_table = document.tables().iter().find(|t| t.name() == "optics");
    let lookup = match optics_table {
        Some(optics) => OpticsLookup::Table {
            number: require(&document, table, "_rlnOpticsGroup")?,
            places: optics::read_numbers(&document, optics)?,
        },
        None => OpticsLookup::Implicit(Box::new(ImplicitGroups::new(&document, table)?)),
    };
    let mut interpreter = Interpreter { columns, lookup };
    let mut stacks = StackNames::default();

    let mut halves = HalfCollector::new(interpreter.columns.images.half_column());
    let mut particles_of = Vec::new();
    let mut directions = ViewingDirections::default();
    let mut overridden = optics_table.map(|_| OverriddenColumns::new(table));
    let mut cursor = Cursor::new(&document, table);
    for row in 0..choice.end() {
        cursor.advance()?;
        if !choice.contains(row) {
            continue;
        }
        let (row, image) = interpreter.read(&cursor, &mut stacks)?;
        halves.add(&row, image.traits.half, image.filament);
        let group = row.particle.optics_group as usize;
        if group >= particles_of.len() {
            particles_of.resize(group + 1, 0);
        }
        particles_of[group] += 1;
        directions.observe(&row.particle);
        overridden.iter_mut().for_each(|columns| columns.observe(&cursor));
    }
    let groups = interpreter.lookup.groups(&document, optics_table, &particles_of)?;
    let folders = StackFolders::beside(document.path(), options.datadir);
    let half_sets = halves.decide(document.path(), &stacks, &folders, options)?;

    let ignored: Vec<_> = overridden.iter().flat_map(OverriddenColumns::labels).collect();
    set::warn_about_ignored(document.path(), &ignored);
    directions.warn(document.path(), choice.count());
    let path = document.path().to_path_buf();
    let properties = SetProperties {
        others: Vec::new(),
        optics: groups.optics,
        raw: groups.raw,
        box_from: format!("_rlnImageSize of {}", path.display()),
        columns: interpreter.columns.names(),
        choice,
        half_sets,
        ignored,
        dark: false,
        stacks,
        folders,
        path,
    };
    Ok(Particles { document, table: place, interpreter, properties })
}

/// The pixel size in angstrom of the raw image of each row of the STAR file `path`.
///
/// # Errors
/// If the file is not a STAR file of particles, or has no pixel sizes.
pub fn pixel_sizes(path: &Path) -> Result<Vec<f64>> {
    let document = Document::read(path)?;
    let table = &document.tables()[particle_table(&document)?];
    let mut row = Cursor::new(&document, table);
    let mut sizes = Vec::with_capacity(table.len());
    match document.tables().iter().find(|table| table.name() == "optics") {
        Some(optics) => {
            let of_group = optics::read_pixel_sizes(&document, optics)?;
            let number = require(&document, table, "_rlnOpticsGroup")?;
            while row.advance()? {
                let size = of_group.get(&row.integer(number)?).copied();
                sizes.push(size.ok_or_else(|| row.refuse(number, "a group of data_optics"))?);
            }
        }
        None => {
            let groups = ImplicitGroups::new(&document, table)?;
            while row.advance()? {
                sizes.push(groups.pixel_size(&row)?);
            }
        }
    }
    Ok(sizes)
}

/// Interprets rows, and collects the optics groups that they refer to.
#[derive(Debug)]
struct Interpreter {
    columns: Columns,
    lookup: OpticsLookup,
}

impl Interpreter {
    /// Reads the current row. The shift is in the unit of the file.
    fn read(&mut self, cursor: &Cursor, stacks: &mut StackNames) -> Result<(ParticleRow, NamedImage)> {
        let columns = &self.columns;
        let rotation = columns.rotation(cursor)?;
        let ctf = columns.ctf(cursor)?;
        let optics_group = self.lookup.group_of(cursor)?;
        let shift = [cursor.number_or(columns.origin[0], 0.0)?, cursor.number_or(columns.origin[1], 0.0)?];
        let image = columns.images.read(cursor, stacks)?;
        let (source, place) = (image.source, image.place);
        let particle = Particle { rotation, shift: [0.0; 2], ctf, optics_group, source: Some(source) };
        Ok((ParticleRow { particle, source, shift, half: Subset::Half1, dark: false, place }, image))
    }
}

/// The source of a particle's optics group.
#[derive(Debug)]
enum OpticsLookup {
    Table { number: Column, places: HashMap<i64, u32> },
    Implicit(Box<ImplicitGroups>),
}

impl OpticsLookup {
    /// The groups in use, given the number of particles of each index that [`OpticsLookup::group_of`] has returned. Numbers the
    /// groups of an optics table again, without those that no particle refers to.
    fn groups(&mut self, document: &Document, table: Option<&Table>, particles: &[usize]) -> Result<Groups> {
        match (self, table) {
            (Self::Table { places, .. }, Some(table)) => {
                let used = |row: u32| particles.get(row as usize).is_some_and(|&particles| particles > 0);
                places.retain(|_, row| used(*row));
                let before = |row: u32| (0..row).filter(|&row| used(row)).count() as u32;
                places.values_mut().for_each(|row| *row = before(*row));
                optics::read_table(document, table, particles)
            }
            (Self::Implicit(implicit), _) => {
                let mut groups = implicit.groups.clone();
                groups.raw.iter_mut().zip(particles).for_each(|(raw, &particles)| raw.particles = particles);
                Ok(groups)
            }
            (Self::Table { .. }, None) => Ok(Groups::default()),
        }
    }

    fn group_of(&mut self, row: &Cursor) -> Result<u32> {
        match self {
            Self::Implicit(groups) => groups.group_of(row),
            Self::Table { number, places } => {
                let id = row.integer(*number)?;
                places.get(&id).copied().ok_or_else(|| {
                    row.error(
                        format!("the particle is in optics group {id}, which data_optics does not have"),
                        "add the group to data_optics or correct the number",
                    )
                })
            }
        }
    }
}

/// The columns of the particle table.
#[derive(Debug)]
struct Columns {
    images: ImageColumns,
    angles: [Column; 3],
    origin: [Option<Column>; 2],
    origin_in_angstrom: bool,
    defocus: [Column; 3],
    phase_shift: Option<Column>,
    b_factor: Option<Column>,
    scale: Option<Column>,
}

impl Columns {
    fn find(document: &Document, table: &Table) -> Result<Self> {
        let missing: Vec<&str> = ANGLES.into_iter().filter(|label| table.column(label).is_none()).collect();
        let [Some(rot), Some(tilt), Some(psi)] = ANGLES.map(|label| find(table, label)) else {
            return Err(Error::input(
                document.path(),
                format!("line {}", table.line()),
                format!(
                    "the particles have no poses: data_{} has no column {}",
                    table.name(),
                    missing.join(", ")
                ),
                "refine the particles first (3-D refinement or ab-initio), and import the STAR file of that job",
            ));
        };
        let column = |label| optics::required_for_ctf(document, table, label);
        let angstrom = [find(table, "_rlnOriginXAngst"), find(table, "_rlnOriginYAngst")];
        let origin_in_angstrom = angstrom.iter().any(Option::is_some);
        let origin = if origin_in_angstrom {
            angstrom
        } else {
            [find(table, "_rlnOriginX"), find(table, "_rlnOriginY")]
        };
        if let [Some(one), None] | [None, Some(one)] = origin {
            return Err(Error::input(
                document.path(),
                format!("line {}", table.line()),
                format!("data_{} has the column {} but not the other origin", table.name(), one.label),
                "give both origins, or neither if the particles are centred",
            ));
        }
        Ok(Self {
            images: ImageColumns::find(document, table)?,
            angles: [rot, tilt, psi],
            origin,
            origin_in_angstrom,
            defocus: [column("_rlnDefocusU")?, column("_rlnDefocusV")?, column("_rlnDefocusAngle")?],
            phase_shift: find(table, "_rlnPhaseShift"),
            b_factor: find(table, "_rlnCtfBfactor"),
            scale: find(table, "_rlnCtfScalefactor"),
        })
    }

    /// The columns of voltage, defocus and origin.
    fn names(&self) -> [&'static str; 3] {
        let origin = self.origin[0].map_or("_rlnOriginXAngst", |column| column.label);
        ["_rlnVoltage", "_rlnDefocusU", origin]
    }

    fn rotation(&self, row: &Cursor) -> Result<Rotation> {
        let [rot, tilt, psi] = self.angles;
        Ok(rotation_from_relion(row.number(rot)?, row.number(tilt)?, row.number(psi)?))
    }

    fn ctf(&self, row: &Cursor) -> Result<CtfParameters> {
        let [u, v, angle] = self.defocus;
        Ok(CtfParameters {
            defocus_u: row.number(u)?,
            defocus_v: row.number(v)?,
            astigmatism_angle: row.number(angle)?,
            phase_shift: row.number_or(self.phase_shift, 0.0)?,
            b_factor: row.number_or(self.b_factor, 0.0)?,
            scale: row.number_or(self.scale, 1.0)?,
        })
    }
}

impl set::ParticleSet for Particles {
    fn properties(&self) -> &SetProperties {
        &self.properties
    }

    fn rows(&mut self) -> Box<dyn Iterator<Item = Result<ParticleRow>> + '_> {
        let properties = &mut self.properties;
        Box::new(ParticleRows {
            known: properties.stacks.all().len(),
            groups: properties.optics.len(),
            raw: &properties.raw,
            cursor: Cursor::new(&self.document, &self.document.tables()[self.table]),
            interpreter: &mut self.interpreter,
            stacks: &mut properties.stacks,
            half: properties.half_sets.of.iter(),
            choice: &properties.choice,
            next: 0,
        })
    }
}

/// Iterator over the particles of a STAR file. Returns an error if the file cannot be read, or has changed.
struct ParticleRows<'a> {
    cursor: Cursor<'a>,
    interpreter: &'a mut Interpreter,
    stacks: &'a mut StackNames,
    half: std::slice::Iter<'a, Subset>,
    choice: &'a Choice,
    /// The next row.
    next: usize,
    /// The raw images of each optics group.
    raw: &'a [RawImages],
    /// Number of stacks and optics groups in the first pass over the file.
    known: usize,
    groups: usize,
}

impl Iterator for ParticleRows<'_> {
    type Item = Result<ParticleRow>;

    fn next(&mut self) -> Option<Result<ParticleRow>> {
        let &half = self.half.next()?;
        Some(self.read(half))
    }
}

impl ParticleRows<'_> {
    fn read(&mut self, half: Subset) -> Result<ParticleRow> {
        loop {
            self.cursor.advance()?;
            self.next += 1;
            if self.choice.contains(self.next - 1) {
                break;
            }
        }
        let (mut row, _) = self.interpreter.read(&self.cursor, self.stacks)?;
        if row.source.file as usize >= self.known || row.particle.optics_group as usize >= self.groups {
            return Err(self.cursor.changed());
        }
        row.half = half;
        if self.interpreter.columns.origin_in_angstrom {
            let pixel_size = self.raw[row.particle.optics_group as usize].pixel_size;
            row.shift = row.shift.map(|shift| shift / pixel_size);
        }
        Ok(row)
    }
}

#[cfg(test)]
mod tests;
