//! The hosts file on disk: links are followed; it is replaced whole where that is possible, and written in place where not.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{Error, ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Longest hosts file in bytes: lists of advertisers' names have some megabytes.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// Most links on the way to the file (`MAXSYMLINKS` in Linux's include/linux/namei.h).
const LINKS_MAX: usize = 40;

/// Longest list of a file's extended attributes, and longest value of one, in bytes (limits.h of Linux).
const ATTRIBUTES_MAX: usize = 64 << 10;

/// What was read, and from where.
pub(super) struct HostsFile {
    /// Where the links end.
    path: PathBuf,
    contents: Vec<u8>,
    /// None if there is no such file yet.
    about: Option<Metadata>,
}

impl HostsFile {
    /// Reads the file that `path` leads to; one that is not there is empty.
    ///
    /// # Errors
    /// What the system says; too many links; no regular file; more than 32 MiB.
    pub(super) fn read(path: &Path) -> std::io::Result<Self> {
        let path = follow(path)?;
        let about = match fs::metadata(&path) {
            Err(why) if why.kind() == ErrorKind::NotFound => {
                return Ok(Self { path, contents: Vec::new(), about: None });
            }
            about => about?,
        };
        // To read a pipe would never end.
        if !about.is_file() {
            return Err(Error::new(ErrorKind::InvalidInput, format!("{} is no regular file", path.display())));
        }
        if about.len() > FILE_BYTES_MAX {
            return Err(Error::new(ErrorKind::FileTooLarge, format!("it has more than {FILE_BYTES_MAX} bytes")));
        }
        let contents = fs::read(&path)?;
        Ok(Self { path, contents, about: Some(about) })
    }

    /// The bytes.
    pub(super) fn contents(&self) -> &[u8] {
        &self.contents
    }

    /// Replaces the contents. Mode, owner and attributes stay.
    ///
    /// # Errors
    /// When neither way works: with both reasons.
    pub(super) fn replace(&self, contents: &[u8]) -> std::io::Result<()> {
        // A second name would go on naming the former file.
        let alone = self.about.as_ref().is_none_or(|about| about.nlink() == 1);
        let swapped = if alone { self.swap(contents) } else { Err(Error::other("it has several names")) };
        let Err(beside) = swapped else { return Ok(()) };
        // In a container the file may be a mount, which cannot be replaced, and the directory read-only.
        self.overwrite(contents)
            .map_err(|within| Error::new(within.kind(), format!("in place: {within}; by a new file: {beside}")))
    }

    /// By a new file beside it, so that nobody ever sees half of it.
    fn swap(&self, contents: &[u8]) -> std::io::Result<()> {
        if self.about.is_none()
            && let Some(directory) = self.path.parent()
        {
            fs::create_dir_all(directory)?;
        }
        let mut beside = self.path.as_os_str().to_owned();
        beside.push(".muster-new");
        let beside = Path::new(&beside);
        super::super::files::remove(beside)?;
        let done = self.fill(beside, contents).and_then(|()| fs::rename(beside, &self.path));
        if done.is_err() {
            // It may never have been made.
            let _ = fs::remove_file(beside);
        }
        done?;
        // After a loss of power the former file may be back, and is mended at the next start.
        self.path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all()).or(Ok(()))
    }

    fn fill(&self, beside: &Path, contents: &[u8]) -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
        file.write_all(contents)?;
        match &self.about {
            Some(about) => {
                fchown(&file, Some(about.uid()), Some(about.gid()))?;
                copy_attributes(&File::open(&self.path)?, &file)?;
                file.set_permissions(about.permissions())?;
            }
            None => file.set_permissions(PermissionsExt::from_mode(0o644))?,
        }
        file.sync_all()
    }

    /// From the first byte that differs on, so that as little as possible is ever half written.
    fn overwrite(&self, contents: &[u8]) -> std::io::Result<()> {
        let same = self.contents.iter().zip(contents).take_while(|(one, other)| one == other).count();
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(&self.path)?;
        file.seek(SeekFrom::Start(same as u64))?;
        file.write_all(&contents[same..])?;
        file.set_len(contents.len() as u64)?;
        file.sync_all()
    }
}

