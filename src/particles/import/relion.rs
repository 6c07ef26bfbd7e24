//! What RELION's particle STAR files mean: version 3.1 and later (a table of optics groups and one of particles) and
//! version 3.0 (one table).

use std::collections::HashMap;
use std::path::Path;

use super::columns::{Column, Cursor, find, require};
pub use super::optics::Group;
use super::optics::{self, Gathered};
use super::star::{Document, Table};
use crate::error::{Error, Result};
use crate::imaging::ctf::CtfParameters;
use crate::imaging::pose::{Rotation, rotation_from_relion};
use crate::particles::halves;
use crate::particles::store::{Particle, Source};

/// A STAR file's particles, in file order.
#[derive(Clone, Debug)]
pub struct Particles {
    /// Pixel size of the raw images in angstrom.
    pub pixel_size: f64,
    /// Box of the raw images in pixels, where the file says.
    pub image_size: Option<usize>,
    /// `W` of each particle.
    pub rotation: Vec<Rotation>,
    /// How far each image must be moved (x, y) to be centred, in raw pixels.
    pub shift: Vec<[f64; 2]>,
    /// CTF parameters of each particle.
    pub ctf: Vec<CtfParameters>,
    /// Index into [`Particles::groups`] of each particle.
    pub optics_group: Vec<u32>,
    /// The optics groups.
    pub groups: Vec<Group>,
    /// FSC half of each particle, 0 or 1.
    pub half: Vec<u8>,
    /// True where the halves come from `_rlnRandomSubset`, false where they were drawn.
    pub halves_given: bool,
    /// The stacks as the file names them, in the order of their first particles.
    pub stacks: Vec<String>,
    /// Stack and image (from 0) of each particle.
    pub source: Vec<Source>,
    /// Line of each particle in the file, from 1.
    pub line: Vec<u32>,
}

/// Reads the particles of the STAR file `path`: all, or the `first` ones. Halves that the file does not give are drawn
/// with `seed`.
///
/// # Errors
/// When the file is no STAR file; has no particles, poses or CTFs; has values that are not finite numbers; has optics
/// groups that differ in pixel size or box; or leaves a half without particles. The message names line and column.
pub fn read(path: &Path, first: Option<usize>, seed: u64) -> Result<Particles> {
    let document = Document::read(path)?;
    interpret(&document, first.unwrap_or(usize::MAX), seed)
}

fn interpret(document: &Document, first: usize, seed: u64) -> Result<Particles> {
    let table = particle_table(document)?;
    let count = table.len().min(first);
    if count == 0 {
        return Err(Error::input(
            document.path(),
            format!("line {}", table.line()),
            format!("data_{} holds zero particles", table.name()),
            "select particles before the import",
        ));
    }
    let columns = Columns::find(document, table)?;
    let optics_table = document.tables().iter().find(|t| t.name() == "optics");
    let (mut lookup, fixed) = match optics_table {
        Some(optics) => {
            let (groups, places) = optics::read_table(document, optics)?;
            let number = require(document, table, "_rlnOpticsGroup")?;
            (Lookup::Table { number, places }, groups)
        }
        None => (Lookup::Gathered(Gathered::new(document, table)?), Vec::new()),
    };

    let mut particles = Particles::with_capacity(count);
    let mut stacks = Stacks::default();
    let mut row = Cursor::new(document, table);
    for index in 0..count {
        row.seek(index);
        particles.rotation.push(columns.rotation(&row)?);
        particles.ctf.push(columns.ctf(&row)?);
        particles.optics_group.push(lookup.group_of(&row)?);
        particles
            .shift
            .push([row.number_or(columns.origin[0], 0.0)?, row.number_or(columns.origin[1], 0.0)?]);
        if let Some(column) = columns.subset {
            particles.half.push(half(&row, column)?);
        }
        particles.source.push(stacks.image(&row, columns.image)?);
        particles.line.push(row.line() as u32);
    }
    particles.groups = match lookup {
        Lookup::Table { .. } => fixed,
        Lookup::Gathered(gathered) => gathered.groups,
    };
    particles.stacks = stacks.names;
    let (pixel_size, image_size) = optics::common_grid(document, &particles.groups, &particles.optics_group)?;
    (particles.pixel_size, particles.image_size) = (pixel_size, image_size);
    if columns.origin_in_angstrom {
        particles.shift.iter_mut().flatten().for_each(|s| *s /= pixel_size);
    }
    particles.halves_given = columns.subset.is_some();
    if !particles.halves_given {
        particles.half = halves::draw(count, seed);
    }
    check_halves(document.path(), &particles)?;
    warn(document, table, optics_table, &particles);
    Ok(particles)
}

/// The table of the particles: the one whose rows name images.
fn particle_table(document: &Document) -> Result<&Table> {
    const IMAGE: &str = "_rlnImageName";
    let mut named = document.tables().iter().filter(|t| t.column(IMAGE).is_some());
    match (named.next(), named.next()) {
        (Some(table), None) => Ok(table),
        (Some(a), Some(b)) => Err(Error::input(
            document.path(),
            format!("line {}", b.line()),
            format!("both data_{} and data_{} have a column {IMAGE}", a.name(), b.name()),
            "leave one table of particles in the file",
        )),
        (None, _) => Err(Error::input(
            document.path(),
            "",
            format!("no table has the column {IMAGE}"),
            "name the STAR file of the particles (such as run_data.star of a refinement)",
        )),
    }
}

/// Where a particle's optics come from.
enum Lookup {
    Table { number: Column, places: HashMap<i64, u32> },
    Gathered(Gathered),
}

