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
        let local = cluster.get_mut("etcd").and_then(|etcd| etcd.get_mut("local")).and_then(Value::as_object_mut);
        let Some(local) = local else { return cluster };
        let arguments = [(HEARTBEAT, heartbeat.to_string()), (ELECTION, election.to_string())];
        if self.api >= ConfigApi::V1Beta4 {
            let list = local.entry("extraArgs").or_insert_with(|| json!([]));
            let Some(list) = list.as_array_mut() else { return cluster };
            let said = |name| list.iter().any(|argument| argument.get("name").is_some_and(|said| said == name));
            if !said(HEARTBEAT) && !said(ELECTION) {
                list.extend(arguments.map(|(name, value)| json!({ "name": name, "value": value })));
            }
        } else {
            let map = local.entry("extraArgs").or_insert_with(|| json!({}));
            let Some(map) = map.as_object_mut() else { return cluster };
            if !map.contains_key(HEARTBEAT) && !map.contains_key(ELECTION) {
                map.extend(arguments.map(|(name, value)| (name.to_owned(), json!(value))));
            }
        }
        cluster
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
