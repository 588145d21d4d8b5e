//! kubeadm's documents: what muster must say, merged with what the user's own documents say.
//!
//! They are written as JSON, which is YAML and means the same to every parser, whatever it takes `no`, `0644` or `1_000`
//! for.

mod convert;
mod founding;
mod kubelet;
mod merge;
mod parse;
mod timing;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use muster_protocol::EtcdTiming;
use muster_wire::{Digest, Role};
use serde_json::{Map, Value, json};

use crate::pki::Ticket;
use crate::plan::{Founding, Node};
use crate::secret::{Secret, Token};
use crate::settings::{Settings, UserFile};
use crate::version::{ConfigApi, Version};
use crate::versions;

/// Tokens live this long unless their machine joins earlier, which deletes them.
pub(crate) const TOKEN_TTL: &str = "24h0m0s";

/// Why a user's document cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentError {
    /// The file, and the line if it is known; or the key of muster.toml, as `kubernetes.pod_subnet`.
    pub place: String,
    /// The document's kind, if it got that far.
    pub kind: Option<Kind>,
    /// The field, dotted from the document's top; may be empty.
    pub field: String,
    /// What is wrong and what to do.
    pub why: String,
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)?;
        if let Some(kind) = self.kind {
            write!(f, ": {kind}")?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.why)
    }
}

impl std::error::Error for DocumentError {}

/// The kinds of document that muster passes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // They are kubeadm's own names.
pub enum Kind {
    InitConfiguration,
    ClusterConfiguration,
    JoinConfiguration,
    ResetConfiguration,
    KubeletConfiguration,
    KubeProxyConfiguration,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

type Object = Map<String, Value>;

/// A user's document: where it is from, and what it says.
#[derive(Debug, Clone, PartialEq)]
struct UserDocument {
    place: String,
    /// `None` for component documents, which kubeadm passes on as they are.
    api: Option<ConfigApi>,
    fields: Object,
}

type UserDocuments = BTreeMap<Kind, UserDocument>;

/// All documents of an image for one version of kubeadm, less what differs from machine to machine.
#[derive(Debug, Clone)]
pub(crate) struct Documents {
    api: ConfigApi,
    endpoint: String,
    api_port: u16,
    /// Before 1.28 file discovery sleeps five seconds, or its timeout if that is shorter, before its first look; a look
    /// at the end of the timeout counts.
    file_discovery_sleeps: bool,
    local_mode: bool,
    init: Object,
    cluster: Object,
    join: Object,
    reset: Option<Object>,
    /// KubeletConfiguration and KubeProxyConfiguration.
    components: Vec<Object>,
}

impl Documents {
    pub(crate) fn new(kubeadm: &Version, wanted: &Version, settings: &Settings) -> Result<Self, DocumentError> {
        let api = kubeadm.api();
        let mut user = parse::all(&settings.documents)?;
        convert::all(&mut user, api)?;
        merge::check(&user, wanted, settings)?;
        let registration = settings.cri_socket.as_ref().map(|socket| json!({ "criSocket": socket }));
        let registration = registration.unwrap_or_else(|| json!({}));
        let pki = settings.pki_dir().display().to_string();
        let mut cluster = json!({
            "clusterName": settings.cluster,
            "kubernetesVersion": wanted.to_string(),
            "controlPlaneEndpoint": settings.endpoint,
            "certificatesDir": pki,
            "etcd": { "local": { "dataDir": settings.etcd_dir.display().to_string() } },
        });
        if api >= ConfigApi::V1Beta4 {
            // As the CAs that muster makes: an RSA key takes a hundred times as long to make, and each handshake longer.
            cluster["encryptionAlgorithm"] = json!("ECDSA-P256");
        }
        if let Some(subnet) = &settings.pod_subnet {
            cluster["networking"]["podSubnet"] = json!(subnet);
        }
        if let Some(subnet) = &settings.service_subnet {
            cluster["networking"]["serviceSubnet"] = json!(subnet);
        }
        if let Some(repository) = &settings.image_repository {
            cluster["imageRepository"] = json!(repository);
        }
        let join = json!({ "caCertPath": format!("{pki}/ca.crt"), "nodeRegistration": registration });
        let merged = |kind: Kind, base: Value| {
            let mut fields = merge::object(base);
            fields.insert("apiVersion".into(), api.api_version().into());
            fields.insert("kind".into(), kind.to_string().into());
            if let Some(document) = user.get(&kind) {
                merge::over(&mut fields, &document.fields);
            }
            fields
        };
        let reset = user.contains_key(&Kind::ResetConfiguration);
        let cluster = merged(Kind::ClusterConfiguration, cluster);
        values::check(&user, &cluster, kubeadm, settings)?;
        Ok(Self {
            api,
            file_discovery_sleeps: kubeadm.minor < 28,
            local_mode: versions::kubelet_local_mode(kubeadm.minor),
            endpoint: settings.endpoint.clone(),
            api_port: settings.api_port,
            init: merged(Kind::InitConfiguration, json!({ "nodeRegistration": registration })),
            cluster,
            join: merged(Kind::JoinConfiguration, join),
            reset: reset.then(|| merged(Kind::ResetConfiguration, json!({ "force": true, "certificatesDir": pki }))),
            components: [Kind::KubeletConfiguration, Kind::KubeProxyConfiguration]
                .iter()
                .filter_map(|kind| user.get(kind).map(|document| document.fields.clone()))
                .collect(),
        })
    }

