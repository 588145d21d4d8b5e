//! The command line.

mod backup;
mod image;
mod machine;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

pub(crate) use backup::{BackupAction, BackupFetchArguments, BackupListArguments, BackupOpenArguments};
pub(crate) use image::{BootArguments, BuildArguments, ImageAction, KernelWord, OutputWord};
pub(crate) use machine::{ConfirmArguments, HealthyArguments, InstallArguments, UpdateArguments, WipeWord};

const EXAMPLES: &str = "\
A first cluster, on this computer, as an ordinary user, with nothing installed:
  muster lab

An image of your own:
  muster config example --cluster site --machines 5 > muster.toml   # goes to /etc/muster/muster.toml
  muster config check muster.toml
  muster run                                                        # the image's systemd unit does this

Looking into a machine:
  muster status            who is here, who leads, what is waited for
  muster explain           why nothing seems to happen, and for whom it waits
  muster logs --follow     what it does

Machines come and go:
  muster remove NAME         take a machine out of the cluster
  muster reset --rejoin      recreate this machine
  muster recover             a majority of the control planes is gone for good: go on with this one

Images:
  muster image build         a disk for every machine, of this muster.toml and a Kubernetes
  muster image boot FILE     see it become a cluster, in virtual machines
  muster image accept FILE   let machines with this muster.toml join as well

Exit codes: 0 done; 1 failed, or not everything is Ready; 2 wrong usage or configuration; 3 no agent answers;
130 ended by Ctrl-C.";

/// Machines that boot one image become one Kubernetes cluster by themselves.
#[derive(Parser, Debug)]
#[command(name = "muster", bin_name = "muster", version, about, after_help = EXAMPLES, max_term_width = 110, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Be one machine of the cluster: find the others, found or join, and stay
    Run(RunArguments),
    /// Form a whole cluster on this computer, with a rehearsal kubeadm
    Lab(Box<LabArguments>),
    /// Show a machine: its phase, the charter, the leader, the others, what is waited for
    Status(StatusArguments),
    /// Say why nothing seems to happen, and which machines are waited for
    Explain(ExplainArguments),
    /// Print what a machine does
    Logs(LogsArguments),
    /// Gather what every machine that answers has to say in one archive, for a bug report
    Bundle(BundleArguments),
    /// Take a machine out of the cluster for good: drained, out of etcd, its Node deleted
    Remove(RemoveArguments),
    /// Take this machine out of the cluster, and undo what Kubernetes has on it
    Reset(ResetArguments),
    /// The other control planes are gone for good: rebuild the cluster from what this one has
    Recover(RecoverArguments),
    /// List backups of etcd, fetch one, and open one
    Backup {
        #[command(subcommand)]
        action: BackupAction,
    },
    /// Make a cluster of its own of one etcd member's data: a part of `muster recover`, which calls it
    Salvage(SalvageArguments),
    /// Build a disk image, look into one, boot one; accept a later image, and list who runs which
    Image {
        #[command(subcommand)]
        action: ImageAction,
    },
    /// Say whether the kubelet may start, and see to etcd's manifest: the kubelet's unit runs this first
    Guard(GuardArguments),
    /// This machine's way to the cluster's API: the agent has systemd run it
    #[command(hide = true)]
    Endpoint(EndpointArguments),
    /// Check, show or begin a muster.toml
    Config {
        #[command(subcommand)]
        action: ConfigAction,
    },
    /// Print a completion script: source <(muster completions bash)
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages: muster.1, and one for each command
    Man {
        /// Where to; the first page is printed if nothing is said
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
    /// Print muster's version and those of its protocol and of the Kubernetes it knows
    Version {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

const RUN_EXAMPLES: &str = "\
What holds: a flag, else a credential muster.toml (of the hypervisor or the firmware), else the kernel command line (muster.peers=,
muster.listen=, muster.name=, ...), else the muster.toml of a volume labelled MUSTER, else the image's. `muster config show` says
whose each value is.

Examples:
  muster run
  muster run --peers 10.0.0.1,10.0.0.2 --listen 10.0.0.3:7390
  muster run --set kubernetes.version=v1.31.4";

#[derive(Args, Debug)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct RunArguments {
    /// The configuration
    #[arg(long, short, env = "MUSTER_CONFIG", default_value = crate::config::DEFAULT_PATH, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// This machine's name, instead of its host name
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Where this machine listens for the others
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<String>,
    /// Addresses where others may be, instead of discovery.peers
    #[arg(long, value_name = "ADDRESS,...")]
    pub(crate) peers: Option<String>,
    /// Whether to look for others by mDNS
    #[arg(long, value_name = "true|false")]
    pub(crate) mdns: Option<String>,
    /// Override any key of muster.toml; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Put everything that this machine writes below this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// What to log: error, warn, info, debug, trace, or tracing's filter language
    #[arg(long, env = "MUSTER_LOG", default_value = "info", value_name = "FILTER")]
    pub(crate) log: String,
    /// Record what the machine is given and does in this directory, for muster-sim replay; no secret is in it
    #[arg(long, value_name = "DIR")]
    pub(crate) record: Option<PathBuf>,
    /// Stop when the process that started this one ends
    #[arg(long, hide = true)]
    pub(crate) stop_with_parent: bool,
}

