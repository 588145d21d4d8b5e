//! What is true of a run: who leads, who holds what, what was committed, by rules of their own and not the ledger's. Faults and checkers
//! alike ask it; no fault asks a checker.

pub(crate) mod book;
pub(crate) mod legible;

use std::collections::{BTreeMap, BTreeSet};

use muster_protocol::{Before, NoticeKind, Step};
use muster_wire::{Attempt, Backup, Digest, Durable, Entry, MachineId, Revision, Role, TurnChange, TurnKind};
use xxhash_rust::xxh3::xxh3_64;

use self::book::Book;
use crate::scenario::{Policy, Scenario, Sort};
use crate::sometimes::Sometimes;
use crate::watch::{Seen, decode};
use crate::world::{At, CLUSTER, Slot};

/// The truth as far as it is followed.
#[derive(Debug, Default)]
pub struct Truth {
    /// The founding quorum.
    pub quorum: usize,
    /// `control_planes` in the image.
    pub(crate) control_planes_wanted: usize,
    /// `machines` in the image.
    pub image_machines: u32,
    /// Machines that carry the image and were started.
    founders: BTreeSet<Slot>,
    /// Machines that answer two ways.
    two_faced: BTreeSet<Slot>,
    pub(crate) others: std::ops::Range<Slot>,
    /// Identities whose disks were wiped.
    wiped: BTreeSet<MachineId>,
    /// The charter that was followed first, and whether there is another one.
    pub(crate) charter: Option<[u8; 16]>,
    /// Whether a second charter was excused: then two clusters run, and what is judged is the first.
    pub(crate) two_charters: bool,
    /// The ledger by rules of its own.
    pub(crate) book: Book,
    /// The same before the last entry that was told.
    pub(crate) book_before: Book,
    /// The same before the first entry, and every entry that was told since, by revision.
    book_founded: Book,
    told: BTreeMap<Revision, Option<Entry>>,
    /// The image that the first charter was founded with.
    founded_with: Option<Digest>,
    /// Whether a baseline policy runs in muster's place.
    pub baseline: bool,
    /// Which identity a machine's disk holds.
    pub identity: BTreeMap<Slot, MachineId>,
    /// The machines whose processes run.
    pub running: BTreeSet<Slot>,
    /// Sealing keys, as the machines themselves made them.
    pub sealing_keys: BTreeMap<MachineId, [u8; 32]>,
    /// Identities whose disks broke the assumption that votes survive.
    pub excused: BTreeSet<MachineId>,
    /// Who leads, by the last word of Raft.
    pub leader: Option<MachineId>,
    /// The highest revision that was seen committed.
    pub committed: Revision,
    /// When each was.
    commits: Vec<(At, Revision)>,
    /// Machines that were ever admitted.
    pub admitted: BTreeSet<MachineId>,
    /// Control planes that were given up when one of them rebuilt the cluster: what they do from then on is no part of it.
    pub(crate) lost: BTreeSet<MachineId>,
    /// Machines that were removed.
    pub removed: BTreeSet<MachineId>,
    /// Admitted control planes.
    pub control_planes: BTreeSet<MachineId>,
    /// The live claim, and when it was committed.
    pub claim: Option<(Attempt, MachineId)>,
    /// The founders that each claim named.
    pub(crate) founders_of: BTreeMap<Attempt, BTreeSet<MachineId>>,
    /// Who said of which attempt that it begins etcd.
    pub(crate) begins: BTreeSet<(Attempt, MachineId)>,
    /// Where each identity was booted last.
    place_of: BTreeMap<MachineId, Slot>,
    /// Every claim that there was.
    pub(crate) claims: BTreeMap<Attempt, MachineId>,
    /// When the live claim was committed.
    pub claimed_at: At,
    /// The attempt that made the cluster.
    pub ready: Option<Attempt>,
    /// Attempts that were abandoned.
    pub abandoned: BTreeMap<Attempt, MachineId>,
    /// Machines that were ever given a turn at etcd.
    pub(crate) turns: BTreeSet<MachineId>,
    /// When the last of them began.
    pub(crate) turn_since: At,
    /// Machines whose etcd members are in etcd's list, in truth.
    pub(crate) in_etcd: BTreeSet<MachineId>,
    /// The identity of the machine whose member etcd has at a place.
    pub(crate) etcd_of: BTreeMap<Slot, MachineId>,
    /// Identities whose disks a fault emptied.
    pub(crate) emptied: BTreeSet<MachineId>,
    /// The identity whose member left etcd just now.
    pub(crate) left_etcd: Option<MachineId>,
    /// Identities whose members were taken out of etcd.
    struck: BTreeSet<MachineId>,
    /// Machines that etcd has had as members since their last turn began. One that stops after that takes its member away
    /// again, while what it said of its success may still be on its way to the log.
    pub(crate) added: BTreeSet<MachineId>,
    /// Machines that others began to take out; whether they might, S18 says.
    pub(crate) given_up: BTreeSet<MachineId>,
    /// Machines whose removal was ever wished.
    pub(crate) wished_away: BTreeSet<MachineId>,
    /// Machines that ever had a turn to disrupt.
    pub(crate) disrupted: BTreeSet<MachineId>,
    /// Machines that ever ended a turn at etcd as done.
    pub(crate) turns_done: BTreeSet<MachineId>,
    /// Machines that joined.
    pub joined: BTreeSet<MachineId>,
    /// Time of heal.
    pub healed: Option<At>,
    charters: BTreeSet<MachineId>,
    proposers: BTreeSet<MachineId>,
    last_term: u64,
    /// The image that each machine booted last, by its digest.
    images: BTreeMap<Slot, Digest>,
    /// Machines whose files a fault has damaged.
    pub(crate) damaged: BTreeSet<Slot>,
    /// Raft's first voters.
    pub(crate) first_voters: BTreeSet<MachineId>,
    /// Whether Raft has gone on from a voter that lost its records: one such voter is enough for it.
    pub(crate) history_lost: bool,
    /// The machine that the entry applied just now removes, although etcd has a member of it.
    pub(crate) etcd_lost: Option<MachineId>,
    /// The last entry that took effect, and its revision.
    pub(crate) newest: Option<(Revision, Entry)>,
    /// The backups that were taken, and when.
    pub(crate) backups: Vec<(Backup, At)>,
    /// The turn at etcd that the last entry ended, and how.
    pub(crate) turn_ended: Option<(MachineId, TurnChange)>,
    /// Machines whose Raft has told its ledger in this life.
    restored: BTreeSet<Slot>,
    /// The entries that took effect, in order.
    pub(crate) history: Vec<Entry>,
    entries: BTreeMap<Revision, u64>,
    faults: BTreeSet<usize>,
    partitions: BTreeSet<usize>,
    steps: BTreeMap<(Slot, &'static str), u32>,
}

impl Truth {
    pub(crate) fn begin(&mut self, scenario: &Scenario) {
        let machines = scenario.image_machines();
        self.image_machines = machines;
        self.control_planes_wanted = scenario.image.control_planes as usize;
        let others: u32 = scenario.others.iter().map(|other| other.count).sum();
        self.others = scenario.machines.saturating_sub(others)..scenario.machines;
        self.baseline = scenario.image.policy == Policy::Threshold;
        self.quorum = match (scenario.image.expect.filter(|_| self.baseline), scenario.image.durable) {
            (Some(expect), _) => expect,
            (None, true) => machines / 2 + 1,
            (None, false) => machines,
        } as usize;
    }

