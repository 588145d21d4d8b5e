//! Where a lab lives: its directory, its loopback addresses, and how other commands find it.

use std::fs::{self, TryLockError};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use super::sweep;

/// Where a lab's machines listen for each other. A lab keeps clear of the ports that a real cluster's machine would have.
pub(crate) const MESH_PORT: u16 = 17_390;
/// Where they offer the API.
pub(crate) const ENDPOINT_PORT: u16 = 17_443;
/// Where their API servers listen.
pub(crate) const API_PORT: u16 = 16_443;

/// Labs one computer may run at a time.
const LABS_MAX: u8 = 200;

/// Longest path of a unix socket in bytes, its closing zero excluded.
const SOCKET_PATH_MAX: usize = 107;

/// Holds the machines' directories below the directory of a lab.
pub(crate) const SOCKET_IN_MACHINE: &str = "run/muster/muster.sock";

/// Says that a directory is a lab's, which lab's, and what it holds.
const MARK: &str = "lab.json";

/// A lab's directory and addresses, taken until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    /// Everything of the lab is below it.
    pub(crate) dir: PathBuf,
    /// The third number of its addresses, 127.77.N.x.
    net: u8,
    /// Whoever holds this listener owns the addresses. It ends with the process, however that ends.
    _claim: TcpListener,
    /// The locked mark: whoever holds it owns the directory. A lab in another network namespace sees it, but no listener.
    _mark: fs::File,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Mark {
    net: u8,
    machines: Vec<String>,
}

impl Place {
    /// Takes addresses that no other lab has and makes the directory. What a crashed lab of this user left is removed.
    ///
    /// # Errors
    /// When `dir` is somebody else's or not empty, or no addresses are free.
    pub(crate) fn take(dir: Option<&Path>, machines: &[String]) -> anyhow::Result<Self> {
        let base = base()?;
        remove_leftovers(&base)?;
        let (net, claim) = (1..=LABS_MAX).filter(|net| dir.is_some() || !base.join(net.to_string()).exists()).find_map(claim).with_context(|| {
            format!("no free loopback addresses: something listens on all of 127.77.1.0 to 127.77.{LABS_MAX}.0, ports {MESH_PORT}, {ENDPOINT_PORT}, {API_PORT}")
        })?;
        let dir = match dir {
            Some(dir) => {
                fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
                let dir = dir.canonicalize()?;
                if is_leftover(&dir) {
                    sweep::remove(&dir)?;
                    fs::create_dir(&dir)?;
                }
                ensure!(
                    dir.read_dir()?.next().is_none(),
                    "{} is not empty: the lab wants a directory of its own",
                    dir.display()
                );
                dir
            }
            None => {
                let dir = base.join(net.to_string());
                private_dir(&dir)?;
                dir
            }
        };
        let longest =
            machines.iter().map(|name| dir.join(name).join(SOCKET_IN_MACHINE).as_os_str().len()).max().unwrap_or(0);
        ensure!(
            longest <= SOCKET_PATH_MAX,
            "{} is too long a path for a lab: sockets below it would have {longest} bytes, {SOCKET_PATH_MAX} are allowed",
            dir.display()
        );
        let mut mark = fs::File::create_new(dir.join(MARK))?;
        mark.lock()?;
        mark.write_all(&serde_json::to_vec(&Mark { net, machines: machines.to_vec() })?)?;
        Ok(Self { dir, net, _claim: claim, _mark: mark })
    }

    /// The address of the machine with this number, counted from 0.
    pub(crate) fn address(&self, number: usize) -> Ipv4Addr {
        let host = u8::try_from(number + 1).expect("a lab has at most 100 machines");
        Ipv4Addr::new(127, 77, self.net, host)
    }
}

/// Takes the addresses of one number, if nobody has them.
fn claim(net: u8) -> Option<(u8, TcpListener)> {
    let claim = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::new(127, 77, net, 254), MESH_PORT)).ok()?;
    // A lab that crashed may have left something listening; its first machine stands for all.
    let free = |port| TcpListener::bind(SocketAddrV4::new(Ipv4Addr::new(127, 77, net, 1), port)).is_ok();
    [MESH_PORT, ENDPOINT_PORT, API_PORT].into_iter().all(free).then_some((net, claim))
}

/// This user's directory of labs.
fn base() -> anyhow::Result<PathBuf> {
    let base = std::env::temp_dir().join(format!("muster-lab-{}", rustix::process::getuid().as_raw()));
    match private_dir(&base) {
        Ok(()) => {}
        Err(_) if base.is_dir() => {}
        Err(error) => return Err(error),
    }
    let metadata = fs::symlink_metadata(&base)?;
    ensure!(
        metadata.is_dir() && metadata.uid() == rustix::process::getuid().as_raw() && metadata.mode() & 0o022 == 0,
        "{} is not this user's own: remove it, or set TMPDIR",
        base.display()
    );
    Ok(base)
}

fn private_dir(dir: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(dir).with_context(|| format!("{} cannot be made", dir.display()))
}

fn mark(dir: &Path) -> Option<Mark> {
    serde_json::from_slice(&fs::read(dir.join(MARK)).ok()?).ok()
}

/// Whether a lab's process holds this directory.
fn is_running(dir: &Path) -> bool {
    fs::File::open(dir.join(MARK)).is_ok_and(|mark| matches!(mark.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn is_leftover(dir: &Path) -> bool {
    mark(dir).is_some() && !is_running(dir)
}

/// Labs that were kept on purpose say so by this file.
pub(crate) const KEPT: &str = "kept";

fn remove_leftovers(base: &Path) -> anyhow::Result<()> {
    for entry in base.read_dir()? {
        let dir = entry?.path();
        if dir.is_dir() && is_leftover(&dir) && !dir.join(KEPT).exists() {
            sweep::end_processes(&dir);
            sweep::remove(&dir)?;
        }
    }
    Ok(())
}

/// The socket of a machine of a running lab: the only lab that runs, unless `lab` names one.
///
/// # Errors
/// When there is no such lab or machine, or several labs run.
pub(crate) fn socket(lab: Option<&Path>, machine: Option<&str>) -> anyhow::Result<PathBuf> {
    let dir = match lab {
        Some(dir) => dir.to_owned(),
        None => only_running()?,
    };
    let mark = mark(&dir).with_context(|| format!("{} is no lab's directory", dir.display()))?;
    let first = mark.machines.first().context("the lab has no machines")?;
    let machine = machine.unwrap_or(first);
    if !mark.machines.iter().any(|name| name == machine) {
        bail!("the lab has no machine {machine:?}; it has {}", mark.machines.join(", "));
    }
    Ok(dir.join(machine).join(SOCKET_IN_MACHINE))
}

fn only_running() -> anyhow::Result<PathBuf> {
    let mut running = Vec::new();
    for entry in base()?.read_dir()? {
        let dir = entry?.path();
        if is_running(&dir) {
            running.push(dir);
        }
    }
    match &running[..] {
        [one] => Ok(one.clone()),
        [] => bail!("no lab runs; `muster lab` starts one (one started with --dir is asked with --lab DIR)"),
        several => {
            let names: Vec<String> = several.iter().map(|dir| format!("--lab {}", dir.display())).collect();
            bail!("several labs run; say which: {}", names.join(", "))
        }
    }
}
