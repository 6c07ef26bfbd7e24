//! Interprets cryoDRGN's particle sets: images in a stack, a list of stacks or a STAR file, and pickles ([`super::pickle`])
//! with arrays of poses and CTFs in the same order.

mod arrays;

use std::path::{Path, PathBuf};

use arrays::{Ctf, Poses};

use super::choice::{Choice, RowTraits};
use super::half_sets::HalfCollector;
use super::optics::{Groups, RawImages};
use super::pickle::Pickle;
use super::relion::{self, NamedImage};
use super::set::{self, ParticleRow, ReadOptions, SetProperties, ViewingDirections};
use super::stack_names::{Location, StackFolders, StackName, StackNames};
use crate::error::{Error, Result};
use crate::files;
use crate::imaging::ctf::{CtfParameters, Optics};
use crate::imaging::mrc::Stack;
use crate::particles::Subset;
use crate::particles::store::{Particle, Source};

/// The files with poses and CTFs.
#[derive(Clone, Debug, PartialEq)]
pub struct Files {
    /// Rotations, or rotations and translations.
    pub poses: PathBuf,
    /// CTF parameters.
    pub ctf: CtfFrom,
    /// Indices of the selected images, from 0 (`--ind`); `None` for all images.
    pub selected: Option<PathBuf>,
}

/// Source of the CTFs.
#[derive(Clone, Debug, PartialEq)]
pub enum CtfFrom {
    /// A pickle with an array of nine columns.
    File(PathBuf),
    /// No CTF, with the pixel size in angstrom; `None` for that in the header of the first stack.
    Nowhere(Option<f64>),
}

/// The file that names the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Images {
    /// An MRC stack.
    Stack,
    /// A text file with the path of one stack per line.
    List,
    /// A STAR file, of which only the image names are used.
    Star,
}

/// The particles of cryoDRGN's files. In memory are the files and 64 bytes per image.
#[derive(Debug)]
pub struct Particles {
    table: Table,
    groups: Groups,
    properties: SetProperties,
}

/// Reads the particles of the images in the file `path`, which is of type `images`. Paths in it are relative to its folder.
///
/// # Errors
/// If a file cannot be read, the numbers of images, poses and CTFs differ, a value is not finite, a matrix is not a
/// rotation, a translation is larger than the box, or the particles differ in pixel size or box size. The error names file
/// and particle.
pub fn read(path: &Path, images: Images, files: &Files, options: &ReadOptions) -> Result<Particles> {
    let datadir = options.datadir.filter(|_| images != Images::Stack);
    let folders = StackFolders::beside(path, datadir);
    let mut stacks = StackNames::default();
    let (images, half_column, class_column) = match images {
        Images::Stack => {
            let named = [(path_name(path), Location::Particle(1))];
            (of_stacks(path, &named, &folders, &mut stacks)?, None, None)
        }
        Images::List => (of_stacks(path, &listed(path)?, &folders, &mut stacks)?, None, None),
        Images::Star => {
            let table = relion::image_table(path, &mut stacks)?;
            (table.images, table.half_column, table.class_column)
        }
    };
    let selected = files.selected.as_deref().map(|file| arrays::selected(file, images.len())).transpose()?;
    let all = selected.as_ref().map_or(images.len(), Vec::len);
    let traits = |row: usize| Ok(images[selected.as_ref().map_or(row, |selected| selected[row])].traits);
    let choice = Choice::new(path, all, options, class_column, half_column.is_some(), traits)?;
    let order = |pickle: &Pickle, len| RowOrder::of(pickle, len, images.len(), selected.as_deref());
    let poses = Poses::read(&files.poses)?;
    let poses_order = order(&poses.pickle, poses.len())?;
    let (ctf, grid) = match &files.ctf {
        CtfFrom::File(file) => {
            let ctf = Ctf::read(file)?;
            let order = order(&ctf.pickle, ctf.len())?;
            let first = folders.find(path, &stacks.all()[0])?;
            let grid = Grid::of_ctf(&ctf, file, &first)?;
            (Some((ctf, order)), grid)
        }
        CtfFrom::Nowhere(pixel_size) => {
            (None, Grid::of_stack(&folders.find(path, &stacks.all()[0])?, *pixel_size)?)
        }
    };
    let Grid { pixel_size, box_size, from } = grid;
    let table = Table { images, selected, poses, poses_order, ctf, pixel_size, box_size };

    let mut groups = Groups::default();
    let mut directions = ViewingDirections::default();
    let mut halves = HalfCollector::new(half_column);
    for particle in choice.rows() {
        let row = table.row(particle, Subset::Half1, &mut groups)?;
        groups.count(row.particle.optics_group);
        directions.observe(&row.particle);
        let image = &table.images[table.image(particle)];
        halves.add(&row, image.traits.half, image.filament);
    }
    directions.warn(path, choice.count());
    let half_sets = halves.decide(path, &stacks, &folders, options)?;
    let ctf_file = match &files.ctf {
        CtfFrom::File(file) => Some(file),
        CtfFrom::Nowhere(_) => None,
    };
    let others = [Some(&files.poses), ctf_file, files.selected.as_ref()];
    let properties = SetProperties {
        path: path.to_path_buf(),
        others: others.into_iter().flatten().cloned().collect(),
        optics: groups.optics.clone(),
        raw: groups.raw.clone(),
        box_from: from,
        columns: ["voltage (column 6)", "defocus (column 3)", "translation"],
        choice,
        half_sets,
        ignored: Vec::new(),
        dark: false,
        stacks,
        folders,
    };
    Ok(Particles { table, groups, properties })
}

impl set::ParticleSet for Particles {
    fn properties(&self) -> &SetProperties {
        &self.properties
    }

