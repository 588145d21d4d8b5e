//! Files for kubeadm, and the line in the hosts file.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

const MARK: &str = "# muster";

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

/// Removes a file that may be absent.
pub(crate) fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => Err(why),
        _ => Ok(()),
    }
}

/// Removes everything below a directory that may be absent, and follows no link. A file system's own `lost+found` stays.
pub(crate) fn empty(directory: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(()),
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

/// Lets `name` mean `address` in a hosts file, in a line that carries muster's mark. Other lines stay as they are.
pub(crate) fn resolve(hosts: &Path, name: &str, address: IpAddr) -> std::io::Result<()> {
    let before = match fs::read_to_string(hosts) {
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => String::new(),
        text => text?,
    };
    let line = format!("{address} {name} {MARK}");
    let mut lines: Vec<&str> = before.lines().filter(|line| !line.trim_end().ends_with(MARK)).collect();
    lines.push(&line);
    let after = lines.join("\n") + "\n";
    if after == before {
        return Ok(());
    }
    match write(hosts, 0o644, after.as_bytes()) {
        // In a container the file may be a mount, which cannot be replaced, only written.
        Err(why) if matches!(why.raw_os_error(), Some(16 | 18)) => fs::write(hosts, after),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_file_keeps_its_other_lines() {
        let directory = tempfile::tempdir().expect("a directory");
        let hosts = directory.path().join("hosts");
        fs::write(&hosts, "127.0.0.1 localhost\n10.0.0.9 api.site.muster # muster\n").expect("written");
        let address = "10.0.0.1".parse().expect("an address");
        resolve(&hosts, "api.site.muster", address).expect("resolves");
        resolve(&hosts, "api.site.muster", address).expect("resolves");
        let text = fs::read_to_string(&hosts).expect("reads");
        assert_eq!(text, "127.0.0.1 localhost\n10.0.0.1 api.site.muster # muster\n");
    }

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
}
