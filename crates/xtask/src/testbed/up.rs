//! `up` and `down`: a testbed from nothing to a cluster, and back to nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::json;

use super::arguments::FormArguments;
use super::kubernetes::{Cluster, kubectl_line, missing_nodes};
use super::layout::{Images, Paths, Testbed};
use super::machine::Machine;
use super::network;
use super::report::{Report, cannot_provision, round};
use super::{build, by_hand, release};
use crate::command::{output, run};
use crate::interrupt;

/// What makes the kubelet ask muster before it starts.
const KUBELET_DROP_IN: &str = include_str!("../../../cli/dist/kubelet.service.d/20-muster.conf");

/// How often the cluster is looked at while it forms. Each look is a kubectl, which costs some 0.1 s of a processor that
/// the machines need as well.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The pods' network.
pub(crate) const POD_SUBNET: &str = "10.244.0.0/16";
/// How long a machine may take to boot.
const BOOT_TIMEOUT: Duration = Duration::from_secs(120);

/// Builds what is missing, boots the machines, and returns when they are one cluster.
pub(crate) fn up(paths: &Paths, form: &FormArguments, report: &Report) -> Result<()> {
    Testbed::must_not_exist(paths)?;
    let images = Images::build(paths, form, report)?;
    let muster = if form.with_muster() { Some(build::muster_binary(form.muster.clone())?) } else { None };
    let testbed = Testbed::create(paths, &images, form, report)?;
    let outcome = form_cluster(&testbed, form, muster.as_deref(), report);
    if interrupt::requested() {
        report.step("interrupted: taking the testbed down");
        down(paths, report)?;
    }
    outcome
}

/// Boots the machines and waits for the cluster.
fn form_cluster(testbed: &Testbed, form: &FormArguments, muster: Option<&Path>, report: &Report) -> Result<()> {
    boot(testbed, form, muster, report)?;
    if form.by_hand {
        by_hand::form(testbed, report).context("by hand")?;
    }
    if form.without_muster {
        report.result(&json!({ "booted": true }), "Booted, without muster. `cargo xtask testbed down` removes it.");
        return Ok(());
    }
    let formed = wait_until_formed(testbed, form.timeout, report)?;
    let kubeconfig = testbed.state.join("kubeconfig");
    let names: Vec<&str> = testbed.machines.iter().map(|machine| machine.name.as_str()).collect();
    report.result(
        &json!({ "ready": true, "seconds": round(formed.ready), "whole_seconds": round(formed.whole), "machines": names, "kubeconfig": kubeconfig }),
        format!(
            "Ready: {} machines, {} control planes, {:.1} s after the last machine had booted (etcd whole: {:.1} s).\n\
             Look inside: {}",
            names.len(),
            testbed.control_planes,
            formed.ready,
            formed.whole,
            kubectl_line(&testbed.kubectl, &kubeconfig)
        ),
    );
    Ok(())
}

/// Makes the testbed's network and layer, and boots every machine.
pub(crate) fn boot(testbed: &Testbed, form: &FormArguments, muster: Option<&Path>, report: &Report) -> Result<()> {
    make_layer(testbed, muster)?;
    allow_watches(testbed.machines.len())?;
    network::make_bridge(testbed)?;
    report.step(format!("booting {} machines on {} ({}/24)", form.machines, testbed.bridge(), testbed.host_address));
    for (number, machine) in testbed.machines.iter().enumerate() {
        if number > 0 {
            interrupt::sleep(form.stagger)?;
        }
        machine.start().with_context(|| format!("machine {}", machine.name))?;
    }
    let started = Instant::now();
    for machine in &testbed.machines {
        while machine.booted_at().is_none() {
            if started.elapsed() > BOOT_TIMEOUT {
                let console = machine.directory.join("console.log");
                return Err(cannot_provision(format!("{} does not boot; see {}", machine.name, console.display())));
            }
            interrupt::sleep(Duration::from_millis(50))?;
        }
    }
    report.step("all machines have booted");
    Ok(())
}

/// Raises the host's limit on file watches, which all machines share, if it is too low for so many; it stays raised.
fn allow_watches(machines: usize) -> Result<()> {
    const PATH: &str = "/proc/sys/fs/inotify/max_user_instances";
    // Counted: 14 a machine with systemd, containerd, kubelet and their pods, and some for the host and its other testbeds.
    let wanted = 256 + 32 * machines;
    let now: usize = fs::read_to_string(PATH)?.trim().parse().context("the kernel's limit on file watches")?;
    if now < wanted {
        fs::write(PATH, wanted.to_string()).with_context(|| format!("cannot write {PATH}"))?;
    }
    Ok(())
}

