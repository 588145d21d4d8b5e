//! `muster image`: building images and looking into them; which are accepted, and which machine runs which.

mod boot;
mod build;
mod confirm;
mod fetch;
mod healthy;
mod install;
mod progress;
mod show;
mod slots;
mod update;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use muster_protocol::{Fate, ImageStatus, RunsImage, Status};
use muster_wire::{Image, Wish};
use serde_json::json;

use crate::api::Agent;
use crate::args::{ImageAction, Whom};
use crate::config::{self, Overrides, plan};
use crate::exit::Exit;
use crate::look::agent;
use crate::{print, text};

/// Carries out one of `muster image`'s commands.
///
/// # Errors
/// When no agent answers, or standard output cannot be written.
pub(crate) async fn carry_out(action: &ImageAction) -> anyhow::Result<Exit> {
    match action {
        ImageAction::Build(arguments) => build::build(arguments),
        ImageAction::Show { file, packages, json } => show::show(file, *packages, *json),
        ImageAction::Verify { file, json } => show::verify(file, *json),
        ImageAction::Boot(arguments) => boot::boot(arguments).await,
        ImageAction::Install(arguments) => install::install(arguments),
        ImageAction::Update(arguments) => update::update(arguments).await,
        ImageAction::Slots { json } => slots::list(*json),
        ImageAction::Healthy(arguments) => healthy::healthy(arguments).await,
        ImageAction::FactoryReset(arguments) => slots::factory_reset(arguments),
        ImageAction::Accept { file, dry_run, json, whom } => accept(file, *dry_run, *json, whom).await,
        ImageAction::List { json, whom } => list(*json, whom).await,
    }
}

/// A temporary directory that its owner alone can read: images have the mesh key in them.
fn private_directory() -> anyhow::Result<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut builder = tempfile::Builder::new();
    builder.prefix("muster-image-").permissions(std::fs::Permissions::from_mode(0o700));
    builder.tempdir().context("no temporary directory")
}

async fn accept(file: &Path, dry_run: bool, json: bool, whom: &Whom) -> anyhow::Result<Exit> {
    // The kernel command line is this machine's; the image is another one's.
    let image = match config::load(file, &Overrides::default()) {
        Ok(loaded) => loaded.image,
        Err(refused) => {
            if json {
                print::line(&json!(Fate::Refused { why: refused.to_string() }).to_string())?;
            }
            print::complaint(&refused.to_string());
            return Ok(Exit::Wrong);
        }
    };
    let agent = agent(whom)?;
    let fate = match unfit(&agent, &image).await? {
        Some(why) => Fate::Refused { why: format!("{}: {why}", file.display()) },
        None => {
            let kubernetes_version = image.kubernetes.version.clone().unwrap_or_default();
            let wish = Wish::AcceptImage(Image { digest: image.digest, kubernetes_version });
            let path = if dry_run { "/v1/wish?dry_run=true" } else { "/v1/wish" };
            agent.post(path, &wish).await?
        }
    };
    if json {
        print::line(&json!(fate).to_string())?;
    }
    let say = |line: String| if json { Ok(true) } else { print::line(&line) };
    match fate {
        Fate::Done { revision } => say(format!("image {} is accepted since revision {revision}", image.digest))?,
        Fate::Would { change } => {
            let images: Vec<ImageStatus> = agent.json("/v1/images").await?;
            let digest = hex::encode(image.digest.0);
            let here = images.iter().filter(|one| one.digest == digest).flat_map(|one| &one.machines);
            let here = here.map(machine).collect::<Vec<_>>().join(", ");
            let here = if here.is_empty() { "none known".to_owned() } else { here };
            say(format!("nothing is changed. It would {change}: machines that boot it may join; with it now: {here}"))?
        }
        Fate::Refused { why } => {
            print::complaint(&format!("refused: {why}"));
            return Ok(Exit::Failed);
        }
        Fate::Unknown { why } => {
            print::complaint(&format!("not known: {why}"));
            return Ok(Exit::Failed);
        }
    };
    Ok(Exit::Done)
}

