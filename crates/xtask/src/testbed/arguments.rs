//! The command line of `cargo xtask testbed`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};

use super::chaos::Sort;
use super::release::Release;

const AFTER_HELP: &str = "\
Exit codes: 0 done; 1 the cluster did not form (or is not as it should be); 2 this host cannot be provisioned;
130 Ctrl-C, after which nothing is left of what the command had begun.

A first round trip (root, Debian 12; the first build takes some fifteen minutes, later ones seconds):
  sudo cargo xtask testbed up --machines 5 --control-planes 3
  sudo cargo xtask testbed status
  sudo cargo xtask testbed kubectl get nodes
  sudo cargo xtask testbed kill m2 && sudo cargo xtask testbed kubectl get nodes
  sudo cargo xtask testbed down";

/// What `cargo xtask testbed` was asked to do.
#[derive(Args)]
#[command(
    about = "Real machines on this host: systemd-nspawn, systemd, containerd, kubelet, kubeadm, etcd, and muster",
    after_help = AFTER_HELP,
    disable_help_subcommand = true
)]
pub(crate) struct Arguments {
    /// Which testbed; two with different names do not disturb each other
    #[arg(long, global = true, default_value = "default", value_name = "NAME")]
    pub(crate) name: String,
    /// Print one JSON object a line instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Where what is built once is kept: Kubernetes' binaries, the image
    #[arg(
        long,
        global = true,
        env = "MUSTER_TESTBED_CACHE",
        default_value = "/var/cache/muster-testbed",
        value_name = "DIR"
    )]
    pub(crate) cache: PathBuf,
    /// Where the machines' disks are kept while a testbed is up
    #[arg(
        long,
        global = true,
        env = "MUSTER_TESTBED_STATE",
        default_value = "/var/lib/muster-testbed",
        value_name = "DIR"
    )]
    pub(crate) state: PathBuf,
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Subcommand)]
pub(crate) enum Action {
    /// Install what the testbed needs, build Kubernetes, and make the image; what is there already is kept
    Build(BuildArguments),
    /// Boot the machines and return when they are one Kubernetes cluster
    Up(FormArguments),
    /// What every machine does and what Kubernetes says of it
    Status,
    /// Run a command in a machine; its exit code becomes this command's
    Exec {
        machine: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Run kubectl from this host, through a machine that answers
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        arguments: Vec<String>,
    },
    /// Print a machine's journal
    Logs {
        machine: String,
        /// Go on printing what is added
        #[arg(long, short)]
        follow: bool,
        /// The systemd unit; `all` for the whole journal
        #[arg(long, default_value = "muster")]
        unit: String,
    },
    /// Take a machine's power away, at once
    Kill(NameArguments),
    /// Kill machines, take their disks away, and boot them anew: each is another machine on the same hardware
    Wipe(NameArguments),
    /// Boot a machine that was killed, from its own disk
    Start(NameArguments),
    /// Kill machines, and boot them from their own disks at other addresses of the network, as by a lease that ended
    Move(NameArguments),
    /// Kill each control plane in turn, see that kubectl works everywhere else and for how long the API was away, and start it again
    Failover(FailoverArguments),
    /// Take the power of all machines away, give it back, and measure until the site is whole again
    Outage(OutageArguments),
    /// Take the power of all control planes but one away for good, go on with that one by `muster recover`, and measure
    Recover(RecoverArguments),
    /// Random faults, one round after the other, while a writer appends: the site must be whole after each, and nothing be lost
    Chaos(ChaosArguments),
    /// Unplug a machine's network
    Cut(NameArguments),
    /// Plug every machine's network in again
    Heal,
    /// Stop every machine and remove all that `up` made, also after a crash; doing it twice is no error
    Down,
    /// Form a cluster by hand, then one by muster, and compare the times
    Compare(FormArguments),
    /// Start a pod on every machine and use them: each pair, a Service by its name, a NodePort, and again after kube-proxy restarts
    Check,
    /// Run kubeadm's own acceptance tests against the cluster, or Kubernetes' tests that --focus names
    Conformance(ConformanceArguments),
    /// Every version with one and three control planes: formed, used, still whole later, taken down; a table with times
    Matrix(MatrixArguments),
}

#[derive(Args)]
pub(crate) struct NameArguments {
    /// Names as `status` prints them
    #[arg(required = true, value_name = "MACHINE")]
    pub(crate) machines: Vec<String>,
}

#[derive(Args)]
pub(crate) struct ConformanceArguments {
    /// Which of Kubernetes' own tests, by ginkgo's regular expression: '\\[sig-auth\\].*\\[Conformance\\]'; without it kubeadm's
    #[arg(long, value_name = "REGEX")]
    pub(crate) focus: Option<String>,
}

