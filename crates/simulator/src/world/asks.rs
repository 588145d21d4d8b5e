//! What a machine answers to the asks of a step. The step itself is muster's own code, as on a real machine; only the machine is
//! a model.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use muster_kubeadm::work::{Answer, Ask, Ran};
use muster_kubeadm::{Command, Exit, ManifestFile, Manifests, Place, Secret, Settings};
use muster_protocol::{Step, StepOutput};
use muster_wire::MachineId;
use muster_wire::seal::SealingKey;
use xxhash_rust::xxh3::xxh3_64;

use super::World;
use super::event::Slot;
use super::kubeadm::SealedTo;
use crate::scenario::Sort;
use crate::truth::legible;
use crate::watch::Seen;

pub(super) const API_PORT: u16 = 6443;

/// How the files of single tokens begin.
const TOKEN_FILE: &str = "/run/muster/kubeadm/token-";

/// Every machine of the simulator knows a DNS server.
const RESOLV_CONF: (&str, &str) = ("/etc/resolv.conf", "nameserver 10.255.255.53\n");

/// What a clock shows that was set: 2027.
const SET: Duration = Duration::from_secs(1_800_000_000);

/// What becomes of an ask.
pub(super) enum Reply {
    Now(Answer),
    /// kubeadm goes on asking for an API server.
    NotYet,
    /// The step is not let come to its end.
    CutShort,
}

impl World {
    /// Carries an ask out. `ran_for` is how long its process has run.
    pub(super) fn reply(&mut self, slot: Slot, ask: &Ask, ran_for: Duration) -> Reply {
        let changes = matches!(
            ask,
            Ask::Write { .. } | Ask::Remove(_) | Ask::Empty(_) | Ask::Run(_) | Ask::Send(_) | Ask::BackUp { .. }
        );
        if changes && !self.goes_on() {
            return Reply::CutShort;
        }
        Reply::Now(match ask {
            Ask::Run(command) => return self.run_kubeadm(slot, command, ran_for),
            Ask::Write { path, mode, contents } => {
                if legible::secret(contents.expose()) && mode & 0o077 != 0 {
                    self.see(Seen::Exposed { slot, place: &path.display().to_string() });
                }
                let files = &mut self.hosts[slot as usize].kube.files;
                files.insert(path.display().to_string(), contents.expose().to_vec());
                Answer::Did(Ok(()))
            }
            Ask::Remove(path) => {
                self.hosts[slot as usize].kube.files.remove(&path.display().to_string());
                Answer::Did(Ok(()))
            }
            Ask::Empty(directory) => {
                self.hosts[slot as usize].kube.files.retain(|name, _| !Path::new(name).starts_with(directory));
                Answer::Did(Ok(()))
            }
            Ask::Exists(path) => Answer::Exists(self.below(slot, path).next().is_some()),
            Ask::Read(path) if path == Path::new(RESOLV_CONF.0) => Answer::Read(Ok(Some(Secret::new(RESOLV_CONF.1)))),
            Ask::Read(path) => {
                let bytes = self.hosts[slot as usize].kube.files.get(&path.display().to_string());
                Answer::Read(Ok(bytes.map(|bytes| Secret::new(bytes.as_slice()))))
            }
            Ask::List(directory) => {
                let depth = directory.components().count() + 1;
                let names = self.below(slot, directory).map(|path| path.components().take(depth).collect());
                let mut names: Vec<PathBuf> = names.collect();
                names.dedup();
                Answer::Listed(Ok(names))
            }
            Ask::ListBelow(directory) => Answer::Listed(Ok(self.below(slot, directory).map(PathBuf::from).collect())),
            Ask::Send(request) => Answer::Heard(self.hear(slot, request)),
            Ask::BackUp { label, .. } => Answer::BackedUp(Ok(self.take_backup(slot, label.number))),
            Ask::Clock => {
                let shows = if self.clock_unset(slot) { Duration::ZERO } else { SET };
                Answer::Clock(SystemTime::UNIX_EPOCH + shows)
            }
            Ask::Servers => {
                let servers = self.hosts[slot as usize].api_servers.iter();
                Answer::Servers(servers.filter_map(|server| server.rsplit_once(':')?.0.parse().ok()).collect())
            }
            Ask::Keep(plan) => {
                self.hosts[slot as usize].plan = Some(plan.clone());
                Answer::Did(Ok(()))
            }
            // Names mean what they should, and a pause has passed when it is answered.
            Ask::Endpoint(_) | Ask::Pause(_) | Ask::CutOff(_) | Ask::Sync(_) => Answer::Did(Ok(())),
        })
    }

    /// A machine's files at or below a path.
    pub(super) fn below(&self, slot: Slot, path: &Path) -> impl Iterator<Item = &Path> {
        let files = self.hosts[slot as usize].kube.files.keys();
        files.map(Path::new).filter(move |file| file.starts_with(path))
    }

