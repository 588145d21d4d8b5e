//! A site of machines on loopback addresses: carries plans out as the agent does, with the double as kubeadm.

#![allow(dead_code)] // Each test file uses its own part.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use muster_kubeadm::EtcdTiming;
use muster_kubeadm::kubeconfig::{Identity, Material};
use muster_kubeadm::{
    Action, Command, Exit, Failure, Kubeconfig, Node, PkiBundle, Plan, Settings, StepInput, Ticket, Token, Version,
    Wait, outcome,
};
use muster_wire::{Attempt, MachineId, Role};
use rand::SeedableRng as _;
use rand::rngs::ChaCha8Rng;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

pub(crate) const DOUBLE: &str = env!("CARGO_BIN_EXE_rehearsal-kubeadm");
const API_PORT: u16 = 6443;
const ENDPOINT_PORT: u16 = 7443;

/// API servers that the machines' balancers pass connections to.
type Backends = Arc<Mutex<Vec<String>>>;

pub(crate) struct Site {
    pub(crate) version: Version,
    pub(crate) pki: PkiBundle,
    pub(crate) backends: Backends,
    network: [u8; 2],
    dir: tempfile::TempDir,
}

pub(crate) struct Machine {
    pub(crate) node: Node,
    pub(crate) id: MachineId,
    pub(crate) root: PathBuf,
    pub(crate) plan: Plan,
    pub(crate) environment: BTreeMap<String, String>,
    /// Shortens the limits of commands, so that one that hangs does not hold the test up.
    pub(crate) limit: Option<Duration>,
    /// Output of the last command.
    pub(crate) said: Mutex<String>,
}

impl Site {
    /// `number` keeps the addresses of tests that run at once apart.
    pub(crate) fn new(version: &str, number: u8) -> Self {
        let version: Version = version.parse().expect("a version");
        let pki = PkiBundle::make(&version, &mut ChaCha8Rng::seed_from_u64(u64::from(number))).expect("makes");
        let own = std::process::id();
        let network = [64 + (own % 128) as u8, number];
        Self { version, pki, backends: Backends::default(), network, dir: tempfile::tempdir().expect("a directory") }
    }

    pub(crate) fn machine(&self, number: u8) -> Machine {
        let root = self.dir.path().join(format!("m{number}"));
        let address = Ipv4Addr::new(127, self.network[0], self.network[1], number);
        let hosts = root.join("etc/hosts");
        std::fs::create_dir_all(root.join("etc")).expect("a directory");
        std::fs::write(&hosts, format!("127.0.0.1 localhost\n{address} api.test.muster # muster\n")).expect("a file");
        balance(address, self.backends.clone());
        let settings = Settings {
            kubeadm: DOUBLE.into(),
            hosts_file: hosts,
            endpoint: format!("api.test.muster:{ENDPOINT_PORT}"),
            api_port: API_PORT,
            pod_subnet: Some("10.244.0.0/16".into()),
            cri_socket: Some("/run/containerd/containerd.sock".into()),
            skip_phases: vec!["addon/coredns".into()],
            ignore_preflight: vec!["Swap".into()],
            ..Settings::of("test", &root)
        };
        let environment = BTreeMap::from([("MUSTER_REHEARSAL_VERSION".to_owned(), self.version.to_string())]);
        Machine {
            node: Node { name: format!("m{number}"), address: IpAddr::V4(address) },
            id: MachineId([number; 32]),
            root,
            plan: Plan::new(&self.version, settings).expect("a plan"),
            environment,
            limit: None,
            said: Mutex::default(),
        }
    }

    pub(crate) fn ticket(&self, machine: &Machine) -> Ticket {
        let until = std::time::SystemTime::now() + Duration::from_secs(3600);
        let entropy = &mut ChaCha8Rng::from_seed(machine.id.0);
        let node = self.pki.node_certificate(&machine.node.name, until, entropy);
        Ticket {
            attempt: Attempt(1),
            token: self.pki.token_for(machine.id),
            ca_certificate: self.pki.ca_certificate().to_owned(),
            ca_hash: self.pki.ca_hash(),
            endpoints: self.backends.lock().expect("unpoisoned").clone(),
            node: Some(node.expect("makes")),
        }
    }

