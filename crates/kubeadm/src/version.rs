//! kubeadm's version, and which configuration API it reads.

use std::fmt;
use std::str::FromStr;

/// A Kubernetes version as `v1.31.4`. What follows the patch number (`-rc.1`, `+k3s1`) is kept but never compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Always 1 so far.
    pub major: u32,
    /// The minor number: what decides between APIs and phases.
    pub minor: u32,
    /// The patch number.
    pub patch: u32,
    suffix: String,
}

/// The kubeadm configuration API that muster writes for a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigApi {
    /// kubeadm 1.20 and 1.21.
    V1Beta2,
    /// kubeadm 1.22 to 1.30.
    V1Beta3,
    /// kubeadm 1.31 and later.
    V1Beta4,
}

/// Why a version is not one that muster works with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// The text is not a version.
    #[error("{0:?} is not a Kubernetes version; write it as \"v1.31.4\"")]
    Malformed(String),
    /// Older than [`Version::OLDEST_MINOR`].
    #[error("kubeadm {0} is too old: muster works with v1.{min} to v1.{max}", min = Version::OLDEST_MINOR, max = Version::NEWEST_MINOR)]
    TooOld(Version),
    /// Newer than [`Version::NEWEST_MINOR`], or not of major version 1.
    #[error("kubeadm {0} is newer than this muster knows: it works with v1.{min} to v1.{max}", min = Version::OLDEST_MINOR, max = Version::NEWEST_MINOR)]
    Unknown(Version),
    /// kubeadm's answer holds no version.
    #[error("kubeadm's answer to `version -o json` is not understood: {0}")]
    Nonsense(String),
    /// kubeadm deploys its own minor version and the one before it.
    #[error("kubeadm {kubeadm} cannot deploy Kubernetes {wanted}: it deploys its own minor version or the one before")]
    Skew {
        /// kubeadm's version.
        kubeadm: Version,
        /// The version that muster.toml asks for.
        wanted: Version,
    },
}

impl Version {
    /// The oldest minor version that muster works with: the first whose certificates may be ECDSA and whose phases are
    /// the ones in [`crate::versions`].
    pub const OLDEST_MINOR: u32 = 20;
    /// The newest minor version whose phases and API are known.
    pub const NEWEST_MINOR: u32 = 37;

    /// Reads what `kubeadm version -o json` printed and checks that muster knows the version.
    ///
    /// # Errors
    /// When the output is not kubeadm's, or the version is outside the supported range.
    pub fn from_kubeadm(stdout: &[u8]) -> Result<Self, VersionError> {
        let nonsense = |why: &str| VersionError::Nonsense(why.to_owned());
        if stdout.len() > crate::outcome::OUTPUT_LIMIT {
            return Err(nonsense("it is too long"));
        }
        let answer: serde_json::Value = serde_json::from_slice(stdout).map_err(|_| nonsense("it is not JSON"))?;
        let text =
            answer["clientVersion"]["gitVersion"].as_str().ok_or_else(|| nonsense("no clientVersion.gitVersion"))?;
        text.parse::<Self>()?.supported()
    }

    /// The version itself if muster works with it.
    ///
    /// # Errors
    /// When it is outside the supported range.
    pub fn supported(self) -> Result<Self, VersionError> {
        match (self.major, self.minor) {
            (1, Self::OLDEST_MINOR..=Self::NEWEST_MINOR) => Ok(self),
            (0, _) | (1, ..Self::OLDEST_MINOR) => Err(VersionError::TooOld(self)),
            _ => Err(VersionError::Unknown(self)),
        }
    }

    /// The newest API that this version reads and does not warn about.
    pub fn api(&self) -> ConfigApi {
        crate::versions::api_written(self.minor)
    }
}

impl ConfigApi {
    /// The `apiVersion` of its documents.
    pub fn api_version(self) -> &'static str {
        match self {
            ConfigApi::V1Beta2 => "kubeadm.k8s.io/v1beta2",
            ConfigApi::V1Beta3 => "kubeadm.k8s.io/v1beta3",
            ConfigApi::V1Beta4 => "kubeadm.k8s.io/v1beta4",
        }
    }

    /// The API of a document with this `apiVersion`.
    pub fn from_api_version(text: &str) -> Option<Self> {
        [ConfigApi::V1Beta2, ConfigApi::V1Beta3, ConfigApi::V1Beta4].into_iter().find(|api| api.api_version() == text)
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let malformed = || VersionError::Malformed(text.chars().take(40).collect());
        let rest = text.strip_prefix('v').unwrap_or(text);
        let end = rest.find(['-', '+']).unwrap_or(rest.len());
        let (numbers, suffix) = rest.split_at(end);
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.');
        if suffix.len() > 60 || !suffix.chars().all(plain) {
            return Err(malformed());
        }
        let number = |part: &str| match part.bytes().all(|b| b.is_ascii_digit()) && part.len() <= 5 {
            true => part.parse::<u32>().map_err(|_| malformed()),
            false => Err(malformed()),
        };
        match numbers.split('.').collect::<Vec<_>>()[..] {
            [major, minor, patch] => Ok(Self {
                major: number(major)?,
                minor: number(minor)?,
                patch: number(patch)?,
                suffix: suffix.to_owned(),
            }),
            _ => Err(malformed()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}.{}{}", self.major, self.minor, self.patch, self.suffix)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn chooses_the_api_by_the_minor_version() {
        let api = |text: &str| text.parse::<Version>().expect("a version").api();
        assert_eq!(api("v1.20.2"), ConfigApi::V1Beta2);
        assert_eq!(api("v1.21.14"), ConfigApi::V1Beta2);
        assert_eq!(api("v1.22.0"), ConfigApi::V1Beta3);
        assert_eq!(api("v1.30.9"), ConfigApi::V1Beta3);
        assert_eq!(api("v1.31.0"), ConfigApi::V1Beta4);
        assert_eq!(api("1.37.1"), ConfigApi::V1Beta4);
    }

    #[test]
    fn reads_kubeadms_answer() {
        let answer = br#"{"clientVersion":{"major":"1","minor":"31","gitVersion":"v1.31.4+vendor.2"}}"#;
        assert_eq!(Version::from_kubeadm(answer).expect("a version").to_string(), "v1.31.4+vendor.2");
        assert!(matches!(Version::from_kubeadm(b"segfault"), Err(VersionError::Nonsense(_))));
        assert!(matches!(Version::from_kubeadm(b"{}"), Err(VersionError::Nonsense(_))));
        let old = br#"{"clientVersion":{"gitVersion":"v1.19.3"}}"#;
        let error = Version::from_kubeadm(old).expect_err("too old");
        assert_eq!(error.to_string(), "kubeadm v1.19.3 is too old: muster works with v1.20 to v1.37");
        let new = br#"{"clientVersion":{"gitVersion":"v1.38.0"}}"#;
        assert!(matches!(Version::from_kubeadm(new), Err(VersionError::Unknown(_))));
    }

    #[test]
    fn refuses_what_is_no_version() {
        for text in ["", "v", "1.31", "v1.31.4.5", "v1.+3.1", "v1.31.x", "latest", "v1.31.4 --evil", "v1.999999.0"] {
            assert!(text.parse::<Version>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = text.parse::<Version>();
            let _ = Version::from_kubeadm(&bytes);
        }
    }
}