/// What the agent gives its endpoint.
#[derive(Args, Debug)]
pub(crate) struct EndpointArguments {
    /// Where it listens
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: std::net::SocketAddr,
    /// Where the cluster's CA will be
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: PathBuf,
    /// Where its socket is made
    #[arg(long, value_name = "DIR")]
    pub(crate) run_dir: PathBuf,
    /// Where it keeps what it was told
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: PathBuf,
}

const GUARD_HELP: &str = "\
etcd that starts on an empty directory begins a new cluster, or breaks its word to the old one. So it may begin once: what it has
begun is in its directory from then on, or the kubelet does not start (exit code 1), and says why. Once it is, etcd's manifest is made
to say `existing`, with all members that it ever named.

Where etcd has data and no kubelet was started since the machine was switched on, the machine's agent is asked first, for 75 seconds at a time:
the disk may be from before a recovery, and two such members together are the old cluster again. The kubelet starts when this machine has
met others of its cluster and has heard of none that goes on without it. An agent that has not answered for a minute is not waited for.
Where nobody else is left, `--alone` starts it as it is, until the next boot: only if the other control planes are gone or are to be
given up.

What was seen is kept in /etc/kubernetes/muster-etcd.json, for one etcd CA alone. `kubeadm reset` by hand leaves that: it hinders only who puts
the same etcd CA back, and may then be removed.

Examples:
  muster guard              what the kubelet's unit runs (ExecStartPre, see kubelet.service.d/20-muster.conf)
  muster guard --dry-run    says what it would do, and waits for nothing
  muster guard --alone      let it start although nobody was met";

#[derive(Args, Debug)]
#[command(after_help = GUARD_HELP)]
pub(crate) struct GuardArguments {
    /// Look at the machine whose root this is
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
    /// Write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Let the kubelet start although no other machine was met since this one was switched on
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) alone: bool,
    /// The agent's socket
    #[arg(long, env = "MUSTER_SOCKET", default_value = crate::api::DEFAULT_SOCKET, value_name = "PATH")]
    pub(crate) socket: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const LAB_EXAMPLES: &str = "\
The machines are processes of the real agent, each with a loopback address and a directory of its own. kubeadm is a
rehearsal: it has kubeadm's command line and documents, certificates and tokens are real, but no container starts.
Everything is removed when the lab ends. Two labs do not disturb each other.

Examples:
  muster lab                                      five machines, three of them control planes; Ctrl-C ends it
  muster lab --machines 9 --control-planes 5
  muster lab --once --json                        form, report, stop; for programs
  muster lab --pace 1                             kubeadm takes as long as the real one
  muster lab --fault lab-2=hang:etcd              kubeadm hangs on one machine
  muster status --machine lab-3                   in another terminal, while a lab runs";

