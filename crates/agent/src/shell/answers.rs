//! What the local API is asked: what the machine and the rooms around it know, wishes, and reports.

use std::time::{Duration, Instant};

use muster_protocol::{Dropped, Fate, Input, Phase, Reason, Status, Topic};
use muster_wire::{CallNumber, Frame, MachineId, TurnKind};
use tokio::sync::oneshot;

use super::Shell;
use crate::api::{Question, Subject};
use crate::backups::forget;
use crate::balancer::{none_works, that_works};
use crate::logs::Ring;
use crate::net::Command;
use crate::observe;
use crate::report::{self, Asked};

/// A kubelet that waits asks again within this time, a restart of its unit included.
const KUBELET_ASKS: Duration = Duration::from_secs(15);

impl Shell {
    /// Answers a question. A wish is for the machine, which answers when its fate is known.
    pub(super) fn answer(&mut self, (subject, answer): Question) -> Option<Input> {
        let json = match subject {
            Subject::Wish { wish, dry_run } => {
                self.calls = self.calls.next();
                self.wishes.insert(self.calls, answer);
                return Some(Input::Wish { call: self.calls, wish, dry_run });
            }
            Subject::Recover { dry_run, backup } => {
                self.calls = self.calls.next();
                self.recover(self.calls, dry_run, backup.as_deref(), answer);
                return None;
            }
            Subject::FetchBackup { number } => {
                self.fetch_backup(number, answer);
                return None;
            }
            Subject::Backups => self.list_backups(),
            Subject::Report { machine } => {
                self.report(machine, answer);
                return None;
            }
            Subject::Images => serde_json::json!(self.machine.images()),
            Subject::Common => serde_json::json!(self.common),
            Subject::Status => self.status(),
            Subject::Explain => {
                self.explain(answer);
                return None;
            }
            Subject::Ledger => self.ledger(),
            Subject::Start => {
                self.kubelet_asked = Some(Instant::now());
                let waits = self.former.as_ref().is_some_and(|former| !former.is_done());
                let addresses = waits.then(|| "its former addresses are not in place yet".to_owned());
                let why = self.machine.may_start(self.now()).err().or(addresses);
                serde_json::json!({ "starts": why.is_none(), "why": why })
            }
            Subject::Metrics => {
                let mut all = self.counters.all();
                all.extend(self.raft.refusals().map(|(why, count)| (format!("dropped: {why}"), count)));
                serde_json::json!(all)
            }
        };
        // Whoever asked may have gone.
        let _ = answer.send(json.to_string());
        None
    }

    /// Why it is not further; of a machine that is, whether there is an API server to use at all, which is looked at for whoever asks.
    fn explain(&self, answer: oneshot::Sender<String>) {
        let mut waiting = self.told().waiting;
        let servers = if self.machine.phase() == Phase::Ready { self.device.endpoint.known() } else { Vec::new() };
        let ca = self.device.place.settings.pki_dir().join("ca.crt");
        tokio::spawn(async move {
            if none_works(&servers, &ca).await {
                let asked: Vec<String> = servers.iter().map(ToString::to_string).collect();
                let text = format!(
                    "no API server can be used: each of {} is away, or says that it is not ready, as it does when its etcd has no majority",
                    asked.join(", ")
                );
                waiting.push(Reason { about: Topic::Api, text, machines: Vec::new() });
            }
            // Whoever asked may have gone.
            let _ = answer.send(serde_json::json!(waiting).to_string());
        });
    }

    /// Whether the cluster is to be rebuilt the machine decides, by what the API servers say of their etcd as well.
    fn recover(&mut self, call: CallNumber, dry_run: bool, backup: Option<&str>, mut answer: oneshot::Sender<String>) {
        let servers = self.device.endpoint.known();
        let (ca, inputs) = (self.device.place.settings.pki_dir().join("ca.crt"), self.inputs.clone());
        let backup = backup.map(|backup| self.backup_to_begin_with(backup, dry_run)).transpose();
        let directory = self.device.place.settings.backups_dir.clone();
        let (told, fate) = oneshot::channel();
        // Whoever was refused here, or has gone, waits no more.
        self.wishes.retain(|_, waits| !waits.is_closed());
        self.wishes.insert(call, told);
        tokio::spawn(async move {
            let may = async {
                let backup = match backup? {
                    Some(comes) => Some(comes.await?),
                    None => None,
                };
                Ok((backup, that_works(&servers, &ca).await.map(|at| at.to_string())))
            };
            let may = tokio::select! {
                may = may => may,
                () = answer.closed() => return,
            };
            let (backup, works) = match may {
                Ok(may) => may,
                Err::<_, String>(why) => {
                    let _ = answer.send(serde_json::json!(Fate::Refused { why }).to_string());
                    return;
                }
            };
            if inputs.send(Input::Recover { call, dry_run, backup, works }).await.is_ok()
                && let Ok(fate) = fate.await
            {
                let refused = serde_json::from_str(&fate).is_ok_and(|fate| matches!(fate, Fate::Refused { .. }));
                if let Some(digest) = backup.filter(|_| refused) {
                    forget(&directory, digest);
                }
                let _ = answer.send(fate);
            }
        });
    }

