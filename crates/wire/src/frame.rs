//! Frames: one message between two machines, versioned and bounded.

use std::net::IpAddr;

use bytes::Bytes;
use prost::Message;

use crate::charter::{ballot_from_proto, ballot_to_proto};
use crate::convert::{bounded, bounded_bytes, machine_bytes, optional_machine, required, text};
use crate::{
    Ballot, CallNumber, Certificate, Digest, Epoch, MachineId, Revision, SignedCard, Vote, WireError, limits, proto,
};
use proto::frame::Body;

/// What was accepted before, and who is known: the answer to a Prepare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promise {
    /// The ballot that is promised.
    pub ballot: Ballot,
    /// The highest vote given before, with the charter's bytes.
    pub accepted: Option<(Ballot, Bytes)>,
    /// The identities the promiser has seen, a bounded list.
    pub cards: Vec<SignedCard>,
}

/// An answer to a ledger poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerNews {
    /// Repeats the poll's number.
    pub call: CallNumber,
    /// The revision after `entries` or `state`.
    pub revision: Revision,
    /// Entries after the asked revision, each with its revision, in order.
    pub entries: Vec<(Revision, Bytes)>,
    /// The whole ledger instead, encoded, when the asked revision is too old.
    pub state: Option<Bytes>,
    /// The asker is not admitted and learns nothing else.
    pub not_admitted: bool,
    /// The Raft leader, a hint.
    pub leader: Option<MachineId>,
    /// The asker was removed.
    pub removal: Option<Removal>,
}

/// What becomes of a machine that was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Its hardware comes back as another machine.
    Returns,
    /// Somebody wished it away, and it does not come back by itself.
    StaysOut,
}

/// Why a ballot is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalCause {
    /// A higher one was promised. Of all causes this one alone is healed by a later ballot.
    Outbid,
    /// The proposer's vote does not count here.
    Uncounted,
    /// Founding halts at the machine that answers.
    Halted,
    /// The proposed charter is none of this image's.
    Unfit,
}

/// One message between two machines. Who sent it is known from the connection, which Noise authenticates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// First words on every connection: who I am, which charter I follow, whom I know.
    Hello {
        /// The sender's card.
        card: SignedCard,
        /// The hash of the charter it follows. Its proof, 100 bytes for each of a quorum, goes only to those who lack it.
        charter: Option<Digest>,
        /// Cards of others.
        cards: Vec<SignedCard>,
        /// Whether this answers a Hello.
        answer: bool,
        /// The address at which the sender has the receiver.
        seen_at: Option<IpAddr>,
    },
    /// A SWIM datagram.
    Swim(Bytes),
    /// Cards that changed, or that the receiver seems to lack.
    Cards(Vec<SignedCard>),
    /// Which cards the sender holds: the receiver answers with [`Frame::Cards`] that are not among them.
    CardsKnown {
        /// Drawn anew for each frame, so that two cards of one mark are told apart the next time.
        salt: u32,
        /// The [`SignedCard::mark`] of each, sorted, at most [`limits::KNOWN_MAX`].
        marks: Vec<u32>,
    },
    /// Paxos phase 1a.
    Prepare(Ballot),
    /// Paxos phase 1b.
    Promise(Promise),
    /// A Prepare or an Accept is not followed.
    Refusal {
        /// The ballot it answers.
        ballot: Ballot,
        /// The higher promise.
        promised: Ballot,
        /// Why.
        cause: RefusalCause,
        /// The same for people; empty for a mere higher promise.
        why: String,
    },
    /// Paxos phase 2a: vote for these charter bytes.
    Accept {
        /// The ballot.
        ballot: Ballot,
        /// The charter's bytes.
        charter: Bytes,
    },
    /// Paxos phase 2b: a signed vote.
    Accepted {
        /// The cluster's name.
        cluster: String,
        /// The vote.
        vote: Vote,
    },
    /// A charter was founded.
    Chartered {
        /// The charter with its proof.
        certificate: Box<Certificate>,
        /// Whether its cluster accepts the image that the receiver's card shows, as far as the sender knows its ledger.
        accepted: bool,
    },
    /// "What changed since?"
    LedgerPoll {
        /// Number that the answer repeats.
        call: CallNumber,
        /// The asker's revision.
        since: Revision,
        /// The epoch of what it has.
        epoch: Epoch,
        /// Whether it is alone, and asks everybody what they have: who does not vote answers as well, and at once.
        survey: bool,
    },
    /// Answer to a poll.
    LedgerNews(LedgerNews),
    /// A ledger entry that the sender wants committed.
    Proposal {
        /// Number that the answer repeats.
        call: CallNumber,
        /// The encoded entry.
        entry: Bytes,
    },
    /// Answer to a proposal.
    ProposalAnswer {
        /// Repeats the proposal's number.
        call: CallNumber,
        /// What came of it.
        outcome: ProposalOutcome,
    },
    /// A Raft call, its body defined in `proto/raft.proto`.
    RaftCall {
        /// Number that the answer repeats.
        call: CallNumber,
        /// The call.
        body: Bytes,
    },
    /// Answer to a Raft call.
    RaftAnswer {
        /// Repeats the call's number.
        call: CallNumber,
        /// The answer.
        body: Bytes,
    },
    /// A member is asked what it has to say for itself.
    ReportCall {
        /// Number that the answer repeats.
        call: CallNumber,
        /// Which part of the answer, from 0 and below [`limits::REPORT_PARTS_MAX`].
        part: u32,
    },
    /// A part of that.
    ReportPart {
        /// Repeats the call's number.
        call: CallNumber,
        /// Which part, below `parts`.
        part: u32,
        /// How many there are, from 1 to [`limits::REPORT_PARTS_MAX`].
        parts: u32,
        /// JSON, compressed by gzip, cut into parts of at most [`limits::REPORT_PART_BYTES_MAX`].
        body: Bytes,
    },
    /// A member asks for a part of a backup's sealed file.
    BackupCall {
        /// SHA-256 of the whole file.
        digest: Digest,
        /// From which byte on.
        from: u64,
    },
    /// A part of that.
    BackupPart {
        /// Repeats what was asked for.
        digest: Digest,
        /// The same.
        from: u64,
        /// At most [`limits::BACKUP_PART_BYTES_MAX`]; none if whoever is asked does not have it, or it ends before there.
        body: Bytes,
    },
}

