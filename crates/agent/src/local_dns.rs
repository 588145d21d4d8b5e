//! CoreDNS' configuration on a site whose machines know no DNS server: when and what is `muster_kubeadm::dns`.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;

use muster_kubeadm::LocalDns;
use muster_kubeadm::dns::COLLECTION;
use tracing::warn;

use crate::ask;

/// Longest file that is looked at, in bytes: the kubelet reads no more of a resolv.conf (`pkg/kubelet/network/dns/dns.go`).
const FILE_BYTES_MAX: u64 = 10 << 20;

/// Creates the ConfigMap if it is needed and not there. Returns what people should know.
///
/// # Errors
/// When the API server does not answer, or fails.
pub(crate) async fn ensure(dns: &LocalDns, at: SocketAddr) -> Result<Option<String>, String> {
    let Some(config) = text(&dns.kubelet_config)? else { return Ok(None) };
    let file = LocalDns::resolv_conf(&config);
    let servers = file.as_deref().map(text).transpose()?.flatten();
    let Some(config_map) = dns.config_map(servers.as_deref()) else { return Ok(None) };
    let file = file.map_or("the kubelet's empty resolvConf".to_owned(), |file| file.display().to_string());
    let identity = ask::identity(&dns.kubeconfig)?;
    let (status, _) = ask::post(&dns.server, at, &identity, COLLECTION, config_map).await?;
    match status {
        200..300 => Ok(Some(format!(
            "{file} names no DNS server that a Pod could reach: CoreDNS answers for the cluster alone; add a forward to \
             the ConfigMap kube-system/coredns to change that"
        ))),
        // Somebody's own is there already, or that of an earlier try.
        409 => Ok(None),
        // kubeadm says better what is wrong.
        400..500 => {
            warn!(status, "the API server refuses CoreDNS' ConfigMap");
            Ok(None)
        }
        _ => Err(format!("the API server answers with status {status} to CoreDNS' ConfigMap")),
    }
}

/// A file's text; none if there is no such file.
fn text(path: &Path) -> Result<Option<String>, String> {
    let named = |why: std::io::Error| format!("{}: {why}", path.display());
    match path.metadata() {
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(named(why)),
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => return Err(format!("{} is too long", path.display())),
        Ok(_) => {}
    }
    std::fs::read(path).map(|bytes| Some(String::from_utf8_lossy(&bytes).into_owned())).map_err(named)
}
