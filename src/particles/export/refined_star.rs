//! The columns of a STAR file that a refinement replaces: angles, origins and defoci.

use std::path::{Path, PathBuf};

use super::results::{RunResults, check_pose};
use crate::error::{Error, Result};
use crate::imaging::pose::{
    Rotation, product, relion_from_rotation, rotation_from_relion, rotation_from_vector,
};
use crate::particles::import::relion::{self, ANGLES, ImageTable};
use crate::particles::import::star::{cells, excerpt};
use crate::particles::refinement::Refinement;
use crate::particles::store::Store;

/// The origins in angstrom (RELION 3.1 and later), and in pixels of the images.
const ORIGINS: [[&str; 2]; 2] = [["_rlnOriginXAngst", "_rlnOriginYAngst"], ["_rlnOriginX", "_rlnOriginY"]];
const DEFOCUS: [&str; 2] = ["_rlnDefocusU", "_rlnDefocusV"];

/// The new text of a cell: in this column, or in a column that is appended.
pub type Edit = (Option<usize>, String);

/// A column: its label, and its index if the file has it.
type Place = (&'static str, Option<usize>);

/// The columns of a STAR file that a refinement replaces.
pub struct RefinedColumns {
    file: PathBuf,
    angles: [Place; 3],
    origin: [Place; 2],
    defocus: [Place; 2],
    /// Pixel size of the set in angstrom.
    pixel_size: f64,
    /// Pixel size of the raw image of each row of the table, where its origins are in pixels; else empty.
    raw: Vec<f64>,
    /// Poses of the set.
    poses: Vec<Rotation>,
}

impl RefinedColumns {
    /// The columns of the particle table of the STAR file `original`, for the set `store`. Where the file has no origins, they are
    /// appended: in angstrom if it has an optics table.
    ///
    /// # Errors
    /// If a file cannot be read, or origins are in pixels of unknown size.
    pub fn find(store: &Store, results: &RunResults, original: &Path, table: &ImageTable) -> Result<Self> {
        let place = |label: &'static str| (label, table.table.column(label));
        let [angstrom, pixels] = ORIGINS.map(|labels| labels.map(place));
        let has = |origin: &[Place; 2]| origin.iter().any(|(_, index)| index.is_some());
        let in_angstrom = has(&angstrom) || (table.has_optics && !has(&pixels));
        let mut poses = Vec::with_capacity(store.len());
        store.inspect(|_, particle| {
            poses.push(particle.rotation);
            Ok(())
        })?;
        let defocus = DEFOCUS.map(place);
        if results.has_defoci() && defocus.iter().any(|(_, index)| index.is_none()) {
            tracing::warn!("{}: has no defoci, so that refined ones are not written", original.display());
        }
        Ok(Self {
            file: original.to_owned(),
            angles: ANGLES.map(place),
            origin: if in_angstrom { angstrom } else { pixels },
            defocus,
            pixel_size: store.header().pixel_size,
            raw: if in_angstrom { Vec::new() } else { relion::pixel_sizes(original)? },
            poses,
        })
    }

    /// The labels of the columns that the file lacks.
    pub fn appended(&self) -> impl Iterator<Item = &'static str> {
        let places = self.angles.iter().chain(&self.origin);
        places.filter(|(_, index)| index.is_none()).map(|(label, _)| *label)
    }

    /// The new cells of a row of the file, the record `record` of its table, whose particle is in `row` of the set. Where nothing is
    /// refined, only those of columns that the file lacks.
    ///
    /// # Errors
    /// If the row has another pose than the set, or a value that is no number.
    pub fn edits(
        &self,
        line: usize,
        text: &str,
        record: usize,
        row: usize,
        refined: &Refinement,
    ) -> Result<Vec<Edit>> {
        let ranges = cells(text.trim_end());
        let number = |&(label, index): &Place, absent: f64| -> Result<f64> {
            let Some(index) = index else { return Ok(absent) };
            let cell = ranges.get(index).map_or("", |range| &text[range.clone()]);
            cell.parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(|| {
                let problem = format!("{label} is {}, expected a finite number", excerpt(cell));
                Error::input(&self.file, format!("line {line}"), problem, "correct the value")
            })
        };
        let pose = &self.poses[row];
        let is_refined = *refined != Refinement::default();
        if is_refined && self.angles.iter().all(|(_, index)| index.is_some()) {
            let [rot, tilt, psi] = &self.angles;
            let found = rotation_from_relion(number(rot, 0.0)?, number(tilt, 0.0)?, number(psi, 0.0)?);
            check_pose(&self.file, format!("line {line}"), &found, pose)?;
        }
        let angles = relion_from_rotation(&product(&rotation_from_vector(refined.rotation), pose));
        // Pixels of the set in the unit of the file.
        let unit = self.raw.get(record).map_or(self.pixel_size, |raw| self.pixel_size / raw);
        let mut edits = Vec::new();
        let mut put = |place: &Place, value: f64| {
            if is_refined || place.1.is_none() {
                edits.push((place.1, value.to_string()));
            }
        };
        self.angles.iter().zip(angles).for_each(|(place, angle)| put(place, angle));
        for (place, offset) in self.origin.iter().zip(refined.offset) {
            put(place, number(place, 0.0)? - offset * unit);
        }
        for place in self.defocus.iter().filter(|(_, index)| index.is_some()) {
            put(place, number(place, 0.0)? + refined.defocus);
        }
        Ok(edits)
    }
}
