//! How a joining machine finds the cluster and comes to trust it, by file or by token; dialling nothing but what the
//! documents name.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{Client, Identity};
use crate::document::{is_token, seconds};
use crate::failure::{Failure, fail};
use crate::say::say;
use crate::setting::Setting;
use crate::{jws, kubeconfig, pki};

const CLUSTER_INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";

/// A client with the bootstrap token's identity, for a cluster that has been verified.
pub(crate) fn discover(join: &Value, setting: &Setting) -> Result<Client, Failure> {
    let discovery = &join["discovery"];
    let own = if discovery["timeout"].is_null() { &join["timeouts"]["discovery"] } else { &discovery["timeout"] };
    let timeout = own.as_str().and_then(seconds).unwrap_or(300.0);
    let token = discovery["tlsBootstrapToken"].as_str().or(discovery["bootstrapToken"]["token"].as_str());
    let token = token.ok_or_else(|| fail("discovery.tlsBootstrapToken: Invalid value: it is empty"))?;
    let (server, ca) = match (discovery["file"]["kubeConfigPath"].as_str(), discovery["bootstrapToken"].is_object()) {
        (Some(path), false) => by_file(path, timeout, setting)?,
        (None, true) => by_token(&discovery["bootstrapToken"], timeout, setting)?,
        _ => return Err(fail("discovery: Invalid value: \"\": exactly one of bootstrapToken and file must be set")),
    };
    let identity = Identity::Bearer(token.to_owned());
    Ok(Client { server, ca: Some(ca), identity, hosts: setting.hosts.clone(), patience: Duration::from_secs(10) })
}

/// What a JoinConfiguration has to say of discovery, whoever looks at it.
pub(crate) fn validate(join: &Value) -> Result<(), Failure> {
    let discovery = &join["discovery"];
    let (token, file) = (&discovery["bootstrapToken"], discovery["file"].is_object());
    if token.is_object() == file {
        return Err(fail("discovery: Invalid value: \"\": exactly one of bootstrapToken and file must be set"));
    }
    if let Some(path) = discovery["file"]["kubeConfigPath"].as_str()
        && !path.starts_with("https://")
        && !Path::new(path).exists()
    {
        return Err(fail(format!(
            "discovery.file.kubeConfigPath: Invalid value: {path:?}: not a valid HTTPS URL or a file on disk"
        )));
    }
    // Without a token the kubeconfig of the file may hold credentials, which the rehearsal has no use for.
    let own = discovery["tlsBootstrapToken"].as_str().or(token["token"].as_str());
    if own.is_none_or(|token| !is_token(token)) {
        return Err(fail("discovery.tlsBootstrapToken: Invalid value: \"\": the bootstrap token is invalid"));
    }
    let pinned = token["caCertHashes"].as_array().is_some_and(|pins| !pins.is_empty());
    if token.is_object() && !pinned && token["unsafeSkipCAVerification"] != true {
        return Err(fail(
            "discovery.bootstrapToken.caCertHashes: Invalid value: \"\": using token-based discovery without caCertHashes can \
             be unsafe. Set unsafeSkipCAVerification as true in your kubeadm config file or pass \
             --discovery-token-unsafe-skip-ca-verification flag to continue",
        ));
    }
    Ok(())
}

/// Before 1.28 the first look comes only after five seconds, or at the end of a shorter timeout.
fn by_file(path: &str, timeout: f64, setting: &Setting) -> Result<(String, String), Failure> {
    say!("[discovery] Created cluster-info discovery client from {path:?}");
    let client = kubeconfig::client(Path::new(path), setting.hosts.clone())?;
    let ca = client.ca.clone().ok_or_else(|| fail("the discovery file has no certificate authority"))?;
    if setting.version.minor < 28 {
        setting.take(timeout.min(5.0));
    }
    poll(timeout, setting, || client.get(CLUSTER_INFO)).map_err(|error| {
        fail(format!("Abort reading the cluster-info ConfigMap after timeout of {timeout}s: {error}"))
    })?;
    Ok((client.server, ca))
}

fn by_token(discovery: &Value, timeout: f64, setting: &Setting) -> Result<(String, String), Failure> {
    let server =
        discovery["apiServerEndpoint"].as_str().ok_or_else(|| fail("apiServerEndpoint: Invalid value: it is empty"))?;
    let token = discovery["token"].as_str().unwrap_or_default();
    let (id, secret) = token.split_once('.').ok_or_else(|| fail("token: Invalid value"))?;
    let pins: Vec<_> = discovery["caCertHashes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    say!("[discovery] Created cluster-info discovery client, requesting info from {server:?}");
    let (hosts, patience) = (setting.hosts.clone(), Duration::from_secs(10));
    let mut client = Client { server: server.into(), ca: None, identity: Identity::Nobody, hosts, patience };
    let signed = |client: &Client| {
        let info = client.get(CLUSTER_INFO)?;
        let missing =
            || fail(format!("could not find a JWS signature in the cluster-info ConfigMap for token ID {id:?}"));
        let signature = info["data"][format!("jws-kubeconfig-{id}")].as_str().ok_or_else(missing)?.to_owned();
        Ok((info["data"]["kubeconfig"].as_str().unwrap_or_default().to_owned(), signature))
    };
    let (text, signature) = poll(timeout, setting, || signed(&client))?;
    if !jws::is_valid(&signature, &text, id, secret) {
        return Err(fail(
            "failed to verify JWS signature of received cluster info object, can't trust this API Server",
        ));
    }
    let ca = kubeconfig::parse(&text, None)?.ca.ok_or_else(|| fail("cluster-info has no CA"))?;
    let found = pki::pin(&ca)?;
    if !pins.is_empty() && !pins.contains(&found.as_str()) {
        return Err(fail(format!(
            "cluster CA found in cluster-info ConfigMap is invalid: public key {found} is not pinned"
        )));
    }
    client.ca = Some(ca.clone());
    if client.get(CLUSTER_INFO)?["data"]["kubeconfig"] != Value::String(text) {
        return Err(fail(
            "the second kubeconfig from the cluster-info ConfigMap (using validated TLS) was different from the first",
        ));
    }
    Ok((client.server, ca))
}

/// Looks once, and then every five seconds at kubeadm's own pace; a double without a pace looks more often and gives up
/// sooner.
fn poll<T>(timeout: f64, setting: &Setting, look: impl Fn() -> Result<T, Failure>) -> Result<T, Failure> {
    let scale = setting.pace.clamp(0.01, 1.0);
    let deadline = Instant::now() + Duration::from_secs_f64(timeout * scale);
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_secs_f64(5.0 * scale)),
        }
    }
}
