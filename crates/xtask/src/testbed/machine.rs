//! One machine: its disk, its boot, its end.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::layout::Paths;
use super::network;
use crate::command::{command, run};

/// Directories that cannot live on the overlay: containerd stacks overlays of its own on one, the others are synced and
/// must be what they would be on a disk.
const DISKS: [&str; 4] = ["containerd", "kubelet", "etcd", "muster"];
/// How long the kernel may take to end a killed machine's processes.
const END_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Serialize, Deserialize, Clone)]
pub(crate) struct Machine {
    /// Its name in this testbed, unique.
    pub(crate) name: String,
    /// What it is told it is called; may be the same for all.
    pub(crate) hostname: String,
    pub(crate) directory: PathBuf,
    /// Its network namespace, its cgroup and the host's end of its cable all have this name.
    pub(crate) link: String,
    pub(crate) bridge: String,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) address: Ipv4Addr,
    /// The two lower directories of its disk, the same for every machine: the image, and above it muster itself.
    pub(crate) image: PathBuf,
    pub(crate) layer: PathBuf,
    /// Share of received packets that is dropped, in percent.
    pub(crate) loss_percent: u8,
    pub(crate) delay_ms: Option<u32>,
    pub(crate) rate_kbit: Option<u32>,
    /// Whether muster starts at boot.
    pub(crate) muster: bool,
}

impl Machine {
    /// The machine's root directory, as the host sees it.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// Makes the machine's disk; one that is there is kept as it is.
    pub(crate) fn make_disk(&self) -> Result<()> {
        let disk = self.directory.join("disk");
        if disk.exists() {
            return Ok(());
        }
        let part = self.directory.join("disk.part");
        let _ = fs::remove_dir_all(&part);
        for name in ["upper", "work", "kubelet", "etcd", "muster"] {
            fs::create_dir_all(part.join(name))?;
        }
        // Container images come with the image. Their files are never changed, so hard links do where they can be made;
        // containerd's databases are changed, so every machine needs its own.
        let (from, to) = (self.image.join("var/lib/containerd"), part.join("containerd"));
        let (from, to) = (from.to_string_lossy().into_owned(), to.to_string_lossy().into_owned());
        if run("cp", ["-al", &from, &to]).is_err() {
            let _ = fs::remove_dir_all(&to);
            run("cp", ["-a", "--reflink=auto", &from, &to])?;
        }
        for database in run("find", [&from, "-name", "*.db", "-printf", "%P\\n"])?.lines() {
            let target = Path::new(&to).join(database);
            fs::remove_file(&target)?;
            fs::copy(Path::new(&from).join(database), &target)?;
        }
        fs::rename(&part, &disk).context("cannot make the machine's disk")
    }

    /// Takes its power and its disk, and boots it with an empty one.
    pub(crate) fn wipe(&self) -> Result<()> {
        self.kill()?;
        self.clear()?;
        fs::remove_dir_all(self.directory.join("disk")).context("cannot take the machine's disk away")?;
        self.start()
    }

