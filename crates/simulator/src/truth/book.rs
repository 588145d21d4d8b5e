//! The ledger's rules once more, as `docs/protocol.md` states them and without the ledger's code: what every machine's copy
//! must come to, given the entries that were committed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use muster_protocol::Ledger;
use muster_protocol::ledger::Member;
use muster_wire::entry::{Admitted, Sealed};
use muster_wire::{
    Attempt, Backup, Digest, Entry, MachineId, Removal, Revision, Role, SignedWish, Turn, TurnChange, TurnKind,
    TurnNumber, Wish,
};

/// The level of the ledger at which an entry can be read, by what `docs/protocol.md` says of levels.
pub(crate) fn needs(entry: &Entry) -> u32 {
    match entry {
        Entry::LevelRaised { level } => *level,
        Entry::BackedUp(_) | Entry::BackupKept { .. } | Entry::BackupGone { .. } => 6,
        Entry::Wished(signed) if matches!(signed.wish, Wish::AcceptImage(_)) => 2,
        Entry::Wished(_) | Entry::Promoted { .. } | Entry::RemovalHeld { .. } => 4,
        Entry::Turn(turn) if turn.kind == TurnKind::Disrupt => 2,
        Entry::Founds { .. } | Entry::Left { .. } => 3,
        Entry::InitClaimed { founders, .. } if !founders.is_empty() => 3,
        Entry::Admitted(_) | Entry::Removed { .. } | Entry::InitClaimed { .. } | Entry::PkiSealed { .. } => 1,
        Entry::InitReady { .. } | Entry::InitAbandoned { .. } | Entry::Ticket { .. } => 1,
        Entry::Turn(_) | Entry::Joined { .. } => 1,
    }
}

/// One machine, as the entries made it.
#[derive(Debug, Clone)]
struct Line {
    admitted: Admitted,
    ticket: Option<(Attempt, Bytes)>,
    joined: bool,
    /// It was a worker once.
    promoted: bool,
    etcd: bool,
}

/// The ledger as it must be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book {
    revision: Revision,
    /// How many control planes the image asks for, and the charter's voters, each of which has a seat.
    wanted: usize,
    voters: BTreeSet<MachineId>,
    lines: BTreeMap<MachineId, Line>,
    removed: BTreeSet<MachineId>,
    /// Of these, who was wished away for good.
    dismissed: BTreeSet<MachineId>,
    /// Whose removal is said to be held up, and by what.
    held: Option<(MachineId, String)>,
    /// The number of the last wish of each machine that was asked.
    asked: BTreeMap<MachineId, u64>,
    level: u32,
    /// How often it was rebuilt, and by whom last.
    epoch: (u32, MachineId),
    /// The accepted images.
    images: Vec<Digest>,
    /// What was wished and is not so yet.
    open: Vec<SignedWish>,
    /// The backups that are kept, oldest first, and who has them; and the number of the last.
    backups: Vec<(Backup, BTreeSet<MachineId>)>,
    last_backup: u32,
    attempts: Attempt,
    claim: Option<(Attempt, MachineId)>,
    ready: Option<(Attempt, MachineId, Vec<String>, BTreeSet<MachineId>)>,
    abandoned: Vec<(Attempt, MachineId)>,
    ca: Option<Digest>,
    sealed: BTreeMap<MachineId, Bytes>,
    /// Who begins etcd together, and who has said that it does.
    founders: BTreeSet<MachineId>,
    begun: BTreeSet<MachineId>,
    /// For each kind its last turn, and who has it now.
    turns: BTreeMap<TurnKind, (TurnNumber, Option<MachineId>)>,
}

impl Book {
    /// A charter is followed.
    pub(crate) fn found(&mut self, wanted: usize, voters: &BTreeSet<MachineId>, image: Digest) {
        (self.level, self.images) = (1, vec![image]);
        self.wanted = wanted;
        self.voters = voters.clone();
    }

