//! What a training starts from in place of random Gaussians (`--init`): a mixture, or Gaussians placed by the density of a map.
//!
//! Rank 0 reads the file and makes the start of each model; the others are given it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::evaluate::filter::low_pass;
use crate::files;
use crate::gmm::{Gmm, Shape, mixture};
use crate::imaging::mrc::Volume;
use crate::imaging::resample;
use crate::particles::Subset;
use crate::particles::parts::Models;
use crate::particles::store::Header;
use crate::recipe::{Choices, InitIdentity, Settings};
use crate::train::init::density::Density;
use crate::train::init::starts::{placement, random_start};

/// Resolution in angstrom that a map is filtered at where the user gives none.
pub const LOW_PASS: f64 = 30.0;
/// Cycles in the box that a filtered map must keep at least.
const FEWEST_CYCLES: f64 = 2.0;
/// How far the box of a mixture may differ from the particles' in angstrom, as a factor.
const LARGEST_RATIO: f64 = 10.0;

/// What the user asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct InitOptions {
    /// The file to start from.
    pub file: PathBuf,
    /// The resolution in angstrom at which a map is filtered; `None`: [`LOW_PASS`].
    pub low_pass: Option<f64>,
}

/// A start, read and checked.
#[derive(Debug)]
pub struct Init {
    identity: InitIdentity,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Mixture(Gmm),
    Map(Density),
}

impl Init {
    /// Reads the file that `options` names, for a training of `models` with these choices on the particles' grid of `header`.
    ///
    /// # Errors
    /// When the file cannot be read or holds neither a mixture nor a map; when it does not fit the particles' box, or a choice.
    pub fn read(options: &InitOptions, choices: &Choices, isotropic: bool, header: &Header) -> Result<Self> {
        let InitOptions { file, low_pass } = options;
        let sha256 = digest(file)?;
        if is_map(file)? {
            let resolution = low_pass.unwrap_or(LOW_PASS);
            let density = density_of_map(file, resolution, header)?;
            return Ok(Self {
                identity: InitIdentity { sha256, low_pass: Some(resolution) },
                content: Content::Map(density),
            });
        }
        if low_pass.is_some() {
            let problem = "is no map, and only maps are filtered";
            return Err(Error::input(file, "", problem, "leave out --init-lowpass"));
        }
        let gmm = fitted(file, choices, isotropic, header)?;
        Ok(Self { identity: InitIdentity { sha256, low_pass: None }, content: Content::Mixture(gmm) })
    }

    /// What the start decides of a training.
    pub fn decide(&self, choices: &mut Choices) {
        choices.init = Some(self.identity.clone());
        if let Content::Mixture(gmm) = &self.content {
            choices.gaussians = Some(gmm.len());
        }
    }

    /// Says what the halves of `models` share.
    pub fn warn(&self, file: &Path, models: Models) {
        if models != Models::Both {
            return;
        }
        let shared = match self.identity.low_pass {
            Some(resolution) => format!("this map, filtered at {resolution} A: up to there"),
            None => "this mixture: as far as it resolves the structure".into(),
        };
        tracing::warn!(
            "{}: both halves start from {shared} their agreement is not independent, and the FSC proves only what is beyond it",
            file.display()
        );
    }

    /// The start of a mixture (from 0) of a model.
    pub fn start(&self, settings: &Settings, subset: Subset, mixture: usize) -> Gmm {
        match &self.content {
            Content::Mixture(gmm) => gmm.clone(),
            Content::Map(density) => {
                let mut gmm = random_start(settings, subset, mixture);
                density.place(&mut gmm, &mut placement(settings, subset, mixture));
                gmm
            }
        }
    }
}

