//! The image of each row of a STAR file, and what decides its half.

use std::path::Path;

use crate::error::{Error, Result};
use crate::imaging::pose::rotation_from_relion;
use crate::particles::Subset;
use crate::particles::import::choice::RowTraits;
use crate::particles::import::columns::{Column, Cursor, find, require};
use crate::particles::import::copies::{filament_key, pose_key};
use crate::particles::import::stack_names::{Location, StackNames};
use crate::particles::import::star::{Document, Table};
use crate::particles::store::Source;

/// The column that names a particle's image.
const IMAGE: &str = "_rlnImageName";
/// The column with the half.
pub const SUBSET: &str = "_rlnRandomSubset";
const CLASS: &str = "_rlnClassNumber";
/// The columns with the pose.
pub const ANGLES: [&str; 3] = ["_rlnAngleRot", "_rlnAngleTilt", "_rlnAnglePsi"];

/// The index of the particle table: the one with an image column.
pub(super) fn particle_table(document: &Document) -> Result<usize> {
    refuse_subtomograms(document)?;
    let mut named = document.tables().iter().enumerate().filter(|(_, t)| t.column(IMAGE).is_some());
    match (named.next(), named.next()) {
        (Some((place, _)), None) => Ok(place),
        (Some((_, a)), Some((_, b))) => Err(Error::input(
            document.path(),
            format!("line {}", b.line()),
            format!("both data_{} and data_{} have a column {IMAGE}", a.name(), b.name()),
            "keep one particle table in the file",
        )),
        (None, _) => Err(Error::input(
            document.path(),
            "",
            format!("no table has the column {IMAGE}"),
            "give the STAR file of the particles (such as run_data.star of a refinement)",
        )),
    }
}

/// Refuses particles of tomograms: each is a stack with one image per tilt.
fn refuse_subtomograms(document: &Document) -> Result<()> {
    const MARKS: [&str; 3] = ["_rlnTomoSubTomosAre2DStacks", "_rlnTomoVisibleFrames", "_rlnTomoParticleName"];
    let marked = document.tables().iter().find_map(|table| {
        let mark = MARKS.into_iter().find(|mark| table.column(mark).is_some())?;
        Some((table, mark))
    });
    let Some((table, mark)) = marked else { return Ok(()) };
    Err(Error::input(
        document.path(),
        format!("line {}", table.line()),
        format!(
            "the particles are subtomograms, each a stack of images at several tilts (data_{} has {mark}), expected one \
             image per particle",
            table.name()
        ),
        "give the particles of single-particle images; subtomograms cannot be imported",
    ))
}

/// The image of a row.
#[derive(Clone, Copy, Debug)]
pub struct NamedImage {
    /// Stack and image.
    pub source: Source,
    /// Location of the row.
    pub place: Location,
    /// The class and the half that the row gives.
    pub traits: RowTraits,
    /// The filament that the image is a segment of: a hash of its micrograph and number.
    pub filament: Option<u64>,
}

/// The columns that name the image and decide the half.
#[derive(Debug)]
pub(super) struct ImageColumns {
    image: Column,
    subset: Option<Column>,
    tube: Option<Column>,
    micrograph: Option<Column>,
    class: Option<Column>,
}

impl ImageColumns {
    pub fn find(document: &Document, table: &Table) -> Result<Self> {
        Ok(Self {
            image: require(document, table, IMAGE)?,
            subset: find(table, SUBSET),
            tube: find(table, "_rlnHelicalTubeID"),
            micrograph: find(table, "_rlnMicrographName"),
            class: find(table, CLASS),
        })
    }