#[derive(Args)]
pub(crate) struct MatrixArguments {
    /// The versions, as for `up`
    #[arg(long, value_delimiter = ',', default_value = "1.34,1.35,1.36,1.37", value_name = "VERSION,...")]
    pub(crate) kubernetes: Vec<String>,
    /// The numbers of control planes
    #[arg(long, value_delimiter = ',', default_value = "1,3", value_parser = clap::value_parser!(u8).range(1..=9), value_name = "N,...")]
    pub(crate) control_planes: Vec<u8>,
    /// Workers beside them
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=50))]
    pub(crate) workers: u8,
    /// One of the workers has this older Kubernetes
    #[arg(long, value_name = "VERSION|DIR")]
    pub(crate) older_kubernetes: Option<String>,
    /// How long the cluster is left alone before it is looked at again
    #[arg(long, default_value = "120", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) later: Duration,
    /// Give a cluster up when it has not formed this many seconds after the last machine was started
    #[arg(long, default_value = "600", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) timeout: Duration,
    /// A muster binary to use instead of building one from this checkout
    #[arg(long, env = "MUSTER_TESTBED_BINARY", value_name = "FILE")]
    pub(crate) muster: Option<PathBuf>,
}

/// What a control plane loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Its power: nobody closes its connections
    Power,
    /// Its cable: it runs on, and hears nobody
    Cable,
    /// Its API server alone, killed: its etcd and its kubelet run on
    ApiServer,
    /// Its etcd alone, killed: its API server runs on, and can answer nothing
    Etcd,
}

impl What {
    /// The static Pod that is taken away, if it is one.
    pub(crate) fn pod(self) -> Option<&'static str> {
        match self {
            What::ApiServer => Some("kube-apiserver"),
            What::Etcd => Some("etcd"),
            What::Power | What::Cable => None,
        }
    }

    /// As people say it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            What::Power => "power",
            What::Cable => "cable",
            What::ApiServer => "API server",
            What::Etcd => "etcd",
        }
    }
}

#[derive(Args)]
pub(crate) struct FailoverArguments {
    /// How long kubectl may fail after a loss, and how long the machine may take to be back
    #[arg(long, default_value = "120", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) timeout: Duration,
    /// How long kubectl must then work without one failure
    #[arg(long, default_value = "20", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) steady: Duration,
    /// How often each control plane is lost
    #[arg(long, default_value = "1", value_name = "COUNT")]
    pub(crate) rounds: u32,
    /// What each control plane loses
    #[arg(long, value_enum, default_value = "power")]
    pub(crate) what: What,
    /// Give each back with an empty disk: it must come back in its own place; clients are watched until it has
    #[arg(long, conflicts_with = "what")]
    pub(crate) wipe: bool,
}

#[derive(Args)]
pub(crate) struct OutageArguments {
    /// How often
    #[arg(long, default_value = "1", value_name = "COUNT")]
    pub(crate) rounds: u32,
    /// Give one control plane its power back so long before all others
    #[arg(long, default_value = "0", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) alone: Duration,
    /// Give all of them addresses of another network while they are off
    #[arg(long)]
    pub(crate) elsewhere: bool,
    /// Keep all of them off for so long: with `up --certificates`, until their certificates are over
    #[arg(long, default_value = "0", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) off: Duration,
}

#[derive(Args)]
pub(crate) struct RecoverArguments {
    /// How often
    #[arg(long, default_value = "1", value_name = "COUNT")]
    pub(crate) rounds: u32,
    /// The one that is left starts again before it is asked: its etcd then answers nobody
    #[arg(long)]
    pub(crate) reboot: bool,
    /// The others come back with their disks, all at once, and not with empty ones
    #[arg(long)]
    pub(crate) old: bool,
}

const CHAOS_HELP: &str = "\
The faults follow from the seed: power (of one machine, or of all), an empty disk, the cable, packets lost, the agent (killed, restarted,
stopped), the API server, etcd and the kubelet killed, a disk that takes no more writes of muster's. Each round has up to three of them at
once, at most one empty disk among them. After each all machines are Ready again, of the same cluster, and every write that was
acknowledged is there. The machines share the host's clock, so that is not set; and no machine is given another address.

Exit code 1 if not: what each machine says is then kept beside the testbed's disks, and the command that repeats the faults is printed.";

#[derive(Args)]
#[command(after_help = CHAOS_HELP)]
pub(crate) struct ChaosArguments {
    /// Which faults [default: another one each time]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// No round begins after this many minutes
    #[arg(long, default_value_t = 10, value_name = "MINUTES")]
    pub(crate) minutes: u64,
    /// How long the site may take to be whole again after a round
    #[arg(long, default_value = "300", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) timeout: Duration,
    /// Only these faults
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FAULT,...")]
    pub(crate) only: Vec<Sort>,
}

#[derive(Args)]
pub(crate) struct BuildArguments {
    /// Which Kubernetes, as for `up`
    #[arg(long, default_value = "1.37", value_name = "VERSION|DIR")]
    pub(crate) kubernetes: String,
    /// Build nothing but kubeadm, of every version, for the test that compares the rehearsal with it
    #[arg(long, conflicts_with = "muster")]
    pub(crate) kubeadms: bool,
    /// Build no machine, and lay what was built out here, as `muster image build --kubernetes` takes it
    #[arg(long, value_name = "DIR", conflicts_with_all = ["muster", "kubeadms"])]
    pub(crate) lay_out: Option<PathBuf>,
    /// A muster binary to use instead of building one from this checkout
    #[arg(long, env = "MUSTER_TESTBED_BINARY", value_name = "FILE")]
    pub(crate) muster: Option<PathBuf>,
}

