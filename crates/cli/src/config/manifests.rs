//! The image's manifests: read from the files and directories that `kubernetes.manifests` names.

use std::path::{Path, PathBuf};

use muster_kubeadm::manifests::{FILE_BYTES_MAX, FILES_MAX};
use muster_kubeadm::{ManifestFile, Manifests, Secret};

use super::problem::Problem;
use super::values::Values;

/// What the manifests hold. None if anything is wrong; `problems` says what.
pub(super) fn read(values: &Values, problems: &mut Vec<Problem>) -> Option<Manifests> {
    let wrong = |why: String| Problem::error(values.place("kubernetes.manifests"), format!("`manifests`: {why}"));
    let (mut files, mut mistakes) = (Vec::new(), Vec::new());
    for path in values.texts("kubernetes.manifests") {
        match paths(&values.file(&path)) {
            Ok(paths) => files.extend(paths),
            Err(why) => mistakes.push(wrong(format!("{path} {why}"))),
        }
    }
    if files.len() > FILES_MAX {
        mistakes.push(wrong(format!("{} files; {FILES_MAX} are the most", files.len())));
        files.clear();
    }
    let mut contents = Vec::new();
    for path in files {
        let name = values.called(&path);
        match file(&path) {
            Ok(text) => contents.push(ManifestFile { name, contents: text }),
            Err(why) => mistakes.push(wrong(format!("{name} {why}"))),
        }
    }
    let manifests = Manifests::read(&contents);
    if let Err(errors) = &manifests {
        mistakes.extend(errors.iter().map(|error| wrong(error.to_string())));
    }
    let right = mistakes.is_empty();
    problems.extend(mistakes);
    manifests.ok().filter(|_| right)
}

/// A file is itself; a directory is its manifests in the order of their names.
fn paths(path: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable = |why: std::io::Error| format!("cannot be read: {why}");
    if !path.metadata().map_err(unreadable)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let manifest = [".yaml", ".yml", ".json"].iter().any(|extension| name.ends_with(extension));
        // As a shell's `*.yaml`: what begins with a dot is an editor's.
        if manifest && !name.starts_with('.') && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    if paths.is_empty() { Err("holds no file named *.yaml, *.yml or *.json".to_owned()) } else { Ok(paths) }
}

fn file(path: &Path) -> Result<Secret, String> {
    let metadata = path.metadata().map_err(|error| format!("cannot be read: {error}"))?;
    if !metadata.is_file() {
        return Err("is not a file".to_owned());
    }
    if metadata.len() > FILE_BYTES_MAX as u64 {
        return Err(format!("is longer than {FILE_BYTES_MAX} bytes"));
    }
    std::fs::read(path).map(Secret::new).map_err(|error| format!("cannot be read: {error}"))
}
