//! Raft: openraft as the agent runs it, on a disk, a network and a clock of the world.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use muster_consensus::seeded::{Executor, Seeded};
use muster_consensus::{Call, Config, Consensus, Disk, Done, Event as RaftEvent, OpenError, SeatError, Then};
use muster_protocol::{NextEpoch, Time};
use muster_wire::{CallNumber, Charter, Entry, MachineId, Revision};
use tokio::sync::mpsc;

use super::World;
use super::chance::MS;
use super::event::{At, Event, Slot};
use super::platter::Strike;
use crate::scenario::{self, Sort};
use crate::watch::Seen;

/// Polls of Raft's tasks at one moment; more mean that they keep each other busy without time passing.
const POLLS_MAX: u64 = 1_000_000;

/// A proposal's number that no machine gives.
const NOBODY: CallNumber = CallNumber(u64::MAX);

/// What a task of Raft's came to.
#[derive(Debug)]
enum End {
    Opened(Box<Result<Consensus<Seeded>, OpenError>>),
    Done(Done),
}

/// What a machine's Raft runs on while its process does: its runtime, and the way out of it.
pub(crate) struct Voter {
    executor: Executor,
    outgoing: mpsc::Receiver<Call>,
    events: mpsc::Receiver<RaftEvent>,
    ends: Arc<Mutex<Vec<End>>>,
    /// The machine's clock when the executor's stood at zero.
    begun: Time,
    driving: bool,
    alarm: Option<At>,
    /// What its Raft said last of who leads, and in which term.
    leads: Option<(u64, Option<MachineId>)>,
}

impl Voter {
    /// The clock was set: the alarm is for another moment now.
    pub(super) fn forget_alarm(&mut self) {
        self.alarm = None;
    }
}

impl World {
    /// What a machine's Raft says of who leads, and in which term; none if it runs none or has not said.
    pub(crate) fn raft_leads(&self, slot: Slot) -> Option<(u64, Option<MachineId>)> {
        let host = &self.hosts[slot as usize];
        host.voter.as_ref().filter(|_| !host.paused)?.leads
    }

    pub(super) fn raft_start(&mut self, slot: Slot, charter: &Charter) {
        let host = &mut self.hosts[slot as usize];
        let config = Config { level: host.level, ..raft_config(&self.scenario.raft) };
        let Some(machine) = &host.machine else { return };
        let (platter, begun) = (host.platter.clone(), host.raft_begun);
        let open = || Disk::open_on("raft.redb", platter.clone());
        let mark = || {
            if platter.struck().is_some() {
                return Err("the process is dead".to_owned());
            }
            host.raft_begun = true;
            host.disk.begin_raft();
            Ok(())
        };
        let started = host.seat.start(config, charter, machine.ledger(), begun, open, mark);
        if self.raft_is_struck(slot) {
            return;
        }
        let started = match started {
            Ok(Some(started)) => started,
            Ok(None) => return,
            Err(why) => return self.raft_fails(slot, &why),
        };
        let host = &mut self.hosts[slot as usize];
        let executor = Executor::new(self.chance.fixed("raft", slot.into(), host.life.into()));
        let sync = self.chance.fixed_draw(self.scenario.disk.sync_ms, MS, "raft sync", slot.into(), host.life.into());
        executor.set_disk_delay(Duration::from_micros(sync.max(1)));
        let ends = Arc::new(Mutex::new(Vec::new()));
        let (opening, told) = (started.opening, ends.clone());
        executor.spawn(async move { push(&told, End::Opened(Box::new(opening.open().await))) });
        host.voter = Some(Box::new(Voter {
            executor,
            outgoing: started.calls,
            events: started.events,
            ends,
            begun: host.clock.show(self.now),
            driving: false,
            alarm: None,
            leads: None,
        }));
        self.raft_drive(slot);
    }

