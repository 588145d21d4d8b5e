//! kubeadm's workflows: which phases a command line runs, and what may go wrong at each.

use muster_kubeadm::versions::{CommandLine, Shown, Workflow};

use crate::failure::{Failure, fail};
use crate::say::say;
use crate::setting::{Fault, Setting, Told};

/// The leaves that a command line runs, as `certs/ca` or `preflight`, in order.
///
/// # Errors
/// When it names a phase to skip that there is not.
pub(crate) fn selected(workflow: Workflow, minor: u32, line: &CommandLine) -> Result<Vec<String>, Failure> {
    let leaves = || {
        let rows = workflow.rows(minor).filter(|row| row.shown != Shown::All);
        rows.map(|row| row.name).filter(move |name| workflow.parts(name, minor).next().is_none())
    };
    let below =
        |leaf: &str, name: &str| leaf == name || leaf.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
    if let [_, _, phase @ ..] = line.command.as_slice() {
        let name = phase.join("/");
        let all = name.strip_suffix("/all").unwrap_or(&name);
        return Ok(leaves().filter(|leaf| below(leaf, all)).map(str::to_owned).collect());
    }
    let skip = line.list("skip-phases");
    if let Some(unknown) = skip.iter().find(|name| workflow.row(name, minor).is_none()) {
        return Err(fail(format!("invalid phase name: {unknown}")));
    }
    Ok(leaves().filter(|leaf| !skip.iter().any(|name| below(leaf, name))).map(str::to_owned).collect())
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
            say!("[{top}] done");
            Ok(())
        }
        Some(Fault::Fail) => Err(fail(format!("the rehearsal was told to fail at {name}")).at(leaf)),
        Some(Fault::Hang) => loop {
            say!("[{top}] the rehearsal was told to hang");
            std::thread::sleep(std::time::Duration::from_secs(3600));
        },
        Some(Fault::Nonsense) => {
            say!("\u{fffd}%!s(<nil>) \u{7}\u{1b}[31m panic: goroutine 1 [running]: {{]]");
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

    fn select(workflow: Workflow, minor: u32, line: &str) -> Result<Vec<String>, Failure> {
        let line = format!("{} {line}", workflow.name());
        let args: Vec<_> = line.split(' ').map(str::to_owned).collect();
        selected(workflow, minor, &CommandLine::parse(&args, minor).map_err(|refusal| fail(refusal.to_string()))?)
    }

    #[test]
    fn selects_as_kubeadm_does() {
        let (init, join) = (Workflow::Init, Workflow::Join);
        assert_eq!(select(init, 20, "phase etcd local").expect("selects"), ["etcd/local"]);
        assert_eq!(select(init, 20, "phase kubeconfig all").expect("selects").len(), 4);
        assert!(select(join, 20, "--skip-phases=etcd-join").is_err(), "there is none");
        let prepare = select(join, 20, "--skip-phases=check-etcd,control-plane-join").expect("selects");
        assert_eq!(prepare.last().map(String::as_str), Some("kubelet-start"));
        assert_eq!(select(Workflow::Reset, 37, "--skip-phases=preflight").expect("selects").len(), 2);
    }
}
