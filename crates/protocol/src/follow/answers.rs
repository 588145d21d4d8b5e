//! Being asked: a voter holds who is up to date until there is news for it, and answers who is behind at once.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_wire::{CallNumber, Epoch, Frame, LedgerNews, MachineId, Revision, limits};

use super::{BOOT_BITS, Follow};
use crate::tuning::Tuning;
use crate::{Effects, Time};

/// Most polls held at once: every machine of the largest site has at most one.
const ASKERS_MAX: usize = limits::MACHINES_MAX as usize;

#[derive(Debug)]
pub(super) struct Asker {
    call: CallNumber,
    since: Revision,
    /// The epoch of what it has.
    epoch: Epoch,
    /// Whether it waits for no news.
    survey: bool,
    asked: Time,
}

impl Follow {
    /// A voter was asked for news by `from`, which has the ledger of this epoch. Whoever is in a later one than this machine is not answered: it
    /// must not hear what was given up there.
    pub(crate) fn asked(
        &mut self,
        now: Time,
        from: MachineId,
        call: CallNumber,
        since: Revision,
        epoch: Epoch,
        survey: bool,
    ) {
        if epoch > self.ledger.epoch() {
            return;
        }
        // Who does not vote answers a control plane alone, and who has just started has nothing to tell.
        let whom = self.ledger.is_plane(from) || !self.knows(from);
        let survey = survey && (self.raft || self.ledger.revision() > Revision::NONE && whom);
        let known = self.askers.get(&from).map(|asker| asker.call);
        // A question that waited for a connection may come after a later one, whose answer is the one that is waited for.
        let late = known.is_some_and(|known| known.0 >> BOOT_BITS == call.0 >> BOOT_BITS && call < known);
        let late = late && !crate::planted::planted("poll-overtaken");
        if (self.raft || survey) && !late && (self.askers.len() < ASKERS_MAX || known.is_some()) {
            self.askers.insert(from, Asker { call, since, epoch, survey, asked: now });
            self.holds.push_back((now, from, call));
            self.news = true;
        }
    }

    /// Whether it is a member: whoever is none learns that and nothing else.
    fn knows(&self, machine: MachineId) -> bool {
        self.ledger.member(machine).is_some()
    }

    /// Whether a machine was removed, and has no vote in Raft any more: what takes a vote away may need it.
    fn is_out(&self, machine: MachineId) -> bool {
        // Who knows nothing of Raft's members yet cannot say that it is none.
        let known = !self.members.all.is_empty();
        self.ledger.was_removed(machine) && known && !self.members.all.contains(&machine)
    }

    pub(super) fn answer_askers(&mut self, now: Time, tuning: &Tuning, effects: &mut Effects) {
        // A machine's disk may be an old copy, and count its calls anew: the number alone does not tell a later poll from a
        // held one.
        let current = |askers: &BTreeMap<MachineId, Asker>, machine: &MachineId, call: CallNumber, asked: Time| {
            askers.get(machine).is_some_and(|asker| asker.call == call && asker.asked == asked)
        };
        while let Some((asked, machine, call)) = self.holds.front().copied() {
            if current(&self.askers, &machine, call, asked) {
                if now.since(asked) < tuning.poll_hold {
                    break;
                }
                self.news = true;
                break;
            }
            self.holds.pop_front();
        }
        if std::mem::take(&mut self.news) {
            self.answer_at.get_or_insert(now + gather(self.askers.len()));
        }
        if self.answer_at.take_if(|due| *due <= now).is_none() {
            return;
        }
        let newest = self.recent.back().map_or(self.floor, |(revision, _)| *revision);
        let mut answers = Vec::new();
        for (machine, asker) in &self.askers {
            let admitted = self.ledger.member(*machine).is_some() || crate::planted::planted("ledger-for-strangers");
            let earlier = asker.epoch < self.ledger.epoch();
            let behind = earlier || asker.since < newest || asker.since < self.floor;
            let removed = self.is_out(*machine);
            if (admitted && behind) || removed || asker.survey || now.since(asker.asked) >= tuning.poll_hold {
                let admitted = admitted && (behind || !crate::planted::planted("admitted-told-stranger"));
                answers.push((*machine, admitted));
            }
        }
        for (machine, admitted) in answers {
            if let Some(asker) = self.askers.remove(&machine) {
                let removal = self.ledger.removal(machine).filter(|_| self.is_out(machine));
                effects.send(machine, Frame::LedgerNews(LedgerNews { removal, ..self.answer(&asker, admitted) }));
            }
        }
    }

    /// News for one asker. Who is not admitted reads nothing of the ledger (promise S6).
    fn answer(&self, asker: &Asker, admitted: bool) -> LedgerNews {
        let mut news = LedgerNews {
            call: asker.call,
            revision: Revision::NONE,
            entries: Vec::new(),
            state: None,
            not_admitted: !admitted,
            leader: self.leader,
            removal: None,
        };
        if !admitted && !crate::planted::planted("ledger-for-strangers") {
            return news;
        }
        news.revision = self.ledger.revision();
        if asker.survey || asker.epoch < self.ledger.epoch() || asker.since < self.floor {
            news.state = Some(self.ledger.encode().into());
            return news;
        }
        let mut bytes = 0;
        for (revision, entry) in self.recent.iter().filter(|(revision, _)| *revision > asker.since) {
            bytes += entry.len();
            if news.entries.len() >= limits::NEWS_ENTRIES_MAX || bytes > limits::FRAME_BYTES_MAX / 2 {
                break;
            }
            news.entries.push((*revision, entry.clone()));
        }
        news
    }
}

/// How long news is gathered for this many askers. In a small site every entry is told at once; in one of a thousand machines,
/// whose joins are thousands of entries, telling each of them to everybody by itself would be millions of frames.
fn gather(askers: usize) -> Duration {
    if askers <= limits::MESH_FULL { Duration::ZERO } else { Duration::from_micros(100) * askers as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_that_comes_late_leaves_the_later_one_in_place() {
        let (mut voter, follower) = (Follow { raft: true, ..Follow::default() }, MachineId([1; 32]));
        let mut asked = |call: CallNumber| {
            voter.asked(Time::default(), follower, call, Revision::NONE, Epoch::default(), false);
            voter.askers[&follower].call
        };
        assert_eq!(asked(CallNumber(3 << BOOT_BITS | 2)), CallNumber(3 << BOOT_BITS | 2));
        assert_eq!(asked(CallNumber(3 << BOOT_BITS | 1)), CallNumber(3 << BOOT_BITS | 2));
        assert_eq!(asked(CallNumber(3 << BOOT_BITS | 3)), CallNumber(3 << BOOT_BITS | 3));
        // Of a machine whose disk is an old copy, and counts its calls anew.
        assert_eq!(asked(CallNumber(2 << BOOT_BITS | 1)), CallNumber(2 << BOOT_BITS | 1));
    }
}
