//! `muster remove` and `muster reset`: a machine leaves the cluster.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use muster_protocol::status::Departure;
use muster_protocol::{Fate, Status};
use muster_wire::{MachineId, Role, Wish};
use serde::Deserialize;
use serde_json::json;

use crate::api::{Agent, Unheard};
use crate::args::{HowArguments, RemoveArguments, ResetArguments};
use crate::exit::Exit;
use crate::look::agent;
use crate::print;

/// Pause between two looks at how far it is.
const PAUSE: Duration = Duration::from_millis(300);

/// How long an agent that starts again may not be heard.
const RESTARTS: Duration = Duration::from_secs(30);

/// What the ledger says of its members.
#[derive(Debug, Deserialize)]
struct Ledger {
    members: Vec<Member>,
}

#[derive(Debug, Clone, Deserialize)]
struct Member {
    machine: String,
    name: String,
    role: Role,
    address: String,
    etcd_member: bool,
}

impl Member {
    fn id(&self) -> Option<MachineId> {
        MachineId::from_slice(&hex::decode(&self.machine).ok()?, "machine").ok()
    }

    fn short(&self) -> String {
        self.id().map_or_else(|| self.machine.clone(), |machine| machine.to_string())
    }
}

impl Ledger {
    /// Who is called so: by its Node, or by its identity as far as it is written.
    fn called(&self, name: &str) -> Option<&Member> {
        let by_name = self.members.iter().find(|member| member.name == name);
        by_name.or_else(|| {
            let mut alike = self.members.iter().filter(|member| member.short() == name || member.machine == name);
            alike.next().filter(|_| alike.next().is_none())
        })
    }
}

/// Takes a machine out of the cluster, or lets it stay after all.
///
/// # Errors
/// When no agent answers, or standard output cannot be written.
pub(crate) async fn remove(arguments: &RemoveArguments) -> anyhow::Result<Exit> {
    let how = &arguments.how;
    let agent = agent(&how.whom)?;
    let ledger: Ledger = agent.json("/v1/ledger").await?;
    let Some(member) = ledger.called(&arguments.name).cloned() else {
        let mut known: Vec<&str> = ledger.members.iter().map(|member| member.name.as_str()).collect();
        known.sort_unstable();
        let known = if known.is_empty() { "nobody".to_owned() } else { known.join(", ") };
        let why = format!("{:?} is no member of the cluster; these are: {known}", arguments.name);
        if how.json {
            print::line(&json!(Fate::Refused { why: why.clone() }).to_string())?;
        }
        print::complaint(&format!("error: {why}"));
        return Ok(Exit::Wrong);
    };
    let Some(machine) = member.id() else { return Ok(Exit::Wrong) };
    if arguments.withdraw {
        let fate = ask(&agent, &Wish::WithdrawRemoval { machine }, how.dry_run).await?;
        let so = format!(
            "{0} is to stay. If it is being taken out of etcd just now it goes all the same, and comes back as another machine. If its \
             Node is still closed: kubectl uncordon {0}",
            member.name
        );
        return told(how, &fate, &so);
    }
    let status: Status = agent.json("/v1/status").await?;
    let peer = |peer: &muster_protocol::status::Peer| peer.machine == member.machine && peer.alive;
    let alive = status.machine == member.machine || status.peers.iter().any(peer);
    let steps = steps(&member, &ledger, false, alive);
    leave(&agent, how, &member, Wish::RemoveMachine { machine, returns: false }, &steps).await
}

/// Takes this machine out of the cluster.
///
/// # Errors
/// As [`remove`].
pub(crate) async fn reset(arguments: &ResetArguments) -> anyhow::Result<Exit> {
    let how = &arguments.how;
    let agent = agent(&how.whom)?;
    let mut status: Status = agent.json("/v1/status").await?;
    let begun = Instant::now();
    if status.removed == Some(Departure::Undoing) && arguments.rejoin && !how.dry_run {
        say(how, "this machine was removed, and what Kubernetes has here is still being taken away", "undoing")?;
        while status.removed == Some(Departure::Undoing) && begun.elapsed() < how.timeout {
            tokio::time::sleep(PAUSE).await;
            status = agent.json("/v1/status").await?;
        }
    }
    let ledger: Ledger = agent.json("/v1/ledger").await?;
    let member = ledger.members.iter().find(|member| member.machine == status.machine).cloned();
    let member = member.unwrap_or(Member {
        machine: status.machine,
        name: status.name,
        role: Role::Worker,
        address: String::new(),
        etcd_member: false,
    });
    let Some(machine) = member.id() else { return Ok(Exit::Wrong) };
    let steps = match status.removed {
        Some(_) if !arguments.rejoin => {
            say(
                how,
                "this machine was removed already; `muster reset --rejoin` has it come back as another one",
                "done",
            )?;
            return Ok(Exit::Done);
        }
        Some(_) => vec!["this machine was removed: it comes back as another one".to_owned()],
        None => steps(&member, &ledger, arguments.rejoin, true),
    };
    leave(&agent, how, &member, Wish::RemoveMachine { machine, returns: arguments.rejoin }, &steps).await
}