/// Why no machine with this image could ever be of the cluster, accepted or not.
async fn unfit(agent: &Agent, image: &config::Image) -> anyhow::Result<Option<String>> {
    let status: Status = agent.json("/v1/status").await?;
    if status.cluster != image.cluster {
        let (theirs, ours) = (&image.cluster, &status.cluster);
        return Ok(Some(format!("it is for cluster {theirs}, this machine is of cluster {ours}")));
    }
    let here: BTreeMap<String, String> = agent.json("/v1/common").await?;
    let kubernetes = plan::settings(&image.cluster, &image.kubernetes, None, Path::new("/"));
    let there = muster_agent::common(&image.mesh_key, image.kubernetes.endpoint_port, &kubernetes);
    Ok(changed(&here, &there))
}

/// The keys that a later image may not change and that this one does, with both values.
fn changed(here: &BTreeMap<String, String>, there: &BTreeMap<String, String>) -> Option<String> {
    let changed = there.iter().filter_map(|(key, theirs)| {
        let ours = here.get(key).filter(|ours| *ours != theirs)?;
        Some(format!("`{key}` is {theirs}, in the cluster it is {ours}"))
    });
    let changed: Vec<String> = changed.collect();
    let text = || {
        let keys = changed.join(", and ");
        format!("{keys}: a machine with this image would never join. What founded the cluster holds for its whole life")
    };
    (!changed.is_empty()).then(text)
}

async fn list(json: bool, whom: &Whom) -> anyhow::Result<Exit> {
    let images: Vec<ImageStatus> = agent(whom)?.json("/v1/images").await?;
    let shown = if json { json!(images).to_string() } else { describe(&images) };
    print::line(&shown)?;
    Ok(Exit::Done)
}

fn describe(images: &[ImageStatus]) -> String {
    let mut rows = vec![["IMAGE", "KUBERNETES", "ACCEPTED", "MACHINES"].map(str::to_owned).to_vec()];
    let word = |version: &str| if version.is_empty() { "-".to_owned() } else { version.to_owned() };
    for image in images {
        let machines = image.machines.iter().map(machine).collect::<Vec<_>>().join(", ");
        rows.push(vec![
            image.digest.chars().take(12).collect(),
            word(&image.kubernetes_version),
            if image.accepted { "yes" } else { "no" }.to_owned(),
            if machines.is_empty() { "none known".to_owned() } else { machines },
        ]);
    }
    text::table(&rows).join("\n")
}

/// A machine, and what is remarkable about it.
fn machine(one: &RunsImage) -> String {
    let mut said = Vec::new();
    if !one.admitted {
        said.push("not admitted");
    }
    if !one.alive {
        said.push("does not answer");
    }
    if said.is_empty() { one.name.clone() } else { format!("{} ({})", one.name, said.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_changes_what_holds_for_life_is_named_with_both_values() {
        let common = |port: &str| {
            let values = [("kubernetes.endpoint_port", port), ("kubernetes.api_port", "6443")];
            values.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
        };
        assert_eq!(changed(&common("7443"), &common("7443")), None);
        let told = changed(&common("7443"), &common("7444")).expect("another port");
        assert!(told.starts_with("`kubernetes.endpoint_port` is 7444, in the cluster it is 7443: "), "{told}");
    }

    #[test]
    fn who_runs_which_image_reads_well() {
        let runs = |name: &str, admitted| RunsImage {
            machine: "00".repeat(32),
            short: "m-00000000".into(),
            name: name.into(),
            admitted,
            alive: admitted,
            kubernetes: "v1.37.2".into(),
            level: 2,
            kubelet: None,
            certificates_end_s: 0,
            sync_us: 0,
        };
        let image = |digit: &str, version: &str, machines| ImageStatus {
            digest: digit.repeat(64),
            kubernetes_version: version.into(),
            accepted: !version.is_empty(),
            machines,
        };
        let images = [
            image("a", "v1.37.2", vec![runs("lab-1", true), runs("lab-2", true)]),
            image("b", "v1.37.3", vec![]),
            image("c", "", vec![runs("lab-3", false)]),
        ];
        let lines = [
            "IMAGE         KUBERNETES  ACCEPTED  MACHINES",
            "aaaaaaaaaaaa  v1.37.2     yes       lab-1, lab-2",
            "bbbbbbbbbbbb  v1.37.3     yes       none known",
            "cccccccccccc  -           no        lab-3 (not admitted, does not answer)",
        ];
        assert_eq!(describe(&images), lines.join("\n"));
    }
}
