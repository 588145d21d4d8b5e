//! The checkers: one file a promise.

mod accused;
mod asked;
mod copies;
mod halted;
mod l1;
mod l2;
mod l3;
mod l4;
mod l5;
mod l6;
mod l7;
mod l8;
mod liveness;
mod refuted;
mod rights;
mod s01;
mod s02;
mod s03;
mod s04;
mod s05;
mod s06;
mod s07;
mod s08;
mod s09;
mod s10;
mod s11;
mod s13;
mod s14;
mod s16;
mod s17;
mod s18;
mod s19;
mod s20;
mod s21;
mod silence;

use std::collections::VecDeque;

use muster_protocol::{Effect, Input, Machine};

pub use liveness::{Liveness, Standing};

use crate::scenario::Scenario;
use crate::sometimes::Sometimes;
use crate::truth::Truth;
use crate::watch::Seen;
use crate::world::{At, Slot, World};

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Broken {
    /// Its number, as `S4`.
    pub promise: &'static str,
    /// Microseconds since the start of the run.
    pub at_us: At,
    /// What was seen.
    pub what: String,
}

/// With more machines than this nothing is looked at before heal.
const LOOKED_AT_EARLY_MAX: Slot = 16;

/// What a checker answers: nothing, or what it saw that must not be.
pub(crate) type Verdict = Result<(), String>;

/// All of them.
#[derive(Default)]
pub struct Checks {
    s01: s01::OneCharter,
    s02: s02::VotesKept,
    s03: s03::Raft,
    s04: s04::OneInit,
    s05: s05::Secrets,
    s06: s06::Admission,
    rights: rights::Rights,
    s07: s07::OneCluster,
    s08: s08::EtcdTurns,
    s09: s09::Identities,
    s10: s10::Bounds,
    s11: s11::Seats,
    s13: s13::Founders,
    s14: s14::Standing,
    s16: s16::Levels,
    s18: s18::Leaving,
    s19: s19::Renewals,
    s21: s21::Backups,
    l6: l6::Leaves,
    l7: l7::Renewed,
    accused: accused::Accused,
    asked: asked::Asked,
    silence: silence::Silence,
    copies: copies::Copies,
    halted: halted::Halted,
    refuted: refuted::Refuted,
    /// L1 to L5.
    pub liveness: Liveness,
    broken: Option<Broken>,
    unbound: Option<Broken>,
}

impl Checks {
    pub(crate) fn begin(&mut self, scenario: &Scenario, truth: &Truth, slots: Slot) {
        self.s10.begin(slots);
        self.s11.begin(scenario);
        self.s18.begin(scenario);
        self.l6.begin(scenario);
        self.accused.begin(scenario, truth);
        self.liveness.begin(scenario);
    }

    /// The promise that does not hold because the scenario broke what it assumes.
    pub fn unbound(&self) -> Option<&Broken> {
        self.unbound.as_ref()
    }

