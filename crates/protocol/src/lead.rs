//! What the Raft leader does besides replicating: a duty a file.
//!
//! Level-triggered: each duty compares the ledger with what should be there and wants the next entries. Everything it
//! does is decided by the apply rules, so two machines that both think they lead can only waste a proposal.

mod address;
mod backups;
pub(crate) mod disrupt;
mod init;
mod level;
pub(crate) mod manifests;
mod members;
mod pass;
mod pki;
mod renewal;
mod repair;
mod replace;
mod runs;
mod silence;
mod tickets;
mod tokens;
mod turns;
mod voters;

use muster_wire::MachineId;

use self::backups::Backups;
use self::disrupt::Disrupt;
use self::init::Init;
use self::level::Level;
use self::members::Members;
pub(crate) use self::pass::Context;
use self::pki::Pki;
use self::runs::{Job, Runs};
use self::silence::Silence;
use self::tickets::Tickets;
use self::tokens::Tokens;
use self::voters::Voters;
use crate::ledger::Member;
use crate::tuning::Tuning;
use crate::words::notices::NoticeKind;
use crate::words::waits::{Wait, Work};
use crate::{Effects, Recipient, RunId, StepFailure, StepOutput, Time};

/// Most admissions and tickets wanted at once, so that a thousand machines do not make one burst.
const AT_ONCE: usize = 32;

/// The leader's notes, a duty's each. Nothing here needs to survive a restart.
#[derive(Debug, Default)]
pub(crate) struct Lead {
    silence: Silence,
    members: Members,
    disrupt: Disrupt,
    backups: Backups,
    level: Level,
    init: Init,
    voters: Voters,
    pki: Pki,
    tickets: Tickets,
    tokens: Tokens,
    runs: Runs,
    /// What the duties waited for at the last look.
    waits: Vec<Wait>,
}

impl Lead {
    /// Forgets everything but what is being made and the pauses after what failed, which tokens were, and how old backups are: this machine does not lead (any more).
    pub(crate) fn step_down(&mut self) {
        let (runs, pki) = (std::mem::take(&mut self.runs), std::mem::take(&mut self.pki));
        let (tokens, disrupt) = (std::mem::take(&mut self.tokens), std::mem::take(&mut self.disrupt));
        let backups = std::mem::take(&mut self.backups);
        *self = Self { runs, pki, tokens, disrupt, backups, ..Self::default() };
    }

    /// What the duties wait for.
    pub(crate) fn waits(&self) -> &[Wait] {
        &self.waits
    }

    /// A look is over, in which the duties waited for these.
    pub(crate) fn waited(&mut self, mut waits: Vec<Wait>) {
        waits.sort_unstable();
        waits.dedup();
        self.waits = waits;
    }

    /// What a control plane does for a leader that cannot do all of its duties.
    pub(crate) fn assist(&mut self, context: &mut Context<'_>, leader: MachineId) {
        self.backups.run(context, &mut self.runs, false);
        self.disrupt.run(context, &mut self.silence, &mut self.backups, &mut self.runs, leader);
        self.pki.assist(context, &mut self.runs, leader);
        // A leader that was admitted after init began has a token that init did not register, and no API server to register it.
        if !has_joined(context, leader)
            && has_joined(context, context.me())
            && let (Some(attempt), Some(pki)) = (context.ledger.cluster_attempt(), context.ledger.pki())
            && let Some(own) = pki.sealed.get(&context.me())
        {
            self.tokens.renew(context, &mut self.runs, attempt, own);
        }
    }

    pub(crate) fn run(&mut self, context: &mut Context<'_>) {
        context.level = self.level.to_know(context);
        self.members.remove_replaced(context, &mut self.silence);
        let me = context.me();
        self.backups.run(context, &mut self.runs, true);
        self.disrupt.run(context, &mut self.silence, &mut self.backups, &mut self.runs, me);
        let admitted_all = self.members.admit(context, &mut self.silence);
        // A claim names its founders only at a level that has them, so it comes when the ledger has risen.
        let rises = self.level.raise(context);
        self.init.watch_claim(context, &mut self.silence, admitted_all && !rises);
        turns::watch(context, &mut self.silence);
        self.voters.grow(context, self.disrupt.unvoted);
        self.issue(context);
    }