#[derive(Args, Debug)]
#[command(after_help = LAB_EXAMPLES)]
pub(crate) struct LabArguments {
    /// Machines in all
    #[arg(long, short = 'n', default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=100), value_name = "N")]
    pub(crate) machines: u8,
    /// How many of them become control planes [default: 3, or 1 of fewer than 3 machines]
    #[arg(long, short = 'c', value_parser = clap::value_parser!(u8).range(1..=9), value_name = "C")]
    pub(crate) control_planes: Option<u8>,
    /// Form, report, stop; exit code 0 only if every machine is Ready
    #[arg(long)]
    pub(crate) once: bool,
    /// Keep the machines' directories and logs when the lab ends
    #[arg(long)]
    pub(crate) keep: bool,
    /// Print one JSON event a line; the last one is {"ready": ..., "seconds": ..., "machines": [...]}
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the lab lives, instead of a directory of its own in the temporary directory; empty or not there yet
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Give up when not every machine is Ready after this many seconds; 0 never
    #[arg(long, default_value = "300", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) timeout: Duration,
    /// How long the rehearsal kubeadm takes: 0 no time, 1 about as long as the real one
    #[arg(long, default_value_t = 0.0, value_parser = pace, value_name = "X")]
    pub(crate) pace: f64,
    /// What goes wrong with a machine's kubeadm: hang, fail, lie, nonsense or die at a phase, or hang-once and so on; may be repeated
    #[arg(long, value_parser = fault, value_name = "MACHINE=WHAT:PHASE")]
    pub(crate) fault: Vec<Fault>,
    /// A file or directory of manifests, as for kubernetes.manifests in muster.toml; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) manifests: Vec<PathBuf>,
    /// Start one machine this many seconds after the other
    #[arg(long, default_value = "0", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) stagger: Duration,
    /// While forming, kill -9 this many agents at random moments and start them again
    #[arg(long, default_value_t = 0, value_name = "TIMES")]
    pub(crate) kill_random: u32,
    /// Seed of the random moments; drawn and printed when not given
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// Record every machine in this directory, as `muster run` does
    #[arg(long, value_name = "DIR")]
    pub(crate) record: Option<PathBuf>,
    /// What the machines log, as for `muster run`
    #[arg(long, default_value = "info", value_name = "FILTER")]
    pub(crate) log: String,
}

/// One machine's fault, passed to its rehearsal kubeadm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The machine's name.
    pub(crate) machine: String,
    /// What happens, in the rehearsal's words: `hang:etcd`.
    pub(crate) what: String,
}

/// Whose agent is asked.
#[derive(Args, Debug)]
pub(crate) struct Whom {
    /// The agent's socket
    #[arg(long, env = "MUSTER_SOCKET", default_value = crate::api::DEFAULT_SOCKET, value_name = "PATH")]
    pub(crate) socket: PathBuf,
    /// A machine of the lab that runs on this computer: lab-1, lab-2, ...
    #[arg(long, conflicts_with = "socket", value_name = "NAME")]
    pub(crate) machine: Option<String>,
    /// The directory of the lab, when several run
    #[arg(long, conflicts_with = "socket", value_name = "DIR")]
    pub(crate) lab: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(after_help = "Exit code 0 if the machine is Ready, 1 if it is not yet, 3 if no agent answers.")]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    pub(crate) whom: Whom,
    /// Print the machine's answer as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Go on showing changes until Ctrl-C
    #[arg(long, short)]
    pub(crate) watch: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ExplainArguments {
    #[command(flatten)]
    pub(crate) whom: Whom,
    /// Print the reasons as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct LogsArguments {
    #[command(flatten)]
    pub(crate) whom: Whom,
    /// Go on printing what is added
    #[arg(long, short)]
    pub(crate) follow: bool,
}

const BUNDLE_HELP: &str = "\
Every machine that this one is connected to is asked over the mesh for what it knows, for its events and logs, and for the ends of its journals and of the control
plane's logs. Private keys, tokens, passwords and what looks like one are taken out on the machine that they are on. Nothing leaves this
machine by itself: you send the file to whom you like. Where no agent runs, what is on this machine's disk is taken.

Examples:
  muster bundle                        muster-bundle-SECONDS.tar.gz in this directory
  muster bundle --out report.tar.gz
  muster bundle --only-this            nobody else is asked

Exit code 0 if it was written, whoever answered; the archive's bundle.json says who did not, and why.";

#[derive(Args, Debug)]
#[command(after_help = BUNDLE_HELP)]
pub(crate) struct BundleArguments {
    #[command(flatten)]
    pub(crate) whom: Whom,
    /// The archive, which must not be there yet
    #[arg(long, short, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Ask no other machine
    #[arg(long)]
    pub(crate) only_this: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const REMOVE_HELP: &str = "\
What happens, in this order: the machine's Node is closed, and what runs on it is moved away, as `kubectl drain` does it (budgets are
respected; a Pod that belongs to nobody is gone for good). A control plane leaves etcd, and is taken out only while a majority of the others
answers. Its Node is deleted, and with it its place in the ledger, its ticket and its token: this identity never returns. The machine
undoes what Kubernetes has on it and stays out. One that does not answer is not drained; when it comes back it does the rest.

