//! A model of kubeadm's process: its command line and documents in, files, the cluster's state and its own words out.
//!
//! It is strict where the real one is: a phase needs what earlier ones made, a document must be there and of the right kind,
//! a join needs a CA that it believes and a token that the cluster knows.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_kubeadm::{Command, Exit};
use muster_protocol::Renewal;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::World;
use super::etcd::ETCD_MANIFEST;
use super::event::{Event, Slot};
use super::http::kubeconfig;
use super::kubeadm::{Cluster, Kube, NODE_GRACE, NodeObject, REGISTERS};
use crate::watch::Seen;

/// A finished run.
pub(super) struct Ran {
    pub(super) exit: Exit,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Ran {
    fn printing(stdout: String) -> Self {
        Self { exit: Exit::Code(0), stdout, stderr: String::new() }
    }

    fn fine() -> Self {
        Self::printing(String::new())
    }

    fn failing(phase: &str, words: &str) -> Self {
        let stderr = format!("error execution phase {phase}: {words}\n");
        Self { exit: Exit::Code(1), stdout: String::new(), stderr }
    }
}

/// How a run ends: well, with words, not yet since no API server answers, or in the midst of its work.
pub(super) enum End {
    Failed(&'static str, String),
    NoApi,
    CutShort,
}

type Done = Result<(), End>;

fn failed<T>(phase: &'static str, words: impl Into<String>) -> Result<T, End> {
    Err(End::Failed(phase, words.into()))
}

const DIR: &str = "/etc/kubernetes";
pub(super) const KUBELET: &str = "/var/lib/kubelet/config.yaml";
const KUBELETS: &str = "kubelet.conf";
/// The certificate that a kubelet renews.
const KUBELETS_OWN: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";
/// With these a machine may ask etcd.
const ETCD_IDENTITY: [&str; 2] = ["pki/etcd/healthcheck-client.crt", "pki/etcd/healthcheck-client.key"];
pub(super) const API_MANIFEST: &str = "manifests/kube-apiserver.yaml";
/// The kubeadm of a run: those whose service accounts' key needs no RSA, which takes long to make.
const VERSIONS: [&str; 4] = ["v1.31.4", "v1.33.1", "v1.35.0", "v1.36.1"];
/// The phases of a join, in order.
const JOIN: [&str; 8] = [
    "preflight",
    "control-plane-prepare",
    "check-etcd",
    "kubelet-start",
    "etcd-join",
    "kubelet-wait-bootstrap",
    "control-plane-join",
    "wait-control-plane",
];

pub(super) fn at(name: &str) -> String {
    format!("{DIR}/{name}")
}

fn document(docs: &[Value], kind: &'static str) -> Result<Value, End> {
    let found = docs.iter().find(|doc| doc["kind"] == kind).cloned();
    found.map_or_else(|| failed("config", format!("invalid configuration: no kind \"{kind}\"")), Ok)
}

impl World {
    /// Runs kubeadm. Nothing if it goes on asking for an API server, or does not come to its end.
    pub(super) fn kubeadm(&mut self, slot: Slot, command: &Command) -> Option<Ran> {
        let args: Vec<&str> = command.args.iter().map(String::as_str).collect();
        let words: Vec<&str> = args.iter().copied().take_while(|arg| !arg.starts_with("--")).collect();
        let done = match words.as_slice() {
            ["version", ..] => {
                let said = VERSIONS[self.chance.fixed("kubeadm", 0, 0) as usize % VERSIONS.len()];
                return Some(Ran::printing(format!("{{\"clientVersion\": {{\"gitVersion\": \"{said}\"}}}}")));
            }
            ["config", "images", "pull"] => self.documents(slot, &args).map(|_| ()),
            ["init", "phase", phase @ ..] => self.init_phase(slot, phase, &args),
            ["join", "phase", phase @ ..] => {
                let ran = phase.first().copied().into_iter().collect();
                self.join_phases(slot, &args, &ran, phase.get(1).copied())
            }
            ["join"] => self.join_skipping(slot, &args),
            ["salvage"] => self.salvage(slot, &args),
            ["try-restart", "kubelet.service"] => self.kubelet_restarts(slot),
            ["certs", "renew", "all"] => self.renew_certificates(slot, &args),
            ["token", "create"] => self.create_token(slot, &args),
            ["token", "delete", id] => self.delete_token(slot, id),
            ["reset"] => self.reset(slot, args.contains(&"--skip-phases=remove-etcd-member")),
            _ => failed("kubeadm", format!("unknown command {words:?}")),
        };
        match done {
            Ok(()) => Some(Ran::fine()),
            Err(End::NoApi | End::CutShort) => None,
            Err(End::Failed(phase, words)) => Some(Ran::failing(phase, &words)),
        }
    }

