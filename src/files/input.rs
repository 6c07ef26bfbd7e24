//! Inputs: regular files only. A named pipe, device or socket in the place of a file would block a reader for ever.

use std::fs::{self, File};
use std::io::{Error, ErrorKind, Read, Result, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::pending::special;
use crate::memory;
use crate::progress::gib;

/// Opens the regular file `path`, through links, without waiting for anybody.
///
/// # Errors
/// When it cannot be opened, or is a folder, FIFO, socket or device.
pub fn open_input(path: &Path) -> Result<File> {
    let check = |metadata: fs::Metadata| match special(&metadata) {
        Some(kind) => Err(Error::other(format!("it is {kind}, expected a regular file"))),
        None => Ok(()),
    };
    // Before opening, since that changes the state of some devices.
    check(fs::metadata(path)?)?;
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    check(file.metadata()?)?;
    Ok(file)
}

/// The content of the regular file `path`.
///
/// # Errors
/// As [`open_input`], or when it is too large for the free memory, begins with a zero byte as no format that is read whole does
/// (so do sparse files and what a full disk has left), or cannot be read.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let mut file = open_input(path)?;
    let mut bytes = Vec::new();
    // A sparse file may claim any length, and what is read from it takes more memory than the file.
    let (length, free) = (file.metadata()?.len(), memory::available());
    if free > 0 && length > free / 3 {
        return Err(Error::other(format!(
            "its {:.1} GiB are too many for the {:.1} GiB of memory that are free",
            gib(length),
            gib(free)
        )));
    }
    let mut first = [1];
    if file.read(&mut first)? == 1 && first == [0] {
        return Err(Error::new(
            ErrorKind::InvalidData,
            "it begins with a zero byte: it is damaged, or another kind of file",
        ));
    }
    file.rewind()?;
    bytes.try_reserve_exact(usize::try_from(length).unwrap_or(usize::MAX))?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The content of the regular file `path`, which is text.
///
/// # Errors
/// As [`read_bytes`], or when it is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read_bytes(path)?)
        .map_err(|_| Error::new(ErrorKind::InvalidData, "stream did not contain valid UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_inputs() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        for (path, kind) in [
            (pipe.as_path(), "named pipe"),
            (&link, "named pipe"),
            (&socket, "socket"),
            (Path::new("/dev/zero"), "device"),
            (folder.path(), "folder"),
        ] {
            let error = read_bytes(path).unwrap_err().to_string();
            assert!(error.contains(kind), "{error}");
        }
        let file = folder.path().join("file");
        fs::write(&file, "text").unwrap();
        assert_eq!(read_text(&file).unwrap(), "text");
        fs::write(&file, b"\xff").unwrap();
        assert!(read_text(&file).is_err());
        fs::write(&file, b"\0text").unwrap();
        assert!(read_bytes(&file).unwrap_err().to_string().contains("zero byte"));
        fs::write(&file, b"").unwrap();
        assert!(read_bytes(&file).unwrap().is_empty());
    }
}