    /// Has missing tickets and copies of the CA made, wants them committed, and keeps tokens as they should be.
    fn issue(&mut self, context: &mut Context<'_>) {
        let ledger = context.ledger;
        let (Some(attempt), Some(pki)) = (ledger.cluster_attempt(), ledger.pki()) else { return };
        let Some(own) = pki.sealed.get(&context.me()).cloned() else {
            context.waits.push(Wait::Work(Work::NoCa));
            return;
        };
        self.tickets.forget(ledger, attempt);
        self.pki.forget(pki);
        let initialiser = ledger.ready().map(|ready| ready.machine).or(ledger.live_claim().map(|(_, machine)| machine));
        for (machine, member) in ledger.members() {
            if self.runs.count() >= AT_ONCE {
                break;
            }
            if pki::lacks(pki, member) {
                self.pki.seal(context, &mut self.runs, member, &own);
            }
            let comes = Some(*machine) != initialiser || member.left;
            if comes && !member.joined && tickets::is_needed(ledger, *machine, attempt) {
                self.tickets.make(context, &mut self.runs, member, attempt, &own);
            }
        }
        self.tickets.want(context);
        self.pki.want(context);
        // Only a machine with a running API server can change tokens.
        if has_joined(context, context.me()) {
            self.tokens.renew(context, &mut self.runs, attempt, &own);
            self.tokens.delete(context, &mut self.runs, own);
        }
    }

    /// etcd has what it had once: what was registered there since may not be.
    pub(crate) fn restored(&mut self) {
        self.tokens = Tokens::default();
    }

    /// How often in a row no backup could be taken here, and why the last time.
    pub(crate) fn backup_failure(&self) -> Option<(u32, &str)> {
        self.backups.failure()
    }

    /// A machine joined.
    pub(crate) fn joined(&mut self, now: Time, machine: MachineId) {
        self.tokens.served(now, machine);
    }

    /// Something holds a run up. Returns whether others are to know it now.
    pub(crate) fn held(&mut self, now: Time, run: RunId, why: &str) -> bool {
        match self.runs.job(run) {
            Some(Job::Drain { machine }) => self.disrupt.held_up(now, machine, why),
            _ => false,
        }
    }

    /// A run ended. Returns whether it was one of the leader's.
    pub(crate) fn finished(
        &mut self,
        now: Time,
        run: RunId,
        result: &Result<StepOutput, StepFailure>,
        tuning: &Tuning,
        effects: &mut Effects,
    ) -> bool {
        let Some(job) = self.runs.take(run) else { return false };
        if result.is_ok() {
            self.runs.succeeded(job.machine());
        }
        match (job, result) {
            (Job::Ticket { machine, attempt, registers }, Ok(StepOutput::Ticket { ciphertext })) => {
                self.tickets.made(machine, attempt, ciphertext.clone());
                if registers {
                    self.tokens.registered(machine);
                }
            }
            (Job::SealPki { machine }, Ok(StepOutput::PkiMade { ca_hash, sealed })) => {
                self.pki.made(machine, *ca_hash, sealed);
            }
            (Job::RenewToken { machine, .. }, Ok(_)) => self.tokens.registered(machine),
            (Job::DeleteToken { .. }, Ok(_)) => {}
            (Job::Strike { machine }, Ok(StepOutput::Noted(_))) => self.disrupt.spared(machine),
            (Job::Strike { machine }, Ok(_)) => self.disrupt.struck(machine),
            (Job::Drain { machine }, Ok(_)) => self.disrupt.drained(now, machine),
            (Job::Open { .. }, Ok(_)) => self.disrupt.opened(),
            (Job::Renew { .. }, Ok(_)) => self.disrupt.renewing.renewed(now, effects),
            (Job::BackUp { .. }, Ok(output @ StepOutput::BackedUp { .. })) => {
                self.backups.taken(now, job, output, tuning.backups.copies, tuning.backups.keep);
            }
            (Job::Ended { .. }, _) => {}
            (job, result) => {
                let why = result.as_ref().err().map_or("an unexpected answer".to_owned(), ToString::to_string);
                if let Err(failure) = result {
                    self.disrupt.failed(now, job, &failure.why);
                }
                self.failed(now, job, &why, tuning, effects);
            }
        }
        true
    }

    fn failed(&mut self, now: Time, job: Job, why: &str, tuning: &Tuning, effects: &mut Effects) {
        let machine = job.machine();
        effects.notice(NoticeKind::Retry, format!("for {machine}: {why}; it is tried again"));
        self.runs.pause(now, machine, tuning);
        match job {
            Job::RenewToken { known, .. } => self.tokens.failed(now, machine, known, tuning),
            // The token's own lifetime ends it; one more try is worth a process, endless ones are not.
            Job::DeleteToken { .. } => {
                effects.notice(NoticeKind::Token, format!("the token of {machine} stays until it expires"));
            }
            // Whoever looks at the Node sees that it is closed.
            Job::Open { .. } => self.disrupt.opened(),
            Job::Renew { .. } => self.disrupt.renewing.failed(now),
            Job::BackUp { .. } => self.backups.failed(now, why),
            Job::Ticket { .. } | Job::SealPki { .. } | Job::Strike { .. } | Job::Drain { .. } | Job::Ended { .. } => {}
        }
    }
}

fn has_joined(context: &Context<'_>, machine: MachineId) -> bool {
    context.ledger.member(machine).is_some_and(|member| member.joined)
}

fn recipient(member: &Member) -> Recipient {
    Recipient { machine: member.admitted.machine, sealing_key: member.admitted.sealing_key }
}
