//! Applying the image's manifests: what to ask and what the answers mean is `muster_kubeadm::manifests`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use muster_kubeadm::manifests::{Applied, Discovery, Object, discovery_path, judge, object_path};
use muster_kubeadm::{Kubeconfig, Manifests};
use muster_protocol::{ManifestOutcome, ManifestResult};
use tracing::debug;

use crate::ask;

/// Longest time for one apply: the API server gives a webhook up to 10 s unless it says otherwise, and then answers.
const PATIENCE: Duration = Duration::from_secs(15);

/// So many objects in a row without any answer mean that there is no API server: the others are not tried in this round.
const SILENCES_MAX: u32 = 2;

/// An API server, and who asks it.
pub(crate) struct Server<'a> {
    /// The name in its certificate, with the port.
    pub(crate) name: &'a str,
    pub(crate) at: SocketAddr,
    pub(crate) identity: &'a Kubeconfig,
}

/// Applies these objects once, in order, and says what became of each.
pub(crate) async fn apply(server: &Server<'_>, manifests: &Manifests, objects: &[u32]) -> Vec<ManifestResult> {
    let mut known = BTreeMap::new();
    let mut results = Vec::with_capacity(objects.len());
    let mut silent = 0;
    let mut last = String::new();
    for number in objects {
        let Some(object) = manifests.get(*number) else { continue };
        let outcome = match silent >= SILENCES_MAX {
            true => ManifestOutcome::Later(format!("{object}: not tried: {last}")),
            false => match one(server, object, &mut known).await {
                Ok(Applied::Done) => ManifestOutcome::Applied,
                Ok(Applied::Later(why)) => ManifestOutcome::Later(format!("{object}: {why}")),
                Ok(Applied::Refused(why)) => ManifestOutcome::Refused(format!("{object}: {why}")),
                Err(why) => {
                    silent += 1;
                    last = why;
                    ManifestOutcome::Later(format!("{object}: {last}"))
                }
            },
        };
        debug!(object = %object, ?outcome, "manifest");
        if matches!(outcome, ManifestOutcome::Applied | ManifestOutcome::Refused(_)) {
            silent = 0;
        }
        results.push(ManifestResult { object: *number, outcome });
    }
    results
}

/// # Errors
/// When there is no answer at all.
async fn one(server: &Server<'_>, object: &Object, known: &mut BTreeMap<String, Discovery>) -> Result<Applied, String> {
    if !known.contains_key(&object.api_version) {
        let path = discovery_path(&object.api_version);
        let (status, body) = ask::get(server.name, server.at, server.identity, &path).await?;
        known.insert(object.api_version.clone(), Discovery::read(status, &body));
    }
    let resource = match known[&object.api_version].resource(object) {
        Ok(resource) => resource,
        Err(why) => return Ok(Applied::Later(why)),
    };
    let path = object_path(object, resource);
    let (status, body) = ask::apply(server.name, server.at, server.identity, &path, &object.body, PATIENCE).await?;
    Ok(judge(object, status, &body))
}