    /// Tells a person this machine's report, or another's.
    fn report(&mut self, machine: Option<MachineId>, answer: oneshot::Sender<String>) {
        match machine.filter(|machine| *machine != self.machine.id()) {
            Some(machine) => {
                let (comes, whole) = oneshot::channel();
                let frame = self.others.ask(machine, comes);
                self.tell_mesh(Command::Send(machine, frame.encode()));
                tokio::spawn(async move {
                    if let Ok(Ok(json)) = tokio::time::timeout(report::PATIENCE, whole).await {
                        let _ = answer.send(json);
                    }
                });
            }
            None => {
                let complete = report::complete(self.own_report(), self.root.clone(), self.record.clone());
                tokio::spawn(async move {
                    // Whoever asked may have gone.
                    let _ = answer.send(serde_json::json!(complete.await).to_string());
                });
            }
        }
    }

    /// Another machine asks for a part of this one's.
    pub(super) fn report_asked(&mut self, from: MachineId, call: CallNumber, part: u32) {
        if !self.machine.ledger().gives_report(from) {
            self.counters.dropped(Dropped::ReportFrame);
            let text = format!("{from} is no member of the cluster, by what this machine knows of it\n");
            let body = report::packed(&[("refused.txt".to_owned(), text)].into());
            let refusal = Frame::ReportPart { call, part: 0, parts: 1, body };
            return if part == 0 {
                self.tell_mesh(Command::Send(from, refusal.encode()))
            };
        }
        match self.others.asked(from, call, part) {
            Asked::Part(frame) => self.tell_mesh(Command::Send(from, frame.encode())),
            Asked::Make => {
                let (complete, reports) =
                    (report::complete(self.own_report(), self.root.clone(), self.record.clone()), self.reports.clone());
                tokio::spawn(async move {
                    let report = complete.await;
                    let packed = tokio::task::spawn_blocking(move || report::packed(&report)).await;
                    let _ = reports.send(packed.unwrap_or_default()).await;
                });
            }
            Asked::Nothing => {}
        }
    }

    /// What the agent alone knows for a report.
    fn own_report(&self) -> report::Report {
        let text = |json: serde_json::Value| format!("{json:#}\n");
        let lines = |ring: &Ring| ring.follow().0.join("\n");
        let mut metrics = self.counters.all();
        metrics.extend(self.raft.refusals().map(|(why, count)| (format!("dropped: {why}"), count)));
        let own = [
            ("status.json", text(self.status())),
            ("explain.json", text(serde_json::json!(self.told().waiting))),
            ("ledger.json", text(self.ledger())),
            ("images.json", text(serde_json::json!(self.machine.images()))),
            ("metrics.json", text(serde_json::json!(metrics))),
            ("events.txt", lines(&self.events)),
            ("log.txt", lines(&self.logs)),
        ];
        own.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()
    }

    /// What the machine says of itself, with what the mesh alone knows.
    pub(super) fn told(&self) -> Status {
        let mut status = self.machine.status(self.now());
        status.hints = self.outcomes.list();
        // A guard that still asks is a kubelet that still waits.
        if self.kubelet_asked.is_some_and(|asked| asked.elapsed() < KUBELET_ASKS) {
            status.waiting.extend(self.machine.kubelet_waits(self.now()));
        }
        status.waiting.extend(observe::torn(&self.device.place.settings));
        status.waiting.extend(self.missing_backups());
        status.waiting.extend(self.taken_back.clone());
        for (machine, connections) in self.holes.list() {
            status.waiting.push(status.hole_reason(machine, connections));
        }
        if status.misses_somebody() {
            status.waiting.extend(status.hint_reasons());
        }
        status
    }

    fn status(&self) -> serde_json::Value {
        let mut status = serde_json::json!(self.told());
        status["uptime_ms"] = serde_json::json!(self.started.elapsed().as_millis() as u64);
        status["steps"] = serde_json::json!(*self.device.times.lock().expect("no holder panics"));
        status
    }

    /// The ledger without its ciphertexts.
    fn ledger(&self) -> serde_json::Value {
        let ledger = self.machine.ledger();
        let members = ledger.members().values().map(|member| {
            serde_json::json!({
                "machine": member.admitted.machine.to_hex(),
                "name": member.admitted.name,
                "role": member.admitted.role,
                "address": member.admitted.address,
                "ticket": ledger.ticket(member.admitted.machine).map(|(attempt, _)| attempt),
                "etcd_member": ledger.has_etcd(member.admitted.machine),
                "joined": member.joined,
            })
        });
        let machine = |machine: MachineId| machine.to_hex();
        let turn = |kind| {
            let turn = ledger.turn(kind);
            turn.map(|(number, holder)| serde_json::json!({"number": number, "machine": machine(holder)}))
        };
        serde_json::json!({
            "revision": ledger.revision(),
            "level": ledger.level(),
            "members": members.collect::<Vec<_>>(),
            "claim": ledger.live_claim().map(|(attempt, holder)| serde_json::json!({"attempt": attempt, "machine": machine(holder)})),
            "ready": ledger.ready().map(|ready| serde_json::json!({"attempt": ready.attempt, "machine": machine(ready.machine)})),
            "abandoned": ledger.abandoned().iter().map(|(attempt, who, why)| {
                serde_json::json!({"attempt": attempt, "machine": machine(*who), "why": why})
            }).collect::<Vec<_>>(),
            "etcd_turn": turn(TurnKind::Etcd),
            "disrupt_turn": turn(TurnKind::Disrupt),
        })
    }
}
