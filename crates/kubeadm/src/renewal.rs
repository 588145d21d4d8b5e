//! Certificates that end: which are to be renewed, and what has to be started anew for it.
//!
//! kubeadm's last a year, the kubelet's as well. API server and etcd read theirs again by themselves (`apiserver/pkg/server/dynamiccertificates`,
//! etcd's `client/pkg/transport/listener.go`); the controller manager and the scheduler have theirs in a kubeconfig and read that once. They are
//! static Pods: one whose manifest says something else is started anew by the kubelet.

use std::time::{Duration, SystemTime};

use muster_protocol::Renewal;

/// A certificate that is not good before a moment that is further away than this is from a clock that was wrong. Machines' clocks differ, and
/// kubeadm dates back by five minutes.
const SKEW: Duration = Duration::from_secs(24 * 60 * 60);

/// The end of a CA is told so long before: a cluster is not replaced in a day.
const CA_WARNING: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The annotation by which a static Pod is started anew.
const ANNOTATION: &str = "muster/renewed";

/// A certificate that lies on a machine. Times are in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certificate {
    /// It is not good before.
    pub begins_s: i64,
    /// It is not good after.
    pub ends_s: i64,
    /// Whose it is.
    pub whose: Whose,
}

/// Who sees to a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// A CA's own: nobody renews it.
    Ca,
    /// kubeadm signed it.
    Kubeadm,
    /// The kubelet renews it itself, when 70 to 90 % of its life are over.
    Kubelet,
}

/// How a machine's certificates stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// What is to be done.
    pub renewal: Renewal,
    /// When the first of them ends, in seconds since 1970; 0 if there is none.
    pub end_s: u64,
    /// When the first CA ends, if that is within a year; else 0.
    pub ca_ends_s: u64,
}

impl Standing {
    /// What a clock that shows `now` makes of them.
    pub fn of(certificates: &[Certificate], now: SystemTime) -> Self {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, seconds);
        let end = |certificate: &Certificate| u64::try_from(certificate.ends_s).unwrap_or_default();
        let (cas, leaves): (Vec<Certificate>, Vec<Certificate>) =
            certificates.iter().partition(|certificate| certificate.whose == Whose::Ca);
        // What a CA that is over has signed is no better for being signed again.
        let worth = cas.iter().all(|ca| now < ca.ends_s);
        // kubeadm gives all of them one length, but dates those in kubeconfigs back to their CA's beginning (`NewSignedCert`, 1.20 to 1.37),
        // and muster's CAs have none. The shortest life is the length.
        let signed = leaves.iter().filter(|leaf| leaf.whose == Whose::Kubeadm);
        let length = signed.map(|leaf| leaf.ends_s.saturating_sub(leaf.begins_s)).min().unwrap_or_default();
        let renewal = leaves.iter().map(|leaf| leaf.renewal(now, length)).max();
        let ca_end = cas.iter().filter(|ca| ca.ends_s < now.saturating_add(seconds(CA_WARNING))).map(end).min();
        Self {
            renewal: renewal.filter(|_| worth).unwrap_or_default(),
            end_s: certificates.iter().map(end).filter(|end| *end > 0).min().unwrap_or_default(),
            ca_ends_s: ca_end.unwrap_or_default(),
        }
    }
}

impl Certificate {
    /// A kubelet that has none begins with nothing.
    pub const MISSING: Self = Self { begins_s: 0, ends_s: 0, whose: Whose::Kubelet };