    /// What `config images pull` reads: no secret, no address of this machine.
    pub(crate) fn prepare(&self) -> Secret {
        Self::render(&[&self.placeless_init(), &self.cluster])
    }

    /// What the phases of init read up to the tokens', with the tokens and their lifetime if they are to be registered.
    pub(crate) fn init(
        &self,
        node: &Node,
        tokens: Option<(&[Token], &str)>,
        timing: EtcdTiming,
        founding: Option<&Founding>,
    ) -> Secret {
        let mut init = self.init.clone();
        init.insert("localAPIEndpoint".into(), self.local_endpoint(node));
        if let Some((tokens, ttl)) = tokens {
            init.insert("bootstrapTokens".into(), tokens.iter().map(|token| bootstrap_token(token, ttl)).collect());
        }
        name(&mut init, node);
        let mut cluster = self.timed(timing);
        if let Some(founding) = founding {
            self.founded(&mut cluster, founding);
        }
        self.with_components(&init, &cluster)
    }

    /// What the phases of init after the tokens' read. It holds no secret.
    pub(crate) fn finish(&self, node: &Node, timing: EtcdTiming) -> Secret {
        let mut init = self.init.clone();
        init.insert("localAPIEndpoint".into(), self.local_endpoint(node));
        name(&mut init, node);
        self.with_components(&init, &self.timed(timing))
    }

    /// What the first run of a join reads: discovery by the file at `discovery_file`, which needs no signed token. The
    /// controller manager signs tokens only seconds after they are made.
    pub(crate) fn join(&self, role: Role, node: &Node, ticket: &Ticket, discovery_file: &Path) -> Secret {
        let mut discovery = json!({
            "file": { "kubeConfigPath": discovery_file.display().to_string() },
            "tlsBootstrapToken": ticket.token.expose(),
        });
        if self.file_discovery_sleeps {
            discovery["timeout"] = json!("1s");
        }
        self.join_with(role, node, discovery)
    }

    /// What the later runs of a join read: discovery by token, which is signed by then and looks at once.
    pub(crate) fn join_later(&self, role: Role, node: &Node, ticket: &Ticket) -> Secret {
        let discovery = json!({ "bootstrapToken": {
            "apiServerEndpoint": self.endpoint,
            "token": ticket.token.expose(),
            "caCertHashes": [ca_pin(&ticket.ca_hash)],
        }});
        self.join_with(role, node, discovery)
    }

