//! cryoDRGN's particle sets: images in a stack, a list of stacks or a STAR file, with poses and CTFs as arrays in pickles
//! ([`super::pickle`]) in the same order.

use std::path::{Path, PathBuf};

use super::optics::{Groups, SAME_PIXEL_SIZE};
use super::pickle::{Array, Id, Pickle};
use super::relion;
use super::set::{self, Common, Directions, Place, Row, StackName, StackNames, Wanted};
use super::stacks::Folders;
use crate::error::{Error, Result};
use crate::imaging::ctf::{CtfParameters, Optics};
use crate::imaging::mrc::Stack;
use crate::imaging::pose::{Rotation, distance_from_rotation};
use crate::particles::store::{Particle, Source};

const REMEDY: &str = "correct the value, or leave the particle out with --ind";
/// How far a matrix of 32-bit numbers may be from a rotation.
const ROUNDING: f64 = 1e-3;

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
        Images::Star => relion::images(path, &mut stacks)?,
    };
    let chosen = files.chosen.as_deref().map(|file| chosen(file, images.len())).transpose()?;
    let count = chosen.as_ref().map_or(images.len(), Vec::len).min(wanted.first.unwrap_or(usize::MAX));
    let half = set::draw_halves(path, count, wanted.seed)?;
    let order = |pickle: &Pickle, len| Order::of(pickle, len, images.len(), chosen.as_deref());
    let poses = Poses::read(&files.poses)?;
    let poses_order = order(&poses.pickle, poses.len())?;
    let (ctf, grid) = match &files.ctf {
        CtfFrom::File(file) => {
            let ctf = Ctf::read(file)?;
            let (order, grid) = (order(&ctf.pickle, ctf.array().shape()[0])?, ctf.grid()?);
            (Some((ctf, order)), grid)
        }
        CtfFrom::Nowhere(pixel_size) => {
            (None, Grid::of_stack(&folders.find(path, &stacks.all()[0])?, *pixel_size)?)
        }
    };
    let table = Table { images, chosen, poses, poses_order, ctf, box_size: grid.box_size };

    let mut groups = Groups::default();
    let mut directions = Directions::new();
    for particle in 0..count {
        directions.look(&table.row(particle, 0, &mut groups)?.particle);
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
    fn row(&self, particle: usize, half: u8, groups: &mut Groups) -> Result<Row> {
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

/// Without defocus and aberration, a CTF of amplitude contrast 1 is 1 at every frequency.
const NO_OPTICS: Optics = Optics { voltage: 300.0, spherical_aberration: 0.0, amplitude_contrast: 1.0 };

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

/// The images that the pickle `path` chooses of so many: an array or a list of integers.
fn chosen(path: &Path, images: usize) -> Result<Vec<usize>> {
    let pickle = Pickle::read(path)?;
    let root = pickle.root();
    let refuse = || {
        let problem = format!("holds {}, expected one array or list of integers", pickle.describe(root));
        Error::input(path, "", problem, "choose images with the indices that cryoDRGN takes with --ind")
    };
    let numbers: Vec<Option<u64>> = match (pickle.array(root), pickle.items(root)) {
        (Some(array), _) if array.shape().len() == 1 && array.is_whole() => {
            (0..array.shape()[0]).map(|i| array.index(&[i])).collect()
        }
        (_, Some(items)) => {
            let numbers: Option<Vec<f64>> = items.iter().map(|&item| pickle.number(item)).collect();
            let index = |number: f64| (number >= 0.0 && number.fract() == 0.0).then_some(number as u64);
            numbers.ok_or_else(refuse)?.into_iter().map(index).collect()
        }
        _ => return Err(refuse()),
    };
    let index = |(i, number): (usize, Option<u64>)| {
        number.filter(|&number| number < images as u64).map(|number| number as usize).ok_or_else(|| {
            let found = number.map_or("no index".into(), |number| number.to_string());
            Error::input(
                path,
                format!("index {}", i + 1),
                format!("is {found}, expected 0 to {}: there are {images} images", images.saturating_sub(1)),
                "choose from these images",
            )
        })
    };
    numbers.into_iter().enumerate().map(index).collect()
}

/// An error at row `row` of a pickle.
fn bad_row(pickle: &Pickle, row: usize, problem: String, remedy: &str) -> Error {
    Error::input(pickle.path(), Place::Particle(row + 1).to_string(), problem, remedy)
}

/// Rotations, and translations as fractions of the box.
#[derive(Debug)]
struct Poses {
    pickle: Pickle,
    rotations: Id,
    translations: Option<Id>,
}

impl Poses {
    fn read(path: &Path) -> Result<Self> {
        let pickle = Pickle::read(path)?;
        let root = pickle.root();
        let (rotations, translations) = match pickle.items(root) {
            None => (root, None),
            Some(&[rotations]) => (rotations, None),
            Some(&[rotations, other]) => (rotations, (!pickle.is_none(other)).then_some(other)),
            Some(_) => (root, None),
        };
        let shape = |id| pickle.array(id).map(|array| array.shape().to_vec());
        let len = match shape(rotations).as_deref() {
            Some(&[len, 3, 3]) => Some(len),
            _ => None,
        };
        let fits = translations
            .is_none_or(|id| shape(id).is_some_and(|shape| Some(shape) == len.map(|len| vec![len, 2])));
        if len.is_none() || !fits {
            let parts = pickle.items(root).unwrap_or(&[]).iter().map(|&item| pickle.describe(item));
            let parts: Vec<String> = parts.take(3).collect();
            let of = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
            return Err(Error::input(
                path,
                "",
                format!(
                    "holds {}{of}, expected rotations of shape (n, 3, 3), or these and translations of shape (n, 2)",
                    pickle.describe(root)
                ),
                "name the poses that cryoDRGN takes with --poses",
            ));
        }
        Ok(Self { pickle, rotations, translations })
    }

    fn array(&self, id: Id) -> Array<'_> {
        // Looked at when the file was read.
        self.pickle.array(id).expect("an array")
    }

    fn len(&self) -> usize {
        self.array(self.rotations).shape()[0]
    }

    /// The rotation, which is `W` as it stands.
    fn rotation(&self, row: usize) -> Result<Rotation> {
        let array = self.array(self.rotations);
        let rotation: Rotation = std::array::from_fn(|i| std::array::from_fn(|j| array.value(&[row, i, j])));
        if distance_from_rotation(&rotation) > ROUNDING {
            return Err(bad_row(
                &self.pickle,
                row,
                format!("its pose is not a rotation: {rotation:?}"),
                REMEDY,
            ));
        }
        Ok(rotation)
    }

    fn shift(&self, row: usize) -> Result<[f64; 2]> {
        let Some(translations) = self.translations else { return Ok([0.0; 2]) };
        let array = self.array(translations);
        let shift = [array.value(&[row, 0]), array.value(&[row, 1])];
        if shift.iter().all(|value| value.abs() <= 1.0) {
            return Ok(shift);
        }
        Err(bad_row(
            &self.pickle,
            row,
            format!("its translation is {shift:?}, expected fractions of the box from -1 to 1"),
            "parse the poses again with cryoDRGN 0.3 or later: older files hold pixels",
        ))
    }
}

/// CTF parameters: an array of (n, 9) with D, pixel size (A), defocus U and V (A) and angle (degrees), voltage (kV),
/// spherical aberration (mm), amplitude contrast and phase shift (degrees).
#[derive(Debug)]
struct Ctf {
    pickle: Pickle,
}

const COLUMNS: [&str; 9] = [
    "the box",
    "the pixel size",
    "defocus U",
    "defocus V",
    "the defocus angle",
    "the voltage",
    "the spherical aberration",
    "the amplitude contrast",
    "the phase shift",
];

impl Ctf {
    fn read(path: &Path) -> Result<Self> {
        let pickle = Pickle::read(path)?;
        let root = pickle.root();
        let shape = pickle.array(root).map(|array| array.shape().to_vec());
        if !matches!(shape.as_deref(), Some([_, 9])) {
            return Err(Error::input(
                path,
                "",
                format!("holds {}, expected CTF parameters of shape (n, 9)", pickle.describe(root)),
                "name the parameters that cryoDRGN takes with --ctf",
            ));
        }
        Ok(Self { pickle })
    }

    fn array(&self) -> Array<'_> {
        // Looked at when the file was read.
        self.pickle.array(self.pickle.root()).expect("an array")
    }

    fn values(&self, row: usize) -> Result<[f64; 9]> {
        let array = self.array();
        let values: [f64; 9] = std::array::from_fn(|column| array.value(&[row, column]));
        let positive = |column: usize| column > 1 && column != 5 || values[column] > 0.0;
        let contrast = |column: usize| column != 7 || (0.0..=1.0).contains(&values[column]);
        match (0..9).find(|&c| !(values[c].is_finite() && positive(c) && contrast(c))) {
            None => Ok(values),
            Some(column) => {
                let (name, value) = (COLUMNS[column], values[column]);
                let expected = match column {
                    0 | 1 | 5 => "a number above 0",
                    7 => "a fraction from 0 to 1",
                    _ => "a finite number",
                };
                let problem = format!("{name} (column {}) is {value}, expected {expected}", column + 1);
                Err(bad_row(&self.pickle, row, problem, REMEDY))
            }
        }
    }

    fn row(&self, row: usize) -> Result<(Optics, CtfParameters)> {
        let values = self.values(row)?;
        self.check_grid(row, &values)?;
        let [
            _,
            _,
            defocus_u,
            defocus_v,
            astigmatism_angle,
            voltage,
            spherical_aberration,
            contrast,
            phase_shift,
        ] = values;
        let optics = Optics { voltage, spherical_aberration, amplitude_contrast: contrast };
        let ctf = CtfParameters {
            defocus_u,
            defocus_v,
            astigmatism_angle,
            phase_shift,
            ..CtfParameters::default()
        };
        Ok((optics, ctf))
    }

    fn grid(&self) -> Result<Grid> {
        let [box_size, pixel_size, ..] = self.values(0)?;
        let from = Some(format!("column 1 of {}", self.pickle.path().display()));
        Ok(Grid { pixel_size, box_size: box_size as usize, from })
    }

    /// Checks that row `row` has the pixel size and the box of the first.
    fn check_grid(&self, row: usize, values: &[f64; 9]) -> Result<()> {
        let first = self.values(0)?;
        let same = |column: usize| (values[column] / first[column] - 1.0).abs() <= SAME_PIXEL_SIZE;
        match [0, 1].into_iter().find(|&column| !same(column)) {
            None => Ok(()),
            Some(column) => Err(bad_row(
                &self.pickle,
                row,
                format!("{} is {}, and {} for particle 1", COLUMNS[column], values[column], first[column]),
                "bring all particles to one pixel size and box, or import each group from files of its own",
            )),
        }
    }
}