    /// One more part of a run begins, unless it is cut short here.
    fn part(&mut self) -> Done {
        if self.goes_on() { Ok(()) } else { Err(End::CutShort) }
    }

    fn kube(&mut self, slot: Slot) -> &mut Kube {
        &mut self.hosts[slot as usize].kube
    }

    pub(super) fn has(&self, slot: Slot, path: &str) -> bool {
        self.hosts[slot as usize].kube.files.contains_key(path)
    }

    fn make(&mut self, slot: Slot, path: &str) {
        self.kube(slot).files.insert(path.to_owned(), b"made by kubeadm".to_vec());
    }

    /// A kubeconfig for the cluster whose CA this is.
    fn make_kubeconfig(&mut self, slot: Slot, name: &str, ca: &str) {
        self.kube(slot).files.insert(at(name), kubeconfig(ca));
    }

    fn needs(&self, slot: Slot, phase: &'static str, paths: &[&str]) -> Done {
        match paths.iter().find(|path| !self.has(slot, &at(path))) {
            Some(missing) => failed(phase, format!("open {}: no such file or directory", at(missing))),
            None => Ok(()),
        }
    }

    fn documents(&self, slot: Slot, args: &[&str]) -> Result<Vec<Value>, End> {
        let path = args.iter().position(|arg| *arg == "--config").and_then(|place| args.get(place + 1));
        let Some(bytes) = path.and_then(|path| self.hosts[slot as usize].kube.files.get(*path)) else {
            return failed("config", "invalid configuration: open --config: no such file or directory");
        };
        let text = String::from_utf8_lossy(bytes);
        let parsed = text.split("---\n").map(serde_json::from_str).collect::<Result<Vec<Value>, _>>();
        parsed.or_else(|why| failed("config", format!("error unmarshaling: {why}")))
    }

    fn init_phase(&mut self, slot: Slot, phase: &[&str], args: &[&str]) -> Done {
        let docs = self.documents(slot, args)?;
        let init = document(&docs, "InitConfiguration")?;
        let configuration = document(&docs, "ClusterConfiguration")?;
        if let Some(name) = init["nodeRegistration"]["name"].as_str() {
            name.clone_into(&mut self.kube(slot).name);
        }
        match phase.first().copied().unwrap_or_default() {
            "preflight" => self.preflight(slot, args)?,
            "certs" => {
                self.needs(slot, "certs", &["pki/ca.key", "pki/etcd/ca.crt", "pki/front-proxy-ca.crt", "pki/sa.key"])?;
                self.needs(slot, "certs", &["pki/ca.crt", "pki/etcd/ca.key", "pki/front-proxy-ca.key", "pki/sa.pub"])?;
                for name in ETCD_IDENTITY.into_iter().chain(["pki/apiserver.crt"]) {
                    self.make(slot, &at(name));
                }
            }
            "kubeconfig" => {
                self.needs(slot, "kubeconfig", &["pki/ca.crt", "pki/ca.key"])?;
                let made: &[&str] =
                    if phase == ["kubeconfig", "kubelet"] { &[KUBELETS] } else { &["admin.conf", KUBELETS] };
                let ca = self.file(slot, "pki/ca.crt");
                for name in made {
                    self.make_kubeconfig(slot, name, &ca);
                    self.part()?;
                }
            }
            "etcd" => {
                self.needs(slot, "etcd", &["pki/etcd/ca.crt", "pki/apiserver.crt"])?;
                match self.founding(&configuration).and_then(|founding| serde_json::to_vec(&founding).ok()) {
                    Some(founding) => drop(self.kube(slot).files.insert(at(ETCD_MANIFEST), founding)),
                    None => self.make(slot, &at(ETCD_MANIFEST)),
                }
                self.etcd_starts(slot);
            }
            "control-plane" => {
                self.needs(slot, "control-plane", &["pki/apiserver.crt"])?;
                self.make(slot, &at("manifests/kube-apiserver.yaml"));
            }
            "kubelet-start" => {
                // A CA without its key is an external one to init, which has signed all that there is to sign.
                self.needs(slot, "kubelet-start", &["kubelet.conf", "pki/ca.key"])?;
                self.make(slot, KUBELET);
                self.kubelet_starts(slot);
                self.kubelet_starts_anew(slot);
            }
            "bootstrap-token" => {
                let cluster = self.own_cluster(slot)?;
                let tokens = init["bootstrapTokens"].as_array().into_iter().flatten();
                let tokens = tokens.filter_map(|token| token["token"].as_str().map(str::to_owned));
                self.site.clusters[cluster].tokens.extend(tokens);
                self.part()?;
                self.tokens_end(slot, &init);
                self.site.clusters[cluster].announced = true;
            }
            // What is in there every later member is given.
            "upload-config" if self.founding(&configuration).is_some() => {
                self.see(Seen::EtcdListUploaded { slot });
            }
            "upload-config" | "mark-control-plane" | "kubelet-finalize" | "addon" => drop(self.own_cluster(slot)?),
            other => return failed("kubeadm", format!("unknown phase {other:?}")),
        }
        Ok(())
    }

