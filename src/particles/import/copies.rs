//! Finds particles that share a raw image or a filament. Their noise is not independent: they must be in the same half.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::row::ParticleRow;
use super::stack_names::Location;
use crate::imaging::pose::Rotation;

/// What identifies the raw image, the pose and the filament of each particle: about 20 bytes a particle while the halves are
/// decided.
#[derive(Debug, Default)]
pub(crate) struct ImageKeys {
    /// Stack and image.
    images: Vec<u64>,
    /// Hash of the pose and the shift.
    poses: Vec<u64>,
    /// Hash of the filament; empty if no particle has one.
    filaments: Vec<u64>,
    /// Line or record number.
    places: Vec<u32>,
    lines: bool,
}

/// Particles with the same raw image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Copies {
    /// Number of distinct raw images.
    pub images: usize,
    /// Number of particles whose raw image also belongs to an earlier particle.
    pub repeated: usize,
    /// Number of particles whose raw image and pose also belong to an earlier particle.
    pub exact: usize,
    /// The first exact duplicates, each with the earlier particle.
    pub(super) examples: Vec<[Location; 2]>,
    /// Number of filaments, if the metadata names them.
    pub filaments: Option<usize>,
}

/// Particles that must be in the same half, as the index of the group of each particle.
#[derive(Debug, PartialEq)]
pub(crate) struct Groups {
    /// The group of each particle, numbered by first appearance.
    pub of: Vec<u32>,
    /// Number of particles of each group.
    pub sizes: Vec<u32>,
}

/// Number of examples in a message.
pub(super) const EXAMPLES: usize = 3;

impl ImageKeys {
    /// Records a particle. `stack` identifies its stack; `filament` hashes its filament.
    pub fn push(&mut self, row: &ParticleRow, filament: Option<u64>) {
        // An MRC file has fewer than 2^31 images: an image past that is refused when it is read.
        let image = row.source.index.min(u64::from(u32::MAX));
        self.images.push(u64::from(row.source.file) << 32 | image);
        let mut hasher = DefaultHasher::new();
        (pose_key(&row.particle.rotation), row.shift.map(f64::to_bits)).hash(&mut hasher);
        self.poses.push(hasher.finish());
        self.filaments.extend(filament);
        let (Location::Line(place) | Location::Particle(place)) = row.place;
        self.places.push(place.try_into().unwrap_or(u32::MAX));
        self.lines = matches!(row.place, Location::Line(_));
    }

    /// Number of particles.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// The location of a particle in the metadata.
    pub fn place(&self, particle: usize) -> Location {
        let place = self.places[particle] as usize;
        if self.lines { Location::Line(place) } else { Location::Particle(place) }
    }

    /// The image of a particle: index of its stack, and number from 1.
    pub fn image(&self, particle: usize) -> (usize, u64) {
        ((self.images[particle] >> 32) as usize, (self.images[particle] & u64::from(u32::MAX)) + 1)
    }

    /// For each particle the first one with the same raw image, and what the copies are. `identity` numbers the file behind
    /// each stack: stacks with two names can be one file.
    pub fn by_image(&mut self, identity: &[u32]) -> (Vec<u32>, Copies) {
        let keys: Vec<u64> = self.images.iter().map(|key| self.identified(*key, identity)).collect();
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.sort_unstable_by_key(|&i| (keys[i as usize], self.poses[i as usize], i));
        let mut copies = Copies { images: self.len(), ..Copies::default() };
        let mut first: Vec<u32> = (0..self.len() as u32).collect();
        let mut exact = Vec::new();
        for run in order.chunk_by(|&a, &b| keys[a as usize] == keys[b as usize]).filter(|run| run.len() > 1) {
            let earliest = run.iter().copied().min().unwrap_or_default();
            run.iter().for_each(|&particle| first[particle as usize] = earliest);
            copies.images -= run.len() - 1;
            copies.repeated += run.len() - 1;
            for same in run.chunk_by(|&a, &b| self.poses[a as usize] == self.poses[b as usize]) {
                copies.exact += same.len() - 1;
                exact.extend(same[1..].iter().map(|&later| [later, same[0]]));
                // Keeps the earliest.
                if exact.len() > 1000 {
                    exact.sort_unstable();
                    exact.truncate(EXAMPLES);
                }
            }
        }
        exact.sort_unstable();
        exact.truncate(EXAMPLES);
        copies.examples = exact.iter().map(|pair| pair.map(|i| self.place(i as usize))).collect();
        (first, copies)
    }

