//! What is looked at, on the disk, before the kubelet starts. It is decided in [`muster_kubeadm::guard`].

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use muster_kubeadm::Settings;
use muster_kubeadm::guard::{Found, POD_LOGS, Verdict};

/// Where it is noted that a kubelet was started since the machine booted, below the root: what lies there is gone with the next boot.
const STARTED: &str = "run/muster-guard";

/// Where a person says that the kubelet is to start although nobody was met, below the root: until the next boot.
const ALONE: &str = "run/muster-guard-alone";

/// What became of a look.
#[derive(Debug, Default)]
pub struct Guarded {
    /// Why the kubelet must not start, if it must not.
    pub withheld: Option<String>,
    /// The files that were written or removed, or would be.
    pub changed: Vec<PathBuf>,
    /// What could not be written, and keeps nothing from starting.
    pub troubles: Vec<String>,
}

/// Looks at the machine below `root`, and writes what is to be written unless this is a `rehearsal`.
///
/// A machine whose files cannot be read may hold anything: its kubelet does not start. One that works does, although a note cannot be
/// written there.
pub fn before_kubelet(root: &Path, rehearsal: bool) -> Guarded {
    let settings = Settings::of("", root);
    let mut guarded = Guarded::default();
    let looked = look(&settings, root);
    let (verdict, begun) = match looked {
        Ok(looked) => looked,
        Err(why) => {
            guarded.withheld = Some(format!("{why}: what etcd holds here cannot be known"));
            return guarded;
        }
    };
    match verdict {
        Verdict::Withhold { why } => guarded.withheld = Some(why),
        Verdict::Start { manifest, mark } => {
            let files = [(settings.etcd_mark(), mark), (settings.etcd_manifest(), manifest)];
            for (path, text) in files.into_iter().filter_map(|(path, text)| Some((path, text?))) {
                let done = if rehearsal { Ok(()) } else { write(&path, &settings.dir, &text) };
                match done {
                    Ok(()) => guarded.changed.push(path),
                    Err(why) if begun => guarded.troubles.push(format!("{}: {why}", path.display())),
                    Err(why) => {
                        guarded.withheld = Some(format!("{}: {why}: etcd must not begin unnoted", path.display()))
                    }
                }
            }
        }
    }
    if guarded.withheld.is_none() && !rehearsal {
        // Without it etcd's manifest is mended once too often, which restarts etcd and nothing worse.
        if let Err(why) = fs::write(root.join(STARTED), "") {
            guarded.troubles.push(format!("/{STARTED}: {why}"));
        }
    }
    guarded
}

/// Whether the machine's agent is to be asked first: a kubelet would start etcd on what it had before the machine was switched on, or begin it with
/// others that may have been given up since.
pub fn asks_first(root: &Path) -> bool {
    let settings = Settings::of("", root);
    let let_be = root.join(STARTED).exists() || root.join(ALONE).exists();
    let etcd = settings.etcd_manifest().exists();
    look(&settings, root).is_ok_and(|(verdict, _)| verdict.asks_first(etcd, let_be))
}

/// Lets the kubelet start although nobody was met, until the next boot: a person's word.
///
/// # Errors
/// What could not be written.
pub fn start_alone(root: &Path) -> std::io::Result<()> {
    fs::write(root.join(ALONE), "")
}

/// Whether a machine's kubelet must not start, since etcd has run here and its data is gone. What cannot be read now may be there at the
/// next look.
pub(crate) fn etcd_gone(settings: &Settings) -> bool {
    let Some(root) = settings.dir.ancestors().nth(2) else { return false };
    matches!(look(settings, root), Ok((Verdict::Withhold { .. }, _)))
}

/// What is to become of the start, and whether etcd's data is there.
fn look(settings: &Settings, root: &Path) -> Result<(Verdict, bool), String> {
    let Some(manifest) = read(&settings.etcd_manifest())? else {
        // No etcd is to run here: nothing else need be readable.
        return Ok((Verdict::Start { manifest: None, mark: None }, true));
    };
    let ca = read(&settings.pki_dir().join("etcd/ca.crt"))?.unwrap_or_default();
    let mark = read(&settings.etcd_mark())?;
    let logs = names(&below(root, Path::new(POD_LOGS)))?;
    let logs: Vec<String> = logs.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    let found = Found {
        manifest: Some(&manifest),
        ca: ca.as_bytes(),
        mark: mark.as_deref(),
        logs: &logs,
        started: root.join(STARTED).exists(),
    };
    let (begun, trouble) = (std::cell::Cell::new(false), std::cell::Cell::new(None));
    let verdict = found.verdict(&settings.etcd_dir, |directory| match names(&below(root, directory)) {
        Ok(names) => {
            begun.set(!names.is_empty());
            begun.get()
        }
        Err(why) => {
            trouble.set(Some(why));
            false
        }
    });
    trouble.into_inner().map_or(Ok((verdict, begun.get())), Err)
}

