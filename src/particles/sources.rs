//! The files that a particle set comes from, which no command may overwrite.

use std::path::Path;

use super::import::stack_names::StackFolders;
use super::store::Store;
use crate::files::Claims;

/// Claims the particle file of `store`, the metadata that it was imported from and its stacks as inputs.
pub(crate) fn reads(claims: &mut Claims, store: &Store) {
    claims.reads(store.path(), "the particle file");
    let original = store.imported_from();
    claims.reads_some(original.as_deref(), "the metadata that the particles were imported from");
    // As the import searched for them: it records the paths of the metadata.
    let folders = [original.as_deref(), Some(store.path())];
    let folders = folders.into_iter().flatten().map(|file| StackFolders::beside(file, None));
    let folders: Vec<StackFolders> = folders.collect();
    for name in &store.header().source_files {
        let mut candidates = folders.iter().flat_map(|folders| folders.candidates(Path::new(name)));
        claims.reads_some(candidates.find(|path| path.is_file()), "a stack of the particles");
    }
}