impl FormArguments {
    /// Nothing but what `up` takes when it is told nothing.
    pub(crate) fn plain(timeout: Duration) -> Self {
        Self {
            machines: 1,
            kubernetes: String::new(),
            older: 0,
            older_kubernetes: String::new(),
            control_planes: 1,
            timeout,
            stagger: Duration::ZERO,
            loss: 0,
            delay: None,
            rate: None,
            cluster: "testbed".to_owned(),
            prefix: "m".to_owned(),
            hostname: None,
            certificates: None,
            subnet: None,
            muster: None,
            bare: false,
            without_muster: false,
            by_hand: false,
        }
    }

    /// The release of the machines that `--older` counts.
    pub(crate) fn older_release(&self) -> Result<Option<Release>> {
        if self.older == 0 {
            return Ok(None);
        }
        if self.older > self.machines - self.control_planes.min(self.machines) {
            bail!(
                "--older {}: only workers may be older, and there are {} machines with {} control planes",
                self.older,
                self.machines,
                self.control_planes
            );
        }
        Release::read(&self.older_kubernetes).map(Some)
    }
}

/// How many machines, and under which conditions they form a cluster.
#[derive(Args, Clone)]
pub(crate) struct FormArguments {
    /// Machines in all
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=200))]
    pub(crate) machines: u8,
    /// Which Kubernetes: 1.34 to 1.37 or a whole version, which is built here once, or a directory of binaries
    #[arg(long, default_value = "1.37", value_name = "VERSION|DIR")]
    pub(crate) kubernetes: String,
    /// So many machines have an older Kubernetes in their image: they can only be workers
    #[arg(long, default_value_t = 0, value_name = "MACHINES")]
    pub(crate) older: u8,
    /// What those have
    #[arg(long, default_value = "1.36", value_name = "VERSION|DIR")]
    pub(crate) older_kubernetes: String,
    /// How many of them become control planes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub(crate) control_planes: u8,
    /// Give up when the cluster has not formed this many seconds after the last machine was started
    #[arg(long, default_value = "600", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) timeout: Duration,
    /// Start one machine this many seconds after the other
    #[arg(long, default_value = "0", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) stagger: Duration,
    /// What kubeadm and the controller manager sign lasts so long, and not a year; with kubeadm 1.31 or later
    #[arg(long, value_parser = seconds, value_name = "SECONDS")]
    pub(crate) certificates: Option<Duration>,
    /// Drop this share of the packets each machine receives from the others
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=90), value_name = "PERCENT")]
    pub(crate) loss: u8,
    /// Delay each packet a machine sends; needs a kernel with netem
    #[arg(long, value_name = "MILLISECONDS")]
    pub(crate) delay: Option<u32>,
    /// Let no more than this through each machine's cable, in either direction
    #[arg(long, value_name = "KILOBITS", value_parser = clap::value_parser!(u32).range(64..))]
    pub(crate) rate: Option<u32>,
    /// The cluster's name in muster.toml
    #[arg(long, default_value = "testbed", value_parser = label)]
    pub(crate) cluster: String,
    /// Machines are named PREFIX1, PREFIX2, ...
    #[arg(long, default_value = "m", value_name = "PREFIX", value_parser = label)]
    pub(crate) prefix: String,
    /// One hostname for all of them instead of a name each, such as `localhost`
    #[arg(long, value_name = "HOSTNAME", value_parser = label)]
    pub(crate) hostname: Option<String>,
    /// The machines' network, a /24 of which the host takes .1; by default a free one in 10.199.0.0/16
    #[arg(long, value_name = "A.B.C.0/24")]
    pub(crate) subnet: Option<String>,
    /// A muster binary to use instead of building one from this checkout
    #[arg(long, env = "MUSTER_TESTBED_BINARY", value_name = "FILE")]
    pub(crate) muster: Option<PathBuf>,
    /// Leave out kube-proxy, CoreDNS and the pod network: each machine has a network of its own for its Pods, from a file
    #[arg(long)]
    pub(crate) bare: bool,
    /// Boot the machines without muster and return when they have booted
    #[arg(long)]
    pub(crate) without_muster: bool,
    /// Form the cluster as a careful human does, without muster: init, read the token, join one after the other
    #[arg(long, conflicts_with = "without_muster")]
    pub(crate) by_hand: bool,
}

impl FormArguments {
    /// Whether muster starts on the machines.
    pub(crate) fn with_muster(&self) -> bool {
        !self.without_muster && !self.by_hand
    }
}

/// A name that may stand in a host name.
fn label(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > 40 || !text.chars().all(fits) || text.starts_with('-') || text.ends_with('-') {
        return Err("use 1 to 40 small letters, digits and dashes".to_owned());
    }
    Ok(text.to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is not a number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
