//! A model of how etcd begins on several machines at once, as etcd 3.6 does it (`bootstrapNewClusterNoWAL` in
//! server/etcdserver/bootstrap.go).
//!
//! Each founder is given the same list and token, from which all members' numbers follow. A member that has never run and reaches
//! another one that knows itself in a cluster comes to that cluster, unless it is known there as one that has run before ("has already
//! been bootstrapped"). Where none answers that knows of a cluster, a majority of the list begins one, and nothing tells it from a
//! majority that has lost its data: that is how a site loses everything (etcd's issue 12227).

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use muster_kubeadm::guard::{Asked, Asking, Found, Verdict, Word};
use muster_wire::Attempt;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::World;
use super::event::{At, Event, Slot};
use super::host::{Host, Power};
use super::kubeadm::{Cluster, NodeObject, Unit};
use super::program::{API_MANIFEST, End, KUBELET, at};
use crate::watch::Seen;

/// Where a member keeps what it knows.
const DATA: &str = "/var/lib/etcd/member/data";
/// From its start on, until whoever reaches a machine has met it.
const THERE: At = 10_000_000;
/// How often a kubelet's unit asks where nobody answers: in truth every 0.2 s.
const ASKS_AGAIN: At = 5_000_000;
/// What the guard keeps.
const MARK: &str = "muster-etcd.json";
pub(super) const ETCD_MANIFEST: &str = "manifests/etcd.yaml";

/// What a founder's manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Founding {
    token: String,
    members: BTreeSet<Slot>,
}

/// What a founder's etcd knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Data {
    founding: Founding,
    /// The cluster that it is a member of, by number in the site's clusters.
    cluster: Option<usize>,
}

impl World {
    /// What a document says of the founders, if it does.
    pub(super) fn founding(&self, cluster: &Value) -> Option<Founding> {
        let arguments = cluster["etcd"]["local"]["extraArgs"].as_array()?;
        let said = |name: &str| arguments.iter().find(|argument| argument["name"] == name)?["value"].as_str();
        let member = |member: &str| self.slot_at(member.split_once("=https://")?.1);
        let members = said("initial-cluster")?.split(',').filter_map(member).collect();
        Some(Founding { token: said("initial-cluster-token")?.to_owned(), members })
    }

    fn parsed<T: serde::de::DeserializeOwned>(&self, slot: Slot, path: &str) -> Option<T> {
        serde_json::from_slice(self.hosts[slot as usize].kube.files.get(path)?).ok()
    }

    fn write_data(&mut self, slot: Slot, data: &Data) {
        let bytes = serde_json::to_vec(data).unwrap_or_default();
        self.hosts[slot as usize].kube.files.insert(DATA.to_owned(), bytes);
    }

    /// A kubelet starts, after what its unit runs before (`muster guard`): says whether it may. etcd whose directory is empty begins.
    pub(super) fn kubelet_starts(&mut self, slot: Slot) -> bool {
        if !self.has(slot, KUBELET) || !self.has(slot, &at(ETCD_MANIFEST)) {
            return true;
        }
        if !muster_wire::planted::planted("kubelet-unguarded") {
            match self.guarded(slot) {
                Verdict::Withhold { .. } => return false,
                Verdict::Start { mark: Some(mark), .. } => {
                    self.hosts[slot as usize].kube.files.insert(at(MARK), mark.into_bytes());
                }
                Verdict::Start { .. } => {}
            }
        }
        self.old_etcd_starts(slot);
        self.etcd_starts(slot);
        true
    }

    /// What the guard says of what is on the disk.
    pub(super) fn guarded(&self, slot: Slot) -> Verdict {
        let (manifest, ca) = (self.manifest_of_etcd(slot), self.file(slot, "pki/etcd/ca.crt"));
        let mark = Some(self.file(slot, MARK)).filter(|mark| !mark.is_empty());
        // etcd's Pod has been here since its kubelet was first let start, or since it came to others.
        let has_run = mark.is_some() || !self.founds(slot);
        let logs: Vec<String> = has_run.then(|| "kube-system_etcd-_0".to_owned()).into_iter().collect();
        let found =
            Found { manifest: Some(&manifest), ca: ca.as_bytes(), mark: mark.as_deref(), logs: &logs, started: true };
        let holds = |directory: &Path| self.below(slot, directory).next().is_some();
        found.verdict(Path::new("/var/lib/etcd"), holds)
    }

    /// Whether a machine's kubelet waits for its machine's word when it is switched on: it would start etcd, be it for the first time.
    pub(super) fn kubelet_waits(&self, slot: Slot) -> bool {
        let etcd = self.has(slot, &at(ETCD_MANIFEST));
        self.has(slot, KUBELET) && etcd && self.guarded(slot).asks_first(etcd, false)
    }

    /// A kubelet's unit begins to ask its machine.
    pub(super) fn kubelet_begins_to_ask(&mut self, slot: Slot) {
        let begun = self.now;
        self.hosts[slot as usize].kube.held = Some(Unit { begun, asking: Asking::default() });
        self.events.push(begun + ASKS_AGAIN, Event::KubeletAsks { slot, begun });
    }