/// Where links lead in the end, which may be a file that is not there yet.
fn follow(path: &Path) -> std::io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("/")).join(target),
            // No link, or nothing at all.
            Err(why) if matches!(why.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound) => return Ok(path),
            Err(why) => return Err(why),
        }
    }
    Err(Error::other("its links lead nowhere"))
}

/// Access lists and security labels: a file that has lost its label may be closed to those who resolve names.
fn copy_attributes(from: &File, to: &File) -> std::io::Result<()> {
    use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fsetxattr};
    let mut names = vec![0; ATTRIBUTES_MAX];
    let length = match flistxattr(from, &mut names[..]) {
        Err(rustix::io::Errno::NOTSUP) => return Ok(()),
        length => length?,
    };
    let mut value = vec![0; ATTRIBUTES_MAX];
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let length = fgetxattr(from, name, &mut value[..])?;
        fsetxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn put(path: &Path, contents: &str) {
        HostsFile::read(path).expect("reads").replace(contents.as_bytes()).expect("replaces");
        assert_eq!(fs::read_to_string(path).expect("reads"), contents);
        let beside: Vec<_> = fs::read_dir(path.parent().expect("a directory")).expect("reads").collect();
        let left = beside.into_iter().map(|entry| entry.expect("an entry").path());
        let left: Vec<_> =
            left.filter(|path| path.to_string_lossy().ends_with("muster-new") && path.is_file()).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn links_are_followed_and_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("etc")).expect("makes");
        // Relative, by way of a second link, to a directory that is not there yet.
        symlink("../run/a/hosts.real", at("etc/second")).expect("links");
        symlink(at("etc/second"), at("etc/hosts")).expect("links");
        put(&at("etc/hosts"), "one\n");
        put(&at("etc/hosts"), "two\n");
        assert_eq!(fs::read_to_string(at("run/a/hosts.real")).expect("reads"), "two\n");
        for link in ["etc/hosts", "etc/second"] {
            assert!(at(link).symlink_metadata().expect("is there").is_symlink(), "{link}");
        }
        symlink("loop", at("loop")).expect("links");
        assert!(HostsFile::read(&at("loop")).is_err());
        symlink("/dev/null", at("device")).expect("links");
        assert!(HostsFile::read(&at("device")).is_err());
    }

    #[test]
    fn mode_and_other_names_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("hosts");
        put(&path, "new\n");
        assert_eq!(fs::metadata(&path).expect("is there").permissions().mode() & 0o7777, 0o644);
        fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).expect("sets");
        put(&path, "whole\n");
        assert_eq!(fs::metadata(&path).expect("is there").permissions().mode() & 0o7777, 0o640);
        let second = directory.path().join("second");
        fs::hard_link(&path, &second).expect("links");
        put(&path, "short\n");
        assert_eq!(fs::read_to_string(&second).expect("reads"), "short\n");
    }

    #[test]
    fn attributes_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("hosts");
        put(&path, "one\n");
        let set = rustix::fs::setxattr(&path, "user.label", b"kept", rustix::fs::XattrFlags::empty());
        put(&path, "two\n");
        let mut value = [0; 16];
        let kept = rustix::fs::getxattr(&path, "user.label", &mut value[..]);
        // Not every file system has them.
        assert_eq!(kept.ok(), set.ok().map(|()| 4));
    }

    #[test]
    fn where_nothing_can_stand_beside_it_is_written_in_place() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("hosts");
        fs::write(&path, "127.0.0.1 localhost\nlong long long\n").expect("writes");
        let inode = fs::metadata(&path).expect("is there").ino();
        fs::create_dir_all(directory.path().join("hosts.muster-new/full")).expect("makes");
        put(&path, "127.0.0.1 localhost\nshort\n");
        put(&path, "127.0.0.1 localhost\nshort\nand longer again\n");
        assert_eq!(fs::metadata(&path).expect("is there").ino(), inode);
    }
}