    /// What is to be done about it, if kubeadm gives those that it signs this length.
    fn renewal(&self, now: i64, length: i64) -> Renewal {
        if now >= self.ends_s || now.saturating_add(seconds(SKEW)) < self.begins_s {
            return Renewal::Overdue;
        }
        match self.whose == Whose::Kubeadm && self.ends_s - now < length / 3 {
            true => Renewal::Due,
            false => Renewal::NotYet,
        }
    }
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// A static Pod's manifest with another text in an annotation, so that the kubelet starts the Pod anew. Nothing if kubeadm did not write it.
pub(crate) fn restarted(manifest: &str, text: &str) -> Option<String> {
    let line = format!("    {ANNOTATION}: \"{text}\"\n");
    let former = |line: &str| line.trim_start().starts_with(&format!("{ANNOTATION}:"));
    let lines: Vec<&str> = manifest.split_inclusive('\n').filter(|line| !former(line)).collect();
    let metadata = lines.iter().position(|line| line.trim_end() == "metadata:")?;
    let its_own = lines[metadata + 1..].iter().take_while(|line| line.starts_with("  ")).count();
    let mut its_lines = lines[metadata + 1..metadata + 1 + its_own].iter();
    let annotations = its_lines.position(|line| line.trim_end() == "  annotations:");
    let (at, added) = match annotations {
        Some(nth) => (metadata + 2 + nth, line),
        None => (metadata + 1, format!("  annotations:\n{line}")),
    };
    Some([&lines[..at].concat(), added.as_str(), &lines[at..].concat()].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const YEAR: i64 = 365 * 24 * 3600;

    fn at(seconds: i64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds as u64)
    }

    fn leaf(begins_s: i64, whose: Whose) -> Certificate {
        Certificate { begins_s, ends_s: begins_s + YEAR, whose }
    }

    #[test]
    fn a_certificate_is_renewed_in_the_last_third_of_its_life_and_the_kubelets_only_when_it_is_over() {
        let begins = 60 * YEAR;
        let both = [leaf(begins, Whose::Kubeadm), leaf(begins, Whose::Kubelet)];
        let (kubelets, cases) = (&both[1..], [0.0, 0.6, 0.7, 0.99, 1.0, 1.1]);
        let renewal = |certificates: &[Certificate], part: f64| {
            Standing::of(certificates, at(begins + (part * YEAR as f64) as i64)).renewal
        };
        use Renewal::{Due, NotYet, Overdue};
        assert_eq!(cases.map(|part| renewal(&both, part)), [NotYet, NotYet, Due, Due, Overdue, Overdue]);
        assert_eq!(cases.map(|part| renewal(kubelets, part)), [NotYet, NotYet, NotYet, NotYet, Overdue, Overdue]);
        assert_eq!(renewal(&[], 2.0), NotYet, "nothing lies here");
    }

    /// The controller manager's and the scheduler's, as kubeadm 1.37 makes them under a CA that begins in 1970.
    #[test]
    fn a_certificate_that_is_dated_back_is_as_old_as_those_beside_it() {
        let begins = 60 * YEAR;
        let dated_back = Certificate { begins_s: 0, ends_s: begins + YEAR, whose: Whose::Kubeadm };
        let both = [leaf(begins, Whose::Kubeadm), dated_back];
        let renewal = |part: f64| Standing::of(&both, at(begins + (part * YEAR as f64) as i64)).renewal;
        assert_eq!(
            [0.01, 0.6, 0.7, 1.1].map(renewal),
            [Renewal::NotYet, Renewal::NotYet, Renewal::Due, Renewal::Overdue]
        );
    }

    #[test]
    fn what_a_clock_of_the_future_has_signed_is_good_for_nothing_when_the_clock_is_right_again() {
        let signed = leaf(80 * YEAR, Whose::Kubeadm);
        assert_eq!(Standing::of(&[signed], at(60 * YEAR)).renewal, Renewal::Overdue);
        assert_eq!(Standing::of(&[signed], at(80 * YEAR - 3600)).renewal, Renewal::NotYet, "clocks differ");
    }

    #[test]
    fn a_ca_is_told_of_in_its_last_year_and_what_it_has_signed_ends_with_it() {
        let ca = Certificate { begins_s: 50 * YEAR, ends_s: 60 * YEAR, whose: Whose::Ca };
        let signed = leaf(57 * YEAR, Whose::Kubeadm);
        let standing = |now| Standing::of(&[ca, signed], at(now));
        let far = Standing { renewal: Renewal::Overdue, end_s: (58 * YEAR) as u64, ca_ends_s: 0 };
        assert_eq!(standing(58 * YEAR + 1), far);
        assert_eq!(standing(59 * YEAR + 1), Standing { ca_ends_s: (60 * YEAR) as u64, ..far });
        assert_eq!(standing(61 * YEAR).renewal, Renewal::NotYet, "nothing would be better for it");
    }

    const SCHEDULER: &str = "apiVersion: v1
kind: Pod
metadata:
  labels:
    component: kube-scheduler
  name: kube-scheduler
spec:
  containers: []
";

    #[test]
    fn a_manifest_says_something_else_and_nothing_is_lost() {
        let once = restarted(SCHEDULER, "1").expect("kubeadm's");
        assert_eq!(once, SCHEDULER.replace("  labels:", "  annotations:\n    muster/renewed: \"1\"\n  labels:"));
        assert_eq!(restarted(&once, "2").expect("kubeadm's"), once.replace("\"1\"", "\"2\""));
        let others = SCHEDULER.replace("  labels:", "  annotations:\n    kubeadm.kubernetes.io/x: y\n  labels:");
        let with_others = restarted(&others, "1").expect("kubeadm's");
        assert_eq!(with_others, others.replace("ns:\n    k", "ns:\n    muster/renewed: \"1\"\n    k"));
        assert_eq!(restarted("{}", "1"), None);
    }

    proptest! {
        #[test]
        fn never_panics(text in "(metadata:\n|  annotations:\n|[ -~]{0,20}\n){0,9}", now in any::<i64>(), ends_s in any::<i64>()) {
            let _ = restarted(&text, "1");
            let one = Certificate { begins_s: now, ends_s, whose: Whose::Kubeadm };
            let _ = Standing::of(&[one, Certificate { whose: Whose::Ca, ..one }], at(now.unsigned_abs().min(1 << 40) as i64));
        }
    }
}