    fn identified(&self, key: u64, identity: &[u32]) -> u64 {
        let stack = (key >> 32) as usize;
        u64::from(identity.get(stack).copied().unwrap_or(stack as u32)) << 32 | key & u64::from(u32::MAX)
    }

    /// For each particle the first one of the same filament; `None` if the metadata has no filaments.
    pub fn by_filament(&self) -> Option<Vec<u32>> {
        if self.filaments.is_empty() || self.filaments.len() != self.len() {
            return None;
        }
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.sort_unstable_by_key(|&i| (self.filaments[i as usize], i));
        let mut first = vec![0; self.len()];
        for run in order.chunk_by(|&a, &b| self.filaments[a as usize] == self.filaments[b as usize]) {
            run.iter().for_each(|&particle| first[particle as usize] = run[0]);
        }
        Some(first)
    }
}

/// A pose's key: a hash of the rotation.
pub(crate) fn pose_key(rotation: &Rotation) -> u64 {
    let mut hasher = DefaultHasher::new();
    rotation.map(|row| row.map(f64::to_bits)).hash(&mut hasher);
    hasher.finish()
}

/// A filament's key: a hash of what names it.
pub(super) fn filament_key(parts: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

impl Groups {
    /// Joins each particle with an earlier one of each of `links` (the same image, the same filament).
    pub fn joined(links: &[&[u32]]) -> Self {
        let count = links.first().map_or(0, |link| link.len());
        let mut parent: Vec<u32> = (0..count as u32).collect();
        for link in links {
            for particle in 0..count as u32 {
                let (a, b) = (root(&mut parent, particle), root(&mut parent, link[particle as usize]));
                // The earlier particle is the root.
                parent[a.max(b) as usize] = a.min(b);
            }
        }
        let mut groups = Self { of: Vec::with_capacity(count), sizes: Vec::new() };
        for particle in 0..count as u32 {
            let root = root(&mut parent, particle);
            let group = if root == particle { groups.sizes.len() as u32 } else { groups.of[root as usize] };
            if root == particle {
                groups.sizes.push(0);
            }
            groups.sizes[group as usize] += 1;
            groups.of.push(group);
        }
        groups
    }
}

/// The root of a particle's tree; shortens the path to it.
fn root(parent: &mut [u32], mut particle: u32) -> u32 {
    while parent[particle as usize] != particle {
        parent[particle as usize] = parent[parent[particle as usize] as usize];
        particle = parent[particle as usize];
    }
    particle
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::ctf::CtfParameters;
    use crate::imaging::pose::rotation_from_relion;
    use crate::particles::Subset;
    use crate::particles::store::{Particle, Source};

    fn keys(rows: &[(u32, u64, f64)]) -> ImageKeys {
        let mut keys = ImageKeys::default();
        for (line, &(file, index, angle)) in rows.iter().enumerate() {
            let source = Source { file, index };
            let particle = Particle {
                rotation: rotation_from_relion(angle, 20.0, 30.0),
                shift: [0.0; 2],
                ctf: CtfParameters::default(),
                optics_group: 0,
                source: Some(source),
            };
            let place = Location::Line(line + 1);
            keys.push(
                &ParticleRow { particle, source, shift: [0.0; 2], half: Subset::Half1, dark: false, place },
                None,
            );
        }
        keys
    }

    #[test]
    fn copies_and_exact_duplicates_are_counted() {
        let rows = [(0, 1, 10.0), (1, 1, 10.0), (0, 1, 20.0), (0, 2, 10.0), (0, 1, 10.0), (1, 1, 10.0)];
        let (first, copies) = keys(&rows).by_image(&[0, 1]);
        assert_eq!(first, [0, 1, 0, 3, 0, 1]);
        assert_eq!((copies.images, copies.repeated, copies.exact), (3, 3, 2));
        let lines = |a, b| [Location::Line(a), Location::Line(b)];
        assert_eq!(copies.examples, [lines(5, 1), lines(6, 2)]);
        // Both stacks are the same file.
        let (first, copies) = keys(&rows).by_image(&[0, 0]);
        assert_eq!(first, [0, 0, 0, 3, 0, 0]);
        assert_eq!((copies.images, copies.repeated, copies.exact), (2, 4, 3));
    }

    #[test]
    fn groups_join_images_and_filaments() {
        let groups = Groups::joined(&[&[0, 1, 0, 3, 4], &[0, 1, 2, 1, 2]]);
        assert_eq!(groups, Groups { of: vec![0, 1, 0, 1, 0], sizes: vec![3, 2] });
    }
}
