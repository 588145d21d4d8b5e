//! What is asked before an image or a machine is written over, and starting the machine again afterwards.

use std::io::IsTerminal as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::json;

use crate::args::ConfirmArguments;
use crate::exit::Exit;
use crate::leave::agreed;
use crate::print;

/// Whether what a command does is wanted: says it, and asks unless that was said already.
///
/// # Errors
/// When nobody can be asked.
pub(super) fn confirmed(arguments: &ConfirmArguments, what: &str, question: &str) -> anyhow::Result<bool> {
    if arguments.dry_run {
        match arguments.json {
            true => print::line(&json!({ "would": what }).to_string())?,
            false => print::line(&format!("nothing is changed. It would be so: {what}"))?,
        };
        return Ok(false);
    }
    if arguments.yes {
        return Ok(true);
    }
    print::complaint(what);
    if !std::io::stdin().is_terminal() {
        bail!("nobody can be asked here: say --yes, or look first with --dry-run");
    }
    let agreed = agreed(&format!("{question} [y/N] "))?;
    if !agreed {
        print::complaint("nothing is changed");
    }
    Ok(agreed)
}

/// Starts the machine again, unless that was not wanted.
pub(super) fn restart(arguments: &ConfirmArguments) -> anyhow::Result<Exit> {
    if arguments.json {
        print::line(&json!({ "done": true, "restarts": !arguments.no_reboot }).to_string())?;
    }
    if arguments.no_reboot {
        if !arguments.json {
            print::line("done; it takes effect at the next start: systemctl reboot")?;
        }
        return Ok(Exit::Done);
    }
    if !arguments.json {
        print::line("done; this machine starts again")?;
    }
    let asked = Command::new("systemctl").arg("reboot").stdin(Stdio::null()).status();
    if asked.context("systemctl cannot be started")?.success() {
        Ok(Exit::Done)
    } else {
        bail!("systemctl reboot failed")
    }
}