    pub(crate) fn see(&mut self, now: At, seen: &Seen<'_>, sometimes: &mut Sometimes) {
        if let Seen::Applied { revision, entry, .. } = seen {
            let hash = xxh3_64(entry);
            let other = *self.entries.entry(*revision).or_insert(hash) != hash;
            self.history_lost |= other && self.voters().any(|voter| self.excused.contains(&voter));
        }
        self.turn_ended = None;
        self.etcd_lost = None;
        self.left_etcd = None;
        match seen {
            Seen::Booting { slot, machine, sealing_key, durable, image, .. } => {
                self.images.insert(*slot, *image);
                self.sealing_keys.insert(*machine, *sealing_key);
                self.boots(*slot, *machine, durable, sometimes);
            }
            Seen::Stopped { slot } => {
                self.running.remove(slot);
                self.restored.remove(slot);
            }
            Seen::RefusedStart { .. } => sometimes.reached("start-refused"),
            Seen::Persisted { machine, durable, .. } => self.persisted(*machine, durable, sometimes),
            Seen::Sent { frame, machine, .. } => self.sent(frame, *machine, sometimes),
            Seen::Refused { .. } => sometimes.reached("peer-refused"),
            Seen::Leads { machine, term, .. } => self.leads(*machine, *term, sometimes),
            // The first one of a life is what its own disk held.
            Seen::Restored { slot, .. } => {
                if !self.restored.insert(*slot) {
                    sometimes.reached("snapshot-installed");
                }
            }
            Seen::Applied { revision, entry, .. } if *revision > self.committed => {
                self.applies(now, *revision, decode(entry), sometimes);
            }
            Seen::EtcdMet { of, .. } if self.ready == Some(*of) => sometimes.reached("founder-late"),
            Seen::StepBegan { slot, step, .. } => self.step_begins(*slot, step, sometimes),
            Seen::StepEnded { slot, step, result } => self.step_ends(*slot, step, result.is_ok(), sometimes),
            Seen::Initialised { slot, attempt } => {
                if self.abandoned.contains_key(attempt) {
                    sometimes.reached("init-finished-late");
                }
                self.has_member(*slot);
            }
            Seen::EtcdAdded { slot, .. } => {
                self.has_member(*slot);
                self.in_etcd.extend(self.identity.get(slot).copied());
                self.added.extend(self.identity.get(slot).copied());
            }
            Seen::EtcdFormed { attempt, .. } => {
                self.etcd_forms(*attempt);
                sometimes.reached("etcd-founded-together");
            }
            Seen::EtcdLeft { gone, .. } => self.leaves_etcd(*gone, sometimes),
            Seen::Rebuilt { slot, revision, .. } => self.rebuilt(*slot, *revision, sometimes),
            Seen::Notice { notice, .. } => match notice.kind {
                NoticeKind::FoundingHalted => sometimes.reached("founding-halted"),
                NoticeKind::Clone | NoticeKind::OwnClone => sometimes.reached("clone-found"),
                _ => {}
            },
            Seen::KubeletUnheard { .. } => sometimes.reached("kubelet-unheard"),
            Seen::FaultBegins { index, fault, .. } => self.fault_begins(*index, fault.kind, sometimes),
            Seen::FaultEnds { index } => {
                self.faults.remove(index);
            }
            Seen::Healed => self.healed = Some(now),
            _ => self.suffers(seen),
        }
    }

