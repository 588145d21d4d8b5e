//! S15: nobody is accused of what did not befall it. A sound machine, one whose disk, card, identity and image nothing in the
//! scenario touched, is never told, to itself or to others, to be a clone, an old copy, wiped, a stranger, of another image or
//! cluster, or one of two with one address; and a site of as many machines as its image says is never too large.
//!
//! What befell whom is known from what the world did. The machines' words are only read for whom they accuse.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use muster_protocol::{Effect, Machine, NoticeKind, Reason, Topic};
use muster_wire::frame::RefusalCause;
use muster_wire::{Entry, Frame, MachineId, Revision};

use super::Verdict;
use crate::scenario::{Differs, Scenario, Sort};
use crate::truth::Truth;
use crate::watch::{Seen, decode};
use crate::world::{Power, Slot, World};

/// Every machine's reasons are read this seldom, in looks; in a large site those of one machine in so many looks.
const READ_EVERY: u64 = 4;
/// With more machines than this one is read at a time.
const READ_ALL_MAX: Slot = 16;

/// What the world did to whom.
#[derive(Debug, Default)]
pub(super) struct Accused {
    /// Machines whose disks, identities or answers a fault has changed.
    touched: BTreeSet<Slot>,
    /// Machines under which writes were made to fail: Raft may stop there for that.
    failing: BTreeSet<Slot>,
    /// Machines that show the hardware of others.
    alike: Slot,
    /// Machines with a lower number are of the judged image; the others are another image's, or no image's.
    image: Slot,
    /// The image of each machine that has one, by number.
    images: Vec<usize>,
    /// Whether machines of the same cluster and mesh key carry another image.
    other_images: bool,
    homes: BTreeMap<MachineId, BTreeSet<Slot>>,
    /// Machines that ever ran, but for those that cannot speak to the judged ones: so many pieces of hardware there are at most.
    ran: BTreeSet<Slot>,
    /// More than this the image does not bear.
    most: usize,
    /// Machines of other clusters.
    apart: BTreeSet<Slot>,
    /// The revision that admitted each machine.
    admitted: BTreeMap<MachineId, Revision>,
    looks: u64,
}

impl Accused {
    pub(super) fn begin(&mut self, scenario: &Scenario, truth: &Truth) {
        let image = &scenario.image;
        self.alike = if image.alike > 1 { image.alike } else { 0 };
        self.image = truth.others.start;
        let place = |slot| {
            let other = scenario.other(slot)?;
            scenario.others.iter().position(|another| std::ptr::eq(another, other))
        };
        self.images = (0..scenario.machines).map(|slot| place(slot).map_or(0, |place| place + 1)).collect();
        let differs = |slot: &Slot| scenario.other(*slot).map(|other| other.differs);
        let other = |slot: &Slot| matches!(differs(slot), Some(Differs::Settings | Differs::Machines));
        self.other_images = truth.others.clone().any(|slot| other(&slot));
        self.apart = truth.others.clone().filter(|slot| !other(slot)).collect();
        // Two quorums of fewer machines than twice a quorum share one.
        self.most = 2 * truth.quorum - 1;
    }

    fn is_sound(&self, machine: MachineId) -> bool {
        let sound =
            |slot: &Slot| (*slot as usize) < self.images.len() && *slot >= self.alike && !self.touched.contains(slot);
        self.homes.get(&machine).is_some_and(|homes| homes.iter().all(sound))
    }

    /// Whether a machine is sound and carries the image of machine `slot`.
    fn is_of(&self, slot: Slot, machine: MachineId) -> bool {
        let ours = self.images.get(slot as usize);
        let same = |home: &Slot| ours.is_some() && self.images.get(*home as usize) == ours;
        self.is_sound(machine) && self.homes.get(&machine).is_some_and(|homes| homes.iter().all(same))
    }

    /// Whether something is there for which founding must halt, at whichever machine of the image.
    fn halts(&self, slot: Slot) -> bool {
        self.other_images || self.ran.len() > self.most || self.touched.contains(&slot)
    }

