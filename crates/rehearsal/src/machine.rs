//! What init and join do alike on a machine: certificates, kubeconfigs, manifests, the kubelet's files.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use muster_kubeadm::versions::instance_config;
use serde_json::{Value, json};

use crate::client::{Client, Identity};
use crate::failure::{Doing as _, Failure, fail};
use crate::pki::{self, AUTHORITIES, Authority, Subject};
use crate::say::say;
use crate::setting::Setting;
use crate::state::Member;
use crate::{kubeconfig, pods};

/// Seconds that the real thing takes on a small machine, at pace 1: for the kubelet until it starts a Pod, for the API
/// server until it serves after that, and for a Node until it reports that it is Ready.
const KUBELET: f64 = 11.5;
const API_SERVER: f64 = 5.5;
const READY: f64 = 10.0;

/// One machine, from the documents that concern it.
pub(crate) struct Machine<'a> {
    pub(crate) setting: &'a Setting,
    pub(crate) name: String,
    /// What its API server advertises; empty for a worker.
    pub(crate) address: String,
    pub(crate) port: u16,
    /// `controlPlaneEndpoint`, or its own address when there is none.
    pub(crate) endpoint: String,
    pub(crate) pki_dir: PathBuf,
    pub(crate) etcd_dir: PathBuf,
    extra_names: Vec<String>,
}

/// What `kubeadm certs renew` calls what the CAs have signed, and where it lies below the certificates' directory.
pub(crate) const SIGNED: [(&str, &str); 7] = [
    ("apiserver", "apiserver"),
    ("apiserver-kubelet-client", "apiserver-kubelet-client"),
    ("front-proxy-client", "front-proxy-client"),
    ("etcd-server", "etcd/server"),
    ("etcd-peer", "etcd/peer"),
    ("etcd-healthcheck-client", "etcd/healthcheck-client"),
    ("apiserver-etcd-client", "apiserver-etcd-client"),
];

impl<'a> Machine<'a> {
    /// `own` is the InitConfiguration or JoinConfiguration, `local` its localAPIEndpoint.
    pub(crate) fn new(setting: &'a Setting, own: &Value, local: &Value, cluster: &Value) -> Result<Self, Failure> {
        let host = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
        let name = own["nodeRegistration"]["name"].as_str().unwrap_or(&host).to_owned();
        let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        if name.is_empty() || name.len() > 63 || !name.chars().all(valid) {
            return Err(fail(format!(
                "nodeRegistration.name: Invalid value: {name:?}: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'"
            )));
        }
        let address = local["advertiseAddress"].as_str().unwrap_or_default().to_owned();
        let port = local["bindPort"].as_u64().unwrap_or(6443) as u16;
        let own_endpoint = || format!("{}:{port}", bracketed(&address));
        let endpoint = cluster["controlPlaneEndpoint"].as_str().map_or_else(own_endpoint, str::to_owned);
        let path = |value: &Value, default: PathBuf| value.as_str().map_or(default, PathBuf::from);
        let names = cluster["apiServer"]["certSANs"].as_array().into_iter().flatten();
        Ok(Self {
            pki_dir: path(&cluster["certificatesDir"], setting.dir.join("pki")),
            etcd_dir: path(&cluster["etcd"]["local"]["dataDir"], setting.dir.with_file_name("rehearsal-etcd")),
            extra_names: names.filter_map(Value::as_str).map(str::to_owned).collect(),
            setting,
            name,
            address,
            port,
            endpoint,
        })
    }

    /// Where its API server listens.
    pub(crate) fn own_server(&self) -> String {
        format!("{}:{}", bracketed(&self.address), self.port)
    }

    /// A leaf of the phase `certs`, or all of them.
    pub(crate) fn certificates(&self, part: &str) -> Result<(), Failure> {
        let pki = &self.pki_dir;
        let authority = |at: usize| Authority::load(pki, AUTHORITIES[at].0, AUTHORITIES[at].1);
        let (host, _) = crate::client::split(&self.endpoint)?;
        let mut names =
            vec![self.name.clone(), "kubernetes".into(), "kubernetes.default".into(), "localhost".into(), host];
        names.extend([self.address.clone(), "127.0.0.1".into()]);
        names.extend(self.extra_names.clone());
        names.retain(|name| !name.is_empty());
        names.dedup();
        let server = |name: &'static str| Subject { name, alternatives: names.clone(), ..Subject::default() };
        let client = |name: &'static str, organization: Option<&'static str>| Subject {
            name,
            organization,
            ..Subject::default()
        };
        match part {
            "ca" => Authority::load_or_make(pki, AUTHORITIES[0].0, AUTHORITIES[0].1).map(drop),
            "front-proxy-ca" => Authority::load_or_make(pki, AUTHORITIES[1].0, AUTHORITIES[1].1).map(drop),
            "etcd-ca" => Authority::load_or_make(pki, AUTHORITIES[2].0, AUTHORITIES[2].1).map(drop),
            "apiserver" => authority(0)?.ensure(pki, "apiserver", &server("kube-apiserver")),
            "apiserver-kubelet-client" => {
                let subject = client("kube-apiserver-kubelet-client", Some("system:masters"));
                authority(0)?.ensure(pki, "apiserver-kubelet-client", &subject)
            }
            "front-proxy-client" => {
                authority(1)?.ensure(pki, "front-proxy-client", &client("front-proxy-client", None))
            }
            "etcd-server" => authority(2)?.ensure(pki, "etcd/server", &server("etcd")),
            "etcd-peer" => authority(2)?.ensure(pki, "etcd/peer", &server("etcd")),
            "etcd-healthcheck-client" => {
                authority(2)?.ensure(pki, "etcd/healthcheck-client", &client("kube-etcd-healthcheck-client", None))
            }
            "apiserver-etcd-client" => {
                authority(2)?.ensure(pki, "apiserver-etcd-client", &client("kube-apiserver-etcd-client", None))
            }
            "sa" => self.service_accounts(),
            _ => Err(fail(format!("the rehearsal knows no certificate {part:?}"))),
        }
    }

