//! What RELION's particle STAR files mean: version 3.1 and later (a table of optics groups and one of particles) and
//! version 3.0 (one table).

use std::collections::HashMap;
use std::path::Path;

use super::columns::{Column, Cursor, find, require};
pub use super::optics::Group;
use super::optics::{self, Gathered, NotModelled};
use super::star::{Document, Table};
use crate::error::{Error, Result};
use crate::imaging::ctf::CtfParameters;
use crate::imaging::pose::{Rotation, rotation_from_relion};
use crate::particles::halves;
use crate::particles::store::{Particle, Source};

/// A STAR file's particles. Their rows stay in the file, which [`Particles::rows`] reads again: all that is held for each
/// particle is its half.
#[derive(Debug)]
pub struct Particles {
    document: Document,
    /// Which of the document's tables is theirs.
    table: usize,
    meaning: Meaning,
    /// Pixel size of the raw images in angstrom.
    pub pixel_size: f64,
    /// Box of the raw images in pixels, where the file says.
    pub image_size: Option<usize>,
    /// The optics groups.
    pub groups: Vec<Group>,
    /// FSC half of each particle, 0 or 1.
    pub half: Vec<u8>,
    /// True where the halves come from `_rlnRandomSubset`, false where they were drawn.
    pub halves_given: bool,
}

/// A particle as its row says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// The particle, centred; its source is an index into [`Particles::stacks`].
    pub particle: Particle,
    /// Stack and image (from 0).
    pub source: Source,
    /// How far the image must be moved (x, y) to be centred, in raw pixels.
    pub shift: [f64; 2],
    /// FSC half, 0 or 1.
    pub half: u8,
    /// Its line in the file, from 1.
    pub line: usize,
}

/// Reads the particles of the STAR file `path`: all, or the `first` ones. Halves that the file does not give are drawn
/// with `seed`.
///
/// The file is read through twice here, first for its tables and then for what they say, and everything is checked.
///
/// # Errors
/// When the file is no STAR file; has no particles, poses or CTFs; has values that are not finite numbers; has optics
/// groups that differ in pixel size or box; or leaves a half without particles. The message names line and column.
pub fn read(path: &Path, first: Option<usize>, seed: u64) -> Result<Particles> {
    interpret(Document::read(path)?, first.unwrap_or(usize::MAX), seed)
}

fn interpret(document: Document, first: usize, seed: u64) -> Result<Particles> {
    let place = particle_table(&document)?;
    let table = &document.tables()[place];
    let count = table.len().min(first);
    if count == 0 {
        return Err(Error::input(
            document.path(),
            format!("line {}", table.line()),
            format!("data_{} holds zero particles", table.name()),
            "select particles before the import",
        ));
    }
    let columns = Columns::find(&document, table)?;
    let optics_table = document.tables().iter().find(|t| t.name() == "optics");
    let (lookup, fixed) = match optics_table {
        Some(optics) => {
            let (groups, places) = optics::read_table(&document, optics)?;
            let number = require(&document, table, "_rlnOpticsGroup")?;
            (Lookup::Table { number, places }, groups)
        }
        None => (Lookup::Gathered(Gathered::new(&document, table)?), Vec::new()),
    };
    let mut meaning = Meaning { columns, lookup, stacks: Stacks::default() };

    let halves_given = meaning.columns.subset.is_some();
    let mut half = Vec::with_capacity(if halves_given { count } else { 0 });
    let mut used = vec![false; fixed.len()];
    let mut direction = None;
    let mut all_from_there = true;
    let mut not_modelled = NotModelled::new(table);
    let mut cursor = Cursor::new(&document, table);
    for _ in 0..count {
        cursor.advance()?;
        let (row, given) = meaning.read(&cursor)?;
        half.extend(given);
        let group = row.particle.optics_group as usize;
        if group >= used.len() {
            used.resize(group + 1, false);
        }
        used[group] = true;
        // The last row of W is the direction of view in the volume.
        all_from_there &= *direction.get_or_insert(row.particle.rotation[2]) == row.particle.rotation[2];
        not_modelled.look(&cursor);
    }
    let groups = match &meaning.lookup {
        Lookup::Table { .. } => fixed,
        Lookup::Gathered(gathered) => gathered.groups.clone(),
    };
    let (pixel_size, image_size) = optics::common_grid(&document, &groups, &used)?;
    if !halves_given {
        half = halves::draw(count, seed);
    }
    check_halves(document.path(), &half, halves_given)?;

    let mut ignored = match optics_table {
        Some(table) => NotModelled::in_table(&document, table)?,
        None => Vec::new(),
    };
    ignored.extend(not_modelled.labels());
    if !ignored.is_empty() {
        tracing::warn!(
            "{}: ignored, since the CTF here has no such terms: {}",
            document.path().display(),
            ignored.join(", ")
        );
    }
    if count > 2 && all_from_there {
        tracing::warn!(
            "{}: all particles are seen from the same direction: are these the results of a 2-D classification?",
            document.path().display()
        );
    }
    Ok(Particles { document, table: place, meaning, pixel_size, image_size, groups, half, halves_given })
}

