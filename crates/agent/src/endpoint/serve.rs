//! The endpoint's own process, `muster endpoint`: a balancer that goes by what the agent last told it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tracing::{info, warn};

use super::{Site, Told, follow};
use crate::balancer::Balancer;

/// Longest line that is taken: a site of 9 control planes needs some hundred bytes.
pub(super) const LINE_BYTES_MAX: u64 = 64 << 10;

/// Pause after an agent could not be heard.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Serves until the process ends.
///
/// # Errors
/// When it cannot listen.
pub async fn serve(site: Site) -> io::Result<()> {
    let balancer = Balancer::new(site.ca.clone());
    balancer.listen(site.listen).await?;
    let socket = site.socket();
    match fs::remove_file(&socket) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    let listener = UnixListener::bind(&socket)?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
    let (told, hears) = watch::channel(kept(&site.kept()));
    tokio::spawn(follow(balancer, hears));
    tokio::spawn(alive());
    info!(listen = %site.listen, servers = told.borrow().servers.len(), "the API endpoint listens");
    loop {
        // One agent at a time: a later one is heard when the former has gone.
        let agent = match listener.accept().await {
            Ok((agent, _)) => agent,
            Err(why) => {
                warn!(%why, "no agent can be heard");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if let Err(why) = hear(agent, &told, &site.kept()).await {
            warn!("the agent is not heard any more: {why}");
        }
        // Closed is what it is while a step of that agent's goes on.
        told.send_if_modified(|told| std::mem::replace(&mut told.closed, false));
    }
}

/// Says now and then that this process goes on: one that stands still is ended, and started anew.
async fn alive() {
    if let Some(interval) = sd_notify::watchdog_enabled() {
        loop {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            tokio::time::sleep(interval / 4).await;
        }
    }
}

/// What this process was made from: an agent of another binary has it replaced.
pub(super) fn made_from() -> io::Result<String> {
    let file = fs::metadata("/proc/self/exe")?;
    Ok(format!("{}:{}:{}:{}", file.dev(), file.ino(), file.size(), file.mtime()))
}

/// Hears one agent to its end.
async fn hear(agent: UnixStream, told: &watch::Sender<Told>, kept: &Path) -> io::Result<()> {
    let (reads, mut writes) = agent.into_split();
    writes.write_all(format!("{}\n", made_from()?).as_bytes()).await?;
    let mut reads = BufReader::new(reads);
    loop {
        let mut line = Vec::new();
        if (&mut reads).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let now: Told = serde_json::from_slice(&line)?;
        // Without it a restart of this process alone begins without servers, until an agent tells it.
        if let Err(why) = keep(kept, &line) {
            warn!("{}: {why}", kept.display());
        }
        told.send_replace(now);
    }
}

fn keep(path: &Path, line: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    io::Write::write_all(&mut file, line)?;
    fs::rename(part, path)
}

/// What the endpoint was told before it was started anew. What cannot be read was never told.
fn kept(path: &Path) -> Told {
    let told = fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Told>(&bytes).ok());
    Told { closed: false, ..told.unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    async fn free() -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
        listener.local_addr().expect("has an address")
    }

    /// What comes of a connection to the endpoint.
    async fn ask(at: SocketAddr) -> String {
        let mut text = String::new();
        if let Ok(mut stream) = tokio::net::TcpStream::connect(at).await {
            let _ = stream.read_to_string(&mut text).await;
        }
        text
    }

    #[tokio::test]
    async fn it_goes_on_with_what_an_agent_told_it_before_it_ended() {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let server = listener.local_addr().expect("has an address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(b"served").await;
            }
        });
        let site = |listen| Site {
            listen,
            ca: directory.path().join("ca.crt"),
            run_dir: directory.path().to_owned(),
            state_dir: directory.path().to_owned(),
        };
        let first = free().await;
        let process = tokio::spawn(serve(site(first)));
        let mut agent = loop {
            match UnixStream::connect(site(first).socket()).await {
                Ok(agent) => break BufReader::new(agent),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            }
        };
        let mut said = String::new();
        agent.read_line(&mut said).await.expect("says what it is made from");
        assert_eq!(said.trim(), made_from().expect("reads"));
        let told = Told { servers: vec![server.to_string()], own: None, machines: 1, closed: true, known: true };
        let line = serde_json::to_string(&told).expect("JSON") + "\n";
        agent.get_mut().write_all(line.as_bytes()).await.expect("told");
        while !site(first).kept().exists() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(ask(first).await, "", "it is closed as long as the agent is there that said so");
        drop(agent);
        while ask(first).await != "served" {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        process.abort();
        // And so it does when it is started anew, with no agent at all.
        let second = free().await;
        let _process = tokio::spawn(serve(site(second)));
        while ask(second).await != "served" {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        // An agent that has just started and knows nothing says nothing; what it says then holds.
        let (said, hears) = watch::channel(Told::default());
        let _agent = tokio::spawn(super::super::beside::tell(site(second), hears));
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert_eq!(ask(second).await, "served");
        said.send_replace(Told { known: true, ..Told::default() });
        while ask(second).await == "served" {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}