/// What came of a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProposalOutcome {
    /// Committed and applied at this revision.
    Applied(Revision),
    /// Not taken, for this reason; a rule or a check says so, and proposing it again does not help.
    Refused(String),
    /// The asked machine does not lead; perhaps this one does.
    NotLeading(Option<MachineId>),
}

impl Frame {
    /// The frame's bytes, without a length before them.
    pub fn encode(&self) -> Vec<u8> {
        proto::Frame { version: limits::PROTOCOL_VERSION, body: Some(self.to_body()) }.encode_to_vec()
    }

    /// Checks version, form, bounds and signatures.
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        if bytes.len() > limits::FRAME_BYTES_MAX {
            return Err(WireError::TooLarge { what: "frame", bytes: bytes.len(), max: limits::FRAME_BYTES_MAX });
        }
        let frame =
            proto::Frame::decode(bytes).map_err(|why| WireError::Malformed { what: "frame", why: why.to_string() })?;
        if frame.version != limits::PROTOCOL_VERSION {
            return Err(WireError::Version { theirs: frame.version });
        }
        from_body(required(frame.body, "frame.body")?)
    }

    /// A short name for counters and traces.
    pub fn kind(&self) -> &'static str {
        match self {
            Frame::Hello { .. } => "hello",
            Frame::Swim(_) => "swim",
            Frame::Cards(_) => "cards",
            Frame::CardsKnown { .. } => "cards-known",
            Frame::Prepare(_) => "prepare",
            Frame::Promise(_) => "promise",
            Frame::Refusal { .. } => "refusal",
            Frame::Accept { .. } => "accept",
            Frame::Accepted { .. } => "accepted",
            Frame::Chartered { .. } => "chartered",
            Frame::LedgerPoll { .. } => "ledger-poll",
            Frame::LedgerNews(_) => "ledger-news",
            Frame::Proposal { .. } => "proposal",
            Frame::ProposalAnswer { .. } => "proposal-answer",
            Frame::RaftCall { .. } => "raft-call",
            Frame::RaftAnswer { .. } => "raft-answer",
            Frame::ReportCall { .. } => "report-call",
            Frame::ReportPart { .. } => "report-part",
            Frame::BackupCall { .. } => "backup-call",
            Frame::BackupPart { .. } => "backup-part",
        }
    }

    fn to_body(&self) -> Body {
        match self {
            Frame::Hello { card, charter, cards, answer, seen_at } => Body::Hello(proto::Hello {
                card: Some(card.to_proto()),
                charter_hash: charter.map(|hash| Bytes::copy_from_slice(&hash.0)).unwrap_or_default(),
                cards: cards.iter().map(SignedCard::to_proto).collect(),
                answer: *answer,
                seen_at: seen_at.map(|address| address.to_string()).unwrap_or_default(),
            }),
            Frame::Swim(bytes) => Body::Swim(bytes.clone()),
            Frame::Cards(cards) => {
                Body::Cards(proto::Cards { cards: cards.iter().map(SignedCard::to_proto).collect() })
            }
            Frame::CardsKnown { salt, marks } => {
                Body::CardsKnown(proto::CardsKnown { salt: *salt, marks: marks.clone() })
            }
            Frame::Prepare(ballot) => Body::Prepare(proto::Prepare { ballot: Some(ballot_to_proto(ballot)) }),
            Frame::Promise(promise) => Body::Promise(proto::Promise {
                ballot: Some(ballot_to_proto(&promise.ballot)),
                accepted_ballot: promise.accepted.as_ref().map(|(ballot, _)| ballot_to_proto(ballot)),
                accepted_charter: promise.accepted.as_ref().map(|(_, charter)| charter.clone()).unwrap_or_default(),
                cards: promise.cards.iter().map(SignedCard::to_proto).collect(),
            }),
            Frame::Refusal { ballot, promised, cause, why } => Body::Refusal(proto::Refusal {
                ballot: Some(ballot_to_proto(ballot)),
                promised: Some(ballot_to_proto(promised)),
                why: why.clone(),
                cause: cause_to_proto(*cause).into(),
            }),
            Frame::Accept { ballot, charter } => {
                Body::Accept(proto::Accept { ballot: Some(ballot_to_proto(ballot)), charter: charter.clone() })
            }
            Frame::Accepted { cluster, vote } => Body::Accepted(vote.to_proto(cluster)),
            Frame::Chartered { certificate, accepted } => {
                Body::Chartered(proto::Chartered { certificate: Some(certificate.to_proto()), accepted: *accepted })
            }
            Frame::LedgerPoll { call, since, epoch, survey } => Body::LedgerPoll(proto::LedgerPoll {
                call: call.0,
                since: since.0,
                epoch: epoch.to_proto(),
                survey: *survey,
            }),
            Frame::LedgerNews(news) => Body::LedgerNews(news_to_proto(news)),
            Frame::Proposal { call, entry } => Body::Proposal(proto::Proposal { call: call.0, entry: entry.clone() }),
            Frame::ProposalAnswer { call, outcome } => Body::ProposalAnswer(answer_to_proto(*call, outcome)),
            Frame::RaftCall { call, body } => Body::RaftCall(proto::RaftCall { call: call.0, body: body.clone() }),
            Frame::RaftAnswer { call, body } => Body::RaftAnswer(proto::RaftCall { call: call.0, body: body.clone() }),
            Frame::ReportCall { call, part } => Body::ReportCall(proto::ReportCall { call: call.0, part: *part }),
            Frame::BackupCall { digest, from } => {
                Body::BackupCall(proto::BackupCall { digest: Bytes::copy_from_slice(&digest.0), from: *from })
            }
            Frame::BackupPart { digest, from, body } => Body::BackupPart(proto::BackupPart {
                digest: Bytes::copy_from_slice(&digest.0),
                from: *from,
                body: body.clone(),
            }),
            Frame::ReportPart { call, part, parts, body } => {
                Body::ReportPart(proto::ReportPart { call: call.0, part: *part, parts: *parts, body: body.clone() })
            }
        }
    }
}