    /// kubeadm takes a lifetime of nothing for one without an end.
    fn tokens_end(&mut self, slot: Slot, init: &Value) {
        let ends = |token: &Value| token["ttl"].as_str().is_some_and(|ttl| ttl.contains(|c| ('1'..='9').contains(&c)));
        if !init["bootstrapTokens"].as_array().into_iter().flatten().all(ends) {
            self.see(Seen::Exposed { slot, place: "a token that never ends" });
        }
    }

    /// What the kubelet has is its own affair.
    fn renew_certificates(&mut self, slot: Slot, args: &[&str]) -> Done {
        document(&self.documents(slot, args)?, "ClusterConfiguration")?;
        self.needs(slot, "certs", &["pki/ca.crt", "pki/ca.key", "pki/etcd/ca.key", "pki/front-proxy-ca.key"])?;
        let kube = self.kube(slot);
        if kube.renewal == Renewal::Due {
            kube.renewal = Renewal::NotYet;
        }
        Ok(())
    }

    /// `muster salvage`: etcd of this machine alone goes on, as another cluster, and whoever asks an API server asks its. The others' members go
    /// on as what they were, if they are ever started again.
    fn salvage(&mut self, slot: Slot, args: &[&str]) -> Done {
        let Some(token) = args.iter().find_map(|arg| arg.strip_prefix("--token=")) else {
            return failed("salvage", "the following required arguments were not provided: --token");
        };
        let Some(old) = self.hosts[slot as usize].kube.cluster else {
            return failed("salvage", "no etcd runs here");
        };
        if self.site.clusters[old].token.as_deref() == Some(token) {
            return Ok(());
        }
        let (number, mut cluster) = (self.site.clusters.len(), self.site.clusters[old].clone());
        cluster.token = Some(token.to_owned());
        let others: BTreeSet<Slot> = cluster.etcd.iter().copied().filter(|other| *other != slot).collect();
        (cluster.etcd, cluster.begun) = ([slot].into(), [slot].into());
        cluster.learners.clear();
        cluster.members.retain(|member| !others.contains(member));
        if let Some(backup) = args.iter().find_map(|arg| arg.strip_prefix("--backup=")) {
            let Some(nodes) = self.backed_up(slot, backup) else { return failed("salvage", "there is no such backup") };
            cluster.nodes.retain(|name, _| nodes.contains(name));
        }
        self.site.clusters[old].given_up = true;
        self.site.clusters.push(cluster);
        for host in self.hosts.iter_mut().filter(|host| !others.contains(&host.slot)) {
            host.kube.cluster = host.kube.cluster.map(|of| if of == old { number } else { of });
        }
        self.rebuilds(slot, number);
        let serves = self.has(slot, &at(API_MANIFEST));
        let kube = self.kube(slot);
        (kube.etcd, kube.serves) = (true, serves);
        Ok(())
    }

