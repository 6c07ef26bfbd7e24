//! The run that is tested.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;

use super::fits::{Comparison, Fits};
use super::trial::Sample;
use crate::error::{Error, Result};
use crate::evaluate::Mask;
use crate::evaluate::maps::{MapReader, read_cube};
use crate::imaging::Symmetry;
use crate::imaging::mrc::Volume;
use crate::particles::noise::NoisePower;
use crate::particles::refinement::Refinement;
use crate::particles::selection::{Models, SubsetRows};
use crate::particles::store::Store;
use crate::random::spread;
use crate::recipe::Settings;
use crate::run_folder::identity::RunIdentity;
use crate::run_folder::{excluded, names, refinement_file};
use crate::voxels::reconstruction::unfiltered_map;
use crate::voxels::sample::{Sampling, sampled_sums_of};

/// Particles of each half in the voxel maps, at most.
const VOXEL_PARTICLES: usize = 5_000;
/// Particles of each half that are compared with the map of the other, at most.
pub(super) const FITTED: usize = 120;
/// Largest box of the voxel maps in pixels.
const VOXEL_BOX: usize = 96;

/// A finished run with both halves, and its particles.
pub struct Subject {
    /// The run folder.
    pub folder: PathBuf,
    /// Content of run.json.
    pub document: Value,
    /// The particles.
    pub store: Store,
    /// Rows of half 1 and half 2.
    pub subsets: [SubsetRows; 2],
    /// The symmetry that the run used.
    pub symmetry: Symmetry,
    /// Settings of a training run; `None` for a backprojection.
    pub settings: Option<Settings>,
    /// The half maps.
    pub half_maps: [Volume; 2],
    /// Their mean.
    pub map: Volume,
    /// The automatic mask of the run; `None` if it has none.
    pub mask: Option<Mask>,
    /// What the run has refined of each row; empty if nothing.
    pub refined: Vec<Refinement>,
    /// Rows that the run excluded.
    pub excluded: BTreeSet<usize>,
    voxels: OnceLock<VoxelHalves>,
    sample: OnceLock<Sample>,
    fits: OnceLock<[Fits; 2]>,
}

/// Voxel reconstructions of both halves from a sample of the particles, with what the run has refined.
pub struct VoxelHalves {
    /// Their maps, without a filter.
    pub maps: [Volume; 2],
    /// Pixel size in angstrom: that of the particles, or a larger one for a large box.
    pub pixel_size: f64,
    /// Particles of each half.
    pub particles: [usize; 2],
}

impl Subject {
    /// The finished run in `folder`, whose run.json is `document`, on the particles of `store`.
    ///
    /// # Errors
    /// When its maps cannot be read.
    pub fn open(folder: &Path, document: Value, store: Store) -> Result<Self> {
        let subsets = SubsetRows::of(&store, Models::Both).try_into().expect("there are two halves");
        let identity = document["identity"].as_str();
        let settings = identity.and_then(|text| RunIdentity::from_json(&folder.join(names::RUN), text).ok());
        let settings = settings.map(|identity| identity.settings);
        let of_document = || serde_json::from_value(document["settings"]["symmetry"].clone()).ok();
        let symmetry = settings.as_ref().map(|settings| settings.symmetry).or_else(of_document);
        let half_map = |half: &str| folder.join(names::map(half));
        if let Some(missing) = ["half1", "half2"].map(half_map).into_iter().find(|map| !map.exists()) {
            return Err(Error::input(
                missing,
                "",
                "is missing: a diagnosis compares the maps of both halves",
                "name the folder of a run of both halves (`train --half both`, the default, or `backproject`)",
            ));
        }
        let map_of = |name: &str| read_cube(&folder.join(name));
        let half_maps = [map_of(&names::map("half1"))?, map_of(&names::map("half2"))?];
        let mask = folder.join(names::MASK);
        let map = map_of(names::MAP)?;
        let reader = MapReader { ignore_frame: true, ..MapReader::default() };
        let mask = if mask.exists() { Some(Mask::read(&mask, &map, &reader)?) } else { None };
        let refined = match serde_json::from_value(document["particles"]["identity"].clone()) {
            Ok(set) => refinement_file::read(folder, &store, set)?.unwrap_or_default().rows,
            // A run of an earlier version, which refined nothing.
            Err(_) => Vec::new(),
        };
        Ok(Self {
            refined,
            excluded: excluded::rows_of_run(folder, store.len())?,
            map,
            folder: folder.to_owned(),
            symmetry: symmetry.unwrap_or(Symmetry::C1),
            document,
            store,
            subsets,
            settings,
            half_maps,
            mask,
            voxels: OnceLock::new(),
            sample: OnceLock::new(),
            fits: OnceLock::new(),
        })
    }

    /// The name of the run folder in commands.
    pub fn run(&self) -> String {
        self.folder.display().to_string()
    }

    /// The name of the particle file in commands.
    pub fn particles(&self) -> String {
        self.store.path().display().to_string()
    }

    /// The name of the file that the particles were imported from in commands.
    pub fn metadata(&self) -> String {
        let file = self.store.imported_from().filter(|file| file.exists());
        file.map_or_else(|| "particles.star".into(), |file| file.display().to_string())
    }