fn from_body(body: Body) -> Result<Frame, WireError> {
    Ok(match body {
        Body::Hello(hello) => hello_from_proto(hello)?,
        Body::Swim(bytes) => Frame::Swim(bounded_bytes(bytes, limits::SWIM_BYTES_MAX, "frame.swim")?),
        Body::Cards(list) => Frame::Cards(cards(list.cards, "cards.cards")?),
        Body::CardsKnown(known) => {
            let marks = bounded(known.marks, limits::KNOWN_MAX, "cards_known.marks")?;
            if !marks.is_sorted() {
                return Err(WireError::Field { field: "cards_known.marks", rule: "must be sorted" });
            }
            Frame::CardsKnown { salt: known.salt, marks }
        }
        Body::Prepare(prepare) => Frame::Prepare(ballot_from_proto(required(prepare.ballot, "prepare.ballot")?)?),
        Body::Promise(promise) => Frame::Promise(promise_from_proto(promise)?),
        Body::Refusal(refusal) => Frame::Refusal {
            cause: cause_from_proto(refusal.cause(), &refusal.why),
            ballot: ballot_from_proto(required(refusal.ballot, "refusal.ballot")?)?,
            promised: ballot_from_proto(required(refusal.promised, "refusal.promised")?)?,
            why: text(refusal.why, "refusal.why")?,
        },
        Body::Accept(accept) => Frame::Accept {
            ballot: ballot_from_proto(required(accept.ballot, "accept.ballot")?)?,
            charter: accept.charter,
        },
        Body::Accepted(signed) => {
            let (cluster, vote) = Vote::from_proto(signed)?;
            Frame::Accepted { cluster, vote }
        }
        Body::Chartered(chartered) => Frame::Chartered {
            certificate: Box::new(Certificate::from_proto(required(chartered.certificate, "chartered.certificate")?)?),
            accepted: chartered.accepted,
        },
        Body::LedgerPoll(poll) => {
            let epoch = Epoch::from_proto(poll.epoch)?;
            Frame::LedgerPoll { call: CallNumber(poll.call), since: Revision(poll.since), epoch, survey: poll.survey }
        }
        Body::LedgerNews(news) => Frame::LedgerNews(news_from_proto(news)?),
        Body::Proposal(proposal) => Frame::Proposal {
            call: CallNumber(proposal.call),
            entry: bounded_bytes(proposal.entry, limits::ENTRY_BYTES_MAX, "proposal.entry")?,
        },
        Body::ProposalAnswer(answer) => {
            Frame::ProposalAnswer { call: CallNumber(answer.call), outcome: answer_from_proto(answer)? }
        }
        Body::RaftCall(raft) => Frame::RaftCall { call: CallNumber(raft.call), body: raft.body },
        Body::RaftAnswer(raft) => Frame::RaftAnswer { call: CallNumber(raft.call), body: raft.body },
        Body::ReportCall(report) => {
            let part = part_below(report.part, limits::REPORT_PARTS_MAX, "report_call.part")?;
            Frame::ReportCall { call: CallNumber(report.call), part }
        }
        Body::BackupCall(call) => {
            Frame::BackupCall { digest: Digest::from_slice(&call.digest, "backup.digest")?, from: call.from }
        }
        Body::BackupPart(part) => Frame::BackupPart {
            digest: Digest::from_slice(&part.digest, "backup.digest")?,
            from: part.from,
            body: bounded_bytes(part.body, limits::BACKUP_PART_BYTES_MAX, "backup.body")?,
        },
        Body::ReportPart(report) => report_from_proto(report)?,
    })
}

