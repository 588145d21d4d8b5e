//! Raft: openraft as the agent runs it, on a disk, a network and a clock of the world.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use muster_consensus::seeded::{Executor, Seeded};
use muster_consensus::{Calls, Config, Consensus, Disk, Event as RaftEvent, ProposeError, Store};
use muster_protocol::{Input, Ledger, Time};
use muster_wire::frame::ProposalOutcome;
use muster_wire::{Charter, Entry, Frame, MachineId};
use tokio::sync::mpsc;

use super::World;
use super::chance::MS;
use super::event::{At, Event, Slot};
use super::platter::{Platter, Strike};
use crate::scenario::Sort;
use crate::watch::Seen;

/// Polls of Raft's tasks at one moment; more mean that they keep each other busy without time passing.
const POLLS_MAX: u64 = 1_000_000;

/// A proposal's number that no machine gives.
const NOBODY: u64 = u64::MAX;

/// What Raft's tasks have for the machine.
#[derive(Debug)]
enum Done {
    Opened(Box<Consensus<Seeded>>),
    Failed(String),
    Proposed { call: u64, outcome: ProposalOutcome },
    Answer { to: MachineId, call: u64, body: Bytes },
    VotersSet,
}

/// A machine's Raft while its process runs.
pub(crate) struct Voter {
    executor: Executor,
    consensus: Option<Consensus<Seeded>>,
    calls: Calls,
    outgoing: mpsc::Receiver<muster_consensus::Call>,
    events: mpsc::Receiver<RaftEvent>,
    done: Arc<Mutex<Vec<Done>>>,
    /// What was asked for before Raft was open.
    waiting: Vec<Ask>,
    charter: Charter,
    /// The machine's clock when the executor's stood at zero.
    begun: Time,
    driving: bool,
    alarm: Option<At>,
    setting_voters: bool,
}

impl Voter {
    /// The clock was set: the alarm is for another moment now.
    pub(super) fn forget_alarm(&mut self) {
        self.alarm = None;
    }
}

enum Ask {
    Initialize(BTreeSet<MachineId>),
    Propose { call: u64, entry: Bytes },
    Voters(BTreeSet<MachineId>),
    Called { from: MachineId, call: u64, body: Bytes },
}

impl World {
    pub(super) fn raft_start(&mut self, slot: Slot, charter: &Charter) {
        let host = &mut self.hosts[slot as usize];
        if host.voter.is_some() {
            return;
        }
        let seed = self.chance.fixed("raft", slot.into(), host.life.into());
        let executor = Executor::new(seed);
        let sync = self.chance.fixed_draw(self.scenario.disk.sync_ms, MS, "raft sync", slot.into(), host.life.into());
        executor.set_disk_delay(Duration::from_micros(sync.max(1)));
        let (calls, outgoing) = mpsc::channel(256);
        let (tell, events) = mpsc::channel(1_024);
        let done = Arc::new(Mutex::new(Vec::new()));
        let Some(machine) = &host.machine else { return };
        let (platter, me, trusted) = (host.platter.clone(), host.me, machine.ledger().raft_callers(charter));
        let (cluster, founded, told) = (charter.id, Ledger::founded(charter), done.clone());
        // As the agent: a store that was begun and is empty now has lost its votes, and is no beginning.
        let begun = host.raft_begun;
        let times = &self.scenario.raft;
        let config = Config {
            heartbeat: Duration::from_millis(times.heartbeat_ms),
            election_min: Duration::from_millis(times.election_ms[0]),
            election_max: Duration::from_millis(times.election_ms[1]),
            snapshot_after: times.snapshot_after,
            keep: times.keep,
            level: host.level,
            ..Config::default()
        };
        executor.spawn(async move {
            let opened = open(config, platter, begun, (cluster, founded), me, trusted, (calls, tell)).await;
            push(
                &told,
                match opened {
                    Ok(consensus) => Done::Opened(Box::new(consensus)),
                    Err(why) => Done::Failed(why),
                },
            );
        });
        host.voter = Some(Box::new(Voter {
            executor,
            consensus: None,
            calls: Calls::default(),
            outgoing,
            events,
            done,
            waiting: Vec::new(),
            charter: charter.clone(),
            begun: host.clock.show(self.now),
            driving: false,
            alarm: None,
            setting_voters: false,
        }));
        self.raft_drive(slot);
    }

    pub(super) fn raft_initialize(&mut self, slot: Slot) {
        let Some(voter) = &self.hosts[slot as usize].voter else { return };
        let voters = voter.charter.voters.iter().copied().collect();
        self.raft_ask(slot, Ask::Initialize(voters));
    }

    pub(super) fn raft_voters(&mut self, slot: Slot, voters: BTreeSet<MachineId>) {
        let Some(voter) = &mut self.hosts[slot as usize].voter else { return };
        if !std::mem::replace(&mut voter.setting_voters, true) {
            self.raft_ask(slot, Ask::Voters(voters));
        }
    }