    pub(super) fn see(&mut self, seen: &Seen<'_>, truth: &Truth) -> Verdict {
        self.note(seen);
        if truth.baseline || truth.two_charters {
            return Ok(());
        }
        match seen {
            Seen::Refused { slot, whom, why } if self.is_of(*slot, *whom) => {
                Err(format!("machine {slot} refuses {whom}, which is sound and of its own image: {why}"))
            }
            Seen::Notice { slot, notice } if *slot < self.image => {
                let itself = notice.kind == NoticeKind::OwnClone && !self.touched.contains(slot);
                if itself || notice.kind == NoticeKind::FoundingHalted && !self.halts(*slot) {
                    return Err(format!("machine {slot} is sound, and says: {}", notice.text));
                }
                Ok(())
            }
            Seen::Sent { slot, to, frame: Frame::Refusal { cause, why, .. }, .. }
                if *slot < self.image && *cause != RefusalCause::Outbid =>
            {
                let whom = *cause == RefusalCause::Uncounted && !self.touched.contains(slot);
                if self.is_of(*slot, *to) && (whom || !self.halts(*slot)) {
                    return Err(format!("machine {slot} turns a ballot of {to} down, and both are sound: {why}"));
                }
                Ok(())
            }
            Seen::Sent { slot, frame: Frame::Cards(cards), .. } if *slot < self.image => {
                let twice = cards.windows(2).find(|two| two[0].proves_clone(&two[1]));
                match twice.map(|two| two[0].card().machine).filter(|machine| self.is_sound(*machine)) {
                    Some(machine) => Err(format!("machine {slot} proves {machine} a clone, which runs once")),
                    None => Ok(()),
                }
            }
            Seen::Applied { entry, .. } => match decode(entry) {
                // Who was wished away, or taken out of etcd because it stayed dead, is judged by S18.
                Some(Entry::Removed { machine })
                    if self.is_sound(machine)
                        && !truth.wished_away.contains(&machine)
                        && !truth.was_struck(machine) =>
                {
                    Err(format!("{machine} is removed, whose disk is as it was"))
                }
                _ => Ok(()),
            },
            Seen::RefusedStart { slot, why, .. }
                if *slot < self.image && !self.touched.contains(slot) && !self.failing.contains(slot) =>
            {
                Err(format!("machine {slot} does not start on its own sound disk: {why}"))
            }
            _ => Ok(()),
        }
    }

    fn note(&mut self, seen: &Seen<'_>) {
        match seen {
            Seen::Booting { slot, machine, .. } => {
                self.homes.entry(*machine).or_default().insert(*slot);
                if !self.apart.contains(slot) {
                    self.ran.insert(*slot);
                }
            }
            Seen::Copied { copy, original } => self.touched.extend([*copy, *original]),
            Seen::Forgot { slot }
            | Seen::Wiped { slot }
            | Seen::Renewed { slot }
            | Seen::Damaged { slot }
            | Seen::TwoFaced { slot } => {
                self.touched.insert(*slot);
            }
            Seen::FaultBegins { fault, targets, .. } if matches!(fault.kind, Sort::Full | Sort::IoError) => {
                self.failing.extend(targets.iter().copied());
            }
            Seen::Applied { revision, entry, .. } => {
                if let Some(Entry::Admitted(admitted)) = decode(entry) {
                    self.admitted.entry(admitted.machine).or_insert(*revision);
                }
            }
            _ => {}
        }
    }

    /// Who answers a poll has applied what admitted the asker, or has not.
    pub(super) fn after(&self, machine: &Machine, effects: &VecDeque<Effect>, truth: &Truth) -> Verdict {
        if truth.baseline || truth.two_charters || truth.history_lost {
            return Ok(());
        }
        let strange = effects.iter().find_map(|effect| match effect {
            Effect::Send { to, frame: Frame::LedgerNews(news) } if news.not_admitted => Some(*to),
            _ => None,
        });
        let Some(to) = strange.filter(|to| truth.admitted.contains(to) && !truth.removed.contains(to)) else {
            return Ok(());
        };
        let known = self.admitted.get(&to).is_some_and(|revision| *revision <= machine.ledger().revision());
        if known { Err(format!("{} tells {to} that it is not admitted, and it is", machine.id())) } else { Ok(()) }
    }