    /// A kubelet that starts registers its Node, if that is not there.
    fn kubelet_restarts(&mut self, slot: Slot) -> Done {
        let kube = &self.hosts[slot as usize].kube;
        if let (Some(cluster), name) = (kube.cluster, kube.name.clone()) {
            self.site.clusters[cluster].nodes.entry(name).or_insert(NodeObject { slot, stopped: None });
        }
        Ok(())
    }

    /// A kubelet whose own certificate was over has a new one if that was taken away: it takes the one in its kubeconfig then.
    pub(super) fn kubelet_starts_anew(&mut self, slot: Slot) {
        let taken = !self.has(slot, KUBELETS_OWN);
        let kube = self.kube(slot);
        if kube.renewal != Renewal::Overdue || !taken {
            return;
        }
        kube.renewal = Renewal::NotYet;
        (kube.ready, kube.serves) = (kube.etcd, kube.etcd);
        self.make(slot, KUBELETS_OWN);
    }

    fn preflight(&self, slot: Slot, args: &[&str]) -> Done {
        let check = |name: &str| at(name).replace('/', "-");
        let flags = args.iter().filter_map(|arg| arg.strip_prefix("--ignore-preflight-errors="));
        let names: Vec<&str> = flags.flat_map(|names| names.split(',')).collect();
        let ignored = |name: &str| names.contains(&format!("FileAvailable-{}", check(name)).as_str());
        let files = ["manifests/kube-apiserver.yaml", KUBELETS];
        match files.iter().find(|name| self.has(slot, &at(name)) && !ignored(name)) {
            Some(name) => {
                let check = check(name);
                failed(
                    "preflight",
                    format!(
                        "[preflight] Some fatal errors occurred:\n\t[ERROR FileAvailable-{check}]: {} already exists",
                        at(name)
                    ),
                )
            }
            None => Ok(()),
        }
    }

    /// The cluster that this machine's own API server serves; made when it serves for the first time.
    pub(super) fn own_cluster(&mut self, slot: Slot) -> Result<usize, End> {
        if let Some(cluster) = self.hosts[slot as usize].kube.cluster {
            return Ok(cluster);
        }
        self.needs(slot, "wait-control-plane", &["manifests/etcd.yaml", "manifests/kube-apiserver.yaml"])?;
        if !self.has(slot, KUBELET) {
            return failed("wait-control-plane", "timed out waiting for the condition");
        }
        if self.founds(slot) {
            return self.etcd_meets(slot);
        }
        let (number, machine) = (self.site.clusters.len(), self.hosts[slot as usize].me);
        let ca = self.file(slot, "pki/ca.crt");
        let kube = self.kube(slot);
        (kube.cluster, kube.etcd, kube.serves) = (Some(number), true, true);
        self.keeps_data(slot);
        let kube = self.kube(slot);
        let (attempt, members) = (kube.attempt, BTreeSet::from([slot]));
        let etcd = members.clone();
        let node = NodeObject { slot, stopped: None };
        let nodes = BTreeMap::from([(self.hosts[slot as usize].kube.name.clone(), node)]);
        let cluster = Cluster { nodes, attempt, machine, ca, members, etcd, ..Cluster::default() };
        self.site.clusters.push(cluster);
        Ok(number)
    }

    pub(super) fn file(&self, slot: Slot, name: &str) -> String {
        let bytes = self.hosts[slot as usize].kube.files.get(&at(name));
        bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
    }

    fn join_skipping(&mut self, slot: Slot, args: &[&str]) -> Done {
        let skipped: BTreeSet<&str> = args
            .iter()
            .find_map(|arg| arg.strip_prefix("--skip-phases="))
            .into_iter()
            .flat_map(|list| list.split(','))
            .collect();
        let phases = JOIN.into_iter().filter(|phase| !skipped.contains(phase)).collect();
        let part = match (
            skipped.contains("control-plane-join/etcd"),
            skipped.contains("control-plane-join/mark-control-plane"),
        ) {
            (true, false) => Some("mark-control-plane"),
            (false, true) => Some("etcd"),
            _ => None,
        };
        self.join_phases(slot, args, &phases, part)
    }

