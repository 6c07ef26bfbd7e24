//! The files that a particle set comes from, which no command may overwrite.

use std::path::Path;

use super::import::stack_names::StackFolders;
use super::store::Store;
use crate::files::Claims;

/// Stacks in a row that are not found, after which no more are searched for: the raw images are not on this machine.
const MOST_MISSING: usize = 64;

/// Claims the particle file of `store`, the metadata that it was imported from and its stacks as inputs. The stacks, of which there
/// may be many thousands, only if `claims` has an output that exists.
pub(crate) fn reads(claims: &mut Claims, store: &Store) {
    claims.reads(store.path(), "the particle file");
    let original = store.imported_from();
    claims.reads_some(original.as_deref(), "the metadata that the particles were imported from");
    if !claims.replace_any() {
        return;
    }
    // As the import searched for them: it records the paths of the metadata.
    let folders = [original.as_deref(), Some(store.path())];
    let folders = folders.into_iter().flatten().map(|file| StackFolders::beside(file, None));
    let folders: Vec<StackFolders> = folders.collect();
    let mut missing = 0;
    for name in &store.header().source_files {
        let mut candidates = folders.iter().flat_map(|folders| folders.candidates(Path::new(name)));
        let found = candidates.find(|path| path.is_file());
        missing = if found.is_some() { 0 } else { missing + 1 };
        if missing == MOST_MISSING {
            break;
        }
        claims.reads_some(found, "a stack of the particles");
    }
}
