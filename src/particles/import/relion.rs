//! What RELION's particle STAR files mean: version 3.1 and later (a table of optics groups and one of particles) and
//! version 3.0 (one table).

use std::collections::HashMap;
use std::path::Path;

use super::columns::{Column, Cursor, find, require};
use super::optics::{self, Gathered, NotModelled};
use super::set::{self, Common, Directions, Row, Wanted};
use super::stack_names::{Folders, Place, StackNames};
use super::star::{Document, Table};
use crate::error::{Error, Result};
use crate::imaging::ctf::CtfParameters;
use crate::imaging::pose::{Rotation, rotation_from_relion};
use crate::particles::Subset;
use crate::particles::store::{Particle, Source};

/// A STAR file's particles. Their rows stay in the file, which is read again for them: all that is held for each
/// particle is its half.
#[derive(Debug)]
pub struct Particles {
    document: Document,
    /// Which of the document's tables is theirs.
    table: usize,
    meaning: Meaning,
    common: Common,
}

/// Reads the particles of the STAR file `path`, whose stacks' paths begin from its folder.
///
/// The file is read through twice here, first for its tables and then for what they say, and everything is checked.
///
/// # Errors
/// When the file is no STAR file; has no particles, poses or CTFs; has values that are not finite numbers; has optics
/// groups that differ in pixel size or box; or leaves a half without particles. The message names line and column.
pub fn read(path: &Path, wanted: &Wanted) -> Result<Particles> {
    interpret(Document::read(path)?, wanted)
}

fn interpret(document: Document, wanted: &Wanted) -> Result<Particles> {
    let place = particle_table(&document)?;
    let table = &document.tables()[place];
    let count = table.len().min(wanted.first.unwrap_or(usize::MAX));
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
    let mut meaning = Meaning { columns, lookup };
    let mut stacks = StackNames::default();

    let halves_given = meaning.columns.subset.is_some();
    let mut half = Vec::with_capacity(if halves_given { count } else { 0 });
    let mut used = vec![false; fixed.len()];
    let mut directions = Directions::default();
    let mut not_modelled = NotModelled::new(table);
    let mut cursor = Cursor::new(&document, table);
    for _ in 0..count {
        cursor.advance()?;
        let (row, given) = meaning.read(&cursor, &mut stacks)?;
        half.extend(given);
        let group = row.particle.optics_group as usize;
        if group >= used.len() {
            used.resize(group + 1, false);
        }
        used[group] = true;
        directions.look(&row.particle);
        not_modelled.look(&cursor);
    }
    let groups = match &meaning.lookup {
        Lookup::Table { .. } => fixed,
        Lookup::Gathered(gathered) => gathered.groups.clone(),
    };
    let (pixel_size, image_size) = optics::common_grid(&document, &groups, &used)?;
    if halves_given {
        check_halves(document.path(), &half)?;
    } else {
        half = set::draw_halves(document.path(), count, wanted.seed)?;
    }

    let mut ignored = match optics_table {
        Some(table) => NotModelled::in_table(&document, table)?,
        None => Vec::new(),
    };
    ignored.extend(not_modelled.labels());
    set::warn_of_ignored(document.path(), ignored);
    directions.warn(document.path(), count);
    let path = document.path().to_path_buf();
    let common = Common {
        others: Vec::new(),
        pixel_size,
        image_size: image_size.map(|size| (size, format!("_rlnImageSize of {}", path.display()))),
        optics: groups.iter().map(|group| group.optics).collect(),
        half,
        halves_given,
        dark: false,
        stacks,
        folders: Folders::beside(&path, wanted.datadir),
        path,
    };
    Ok(Particles { document, table: place, meaning, common })
}

/// The column that names a particle's image.
const IMAGE: &str = "_rlnImageName";