    pub(super) fn raft_propose(&mut self, slot: Slot, call: u64, entry: Entry) {
        if self.hosts[slot as usize].voter.is_none() {
            return self.feed(slot, Input::Proposed { call, outcome: ProposalOutcome::NotLeading(None) });
        }
        let entry = entry.encode();
        let late = self
            .active
            .iter()
            .find(|fault| self.plan[fault.index].kind == Sort::LateProposals && fault.targets.contains(&slot));
        if let Some(fault) = late.map(|fault| fault.index) {
            let most = self.plan[fault].ms.unwrap_or(0.0);
            let (at, life) = (self.now + self.chance.draw([0.0, most], MS), self.hosts[slot as usize].life);
            self.events.push(at, Event::ProposeAgain { slot, life, fault, entry: Box::new(entry.clone()) });
        }
        self.raft_ask(slot, Ask::Propose { call, entry });
    }

    /// A proposal that nobody waits for any more reaches Raft after all: the ledger's rules alone must judge it.
    pub(super) fn raft_propose_again(&mut self, slot: Slot, life: u32, fault: usize, entry: Bytes) {
        if self.hosts[slot as usize].life == life && self.hosts[slot as usize].voter.is_some() {
            self.took(fault);
            self.raft_ask(slot, Ask::Propose { call: NOBODY, entry });
        }
    }

    /// An entry that nobody asked for reaches Raft.
    pub(super) fn raft_propose_stray(&mut self, slot: Slot, entry: &Entry) {
        if self.hosts[slot as usize].voter.is_some() {
            self.took_on(slot, &[Sort::StrayProposals, Sort::DisruptTurns]);
            self.raft_ask(slot, Ask::Propose { call: NOBODY, entry: entry.encode() });
        }
    }

    pub(super) fn raft_called(&mut self, slot: Slot, from: MachineId, call: u64, body: Bytes) {
        self.raft_ask(slot, Ask::Called { from, call, body });
    }

    pub(super) fn raft_answered(&mut self, slot: Slot, from: MachineId, call: u64, body: Bytes) {
        if let Some(voter) = &mut self.hosts[slot as usize].voter {
            voter.calls.answered(from, call, body);
            self.raft_drive(slot);
        }
    }

    /// A connection is gone, and the calls that went over it.
    pub(super) fn raft_unreachable(&mut self, slot: Slot, peer: MachineId) {
        if let Some(voter) = &mut self.hosts[slot as usize].voter {
            voter.calls.lost(peer);
            self.raft_drive(slot);
        }
    }

    /// The process ends, or Raft alone does.
    pub(super) fn raft_stops(&mut self, slot: Slot) {
        self.hosts[slot as usize].voter = None;
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

    fn raft_ask(&mut self, slot: Slot, ask: Ask) {
        let Some(voter) = &mut self.hosts[slot as usize].voter else { return };
        match &voter.consensus {
            Some(consensus) => spawn(&voter.executor, consensus, &voter.done, ask),
            None => voter.waiting.push(ask),
        }
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
            if let Some(strike) = self.hosts[slot as usize].platter.struck() {
                // What Raft would say of it is said by nobody.
                let sort = if strike == Strike::Torn { Sort::TornWrite } else { Sort::CrashOnWrite };
                self.last_took_on(slot, &[sort]);
                return self.crash_and_restart(slot);
            }
            if !self.raft_carry(slot) {
                break;
            }
        }
        self.raft_set_alarm(slot, life);
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
        let Some(voter) = &mut self.hosts[slot as usize].voter else { return false };
        if let Ok(event) = voter.events.try_recv() {
            self.raft_event(slot, event);
            return true;
        }
        if let Ok(call) = voter.outgoing.try_recv() {
            let to = call.to;
            if let Some((call, body)) = voter.calls.begin(call) {
                self.send(slot, to, Frame::RaftCall { call, body });
            }
            return true;
        }
        let mut done = voter.done.lock().unwrap_or_else(PoisonError::into_inner);
        let next = if done.is_empty() { None } else { Some(done.remove(0)) };
        drop(done);
        match next {
            None => return false,
            Some(Done::Opened(consensus)) => {
                for ask in std::mem::take(&mut voter.waiting) {
                    spawn(&voter.executor, &consensus, &voter.done, ask);
                }
                voter.consensus = Some(*consensus);
                let host = &mut self.hosts[slot as usize];
                if !std::mem::replace(&mut host.raft_begun, true) {
                    host.disk.begin_raft();
                }
                self.raft_trust(slot);
            }
            Some(Done::Failed(why)) => self.raft_fails(slot, why),
            Some(Done::Proposed { call, outcome }) => self.feed(slot, Input::Proposed { call, outcome }),
            Some(Done::Answer { to, call, body }) => self.send(slot, to, Frame::RaftAnswer { call, body }),
            Some(Done::VotersSet) => voter.setting_voters = false,
        }
        true
    }

