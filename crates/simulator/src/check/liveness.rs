//! The liveness promises together: looked at from the moment of healing until each holds or its bound has passed.

use std::collections::BTreeMap;

use super::{l1, l2, l3, l4, l5};
use crate::scenario::{Bounds, Liveness as Promise, Scenario};
use crate::sometimes::Sometimes;
use crate::truth::Truth;
use crate::watch::Seen;
use crate::world::{At, World};

/// What is known of a liveness promise.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Standing {
    /// It held, so long after heal.
    Held {
        /// Microseconds from heal.
        after_us: At,
    },
    /// There was no occasion for it.
    NoOccasion,
    /// The run did not show it.
    Unknown {
        /// Why not.
        why: String,
    },
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Standing::Held { after_us } => write!(f, "held, {:.1} s after heal", *after_us as f64 / 1e6),
            Standing::NoOccasion => f.write_str("there was no occasion for it"),
            Standing::Unknown { why } => write!(f, "unknown: {why}"),
        }
    }
}

/// What a look at a promise gives.
pub(super) enum Look {
    /// It holds now.
    Holds,
    /// Not yet, for this reason.
    NotYet(String),
    /// Not within its bound.
    Broken(String),
    /// It cannot be asked for here.
    Pointless(String),
    /// There was no occasion for it so far.
    NoOccasion,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Liveness {
    bounds: Bounds,
    healed: At,
    standing: BTreeMap<&'static str, Standing>,
    /// When everyone followed one charter, from heal.
    pub charter_after_us: Option<At>,
    /// When every machine was Ready, from the start of the run.
    pub ready_at_us: Option<At>,
    l2: l2::Led,
    l3: l3::EqualRosters,
    l4: l4::Replaced,
    l5: l5::Quiet,
}

impl Liveness {
    pub(super) fn begin(&mut self, scenario: &Scenario) {
        self.bounds = scenario.bounds.clone();
        // What is never looked at was not shown.
        let unseen = || Standing::Unknown { why: "the run ended before it was looked at".into() };
        self.standing = self.bounds.check.iter().map(|promise| (name(*promise), unseen())).collect();
    }

    pub(super) fn see(&mut self, now: At, seen: &Seen<'_>, _facts: &Truth) {
        if matches!(seen, Seen::Healed) {
            self.healed = now;
        }
    }

    /// What is known of each.
    pub fn standing(&self) -> &BTreeMap<&'static str, Standing> {
        &self.standing
    }

    /// Whether every promise asked for held or had no occasion.
    pub fn all_held(&self) -> bool {
        self.bounds.check.iter().all(|promise| {
            matches!(self.standing.get(name(*promise)), Some(Standing::Held { .. } | Standing::NoOccasion))
        })
    }

    pub(super) fn look(
        &mut self,
        world: &World,
        truth: &Truth,
        sometimes: &mut Sometimes,
    ) -> Vec<(&'static str, String)> {
        let now = world.now;
        let after = now.saturating_sub(self.healed);
        if self.charter_after_us.is_none() && l1::chartered(world).is_ok() {
            self.charter_after_us = Some(after);
        }
        let mut broken = Vec::new();
        for promise in self.bounds.check.clone() {
            let word = name(promise);
            if matches!(self.standing.get(word), Some(Standing::Held { .. }))
                && !matches!(promise, Promise::L2 | Promise::L3 | Promise::L4)
            {
                continue;
            }
            let (look, bound_s) = match promise {
                Promise::L1 => self.one_cluster(world, truth),
                Promise::L2 => (self.l2.look(world, truth), self.bounds.leader_s),
                Promise::L3 => (self.l3.look(world, truth, self.healed, self.bounds.rosters_s), f64::INFINITY),
                Promise::L4 => (self.l4.look(world, truth, self.bounds.replaced_s), f64::INFINITY),
                Promise::L5 => (self.l5.look(world, self.ready_at_us, &self.bounds), f64::INFINITY),
            };
            let late = after as f64 > bound_s * 1e6;
            let standing = match look {
                Look::Holds => {
                    if promise == Promise::L1 {
                        self.ready_at_us.get_or_insert(now);
                        sometimes.reached("everyone-ready");
                        if l1::applied_by_another(world) {
                            sometimes.reached("manifests-by-another");
                        }
                    }
                    Standing::Held { after_us: after }
                }
                Look::NoOccasion => Standing::NoOccasion,
                Look::Pointless(why) => Standing::Unknown { why },
                Look::Broken(why) => {
                    broken.push((word, why));
                    continue;
                }
                Look::NotYet(why) if late => {
                    broken.push((word, format!("{why} ({:.1} s after heal)", after as f64 / 1e6)));
                    continue;
                }
                Look::NotYet(why) => Standing::Unknown { why: format!("at the end of the run: {why}") },
            };
            self.standing.insert(word, standing);
        }
        broken
    }

    fn one_cluster(&self, world: &World, truth: &Truth) -> (Look, f64) {
        if self.charter_after_us.is_none() {
            return match l1::able(world, truth) {
                Err(why) => (Look::Pointless(why), self.bounds.charter_s),
                Ok(()) => (Look::NotYet(l1::chartered(world).err().unwrap_or_default()), self.bounds.charter_s),
            };
        }
        let look = match l1::joined(world, truth) {
            Ok(()) => Look::Holds,
            Err(why) => match l1::able_with_etcd(world, truth) {
                Ok(()) => Look::NotYet(why),
                Err(why) => Look::Pointless(why),
            },
        };
        (look, self.bounds.joined_s)
    }

    /// What must hold over the whole run after heal.
    pub(super) fn end(&mut self, world: &World, _facts: &Truth) -> Vec<(&'static str, String)> {
        if !self.bounds.check.contains(&Promise::L5) {
            return Vec::new();
        }
        match self.l5.end(world, &self.bounds) {
            Some(Ok(after_us)) => {
                self.standing.insert("L5", Standing::Held { after_us });
                Vec::new()
            }
            Some(Err(why)) => vec![("L5", why)],
            None => Vec::new(),
        }
    }
}

fn name(promise: Promise) -> &'static str {
    match promise {
        Promise::L1 => "L1",
        Promise::L2 => "L2",
        Promise::L3 => "L3",
        Promise::L4 => "L4",
        Promise::L5 => "L5",
    }
}