impl Lookup {
    fn group_of(&mut self, row: &Cursor) -> Result<u32> {
        match self {
            Self::Gathered(gathered) => gathered.group_of(row),
            Self::Table { number, places } => {
                let id = row.whole(*number)?;
                places.get(&id).copied().ok_or_else(|| {
                    row.error(
                        format!("the particle is of optics group {id}, which data_optics does not have"),
                        "add the group to data_optics or correct the number",
                    )
                })
            }
        }
    }
}

/// The columns of the particles' table.
struct Columns {
    image: Column,
    angles: [Column; 3],
    origin: [Option<Column>; 2],
    origin_in_angstrom: bool,
    defocus: [Column; 3],
    phase_shift: Option<Column>,
    b_factor: Option<Column>,
    scale: Option<Column>,
    subset: Option<Column>,
}

impl Columns {
    fn find(document: &Document, table: &Table) -> Result<Self> {
        const ANGLES: [&str; 3] = ["_rlnAngleRot", "_rlnAngleTilt", "_rlnAnglePsi"];
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
                "refine them first (3-D refinement or ab-initio), and import the STAR file that it writes",
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
                "give both origins, or neither for particles that are centred",
            ));
        }
        Ok(Self {
            image: require(document, table, "_rlnImageName")?,
            angles: [rot, tilt, psi],
            origin,
            origin_in_angstrom,
            defocus: [column("_rlnDefocusU")?, column("_rlnDefocusV")?, column("_rlnDefocusAngle")?],
            phase_shift: find(table, "_rlnPhaseShift"),
            b_factor: find(table, "_rlnCtfBfactor"),
            scale: find(table, "_rlnCtfScalefactor"),
            subset: find(table, "_rlnRandomSubset"),
        })
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

fn half(row: &Cursor, subset: Column) -> Result<u8> {
    match row.whole(subset)? {
        1 => Ok(0),
        2 => Ok(1),
        _ => Err(row.refuse(subset, "1 or 2")),
    }
}

/// The stacks named so far.
#[derive(Default)]
struct Stacks {
    names: Vec<String>,
    places: HashMap<String, u32>,
}

impl Stacks {
    /// Splits "000012@stack.mrcs".
    fn image(&mut self, row: &Cursor, column: Column) -> Result<Source> {
        let name = row.text(column);
        let refused = || row.refuse(column, "NUMBER@STACK with images counted from 1 (as 000012@stack.mrcs)");
        let (number, stack) = name.split_once('@').ok_or_else(refused)?;
        let index = number.parse::<u64>().ok().and_then(|n| n.checked_sub(1)).ok_or_else(refused)?;
        if stack.is_empty() {
            return Err(refused());
        }
        // Rows of one stack follow each other in most files.
        if self.names.last().is_some_and(|last| last == stack) {
            return Ok(Source { file: self.names.len() as u32 - 1, index });
        }
        let file = match self.places.get(stack) {
            Some(&file) => file,
            None => {
                let file = self.names.len() as u32;
                self.names.push(stack.to_owned());
                self.places.insert(stack.to_owned(), file);
                file
            }
        };
        Ok(Source { file, index })
    }
}

impl Particles {
    fn with_capacity(count: usize) -> Self {
        Self {
            pixel_size: 0.0,
            image_size: None,
            rotation: Vec::with_capacity(count),
            shift: Vec::with_capacity(count),
            ctf: Vec::with_capacity(count),
            optics_group: Vec::with_capacity(count),
            groups: Vec::new(),
            half: Vec::with_capacity(count),
            halves_given: false,
            stacks: Vec::new(),
            source: Vec::with_capacity(count),
            line: Vec::with_capacity(count),
        }
    }

    /// Particle `i`, centred.
    pub fn particle(&self, i: usize) -> Particle {
        Particle {
            rotation: self.rotation[i],
            shift: [0.0; 2],
            ctf: self.ctf[i],
            optics_group: self.optics_group[i],
            source: Some(self.source[i]),
        }
    }

    /// Number of particles.
    pub fn len(&self) -> usize {
        self.rotation.len()
    }

    /// True without particles, which [`read`] refuses.
    pub fn is_empty(&self) -> bool {
        self.rotation.is_empty()
    }
}

fn check_halves(path: &Path, particles: &Particles) -> Result<()> {
    let n = particles.len();
    for half in [0u8, 1] {
        if !particles.half.contains(&half) {
            let problem = format!("half {} holds zero of the {n} particles", half + 1);
            return Err(if particles.halves_given {
                Error::input(
                    path,
                    "_rlnRandomSubset",
                    problem,
                    "check the column, or drop it so that the halves are drawn (see --seed)",
                )
            } else {
                Error::input(path, "", problem, "import two particles or more")
            });
        }
    }
    Ok(())
}

/// Says what is in the file but not in the model, and what looks wrong.
fn warn(document: &Document, table: &Table, optics_table: Option<&Table>, particles: &Particles) {
    let mut ignored = optics_table.map_or_else(Vec::new, |t| optics::not_modelled(document, t, usize::MAX));
    ignored.extend(optics::not_modelled(document, table, particles.len()));
    if !ignored.is_empty() {
        tracing::warn!(
            "{}: ignored, since the CTF here has no such terms: {}",
            document.path().display(),
            ignored.join(", ")
        );
    }
    // The last row of W is the direction of view in the volume.
    let direction = particles.rotation[0][2];
    if particles.len() > 2 && particles.rotation.iter().all(|w| w[2] == direction) {
        tracing::warn!(
            "{}: all particles are seen from the same direction: are these the results of a 2-D classification?",
            document.path().display()
        );
    }
}

#[cfg(test)]
mod tests;
