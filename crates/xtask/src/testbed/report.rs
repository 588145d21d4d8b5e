//! What a command says, as text or as JSON, and what its failures mean.

use std::fmt::{self, Display};
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Error;
use serde_json::{Value, json};

use super::kubernetes::View;
use super::layout::Testbed;
use crate::interrupt;

/// This host lacks something the testbed needs; the cluster was never put to the test.
#[derive(Debug)]
pub(crate) struct CannotProvision(String);

impl fmt::Display for CannotProvision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::error::Error for CannotProvision {}

/// An error that ends the command with exit code 2.
pub(crate) fn cannot_provision(why: impl Into<String>) -> Error {
    Error::new(CannotProvision(why.into()))
}

/// Where a command's progress goes, with the time since it started.
pub(crate) struct Report {
    json: bool,
    started: Instant,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, started: Instant::now() }
    }

    /// One step of progress.
    pub(crate) fn step(&self, text: impl AsRef<str>) {
        let (seconds, text) = (self.started.elapsed().as_secs_f64(), text.as_ref());
        if self.json {
            print(&json!({ "seconds": round(seconds), "step": text }));
        } else {
            print(&format_args!("{seconds:7.1} s  {text}"));
        }
    }

    /// What the command found: the JSON object, or the text that says the same.
    pub(crate) fn result(&self, object: &Value, text: impl AsRef<str>) {
        if self.json {
            print(object);
        } else {
            print(&text.as_ref());
        }
    }

    /// A table of the machines, with their Nodes where Kubernetes answered.
    pub(crate) fn machines(&self, testbed: &Testbed, view: Option<&View>) {
        let mut rows = Vec::new();
        for machine in &testbed.machines {
            let node = view.and_then(|view| view.nodes.iter().find(|node| node.address == machine.address));
            rows.push(json!({
                "machine": machine.name,
                "address": machine.address,
                "running": machine.running(),
                "node": node.map(|node| &node.name),
                "ready": node.is_some_and(|node| node.ready),
                "control_plane": node.is_some_and(|node| node.control_plane),
                "api": view.map(|view| view.answering.contains(&machine.name)),
            }));
        }
        let etcd_members = view.and_then(|view| view.etcd_members.as_ref().ok());
        if self.json {
            print(&json!({ "testbed": testbed.name, "machines": rows, "etcd_members": etcd_members }));
            return;
        }
        print(&format_args!("{:<12} {:<16} {:<8} {:<20} {:<8} ROLE", "MACHINE", "ADDRESS", "RUNNING", "NODE", "READY"));
        for row in &rows {
            let yes = |key: &str| if row[key] == true { "yes" } else { "no" };
            let word = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
            let role = match (row["node"].is_null(), row["control_plane"] == true) {
                (true, _) => "-",
                (false, true) => "control plane",
                (false, false) => "worker",
            };
            let (running, ready) = (yes("running"), yes("ready"));
            print(&format_args!(
                "{:<12} {:<16} {running:<8} {:<20} {ready:<8} {role}",
                word("machine"),
                word("address"),
                word("node")
            ));
        }
        if let Some(members) = etcd_members {
            print(&format_args!("etcd members: {members}"));
        }
    }

    /// The command's failure, as text on standard error, and its exit code.
    pub(crate) fn failed(&self, error: &Error) -> ExitCode {
        // What was interrupted fails in many ways, a recipe's own Ctrl-C among them; none of them is news.
        if interrupt::requested() {
            self.result(&json!({ "ready": false, "interrupted": true }), "interrupted");
            return ExitCode::from(interrupt::EXIT_CODE);
        }
        let provision = error.chain().any(|cause| cause.is::<CannotProvision>());
        if self.json {
            print(&json!({ "ready": false, "provisioned": !provision, "error": format!("{error:#}") }));
        }
        let what = if provision { "this host cannot be provisioned" } else { "failed" };
        // Where this cannot be written, nobody could be told so either.
        let _ = writeln!(io::stderr(), "cargo xtask testbed: {what}: {error:#}");
        ExitCode::from(if provision { 2 } else { 1 })
    }
}

/// A reader that has seen enough, as `head`, is no reason to leave a testbed half made.
fn print(line: &dyn Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Seconds as people read them: to a tenth.
pub(crate) fn round(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_cannot_be_provisioned_is_told_from_a_failure() {
        let report = Report::new(false);
        let provision = cannot_provision("no bridge").context("while starting");
        assert_eq!(format!("{:?}", report.failed(&provision)), format!("{:?}", ExitCode::from(2)));
        assert_eq!(format!("{:?}", report.failed(&Error::msg("x"))), format!("{:?}", ExitCode::from(1)));
    }
}
