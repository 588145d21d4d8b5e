//! Files for kubeadm.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use muster_kubeadm::Secret;
use muster_kubeadm::work::FILE_BYTES_MAX;

/// Writes a file whole, private from its first byte on unless `mode` says otherwise.
pub(crate) fn write(path: &Path, mode: u32, contents: &[u8]) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".muster-new");
    let beside = Path::new(&beside);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode & 0o600).open(beside)?;
    file.write_all(contents)?;
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(beside, path)
}

/// Has the disk keep the files in a directory that may be absent, and what is below it if that is wanted. Follows no link.
pub(crate) fn sync(directory: &Path, deep: bool) -> std::io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        let synced = match () {
            () if kind.is_file() => fs::File::open(entry.path()).and_then(|file| file.sync_all()),
            () if kind.is_dir() && deep => sync(&entry.path(), deep),
            () => Ok(()),
        };
        // Others come and go there.
        if let Err(why) = synced
            && why.kind() != ErrorKind::NotFound
        {
            return Err(why);
        }
    }
    fs::File::open(directory)?.sync_all()
}

/// Removes a file that may be absent.
pub(crate) fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(why) if why.kind() != ErrorKind::NotFound => Err(why),
        _ => Ok(()),
    }
}

/// Removes everything below a directory that may be absent, and follows no link. A file system's own `lost+found` stays.
pub(crate) fn empty(directory: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name() == "lost+found" {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// A file's bytes; nothing if there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<Secret>, String> {
    let named = |why: std::io::Error| format!("{} cannot be read: {why}", path.display());
    match path.metadata() {
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(named(why)),
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => return Err(format!("{} is too long", path.display())),
        Ok(_) => {}
    }
    fs::read(path).map(|bytes| Some(Secret::new(bytes))).map_err(named)
}

/// What is in a directory, in order; nothing if there is no such directory.
pub(crate) fn list(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable = |why: std::io::Error| format!("{} cannot be read: {why}", directory.display());
    let listed = match fs::read_dir(directory) {
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(unreadable)?,
    };
    let found = listed.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let mut found = found.map_err(unreadable)?;
    found.sort();
    Ok(found)
}

/// All below it that is no directory. Links are named and not followed.
pub(crate) fn list_below(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for path in list(directory)? {
        match path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            true => found.extend(list_below(&path)?),
            false => found.push(path),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_file_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a/b/secret");
        write(&path, 0o600, b"x").expect("writes");
        assert_eq!(fs::metadata(&path).expect("is there").permissions().mode() & 0o777, 0o600);
        remove(&path).expect("removes");
        remove(&path).expect("is gone already");
    }
    #[test]
    fn what_is_below_is_listed_and_links_are_not_followed() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        assert_eq!(list(&at("absent")), Ok(Vec::new()));
        fs::create_dir_all(at("a/b")).expect("made");
        fs::write(at("a/b/x"), "x").expect("written");
        std::os::unix::fs::symlink("/nowhere", at("a/link")).expect("linked");
        assert_eq!(list(&at("a")), Ok(vec![at("a/b"), at("a/link")]));
        assert_eq!(list_below(&at("a")), Ok(vec![at("a/b/x"), at("a/link")]));
        assert!(list(&at("a/b/x")).expect_err("no directory").contains("cannot be read"));
        assert_eq!(read(&at("absent")), Ok(None));
        assert!(read(&at("a")).is_err(), "a directory is no file");
    }
}