/// Which table is the particles': the one whose rows name images.
fn particle_table(document: &Document) -> Result<usize> {
    const IMAGE: &str = "_rlnImageName";
    let mut named = document.tables().iter().enumerate().filter(|(_, t)| t.column(IMAGE).is_some());
    match (named.next(), named.next()) {
        (Some((place, _)), None) => Ok(place),
        (Some((_, a)), Some((_, b))) => Err(Error::input(
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

/// What the rows mean, and the optics groups and stacks that they have named.
#[derive(Debug)]
struct Meaning {
    columns: Columns,
    lookup: Lookup,
    stacks: Stacks,
}

impl Meaning {
    /// The row that the cursor is on, with its shift as the file gives it, and the half where the file gives one.
    fn read(&mut self, cursor: &Cursor) -> Result<(Row, Option<u8>)> {
        let columns = &self.columns;
        let rotation = columns.rotation(cursor)?;
        let ctf = columns.ctf(cursor)?;
        let optics_group = self.lookup.group_of(cursor)?;
        let shift = [cursor.number_or(columns.origin[0], 0.0)?, cursor.number_or(columns.origin[1], 0.0)?];
        let given = columns.subset.map(|column| half(cursor, column)).transpose()?;
        let source = self.stacks.image(cursor, columns.image)?;
        let particle = Particle { rotation, shift: [0.0; 2], ctf, optics_group, source: Some(source) };
        Ok((Row { particle, source, shift, half: given.unwrap_or_default(), line: cursor.line() }, given))
    }
}

/// Where a particle's optics come from.
#[derive(Debug)]
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
#[derive(Debug)]
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
#[derive(Debug, Default)]
struct Stacks {
    named: Vec<StackName>,
    places: HashMap<String, u32>,
}

/// A stack, as the file names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackName {
    /// Its path.
    pub name: String,
    /// The line that names it first, from 1.
    pub line: usize,
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
        if self.named.last().is_some_and(|last| last.name == stack) {
            return Ok(Source { file: self.named.len() as u32 - 1, index });
        }
        let file = match self.places.get(stack) {
            Some(&file) => file,
            None => {
                let file = self.named.len() as u32;
                self.named.push(StackName { name: stack.to_owned(), line: row.line() });
                self.places.insert(stack.to_owned(), file);
                file
            }
        };
        Ok(Source { file, index })
    }
}

impl Particles {
    /// Number of particles.
    pub fn len(&self) -> usize {
        self.half.len()
    }

    /// True without particles, which [`read`] refuses.
    pub fn is_empty(&self) -> bool {
        self.half.is_empty()
    }

    /// The stacks, in the order of their first particles.
    pub fn stacks(&self) -> &[StackName] {
        &self.meaning.stacks.named
    }

    /// Particles in each half.
    pub fn halves(&self) -> [usize; 2] {
        let second = self.half.iter().filter(|&&half| half == 1).count();
        [self.len() - second, second]
    }

    /// Reads the particles again, in file order.
    pub fn rows(&mut self) -> ParticleRows<'_> {
        ParticleRows {
            stacks: self.meaning.stacks.named.len(),
            groups: self.groups.len(),
            unit: if self.meaning.columns.origin_in_angstrom { self.pixel_size } else { 1.0 },
            cursor: Cursor::new(&self.document, &self.document.tables()[self.table]),
            meaning: &mut self.meaning,
            half: self.half.iter(),
        }
    }
}

/// The particles of a STAR file, one after the other. Fails where the file cannot be read, or has changed.
pub struct ParticleRows<'a> {
    cursor: Cursor<'a>,
    meaning: &'a mut Meaning,
    half: std::slice::Iter<'a, u8>,
    /// What an origin is divided by.
    unit: f64,
    stacks: usize,
    groups: usize,
}

impl Iterator for ParticleRows<'_> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        let &half = self.half.next()?;
        Some(self.read(half))
    }
}

impl ParticleRows<'_> {
    fn read(&mut self, half: u8) -> Result<Row> {
        self.cursor.advance()?;
        let (mut row, _) = self.meaning.read(&self.cursor)?;
        if row.source.file as usize >= self.stacks || row.particle.optics_group as usize >= self.groups {
            return Err(self.cursor.changed());
        }
        row.half = half;
        row.shift = row.shift.map(|shift| shift / self.unit);
        Ok(row)
    }
}

fn check_halves(path: &Path, halves: &[u8], given: bool) -> Result<()> {
    let n = halves.len();
    for half in [0u8, 1] {
        if !halves.contains(&half) {
            let problem = format!("half {} holds zero of the {n} particles", half + 1);
            return Err(if given {
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

#[cfg(test)]
mod tests;
