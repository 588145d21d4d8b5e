//! Files of etcd's, copied and moved.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// What went wrong, with which file.
pub(super) fn named(path: &Path) -> impl Fn(std::io::Error) -> String + '_ {
    move |why| format!("{}: {why}", path.display())
}

/// Copies a program, to be run.
pub(super) fn take(from: &Path, to: &Path) -> Result<(), String> {
    let mut beside = to.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    fs::copy(from, &beside).map_err(named(from))?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o700)).map_err(named(&beside))?;
    fs::File::open(&beside).and_then(|file| file.sync_all()).map_err(named(&beside))?;
    fs::rename(&beside, to).map_err(named(to))
}

/// Copies all below a directory. Returns how many bytes.
pub(super) fn copy_all(from: &Path, to: &Path) -> Result<u64, String> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(to).map_err(named(to))?;
    let mut bytes = 0;
    for entry in fs::read_dir(from).map_err(named(from))? {
        let entry = entry.map_err(named(from))?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        bytes += match entry.file_type().map_err(named(&path))?.is_dir() {
            true => copy_all(&path, &to)?,
            false => fs::copy(&path, &to).map_err(named(&path))?,
        };
    }
    Ok(bytes)
}

/// How many bytes all below a directory takes.
pub(super) fn size(directory: &Path) -> Result<u64, String> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory).map_err(named(directory))? {
        let entry = entry.map_err(named(directory))?;
        let path = entry.path();
        bytes += match entry.file_type().map_err(named(&path))?.is_dir() {
            true => size(&path)?,
            false => entry.metadata().map_err(named(&path))?.len(),
        };
    }
    Ok(bytes)
}

/// The files of a log, in order.
pub(super) fn logs(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(directory).map_err(named(directory))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let mut paths = paths.map_err(named(directory))?;
    // One that is made in advance is called `0.tmp`.
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "wal"));
    paths.sort();
    Ok(paths)
}

pub(super) fn sync(directory: &Path) -> Result<(), String> {
    fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(named(directory))
}

/// Removes a directory that may be absent, with all that is in it.
pub(super) fn forget(directory: &Path) -> Result<(), String> {
    match fs::remove_dir_all(directory) {
        Err(why) if why.kind() != ErrorKind::NotFound => Err(named(directory)(why)),
        _ => Ok(()),
    }
}
