//! What the leader's duties and this machine's own climb wait for, in sentences.

mod cluster;
mod machines;

use muster_wire::MachineId;

use crate::follow::Wants;
use crate::lead::Lead;
use crate::machine::Machine;
use crate::words::reasons::Topic;
use crate::words::waits::Wait;
use crate::{Effects, Time};

/// What is told: what it is about, the sentence, and whom it names.
pub(super) type Told = (Topic, String, Vec<MachineId>);

impl Machine {
    /// What they wait for; on a machine that does not lead what they would wait for here, as far as the leader alone does not know it.
    fn waits(&self, now: Time) -> Vec<Wait> {
        let climbs = !self.stands_still() && !self.is_past();
        let mut waits = if climbs { self.ladder.waits().to_vec() } else { Vec::new() };
        // The duties themselves look, at nothing but what is known here, and what they want is forgotten.
        let (mut effects, mut wants, mut leaders) = (Effects::default(), Wants::default(), Vec::new());
        let (mut runs, mut due) = (0, None);
        let leading = self.leading(now, &mut runs, &mut wants, &mut leaders, &mut due, &mut effects);
        let Some((leader, mut context)) = leading else { return waits };
        if leader != self.id() && !self.stands_still() {
            Lead::default().run(&mut context);
            waits.extend(leaders.into_iter().filter(|wait| !wait.is_leaders_own()));
        }
        // A control plane does some of a leader's duties that cannot do them itself, and knows alone what it waits for.
        waits.extend(self.lead.waits());
        waits.sort_unstable();
        waits.dedup();
        waits
    }

    /// Each of them.
    pub(super) fn explain_waits(&self, now: Time, add: &mut impl FnMut(Topic, String, &[MachineId])) {
        for wait in self.waits(now) {
            let (topic, text, machines) = match wait {
                Wait::Admission(why) => self.tell_admission(why, now),
                Wait::Voter(machine) => self.tell_voter(machine),
                Wait::Init(why) => self.tell_init(why, now),
                Wait::Turn(why) => self.tell_turn(why, now),
                Wait::Removal(why) => self.tell_removal(why, now),
                Wait::Repair(why) => self.tell_repair(why, now),
                Wait::Work(why) => self.tell_work(why, now),
                Wait::Climb(why) => self.tell_climb(why),
            };
            add(topic, text, &machines);
        }
    }

    /// A machine with its name, as people know it.
    fn called(&self, machine: MachineId) -> String {
        let card = if machine == self.id() { Some(self.mine.card()) } else { self.roster.card(machine) };
        match (self.follow.ledger().member(machine), card) {
            (Some(member), _) => format!("{machine} ({})", member.admitted.name),
            (None, Some(card)) => format!("{machine} ({})", card.hostname),
            (None, None) => machine.to_string(),
        }
    }
}

/// How long it is until then, as people read it.
fn in_s(until: Time, now: Time) -> String {
    format!("in {} s", until.since(now).as_secs() + 1)
}
