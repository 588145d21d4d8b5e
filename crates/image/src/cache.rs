//! Steps that were done once: each under the hash of its inputs, whole or not there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::digest::Key;

/// A directory of steps' results.
#[derive(Debug)]
pub(crate) struct Cache {
    directory: PathBuf,
    /// Held while it is used: two builds at once would make the same thing twice, in one place.
    _lock: fs::File,
}

impl Cache {
    /// Opens it, and waits until no other build uses it.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let cannot = || format!("{} cannot be used to keep steps in", directory.display());
        fs::create_dir_all(directory).with_context(cannot)?;
        // What is kept has the sites' mesh keys in it.
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).with_context(cannot)?;
        let lock = fs::File::create(directory.join("lock")).with_context(cannot)?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).with_context(cannot)?;
        // What a build that was stopped has left.
        for entry in fs::read_dir(directory).with_context(cannot)?.flatten() {
            if entry.path().extension().is_some_and(|end| end == "part") {
                remove(&entry.path())?;
            }
        }
        Ok(Self { directory: directory.to_owned(), _lock: lock })
    }

    /// What a step made, and whether it was there. `make` is given a path that does not exist, to make a file or a directory at.
    pub(crate) fn step(&self, name: &str, key: Key, make: impl FnOnce(&Path) -> Result<()>) -> Result<(PathBuf, bool)> {
        let path = self.directory.join(format!("{name}-{}", key.name()));
        if path.symlink_metadata().is_ok() {
            // What was used last is kept longest.
            let _ = fs::File::open(&path).and_then(|file| file.set_modified(std::time::SystemTime::now()));
            return Ok((path, true));
        }
        let part = self.directory.join(format!("{name}.part"));
        remove(&part)?;
        make(&part).inspect_err(|_| _ = remove(&part))?;
        fs::rename(&part, &path).with_context(|| format!("{} was not made", part.display()))?;
        self.forget(name, &path)?;
        Ok((path, false))
    }

    /// Of each step the last few are kept, so that going back and forth between two settings builds nothing twice.
    fn forget(&self, name: &str, made: &Path) -> Result<()> {
        const KEPT: usize = 3;
        let mut others = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let file = entry.file_name().to_string_lossy().into_owned();
            let of_step = file.strip_prefix(name).is_some_and(|rest| rest.starts_with('-') && rest.len() == 17);
            if of_step && entry.path() != made {
                others.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        others.sort_unstable();
        others.iter().rev().skip(KEPT - 1).try_for_each(|(_, path)| remove(path))
    }
}

/// Removes a file or a whole directory. One that is not there is no error.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(seen) if seen.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.with_context(|| format!("{} cannot be removed", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_done_once_and_half_of_one_is_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(directory.path()).expect("opened");
        let key = || Key::of("step").text("input");
        let failed = cache.step("root", key(), |path| {
            fs::write(path, "half")?;
            anyhow::bail!("no room")
        });
        assert_eq!(failed.expect_err("it fails").to_string(), "no room");
        let (path, kept) = cache.step("root", key(), |path| Ok(fs::write(path, "whole")?)).expect("made");
        assert!(!kept);
        assert_eq!(fs::read_to_string(&path).expect("read"), "whole");
        let again = cache.step("root", key(), |_| panic!("made twice")).expect("kept");
        assert_eq!(again, (path, true));
    }

    #[test]
    fn the_last_three_of_a_step_are_kept_and_other_steps_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = Cache::open(directory.path()).expect("opened");
        let make = |name: &str, input: usize| {
            let key = Key::of(name).text(&input.to_string());
            let (path, _) = cache.step(name, key, |path| Ok(fs::write(path, "")?)).expect("made");
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(input as u64 + 1);
            fs::File::options().append(true).open(&path).and_then(|file| file.set_modified(at)).expect("set");
            path
        };
        let other = make("root-hash", 0);
        let made: Vec<_> = (0..5).map(|input| make("root", input)).collect();
        let there: Vec<bool> = made.iter().map(|path| path.exists()).collect();
        assert_eq!(there, [false, false, true, true, true]);
        assert!(other.exists());
    }
}
