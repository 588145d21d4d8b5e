//! Faults begin, turn and end.

use muster_protocol::Renewal;
use muster_wire::MachineId;

use super::World;
use super::chance::{MS, S, seconds};
use super::disk::Found;
use super::event::{At, Event, Slot};
use super::host::{NextWrite, Power};
use super::platter::{Platter, Strike};
use crate::scenario::{Fault, Pick, Sort};
use crate::watch::Seen;

/// A fault under way.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) index: usize,
    pub(crate) targets: Vec<Slot>,
}

impl World {
    pub(super) fn fault_begins(&mut self, index: usize) {
        let fault = self.plan[index].clone();
        let targets = self.targets(&fault.machines);
        self.see(Seen::FaultBegins { fault: &fault, index, targets: &targets });
        // Sybils are nobody of the image's machines.
        self.fared[index].begun = true;
        self.fared[index].named = !targets.is_empty() || fault.kind == Sort::Sybil;
        let ends = self.now + seconds(fault.for_s);
        let heal = seconds(self.scenario.phases.faults_s);
        self.active.push(Active { index, targets: targets.clone() });
        self.events.push(if self.now < heal { ends.min(heal) } else { ends }, Event::FaultEnds(index));
        if self.net.begin(index, &fault, &targets) {
            if fault.kind == Sort::Flap {
                self.events.push(self.now + seconds(fault.period_s.unwrap_or(1.0)), Event::FaultTurns(index, 1));
            }
            return self.doubt_links();
        }
        for slot in &targets {
            if self.hit(*slot, &fault) {
                self.took(index);
            }
        }
        match fault.kind {
            Sort::CrashLoop | Sort::StrayProposals | Sort::DisruptTurns => self.fault_turns(index, 0),
            Sort::Clone => {
                if let [copy, original] = targets[..2.min(targets.len())] {
                    let (disk, platter) =
                        (self.hosts[original as usize].disk.clone(), self.hosts[original as usize].platter.copy());
                    // What kubeadm left is copied too; its processes would listen at another machine's addresses.
                    let kube = self.hosts[original as usize].kube.clone();
                    let kube = super::kubeadm::Kube { etcd: false, serves: false, ready: false, ..kube };
                    self.fared[index].took = !disk.is_empty();
                    self.crash(copy);
                    let host = &mut self.hosts[copy as usize];
                    host.held_down += 1;
                    host.disk.copy_from(&disk);
                    host.platter = platter;
                    host.kube = kube;
                    host.excused = true;
                    self.hosts[original as usize].excused = true;
                    self.see(Seen::Copied { copy, original });
                }
            }
            Sort::Sybil => {
                let first = self.scenario.machines;
                for slot in first..(first + fault.count.unwrap_or(0)).min(self.slots()) {
                    self.boot(slot);
                    self.fared[index].took |= self.hosts[slot as usize].power == Power::On;
                }
            }
            _ => {}
        }
        self.doubt_links();
    }

    /// A machine is hit. Says whether that changed anything already.
    fn hit(&mut self, slot: Slot, fault: &Fault) -> bool {
        let (kind, ms, ppm) = (&fault.kind, fault.ms.unwrap_or(0.0), fault.ppm.unwrap_or(0.0));
        let at = slot as usize;
        let runs = self.hosts[at].power == Power::On;
        match kind {
            Sort::Crash | Sort::Restart | Sort::Image | Sort::Wipe | Sort::OldCopy | Sort::BitRot | Sort::LogLost => {
                self.hosts[at].level = fault.level.unwrap_or(self.hosts[at].level);
                self.crash(slot);
                self.hosts[at].held_down += 1;
                let changed = self.change_disk(slot, kind, fault.copy);
                // What is named for the disk is about the disk.
                return if matches!(kind, Sort::Crash | Sort::Restart | Sort::Image) { runs } else { changed };
            }
            Sort::PowerLoss | Sort::EtcdEmptied => {
                self.dark[at] = true;
                self.crash(slot);
                let emptied = *kind == Sort::EtcdEmptied && self.empty_etcd(slot);
                let host = &mut self.hosts[at];
                host.held_down += 1;
                // What was in memory only.
                host.kube.files.retain(|path, _| !path.starts_with("/run/"));
                if host.disk.lose_power() | host.platter.lose_power() {
                    host.excused = true;
                    self.took_on(slot, &[Sort::LyingSync]);
                    self.see(Seen::Forgot { slot });
                }
                return if *kind == Sort::PowerLoss { runs } else { emptied };
            }
            Sort::Pause => {
                self.dark[at] = true;
                return !std::mem::replace(&mut self.hosts[at].paused, true) && runs;
            }
            Sort::Slow => self.hosts[at].slow_us = (ms * MS) as At,
            Sort::CrashOnWrite => {
                let after = self.chance.happens(0.5);
                let (next, strike) = match after {
                    true => (NextWrite::CrashAfter, Strike::After),
                    false => (NextWrite::CrashBefore, Strike::Before),
                };
                self.strike(slot, next, strike);
            }
            Sort::TornWrite => self.strike(slot, NextWrite::Torn, Strike::Torn),
            Sort::Misdirected => self.hosts[at].next_write = Some(NextWrite::Misdirected),
            Sort::TwoFaced => {
                self.hosts[at].excused = true;
                self.see(Seen::TwoFaced { slot });
            }
            Sort::Full | Sort::IoError => {
                self.hosts[at].next_write = Some(NextWrite::Fails);
                self.hosts[at].platter.set_failing(true);
            }
            Sort::LyingSync => {
                self.hosts[at].disk.begin_lying();
                self.hosts[at].platter.set_lying(true);
            }
            Sort::CertificatesDue => return self.certificates_age(slot, Renewal::Due),
            Sort::CertificatesOver => return self.certificates_age(slot, Renewal::Overdue),
            Sort::ClockDrift => {
                self.hosts[at].clock.drift(self.now, ppm);
                self.reset_alarm(slot);
                return runs && ppm != 0.0 && fault.for_s > 0.0;
            }
            Sort::ClockJump => {
                self.hosts[at].clock.jump(self.now, (ms * MS) as At);
                self.reset_alarm(slot);
                return runs && ms > 0.0;
            }
            _ => {}
        }
        // The others are noted when something comes of them.
        false
    }