    fn join_phases(&mut self, slot: Slot, args: &[&str], phases: &BTreeSet<&str>, part: Option<&str>) -> Done {
        let docs = self.documents(slot, args)?;
        let join = document(&docs, "JoinConfiguration")?;
        let control_plane = !join["controlPlane"].is_null();
        if phases.contains("preflight") {
            self.preflight(slot, args)?;
        }
        let cluster = self.discover_cluster(slot, &join["discovery"])?;
        self.part()?;
        if phases.contains("control-plane-prepare") && control_plane {
            self.needs(slot, "control-plane-prepare", &["pki/ca.key", "pki/etcd/ca.key", "pki/sa.key"])?;
            if self.file(slot, "pki/ca.crt") != self.site.clusters[cluster].ca {
                return failed("control-plane-prepare", "x509: certificate signed by unknown authority");
            }
            for name in ETCD_IDENTITY.into_iter().chain(["manifests/kube-apiserver.yaml"]) {
                self.make(slot, &at(name));
                self.part()?;
            }
            let ca = self.file(slot, "pki/ca.crt");
            self.make_kubeconfig(slot, "admin.conf", &ca);
        }
        if phases.contains("kubelet-start") {
            let name = join["nodeRegistration"]["name"].as_str().unwrap_or_default();
            if self.looks_ready(cluster, name) {
                let words = format!("a Node with name {name:?} and status \"Ready\" already exists in the cluster.");
                return failed("kubelet-start", words);
            }
            let ca = self.site.clusters[cluster].ca.clone();
            self.make_kubeconfig(slot, KUBELETS, &ca);
            self.part()?;
            self.make(slot, KUBELET);
            let name = name.to_owned();
            if let Err(cut) = self.part() {
                // The kubelet runs, and is none of kubeadm's processes.
                let after = self.chance.fixed("kubelet", slot.into(), self.now) % REGISTERS;
                self.events.push(self.now + after, Event::Registers { slot, cluster, name: name.into_boxed_str() });
                return Err(cut);
            }
            self.registers(slot, cluster, name);
            self.kube(slot).dirty = false;
            self.part()?;
        }
        let adds =
            phases.contains("etcd-join") || phases.contains("control-plane-join") && part != Some("mark-control-plane");
        if adds && control_plane {
            self.join_etcd(slot)?;
        }
        if phases.contains("control-plane-join") && part != Some("etcd") || phases.contains("wait-control-plane") {
            let kube = self.kube(slot);
            kube.serves = kube.etcd;
        }
        Ok(())
    }

    /// Whether a machine's Node is in the cluster that it is a member of.
    pub(crate) fn has_node(&self, slot: Slot) -> bool {
        let kube = &self.hosts[slot as usize].kube;
        let cluster = kube.cluster.map(|cluster| &self.site.clusters[cluster]);
        cluster.is_some_and(|cluster| cluster.nodes.get(&kube.name).is_some_and(|node| node.slot == slot))
    }

    /// A kubelet registers its Node, whether kubeadm still runs or not.
    fn registers(&mut self, slot: Slot, cluster: usize, name: String) {
        self.site.clusters[cluster].nodes.insert(name.clone(), NodeObject { slot, stopped: None });
        self.site.clusters[cluster].members.insert(slot);
        let joined = self.site.clusters[cluster].clone();
        let kube = self.kube(slot);
        (kube.cluster, kube.name) = (Some(cluster), name);
        self.make(slot, KUBELETS_OWN);
        self.see(Seen::JoinedKube { slot, cluster: &joined });
    }

    /// A kubelet that kubeadm has left behind registers, unless it was stopped, or its Node is another's.
    pub(super) fn registers_late(&mut self, slot: Slot, cluster: usize, name: String) {
        let kube = &self.hosts[slot as usize].kube;
        let runs = kube.cluster.is_none() && self.has(slot, KUBELET) && self.has(slot, &at("kubelet.conf"));
        if !runs || self.looks_ready(cluster, &name) {
            return;
        }
        // It reaches the API through the agent's balancer, and goes on asking.
        let there = self.api_of(slot).and_then(|server| self.hosts[server as usize].kube.cluster) == Some(cluster);
        if there && !self.is_dark(slot) {
            return self.registers(slot, cluster, name);
        }
        self.events.push(self.now + REGISTERS, Event::Registers { slot, cluster, name: name.into_boxed_str() });
    }