/// A path that a manifest names, as it is below `root`.
fn below(root: &Path, path: &Path) -> PathBuf {
    if path.starts_with(root) { path.to_owned() } else { root.join(path.strip_prefix("/").unwrap_or(path)) }
}

fn read(path: &Path) -> Result<Option<String>, String> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(None),
        Err(why) => Err(format!("{}: {why}", path.display())),
    }
}

fn names(directory: &Path) -> Result<Vec<std::ffi::OsString>, String> {
    let failed = |why: std::io::Error| format!("{}: {why}", directory.display());
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry.map_err(failed)?.file_name())).collect(),
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(why) => Err(failed(why)),
    }
}

/// Writes a file whole, by way of another one in `beside`: a kubelet takes whatever lies among its manifests for one.
fn write(path: &Path, beside: &Path, text: &str) -> std::io::Result<()> {
    let new = beside.join(".muster-guard");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)?;
    path.parent().map_or(Ok(()), |directory| fs::File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str =
        "    - --name=m1\n    - --data-dir=/var/lib/etcd\n    - --initial-cluster=m1=https://10.0.0.1:2380\n";

    #[test]
    fn a_machine_begins_etcd_once() {
        let root = tempfile::tempdir().expect("a directory");
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("run")).expect("made");
        let before = || before_kubelet(root.path(), false);
        assert!(before().withheld.is_none() && before().changed.is_empty(), "no etcd is to run here");
        fs::create_dir_all(at("etc/kubernetes/manifests")).expect("made");
        fs::write(at("etc/kubernetes/manifests/etcd.yaml"), MANIFEST).expect("written");
        assert_eq!(before_kubelet(root.path(), true).changed, [at("etc/kubernetes/muster-etcd.json")]);
        assert!(!at("etc/kubernetes/muster-etcd.json").exists(), "a rehearsal writes nothing");
        assert!(before().withheld.is_none() && before().changed.is_empty());
        fs::remove_file(at(STARTED)).expect("the machine boots");
        assert!(asks_first(root.path()), "those with whom it would begin may have been given up");
        assert!(before().withheld.is_none());
        fs::create_dir_all(at("var/log/pods/kube-system_etcd-m1_0123")).expect("made");
        fs::create_dir_all(at("var/lib/etcd/member/wal")).expect("made");
        assert_eq!(before().changed, [at("etc/kubernetes/muster-etcd.json")], "etcd runs: its manifest stays");
        assert!(!asks_first(root.path()), "a kubelet that starts again is asked nothing");
        fs::remove_file(at(STARTED)).expect("the machine boots");
        assert!(asks_first(root.path()));
        start_alone(root.path()).expect("written");
        assert!(!asks_first(root.path()), "a person has said so");
        fs::remove_file(at(ALONE)).expect("removed");
        assert_eq!(before().changed, [at("etc/kubernetes/manifests/etcd.yaml")]);
        let manifest = fs::read_to_string(at("etc/kubernetes/manifests/etcd.yaml")).expect("is there");
        assert!(manifest.contains("--initial-cluster-state=existing"), "{manifest}");
        let manifests = fs::read_dir(at("etc/kubernetes/manifests")).expect("reads").count();
        assert_eq!(manifests, 1, "nothing else lies among the manifests");
        fs::remove_dir_all(at("var/lib/etcd/member")).expect("removed");
        let why = before().withheld.expect("it must not start");
        assert!(why.contains("/var/lib/etcd holds nothing"), "{why}");
        // A directory without anything in it, as a mount that failed leaves it.
        fs::create_dir_all(at("var/lib/etcd/member")).expect("made");
        assert!(before().withheld.is_some());
        fs::write(at("var/lib/etcd/member/wal"), "").expect("written");
        assert!(before().withheld.is_none());
    }

    #[test]
    fn what_is_gone_is_seen_by_the_agent_as_by_the_guard() {
        let root = tempfile::tempdir().expect("a directory");
        let (settings, at) = (Settings::of("site", root.path()), |path: &str| root.path().join(path));
        assert!(!etcd_gone(&settings), "no etcd is to run here");
        fs::create_dir_all(at("etc/kubernetes/manifests")).expect("made");
        fs::create_dir_all(at("var/lib/etcd/member/wal")).expect("made");
        fs::create_dir_all(at("run")).expect("made");
        fs::write(at("etc/kubernetes/manifests/etcd.yaml"), MANIFEST).expect("written");
        assert!(before_kubelet(root.path(), false).withheld.is_none() && !etcd_gone(&settings));
        fs::remove_dir(at("var/lib/etcd/member/wal")).expect("removed");
        assert!(etcd_gone(&settings));
    }

    #[test]
    fn what_cannot_be_read_is_not_guessed_at() {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(root.path().join("etc/kubernetes/manifests/etcd.yaml")).expect("made");
        let why = before_kubelet(root.path(), false).withheld.expect("it must not start");
        assert!(why.contains("etcd.yaml") && why.contains("cannot be known"), "{why}");
    }
}