fn hello_from_proto(hello: proto::Hello) -> Result<Frame, WireError> {
    let no_address = |_| WireError::Field { field: "hello.seen_at", rule: "is no address" };
    Ok(Frame::Hello {
        card: SignedCard::from_proto(required(hello.card, "hello.card")?)?,
        charter: match hello.charter_hash.is_empty() {
            true => None,
            false => Some(Digest::from_slice(&hello.charter_hash, "hello.charter_hash")?),
        },
        cards: cards(hello.cards, "hello.cards")?,
        answer: hello.answer,
        seen_at: match hello.seen_at.as_str() {
            "" => None,
            text => Some(text.parse().map_err(no_address)?),
        },
    })
}

fn report_from_proto(report: proto::ReportPart) -> Result<Frame, WireError> {
    let parts = part_below(report.parts, limits::REPORT_PARTS_MAX + 1, "report_part.parts")?;
    Ok(Frame::ReportPart {
        call: CallNumber(report.call),
        part: part_below(report.part, parts, "report_part.part")?,
        parts,
        body: bounded_bytes(report.body, limits::REPORT_PART_BYTES_MAX, "report_part.body")?,
    })
}

fn cause_to_proto(cause: RefusalCause) -> proto::RefusalCause {
    match cause {
        RefusalCause::Outbid => proto::RefusalCause::Outbid,
        RefusalCause::Uncounted => proto::RefusalCause::Uncounted,
        RefusalCause::Halted => proto::RefusalCause::Halted,
        RefusalCause::Unfit => proto::RefusalCause::Unfit,
    }
}

