//! The program's folders in the user's cache: of compiled kernels and of links to libraries, which the program executes. Nobody else
//! may write there: each folder is this user's own and closed to others, and no link is followed to it.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files;

/// Folder of this program below the user's cache folder.
const PROGRAM: &str = "cryosplat-mpi";
/// Permission bits of group and others to write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
const REMEDY: &str = "remove it, or set XDG_CACHE_HOME to a folder of your own";

/// The user's cache folder: XDG_CACHE_HOME, or .cache in HOME.
///
/// # Errors
/// When neither is set.
pub(super) fn base() -> Result<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    folder("XDG_CACHE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".cache")))
        .ok_or_else(|| Error::request("there is no cache folder", "set HOME or XDG_CACHE_HOME"))
}

/// The folder `parts` of this program in the cache folder `base`, made if missing.
///
/// # Errors
/// When it, or the program's own folder above it, belongs to another user, is a link or cannot be made.
pub(super) fn private(base: &Path, parts: &[&str]) -> Result<PathBuf> {
    files::create_folder(base)?;
    let mut folder = base.to_path_buf();
    for part in [PROGRAM].iter().chain(parts) {
        folder.push(part);
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(Error::io(&folder, "make the cache folder", REMEDY)(error));
            }
            _ => check_folder(&folder)?,
        }
    }
    Ok(folder)
}

/// The user whose rights this process has.
fn user() -> u32 {
    // SAFETY: the call has no preconditions, and never fails.
    unsafe { libc::geteuid() }
}

/// Checks that `folder` is this user's own and no link, and closes it to others.
fn check_folder(folder: &Path) -> Result<()> {
    let found = fs::symlink_metadata(folder).map_err(Error::io(folder, "open the cache folder", REMEDY))?;
    let refuse = |problem: &str| Err(Error::input(folder, "", problem, REMEDY));
    if !found.is_dir() {
        return refuse("is not a folder, or a link to one");
    }
    if found.uid() != user() {
        return refuse("belongs to another user, whose files are not executed");
    }
    if found.mode() & WRITABLE_BY_OTHERS != 0 {
        fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(Error::io(
            folder,
            "close the cache folder to others",
            REMEDY,
        ))?;
    }
    Ok(())
}

/// Content of `file` of a [`private`] folder; `None` if it is absent, no regular file, or one that another user owns or may write.
pub(super) fn read(file: &Path) -> Option<Vec<u8>> {
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits();
    let mut open = File::options().read(true).custom_flags(flags.cast_signed()).open(file).ok()?;
    let found = open.metadata().ok()?;
    let is_own = found.uid() == user() && found.mode() & WRITABLE_BY_OTHERS == 0;
    if !(found.is_file() && is_own) {
        tracing::debug!("{}: is not a file of this user alone: ignored", file.display());
        return None;
    }
    let mut bytes = Vec::new();
    open.read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Writes `bytes` to `file` of a [`private`] folder, for this user alone.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    files::write_atomically(file, |writer| std::io::Write::write_all(writer, bytes))?;
    fs::set_permissions(file, Permissions::from_mode(0o600)).map_err(Error::io(
        file,
        "close the file to others",
        REMEDY,
    ))
}

/// Makes `link` in a [`private`] folder point to `target`, whatever stands there.
///
/// # Errors
/// When it cannot be made.
pub(super) fn link(target: &Path, link: &Path) -> Result<()> {
    let failed = || Error::io(link, "link a library", REMEDY);
    if fs::read_link(link).is_ok_and(|found| found == target) {
        return Ok(());
    }
    // Other ranks make the same links: each under a name of its own, which then takes the place of any other.
    let folder = link.parent().unwrap_or(Path::new("."));
    let own = tempfile::Builder::new().prefix(".link-").tempdir_in(folder).map_err(failed())?;
    let made = own.path().join("link");
    std::os::unix::fs::symlink(target, &made).map_err(failed())?;
    fs::rename(&made, link).map_err(failed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_closed_to_others() {
        let base = tempfile::tempdir().unwrap();
        let folder = private(base.path(), &["kernels"]).unwrap();
        let mode = |folder: &Path| fs::metadata(folder).unwrap().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
        assert_eq!(private(base.path(), &["kernels"]).unwrap(), folder);
        assert_eq!(mode(&folder), 0o700);
    }

    #[test]
    fn folders_of_others_and_links_to_folders_are_refused() {
        let base = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let own = base.path().join(PROGRAM);
        std::os::unix::fs::symlink(elsewhere.path(), &own).unwrap();
        let message = private(base.path(), &["kernels"]).unwrap_err().to_string();
        assert!(message.contains("is not a folder, or a link to one; remove it"), "{message}");
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
        fs::remove_file(&own).unwrap();
        fs::create_dir(&own).unwrap();
        // Only root can give a folder away.
        if std::os::unix::fs::chown(&own, Some(65_534), None).is_ok() {
            let message = private(base.path(), &["kernels"]).unwrap_err().to_string();
            assert!(message.contains("belongs to another user"), "{message}");
        }
    }

    #[test]
    fn only_files_of_this_user_alone_are_read() {
        let base = tempfile::tempdir().unwrap();
        let folder = private(base.path(), &["kernels"]).unwrap();
        let file = folder.join("a.kernels");
        write(&file, b"code").unwrap();
        assert_eq!(read(&file).unwrap(), b"code");
        fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
        assert_eq!(read(&file), None);
        write(&file, b"code").unwrap();
        let planted = folder.join("b.kernels");
        std::os::unix::fs::symlink(&file, &planted).unwrap();
        assert_eq!(read(&planted), None);
        if std::os::unix::fs::chown(&file, Some(65_534), None).is_ok() {
            assert_eq!(read(&file), None);
        }
    }

    #[test]
    fn a_link_that_stands_there_is_replaced_unless_it_is_the_right_one() {
        let base = tempfile::tempdir().unwrap();
        let folder = private(base.path(), &["libraries"]).unwrap();
        let (library, at) = (base.path().join("libnccl.so.2"), folder.join("libnccl.so"));
        for planted in ["/tmp/evil.so", "/tmp/evil.so", library.to_str().unwrap()] {
            let _ = fs::remove_file(&at);
            std::os::unix::fs::symlink(planted, &at).unwrap();
            link(&library, &at).unwrap();
            assert_eq!(fs::read_link(&at).unwrap(), library);
        }
        fs::remove_file(&at).unwrap();
        fs::write(&at, b"a library of somebody").unwrap();
        link(&library, &at).unwrap();
        assert_eq!(fs::read_link(&at).unwrap(), library);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }
}