    /// Whether the particles were imported from metadata of cryoSPARC.
    fn is_cryosparc(&self) -> bool {
        Path::new(&self.metadata()).extension().is_some_and(|extension| extension == "cs")
    }

    /// What multiplies `columns` of the particles' STAR file by `factor`: a command, where a tool edits the file.
    pub fn multiplied(&self, columns: [&str; 2], factor: f64) -> String {
        let [first, second] = columns;
        if self.is_cryosparc() {
            let field =
                if first.contains("Origin") { "alignments3D/shift" } else { "ctf/df1_A and ctf/df2_A" };
            return format!("multiply {field} by {factor} in {}, and save it as fixed.cs", self.metadata());
        }
        format!(
            "relion_star_handler --i {} --o fixed.star --operate {first} --operate2 {second} --multiply_by {factor}",
            self.metadata()
        )
    }

    /// The commands that import the corrected STAR file, with the same contrast, and reconstruct from it again; the comment can be pasted with
    /// them.
    pub fn import_again(&self) -> String {
        let file = if self.is_cryosparc() { "fixed.cs" } else { "fixed.star" };
        let invert = if self.store.header().inverted { " --invert" } else { "" };
        let command = if self.settings.is_some() { "train" } else { "backproject" };
        let symmetry = if self.symmetry == Symmetry::C1 {
            String::new()
        } else {
            format!(" --symmetry {}", self.symmetry)
        };
        format!(
            "cryosplat-mpi import {file}{invert} -o fixed.h5 && cryosplat-mpi {command} fixed.h5 -o run_fixed{symmetry} # with the other options \
             of the first time, such as --box"
        )
    }

    /// Voxel reconstructions of both halves, with the run's symmetry. Computed once.
    ///
    /// # Errors
    /// When the particles cannot be read.
    pub fn voxels(&self) -> Result<&VoxelHalves> {
        if let Some(found) = self.voxels.get() {
            return Ok(found);
        }
        let header = self.store.header();
        let half = |subset: &SubsetRows| {
            sampled_sums_of::<1>(
                &self.store,
                Sampling {
                    rows: subset.rows.clone(),
                    particles: VOXEL_PARTICLES,
                    box_size: header.box_size.min(VOXEL_BOX),
                    symmetry: self.symmetry,
                },
                |row| self.refinement_of(row),
            )
        };
        let (first, second) = (half(&self.subsets[0])?, half(&self.subsets[1])?);
        let (pixel_size, particles) = (first.pixel_size, [first.particles, second.particles]);
        let ([first], [second]) = (first.parts, second.parts);
        let maps = [unfiltered_map(&first, pixel_size)?, unfiltered_map(&second, pixel_size)?];
        let halves = VoxelHalves { maps, pixel_size, particles };
        Ok(self.voxels.get_or_init(|| halves))
    }

    /// What the run has refined of a row; `None` if it excluded it.
    pub(super) fn refinement_of(&self, row: usize) -> Option<Refinement> {
        let refined = self.refined.get(row).copied().unwrap_or_default();
        (!self.excluded.contains(&row)).then_some(refined)
    }

    /// A sample of the particles of both halves, downsampled. Read once.
    ///
    /// # Errors
    /// When the particles cannot be read.
    pub(super) fn sample(&self) -> Result<&Sample> {
        if let Some(found) = self.sample.get() {
            return Ok(found);
        }
        let sample = Sample::read(&self.store, &self.subsets, self.symmetry, |row| self.refinement_of(row))?;
        Ok(self.sample.get_or_init(|| sample))
    }

    /// Particles of the sample of each half, compared with the map of the other half. Computed once.
    ///
    /// # Errors
    /// When the particles cannot be read.
    pub(super) fn fits(&self) -> Result<&[Fits; 2]> {
        if let Some(found) = self.fits.get() {
            return Ok(found);
        }
        let sample = self.sample()?;
        let sums = sample.given();
        let of_half = |half: usize| {
            let images = sample.images(half);
            let images: Vec<_> = spread(0..images.len(), FITTED).into_iter().map(|at| &images[at]).collect();
            let noise = NoisePower::estimate(&self.store, self.subsets[half].rows.clone())?;
            let comparison = Comparison {
                maps: [&self.half_maps[half], &self.half_maps[1 - half]],
                sums: [&sums[half], &sums[1 - half]],
                noise: &noise,
                pixel_size: sample.pixel_size,
                scale: sample.scale,
                reader: sample.reader(),
            };
            let mut fits = comparison.run(&images)?;
            if !fits.particles.is_empty() {
                let imitated = comparison.imitated(&images);
                let floor = comparison.run(&imitated.iter().collect::<Vec<_>>())?.errors;
                // The signal of an image is without the noise of the map that imitates it: the maps differ by the noise of one.
                fits.floor = floor.map(|error| error / std::f64::consts::SQRT_2);
            }
            Ok(fits)
        };
        let fits = [of_half(0)?, of_half(1)?];
        Ok(self.fits.get_or_init(|| fits))
    }
}