    /// What was done to a machine's disk, or to its word.
    fn suffers(&mut self, seen: &Seen<'_>) {
        match seen {
            Seen::Damaged { slot } => drop(self.damaged.insert(*slot)),
            Seen::Copied { copy, original } => {
                let originals = self.identity.get(original).copied();
                self.excused.extend(originals);
                self.excused.extend(self.identity.get(copy).copied());
                // What its disk held before is as gone as if it had been wiped.
                self.wiped.extend(self.identity.get(copy).filter(|own| self.identity.get(original) != Some(own)));
            }
            Seen::Wiped { slot } => {
                self.wiped.extend(self.identity.get(slot).copied());
                self.emptied.extend(self.identity.get(slot).copied());
            }
            Seen::Renewed { slot } => self.wiped.extend(self.identity.get(slot).copied()),
            Seen::TwoFaced { slot } => {
                self.two_faced.insert(*slot);
                self.excused.extend(self.identity.get(slot).copied());
            }
            Seen::Forgot { slot } => self.excused.extend(self.identity.get(slot).copied()),
            _ => {}
        }
    }

    fn boots(&mut self, slot: Slot, machine: MachineId, durable: &Durable, sometimes: &mut Sometimes) {
        self.identity.insert(slot, machine);
        self.place_of.insert(machine, slot);
        self.running.insert(slot);
        if self.two_faced.contains(&slot) {
            self.excused.insert(machine);
        }
        if !self.others.contains(&slot) {
            self.founders.insert(slot);
        }
        if durable.accepted.is_some() && durable.charter.is_none() {
            sometimes.reached("vote-before-crash");
        }
        if self.lost.contains(&machine) {
            sometimes.reached("lost-comes-back");
        }
        if self.joined.contains(&machine) {
            sometimes.reached("came-back-after-ready");
        }
    }

    fn leads(&mut self, machine: MachineId, term: u64, sometimes: &mut Sometimes) {
        if self.leader.is_some_and(|leader| leader != machine) {
            sometimes.reached("leader-changed");
        }
        if term > self.last_term + 1 && self.last_term > 0 {
            sometimes.reached("split-vote");
        }
        // One that has been away believes for a moment that it leads a term that is over.
        if term >= self.last_term {
            self.last_term = term;
            self.leader = Some(machine);
        }
    }

