//! `muster bundle`: one archive for a bug report, with what every machine that answers has to say for itself, and no secret.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::stream::{self, StreamExt as _};
use muster_protocol::Status;
use serde_json::{Value, json};

use crate::api::Agent;
use crate::args::BundleArguments;
use crate::exit::Exit;
use crate::look::agent;
use crate::print;

/// How long one machine may take: its logs are read, and come over the mesh.
const PATIENCE: Duration = Duration::from_secs(50);

/// How many are asked at once.
const AT_ONCE: usize = 4;

const README: &str = "\
What the machines of a cluster had to say, gathered by `muster bundle`. A directory a machine:

  status.json, explain.json  what muster says of the machine, and what it waits for
  ledger.json                what the cluster has agreed on, without ciphertexts
  events.txt, log.txt        what it did, since its agent started
  journal-*.txt, pod-*.txt   the ends of the system's and the control plane's logs
  *.recording.base64         what the machine was given, for `muster-sim replay`, if it was recorded

Private keys, tokens, passwords and whatever looked like one are [redacted]. Addresses and names of machines are not.
";

/// A machine of the bundle.
struct Told {
    name: String,
    short: String,
    /// Its files, or why there are none.
    files: Result<BTreeMap<String, String>, String>,
}

/// Makes the archive.
///
/// # Errors
/// When it cannot be written.
pub(crate) async fn bundle(arguments: &BundleArguments) -> anyhow::Result<Exit> {
    if let Some(path) = arguments.out.as_ref().filter(|path| path.symlink_metadata().is_ok()) {
        anyhow::bail!("{} is there already, and is not written over", path.display());
    }
    let told = match (agent(&arguments.whom), status(arguments).await) {
        (Ok(agent), Ok(status)) => everybody(&agent, &status, arguments).await,
        (_, Err(why)) | (Err(why), _) => {
            // A machine whose agent does not run is the one that is looked at.
            print::complaint(&format!("{why}; what is on this machine's disk is taken"));
            let files = muster_agent::report_of_disk().await;
            vec![Told { name: "this-machine".to_owned(), short: String::new(), files: Ok(files) }]
        }
    };
    let path = match &arguments.out {
        Some(path) => path.clone(),
        None => PathBuf::from(format!("muster-bundle-{}.tar.gz", seconds())),
    };
    if let Err(why) = write(&path, &told) {
        // Half an archive is none, and takes the room that a full disk does not have. One that was there before is somebody's.
        if why.kind() != std::io::ErrorKind::AlreadyExists {
            let _ = std::fs::remove_file(&path);
        }
        return Err(why).with_context(|| format!("{} cannot be written", path.display()));
    }
    let missing = told.iter().filter(|told| told.files.is_err()).count();
    if arguments.json {
        print::line(&json!({ "bundle": path, "machines": machines(&told) }).to_string())?;
    } else {
        let of = |missing: usize| if missing == 0 { String::new() } else { format!(", {missing} did not answer") };
        print::line(&format!("{}: {} machines{}", path.display(), told.len() - missing, of(missing)))?;
    }
    Ok(Exit::Done)
}

async fn status(arguments: &BundleArguments) -> Result<Status, crate::api::Unheard> {
    agent(&arguments.whom)?.json("/v1/status").await
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Asks this machine's agent for its own report, and those of all that it is connected to.
async fn everybody(agent: &Agent, status: &Status, arguments: &BundleArguments) -> Vec<Told> {
    let own = (status.name.clone(), status.short.clone(), "/v1/report".to_owned(), true);
    let others = status.peers.iter().filter(|_| !arguments.only_this).map(|peer| {
        let path = format!("/v1/report?machine={}", peer.machine);
        (peer.name.clone(), peer.short.clone(), path, peer.connected)
    });
    let asked = std::iter::once(own).chain(others).map(|(name, short, path, connected)| async move {
        let files = match connected {
            true => match tokio::time::timeout(PATIENCE, agent.json(&path)).await {
                Ok(told) => told.map_err(|why| why.to_string()),
                Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
            },
            false => Err("it is not connected".to_owned()),
        };
        let told = Told { name, short, files };
        if !arguments.json {
            print::complaint(&told.line());
        }
        told
    });
    let asked: Vec<_> = asked.collect();
    stream::iter(asked).buffered(AT_ONCE).collect().await
}

impl Told {
    fn line(&self) -> String {
        match &self.files {
            Ok(files) => {
                let bytes: usize = files.values().map(String::len).sum();
                format!("{} ({}): {} files, {} KiB", self.name, self.short, files.len(), bytes >> 10)
            }
            Err(why) => format!("{} ({}): {why}", self.name, self.short),
        }
    }
}

fn machines(told: &[Told]) -> Vec<Value> {
    let row = |told: &Told| json!({ "name": told.name, "machine": told.short, "files": told.files.as_ref().map_or(0, BTreeMap::len), "why": told.files.as_ref().err() });
    told.iter().map(row).collect()
}

/// Writes the archive, which its owner alone may read.
fn write(path: &Path, told: &[Told]) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    let made = seconds();
    let mut add = |name: &str, text: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(made);
        archive.append_data(&mut header, Path::new("muster-bundle").join(name), text.as_bytes())
    };
    add("README.txt", README)?;
    let version = env!("CARGO_PKG_VERSION");
    add("bundle.json", &format!("{:#}\n", json!({ "muster": version, "made_s": made, "machines": machines(told) })))?;
    for machine in told {
        for (name, text) in machine.files.iter().flatten() {
            // What another machine calls a file is no path here.
            let plain = |name: &str| name.replace(['/', '\0'], "_").trim_start_matches('.').to_owned();
            let directory = format!("{}-{}", plain(&machine.name), plain(&machine.short));
            add(&format!("{}/{}", directory.trim_end_matches('-'), plain(name)), text)?;
        }
    }
    let mut file = archive.into_inner()?.finish()?;
    file.flush()?;
    file.sync_all()
}
