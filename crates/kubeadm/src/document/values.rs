//! Values that kubeadm or a component would refuse when it is too late: `ValidateClusterConfiguration` and the others of
//! `cmd/kubeadm/app/apis/kubeadm/validation/validation.go`, Kubernetes 1.37, and what only shows once components run.

mod names;
mod owned;
mod subnets;
#[cfg(test)]
mod tests;

use serde_json::Value;

use super::{DocumentError, Kind, Object, UserDocuments};
use crate::settings::Settings;
use crate::version::Version;

/// What is wrong with a field, dotted from its document's top.
struct Wrong {
    field: String,
    why: String,
}

fn wrong(field: &str, why: impl Into<String>) -> Wrong {
    Wrong { field: field.to_owned(), why: why.into() }
}

/// Checks what kubeadm is going to read: `cluster`, which has the values of muster.toml, and the user's other documents.
pub(super) fn check(
    user: &UserDocuments,
    cluster: &Object,
    kubeadm: &Version,
    settings: &Settings,
) -> Result<(), DocumentError> {
    let own = user.get(&Kind::ClusterConfiguration);
    own.map_or(Ok(()), |document| owned::cluster(&document.fields, cluster, settings))
        .and_then(|()| subnets::check(cluster))
        .and_then(|()| names::cluster(cluster, kubeadm))
        .map_err(|wrong| placed(user, Kind::ClusterConfiguration, settings, wrong))?;
    for (kind, document) in user {
        let fields = &document.fields;
        let checked = match kind {
            Kind::InitConfiguration | Kind::JoinConfiguration => {
                owned::node(fields, settings).and_then(|()| names::node(fields))
            }
            Kind::ResetConfiguration => names::reset(fields),
            Kind::ClusterConfiguration | Kind::KubeletConfiguration | Kind::KubeProxyConfiguration => Ok(()),
        };
        checked.map_err(|wrong| placed(user, *kind, settings, wrong))?;
    }
    Ok(())
}

/// Where somebody must mend it: in a document if that has the field, else in muster.toml.
fn placed(user: &UserDocuments, kind: Kind, settings: &Settings, Wrong { field, why }: Wrong) -> DocumentError {
    let document = user.get(&kind).filter(|document| super::merge::lookup(&document.fields, &field).is_some());
    let key = match field.as_str() {
        "networking.podSubnet" if settings.pod_subnet.is_some() => Some("kubernetes.pod_subnet"),
        "networking.serviceSubnet" if settings.service_subnet.is_some() => Some("kubernetes.service_subnet"),
        "imageRepository" => Some("kubernetes.image_repository"),
        _ => None,
    };
    match (document, key) {
        (None, Some(key)) => DocumentError { place: key.to_owned(), kind: None, field: String::new(), why },
        (document, _) => {
            let place = document.or_else(|| user.get(&kind)).map(|document| document.place.clone());
            DocumentError { place: place.unwrap_or_else(|| "muster.toml".to_owned()), kind: Some(kind), field, why }
        }
    }
}

/// The value that holds of an argument of a component, in whichever API it is written: the last one.
pub(super) fn argument(document: &Object, component: &str, name: &str) -> Option<String> {
    let arguments = super::merge::lookup(document, component)?.get("extraArgs")?;
    let found = match arguments {
        Value::Array(list) => list.iter().rev().find(|entry| entry["name"] == name)?.get("value")?,
        map => map.get(name)?,
    };
    found.as_str().map(str::to_owned)
}

/// The items of a list of strings.
fn texts<'a>(document: &'a Object, path: &str) -> Vec<&'a str> {
    let list = super::merge::lookup(document, path).and_then(Value::as_array);
    list.map(|items| items.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

/// A string; none if it is empty, which means the same as no field to kubeadm.
fn text<'a>(document: &'a Object, path: &str) -> Option<&'a str> {
    super::merge::lookup(document, path).and_then(Value::as_str).filter(|text| !text.is_empty())
}
