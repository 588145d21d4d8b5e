//! `kubeadm init`. kubelet-start comes after the manifests since 1.28 (Kubernetes' CHANGELOG-1.28).

use super::flags::*;
use super::{Row, row};

const CERTS: &str = "phases/init/certs.go";
const CERT: &[Flag] = &[CERT_DIR, CONFIG, DRY_RUN, KUBERNETES_VERSION];
const SERVER_CERT: &[Flag] =
    &[ADDRESS, EXTRA_SANS, CERT_DIR, CONFIG, ENDPOINT, DRY_RUN, KUBERNETES_VERSION, SERVICE_CIDR, DNS_DOMAIN];

const CONF: &str = "phases/init/kubeconfig.go";
const FILE: &[Flag] = &[ADDRESS, PORT, CERT_DIR, CONFIG, ENDPOINT, DRY_RUN, KUBECONFIG_DIR, KUBERNETES_VERSION];
const FILE_OF_NODE: &[Flag] =
    &[ADDRESS, PORT, CERT_DIR, CONFIG, ENDPOINT, DRY_RUN, KUBECONFIG_DIR, KUBERNETES_VERSION, NODE_NAME];

const KUBELET_START: Row =
    row("kubelet-start", &[CONFIG, CRI_SOCKET, DRY_RUN, IMAGES, NODE_NAME, PATCHES], "phases/init/kubelet.go");
const ETCD: Row = row("etcd", &[], "phases/init/etcd.go");
const ETCD_LOCAL: Row = row("etcd/local", &[CERT_DIR, CONFIG, DRY_RUN, IMAGES, PATCHES], "phases/init/etcd.go");

const PODS: &str = "phases/init/controlplane.go";
const UPLOAD: &[Flag] = &[CONFIG, CRI_SOCKET.since(34), DRY_RUN, KUBECONFIG];
const FINALIZE: &[Flag] = &[CERT_DIR, CONFIG, DRY_RUN];

/// The phases of init, in order.
pub const INIT: &[Row] = &[
    row("preflight", &[CONFIG, CRI_SOCKET.since(34), DRY_RUN, IGNORE, IMAGES], "phases/init/preflight.go"),
    row("certs", &[], CERTS),
    row("certs/all", SERVER_CERT, CERTS).all(),
    row("certs/ca", CERT, CERTS),
    row("certs/apiserver", SERVER_CERT, CERTS),
    row("certs/apiserver-kubelet-client", CERT, CERTS),
    row("certs/front-proxy-ca", CERT, CERTS),
    row("certs/front-proxy-client", CERT, CERTS),
    row("certs/etcd-ca", CERT, CERTS),
    row("certs/etcd-server", CERT, CERTS),
    row("certs/etcd-peer", CERT, CERTS),
    row("certs/etcd-healthcheck-client", CERT, CERTS),
    row("certs/apiserver-etcd-client", CERT, CERTS),
    row("certs/sa", &[CERT_DIR, CONFIG.since(34), DRY_RUN, KUBERNETES_VERSION], CERTS),
    row("kubeconfig", &[], CONF),
    row("kubeconfig/all", FILE_OF_NODE, CONF).all(),
    row("kubeconfig/admin", FILE, CONF),
    row("kubeconfig/super-admin", FILE, CONF).since(29),
    row("kubeconfig/kubelet", FILE_OF_NODE, CONF),
    row("kubeconfig/controller-manager", FILE, CONF),
    row("kubeconfig/scheduler", FILE, CONF),
    KUBELET_START.until(27),
    ETCD.since(28),
    ETCD_LOCAL.since(28),
    row("control-plane", &[], PODS),
    row(
        "control-plane/all",
        &[
            ADDRESS,
            PORT,
            CERT_DIR,
            CONFIG,
            ENDPOINT,
            DRY_RUN,
            FEATURE_GATES,
            IMAGES,
            KUBERNETES_VERSION,
            PATCHES,
            POD_CIDR,
            SERVICE_CIDR,
        ],
        PODS,
    )
    .all(),
    row(
        "control-plane/apiserver",
        &[
            ADDRESS,
            PORT,
            CERT_DIR,
            CONFIG,
            ENDPOINT,
            DRY_RUN,
            FEATURE_GATES,
            IMAGES,
            KUBERNETES_VERSION,
            PATCHES,
            SERVICE_CIDR,
        ],
        PODS,
    ),
    row(
        "control-plane/controller-manager",
        &[CERT_DIR, CONFIG, DRY_RUN, IMAGES, KUBERNETES_VERSION, PATCHES, POD_CIDR],
        PODS,
    ),
    row("control-plane/scheduler", &[CERT_DIR, CONFIG, DRY_RUN, IMAGES, KUBERNETES_VERSION, PATCHES], PODS),
    ETCD.until(27),
    ETCD_LOCAL.until(27),
    KUBELET_START.since(28),
    // It takes no flag at all, whatever the others take.
    row("wait-control-plane", &[], "phases/init/waitcontrolplane.go").until(29).hidden(),
    row("wait-control-plane", &[], "phases/init/waitcontrolplane.go").since(30),
    row("upload-config", &[], "phases/init/uploadconfig.go"),
    row("upload-config/all", UPLOAD, "phases/init/uploadconfig.go").all(),
    row("upload-config/kubeadm", UPLOAD, "phases/init/uploadconfig.go"),
    row("upload-config/kubelet", UPLOAD, "phases/init/uploadconfig.go"),
    row(
        "upload-certs",
        &[CERTIFICATE_KEY, CONFIG, DRY_RUN, KUBECONFIG, SKIP_KEY_PRINT, UPLOAD_CERTS],
        "phases/init/uploadcerts.go",
    ),
    row("mark-control-plane", &[CONFIG, DRY_RUN, NODE_NAME], "phases/init/markcontrolplane.go"),
    row("bootstrap-token", &[CONFIG, DRY_RUN, KUBECONFIG, SKIP_TOKEN_PRINT], "phases/init/bootstraptoken.go"),
    row("kubelet-finalize", &[], "phases/init/kubeletfinalize.go"),
    row("kubelet-finalize/all", FINALIZE, "phases/init/kubeletfinalize.go").all(),
    row("kubelet-finalize/experimental-cert-rotation", FINALIZE, "phases/init/kubeletfinalize.go").until(32),
    row("kubelet-finalize/enable-client-cert-rotation", FINALIZE, "phases/init/kubeletfinalize.go").since(33),
    row("addon", &[], "phases/init/addons.go"),
    row(
        "addon/all",
        &[
            ADDRESS,
            PORT,
            CONFIG,
            ENDPOINT,
            DRY_RUN,
            FEATURE_GATES,
            IMAGES,
            KUBECONFIG,
            KUBERNETES_VERSION,
            POD_CIDR,
            SERVICE_CIDR,
            DNS_DOMAIN,
        ],
        "phases/init/addons.go",
    )
    .all(),
    row(
        "addon/coredns",
        &[
            CONFIG,
            DRY_RUN,
            FEATURE_GATES,
            IMAGES,
            KUBECONFIG,
            KUBERNETES_VERSION,
            PRINT_MANIFEST,
            SERVICE_CIDR,
            DNS_DOMAIN,
        ],
        "phases/init/addons.go",
    ),
    row(
        "addon/kube-proxy",
        &[ADDRESS, PORT, CONFIG, ENDPOINT, DRY_RUN, IMAGES, KUBECONFIG, KUBERNETES_VERSION, POD_CIDR, PRINT_MANIFEST],
        "phases/init/addons.go",
    ),
    row("show-join-command", &[], "phases/init/showjoincommand.go").since(24),
];
