//! etcd's timing in kubeadm's ClusterConfiguration, from where every member takes it.

use muster_protocol::EtcdTiming;
use serde_json::{Value, json};

use super::{Documents, Object};
use crate::version::ConfigApi;

const HEARTBEAT: &str = "heartbeat-interval";
const ELECTION: &str = "election-timeout";

impl Documents {
    /// The ClusterConfiguration with etcd timed like this. Whoever says one of the two numbers himself knows the other as well:
    /// etcd starts only with two that fit together.
    pub(super) fn timed(&self, timing: EtcdTiming) -> Object {
        let mut cluster = self.cluster.clone();
        let Some((heartbeat, election)) = timing.arguments_ms() else { return cluster };
        let said = etcd_arguments(&cluster, self.api);
        if !said.iter().any(|name| name == HEARTBEAT || name == ELECTION) {
            self.add_to_etcd(&mut cluster, [(HEARTBEAT, heartbeat.to_string()), (ELECTION, election.to_string())]);
        }
        cluster
    }

    /// Adds to the arguments of etcd, in the form that this API has for them.
    pub(super) fn add_to_etcd<const N: usize>(&self, cluster: &mut Object, arguments: [(&str, String); N]) {
        let local = cluster.get_mut("etcd").and_then(|etcd| etcd.get_mut("local")).and_then(Value::as_object_mut);
        let Some(local) = local else { return };
        if self.api >= ConfigApi::V1Beta4 {
            let list = local.entry("extraArgs").or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut() {
                list.extend(arguments.map(|(name, value)| json!({ "name": name, "value": value })));
            }
        } else if let Some(map) = local.entry("extraArgs").or_insert_with(|| json!({})).as_object_mut() {
            map.extend(arguments.map(|(name, value)| (name.to_owned(), json!(value))));
        }
    }
}

/// The names of the arguments that a document has for etcd.
fn etcd_arguments(cluster: &Object, api: ConfigApi) -> Vec<String> {
    let arguments = cluster.get("etcd").map(|etcd| &etcd["local"]["extraArgs"]);
    let named = |argument: &Value| argument["name"].as_str().map(str::to_owned);
    match arguments {
        Some(list) if api >= ConfigApi::V1Beta4 => list.as_array().into_iter().flatten().filter_map(named).collect(),
        Some(map) => map.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect(),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::UserFile;
    use crate::version::Version;

    fn timed(minor: u32, user: Option<&str>, timing: EtcdTiming) -> Value {
        let mut settings = crate::work::tests::settings(std::path::Path::new("/"));
        let api = if minor >= 31 { "v1beta4" } else { "v1beta3" };
        let text = |arguments: &str| {
            format!(
                "apiVersion: kubeadm.k8s.io/{api}\nkind: ClusterConfiguration\netcd: {{local: {{extraArgs: {arguments}}}}}"
            )
        };
        settings.documents =
            user.map(|user| UserFile { name: "u.yaml".into(), text: text(user) }).into_iter().collect();
        let version: Version = format!("v1.{minor}.0").parse().expect("a version");
        let documents = Documents::new(&version, &version, &settings).expect("documents");
        documents.timed(timing)["etcd"]["local"]["extraArgs"].clone()
    }

    #[test]
    fn both_forms_of_arguments_are_written_beside_the_users_and_never_against_them() {
        let fast = [("heartbeat-interval", "50"), ("election-timeout", "300")];
        let list = fast.map(|(name, value)| json!({ "name": name, "value": value }));
        assert_eq!(timed(37, None, EtcdTiming::Fast), json!(list));
        assert_eq!(timed(37, None, EtcdTiming::Own), Value::Null);
        let map: serde_json::Map<_, _> =
            fast.map(|(name, value)| (name.to_owned(), json!(value))).into_iter().collect();
        assert_eq!(timed(28, None, EtcdTiming::Fast), Value::Object(map));
        let beside = timed(37, Some("[{name: quota-backend-bytes, value: '1'}]"), EtcdTiming::Fast);
        assert_eq!(beside.as_array().map(Vec::len), Some(3));
        let theirs = json!([{ "name": "election-timeout", "value": "5000" }]);
        assert_eq!(timed(37, Some("[{name: election-timeout, value: '5000'}]"), EtcdTiming::Fast), theirs);
        let theirs = json!({ "heartbeat-interval": "500" });
        assert_eq!(timed(28, Some("{heartbeat-interval: '500'}"), EtcdTiming::Fast), theirs);
    }
}