    /// An entry is committed that nobody was seen to apply before.
    fn applies(&mut self, now: At, revision: Revision, entry: Option<Entry>, sometimes: &mut Sometimes) {
        self.committed = revision;
        self.commits.push((now, revision));
        let member = entry.as_ref().and_then(|entry| match entry {
            Entry::Removed { machine } => Some(*machine),
            _ => None,
        });
        let lost = member.filter(|machine| {
            let member = self.book.etcd_member(*machine) || self.in_etcd.contains(machine);
            member && !self.struck.contains(machine)
        });
        self.wished_away.extend(self.book.leaving().map(|(machine, _)| machine));
        self.book_before.clone_from(&self.book);
        self.told.insert(revision, entry.clone());
        let effective = self.book.enter(revision, entry.as_ref());
        self.etcd_lost = lost.filter(|_| effective);
        self.newest = entry.clone().filter(|_| effective).map(|entry| (revision, entry));
        if let Some(entry) = entry.filter(|_| effective) {
            self.commit(now, &entry, sometimes);
        }
    }

    fn step_begins(&mut self, slot: Slot, step: &Step, sometimes: &mut Sometimes) {
        match step {
            Step::Strike { node, .. } => self.given_up.extend(self.book.named(node)),
            Step::Found { before: Before::Part | Before::All, .. } => sometimes.reached("founder-went-on"),
            _ => {}
        }
        let count = self.steps.entry((slot, step.name())).or_default();
        *count += 1;
        if *count == 2 {
            sometimes.reached("step-repeated");
        }
    }

    fn step_ends(&self, slot: Slot, step: &Step, done: bool, sometimes: &mut Sometimes) {
        match step {
            _ if !done => sometimes.reached("step-failed"),
            Step::Renew { .. } | Step::RenewKubelet { .. } => sometimes.reached("certificates-renewed"),
            Step::Reset { .. } => {
                sometimes.reached("reset-run");
                let me = self.identity.get(&slot);
                if self.abandoned.values().any(|machine| Some(machine) == me) {
                    sometimes.reached("late-finisher-reset");
                }
            }
            _ => {}
        }
    }

    /// The list has all of them from the beginning, whether they have started or not.
    fn etcd_forms(&mut self, attempt: Attempt) {
        for founder in self.founders_of.get(&attempt).cloned().unwrap_or_default() {
            if let Some(place) = self.place_of.get(&founder) {
                self.etcd_of.insert(*place, founder);
                self.struck.remove(&founder);
            }
        }
    }

    fn leaves_etcd(&mut self, gone: Slot, sometimes: &mut Sometimes) {
        self.left_etcd = self.etcd_of.remove(&gone).or(self.identity.get(&gone).copied());
        if let Some(machine) = self.left_etcd {
            self.in_etcd.remove(&machine);
            self.struck.insert(machine);
            if self.wiped.contains(&machine) {
                sometimes.reached("wiped-member-removed");
            }
        }
    }

    fn fault_begins(&mut self, index: usize, sort: Sort, sometimes: &mut Sometimes) {
        use Sort::*;
        self.faults.insert(index);
        match sort {
            PowerLoss => sometimes.reached("power-lost"),
            CrashOnWrite | TornWrite | Full | IoError => sometimes.reached("crash-at-write"),
            Split | OneWay | Ring | Bridge | Flap if self.charters.is_empty() => {
                sometimes.reached("partition-while-founding");
                self.partitions.insert(index);
            }
            _ => {}
        }
    }

    /// Whether it is a machine's turn to be added to etcd, and another one has no member there by any committed entry: what etcd has of that
    /// one was left behind in a turn that was given up.
    pub(crate) fn left_behind(&self, by: Slot, machine: MachineId) -> bool {
        let holder = self.book.turn_holder();
        holder.is_some() && holder == self.identity.get(&by).copied() && !self.book.etcd_member(machine)
    }

