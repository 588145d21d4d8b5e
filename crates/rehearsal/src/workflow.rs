//! kubeadm's workflows: which phases there are, in which order, which of them a command line runs, and what may go wrong
//! at each.

use crate::arguments::Arguments;
use crate::failure::{Failure, fail};
use crate::setting::{Fault, Setting, Told};

/// A phase as kubeadm lists it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Phase {
    name: &'static str,
    parts: &'static [&'static str],
    /// Runs in the workflow but is no command of its own.
    hidden: bool,
}

const fn phase(name: &'static str, parts: &'static [&'static str]) -> Phase {
    Phase { name, parts, hidden: false }
}

const fn hidden(name: &'static str) -> Phase {
    Phase { name, parts: &[], hidden: true }
}

/// init's phases. kubelet-start comes late since 1.28.
pub(crate) fn init(minor: u32) -> Vec<Phase> {
    let certs = phase(
        "certs",
        &[
            "ca",
            "apiserver",
            "apiserver-kubelet-client",
            "front-proxy-ca",
            "front-proxy-client",
            "etcd-ca",
            "etcd-server",
            "etcd-peer",
            "etcd-healthcheck-client",
            "apiserver-etcd-client",
            "sa",
        ],
    );
    let kubeconfig = match minor {
        29.. => phase("kubeconfig", &["admin", "super-admin", "kubelet", "controller-manager", "scheduler"]),
        _ => phase("kubeconfig", &["admin", "kubelet", "controller-manager", "scheduler"]),
    };
    let finalize = match minor {
        33.. => phase("kubelet-finalize", &["enable-client-cert-rotation"]),
        _ => phase("kubelet-finalize", &["experimental-cert-rotation"]),
    };
    let kubelet = phase("kubelet-start", &[]);
    let control_plane = phase("control-plane", &["apiserver", "controller-manager", "scheduler"]);
    let etcd = phase("etcd", &["local"]);
    let middle = if minor >= 28 { [etcd, control_plane, kubelet] } else { [kubelet, control_plane, etcd] };
    let wait = if minor >= 30 { phase("wait-control-plane", &[]) } else { hidden("wait-control-plane") };
    let mut phases = vec![phase("preflight", &[]), certs, kubeconfig];
    phases.extend(middle);
    phases.extend([
        wait,
        phase("upload-config", &["kubeadm", "kubelet"]),
        phase("upload-certs", &[]),
        phase("mark-control-plane", &[]),
        phase("bootstrap-token", &[]),
        finalize,
        phase("addon", &["coredns", "kube-proxy"]),
    ]);
    if minor >= 24 {
        phases.push(phase("show-join-command", &[]));
    }
    phases
}

/// join's phases. Since 1.31 etcd-join and kubelet-wait-bootstrap are there, at first hidden and idle.
pub(crate) fn join(minor: u32) -> Vec<Phase> {
    let mut phases = vec![
        phase("preflight", &[]),
        phase("control-plane-prepare", &["download-certs", "certs", "kubeconfig", "control-plane"]),
        hidden("check-etcd"),
        phase("kubelet-start", &[]),
    ];
    match minor {
        35.. => phases.extend([phase("etcd-join", &[]), phase("kubelet-wait-bootstrap", &[])]),
        31..35 => phases.extend([hidden("etcd-join"), hidden("kubelet-wait-bootstrap")]),
        _ => {}
    }
    phases.push(match minor {
        ..31 => phase("control-plane-join", &["etcd", "update-status", "mark-control-plane"]),
        31.. => phase("control-plane-join", &["etcd", "mark-control-plane"]),
    });
    if minor >= 30 {
        phases.push(phase("wait-control-plane", &[]));
    }
    phases
}

/// The leaves that a command line runs, as `certs/ca` or `preflight`, in order.
///
/// # Errors
/// When it names a phase that there is not, or that is hidden.
pub(crate) fn selected(workflow: &str, phases: &[Phase], arguments: &Arguments) -> Result<Vec<String>, Failure> {
    let words: Vec<_> = arguments.words.iter().map(String::as_str).collect();
    if let [_, "phase", rest @ ..] = words.as_slice() {
        arguments.allow(&["config", "ignore-preflight-errors", "kubeconfig", "skip-token-print", "cert-dir"])?;
        if arguments.flag("ignore-preflight-errors").is_some() && *rest != ["preflight"] {
            return Err(fail("unknown flag: --ignore-preflight-errors"));
        }
        return one(workflow, phases, rest);
    }
    if words.len() != 1 {
        return Err(fail(format!("unknown command {:?} for \"kubeadm {workflow}\"", words[1..].join(" "))));
    }
    arguments.allow(&["config", "ignore-preflight-errors", "skip-phases", "skip-token-print", "upload-certs"])?;
    let skip = arguments.list("skip-phases");
    let names = |phase: &Phase| -> Vec<String> {
        let parts = phase.parts.iter().map(|part| format!("{}/{part}", phase.name));
        std::iter::once(phase.name.to_owned()).chain(parts).collect()
    };
    let known: Vec<String> = phases.iter().flat_map(names).collect();
    if let Some(unknown) = skip.iter().find(|name| !known.iter().any(|known| known == *name)) {
        return Err(fail(format!("invalid phase name: {unknown}")));
    }
    let runs = phases.iter().filter(|phase| !skip.contains(&phase.name)).flat_map(leaves);
    Ok(runs.filter(|leaf| !skip.contains(&leaf.as_str())).collect())
}

fn one(workflow: &str, phases: &[Phase], words: &[&str]) -> Result<Vec<String>, Failure> {
    let unknown = || fail(format!("unknown command {:?} for \"kubeadm {workflow} phase\"", words.join(" ")));
    let name = *words.first().ok_or_else(unknown)?;
    let phase = phases.iter().find(|phase| phase.name == name && !phase.hidden).ok_or_else(unknown)?;
    match (&words[1..], phase.parts) {
        ([], []) => Ok(vec![name.to_owned()]),
        // kubeadm prints its help and does nothing, which no caller can want.
        ([], parts) => Err(fail(format!("kubeadm {workflow} phase {name} needs one of all, {}", parts.join(", ")))),
        // `etcd` alone has no `all`.
        (["all"], [_, ..]) if name != "etcd" => Ok(leaves(phase).collect()),
        ([part], parts) if parts.contains(part) => Ok(vec![format!("{name}/{part}")]),
        _ => Err(unknown()),
    }
}

fn leaves(phase: &Phase) -> Box<dyn Iterator<Item = String>> {
    let name = phase.name;
    match phase.parts {
        [] => Box::new(std::iter::once(name.to_owned())),
        parts => Box::new(parts.iter().map(move |part| format!("{name}/{part}"))),
    }
}

/// Runs one phase, with the fault that it was told to have.
pub(crate) fn run(
    setting: &Setting,
    workflow: &str,
    leaf: &str,
    work: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let top = leaf.split('/').next().unwrap_or(leaf);
    let name = if workflow.is_empty() { leaf.to_owned() } else { format!("{workflow}/{leaf}") };
    let told = setting.fault(workflow, leaf).or_else(|| setting.fault(workflow, top));
    let fault = match told {
        Some(told) if !told.once || is_first_time(setting, told)? => Some(told.fault),
        _ => None,
    };
    match fault {
        None => work().map_err(|error| if workflow.is_empty() { error } else { error.at(leaf) }),
        Some(Fault::Lie) => {
            println!("[{top}] done");
            Ok(())
        }
        Some(Fault::Fail) => Err(fail(format!("the rehearsal was told to fail at {name}")).at(leaf)),
        Some(Fault::Hang) => loop {
            println!("[{top}] the rehearsal was told to hang");
            std::thread::sleep(std::time::Duration::from_secs(3600));
        },
        Some(Fault::Nonsense) => {
            println!("\u{fffd}%!s(<nil>) \u{7}\u{1b}[31m panic: goroutine 1 [running]: {{]]");
            Err(fail("\u{1b}[0m<nil>"))
        }
        Some(Fault::Die) => {
            // What it did stays; nobody hears of it.
            let _ = work();
            kill_self()
        }
    }
}

/// Remembers the fault beside kubeadm's directory, which a reset empties.
fn is_first_time(setting: &Setting, told: &Told) -> Result<bool, Failure> {
    let name = format!("rehearsal-{:?}-{}", told.fault, told.phase.replace('/', "-"));
    let marker = setting.dir.with_file_name(name);
    if marker.exists() {
        return Ok(false);
    }
    crate::pki::write(&marker, "").map(|()| true)
}

fn kill_self() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(workflow: &str, minor: u32, line: &str) -> Result<Vec<String>, Failure> {
        let phases = if workflow == "init" { init(minor) } else { join(minor) };
        let arguments = Arguments::parse(format!("{workflow} {line}").trim().split(' ').map(str::to_owned))?;
        selected(workflow, &phases, &arguments)
    }

    #[test]
    fn selects_as_kubeadm_does() {
        assert_eq!(select("init", 20, "phase etcd local").expect("selects"), ["etcd/local"]);
        assert_eq!(select("init", 20, "phase kubeconfig all").expect("selects").len(), 4);
        assert!(select("init", 20, "phase wait-control-plane").is_err(), "it is hidden");
        assert!(select("init", 31, "phase wait-control-plane").is_ok());
        assert!(select("join", 31, "phase etcd-join").is_err(), "it is hidden");
        assert!(select("join", 35, "phase etcd-join").is_ok());
        assert!(select("join", 20, "--skip-phases=etcd-join").is_err(), "there is none");
        let prepare = select("join", 20, "--skip-phases=check-etcd,control-plane-join").expect("selects");
        assert_eq!(prepare.last().map(String::as_str), Some("kubelet-start"));
        assert!(select("join", 20, "phase kubelet-start --ignore-preflight-errors=all").is_err());
    }
}
