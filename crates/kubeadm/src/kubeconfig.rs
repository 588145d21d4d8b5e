//! The parts of a kubeconfig that are needed to ask the API server something.

use std::path::PathBuf;

use serde_json::Value;

use crate::secret::Secret;

/// Longest kubeconfig, in bytes.
const LIMIT: usize = 256 * 1024;

/// The current context of a kubeconfig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubeconfig {
    /// The API server's URL.
    pub server: String,
    /// The CA that its certificate must come from.
    pub ca: Material,
    /// Who asks, if anybody.
    pub identity: Option<Identity>,
}

/// Something that is either in the kubeconfig or in a file of its own, which the kubelet renews; PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Material {
    /// PEM, from base64 in the kubeconfig.
    Inline(Secret),
    /// Where the PEM is.
    File(PathBuf),
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A client certificate and its key.
    Certificate {
        /// The certificate chain.
        certificate: Material,
        /// Its key.
        key: Material,
    },
    /// A bearer token.
    Bearer(Secret),
}

/// Why a kubeconfig is of no use. Says nothing of its contents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kubeconfig: {0}")]
pub struct KubeconfigError(String);

impl KubeconfigError {
    pub(crate) fn new(why: String) -> Self {
        Self(why)
    }
}

impl Kubeconfig {
    /// Reads a kubeconfig.
    ///
    /// # Errors
    /// When it is no YAML, or its current context lacks a part.
    pub fn parse(text: &str) -> Result<Self, KubeconfigError> {
        let config = read(text)?;
        let context = named(&config, "contexts", "context", config["current-context"].as_str())?;
        let cluster = named(&config, "clusters", "cluster", context["cluster"].as_str())?;
        let server = cluster["server"].as_str().ok_or_else(|| missing("server"))?.to_owned();
        let ca = material(cluster, "certificate-authority")?.ok_or_else(|| missing("certificate-authority"))?;
        let identity = match context["user"].as_str() {
            Some(user) if !user.is_empty() => identity(named(&config, "users", "user", Some(user))?)?,
            _ => None,
        };
        Ok(Self { server, ca, identity })
    }
}

/// The document, with nothing of it in an error.
pub(crate) fn read(text: &str) -> Result<Value, KubeconfigError> {
    if text.len() > LIMIT {
        return Err(KubeconfigError(format!("longer than {LIMIT} bytes")));
    }
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map_or(0, |at| at.line());
        KubeconfigError(format!("not YAML, at line {line}"))
    })
}

fn identity(user: &Value) -> Result<Option<Identity>, KubeconfigError> {
    match (material(user, "client-certificate")?, material(user, "client-key")?, user["token"].as_str()) {
        (Some(certificate), Some(key), _) => Ok(Some(Identity::Certificate { certificate, key })),
        (Some(_), None, _) => Err(missing("client-key")),
        (None, _, Some(token)) => Ok(Some(Identity::Bearer(Secret::new(token)))),
        (None, _, None) => Ok(None),
    }
}

/// The entry called `name` in one of the three lists.
fn named<'a>(config: &'a Value, list: &str, field: &str, name: Option<&str>) -> Result<&'a Value, KubeconfigError> {
    let name = name.ok_or_else(|| KubeconfigError(format!("it names no {field}")))?;
    let entries = config[list].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = entries.iter().find(|entry| entry["name"].as_str() == Some(name));
    found.map(|entry| &entry[field]).ok_or_else(|| KubeconfigError(format!("{list} lacks the {field} it names")))
}

/// `field-data`, base64 of PEM, or else `field`, a path.
fn material(entry: &Value, field: &str) -> Result<Option<Material>, KubeconfigError> {
    if let Some(data) = entry[format!("{field}-data")].as_str().filter(|data| !data.is_empty()) {
        let pem = base64(data).ok_or_else(|| KubeconfigError(format!("{field}-data is not base64")))?;
        return Ok(Some(Material::Inline(pem)));
    }
    Ok(entry[field].as_str().filter(|path| !path.is_empty()).map(|path| Material::File(path.into())))
}

fn base64(text: &str) -> Option<Secret> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok().map(Secret::new)
}

fn missing(field: &str) -> KubeconfigError {
    KubeconfigError(format!("{field} is missing"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONFIG: &str = "
apiVersion: v1
kind: Config
current-context: default
contexts: [{name: default, context: {cluster: site, user: me}}]
clusters: [{name: site, cluster: {server: 'https://api.site.muster:7443', certificate-authority-data: Q0E=}}]
users: [{name: me, user: {client-certificate: /var/lib/kubelet/pki/current.pem, client-key-data: S0VZ}}]
";

    #[test]
    fn reads_data_and_files() {
        let config = Kubeconfig::parse(CONFIG).expect("reads");
        assert_eq!(config.server, "https://api.site.muster:7443");
        assert_eq!(config.ca, Material::Inline(Secret::new("CA")));
        let certificate = Material::File("/var/lib/kubelet/pki/current.pem".into());
        let key = Material::Inline(Secret::new("KEY"));
        assert_eq!(config.identity, Some(Identity::Certificate { certificate, key }));
        assert!(!format!("{config:?}").contains("KEY"));
    }

    #[test]
    fn names_what_is_missing_and_shows_no_secret() {
        let error =
            |from: &str, to: &str| Kubeconfig::parse(&CONFIG.replace(from, to)).expect_err("refused").to_string();
        assert_eq!(error("client-key-data: S0VZ", "other: 1"), "kubeconfig: client-key is missing");
        assert_eq!(error("S0VZ", "S0V*"), "kubeconfig: client-key-data is not base64");
        assert_eq!(error("name: me", "name: you"), "kubeconfig: users lacks the user it names");
        assert_eq!(error("contexts: [", "contexts: [["), "kubeconfig: not YAML, at line 6");
    }

    proptest! {
        #[test]
        fn never_panics(text in "[ -~\n]{0,300}") {
            let _ = Kubeconfig::parse(&text);
        }
    }
}