    fn service_accounts(&self) -> Result<(), Failure> {
        if self.pki_dir.join("sa.key").exists() {
            say!("[certs] Using the existing \"sa\" key");
            return Ok(());
        }
        say!("[certs] Generating \"sa\" key and public key");
        let key = rcgen::KeyPair::generate().map_err(|error| fail(error.to_string()))?;
        pki::write(&self.pki_dir.join("sa.key"), &key.serialize_pem())?;
        pki::write(&self.pki_dir.join("sa.pub"), &key.public_key_pem())
    }

    /// One file of the phase `kubeconfig`.
    /// `local`: the kubelet's names this machine's own API server.
    pub(crate) fn kubeconfig(&self, part: &str, local: bool) -> Result<(), Failure> {
        let file = format!("{part}.conf");
        say!("[kubeconfig] Writing {file:?} kubeconfig file");
        let ca = Authority::load(&self.pki_dir, AUTHORITIES[0].0, AUTHORITIES[0].1)?;
        let (user, organization) = match part {
            "admin" | "super-admin" => ("kubernetes-admin".to_owned(), Some("system:masters")),
            "kubelet" => (format!("system:node:{}", self.name), Some("system:nodes")),
            _ => (format!("system:kube-{part}"), None),
        };
        let pair = ca.issue(&Subject { name: &user, organization, ..Subject::default() })?;
        let identity = Identity::Certificate { certificate: pair.certificate, key: pair.key };
        let server = if local && part == "kubelet" { self.own_server() } else { self.endpoint.clone() };
        let text = kubeconfig::text(&server, &ca.certificate, &user, &identity);
        pki::write(&self.setting.dir.join(file), &text)
    }

    /// The manifest of one component of the control plane.
    pub(crate) fn manifest(&self, component: &str) -> Result<(), Failure> {
        let milliseconds = |seconds: f64| (seconds * self.setting.pace * 1000.0) as u64;
        let manifest = match component {
            "apiserver" => json!({
                "name": self.name,
                "address": self.own_server(),
                "certificatesDir": self.pki_dir,
                "version": self.setting.version.text,
                "startAfterMs": milliseconds(API_SERVER),
                "readyAfterMs": milliseconds(READY),
            }),
            _ => json!({ "name": self.name }),
        };
        pods::write_control_plane(self.setting, &manifest, component)
    }

    /// etcd's manifest; `members` is the membership with this one in it, `token` with what they begin it together, if they do.
    pub(crate) fn etcd_manifest(&self, members: &[Member], token: Option<&str>) -> Result<(), Failure> {
        say!("[etcd] Creating static Pod manifest for \"etcd\"");
        let manifest = json!({ "dataDir": self.etcd_dir, "initialMembers": members, "token": token });
        pki::write(&self.setting.manifests().join("etcd.yaml"), &format!("{manifest:#}\n"))?;
        pki::restrict(&self.setting.manifests())?;
        std::fs::create_dir_all(&self.etcd_dir).doing(format!("couldn't make {}", self.etcd_dir.display()))?;
        pki::restrict(&self.etcd_dir)
    }

    /// This machine as a member that has yet to start.
    pub(crate) fn as_member(&self) -> Member {
        Member { name: self.name.clone(), address: self.own_server(), started: false }
    }

    /// Writes what the kubelet reads, and takes the time that it takes.
    pub(crate) fn start_kubelet(&self, components: &Value) -> Result<(), Failure> {
        say!("[kubelet-start] Writing kubelet configuration to file \"/var/lib/kubelet/config.yaml\"");
        let is_kubelet = |document: &&Value| document["kind"] == "KubeletConfiguration";
        let config = components.as_array().into_iter().flatten().find(is_kubelet).cloned();
        let config = config.unwrap_or_else(
            || json!({ "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration" }),
        );
        let write = |name: &str, text: &str| pki::write_open(&self.setting.kubelet_dir.join(name), text);
        write("config.yaml", &format!("{config:#}\n"))?;
        write("kubeadm-flags.env", "KUBELET_KUBEADM_ARGS=\"\"\n")?;
        if instance_config(self.setting.version.minor) {
            write("instance-config.yaml", "containerRuntimeEndpoint: \"\"\n")?;
        }
        pki::restrict(&self.setting.kubelet_dir)?;
        say!("[kubelet-start] Starting the kubelet");
        self.setting.take(KUBELET);
        Ok(())
    }

    /// A client with the administrator's identity, at the endpoint that the kubeconfig names.
    pub(crate) fn admin(&self) -> Result<Client, Failure> {
        kubeconfig::client(&self.setting.admin_conf(), self.setting.hosts.clone())
    }

    /// Waits for this machine's own API server.
    pub(crate) fn wait_for_own_server(&self) -> Result<(), Failure> {
        let mut client = self.admin()?;
        client.server = self.own_server();
        let limit = Duration::from_secs_f64(240.0 * self.setting.pace.clamp(0.05, 1.0));
        let begin = Instant::now();
        loop {
            match client.get("/readyz") {
                Ok(_) => return Ok(()),
                Err(error) if begin.elapsed() > limit => {
                    return Err(fail(format!(
                        "couldn't initialize a Kubernetes cluster: timed out waiting for the condition: {error}"
                    )));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}