    pub(crate) fn init(&self, machine: &Machine, others: &[&Machine]) -> Result<(), Failure> {
        let tokens: Vec<Token> = others.iter().map(|other| self.pki.token_for(other.id)).collect();
        // Its own API server serves before init is done, and kubeadm reaches it by the endpoint.
        self.serve_by(machine);
        machine.carry_out(&StepInput::InitCluster {
            node: &machine.node,
            pki: &self.pki,
            tokens: &tokens,
            timing: EtcdTiming::Own,
            founding: None,
        })
    }

    pub(crate) fn serve_by(&self, machine: &Machine) {
        self.backends.lock().expect("unpoisoned").push(format!("{}:{API_PORT}", machine.node.address));
    }

    pub(crate) fn join_finish(&self, machine: &Machine, role: Role) -> Result<(), Failure> {
        let ticket = self.ticket(machine);
        machine.carry_out(&StepInput::JoinFinish { role, node: &machine.node, ticket: &ticket })
    }

    pub(crate) fn join(&self, machine: &Machine, role: Role) -> Result<(), Failure> {
        let ticket = self.ticket(machine);
        let pki = (role == Role::ControlPlane).then_some(&self.pki);
        machine.carry_out(&StepInput::Join { role, node: &machine.node, ticket: &ticket, pki })
    }
}

impl Machine {
    pub(crate) fn fault(mut self, fault: &str) -> Self {
        self.environment.insert("MUSTER_REHEARSAL_FAULT".into(), fault.into());
        self
    }

    pub(crate) fn carry_out(&self, step: &StepInput<'_>) -> Result<(), Failure> {
        self.plan.step(step).iter().try_for_each(|action| self.act(action))
    }

    pub(crate) fn await_ready(&self) -> Result<(), Failure> {
        self.carry_out(&StepInput::AwaitReady { name: &self.node.name })
    }