    /// A person's word makes this machine's store anew. What it had told anybody before it died in that is told to nobody.
    pub(super) fn raft_rebuild(&mut self, slot: Slot, charter: &Charter, known: &[u8], next: NextEpoch) {
        let host = &self.hosts[slot as usize];
        let (platter, level, machine) = (host.platter.clone(), host.level, host.me);
        let disk = Disk::open_on("raft.redb", platter).map_err(OpenError::from).map_err(SeatError::from);
        let rebuilt = disk.and_then(|disk| host.seat.rebuild(charter, known, next, level, &disk));
        if self.raft_is_struck(slot) {
            return;
        }
        match rebuilt {
            Ok(rebuilt) => {
                // Nobody knew of them that they were committed; from here on they are.
                for (revision, entry) in &rebuilt.tail {
                    self.see(Seen::Applied { slot, machine, revision: *revision, entry });
                }
                let known = self.known_to_others(slot, rebuilt.ledger.epoch().number);
                self.see(Seen::Rebuilt { slot, revision: rebuilt.ledger.revision(), known });
                self.raft_start(slot, charter);
            }
            Err(why) => self.raft_fails(slot, &why),
        }
    }

    /// The latest revision of an earlier epoch that a machine has which this one could ask in time: nothing but lost power stands in the way.
    fn known_to_others(&self, slot: Slot, epoch: u32) -> Revision {
        if self.active.iter().any(|active| self.plan[active.index].kind != Sort::PowerLoss) {
            return Revision::NONE;
        }
        let others = self.hosts.iter().filter(|host| host.slot != slot && host.power == super::Power::On);
        let ledgers = others.filter_map(|host| Some(host.machine.as_ref()?.ledger()));
        ledgers
            .filter(|ledger| ledger.epoch().number < epoch)
            .map(|ledger| ledger.revision())
            .max()
            .unwrap_or(Revision::NONE)
    }

    pub(super) fn raft_call_election(&mut self, slot: Slot) {
        self.hosts[slot as usize].seat.call_election();
        self.raft_carry_on(slot);
    }

    pub(super) fn raft_voters(&mut self, slot: Slot, voters: BTreeSet<MachineId>) {
        self.hosts[slot as usize].seat.set_voters(voters);
        self.raft_carry_on(slot);
    }

    pub(super) fn raft_propose(&mut self, slot: Slot, call: CallNumber, entry: Entry) {
        let entry = entry.encode();
        let late = self
            .active
            .iter()
            .find(|fault| self.plan[fault.index].kind == Sort::LateProposals && fault.targets.contains(&slot));
        if let Some(fault) = late.filter(|_| self.hosts[slot as usize].voter.is_some()).map(|fault| fault.index) {
            let most = self.plan[fault].ms.unwrap_or(0.0);
            let (at, life) = (self.now + self.chance.draw([0.0, most], MS), self.hosts[slot as usize].life);
            self.events.push(at, Event::ProposeAgain { slot, life, fault, entry: Box::new(entry.clone()) });
        }
        self.raft_ask(slot, call, entry);
    }

    /// A proposal that nobody waits for any more reaches Raft after all: the ledger's rules alone must judge it.
    pub(super) fn raft_propose_again(&mut self, slot: Slot, life: u32, fault: usize, entry: Bytes) {
        if self.hosts[slot as usize].life == life && self.hosts[slot as usize].voter.is_some() {
            self.took(fault);
            self.raft_ask(slot, NOBODY, entry);
        }
    }

    /// An entry that nobody asked for reaches Raft.
    pub(super) fn raft_propose_stray(&mut self, slot: Slot, entry: &Entry) {
        if self.hosts[slot as usize].voter.is_some() {
            self.took_on(slot, &[Sort::StrayProposals, Sort::DisruptTurns]);
            self.raft_ask(slot, NOBODY, entry.encode());
        }
    }

    fn raft_ask(&mut self, slot: Slot, call: CallNumber, entry: Bytes) {
        self.hosts[slot as usize].seat.propose(call, entry);
        self.raft_carry_on(slot);
    }

