//! What the file system of a folder can do.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::disk;

/// A folder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FolderRecord {
    /// Path.
    pub path: String,
    /// Kind of file system.
    pub kind: String,
    /// Free space in bytes.
    pub free: u64,
    /// Why no file can be written.
    pub unwritable: Option<String>,
    /// Why files cannot be locked.
    pub unlockable: Option<String>,
}

/// Magic numbers of file systems (statfs(2)).
const KINDS: [(u64, &str); 18] = [
    (0x0102_1994, "tmpfs"),
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x2fc1_2fc1, "zfs"),
    (0x794c_7630, "overlayfs"),
    (0x8584_58f6, "ramfs"),
    (0x0102_1997, "9p"),
    (0x6a65_6a63, "virtiofs"),
    (0x6573_5546, "fuse"),
    (0x6969, "NFS"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x00c3_6400, "CephFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0xaad7_aaea, "PanFS"),
];

impl FolderRecord {
    /// Tries the folder at `path`.
    pub fn of(path: &Path) -> Self {
        let mut found = Self { path: path.display().to_string(), ..Self::default() };
        match rustix::fs::statfs(path) {
            Ok(statistics) => found.kind = kind(statistics.f_type as u64 & 0xffff_ffff),
            Err(error) => {
                found.unwritable = Some(error.to_string());
                return found;
            }
        }
        found.free = disk::free(path).map_or(0, |(free, _)| free);
        // As outputs are written: a file with another name, synced and renamed.
        let written =
            tempfile::Builder::new().prefix(".cryosplat-mpi-check-").tempfile_in(path).and_then(|file| {
                let mut file = file;
                file.write_all(&[0; 4096])?;
                file.as_file().sync_all()?;
                found.unlockable = lock(file.as_file()).err().map(|error| error.to_string());
                let renamed = file.path().with_extension("renamed");
                fs::rename(file.path(), &renamed)?;
                fs::rename(&renamed, file.path())
            });
        found.unwritable = written.err().map(|error| error.to_string());
        found
    }
}

/// Locks a file as the scratch copies (flock) and HDF5 do (fcntl or flock), without waiting.
fn lock(file: &File) -> std::io::Result<()> {
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)?;
    rustix::fs::flock(file, FlockOperation::Unlock)?;
    rustix::fs::fcntl_lock(file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(())
}

fn kind(magic: u64) -> String {
    let known = KINDS.iter().find(|(number, _)| *number == magic);
    known.map_or_else(|| format!("file system 0x{magic:x}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_tried_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let found = FolderRecord::of(folder.path());
        assert!(found.free > 0 && !found.kind.is_empty(), "{found:?}");
        assert_eq!((found.unwritable, found.unlockable), (None, None));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let none = FolderRecord::of(&folder.path().join("none"));
        assert!(none.unwritable.unwrap().contains("No such file"));
        let proc = FolderRecord::of(Path::new("/proc"));
        assert!(proc.unwritable.is_some());
    }
}
