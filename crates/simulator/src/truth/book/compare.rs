//! Whether a machine's ledger says what the book says.

use super::*;

impl Book {
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
