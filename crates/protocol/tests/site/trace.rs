//! What a transcript shows of a site: each line says when, which machine, and what it did.

use std::collections::BTreeMap;

use muster_protocol::{Effect, Ledger, Time};
use muster_wire::{Ballot, Charter, Durable, Entry, Frame, MachineId, Revision};

/// What is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    /// Ballots, promises and votes: on disk and on the wire.
    Founding,
    /// Entries as they are committed, and what the rules say of them.
    Ledger,
    /// Polls of the ledger that bring something.
    Polls,
    /// kubeadm's steps.
    Steps,
    /// What people are told.
    Notices,
}

/// The lines so far, and what is needed to word the next.
#[derive(Default)]
pub(crate) struct Trace {
    pub(crate) topics: Vec<Topic>,
    pub(crate) lines: Vec<String>,
    pub(crate) names: BTreeMap<MachineId, String>,
    pub(crate) begun: Time,
    /// The log as a second reader applies it.
    pub(crate) ledger: Option<Ledger>,
}

impl Trace {
    pub(crate) fn say(&mut self, now: Time, topic: Topic, seat: usize, what: &str) {
        if self.topics.contains(&topic) {
            let ms = now.since(self.begun).as_millis();
            self.lines.push(format!("{}.{:03} m{seat}: {what}", ms / 1000, ms % 1000));
        }
    }

    fn name(&self, machine: MachineId) -> String {
        self.names.get(&machine).cloned().unwrap_or_else(|| machine.to_string())
    }

