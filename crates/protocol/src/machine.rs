//! The machine: the one state machine that all of muster is about. It owns its parts and passes inputs between them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use muster_wire::{
    Card, Certificate, Digest, Durable, Entry, Frame, Identity, MachineId, Settings, SignedCard, host_of,
};
use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};

use crate::follow::{Follow, Subject};
use crate::founding::{self, Founding};
use crate::ladder::{self, Ladder};
use crate::lead::manifests::{self, Manifests};
use crate::lead::{self, Lead};
use crate::planted::planted;
use crate::roster::{self, Learned, Roster};
use crate::{Effect, Effects, Input, Phase, Time};

mod explain;
mod receive;
mod strangers;

/// Longest pause between a change of the roster and founding's look at it.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// How many machines are asked for a charter at a time.
const ASKED: usize = 2;

/// Time given to the other voters to learn of the charter and start their Raft.
const RAFT_HEAD_START: Duration = Duration::from_millis(150);

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

/// Intervals. They only ever affect liveness and traffic, never safety.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// How long a roster must stay the same before its lowest machine proposes, when not all machines are there.
    pub settle: Duration,
    /// Longest wait of the others before one of them proposes as well; drawn anew every time.
    pub step_in_max: Duration,
    /// How often what was not answered is sent again.
    pub resend: Duration,
    /// SWIM's period while forming.
    pub swim_forming: Duration,
    /// SWIM's period once everyone is Ready, or nothing was committed for `quiet_after`.
    pub swim_idle: Duration,
    /// How long nothing must have been committed until those who are missing are waited for in quiet.
    pub quiet_after: Duration,
    /// How long a dead initialiser is waited for before its attempt is abandoned.
    pub initialiser_patience: Duration,
    /// Longest an init attempt may take.
    pub init_max: Duration,
    /// How long the holder of an etcd turn may take before it kills its own work.
    pub etcd_turn_max: Duration,
    /// How long a ledger poll is held when nothing changed.
    pub poll_hold: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            settle: seconds(2),
            step_in_max: seconds(3),
            resend: Duration::from_millis(700),
            swim_forming: seconds(1),
            swim_idle: seconds(5),
            quiet_after: seconds(120),
            initialiser_patience: seconds(20),
            init_max: seconds(600),
            etcd_turn_max: seconds(180),
            poll_hold: seconds(30),
        }
    }
}

/// How many bits two addresses of one family begin with alike.
fn common_bits(one: IpAddr, other: IpAddr) -> u32 {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        _ => 0,
    }
}