    /// Boots the machine from its disk and returns once its first process runs.
    pub(crate) fn start(&self) -> Result<()> {
        if self.running() {
            return Ok(());
        }
        self.clear()?;
        self.make_disk()?;
        fs::create_dir_all(self.root())?;
        let disk = self.directory.join("disk");
        let options = format!(
            "lowerdir={}:{},upperdir={},workdir={}",
            self.layer.display(),
            self.image.display(),
            disk.join("upper").display(),
            disk.join("work").display()
        );
        run("mount", ["-t", "overlay", "overlay", "-o", &options, &self.root().to_string_lossy()])?;
        network::attach(self)?;

        let console = fs::OpenOptions::new().create(true).append(true).open(self.directory.join("console.log"))?;
        let mut nspawn = vec![
            "--quiet".to_owned(),
            "--boot".to_owned(),
            // No systemd on the host is asked for anything.
            "--register=no".to_owned(),
            "--keep-unit".to_owned(),
            self.directory_argument(),
            format!("--machine={}", self.link),
            format!("--hostname={}", self.hostname),
            format!("--network-namespace-path=/run/netns/{}", self.link),
            "--capability=all".to_owned(),
            "--console=pipe".to_owned(),
            "--resolv-conf=off".to_owned(),
            "--timezone=off".to_owned(),
            "--link-journal=no".to_owned(),
            "--bind=/dev/kmsg".to_owned(),
        ];
        nspawn.extend(DISKS.iter().map(|name| format!("--bind={}:/var/lib/{name}", disk.join(name).display())));
        if !self.muster {
            nspawn.push("systemd.mask=muster.service".to_owned());
        }
        let boot = Paths::recipes().join("boot.sh");
        let mut command = command("setsid", [boot.as_os_str(), self.link.as_ref()]);
        command.args(nspawn).current_dir("/");
        command.stdout(console.try_clone()?).stderr(console).stdin(Stdio::null());
        command.spawn().context("cannot start the machine")?;
        let started = Instant::now();
        while self.leader().is_none() {
            if started.elapsed() > END_TIMEOUT {
                bail!("did not boot; see {}", self.directory.join("console.log").display());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Takes the power away: every process ends at once, nothing is written back by them.
    pub(crate) fn kill(&self) -> Result<()> {
        let started = Instant::now();
        while let Some(nspawn) = self.nspawn() {
            if started.elapsed() > END_TIMEOUT {
                bail!("process {nspawn} does not end");
            }
            // Its child is the machine's first process: with that one gone the kernel ends all the others.
            end(self.leader().into_iter().chain([nspawn]))?;
        }
        // A start that was cut off may have left what would become the machine a moment later.
        while let Some(starting) = self.processes().next() {
            if started.elapsed() > END_TIMEOUT {
                bail!("process {starting} does not end");
            }
            end([starting])?;
        }
        self.clear()
    }

    /// Removes what a boot made outside the machine's disk.
    pub(crate) fn clear(&self) -> Result<()> {
        network::detach(self)?;
        let root = self.root();
        while is_mounted(&root)? {
            run("umount", ["--lazy".as_ref(), root.as_os_str()])?;
        }
        let script = r#"for path in /sys/fs/cgroup/*/"$1" /sys/fs/cgroup/"$1"; do
            [ ! -d "$path" ] || find "$path" -depth -type d -exec rmdir {} + || exit 1
        done"#;
        // The last processes' cgroups stay busy for a moment after they ended.
        let started = Instant::now();
        while let Err(error) = run("sh", ["-c", script, "sh", &self.link]) {
            if started.elapsed() > END_TIMEOUT {
                return Err(error.context("cannot remove the machine's cgroups"));
            }
            sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    pub(crate) fn running(&self) -> bool {
        self.leader().is_some()
    }

    /// The time at which the machine had booted, in seconds since 1970, once it has.
    pub(crate) fn booted_at(&self) -> Option<f64> {
        let leader = self.leader()?;
        let text = fs::read_to_string(format!("/proc/{leader}/root/run/testbed-booted")).ok()?;
        text.trim().parse().ok()
    }

    /// A command inside the running machine, with an environment of its own.
    pub(crate) fn exec<S: AsRef<std::ffi::OsStr>>(&self, words: &[S]) -> Result<Command> {
        let leader = self.leader().with_context(|| format!("machine {} is not running", self.name))?;
        let mut command = Command::new("nsenter");
        command.args(["-t", &leader.to_string(), "-m", "-u", "-i", "-n", "-p", "-C", "--", "env", "-i"]);
        command.args([
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/root",
            "LANG=C.UTF-8",
        ]);
        command.args(words);
        Ok(command)
    }

    /// The machine's first process, as the host numbers it.
    fn leader(&self) -> Option<u32> {
        let nspawn = self.nspawn()?;
        let children = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children")).ok()?;
        let leader = children.split_whitespace().next()?.parse().ok()?;
        // Before it is systemd it is nspawn's own child, in no namespace yet.
        let name = fs::read_to_string(format!("/proc/{leader}/comm")).ok()?;
        (name.trim() == "systemd").then_some(leader)
    }

    /// The process that holds the machine.
    fn nspawn(&self) -> Option<u32> {
        self.processes().find(|pid| {
            let line = command_line(*pid);
            line.split(|byte| *byte == 0).next().is_some_and(|program| program.ends_with(b"systemd-nspawn"))
                && !is_child_of_nspawn(*pid, &line)
        })
    }

    /// The processes that hold the machine or start it, found by their command line: that cannot name another process by
    /// mistake.
    fn processes(&self) -> impl Iterator<Item = u32> {
        let argument = self.directory_argument();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(move |pid| command_line(*pid).split(|byte| *byte == 0).any(|word| word == argument.as_bytes()))
    }

    fn directory_argument(&self) -> String {
        format!("--directory={}", self.root().display())
    }
}

fn command_line(pid: u32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// Ends processes at once, and gives the kernel a moment for it.
fn end(pids: impl IntoIterator<Item = u32>) -> Result<()> {
    let pids = pids.into_iter().map(|pid| pid.to_string());
    // One that has just ended by itself is no failure.
    command("kill", ["-KILL".to_owned()].into_iter().chain(pids)).output().context("cannot start `kill`")?;
    sleep(Duration::from_millis(50));
    Ok(())
}

/// nspawn forks before it runs the machine's systemd; the copy has the same command line.
fn is_child_of_nspawn(pid: u32, line: &[u8]) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything, so fields are counted from the last one.
    let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
    parent.is_some_and(|parent| fs::read(format!("/proc/{parent}/cmdline")).is_ok_and(|other| other == line))
}

fn is_mounted(path: &Path) -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let path = path.to_string_lossy();
    Ok(mounts.lines().any(|line| line.split(' ').nth(1) == Some(&*path)))
}
