//! `muster status`, `explain` and `logs`: looking into a machine.

use std::path::PathBuf;
use std::time::Duration;

use muster_protocol::{Phase, Reason, Status};

use crate::api::{Agent, Unheard};
use crate::args::{ExplainArguments, LogsArguments, StatusArguments, Whom};
use crate::exit::Exit;
use crate::lab::place;
use crate::{print, text};

/// How often `--watch` looks.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// The agent that is meant.
pub(crate) fn agent(whom: &Whom) -> Result<Agent, Unheard> {
    let socket: PathBuf = match (&whom.machine, &whom.lab) {
        (None, None) => whom.socket.clone(),
        (machine, lab) => {
            place::socket(lab.as_deref(), machine.as_deref()).map_err(|why| Unheard::Nowhere(format!("{why:#}")))?
        }
    };
    Ok(Agent::at(&socket))
}

/// `muster status`.
pub(crate) async fn status(arguments: &StatusArguments) -> anyhow::Result<Exit> {
    let agent = agent(&arguments.whom)?;
    let mut before = String::new();
    // While nothing changes nothing is printed, which would tell.
    let mut unread = std::pin::pin!(print::unread());
    loop {
        let bytes = agent.read("/v1/status").await?;
        let mut status: Status = serde_json::from_slice(&bytes)?;
        if !arguments.watch && !arguments.json {
            status.waiting = agent.json("/v1/explain").await?;
        }
        let shown =
            if arguments.json { String::from_utf8_lossy(&bytes).trim_end().to_owned() } else { describe(&status) };
        if !arguments.watch {
            print::line(&shown)?;
            return Ok(if status.phase == Phase::Ready { Exit::Done } else { Exit::Failed });
        }
        // Times that pass are no change worth a new page on a pipe.
        if arguments.json || console::user_attended() || without_times(&shown) != without_times(&before) {
            if console::user_attended() && !arguments.json {
                console::Term::stdout().clear_screen()?;
            }
            if !print::line(&shown)? {
                return Ok(Exit::Done);
            }
            before = shown;
        }
        tokio::select! {
            () = tokio::time::sleep(WATCH_PERIOD) => {}
            () = &mut unread => return Ok(Exit::Done),
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
        }
    }
}