/// What happens to a machine that leaves, for people.
fn steps(member: &Member, ledger: &Ledger, returns: bool, alive: bool) -> Vec<String> {
    let at = if member.address.is_empty() { String::new() } else { format!(" at {}", member.address) };
    let mut steps = vec![format!("{} ({}, {}{at})", member.name, member.role, member.short())];
    steps.push(match alive {
        true => {
            "is drained: its Node takes nothing new, and what runs there is moved away, as budgets allow".to_owned()
        }
        false => "is not drained, since it does not answer: what ran there is started elsewhere".to_owned(),
    });
    if member.etcd_member {
        let left = ledger.members.iter().filter(|other| other.etcd_member).count().saturating_sub(1);
        let members = if left == 1 { "1 member, and can lose none".to_owned() } else { format!("{left} members") };
        steps.push(format!("leaves etcd, which then has {members}"));
    }
    steps.push("is deleted as a Node, and forgotten by the ledger with its ticket and its token".to_owned());
    steps.push(match returns {
        true => "undoes what Kubernetes has on it, and comes back as a new machine".to_owned(),
        false if alive => "undoes what Kubernetes has on it, and stays out for good".to_owned(),
        false => "undoes what Kubernetes has on it if it ever comes back, and stays out for good".to_owned(),
    });
    if member.role == Role::ControlPlane && !returns {
        steps.push(
            "leaves a control plane's seat, which the next new machine takes, or a worker after repair.replace_after"
                .to_owned(),
        );
    }
    steps
}

async fn leave(
    agent: &Agent,
    how: &HowArguments,
    member: &Member,
    wish: Wish,
    steps: &[String],
) -> anyhow::Result<Exit> {
    // What is refused need not be asked.
    let fate = ask(agent, &wish, true).await?;
    if !matches!(fate, Fate::Would { .. } | Fate::Done { .. }) || how.dry_run {
        if how.dry_run && how.json && matches!(fate, Fate::Would { .. }) {
            let mut fate = json!(fate);
            fate["steps"] = json!(steps);
            print::line(&fate.to_string())?;
            return Ok(Exit::Done);
        }
        if how.dry_run && matches!(fate, Fate::Would { .. }) {
            print::line(&format!("nothing is changed. It would be so:\n  {}", steps.join("\n  - ")))?;
            return Ok(Exit::Done);
        }
        return told(how, &fate, "");
    }
    if !how.yes {
        print::complaint(&steps.join("\n  - "));
        if !std::io::stdin().is_terminal() {
            print::complaint("error: nobody can be asked here: say --yes, or look first with --dry-run");
            return Ok(Exit::Wrong);
        }
        if !agreed(&format!("Take {} out of the cluster? [y/N] ", member.name))? {
            print::complaint("nothing is changed");
            return Ok(Exit::Failed);
        }
    }
    let fate = ask(agent, &wish, false).await?;
    if !matches!(fate, Fate::Done { .. }) || how.no_wait {
        return told(how, &fate, &format!("{} is to be removed; `muster explain` says how far it is", member.name));
    }
    tokio::select! {
        exit = wait(agent, how, member, &wish) => exit,
        _ = tokio::signal::ctrl_c() => {
            print::complaint(&format!("it goes on all the same; `muster remove {} --withdraw` ends it", member.name));
            Ok(Exit::Interrupted)
        }
    }
}

pub(crate) fn agreed(question: &str) -> anyhow::Result<bool> {
    let mut err = std::io::stderr().lock();
    err.write_all(question.as_bytes())?;
    err.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

async fn ask(agent: &Agent, wish: &Wish, dry_run: bool) -> Result<Fate, Unheard> {
    agent.post(if dry_run { "/v1/wish?dry_run=true" } else { "/v1/wish" }, wish).await
}

/// Tells what became of a wish.
pub(crate) fn told(how: &HowArguments, fate: &Fate, so: &str) -> anyhow::Result<Exit> {
    if how.json {
        print::line(&json!(fate).to_string())?;
    }
    let (exit, text) = match fate {
        Fate::Done { .. } => (Exit::Done, so.to_owned()),
        Fate::Would { change } => (Exit::Done, format!("nothing is changed. It would {change}")),
        Fate::Refused { why } => (Exit::Failed, format!("refused: {why}")),
        Fate::Unknown { why } => (Exit::Failed, format!("not known: {why}")),
    };
    match exit {
        Exit::Done if !how.json => drop(print::line(&text)?),
        Exit::Done => {}
        _ => print::complaint(&text),
    }
    Ok(exit)
}

pub(crate) fn say(how: &HowArguments, text: &str, state: &str) -> anyhow::Result<()> {
    match how.json {
        true => print::line(&json!({ "state": state, "text": text }).to_string())?,
        false => print::line(text)?,
    };
    Ok(())
}

/// How far a machine is on its way out.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// It is a member, and this is known of its removal.
    Leaving(String),
    /// It is out, and undoes what Kubernetes has on it.
    Undoing,
    /// It is a member, and nobody wishes it away.
    Stays,
    /// Nothing is left to be waited for.
    Gone,
}

