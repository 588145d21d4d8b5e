//! Reads documents as strictly as they can be read: an unknown, misplaced or mistyped field is an error that names it.

use std::path::Path;

use muster_kubeadm::schema::{self, Mismatch, Mistake};
use muster_kubeadm::versions::APIS;
use muster_kubeadm::{ConfigApi, Kind};
use serde_json::Value;

use crate::failure::{Doing as _, Failure, fail};
use crate::setting::Version;

/// The documents of one file, each kind at most once.
#[derive(Debug, Default, Clone)]
pub(crate) struct Documents {
    pub(crate) init: Option<Value>,
    pub(crate) cluster: Option<Value>,
    pub(crate) join: Option<Value>,
    pub(crate) reset: Option<Value>,
    /// KubeletConfiguration and KubeProxyConfiguration, which kubeadm passes on.
    pub(crate) components: Vec<Value>,
}

impl Documents {
    /// Reads a file for this version of kubeadm.
    pub(crate) fn read(path: &str, version: &Version) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(Path::new(path)).doing(format!("unable to read config from {path:?} "))?;
        Self::parse(&text, version)
    }

    pub(crate) fn parse(text: &str, version: &Version) -> Result<Self, Failure> {
        let options = serde_saphyr::options! { with_snippet: false };
        let values: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
            let error = error.without_snippet();
            fail(format!(
                "could not interpret GroupVersionKind; unmarshal error: error converting YAML to JSON: {error}"
            ))
        })?;
        let mut documents = Self::default();
        if values.is_empty() && !text.is_empty() {
            documents.add(Value::Null, version)?;
        }
        for (at, value) in values.into_iter().enumerate() {
            // kubeadm reads no further than an empty document.
            if at > 0 && value.is_null() {
                break;
            }
            documents.add(value, version)?;
        }
        Ok(documents)
    }

    fn add(&mut self, value: Value, version: &Version) -> Result<(), Failure> {
        let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if !value.is_object() && !value.is_null() {
            return Err(fail(format!(
                "could not interpret GroupVersionKind; unmarshal error: error unmarshaling JSON: {} is no map",
                if value.is_array() { "a list" } else { "a value" }
            )));
        }
        let unknown = || fail(format!("unknown configuration APIs: {kind:?} of {api_version:?}"));
        let (group, api) = api_version.split_once('/').unwrap_or_default();
        if kind.is_empty() || group.is_empty() {
            return Err(fail(format!(
                "invalid configuration for GroupVersionKind {api_version}, Kind={kind}: kind and apiVersion is mandatory \
                 information that must be specified"
            )));
        }
        if group != "kubeadm.k8s.io" {
            return match (api_version.as_str(), kind.as_str()) {
                ("kubelet.config.k8s.io/v1beta1", "KubeletConfiguration")
                | ("kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration") => {
                    self.components.push(value);
                    Ok(())
                }
                _ => Err(unknown()),
            };
        }
        let api = accepted(api, version)?;
        let (slot, of) = match kind.as_str() {
            "InitConfiguration" => (&mut self.init, Kind::InitConfiguration),
            "ClusterConfiguration" => (&mut self.cluster, Kind::ClusterConfiguration),
            "JoinConfiguration" => (&mut self.join, Kind::JoinConfiguration),
            "ResetConfiguration" if api == ConfigApi::V1Beta4 => (&mut self.reset, Kind::ResetConfiguration),
            _ => return Err(unknown()),
        };
        if slot.is_some() {
            return Err(fail(format!("invalid configuration: kind {kind:?} is specified twice in YAML file")));
        }
        let object = value.as_object().expect("it has an apiVersion");
        schema::check(of, api, object).map_err(|Mismatch { field, what }| {
            let error = match what {
                Mistake::Form(_) => format!("cannot unmarshal {field}: {what}"),
                Mistake::Unknown(_) | Mistake::OtherApi(_) => format!("unknown field {field:?}"),
            };
            fail(format!(
                "error unmarshaling configuration schema.GroupVersionKind{{Group:\"kubeadm.k8s.io\", \
                 Version:{:?}, Kind:{kind:?}}}: strict decoding error: {error}",
                api_version.rsplit('/').next().unwrap_or_default()
            ))
        })?;
        *slot = Some(value);
        Ok(())
    }
}