    /// The next write of the state file, or as often one of Raft's soon, where Raft runs.
    fn strike(&mut self, slot: Slot, next: NextWrite, strike: Strike) {
        const SOON: u64 = 24;
        let draw = self.chance.fixed("which file", slot.into(), self.now);
        let host = &mut self.hosts[slot as usize];
        if host.voter.is_some() && draw.is_multiple_of(2) {
            host.platter.arm(strike, ((draw >> 1) % SOON) as u32);
        } else {
            host.next_write = Some(next);
        }
    }

    /// What has become of a machine's certificates, as its files say. Says whether that changed anything.
    fn certificates_age(&mut self, slot: Slot, renewal: Renewal) -> bool {
        let kube = &mut self.hosts[slot as usize].kube;
        // They last for longer than it takes to be Ready.
        if !kube.ready || kube.renewal >= renewal {
            return false;
        }
        kube.renewal = renewal;
        if renewal == Renewal::Overdue {
            (kube.ready, kube.serves) = (false, false);
        }
        self.look_at_certificates(slot);
        true
    }

    /// Says whether it is another disk now.
    fn change_disk(&mut self, slot: Slot, kind: &Sort, copy: Option<i32>) -> bool {
        let any = self.chance.fixed("copy", slot.into(), self.now);
        let host = &mut self.hosts[slot as usize];
        match kind {
            Sort::Wipe => {
                let empty = host.disk.is_empty();
                host.disk.wipe();
                host.kube = super::kubeadm::Kube::default();
                host.platter = Platter::default();
                self.see(Seen::Wiped { slot });
                !empty
            }
            Sort::OldCopy => {
                let changed = match copy {
                    Some(copy) => host.disk.restore_old(copy),
                    None => host.disk.restore_any(any),
                };
                if changed {
                    host.excused = true;
                    // Raft's own file is as old. One from a later time is left as it is.
                    if host.disk.is_before_charter() {
                        host.platter = Platter::default();
                    }
                    self.see(Seen::Forgot { slot });
                }
                changed
            }
            Sort::LogLost => {
                let (there, begun) = (!host.platter.is_empty(), host.disk.has_begun_raft());
                host.platter = Platter::default();
                if there {
                    self.see(Seen::Damaged { slot });
                }
                if begun {
                    self.see(Seen::LogGone { slot });
                }
                there
            }
            Sort::BitRot => {
                // Either of its two files, as chance has it.
                let at = self.chance.fixed("rot", slot.into(), self.now);
                let host = &mut self.hosts[slot as usize];
                let rots = if at.is_multiple_of(2) {
                    let there = !host.disk.is_empty() && *host.disk.read() != Found::Broken;
                    host.disk.break_file();
                    there
                } else {
                    host.platter.rot(at / 2);
                    !host.platter.is_empty()
                };
                if rots {
                    self.see(Seen::Damaged { slot });
                }
                rots
            }
            _ => false,
        }
    }

