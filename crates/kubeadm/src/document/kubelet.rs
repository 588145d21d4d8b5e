//! How a worker's kubelet is known before anybody has signed anything for it.
//!
//! A joining kubelet asks for a certificate with its token and is nobody until a controller manager leads, approves and signs: seconds
//! that a site waits for when its control planes have just begun. Whoever has the CA can give it one before, in its ticket. The kubelet
//! asks for one of its own all the same, as soon as it runs (`pkg/kubelet/certificate`, v1.37.2: a certificate that it has not
//! stored itself is renewed at once).

use serde_json::{Value, json};

use super::{Documents, Object, merge};
use crate::pki::{Pair, Ticket};
use crate::plan::Node;
use crate::secret::Secret;

impl Documents {
    /// The kubelet's kubeconfig as `kubeadm init` makes it: the endpoint, and the certificate itself.
    pub(crate) fn node_kubeconfig(&self, node: &Node, ticket: &Ticket, known_by: &Pair) -> Secret {
        use base64::Engine as _;
        let encoded = |pem: &[u8]| base64::engine::general_purpose::STANDARD.encode(pem);
        let (cluster, user) = (self.cluster["clusterName"].clone(), format!("system:node:{}", node.name));
        let server = json!({
            "server": format!("https://{}", self.endpoint),
            "certificate-authority-data": encoded(ticket.ca_certificate.as_bytes()),
        });
        let identity = json!({
            "client-certificate-data": encoded(known_by.public.as_bytes()),
            "client-key-data": encoded(known_by.private.expose()),
        });
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": cluster, "cluster": server }],
            "contexts": [{ "name": "default", "context": { "cluster": cluster, "user": user } }],
            "current-context": "default",
            "users": [{ "name": user, "user": identity }],
        });
        Self::render(&[&merge::object(config)])
    }

    /// Whether kubelets renew their certificates, as kubeadm has them do unless somebody wants it otherwise. One that does not
    /// must not begin with one that ends after a day.
    pub(crate) fn kubelets_renew(&self) -> bool {
        let configured = |component: &Object| component.get("rotateCertificates") == Some(&json!(false));
        !is_given(&self.join, "rotate-certificates") && !self.components.iter().any(configured)
    }
}

/// Whether a document gives the kubelet this flag. It is a map before `v1beta4`, and a list from there on.
fn is_given(document: &Object, flag: &str) -> bool {
    match &document["nodeRegistration"]["kubeletExtraArgs"] {
        Value::Array(list) => list.iter().any(|argument| argument["name"] == flag),
        map => map.get(flag).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_found_in_either_spelling() {
        let given =
            |arguments| is_given(&merge::object(json!({ "nodeRegistration": arguments })), "rotate-certificates");
        assert!(given(json!({ "kubeletExtraArgs": { "rotate-certificates": "/x" } })));
        assert!(given(json!({ "kubeletExtraArgs": [{ "name": "rotate-certificates", "value": "/x" }] })));
        assert!(!given(json!({ "kubeletExtraArgs": [{ "name": "v", "value": "rotate-certificates" }] })));
        assert!(!given(json!({})));
    }
}