    /// From here on a machine is the only control plane, and what it had is the ledger. What only the lost ones were told never was.
    fn rebuilt(&mut self, slot: Slot, revision: Revision, sometimes: &mut Sometimes) {
        let Some(by) = self.identity.get(&slot).copied() else { return };
        if self.told.split_off(&revision).is_empty() {
            self.book_before.clone_from(&self.book);
        } else {
            self.book.clone_from(&self.book_founded);
            for (revision, entry) in &self.told {
                self.book_before.clone_from(&self.book);
                self.book.enter(*revision, entry.as_ref());
            }
            self.entries.split_off(&revision);
            self.control_planes = self.book.control_planes();
            sometimes.reached("recovered-without-the-last");
        }
        let voters = self.first_voters.iter().filter(|voter| !self.removed.contains(*voter));
        let lost: BTreeSet<MachineId> =
            self.control_planes.iter().chain(voters).copied().filter(|machine| *machine != by).collect();
        self.book.rebuilt(revision, by, &lost);
        self.committed = revision;
        self.control_planes.retain(|machine| *machine == by);
        self.removed.extend(&lost);
        self.etcd_of.retain(|place, _| *place == slot);
        self.in_etcd.retain(|machine| *machine == by);
        self.joined.remove(&by);
        self.lost.extend(lost);
        sometimes.reached("recovered");
    }

    /// The member that etcd has at a place is that of the identity there.
    fn has_member(&mut self, slot: Slot) {
        if let Some(machine) = self.identity.get(&slot).copied() {
            self.etcd_of.insert(slot, machine);
            self.struck.remove(&machine);
        }
    }

    /// Whether another machine has begun to take an identity out.
    pub(crate) fn was_struck(&self, machine: MachineId) -> bool {
        self.given_up.contains(&machine)
    }

    /// The identities whose disks were wiped and that had been admitted.
    pub(crate) fn wiped_members(&self) -> BTreeSet<MachineId> {
        self.wiped.intersection(&self.admitted).copied().collect()
    }

    /// Whether the disk of an identity was wiped.
    pub(crate) fn is_wiped(&self, machine: MachineId) -> bool {
        self.wiped.contains(&machine)
    }

    /// What was committed by then.
    pub(crate) fn committed_by(&self, at: At) -> Option<Revision> {
        let count = self.commits.partition_point(|(when, _)| *when <= at);
        self.commits.get(count.checked_sub(1)?).map(|(_, revision)| *revision)
    }

    /// Machines that vote in Raft, or did.
    fn voters(&self) -> impl Iterator<Item = MachineId> + '_ {
        self.first_voters.iter().chain(&self.control_planes).chain(&self.removed).copied()
    }

    /// Whether these voters cannot keep a second charter from being chosen: enough others exist for a quorum of its own, when
    /// those of the voters do not count that forgot, or whose disks were copied. No protocol prevents it then, and fewer than
    /// 2T machines and votes that survive are what is assumed. A baseline policy is not excused: it is there to show this.
    pub(crate) fn cannot_bind(&self, voters: &BTreeSet<MachineId>) -> bool {
        let kept = voters.iter().filter(|voter| !self.excused.contains(voter) && !self.wiped.contains(voter)).count();
        !self.baseline && self.founders.len() - kept.min(self.founders.len()) >= self.quorum
    }

    /// The identities whose votes did not survive, or are those of more than one machine.
    pub(crate) fn forgetful(&self) -> BTreeSet<MachineId> {
        self.excused.union(&self.wiped).copied().collect()
    }

    /// Whether a fault has this machine answer two ways.
    pub(crate) fn answers_two_ways(&self, slot: Slot) -> bool {
        self.two_faced.contains(&slot)
    }

    /// Whether the process of this identity runs.
    pub(crate) fn runs(&self, machine: MachineId) -> bool {
        self.running.iter().any(|slot| self.identity.get(slot) == Some(&machine))
    }

    /// The image that the machine of an identity booted last.
    pub(crate) fn of_image(&self, machine: MachineId) -> Option<Digest> {
        let slot = self.identity.iter().find(|(_, identity)| **identity == machine).map(|(slot, _)| slot)?;
        self.images.get(slot).copied()
    }

    /// How many identities were ever seen.
    pub(crate) fn identities(&self) -> usize {
        self.sealing_keys.len()
    }

    fn persisted(&mut self, machine: MachineId, durable: &muster_wire::Durable, sometimes: &mut Sometimes) {
        if let Some(certificate) = &durable.charter
            && durable.cluster == CLUSTER
        {
            let first = *self.charter.get_or_insert(certificate.charter().id);
            self.founded_with.get_or_insert(certificate.charter().settings);
            if first == certificate.charter().id && self.first_voters.is_empty() {
                self.first_voters.extend(&certificate.charter().voters);
                self.book.found(self.control_planes_wanted, &self.first_voters, certificate.charter().settings);
                self.book_founded.clone_from(&self.book);
            }
            self.two_charters |= first != certificate.charter().id;
        }
        if durable.charter.is_some() && self.charters.insert(machine) && self.charters.len() > self.quorum {
            sometimes.reached("charter-followed-late");
        }
    }

