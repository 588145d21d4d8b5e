//! What a machine has to say for itself, for a person that looks for a fault: what the agent knows, the ends of logs, and nothing that is secret.
//!
//! A machine is asked for its own by whoever may use its socket, and for another member's it asks that one over the mesh ([`others`]).

mod others;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use muster_kubeadm::redact;

pub(crate) use others::{Asked, Others, PATIENCE, packed};

/// Longest file of a report in bytes; of a longer one the end is kept.
const FILE_BYTES_MAX: usize = 512 << 10;

/// Longest recording in bytes.
const RECORDING_BYTES_MAX: u64 = 8 << 20;

/// The units whose journals are told, and how many lines of each.
const UNITS: [&str; 4] = ["muster", "muster-endpoint", "kubelet", "containerd"];
const LINES: &str = "1500";

/// How long journalctl may take.
const JOURNAL: Duration = Duration::from_secs(10);

/// Where Pods' logs are; of each container the end of the last one is told.
const POD_LOGS: &str = "var/log/pods";
const POD_LOG_BYTES: u64 = 64 << 10;
const POD_LOGS_MAX: usize = 40;

/// A report: names of files, and what is in them.
pub(crate) type Report = BTreeMap<String, String>;

/// What is on this machine, for whom no agent answers.
pub async fn report_of_disk() -> BTreeMap<String, String> {
    complete(Report::new(), None, None).await
}

/// Adds what is on this machine to what its agent knows. `root` is the machine's root, where the agent is told of another one: then no journal is this
/// machine's. `record` is where it is recorded, if it is.
pub(crate) async fn complete(mut report: Report, root: Option<PathBuf>, record: Option<PathBuf>) -> Report {
    if root.is_none() {
        for unit in UNITS {
            report.insert(format!("journal-{unit}.txt"), journal(unit).await);
        }
    }
    let below = root.unwrap_or_else(|| PathBuf::from("/"));
    let look = move || {
        let mut found = on_disk(&below);
        found.extend(record.as_deref().and_then(recording));
        found
    };
    // The agent's one thread has heartbeats to send meanwhile.
    let all = move || {
        report.extend(look());
        report.into_iter().map(|(name, text)| (name.clone(), clean(&name, &text))).collect()
    };
    tokio::task::spawn_blocking(all).await.unwrap_or_default()
}

async fn journal(unit: &str) -> String {
    let mut command = tokio::process::Command::new("journalctl");
    command.args(["--no-pager", "--output=short-iso-precise", "--lines", LINES, "--unit", unit]);
    command.stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(JOURNAL, command.output()).await {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(Err(why)) => format!("journalctl: {why}\n"),
        Err(_) => "journalctl took too long\n".to_owned(),
    }
}

/// The ends of Pods' logs, and how full the disks are.
fn on_disk(root: &Path) -> Report {
    let mut found = Report::new();
    for directory in ["var/lib/muster", "var/lib/etcd", "run"] {
        if let Ok(disk) = rustix::fs::statvfs(root.join(directory)) {
            let mib = |blocks: u64| blocks.saturating_mul(disk.f_frsize) >> 20;
            let line = format!("/{directory}: {} of {} MiB free\n", mib(disk.f_bavail), mib(disk.f_blocks));
            found.entry("disks.txt".to_owned()).or_default().push_str(&line);
        }
    }
    for pod in listed(&root.join(POD_LOGS)) {
        let name = pod.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with("kube-system_") {
            continue;
        }
        for container in listed(&pod) {
            let last = listed(&container).into_iter().filter(|file| file.extension().is_some_and(|end| end == "log"));
            // 10.log is later than 9.log.
            let by_number = |file: &PathBuf| (file.as_os_str().len(), file.clone());
            if let Some(last) = last.max_by_key(by_number).filter(|_| found.len() < POD_LOGS_MAX) {
                let of = container.file_name().unwrap_or_default().to_string_lossy().into_owned();
                found.insert(format!("pod-{name}-{of}.txt"), end_of(&last));
            }
        }
    }
    found
}

/// The last recording: of use as a whole alone.
fn recording(directory: &Path) -> Option<(String, String)> {
    let modified = |path: &PathBuf| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let last = listed(directory).into_iter().max_by_key(modified)?;
    let name = last.file_name()?.to_string_lossy().into_owned();
    let length = last.metadata().ok()?.len();
    if length > RECORDING_BYTES_MAX {
        return Some((format!("{name}.txt"), format!("it has {length} bytes, and lies in {}\n", directory.display())));
    }
    Some((format!("{name}.base64"), BASE64_STANDARD.encode(std::fs::read(&last).ok()?)))
}

fn listed(directory: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> =
        std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    all.sort();
    all
}