What holds it up is told, with the Pod and the budget, and tried again; `--withdraw` ends that.

Examples:
  muster remove m4 --dry-run      what would happen
  muster remove m4                asks first; --yes does not
  muster remove m4 --withdraw     let it stay after all

Exit code 0 if it is removed, 1 if that is refused or not so in time (it goes on all the same), 2 if there is no such machine, 3 if no agent
answers.";

#[derive(Args, Debug)]
#[command(after_help = REMOVE_HELP)]
pub(crate) struct RemoveArguments {
    /// Its Node's name, or its identity (m-4f2a91c0, or all of it)
    pub(crate) name: String,
    /// Let it stay after all
    #[arg(long)]
    pub(crate) withdraw: bool,
    #[command(flatten)]
    pub(crate) how: HowArguments,
}

const RESET_HELP: &str = "\
As `muster remove` of this very machine: it is drained, leaves etcd, and undoes what Kubernetes has on it. With --rejoin it then comes back as a
new machine, with a new identity, and joins anew: how a machine is recreated. A machine that was removed comes back by --rejoin as well.

Where it would cost the cluster its majority, it is refused. A machine that belongs to no cluster has nothing to leave.

Examples:
  muster reset --dry-run
  muster reset                    leaves for good
  muster reset --rejoin --yes     is recreated

Exit code 0 if it has left (with --rejoin: is another machine), 1 if that is refused or not so in time, 3 if no agent answers.";

#[derive(Args, Debug)]
#[command(after_help = RESET_HELP)]
pub(crate) struct ResetArguments {
    /// Come back at once as a new machine
    #[arg(long)]
    pub(crate) rejoin: bool,
    #[command(flatten)]
    pub(crate) how: HowArguments,
}

const RECOVER_HELP: &str = "\
Where a majority of the control planes is gone nothing can be written any more, and no machine can know whether they come back. You can. Called on a
control plane that is left, this begins the cluster anew from what that one has: etcd with all that its own log holds, and the ledger, in which it is
the only control plane from then on. Workers go on as they are. Machines that come later take the free seats; whoever was lost and comes back undoes
what it has, and joins as a new machine.

It is refused while another control plane is seen, or while a majority is. Of several that are left choose the one that knows most, and switch the
others off: the last lines of `muster logs` after the fact say where its log ended, `etcdutl snapshot status` compares before.

What may be lost: what was written in the last moments before the others went, and reached only them. etcd's data as it was stays beside the new one,
in member-before-epoch-N. etcdutl is needed, in etcd's image or on the machine.

Examples:
  muster recover --dry-run     what it would do, and whether it would be refused
  muster recover               asks, and does it
  muster recover --yes --json

Exit code 0 if the cluster is rebuilt, 1 if that is refused or not so in time, 2 if nobody could be asked, 3 if no agent answers.";

#[derive(Args, Debug)]
#[command(after_help = RECOVER_HELP)]
pub(crate) struct RecoverArguments {
    /// Begin with a backup in place of what this machine has: its number in `muster backup list`, or a file that `muster backup fetch` wrote
    #[arg(long, value_name = "NUMBER|FILE")]
    pub(crate) from: Option<String>,
    #[command(flatten)]
    pub(crate) how: HowArguments,
}

const SALVAGE_HELP: &str = "\
The kubelet and etcd stop, etcd's data is copied, the commit of the copy's log is raised to its end, and a cluster of one member is begun from it, with
another token and revisions far above the last. The data that was there stays in member-before-epoch-N. Then the kubelet starts. Safe to repeat.

`muster recover` does this and what belongs to it: by hand the lost members could come back and be the old cluster again.

Example:
  muster salvage --data-dir /var/lib/etcd --name m1 --peer-url https://10.0.0.1:2380 --token site-2 --epoch 2

Exit code 0 if it is done, 1 if not.";

