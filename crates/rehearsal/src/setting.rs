//! What the double is told by its environment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::{Failure, fail};

/// Where the double keeps its files and how it behaves. Everything comes from variables named `MUSTER_REHEARSAL_...`:
///
/// - `DIR`, `KUBELET_DIR`: in the place of `/etc/kubernetes` and `/var/lib/kubelet`. Without them it does nothing, so
///   that a machine's own files are safe from it.
/// - `HOSTS`: a hosts file that is asked before the system's resolver.
/// - `VERSION`: the version it pretends to be, `v1.31.4` by default.
/// - `PACE`: 0 takes no time, 1 about as long as the real one; 0 by default.
/// - `FAULT`: what it does wrong, see [`Fault`].
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) dir: PathBuf,
    pub(crate) kubelet_dir: PathBuf,
    pub(crate) hosts: Option<PathBuf>,
    pub(crate) version: Version,
    pub(crate) pace: f64,
    pub(crate) faults: Vec<Told>,
}

/// The version the double pretends to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) minor: u32,
    pub(crate) text: String,
}

/// A fault at a phase. A fault whose name ends in `-once` happens the first time only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) fault: Fault,
    pub(crate) once: bool,
    pub(crate) phase: String,
}

/// What goes wrong at a phase, `hang:certs,fail:join/kubelet-start`. A phase is named as kubeadm names it, with or
/// without `init/` or `join/`; `version`, `images-pull`, `token-create`, `token-delete` and `reset` count as phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It never ends.
    Hang,
    /// It fails.
    Fail,
    /// It reports success and does nothing.
    Lie,
    /// It prints nonsense and fails.
    Nonsense,
    /// It does its work, and is killed before it can say so.
    Die,
}

impl Setting {
    /// Reads the variables; `version` alone touches no file and needs no directory.
    pub(crate) fn from_environment(touches_files: bool) -> Result<Self, Failure> {
        let var = |name: &str| std::env::var(format!("MUSTER_REHEARSAL_{name}")).ok().filter(|value| !value.is_empty());
        let needed = |name: &str| {
            let unset = || fail(format!("MUSTER_REHEARSAL_{name} is not set: without it this double touches nothing"));
            let nowhere = || (!touches_files).then(|| "/nowhere".to_owned());
            var(name).or_else(nowhere).map(PathBuf::from).ok_or_else(unset)
        };
        let pace = var("PACE").unwrap_or_else(|| "0".into());
        let pace: f64 = pace
            .parse()
            .ok()
            .filter(|pace| (0.0..=100.0).contains(pace))
            .ok_or_else(|| fail(format!("MUSTER_REHEARSAL_PACE={pace:?} is not a number from 0 to 100")))?;
        let mut version = Version::parse(&var("VERSION").unwrap_or_else(|| "v1.31.4".into()))?;
        let mut faults = Vec::new();
        for word in var("FAULT").unwrap_or_default().split(',').filter(|word| !word.is_empty()) {
            match word.split_once(':') {
                None if word == "too-old" => version = Version::parse("v1.19.16")?,
                Some((name, phase)) => {
                    let (kind, once) = name.strip_suffix("-once").map_or((name, false), |kind| (kind, true));
                    faults.push(Told { fault: Fault::parse(kind)?, once, phase: phase.to_owned() });
                }
                None => return Err(fail(format!("MUSTER_REHEARSAL_FAULT: {word:?} is not FAULT:PHASE"))),
            }
        }
        let dir = needed("DIR")?;
        Ok(Self {
            dir,
            kubelet_dir: needed("KUBELET_DIR")?,
            hosts: var("HOSTS").map(PathBuf::from),
            version,
            pace,
            faults,
        })
    }

    /// Waits as long as the real thing would take, at this pace.
    pub(crate) fn take(&self, seconds: f64) {
        std::thread::sleep(Duration::from_secs_f64(seconds * self.pace));
    }

    /// The fault told for this phase, if any; `workflow` is `init`, `join` or empty.
    pub(crate) fn fault(&self, workflow: &str, phase: &str) -> Option<&Told> {
        let full = format!("{workflow}/{phase}");
        self.faults.iter().find(|told| told.phase == phase || told.phase == full)
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.dir.join("manifests")
    }

    pub(crate) fn admin_conf(&self) -> PathBuf {
        self.dir.join("admin.conf")
    }

    pub(crate) fn kubelet_conf(&self) -> PathBuf {
        self.dir.join("kubelet.conf")
    }

    /// The API server that runs for this machine: its process id.
    pub(crate) fn pid_file(&self) -> PathBuf {
        self.dir.join("rehearsal-apiserver.pid")
    }

    /// As kubeadm's preflight names a path: `/etc/kubernetes/pki/ca.crt` is `--etc-kubernetes-pki-ca.crt`.
    pub(crate) fn check_name(&self, path: &Path) -> String {
        let real = |base: &str, rest: &Path| Path::new(base).join(rest);
        let path = match (path.strip_prefix(&self.dir), path.strip_prefix(&self.kubelet_dir)) {
            (Ok(rest), _) => real("/etc/kubernetes", rest),
            (_, Ok(rest)) => real("/var/lib/kubelet", rest),
            _ => path.to_owned(),
        };
        path.display().to_string().replace('/', "-")
    }
}

impl Version {
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let mut parts = text.strip_prefix("v1.").unwrap_or_default().splitn(2, '.');
        let minor = parts.next().and_then(|minor| minor.parse().ok()).filter(|_| parts.next().is_some());
        let malformed = || fail(format!("version {text:?} doesn't match expected patterns"));
        Ok(Self { minor: minor.ok_or_else(malformed)?, text: text.to_owned() })
    }
}

impl Fault {
    fn parse(name: &str) -> Result<Self, Failure> {
        Ok(match name {
            "hang" => Self::Hang,
            "fail" => Self::Fail,
            "lie" => Self::Lie,
            "nonsense" => Self::Nonsense,
            "die" => Self::Die,
            _ => return Err(fail(format!("MUSTER_REHEARSAL_FAULT: there is no fault {name:?}"))),
        })
    }
}
