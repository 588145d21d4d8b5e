//! What is known of each API server, from what came of asking it: which of them gets a new connection first, and whose
//! connections are ended.

use std::net::SocketAddr;
use std::time::Duration;

/// A machine that keeps silent so often in a row is dead: a question was not answered, and two connections were not taken. Less may be
/// lost packets.
const SILENCES: u32 = 2;

/// A server whose machine takes connections, and that itself says nothing, is dead after so many: until then it may just be busy.
const SLOWNESSES: u32 = 20;

/// A server that cannot say so often in a row that its etcd works fails whatever it is asked: one election of etcd's is over before that.
const ETCD_FAILURES: u32 = 2;

/// Pause between two questions in a small site.
const PAUSE: Duration = Duration::from_millis(250);

/// The share of it that each machine of the cluster adds: all of them ask every server.
const PAUSE_PER_MACHINE: Duration = Duration::from_millis(10);

/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Between two questions, in a cluster of so many machines: the API servers are asked at most some 100 times a second each.
pub(super) fn pause(machines: usize) -> Duration {
    (PAUSE_PER_MACHINE * machines.min(1_000) as u32).clamp(PAUSE, PAUSE_MAX)
}

/// What came of one question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It says that it is ready, or that whoever asks must say who he is: both come from a server that works.
    Ready,
    /// It answers otherwise, and may not work: as it starts it refuses everybody for about a second (403), and without its etcd
    /// it fails (500).
    NotReady,
    /// It takes connections. More cannot be asked without the cluster's CA.
    Takes,
    /// It refuses connections: there is no server.
    Refused,
    /// It takes connections, and says nothing in time.
    Slow,
    /// Nothing came in time, not even from its machine.
    Silence,
}

/// How a server stands, best first: new connections go to the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Ready,
    /// Nothing is known yet, or nothing can be.
    Unknown,
    NotReady,
    Dead,
}

/// One server.
#[derive(Debug, Clone, Copy)]
struct Server {
    at: SocketAddr,
    standing: Standing,
    /// Answers of the last kind in a row.
    silences: u32,
    slownesses: u32,
    /// How often in a row it did not say that its etcd works.
    etcd_failures: u32,
}

