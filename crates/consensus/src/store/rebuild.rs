//! The store made anew when the other voters are gone for good: the one change of it that Raft knows nothing of.
//!
//! It is safe for this machine and for nobody else: what it votes from here on is in a term that none of the lost can have reached, and those that
//! come back are kept out by the ledger's epoch, not by Raft.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use muster_protocol::NextEpoch;
use muster_protocol::ledger::Ledger;
use muster_wire::{Entry, MachineId, Revision};
use openraft::{CommittedLeaderId, EmptyNode, EntryPayload};
use prost::Message;

use super::{DATA, Kept, LOG, Store, name, put_fact, seal};
use crate::disk::DiskError;
use crate::format::{Unsaid, log_id_to_proto, snapshot_to_proto, vote_to_proto};
use crate::runtime::Runtime;
use crate::types::{LogId, Membership, SnapshotMeta, StoredMembership, Vote};

/// The terms of an epoch begin so far above the last that this machine has heard of: those that are lost may have gone on for a while.
const TERMS_BETWEEN: u64 = 1 << 20;

/// Entries by revision.
type Tail = Vec<(Revision, Bytes)>;

/// What a store was made anew with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// The ledger of the next epoch.
    pub ledger: Ledger,
    /// The entries that were in the log after the known ledger, by revision: of no one of them did this machine know that it was committed.
    pub tail: Tail,
}

/// Whether two ledgers differ in nothing but the blank records that they count.
fn is_same(one: &Ledger, other: &Ledger) -> bool {
    let at_zero = |ledger: &Ledger| {
        let mut ledger = ledger.clone();
        ledger.skip(Revision::NONE);
        ledger
    };
    at_zero(one) == at_zero(other)
}

impl<R: Runtime> Store<R> {
    /// Replaces vote, log and snapshot in one change: this machine alone votes, and the ledger is the next epoch's, made of all that its log holds,
    /// committed or not: what was acknowledged may be there and nowhere else, as far as a survivor can know. `known` is the latest ledger that any
    /// machine has shown; where the log does not lead through it, the log is of a past that was given up, and `known` counts. `founded` is the
    /// ledger before the first entry, `next` the epoch that begins, `level` the highest that this machine knows.
    ///
    /// # Errors
    /// [`DiskError`]; nothing is changed then.
    pub fn rebuild(&self, founded: Ledger, known: &Ledger, next: NextEpoch, level: u32) -> Result<Rebuilt, DiskError> {
        let (own, tail) = self.read_to_the_end(founded, known, level)?;
        let me = self.owner.machine;
        let through = own.and_then(|own| own.rebuilt(me, next).ok()).map(|ledger| Rebuilt { ledger, tail });
        let rebuilt = match through {
            Some(rebuilt) => rebuilt,
            None => Rebuilt {
                ledger: known.rebuilt(me, next).map_err(|why| DiskError::Unusable {
                    place: self.disk.place().to_owned(),
                    why: format!("nothing can be rebuilt from it: {why}"),
                })?,
                tail: Vec::new(),
            },
        };
        self.replace(&rebuilt.ledger)?;
        Ok(rebuilt)
    }

    /// The ledger at the end of the log, and the entries after `known`; nothing if the log does not lead through that.
    fn read_to_the_end(
        &self,
        founded: Ledger,
        known: &Ledger,
        level: u32,
    ) -> Result<(Option<Ledger>, Tail), DiskError> {
        let (mut ledger, end) = match self.read_ledger(level)? {
            None => (founded, None),
            Some((meta, Kept::Ledger(ledger))) => (*ledger, meta.last_log_id),
            Some((_, Kept::Beyond(_))) => return Ok((None, Vec::new())),
        };
        // What a snapshot after it leads through cannot be seen any more.
        let mut past = ledger.revision() > known.revision();
        let mut tail = Tail::new();
        let next = end.map_or(0, |id| id.index + 1);
        for record in self.read_records(next.., usize::MAX, false)? {
            let revision = Revision(record.log_id.index);
            if revision > known.revision() && !std::mem::replace(&mut past, true) && !is_same(&ledger, known) {
                return Ok((None, Vec::new()));
            }
            match record.payload {
                EntryPayload::Normal(bytes) => {
                    let Ok(entry) = Entry::decode_at(bytes.clone(), level) else { break };
                    // A refused one changes nothing but the revision, as it would have.
                    let _ = ledger.apply(revision, &entry);
                    if revision > known.revision() {
                        tail.push((revision, bytes));
                    }
                }
                EntryPayload::Blank | EntryPayload::Membership(_) => ledger.skip(revision),
            }
        }
        let leads = past || is_same(&ledger, known);
        Ok((leads.then_some(ledger), tail))
    }