/// One machine of the site.
pub struct Machine {
    identity: Identity,
    cluster: String,
    settings: Settings,
    tuning: Tuning,
    api_port: u16,
    mine: SignedCard,
    /// Where it listens, in the order that its device gave.
    addresses: Vec<String>,
    durable: Durable,
    rng: ChaCha8Rng,
    roster: Roster,
    founding: Founding,
    follow: Follow,
    lead: Lead,
    manifests: Manifests,
    ladder: Ladder,
    cloned: bool,
    runs: u64,
    initialize_at: Option<Time>,
    /// When the reconciling parts want to look again.
    due: Option<(Time, &'static str)>,
    api_servers: Vec<String>,
    /// What the endpoint's name was last said to mean, and what is wrong with it.
    endpoint: Option<IpAddr>,
    endpoint_troubles: Vec<String>,
    phase: Phase,
    look_at: Option<Time>,
    /// The ledger's revision, and when it became that.
    ledger_news: (u64, Time),
    /// When others are asked next whether they follow a charter.
    ask_at: Option<Time>,
    /// A peer that says it follows a charter, while this machine follows none.
    shown_by: Option<MachineId>,
    turned_away: strangers::TurnedAway,
    last_impediment: Option<founding::Impediment>,
}

impl Machine {
    /// Starts a machine. Its first effect counts the boot on disk.
    ///
    /// # Errors
    /// When what the disk holds cannot be this machine's.
    pub fn new(boot: Boot, now: Time, effects: &mut Effects) -> Result<Self, StartRefusal> {
        let mut durable = boot.durable;
        if !durable.cluster.is_empty() && durable.cluster != boot.cluster {
            return Err(StartRefusal::OtherCluster { ours: boot.cluster, theirs: durable.cluster });
        }
        if planted("promises-forgotten") {
            durable.promised = None;
            durable.accepted = None;
        }
        let mut rng = ChaCha8Rng::from_seed(boot.seed);
        durable.cluster.clone_from(&boot.cluster);
        durable.boot += u64::from(!planted("boot-uncounted") || durable.boot == 0);
        let mut nonce = [0; 16];
        rng.fill_bytes(&mut nonce);
        let card = Card {
            machine: boot.identity.machine(),
            cluster: boot.cluster.clone(),
            boot: durable.boot,
            nonce,
            serial: 0,
            hostname: boot.hostname,
            addresses: boot.addresses.clone(),
            sealing_key: boot.sealing_key,
            fingerprint: boot.fingerprint,
            settings: boot.settings.clone(),
            unable: Card::NOT_LOOKED.to_owned(),
            reached: 0,
            charter: durable.charter.as_ref().map(Certificate::charter_hash),
        };
        let mine = SignedCard::sign(&boot.identity, card);
        let tuning = boot.tuning;
        let roster = Roster::new(now, &mine, boot.settings.machines, tuning.swim_forming, tuning.resend, &mut rng);
        let mut follow = Follow::new(durable.boot);
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
            cloned: false,
            runs: 0,
            initialize_at: None,
            due: None,
            api_servers: Vec::new(),
            endpoint: None,
            endpoint_troubles: Vec::new(),
            phase: Phase::Meeting,
            look_at: None,
            ledger_news: (0, now),
            ask_at: None,
            shown_by: None,
            turned_away: strangers::TurnedAway::default(),
            last_impediment: None,
        };
        effects.persist(&machine.durable).done();
        // What it saw under another image, it follows under the right one.
        let settings = machine.settings.digest;
        if machine.durable.charter.is_none()
            && let Some(seen) = machine.durable.seen.take_if(|seen| seen.charter().settings == settings)
        {
            machine.follow_charter(now, seen, effects);
        }
        machine.start_raft_if_voter(now, effects);
        machine.settle(now, true, effects);
        Ok(machine)
    }

    /// This machine's identity.
    pub fn id(&self) -> MachineId {
        self.identity.machine()
    }

    /// The name of the cluster that its image is for.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The charter it follows.
    pub fn charter(&self) -> Option<&Certificate> {
        self.durable.charter.as_ref()
    }