    /// Reads what machines say to people.
    pub(super) fn look(&mut self, world: &World, truth: &Truth) -> Verdict {
        self.looks += 1;
        if truth.baseline || truth.two_charters || !self.looks.is_multiple_of(READ_EVERY) {
            return Ok(());
        }
        let slots = world.slots();
        let turn = (self.looks / READ_EVERY) as Slot % slots.max(1);
        let read = if slots > READ_ALL_MAX { turn..turn + 1 } else { 0..slots };
        for slot in read.filter(|slot| (*slot as usize) < self.images.len() && *world.power(*slot) == Power::On) {
            let (Some(machine), Some(now)) = (world.machine(slot), world.shown(slot)) else { continue };
            for reason in machine.reasons(now).iter().filter(|reason| accuses(reason)) {
                let named = reason.machines.iter().filter_map(|machine| MachineId::from_hex(machine));
                // Of another image machines are rightly told so.
                let falsely = |machine: &MachineId| match reason.about {
                    Topic::OtherSettings => self.is_of(slot, *machine),
                    _ => self.is_sound(*machine),
                };
                if let Some(sound) = named.into_iter().find(falsely) {
                    return Err(format!("machine {slot} accuses {sound}, which is sound: {}", reason.text));
                }
            }
        }
        Ok(())
    }
}

/// Whether a reason says something of the machines that it names that would have to be mended at them.
fn accuses(reason: &Reason) -> bool {
    matches!(reason.about, Topic::Clone | Topic::Hardware | Topic::SharedAddress | Topic::OtherSettings)
}

#[cfg(test)]
mod tests {
    use muster_protocol::Notice;

    use super::*;

    const SOUND: MachineId = MachineId([1; 32]);
    const COPIED: MachineId = MachineId([2; 32]);

    fn accused() -> (Accused, Truth) {
        let scenario = Scenario::parse("title = \"x\"\nmachines = 4\n").expect("right");
        let mut truth = Truth::default();
        truth.begin(&scenario);
        let mut accused = Accused::default();
        accused.begin(&scenario, &truth);
        for (slot, machine) in [(0, SOUND), (1, COPIED), (2, COPIED)] {
            accused.homes.entry(machine).or_default().insert(slot);
            accused.ran.insert(slot);
        }
        accused.note(&Seen::Copied { copy: 2, original: 1 });
        (accused, truth)
    }

    fn told(slot: Slot, kind: NoticeKind) -> Verdict {
        let (mut accused, truth) = accused();
        accused.see(&Seen::Notice { slot, notice: &Notice { kind, text: "x".into() } }, &truth)
    }

    #[test]
    fn only_whom_the_world_touched_may_be_told_so() {
        assert!(told(1, NoticeKind::OwnClone).is_ok() && told(2, NoticeKind::OwnClone).is_ok());
        assert!(told(0, NoticeKind::OwnClone).is_err());
        assert!(told(1, NoticeKind::FoundingHalted).is_ok());
        assert!(told(0, NoticeKind::FoundingHalted).is_err(), "three of four ran, and all of one image");
        let refused = |whom| {
            let (mut accused, truth) = accused();
            accused.see(&Seen::Refused { slot: 3, whom, why: "x" }, &truth)
        };
        assert!(refused(SOUND).is_err() && refused(COPIED).is_ok());
    }

    #[test]
    fn one_too_many_is_a_reason_to_halt() {
        let (mut accused, truth) = accused();
        accused.ran.extend(3..6);
        let notice = Notice { kind: NoticeKind::FoundingHalted, text: "x".into() };
        assert!(accused.see(&Seen::Notice { slot: 0, notice: &notice }, &truth).is_ok());
    }
}
