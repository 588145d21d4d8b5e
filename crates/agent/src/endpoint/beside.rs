//! The agent's side of an endpoint that is a service of its own: it has systemd run it, and tells it what to go by.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tracing::{info, warn};

use super::serve::{LINE_BYTES_MAX, made_from};
use super::{Site, Told};

/// Its unit's name.
const UNIT: &str = "muster-endpoint.service";

/// Where units are that last until the next boot.
const UNITS: &str = "/run/systemd/system";

/// How long it may take to listen.
const LISTENS: Duration = Duration::from_secs(5);

/// Pause before it is looked for again.
const PAUSE: Duration = Duration::from_millis(100);

/// How long systemctl may take: on a slow machine that boots, systemd reads all its units anew for a while.
const SYSTEMCTL: Duration = Duration::from_secs(60);

/// Sees to it that the service runs, of this very binary. False where there is no systemd that could run it: it is then served in this process.
///
/// # Errors
/// It runs, and does not listen.
pub(super) async fn start(site: &Site) -> Result<bool, String> {
    if !Path::new(UNITS).is_dir() {
        return Ok(false);
    }
    let path = Path::new(UNITS).join(UNIT);
    let unit = unit(site).map_err(|why| format!("what this program is cannot be found: {why}"))?;
    let another = std::fs::read_to_string(&path).ok().as_deref() != Some(unit.as_str());
    if another {
        if let Err(why) = std::fs::write(&path, unit) {
            warn!("{}: {why}; the API endpoint ends with this process", path.display());
            return Ok(false);
        }
        systemctl(&["daemon-reload"]).await?;
    }
    // Whoever listens of this binary is let be, with all its connections.
    if !another && connect(site).await.is_ok_and(|(_, made)| made_from().is_ok_and(|own| own == made)) {
        return Ok(true);
    }
    info!("the API endpoint is started, as {UNIT}");
    systemctl(&["restart", UNIT]).await?;
    let begun = std::time::Instant::now();
    loop {
        match connect(site).await {
            Ok(_) => return Ok(true),
            Err(why) if begun.elapsed() > LISTENS => {
                return Err(format!("{UNIT} does not answer ({why}): see `journalctl -u {UNIT}`"));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn unit(site: &Site) -> std::io::Result<String> {
    let program = std::env::current_exe()?;
    Ok(format!(
        "[Unit]\nDescription=muster: this machine's way to the cluster's API\nStartLimitIntervalSec=0\n\n\
         [Service]\nExecStart={} endpoint --listen {} --ca {} --run-dir {} --state-dir {}\nRestart=always\nRestartSec=100ms\n\
         NotifyAccess=main\nWatchdogSec=15\nWatchdogSignal=SIGKILL\nLimitNOFILE=65536\nOOMScoreAdjust=-500\nNoNewPrivileges=yes\nUMask=0077\nLimitCORE=0\n",
        quoted(&program),
        site.listen,
        quoted(&site.ca),
        quoted(&site.run_dir),
        quoted(&site.state_dir)
    ))
}

/// A path as one word of a unit (systemd.service(5), "Command lines").
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$"))
}

async fn systemctl(words: &[&str]) -> Result<(), String> {
    let mut command = tokio::process::Command::new("systemctl");
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let what = format!("systemctl {}", words.join(" "));
    match tokio::time::timeout(SYSTEMCTL, command.status()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("{what}: {status}")),
        Ok(Err(why)) => Err(format!("{what}: {why}")),
        Err(_) => Err(format!("{what} takes too long")),
    }
}

/// A connection to it, and what it is made from.
async fn connect(site: &Site) -> std::io::Result<(BufReader<UnixStream>, String)> {
    let mut stream = BufReader::new(UnixStream::connect(site.socket()).await?);
    let mut line = String::new();
    let greets = async { (&mut stream).take(LINE_BYTES_MAX).read_line(&mut line).await };
    match tokio::time::timeout(LISTENS, greets).await {
        Ok(Ok(1..)) => Ok((stream, line.trim().to_owned())),
        Ok(Ok(0)) => Err(std::io::ErrorKind::UnexpectedEof.into()),
        Ok(Err(why)) => Err(why),
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    }
}

/// Once the agent knows of servers, tells it what it is to go by, whenever that changes and whenever it was started anew, for as long as the agent runs.
pub(super) async fn tell(site: Site, mut hears: watch::Receiver<Told>) {
    loop {
        if hears.wait_for(|told| told.known).await.is_err() {
            return;
        }
        if let Ok((mut stream, _)) = connect(&site).await {
            loop {
                let now = hears.borrow_and_update().clone();
                let Ok(line) = serde_json::to_string(&now) else { break };
                if stream.get_mut().write_all(format!("{line}\n").as_bytes()).await.is_err() {
                    break;
                }
                let mut byte = [0];
                tokio::select! {
                    changed = hears.changed() => if changed.is_err() {
                        return;
                    },
                    // It says nothing more: this is its end.
                    _ = stream.read(&mut byte) => break,
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
