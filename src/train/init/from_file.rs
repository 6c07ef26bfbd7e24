//! Initial Gaussians from a file (`--init`): a mixture as it is, or Gaussians drawn from the density of a map.
//!
//! Rank 0 reads the file, makes the initial Gaussians of each model, and broadcasts them.

use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::random::{placement, random_start};
use crate::error::{Error, Result};
use crate::evaluate::filter::low_pass;
use crate::files;
use crate::gmm::density::Density;
use crate::gmm::symmetric::{described, unit_of, whole};
use crate::gmm::{Gmm, Shape, mixture, ply};
use crate::imaging::mrc::Volume;
use crate::imaging::resample;
use crate::particles::Subset;
use crate::particles::selection::Models;
use crate::particles::store::Header;
use crate::recipe::{Choices, InitIdentity, Settings};

/// Default resolution of the low-pass filter of a map, in angstrom.
pub const LOW_PASS: f64 = 30.0;
/// Smallest allowed cutoff of that filter, in cycles per box.
const MIN_CYCLES: f64 = 2.0;
/// Largest allowed ratio between the box edges, in angstrom, of a mixture and of the particles.
const MAX_EDGE_RATIO: f64 = 10.0;

/// The options `--init` and `--init-lowpass`.
#[derive(Clone, Debug, PartialEq)]
pub struct InitOptions {
    /// File of a mixture or a map.
    pub file: PathBuf,
    /// Resolution of the low-pass filter of a map, in angstrom; `None`: [`LOW_PASS`].
    pub low_pass: Option<f64>,
}

/// The content of an `--init` file, read and checked.
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
    /// Reads the file that `options` names, for a training run of `models` with these choices on the particles' grid of `header`.
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
            let problem = "is not a map, and --init-lowpass applies only to maps";
            return Err(Error::input(file, "", problem, "leave out --init-lowpass"));
        }
        let gmm = mixture_in_box(file, choices, isotropic, header)?;
        Ok(Self { identity: InitIdentity { sha256, low_pass: None }, content: Content::Mixture(gmm) })
    }

    /// Sets the choices that the file determines.
    pub fn apply_to(&self, choices: &mut Choices) {
        choices.init = Some(self.identity.clone());
        if let Content::Mixture(gmm) = &self.content {
            choices.gaussians = Some((gmm.len() << choices.densify.len()) * choices.symmetry.order());
        }
    }

    /// Warns that the two halves share their start.
    pub fn warn_about_shared_start(&self, file: &Path, models: Models) {
        if models != Models::Both {
            return;
        }
        let shared = match self.identity.low_pass {
            Some(resolution) => format!("this map, filtered at {resolution} A"),
            None => "this mixture".into(),
        };
        tracing::warn!(
            "{}: both halves start from {shared}: their FSC is independent only beyond its resolution",
            file.display()
        );
    }

    /// The initial Gaussians of mixture `mixture` (from 0) of the model of `subset`.
    pub fn start(&self, settings: &Settings, subset: Subset, mixture: usize) -> Gmm {
        match &self.content {
            Content::Mixture(gmm) => gmm.clone(),
            Content::Map(density) => {
                let mut gmm = random_start(settings, subset, mixture);
                density.draw_means(&mut gmm, &mut placement(settings, subset, mixture));
                gmm
            }
        }
    }
}

