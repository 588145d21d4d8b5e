//! kubeadm's flags.

/// A flag of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag {
    /// Without the dashes.
    pub name: &'static str,
    /// The letter that stands for it.
    pub short: Option<char>,
    /// Whether a value must follow.
    pub takes_value: bool,
    /// The first minor version in which it was seen on the commands that have it.
    pub first: u32,
}

const fn value(name: &'static str) -> Flag {
    Flag { name, short: None, takes_value: true, first: 20 }
}

const fn switch(name: &'static str) -> Flag {
    Flag { takes_value: false, ..value(name) }
}

impl Flag {
    const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }

    /// The same flag where it is younger than the command.
    pub(super) const fn since(mut self, minor: u32) -> Self {
        self.first = minor;
        self
    }

    /// Seen in 1.34; when it came was not looked up.
    const fn seen(self) -> Self {
        self.since(34)
    }
}

pub(super) const ADDRESS: Flag = value("apiserver-advertise-address");
pub(super) const ALLOW_DEPRECATED: Flag = switch("allow-deprecated-api").since(36);
pub(super) const ALLOW_EXPERIMENTAL: Flag = switch("allow-experimental-api").seen();
pub(super) const ALLOW_MISSING_KEYS: Flag = switch("allow-missing-template-keys").seen();
pub(super) const CA_HASH: Flag = value("discovery-token-ca-cert-hash");
pub(super) const CERTIFICATE_KEY: Flag = value("certificate-key");
pub(super) const CERT_DIR: Flag = value("cert-dir");
pub(super) const CLEANUP_TMP: Flag = switch("cleanup-tmp-dir").seen();
pub(super) const CONFIG: Flag = value("config");
pub(super) const CONTROL_PLANE: Flag = switch("control-plane");
pub(super) const CRI_SOCKET: Flag = value("cri-socket");
pub(super) const DESCRIPTION: Flag = value("description");
pub(super) const DISCOVERY_FILE: Flag = value("discovery-file");
pub(super) const DISCOVERY_TOKEN: Flag = value("discovery-token");
pub(super) const DNS_DOMAIN: Flag = value("service-dns-domain");
pub(super) const DRY_RUN: Flag = switch("dry-run").seen();
pub(super) const ENDPOINT: Flag = value("control-plane-endpoint");
pub(super) const EXTRA_SANS: Flag = value("apiserver-cert-extra-sans");
pub(super) const FEATURE_GATES: Flag = value("feature-gates").seen();
pub(super) const FORCE: Flag = switch("force").short('f');
pub(super) const GROUPS: Flag = value("groups");
pub(super) const IGNORE: Flag = value("ignore-preflight-errors");
pub(super) const IMAGES: Flag = value("image-repository").seen();
pub(super) const KUBECONFIG: Flag = value("kubeconfig");
pub(super) const KUBECONFIG_DIR: Flag = value("kubeconfig-dir");
pub(super) const KUBERNETES_VERSION: Flag = value("kubernetes-version").seen();
pub(super) const NODE_NAME: Flag = value("node-name").seen();
pub(super) const OUTPUT: Flag = value("output").short('o');
pub(super) const PATCHES: Flag = value("patches").since(22);
pub(super) const POD_CIDR: Flag = value("pod-network-cidr");
pub(super) const PORT: Flag = value("apiserver-bind-port");
pub(super) const PRINT_JOIN: Flag = switch("print-join-command");
pub(super) const PRINT_MANIFEST: Flag = switch("print-manifest").seen();
pub(super) const SERVICE_CIDR: Flag = value("service-cidr");
pub(super) const SHOW_MANAGED: Flag = switch("show-managed-fields").seen();
pub(super) const SKIP_KEY_PRINT: Flag = switch("skip-certificate-key-print");
pub(super) const SKIP_PHASES: Flag = value("skip-phases");
pub(super) const SKIP_TOKEN_PRINT: Flag = switch("skip-token-print");
pub(super) const TLS_TOKEN: Flag = value("tls-bootstrap-token");
pub(super) const TOKEN: Flag = value("token");
pub(super) const TTL: Flag = value("ttl");
pub(super) const TOKEN_TTL: Flag = value("token-ttl");
pub(super) const UNSAFE_DISCOVERY: Flag = switch("discovery-token-unsafe-skip-ca-verification");
pub(super) const UPLOAD_CERTS: Flag = switch("upload-certs");
pub(super) const USAGES: Flag = value("usages");

/// What every command takes, less `--help`, for which nothing here has a use. Source: `cmd/kubeadm/app/cmd/cmd.go`, v1.34.4 to v1.37.2, and `k8s.io/klog`.
pub(super) const GLOBAL: &[Flag] = &[value("rootfs"), value("v").short('v'), value("vmodule").seen()];