    /// It asks once more. Whoever lets it start does so at once ([`World::let_start`]): here silence has its end.
    pub(super) fn kubelet_asks(&mut self, slot: Slot, begun: At) {
        let host = &mut self.hosts[slot as usize];
        let Some(unit) = host.kube.held.as_mut().filter(|unit| unit.begun == begun) else { return };
        if self.dark[slot as usize] {
            return;
        }
        let word = match host.machine.as_ref().filter(|_| host.power == Power::On && !host.paused) {
            Some(machine) => machine.may_start(host.clock.show(self.now)).err().map_or(Word::Starts, Word::Waits),
            None => Word::Silence,
        };
        match unit.asking.hear(Duration::from_micros(self.now - begun), word) {
            Asked::Again => self.events.push(self.now + ASKS_AGAIN, Event::KubeletAsks { slot, begun }),
            Asked::GivesUp(_) => self.kubelet_begins_to_ask(slot),
            asked @ (Asked::Starts | Asked::Unheard) => {
                host.kube.held = None;
                if asked == Asked::Unheard {
                    self.see(Seen::KubeletUnheard { slot });
                }
                self.kubelet_starts(slot);
            }
        }
    }

    /// A kubelet that waits is started once its machine says so.
    pub(super) fn let_start(&mut self, slot: Slot) {
        let host = &self.hosts[slot as usize];
        let Some(machine) = host.machine.as_ref().filter(|_| host.kube.held.is_some()) else { return };
        if machine.may_start(host.clock.show(self.now)).is_ok() {
            self.hosts[slot as usize].kube.held = None;
            self.kubelet_starts(slot);
        }
    }

    /// Whether nothing of Kubernetes runs on a machine, as others see it.
    pub(super) fn is_dark(&self, slot: Slot) -> bool {
        self.dark[slot as usize] || self.hosts[slot as usize].kube.held.is_some()
    }

    /// A member of a cluster that was given up is started: whether a machine of the one that counts can be met, and has been there for a while.
    fn old_etcd_starts(&mut self, slot: Slot) {
        let given_up = |number: usize| self.site.clusters.get(number).is_some_and(|cluster| cluster.given_up);
        // Without its manifest, or without a kubelet, none starts.
        let starts = self.has(slot, KUBELET) && self.has(slot, &at(ETCD_MANIFEST));
        if !starts || !self.hosts[slot as usize].kube.cluster.is_some_and(given_up) {
            return;
        }
        let meets = |other: &Host| {
            let counts = other.kube.cluster.is_some_and(|number| !given_up(number));
            let there = other.up() && self.now >= other.up_since + THERE && !self.dark[other.slot as usize];
            counts && there && !self.net.cuts(slot, other.slot) && !self.net.cuts(other.slot, slot)
        };
        // Whose own agent says nothing hears nothing either, and is not waited for.
        let warned = self.hosts[slot as usize].up() && self.hosts.iter().any(meets);
        self.see(Seen::OldEtcdStarts { slot, warned });
    }

    /// What the guard reads of etcd's manifest.
    fn manifest_of_etcd(&self, slot: Slot) -> String {
        match self.founds(slot) {
            true => "- --data-dir=/var/lib/etcd\n- --name=\n".to_owned(),
            false => "- --data-dir=/var/lib/etcd\n- --initial-cluster-state=existing\n- --name=\n".to_owned(),
        }
    }

    /// etcd's directory is emptied. Says whether anything was in it.
    pub(super) fn empty_etcd(&mut self, slot: Slot) -> bool {
        let kube = &mut self.hosts[slot as usize].kube;
        (kube.etcd, kube.serves) = (false, false);
        kube.files.remove(DATA).is_some()
    }

    /// etcd that was begun alone, or came to others, keeps what it knows.
    pub(super) fn keeps_data(&mut self, slot: Slot) {
        self.hosts[slot as usize].kube.files.entry(DATA.to_owned()).or_insert_with(|| b"{}".to_vec());
    }

    /// What is on this disk is of another cluster now.
    pub(super) fn rebuilds(&mut self, slot: Slot, number: usize) {
        if let Some(mut data) = self.parsed::<Data>(slot, DATA) {
            data.cluster = Some(number);
            self.write_data(slot, &data);
        }
    }

    /// The kubelet starts etcd once its manifest is there. What it has never begun it begins.
    pub(super) fn etcd_starts(&mut self, slot: Slot) {
        let Some(founding) = self.parsed::<Founding>(slot, &at(ETCD_MANIFEST)) else { return };
        if self.has(slot, KUBELET) && !self.has(slot, DATA) {
            let attempt = self.hosts[slot as usize].kube.attempt;
            self.see(Seen::EtcdBegun { slot, attempt });
            self.write_data(slot, &Data { founding, cluster: None });
        }
    }

    /// Whether etcd of this machine was given with whom it begins.
    pub(super) fn founds(&self, slot: Slot) -> bool {
        self.parsed::<Founding>(slot, &at(ETCD_MANIFEST)).is_some()
    }

