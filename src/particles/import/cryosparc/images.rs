//! The images of a `.cs` file, record by record.

use std::path::Path;

use super::classes::Alignments;
use super::files::{Column, Files, REMEDY};
use crate::error::{Error, Result};
use crate::particles::import::copies::pose_key;
use crate::particles::import::npy::Table;
use crate::particles::import::stack_names::StackNames;
use crate::particles::import::star::excerpt;
use crate::particles::store::Source;

/// The columns that name the image.
#[derive(Debug)]
pub(super) struct ImageColumns {
    path: Column,
    index: Column,
}

/// The error that the column `name` of the images is missing.
pub(super) fn missing(files: &Files, name: &str) -> Error {
    Error::input(
        files.path(),
        "",
        format!("the particles have no images: the column {name} does not exist"),
        "give the file with this column as --passthrough",
    )
}

impl ImageColumns {
    pub fn find(files: &Files) -> Result<Self> {
        Ok(Self {
            path: files.any("blob/path").ok_or_else(|| missing(files, "blob/path"))?,
            index: files.find("blob/idx", 1)?.ok_or_else(|| missing(files, "blob/idx"))?,
        })
    }

    /// The image of the particle.
    pub fn read(&self, files: &Files, particle: usize, stacks: &mut StackNames) -> Result<Source> {
        let refuse = |column: &Column, found: String| {
            let problem = format!("{} is {found}, which does not name an image", column.name);
            files.error(column, particle, problem, REMEDY)
        };
        let table = files.table(self.path.file);
        let name = table.text(self.path.field, files.record(&self.path, particle));
        // cryoSPARC marks the paths of links with '>'.
        let name = name.as_deref().unwrap_or_default().trim_start_matches('>');
        if name.is_empty() {
            return Err(refuse(&self.path, excerpt(name)));
        }
        let index = files.table(self.index.file).index(self.index.field, files.record(&self.index, particle));
        let index =
            index.ok_or_else(|| refuse(&self.index, files.number(&self.index, particle, 0).to_string()))?;
        Ok(Source { file: stacks.index(name, files.place(particle)), index })
    }
}

/// The records of a `.cs` file and their images.
#[derive(Debug)]
pub struct ImageTable {
    /// The file.
    pub table: Table,
    /// The image of each record, and the key of its pose if the file has poses of one class.
    pub images: Vec<(Source, Option<u64>)>,
}

/// Reads the image names and poses of the `.cs` file `path`.
///
/// # Errors
/// If the file is not a table, or does not name the images.
pub fn image_table(path: &Path, stacks: &mut StackNames) -> Result<ImageTable> {
    let files = Files::read(path, &[])?;
    let columns = ImageColumns::find(&files)?;
    let alignments = Alignments::find(&files, None).ok();
    let pose = |particle| Some(pose_key(&alignments.as_ref()?.rotation(&files, particle).ok()?));
    let image = |particle| Ok((columns.read(&files, particle, stacks)?, pose(particle)));
    let images = (0..files.len()).map(image).collect::<Result<_>>()?;
    Ok(ImageTable { table: files.into_main(), images })
}