#[derive(Args, Debug)]
#[command(after_help = SALVAGE_HELP)]
pub(crate) struct SalvageArguments {
    /// etcd's data directory
    #[arg(long, value_name = "DIR", default_value = "/var/lib/etcd")]
    pub(crate) data_dir: PathBuf,
    /// The member's name
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,
    /// Where its peers find it
    #[arg(long, value_name = "URL")]
    pub(crate) peer_url: String,
    /// The token of the new cluster: one that none before it had
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: String,
    /// A number in the names of what is kept aside
    #[arg(long, value_name = "N")]
    pub(crate) epoch: u32,
    /// Begin with this backup in place of the data: the digest of the sealed file
    #[arg(long, value_name = "DIGEST", requires_all = ["backups", "key"])]
    pub(crate) backup: Option<String>,
    /// Where sealed backups are
    #[arg(long, value_name = "DIR")]
    pub(crate) backups: Option<PathBuf>,
    /// The key of etcd's CA, with which they open
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
}

/// How a machine is taken out.
#[derive(Args, Debug)]
pub(crate) struct HowArguments {
    /// Say what would happen, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Return as soon as it is in the ledger
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Wait so many seconds for it
    #[arg(long, default_value = "900", value_parser = seconds, value_name = "SECONDS")]
    pub(crate) timeout: Duration,
    /// Print one JSON object a line, the last one with the outcome
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) whom: Whom,
}

#[derive(Subcommand, Debug)]
pub(crate) enum ConfigAction {
    /// Check a configuration: every mistake with its line, exit code 2 if there is one
    Check {
        /// It is of a volume or a credential: what is one machine's own, beside the image's
        #[arg(long, conflicts_with = "set")]
        beside: bool,
        /// The configuration
        #[arg(env = "MUSTER_CONFIG", default_value = crate::config::DEFAULT_PATH)]
        file: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        /// Override any key, as for `muster run`
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
    /// Show every value that holds on this machine, and where it comes from
    Show {
        /// The configuration
        #[arg(env = "MUSTER_CONFIG", default_value = crate::config::DEFAULT_PATH)]
        file: PathBuf,
        /// Override any key, as for `muster run`
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
    /// Print a muster.toml to begin with, with a fresh mesh key
    Example {
        /// The cluster's name
        #[arg(long, default_value = "site")]
        cluster: String,
        /// How many machines carry the image
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        machines: u32,
        /// How many become control planes
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
        control_planes: u32,
    },
    /// Take the muster.toml of a volume labelled MUSTER for this machine: a unit of the image runs this before the agent starts
    #[command(after_help = VOLUMES_HELP)]
    Volumes {
        /// Start muster.service anew if it runs with something else
        #[arg(long)]
        restart: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

const VOLUMES_HELP: &str = "\
A volume is a file system of a stick, a disk or a partition: vfat, ext4, exfat or iso9660. Its muster.toml need only hold what is this machine's
own, and it may name the machine: `name = \"left\"`. It holds as long as the volume is there when the machine starts. The EFI system
partition of a disk that muster built has the label, too; a volume that was brought comes before it. Of two that say different things neither is
taken, and the agent does not start until one is gone.

Exit code 0 if there is one or none, 2 if there are two, or it cannot be read.";

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is not a number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("`{text}` is not a number of seconds"))
}

fn pace(text: &str) -> Result<f64, String> {
    let pace: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    if (0.0..=100.0).contains(&pace) { Ok(pace) } else { Err("the pace must be from 0 to 100".to_owned()) }
}

/// What the rehearsal kubeadm can be told to do wrong at a phase.
const FAULTS: [&str; 5] = ["hang", "fail", "lie", "nonsense", "die"];

fn fault(text: &str) -> Result<Fault, String> {
    let form = || {
        format!(
            "must be MACHINE=WHAT:PHASE, such as lab-2=hang:etcd, where WHAT is {}, each also with -once; or MACHINE=too-old",
            FAULTS.join(", ")
        )
    };
    let (machine, what) = text.split_once('=').ok_or_else(form)?;
    let known = what == "too-old"
        || what.split_once(':').is_some_and(|(what, phase)| {
            FAULTS.contains(&what.strip_suffix("-once").unwrap_or(what)) && !phase.is_empty()
        });
    if known { Ok(Fault { machine: machine.to_owned(), what: what.to_owned() }) } else { Err(form()) }
}