    fn sent(&mut self, frame: &muster_wire::Frame, machine: MachineId, sometimes: &mut Sometimes) {
        use muster_wire::Frame;
        use muster_wire::frame::RefusalCause;
        match frame {
            Frame::Prepare(_) if self.charters.is_empty() => {
                if self.proposers.insert(machine) && self.proposers.len() > 1 {
                    sometimes.reached("competing-proposals");
                }
            }
            Frame::Refusal { cause: RefusalCause::Outbid, .. } => sometimes.reached("refused-ballot"),
            Frame::Promise(promise) if promise.accepted.is_some() => sometimes.reached("adopted-charter"),
            Frame::LedgerNews(news) if news.state.is_some() => sometimes.reached("ledger-as-a-whole"),
            Frame::ProposalAnswer { outcome: muster_wire::frame::ProposalOutcome::Refused(_), .. } => {
                sometimes.reached("proposal-refused");
            }
            _ => {}
        }
    }

    /// What an entry that took effect changes.
    fn commit(&mut self, now: At, entry: &Entry, sometimes: &mut Sometimes) {
        self.history.push(entry.clone());
        match entry {
            Entry::Admitted(admitted) => {
                self.admitted.insert(admitted.machine);
                let other = self.of_image(admitted.machine).is_some_and(|image| Some(image) != self.founded_with);
                if other && self.founded_with.is_some() {
                    sometimes.reached("later-image-admitted");
                }
                if admitted.role == Role::ControlPlane {
                    self.control_planes.insert(admitted.machine);
                }
            }
            Entry::Removed { machine } => {
                if self.book.is_dismissed(*machine) {
                    sometimes.reached("machine-dismissed");
                }
                self.removed.insert(*machine);
                self.control_planes.remove(machine);
                if self.claim.is_some_and(|(_, holder)| holder == *machine) {
                    self.abandon();
                }
            }
            Entry::Promoted { machine } => {
                self.control_planes.insert(*machine);
                sometimes.reached("worker-promoted");
            }
            Entry::BackedUp(backup) => {
                self.backups.push((backup.clone(), now));
                sometimes.reached("backed-up");
            }
            Entry::BackupKept { .. } => sometimes.reached("backup-copied"),
            Entry::RemovalHeld { .. } => sometimes.reached("removal-held"),
            Entry::Left { .. } => sometimes.reached("joined-anew"),
            Entry::Founds { attempt, machine } => drop(self.begins.insert((*attempt, *machine))),
            Entry::InitClaimed { attempt, machine, founders } => {
                self.founders_of.insert(*attempt, founders.iter().copied().collect());
                self.claim = Some((*attempt, *machine));
                self.claims.insert(*attempt, *machine);
                self.claimed_at = now;
                if *attempt > Attempt(1) {
                    sometimes.reached("initialiser-replaced");
                }
            }
            Entry::InitReady { attempt, .. } => {
                self.ready = Some(*attempt);
                self.claim = None;
            }
            Entry::InitAbandoned { .. } => self.abandon(),
            Entry::Turn(turn) if turn.kind == TurnKind::Etcd => {
                self.etcd_turn(now, turn.holder, turn.change, sometimes)
            }
            Entry::Turn(turn) => {
                self.disrupted.insert(turn.holder);
                sometimes.reached("disrupt-turn");
            }
            Entry::LevelRaised { .. } => sometimes.reached("level-raised"),
            Entry::Joined { machine } => {
                self.joined.insert(*machine);
                if !self.faults.is_empty() {
                    sometimes.reached("joined-with-faults");
                }
            }
            _ => {}
        }
    }

    fn etcd_turn(&mut self, now: At, machine: MachineId, change: TurnChange, sometimes: &mut Sometimes) {
        match change {
            TurnChange::Started => {
                self.turns.insert(machine);
                self.turn_since = now;
                self.added.remove(&machine);
                return;
            }
            TurnChange::Done => drop(self.turns_done.insert(machine)),
            TurnChange::GaveUp => sometimes.reached("etcd-turn-given-up"),
        }
        self.turn_ended = Some((machine, change));
    }

    fn abandon(&mut self) {
        if let Some((attempt, machine)) = self.claim.take() {
            self.abandoned.insert(attempt, machine);
        }
    }
}
