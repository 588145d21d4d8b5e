//! S6: who may do what, as `docs/protocol.md` has it: propose an entry, for itself or handed on by the leader, speak of Raft, run it,
//! begin it and name its voters, tell what is in the ledger, be promised a vote, and carry a step out. Looked at on the wire,
//! whoever sends, and at what each machine wants done.

use std::collections::{BTreeSet, VecDeque};

use muster_protocol::{Effect, Input, Machine, Step};
use muster_wire::{Attempt, CallNumber, Entry, Frame, MachineId, TurnChange};

use super::Verdict;
use crate::truth::Truth;
use crate::watch::{Seen, decode};
use crate::world::Slot;

/// Remembers who was ever sealed the CA, and what a machine is asked to propose for another.
#[derive(Debug, Default)]
pub(super) struct Rights {
    holders: BTreeSet<MachineId>,
    asked: Option<(Slot, MachineId, Entry)>,
    /// Whom control planes that are alone asked what they have: by whom, whom, and the question's number.
    surveys: BTreeSet<(MachineId, MachineId, CallNumber)>,
}

impl Rights {
    pub(super) fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Verdict {
        match seen {
            Seen::Applied { entry, .. } => {
                if let Some(Entry::PkiSealed { sealed, .. }) = decode(entry) {
                    self.holders.extend(sealed.iter().map(|sealed| sealed.machine));
                }
                Ok(())
            }
            _ if truth.two_charters => Ok(()),
            Seen::Sent { slot, machine, to, to_slot, frame: Frame::Promise(promise), .. } => {
                let foreign = truth.others.contains(slot) != truth.others.contains(to_slot);
                if !truth.answers_two_ways(*slot) && (promise.ballot.machine != *to || foreign) {
                    return Err(format!("{machine} promises {to} the ballot {:?}", promise.ballot));
                }
                Ok(())
            }
            Seen::Sent { machine, to, frame: Frame::LedgerPoll { call, survey: true, .. }, .. } => {
                if !truth.control_planes.contains(machine) {
                    return Err(format!("{machine} asks {to} what it has, and is no control plane"));
                }
                self.surveys.insert((*machine, *to, *call));
                Ok(())
            }
            Seen::Sent { machine, to, frame: Frame::LedgerNews(news), .. }
                if !news.not_admitted
                    && !self.votes(*machine, truth)
                    && !self.surveys.contains(&(*to, *machine, news.call)) =>
            {
                Err(format!(
                    "{machine} tells what is in the ledger, and never was a control plane or a voter of the charter"
                ))
            }
            Seen::StepBegan { slot, step, apart: false, .. } => {
                let machine = truth.identity.get(slot).copied().unwrap_or_default();
                let done = |why| format!("machine {slot} begins {}: {why}", step.name());
                self.may_begin(machine, step, truth).map_err(done)
            }
            Seen::Sent { machine, frame: Frame::Proposal { entry, .. }, .. } => {
                let Some(entry) = decode(entry) else { return Err(format!("{machine} proposes what is no entry")) };
                self.may(*machine, &entry, truth).map_err(|why| format!("{machine} proposes {}: {why}", entry.kind()))
            }
            Seen::Sent { machine, frame: Frame::RaftCall { .. } | Frame::RaftAnswer { .. }, .. } => {
                if self.votes(*machine, truth) {
                    return Ok(());
                }
                Err(format!("{machine} speaks of Raft, and never was a control plane or a voter of the charter"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn before(&mut self, slot: Slot, input: &Input) {
        self.asked = match input {
            Input::Received { from, frame: Frame::Proposal { entry, .. } } => {
                decode(entry).map(|entry| (slot, *from, entry))
            }
            _ => None,
        };
    }

    /// What a leader proposes for another is what that one may propose.
    pub(super) fn after(
        &mut self,
        slot: Slot,
        machine: &Machine,
        effects: &VecDeque<Effect>,
        truth: &Truth,
    ) -> Verdict {
        let asked = self.asked.take().filter(|(at, ..)| *at == slot);
        let ours = machine.charter().is_some_and(|certificate| Some(certificate.charter().id) == truth.charter);
        if !ours || truth.two_charters {
            return Ok(());
        }
        effects.iter().try_for_each(|effect| self.wants(slot, machine.id(), asked.as_ref(), effect, truth))
    }

    fn wants(
        &self,
        slot: Slot,
        me: MachineId,
        asked: Option<&(Slot, MachineId, Entry)>,
        effect: &Effect,
        truth: &Truth,
    ) -> Verdict {
        match effect {
            Effect::Propose { entry, .. } => match asked.filter(|(_, _, asked)| asked == entry) {
                Some((_, from, _)) => {
                    let handed_on =
                        |why| format!("machine {slot} proposes {} because {from} asked for it: {why}", entry.kind());
                    self.may(*from, entry, truth).map_err(handed_on)
                }
                None => self
                    .leader_may(me, entry, truth)
                    .map_err(|why| format!("machine {slot} proposes {} of its own accord: {why}", entry.kind())),
            },
            Effect::CallElection if !truth.first_voters.contains(&me) => {
                Err(format!("machine {slot} begins Raft, and is no voter of the charter"))
            }
            Effect::StartRaft { .. } if !self.votes(me, truth) => {
                Err(format!("machine {slot} runs Raft, and never was a control plane or a voter of the charter"))
            }
            Effect::SetVoters(voters) => match voters.iter().find(|voter| !self.votes(**voter, truth)) {
                Some(other) => {
                    Err(format!("machine {slot} lets {other} vote in Raft, which never was a control plane"))
                }
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Whether it votes in Raft, or did before it was removed.
    fn votes(&self, machine: MachineId, truth: &Truth) -> bool {
        [&truth.first_voters, &truth.control_planes, &truth.removed].iter().any(|machines| machines.contains(&machine))
    }

    /// What only a machine itself can say, a leader does not say for it.
    fn leader_may(&self, me: MachineId, entry: &Entry, truth: &Truth) -> Result<(), &'static str> {
        match entry {
            Entry::Turn(turn) if turn.change == TurnChange::GaveUp => Ok(()),
            Entry::InitAbandoned { .. }
            | Entry::Admitted(_)
            | Entry::Promoted { .. }
            | Entry::RemovalHeld { .. }
            | Entry::Removed { .. }
            | Entry::InitClaimed { .. }
            | Entry::LevelRaised { .. }
            | Entry::Ticket { .. } => Ok(()),
            _ => self.may(me, entry, truth),
        }
    }

    /// Who carries a step out: the CA is opened by those to whom it was sealed, and the image's objects are applied by who made the
    /// cluster or is a control plane of it.
    fn may_begin(&self, machine: MachineId, step: &Step, truth: &Truth) -> Result<(), &'static str> {
        let (may, why) = match step {
            Step::InitCluster { attempt, .. } | Step::MakePki { attempt, .. } | Step::InitFinish { attempt } => {
                (truth.claims.get(attempt) == Some(&machine), "the attempt is another machine's")
            }
            Step::Found { attempt, .. } => {
                let founders = truth.founders_of.get(attempt);
                (founders.is_some_and(|founders| founders.contains(&machine)), "it is no founder of the attempt")
            }
            Step::SealPki { .. } | Step::IssueTicket { .. } | Step::DeleteToken { .. } => {
                (self.holders.contains(&machine), "the CA was never sealed to it")
            }
            Step::ApplyManifests { .. } => (truth.control_planes.contains(&machine), "it is no control plane"),
            _ => (true, ""),
        };
        if may || truth.removed.contains(&machine) { Ok(()) } else { Err(why) }
    }

    /// Whether a machine that does not lead may ever have proposed this. What it may is known here no later than to itself: a
    /// right begins with a committed entry, and what is late is refused by the ledger's rules.
    fn may(&self, machine: MachineId, entry: &Entry, truth: &Truth) -> Result<(), &'static str> {
        if !truth.admitted.contains(&machine) {
            return Err("it was never admitted");
        }
        let claimed = |attempt: &Attempt| truth.claims.get(attempt) == Some(&machine);
        let (may, why) = match entry {
            Entry::BackedUp(backup) => {
                let plane = truth.control_planes.contains(&machine) || truth.removed.contains(&machine);
                (backup.machine == machine && plane, "another machine took it, or it is no control plane")
            }
            Entry::Joined { machine: joined }
            | Entry::Left { machine: joined }
            | Entry::BackupKept { machine: joined, .. }
            | Entry::BackupGone { machine: joined, .. } => {
                (*joined == machine, "that is for the machine itself to say")
            }
            Entry::Founds { machine: begins, .. } => (*begins == machine, "that is for the machine itself to say"),
            Entry::Turn(turn) => {
                let plane = truth.control_planes.contains(&machine) || truth.removed.contains(&machine);
                (turn.holder == machine && plane, "the turn is another machine's, or it is no control plane")
            }
            Entry::InitReady { attempt, .. } | Entry::InitAbandoned { attempt, .. } => {
                (claimed(attempt), "the attempt is another machine's")
            }
            Entry::PkiSealed { attempt, .. } => {
                (claimed(attempt) || self.holders.contains(&machine), "it never had a copy of the CA")
            }
            Entry::Wished(signed) => (signed.machine == machine, "another machine was asked"),
            Entry::RemovalHeld { .. } => (truth.control_planes.contains(&machine), "it is no control plane"),
            Entry::Removed { .. } => (truth.disrupted.contains(&machine), "it never had a turn to disrupt"),
            // What is not named here nobody may whom the leader did not ask.
            _ => (false, "that is the leader's own"),
        };
        if may { Ok(()) } else { Err(why) }
    }
}

#[cfg(test)]
mod tests {
    use muster_wire::frame::ProposalOutcome;

    use super::*;

    const ADMITTED: MachineId = MachineId([1; 32]);
    const STRANGER: MachineId = MachineId([2; 32]);
    const INITIALISER: MachineId = MachineId([3; 32]);

    fn truth() -> Truth {
        let mut truth = Truth::default();
        truth.admitted.extend([ADMITTED, INITIALISER]);
        truth.control_planes.insert(INITIALISER);
        truth.claims.insert(Attempt(1), INITIALISER);
        truth
    }

    fn on_the_wire(from: MachineId, frame: &Frame) -> Verdict {
        let (slot, to_slot, bytes) = (0, 1, [].as_slice());
        Rights::default().see(&Seen::Sent { slot, machine: from, to: ADMITTED, to_slot, frame, bytes }, &truth())
    }

    fn proposal(entry: &Entry) -> Frame {
        Frame::Proposal { call: CallNumber(1), entry: entry.encode() }
    }

    #[test]
    fn what_others_may_say_is_not_proposed() {
        let abandoned = Entry::InitAbandoned { attempt: Attempt(1), why: "x".into() };
        let gone = Entry::InitAbandoned { attempt: Attempt(2), why: "x".into() };
        let cases = [
            (ADMITTED, Entry::Joined { machine: ADMITTED }, true),
            (STRANGER, Entry::Joined { machine: STRANGER }, false),
            (ADMITTED, Entry::Joined { machine: INITIALISER }, false),
            (INITIALISER, abandoned.clone(), true),
            (ADMITTED, abandoned, false),
            (INITIALISER, gone, false),
            (INITIALISER, Entry::Removed { machine: ADMITTED }, false),
            (
                INITIALISER,
                Entry::InitClaimed { attempt: Attempt(2), machine: INITIALISER, founders: Vec::new() },
                false,
            ),
        ];
        for (from, entry, may) in cases {
            assert_eq!(on_the_wire(from, &proposal(&entry)).is_ok(), may, "{from} proposes {entry:?}");
        }
    }

    #[test]
    fn who_is_no_voter_does_not_speak_of_raft() {
        let call = Frame::RaftCall { call: CallNumber(1), body: Default::default() };
        assert!(on_the_wire(INITIALISER, &call).is_ok());
        assert!(on_the_wire(ADMITTED, &call).is_err(), "a worker");
        assert!(on_the_wire(STRANGER, &call).is_err());
    }

    #[test]
    fn nobody_runs_raft_or_speaks_for_others_without_the_right_to() {
        let voters = |machines: &[MachineId]| Effect::SetVoters(machines.iter().copied().collect());
        let propose = |entry| Effect::Propose { call: CallNumber(1), entry };
        let cases = [
            (INITIALISER, voters(&[INITIALISER]), true),
            (INITIALISER, voters(&[INITIALISER, ADMITTED]), false),
            (ADMITTED, Effect::CallElection, false),
            (INITIALISER, propose(Entry::Joined { machine: INITIALISER }), true),
            (INITIALISER, propose(Entry::Joined { machine: ADMITTED }), false),
            (INITIALISER, propose(Entry::InitAbandoned { attempt: Attempt(1), why: "x".into() }), true),
        ];
        for (me, effect, may) in cases {
            let told = Rights::default().wants(4, me, None, &effect, &truth());
            assert_eq!(told.is_ok(), may, "{me} wants {effect:?}");
        }
        let began = |machine, step| Rights::default().may_begin(machine, &step, &truth()).is_ok();
        assert!(
            began(INITIALISER, Step::InitFinish { attempt: Attempt(1) })
                && !began(ADMITTED, Step::InitFinish { attempt: Attempt(1) })
        );
        let apply = || Step::ApplyManifests { objects: vec![0] };
        assert!(began(INITIALISER, apply()) && !began(ADMITTED, apply()));
    }

    #[test]
    fn a_leader_hands_on_only_what_the_asker_may_propose() {
        let entry = Entry::Joined { machine: INITIALISER };
        let handed_on = VecDeque::from([Effect::Propose { call: CallNumber(7), entry: entry.clone() }]);
        let outcome = ProposalOutcome::NotLeading(None);
        let refused = VecDeque::from([Effect::Send {
            to: ADMITTED,
            frame: Frame::ProposalAnswer { call: CallNumber(1), outcome },
        }]);
        for (from, effects, fine) in
            [(ADMITTED, &handed_on, false), (ADMITTED, &refused, true), (INITIALISER, &handed_on, true)]
        {
            let asked = (4, from, entry.clone());
            let wants = |effect| Rights::default().wants(4, INITIALISER, Some(&asked), effect, &truth());
            assert_eq!(effects.iter().try_for_each(wants).is_ok(), fine, "{from}");
        }
    }
}
