//! cryoDRGN's particle sets: images in a stack, a list of stacks or a STAR file, with poses and CTFs as arrays in pickles
//! ([`super::pickle`]) in the same order.

mod arrays;

use std::path::{Path, PathBuf};

use arrays::{Ctf, Poses};

use super::optics::Groups;
use super::pickle::Pickle;
use super::relion;
use super::set::{self, Common, Directions, Row, Wanted};
use super::stack_names::{Folders, Place, StackName, StackNames};
use crate::error::{Error, Result};
use crate::imaging::ctf::{CtfParameters, Optics};
use crate::imaging::mrc::Stack;
use crate::particles::Subset;
use crate::particles::store::{Particle, Source};

/// The files that say everything but the images.
#[derive(Clone, Debug, PartialEq)]
pub struct Files {
    /// Rotations, or rotations and translations.
    pub poses: PathBuf,
    /// CTF parameters.
    pub ctf: CtfFrom,
    /// Which of the images are taken, from 0; all without it.
    pub chosen: Option<PathBuf>,
}

/// Where CTFs come from.
#[derive(Clone, Debug, PartialEq)]
pub enum CtfFrom {
    /// A pickle with an array of nine columns.
    File(PathBuf),
    /// The images have none; their pixel size in angstrom, or else it is that of the first stack's header.
    Nowhere(Option<f64>),
}

/// What the images are named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Images {
    /// An MRC stack.
    Stack,
    /// A text with the path of a stack on every line.
    List,
    /// A STAR file, of which only the images' names count.
    Star,
}

/// The particles of such files, which are held as they are, with 32 bytes for each image.
#[derive(Debug)]
pub struct Particles {
    table: Table,
    groups: Groups,
    common: Common,
}

/// Reads the particles whose images the file `path` names, in the form `images`. The paths in it begin from its folder.
///
/// # Errors
/// When a file cannot be read; when there are not as many poses or CTFs as images; when a value is not finite, a
/// rotation is none or a translation is larger than the box; when the particles differ in pixel size or box. The
/// message names file and particle.
pub fn read(path: &Path, images: Images, files: &Files, wanted: &Wanted) -> Result<Particles> {
    let datadir = wanted.datadir.filter(|_| images != Images::Stack);
    let folders = Folders::beside(path, datadir);
    let mut stacks = StackNames::default();
    let images = match images {
        Images::Stack => of_stacks(path, &[(path_name(path), Place::Particle(1))], &folders, &mut stacks)?,
        Images::List => of_stacks(path, &listed(path)?, &folders, &mut stacks)?,
        Images::Star => relion::image_table(path, &mut stacks)?.images,
    };
    let chosen = files.chosen.as_deref().map(|file| arrays::chosen(file, images.len())).transpose()?;
    let count = chosen.as_ref().map_or(images.len(), Vec::len).min(wanted.first.unwrap_or(usize::MAX));
    let half = set::draw_halves(path, count, wanted.seed)?;
    let order = |pickle: &Pickle, len| Order::of(pickle, len, images.len(), chosen.as_deref());
    let poses = Poses::read(&files.poses)?;
    let poses_order = order(&poses.pickle, poses.len())?;
    let (ctf, grid) = match &files.ctf {
        CtfFrom::File(file) => {
            let ctf = Ctf::read(file)?;
            let order = order(&ctf.pickle, ctf.len())?;
            let (pixel_size, box_size) = ctf.grid()?;
            let from = Some(format!("column 1 of {}", file.display()));
            (Some((ctf, order)), Grid { pixel_size, box_size, from })
        }
        CtfFrom::Nowhere(pixel_size) => {
            (None, Grid::of_stack(&folders.find(path, &stacks.all()[0])?, *pixel_size)?)
        }
    };
    let table = Table { images, chosen, poses, poses_order, ctf, box_size: grid.box_size };

    let mut groups = Groups::default();
    let mut directions = Directions::default();
    for particle in 0..count {
        directions.look(&table.row(particle, Subset::Half1, &mut groups)?.particle);
    }
    directions.warn(path, count);
    let ctf_file = match &files.ctf {
        CtfFrom::File(file) => Some(file),
        CtfFrom::Nowhere(_) => None,
    };
    let others = [Some(&files.poses), ctf_file, files.chosen.as_ref()];
    let common = Common {
        path: path.to_path_buf(),
        others: others.into_iter().flatten().cloned().collect(),
        pixel_size: grid.pixel_size,
        image_size: grid.from.map(|from| (grid.box_size, from)),
        optics: groups.optics.clone(),
        half,
        halves_given: false,
        dark: false,
        stacks,
        folders,
    };
    Ok(Particles { table, groups, common })
}

