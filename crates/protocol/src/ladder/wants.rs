//! What a climbing machine wants committed.

use std::collections::BTreeSet;

use muster_wire::{Attempt, Entry, MachineId, Role, Turn, TurnChange, TurnKind, TurnNumber};

use super::{Context, Job, JoinStage, Ladder, WHY_CHARS_MAX};
use crate::Time;
use crate::ledger::Member;

impl Ladder {
    /// What this machine wants committed, given where it stands.
    pub(super) fn want_entries(&mut self, context: &mut Context<'_>) {
        let me = context.me;
        let Some(member) = context.member().cloned() else { return };
        let late = || self.initialised.as_ref().filter(|_| crate::planted::planted("ready-of-abandoned"));
        if let Some(attempt) = context.claims_init().or_else(|| late().map(|done| done.attempt)) {
            self.want_of_initialiser(context, attempt);
        }
        // What it did as a worker is no part of its way to be a control plane.
        if super::next::is_promoted(context, &member) {
            return;
        }
        self.want_etcd_turn(context, &member);
        if self.node_ready && !member.joined && context.rebuilds().is_none() {
            context.wants.want(Entry::Joined { machine: me });
        }
    }

    fn want_of_initialiser(&mut self, context: &mut Context<'_>, attempt: Attempt) {
        let me = context.me;
        let leftover = context.durable.started.filter(|marker| marker.init && self.underway != Some(*marker));
        let why = match (&self.init_failed, &self.unable, leftover) {
            (Some((failed, why)), ..) if *failed == attempt => Some(why.clone()),
            (_, Some(why), _) => Some(why.clone()),
            (.., Some(marker)) if marker.attempt == attempt => Some("the machine restarted in the middle".to_owned()),
            _ => None,
        };
        if let Some(why) = why {
            let why = format!("{me}: {}", why.chars().take(WHY_CHARS_MAX).collect::<String>());
            context.wants.want(Entry::InitAbandoned { attempt, why });
            return;
        }
        if let Some((made_for, ca_hash, sealed)) = &self.pki
            && *made_for == attempt
            && context.ledger.pki().is_none()
        {
            // One of them may have been removed since: what names a stranger would be refused for good.
            let planes: BTreeSet<MachineId> = context.ledger.control_planes().collect();
            let sealed = sealed.iter().filter(|one| planes.contains(&one.machine)).cloned().collect();
            let entry = Entry::PkiSealed { attempt, ca_hash: *ca_hash, sealed };
            context.wants.want(entry);
        }
        if let Some(done) = self.initialised.as_ref().filter(|done| done.attempt == attempt) {
            let entry = Entry::InitReady {
                attempt,
                ca_hash: done.ca_hash,
                endpoints: done.endpoints.clone(),
                tokens: done.tokens.clone(),
            };
            context.wants.want(entry);
        }
    }

    fn want_etcd_turn(&mut self, context: &mut Context<'_>, member: &Member) {
        let me = context.me;
        let stage = self.join_stage.filter(|_| self.underway.is_some());
        let adding = self.running.as_ref().is_some_and(|running| matches!(running.job, Job::JoinEtcd { .. }));
        let want = match (context.ledger.turn(TurnKind::Etcd), stage) {
            (Some((number, holder)), Some(JoinStage::Etcd(ours))) if holder == me && number == ours => {
                Some((TurnChange::Done, number))
            }
            // Nothing was added by this turn, and nothing will be.
            (Some((number, holder)), Some(JoinStage::Begun | JoinStage::Kubelet))
                if holder == me && !adding && Self::knows_turn(context, number) && !self.turn_good(context, number) =>
            {
                Some((TurnChange::GaveUp, number))
            }
            (Some((number, holder)), None) if holder == me => {
                // A turn of work that is no more. It ends when the reset has taken the member away again.
                let reset = context.durable.started.is_none() && Self::knows_turn(context, number);
                (crate::planted::planted("turn-given-up-early") || reset && self.running.is_none())
                    .then_some((TurnChange::GaveUp, number))
            }
            (turn, Some(JoinStage::Kubelet)) if member.admitted.role == Role::ControlPlane && turn.is_none() => {
                Some((TurnChange::Started, self.ask_turn(context)))
            }
            _ => None,
        };
        if let Some((change, number)) = want {
            let turn = Turn { kind: TurnKind::Etcd, number, holder: me, change };
            context.wants.want(Entry::Turn(turn));
        }
    }

    /// Whether the disk has this turn's number, as it should. If not, what was done in it is taken back first.
    fn knows_turn(context: &Context<'_>, number: TurnNumber) -> bool {
        number <= context.durable.etcd_turn || crate::planted::planted("turn-forgotten")
    }

    /// Whether the join under way may use this turn. One that an earlier start of this machine asked for may have been given
    /// up by it, and the end be on its way; one that comes late may be ended by the leader while it is used (promise S8).
    pub(super) fn turn_good(&self, context: &Context<'_>, number: TurnNumber) -> bool {
        let young = |at: Time| context.now.since(at) < context.tuning.etcd_turn_max / 2;
        self.asked_turn.is_some_and(|(asked, at)| asked == number && young(at))
            || crate::planted::planted("old-turn-used")
    }

    /// The turn to ask for. Its number is on disk before anybody hears of it, and is never asked for again.
    pub(super) fn ask_turn(&mut self, context: &mut Context<'_>) -> TurnNumber {
        let last = context.ledger.last_turn(TurnKind::Etcd);
        if crate::planted::planted("old-turn-used") {
            return last.next();
        }
        let number = match self.asked_turn {
            Some((number, _)) if number > last && self.turn_good(context, number) => number,
            _ => {
                let number = last.max(context.durable.etcd_turn).next();
                context.durable.etcd_turn = number;
                context.effects.persist(context.durable).done();
                self.asked_turn = Some((number, context.now));
                number
            }
        };
        if let Some((_, at)) = self.asked_turn {
            context.wake_at(at + context.tuning.etcd_turn_max / 2, "an etcd turn to ask for anew");
        }
        number
    }
}
