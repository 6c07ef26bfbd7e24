//! Decides the half sets: those of the metadata, or random ones that keep images and filaments together.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::copies::{Copies, EXAMPLES, Groups, ImageKeys};
use super::row::{ParticleRow, ReadOptions};
use super::stack_names::{StackFolders, StackNames};
use crate::error::{Error, Result};
use crate::particles::Subset;
use crate::particles::halves;

/// The half of each particle, and how it was decided.
#[derive(Clone, Debug, PartialEq)]
pub struct HalfSets {
    /// The half of each particle.
    pub of: Vec<Subset>,
    /// Where the halves come from.
    pub origin: HalfOrigin,
    /// Particles that share raw images.
    pub copies: Copies,
}

/// Where the halves come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfOrigin {
    /// A column of the metadata.
    Column(&'static str),
    /// Drawn at random from this seed.
    Drawn(u64),
}

/// Collects what decides the halves while a reader checks the rows.
#[derive(Debug, Default)]
pub(crate) struct HalfCollector {
    column: Option<&'static str>,
    /// [`Subset::seed_index`] of each given half; 0 where the row gives none.
    given: Vec<u8>,
    keys: ImageKeys,
}

impl HalfCollector {
    /// For metadata with the halves in `column`, if it has them.
    pub fn new(column: Option<&'static str>) -> Self {
        Self { column, ..Self::default() }
    }

    /// Records a particle, the half that its row gives, and the hash of its filament.
    pub fn add(&mut self, row: &ParticleRow, given: Option<Subset>, filament: Option<u64>) {
        if self.column.is_some() {
            self.given.push(given.map_or(0, Subset::seed_index));
        }
        self.keys.push(row, filament);
    }

    /// Decides the half sets of the file `path`, and reports copies of images.
    ///
    /// # Errors
    /// If only some particles have a half, the given halves separate copies of an image, or a half would be empty.
    pub fn decide(
        mut self,
        path: &Path,
        stacks: &StackNames,
        folders: &StackFolders,
        options: &ReadOptions,
    ) -> Result<HalfSets> {
        let (by_image, mut copies) = self.keys.by_image(&identities(path, stacks, folders));
        let by_filament = self.keys.by_filament();
        copies.report(path);
        let given = self.column.filter(|_| !options.redraw_halves);
        let usable = given.map(|column| self.usable(path, column)).transpose()?.unwrap_or(false);
        let Some(column) = given.filter(|_| usable) else {
            return self.draw(path, options, &by_image, by_filament.as_deref(), copies);
        };
        self.check_images(path, stacks, &by_image)?;
        if let Some(first) = &by_filament {
            copies.filaments = Some(Groups::joined(&[first]).sizes.len());
            self.warn_about_filaments(path, first);
        }
        let half = |&given: &u8| if given == 2 { Subset::Half2 } else { Subset::Half1 };
        let of = self.given.iter().map(half).collect();
        Ok(HalfSets { of, origin: HalfOrigin::Column(column), copies })
    }

    /// Whether `column` gives both halves.
    fn usable(&self, path: &Path, column: &str) -> Result<bool> {
        let count = |half: u8| self.given.iter().filter(|&&given| given == half).count();
        let (all, [none, first, second]) = (self.given.len(), [0, 1, 2].map(count));
        if none == all {
            tracing::warn!("{}: {column} gives no halves: random halves are drawn", path.display());
        } else if none > 0 {
            let row = self.given.iter().position(|&given| given == 0).unwrap_or_default();
            return Err(Error::input(
                path,
                self.keys.place(row).to_string(),
                format!("{column} gives no half for {none} of {all} particles"),
                "correct the column, or draw random halves with --redraw-halves",
            ));
        } else if first == 0 || second == 0 {
            tracing::warn!(
                "{}: {column} is the same for all {all} particles: random halves are drawn",
                path.display()
            );
        }
        Ok(first > 0 && second > 0)
    }

