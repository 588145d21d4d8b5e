//! What each entry does, once more: the rules of `docs/protocol.md`, without the ledger's code.

use super::*;

impl Book {
    pub(super) fn write_down(&mut self, revision: Revision, entry: Option<&Entry>) -> bool {
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
    pub(super) fn seated(&self) -> BTreeSet<MachineId> {
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

    pub(super) fn grant(&mut self, wish: &Wish) -> bool {
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

    /// What a machine kept is gone with it.
    pub(super) fn lose_copies(&mut self, machine: MachineId) {
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
}
