//! `kubeadm join`.

use super::flags::*;
use super::{Row, row};

const PREPARE: &str = "phases/join/controlplaneprepare.go";
const PLANE: &str = "phases/join/controlplanejoin.go";
const KUBELET: &str = "phases/join/kubelet.go";
const WAIT: &str = "phases/join/waitcontrolplane.go";

const DOWNLOAD: &[Flag] = &[
    CERTIFICATE_KEY,
    CONFIG,
    CONTROL_PLANE,
    DISCOVERY_FILE,
    DISCOVERY_TOKEN,
    CA_HASH,
    UNSAFE_DISCOVERY,
    DRY_RUN,
    TLS_TOKEN,
    TOKEN,
];
const ETCD: &[Flag] = &[ADDRESS, CONFIG, CONTROL_PLANE, DRY_RUN, NODE_NAME, PATCHES];

/// The phases of join, in order.
pub const JOIN: &[Row] = &[
    row(
        "preflight",
        &[
            ADDRESS,
            PORT,
            CERTIFICATE_KEY,
            CONFIG,
            CONTROL_PLANE,
            CRI_SOCKET,
            DISCOVERY_FILE,
            DISCOVERY_TOKEN,
            CA_HASH,
            UNSAFE_DISCOVERY,
            DRY_RUN,
            IGNORE,
            NODE_NAME,
            TLS_TOKEN,
            TOKEN,
        ],
        "phases/join/preflight.go",
    )
    .takes(1),
    row("control-plane-prepare", &[], PREPARE),
    row(
        "control-plane-prepare/all",
        &[
            ADDRESS,
            PORT,
            CERTIFICATE_KEY,
            CONFIG,
            CONTROL_PLANE,
            DISCOVERY_FILE,
            DISCOVERY_TOKEN,
            CA_HASH,
            UNSAFE_DISCOVERY,
            DRY_RUN,
            NODE_NAME,
            PATCHES,
            TLS_TOKEN,
            TOKEN,
        ],
        PREPARE,
    )
    .all()
    .takes(1),
    row("control-plane-prepare/download-certs", DOWNLOAD, PREPARE).takes(1),
    row(
        "control-plane-prepare/certs",
        &[
            ADDRESS,
            CONFIG,
            CONTROL_PLANE,
            DISCOVERY_FILE,
            DISCOVERY_TOKEN,
            CA_HASH,
            UNSAFE_DISCOVERY,
            DRY_RUN,
            NODE_NAME,
            TLS_TOKEN,
            TOKEN,
        ],
        PREPARE,
    )
    .takes(1),
    row("control-plane-prepare/kubeconfig", DOWNLOAD, PREPARE).takes(1),
    row("control-plane-prepare/control-plane", &[ADDRESS, PORT, CONFIG, CONTROL_PLANE, DRY_RUN, PATCHES], PREPARE)
        .takes(1),
    row("check-etcd", &[], "phases/join/checketcd.go").hidden(),
    row(
        "kubelet-start",
        &[
            CONFIG,
            CRI_SOCKET,
            DISCOVERY_FILE,
            DISCOVERY_TOKEN,
            CA_HASH,
            UNSAFE_DISCOVERY,
            DRY_RUN,
            NODE_NAME,
            PATCHES,
            TLS_TOKEN,
            TOKEN,
        ],
        KUBELET,
    )
    .takes(1),
    row("etcd-join", &[], PLANE).since(31).until(33).hidden(),
    row("etcd-join", ETCD, PLANE).since(34),
    row("kubelet-wait-bootstrap", &[], KUBELET).since(31).until(34).hidden(),
    row("kubelet-wait-bootstrap", &[CONFIG, CRI_SOCKET, DRY_RUN], KUBELET).since(35).takes(1),
    row("control-plane-join", &[], PLANE),
    row("control-plane-join/all", ETCD, PLANE).all(),
    row("control-plane-join/etcd", ETCD, PLANE).until(34),
    row("control-plane-join/etcd", &[], PLANE).since(35).until(35).hidden(),
    row("control-plane-join/update-status", &[CONFIG, CONTROL_PLANE], PLANE).until(30),
    row("control-plane-join/mark-control-plane", &[CONFIG, CONTROL_PLANE, DRY_RUN, NODE_NAME], PLANE),
    // It takes no flag at all, so it cannot be told which machine it runs on.
    row("wait-control-plane", &[], WAIT).since(30).takes(1),
];