    /// What was broken first.
    pub fn broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }

    fn judge(&mut self, at_us: At, promise: &'static str, verdict: Verdict, truth: &Truth) {
        let Err(what) = verdict else { return };
        let of_the_ledger = matches!(
            promise,
            "S3" | "S4" | "S6" | "S8" | "S11" | "S13" | "S14" | "S16" | "S17" | "S18" | "S19" | "S20" | "S21"
        );
        // Of two clusters nobody can ask that they become one, nor that one keeps what the other has promised.
        let of_one_cluster = (promise.starts_with('L') || of_the_ledger) && self.unbound.is_some();
        if self.broken.is_none() && !(of_the_ledger && truth.history_lost) && !of_one_cluster {
            self.broken = Some(Broken { promise, at_us, what });
        }
    }

    pub(crate) fn see(&mut self, now: At, seen: &Seen<'_>, truth: &Truth, sometimes: &mut Sometimes) {
        let verdicts = [
            ("S1", self.s01.see(seen, truth)),
            ("S1", self.halted.see(seen, truth)),
            ("S2", self.s02.see(seen, truth)),
            ("S3", self.s03.see(now, seen, truth)),
            ("S4", self.s04.see(seen, truth)),
            ("S2", s02::forged(seen)),
            ("S5", self.s05.see(seen, truth)),
            ("S6", self.s06.see(seen, truth)),
            ("S6", self.rights.see(seen, truth)),
            ("S7", self.s07.see(seen, truth)),
            ("S8", self.s08.see(now, seen, truth)),
            ("S9", self.s09.see(seen, truth)),
            ("S10", self.s10.see(now, seen)),
            ("S11", self.s11.see(seen, truth)),
            ("S11", self.asked.see(seen, truth)),
            ("S13", self.s13.see(seen, truth)),
            ("S14", self.s14.see(seen, truth)),
            ("S15", self.accused.see(seen, truth)),
            ("S16", self.s16.see(seen, truth, sometimes)),
            ("S17", s17::see(seen, truth, sometimes)),
            ("S18", self.s18.see(now, seen, truth)),
            ("S19", self.s19.see(seen, truth)),
            ("S20", s20::see(seen, truth)),
            ("S21", self.s21.see(now, seen, truth)),
        ];
        if let Some(what) = self.s01.take_unbound().filter(|_| self.unbound.is_none()) {
            self.unbound = Some(Broken { promise: "S1", at_us: now, what });
            sometimes.reached("votes-forgotten");
        }
        if let Err((promise, what)) = self.copies.see(seen, truth) {
            self.judge(now, promise, Err(what), truth);
        }
        self.silence.see(now, seen);
        self.l6.see(now, seen, truth);
        self.l7.see(now, seen);
        self.liveness.see(now, seen, truth);
        for (promise, verdict) in verdicts {
            self.judge(now, promise, verdict, truth);
        }
    }

    pub(crate) fn before(&mut self, now: At, slot: Slot, machine: &Machine, input: &Input, truth: &Truth) {
        self.silence.before(now, machine, input, truth);
        self.s18.before(now, machine, input, truth);
        self.s07.before(slot, machine, input);
        self.halted.before(slot, machine, input, truth);
        self.rights.before(slot, input);
    }

    pub(crate) fn after(
        &mut self,
        now: At,
        slot: Slot,
        machine: &Machine,
        effects: &VecDeque<Effect>,
        truth: &Truth,
        sometimes: &mut Sometimes,
    ) {
        let verdicts = [
            ("S1", self.halted.after(slot, machine, effects, truth)),
            ("S4", self.s04.after(machine, truth)),
            ("S6", self.rights.after(slot, machine, effects, truth)),
            ("S7", self.s07.after(slot, effects, sometimes)),
            ("S8", self.s08.after(machine, effects, truth)),
            ("S9", self.s09.after(machine, truth)),
            ("S10", self.s10.after(slot, effects)),
            ("S15", self.accused.after(machine, effects, truth)),
            ("S16", self.s16.after(slot, machine)),
            ("S15", self.silence.after(now, slot, machine, effects, truth)),
        ];
        for (promise, verdict) in verdicts {
            self.judge(now, promise, verdict, truth);
        }
        if let Err((promise, what)) = self.copies.after(slot, machine, truth) {
            self.judge(now, promise, Err(what), truth);
        }
    }

    /// Looked at every half second: in small worlds always, in large ones after heal, since looking is not free.
    pub(crate) fn look(&mut self, world: &World, truth: &Truth, sometimes: &mut Sometimes) {
        let now = world.now;
        if world.healed.is_none() && world.slots() > LOOKED_AT_EARLY_MAX {
            return;
        }
        if self.refuted.look(world) {
            sometimes.reached("suspicion-refuted");
        }
        let verdict = self.s03.look(world, truth);
        self.judge(now, "S3", verdict, truth);
        let verdict = self.s06.look(world, truth);
        self.judge(now, "S6", verdict, truth);
        let verdict = self.s07.look(world, truth);
        self.judge(now, "S7", verdict, truth);
        let verdict = self.s09.look(world);
        self.judge(now, "S9", verdict, truth);
        let verdict = self.s10.look(world);
        self.judge(now, "S10", verdict, truth);
        let verdict = self.accused.look(world, truth);
        self.judge(now, "S15", verdict, truth);
        if world.healed.is_none() {
            return;
        }
        let broken = self.liveness.look(world, truth, sometimes);
        for (promise, what) in broken {
            self.judge(now, promise, Err(what), truth);
        }
    }

    pub(crate) fn end(&mut self, world: &World, truth: &Truth) {
        let verdict = self.s06.end(world, truth);
        self.judge(world.now, "S6", verdict, truth);
        let verdict = self.asked.end(world, truth, self.liveness.ready_at_us);
        self.judge(world.now, "L1", verdict, truth);
        let verdict = self.l6.end(world, truth, l1::able_with_etcd(world, truth).is_ok());
        self.judge(world.now, "L6", verdict, truth);
        let verdict = self.l7.end(world, truth, l1::able_with_etcd(world, truth).is_ok());
        self.judge(world.now, "L7", verdict, truth);
        let verdict = l8::end(world, truth, l1::able_with_etcd(world, truth).is_ok());
        self.judge(world.now, "L8", verdict, truth);
        let broken = self.liveness.end(world, truth);
        for (promise, what) in broken {
            self.judge(world.now, promise, Err(what), truth);
        }
    }
}