fn without_times(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// A machine's state as people read it.
pub(crate) fn describe(status: &Status) -> String {
    let name_of = |machine: &str| match status.peers.iter().find(|peer| peer.machine == machine) {
        Some(peer) => format!("{} ({})", peer.name, peer.short),
        None if machine == status.machine => format!("{} ({}), this machine", status.name, status.short),
        None => machine.chars().take(8).collect(),
    };
    let mut lines =
        vec![format!("{} ({})  {}  {}", status.name, status.short, status.phase.word(), text::role(status.role))];
    let charter = match &status.charter {
        Some(charter) => {
            format!("charter {}, {} voters", charter.chars().take(12).collect::<String>(), status.voters.len())
        }
        None => "no charter yet".to_owned(),
    };
    lines.push(format!(
        "cluster {}: {charter}; {} machines of which {} control planes",
        status.cluster, status.machines, status.control_planes
    ));
    match &status.leader {
        Some(leader) => lines.push(format!(
            "leader {}, term {}, ledger at revision {}",
            name_of(leader),
            status.term,
            status.revision
        )),
        None if status.charter.is_some() => {
            lines.push(format!("no leader known, ledger at revision {}", status.revision))
        }
        None => {}
    }
    if let Some(manifests) = &status.manifests {
        lines.push(format!("manifests: {} of {} objects applied", manifests.applied, manifests.total));
    }
    if let Some(doing) = &status.doing {
        lines.push(format!("doing {doing}"));
    }
    lines.push(String::new());
    let mut rows = vec![
        ["NAME", "MACHINE", "ROLE", "ALIVE", "CONNECTED", "HEARD", "READY", "ADDRESS"].map(str::to_owned).to_vec(),
    ];
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    for peer in &status.peers {
        let heard = peer.heard_ms_ago.map_or("never".to_owned(), |ms| format!("{} s ago", ms / 1_000));
        rows.push(vec![
            peer.name.clone(),
            peer.short.clone(),
            text::role(peer.role).to_owned(),
            yes(peer.alive),
            yes(peer.connected),
            heard,
            yes(peer.joined),
            peer.addresses.first().cloned().unwrap_or_default(),
        ]);
    }
    if status.peers.is_empty() {
        lines.push("no other machine has been heard of".to_owned());
    } else {
        lines.extend(text::table(&rows));
    }
    if !status.waiting.is_empty() {
        lines.push(String::new());
        lines.extend(status.waiting.iter().map(|reason| format!("{}: {}", reason.about.word(), reason.text)));
    }
    if !status.dropped.is_empty() {
        lines.push(String::new());
        lines.extend(status.dropped.iter().map(|(what, count)| format!("dropped: {count} x {what}")));
    }
    lines.join("\n")
}

/// `muster explain`.
pub(crate) async fn explain(arguments: &ExplainArguments) -> anyhow::Result<Exit> {
    let agent = agent(&arguments.whom)?;
    if arguments.json {
        let bytes = agent.read("/v1/explain").await?;
        print::line(String::from_utf8_lossy(&bytes).trim_end())?;
        return Ok(Exit::Done);
    }
    let mut status: Status = agent.json("/v1/status").await?;
    // Whether there is an API server to use is looked at for whoever asks this.
    status.waiting = agent.json("/v1/explain").await?;
    print::line(&reasons(&status).join("\n"))?;
    Ok(Exit::Done)
}

/// What a machine waits for, and for whom, by name.
fn reasons(status: &Status) -> Vec<String> {
    let mut lines = vec![format!("{} ({}) is {}", status.name, status.short, status.phase.word())];
    if status.waiting.iter().all(|reason| !reason.about.waits()) {
        lines.push(match status.phase {
            Phase::Ready => "- it waits for nothing".to_owned(),
            _ => "- it waits for nothing that it knows of".to_owned(),
        });
    }
    for Reason { about, text, machines } in &status.waiting {
        lines.push(match about.waits() {
            true => format!("- {text}"),
            false => format!("- {}: {text}", about.word()),
        });
        let named = status.peers.iter().filter(|peer| machines.contains(&peer.machine));
        let named = named.map(|peer| match peer.addresses.first() {
            Some(address) => format!("{} is {} at {address}", peer.short, peer.name),
            None => format!("{} is {}", peer.short, peer.name),
        });
        lines.extend(named.map(|line| format!("    {line}")));
    }
    lines
}

/// `muster logs`.
pub(crate) async fn logs(arguments: &LogsArguments) -> anyhow::Result<Exit> {
    let agent = agent(&arguments.whom)?;
    let path = if arguments.follow { "/v1/logs?follow=true" } else { "/v1/logs" };
    // A reader that has seen enough closes the pipe.
    let print = |line: &str| print::line(line).unwrap_or(false);
    tokio::select! {
        () = print::unread() => Ok(Exit::Done),
        read = agent.lines(path, print) => read.map(|()| Exit::Done).map_err(Unheard::into),
        _ = tokio::signal::ctrl_c() => Ok(Exit::Done),
    }
}

#[cfg(test)]
mod tests {
    use muster_protocol::Topic;
    use muster_protocol::status::Peer;
    use muster_wire::{Attempt, Revision, Role};

    use super::*;

    fn status() -> Status {
        let peer = |digit: char, name: &str, role, joined| Peer {
            machine: digit.to_string().repeat(64),
            short: format!("m-{}", digit.to_string().repeat(8)),
            name: name.to_owned(),
            role,
            alive: digit != 'c',
            connected: digit != 'c',
            heard_ms_ago: (digit != 'd').then_some(14_200),
            joined,
            addresses: vec![format!("10.0.0.{}:7390", digit.to_digit(16).unwrap_or(0))],
        };
        Status {
            machine: "a".repeat(64),
            short: "m-aaaaaaaa".to_owned(),
            name: "left".to_owned(),
            cluster: "site".to_owned(),
            phase: Phase::Preparing,
            role: Some(Role::ControlPlane),
            charter: Some("0123456789abcdef0123456789abcdef".to_owned()),
            voters: vec!["a".repeat(64), "b".repeat(64), "c".repeat(64)],
            leader: Some("b".repeat(64)),
            term: 2,
            revision: Revision(17),
            attempt: Some(Attempt(1)),
            doing: Some("join: kubelet-start (3 s)".to_owned()),
            waiting: vec![Reason {
                about: Topic::Etcd,
                text: "waiting for m-cccccccc, last heard 14 s ago to join etcd (turn 2)".to_owned(),
                machines: vec!["c".repeat(64)],
            }],
            resets: 0,
            removed: None,
            leaving: None,
            strangers: Vec::new(),
            hints: Vec::new(),
            manifests: Some(muster_protocol::status::ManifestsStatus {
                total: 5,
                applied: 3,
                waiting: Vec::new(),
                refused: Vec::new(),
            }),
            peers: vec![
                peer('b', "right", Some(Role::ControlPlane), true),
                peer('c', "middle", Some(Role::ControlPlane), false),
                peer('d', "localhost", None, false),
            ],
            machines: 5,
            control_planes: 3,
            dropped: [("10.0.0.9:7390: another mesh key".to_owned(), 3)].into(),
        }
    }

    #[test]
    fn a_status_reads_well() {
        insta::assert_snapshot!(describe(&status()));
    }

    #[test]
    fn reasons_name_whom_is_waited_for_and_where() {
        insta::assert_snapshot!(reasons(&status()).join("\n"));
    }

    #[test]
    fn machines_of_others_are_not_waited_for() {
        let text = "10.0.0.9 was turned away 3 times: it belongs to cluster \"other\"".to_owned();
        let reason = Reason { about: Topic::TurnedAway, text: text.clone(), machines: Vec::new() };
        let shown = describe(&Status { waiting: vec![reason], ..status() });
        assert!(shown.contains(&format!("\nnot ours: {text}")) && !shown.contains("waits:"), "{shown}");
    }

    #[test]
    fn strangers_and_hints_are_no_reason_to_wait() {
        let reason = |about: Topic, text: &str| Reason { about, text: text.into(), machines: Vec::new() };
        let waiting = vec![
            reason(Topic::Stranger, "1 machine is not of this cluster, first 9 s ago; its image: m-ffffffff (odd)"),
            reason(Topic::Hint, "10.0.0.9:7390: refused: nobody listens there, 3 s ago"),
        ];
        let shown = reasons(&Status { waiting, phase: Phase::Ready, ..status() });
        assert_eq!(
            shown,
            [
                "left (m-aaaaaaaa) is Ready",
                "- it waits for nothing",
                "- not ours: 1 machine is not of this cluster, first 9 s ago; its image: m-ffffffff (odd)",
                "- hint: 10.0.0.9:7390: refused: nobody listens there, 3 s ago",
            ]
        );
    }

    #[test]
    fn a_lonely_machine_says_so() {
        let lonely = Status {
            phase: Phase::Meeting,
            role: None,
            charter: None,
            voters: Vec::new(),
            leader: None,
            doing: None,
            waiting: Vec::new(),
            manifests: None,
            peers: Vec::new(),
            dropped: std::collections::BTreeMap::new(),
            ..status()
        };
        insta::assert_snapshot!(format!("{}\n\n{}", describe(&lonely), reasons(&lonely).join("\n")));
    }
}