    /// One control plane rebuilt the cluster from what it had: nobody else is one, nothing is under way, and etcd has its member alone.
    pub(crate) fn rebuilt(&mut self, revision: Revision, by: MachineId, lost: &BTreeSet<MachineId>) {
        self.revision = revision;
        self.level = self.level.max(5);
        self.epoch = (self.epoch.0 + 1, by);
        for machine in lost {
            self.lines.remove(machine);
            self.removed.insert(*machine);
            self.founders.remove(machine);
            self.begun.remove(machine);
            self.asked.remove(machine);
            self.lose_copies(*machine);
        }
        self.turns.values_mut().for_each(|(_, holder)| *holder = None);
        self.lines.entry(by).and_modify(|line| line.joined = false);
        self.open.clear();
        self.held = None;
    }

    /// The last entry's place in the log.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether the rules would refuse an entry now.
    pub(crate) fn refuses(&self, entry: &Entry) -> bool {
        !self.clone().enter(self.revision, Some(entry))
    }

    /// The last attempt's number, and how many etcd turns there were.
    pub(crate) fn numbers(&self) -> (Attempt, TurnNumber) {
        (self.attempts, self.last_turn(TurnKind::Etcd))
    }

    /// Whether machines with this image may join.
    pub(crate) fn accepts(&self, image: Digest) -> bool {
        self.images.contains(&image)
    }

    /// The level that the ledger is at.
    pub(crate) fn level(&self) -> u32 {
        self.level
    }

    /// Who votes in Raft, or is about to.
    pub(crate) fn voting(&self) -> BTreeSet<MachineId> {
        let planes = self.lines.keys().copied().filter(|machine| self.control_plane(*machine));
        planes.chain(self.voters.difference(&self.removed).copied()).collect()
    }

    /// The CA's hash.
    pub(crate) fn ca(&self) -> Option<Digest> {
        self.ca
    }

    /// Who made the cluster.
    pub(crate) fn maker(&self) -> Option<MachineId> {
        self.ready.as_ref().map(|(_, machine, ..)| *machine)
    }

    /// The turn of a kind that is under way.
    pub(crate) fn turn(&self, kind: TurnKind) -> Option<(TurnNumber, MachineId)> {
        let (number, holder) = self.turns.get(&kind)?;
        holder.map(|holder| (*number, holder))
    }

    /// The number of a kind's last turn.
    pub(crate) fn last_turn(&self, kind: TurnKind) -> TurnNumber {
        self.turns.get(&kind).map(|(number, _)| *number).unwrap_or_default()
    }

    /// Who has the turn at etcd.
    pub(crate) fn turn_holder(&self) -> Option<MachineId> {
        self.turn(TurnKind::Etcd).map(|(_, machine)| machine)
    }

    /// Whether the ledger says that etcd has a member of it.
    pub(crate) fn etcd_member(&self, machine: MachineId) -> bool {
        self.lines.get(&machine).is_some_and(|line| line.etcd)
    }

    /// The machines that are in etcd, as the ledger says.
    pub(crate) fn etcd_members(&self) -> BTreeSet<MachineId> {
        self.lines.keys().copied().filter(|machine| self.etcd_member(*machine)).collect()
    }

    /// What is sealed to it as its ticket.
    pub(crate) fn ticket(&self, machine: MachineId) -> Option<Bytes> {
        self.lines.get(&machine)?.ticket.as_ref().map(|(_, ciphertext)| ciphertext.clone())
    }

    /// Whether init is claimed now.
    pub(crate) fn claimed(&self) -> bool {
        self.claim.is_some()
    }

