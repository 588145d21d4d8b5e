//! Where a joining control plane's kubelet asks, and as whom.
//!
//! Since 1.33 kubeadm points such a kubelet to its *own* API server, which does not serve before its etcd member does: the kubelet has
//! no certificate until then, doubles the pauses between its requests, and its Node is late by half a minute
//! (`cmd/kubeadm/app/cmd/phases/join/kubelet.go`, v1.37.2). So muster has kubeadm make the kubelet's kubeconfig from the CA that lies on a
//! control plane anyway, as `init` does, and lets it ask the cluster's endpoint, as kubeadm did before 1.33. When the machine's own API
//! server serves, the kubeconfig is made what kubeadm would have left; the kubelet reads it at its next start.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::kubeconfig::{KubeconfigError, read};
use crate::secret::Secret;

/// Let the kubelet's kubeconfig name another API server, or its own certificate. Done twice it changes nothing more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeletServer {
    /// The kubeconfig. It must exist.
    pub path: PathBuf,
    /// `https://host:port`; none to leave it as it is.
    pub server: Option<String>,
    /// Where the kubelet keeps the certificate that it renews. If this file exists, the kubeconfig names it in place of the
    /// certificate that it holds, which would end after a year: kubeadm's `init phase kubelet-finalize` does the same, and
    /// starts the kubelet anew. It need not: a running kubelet takes that file before what its kubeconfig holds, and writes it as soon
    /// as it starts (`cmd/kubelet/app/server.go`, `util/certificate/certificate_manager.go` of client-go, v1.37.2).
    pub renewed: Option<PathBuf>,
}

impl KubeletServer {
    /// The kubeconfig's new text. `renewed` says whether that file exists.
    ///
    /// # Errors
    /// When the text is no kubeconfig with a cluster and a user in its current context.
    pub fn rewrite(&self, text: &str, renewed: bool) -> Result<Secret, KubeconfigError> {
        let mut config = read(text)?;
        let context = entry(&mut config, "contexts", "context", None)?;
        let named = |field: &str| context.get(field).cloned().unwrap_or_default();
        let (cluster, user) = (named("cluster"), named("user"));
        let cluster = entry(&mut config, "clusters", "cluster", Some(&cluster))?;
        if let Some(server) = &self.server {
            cluster["server"] = json!(server);
        }
        if let Some(path) = self.renewed.as_deref().filter(|_| renewed) {
            *entry(&mut config, "users", "user", Some(&user))? = by_file(path);
        }
        let text =
            zeroize::Zeroizing::new(serde_json::to_vec_pretty(&config).expect("a map of strings is always JSON"));
        forget(&mut config);
        Ok(Secret::new(text.as_slice()))
    }
}

/// One file holds both, the certificate first.
fn by_file(path: &Path) -> Value {
    json!({ "client-certificate": path.display().to_string(), "client-key": path.display().to_string() })
}

/// The entry of one of the three lists that has this name; of the contexts the current one.
fn entry<'a>(
    config: &'a mut Value,
    list: &str,
    field: &str,
    name: Option<&Value>,
) -> Result<&'a mut Value, KubeconfigError> {
    let missing = || KubeconfigError::new(format!("{list} lacks the {field} it names"));
    let name = name.or(config.get("current-context")).cloned().filter(Value::is_string).ok_or_else(missing)?;
    let entries = config.get_mut(list).and_then(Value::as_array_mut).ok_or_else(missing)?;
    let found = entries.iter_mut().find(|entry| entry.get("name") == Some(&name));
    found.and_then(|entry| entry.get_mut(field)).filter(|entry| entry.is_object()).ok_or_else(missing)
}

/// A parsed kubeconfig holds a key.
fn forget(value: &mut Value) {
    use zeroize::Zeroize as _;
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(values) => values.iter_mut().for_each(forget),
        Value::Object(fields) => fields.values_mut().for_each(forget),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kubeconfig::{Identity, Kubeconfig, Material};

    const CONFIG: &str = "
apiVersion: v1
kind: Config
preferences: {}
current-context: system:node:m2@site
contexts:
- {name: other, context: {cluster: elsewhere, user: somebody}}
- {name: 'system:node:m2@site', context: {cluster: site, user: 'system:node:m2'}}
clusters:
- {name: elsewhere, cluster: {server: 'https://192.0.2.1', certificate-authority-data: Q0E=}}
- {name: site, cluster: {server: 'https://10.0.0.2:6443', certificate-authority-data: Q0E=}}
users: [{name: 'system:node:m2', user: {client-certificate-data: Q1JU, client-key-data: S0VZ}}]
";

    fn change(renewed: Option<&str>) -> KubeletServer {
        let server = Some("https://api.site.muster:7443".to_owned());
        KubeletServer { path: "/etc/kubernetes/kubelet.conf".into(), server, renewed: renewed.map(Into::into) }
    }

    fn rewritten(change: &KubeletServer, text: &str, renewed: bool) -> String {
        change.rewrite(text, renewed).expect("rewrites").expose_str().to_owned()
    }

    #[test]
    fn only_the_server_changes_and_only_the_current_one() {
        let text = rewritten(&change(None), CONFIG, true);
        let (before, after) = (Kubeconfig::parse(CONFIG).expect("reads"), Kubeconfig::parse(&text).expect("reads"));
        assert_eq!(after, Kubeconfig { server: "https://api.site.muster:7443".into(), ..before });
        assert!(text.contains("https://192.0.2.1"), "another cluster's server stays");
    }

    #[test]
    fn the_kubelets_own_certificate_takes_the_place_of_the_one_inside_once_it_is_there() {
        let change = change(Some("/var/lib/kubelet/pki/kubelet-client-current.pem"));
        let inline = rewritten(&change, CONFIG, false);
        assert!(inline.contains("S0VZ"));
        let text = rewritten(&change, &inline, true);
        let file = || Material::File("/var/lib/kubelet/pki/kubelet-client-current.pem".into());
        let identity = Kubeconfig::parse(&text).expect("reads").identity;
        assert_eq!(identity, Some(Identity::Certificate { certificate: file(), key: file() }));
        assert!(!text.contains("S0VZ"));
        assert_eq!(rewritten(&change, &text, true), text, "a second time nothing changes");
    }

    #[test]
    fn whoever_names_no_server_leaves_it() {
        let change = KubeletServer { server: None, ..change(Some("/x.pem")) };
        let text = rewritten(&change, CONFIG, true);
        assert!(text.contains("https://10.0.0.2:6443") && text.contains("/x.pem"), "{text}");
    }

    #[test]
    fn what_is_no_kubeconfig_is_refused_and_not_shown() {
        let refused = |from: &str, to: &str| {
            change(Some("/x")).rewrite(&CONFIG.replace(from, to), true).expect_err("refused").to_string()
        };
        assert_eq!(refused("user: 'system:node:m2'}}", "user: me}}"), "kubeconfig: users lacks the user it names");
        assert_eq!(refused("clusters:", "others:"), "kubeconfig: clusters lacks the cluster it names");
        assert_eq!(refused("current-context", "former"), "kubeconfig: contexts lacks the context it names");
        assert_eq!(refused("contexts:", "contexts: [["), "kubeconfig: not YAML, at line 7");
    }

    proptest! {
        #[test]
        fn never_panics(text in "[ -~\n]{0,300}") {
            let _ = change(Some("/x")).rewrite(&text, true);
        }
    }
}