/// Writes what the image of this testbed has besides the shared image: muster and its configuration, for all the same.
fn make_layer(testbed: &Testbed, muster: Option<&Path>) -> Result<()> {
    let layer = testbed.state.join("layer");
    let configuration = layer.join("etc/muster");
    fs::create_dir_all(&configuration)?;
    if let Some(muster) = muster {
        fs::create_dir_all(layer.join("usr/bin"))?;
        fs::copy(muster, layer.join("usr/bin/muster")).context("cannot copy the muster binary")?;
        let drop_in = layer.join("etc/systemd/system/kubelet.service.d");
        fs::create_dir_all(&drop_in)?;
        fs::write(drop_in.join("20-muster.conf"), KUBELET_DROP_IN)?;
    }
    let mut key = [0_u8; 32];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut key)?;
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = configuration.join("muster.toml");
    fs::write(
        &path,
        format!(
            "cluster = \"{}\"\nmachines = {}\ncontrol_planes = {}\nmesh_key = \"{key}\"\n\n\
             [discovery]\nmdns = true\n\n\
             [kubernetes]\nversion = \"{}\"\npod_subnet = \"{POD_SUBNET}\"\n\
             documents = [\"/etc/muster/kubeadm.yaml\", \"/etc/muster/container-images.yaml\"]\n\
             ignore_preflight = [\"all\"]\n{}",
            testbed.cluster,
            testbed.machines.len(),
            testbed.control_planes,
            testbed.kubernetes,
            if testbed.bare { "skip_phases = [\"addon\"]\n" } else { "manifests = [\"/etc/muster/manifests\"]\n" },
        ),
    )?;
    fs::write(configuration.join("container-images.yaml"), &testbed.container_images)?;
    if testbed.bare {
        let networks = layer.join("etc/cni/net.d");
        fs::create_dir_all(&networks)?;
        fs::write(networks.join("10-bare.conflist"), BARE_NETWORK)?;
    } else {
        fs::create_dir_all(configuration.join("manifests"))?;
        fs::write(configuration.join("manifests/flannel.yaml"), pod_network(testbed)?)?;
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

/// A bridge on each machine, from where nothing leads to Pods of another.
const BARE_NETWORK: &str = r#"{"cniVersion": "1.0.0", "name": "bare", "plugins": [{"type": "bridge", "bridge": "cni0",
"isGateway": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]]}}]}
"#;

