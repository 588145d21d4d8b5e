//! A file that a command will write. It is opened before the work begins: who waits for an hour should not hear then that
//! the directory is missing.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::Failure;

/// A file to be written.
pub(super) struct Promised {
    path: PathBuf,
    file: File,
}

impl Promised {
    /// Opens it; what is in it stays until it is written.
    pub(super) fn new(path: &Path) -> Result<Self, Failure> {
        let file = File::options().write(true).create(true).truncate(false).open(path);
        match file {
            Ok(file) => Ok(Self { path: path.to_owned(), file }),
            Err(error) => Err(Failure(format!("{}: {error}", path.display()))),
        }
    }

    pub(super) fn write(mut self, text: &str) -> Result<(), Failure> {
        let written = self.file.set_len(0).and_then(|()| self.file.write_all(text.as_bytes()));
        written.map_err(|error| Failure(format!("{}: {error}", self.path.display())))
    }
}