    pub(super) fn fault_turns(&mut self, index: usize, turn: u32) {
        let Some(active) = self.active.iter().find(|active| active.index == index) else { return };
        let targets = active.targets.clone();
        let period = seconds(self.plan[index].period_s.unwrap_or(1.0));
        match self.plan[index].kind {
            Sort::Flap => {
                self.net.turn(index, turn.is_multiple_of(2));
                self.doubt_links();
            }
            Sort::CrashLoop => {
                for slot in targets {
                    if self.crash(slot) {
                        self.took(index);
                    }
                    self.events.push(self.now + period / 4, Event::Boot { slot });
                }
            }
            Sort::StrayProposals => targets.into_iter().for_each(|slot| self.propose_stray(slot)),
            Sort::DisruptTurns => targets.into_iter().for_each(|slot| self.propose_disruption(slot)),
            _ => return,
        }
        self.events.push(self.now + period, Event::FaultTurns(index, turn + 1));
    }

    pub(super) fn fault_ends(&mut self, index: usize) {
        let Some(place) = self.active.iter().position(|active| active.index == index) else { return };
        if self.writes_failed(index) {
            self.took(index);
        }
        let active = self.active.remove(place);
        let kind = self.plan[index].kind;
        self.see(Seen::FaultEnds { index });
        if self.net.end(index) {
            self.took(index);
        }
        for slot in active.targets.iter().copied() {
            self.release(slot, kind);
        }
        if kind == Sort::Sybil {
            for slot in self.scenario.machines..self.slots() {
                self.crash(slot);
            }
        }
        if kind == Sort::Clone
            && let Some(copy) = active.targets.first().copied()
        {
            self.release(copy, Sort::Crash);
        }
    }

    fn release(&mut self, slot: Slot, kind: Sort) {
        let at = slot as usize;
        match kind {
            Sort::Crash
            | Sort::Restart
            | Sort::Image
            | Sort::Wipe
            | Sort::OldCopy
            | Sort::BitRot
            | Sort::LogLost
            | Sort::EtcdEmptied
            | Sort::PowerLoss => {
                self.hosts[at].held_down = self.hosts[at].held_down.saturating_sub(1);
                let after = self.chance.draw(self.scenario.boots.restart_s, S);
                self.events.push(self.now + after, Event::Boot { slot });
            }
            Sort::Pause => {
                if std::mem::take(&mut self.hosts[at].paused) {
                    self.dark[at] = false;
                    self.carry_on(slot);
                    self.reset_alarm(slot);
                    self.raft_drive(slot);
                }
            }
            Sort::Slow => self.hosts[at].slow_us = 0,
            Sort::KubeadmHang => self.end_hung_steps(slot),
            Sort::CrashOnWrite | Sort::TornWrite | Sort::Misdirected | Sort::Full | Sort::IoError => {
                self.hosts[at].next_write = None;
                self.hosts[at].platter.disarm();
                self.hosts[at].platter.set_failing(false);
            }
            Sort::LyingSync => {
                self.hosts[at].disk.end_lying();
                self.hosts[at].platter.set_lying(false);
            }
            Sort::ClockDrift => {
                self.hosts[at].clock.drift(self.now, 0.0);
                self.reset_alarm(slot);
            }
            _ => {}
        }
    }

    /// Whom a fault hits now.
    pub(super) fn targets(&self, pick: &Pick) -> Vec<Slot> {
        let by_id = |id: Option<MachineId>| id.and_then(|id| self.directory.get(&id).copied()).into_iter().collect();
        match pick {
            Pick::These(these) => these.clone(),
            Pick::All => (0..self.scenario.machines).collect(),
            Pick::Leader => by_id(self.watch.leader()),
            Pick::Initialiser => by_id(self.watch.initialiser()),
            Pick::Maker => by_id(self.watch.truth.book.maker()),
            Pick::TurnHolder => by_id(self.watch.truth.book.turn_holder()),
            Pick::ControlPlanes => self.watch.control_planes().flat_map(|id| by_id(Some(id))).collect::<Vec<_>>(),
            Pick::PlanesButOne => {
                self.watch.control_planes().skip(1).flat_map(|id| by_id(Some(id))).collect::<Vec<_>>()
            }
            Pick::PlaneLeft => self.watch.control_planes().take(1).flat_map(|id| by_id(Some(id))).collect::<Vec<_>>(),
            Pick::Proposer => {
                let up = self.hosts.iter().filter(|host| host.power == Power::On && !host.extra);
                up.min_by_key(|host| host.me).map(|host| host.slot).into_iter().collect()
            }
            // The plan has named these already.
            Pick::Random(_) | Pick::Half => Vec::new(),
        }
    }
}
