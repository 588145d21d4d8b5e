//! Whether a kubelet may start, as far as etcd is concerned: promise S13 where nobody but the kubelet decides.
//!
//! A kubelet starts whatever its manifests say. Where etcd's manifest says `new` and its directory is empty, etcd begins a cluster, be it
//! the second time; where two of three founders do, they are a quorum, and nobody notices (etcd's issue 12227). So before each start of a
//! kubelet one looks: etcd may begin on an empty directory once. What it has begun is in its directory from then on, or etcd does not
//! start here again. And once it is, the manifest says `existing` from the next boot on, with every member that it once named: kubeadm
//! writes its own lone one again (`init phase etcd local`, an upgrade).
//!
//! What was seen is kept in a mark of its own beside kubeadm's files, bound to etcd's CA, so that it ends with the cluster it is of.

mod asking;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use muster_wire::Digest;
use serde::{Deserialize, Serialize};

pub use asking::{ASKED, Asked, Asking, SILENT, Word};

/// Below its directory etcd keeps its log and its snapshots here.
pub(crate) const ETCD_DATA: &str = "member";

/// Longest mark, in bytes.
const MARK_LIMIT: usize = 64 << 10;

/// What a machine holds when its kubelet is about to start.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// etcd's manifest; none if no etcd is to run here.
    pub manifest: Option<&'a str>,
    /// The certificate of etcd's CA.
    pub ca: &'a [u8],
    /// The mark that an earlier start left.
    pub mark: Option<&'a str>,
    /// The names in the kubelet's directory of Pods' logs ([`POD_LOGS`]): it makes one before it starts a Pod.
    pub logs: &'a [String],
    /// Whether a kubelet has been started since the machine booted. etcd may then run, and another manifest would have it started anew:
    /// on all founders at once, when kubeadm restarts their kubelets at the end of init.
    pub started: bool,
}

/// Where a kubelet keeps the logs of Pods.
pub const POD_LOGS: &str = "/var/log/pods";

/// What is to become of the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The kubelet starts. What is here is written first.
    Start {
        /// etcd's manifest, if it must say something else.
        manifest: Option<String>,
        /// The mark, if it must say something else.
        mark: Option<String>,
    },
    /// It must not.
    Withhold {
        /// Why, and what to do.
        why: String,
    },
}

impl Verdict {
    /// Whether the machine's agent is to be asked before the kubelet starts: it would start etcd, if one is to run here, on what it had before the
    /// machine was switched on, or begin it with others that may have been given up since. Not where it was `let_be`: a kubelet was started since,
    /// or a person has said that it is to start although nobody was met.
    pub fn asks_first(&self, etcd: bool, let_be: bool) -> bool {
        etcd && !let_be && matches!(self, Self::Start { .. })
    }
}

/// The kubelet starts, and nothing is written.
const AS_IT_IS: Verdict = Verdict::Start { manifest: None, mark: None };

/// What an earlier start saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// SHA-256 of etcd's CA.
    ca: String,
    /// Whether etcd's data has been here; otherwise a kubelet was let begin it, which may have failed before it did.
    seen: bool,
    /// etcd's data directory.
    data_dir: PathBuf,
    /// The directories of etcd's logs that an earlier life had left when this one's first start was let be.
    #[serde(default)]
    logs: Vec<String>,
    /// The longest list of members that its manifest has had.
    members: Vec<String>,
}

/// One `- --flag=value` of a manifest as kubeadm writes it.
fn argument<'a>(manifest: &'a str, flag: &str) -> Option<&'a str> {
    manifest.lines().find_map(|line| value(line, flag))
}

fn value<'a>(line: &'a str, flag: &str) -> Option<&'a str> {
    line.trim().strip_prefix("- --")?.strip_prefix(flag)?.strip_prefix('=')
}

/// The machine's directory that etcd's container is given, as kubeadm writes it: the last path before the volume's name.
fn volume(manifest: &str) -> Option<PathBuf> {
    let volumes = manifest.lines().skip_while(|line| line.trim() != "volumes:");
    let lines = volumes.map(str::trim).take_while(|line| *line != "name: etcd-data");
    let path = lines.filter_map(|line| line.strip_prefix("path: ")).last()?;
    manifest.contains("name: etcd-data").then(|| path.into())
}