impl Server {
    /// Whether its etcd does not work: each API server of kubeadm's has one, the member beside it.
    fn is_lame(&self) -> bool {
        self.etcd_failures >= ETCD_FAILURES
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Health {
    servers: Vec<Server>,
    /// This machine's own, which is preferred.
    own: Option<SocketAddr>,
}

impl Health {
    /// These are the servers from now on, among them this machine's `own` if it has one. What is known of those that stay is kept.
    pub(super) fn servers(&mut self, servers: &[SocketAddr], own: Option<SocketAddr>) {
        let known = std::mem::take(&mut self.servers);
        let server = |at: &SocketAddr| {
            let known = known.iter().find(|server| server.at == *at).copied();
            known.unwrap_or(Server {
                at: *at,
                standing: Standing::Unknown,
                silences: 0,
                slownesses: 0,
                etcd_failures: 0,
            })
        };
        self.servers = servers.iter().map(server).collect();
        self.own = own;
    }

    /// An answer came from a server, or none.
    pub(super) fn heard(&mut self, at: SocketAddr, answer: Answer) {
        let Some(server) = self.servers.iter_mut().find(|server| server.at == at) else { return };
        let quiet = matches!(answer, Answer::Silence | Answer::Slow);
        server.silences = if answer == Answer::Silence { server.silences.saturating_add(1) } else { 0 };
        server.slownesses = if quiet { server.slownesses.saturating_add(1) } else { 0 };
        server.standing = match answer {
            Answer::Ready => Standing::Ready,
            Answer::NotReady => Standing::NotReady,
            Answer::Takes => Standing::Unknown,
            Answer::Refused => Standing::Dead,
            _ if server.silences >= SILENCES || server.slownesses >= SLOWNESSES => Standing::Dead,
            Answer::Slow | Answer::Silence => server.standing,
        };
    }

    /// Whether a server says that its etcd works.
    pub(super) fn heard_of_etcd(&mut self, at: SocketAddr, works: bool) {
        if let Some(server) = self.servers.iter_mut().find(|server| server.at == at) {
            server.etcd_failures = if works { 0 } else { server.etcd_failures.saturating_add(1) };
        }
    }

    /// In which order they are tried for a new connection: the best first, those whose etcd works before those of which it does not; of those that are
    /// alike this machine's own, then the others in turn. Nobody is left out: what is known may be old.
    pub(super) fn order(&self, turn: usize) -> Vec<SocketAddr> {
        let count = self.servers.len().max(1);
        let mut order: Vec<Server> =
            self.servers.iter().cycle().skip(turn % count).take(self.servers.len()).copied().collect();
        order.sort_by_key(|server| (server.standing, server.is_lame(), Some(server.at) != self.own));
        order.into_iter().map(|server| server.at).collect()
    }

    /// Whose connections are ended now: those of the dead, if somebody else serves; and of those whose etcd does not work, if that of somebody else
    /// does. Where all are silent it is rather this machine that hears nobody, and what it has may live again; where no etcd works there is an
    /// election, or no majority.
    pub(super) fn given_up(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let serves = self.servers.iter().any(|server| server.standing == Standing::Ready);
        let whole = self.servers.iter().any(|server| server.standing == Standing::Ready && !server.is_lame());
        let ended = move |server: &&Server| serves && server.standing == Standing::Dead || whole && server.is_lame();
        self.servers.iter().filter(ended).map(|server| server.at)
    }

    /// How a server stands, and whether its etcd does not work.
    pub(super) fn standing(&self, at: SocketAddr) -> Option<(Standing, bool)> {
        let server = self.servers.iter().find(|server| server.at == at)?;
        Some((server.standing, server.is_lame()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 6443))
    }

    fn three() -> Health {
        let mut health = Health::default();
        health.servers(&[at(1), at(2), at(3)], Some(at(1)));
        health
    }

    #[test]
    fn the_own_server_is_preferred_while_it_is_as_good_as_the_others() {
        let mut health = three();
        assert_eq!(health.order(0), [at(1), at(2), at(3)]);
        assert_eq!(health.order(2), [at(1), at(3), at(2)]);
        health.heard(at(3), Answer::Ready);
        assert_eq!(health.order(0), [at(3), at(1), at(2)]);
        health.heard(at(1), Answer::Ready);
        assert_eq!(health.order(0), [at(1), at(3), at(2)]);
        health.heard(at(1), Answer::NotReady);
        assert_eq!(health.order(0), [at(3), at(2), at(1)], "as it starts it refuses everybody");
        health.heard(at(1), Answer::Refused);
        assert_eq!(health.order(0), [at(3), at(2), at(1)], "nobody is left out");
    }

    #[test]
    fn a_worker_goes_to_all_of_them_in_turn() {
        let mut health = Health::default();
        health.servers(&[at(1), at(2), at(3)], None);
        let firsts: Vec<SocketAddr> = (0..4).map(|turn| health.order(turn)[0]).collect();
        assert_eq!(firsts, [at(1), at(2), at(3), at(1)]);
        assert_eq!(Health::default().order(7), []);
    }

    #[test]
    fn connections_to_the_dead_are_ended_and_one_silence_is_no_death() {
        let mut health = three();
        (1..=3).for_each(|number| health.heard(at(number), Answer::Ready));
        for _ in 1..SILENCES {
            health.heard(at(2), Answer::Silence);
            assert_eq!(health.given_up().count(), 0);
        }
        health.heard(at(2), Answer::Silence);
        assert!(health.given_up().eq([at(2)]));
        health.heard(at(2), Answer::Ready);
        assert_eq!(health.given_up().count(), 0, "it is back");
        for _ in 1..SLOWNESSES {
            health.heard(at(3), Answer::Slow);
            assert_eq!(health.given_up().count(), 0, "it may be busy");
        }
        health.heard(at(3), Answer::Slow);
        assert!(health.given_up().eq([at(3)]), "it hangs");
        for _ in 0..SILENCES {
            (1..=3).for_each(|number| health.heard(at(number), Answer::Silence));
        }
        assert_eq!(health.given_up().count(), 0, "it is this machine's own cable");
        assert_eq!(health.standing(at(1)), Some((Standing::Dead, false)));
    }

    #[test]
    fn a_server_without_its_etcd_is_left_for_one_that_has_its_own() {
        let mut health = three();
        (1..=3).for_each(|number| health.heard(at(number), Answer::Ready));
        health.heard_of_etcd(at(1), false);
        assert_eq!((health.given_up().count(), health.order(0)[0]), (0, at(1)), "an election is over in a moment");
        health.heard_of_etcd(at(1), false);
        assert!(health.given_up().eq([at(1)]));
        assert_eq!(health.order(0), [at(2), at(3), at(1)]);
        for number in [2, 3] {
            (0..ETCD_FAILURES).for_each(|_| health.heard_of_etcd(at(number), false));
        }
        assert_eq!(health.given_up().count(), 0, "there is no majority: nobody is better");
        assert_eq!(health.order(0)[0], at(1));
        health.heard_of_etcd(at(1), true);
        assert_eq!(health.given_up().count(), 2);
    }

    #[test]
    fn during_an_election_all_fail_and_nobody_is_cut_off() {
        let mut health = three();
        (1..=3).for_each(|number| health.heard(at(number), Answer::NotReady));
        assert_eq!((health.given_up().count(), health.order(0)), (0, vec![at(1), at(2), at(3)]));
        health.servers(&[at(3), at(4)], None);
        assert_eq!(health.order(0), [at(4), at(3)], "what is known of who stays is kept");
    }

    #[test]
    fn a_large_site_asks_less_often() {
        assert_eq!(pause(0), PAUSE);
        assert_eq!(pause(25), PAUSE);
        assert_eq!(pause(100), Duration::from_secs(1));
        assert_eq!(pause(100_000), PAUSE_MAX);
    }
}
