//! What befalls machines, drawn from a seed, and how each is done and undone.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use super::super::layout::Testbed;
use super::super::machine::Machine;
use super::super::network;
use crate::command::output;

/// What befalls a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Sort {
    /// Its power is gone for a while
    Power,
    /// The power of all machines is gone for a while
    Outage,
    /// Its disk is another one, which is empty
    Wipe,
    /// Its power is gone for a while, and it comes back with another address
    Address,
    /// Its cable is unplugged
    Cut,
    /// A third of the packets that it receives are lost
    Loss,
    /// Its agent is killed
    AgentKill,
    /// Its agent is restarted
    AgentRestart,
    /// Its agent stands still
    AgentStop,
    /// Its API server is killed, if it has one
    ApiServer,
    /// Its etcd is killed, if it has one
    Etcd,
    /// Its kubelet is killed
    Kubelet,
    /// Its agent is killed, and what muster writes fails
    Disk,
}

/// Share of packets that are lost, in percent.
const LOSS: u8 = 33;
/// A round lasts so long: seconds, from and to.
const LASTS: (u64, u64) = (5, 40);
/// Most faults of a round.
const FAULTS_MAX: u64 = 3;

/// One fault.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) sort: Sort,
    /// The machine's number in the testbed; for all of them, none.
    pub(super) machine: Option<usize>,
}

/// What befalls the site at one time.
#[derive(Debug, Clone)]
pub(super) struct Round {
    pub(super) faults: Vec<Fault>,
    pub(super) lasts: Duration,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, fault) in self.faults.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            let word = fault.sort.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
            match fault.machine {
                Some(machine) => write!(f, "{comma}{word} of machine {}", machine + 1)?,
                None => write!(f, "{comma}{word}")?,
            }
        }
        write!(f, " for {} s", self.lasts.as_secs())
    }
}

/// Numbers that follow from a seed: SplitMix64 (Steele, Lea and Flood, 2014). The same seed gives the same faults for as long as this file
/// stays.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `sides`.
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % sides.max(1)
    }

    /// The next round for so many machines. An outage comes alone, no machine has two faults, and one disk at most is emptied.
    pub(super) fn round(&mut self, machines: usize, of: &[Sort]) -> Round {
        let mut faults: Vec<Fault> = Vec::new();
        for _ in 0..=self.below(FAULTS_MAX) {
            let sort = of.get(self.below(of.len() as u64) as usize).copied().unwrap_or(Sort::Power);
            let machine = self.below(machines as u64) as usize;
            let taken = faults.iter().any(|fault| fault.machine == Some(machine));
            let wiped = sort == Sort::Wipe && faults.iter().any(|fault| fault.sort == Sort::Wipe);
            match sort {
                Sort::Outage => faults = vec![Fault { sort, machine: None }],
                _ if taken || wiped => {}
                _ => faults.push(Fault { sort, machine: Some(machine) }),
            }
            if sort == Sort::Outage {
                break;
            }
        }
        let lasts = Duration::from_secs(LASTS.0 + self.below(LASTS.1 - LASTS.0));
        Round { faults, lasts }
    }
}

impl Fault {
    fn machines<'a>(&self, testbed: &'a Testbed) -> Vec<&'a Machine> {
        match self.machine {
            Some(number) => testbed.machines.get(number).into_iter().collect(),
            None => testbed.machines.iter().collect(),
        }
    }

    /// It begins.
    pub(super) fn begin(&self, testbed: &Testbed) -> Result<()> {
        for machine in self.machines(testbed) {
            let shell = |script: &str| output(&mut machine.exec(&["sh", "-c", script])?).map(drop);
            match self.sort {
                Sort::Power | Sort::Outage | Sort::Address => machine.kill()?,
                Sort::Wipe => machine.wipe()?,
                Sort::Cut => network::cut(machine)?,
                Sort::Loss => network::lose(machine, LOSS)?,
                Sort::AgentKill => shell("systemctl kill --kill-whom=main --signal=KILL muster")?,
                Sort::AgentRestart => shell("systemctl restart --no-block muster")?,
                Sort::AgentStop => shell("systemctl kill --kill-whom=main --signal=STOP muster")?,
                // A machine's processes are in its own namespace. One that is not there is killed by nobody.
                Sort::ApiServer => shell("pkill -KILL -x kube-apiserver || true")?,
                Sort::Etcd => shell("pkill -KILL -x etcd || true")?,
                Sort::Kubelet => shell("systemctl kill --signal=KILL kubelet || true")?,
                // Nothing in it can be made, renamed or removed, by root neither; and an agent that starts has something to write.
                Sort::Disk => {
                    shell("chattr +i /var/lib/muster && systemctl kill --kill-whom=main --signal=KILL muster")?
                }
            }
        }
        Ok(())
    }

    /// It ends.
    pub(super) fn end(&self, testbed: &mut Testbed) -> Result<()> {
        if self.sort == Sort::Address {
            let names: Vec<String> = self.machines(testbed).iter().map(|machine| machine.name.clone()).collect();
            names.iter().try_for_each(|name| testbed.lease_again(name))?;
        }
        for machine in self.machines(testbed) {
            let shell = |script: &str| output(&mut machine.exec(&["sh", "-c", script])?).map(drop);
            match self.sort {
                Sort::Power | Sort::Outage | Sort::Address => machine.start()?,
                Sort::Cut => network::heal(machine)?,
                Sort::Loss => network::lose(machine, 0)?,
                Sort::AgentStop => shell("systemctl kill --kill-whom=main --signal=CONT muster")?,
                Sort::Disk => shell("chattr -i /var/lib/muster")?,
                Sort::Wipe | Sort::AgentKill | Sort::AgentRestart | Sort::ApiServer | Sort::Etcd | Sort::Kubelet => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_rounds_and_another_seed_others() {
        let rounds = |seed| {
            let mut dice = Dice::new(seed);
            (0..50).map(|_| dice.round(5, Sort::value_variants()).to_string()).collect::<Vec<_>>()
        };
        assert_eq!(rounds(7), rounds(7));
        assert_ne!(rounds(7), rounds(8));
    }

    #[test]
    fn no_round_loses_two_disks_or_gives_a_machine_two_faults() {
        let mut dice = Dice::new(1);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..2_000 {
            let round = dice.round(4, Sort::value_variants());
            let wipes = round.faults.iter().filter(|fault| fault.sort == Sort::Wipe).count();
            let machines: std::collections::BTreeSet<_> = round.faults.iter().map(|fault| fault.machine).collect();
            assert!(wipes <= 1 && machines.len() == round.faults.len() && !round.faults.is_empty(), "{round}");
            let outage = round.faults.iter().any(|fault| fault.sort == Sort::Outage);
            assert!(!outage || round.faults.len() == 1, "{round}");
            seen.extend(round.faults.iter().map(|fault| fault.sort));
        }
        assert_eq!(seen.len(), Sort::value_variants().len(), "every sort is drawn");
    }
}
