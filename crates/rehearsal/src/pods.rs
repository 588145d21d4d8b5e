//! The static Pods: manifests on disk, and the one process that stands for all of them. In the place of the kubelet.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::failure::{Doing as _, Failure, fail};
use crate::pki;
use crate::say::say;
use crate::setting::Setting;
use crate::state::{Member, State};

/// What the manifests say, as the server reads it.
pub(crate) struct Pods {
    pub(crate) name: String,
    /// `host:port` to listen on.
    pub(crate) address: String,
    pub(crate) pki_dir: PathBuf,
    pub(crate) version: String,
    pub(crate) start_after_ms: u64,
    pub(crate) ready_after_ms: u64,
    pub(crate) initial_members: Vec<Member>,
    /// With what these begin etcd together; none if this one does alone, or comes to one that exists.
    pub(crate) token: Option<String>,
    data_dir: PathBuf,
    pid_file: PathBuf,
}

/// The word by which the server process is started.
pub(crate) const SERVE: &str = "rehearsal-serve";

impl Pods {
    /// Reads the manifests below kubeadm's directory.
    pub(crate) fn read(dir: &Path) -> Result<Self, Failure> {
        let manifest = |name: &str| -> Result<Value, Failure> {
            serde_json::from_str(&pki::read(&dir.join("manifests").join(name))?).doing(name)
        };
        let (server, etcd) = (manifest("kube-apiserver.yaml")?, manifest("etcd.yaml")?);
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| fail("a manifest lacks a field"));
        Ok(Self {
            name: text(&server["name"])?,
            address: text(&server["address"])?,
            pki_dir: text(&server["certificatesDir"])?.into(),
            version: text(&server["version"])?,
            start_after_ms: server["startAfterMs"].as_u64().unwrap_or(0),
            ready_after_ms: server["readyAfterMs"].as_u64().unwrap_or(0),
            initial_members: serde_json::from_value(etcd["initialMembers"].clone()).doing("etcd.yaml")?,
            token: etcd["token"].as_str().map(str::to_owned),
            data_dir: text(&etcd["dataDir"])?.into(),
            pid_file: dir.join("rehearsal-apiserver.pid"),
        })
    }

    /// Whether it comes to a cluster that exists.
    pub(crate) fn joins(&self) -> bool {
        self.token.is_none() && self.initial_members.iter().any(|member| member.name != self.name)
    }

    /// What this member knew when it last ran; nothing if it never did, or if its disk is damaged.
    pub(crate) fn load_state(&self) -> State {
        let text = fs::read_to_string(self.state_file()).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    pub(crate) fn save_state(&self, state: &State) -> Result<(), Failure> {
        pki::write(&self.state_file(), &json!(state).to_string())
    }

    /// etcd's data directory.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    fn state_file(&self) -> PathBuf {
        self.data_dir.join("member/rehearsal.json")
    }

    /// Whether the pid file still names this process.
    pub(crate) fn is_current(&self) -> bool {
        read_pid(&self.pid_file).is_some_and(|pid| pid.as_raw_nonzero().get() as u32 == std::process::id())
    }
}

/// Writes the manifest of the API server. The other two components come with it.
pub(crate) fn write_control_plane(setting: &Setting, manifest: &Value, component: &str) -> Result<(), Failure> {
    say!("[control-plane] Creating static Pod manifest for \"kube-{component}\"");
    let mut manifest = manifest.clone();
    manifest["note"] = json!("a rehearsal: no container runs");
    pki::write(&setting.manifests().join(format!("kube-{component}.yaml")), &format!("{manifest:#}\n"))?;
    pki::restrict(&setting.manifests())
}

/// Starts the server if all that the kubelet would need is there and it does not run yet.
pub(crate) fn start(setting: &Setting) -> Result<(), Failure> {
    let needed = ["kube-apiserver.yaml", "etcd.yaml"].map(|name| setting.manifests().join(name));
    let kubelet_runs = setting.kubelet_dir.join("config.yaml").exists();
    if !kubelet_runs || !needed.iter().all(|path| path.exists()) || running(setting).is_some() {
        return Ok(());
    }
    let program = std::env::current_exe().doing("this program's own file")?;
    let log = fs::File::options().create(true).append(true).open(setting.dir.join("rehearsal-apiserver.log"));
    let child = Command::new(program)
        // By this name the program is the double.
        .arg0("kubeadm")
        .arg(SERVE)
        .arg(&setting.dir)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.map_or_else(|_| Stdio::null(), Stdio::from))
        // It must outlive this run, whose process group may be killed.
        .process_group(0)
        .spawn()
        .doing("couldn't start the server")?;
    pki::write(&setting.pid_file(), &child.id().to_string())
}

/// Ends the server, if there is one.
pub(crate) fn stop(setting: &Setting) {
    let pid = running(setting);
    // Without its pid file it ends by itself, should the signal miss it.
    let _ = fs::remove_file(setting.pid_file());
    let Some(pid) = pid else { return };
    let _ = kill_process(pid, Signal::KILL);
    let begin = Instant::now();
    while is_ours(pid, setting) && begin.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The server's process, if it lives.
fn running(setting: &Setting) -> Option<Pid> {
    read_pid(&setting.pid_file()).filter(|pid| is_ours(*pid, setting))
}

fn read_pid(path: &Path) -> Option<Pid> {
    Pid::from_raw(fs::read_to_string(path).ok()?.trim().parse().ok()?)
}

/// Pids are used again: whose it is shows in its command line. A dead process that nobody waited for has none.
fn is_ours(pid: Pid, setting: &Setting) -> bool {
    let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    let words: Vec<_> = line.split(|byte| *byte == 0).collect();
    words.get(1) == Some(&SERVE.as_bytes()) && words.get(2) == Some(&setting.dir.as_os_str().as_encoded_bytes())
}
