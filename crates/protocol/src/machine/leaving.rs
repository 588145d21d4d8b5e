//! A machine that was removed undoes what was made of it. Its hardware comes back as another machine, unless somebody wished it away.

use muster_wire::{MachineId, Removal, TurnKind, Wish};

use super::{Fate, Machine};
use crate::lead::disrupt::stands_still_without;
use crate::planted::planted;
use crate::status::{Departure, Leaving};
use crate::words::notices::NoticeKind;
use crate::words::reasons::Topic;
use crate::{Effect, Effects, Time};

impl Machine {
    /// Whether it was removed, and Raft needs its vote no more: a change of voters takes the votes of those that go, too.
    pub(super) fn departs(&self) -> Option<Removal> {
        self.follow.removal(self.id()).filter(|_| !self.follow.votes(self.id()))
    }

    /// A step on the way out.
    pub(super) fn depart(&mut self, now: Time, removal: Removal, effects: &mut Effects) {
        self.lead.step_down();
        if std::mem::take(&mut self.follow.raft) {
            effects.push(Effect::StopRaft);
        }
        let (mut wants, mut due) = (Default::default(), None);
        let mut ladder = std::mem::take(&mut self.ladder);
        let gone = ladder.depart(&mut self.climbing(now, false, &mut wants, &mut due, effects));
        self.ladder = ladder;
        self.due = due;
        self.follow.want(wants);
        if gone && !std::mem::replace(&mut self.departed, true) {
            effects.notice(NoticeKind::Departed, self.departure(removal));
            if removal == Removal::Returns || planted("dismissed-returns") {
                effects.push(Effect::Renew);
            }
        }
    }

    /// What has become of this machine, if it was removed.
    pub(super) fn departure_status(&self) -> Option<Departure> {
        let removal = self.follow.removal(self.id())?;
        Some(match (self.departed, removal) {
            (false, _) => Departure::Undoing,
            (true, Removal::Returns) => Departure::Returns,
            (true, Removal::StaysOut) => Departure::Out,
        })
    }

    /// Whose removal is under way.
    pub(super) fn leaving_status(&self) -> Option<Leaving> {
        let ledger = self.follow.ledger();
        let machine = ledger.leaving()?;
        Some(Leaving {
            machine: machine.to_hex(),
            name: ledger.member(machine)?.admitted.name.clone(),
            by: ledger.turn(TurnKind::Disrupt).map(|(_, holder)| self.named_member(holder)),
            held: ledger.removal_held().map(str::to_owned),
        })
    }

    /// Somebody asks this machine, which was removed and is to stay out, to come back as another. Says what becomes of that.
    pub(super) fn rejoin(&self, wish: &Wish, dry_run: bool) -> Option<Fate> {
        let ours = matches!(wish, Wish::RemoveMachine { machine, returns: true } if *machine == self.id());
        let departure = self.departure_status().filter(|_| ours)?;
        Some(match departure {
            Departure::Undoing => {
                Fate::Refused { why: "what Kubernetes has here is being taken away: ask again".to_owned() }
            }
            Departure::Returns | Departure::Out if dry_run => {
                Fate::Would { change: "come back as another machine".to_owned() }
            }
            Departure::Returns | Departure::Out => Fate::Done { revision: self.follow.ledger().revision() },
        })
    }

    fn departure(&self, removal: Removal) -> String {
        let what = match (removal, self.departed) {
            (_, false) => "what Kubernetes has here is being taken away",
            (Removal::Returns, true) => "nothing of Kubernetes is left here, and it starts again as another machine",
            (Removal::StaysOut, true) => {
                "nothing of Kubernetes is left here. It stays out: to have it come back as another machine, `muster reset --rejoin`"
            }
        };
        format!("{} was removed from the cluster: {what}", self.id())
    }

    /// Who leaves, who has left, and what holds it up.
    pub(super) fn explain_leaving(&self, add: &mut impl FnMut(Topic, String, &[MachineId])) {
        let (ledger, me) = (self.follow.ledger(), self.id());
        if let Some(removal) = self.follow.removal(me) {
            add(Topic::Removal, self.departure(removal), &[me]);
            return;
        }
        let Some(leaving) = ledger.leaving() else { return };
        let name = ledger.member(leaving).map_or(String::new(), |member| format!(" ({})", member.admitted.name));
        let at_it = ledger.turn(TurnKind::Disrupt).map(|(_, holder)| format!(": {holder} is at it"));
        let held = ledger.removal_held().map(|why| format!(": {why}; it is tried again"));
        let how = at_it.or(held).unwrap_or_default();
        add(Topic::Removal, format!("{leaving}{name} is to be removed{how}"), &[leaving]);
    }

    /// Why a machine had better not be removed now, as far as this one sees.
    pub(super) fn unwise(&self, wish: &Wish) -> Option<String> {
        let Wish::RemoveMachine { machine, .. } = wish else { return None };
        let (stay, away) = stands_still_without(self.follow.ledger(), &self.roster, self.id(), *machine)?;
        let named: Vec<String> = away.iter().map(|plane| self.named_member(*plane)).collect();
        Some(format!(
            "without {} the cluster would stand still: of the {} control planes that stay, {} would not answer ({})",
            self.named_member(*machine),
            stay.len(),
            away.len(),
            named.join(", ")
        ))
    }

    /// A machine with its Node's name.
    pub(super) fn named_member(&self, machine: MachineId) -> String {
        let member = self.follow.ledger().member(machine);
        member.map_or_else(|| machine.to_string(), |member| format!("{} ({machine})", member.admitted.name))
    }
}
