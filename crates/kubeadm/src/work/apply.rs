//! Objects that are put into the cluster: the image's manifests, and CoreDNS' configuration where there is no DNS server.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use muster_protocol::{ManifestOutcome, ManifestResult, StepOutput};

use super::actions::PATIENCE;
use super::step::Deed;
use super::{Request, Trouble};
use crate::dns::{COLLECTION, LocalDns};
use crate::kubeconfig::Kubeconfig;
use crate::manifests::{self, Applied, Discovery, Object, discovery_path, judge, object_path};
use crate::secret::Secret;

/// Longest time for one apply: the API server gives a webhook up to 10 s unless it says otherwise, and then answers.
const APPLY_PATIENCE: Duration = Duration::from_secs(15);

/// So many objects in a row without any answer mean that there is no API server: the others are not tried in this round.
const SILENCES_MAX: u32 = 2;

impl Deed {
    /// Applies these objects once, in order, through this machine's own balancer, and says what became of each.
    pub(super) async fn apply(&self, objects: &[u32]) -> Result<StepOutput, Trouble> {
        let identity = self.hands.identity(&self.place.settings.admin_kubeconfig()).await?;
        let mut known = BTreeMap::new();
        let mut results = Vec::with_capacity(objects.len());
        let (mut silent, mut last) = (0, String::new());
        for number in objects {
            let Some(object) = self.place.manifests.get(*number) else { continue };
            let outcome = match silent >= SILENCES_MAX {
                true => ManifestOutcome::Later(format!("{object}: not tried: {last}")),
                false => match self.apply_one(&identity, object, &mut known).await? {
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
            if matches!(outcome, ManifestOutcome::Applied | ManifestOutcome::Refused(_)) {
                silent = 0;
            }
            results.push(ManifestResult { object: *number, outcome });
        }
        Ok(StepOutput::Manifests(results))
    }

    /// The inner error: there is no answer at all.
    async fn apply_one(
        &self,
        identity: &Kubeconfig,
        object: &Object,
        known: &mut BTreeMap<String, Discovery>,
    ) -> Result<Result<Applied, String>, Trouble> {
        if !known.contains_key(&object.api_version) {
            let path = discovery_path(&object.api_version);
            match self.ask_api(identity, "GET", path, "application/json", Secret::default(), PATIENCE).await? {
                Ok((status, body)) => known.insert(object.api_version.clone(), Discovery::read(status, &body)),
                Err(why) => return Ok(Err(why)),
            };
        }
        let resource = match known[&object.api_version].resource(object) {
            Ok(resource) => resource,
            Err(why) => return Ok(Ok(Applied::Later(why))),
        };
        let (path, body) = (object_path(object, resource), object.body.clone());
        let heard = self.ask_api(identity, "PATCH", path, manifests::CONTENT_TYPE, body, APPLY_PATIENCE).await?;
        Ok(heard.map(|(status, body)| judge(object, status, &body)))
    }

    /// Creates CoreDNS' ConfigMap if it is needed and not there. Returns what people should know.
    pub(super) async fn local_dns(&self, dns: &LocalDns) -> Result<Option<String>, Trouble> {
        let Some(config) = self.text(&dns.kubelet_config).await? else { return Ok(None) };
        let file = LocalDns::resolv_conf(&config);
        let servers = match &file {
            Some(file) => self.text(file).await?,
            None => None,
        };
        let Some(config_map) = dns.config_map(servers.as_deref()) else { return Ok(None) };
        let file = file.map_or("the kubelet's empty resolvConf".to_owned(), |file| file.display().to_string());
        let identity = self.hands.identity(&dns.kubeconfig).await?;
        let (kind, body) = ("application/json", Secret::new(config_map));
        let heard = self.ask_api(&identity, "POST", COLLECTION.to_owned(), kind, body, PATIENCE).await?;
        match heard.map_err(Trouble::new)?.0 {
            200..300 => Ok(Some(format!(
                "{file} names no DNS server that a Pod could reach: CoreDNS answers for the cluster alone; add a forward to \
                 the ConfigMap kube-system/coredns to change that"
            ))),
            // Somebody's own is there already, or that of an earlier try.
            409 => Ok(None),
            // kubeadm says better what is wrong.
            status @ 400..500 => {
                self.hands.say(format!("the API server refuses CoreDNS' ConfigMap with status {status}"));
                Ok(None)
            }
            status => Err(Trouble::new(format!("the API server answers with status {status} to CoreDNS' ConfigMap"))),
        }
    }

    async fn text(&self, path: &Path) -> Result<Option<String>, Trouble> {
        let bytes = self.hands.read(path).await?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes.expose()).into_owned()))
    }

    /// Asks an API server once, through the balancer.
    pub(super) async fn ask_api(
        &self,
        identity: &Kubeconfig,
        method: &'static str,
        path: String,
        content_type: &'static str,
        body: Secret,
        patience: Duration,
    ) -> Result<Result<(u16, Bytes), String>, Trouble> {
        let server = self.place.settings.endpoint.clone();
        let identity = identity.clone();
        self.hands.send(Request { server, at: None, identity, method, path, content_type, body, patience }).await
    }
}
