//! Atomic output files: written under a temporary name, synced, renamed. Also detection of file types by their first bytes.

mod content;

use std::fs::{self, File, Permissions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use crate::error::{Error, Result};

pub(crate) use content::{Content, unexpected};
pub use content::{first_bytes, is_gzip};

const REMEDY: &str = "check that the folder exists, that you may write to it and that the disk is not full";

/// Suffix of temporary files.
const SUFFIX: &str = ".partial";

/// A file being written. [`Pending::commit`] gives it its final name; dropping it without a commit removes it.
#[derive(Debug)]
pub struct Pending {
    temporary: TempPath,
    destination: PathBuf,
}

impl Pending {
    /// Creates a temporary file in the folder of `destination`, which is not touched.
    ///
    /// # Errors
    /// When `destination` has no file name or is a folder, or its folder does not exist or cannot be written.
    pub fn new(destination: &Path) -> Result<Self> {
        let name = destination
            .file_name()
            .ok_or_else(|| Error::input(destination, "", "is not a file name", "name a file to write"))?;
        if destination.is_dir() {
            return Err(Error::input(
                destination,
                "",
                "is a folder, expected a file name",
                "name a file in it",
            ));
        }
        // Created here, so that a folder that cannot be written is an error before the computation.
        let temporary = tempfile::Builder::new()
            .prefix(&format!(".{}.{}-", name.to_string_lossy(), std::process::id()))
            .suffix(SUFFIX)
            // The umask applies, as for any new file. The default of tempfile is 0600.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder_of(destination))
            .map_err(Error::io(destination, "write the file", REMEDY))?;
        Ok(Self { temporary: temporary.into_temp_path(), destination: destination.to_path_buf() })
    }

    /// Path to write to until the commit.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Syncs the temporary file and gives it its final name.
    ///
    /// # Errors
    /// When the file cannot be synced or renamed; the old content of the destination is then intact.
    pub fn commit(self) -> Result<()> {
        let Self { temporary, destination } = self;
        File::open(&temporary)
            .and_then(|file| file.sync_all())
            .and_then(|()| temporary.persist(&destination).map_err(|failed| failed.error))
            .map_err(Error::io(&destination, "finish the file", REMEDY))?;
        // Makes the rename durable. Some file systems cannot sync a folder: not an error.
        let _ = File::open(folder_of(&destination)).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

/// The folder that holds `file`.
fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Temporary files that killed programs left in `folder`.
pub fn leftovers(folder: &Path) -> Vec<PathBuf> {
    // ".NAME.PROCESS-RANDOM.partial"; earlier versions had no random part.
    let is_leftover = |name: &str| {
        let process = name.strip_prefix('.').and_then(|rest| rest.strip_suffix(SUFFIX)?.rsplit_once('.'));
        process.is_some_and(|(_, id)| id.split('-').next().is_some_and(|id| id.parse::<u32>().is_ok()))
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_leftover))
        .map(|entry| entry.path())
        .collect()
}

/// Writes a file atomically; `fill` writes the content.
///
/// # Errors
/// When the file cannot be written. The destination is unchanged then.
pub fn write_atomically(
    destination: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<()> {
    let pending = Pending::new(destination)?;
    let write = || -> std::io::Result<()> {
        let mut writer = BufWriter::with_capacity(1 << 20, File::create(pending.path())?);
        fill(&mut writer)?;
        writer.flush()
    };
    write().map_err(Error::io(destination, "write the file", REMEDY))?;
    pending.commit()
}

/// Writes an indented JSON document atomically.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_json(path: &Path, document: &serde_json::Value) -> Result<()> {
    write_atomically(path, |writer| {
        serde_json::to_writer_pretty(&mut *writer, document).map_err(std::io::Error::other)?;
        writeln!(writer)
    })
}

/// Writes an HDF5 file atomically; `fill` writes the content, and `action` names it in errors ("write the Gaussians").
///
/// # Errors
/// When the file cannot be written. The destination is unchanged then.
pub fn write_hdf5(
    destination: &Path,
    action: &'static str,
    fill: impl FnOnce(&hdf5::File) -> hdf5::Result<()>,
) -> Result<()> {
    let pending = Pending::new(destination)?;
    let write = || -> hdf5::Result<()> {
        let file = hdf5::File::create(pending.path())?;
        fill(&file)?;
        // close() reports write errors only if no other handle of the file is open; flush() always does.
        file.flush()?;
        file.close()
    };
    write().map_err(Error::hdf5(
        destination,
        action,
        "check that the folder may be written and the disk is not full",
    ))?;
    pending.commit()
}

/// Creates a folder and its parents if missing.
///
/// # Errors
/// When it cannot be created.
pub fn create_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io(
        folder,
        "create the folder",
        "choose another output folder, or get write permission there",
    ))
}

/// Checks that `output` is not the file `input`, described as `what`.
///
/// # Errors
/// When both are the same existing file.
pub(crate) fn check_output(input: &Path, output: &Path, what: &str) -> Result<()> {
    match (input.canonicalize(), output.canonicalize()) {
        (Ok(a), Ok(b)) if a == b => {
            Err(Error::input(input, "", format!("is {what} to read"), "write to another file"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("map.mrc");
        fs::write(&target, b"old").unwrap();
        let failed = write_atomically(&target, |w| {
            w.write_all(b"half of the new")?;
            Err(std::io::Error::other("disk full"))
        });
        assert!(failed.unwrap_err().to_string().contains("disk full"));
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        write_atomically(&target, |w| w.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn permissions_are_those_of_any_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let [plain, atomic] = ["plain", "atomic"].map(|name| folder.path().join(name));
        fs::write(&plain, b"").unwrap();
        write_atomically(&atomic, |w| w.write_all(b"new")).unwrap();
        let mode = |file: &Path| fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode(&atomic), mode(&plain));
    }

    #[test]
    fn only_temporary_files_are_leftovers() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["map.mrc", ".hidden", ".notes.partial", "map.mrc.7.partial"] {
            fs::write(folder.path().join(name), b"mine").unwrap();
        }
        let pending = Pending::new(&folder.path().join("map.mrc")).unwrap();
        assert_eq!(leftovers(folder.path()), [pending.path().to_path_buf()]);
        let of_earlier_versions = folder.path().join(".map.mrc.123.partial");
        drop(pending);
        fs::write(&of_earlier_versions, b"half").unwrap();
        assert_eq!(leftovers(folder.path()), [of_earlier_versions]);
        assert!(leftovers(&folder.path().join("none")).is_empty());
    }
}