    /// The cluster that an API server shows, if its CA and the token are right.
    fn discover_cluster(&self, slot: Slot, discovery: &Value) -> Result<usize, End> {
        let server = self.api_of(slot).ok_or(End::NoApi)?;
        let number = self.hosts[server as usize].kube.cluster.ok_or(End::NoApi)?;
        let cluster = &self.site.clusters[number];
        let (token, believed) = match discovery["file"]["kubeConfigPath"].as_str() {
            Some(path) => {
                let Some(bytes) = self.hosts[slot as usize].kube.files.get(path) else {
                    return failed("preflight", format!("open {path}: no such file or directory"));
                };
                let config: Value = serde_json::from_slice(bytes).unwrap_or_default();
                let ca = config["clusters"][0]["cluster"]["certificate-authority-data"].as_str().unwrap_or_default();
                let ca = STANDARD.decode(ca).unwrap_or_default();
                (discovery["tlsBootstrapToken"].as_str(), ca == cluster.ca.as_bytes())
            }
            None => {
                let by = &discovery["bootstrapToken"];
                let pin = by["caCertHashes"][0].as_str().and_then(|pin| pin.strip_prefix("sha256:"));
                (by["token"].as_str(), pin_of(&cluster.ca).as_deref() == pin)
            }
        };
        if !believed {
            return failed("preflight", "x509: certificate signed by unknown authority");
        }
        // A machine that has joined has a certificate of its own; before that only a token opens the cluster.
        let member = cluster.members.contains(&slot);
        if !member && !token.is_some_and(|token| cluster.tokens.contains(token)) {
            return failed("preflight", "could not find a JWS signature in the cluster-info ConfigMap for token ID");
        }
        Ok(number)
    }

    fn join_etcd(&mut self, slot: Slot) -> Done {
        let Some(cluster) = self.hosts[slot as usize].kube.cluster else {
            return failed("etcd-join", "this machine is in no cluster");
        };
        // etcd takes one learner at a time (`--max-learners`), whether it lives or not.
        let learners = &self.site.clusters[cluster].learners;
        if self.others_adding(slot) > 0 || learners.iter().any(|learner| *learner != slot) {
            return failed("etcd-join", "etcdserver: too many learner members in cluster");
        }
        if !self.site.clusters[cluster].etcd.insert(slot) && !self.kube(slot).etcd {
            // A member of this address that lost its disk: etcd knows it, and it does not know etcd.
            return failed("etcd-join", "etcdserver: Peer URLs already exists");
        }
        let in_turn = self.site.adding_etcd.contains(&slot);
        self.site.clusters[cluster].learners.insert(slot);
        let members = self.site.clusters[cluster].etcd.clone();
        self.see(Seen::EtcdAdded { slot, in_turn, members: &members });
        self.part()?;
        self.make(slot, &at("manifests/etcd.yaml"));
        self.keeps_data(slot);
        // The API server's manifest has been there since the join began: it starts when etcd has.
        self.site.clusters[cluster].learners.remove(&slot);
        let kube = self.kube(slot);
        (kube.etcd, kube.serves) = (true, true);
        Ok(())
    }

    /// Whether a Node of this name keeps others of the name out: its kubelet runs, or was stopped a short while ago.
    fn looks_ready(&self, cluster: usize, name: &str) -> bool {
        let Some(node) = self.site.clusters[cluster].nodes.get(name) else { return false };
        let kube = &self.hosts[node.slot as usize].kube;
        let runs = kube.cluster == Some(cluster) && kube.name == name;
        runs || node.stopped.is_some_and(|stopped| self.now < stopped + NODE_GRACE)
    }

    fn create_token(&mut self, slot: Slot, args: &[&str]) -> Done {
        let docs = self.documents(slot, args)?;
        let init = document(&docs, "InitConfiguration")?;
        self.needs(slot, "token", &["admin.conf"])?;
        let server = self.api_of(slot).ok_or(End::NoApi)?;
        let number = self.hosts[server as usize].kube.cluster.ok_or(End::NoApi)?;
        let token = init["bootstrapTokens"][0]["token"].as_str().unwrap_or_default().to_owned();
        self.tokens_end(slot, &init);
        match self.site.clusters[number].tokens.insert(token) {
            true => Ok(()),
            false => failed("token", "secrets \"bootstrap-token\" already exists"),
        }
    }