    /// The column with the halves.
    pub fn half_column(&self) -> Option<&'static str> {
        self.subset.map(|column| column.label)
    }

    /// The column with the classes.
    pub fn class_column(&self) -> Option<&'static str> {
        self.class.map(|column| column.label)
    }

    /// The class and the half of the current row.
    pub fn traits(&self, row: &Cursor) -> Result<RowTraits> {
        let half = self.subset.map(|column| half(row, column)).transpose()?.flatten();
        Ok(RowTraits { class: self.class.map(|column| row.integer(column)).transpose()?, half })
    }

    /// Reads the current row.
    pub fn read(&self, row: &Cursor, stacks: &mut StackNames) -> Result<NamedImage> {
        let traits = self.traits(row)?;
        let source = image(row, self.image, stacks)?;
        let place = Location::Line(row.line());
        Ok(NamedImage { source, place, traits, filament: self.filament(row, source) })
    }

    /// The filament. RELION numbers filaments per micrograph, and extracts a stack per micrograph.
    fn filament(&self, row: &Cursor, source: Source) -> Option<u64> {
        let tube = row.text(self.tube?);
        Some(match self.micrograph {
            Some(column) => filament_key((row.text(column), tube)),
            None => filament_key((source.file, tube)),
        })
    }
}

/// The half of the row; `None` for 0, which means "not assigned".
fn half(row: &Cursor, subset: Column) -> Result<Option<Subset>> {
    match row.integer(subset)? {
        0 => Ok(None),
        1 => Ok(Some(Subset::Half1)),
        2 => Ok(Some(Subset::Half2)),
        _ => Err(row.refuse(subset, "1 or 2")),
    }
}

/// The image named in `column`, such as "000012@stack.mrcs".
fn image(row: &Cursor, column: Column, stacks: &mut StackNames) -> Result<Source> {
    let name = row.text(column);
    let refused =
        || row.refuse(column, "NUMBER@STACK with images counted from 1 (such as 000012@stack.mrcs)");
    let (number, stack) = name.split_once('@').ok_or_else(refused)?;
    let index = number.parse::<u64>().ok().and_then(|n| n.checked_sub(1)).ok_or_else(refused)?;
    if stack.is_empty() {
        return Err(refused());
    }
    Ok(Source { file: stacks.index(stack, Location::Line(row.line())), index })
}

/// The images of a STAR file, row by row.
#[derive(Debug)]
pub struct ImageTable {
    /// The image of each row.
    pub images: Vec<NamedImage>,
    /// The pose of each row ([`pose_key`]); `None` if the table has no angles.
    pub poses: Option<Vec<u64>>,
    /// The table, for the indices of its columns.
    pub table: Table,
    /// True if the file has an optics table (RELION 3.1 and later).
    pub has_optics: bool,
    /// Label of the column with the halves, if there is one.
    pub half_column: Option<&'static str>,
    /// Label of the column with the classes, if there is one.
    pub class_column: Option<&'static str>,
}

/// Reads the image names of the STAR file `path`, and what decides the halves, without interpreting other columns.
///
/// # Errors
/// If the file is not a STAR file of particles, or an image name is malformed.
pub fn image_table(path: &Path, stacks: &mut StackNames) -> Result<ImageTable> {
    let document = Document::read(path)?;
    let table = &document.tables()[particle_table(&document)?];
    let columns = ImageColumns::find(&document, table)?;
    let angles: Option<Vec<Column>> = ANGLES.into_iter().map(|label| find(table, label)).collect();
    let mut images = Vec::with_capacity(table.len());
    let mut poses = angles.as_ref().map(|_| Vec::with_capacity(table.len()));
    let mut cursor = Cursor::new(&document, table);
    while cursor.advance()? {
        images.push(columns.read(&cursor, stacks)?);
        if let (Some(poses), Some([rot, tilt, psi])) = (&mut poses, angles.as_deref()) {
            // A value that is not a number is no error: only the names of the images are asked for.
            let angle = |column: &Column| cursor.number(*column).unwrap_or(f64::NAN);
            poses.push(pose_key(&rotation_from_relion(angle(rot), angle(tilt), angle(psi))));
        }
    }
    Ok(ImageTable {
        images,
        poses,
        table: table.clone(),
        has_optics: document.tables().iter().any(|table| table.name() == "optics"),
        half_column: columns.half_column(),
        class_column: columns.class_column(),
    })
}
