//! What differs beside commands: configuration APIs, images, exit codes.

use crate::version::ConfigApi;

/// The exit code of every failed run. What failed is in the words alone.
///
/// Source: `cmd/kubeadm/app/util/errors/errors.go`, v1.34.4 to v1.37.2, `defaultErrorExitCode`.
pub const EXIT_FAILED: u8 = 1;

/// Which minor versions read a configuration API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Api {
    /// Which.
    pub api: ConfigApi,
    /// The first minor version that reads it.
    pub first: u32,
    /// The last one; later ones refuse it by name.
    pub last: u32,
    /// The first one that warns that it is deprecated.
    pub deprecated: Option<u32>,
}

impl Api {
    /// Whether this minor version reads it.
    pub fn is_read_by(&self, minor: u32) -> bool {
        (self.first..=self.last).contains(&minor)
    }
}

/// The APIs, oldest first.
///
/// Source: `cmd/kubeadm/app/util/config/common.go`, v1.37.2, `validateSupportedVersion`, which has the history, and
/// `cmd/kubeadm/app/apis/kubeadm/scheme/scheme.go`, v1.34.4 to v1.37.2. `kubeadm.k8s.io/v1` is there since 1.37 but has to be
/// allowed by a flag: muster has no use for it.
pub const APIS: [Api; 3] = [
    Api { api: ConfigApi::V1Beta2, first: 15, last: 26, deprecated: Some(22) },
    Api { api: ConfigApi::V1Beta3, first: 22, last: 36, deprecated: Some(31) },
    Api { api: ConfigApi::V1Beta4, first: 31, last: u32::MAX, deprecated: None },
];

/// The newest API that a minor version reads.
pub fn api_written(minor: u32) -> ConfigApi {
    APIS.iter().rev().find(|api| api.is_read_by(minor)).map_or(ConfigApi::V1Beta4, |api| api.api)
}

/// The tags of the images that kubeadm chooses itself. Kubernetes' own have the wanted version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Images {
    /// kubeadm's minor version; its patch version is the one of the source.
    pub minor: u32,
    /// `registry.k8s.io/etcd`.
    pub etcd: &'static str,
    /// `registry.k8s.io/pause`.
    pub pause: &'static str,
    /// `registry.k8s.io/coredns/coredns`.
    pub coredns: &'static str,
    /// Kubernetes' version of `cmd/kubeadm/app/constants/constants.go`.
    pub source: &'static str,
}

/// The images of the versions that were looked up.
pub const IMAGES: [Images; 4] = [
    Images { minor: 34, etcd: "3.6.5-0", pause: "3.10.1", coredns: "v1.12.1", source: "v1.34.4" },
    Images { minor: 35, etcd: "3.6.6-0", pause: "3.10.1", coredns: "v1.13.1", source: "v1.35.4" },
    Images { minor: 36, etcd: "3.6.8-0", pause: "3.10.2", coredns: "v1.14.2", source: "v1.36.3" },
    Images { minor: 37, etcd: "3.7.0-0", pause: "3.10.2", coredns: "v1.14.6", source: "v1.37.2" },
];

/// Whether kubelet and preflight refuse a machine with cgroup v1 unless told otherwise (`failCgroupV1: false`).
///
/// Source: `pkg/kubelet/apis/config/v1beta1/defaults.go`, `FailCgroupV1`, v1.34.4 (false) and v1.35.4 (true).
pub fn refuses_cgroup_v1(minor: u32) -> bool {
    minor >= 35
}