    fn raft_event(&mut self, slot: Slot, event: RaftEvent) {
        let machine = self.hosts[slot as usize].me;
        match event {
            RaftEvent::Restored { ledger, revision } => {
                self.see(Seen::Restored { slot, machine, revision });
                self.feed(slot, Input::Restored { ledger });
                self.raft_trust(slot);
            }
            RaftEvent::Applied { revision, entry } => {
                self.see(Seen::Applied { slot, machine, revision, entry: &entry });
                let changes = matches!(Entry::decode(entry.clone()), Ok(Entry::Admitted(_) | Entry::Removed { .. }));
                self.feed(slot, Input::Applied { revision, entry });
                if changes {
                    self.raft_trust(slot);
                }
            }
            RaftEvent::Leading { term, leader } => {
                if leader.is_some() {
                    self.see(Seen::Term { slot, machine, term });
                }
                if leader == Some(machine) {
                    self.see(Seen::Leads { slot, machine, term });
                }
                self.feed(slot, Input::Leading { term, leader });
            }
            RaftEvent::Stopped { why: Some(why) } => self.raft_fails(slot, why),
            RaftEvent::Stopped { why: None } => {}
        }
    }

    fn raft_trust(&mut self, slot: Slot) {
        let host = &self.hosts[slot as usize];
        let (Some(voter), Some(machine)) = (&host.voter, &host.machine) else { return };
        if let Some(consensus) = &voter.consensus {
            consensus.trust(machine.ledger().raft_callers(&voter.charter));
        }
    }

    /// What Raft cannot write it must not say: the process ends, as the agent's does.
    fn raft_fails(&mut self, slot: Slot, why: String) {
        self.see(Seen::RefusedStart { slot, why: &why });
        let damaged = why.contains("damaged");
        self.crash_and_restart(slot);
        if damaged {
            self.hosts[slot as usize].power = super::Power::Refuses(why);
        }
    }

    /// Voters as this machine's Raft has them.
    pub(crate) fn raft_voting(&self, slot: Slot) -> Option<BTreeSet<MachineId>> {
        let consensus = self.hosts[slot as usize].voter.as_ref()?.consensus.as_ref()?;
        Some(consensus.members().0)
    }

    /// Voters and learners as this machine's Raft has them.
    pub(crate) fn raft_members(&self, slot: Slot) -> Option<BTreeSet<MachineId>> {
        let consensus = self.hosts[slot as usize].voter.as_ref()?.consensus.as_ref()?;
        let (voters, learners) = consensus.members();
        Some(voters.into_iter().chain(learners).collect())
    }
}

async fn open(
    config: Config,
    platter: Platter,
    begun: bool,
    (cluster, founded): ([u8; 16], Ledger),
    me: MachineId,
    trusted: BTreeSet<MachineId>,
    (calls, events): (mpsc::Sender<muster_consensus::Call>, mpsc::Sender<RaftEvent>),
) -> Result<Consensus<Seeded>, String> {
    let disk = Disk::open_on("raft.redb", platter).map_err(|error| error.to_string())?;
    let store = if begun { Store::reopen(&disk, cluster, me) } else { Store::open(&disk, cluster, me) };
    let store = store.map_err(|error| error.to_string())?;
    Consensus::open(config, store, founded, trusted, calls, events).await.map_err(|error| error.to_string())
}

fn push(done: &Arc<Mutex<Vec<Done>>>, what: Done) {
    done.lock().unwrap_or_else(PoisonError::into_inner).push(what);
}

fn spawn(executor: &Executor, consensus: &Consensus<Seeded>, done: &Arc<Mutex<Vec<Done>>>, ask: Ask) {
    let (consensus, done) = (consensus.clone(), done.clone());
    executor.spawn(async move {
        match ask {
            Ask::Initialize(voters) => {
                let _ = consensus.initialize(voters).await;
            }
            Ask::Voters(voters) => {
                // The core asks again until it holds.
                let _ = consensus.set_voters(voters).await;
                push(&done, Done::VotersSet);
            }
            Ask::Called { from, call, body } => {
                if let Ok(body) = consensus.handle_call(from, body).await {
                    push(&done, Done::Answer { to: from, call, body });
                }
            }
            Ask::Propose { call, entry } => {
                let outcome = match consensus.propose(entry).await {
                    Ok(applied) => match applied.refused {
                        Some(why) => ProposalOutcome::Refused(why),
                        None => ProposalOutcome::Applied(applied.revision),
                    },
                    Err(ProposeError::NotLeading { leader }) => ProposalOutcome::NotLeading(leader),
                    Err(ProposeError::Unavailable(_)) => ProposalOutcome::NotLeading(None),
                    Err(ProposeError::Malformed(why)) => ProposalOutcome::Refused(why.to_string()),
                };
                push(&done, Done::Proposed { call, outcome });
            }
        }
    });
}