/// kubeadm reads the API it was made with and some before it.
fn accepted(api: &str, version: &Version) -> Result<ConfigApi, Failure> {
    let row = APIS.iter().find(|row| row.api.api_version().strip_prefix("kubeadm.k8s.io/") == Some(api));
    match row {
        Some(row) if row.is_read_by(version.minor) => Ok(row.api),
        Some(row) if row.last < version.minor => Err(fail(format!(
            "your configuration file uses an old API spec: \"kubeadm.k8s.io/{api}\". Please use kubeadm v1.{} instead",
            row.last
        ))),
        None if api == "v1" && version.minor >= 37 => {
            Err(fail("experimental API spec: \"kubeadm.k8s.io/v1\" is not allowed"))
        }
        _ => Err(fail(format!("unknown configuration APIs: kubeadm.k8s.io/{api} in v1.{}", version.minor))),
    }
}

pub(crate) fn is_token(text: &str) -> bool {
    text.split_once('.').is_some_and(|(id, secret)| is_token_part(id, 6) && is_token_part(secret, 16))
}

pub(crate) fn is_token_part(part: &str, length: usize) -> bool {
    part.len() == length && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// The seconds of a Go duration such as `1h0m0.5s`.
pub(crate) fn seconds(text: &str) -> Option<f64> {
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        total += number
            * match &rest[digits..unit_end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 0.001,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str, version: &str) -> Result<Documents, Failure> {
        Documents::parse(text, &Version::parse(version).expect("a version"))
    }

    #[test]
    fn reads_each_api_where_kubeadm_does() {
        for (api, version, reads) in [
            ("v1beta2", "v1.20.2", true),
            ("v1beta2", "v1.27.0", false),
            ("v1beta3", "v1.21.0", false),
            ("v1beta3", "v1.22.0", true),
            ("v1beta3", "v1.37.0", false),
            ("v1beta4", "v1.30.0", false),
            ("v1beta4", "v1.37.0", true),
        ] {
            let text = format!("apiVersion: kubeadm.k8s.io/{api}\nkind: InitConfiguration\n");
            assert_eq!(parse(&text, version).is_ok(), reads, "{api} {version}");
        }
    }

    #[test]
    fn refuses_what_is_unknown_misplaced_or_mistyped() {
        let error = |api: &str, version: &str, kind: &str, field: &str| {
            let text = format!("apiVersion: kubeadm.k8s.io/{api}\nkind: {kind}\n{field}\n");
            parse(&text, version).expect_err("refused").to_string()
        };
        let unknown = error("v1beta2", "v1.20.2", "InitConfiguration", "timeouts: {}");
        assert!(unknown.contains("unknown field \"timeouts\""), "{unknown}");
        let map = error("v1beta4", "v1.31.0", "ClusterConfiguration", "apiServer: {extraArgs: {v: \"4\"}}");
        assert!(map.contains("apiServer.extraArgs: it must be a list"), "{map}");
        let list =
            error("v1beta3", "v1.31.0", "ClusterConfiguration", "scheduler: {extraArgs: [{name: v, value: \"4\"}]}");
        assert!(list.contains("scheduler.extraArgs: it must be a map of strings"), "{list}");
        let token = error("v1beta4", "v1.31.0", "JoinConfiguration", "discovery: {tlsBootstrapToken: hunter2}");
        assert!(token.contains("discovery.tlsBootstrapToken") && !token.contains("hunter2"), "{token}");
        let nested = error("v1beta4", "v1.31.0", "JoinConfiguration", "discovery: {timeout: 1s}");
        assert!(nested.contains("unknown field \"discovery.timeout\""), "{nested}");
    }

    #[test]
    fn reads_durations_as_go_does() {
        assert_eq!(seconds("1h2m3s"), Some(3723.0));
        assert_eq!(seconds("500ms"), Some(0.5));
        assert_eq!(seconds("24h0m0s"), Some(86400.0));
        for text in ["", "5", "s", "1d", "-1s"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[ -~\n]{0,200}") {
            let _ = parse(&text, "v1.31.0");
            let _ = seconds(&text);
        }
    }
}