impl set::Particles for Particles {
    fn common(&self) -> &Common {
        &self.common
    }

    fn rows(&mut self) -> Box<dyn Iterator<Item = Result<Row>> + '_> {
        let Self { table, groups, common } = self;
        Box::new(common.half.iter().enumerate().map(|(particle, &half)| table.row(particle, half, groups)))
    }
}

/// Without defocus and aberration, a CTF of amplitude contrast 1 is 1 at every frequency.
const NO_OPTICS: Optics = Optics { voltage: 300.0, spherical_aberration: 0.0, amplitude_contrast: 1.0 };

/// All files together.
#[derive(Debug)]
struct Table {
    /// Every image that is named, and where.
    images: Vec<(Source, Place)>,
    chosen: Option<Vec<usize>>,
    poses: Poses,
    poses_order: Order,
    ctf: Option<(Ctf, Order)>,
    box_size: usize,
}

impl Table {
    fn row(&self, particle: usize, half: Subset, groups: &mut Groups) -> Result<Row> {
        let image = self.chosen.as_ref().map_or(particle, |chosen| chosen[particle]);
        let (source, place) = self.images[image];
        let pose = self.poses_order.row(particle, image);
        let (optics, ctf) = match &self.ctf {
            Some((ctf, order)) => ctf.row(order.row(particle, image))?,
            None => (NO_OPTICS, CtfParameters::default()),
        };
        let shift = self.poses.shift(pose)?.map(|fraction| fraction * self.box_size as f64);
        let particle = Particle {
            rotation: self.poses.rotation(pose)?,
            shift: [0.0; 2],
            ctf,
            optics_group: groups.index(optics),
            source: Some(source),
        };
        Ok(Row { particle, source, shift, half, dark: false, place })
    }
}

/// Which row of an array a particle has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// That of its image: there is one for each image, chosen or not.
    OfImages,
    /// Its own: there is one for each image that is chosen.
    OfChosen,
}

impl Order {
    /// Of an array with `len` rows, for so many images.
    fn of(pickle: &Pickle, len: usize, images: usize, chosen: Option<&[usize]>) -> Result<Self> {
        match chosen {
            _ if len == images => Ok(Self::OfImages),
            Some(chosen) if len == chosen.len() => Ok(Self::OfChosen),
            _ => Err(Error::input(
                pickle.path(),
                "",
                format!("holds {len} rows, expected {images}, one for each image"),
                "name the file that belongs to these images, or the images that are taken with --ind",
            )),
        }
    }

    fn row(self, particle: usize, image: usize) -> usize {
        if self == Self::OfImages { image } else { particle }
    }
}

/// What the images are sampled on.
#[derive(Debug)]
struct Grid {
    pixel_size: f64,
    box_size: usize,
    /// What says so, if not a stack.
    from: Option<String>,
}

impl Grid {
    /// Of the stack `first`, with the pixel size as `given`, or as its header says.
    fn of_stack(first: &Path, given: Option<f64>) -> Result<Self> {
        let stack = Stack::open(first)?;
        let pixel_size = given.unwrap_or(stack.header().voxel_size[0]);
        if !(pixel_size.is_finite() && pixel_size > 0.0) {
            return Err(Error::input(
                first,
                "",
                format!("the pixel size is {pixel_size} A, expected a number above 0"),
                "give it with --pixel-size",
            ));
        }
        Ok(Self { pixel_size, box_size: stack.header().size[0], from: None })
    }
}

fn path_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The stacks that a text names, one on a line.
fn listed(path: &Path) -> Result<Vec<(String, Place)>> {
    let failed = Error::io(path, "read the list of stacks", "check the path, and that it is a text");
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let lines = text.lines().enumerate().map(|(i, line)| (line.trim().to_owned(), Place::Line(i + 1)));
    let named: Vec<_> = lines.filter(|(name, _)| !name.is_empty()).collect();
    if named.is_empty() {
        return Err(Error::input(path, "", "names no stack", "write the path of a stack on every line"));
    }
    Ok(named)
}

/// All images of these stacks, one after the other.
fn of_stacks(
    path: &Path,
    named: &[(String, Place)],
    folders: &Folders,
    stacks: &mut StackNames,
) -> Result<Vec<(Source, Place)>> {
    let mut images = Vec::new();
    for (name, place) in named {
        let stack = StackName { name: name.clone(), place: *place };
        let len = Stack::open(&folders.find(path, &stack)?)?.len();
        let file = stacks.index(name, *place);
        for index in 0..len as u64 {
            images.push((Source { file, index }, Place::Particle(images.len() + 1)));
        }
    }
    Ok(images)
}