/// Which table is the particles': the one whose rows name images.
fn particle_table(document: &Document) -> Result<usize> {
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

/// What the rows mean, and the optics groups that they have named.
#[derive(Debug)]
struct Meaning {
    columns: Columns,
    lookup: Lookup,
}

impl Meaning {
    /// The row that the cursor is on, with its shift as the file gives it, and the half where the file gives one.
    fn read(&mut self, cursor: &Cursor, stacks: &mut StackNames) -> Result<(Row, Option<Subset>)> {
        let columns = &self.columns;
        let rotation = columns.rotation(cursor)?;
        let ctf = columns.ctf(cursor)?;
        let optics_group = self.lookup.group_of(cursor)?;
        let shift = [cursor.number_or(columns.origin[0], 0.0)?, cursor.number_or(columns.origin[1], 0.0)?];
        let given = columns.subset.map(|column| half(cursor, column)).transpose()?;
        let source = image(cursor, columns.image, stacks)?;
        let particle = Particle { rotation, shift: [0.0; 2], ctf, optics_group, source: Some(source) };
        let (half, place) = (given.unwrap_or(Subset::Half1), Place::Line(cursor.line()));
        Ok((Row { particle, source, shift, half, dark: false, place }, given))
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
            image: require(document, table, IMAGE)?,
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

fn half(row: &Cursor, subset: Column) -> Result<Subset> {
    match row.whole(subset)? {
        1 => Ok(Subset::Half1),
        2 => Ok(Subset::Half2),
        _ => Err(row.refuse(subset, "1 or 2")),
    }
}

/// The image that `column` names: "000012@stack.mrcs".
fn image(row: &Cursor, column: Column, stacks: &mut StackNames) -> Result<Source> {
    let name = row.text(column);
    let refused = || row.refuse(column, "NUMBER@STACK with images counted from 1 (as 000012@stack.mrcs)");
    let (number, stack) = name.split_once('@').ok_or_else(refused)?;
    let index = number.parse::<u64>().ok().and_then(|n| n.checked_sub(1)).ok_or_else(refused)?;
    if stack.is_empty() {
        return Err(refused());
    }
    Ok(Source { file: stacks.index(stack, Place::Line(row.line())), index })
}

/// The images that a STAR file names, row by row.
#[derive(Debug)]
pub struct ImageTable {
    /// The image of each row, and the line it is on.
    pub images: Vec<(Source, Place)>,
    /// Columns of the table.
    pub width: usize,
    /// The column of the random subset, from 0.
    pub subset: Option<usize>,
}

/// The images that the rows of the STAR file `path` name, whatever else they say, and where each is named.
///
/// # Errors
/// When the file is no STAR file of particles, or a name is none.
pub fn image_table(path: &Path, stacks: &mut StackNames) -> Result<ImageTable> {
    let document = Document::read(path)?;
    let table = &document.tables()[particle_table(&document)?];
    let column = require(&document, table, IMAGE)?;
    let mut images = Vec::with_capacity(table.len());
    let mut cursor = Cursor::new(&document, table);
    while cursor.advance()? {
        images.push((image(&cursor, column, stacks)?, Place::Line(cursor.line())));
    }
    Ok(ImageTable { images, width: table.width(), subset: table.column("_rlnRandomSubset") })
}

impl set::Particles for Particles {
    fn common(&self) -> &Common {
        &self.common
    }

    fn rows(&mut self) -> Box<dyn Iterator<Item = Result<Row>> + '_> {
        let common = &mut self.common;
        Box::new(ParticleRows {
            known: common.stacks.all().len(),
            groups: common.optics.len(),
            unit: if self.meaning.columns.origin_in_angstrom { common.pixel_size } else { 1.0 },
            cursor: Cursor::new(&self.document, &self.document.tables()[self.table]),
            meaning: &mut self.meaning,
            stacks: &mut common.stacks,
            half: common.half.iter(),
        })
    }
}

/// The particles of a STAR file, one after the other. Fails where the file cannot be read, or has changed.
struct ParticleRows<'a> {
    cursor: Cursor<'a>,
    meaning: &'a mut Meaning,
    stacks: &'a mut StackNames,
    half: std::slice::Iter<'a, Subset>,
    /// What an origin is divided by.
    unit: f64,
    /// Stacks and groups that were there when the file was read first.
    known: usize,
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
    fn read(&mut self, half: Subset) -> Result<Row> {
        self.cursor.advance()?;
        let (mut row, _) = self.meaning.read(&self.cursor, self.stacks)?;
        if row.source.file as usize >= self.known || row.particle.optics_group as usize >= self.groups {
            return Err(self.cursor.changed());
        }
        row.half = half;
        row.shift = row.shift.map(|shift| shift / self.unit);
        Ok(row)
    }
}

fn check_halves(path: &Path, halves: &[Subset]) -> Result<()> {
    match Subset::HALVES.into_iter().find(|half| !halves.contains(half)) {
        None => Ok(()),
        Some(empty) => Err(Error::input(
            path,
            "_rlnRandomSubset",
            format!("half {} holds zero of the {} particles", empty.seed_index(), halves.len()),
            "check the column, or drop it so that the halves are drawn (see --seed)",
        )),
    }
}

#[cfg(test)]
mod tests;