fn members(list: &str) -> Vec<String> {
    list.split(',').filter(|member| !member.is_empty()).map(str::to_owned).collect()
}

impl Found<'_> {
    /// Decides. `holds` says whether a directory holds something; `data_dir` is etcd's where the manifest does not say.
    pub fn verdict(&self, data_dir: &Path, holds: impl Fn(&Path) -> bool) -> Verdict {
        let mark =
            self.mark.filter(|text| text.len() <= MARK_LIMIT).and_then(|text| serde_json::from_str::<Mark>(text).ok());
        let ca = hex::encode(Digest::of("muster/etcd-ca/v1", &[self.ca]).0);
        let mark = mark.filter(|mark| mark.ca == ca);
        let Some(manifest) = self.manifest else { return AS_IT_IS };
        let own = format!("kube-system_etcd-{}_", argument(manifest, "name").unwrap_or_default());
        let logs: Vec<String> = self.logs.iter().filter(|name| name.starts_with(&own)).cloned().collect();
        let said = argument(manifest, "data-dir").map(PathBuf::from);
        let data_dir =
            said.or_else(|| mark.as_ref().map(|mark| mark.data_dir.clone())).unwrap_or_else(|| data_dir.into());
        // etcd's container has its directory from elsewhere: what lies at this one says nothing.
        if volume(manifest).is_some_and(|path| path != data_dir) {
            return AS_IT_IS;
        }
        let exists = argument(manifest, "initial-cluster-state") == Some("existing");
        let listed = members(argument(manifest, "initial-cluster").unwrap_or_default());
        if !holds(&data_dir.join(ETCD_DATA)) {
            let begun = match &mark {
                Some(mark) => mark.seen || logs.iter().any(|name| !mark.logs.contains(name)),
                None => exists && !logs.is_empty(),
            };
            if !begun {
                let logs = mark.map_or(logs, |mark| mark.logs);
                let mark = self.marked(Mark { ca, seen: false, data_dir, logs, members: listed });
                return Verdict::Start { manifest: None, mark };
            }
            let why = format!(
                "etcd has run on this machine, and {} holds nothing of it. Started on nothing it would break its word to the \
                 other members, or begin an empty cluster with others like it: the kubelet does not start. Put the directory back, \
                 or wipe the machine's disk, muster's own state (/var/lib/muster) included: it returns as a new member while a \
                 majority of the others lives",
                data_dir.display()
            );
            return Verdict::Withhold { why };
        }
        let known = mark.map(|mark| mark.members).unwrap_or_default();
        let lone =
            listed.iter().collect::<BTreeSet<_>>().is_subset(&known.iter().collect()) && listed.len() < known.len();
        let members = if lone { known } else { listed };
        let text = Some(existing(manifest, &members)).filter(|text| text != manifest);
        Verdict::Start {
            manifest: text.filter(|_| !self.started),
            mark: self.marked(Mark { ca, seen: true, data_dir, logs: Vec::new(), members }),
        }
    }

    /// The mark's text, if it is another one.
    fn marked(&self, mark: Mark) -> Option<String> {
        let text = serde_json::to_string(&mark).expect("strings are always JSON");
        Some(text).filter(|text| self.mark != Some(text))
    }
}