    pub(crate) fn act(&self, action: &Action) -> Result<(), Failure> {
        match action {
            Action::WriteFile { path, mode, contents } => {
                std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
                std::fs::write(path, contents.expose()).expect("a file");
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(*mode)).expect("a mode");
                Ok(())
            }
            Action::RemoveFile { path } => {
                let _ = std::fs::remove_file(path);
                Ok(())
            }
            Action::EmptyDirectory { path } => {
                let _ = std::fs::remove_dir_all(path);
                Ok(())
            }
            Action::Run(command) => self.run(command),
            Action::Require { phase, path } if !path.exists() => Err(Failure::left_undone(phase, path)),
            Action::Require { .. } => Ok(()),
            // What the double leaves is no Pod's manifest: nothing runs in it that would read its certificate once.
            Action::Restart { .. } => Ok(()),
            // Whether this computer knows a DNS server changes nothing here.
            Action::LocalDns(_) => Ok(()),
            Action::KubeletServer(change) => {
                let text = std::fs::read_to_string(&change.path).expect("the kubelet's kubeconfig");
                let after = change.rewrite(&text, false).expect("a kubeconfig");
                std::fs::write(&change.path, after.expose()).expect("written");
                Ok(())
            }
            Action::AwaitFile { phase, path, .. } if !path.exists() => Err(Failure::left_undone(phase, path)),
            Action::AwaitFile { .. } => Ok(()),
            Action::Await(wait) => self.wait(wait),
        }
    }

    pub(crate) fn run(&self, command: &Command) -> Result<(), Failure> {
        let limit = self.limit.unwrap_or(command.limit);
        let (exit, stdout, stderr) = self.execute(command, limit);
        let said = format!("{}\n{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        *self.said.lock().expect("unpoisoned") = said;
        outcome(command, &exit, &stdout, &stderr)
    }

    fn execute(&self, command: &Command, limit: Duration) -> (Exit, Vec<u8>, Vec<u8>) {
        let mut process = Process::new(&command.program);
        process.args(&command.args).envs(command.env.iter().cloned()).envs(&self.environment);
        process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = match process.spawn() {
            Ok(child) => child,
            Err(error) => return (Exit::NotStarted(error.to_string()), Vec::new(), Vec::new()),
        };
        let begin = Instant::now();
        let mut timed_out = false;
        while child.try_wait().expect("is a child").is_none() {
            if begin.elapsed() > limit {
                timed_out = true;
                child.kill().expect("is a child");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let output = child.wait_with_output().expect("has ended");
        let exit = match (timed_out, output.status.code()) {
            (true, _) => Exit::TimedOut,
            (false, Some(code)) => Exit::Code(code),
            (false, None) => Exit::Signal(output.status.signal().unwrap_or_default()),
        };
        (exit, output.stdout, output.stderr)
    }

    fn wait(&self, wait: &Wait) -> Result<(), Failure> {
        let limit = self.limit.unwrap_or(Duration::from_secs(30));
        let begin = Instant::now();
        loop {
            let missing = match self.get(&wait.server, &wait.path, &wait.kubeconfig) {
                Ok((status, body)) => match wait.met(status, &body) {
                    Ok(()) => return Ok(()),
                    Err(missing) => missing,
                },
                Err(error) => error.to_string(),
            };
            if begin.elapsed() > limit {
                return Err(Failure::waited(&wait.phase, &missing));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// GET with the identity in a kubeconfig; the endpoint's name is this machine's own address.
    pub(crate) fn get(&self, server: &str, path: &str, kubeconfig: &Path) -> std::io::Result<(u16, Vec<u8>)> {
        let config = std::fs::read_to_string(kubeconfig)?;
        let config = Kubeconfig::parse(&config).map_err(std::io::Error::other)?;
        let pem = |material: &Material| match material {
            Material::Inline(pem) => pem.expose().to_vec(),
            Material::File(path) => std::fs::read(path).expect("a file"),
        };
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&pem(&config.ca)).expect("PEM")).expect("a CA");
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_root_certificates(roots);
        let tls = match &config.identity {
            Some(Identity::Certificate { certificate, key }) => {
                let chain = CertificateDer::pem_slice_iter(&pem(certificate)).collect::<Result<_, _>>().expect("PEM");
                builder
                    .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&pem(key)).expect("PEM"))
                    .expect("a pair")
            }
            _ => builder.with_no_client_auth(),
        };
        let (host, port) = server.rsplit_once(':').expect("host and port");
        let address: IpAddr = host.parse().unwrap_or(self.node.address);
        let stream = TcpStream::connect((address, port.parse::<u16>().expect("a port")))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        let connection = rustls::ClientConnection::new(Arc::new(tls), name).map_err(std::io::Error::other)?;
        let mut stream = rustls::StreamOwned::new(connection, stream);
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let text = String::from_utf8_lossy(&answer);
        let status =
            text.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
        let (_, body) = text.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::InvalidData)?;
        Ok((status, body.as_bytes().to_vec()))
    }

    /// The pid of its API server.
    pub(crate) fn server_pid(&self) -> Option<u32> {
        std::fs::read_to_string(self.root.join("etc/kubernetes/rehearsal-apiserver.pid")).ok()?.trim().parse().ok()
    }

    pub(crate) fn admin_conf(&self) -> PathBuf {
        self.root.join("etc/kubernetes/admin.conf")
    }

    /// Kills its API server, as a loss of power would.
    pub(crate) fn kill_server(&self) {
        let pid = self.server_pid().expect("it runs");
        assert!(Process::new("kill").args(["-9", &pid.to_string()]).status().expect("kill runs").success());
        // Its socket takes connections until the kernel has torn the process down.
        while TcpStream::connect((self.node.address, API_PORT)).is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Machine {
    /// Servers end by themselves when their pid file is gone; this is sooner.
    fn drop(&mut self) {
        if let Some(pid) = self.server_pid() {
            let _ = Process::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
        }
    }
}

/// A machine's balancer: passes TCP through to the first API server that takes it.
fn balance(address: Ipv4Addr, backends: Backends) {
    let listener = TcpListener::bind((address, ENDPOINT_PORT)).expect("a free port");
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let servers = backends.lock().expect("unpoisoned").clone();
            let Some(server) = servers.iter().find_map(|server| TcpStream::connect(server).ok()) else { continue };
            let (mut up, mut down) = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
            let (mut client, mut server) = (client, server);
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut up, &mut server);
                let _ = server.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut down, &mut client);
                let _ = client.shutdown(Shutdown::Write);
            });
        }
    });
}
