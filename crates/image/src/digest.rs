//! Hashes of files and trees: names of what is kept, and what is written beside outputs.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// Counts changes of what steps do with the same inputs: what an earlier recipe made is made anew.
const RECIPE: &str = "4";

/// What the inputs of a step hash to. Each part is told apart from the next by its length.
#[derive(Clone)]
pub(crate) struct Key(Sha256);

impl Key {
    /// One for a step of this name.
    pub(crate) fn of(step: &str) -> Self {
        Self(Sha256::new()).bytes(step.as_bytes()).text(RECIPE)
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// A file, a link or all of a directory: names, kinds, permissions, owners and contents. Times and extended attributes count for
    /// nothing.
    pub(crate) fn path(self, path: &Path) -> Result<Self> {
        self.path_but(path, Path::new("/"))
    }

    /// As [`Self::path`], of what a directory's links lead to.
    pub(crate) fn followed(self, path: &Path) -> Result<Self> {
        let whole = fs::canonicalize(path).with_context(|| format!("{} cannot be looked at", path.display()))?;
        if !whole.is_dir() {
            return self.path(&whole);
        }
        names(&whole)?
            .iter()
            .try_fold(self.bytes(b"directory"), |key, name| key.bytes(name.as_bytes()).followed(&whole.join(name)))
    }

    /// As [`Self::path`], without what lies below this directory in it.
    pub(crate) fn path_but(self, path: &Path, left_out: &Path) -> Result<Self> {
        let seen = path.symlink_metadata().with_context(|| format!("{} cannot be looked at", path.display()))?;
        let device = if seen.is_file() || seen.is_dir() { 0 } else { seen.rdev() };
        let key = self.bytes(&(seen.mode() & 0o177_777).to_le_bytes()).bytes(&device.to_le_bytes());
        let key = key.bytes(&seen.uid().to_le_bytes()).bytes(&seen.gid().to_le_bytes());
        if seen.is_symlink() {
            return Ok(key.bytes(fs::read_link(path)?.as_os_str().as_bytes()));
        }
        if seen.is_dir() {
            return names(path)?.iter().try_fold(key.bytes(b"directory"), |key, name| {
                match left_out.strip_prefix(name) {
                    Ok(rest) if rest.as_os_str().is_empty() => Ok(key),
                    Ok(rest) => key.bytes(name.as_bytes()).path_but(&path.join(name), rest),
                    Err(_) => key.bytes(name.as_bytes()).path(&path.join(name)),
                }
            });
        }
        Ok(key.bytes(if seen.is_file() { sha256(path)?.to_vec() } else { Vec::new() }.as_slice()))
    }

    /// The name.
    pub(crate) fn name(self) -> String {
        hex::encode(self.0.finalize())[..16].to_owned()
    }
}

/// The names in a directory, in order.
fn names(directory: &Path) -> Result<Vec<OsString>> {
    let read = fs::read_dir(directory).with_context(|| format!("{} cannot be read", directory.display()))?;
    let mut names: Vec<OsString> = read.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
    names.sort_unstable();
    Ok(names)
}

/// SHA-256 of a file's contents.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn sha256(path: &Path) -> Result<[u8; 32]> {
    let mut file = fs::File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).with_context(|| format!("{} cannot be read", path.display()))? {
            0 => return Ok(hash.finalize().into()),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// SHA-256 of bytes.
pub(crate) fn sha256_of(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Whether a file may be run.
pub(crate) fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|seen| seen.is_file() && seen.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(path: &Path) -> String {
        Key::of("test").path(path).expect("readable").name()
    }

    #[test]
    fn a_name_follows_names_contents_permissions_and_links() {
        let directory = tempfile::tempdir().expect("a directory");
        let (root, file) = (directory.path(), directory.path().join("a"));
        let mut names = vec![name(root)];
        let mut changed = |what: &str| {
            let next = name(root);
            assert!(!names.contains(&next), "{what} changes nothing");
            names.push(next);
        };
        fs::write(&file, "one").expect("written");
        changed("a file");
        fs::write(&file, "two").expect("written");
        changed("its contents");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("set");
        changed("its permissions");
        fs::rename(&file, root.join("b")).expect("renamed");
        changed("its name");
        std::os::unix::fs::symlink("b", &file).expect("linked");
        changed("a link");
        fs::create_dir(root.join("c")).expect("made");
        changed("a directory");
    }

    #[test]
    fn what_is_left_out_and_what_a_link_leads_to() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        fs::create_dir_all(root.join("etc/muster")).expect("made");
        fs::create_dir(root.join("bin")).expect("made");
        fs::write(root.join("etc/muster/one"), "1").expect("written");
        fs::write(root.join("program"), "1").expect("written");
        std::os::unix::fs::symlink("../program", root.join("bin/program")).expect("linked");
        let but = || Key::of("test").path_but(&root.join("etc"), Path::new("muster")).expect("readable").name();
        let followed = || Key::of("test").followed(&root.join("bin")).expect("readable").name();
        let (first, led) = (but(), followed());
        fs::write(root.join("etc/muster/one"), "2").expect("written");
        fs::write(root.join("program"), "2").expect("written");
        assert_eq!(but(), first);
        assert_ne!(followed(), led);
    }

    #[test]
    fn parts_are_told_apart() {
        assert_ne!(Key::of("a").text("bc").name(), Key::of("ab").text("c").name());
    }
}
