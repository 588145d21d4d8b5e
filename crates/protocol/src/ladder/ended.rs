//! What the end of a step changes.

use std::time::Duration;

use muster_wire::{KubeadmMarker, TurnNumber};

use super::{Context, Failed, Initialised, Job, JoinStage, Ladder, PAUSE_MAX};
use crate::planted::planted;
use crate::words::notices::NoticeKind;
use crate::{StepFailure, StepOutput};

impl Ladder {
    pub(super) fn succeeded(&mut self, job: Job, output: StepOutput, context: &mut Context<'_>) -> bool {
        match (job, output) {
            (Job::Check, StepOutput::Checked { version, worker_only }) => {
                self.version = Some(version);
                let changed = self.unable != worker_only;
                self.unable = worker_only;
                self.failures.remove(job.name());
                return changed;
            }
            (Job::Prepare, _) => self.prepared = true,
            (Job::MakePki { attempt }, StepOutput::PkiMade { ca_hash, sealed }) => {
                self.pki = Some((attempt, ca_hash, sealed));
            }
            (Job::Init { attempt }, StepOutput::Initialised { ca_hash, endpoints }) => {
                let tokens = std::mem::take(&mut self.tokens);
                self.initialised = Some(Initialised { attempt, ca_hash, endpoints, tokens });
            }
            (Job::InitFinish { attempt }, output) => {
                if let StepOutput::Noted(text) = output {
                    context.effects.notice(NoticeKind::InitFinish, text);
                }
                self.mark_completed(context, KubeadmMarker { attempt, init: true });
            }
            (Job::Found { attempt }, _) => {
                self.founder.founded(attempt);
                context.durable.founded = attempt;
                context.effects.persist(context.durable).done();
            }
            (Job::FoundFinish { attempt }, _) => {
                self.mark_completed(context, KubeadmMarker { attempt, init: true });
            }
            (Job::Join { .. }, _) => self.join_stage = Some(JoinStage::Kubelet),
            (Job::JoinEtcd { number, .. }, _) => {
                self.join_stage = Some(JoinStage::Etcd(number));
                context.durable.etcd_joined = number;
                context.effects.persist(context.durable).done();
            }
            (Job::JoinFinish { attempt }, _) => {
                self.mark_completed(context, KubeadmMarker { attempt, init: false });
            }
            (Job::AwaitReady, _) => self.node_ready = true,
            (Job::RebuildEtcd { epoch } | Job::Register { epoch }, _) => self.rebuilt(context, epoch),
            (Job::Renew | Job::RenewKubelet, _) => self.renewed(context),
            (Job::LeaveEtcd, StepOutput::Noted(_)) => self.etcd_gone = None,
            (Job::LeaveEtcd, _) => self.take_back(context),
            (Job::Reset, _) => self.clean(context),
            (job, output) => {
                let why = format!("an answer that does not fit: {output:?}");
                return self.failed(job, &StepFailure { step: "device", phase: None, why, hopeless: false }, context);
            }
        }
        // What else failed stays counted until the climb is at its end: a join that ends in a reset each time must wait longer
        // each time, although its first steps go well.
        self.failures.remove(job.name());
        false
    }

    /// The machine is as if kubeadm had never run.
    pub(super) fn clean(&mut self, context: &mut Context<'_>) {
        context.durable.started = None;
        context.durable.completed = None;
        context.durable.etcd_joined = TurnNumber::NONE;
        self.resets += 1;
        self.underway = None;
        self.leave_join();
        self.initialised = None;
        self.node_ready = false;
        self.etcd_gone = None;
        context.effects.persist(context.durable).done();
    }

    pub(super) fn failed(&mut self, job: Job, failure: &StepFailure, context: &mut Context<'_>) -> bool {
        let text = failure.to_string();
        let failed = self.failures.entry(job.name()).or_insert(Failed { times: 0, why: String::new() });
        failed.times = failed.times.saturating_add(1);
        failed.why.clone_from(&text);
        let pause = (Duration::from_secs(1) * (1 << failed.times.min(6))).min(PAUSE_MAX);
        let pause = if planted("retry-at-once") { Duration::ZERO } else { pause };
        let times = if failed.times == 1 { String::new() } else { format!(" ({} times in a row)", failed.times) };
        context.effects.notice(NoticeKind::StepFailed, format!("{text}{times}; next try in {} s", pause.as_secs()));
        self.not_before = context.now + pause;
        if planted("failed-reset-done") && job == Job::Reset {
            self.clean(context);
        }
        if planted("last-step-resets") && matches!(job, Job::JoinFinish { .. }) {
            (self.underway, context.durable.etcd_joined) = (None, TurnNumber::NONE);
        }
        match job {
            Job::Check => {
                let changed = self.unable.as_ref() != Some(&text);
                self.unable = Some(text);
                return changed;
            }
            // kubeadm will say itself what is missing; a failed preparation only makes it slower.
            Job::Prepare => self.prepared = true,
            Job::MakePki { attempt } => self.init_failed = Some((attempt, text)),
            Job::Init { attempt } => {
                self.init_failed = Some((attempt, text));
                self.underway = None;
                // The right to init goes on to another machine at once; only the next try here waits.
                self.not_before = context.now;
            }
            // What kubeadm says of itself, in a phase of its own, says nothing of etcd's data: with that this machine goes on.
            Job::Found { attempt } if failure.hopeless && failure.phase.is_none() => {
                self.founder.lost(attempt, context.ledger.ready().is_some());
            }
            Job::Join { .. } | Job::JoinEtcd { .. } => {
                self.underway = None;
                self.leave_join();
                if planted("failed-join-unmarked") {
                    self.clean(context);
                }
            }
            // The cluster stands, and so does this machine in it. What failed was a wait or a mark: it is tried again, and no
            // reason to take down what works.
            Job::InitFinish { .. }
            | Job::Found { .. }
            | Job::FoundFinish { .. }
            | Job::JoinFinish { .. }
            | Job::AwaitReady
            | Job::Renew
            | Job::RenewKubelet
            | Job::RebuildEtcd { .. }
            | Job::Register { .. }
            | Job::LeaveEtcd
            | Job::Reset => {}
        }
        false
    }
}