/// A machine of an earlier or a later version names no cause that is known here: then the words say whether it is a mere higher promise.
fn cause_from_proto(cause: proto::RefusalCause, why: &str) -> RefusalCause {
    match cause {
        proto::RefusalCause::Outbid => RefusalCause::Outbid,
        proto::RefusalCause::Uncounted => RefusalCause::Uncounted,
        proto::RefusalCause::Halted => RefusalCause::Halted,
        proto::RefusalCause::Unfit => RefusalCause::Unfit,
        proto::RefusalCause::Unspecified if why.is_empty() => RefusalCause::Outbid,
        proto::RefusalCause::Unspecified => RefusalCause::Halted,
    }
}

fn part_below(part: u32, bound: u32, field: &'static str) -> Result<u32, WireError> {
    if part < bound { Ok(part) } else { Err(WireError::Field { field, rule: "is out of range" }) }
}

fn cards(cards: Vec<proto::Signed>, field: &'static str) -> Result<Vec<SignedCard>, WireError> {
    bounded(cards, limits::CARDS_MAX, field)?.into_iter().map(SignedCard::from_proto).collect()
}

fn promise_from_proto(promise: proto::Promise) -> Result<Promise, WireError> {
    Ok(Promise {
        ballot: ballot_from_proto(required(promise.ballot, "promise.ballot")?)?,
        accepted: match promise.accepted_ballot {
            Some(ballot) => Some((ballot_from_proto(ballot)?, promise.accepted_charter)),
            None => None,
        },
        cards: cards(promise.cards, "promise.cards")?,
    })
}

fn news_to_proto(news: &LedgerNews) -> proto::LedgerNews {
    proto::LedgerNews {
        call: news.call.0,
        revision: news.revision.0,
        entries: news
            .entries
            .iter()
            .map(|(revision, entry)| proto::Recorded { revision: revision.0, entry: entry.clone() })
            .collect(),
        state: news.state.clone().unwrap_or_default(),
        not_admitted: news.not_admitted,
        leader: news.leader.as_ref().map(machine_bytes).unwrap_or_default(),
        removal: match news.removal {
            None => proto::Removal::NotRemoved,
            Some(Removal::Returns) => proto::Removal::Returns,
            Some(Removal::StaysOut) => proto::Removal::StaysOut,
        }
        .into(),
    }
}

fn news_from_proto(news: proto::LedgerNews) -> Result<LedgerNews, WireError> {
    let removal = match news.removal() {
        proto::Removal::NotRemoved => None,
        proto::Removal::Returns => Some(Removal::Returns),
        proto::Removal::StaysOut => Some(Removal::StaysOut),
    };
    let entries = bounded(news.entries, limits::NEWS_ENTRIES_MAX, "news.entries")?;
    Ok(LedgerNews {
        call: CallNumber(news.call),
        revision: Revision(news.revision),
        entries: entries.into_iter().map(|recorded| (Revision(recorded.revision), recorded.entry)).collect(),
        state: (!news.state.is_empty()).then_some(news.state),
        not_admitted: news.not_admitted,
        leader: optional_machine(&news.leader, "news.leader")?,
        removal,
    })
}

fn answer_to_proto(call: CallNumber, outcome: &ProposalOutcome) -> proto::ProposalAnswer {
    let empty = proto::ProposalAnswer { call: call.0, ..Default::default() };
    match outcome {
        ProposalOutcome::Applied(revision) => proto::ProposalAnswer { revision: revision.0, ..empty },
        ProposalOutcome::Refused(why) => proto::ProposalAnswer { refused: why.clone(), ..empty },
        ProposalOutcome::NotLeading(leader) => proto::ProposalAnswer {
            not_leading: true,
            leader: leader.as_ref().map(machine_bytes).unwrap_or_default(),
            ..empty
        },
    }
}

fn answer_from_proto(answer: proto::ProposalAnswer) -> Result<ProposalOutcome, WireError> {
    Ok(if answer.not_leading {
        ProposalOutcome::NotLeading(optional_machine(&answer.leader, "answer.leader")?)
    } else if answer.refused.is_empty() {
        ProposalOutcome::Applied(Revision(answer.revision))
    } else {
        ProposalOutcome::Refused(text(answer.refused, "answer.refused")?)
    })
}