    fn join_with(&self, role: Role, node: &Node, discovery: Value) -> Secret {
        let mut join = self.join.clone();
        let mut discovery = merge::object(discovery);
        if let Some(Value::Object(asked)) = join.get("discovery") {
            merge::over(&mut discovery, asked);
        }
        join.insert("discovery".into(), discovery.into());
        if role == Role::ControlPlane {
            join.insert("controlPlane".into(), json!({ "localAPIEndpoint": self.local_endpoint(node) }));
            if self.kubelets_ask_own_server() {
                taint_from_the_start(&mut join);
            }
        }
        name(&mut join, node);
        Self::render(&[&join])
    }

    /// The kubeconfig for discovery: where the cluster is and whom to believe, and no identity.
    pub(crate) fn discovery_kubeconfig(&self, ticket: &Ticket) -> Secret {
        use base64::Engine as _;
        let ca = base64::engine::general_purpose::STANDARD.encode(&ticket.ca_certificate);
        let cluster = json!({ "server": format!("https://{}", self.endpoint), "certificate-authority-data": ca });
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "", "cluster": cluster }],
            "contexts": [],
        });
        Self::render(&[&merge::object(config)])
    }

    /// What `token create` reads. Without the ClusterConfiguration's version it would ask the internet for one.
    pub(crate) fn token(&self, token: &Token) -> Secret {
        let mut init = self.placeless_init();
        init.insert("bootstrapTokens".into(), json!([bootstrap_token(token, TOKEN_TTL)]));
        Self::render(&[&init, &self.cluster])
    }

    /// What `reset` reads, if the user has a document for it; it takes flags otherwise.
    pub(crate) fn reset(&self) -> Option<Secret> {
        self.reset.as_ref().map(|reset| Self::render(&[reset]))
    }

    /// The container runtime's socket, if anybody named one.
    pub(crate) fn cri_socket(&self) -> Option<&str> {
        self.init.get("nodeRegistration")?.get("criSocket")?.as_str()
    }

    /// Whether kubeadm lets the kubelets of control planes ask their own API server, for which the cluster may have a feature gate.
    pub(crate) fn kubelets_ask_own_server(&self) -> bool {
        let gates = self.cluster.get("featureGates");
        self.local_mode && gates.is_none_or(|gates| gates["ControlPlaneKubeletLocalMode"] != false)
    }

    /// The cluster's DNS domain; none if it is to have no CoreDNS.
    pub(crate) fn dns_domain(&self) -> Option<String> {
        let dns = self.cluster.get("dns").cloned().unwrap_or_default();
        // Before 1.21 there was another one.
        if dns["disabled"] == true || dns["type"] == "kube-dns" {
            return None;
        }
        let domain = self.cluster.get("networking").and_then(|networking| networking["dnsDomain"].as_str());
        Some(domain.filter(|domain| !domain.is_empty()).unwrap_or("cluster.local").to_owned())
    }

    /// Where a stacked etcd has its data.
    pub(crate) fn etcd_dir(&self) -> Option<std::path::PathBuf> {
        self.cluster.get("etcd")?["local"]["dataDir"].as_str().map(Into::into)
    }

    /// For commands that use no address: kubeadm would look for this machine's default route and complain. It is the
    /// placeholder that kubeadm itself uses there.
    fn placeless_init(&self) -> Object {
        let mut init = self.init.clone();
        init.insert("localAPIEndpoint".into(), json!({ "advertiseAddress": "1.2.3.4", "bindPort": self.api_port }));
        init
    }

    fn local_endpoint(&self, node: &Node) -> Value {
        json!({ "advertiseAddress": node.address.to_string(), "bindPort": self.api_port })
    }

    fn with_components(&self, init: &Object, cluster: &Object) -> Secret {
        Self::render(&[init, cluster].into_iter().chain(&self.components).collect::<Vec<_>>())
    }

    fn render(documents: &[&Object]) -> Secret {
        let mut text = zeroize::Zeroizing::new(Vec::new());
        for (at, document) in documents.iter().enumerate() {
            if at > 0 {
                text.extend_from_slice(b"---\n");
            }
            serde_json::to_writer_pretty(&mut *text, document).expect("a map of strings is always JSON");
            text.push(b'\n');
        }
        Secret::new(text.as_slice())
    }
}