async fn wait(agent: &Agent, how: &HowArguments, member: &Member, wish: &Wish) -> anyhow::Result<Exit> {
    let begun = Instant::now();
    let (mut last, mut silent_since, mut leaves) = (String::new(), None, false);
    while begun.elapsed() < how.timeout {
        let stage = match stage(agent, member, wish).await {
            Ok(stage) => {
                silent_since = None;
                stage
            }
            // It starts again as another machine.
            Err(why) if silent_since.get_or_insert_with(Instant::now).elapsed() > RESTARTS => return Err(why.into()),
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (text, state) = match &stage {
            Stage::Leaving(text) => (text.clone(), "leaving"),
            Stage::Stays => {
                (format!("{} stays: the wish was withdrawn, or is not known here yet", member.name), "stays")
            }
            Stage::Undoing => {
                (format!("{} is out of the cluster, and undoes what Kubernetes has on it", member.name), "undoing")
            }
            Stage::Gone => (gone(member, wish), "done"),
        };
        if text != last {
            let after = begun.elapsed().as_secs_f64();
            match how.json {
                true => say(how, &text, state)?,
                false => say(how, &format!("{after:>7.1} s  {text}"), state)?,
            }
            last = text;
        }
        match stage {
            Stage::Gone => return Ok(Exit::Done),
            Stage::Stays if leaves => return Ok(Exit::Failed),
            Stage::Leaving(_) => leaves = true,
            Stage::Stays | Stage::Undoing => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
    let still = format!("not removed within {} s, and it goes on: {last}", how.timeout.as_secs());
    if how.json {
        say(how, &still, "timeout")?;
    }
    print::complaint(&still);
    Ok(Exit::Failed)
}

fn gone(member: &Member, wish: &Wish) -> String {
    match wish {
        Wish::RemoveMachine { returns: true, .. } => {
            format!("{} has left, and starts again as another machine", member.name)
        }
        _ => format!("{} is removed", member.name),
    }
}

async fn stage(agent: &Agent, member: &Member, wish: &Wish) -> Result<Stage, Unheard> {
    let status: Status = agent.json("/v1/status").await?;
    // Who asked for itself and is another by now.
    let own = matches!(wish, Wish::RemoveMachine { returns: true, .. });
    match status.removed {
        Some(Departure::Undoing) => return Ok(Stage::Undoing),
        Some(Departure::Out) => return Ok(Stage::Gone),
        Some(Departure::Returns) => return Ok(Stage::Undoing),
        None if own && status.machine != member.machine => return Ok(Stage::Gone),
        None => {}
    }
    if let Some(leaving) = status.leaving.filter(|leaving| leaving.machine == member.machine) {
        let text = match (&leaving.by, &leaving.held) {
            (Some(by), Some(held)) => format!("{by} is at it, and something holds it: {held}"),
            (Some(by), None) => format!("{by} is at it: drains, and takes it out"),
            (None, Some(held)) => format!("held up: {held}; it is tried again"),
            (None, None) => "waits for its turn".to_owned(),
        };
        return Ok(Stage::Leaving(text));
    }
    let ledger: Ledger = agent.json("/v1/ledger").await?;
    Ok(match ledger.members.iter().any(|other| other.machine == member.machine) {
        true => Stage::Stays,
        false => Stage::Gone,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(digit: char, name: &str, role: Role) -> Member {
        let machine = digit.to_string().repeat(64);
        Member { machine, name: name.into(), role, address: "10.0.0.1".into(), etcd_member: role == Role::ControlPlane }
    }

    fn ledger() -> Ledger {
        let members = vec![
            member('1', "m1", Role::ControlPlane),
            member('2', "m2", Role::ControlPlane),
            member('3', "m3", Role::Worker),
        ];
        Ledger { members }
    }

    #[test]
    fn a_machine_is_found_by_its_name_and_by_its_identity() {
        let found = |name: &str| ledger().called(name).map(|member| member.name.clone());
        assert_eq!(found("m3").as_deref(), Some("m3"));
        assert_eq!(found("m-22222222").as_deref(), Some("m2"));
        assert_eq!(found(&"1".repeat(64)).as_deref(), Some("m1"));
        assert_eq!((found("m4"), found("2"), found("")), (None, None, None));
    }

    #[test]
    fn what_would_happen_is_told_for_what_it_is() {
        let (ledger, plane) = (ledger(), member('1', "m1", Role::ControlPlane));
        let text = steps(&plane, &ledger, false, true).join("; ");
        assert!(
            text.contains("etcd, which then has 1 member, and can lose none")
                && text.contains("a control plane's seat"),
            "{text}"
        );
        let text = steps(&member('3', "m3", Role::Worker), &ledger, true, true).join("; ");
        assert!(!text.contains("etcd") && text.contains("comes back as a new machine"), "{text}");
    }
}
