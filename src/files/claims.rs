//! The inputs and outputs of a command: no output may be an input, or another output.

use std::collections::HashMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::pending::{Pending, check_destination, check_folder, folder_of, identity};
use crate::error::{Error, Result};

/// Device and inode of a file.
type Identity = (u64, u64);

/// The files that a command reads and those that it will write, to be checked before anything is computed or written.
///
/// Files are compared by device and inode, through symbolic and hard links. A file that does not exist yet is known by its folder
/// and name.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    inputs: Vec<(PathBuf, String)>,
    outputs: Vec<PathBuf>,
    created: Vec<PathBuf>,
}

impl Claims {
    /// Nothing is read or written yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The command reads the file `path`, which is `what` ("the particle file"). It need not exist.
    pub fn reads(&mut self, path: impl AsRef<Path>, what: impl Into<String>) -> &mut Self {
        self.inputs.push((path.as_ref().to_path_buf(), what.into()));
        self
    }

    /// [`Claims::reads`] for an optional input.
    pub fn reads_some(&mut self, path: Option<impl AsRef<Path>>, what: &str) -> &mut Self {
        if let Some(path) = path {
            self.reads(path, what);
        }
        self
    }

    /// The command writes the file `path`.
    pub fn writes(&mut self, path: impl AsRef<Path>) -> &mut Self {
        self.outputs.push(path.as_ref().to_path_buf());
        self
    }

    /// [`Claims::writes`] for several files.
    pub fn writes_all<P: AsRef<Path>>(&mut self, paths: impl IntoIterator<Item = P>) -> &mut Self {
        paths.into_iter().for_each(|path| {
            self.writes(path);
        });
        self
    }

    /// The command creates `folder`, and the folders in it, if they are missing. Those of all other outputs must exist.
    pub fn creates(&mut self, folder: &Path) -> &mut Self {
        self.created.push(folder.to_path_buf());
        self
    }

    /// Whether one of the outputs exists. If not, the command overwrites nothing.
    pub fn replace_any(&self) -> bool {
        self.outputs.iter().any(|output| output.exists())
    }

    /// Checks that every output is a regular file or does not exist, has a folder that can be written, is no input, and no
    /// other output.
    ///
    /// # Errors
    /// Names the first output that is not, what it is, and a remedy.
    pub fn check(&self) -> Result<()> {
        let mut places: HashMap<Place, &Path> = HashMap::new();
        let mut existing: HashMap<Identity, &Path> = HashMap::new();
        let mut probed: Vec<&Path> = Vec::new();
        for output in &self.outputs {
            check_destination(output)?;
            if !self.created.iter().any(|folder| output.starts_with(folder)) {
                check_folder(output)?;
            }
            // A folder that cannot be written is found before the work.
            if folder_of(output).is_dir() && !probed.contains(&folder_of(output)) {
                drop(Pending::new(output)?);
                probed.push(folder_of(output));
            }
            let in_place = places.insert(Place::of(output), output);
            let as_file = identity_of(output).and_then(|found| existing.insert(found, output));
            if let Some(earlier) = in_place.or(as_file) {
                let problem = match earlier == output {
                    true => "is the name of two outputs of this command".to_owned(),
                    false => {
                        format!("is the same file as {}, another output of this command", earlier.display())
                    }
                };
                return Err(Error::input(output, "", problem, "give each output a name of its own"));
            }
        }
        if existing.is_empty() {
            return Ok(());
        }
        for (input, what) in &self.inputs {
            let Some(output) = identity_of(input).and_then(|found| existing.get(&found)) else { continue };
            let problem = match input == output {
                true => format!("is {what} to read, and an output of this command"),
                false => format!("is the same file as {}, {what} to read", input.display()),
            };
            return Err(Error::input(output, "", problem, "write to another file"));
        }
        Ok(())
    }
}

/// The file at `path`, through links.
fn identity_of(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().map(|metadata| identity(&metadata))
}

/// Where a file is made: the nearest folder that exists, and the rest of its path.
#[derive(PartialEq, Eq, Hash)]
struct Place(Option<Identity>, PathBuf);

impl Place {
    fn of(path: &Path) -> Self {
        let mut folder = folder_of(path);
        while identity_of(folder).is_none() && folder != folder_of(folder) {
            folder = folder_of(folder);
        }
        let rest = path.strip_prefix(folder).unwrap_or(path);
        let rest = rest.components().filter(|part| !matches!(part, Component::CurDir)).collect();
        Self(identity_of(folder), rest)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn an_output_is_no_input_by_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("data"), b"x").unwrap();
        fs::hard_link(at("data"), at("hard")).unwrap();
        symlink("data", at("soft")).unwrap();
        symlink("soft", at("softer")).unwrap();
        symlink("none", at("dangling")).unwrap();
        symlink(folder.path(), at("here")).unwrap();
        fs::write(at("other"), b"x").unwrap();
        let check = |input: &str, output: &str| {
            Claims::new().reads(at(input), "the particle file").writes(at(output)).check()
        };
        for (input, output) in [
            ("data", "data"),
            ("data", "hard"),
            ("data", "soft"),
            ("softer", "data"),
            ("soft", "here/hard"),
            ("data", "./here/./here/softer"),
        ] {
            let error = check(input, output).unwrap_err().to_string();
            assert!(error.contains("the particle file") && error.contains("write to another"), "{error}");
        }
        for output in ["other", "new", "dangling", "here/new"] {
            check("data", output).unwrap();
        }
        for (output, problem) in [("folder/that/is/new", "does not exist"), ("data/new", "is not a folder")] {
            let error = check("data", output).unwrap_err().to_string();
            assert!(error.contains(output) && error.contains(problem), "{error}");
            let created = Claims::new().creates(&at("folder")).writes(at(output)).check();
            assert_eq!(created.is_ok(), problem == "does not exist", "{output}");
        }
        check("missing", "other").unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_found_at_once() {
        // Nobody makes a file there, root neither.
        let error = Claims::new().writes("/proc/self/map.mrc").check().unwrap_err().to_string();
        assert!(error.contains("/proc/self"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        Claims::new().writes(folder.path().join("map.mrc")).check().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn two_outputs_are_two_files() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("data"), b"x").unwrap();
        fs::hard_link(at("data"), at("hard")).unwrap();
        symlink(folder.path(), at("here")).unwrap();
        let check = |first: &str, second: &str| {
            let mut claims = Claims::new();
            claims.creates(&at("a")).creates(&at("b")).creates(&at("here/a"));
            claims.writes(at(first)).writes(at(second)).check()
        };
        for (first, second) in [
            ("new", "new"),
            ("new", "./new"),
            ("new", "here/new"),
            ("a/b/new", "here/a/./b/new"),
            ("data", "hard"),
        ] {
            let error = check(first, second).unwrap_err().to_string();
            assert!(error.contains("a name of its own"), "{error}");
        }
        check("new", "newer").unwrap();
        check("data", "new").unwrap();
        check("a/new", "b/new").unwrap();
        assert!(check("new", "here").unwrap_err().to_string().contains("is a folder"));
    }
}