/// The user's documents as they are written.
pub(crate) struct UserTexts(UserDocuments);

impl UserTexts {
    pub(crate) fn read(files: &[UserFile]) -> Result<Self, DocumentError> {
        parse::all(files).map(Self)
    }

    /// The ports that a field names, perhaps after addresses; of etcd those of its metrics, of another component of the control
    /// plane its `secure-port`.
    pub(crate) fn ports(&self, kind: Kind, field: &str) -> Vec<u16> {
        let Some(document) = self.0.get(&kind) else { return Vec::new() };
        let said = match (kind, field) {
            (Kind::ClusterConfiguration, "etcd") => {
                values::argument(&document.fields, "etcd.local", "listen-metrics-urls")
            }
            (Kind::ClusterConfiguration, _) => values::argument(&document.fields, field, "secure-port"),
            _ => document.fields.get(field).map(merge::as_text),
        };
        let port = |item: &str| item.trim_end_matches('/').rsplit(':').next().and_then(|port| port.parse().ok());
        said.iter().flat_map(|items| items.split(',')).filter_map(port).collect()
    }

    /// What the documents give to Pods and to Services.
    pub(crate) fn subnets(&self) -> Vec<String> {
        let fields = self.0.get(&Kind::ClusterConfiguration).map(|document| &document.fields);
        let said = ["networking.podSubnet", "networking.serviceSubnet"];
        let found = fields.into_iter().flat_map(|fields| said.map(|field| merge::lookup(fields, field)));
        found.flatten().map(merge::as_text).collect()
    }
}

/// `sha256:` and all 64 hexadecimal digits.
fn ca_pin(hash: &Digest) -> String {
    format!("sha256:{}", hex::encode(hash.0))
}

/// The groups and usages are kubeadm's defaults, spelled out since some versions default only whole tokens.
fn bootstrap_token(token: &Token, ttl: &str) -> Value {
    json!({
        "token": token.expose(),
        "description": "made by muster for one machine",
        "ttl": if muster_wire::planted::planted("token-without-end") { "0s" } else { ttl },
        "usages": ["signing", "authentication"],
        "groups": ["system:bootstrappers:kubeadm:default-node-token"],
    })
}

/// Its Node is there before the phase `mark-control-plane` has run, and had better not take workloads meanwhile. The taints are the ones
/// that phase sets; the kubelet's flag is the one by which kubeadm taints workers (`cmd/kubeadm/app/phases/kubelet/flags.go`, v1.37.2).
fn taint_from_the_start(join: &mut Object) {
    const FLAG: &str = "register-with-taints";
    let registration = join.entry("nodeRegistration").or_insert_with(|| json!({}));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let taints: Vec<_> = match registration["taints"].as_array() {
        None => vec!["node-role.kubernetes.io/control-plane=:NoSchedule".to_owned()],
        Some(taints) => {
            let one =
                |taint: &Value| format!("{}={}:{}", text(&taint["key"]), text(&taint["value"]), text(&taint["effect"]));
            taints.iter().map(one).collect()
        }
    };
    let asked = registration["kubeletExtraArgs"].as_array().cloned().unwrap_or_default();
    if taints.is_empty() || asked.iter().any(|argument| argument["name"] == FLAG) {
        return;
    }
    let own = json!({ "name": FLAG, "value": taints.join(",") });
    registration["kubeletExtraArgs"] = asked.into_iter().chain([own]).collect();
}

fn name(document: &mut Object, node: &Node) {
    let registration = document.entry("nodeRegistration").or_insert_with(|| json!({}));
    registration["name"] = json!(node.name);
}
