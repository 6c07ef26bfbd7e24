//! The poses of cryoSPARC's particles, of which jobs with several classes write one per class.

use std::collections::BTreeMap;

use super::files::{Column, Files};
use crate::error::{Error, Result};
use crate::imaging::pose::{Rotation, rotation_from_vector, transposed};
use crate::particles::Subset;
use crate::particles::import::choice::{RowTraits, listed};

const POSE: &str = "alignments3D/pose";
const CLASS: &str = "alignments3D/class";
/// Poses of all classes in one column (heterogeneous refinement).
const MULTI: &str = "alignments3D_multi/pose";
/// Starts of the columns of one class, which its number follows (ab-initio reconstruction, 3D classification).
const PER_CLASS: [&str; 2] = ["alignments_class_", "alignments_class3D_"];
/// Maximal number of classes in columns of their own.
const MOST_CLASSES: usize = 1000;

/// The columns with poses, shifts and halves, and what decides the class.
#[derive(Debug)]
pub(super) struct Alignments {
    pub pose: Column,
    pub shift: Option<Column>,
    /// Pixel size of the shifts, if it differs from that of the images.
    pub shift_pixel: Option<Column>,
    pub split: Option<Column>,
    classes: Classes,
}

/// What decides the class of a particle.
#[derive(Debug)]
enum Classes {
    /// The column with the class, if there is one.
    Given(Option<Column>),
    /// The class with the largest of these posterior probabilities, and the name of the classes' columns.
    Posterior(Vec<(i64, Column)>, &'static str),
}

impl Alignments {
    /// Finds the columns; with poses of several classes, those of `class`.
    pub fn find(files: &Files, class: Option<i64>) -> Result<Self> {
        if let Some(pose) = files.find(POSE, 3)? {
            return Ok(Self {
                pose,
                shift: files.find("alignments3D/shift", 2)?,
                shift_pixel: files.find("alignments3D/psize_A", 1)?,
                split: files.find("alignments3D/split", 1)?,
                classes: Classes::Given(files.find(CLASS, 1)?),
            });
        }
        if let Some(pose) = files.any(MULTI).filter(|pose| pose.field.count > 0 && pose.field.count % 3 == 0)
        {
            return Self::of_multi(files, pose.field.count / 3, class);
        }
        for prefix in PER_CLASS {
            if files.named("", &format!("{prefix}0/pose")).is_some() {
                return Self::of_prefix(files, prefix, class);
            }
        }
        Err(Error::input(
            files.path(),
            "",
            format!("the particles have no poses: the column {POSE} does not exist"),
            "refine the particles first (ab-initio or 3-D refinement) and import that job's file, or give the file with \
             this column as --passthrough",
        ))
    }

    /// Poses of `count` classes in one column.
    fn of_multi(files: &Files, count: usize, class: Option<i64>) -> Result<Self> {
        // A column of one value per particle is the same for all classes.
        let at = |name: &'static str, each: usize, class: usize| -> Result<Option<Column>> {
            match files.any(name) {
                Some(column) if column.field.count == each * count => files
                    .find(name, each * count)
                    .map(|found| found.map(|c| Column { first: class * each, ..c })),
                _ => files.find(name, each),
            }
        };
        let mut posteriors = Vec::with_capacity(count);
        for class in 0..count {
            posteriors.extend(at("alignments3D_multi/class_posterior", 1, class)?.map(|c| (class as i64, c)));
        }
        let place = chosen(files, class, &posteriors, count)?;
        let pose = at(MULTI, 3, place)?;
        Ok(Self {
            pose: pose.ok_or_else(|| no_class(files, class, count))?,
            shift: at("alignments3D_multi/shift", 2, place)?,
            shift_pixel: at("alignments3D_multi/psize_A", 1, place)?,
            split: at("alignments3D_multi/split", 1, place)?,
            classes: Classes::Posterior(posteriors, "alignments3D_multi/class_posterior"),
        })
    }

