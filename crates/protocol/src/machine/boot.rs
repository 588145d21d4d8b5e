//! How a machine starts, and what it is started with.

use muster_wire::{
    Able, BootCount, Card, Certificate, Digest, Durable, Epoch, Identity, Revision, Running, Settings, SignedCard,
};
use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};

use super::strangers::TurnedAway;
use super::wishes::Wishes;
use super::{Machine, backups, former, guard};
use crate::follow::Follow;
use crate::founding::Founding;
use crate::ladder::Ladder;
use crate::lead::Lead;
use crate::lead::manifests::Manifests;
use crate::planted::planted;
use crate::roster::Roster;
use crate::tuning::Tuning;
use crate::{Effects, Phase, Time};

/// What a machine is started with.
#[derive(Debug)]
pub struct Boot {
    /// The identity from this machine's disk.
    pub identity: Identity,
    /// The public half of its sealing key.
    pub sealing_key: [u8; 32],
    /// What the disk holds of earlier starts; the default at the first one.
    pub durable: Durable,
    /// The cluster's name in the image.
    pub cluster: String,
    /// The image's settings.
    pub settings: Settings,
    /// This machine's host name.
    pub hostname: String,
    /// Where it listens, `ip:port`, most useful first.
    pub addresses: Vec<String>,
    /// Port on which API servers listen.
    pub api_port: u16,
    /// Digest of what tells the hardware apart.
    pub fingerprint: Digest,
    /// Seed of all the randomness the core uses in this start, the per-boot nonce included. Fresh entropy in the agent.
    pub seed: [u8; 32],
    /// How many objects the image's manifests have.
    pub manifests: u32,
    /// The highest level of the ledger that it knows: [`muster_wire::level::KNOWN`], of an older image a lower one.
    pub level: u32,
    /// Whether this identity's store of Raft was begun: it votes, or did, whether the charter says so or not.
    pub raft_begun: bool,
    /// The intervals the core goes by.
    pub tuning: Tuning,
}

/// Why a machine does not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartRefusal {
    /// The state on disk belongs to another cluster.
    #[error("the state on this disk belongs to cluster {theirs:?}, the image says {ours:?}")]
    OtherCluster {
        /// The cluster in the image.
        ours: String,
        /// The cluster in the state.
        theirs: String,
    },
}

impl Machine {
    /// Starts a machine. Its first effect counts the boot on disk.
    ///
    /// # Errors
    /// When what the disk holds cannot be this machine's.
    pub fn new(mut boot: Boot, now: Time, effects: &mut Effects) -> Result<Self, StartRefusal> {
        let mut durable = std::mem::take(&mut boot.durable);
        if !durable.cluster.is_empty() && durable.cluster != boot.cluster {
            return Err(StartRefusal::OtherCluster { ours: boot.cluster, theirs: durable.cluster });
        }
        if planted("promises-forgotten") {
            (durable.promised, durable.accepted) = (None, None);
        }
        if planted("init-resumed") && durable.completed.is_none() {
            durable.started = None;
        }
        let mut rng = ChaCha8Rng::from_seed(boot.seed);
        durable.cluster.clone_from(&boot.cluster);
        if !planted("boot-uncounted") || durable.boot == BootCount::NONE {
            durable.boot = durable.boot.next();
        }
        let mut nonce = [0; 16];
        rng.fill_bytes(&mut nonce);
        let mine = SignedCard::sign(&boot.identity, first_card(&boot, &durable, nonce));
        let tuning = boot.tuning;
        let roster = Roster::new(now, &mine, boot.settings.machines, tuning.swim_forming, tuning.resend, &mut rng);
        let followed_before = durable.charter.is_some();
        let mut follow = Follow::new(durable.boot, boot.level);
        if let Some(certificate) = &durable.charter {
            follow.founded(certificate.charter());
        }
        let mut machine = Self {
            founding: Founding::new(&durable, now),
            identity: boot.identity,
            cluster: boot.cluster,
            settings: boot.settings,
            tuning,
            api_port: boot.api_port,
            mine,
            addresses: boot.addresses,
            durable,
            rng,
            roster,
            follow,
            lead: Lead::default(),
            manifests: Manifests::new(boot.manifests),
            ladder: Ladder::default(),
            wishes: Wishes::default(),
            recovering: None,
            met: guard::Met::default(),
            backups: backups::Keeping::default(),
            former: former::Former::default(),
            started: now,
            raft_begun: boot.raft_begun,
            followed_before,
            images_told: 1,
            cloned: false,
            departed: false,
            told_beyond: false,
            runs: 0,
            election_at: None,
            due: None,
            api_servers: Vec::new(),
            endpoint: None,
            endpoint_troubles: Vec::new(),
            former_troubles: Vec::new(),
            phase: Phase::Meeting,
            look_at: None,
            ledger_news: (Revision::NONE, now),
            ask_at: None,
            shown_by: None,
            turned_away: TurnedAway::default(),
            last_impediment: None,
        };
        machine.begin(now, effects);
        Ok(machine)
    }

    fn begin(&mut self, now: Time, effects: &mut Effects) {
        effects.persist(&self.durable).done();
        // What it saw under another image, it follows under the right one.
        let settings = self.settings.digest;
        if self.durable.charter.is_none()
            && let Some(seen) = self.durable.seen.take_if(|seen| seen.charter().settings == settings)
        {
            self.follow_charter(now, seen, effects);
        }
        self.start_raft_if_voter(now, effects);
        self.settle(now, true, effects);
    }
}

/// The card with which a machine starts.
fn first_card(boot: &Boot, durable: &Durable, nonce: [u8; 16]) -> Card {
    let half = planted("hardware-half-compared");
    Card {
        machine: boot.identity.machine(),
        cluster: boot.cluster.clone(),
        boot: durable.boot,
        nonce,
        serial: 0,
        hostname: boot.hostname.clone(),
        addresses: boot.addresses.clone(),
        sealing_key: boot.sealing_key,
        fingerprint: if half { Digest([boot.fingerprint.0[0] & 7; 32]) } else { boot.fingerprint },
        settings: boot.settings.clone(),
        // Whoever has joined could run kubeadm; to say so anew in each start would be news of every machine, twice.
        able: if durable.completed.is_some() { Able::Yes } else { Able::NotLooked },
        reached: 0,
        charter: durable.charter.as_ref().map(Certificate::charter_hash),
        level: boot.level,
        // What it found in its last start, most likely; it looks again, and says so if it is another one.
        running: Running {
            kubernetes: durable.completed.map_or(String::new(), |_| boot.settings.kubernetes_version.clone()),
            ..Running::default()
        },
        epoch: Epoch::default(),
    }
}
