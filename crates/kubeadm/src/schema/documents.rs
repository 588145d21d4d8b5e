//! The fields of kubeadm's own documents in its three APIs: `cmd/kubeadm/app/apis/kubeadm/v1beta{2,3,4}/types.go`.

use super::Type::{self, Address, Duration, List, Object, Port, Switch, SwitchMap, Text, TextMap, Token};
use super::{Field, all};
use crate::version::ConfigApi::{V1Beta2 as B2, V1Beta3 as B3, V1Beta4 as B4};

const TEXTS: Type = List(&Text);
const ARGUMENT: Type = Object(&[all("name", Text), all("value", Text)]);
const ENVIRONMENT: Type = List(&Object(&[all("name", Text), all("value", Text), all("valueFrom", Object(&[]))]));
const VOLUMES: Type = List(&Object(&[
    all("name", Text),
    all("hostPath", Text),
    all("mountPath", Text),
    all("readOnly", Switch),
    all("pathType", Text),
]));
const TAINTS: Type =
    List(&Object(&[all("key", Text), all("value", Text), all("effect", Text), all("timeAdded", Text)]));
const ENDPOINT: Type = Object(&[all("advertiseAddress", Address), all("bindPort", Port)]);
const PATCHES: Type = Object(&[all("directory", Text)]);
const REGISTRATION: Type = Object(&[
    all("name", Text),
    all("criSocket", Text),
    all("taints", TAINTS),
    Field("kubeletExtraArgs", TextMap, B2, B3),
    Field("kubeletExtraArgs", List(&ARGUMENT), B4, B4),
    all("ignorePreflightErrors", TEXTS),
    Field("imagePullPolicy", Text, B3, B4),
    Field("imagePullSerial", Switch, B4, B4),
]);
const TIMEOUTS: Type = Object(&[
    all("controlPlaneComponentHealthCheck", Duration),
    all("kubeletHealthCheck", Duration),
    all("kubernetesAPICall", Duration),
    all("etcdAPICall", Duration),
    all("tlsBootstrap", Duration),
    all("discovery", Duration),
    all("upgradeManifests", Duration),
]);
const COMPONENT: [Field; 4] = [
    Field("extraArgs", TextMap, B2, B3),
    Field("extraArgs", List(&ARGUMENT), B4, B4),
    all("extraVolumes", VOLUMES),
    Field("extraEnvs", ENVIRONMENT, B4, B4),
];
const API_SERVER: Type = Object(&[
    COMPONENT[0],
    COMPONENT[1],
    COMPONENT[2],
    COMPONENT[3],
    all("certSANs", TEXTS),
    Field("timeoutForControlPlane", Duration, B2, B3),
]);
const LOCAL_ETCD: Type = Object(&[
    all("imageRepository", Text),
    all("imageTag", Text),
    all("dataDir", Text),
    COMPONENT[0],
    COMPONENT[1],
    COMPONENT[3],
    all("serverCertSANs", TEXTS),
    all("peerCertSANs", TEXTS),
]);
const EXTERNAL_ETCD: Type = Object(&[
    all("endpoints", TEXTS),
    all("caFile", Text),
    all("certFile", Text),
    all("keyFile", Text),
    Field("httpEndpoints", TEXTS, B4, B4),
]);

pub(super) const INIT: &[Field] = &[
    all(
        "bootstrapTokens",
        List(&Object(&[
            all("token", Token),
            all("description", Text),
            all("ttl", Duration),
            all("expires", Text),
            all("usages", TEXTS),
            all("groups", TEXTS),
        ])),
    ),
    all("nodeRegistration", REGISTRATION),
    all("localAPIEndpoint", ENDPOINT),
    all("certificateKey", Text),
    Field("skipPhases", TEXTS, B3, B4),
    Field("patches", PATCHES, B3, B4),
    Field("dryRun", Switch, B4, B4),
    Field("timeouts", TIMEOUTS, B4, B4),
];

pub(super) const CLUSTER: &[Field] = &[
    all("etcd", Object(&[all("local", LOCAL_ETCD), all("external", EXTERNAL_ETCD)])),
    all("networking", Object(&[all("serviceSubnet", Text), all("podSubnet", Text), all("dnsDomain", Text)])),
    all("kubernetesVersion", Text),
    all("controlPlaneEndpoint", Text),
    all("apiServer", API_SERVER),
    all("controllerManager", Object(&COMPONENT)),
    all("scheduler", Object(&COMPONENT)),
    all(
        "dns",
        Object(&[
            Field("type", Text, B2, B2),
            all("imageRepository", Text),
            all("imageTag", Text),
            Field("disabled", Switch, B4, B4),
        ]),
    ),
    Field("proxy", Object(&[all("disabled", Switch)]), B4, B4),
    all("certificatesDir", Text),
    all("imageRepository", Text),
    Field("useHyperKubeImage", Switch, B2, B2),
    all("featureGates", SwitchMap),
    all("clusterName", Text),
    Field("encryptionAlgorithm", Text, B4, B4),
    Field("certificateValidityPeriod", Duration, B4, B4),
    Field("caCertificateValidityPeriod", Duration, B4, B4),
];

pub(super) const JOIN: &[Field] = &[
    all("nodeRegistration", REGISTRATION),
    all("caCertPath", Text),
    all(
        "discovery",
        Object(&[
            all(
                "bootstrapToken",
                Object(&[
                    all("token", Token),
                    all("apiServerEndpoint", Text),
                    all("caCertHashes", TEXTS),
                    all("unsafeSkipCAVerification", Switch),
                ]),
            ),
            all("file", Object(&[all("kubeConfigPath", Text)])),
            all("tlsBootstrapToken", Token),
            Field("timeout", Duration, B2, B3),
        ]),
    ),
    all("controlPlane", Object(&[all("localAPIEndpoint", ENDPOINT), all("certificateKey", Text)])),
    Field("skipPhases", TEXTS, B3, B4),
    Field("patches", PATCHES, B3, B4),
    Field("dryRun", Switch, B4, B4),
    Field("timeouts", TIMEOUTS, B4, B4),
];

pub(super) const RESET: &[Field] = &[
    all("cleanupTmpDir", Switch),
    all("certificatesDir", Text),
    all("criSocket", Text),
    all("dryRun", Switch),
    all("force", Switch),
    all("ignorePreflightErrors", TEXTS),
    all("skipPhases", TEXTS),
    all("unmountFlags", TEXTS),
    all("timeouts", TIMEOUTS),
];
