//! `muster config check`, `show` and `example`; `muster version`.

use muster_kubeadm::Version;
use muster_wire::limits::PROTOCOL_VERSION;
use serde_json::json;

use crate::args::ConfigAction;
use crate::config::{self, Overrides, example};
use crate::exit::Exit;
use crate::{print, text, volumes};

/// Carries out one of `muster config`'s commands.
///
/// # Errors
/// When there is no entropy for a mesh key, or standard output cannot be written.
pub(crate) fn carry_out(action: &ConfigAction) -> anyhow::Result<Exit> {
    match action {
        ConfigAction::Check { file, json, beside: true, .. } => check_beside(file, *json),
        ConfigAction::Check { file, json, set, .. } => check(file, *json, set),
        ConfigAction::Show { file, set } => show(file, set),
        ConfigAction::Volumes { restart, json } => volumes::read(*restart, *json),
        ConfigAction::Example { cluster, machines, control_planes } => {
            let text = example::example(cluster, *machines, *control_planes, &example::fresh_key()?);
            // What the flags gave must be right as well.
            match config::read(&config::problem::Source { path: "example", text: &text }, &Overrides::default()) {
                Ok(_) => _ = print::raw(&text)?,
                Err(refused) => {
                    print::complaint(&refused.to_string());
                    return Ok(Exit::Wrong);
                }
            }
            Ok(Exit::Done)
        }
    }
}

fn check(file: &std::path::Path, json: bool, set: &[String]) -> anyhow::Result<Exit> {
    let path = file.display();
    match config::load(file, &Overrides { set: set.to_vec(), ..Overrides::default() }) {
        Ok(loaded) => {
            let image = &loaded.image;
            if json {
                let digest = hex::encode(image.digest.0);
                let right =
                    json!({"right": true, "file": path.to_string(), "digest": digest, "problems": loaded.findings});
                print::line(&right.to_string())?;
                return Ok(Exit::Done);
            }
            if !loaded.warnings.is_empty() {
                print::complaint(&loaded.warnings);
            }
            print::line(&format!(
                "{path} is right: cluster {}, {} machines, {} control planes; settings {}",
                image.cluster, image.machines, image.control_planes, image.digest
            ))?;
            Ok(Exit::Done)
        }
        Err(refused) => {
            if json {
                print::line(&json!({"right": false, "file": refused.path, "problems": refused.problems}).to_string())?;
            } else {
                print::complaint(&refused.to_string());
            }
            Ok(Exit::Wrong)
        }
    }
}

fn check_beside(file: &std::path::Path, json: bool) -> anyhow::Result<Exit> {
    let text = match std::fs::File::open(file) {
        Ok(opened) => config::read_text(opened),
        Err(error) => Err(format!("cannot be read: {error}")),
    };
    let wrong = config::wrong_beside(text);
    let path = file.display().to_string();
    if json {
        print::line(&json!({"right": wrong.is_empty(), "file": path, "problems": wrong}).to_string())?;
    } else if wrong.is_empty() {
        print::line(&format!("{path} is right, beside an image's"))?;
    }
    for problem in wrong.iter().filter(|_| !json) {
        let line = problem.line.map(|line| format!(":{line}")).unwrap_or_default();
        print::complaint(&format!("error: {path}{line}: {}", problem.text));
    }
    Ok(if wrong.is_empty() { Exit::Done } else { Exit::Wrong })
}

fn show(file: &std::path::Path, set: &[String]) -> anyhow::Result<Exit> {
    if let Some(hidden) = config::hidden() {
        print::complaint(&format!("warning: what {hidden} says is root's to read: it is left out here"));
    }
    match config::load(file, &Overrides::of_this_machine(set.to_vec())) {
        Ok(loaded) => {
            if !loaded.warnings.is_empty() {
                print::complaint(&loaded.warnings);
            }
            let rows = loaded
                .image
                .shown
                .into_iter()
                .map(|(key, value, origin)| vec![key.to_owned(), value, format!("# {origin}")]);
            let rows: Vec<Vec<String>> = rows.collect();
            print::line(&text::table(&rows).join("\n"))?;
            Ok(Exit::Done)
        }
        Err(refused) => {
            print::complaint(&refused.to_string());
            Ok(Exit::Wrong)
        }
    }
}

/// `muster version`.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) fn version(json: bool) -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let (oldest, newest) = (Version::OLDEST_MINOR, Version::NEWEST_MINOR);
    if json {
        let kubernetes = json!({"oldest": format!("v1.{oldest}"), "newest": format!("v1.{newest}")});
        print::line(&json!({"muster": version, "protocol": PROTOCOL_VERSION, "kubernetes": kubernetes}).to_string())?;
    } else {
        print::line(&format!("muster {version}, protocol {PROTOCOL_VERSION}, Kubernetes v1.{oldest} to v1.{newest}"))?;
    }
    Ok(())
}