    /// Its copy of the ledger.
    pub fn ledger(&self) -> &crate::Ledger {
        self.follow.ledger()
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The machines it holds for alive, itself among them: its roster (promise L3).
    pub fn roster_alive(&self) -> std::collections::BTreeSet<MachineId> {
        let known = self.roster.known().keys().copied();
        known.filter(|machine| self.roster.is_alive(*machine)).chain([self.id()]).collect()
    }

    /// How many it holds for alive, itself among them.
    pub fn roster_alive_count(&self) -> usize {
        self.roster.alive_count() + 1
    }

    /// Whether a machine is on its roster.
    pub fn holds_for_alive(&self, machine: MachineId) -> bool {
        self.roster.is_alive(machine)
    }

    /// Whether its failure detector doubts that a machine lives, or holds it for dead.
    pub fn doubts(&self, machine: MachineId) -> bool {
        self.roster.doubts(machine)
    }

    /// Takes one input. Never fails for outside reasons.
    pub fn handle(&mut self, now: Time, input: Input, effects: &mut Effects) {
        let touched = self.take(now, input, effects);
        self.settle(now, touched, effects);
    }

    /// Hands the input to the part it is for. Returns whether the reconciling parts must look.
    fn take(&mut self, now: Time, input: Input, effects: &mut Effects) -> bool {
        match input {
            Input::Wake => return false,
            Input::Connected(peer) => {
                let hello = self.hello(peer, false);
                self.roster.connected(now, peer, hello, effects);
                self.follow.connected(peer);
                return false;
            }
            Input::Disconnected(peer) => {
                self.roster.disconnected(peer);
                self.follow.disconnected(peer);
                return false;
            }
            Input::Received { from, frame } => {
                self.roster.heard(now, from);
                self.receive(now, from, frame, effects);
                return false;
            }
            Input::TurnedAway { whom, why } => {
                self.turned_away.add(now, whom, why);
                return false;
            }
            Input::Addresses(addresses) => {
                self.addresses = addresses;
                self.order_addresses();
            }
            Input::Reached { machine, address } => {
                self.turned_away.came_through(address);
                if self.roster.reach(machine, address) {
                    let hello = self.hello(machine, true);
                    effects.send(machine, hello);
                }
                return false;
            }
            Input::HostsFile { troubles } => {
                for text in troubles.iter().filter(|text| !self.endpoint_troubles.contains(text)) {
                    effects.notice(true, "hosts", text.clone());
                }
                self.endpoint_troubles = troubles;
                return false;
            }
            Input::Applied { revision, entry } => {
                self.follow.fed();
                if let Some(entry) = self.follow.applied(revision, entry) {
                    self.note_entry(&entry, effects);
                }
            }
            Input::Restored { ledger } => {
                if !self.follow.restored(&ledger) {
                    effects.notice(true, "ledger", "Raft handed over a ledger that cannot be read".to_owned());
                }
            }
            Input::Leading { term, leader } => {
                if leader.is_some() {
                    self.follow.fed();
                }
                self.follow.leading(term, leader);
            }
            Input::Proposed { call, outcome } => self.follow.proposed(now, call, outcome, effects),
            Input::Progress { run, phase } => {
                self.ladder.progress(run, phase);
                return false;
            }
            Input::Finished { run, result } => self.finished(now, run, result, effects),
        }
        true
    }

    fn finished(
        &mut self,
        now: Time,
        run: crate::RunId,
        result: Result<crate::StepOutput, crate::StepFailure>,
        effects: &mut Effects,
    ) {
        if self.lead.finished(now, run, &result, &self.tuning, effects)
            || self.manifests.finished(now, run, &result, effects)
        {
            return;
        }
        let mut wants = BTreeMap::new();
        let mut context = ladder::Context {
            now,
            me: self.identity.machine(),
            tuning: &self.tuning,
            ledger: self.follow.ledger(),
            durable: &mut self.durable,
            runs: &mut self.runs,
            wants: &mut wants,
            due: &mut self.due,
            effects,
        };
        let changed = self.ladder.finished(run, result, &mut context);
        if changed || !self.mine.card().has_looked() && self.ladder.has_looked() {
            let unable: String = self.ladder.unable().unwrap_or_default().chars().take(60).collect();
            self.change_card(|card| card.unable = unable);
        }
    }

    /// Lets every part do what is due, until nothing is.
    fn settle(&mut self, now: Time, touched: bool, effects: &mut Effects) {
        let cards = self.run_roster(now, effects);
        for card in cards {
            self.learn(now, card, effects);
        }
        let roster_changed = self.roster.take_changed();
        if self.durable.charter.is_none() {
            self.run_founding(now, roster_changed, effects);
        } else if roster_changed {
            // Nobody founds any more.
            self.roster.take_touched();
        }
        let due = self.due.is_some_and(|(due, _)| due <= now);
        if self.durable.charter.is_some() && !self.cloned {
            self.initialize_raft(now, effects);
            let changed = self.follow.take_changed();
            if touched || due || roster_changed || changed {
                self.reconcile(now, effects);
            }
            self.run_follow(now, effects);
        } else if touched || due {
            self.reconcile(now, effects);
        }
        self.note_phase(effects);
    }

    fn run_roster(&mut self, now: Time, effects: &mut Effects) -> Vec<SignedCard> {
        let (mine, charter, rng) = (&self.mine, self.durable.charter.as_ref(), &mut self.rng);
        self.roster.run(now, |cards, seen_at| roster::hello(mine, charter, cards, false, seen_at), rng, effects)
    }

    fn run_founding(&mut self, now: Time, roster_changed: bool, effects: &mut Effects) {
        if roster_changed {
            // Looked at together: machines that come at once would else cause as many looks as there are pairs of them.
            self.look_at.get_or_insert(now + LOOK_PAUSE);
        }
        let look = self.look_at.take_if(|due| *due <= now).is_some();
        if look {
            self.run_founding_look(now, effects);
            // That founding goes on is said before anything is done in it.
            self.tell_impediment(effects);
        }
        self.with_founding(now, effects, |founding, context| founding.run(context));
        if let Some(certificate) = self.founding.take_certificate() {
            self.follow_charter(now, certificate.clone(), effects);
            for peer in self.roster.connected_peers() {
                effects.send(peer, Frame::Chartered(Box::new(certificate.clone())));
            }
        }
        if self.durable.charter.is_none() {
            self.ask_for_charter(now, effects);
        }
        self.tell_impediment(effects);
    }

    fn tell_impediment(&mut self, effects: &mut Effects) {
        let impediment = self.founding.impediment().cloned();
        if impediment != self.last_impediment {
            match &impediment {
                Some(impediment) => effects.notice(true, "founding-halted", format!("founding halts: {impediment}")),
                None => effects.notice(false, "founding-goes-on", "founding goes on".to_owned()),
            }
            self.last_impediment = impediment;
        }
    }

    /// While a quorum is there and this machine follows no charter, it may have missed the end of founding, since a charter
    /// is shown to those connected, once. A Hello that needs no answer gets one from whoever follows one.
    fn ask_for_charter(&mut self, now: Time, effects: &mut Effects) {
        let resend = self.tuning.resend;
        let shown_by = self.shown_by.filter(|peer| self.roster.greeted(*peer));
        let halted = self.durable.seen.is_some();
        if (halted || self.founding.electorate().len() < self.settings.quorum() as usize) && shown_by.is_none() {
            self.ask_at = None;
        } else if *self.ask_at.get_or_insert(now + resend * 2) <= now {
            self.ask_at = Some(now + resend);
            for peer in self.roster.some_greeted(ASKED, &mut self.rng).into_iter().chain(shown_by) {
                effects.send(peer, roster::hello(&self.mine, None, Vec::new(), true, self.roster.reached(peer)));
            }
        }
    }

    fn with_founding(
        &mut self,
        now: Time,
        effects: &mut Effects,
        call: impl FnOnce(&mut Founding, &mut founding::Context<'_>),
    ) {
        let card = self.mine.card();
        let shared = self.roster.is_amnesiac(card.machine, &card.fingerprint);
        let mut context = founding::Context {
            now,
            identity: &self.identity,
            cluster: &self.cluster,
            settings: &self.settings,
            tuning: &self.tuning,
            unable: self.ladder.unable().is_some(),
            looked: self.ladder.has_looked(),
            addressed: !card.addresses.is_empty(),
            cloned: self.cloned,
            fingerprint_shared: shared,
            roster: &mut self.roster,
            durable: &mut self.durable,
            rng: &mut self.rng,
            effects,
        };
        call(&mut self.founding, &mut context);
    }

    /// Follows a charter from now on, for good (promise S7).
    fn follow_charter(&mut self, now: Time, certificate: Certificate, effects: &mut Effects) {
        let charter = certificate.charter();
        let text =
            format!("cluster {} of {} is founded, {} voters", self.cluster, charter.id_hex(), charter.voters.len());
        self.follow.founded(certificate.charter());
        let hash = certificate.charter_hash();
        self.durable.charter = Some(certificate);
        self.durable.seen = None;
        effects.persist(&self.durable).done();
        self.change_card(|card| card.charter = Some(hash));
        effects.notice(false, "charter", text);
        self.start_raft_if_voter(now, effects);
    }

    /// Voters run Raft: those of the charter at once, control planes of later when the ledger names them.
    fn start_raft_if_voter(&mut self, now: Time, effects: &mut Effects) {
        if self.follow.raft || self.cloned {
            return;
        }
        let me = self.identity.machine();
        let Some(certificate) = &self.durable.charter else { return };
        let charter = certificate.charter();
        let place = charter.voters.iter().position(|voter| *voter == me);
        let later = self
            .follow
            .ledger()
            .member(me)
            .is_some_and(|member| member.admitted.role == muster_wire::Role::ControlPlane);
        if place.is_none() && !later {
            return;
        }
        self.follow.raft = true;
        effects.push(Effect::StartRaft { charter: Box::new(charter.clone()) });
        // The first voter calls initialize once the others have had time to start theirs: a vote that nobody hears costs a
        // whole election timeout. Were it dead, the others follow one after the other.
        self.initialize_at = place.map(|place| now + RAFT_HEAD_START + self.tuning.resend * 3 * place as u32);
    }

    fn initialize_raft(&mut self, now: Time, effects: &mut Effects) {
        if self.follow.leader.is_some() || self.follow.ledger().revision() > 0 {
            self.initialize_at = None;
        } else if self.initialize_at.is_some_and(|due| due <= now) {
            effects.push(Effect::InitializeRaft);
            self.initialize_at = Some(now + self.tuning.resend * 10);
        }
    }

    /// Compares what is with what should be: the leader's duties, this machine's next step, what must be proposed.
    fn reconcile(&mut self, now: Time, effects: &mut Effects) {
        if self.cloned {
            self.due = None;
            return;
        }
        self.start_raft_if_voter(now, effects);
        self.name_endpoint(effects);
        let me = self.identity.machine();
        let mut wants: BTreeMap<Subject, Entry> = BTreeMap::new();
        let mut due = None;
        if let Some(leader) = self.follow.leader
            && let Some(certificate) = &self.durable.charter
        {
            let mut context = lead::Context {
                now,
                mine: &self.mine,
                charter: certificate.charter(),
                // What was founded holds, whatever this machine's image says by now.
                control_planes: match certificate.charter().control_planes {
                    0 => self.settings.control_planes,
                    named => named,
                },
                tuning: &self.tuning,
                roster: &self.roster,
                ledger: self.follow.ledger(),
                runs: &mut self.runs,
                wants: &mut wants,
                due: &mut due,
                effects,
            };
            if leader == me {
                self.lead.run(&mut context);
            } else {
                self.lead.step_down();
                self.lead.assist(&mut context, leader);
            }
        } else {
            self.lead.step_down();
        }
        self.ladder.climb(&mut ladder::Context {
            now,
            me,
            tuning: &self.tuning,
            ledger: self.follow.ledger(),
            durable: &mut self.durable,
            runs: &mut self.runs,
            wants: &mut wants,
            due: &mut due,
            effects,
        });
        self.manifests.run(&mut manifests::Context {
            now,
            me,
            leads: self.follow.leader == Some(me),
            ledger: self.follow.ledger(),
            durable: &self.durable,
            runs: &mut self.runs,
            due: &mut due,
            effects,
        });
        self.due = due;
        self.follow.want(wants);
        self.list_api_servers(effects);
        self.choose_swim_period(now);
    }

    fn run_follow(&mut self, now: Time, effects: &mut Effects) {
        if let Some(charter) = &self.durable.charter {
            let me = self.identity.machine();
            self.follow.run(now, me, charter, &self.roster, &self.tuning, effects);
        }
    }

    /// API servers this machine's balancer may use. The initialiser must reach its own before anyone else knows of it.
    fn list_api_servers(&mut self, effects: &mut Effects) {
        let me = self.identity.machine();
        let ledger = self.follow.ledger();
        let serves = |machine: &MachineId| match (ledger.ready(), ledger.live_claim()) {
            (Some(_), _) => ledger.member(*machine).is_some_and(|member| member.etcd_member),
            (None, Some((_, initialiser))) if planted("api-too-early") => *machine == initialiser,
            (None, Some((_, initialiser))) => *machine == me && initialiser == me,
            (None, None) => false,
        };
        let mut machines: Vec<MachineId> = ledger.control_planes().filter(serves).collect();
        // A new member's API server takes connections some seconds before it answers; it is the last resort until then.
        let joined = |machine: &MachineId| ledger.member(*machine).is_some_and(|member| member.joined);
        machines.sort_by_key(|machine| (!joined(machine), *machine != me, *machine));
        let addresses = machines.into_iter().filter_map(|machine| ledger.member(machine));
        let servers: Vec<String> = addresses
            .map(|member| match member.admitted.address.contains(':') {
                true => format!("[{}]:{}", member.admitted.address, self.api_port),
                false => format!("{}:{}", member.admitted.address, self.api_port),
            })
            .collect();
        if servers != self.api_servers {
            self.api_servers.clone_from(&servers);
            effects.push(Effect::ApiServers(servers));
        }
    }

    /// Says what the endpoint's name means here, from when kubeadm is about to need it: the address by which this machine was
    /// admitted, if that is still its own, else the one by which others find it now. A kubelet needs the name at once after a
    /// restart, when the ledger is not there yet.
    fn name_endpoint(&mut self, effects: &mut Effects) {
        let member = self.follow.ledger().member(self.identity.machine());
        if member.is_none() && self.durable.started.is_none() && self.durable.completed.is_none() {
            return;
        }
        let card = self.mine.card();
        let admitted = member.and_then(|member| member.admitted.address.parse().ok());
        // A lease changes within its network: until others reach it there, the nearest to the former address is the likeliest.
        let near = |own: &IpAddr| admitted.map_or(0, |admitted| common_bits(*own, admitted));
        let reached = card.reached_at().find_map(|address| host_of(address));
        let nearest = || card.hosts().rev().max_by_key(near);
        let kept = admitted.filter(|address| card.hosts().any(|own| own == *address));
        let Some(address) = kept.or(reached).or_else(nearest) else { return };
        if self.endpoint != Some(address) {
            self.endpoint = Some(address);
            effects.push(Effect::Endpoint(address));
        }
    }

    /// An idle cluster is quiet (promise L5): once everyone has joined, failure detection slows down.
    fn choose_swim_period(&mut self, now: Time) {
        let ledger = self.follow.ledger();
        if self.ledger_news.0 != ledger.revision() {
            self.ledger_news = (ledger.revision(), now);
        }
        let everyone = ledger.joined_count() >= (self.settings.machines as usize).max(ledger.members().len());
        // Who is missing may never come: a machine that broke, or that the image counts and nobody bought.
        let quiet_at = self.ledger_news.1 + self.tuning.quiet_after;
        let idle = self.durable.charter.is_some() && (everyone || quiet_at <= now);
        if self.durable.charter.is_some() && !idle && self.due.is_none_or(|(due, _)| quiet_at < due) {
            self.due = Some((quiet_at, "the time to be quiet if nobody else comes"));
        }
        let period = if idle && !planted("restless") { self.tuning.swim_idle } else { self.tuning.swim_forming };
        self.roster.change_period(now, period, &mut self.rng);
    }

    /// Tells people what a committed entry means.
    fn note_entry(&mut self, entry: &Entry, effects: &mut Effects) {
        let ledger = self.follow.ledger();
        let name = |machine: &MachineId| match ledger.member(*machine) {
            Some(member) => format!("{machine} ({})", member.admitted.name),
            None => machine.to_string(),
        };
        let (kind, text) = match entry {
            Entry::Admitted(admitted) => (
                "admitted",
                format!("{} is admitted as {} at {}", name(&admitted.machine), admitted.role, admitted.address),
            ),
            Entry::Removed { machine } => ("removed", format!("{machine} is removed")),
            Entry::InitClaimed { attempt, machine } => {
                ("init-claimed", format!("attempt {attempt}: {} may run kubeadm init", name(machine)))
            }
            Entry::PkiSealed { sealed, .. } => ("pki", format!("the CA is sealed to {} control planes", sealed.len())),
            Entry::InitReady { attempt, .. } => ("init-ready", format!("attempt {attempt} made the cluster")),
            Entry::InitAbandoned { attempt, why } => {
                ("init-abandoned", format!("attempt {attempt} is abandoned: {why}"))
            }
            Entry::Ticket { machine, .. } => ("ticket", format!("{} has its ticket", name(machine))),
            Entry::EtcdJoin { machine, turn, .. } => ("etcd", format!("{}: etcd turn {turn:?}", name(machine))),
            Entry::Joined { machine } => {
                self.lead.joined(*machine);
                ("joined", format!("{} is Ready", name(machine)))
            }
        };
        effects.notice(false, kind, text);
    }

    fn note_phase(&mut self, effects: &mut Effects) {
        let phase = self.current_phase();
        if phase != self.phase {
            self.phase = phase;
            effects.notice(false, "phase", phase.word().to_owned());
        }
    }

    fn current_phase(&self) -> Phase {
        if self.cloned || self.follow.ledger().was_removed(self.id()) {
            Phase::Halted
        } else if self.durable.charter.is_some() {
            self.ladder.phase(self.id(), self.follow.ledger(), &self.durable)
        } else if self.founding.impediment().is_some() {
            Phase::Halted
        } else if self.founding.electorate().len() >= self.settings.quorum() as usize {
            Phase::Founding
        } else {
            Phase::Meeting
        }
    }

    /// Changes what this machine says of itself, and lets it be known.
    fn change_card(&mut self, change: impl FnOnce(&mut Card)) {
        let mut card = self.mine.card().clone();
        change(&mut card);
        if card == *self.mine.card() {
            return;
        }
        card.serial += 1;
        self.mine = SignedCard::sign(&self.identity, card);
        self.roster.my_card(&self.mine);
    }

    /// Puts those addresses first on its card at which others reached it.
    fn order_addresses(&mut self) {
        let (addresses, reached) = self.roster.order(&self.addresses);
        self.change_card(|card| (card.addresses, card.reached) = (addresses, reached));
    }

    fn hello(&mut self, peer: MachineId, answer: bool) -> Frame {
        let cards = self.roster.cards_to_greet(peer, &mut self.rng);
        roster::hello(&self.mine, self.durable.charter.as_ref(), cards, answer, self.roster.reached(peer))
    }

    /// Takes a card, and what it means for this machine.
    fn learn(&mut self, now: Time, card: SignedCard, effects: &mut Effects) {
        if let Learned::Myself(theirs) = self.roster.learn(now, card, effects) {
            self.met_myself(now, theirs, effects);
        }
    }

    /// A card with our own signature: an earlier boot's is stale; one of this boot or a later one that we did not make
    /// means that our disk runs elsewhere too, or is an old copy that forgot later promises. Then we promise nothing.
    fn met_myself(&mut self, now: Time, theirs: SignedCard, effects: &mut Effects) {
        let (mine, other) = (self.mine.card(), theirs.card());
        if other.boot < mine.boot || other.nonce == mine.nonce || self.cloned {
            return;
        }
        if other.boot > mine.boot {
            // With the same boot number and another nonce, our card and theirs are the proof that convinces everyone.
            self.durable.boot = other.boot;
            effects.persist(&self.durable).done();
            let boot = other.boot;
            self.change_card(|card| card.boot = boot);
        }
        self.cloned = !planted("clone-unnoticed");
        if !planted("clone-gossips") {
            self.roster.fall_silent();
        }
        self.roster.clone_found(self.mine.clone(), theirs, effects);
        if self.follow.raft && !planted("clone-keeps-raft") {
            effects.push(Effect::StopRaft);
        }
        let text = format!(
            "the identity {} runs on another machine too, or this disk is an old copy; \
             this machine votes no more. Wipe the state of the copy and start it again",
            self.id()
        );
        effects.notice(true, "clone", text);
        self.run_founding_look(now, effects);
    }

    fn run_founding_look(&mut self, now: Time, effects: &mut Effects) {
        if self.durable.charter.is_none() {
            self.with_founding(now, effects, |founding, context| founding.look(context));
        }
    }

    /// When it wants to be woken, and why: `muster explain` is made of these reasons too.
    pub fn next_wakeup(&self) -> Option<(Time, &'static str)> {
        let founding = if self.durable.charter.is_none() { self.founding.next_wakeup(&self.tuning) } else { None };
        // A machine whose identity runs elsewhere does none of this, and must not be woken for it for ever.
        let follows = self.durable.charter.is_some() && !self.cloned;
        let follow = if follows { self.follow.next_wakeup(&self.tuning) } else { None };
        let initialize = self.initialize_at.filter(|_| !self.cloned).map(|due| (due, "Raft's first leader"));
        let look = self.look_at.filter(|_| self.durable.charter.is_none()).map(|due| (due, "a look at the roster"));
        let ask = self.ask_at.filter(|_| self.durable.charter.is_none()).map(|due| (due, "a charter to ask for"));
        let parts = [self.roster.next_wakeup(), founding, look, ask, follow, initialize, self.due];
        parts.into_iter().flatten().min()
    }
}
