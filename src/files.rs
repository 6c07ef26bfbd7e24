//! Files on disk: outputs that appear whole or not at all ([`Pending`]), the inputs and outputs of a command ([`Claims`]), inputs
//! that are regular files ([`open_input`]), and what a file is by its first bytes.

mod claims;
mod content;
mod input;
mod leftovers;
mod pending;
mod text;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::error::{Error, Result};

pub use claims::Claims;
pub(crate) use content::{Content, unexpected};
pub use content::{first_bytes, is_gzip};
pub use input::{open_input, read_bytes, read_text};
pub use leftovers::{
    AtExit, at_exit, clean_up_at_exit, exit_without_leftovers, leftovers, remove_on_signals,
    survive_size_limit,
};
pub use pending::Pending;
pub(crate) use text::{csv_cell, csv_text, shell_word, star_word};

/// The name `stem` and `end`. The bytes of `stem` stay, whether they are UTF-8 or not.
pub(crate) fn extended(stem: impl AsRef<OsStr>, end: &str) -> OsString {
    let mut name = stem.as_ref().to_os_string();
    name.push(end);
    name
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
        let mut writer = BufWriter::with_capacity(1 << 20, pending.writer()?);
        fill(&mut writer)?;
        writer.flush()
    };
    write().map_err(Error::io(destination, "write the file", pending::REMEDY))?;
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
        let file = hdf5::File::create(pending.handle_path())?;
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

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