    /// Checks that the copies of each image are in one half.
    fn check_images(&self, path: &Path, stacks: &StackNames, first: &[u32]) -> Result<()> {
        let mut separated = self.separated(first);
        let Some((one, two)) = separated.next() else { return Ok(()) };
        let (stack, image) = self.keys.image(two);
        let rest = separated.count();
        let others = if rest > 0 { format!(", and {rest} further particles") } else { String::new() };
        Err(Error::input(
            path,
            format!("{} and {}", self.keys.place(one), self.keys.place(two)),
            format!(
                "image {image} of {} is in both halves{others}: the FSC of the halves would be too high",
                stacks.all()[stack].name
            ),
            "correct the halves, or draw random halves with --redraw-halves",
        ))
    }

    /// Warns about filaments with segments in both halves.
    fn warn_about_filaments(&self, path: &Path, first: &[u32]) {
        let mut filaments: Vec<usize> = self.separated(first).map(|(one, _)| one).collect();
        filaments.dedup();
        filaments.sort_unstable();
        filaments.dedup();
        if let Some(&one) = filaments.first() {
            tracing::warn!(
                "{}: {} filaments, such as that of {}, have segments in both halves; where segments overlap, the FSC of \
                 the halves is too high: --redraw-halves draws halves of whole filaments",
                path.display(),
                filaments.len(),
                self.keys.place(one)
            );
        }
    }

    /// Pairs of particles in different halves, of which `first` links the second to the first.
    fn separated(&self, first: &[u32]) -> impl Iterator<Item = (usize, usize)> {
        let pairs = first.iter().enumerate().map(|(particle, &first)| (first as usize, particle));
        pairs.filter(|&(first, particle)| self.given[first] != self.given[particle])
    }

    fn draw(
        &self,
        path: &Path,
        options: &ReadOptions,
        by_image: &[u32],
        by_filament: Option<&[u32]>,
        mut copies: Copies,
    ) -> Result<HalfSets> {
        let count = self.keys.len();
        if count < 2 {
            let problem = format!("half 2 has none of the {count} particles");
            return Err(Error::input(path, "", problem, "import at least two particles"));
        }
        let links: Vec<&[u32]> = std::iter::once(by_image).chain(by_filament).collect();
        let groups = Groups::joined(&links);
        copies.filaments = by_filament.map(|_| groups.sizes.len());
        if groups.sizes.len() < 2 {
            let what = if copies.images == 1 { "copies of one image" } else { "segments of one filament" };
            return Err(Error::input(
                path,
                "",
                format!("all {count} particles are {what}, which cannot be divided into halves"),
                "import particles of several images and filaments",
            ));
        }
        let half = halves::draw_groups(&groups.sizes, options.seed);
        let of = groups.of.iter().map(|&group| half[group as usize]).collect();
        Ok(HalfSets { of, origin: HalfOrigin::Drawn(options.seed), copies })
    }
}

impl Copies {
    /// Logs copies of images, and warns about exact duplicates.
    fn report(&self, path: &Path) {
        if self.exact > 0 {
            let pairs = self.examples.iter().map(|[later, first]| format!("{later} repeats {first}"));
            let pairs: Vec<String> = pairs.take(EXAMPLES).collect();
            tracing::warn!(
                "{}: {} particles repeat the image and the pose of an earlier one ({}{}): they count more than once",
                path.display(),
                self.exact,
                pairs.join(", "),
                if self.exact > pairs.len() { ", ..." } else { "" }
            );
        }
        if self.repeated > self.exact {
            tracing::info!(
                "{}: {} particles are further copies, with other poses, of {} images; copies of an image share a half",
                path.display(),
                self.repeated - self.exact,
                self.images
            );
        }
    }
}

/// Numbers the files behind the stacks: stacks with different names have the same number if they are the same file.
fn identities(path: &Path, stacks: &StackNames, folders: &StackFolders) -> Vec<u32> {
    let mut numbers = std::collections::HashMap::new();
    let identity = |(index, stack)| {
        // A stack that is missing is reported when the stacks are opened.
        let found = folders.find(path, stack).ok().and_then(|path| path.metadata().ok());
        let index = index as u32;
        found.map_or(index, |file| *numbers.entry((file.dev(), file.ino())).or_insert(index))
    };
    stacks.all().iter().enumerate().map(identity).collect()
}