/// The first 16 digits of a file's SHA-256.
fn digest(file: &Path) -> Result<String> {
    let failed = || Error::io(file, "read the start", "check --init");
    let mut reader = File::open(file).map_err(failed())?;
    let (mut hasher, mut bytes) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match reader.read(&mut bytes).map_err(failed())? {
            0 => break,
            count => hasher.update(&bytes[..count]),
        }
    }
    Ok(hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

/// True where a file is to be read as a map: it is of no kind that holds a mixture, and no text.
fn is_map(file: &Path) -> Result<bool> {
    let start = files::first_bytes(file, 1024)?;
    let text = !start.contains(&0);
    Ok(!(text || start.starts_with(b"\x89HDF") || start.starts_with(b"ply\n")))
}

/// The mixture in `file`, brought to the box of the particles.
fn fitted(file: &Path, choices: &Choices, isotropic: bool, header: &Header) -> Result<Gmm> {
    let read = mixture::read(file)?;
    let refuse = |problem: String, remedy: &str| Err(Error::input(file, "", problem, remedy));
    let gmm = match (read.gmm.shape(), isotropic) {
        (Shape::Anisotropic, true) => {
            let problem = "holds Gaussians with three axes, and --isotropic asks for round ones".into();
            return refuse(problem, "leave out --isotropic, or start from the HDF5 file of an isotropic run");
        }
        (Shape::Isotropic, false) => read.gmm.anisotropic(),
        _ => read.gmm,
    };
    if let Some(asked) = choices.gaussians.filter(|&asked| asked != gmm.len()) {
        let problem = format!("holds {} Gaussians, and --gaussians asks for {asked}", gmm.len());
        return refuse(problem, "leave out --gaussians");
    }
    let edge = header.box_size as f64 * header.pixel_size;
    let ratio = read.grid.map_or(1.0, |(size, pixel_size)| size as f64 * pixel_size / edge);
    if !(1.0 / LARGEST_RATIO..=LARGEST_RATIO).contains(&ratio) {
        let problem = format!("is of a box of {:.1} A, and the particles' is {edge:.1} A", ratio * edge);
        return refuse(problem, "start from a mixture of particles like these, or check the pixel sizes");
    }
    // At the same box no rounding enters.
    let gmm = if ratio == 1.0 { gmm } else { gmm.rescaled(ratio) };
    let inside = |i: &usize| (0..3).all(|axis| gmm.plane(axis)[*i].abs() <= 0.5);
    let count = (0..gmm.len()).filter(inside).count();
    if 2 * count < gmm.len() {
        let problem = format!(
            "{} of its {} Gaussians lie outside the particles' box of {edge:.1} A",
            gmm.len() - count,
            gmm.len()
        );
        return refuse(problem, "start from a mixture of the same specimen, about the same centre");
    }
    Ok(gmm)
}

/// Reads a map onto the particles' grid, filters it at `resolution` angstrom, and gives its density.
fn density_of_map(file: &Path, resolution: f64, header: &Header) -> Result<Density> {
    let (box_size, pixel_size) = (header.box_size, header.pixel_size);
    let edge = box_size as f64 * pixel_size;
    if edge / resolution < FEWEST_CYCLES {
        let problem =
            format!("a map in a box of {edge:.1} A has nothing left when it is filtered at {resolution} A");
        let remedy = format!("give --init-lowpass {:.0} or less", (edge / FEWEST_CYCLES).floor());
        return Err(Error::request(problem, remedy));
    }
    let data = resample::read(file, box_size, pixel_size)?;
    let filtered = low_pass(&Volume { data, pixel_size }, resolution);
    Density::above(0.0, &filtered).ok_or_else(|| {
        let problem = "has no positive density in the particles' box";
        Error::input(file, "", problem, "give a map with a bright specimen")
    })
}

#[cfg(test)]
mod tests {
    use crate::imaging::mrc::write_volume;
    use crate::recipe::Recipe;
    use crate::train::init::from_file::*;
    use ndarray::Array3;

    const BOX: usize = 24;

    fn header() -> Header {
        Header {
            box_size: BOX,
            pixel_size: 5.0,
            normalized: true,
            inverted: false,
            optics: Vec::new(),
            halves: [1, 1],
            source_files: Vec::new(),
        }
    }

    /// Two balls, one of them three times as dense, on a background below zero.
    fn balls() -> Array3<f32> {
        Array3::from_shape_fn((BOX, BOX, BOX), |(z, y, x)| {
            let near = |c: [f64; 3]| {
                let d2: f64 = [x, y, z].iter().zip(c).map(|(&i, c)| (i as f64 - 12.0 - c).powi(2)).sum();
                d2 <= 9.0
            };
            if near([5.0, 0.0, 0.0]) {
                3.0
            } else if near([-5.0, 2.0, -3.0]) {
                1.0
            } else {
                -0.5
            }
        })
    }

    #[test]
    fn gaussians_lie_where_the_map_is_dense() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("map.mrc");
        write_volume(&file, &Volume { data: balls(), pixel_size: 5.0 }).unwrap();
        let options = InitOptions { file, low_pass: Some(10.0) };
        let init = Init::read(&options, &Choices::default(), false, &header()).unwrap();
        let mut choices = Choices { gaussians: Some(4000), ..Choices::default() };
        init.decide(&mut choices);
        let settings = Settings::resolve(Recipe::Scaled, &choices, false, 3.0, 1, 100, BOX);
        let [first, second] = Subset::HALVES.map(|half| init.start(&settings, half, 0));
        let near = |gmm: &Gmm, c: [f64; 3]| {
            let within = |i: &usize| {
                let d2: f64 = (0..3).map(|k| (f64::from(gmm.plane(k)[*i]) * BOX as f64 - c[k]).powi(2)).sum();
                d2 < 16.0
            };
            (0..gmm.len()).filter(within).count() as f64
        };
        for gmm in [&first, &second] {
            let (dense, thin) = (near(gmm, [5.0, 0.0, 0.0]), near(gmm, [-5.0, 2.0, -3.0]));
            // The filter rings a little beyond them.
            assert!(dense + thin > 3600.0, "{dense} {thin}");
            // Above the background of -0.5, the filtered balls keep about 3 to 1; counts scatter by 1.5 %.
            assert!((2.5..3.8).contains(&(dense / thin)), "{dense} {thin}");
        }
        assert!((0..4000).all(|i| first.plane(0)[i] != second.plane(0)[i]), "each half draws its own");
        let random = random_start(&settings, Subset::Half1, 0);
        assert_eq!(
            first.values()[3 * 4000..],
            random.values()[3 * 4000..],
            "all but the means are the recipe's"
        );
        assert_eq!(first, init.start(&settings, Subset::Half1, 0));
        let other = init.start(&settings, Subset::Half1, 1);
        assert!((0..4000).all(|i| first.plane(0)[i] != other.plane(0)[i]), "and each mixture");
    }

    #[test]
    fn what_cannot_be_a_start_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("map.mrc");
        let refuse = |data: Array3<f32>, low_pass: Option<f64>, fragment: &str| {
            write_volume(&file, &Volume { data, pixel_size: 5.0 }).unwrap();
            let options = InitOptions { file: file.clone(), low_pass };
            let message =
                Init::read(&options, &Choices::default(), false, &header()).unwrap_err().to_string();
            assert!(message.contains(fragment) && !message.contains('\n'), "{message}");
        };
        refuse(balls(), Some(80.0), "--init-lowpass 60 or less");
        refuse(-balls().mapv(f32::abs), None, "no positive density");
    }
}
