//! Certificates that end.

use muster_wire::{MachineId, TurnKind};

use crate::Renewal;
use crate::machine::Machine;
use crate::words::reasons::Topic;

impl Machine {
    pub(super) fn explain_certificates(&self, add: &mut impl FnMut(Topic, String, &[MachineId])) {
        let (ledger, me) = (self.follow.ledger(), self.id());
        if ledger.member(me).is_none() {
            return;
        }
        let turn = ledger.turn(TurnKind::Disrupt).map(|(_, holder)| holder);
        match (self.ladder.renewal(), turn) {
            (Renewal::NotYet, _) => {}
            // A worker's kubelet renews its own.
            (Renewal::Due, _) if !ledger.has_etcd(me) => {}
            (Renewal::Due, Some(holder)) if holder == me => {
                add(Topic::Certificates, "certificates of this control plane are being renewed".to_owned(), &[me]);
            }
            (Renewal::Due, holder) => {
                let after = holder.map(|holder| format!(", after {}", self.named_member(holder)));
                let text = format!(
                    "certificates of this control plane are to be renewed in its turn{}",
                    after.unwrap_or_default()
                );
                add(Topic::Certificates, text, &[me]);
            }
            (Renewal::Overdue, _) => {
                let text = "certificates of this machine are good no more (or not yet: look at its clock), and nothing of \
                            Kubernetes works here until they are renewed";
                add(Topic::Certificates, text.to_owned(), &[me]);
            }
        }
        if let Some(end) = self.ladder.ca_ends_s() {
            let text = format!(
                "a CA of the cluster ends on {}: muster renews what it has signed, and not the CA itself. Make another \
                 cluster before that, or a new CA by hand (kubernetes.io, \"Manual Rotation of CA Certificates\")",
                date(end)
            );
            add(Topic::Certificates, text, &[me]);
        }
    }
}

/// The day, in UTC.
fn date(seconds: u64) -> String {
    let moment = i64::try_from(seconds).ok().and_then(|at| time::OffsetDateTime::from_unix_timestamp(at).ok());
    moment.map_or_else(|| format!("{seconds} s after 1970"), |moment| moment.date().to_string())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_day_is_told_as_people_write_it() {
        assert_eq!(super::date(1_893_456_000), "2030-01-01");
        assert_eq!(super::date(u64::MAX), format!("{} s after 1970", u64::MAX));
    }
}