    fn run_kubeadm(&mut self, slot: Slot, command: &Command, ran_for: Duration) -> Reply {
        if command.args.iter().any(|arg| legible::secret(arg.as_bytes())) {
            self.see(Seen::Exposed { slot, place: "the arguments of kubeadm" });
        }
        if command.env.iter().any(|(_, value)| legible::secret(value.as_bytes())) {
            self.see(Seen::Exposed { slot, place: "the environment of kubeadm" });
        }
        let ran = |exit, stdout: String, stderr: String| {
            Reply::Now(Answer::Ran(Ran { exit, stdout: stdout.into(), stderr: stderr.into(), note: None }))
        };
        match self.kubeadm(slot, command) {
            Some(ended) => ran(ended.exit, ended.stdout, ended.stderr),
            None if self.cut == Some(0) => Reply::CutShort,
            None if ran_for >= command.limit => ran(Exit::TimedOut, String::new(), String::new()),
            None => Reply::NotYet,
        }
    }

    /// Whether its wall clock shows 1970.
    fn clock_unset(&mut self, slot: Slot) -> bool {
        let unset = |active: &super::faults::Active| {
            self.plan[active.index].kind == Sort::ClockUnset && active.targets.contains(&slot)
        };
        let unset = self.active.iter().any(unset);
        if unset {
            self.took_on(slot, &[Sort::ClockUnset]);
        }
        unset
    }

    /// What a step has made, seen by the world when it ends well.
    pub(super) fn made(&mut self, slot: Slot, step: &Step, output: &StepOutput, wrote: &[String]) {
        match (step, output) {
            (Step::InitCluster { attempt, .. }, _) => {
                self.hosts[slot as usize].kube.dirty = false;
                self.see(Seen::Initialised { slot, attempt: *attempt });
            }
            // A kubelet that ends for want of a certificate is started anew and anew.
            (Step::RenewKubelet { .. }, _) => self.kubelet_starts_anew(slot),
            (Step::Found { .. }, _) => self.hosts[slot as usize].kube.dirty = false,
            (Step::MakePki { recipients, .. }, StepOutput::PkiMade { sealed, .. }) => {
                for (recipient, sealed) in recipients.iter().zip(sealed) {
                    self.sealed(slot, "pki", (recipient.machine, recipient.sealing_key), &sealed.ciphertext);
                }
            }
            (Step::SealPki { recipient, .. }, StepOutput::PkiMade { sealed, .. }) => {
                for sealed in sealed {
                    self.sealed(slot, "pki", (recipient.machine, recipient.sealing_key), &sealed.ciphertext);
                }
            }
            (Step::IssueTicket { attempt, recipient, .. }, StepOutput::Ticket { ciphertext }) => {
                let purpose = format!("ticket/{attempt}");
                self.sealed(slot, &purpose, (recipient.machine, recipient.sealing_key), ciphertext);
                self.nothing_left(slot, |path| wrote.iter().any(|wrote| wrote == path));
            }
            // Tokens that the leader makes for others are another work, which may still go on.
            (Step::AwaitReady { .. }, _) => {
                self.nothing_left(slot, |path| path.starts_with("/run/") && !path.starts_with(TOKEN_FILE));
            }
            (Step::Reset { .. }, _) => self.nothing_left(slot, |path| !path.starts_with(TOKEN_FILE)),
            _ => {}
        }
    }

    /// Whom a ciphertext is for is seen by opening it, as long as the machine is there that can.
    fn sealed(&mut self, slot: Slot, purpose: &str, (machine, key): (MachineId, [u8; 32]), ciphertext: &[u8]) {
        let holder = self.directory.get(&machine).map(|slot| &self.hosts[*slot as usize]);
        let own = holder.filter(|host| host.me == machine).map(|host| SealingKey::from_seed(&host.sealing_seed));
        let opened = own.as_ref().map(|own| own.open(purpose, machine, ciphertext).is_ok());
        if opened == Some(false) {
            self.see(Seen::Exposed { slot, place: "what its recipient cannot open" });
        }
        self.see(Seen::Sealed { hash: xxh3_64(ciphertext), to: SealedTo { machine, key } });
    }

    /// Work is done: whoever reads these files must find no secret of it.
    fn nothing_left(&mut self, slot: Slot, of: impl Fn(&str) -> bool) {
        let files = self.hosts[slot as usize].kube.files.iter().filter(|(path, _)| of(path));
        let left: Vec<String> =
            files.filter(|(_, contents)| legible::secret(contents)).map(|(path, _)| path.clone()).collect();
        for path in left {
            let place = format!("{path}, which nothing needs any more");
            self.see(Seen::Exposed { slot, place: &place });
        }
    }

    /// The machine that its steps are taken on.
    pub(super) fn place(&self, slot: Slot) -> Place {
        let host = &self.hosts[slot as usize];
        Place {
            me: host.me,
            key: SealingKey::from_seed(&host.sealing_seed),
            settings: settings(),
            manifests: self.manifests.clone(),
        }
    }
}

/// An image's manifests: so many ConfigMaps, whose names hold their numbers.
pub(super) fn manifests(count: u32) -> Manifests {
    let object = |number| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m-{number}}}\n");
    let text = (0..count).map(object).collect::<Vec<_>>().join("---\n");
    let file = ManifestFile { name: "manifests.yaml".to_owned(), contents: Secret::new(text) };
    // A file without any object would be a mistake.
    let files: Vec<_> = Some(file).filter(|_| count > 0).into_iter().collect();
    Manifests::read(&files).expect("ConfigMaps with names of their own")
}

/// muster.toml's part about kubeadm.
fn settings() -> Settings {
    Settings {
        endpoint: "api.site.muster:7443".to_owned(),
        api_port: API_PORT,
        ..Settings::of(super::CLUSTER, Path::new("/"))
    }
}