    fn names<'a>(&self, machines: impl IntoIterator<Item = &'a MachineId>) -> String {
        machines.into_iter().map(|machine| self.name(*machine)).collect::<Vec<_>>().join(" ")
    }

    fn ballot(&self, ballot: Ballot) -> String {
        format!("{}.{}", ballot.round, self.name(ballot.machine))
    }

    fn charter(&self, bytes: &[u8]) -> String {
        let charter = Charter::decode(bytes).expect("is a charter");
        format!("charter {} voters {}", hex(&charter.id[..3]), self.names(&charter.voters))
    }

    /// An effect, before it is carried out. `before` is what the disk holds.
    pub(crate) fn effect(&mut self, now: Time, seat: usize, effect: &Effect, before: &Durable) {
        match effect {
            Effect::Persist(durable) => self.persisted(now, seat, before, durable),
            Effect::Send { to, frame } => self.sent(now, seat, *to, frame),
            Effect::Run { step, .. } => self.say(now, Topic::Steps, seat, &format!("{} begins", step.name())),
            Effect::Abort { .. } => self.say(now, Topic::Steps, seat, "is told to stop its step"),
            Effect::Notice(notice) if notice.kind != muster_protocol::NoticeKind::Phase => {
                let text = self.rename(&notice.text);
                self.say(now, Topic::Notices, seat, &format!("[{}] {text}", notice.kind));
            }
            _ => {}
        }
    }

    fn persisted(&mut self, now: Time, seat: usize, before: &Durable, after: &Durable) {
        if let Some(ballot) = after.promised.filter(|_| after.promised != before.promised) {
            self.say(now, Topic::Founding, seat, &format!("disk: promised {}", self.ballot(ballot)));
        }
        if let Some((ballot, charter)) = after.accepted.as_ref().filter(|_| after.accepted != before.accepted) {
            let text = format!("disk: voted in {} for {}", self.ballot(*ballot), self.charter(charter));
            self.say(now, Topic::Founding, seat, &text);
        }
        if let Some(certificate) = after.charter.as_ref().filter(|_| before.charter.is_none()) {
            let text = format!("disk: follows charter {}", hex(&certificate.charter().id[..3]));
            self.say(now, Topic::Founding, seat, &text);
        }
    }

    fn sent(&mut self, now: Time, seat: usize, to: MachineId, frame: &Frame) {
        let (topic, what) = match frame {
            Frame::Prepare(ballot) => (Topic::Founding, format!("prepare {}", self.ballot(*ballot))),
            Frame::Promise(promise) => {
                let vote = promise.accepted.as_ref();
                let vote = vote.map(|(ballot, charter)| {
                    format!(", voted in {} for {}", self.ballot(*ballot), self.charter(charter))
                });
                (Topic::Founding, format!("promise {}{}", self.ballot(promise.ballot), vote.unwrap_or_default()))
            }
            Frame::Refusal { ballot, promised, why, .. } => {
                let text = format!("refuse {}, promised {} {why}", self.ballot(*ballot), self.ballot(*promised));
                (Topic::Founding, text.trim_end().to_owned())
            }
            Frame::Accept { ballot, charter } => {
                (Topic::Founding, format!("accept {} {}", self.ballot(*ballot), self.charter(charter)))
            }
            Frame::Accepted { vote, .. } => (Topic::Founding, format!("voted {}", self.ballot(vote.ballot))),
            Frame::Chartered { certificate, .. } => {
                (Topic::Founding, format!("chartered {}", hex(&certificate.charter().id[..3])))
            }
            Frame::LedgerNews(news) if !news.entries.is_empty() || news.state.is_some() || news.not_admitted => {
                let entries =
                    news.entries.iter().map(|(revision, _)| revision.to_string()).collect::<Vec<_>>().join(" ");
                let text = match (&news.state, news.not_admitted) {
                    (_, true) => "news: not admitted".to_owned(),
                    (Some(_), _) => format!("news: the whole ledger at {}", news.revision),
                    (None, _) => format!("news: entries {entries}"),
                };
                (Topic::Polls, text)
            }
            _ => return,
        };
        self.say(now, topic, seat, &format!("to {}: {what}", self.name(to)));
    }

    /// An entry that the log took: what the rules, asked a second time here, say of it.
    pub(crate) fn committed(&mut self, now: Time, seat: usize, charter: &Charter, revision: u64, entry: &Entry) {
        let mut ledger = self.ledger.take().unwrap_or_else(|| Ledger::founded(charter));
        let refused = ledger
            .apply(Revision(revision), entry)
            .err()
            .map(|why| format!(" REFUSED: {}", self.rename(&why.to_string())));
        let text = format!("{revision} {}{}", self.entry(entry), refused.unwrap_or_default());
        self.ledger = Some(ledger);
        self.say(now, Topic::Ledger, seat, &text);
    }

    fn entry(&self, entry: &Entry) -> String {
        match entry {
            Entry::Admitted(one) => {
                format!("admitted {} {} {} {}", self.name(one.machine), one.role, one.name, one.address)
            }
            Entry::Removed { machine } => format!("removed {}", self.name(*machine)),
            Entry::InitClaimed { attempt, machine, founders } => {
                let with = if founders.is_empty() { String::new() } else { format!(" with {}", self.names(founders)) };
                format!("init-claimed {attempt} {}{with}", self.name(*machine))
            }
            Entry::Left { machine } => format!("left {}", self.name(*machine)),
            Entry::Promoted { machine } => format!("promoted {}", self.name(*machine)),
            Entry::RemovalHeld { machine, why } => format!("removal-held {}: {why}", self.name(*machine)),
            Entry::Founds { attempt, machine } => format!("founds {attempt} {}", self.name(*machine)),
            Entry::PkiSealed { attempt, sealed, .. } => {
                format!("pki-sealed {attempt} to {}", self.names(sealed.iter().map(|one| &one.machine)))
            }
            Entry::InitReady { attempt, tokens, .. } => {
                format!("init-ready {attempt} tokens {}", self.names(tokens))
            }
            Entry::InitAbandoned { attempt, why } => format!("init-abandoned {attempt}: {}", self.rename(why)),
            Entry::Ticket { machine, attempt, .. } => format!("ticket {} {attempt}", self.name(*machine)),
            Entry::Turn(turn) => {
                format!("{}-turn {} {} {:?}", turn.kind.word(), turn.number, self.name(turn.holder), turn.change)
            }
            Entry::BackedUp(backup) => format!("backed-up {} by {}", backup.number, self.name(backup.machine)),
            Entry::BackupKept { number, machine } => format!("backup-kept {number} by {}", self.name(*machine)),
            Entry::BackupGone { number, machine } => format!("backup-gone {number} by {}", self.name(*machine)),
            Entry::LevelRaised { level } => format!("level-raised {level}"),
            Entry::Wished(signed) => format!("wished at {}: {}", self.name(signed.machine), signed.wish),
            Entry::Joined { machine } => format!("joined {}", self.name(*machine)),
        }
    }

    /// Machines by their seats instead of their identities.
    pub(crate) fn rename(&self, text: &str) -> String {
        let short = |text: String, (machine, name): (&MachineId, &String)| text.replace(&machine.to_string(), name);
        self.names.iter().fold(text.to_owned(), short)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