    fn delete_token(&mut self, slot: Slot, id: &str) -> Done {
        self.needs(slot, "token", &["admin.conf"])?;
        let server = self.api_of(slot).ok_or(End::NoApi)?;
        let number = self.hosts[server as usize].kube.cluster.ok_or(End::NoApi)?;
        let tokens = &mut self.site.clusters[number].tokens;
        let before = tokens.len();
        tokens.retain(|token| token.split('.').next() != Some(id));
        if tokens.len() < before { Ok(()) } else { failed("token", "secrets \"bootstrap-token\" not found") }
    }

    /// kubeadm leaves etcd by itself only if it finds the Pod of its own member and reaches one that runs, and goes on with a
    /// warning if it does not.
    fn reset(&mut self, slot: Slot, outside_etcd: bool) -> Done {
        let pod = self.has(slot, &at("manifests/etcd.yaml"));
        let leaves = pod && !outside_etcd && self.reaches_any_etcd(slot);
        let cluster = self.kube(slot).cluster;
        if let Some(cluster) = cluster.filter(|_| leaves) {
            self.site.clusters[cluster].etcd.remove(&slot);
            self.site.clusters[cluster].learners.remove(&slot);
            self.see(Seen::EtcdLeft { slot, gone: slot, stands: true });
        }
        self.part()?;
        let mut kube = std::mem::take(self.kube(slot));
        if let Some(cluster) = cluster {
            self.site.clusters[cluster].members.remove(&slot);
            if let Some(node) = self.site.clusters[cluster].nodes.get_mut(&kube.name).filter(|node| node.slot == slot) {
                node.stopped = Some(self.now);
            }
        }
        // What is not kubeadm's own stays.
        kube.files.retain(|path, _| !path.starts_with(DIR) && path != KUBELET && path != KUBELETS_OWN);
        let own = self.kube(slot);
        // A step that resets goes on for the same attempt.
        (own.files, own.attempt) = (kube.files, kube.attempt);
        Ok(())
    }

    /// An API server that this machine reaches and whose etcd has a majority.
    pub(super) fn works_at(&self, slot: Slot) -> Option<String> {
        self.apis_of(slot).find(|server| self.is_whole(*server)).map(|server| Self::socket(server).to_string())
    }

    /// The API server that this machine's balancer passes it on to: its own before others, and before all one whose etcd has a quorum, as each
    /// server says of its own.
    pub(super) fn api_of(&self, slot: Slot) -> Option<Slot> {
        self.apis_of(slot).find(|server| self.is_whole(*server)).or_else(|| self.apis_of(slot).next())
    }

    fn is_whole(&self, server: Slot) -> bool {
        self.hosts[server as usize].kube.cluster.is_some_and(|cluster| self.has_quorum(server, cluster))
    }

    /// The API servers that this machine reaches, by the list it was given, its own first.
    fn apis_of(&self, slot: Slot) -> impl Iterator<Item = Slot> + '_ {
        let host = &self.hosts[slot as usize];
        let own = (host.kube.serves && host.kube.held.is_none()).then_some(slot);
        let listed = host.api_servers.iter().filter_map(|server| self.slot_at(server));
        own.into_iter().chain(listed.filter(move |server| {
            *server != slot
                && self.hosts[*server as usize].kube.serves
                && !self.is_dark(*server)
                && !self.net.cuts(slot, *server)
                && !self.net.cuts(*server, slot)
        }))
    }
}

/// By which hash kubeadm knows a CA: SHA-256 of its certificate's public key info (`k8s.io/client-go`'s `pubkeypin`), in hex. The
/// simulator's CAs have P-256 keys, whose info has one form (RFC 5480).
fn pin_of(ca: &str) -> Option<String> {
    const PREFIX: [u8; 26] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
        0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    const LENGTH: usize = 91;
    let body: String = ca.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(body).ok()?;
    let at = memchr::memmem::find(&der, &PREFIX)?;
    Some(hex::encode(Sha256::digest(der.get(at..at + LENGTH)?)))
}
