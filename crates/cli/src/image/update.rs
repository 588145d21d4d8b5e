//! `muster image update`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use muster_agent::update::{RECORD, Record, boot};
use muster_image::slots::Machine;
use muster_image::update::Update;
use muster_protocol::{ImageStatus, Status};
use muster_wire::Role;

use super::fetch;
use super::progress::Told;
use super::slots::{confirmed, restart};
use crate::args::{UpdateArguments, Whom};
use crate::exit::Exit;
use crate::look::agent;
use crate::print;

/// Where an image is kept while it is looked at: on the disk that has room.
const PLACE: &str = "/var/lib";

/// Writes an image into the slot from which this machine does not run, and starts it.
///
/// # Errors
/// When it is refused or cannot be written; then this machine starts as before.
pub(super) async fn update(arguments: &UpdateArguments) -> anyhow::Result<Exit> {
    let confirm = &arguments.confirm;
    let machine = Machine::here()?;
    let place = tempfile::Builder::new().prefix("muster-update-").tempdir_in(PLACE).context("no room on the disk")?;
    let image = obtained(arguments, place.path()).await?;
    let update = match Update::of(&image, &machine)? {
        Some(update) => update,
        None => {
            print::line("this machine runs this image")?;
            return Ok(Exit::Done);
        }
    };
    let settings: String = update.contents.settings.chars().take(12).collect();
    let what = format!(
        "the image with settings {settings} ({} MiB) is written to slot {} of {}, and this machine starts it; if it is not well with it, it \
         goes back by itself",
        update.bytes >> 20,
        update.slot,
        machine.disk.display()
    );
    if let Some(why) = refusal(&machine, &update, &arguments.whom).await? {
        match arguments.force {
            true => print::complaint(&format!("warning: {why}")),
            false => bail!("{why}; --force does it all the same"),
        }
    }
    if !confirmed(confirm, &what, "Write it and start this machine again?")? {
        return Ok(if confirm.dry_run { Exit::Done } else { Exit::Failed });
    }
    update.write(&machine.disk, machine.efi(), &Told::new(confirm.json))?;
    let record = Record {
        to: update.contents.root_hash.clone(),
        settings: update.contents.settings.clone(),
        slot: update.slot,
        boot: boot(),
    };
    std::fs::write(RECORD, serde_json::to_vec(&record)?).with_context(|| format!("{RECORD} cannot be written"))?;
    drop(machine);
    drop(place);
    restart(confirm)
}

/// The image as a file that can be read in any order.
async fn obtained(arguments: &UpdateArguments, place: &Path) -> anyhow::Result<PathBuf> {
    let mut file = PathBuf::from(&arguments.image);
    if arguments.image.contains("://") {
        let to = place.join("fetched");
        let answer = fetch::fetch(&arguments.image, &to, arguments.confirm.json);
        tokio::select! {
            fetched = answer => fetched?,
            _ = tokio::signal::ctrl_c() => bail!("ended; nothing is changed"),
        }
        file = to;
    }
    if let Some(wanted) = &arguments.sha256 {
        let hash = muster_image::sha256(&file)?;
        if !hash.eq_ignore_ascii_case(wanted) {
            bail!("{}: its SHA-256 is {hash}, not {wanted}", arguments.image);
        }
    }
    muster_image::unpacked(&file, &place.join("image"))
}

/// Why this machine would be worse off, or the cluster.
async fn refusal(machine: &Machine, update: &Update, whom: &Whom) -> anyhow::Result<Option<String>> {
    let runs = machine.slots()?.into_iter().find(|slot| slot.running).and_then(|slot| slot.contents);
    let ours = runs.as_ref().map(|contents| contents.cluster.as_str());
    if ours.is_some_and(|ours| ours != update.contents.cluster) {
        return Ok(Some(format!(
            "the image is for cluster {}, and this machine is of another",
            update.contents.cluster
        )));
    }
    let status: Status = match agent(whom)?.json("/v1/status").await {
        Ok(status) => status,
        Err(error) => return Ok(Some(format!("whether the cluster takes the image is not known: {error}"))),
    };
    if status.charter.is_some() {
        let images: Vec<ImageStatus> = agent(whom)?.json("/v1/images").await?;
        if !images.iter().any(|image| image.accepted && image.digest == update.contents.settings) {
            let settings: String = update.contents.settings.chars().take(12).collect();
            return Ok(Some(format!(
                "the cluster does not know an image with settings {settings}, and would turn this machine away: `muster image accept` its \
                 muster.toml first"
            )));
        }
    }
    Ok(costs_majority(&status))
}

/// While this machine starts, the others must be a majority of the control planes. One alone has no others.
fn costs_majority(status: &Status) -> Option<String> {
    if status.role != Some(Role::ControlPlane) {
        return None;
    }
    let others: Vec<_> = status.peers.iter().filter(|peer| peer.role == Some(Role::ControlPlane)).collect();
    let alive = others.iter().filter(|peer| peer.alive && peer.joined).count();
    let all = others.len() + 1;
    let needed = all / 2 + 1;
    let missing: Vec<&str> =
        others.iter().filter(|peer| !peer.alive || !peer.joined).map(|peer| peer.name.as_str()).collect();
    (!others.is_empty() && alive < needed).then(|| {
        let missing = if missing.is_empty() {
            "there are too few".to_owned()
        } else {
            format!("{} not well", missing.join(", "))
        };
        format!("while this control plane starts the others would be no majority: {missing}")
    })
}

#[cfg(test)]
mod tests {
    use muster_protocol::status::Peer;

    use super::*;

    #[test]
    fn a_control_plane_starts_again_while_the_others_are_a_majority() {
        let peer =
            |alive| Peer { name: "m".into(), role: Some(Role::ControlPlane), alive, joined: true, ..Peer::default() };
        let status = |role, alive: &[bool]| Status {
            role: Some(role),
            peers: alive.iter().map(|one| peer(*one)).collect(),
            ..Status::default()
        };
        assert_eq!(costs_majority(&status(Role::ControlPlane, &[true, true])), None);
        assert!(costs_majority(&status(Role::ControlPlane, &[true, false])).is_some());
        assert!(costs_majority(&status(Role::ControlPlane, &[true])).is_some(), "of two each is needed");
        assert_eq!(costs_majority(&status(Role::ControlPlane, &[])), None, "one alone has none to keep");
        assert_eq!(costs_majority(&status(Role::Worker, &[false, false])), None);
        assert_eq!(costs_majority(&status(Role::ControlPlane, &[true, true, true, false])), None);
        assert!(costs_majority(&status(Role::ControlPlane, &[true, true, false, false])).is_some());
    }
}