    /// Who is admitted.
    pub(crate) fn members(&self) -> impl Iterator<Item = MachineId> + '_ {
        self.lines.keys().copied()
    }

    /// The members that are workers.
    pub(crate) fn workers(&self) -> impl Iterator<Item = MachineId> + '_ {
        self.lines.keys().copied().filter(|machine| !self.control_plane(*machine))
    }

    /// Writes an entry down. Says whether the rules let it take effect.
    pub(crate) fn enter(&mut self, revision: Revision, entry: Option<&Entry>) -> bool {
        let took_effect = self.write_down(revision, entry);
        let mut open = std::mem::take(&mut self.open);
        open.retain(|signed| !self.is_so(&signed.wish));
        self.open = open;
        let leaving = self.leaving().map(|(machine, _)| machine);
        self.held.take_if(|(machine, _)| Some(*machine) != leaving);
        took_effect
    }

    fn write_down(&mut self, revision: Revision, entry: Option<&Entry>) -> bool {
        self.revision = revision;
        match entry {
            None => false,
            Some(Entry::LevelRaised { level }) => {
                let may = *level == self.level + 1;
                self.level += u32::from(may);
                may
            }
            Some(entry) if needs(entry) > self.level => false,
            Some(Entry::Wished(signed)) => self.wished(signed),
            Some(Entry::Admitted(admitted)) => self.admit(admitted),
            Some(Entry::Removed { machine }) => self.remove(*machine),
            Some(Entry::Founds { attempt, machine }) => {
                let made = self.ready.as_ref().map(|(attempt, ..)| *attempt);
                let of = made.or(self.claim.map(|(live, _)| live)) == Some(*attempt);
                of && self.founders.contains(machine) && self.begun.insert(*machine)
            }
            Some(Entry::InitClaimed { attempt, machine, founders }) => self.claims(*attempt, *machine, founders),
            Some(Entry::PkiSealed { attempt, ca_hash, sealed }) => self.seal(*attempt, *ca_hash, sealed),
            Some(Entry::InitReady { attempt, ca_hash, endpoints, tokens }) => {
                self.make(*attempt, *ca_hash, endpoints, tokens)
            }
            Some(Entry::InitAbandoned { attempt, .. }) => self.live(*attempt).is_some() && self.abandon(),
            Some(Entry::Ticket { machine, attempt, ciphertext }) => {
                let made = self.ready.as_ref().map(|(attempt, ..)| *attempt);
                let may = made.or(self.claim.map(|(live, _)| live)) == Some(*attempt) && self.ca.is_some();
                let line = self.lines.get_mut(machine).filter(|_| may);
                line.map(|line| line.ticket = Some((*attempt, ciphertext.clone()))).is_some()
            }
            Some(Entry::Turn(turn)) => self.take_turn(turn),
            Some(Entry::Left { machine }) => {
                let Some(line) = self.lines.get_mut(machine).filter(|line| line.joined) else { return false };
                (line.joined, line.ticket) = (false, None);
                if let Some((.., tokens)) = &mut self.ready {
                    tokens.remove(machine);
                }
                true
            }
            Some(Entry::Joined { machine }) => {
                // Since level 4 a control plane that joins is in etcd.
                let fit = self.level < 4 || !self.control_plane(*machine) || self.etcd_member(*machine);
                self.lines.get_mut(machine).filter(|_| fit).map(|line| line.joined = true).is_some()
            }
            Some(Entry::Promoted { machine }) => self.promote(*machine),
            Some(Entry::BackedUp(backup)) => self.backed_up(backup),
            Some(Entry::BackupKept { number, machine }) => {
                let member = self.lines.contains_key(machine);
                let kept = self.backups.iter_mut().find(|(backup, _)| backup.number == *number);
                kept.is_some_and(|(backup, by)| member && by.len() < backup.copies as usize && by.insert(*machine))
            }
            Some(Entry::BackupGone { number, machine }) => {
                let kept = self.backups.iter_mut().find(|(backup, _)| backup.number == *number);
                let had = kept.is_some_and(|(_, by)| by.remove(machine));
                self.backups.retain(|(_, by)| !by.is_empty());
                had
            }
            Some(Entry::RemovalHeld { machine, why }) => {
                let may = self.leaving().is_some_and(|(leaving, _)| leaving == *machine);
                if may {
                    self.held = Some((*machine, why.clone()));
                }
                may
            }
        }
    }

    fn claims(&mut self, attempt: Attempt, machine: MachineId, founders: &[MachineId]) -> bool {
        let may = self.claim.is_none()
            && self.ready.is_none()
            && attempt == self.attempts.next()
            && self.control_plane(machine)
            && founders.iter().all(|founder| self.control_plane(*founder))
            && (founders.is_empty() || founders.contains(&machine));
        if may {
            self.founders = founders.iter().copied().collect();
            self.begun.clear();
            self.attempts = attempt;
            self.claim = Some((attempt, machine));
        }
        may
    }

    fn backed_up(&mut self, backup: &Backup) -> bool {
        let may =
            backup.number == self.last_backup + 1 && backup.epoch == self.epoch.0 && self.etcd_member(backup.machine);
        if may {
            self.last_backup = backup.number;
            self.backups.push((backup.clone(), [backup.machine].into()));
            while self.backups.len() > backup.keep as usize {
                self.backups.remove(0);
            }
        }
        may
    }

    /// Who was wished away and is still there, and whether it comes back as another.
    pub(crate) fn leaving(&self) -> Option<(MachineId, bool)> {
        self.open.iter().find_map(|open| match open.wish {
            Wish::RemoveMachine { machine, returns } => Some((machine, returns)),
            _ => None,
        })
    }

    /// Whether it was wished away for good.
    pub(crate) fn is_dismissed(&self, machine: MachineId) -> bool {
        self.dismissed.contains(&machine)
    }

    /// The machine with that name.
    pub(crate) fn named(&self, name: &str) -> Option<MachineId> {
        self.lines.iter().find(|(_, line)| line.admitted.name == name).map(|(machine, _)| *machine)
    }

    /// Whether it was a worker and is to be a control plane, and has not joined as one.
    pub(crate) fn is_promoted(&self, machine: MachineId) -> bool {
        self.control_plane(machine) && self.lines.get(&machine).is_some_and(|line| line.promoted && !line.joined)
    }

    fn promote(&mut self, machine: MachineId) -> bool {
        let under_turn = self.turn(TurnKind::Disrupt).is_some();
        let seat =
            self.seated().len() < self.wanted || self.voters.difference(&self.removed).any(|voter| *voter == machine);
        let worker = !self.control_plane(machine);
        let Some(line) = self.lines.get_mut(&machine).filter(|line| line.joined && worker && seat && under_turn) else {
            return false;
        };
        (line.joined, line.ticket, line.promoted) = (false, None, true);
        line.admitted.role = Role::ControlPlane;
        if let Some((.., tokens)) = &mut self.ready {
            tokens.remove(&machine);
        }
        true
    }

    /// The control planes, and the voters of the charter that are still to come.
    fn seated(&self) -> BTreeSet<MachineId> {
        let seated = self.lines.keys().copied().filter(|machine| self.control_plane(*machine));
        seated.chain(self.voters.difference(&self.removed).copied()).collect()
    }

    fn wished(&mut self, signed: &SignedWish) -> bool {
        let counted = self.level >= 4;
        let fresh = !counted || self.asked.get(&signed.machine).is_none_or(|last| signed.number > *last);
        let may = self.lines.contains_key(&signed.machine) && fresh && self.grant(&signed.wish);
        if may && counted {
            self.asked.insert(signed.machine, signed.number);
        }
        if may && !self.is_so(&signed.wish) {
            self.open.push(signed.clone());
        }
        may
    }

    /// Whether what is wished is so.
    pub(crate) fn is_so(&self, wish: &Wish) -> bool {
        match wish {
            Wish::AcceptImage(image) => self.accepts(image.digest),
            Wish::RemoveMachine { machine, .. } => !self.lines.contains_key(machine),
            Wish::WithdrawRemoval { machine } => self.leaving().is_none_or(|(leaving, _)| leaving != *machine),
        }
    }

    /// Whether a wish is so, or stands open in the ledger.
    pub(crate) fn took(&self, wish: &Wish) -> bool {
        self.is_so(wish) || self.open.iter().any(|open| open.wish == *wish)
    }

    fn grant(&mut self, wish: &Wish) -> bool {
        match wish {
            Wish::AcceptImage(image) => {
                let may = !self.accepts(image.digest);
                self.images.extend(may.then_some(image.digest));
                may
            }
            Wish::WithdrawRemoval { machine } => {
                let may = self.leaving().is_some_and(|(leaving, _)| leaving == *machine);
                self.open.retain(|open| !may || !matches!(open.wish, Wish::RemoveMachine { .. }));
                may
            }
            Wish::RemoveMachine { machine, .. } => {
                let planes = self.lines.values().filter(|line| line.admitted.role == Role::ControlPlane).count();
                let last = planes == 1 && self.control_plane(*machine);
                let at_it = self.turns.values().any(|(_, holder)| *holder == Some(*machine));
                let leaves = self.open.iter().any(|open| matches!(open.wish, Wish::RemoveMachine { .. }));
                self.lines.contains_key(machine) && !last && !at_it && !leaves
            }
        }
    }

    /// The admitted control planes.
    pub(crate) fn control_planes(&self) -> BTreeSet<MachineId> {
        self.lines.keys().copied().filter(|machine| self.control_plane(*machine)).collect()
    }

    fn control_plane(&self, machine: MachineId) -> bool {
        self.lines.get(&machine).is_some_and(|line| line.admitted.role == Role::ControlPlane)
    }

    fn live(&self, attempt: Attempt) -> Option<MachineId> {
        self.claim.filter(|(live, _)| *live == attempt).map(|(_, machine)| machine)
    }

    fn admit(&mut self, admitted: &Admitted) -> bool {
        if admitted.address.parse::<std::net::IpAddr>().is_err() {
            return false;
        }
        let turns = self.turns.values().filter_map(|(_, holder)| *holder);
        let busy = turns.chain(self.claim.map(|(_, holder)| holder)).chain(self.founders.iter().copied());
        let busy = busy.into_iter().any(|holder| holder == admitted.machine);
        if let Some(line) = self.lines.get_mut(&admitted.machine) {
            // Nothing but its address may change, and that as long as nothing was made with the former.
            let settled = line.joined || line.etcd || busy;
            let former = &line.admitted;
            let same = (&former.name, former.role, former.sealing_key)
                == (&admitted.name, admitted.role, admitted.sealing_key);
            if settled || !same {
                return false;
            }
            line.admitted.address.clone_from(&admitted.address);
            return true;
        }
        let taken = self.lines.values().any(|line| line.admitted.name == admitted.name);
        if taken || self.removed.contains(&admitted.machine) {
            return false;
        }
        let seated = self.seated();
        let seat = seated.contains(&admitted.machine) || seated.len() < self.wanted;
        if admitted.role == Role::ControlPlane && !seat {
            return false;
        }
        let line = Line { admitted: admitted.clone(), ticket: None, joined: false, promoted: false, etcd: false };
        self.lines.insert(admitted.machine, line);
        true
    }

    fn remove(&mut self, machine: MachineId) -> bool {
        // Whoever may be in etcd goes under a turn to disrupt; the list with which it begins is fixed as long as its claim lives.
        let holds = self.claim.is_some_and(|(_, holder)| holder == machine);
        let founds = self.founders.contains(&machine) && !holds;
        let adding = self.turn(TurnKind::Etcd).is_some_and(|(_, holder)| holder == machine);
        if (self.etcd_member(machine) || adding || founds) && self.turn(TurnKind::Disrupt).is_none() {
            return false;
        }
        if self.lines.remove(&machine).is_none() {
            return false;
        }
        if self.leaving() == Some((machine, false)) {
            self.dismissed.insert(machine);
        }
        self.asked.remove(&machine);
        self.removed.insert(machine);
        self.lose_copies(machine);
        for (_, holder) in self.turns.values_mut() {
            holder.take_if(|holder| *holder == machine);
        }
        if holds {
            self.abandon();
        }
        self.founders.remove(&machine);
        self.begun.remove(&machine);
        true
    }

    /// Whether a backup is kept by anybody.
    pub(crate) fn keeps(&self, number: u32) -> bool {
        self.backups.iter().any(|(backup, _)| backup.number == number)
    }

    /// What a machine kept is gone with it.
    fn lose_copies(&mut self, machine: MachineId) {
        for (_, by) in &mut self.backups {
            by.remove(&machine);
        }
        self.backups.retain(|(_, by)| !by.is_empty());
    }

    fn seal(&mut self, attempt: Attempt, ca_hash: Digest, sealed: &[Sealed]) -> bool {
        let may = match self.ca {
            Some(ca) => ca == ca_hash,
            None => self.live(attempt).is_some(),
        };
        if !may || sealed.iter().any(|one| !self.control_plane(one.machine)) {
            return false;
        }
        self.ca = Some(ca_hash);
        self.sealed.extend(sealed.iter().map(|one| (one.machine, one.ciphertext.clone())));
        true
    }

    fn make(&mut self, attempt: Attempt, ca_hash: Digest, endpoints: &[String], tokens: &[MachineId]) -> bool {
        let Some(machine) = self.live(attempt).filter(|_| self.ready.is_none() && self.ca == Some(ca_hash)) else {
            return false;
        };
        self.claim = None;
        let tokens: BTreeSet<MachineId> = tokens.iter().copied().collect();
        for (member, line) in &mut self.lines {
            line.etcd |= *member == machine || self.founders.contains(member);
            line.ticket.take_if(|_| !tokens.contains(member));
        }
        self.ready = Some((attempt, machine, endpoints.to_vec(), tokens));
        true
    }

    fn abandon(&mut self) -> bool {
        self.abandoned.extend(self.claim.take());
        self.lines.values_mut().for_each(|line| line.ticket = None);
        self.founders.clear();
        self.begun.clear();
        true
    }

    fn take_turn(&mut self, turn: &Turn) -> bool {
        let under_way = self.turn(turn.kind);
        if turn.change == TurnChange::Started {
            let fit = turn.kind != TurnKind::Etcd || self.control_plane(turn.holder);
            let known = fit && self.lines.contains_key(&turn.holder);
            let may = known && under_way.is_none() && self.ready.is_some() && turn.number > self.last_turn(turn.kind);
            if may {
                self.turns.insert(turn.kind, (turn.number, Some(turn.holder)));
                // What it began as a founder is undone.
                if turn.kind == TurnKind::Etcd && self.founders.remove(&turn.holder) {
                    self.begun.remove(&turn.holder);
                    self.lines.entry(turn.holder).and_modify(|line| line.etcd = false);
                }
            }
            return may;
        }
        if under_way != Some((turn.number, turn.holder)) {
            return false;
        }
        self.turns.insert(turn.kind, (turn.number, None));
        if let Some(line) = self.lines.get_mut(&turn.holder).filter(|_| turn.kind == TurnKind::Etcd) {
            line.etcd = turn.change == TurnChange::Done;
        }
        true
    }

    /// Where a machine's copy is not what the entries make: the promise that this breaks, and what it is.
    pub(crate) fn compare(&self, ledger: &Ledger) -> Result<(), (&'static str, String)> {
        let wrong = |promise, what: &str, theirs: String, ours: String| {
            Err((
                promise,
                format!("{what} in a ledger is {theirs}, the entries up to {} make it {ours}", self.revision),
            ))
        };
        if ledger.live_claim() != self.claim {
            return wrong("S4", "the right to init", format!("{:?}", ledger.live_claim()), format!("{:?}", self.claim));
        }
        let ready =
            ledger.ready().map(|ready| (ready.attempt, ready.machine, ready.endpoints.clone(), ready.tokens.clone()));
        if ready != self.ready {
            return wrong("S4", "what made the cluster", format!("{ready:?}"), format!("{:?}", self.ready));
        }
        if ledger.last_attempt() != self.attempts {
            return wrong("S4", "the last attempt", ledger.last_attempt().to_string(), self.attempts.to_string());
        }
        let kept: Vec<_> = ledger.abandoned().iter().map(|(attempt, machine, _)| (*attempt, *machine)).collect();
        if !self.abandoned.ends_with(&kept) || kept.is_empty() != self.abandoned.is_empty() {
            return wrong("S4", "the list of abandoned attempts", format!("{kept:?}"), format!("{:?}", self.abandoned));
        }
        let begun: BTreeSet<MachineId> =
            ledger.founders().iter().copied().filter(|founder| ledger.has_begun(*founder)).collect();
        if (ledger.founders(), &begun) != (&self.founders, &self.begun) {
            let (theirs, ours) = ((ledger.founders(), &begun), (&self.founders, &self.begun));
            return wrong("S13", "who begins etcd, and has begun", format!("{theirs:?}"), format!("{ours:?}"));
        }
        let pki = ledger.pki().map(|pki| (pki.ca_hash, &pki.sealed));
        if pki != self.ca.map(|ca| (ca, &self.sealed)) {
            return wrong("S4", "the sealed CA", format!("{:?}", pki.map(|pki| pki.0)), format!("{:?}", self.ca));
        }
        for kind in TurnKind::ALL {
            let (theirs, ours) = ((ledger.turn(kind), ledger.last_turn(kind)), (self.turn(kind), self.last_turn(kind)));
            if theirs != ours {
                let what = format!("the turn {}", kind.purpose());
                return wrong("S8", &what, format!("{theirs:?}"), format!("{ours:?}"));
            }
        }
        let epoch = (ledger.epoch().number, ledger.epoch().by);
        if epoch != self.epoch {
            return wrong("S3", "the epoch", format!("{epoch:?}"), format!("{:?}", self.epoch));
        }
        let backups: Vec<_> = ledger.backups().iter().map(|kept| (kept.backup.clone(), kept.by.clone())).collect();
        if (&backups, ledger.last_backup()) != (&self.backups, self.last_backup) {
            let (theirs, ours) = (format!("{backups:?}"), format!("{:?}", self.backups));
            return wrong("S21", "the list of backups", theirs, ours);
        }
        if ledger.level() != self.level {
            return wrong("S16", "the level", ledger.level().to_string(), self.level.to_string());
        }
        let images: Vec<Digest> = ledger.images().iter().map(|image| image.digest).collect();
        if images != self.images {
            return wrong("S3", "the list of images", format!("{images:?}"), format!("{:?}", self.images));
        }
        if ledger.open_wishes() != self.open {
            return wrong("S17", "what is wished", format!("{:?}", ledger.open_wishes()), format!("{:?}", self.open));
        }
        let leaving = self.leaving().map(|(machine, _)| machine);
        let held = self.held.as_ref().map(|(_, why)| why.as_str());
        if (ledger.leaving(), ledger.removal_held()) != (leaving, held) {
            let theirs = format!("{:?}", (ledger.leaving(), ledger.removal_held()));
            return wrong("S17", "who is to be removed", theirs, format!("{:?}", (leaving, held)));
        }
        let returns = |gone: &MachineId| match self.dismissed.contains(gone) {
            true => Some(Removal::StaysOut),
            false => Some(Removal::Returns),
        };
        if let Some(other) =
            self.removed.iter().find(|gone| ledger.was_removed(**gone) && ledger.removal(**gone) != returns(gone))
        {
            let (theirs, ours) = (ledger.removal(*other), returns(other));
            return wrong("S17", &format!("what becomes of {other}"), format!("{theirs:?}"), format!("{ours:?}"));
        }
        if let Some(back) = self.removed.iter().find(|gone| !ledger.was_removed(**gone)) {
            return wrong("S9", &format!("whether {back} was removed"), "false".into(), "true".into());
        }
        self.compare_members(ledger)
    }

    fn compare_members(&self, ledger: &Ledger) -> Result<(), (&'static str, String)> {
        let revision = self.revision;
        for (machine, member) in ledger.members() {
            let Some(line) = self.lines.get(machine) else {
                return Err((
                    "S6",
                    format!("{machine} is a member in a ledger; no entry up to {revision} makes it one"),
                ));
            };
            if line.differs(ledger, member) {
                return Err(("S3", format!("{machine} is {member:?} in a ledger, the entries make it {line:?}")));
            }
        }
        if let Some(lost) = self.lines.keys().find(|machine| ledger.member(**machine).is_none()) {
            return Err(("S3", format!("{lost} is missing in a ledger of revision {revision}")));
        }
        let planes = self.lines.keys().copied().filter(|machine| self.control_plane(*machine));
        let joined = self.lines.values().filter(|line| line.joined).count();
        if !ledger.control_planes().eq(planes) || ledger.joined_count() != joined {
            return Err(("S3", format!("a ledger of revision {revision} lists its own members wrongly")));
        }
        Ok(())
    }
}

impl Line {
    fn differs(&self, ledger: &Ledger, member: &Member) -> bool {
        let same = self.admitted == member.admitted && self.ticket.as_ref() == ledger.ticket(member.admitted.machine);
        !same || self.joined != member.joined || self.etcd != ledger.has_etcd(member.admitted.machine)
    }
}
