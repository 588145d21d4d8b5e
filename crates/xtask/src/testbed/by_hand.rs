//! What a careful human does with kubeadm: init, read the token, join one machine after the other.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};

use super::layout::Testbed;
use super::machine::Machine;
use super::report::Report;
use super::up;
use crate::command::output;

/// Forms a cluster of the booted machines: the first control plane is the one everybody's API endpoint names.
pub(crate) fn form(testbed: &Testbed, report: &Report) -> Result<()> {
    let (first, others) = testbed.machines.split_first().context("a testbed has machines")?;
    for machine in &testbed.machines {
        // A human would put the name into DNS; the machines of a testbed have none.
        let hosts = machine.root().join("etc/hosts");
        let old = fs::read_to_string(&hosts).unwrap_or_default();
        fs::write(&hosts, format!("{old}{} {}\n", first.address, testbed.endpoint_name))?;
    }
    fs::write(first.root().join("root/kubeadm.yaml"), init_document(testbed))?;
    let printed = timed(report, &format!("{}: kubeadm init", first.name), || {
        let init = ["kubeadm", "init", "--config=/root/kubeadm.yaml", "--upload-certs"];
        let bare: &[&str] = if testbed.bare { &["--skip-phases=addon"] } else { &[] };
        kubeadm(first, &[&init, bare].concat())
    })?;
    let join = JoinCommands::read(&printed)?;
    if !testbed.bare {
        timed(report, &format!("{}: kubectl apply of the pod network", first.name), || apply_network(first, testbed))?;
    }
    for (number, machine) in others.iter().enumerate() {
        let control_plane = number + 1 < usize::from(testbed.control_planes);
        let (words, role) =
            if control_plane { (&join.control_plane, "a control plane") } else { (&join.worker, "a worker") };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        timed(report, &format!("{}: kubeadm join as {role}", machine.name), || kubeadm(machine, &words))?;
    }
    Ok(())
}

fn timed<T>(report: &Report, what: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let done = act().with_context(|| what.to_owned())?;
    report.step(format!("{what}: {:.1} s", started.elapsed().as_secs_f64()));
    Ok(done)
}

fn kubeadm(machine: &Machine, words: &[&str]) -> Result<String> {
    let words = [words, &["--ignore-preflight-errors=all"]].concat();
    output(&mut machine.exec(&words)?)
}

fn init_document(testbed: &Testbed) -> String {
    let cluster = testbed.container_images.trim_end();
    format!(
        "{cluster}\nkubernetesVersion: {}\ncontrolPlaneEndpoint: {}:{}\nnetworking:\n  podSubnet: {}\n---\n{}",
        testbed.kubernetes,
        testbed.endpoint_name,
        testbed.endpoint_port,
        up::POD_SUBNET,
        include_str!("../../../../tests/testbed/image/etc/muster/kubeadm.yaml")
    )
}

/// What a human reads on the network's page and does right after init.
fn apply_network(first: &Machine, testbed: &Testbed) -> Result<()> {
    fs::write(first.root().join("root/flannel.yaml"), up::pod_network(testbed)?)?;
    let apply = ["kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", "apply", "--filename=/root/flannel.yaml"];
    output(&mut first.exec(&apply)?).map(drop)
}

/// The two commands that `kubeadm init` tells its user to run elsewhere.
struct JoinCommands {
    control_plane: Vec<String>,
    worker: Vec<String>,
}

impl JoinCommands {
    fn read(printed: &str) -> Result<Self> {
        let joined = printed.replace("\\\n", " ");
        let commands = joined.lines().map(str::trim).filter(|line| line.starts_with("kubeadm join "));
        let commands = commands.map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let (control_plane, worker) =
            commands.partition::<Vec<_>, _>(|words| words.contains(&"--control-plane".into()));
        let one = |mut commands: Vec<Vec<String>>, what: &str| {
            commands.pop().with_context(|| format!("kubeadm init printed no command to join {what}"))
        };
        Ok(Self { control_plane: one(control_plane, "a control plane")?, worker: one(worker, "a worker")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn join_commands_are_read_from_what_init_prints() {
        let printed = "You can now join any number of the control-plane node running:\n\n  \
            kubeadm join api:6443 --token a.b \\\n    --discovery-token-ca-cert-hash sha256:00 \\\n    \
            --control-plane --certificate-key 11\n\nThen you can join:\n\n\
            kubeadm join api:6443 --token a.b \\\n    --discovery-token-ca-cert-hash sha256:00 \n";
        let join = JoinCommands::read(printed).unwrap();
        assert_eq!(
            join.worker,
            ["kubeadm", "join", "api:6443", "--token", "a.b", "--discovery-token-ca-cert-hash", "sha256:00"]
        );
        assert_eq!(join.control_plane[7..], ["--control-plane", "--certificate-key", "11"]);
        assert!(JoinCommands::read("nothing").is_err());
    }
}