    /// Poses of each class in columns of their own.
    fn of_prefix(files: &Files, prefix: &str, class: Option<i64>) -> Result<Self> {
        let column = |class: usize, label: &'static str, name: &str, count: usize| {
            let found = files.named(label, &format!("{prefix}{class}/{name}"));
            found.filter(|column| column.field.count == count)
        };
        let there = |class: &usize| column(*class, "pose", "pose", 3).is_some();
        let count = (0..MOST_CLASSES).take_while(there).count();
        let posterior = |class: usize| {
            Some((class as i64, column(class, "class_posterior of the class", "class_posterior", 1)?))
        };
        let posteriors: Vec<_> = (0..count).filter_map(posterior).collect();
        let place = chosen(files, class, &posteriors, count)?;
        let pose = column(place, "pose of the class", "pose", 3);
        Ok(Self {
            pose: pose.ok_or_else(|| no_class(files, class, count))?,
            shift: column(place, "shift of the class", "shift", 2),
            shift_pixel: column(place, "psize_A of the class", "psize_A", 1),
            split: column(place, "split of the class", "split", 1),
            classes: Classes::Posterior(posteriors, "class_posterior"),
        })
    }

    /// The column with the classes.
    pub fn class_column(&self) -> Option<&'static str> {
        match &self.classes {
            Classes::Given(column) => column.map(|column| column.name),
            Classes::Posterior(columns, name) => (columns.len() > 1).then_some(name),
        }
    }

    /// The class and the half of the particle.
    pub fn traits(&self, files: &Files, particle: usize) -> Result<RowTraits> {
        let class = match &self.classes {
            Classes::Given(None) => None,
            Classes::Given(Some(column)) => {
                let class = files.finite(column, particle, 0)?;
                if class.fract() != 0.0 {
                    return Err(files.refuse(column, particle, 0, "an integer"));
                }
                Some(class as i64)
            }
            Classes::Posterior(columns, _) => most_likely(files, columns, particle),
        };
        Ok(RowTraits { class, half: self.half(files, particle)? })
    }

    /// `W`: the transposed matrix of the rotation vector.
    pub fn rotation(&self, files: &Files, particle: usize) -> Result<Rotation> {
        let mut vector = [0.0; 3];
        for (k, value) in vector.iter_mut().enumerate() {
            *value = files.finite(&self.pose, particle, k)?;
        }
        Ok(transposed(&rotation_from_vector(vector)))
    }

    /// The half, if the file has it.
    pub fn half(&self, files: &Files, particle: usize) -> Result<Option<Subset>> {
        let Some(column) = &self.split else { return Ok(None) };
        match files.number(column, particle, 0) {
            0.0 => Ok(Some(Subset::Half1)),
            1.0 => Ok(Some(Subset::Half2)),
            _ => Err(files.refuse(column, particle, 0, "0 or 1")),
        }
    }
}

/// The class with the largest posterior probability, the first one of equals.
fn most_likely(files: &Files, columns: &[(i64, Column)], particle: usize) -> Option<i64> {
    let mut best: Option<(i64, f64)> = None;
    for (class, column) in columns {
        let probability = files.number(column, particle, 0);
        if best.is_none_or(|(_, largest)| probability > largest) {
            best = Some((*class, probability));
        }
    }
    best.map(|(class, _)| class)
}

/// The place of `class` among `count` classes. Poses of several classes refer to different maps, so one must be chosen.
fn chosen(files: &Files, class: Option<i64>, posteriors: &[(i64, Column)], count: usize) -> Result<usize> {
    let place = class.map_or((count == 1).then_some(0), |class| usize::try_from(class).ok());
    if let Some(place) = place.filter(|&place| place < count) {
        return Ok(place);
    }
    if class.is_some() {
        return Err(no_class(files, class, count));
    }
    let mut classes = BTreeMap::new();
    for particle in 0..files.len() {
        most_likely(files, posteriors, particle)
            .into_iter()
            .for_each(|class| *classes.entry(class).or_insert(0) += 1);
    }
    let found = if classes.is_empty() { String::new() } else { format!(" ({})", listed(&classes)) };
    Err(Error::input(
        files.path(),
        "",
        format!("has poses of {count} classes{found}, which belong to different maps"),
        "choose a class with --class",
    ))
}

fn no_class(files: &Files, class: Option<i64>, count: usize) -> Error {
    let problem = format!("has {count} classes, from 0, and no class {}", class.unwrap_or_default());
    Error::input(files.path(), "", problem, "give one of these classes with --class")
}