fn end_of(path: &Path) -> String {
    let read = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(POD_LOG_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(POD_LOG_BYTES).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_else(|why| format!("{why}\n"))
}

/// Text without what must not leave the machine: private keys, tokens, passwords, and whatever looks like one. In what the agent tells, digests and identities
/// stay.
fn clean(name: &str, text: &str) -> String {
    if name.ends_with(".base64") {
        return text.to_owned();
    }
    let agents_own = name.ends_with(".json");
    let mut kept = String::with_capacity(text.len().min(FILE_BYTES_MAX));
    let mut in_key = false;
    for line in (if agents_own { text } else { end(text) }).lines() {
        in_key |= line.contains("-----BEGIN") && line.contains("PRIVATE KEY");
        if in_key {
            in_key = !line.contains("-----END");
            kept.push_str("[redacted]\n");
            continue;
        }
        match agents_own {
            true => kept.push_str(line),
            false => kept.push_str(&redact(&without_values(line))),
        }
        kept.push('\n');
    }
    kept
}

/// A line in which what is called a secret has no value.
fn without_values(line: &str) -> String {
    const NAMES: [&str; 11] = [
        "mesh_key",
        "password",
        "passwd",
        "secret",
        "token",
        "credential",
        "client-key-data",
        "authorization",
        "bearer",
        "private_key",
        "private-key",
    ];
    // `to_ascii_lowercase` leaves every byte where it is.
    let lower = line.to_ascii_lowercase();
    let value = |(at, name): (usize, &str)| {
        let after = at + name.len();
        let rest = lower.get(after..)?;
        let skipped = rest.len() - rest.trim_start_matches(['"', '\'', '\\', ' ', ':', '=']).len();
        // A word that goes on is another one; a name without a value gives nothing away. What is called so may be named in passing.
        let assigned = rest.get(..skipped)?.contains([':', '=']) || matches!(name, "bearer" | "password" | "passwd");
        (skipped > 0 && assigned && after + skipped < lower.len()).then_some(after + skipped)
    };
    let from = NAMES.iter().flat_map(|name| lower.match_indices(name)).filter_map(value).min();
    match from {
        Some(from) => format!("{}[redacted]", line.get(..from).unwrap_or_default()),
        None => line.to_owned(),
    }
}

/// The last [`FILE_BYTES_MAX`] of a text.
fn end(text: &str) -> &str {
    let mut from = text.len().saturating_sub(FILE_BYTES_MAX);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text.get(from..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_left_in_a_log() {
        let key = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        let body = key.lines().nth(1).expect("has a body");
        let secrets = [
            "abcdef.0123456789abcdef",
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "hunter2",
            "eyJhbGciOiJSUzI1NiIsImtpZCI6InR3ZW50eXR3ZW50eXR3ZW50eXR3ZW50eSJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl",
            body,
            "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA",
        ];
        let [token, digits, password, jwt, _, opaque] = secrets;
        let log = format!(
            "kubeadm join --token {token} --certificate-key {digits}\nuses http://me:{password}@proxy:3128\n\
             mesh_key = \"{digits}\"\npassword: {password}\nAuthorization: Bearer {jwt}\n{key}\nclient-key-data: {body}\nold {body}\n\
             {{\"Secret\":\"{password}\"}}\nerr=\"{{\\\"password\\\":\\\"{password}\\\"}}\"\npasswordFile=/x password={password}\n\
             secretName: a, secret: {password}\ntoken: {opaque}\nan ordinary line about m-4f2a91c0 at 10.0.0.1\n"
        );
        let cleaned = clean("journal-muster.txt", &log);
        for secret in secrets {
            assert!(!cleaned.contains(secret), "{secret} in {cleaned}");
        }
        let done = "done step=\"delete-token\" phase=\"token/delete\" ms=366\n";
        assert_eq!(clean("log.txt", done), done);
        assert!(cleaned.contains("an ordinary line about m-4f2a91c0 at 10.0.0.1"), "{cleaned}");
        let json = clean("status.json", &format!("{{\"machine\":\"{digits}\"}}\n{key}"));
        assert!(json.contains(digits) && !json.contains(body), "{json}");
    }

    #[test]
    fn the_last_log_of_each_container_is_told() {
        let root = tempfile::tempdir().expect("a directory");
        let container = root.path().join(POD_LOGS).join("kube-system_etcd-m1_0123/etcd");
        std::fs::create_dir_all(&container).expect("made");
        std::fs::write(container.join("9.log"), "first").expect("written");
        std::fs::write(container.join("10.log"), "second").expect("written");
        std::fs::create_dir_all(root.path().join(POD_LOGS).join("default_web_1/web")).expect("made");
        let found = on_disk(root.path());
        let pods: Vec<_> = found.iter().filter(|(name, _)| name.starts_with("pod-")).collect();
        assert_eq!(pods.len(), 1, "{pods:?}");
        assert_eq!((pods[0].0.as_str(), pods[0].1.as_str()), ("pod-kube-system_etcd-m1_0123-etcd.txt", "second"));
    }
}
