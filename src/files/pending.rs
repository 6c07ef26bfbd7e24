//! Output files: written under a temporary name, synced, renamed.

use std::fs::{self, File, Metadata, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::leftovers::{self, Listed};
use crate::error::{Error, Result};

pub(super) const REMEDY: &str =
    "check that the folder exists, that you may write to it and that the disk is not full";

/// Random letters and digits in the name of a temporary file.
const RANDOM: usize = 16;

/// A file being written. [`Pending::commit`] gives it its final name; dropping it without a commit removes it.
///
/// The temporary file is created exclusively, under a name that nobody can foretell, in the folder of the destination. It is
/// written through the handle that created it, never opened again by name: a link that somebody plants at the name is not
/// followed. Programs on several machines may write one destination at a time; the last commit stays, and each of them is whole.
///
/// If the destination is a symbolic link, the link is replaced, and the file that it points to stays as it is.
#[derive(Debug)]
pub struct Pending {
    // Closed before the name is removed: NFS keeps a removed file that is open under another name.
    file: File,
    temporary: Listed,
    destination: PathBuf,
}

impl Pending {
    /// Creates a temporary file in the folder of `destination`, which is not touched. Removes what killed programs have left of
    /// earlier attempts to write `destination`.
    ///
    /// # Errors
    /// When `destination` has no file name or is not a regular file, or its folder does not exist or cannot be written.
    pub fn new(destination: &Path) -> Result<Self> {
        let name = check_destination(destination)?;
        let folder = folder_of(destination);
        leftovers::remove_stale(folder, &name);
        let mut builder = tempfile::Builder::new();
        let prefix = leftovers::prefix(&name);
        // The umask applies, as for any new file. The default of tempfile is 0600.
        builder.prefix(&prefix).suffix(leftovers::SUFFIX).rand_bytes(RANDOM);
        builder.permissions(Permissions::from_mode(0o666));
        // Created here, so that a folder that cannot be written is an error before the computation.
        let (file, temporary) = leftovers::create(|| builder.tempfile_in(folder)).map_err(Error::io(
            destination,
            "write the file",
            REMEDY,
        ))?;
        Ok(Self { file, temporary, destination: destination.to_path_buf() })
    }

    /// The file to write to until the commit.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// A second handle of the file, with the same position.
    ///
    /// # Errors
    /// When the process has too many open files.
    pub fn writer(&self) -> std::io::Result<File> {
        self.file.try_clone()
    }

    /// A path that names the open file itself, for libraries that take a path only. It leads to the file that [`Pending::new`]
    /// created even if another file has taken its temporary name since.
    pub fn handle_path(&self) -> PathBuf {
        let handle = PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        // Without /proc, the commit finds out if another file has taken the name.
        if handle.exists() { handle } else { self.path().to_path_buf() }
    }

    /// Temporary path of the file, for messages and tests.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Syncs the temporary file and gives it its final name.
    ///
    /// # Errors
    /// When the file cannot be synced or renamed, or another file has taken its temporary name; the old content of the
    /// destination is then intact.
    pub fn commit(self) -> Result<()> {
        let Self { file, temporary, destination } = self;
        let finish = || -> std::io::Result<()> {
            file.sync_all()?;
            let (own, named) = (file.metadata()?, fs::symlink_metadata(temporary.path())?);
            if identity(&own) != identity(&named) {
                return Err(std::io::Error::other("another program has replaced the temporary file"));
            }
            temporary.rename(&destination)
        };
        finish().map_err(Error::io(&destination, "finish the file", REMEDY))?;
        // Makes the rename durable. Some file systems cannot sync a folder: not an error.
        let _ = File::open(folder_of(&destination)).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

/// Device and inode: the same for all names of a file.
pub(super) fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// The folder that holds `file`.
pub(super) fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Checks that a file can be made at `destination`, or is there and may be replaced. Returns its name.
///
/// # Errors
/// When it has no file name, is a folder, FIFO, socket or device, or is in /dev or /proc.
pub(super) fn check_destination(destination: &Path) -> Result<String> {
    let name = destination
        .file_name()
        .ok_or_else(|| Error::input(destination, "", "is not a file name", "name a file to write"))?;
    // Through links: /dev/stdout is a link to whatever standard output is.
    if let Some(kind) = fs::metadata(destination).ok().and_then(|found| special(&found)) {
        let remedy = if kind == "a folder" { "name a file in it" } else { "name a regular file" };
        return Err(Error::input(destination, "", format!("is {kind}, expected a file name"), remedy));
    }
    if destination.as_os_str().as_bytes().ends_with(b"/") {
        return Err(Error::input(
            destination,
            "",
            "is the name of a folder, expected a file name",
            "leave out the slash at its end",
        ));
    }
    let folder = folder_of(destination).canonicalize().unwrap_or_default();
    if folder == Path::new("/dev") || folder == Path::new("/dev/fd") || folder.starts_with("/proc") {
        let problem = format!("is in {}, which holds no files", folder.display());
        return Err(Error::input(destination, "", problem, "name a regular file in another folder"));
    }
    Ok(name.to_string_lossy().into_owned())
}

/// Checks that the folder of `destination` exists. One that cannot be looked at is left to the program that writes there.
///
/// # Errors
/// When it is missing, or is a file.
pub(super) fn check_folder(destination: &Path) -> Result<()> {
    let folder = folder_of(destination);
    let problem = match fs::metadata(folder) {
        Ok(found) if !found.is_dir() => "is not a folder",
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => "is not a folder",
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "does not exist",
        _ => return Ok(()),
    };
    let problem = format!("its folder {} {problem}", folder.display());
    Err(Error::input(destination, "", problem, "create the folder, or name a file in another"))
}

/// What a file is ("a folder"); `None` for a regular file.
pub(super) fn special(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("a folder")
    } else if kind.is_fifo() {
        Some("a named pipe (FIFO)")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use super::*;

    /// As when two machines write one output at a time, from processes of the same number.
    #[test]
    fn two_writers_of_one_destination_both_finish_whole() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("map.mrc");
        let [first, second] = [(); 2].map(|()| Pending::new(&target).unwrap());
        assert_ne!(first.path(), second.path());
        first.file().write_all(b"first").unwrap();
        second.file().write_all(b"second, longer").unwrap();
        second.commit().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"second, longer");
        first.commit().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_planted_at_the_temporary_name_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, b"precious").unwrap();
        let pending = Pending::new(&folder.path().join("map.mrc")).unwrap();
        fs::remove_file(pending.path()).unwrap();
        symlink(&victim, pending.path()).unwrap();
        // Through the handle, and through HDF5, whose creation truncates what it opens.
        pending.file().write_all(b"content").unwrap();
        assert!(hdf5::File::create(pending.handle_path()).is_err());
        let error = pending.commit().unwrap_err().to_string();
        assert!(error.contains("has replaced the temporary file"), "{error}");
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert!(!folder.path().join("map.mrc").exists());
    }

    #[test]
    fn hdf5_writes_to_the_file_that_was_created() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("f.h5");
        let pending = Pending::new(&target).unwrap();
        let file = hdf5::File::create(pending.handle_path()).unwrap();
        file.new_attr::<u32>().create("number").unwrap().write_scalar(&7).unwrap();
        file.close().unwrap();
        pending.commit().unwrap();
        let file = hdf5::File::open(&target).unwrap();
        assert_eq!(file.attr("number").unwrap().read_scalar::<u32>().unwrap(), 7);
    }

    #[test]
    fn a_link_at_the_destination_is_replaced_and_its_target_stays() {
        let folder = tempfile::tempdir().unwrap();
        let [target, link] = ["target", "link"].map(|name| folder.path().join(name));
        fs::write(&target, b"precious").unwrap();
        symlink(&target, &link).unwrap();
        super::super::write_atomically(&link, |w| w.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"precious");
        assert_eq!(fs::read(&link).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_file());
    }

    #[test]
    fn the_longest_name_can_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("\u{e9}".repeat(127));
        super::super::write_atomically(&target, |w| w.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
    }

    #[test]
    fn only_regular_files_are_outputs() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let link = folder.path().join("link");
        symlink(&pipe, &link).unwrap();
        for (path, expected) in [
            (pipe.as_path(), "a named pipe"),
            (&link, "a named pipe"),
            (Path::new("/dev/null"), "a device"),
            (Path::new("/dev/map.mrc"), "is in /dev"),
            (Path::new("/proc/self/fd/999"), "is in /proc"),
            (folder.path(), "a folder"),
        ] {
            let error = Pending::new(path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