/// First 16 hexadecimal digits of a file's SHA-256.
fn digest(file: &Path) -> Result<String> {
    let failed = || Error::io(file, "read the initial model", "check --init");
    let mut reader = files::open_input(file).map_err(failed())?;
    let (mut hasher, mut bytes) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match reader.read(&mut bytes).map_err(failed())? {
            0 => break,
            count => hasher.update(&bytes[..count]),
        }
    }
    Ok(hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

/// Whether a file is read as a map: it is neither text nor of a format that holds a mixture.
fn is_map(file: &Path) -> Result<bool> {
    let start = files::first_bytes(file, 1024)?;
    let text = !start.contains(&0);
    Ok(!(text || start.starts_with(b"\x89HDF") || ply::is_ply(&start)))
}

/// The mixture in `file`, rescaled to the box of the particles.
fn mixture_in_box(file: &Path, choices: &Choices, isotropic: bool, header: &Header) -> Result<Gmm> {
    let mut read = mixture::read(file)?;
    let refuse = |problem: String, remedy: &str| Err(Error::input(file, "", problem, remedy));
    let symmetry = choices.symmetry;
    if read.symmetry != symmetry {
        let Some(unit) = unit_of(&whole(&read.gmm, read.symmetry), symmetry) else {
            let problem = format!("holds no Gaussian in the asymmetric unit of {symmetry}");
            return refuse(problem, "start from a mixture with more Gaussians, or of this symmetry");
        };
        tracing::info!("{}: starting from {}", file.display(), described(unit.len(), symmetry));
        read.gmm = unit;
    }
    let gmm = match (read.gmm.shape(), isotropic) {
        (Shape::Anisotropic, true) => {
            let problem = "holds anisotropic Gaussians, but --isotropic asks for isotropic ones".into();
            return refuse(problem, "leave out --isotropic, or start from the HDF5 file of an isotropic run");
        }
        (Shape::Isotropic, false) => read.gmm.anisotropic(),
        _ => read.gmm,
    };
    let at_end = gmm.len() << choices.densify.len();
    if let Some(asked) = choices.gaussians.filter(|&asked| Settings::of_unit(asked, symmetry) != at_end) {
        let becoming =
            if choices.densify.is_empty() { String::new() } else { format!(" that become {at_end}") };
        let problem =
            format!("holds {}{becoming}, but --gaussians asks for {asked}", described(gmm.len(), symmetry));
        return refuse(problem, "leave out --gaussians");
    }
    let edge = header.box_size as f64 * header.pixel_size;
    let ratio = read.grid.map_or(1.0, |(size, pixel_size)| size as f64 * pixel_size / edge);
    if !(1.0 / MAX_EDGE_RATIO..=MAX_EDGE_RATIO).contains(&ratio) {
        let problem =
            format!("has a box of {:.1} A, but the particles have one of {edge:.1} A", ratio * edge);
        return refuse(problem, "start from a mixture of particles like these, or check the pixel sizes");
    }
    // Without a change of scale nothing is rounded.
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

/// The density of a map, resampled onto the particles' grid and low-pass filtered at `resolution` angstrom.
fn density_of_map(file: &Path, resolution: f64, header: &Header) -> Result<Density> {
    let (box_size, pixel_size) = (header.box_size, header.pixel_size);
    let edge = box_size as f64 * pixel_size;
    if edge / resolution < MIN_CYCLES {
        let problem = format!(
            "a map in a box of {edge:.1} A has fewer than {MIN_CYCLES} cycles left after a filter at {resolution} A"
        );
        let remedy = format!("give --init-lowpass {:.0} or less", (edge / MIN_CYCLES).floor());
        return Err(Error::request(problem, remedy));
    }
    let data = resample::read(file, box_size, pixel_size)?;
    let filtered = low_pass(&Volume::new(data, pixel_size), resolution);
    Density::above(0.0, &filtered).ok_or_else(|| {
        let problem = "has no positive density in the particles' box";
        Error::input(file, "", problem, "give a map with a bright specimen")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::mrc::write_volume;
    use crate::recipe::Recipe;
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
            imported_from: None,
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
    fn gaussians_follow_the_density_of_the_map() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("map.mrc");
        write_volume(&file, &Volume::new(balls(), 5.0)).unwrap();
        let options = InitOptions { file, low_pass: Some(10.0) };
        let init = Init::read(&options, &Choices::default(), false, &header()).unwrap();
        let mut choices = Choices { gaussians: Some(4000), ..Choices::default() };
        init.apply_to(&mut choices);
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
            // The filter spreads a little density beyond the balls.
            assert!(dense + thin > 3600.0, "{dense} {thin}");
            // Above the background of -0.5, the filtered balls keep about 3 to 1; counts scatter by 1.5 %.
            assert!((2.5..3.8).contains(&(dense / thin)), "{dense} {thin}");
        }
        assert!((0..4000).all(|i| first.plane(0)[i] != second.plane(0)[i]), "each half draws its own");
        let random = random_start(&settings, Subset::Half1, 0);
        assert_eq!(
            first.values()[3 * 4000..],
            random.values()[3 * 4000..],
            "only the means differ from a random start"
        );
        assert_eq!(first, init.start(&settings, Subset::Half1, 0));
        let other = init.start(&settings, Subset::Half1, 1);
        assert!((0..4000).all(|i| first.plane(0)[i] != other.plane(0)[i]), "and each mixture");
    }

    #[test]
    fn unusable_maps_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("map.mrc");
        let refuse = |data: Array3<f32>, low_pass: Option<f64>, fragment: &str| {
            write_volume(&file, &Volume::new(data, 5.0)).unwrap();
            let options = InitOptions { file: file.clone(), low_pass };
            let message =
                Init::read(&options, &Choices::default(), false, &header()).unwrap_err().to_string();
            assert!(message.contains(fragment) && !message.contains('\n'), "{message}");
        };
        refuse(balls(), Some(80.0), "--init-lowpass 60 or less");
        refuse(-balls().mapv(f32::abs), None, "no positive density");
    }
}