    fn replace(&self, ledger: &Ledger) -> Result<(), DiskError> {
        let facts = self.read_facts()?;
        let me = self.owner.machine;
        let heard = facts.vote.map_or(0, |vote| vote.leader_id.term).max(facts.last.map_or(0, |id| id.leader_id.term));
        let term = heard + TERMS_BETWEEN;
        let end = LogId::new(CommittedLeaderId::new(term, me), ledger.revision().0);
        let voters: BTreeSet<MachineId> = [me].into();
        let membership = Membership::new(vec![voters], BTreeMap::from([(me, EmptyNode::new())]));
        let meta = SnapshotMeta {
            last_log_id: Some(end),
            last_membership: StoredMembership::new(Some(end), membership),
            snapshot_id: end.to_string(),
        };
        let data = ledger.encode();
        self.disk.write(|transaction| {
            transaction.open_table(LOG)?.retain(|_, _| false)?;
            put_fact(transaction, name::VOTE, &vote_to_proto(&Vote::new(term, me), Unsaid::NOBODY).encode_to_vec())?;
            let id = log_id_to_proto(&end, Unsaid::NOBODY).encode_to_vec();
            put_fact(transaction, name::COMMITTED, &id)?;
            put_fact(transaction, name::PURGED, &id)?;
            let description = snapshot_to_proto(&meta, data.len(), Unsaid::NOBODY);
            put_fact(transaction, name::SNAPSHOT, &description.encode_to_vec())?;
            let sealed = seal("raft-data", name::SNAPSHOT.as_bytes(), &data);
            transaction.open_table(DATA)?.insert(name::SNAPSHOT, sealed.as_slice())?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use muster_wire::entry::{Admitted, Sealed};
    use muster_wire::{Attempt, Charter, Digest, Role, level};
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::disk::Disk;
    use crate::seeded::Seeded;
    use crate::types::Record;

    const ME: MachineId = MachineId([1; 32]);
    const OTHER: MachineId = MachineId([2; 32]);

    fn founded() -> Ledger {
        Ledger::founded(&Charter {
            cluster: "site".to_owned(),
            id: [7; 16],
            voters: vec![ME, OTHER],
            kubernetes_version: "v1.37.0".to_owned(),
            settings: Digest([0; 32]),
            machines: 2,
            quorum: 2,
            control_planes: 2,
        })
    }

    fn admitted(machine: MachineId, role: Role) -> Entry {
        let (name, address) = (format!("m{}", machine.0[0]), format!("10.0.0.{}", machine.0[0]));
        Entry::Admitted(Admitted { machine, role, name, sealing_key: [1; 32], address })
    }

    /// Two control planes, of which this one made the cluster.
    fn made() -> Vec<Entry> {
        let ca_hash = Digest([3; 32]);
        let sealed = vec![Sealed { machine: ME, ciphertext: Bytes::from_static(b"sealed") }];
        vec![
            admitted(ME, Role::ControlPlane),
            admitted(OTHER, Role::ControlPlane),
            Entry::InitClaimed { attempt: Attempt(1), machine: ME, founders: Vec::new() },
            Entry::PkiSealed { attempt: Attempt(1), ca_hash, sealed },
            Entry::InitReady { attempt: Attempt(1), ca_hash, endpoints: Vec::new(), tokens: Vec::new() },
        ]
    }

    fn after(entries: &[Entry]) -> Ledger {
        let mut ledger = founded();
        for (nth, entry) in entries.iter().enumerate() {
            ledger.apply(Revision(nth as u64 + 1), entry).expect("is taken");
        }
        ledger
    }

    /// A store whose log holds these, and nothing of which it knows to be committed.
    fn store(entries: &[Entry]) -> Store<Seeded> {
        let disk = Disk::open_on("memory", InMemoryBackend::new()).unwrap();
        let store = Store::<Seeded>::open(&disk, [7; 16], ME).unwrap();
        let id = |index| LogId::new(CommittedLeaderId::new(1, OTHER), index);
        let blank = Record { log_id: id(0), payload: EntryPayload::Blank };
        let records = entries
            .iter()
            .enumerate()
            .map(|(nth, entry)| Record { log_id: id(nth as u64 + 1), payload: EntryPayload::Normal(entry.encode()) });
        store.write_records(&std::iter::once(blank).chain(records).collect::<Vec<_>>()).unwrap();
        store
    }

    #[test]
    fn all_that_the_log_holds_counts_and_this_machine_alone_votes() {
        let mut entries = made();
        entries.push(admitted(MachineId([9; 32]), Role::Worker));
        let store = store(&entries);
        // It was told of one entry less.
        let rebuilt = store
            .rebuild(founded(), &after(&made()), NextEpoch { number: 1, backup: None }, level::KNOWN)
            .expect("is rebuilt");
        assert_eq!(rebuilt.tail.iter().map(|(revision, _)| *revision).collect::<Vec<_>>(), [Revision(6)]);
        let ledger = rebuilt.ledger;
        assert_eq!((ledger.epoch().number, ledger.epoch().by, ledger.revision()), (1, ME, Revision(7)));
        assert_eq!(ledger.members().keys().copied().collect::<Vec<_>>(), [ME, MachineId([9; 32])]);
        // What is on disk is that, for whoever opens it.
        let again = Store::<Seeded>::reopen(&store.disk, [7; 16], ME).expect("is sound");
        let (meta, kept) = again.read_ledger(level::KNOWN).unwrap().expect("a snapshot");
        assert!(matches!(kept, Kept::Ledger(kept) if *kept == ledger));
        assert_eq!(meta.last_membership.membership().voter_ids().collect::<Vec<_>>(), [ME]);
        let facts = again.read_facts().unwrap();
        assert!(facts.vote.is_some_and(|vote| vote.leader_id.term > TERMS_BETWEEN) && facts.committed == facts.purged);
        let twice = again
            .rebuild(founded(), &ledger, NextEpoch { number: 2, backup: None }, level::KNOWN)
            .expect_err("nobody else is left");
        assert!(twice.to_string().contains("m-01010101"), "{twice}");
    }

    #[test]
    fn where_somebody_knows_otherwise_the_log_is_of_the_past() {
        let (mut entries, mut theirs) = (made(), made());
        entries.push(admitted(MachineId([9; 32]), Role::Worker));
        theirs.push(admitted(MachineId([8; 32]), Role::Worker));
        let rebuilt = store(&entries)
            .rebuild(founded(), &after(&theirs), NextEpoch { number: 1, backup: None }, level::KNOWN)
            .expect("is rebuilt");
        assert!(rebuilt.tail.is_empty() && rebuilt.ledger.member(MachineId([8; 32])).is_some());
        // The same where the log ends before what they know.
        let rebuilt = store(&made())
            .rebuild(founded(), &after(&theirs), NextEpoch { number: 1, backup: None }, level::KNOWN)
            .expect("is rebuilt");
        assert!(rebuilt.tail.is_empty() && rebuilt.ledger.member(MachineId([8; 32])).is_some());
    }
}
