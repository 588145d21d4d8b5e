//! `kubeadm reset`, and the commands without phases that muster runs, and those of the workflows themselves.

use super::flags::*;
use super::{Row, row};

/// The phases of reset, in order.
pub const RESET: &[Row] = &[
    row("preflight", &[DRY_RUN, FORCE, IGNORE], "phases/reset/preflight.go").takes(usize::MAX),
    row("remove-etcd-member", &[DRY_RUN, KUBECONFIG], "phases/reset/removeetcdmember.go").takes(usize::MAX),
    row("cleanup-node", &[CERT_DIR, CLEANUP_TMP, CRI_SOCKET, DRY_RUN], "phases/reset/cleanupnode.go").takes(usize::MAX),
];

/// The commands. One that has others below it is no command of its own, and its flags are theirs, too.
pub const OTHERS: &[Row] = &[
    row(
        "init",
        &[
            ADDRESS,
            PORT,
            EXTRA_SANS,
            CERT_DIR,
            CERTIFICATE_KEY,
            CONFIG,
            ENDPOINT,
            CRI_SOCKET,
            DRY_RUN,
            FEATURE_GATES,
            IGNORE,
            IMAGES,
            KUBERNETES_VERSION,
            NODE_NAME,
            PATCHES,
            POD_CIDR,
            SERVICE_CIDR,
            DNS_DOMAIN,
            SKIP_KEY_PRINT,
            SKIP_PHASES,
            SKIP_TOKEN_PRINT,
            TOKEN,
            TOKEN_TTL,
            UPLOAD_CERTS,
        ],
        "init.go",
    ),
    row(
        "join",
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
            PATCHES,
            SKIP_PHASES,
            TLS_TOKEN,
            TOKEN,
        ],
        "join.go",
    )
    .takes(1),
    row(
        "reset",
        &[CERT_DIR, CLEANUP_TMP, CONFIG.since(31), CRI_SOCKET, DRY_RUN, FORCE, IGNORE, KUBECONFIG, SKIP_PHASES],
        "reset.go",
    )
    .takes(usize::MAX),
    row("token", &[DRY_RUN, KUBECONFIG], "token.go"),
    row("token create", &[CERTIFICATE_KEY, CONFIG, DESCRIPTION, GROUPS, PRINT_JOIN, TTL, USAGES], "token.go")
        .takes(usize::MAX),
    row("token delete", &[], "token.go").takes(usize::MAX),
    row("token list", &[ALLOW_MISSING_KEYS, OUTPUT, SHOW_MANAGED], "token.go"),
    row("certs", &[], "certs.go"),
    row("certs renew", &[], "certs.go"),
    row("certs renew all", &[CERT_DIR, CONFIG, KUBECONFIG], "certs.go"),
    row("config", &[KUBECONFIG], "config.go"),
    row("config images", &[], "config.go"),
    row(
        "config images list",
        &[ALLOW_MISSING_KEYS, CONFIG, FEATURE_GATES, IMAGES, KUBERNETES_VERSION, OUTPUT, SHOW_MANAGED],
        "config.go",
    ),
    row("config images pull", &[CONFIG, CRI_SOCKET, FEATURE_GATES, IMAGES, KUBERNETES_VERSION], "config.go"),
    row("config validate", &[ALLOW_DEPRECATED, ALLOW_EXPERIMENTAL, CONFIG], "config.go").since(28),
    row("version", &[OUTPUT], "version.go"),
];
