//! kubeconfig files, written and read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::client::{Client, Identity};
use crate::failure::{Doing as _, Failure, fail};
use crate::pki;

/// The text of a kubeconfig.
pub(crate) fn text(server: &str, ca: &str, user: &str, identity: &Identity) -> String {
    let credentials = match identity {
        Identity::Nobody => json!({}),
        Identity::Bearer(token) => json!({ "token": token }),
        Identity::Certificate { certificate, key } => json!({
            "client-certificate-data": STANDARD.encode(certificate),
            "client-key-data": STANDARD.encode(key),
        }),
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "kubernetes", "cluster": {
            "server": format!("https://{server}"),
            "certificate-authority-data": STANDARD.encode(ca),
        }}],
        "contexts": [{ "name": "rehearsal", "context": { "cluster": "kubernetes", "user": user } }],
        "current-context": "rehearsal",
        "users": [{ "name": user, "user": credentials }],
    });
    format!("{config:#}\n")
}

/// A client for the kubeconfig at `path`.
pub(crate) fn client(path: &Path, hosts: Option<PathBuf>) -> Result<Client, Failure> {
    let text = pki::read(path)?;
    parse(&text, hosts).map_err(|error| fail(format!("error loading {}: {error}", path.display())))
}

/// A client for a kubeconfig's current context, or for its only cluster when it has no context, as discovery files do.
pub(crate) fn parse(text: &str, hosts: Option<PathBuf>) -> Result<Client, Failure> {
    let options = serde_saphyr::options! { with_snippet: false };
    let config: Value = serde_saphyr::from_str_with_options(text, options).map_err(|_| fail("it is not YAML"))?;
    let entry = |list: &str, name: &Value| {
        let entries = config[list].as_array()?;
        entries.iter().find(|entry| entry["name"] == *name).cloned()
    };
    let context = entry("contexts", &config["current-context"]);
    let name = context.as_ref().map_or(json!(""), |context| context["context"]["cluster"].clone());
    let cluster =
        entry("clusters", &name).ok_or_else(|| fail("it must have an unnamed cluster or a current context"))?;
    let data = |entry: &Value, field: &str| -> Result<Option<String>, Failure> {
        let Some(data) = entry[format!("{field}-data")].as_str() else {
            return entry[field].as_str().map(|path| pki::read(Path::new(path))).transpose();
        };
        let bytes = STANDARD.decode(data).doing(format!("{field}-data"))?;
        String::from_utf8(bytes).map(Some).doing(format!("{field}-data"))
    };
    let user = context.and_then(|context| entry("users", &context["context"]["user"])).unwrap_or_default();
    let user = &user["user"];
    let identity = match (data(user, "client-certificate")?, data(user, "client-key")?, user["token"].as_str()) {
        (Some(certificate), Some(key), _) => Identity::Certificate { certificate, key },
        (_, _, Some(token)) => Identity::Bearer(token.to_owned()),
        _ => Identity::Nobody,
    };
    let server = cluster["cluster"]["server"].as_str().unwrap_or_default();
    let server = server.strip_prefix("https://").ok_or_else(|| fail("its server is not an https URL"))?.to_owned();
    let ca = data(&cluster["cluster"], "certificate-authority")?;
    Ok(Client { server, ca, identity, hosts, patience: Duration::from_secs(10) })
}
