//! Free space of file systems.

use std::path::Path;

use crate::error::{Error, Result};
use crate::progress::size;

/// Bytes that this user may still write to the file system of `folder`, and its size.
pub(crate) fn free(folder: &Path) -> std::io::Result<(u64, u64)> {
    let space = rustix::fs::statvfs(folder)?;
    Ok((space.f_bavail.saturating_mul(space.f_frsize), space.f_blocks.saturating_mul(space.f_frsize)))
}

/// Checks that the file system of `file`, to be written, has `bytes` free, before the work that fills it. A file system that does not
/// report its free space passes.
///
/// # Errors
/// When they are not free; names the size of the file, the free space, and `remedy`.
pub(crate) fn require(file: &Path, bytes: u128, remedy: &str) -> Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok((free, all)) = free(folder) else { return Ok(()) };
    if all == 0 || bytes <= u128::from(free) {
        return Ok(());
    }
    let needed = u64::try_from(bytes).unwrap_or(u64::MAX);
    let problem = format!("would take {}, but its disk has only {} free", size(needed), size(free));
    Err(Error::input(file, "", problem, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_larger_than_the_free_space_is_refused_with_both_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.h5");
        assert!(require(&file, 1, "").is_ok());
        let message = require(&file, 1 << 60, "use another disk").unwrap_err().to_string();
        assert!(message.contains("p.h5: would take 1073741824.0 GiB, but its disk has only "), "{message}");
        assert!(message.ends_with("GiB free; use another disk"), "{message}");
        // A folder that does not exist is reported when the file is made.
        assert!(require(&folder.path().join("none/p.h5"), 1 << 60, "").is_ok());
    }
}