/// The manifest with these members and the word that they exist. One that kubeadm did not write stays as it is.
fn existing(manifest: &str, members: &[String]) -> String {
    const LIST: &str = "initial-cluster";
    const STATE: &str = "initial-cluster-state";
    if argument(manifest, LIST).is_none() || members.is_empty() {
        return manifest.to_owned();
    }
    let mut text = String::with_capacity(manifest.len() + 64);
    for line in manifest.split_inclusive('\n') {
        if value(line, STATE).is_some() {
            continue;
        }
        match value(line, LIST) {
            Some(_) => {
                let indent = &line[..line.len() - line.trim_start().len()];
                text.push_str(&format!("{indent}- --{LIST}={}\n{indent}- --{STATE}=existing\n", members.join(",")));
            }
            None => text.push_str(line),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOGS: &str = "kube-system_etcd-m1_0123";
    const LONE: &str = "apiVersion: v1
kind: Pod
spec:
  containers:
  - command:
    - etcd
    - --data-dir=/var/lib/etcd
    - --initial-cluster=m1=https://10.0.0.1:2380
    - --name=m1
    image: registry.k8s.io/etcd:3.7.3-0
";

    fn together() -> String {
        let list =
            "--initial-cluster=m1=https://10.0.0.1:2380,m2=https://10.0.0.2:2380\n    - --initial-cluster-token=c-1";
        LONE.replace("--initial-cluster=m1=https://10.0.0.1:2380", list)
    }

    /// Decides as often as a kubelet starts, and keeps what is to be kept.
    struct Disk {
        manifest: Option<String>,
        mark: Option<String>,
        ca: &'static [u8],
        data: bool,
        logs: Vec<String>,
        started: bool,
    }

    impl Disk {
        fn new(manifest: &str) -> Self {
            Self {
                manifest: Some(manifest.to_owned()),
                mark: None,
                ca: b"CA",
                data: false,
                logs: vec![LOGS.to_owned()],
                started: false,
            }
        }

        fn starts(&mut self) -> bool {
            let found = Found {
                manifest: self.manifest.as_deref(),
                ca: self.ca,
                mark: self.mark.as_deref(),
                logs: &self.logs,
                started: self.started,
            };
            let data = self.data;
            match found.verdict(Path::new("/elsewhere"), |path| {
                assert_eq!(path, Path::new("/var/lib/etcd/member"));
                data
            }) {
                Verdict::Start { manifest, mark } => {
                    self.manifest = manifest.or(self.manifest.take());
                    self.mark = mark.or(self.mark.take());
                    true
                }
                Verdict::Withhold { why } => {
                    assert!(why.contains("/var/lib/etcd"), "{why}");
                    false
                }
            }
        }

        fn says(&self) -> &str {
            self.manifest.as_deref().unwrap_or_default()
        }
    }

    #[test]
    fn etcd_begins_once_and_exists_from_then_on() {
        for manifest in [LONE.to_owned(), together()] {
            let mut disk = Disk::new(&manifest);
            assert!(disk.starts());
            assert_eq!(disk.says(), manifest, "what begins says so");
            disk.data = true;
            assert!(disk.starts());
            assert!(disk.says().contains("\n    - --initial-cluster-state=existing\n"), "{}", disk.says());
            let before = (disk.manifest.clone(), disk.mark.clone());
            assert!(disk.starts());
            assert_eq!((disk.manifest.clone(), disk.mark.clone()), before, "nothing more changes");
            disk.data = false;
            assert!(!disk.starts());
            disk.data = true;
            assert!(disk.starts(), "it was put back");
        }
    }

    #[test]
    fn what_may_have_begun_and_never_came_to_its_disk_does_not_begin_again() {
        let mut disk = Disk::new(&together());
        disk.logs =
            vec!["kube-system_etcd-m1_of-an-earlier-life".to_owned(), "kube-system_etcd-backup-m1_0".to_owned()];
        assert!(disk.starts() && disk.starts(), "a kubelet that died before it came to etcd");
        disk.logs.push(LOGS.to_owned());
        assert!(!disk.starts());
        disk.data = true;
        assert!(disk.starts());
        (disk.data, disk.logs) = (false, Vec::new());
        assert!(!disk.starts(), "somebody emptied the logs as well");
    }

    #[test]
    fn etcd_that_runs_is_not_restarted_for_a_word() {
        let mut disk = Disk { data: true, started: true, ..Disk::new(&together()) };
        assert!(disk.starts());
        assert_eq!(disk.says(), together());
        disk.started = false;
        assert!(disk.starts() && disk.says().contains("existing"), "the machine has booted since");
        (disk.data, disk.started) = (false, true);
        assert!(!disk.starts());
    }

    #[test]
    fn a_member_that_came_later_never_starts_on_nothing() {
        let mut disk = Disk::new(&together().replace("-token=c-1", "-state=existing"));
        assert!(!disk.starts(), "kubeadm starts a joining machine's kubelet before it writes this");
        disk.data = true;
        assert!(disk.starts());
    }

    #[test]
    fn the_lone_manifest_is_mended_and_a_longer_one_kept() {
        let mut disk = Disk { data: true, ..Disk::new(&together()) };
        assert!(disk.starts());
        let whole = disk.manifest.replace(LONE.to_owned());
        assert!(disk.starts());
        assert_eq!(
            argument(disk.says(), "initial-cluster"),
            argument(whole.as_deref().unwrap_or_default(), "initial-cluster")
        );
        assert_eq!(argument(disk.says(), "initial-cluster-state"), Some("existing"));
        disk.manifest = Some(together().replace("10.0.0.2:2380", "10.0.0.2:2380,m3=https://10.0.0.3:2380"));
        assert!(disk.starts() && disk.says().contains(",m3="));
        disk.manifest = Some(LONE.replace("m1=https://10.0.0.1", "m1=https://10.0.0.9"));
        assert!(
            disk.starts() && disk.says().contains("10.0.0.9") && !disk.says().contains("m3"),
            "another address is news"
        );
    }

    #[test]
    fn a_mark_ends_with_its_cluster() {
        let mut disk = Disk { logs: Vec::new(), ..Disk::new(LONE) };
        assert!(disk.starts());
        disk.ca = b"another CA, after a reset";
        assert!(disk.starts(), "another cluster begins");
        disk.logs.push("kube-system_etcd-m1_4567".to_owned());
        assert!(!disk.starts());
        // As people take etcd out of service for a while.
        let manifest = disk.manifest.take();
        assert!(disk.starts());
        disk.manifest = manifest;
        assert!(!disk.starts());
    }

    #[test]
    fn etcd_that_is_given_its_directory_from_elsewhere_is_left_alone() {
        let mounted = |path: &str| {
            format!(
                "{LONE}    livenessProbe:\n      httpGet:\n        path: /livez\n  volumes:\n  - hostPath:\n      path: {path}\n    name: etcd-data\n"
            )
        };
        let mut disk = Disk { data: true, ..Disk::new(&mounted("/var/lib/etcd")) };
        assert!(disk.starts() && disk.mark.is_some());
        disk.data = false;
        assert!(!disk.starts());
        let mut disk = Disk { manifest: Some(mounted("/data/etcd")), mark: None, data: false, ..disk };
        assert!(disk.starts() && disk.starts() && disk.mark.is_none());
    }

    #[test]
    fn what_kubeadm_did_not_write_is_left_as_it_is_and_guarded_all_the_same() {
        let text = "{\"kind\": \"Pod\"}\n";
        let found = |mark| Found { manifest: Some(text), ca: b"CA", mark, logs: &[], started: false };
        let Verdict::Start { manifest: None, mark: Some(mark) } = found(None).verdict(Path::new("/e"), |_| true) else {
            panic!("it starts")
        };
        assert!(matches!(found(Some(&mark)).verdict(Path::new("/e"), |_| false), Verdict::Withhold { .. }));
        assert!(
            matches!(found(Some("{")).verdict(Path::new("/e"), |_| true), Verdict::Start { .. }),
            "a broken mark is made anew"
        );
    }

    proptest! {
        #[test]
        fn never_panics_and_never_loses_a_line(text in "[ -~\n]{0,300}", mark in "[ -~]{0,80}", data: bool) {
            let text = format!("{LONE}{text}");
            let found = Found { manifest: Some(&text), ca: b"CA", mark: Some(&mark), logs: &[], started: false };
            if let Verdict::Start { manifest: Some(after), .. } = found.verdict(Path::new("/e"), |_| data) {
                let other = |line: &&str| value(line, "initial-cluster").is_none() && value(line, "initial-cluster-state").is_none();
                prop_assert!(text.lines().filter(other).eq(after.lines().filter(other)));
            }
        }
    }
}