    fn rows(&mut self) -> Box<dyn Iterator<Item = Result<ParticleRow>> + '_> {
        let Self { table, groups, properties } = self;
        let rows = properties.choice.rows().zip(&properties.half_sets.of);
        Box::new(rows.map(|(particle, &half)| table.row(particle, half, groups)))
    }
}

/// Gives a CTF of 1 at every frequency: amplitude contrast 1, no defocus and no aberration.
const NO_OPTICS: Optics = Optics::new(300.0, 0.0, 1.0);

/// The rows of all files.
#[derive(Debug)]
struct Table {
    /// Every image.
    images: Vec<NamedImage>,
    selected: Option<Vec<usize>>,
    poses: Poses,
    poses_order: RowOrder,
    ctf: Option<(Ctf, RowOrder)>,
    pixel_size: f64,
    box_size: usize,
}

impl Table {
    /// Index of the image of the particle.
    fn image(&self, particle: usize) -> usize {
        self.selected.as_ref().map_or(particle, |selected| selected[particle])
    }

    fn row(&self, particle: usize, half: Subset, groups: &mut Groups) -> Result<ParticleRow> {
        let image = self.image(particle);
        let NamedImage { source, place, .. } = self.images[image];
        let pose = self.poses_order.row(particle, image);
        let (optics, ctf) = match &self.ctf {
            Some((ctf, order)) => ctf.row(order.row(particle, image))?,
            None => (NO_OPTICS, CtfParameters::default()),
        };
        let shift = self.poses.shift(pose)?.map(|fraction| fraction * self.box_size as f64);
        let raw =
            RawImages { pixel_size: self.pixel_size, box_size: Some(self.box_size), ..RawImages::default() };
        let particle = Particle {
            rotation: self.poses.rotation(pose)?,
            shift: [0.0; 2],
            ctf,
            optics_group: groups.index(optics, raw),
            source: Some(source),
        };
        Ok(ParticleRow { particle, source, shift, half, dark: false, place })
    }
}

/// ParticleRow order of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RowOrder {
    /// One row per image, selected or not.
    Images,
    /// One row per selected image.
    Selected,
}

impl RowOrder {
    /// The order of an array with `len` rows, for this number of images.
    fn of(pickle: &Pickle, len: usize, images: usize, selected: Option<&[usize]>) -> Result<Self> {
        match selected {
            _ if len == images => Ok(Self::Images),
            Some(selected) if len == selected.len() => Ok(Self::Selected),
            _ => Err(Error::input(
                pickle.path(),
                "",
                format!("has {len} rows, expected {images}, one per image"),
                "give the file that belongs to these images, or select the images with --ind",
            )),
        }
    }

    fn row(self, particle: usize, image: usize) -> usize {
        if self == Self::Images { image } else { particle }
    }
}

/// The pixel grid of the images.
#[derive(Debug)]
struct Grid {
    pixel_size: f64,
    box_size: usize,
    /// Source of the box size.
    from: String,
}

impl Grid {
    /// The grid of the images in the stack `first` with the CTFs of the file `path`. Images that were downsampled after their CTFs
    /// were written have another box: their pixels are larger, as cryoDRGN takes them to be.
    fn of_ctf(ctf: &Ctf, path: &Path, first: &Path) -> Result<Self> {
        let (pixel_size, box_size) = ctf.grid()?;
        let stored = Stack::open(first)?.header().size[0];
        if stored == box_size {
            return Ok(Self { pixel_size, box_size, from: format!("column 1 of {}", path.display()) });
        }
        let scaled = pixel_size * box_size as f64 / stored as f64;
        tracing::info!(
            "{}: CTFs of a box of {box_size} pixels of {pixel_size:.4} A for images of {stored} pixels: their pixel size is {scaled:.4} A",
            path.display()
        );
        Ok(Self { pixel_size: scaled, box_size: stored, from: first.display().to_string() })
    }

    /// The grid of the stack `first`, with the pixel size `given`, or else that of its header.
    fn of_stack(first: &Path, given: Option<f64>) -> Result<Self> {
        let stack = Stack::open(first)?;
        let pixel_size = given.unwrap_or(stack.header().voxel_size[0]);
        if !(pixel_size.is_finite() && pixel_size > 0.0) {
            return Err(Error::input(
                first,
                "",
                format!("the pixel size is {pixel_size} A, expected a number above 0"),
                "set --pixel-size",
            ));
        }
        Ok(Self { pixel_size, box_size: stack.header().size[0], from: first.display().to_string() })
    }
}

fn path_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The stacks in a list, one per line.
fn listed(path: &Path) -> Result<Vec<(String, Location)>> {
    let failed = Error::io(path, "read the list of stacks", "check the path, and that it is a text file");
    let text = files::read_text(path).map_err(failed)?;
    let lines = text.lines().enumerate().map(|(i, line)| (line.trim().to_owned(), Location::Line(i + 1)));
    let named: Vec<_> = lines.filter(|(name, _)| !name.is_empty()).collect();
    if named.is_empty() {
        return Err(Error::input(path, "", "names no stack", "write the path of one stack per line"));
    }
    Ok(named)
}

/// All images of these stacks, in order.
fn of_stacks(
    path: &Path,
    named: &[(String, Location)],
    folders: &StackFolders,
    stacks: &mut StackNames,
) -> Result<Vec<NamedImage>> {
    let mut images = Vec::new();
    for (name, place) in named {
        let stack = StackName { name: name.clone(), place: *place };
        let len = Stack::open(&folders.find(path, &stack)?)?.len();
        let file = stacks.index(name, *place);
        for index in 0..len as u64 {
            let place = Location::Particle(images.len() + 1);
            images.push(NamedImage {
                source: Source { file, index },
                place,
                traits: RowTraits::default(),
                filament: None,
            });
        }
    }
    Ok(images)
}
