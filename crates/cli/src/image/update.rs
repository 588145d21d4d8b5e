//! `muster image update`.

use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use muster_agent::update::{RECORD, Record, boot};
use muster_image::slots::Machine;
use muster_image::update::Update;
use muster_protocol::{ImageStatus, Status};
use muster_wire::Role;
use serde_json::json;

use super::confirm::{confirmed, restart};
use super::fetch;
use super::progress::Told;
use crate::args::{UpdateArguments, Whom};
use crate::exit::Exit;
use crate::look::agent;
use crate::print;

/// Where an image is kept while it is looked at: on the disk that has room. What an update left that was cut short is taken away first.
const PLACE: &str = "/var/lib/muster-update";

/// Writes an image into the slot from which this machine does not run, and starts it.
///
/// # Errors
/// When it is refused or cannot be written; then this machine starts as before.
pub(super) async fn update(arguments: &UpdateArguments) -> anyhow::Result<Exit> {
    let confirm = &arguments.confirm;
    let machine = Machine::here()?;
    let _lock = machine.lock()?;
    let place = Place::make(Path::new(PLACE))?;
    let image = obtained(arguments, &place.0).await?;
    let Some(update) = Update::of(&image, &machine)? else {
        // Whatever was tried before it is no news any more.
        let _ = std::fs::remove_file(RECORD);
        match confirm.json {
            true => print::line(&json!({ "done": true, "restarts": false, "runs": true }).to_string())?,
            false => print::line("this machine runs this image")?,
        };
        return Ok(Exit::Done);
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
    let told = Told::new(confirm.json);
    update.write(&machine.disk, machine.efi(), &told)?;
    let record = Record {
        to: update.contents.root_hash.clone(),
        settings: update.contents.settings.clone(),
        slot: update.slot,
        boot: boot(),
    };
    // Before the kernel is there: a machine that goes back must know of what.
    noted(&record).with_context(|| format!("{RECORD} cannot be written"))?;
    update.arm(&machine.disk, machine.efi(), &told).inspect_err(|_| _ = std::fs::remove_file(RECORD))?;
    drop(machine);
    drop(place);
    restart(confirm)
}

/// Writes the record so that it lasts.
fn noted(record: &Record) -> anyhow::Result<()> {
    let part = format!("{RECORD}.part");
    let mut file = std::fs::File::create(&part)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()?;
    std::fs::rename(part, RECORD)?;
    Ok(std::fs::File::open("/var/lib")?.sync_all()?)
}

/// A directory that root alone can read, as long as this is there: the mesh key is in an image.
struct Place(PathBuf);

impl Place {
    fn make(path: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("{} cannot be made", path.display());
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).with_context(cannot),
            _ => {}
        }
        std::fs::DirBuilder::new().mode(0o700).create(path).with_context(cannot)?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The image as a file that can be read in any order.
async fn obtained(arguments: &UpdateArguments, place: &Path) -> anyhow::Result<PathBuf> {
    let mut file = PathBuf::from(&arguments.image);
    if arguments.image.contains("://") {
        // An image says of itself that it is right: whoever is on the way could send another.
        if !arguments.image.starts_with("https://") && arguments.sha256.is_none() {
            bail!("{} is not encrypted: say --sha256, as in the SHA256SUMS beside the image", arguments.image);
        }
        file = place.join("fetched");
        fetch::fetch(&arguments.image, &file, arguments.confirm.json).await?;
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
