//! Real agents as processes on loopback, each with a directory of its own and with whatever is wrong with it.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long something that must come is waited for. Far longer than it takes, so that a slow computer fails nothing.
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) const MESH_PORT: u16 = 17_390;

/// A temporary directory, addresses nobody else has, and what is common to the machines.
pub(crate) struct Site {
    dir: tempfile::TempDir,
    net: u8,
    _claim: TcpListener,
}

/// What one machine is started with.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) cluster: &'static str,
    pub(crate) machines: u32,
    pub(crate) control_planes: u32,
    pub(crate) mesh_key: String,
    pub(crate) kubeadm: PathBuf,
    pub(crate) fault: &'static str,
    /// Files of the user's documents.
    pub(crate) documents: Vec<PathBuf>,
    /// The host's name, if not one of the machine's own.
    pub(crate) name: Option<&'static str>,
    /// The number of the address that it has, if not its own.
    pub(crate) at: Option<u8>,
}

/// A machine's process; killed when dropped.
pub(crate) struct Agent {
    pub(crate) root: PathBuf,
    child: Child,
}

impl Site {
    pub(crate) fn new() -> Self {
        let claim = |net| {
            let address = SocketAddrV4::new(Ipv4Addr::new(127, 78, net, 254), MESH_PORT);
            Some((net, TcpListener::bind(address).ok()?))
        };
        let (net, _claim) = (1..=250).find_map(claim).expect("free loopback addresses");
        Self { dir: tempfile::tempdir().expect("a directory"), net, _claim }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn address(&self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, 78, self.net, number)
    }

    pub(crate) fn root(&self, number: u8) -> PathBuf {
        self.dir.path().join(format!("m{number}"))
    }

    pub(crate) fn image(&self, machines: u32, control_planes: u32) -> Image {
        let kubeadm = self.dir.path().join("kubeadm");
        // By this name the program is the rehearsal kubeadm.
        let _ = symlink(env!("CARGO_BIN_EXE_muster"), &kubeadm);
        let mesh_key = "5a".repeat(32);
        Image {
            cluster: "site",
            machines,
            control_planes,
            mesh_key,
            kubeadm,
            fault: "",
            documents: Vec::new(),
            name: None,
            at: None,
        }
    }

    /// Starts machine `number`; a later start goes on with what is on its disk.
    pub(crate) fn start(&self, number: u8, image: &Image) -> Agent {
        let root = self.root(number);
        fs::create_dir_all(&root).expect("made");
        let log = fs::File::options().create(true).append(true).open(root.join("agent.log")).expect("opened");
        let child = self.command(number, image).stderr(log).spawn().expect("muster starts");
        Agent { root, child }
    }

    /// The same where nobody reads what it logs any more.
    pub(crate) fn start_unread(&self, number: u8, image: &Image) -> Agent {
        let root = self.root(number);
        fs::create_dir_all(&root).expect("made");
        let child = self.command(number, image).stderr(closed_pipe()).spawn().expect("muster starts");
        Agent { root, child }
    }

    /// Runs machine `number` until it ends by itself.
    pub(crate) fn refuse(&self, number: u8, image: &Image) -> (Option<i32>, String) {
        let Output { status, stderr, .. } =
            self.command(number, image).stderr(Stdio::piped()).output().expect("muster starts");
        (status.code(), String::from_utf8_lossy(&stderr).into_owned())
    }

    fn command(&self, number: u8, image: &Image) -> Command {
        let root = self.root(number);
        let config = self.dir.path().join(format!("m{number}.toml"));
        let peers: Vec<String> = (1..=9).map(|other| format!("{}:{MESH_PORT}", self.address(other))).collect();
        let text = format!(
            "cluster = \"{}\"\nmachines = {}\ncontrol_planes = {}\nmesh_key = \"{}\"\n\
             [discovery]\nmdns = false\npeers = {peers:?}\n\
             [kubernetes]\nversion = \"v1.31.4\"\nkubeadm = {:?}\nendpoint_port = 17443\napi_port = 16443\ndocuments = {:?}\n\
             [state]\ndurable = true\n",
            image.cluster, image.machines, image.control_planes, image.mesh_key, image.kubeadm, image.documents
        );
        let mut file =
            fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&config).expect("opened");
        file.write_all(text.as_bytes()).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        command
            .args(["run", "--stop-with-parent", "--config"])
            .arg(&config)
            .args(["--name", &image.name.map_or_else(|| format!("m{number}"), str::to_owned), "--root"])
            .arg(&root)
            .args(["--listen", &format!("{}:{MESH_PORT}", self.address(image.at.unwrap_or(number)))])
            .env("MUSTER_REHEARSAL_DIR", root.join("etc/kubernetes"))
            .env("MUSTER_REHEARSAL_KUBELET_DIR", root.join("var/lib/kubelet"))
            .env("MUSTER_REHEARSAL_HOSTS", root.join("etc/hosts"))
            .env("MUSTER_REHEARSAL_PACE", "0")
            .env("MUSTER_REHEARSAL_FAULT", image.fault)
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }
}

/// A pipe whose reader is gone.
pub(crate) fn closed_pipe() -> std::io::PipeWriter {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer
}

impl Agent {
    /// One whose process was started otherwise.
    pub(crate) fn started(root: PathBuf, child: Child) -> Self {
        Self { root, child }
    }

    /// Asks as [`Agent::ask`] does, and reads nothing of the answer.
    pub(crate) fn ask_unread(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        command.args(arguments).arg("--socket").arg(self.root.join("run/muster/muster.sock"));
        command.stdout(closed_pipe()).stderr(Stdio::piped()).output().expect("muster starts")
    }

    /// What another command of muster's prints about this machine.
    pub(crate) fn ask(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        let output = command.args(arguments).arg("--socket").arg(self.root.join("run/muster/muster.sock")).output();
        String::from_utf8_lossy(&output.expect("muster starts").stdout).into_owned()
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.ask(&["status", "--json"])).unwrap_or(Value::Null)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.root.join("agent.log")).unwrap_or_default()
    }

    /// Waits until the machine's status is as wanted.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let status = self.status();
            if wanted(&status) {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "never {what}: {status:#}\n{}\n{}", self.ask(&["explain"]), self.log());
            sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn until_phase(&self, phase: &str) -> Value {
        self.until(phase, |status| status["phase"] == phase)
    }

    /// Waits until what it says of itself contains all of `words`.
    pub(crate) fn until_explained(&self, words: &[&str]) -> String {
        let begun = Instant::now();
        loop {
            let text = self.ask(&["explain"]);
            if words.iter().all(|word| text.contains(word)) {
                return text;
            }
            assert!(begun.elapsed() < PATIENCE, "{words:?} not in:\n{text}\n{}", self.log());
            sleep(Duration::from_millis(50));
        }
    }

    /// Waits until its hosts file is as wanted.
    pub(crate) fn until_hosts(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Vec<u8> {
        let begun = Instant::now();
        loop {
            let bytes = fs::read(self.root.join("etc/hosts")).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            if wanted(&text) {
                return bytes;
            }
            assert!(begun.elapsed() < PATIENCE, "never {what}:\n{text}\n{}\n{}", self.ask(&["explain"]), self.log());
            sleep(Duration::from_millis(50));
        }
    }

    /// Ends it at once, as a loss of power would.
    pub(crate) fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // API servers of the rehearsal outlive their machine, as containers would.
        let pids = fs::read_to_string(self.root.join("etc/kubernetes/rehearsal-apiserver.pid"));
        if let Some(pid) = pids.ok().and_then(|text| rustix::process::Pid::from_raw(text.trim().parse().ok()?)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}