    /// The cluster that a founder's etcd is a member of, once a majority is.
    pub(super) fn etcd_meets(&mut self, slot: Slot) -> Result<usize, End> {
        self.etcd_starts(slot);
        let data: Data = self.parsed(slot, DATA).ok_or(End::NoApi)?;
        let runs = |other: &Slot| {
            let there =
                *other == slot || !self.is_dark(*other) && !self.net.cuts(slot, *other) && !self.net.cuts(*other, slot);
            let theirs = self.parsed::<Data>(*other, DATA).filter(|_| there && self.has(*other, &at(ETCD_MANIFEST)))?;
            (theirs.founding == data.founding).then_some((*other, theirs.cluster))
        };
        let met: Vec<(Slot, Option<usize>)> = data.founding.members.iter().filter_map(runs).collect();
        let majority = data.founding.members.len() / 2 + 1;
        // Who came to the cluster later tells of it, too.
        let told = || (0..self.site.clusters.len()).find(|number| self.is_member(slot, *number, &data.founding));
        let known = met.iter().find_map(|(_, cluster)| *cluster).or_else(told);
        let cluster = match (data.cluster, known) {
            (Some(own), _) if self.has_quorum(slot, own) => own,
            (Some(_), _) => return Err(End::NoApi),
            // Whoever was struck off is told so, and ends: "the member has been permanently removed from the cluster".
            (None, Some(known)) if !self.site.clusters[known].awaits(slot) => return Err(End::NoApi),
            (None, Some(known)) => known,
            (None, None) if met.len() < majority => return Err(End::NoApi),
            (None, None) => self.etcd_forms(slot, &data.founding),
        };
        let met = met.into_iter().chain([(slot, data.cluster)]);
        for (member, of) in met {
            if of.is_none() && self.site.clusters[cluster].awaits(member) {
                self.comes_to(member, cluster);
            }
        }
        Ok(cluster)
    }

    /// Whether a cluster that was begun so has this machine among its members, and it reaches one that runs.
    fn is_member(&self, slot: Slot, number: usize, founding: &Founding) -> bool {
        let cluster = &self.site.clusters[number];
        let of = cluster.token.as_ref() == Some(&founding.token) && cluster.etcd.contains(&slot);
        of && self.reached(slot, number) > 0
    }

    /// Whether this machine reaches a majority of a cluster's members that vote, itself included.
    pub(super) fn has_quorum(&self, slot: Slot, number: usize) -> bool {
        let cluster = &self.site.clusters[number];
        self.reached(slot, number) > cluster.etcd.difference(&cluster.learners).count() / 2
    }

    /// The machines whose members vote in etcd, of the cluster that an attempt made and that counts.
    pub(crate) fn etcd_voters(&self, attempt: Attempt) -> Option<BTreeSet<Slot>> {
        let cluster = self.site.clusters.iter().find(|cluster| !cluster.given_up && cluster.attempt == attempt)?;
        Some(cluster.etcd.difference(&cluster.learners).copied().collect())
    }

    /// How many of a cluster's members this machine reaches that run, itself included.
    fn reached(&self, slot: Slot, number: usize) -> usize {
        let runs = |member: &&Slot| {
            self.hosts[**member as usize].kube.cluster == Some(number) && self.reaches_etcd(slot, **member)
        };
        self.site.clusters[number].etcd.iter().filter(runs).count()
    }

    /// A majority that knows of no cluster begins one.
    fn etcd_forms(&mut self, slot: Slot, founding: &Founding) -> usize {
        let attempt = self.hosts[slot as usize].kube.attempt;
        let before = self.site.clusters.iter().any(|cluster| cluster.token.as_ref() == Some(&founding.token));
        self.see(Seen::EtcdFormed { slot, attempt, before });
        let number = self.site.clusters.len();
        self.site.clusters.push(Cluster {
            attempt,
            machine: self.hosts[slot as usize].me,
            ca: self.file(slot, "pki/ca.crt"),
            etcd: founding.members.clone(),
            token: Some(founding.token.clone()),
            ..Cluster::default()
        });
        number
    }

    /// A member that has never run is one of the cluster's now; its kubelet registers by itself.
    fn comes_to(&mut self, slot: Slot, number: usize) {
        let Some(mut data) = self.parsed::<Data>(slot, DATA) else { return };
        data.cluster = Some(number);
        self.write_data(slot, &data);
        let serves = self.has(slot, &at(API_MANIFEST));
        let kube = &mut self.hosts[slot as usize].kube;
        (kube.cluster, kube.etcd, kube.serves) = (Some(number), true, serves);
        let (own, name) = (kube.attempt, kube.name.clone());
        let cluster = &mut self.site.clusters[number];
        cluster.begun.insert(slot);
        cluster.members.insert(slot);
        cluster.nodes.insert(name, NodeObject { slot, stopped: None });
        let of = cluster.attempt;
        self.see(Seen::EtcdMet { slot, own, of });
    }
}