    pub(super) fn raft_called(&mut self, slot: Slot, from: MachineId, call: CallNumber, body: Bytes) {
        self.hosts[slot as usize].seat.called(from, call, body);
        self.raft_carry_on(slot);
    }

    pub(super) fn raft_answered(&mut self, slot: Slot, from: MachineId, call: CallNumber, body: Bytes) {
        self.hosts[slot as usize].seat.answered(from, call, body);
        self.raft_drive(slot);
    }

    /// A connection is gone, and the calls that went over it.
    pub(super) fn raft_unreachable(&mut self, slot: Slot, peer: MachineId) {
        self.hosts[slot as usize].seat.unreachable(peer);
        self.raft_drive(slot);
    }

    /// Raft alone ends, and the process goes on. Its tasks are gone at once; a real one waits until they are.
    pub(super) fn raft_stops(&mut self, slot: Slot) {
        let host = &mut self.hosts[slot as usize];
        host.voter = None;
        drop(host.seat.stop());
        self.raft_follow(slot);
    }

    pub(super) fn raft_timer(&mut self, slot: Slot, life: u32) {
        let host = &mut self.hosts[slot as usize];
        if host.life == life
            && let Some(voter) = &mut host.voter
            && voter.alarm == Some(self.now)
        {
            voter.alarm = None;
            self.raft_drive(slot);
        }
    }

    /// Does what follows for the seat.
    fn raft_follow(&mut self, slot: Slot) {
        // What the machine does about it may end the process, and with it the seat.
        while let Some(then) = self.hosts[slot as usize].seat.follows() {
            match then {
                Then::Run(work) => {
                    let Some(voter) = &self.hosts[slot as usize].voter else { continue };
                    let ends = voter.ends.clone();
                    voter.executor.spawn(async move { push(&ends, End::Done(work.run().await)) });
                }
                Then::Input(input) => self.feed(slot, input),
                Then::Send(to, frame) => self.send(slot, to, frame),
            }
        }
    }

    fn raft_carry_on(&mut self, slot: Slot) {
        self.raft_follow(slot);
        self.raft_drive(slot);
    }

    /// Lets Raft's tasks run as far as they come at this moment, and carries what they say where it belongs.
    pub(super) fn raft_drive(&mut self, slot: Slot) {
        let host = &mut self.hosts[slot as usize];
        let life = host.life;
        let Some(voter) = &mut host.voter else { return };
        // What the machine does about something that Raft said may lead back here; the loop below sees to it.
        if voter.driving || host.paused {
            return;
        }
        voter.driving = true;
        loop {
            let host = &mut self.hosts[slot as usize];
            let Some(voter) = host.voter.as_mut().filter(|_| host.life == life) else { return };
            voter.executor.advance(host.clock.show(self.now).since(voter.begun));
            if voter.executor.run(POLLS_MAX) >= POLLS_MAX {
                self.see(Seen::Livelock { last: format!("Raft's tasks on machine {slot}") });
                return;
            }
            if self.raft_is_struck(slot) {
                return;
            }
            if !self.raft_carry(slot) {
                break;
            }
        }
        self.raft_set_alarm(slot, life);
    }

    /// Whether a write of Raft's has killed the process. What Raft would say of it is said by nobody.
    fn raft_is_struck(&mut self, slot: Slot) -> bool {
        let Some(strike) = self.hosts[slot as usize].platter.struck() else { return false };
        let sort = if strike == Strike::Torn { Sort::TornWrite } else { Sort::CrashOnWrite };
        self.last_took_on(slot, &[sort]);
        self.crash_and_restart(slot);
        true
    }

    fn raft_set_alarm(&mut self, slot: Slot, life: u32) {
        let host = &mut self.hosts[slot as usize];
        let Some(voter) = host.voter.as_mut().filter(|_| host.life == life) else { return };
        voter.driving = false;
        let Some(due) = voter.executor.next_timer() else { return };
        let at = host.clock.when(voter.begun + (due + Duration::from_nanos(999))).max(self.now);
        // An alarm that rings too early only looks again.
        if voter.alarm.is_none_or(|alarm| at < alarm || alarm < self.now) {
            voter.alarm = Some(at);
            self.events.push(at, Event::RaftTimer { slot, life });
        }
    }