/// The pod network: the documentation's own example, for this cluster.
pub(crate) fn pod_network(testbed: &Testbed) -> Result<String> {
    let path = Paths::checkout().join("docs/examples/flannel.yaml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let image = format!("localhost/flannel:{}", release::flannel_tag()?);
    let changes = [
        ("api.site.muster", testbed.endpoint_name.as_str()),
        ("\"7443\"", &format!("\"{}\"", testbed.endpoint_port)),
        ("registry.example/flannel:v0.27.4", &image),
        ("10.244.0.0/16", POD_SUBNET),
    ];
    let mut text = text;
    for (from, to) in changes {
        if !text.contains(from) {
            bail!("{} has no {from} in it any more", path.display());
        }
        text = text.replace(from, to);
    }
    Ok(text)
}

/// When the last machine had booted, in seconds since 1970.
pub(crate) fn booted_at(testbed: &Testbed) -> Result<f64> {
    let times = testbed.machines.iter().map(|machine| machine.booted_at().context("a machine is not running"));
    times.collect::<Result<Vec<_>>>()?.into_iter().reduce(f64::max).context("a testbed has machines")
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// How long a cluster took to form, in seconds since the last machine had booted.
pub(crate) struct Formed {
    /// That moment, in seconds since 1970.
    pub(crate) booted_at: f64,
    /// Until all Nodes were Ready.
    pub(crate) ready: f64,
    /// Until every control plane was one, every etcd member had started and the API answered through every machine too.
    pub(crate) whole: f64,
}

/// Waits until the cluster is whole.
pub(crate) fn wait_until_formed(testbed: &Testbed, timeout: Duration, report: &Report) -> Result<Formed> {
    let (booted, started) = (booted_at(testbed)?, Instant::now());
    let mut look = Look::default();
    loop {
        let missing = match look.once(testbed, report) {
            Ok(missing) => missing,
            Err(error) => {
                look.cluster = None;
                vec![format!("{error:#}")]
            }
        };
        if let (Some(at), true) = (look.all_ready_at, missing.is_empty()) {
            return Ok(Formed { booted_at: booted, ready: at - booted, whole: now() - booted });
        }
        if started.elapsed() > timeout {
            let why = missing.join("; ");
            let machines: String = testbed.machines.iter().map(why_not).collect();
            return Err(anyhow!("no cluster after {} s: {why}\n{machines}", timeout.as_secs()));
        }
        interrupt::sleep(LOOK_EVERY)?;
    }
}

/// What is known of a cluster while it forms.
#[derive(Default)]
struct Look {
    /// The way to it that worked last.
    cluster: Option<Cluster>,
    said: String,
    /// How often it was looked before there was a cluster.
    looks: u32,
    /// Since when all Nodes have been Ready, in seconds since 1970.
    all_ready_at: Option<f64>,
}

impl Look {
    /// Looks once and returns what is missing.
    fn once(&mut self, testbed: &Testbed, report: &Report) -> Result<Vec<String>> {
        if self.cluster.is_none() {
            // To look costs as much processor time as to form, where all machines share two processors: so it is done seldom, and only
            // where somebody may answer.
            if self.looks.is_multiple_of(3) {
                say(&mut self.said, report, phases(testbed));
            }
            self.looks += 1;
            if !Cluster::listens(testbed) {
                return Ok(vec!["no machine's API server listens".to_owned()]);
            }
            self.cluster = Some(Cluster::find(testbed)?);
        }
        let cluster = self.cluster.as_ref().context("the cluster was found just now")?;
        let nodes = cluster.nodes()?;
        let ready = nodes.iter().filter(|node| node.ready).count();
        let line = format!("{} of {} Nodes, {ready} Ready", nodes.len(), testbed.machines.len());
        say(&mut self.said, report, line);
        let missing = missing_nodes(&nodes, testbed);
        if !missing.is_empty() {
            self.all_ready_at = None;
            return Ok(missing);
        }
        self.all_ready_at.get_or_insert_with(now);
        Ok(cluster.view(testbed)?.missing(testbed))
    }
}

/// Reports a line unless it is empty or was the last one.
fn say(said: &mut String, report: &Report, line: String) {
    if !line.is_empty() && line != *said {
        report.step(&line);
        *said = line;
    }
}

/// What muster says of each machine, until Kubernetes itself can be asked: `m1 Founding, m2 Meeting`.
fn phases(testbed: &Testbed) -> String {
    let phase = |machine: &Machine| {
        let said = machine.exec(&["timeout", "2", "muster", "status", "--json"]).and_then(|mut ask| output(&mut ask));
        let status: serde_json::Value = serde_json::from_str(&said.ok()?).ok()?;
        Some(format!("{} {}", machine.name, status["phase"].as_str()?))
    };
    testbed.machines.iter().filter(|machine| machine.muster).filter_map(phase).collect::<Vec<_>>().join(", ")
}

/// What a machine itself says about why it waits.
fn why_not(machine: &Machine) -> String {
    let said = |words: &[&str]| {
        let words = [&["timeout", "5"], words].concat();
        machine.exec(&words).and_then(|mut command| output(&mut command))
    };
    let mut lines = String::new();
    let explained = if machine.muster { said(&["muster", "explain"]) } else { Ok(String::new()) };
    let explained = explained.unwrap_or_else(|error| format!("{error:#}"));
    let unit = if machine.muster { "muster" } else { "kubelet" };
    let journal = said(&["journalctl", "--no-pager", "--output=cat", "--lines=8", "--unit", unit]);
    let journal = journal.unwrap_or_else(|error| format!("{error:#}"));
    for line in explained.lines().chain(journal.lines()) {
        lines += &format!("  {}: {line}\n", machine.name);
    }
    lines
}

/// Stops every machine and removes everything of the testbed, whatever state it is in.
pub(crate) fn down(paths: &Paths, report: &Report) -> Result<()> {
    if !paths.state.exists() {
        report.result(&json!({ "down": true }), format!("No testbed {:?} is up.", paths.name));
        return Ok(());
    }
    let testbed = Testbed::load(paths).with_context(|| {
        format!("its machines are unknown; stop them yourself, then remove {}", paths.state.display())
    })?;
    for machine in &testbed.machines {
        machine.kill().with_context(|| format!("machine {}", machine.name))?;
    }
    network::remove(&testbed)?;
    // The description goes last: a `down` that is interrupted here can be repeated.
    let state = paths.state.to_string_lossy().into_owned();
    run(
        "find",
        [&state, "-mindepth", "1", "-maxdepth", "1", "!", "-name", "testbed.json", "-exec", "rm", "-rf", "{}", "+"],
    )?;
    fs::remove_dir_all(&paths.state)?;
    report.result(&json!({ "down": true }), format!("Testbed {:?} is down, and nothing of it is left.", paths.name));
    Ok(())
}