    /// Takes one thing that Raft has to say. False if there is none.
    fn raft_carry(&mut self, slot: Slot) -> bool {
        let host = &mut self.hosts[slot as usize];
        let Some(voter) = &mut host.voter else { return false };
        if let Ok(event) = voter.events.try_recv() {
            self.raft_event(slot, event);
            return true;
        }
        if let Ok(call) = voter.outgoing.try_recv() {
            let to = call.to;
            if let Some(frame) = host.seat.call(call) {
                self.send(slot, to, frame);
            }
            return true;
        }
        let mut ends = voter.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let next = if ends.is_empty() { None } else { Some(ends.remove(0)) };
        drop(ends);
        match next {
            None => return false,
            Some(End::Opened(opened)) => {
                if let Err(why) = host.seat.opened(*opened) {
                    self.raft_fails(slot, &why);
                }
            }
            Some(End::Done(done)) => host.seat.done(done),
        }
        self.raft_follow(slot);
        true
    }

    fn raft_event(&mut self, slot: Slot, event: RaftEvent) {
        let machine = self.hosts[slot as usize].me;
        if let (RaftEvent::Leading { term, leader }, Some(voter)) = (&event, &mut self.hosts[slot as usize].voter) {
            voter.leads = Some((*term, *leader));
        }
        match &event {
            RaftEvent::Restored { revision, .. } => self.see(Seen::Restored { slot, machine, revision: *revision }),
            RaftEvent::Applied { revision, entry } => {
                self.see(Seen::Applied { slot, machine, revision: *revision, entry });
            }
            RaftEvent::Leading { term, leader: Some(leader) } => {
                self.see(Seen::Term { slot, machine, term: *term });
                if *leader == machine {
                    self.see(Seen::Leads { slot, machine, term: *term });
                }
            }
            RaftEvent::Leading { leader: None, .. } | RaftEvent::Members(_) | RaftEvent::Stopped { .. } => {}
        }
        match self.hosts[slot as usize].seat.heard(event) {
            Ok(Some(input)) => self.feed(slot, input),
            Ok(None) => {}
            Err(why) => self.raft_fails(slot, &why),
        }
    }

    /// What Raft cannot write it must not say: the process ends, as the agent's does.
    fn raft_fails(&mut self, slot: Slot, why: &SeatError) {
        let words = why.to_string();
        self.see(Seen::RefusedStart { slot, raft: Some(why), why: &words });
        self.crash_and_restart(slot);
        if why.lasts() {
            self.hosts[slot as usize].power = super::Power::Refuses(words);
        }
    }

    /// Voters as this machine's Raft has them.
    pub(crate) fn raft_voting(&self, slot: Slot) -> Option<BTreeSet<MachineId>> {
        Some(self.hosts[slot as usize].seat.members()?.0)
    }

    /// Voters and learners as this machine's Raft has them.
    pub(crate) fn raft_members(&self, slot: Slot) -> Option<BTreeSet<MachineId>> {
        let (voters, learners) = self.hosts[slot as usize].seat.members()?;
        Some(voters.into_iter().chain(learners).collect())
    }
}

/// Raft's times and bounds, as the scenario has them.
fn raft_config(times: &scenario::Raft) -> Config {
    Config {
        heartbeat: Duration::from_millis(times.heartbeat_ms),
        election_min: Duration::from_millis(times.election_ms[0]),
        election_max: Duration::from_millis(times.election_ms[1]),
        snapshot_after: times.snapshot_after,
        keep: times.keep,
        ..Config::default()
    }
}

fn push(ends: &Mutex<Vec<End>>, end: End) {
    ends.lock().unwrap_or_else(PoisonError::into_inner).push(end);
}
