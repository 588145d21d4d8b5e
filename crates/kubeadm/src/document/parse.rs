//! Reads the user's YAML.

use serde_json::Value;

use super::{DocumentError, Kind, UserDocument, UserDocuments};
use crate::schema;
use crate::settings::UserFile;
use crate::version::ConfigApi;

/// Longest file of documents, in bytes.
const FILE_LIMIT: usize = 256 * 1024;

/// Reads all files; every kind may occur once among them.
pub(super) fn all(files: &[UserFile]) -> Result<UserDocuments, DocumentError> {
    let mut documents = UserDocuments::new();
    for file in files {
        for value in yaml(file)? {
            let (kind, document) = document(file, value)?;
            if let Some(earlier) = documents.get(&kind) {
                let why = format!("it is in {} already; put all of it in one document", earlier.place);
                return Err(DocumentError { place: file.name.clone(), kind: Some(kind), field: String::new(), why });
            }
            documents.insert(kind, document);
        }
    }
    Ok(documents)
}

/// YAML as kubeadm's own parser takes it: `yes` and `0644` in their old meanings. Merge keys are refused because not
/// every version of kubeadm knows them.
fn yaml(file: &UserFile) -> Result<Vec<Value>, DocumentError> {
    let fail = |place, why| DocumentError { place, kind: None, field: String::new(), why };
    if file.text.len() > FILE_LIMIT {
        return Err(fail(file.name.clone(), format!("it is longer than {FILE_LIMIT} bytes")));
    }
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        merge_keys: serde_saphyr::MergeKeyPolicy::Error,
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options(&file.text, options).map_err(|error| {
        let place = match error.location() {
            Some(at) => format!("{}:{}:{}", file.name, at.line(), at.column()),
            None => file.name.clone(),
        };
        fail(place, error.without_snippet().to_string().lines().next().unwrap_or_default().chars().take(200).collect())
    })
}

fn document(file: &UserFile, value: Value) -> Result<(Kind, UserDocument), DocumentError> {
    let fail =
        |kind, field: &str, why: String| DocumentError { place: file.name.clone(), kind, field: field.into(), why };
    let Value::Object(fields) = value else {
        return Err(fail(None, "", "a document is not a map of fields".into()));
    };
    let text = |field: &str| fields.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, name) = (text("apiVersion"), text("kind"));
    let (group, version) = api_version.split_once('/').unwrap_or((&api_version, ""));
    let kind = match (group, name.as_str()) {
        ("kubeadm.k8s.io", "InitConfiguration") => Kind::InitConfiguration,
        ("kubeadm.k8s.io", "ClusterConfiguration") => Kind::ClusterConfiguration,
        ("kubeadm.k8s.io", "JoinConfiguration") => Kind::JoinConfiguration,
        ("kubeadm.k8s.io", "ResetConfiguration") => Kind::ResetConfiguration,
        ("kubelet.config.k8s.io", "KubeletConfiguration") => Kind::KubeletConfiguration,
        ("kubeproxy.config.k8s.io", "KubeProxyConfiguration") => Kind::KubeProxyConfiguration,
        _ => {
            let why = format!(
                "apiVersion {api_version:?} and kind {name:?} are none that muster passes to kubeadm; it passes \
                 InitConfiguration, ClusterConfiguration, JoinConfiguration, ResetConfiguration, KubeletConfiguration \
                 and KubeProxyConfiguration"
            );
            return Err(fail(None, "", why));
        }
    };
    let api = match group {
        "kubeadm.k8s.io" => Some(ConfigApi::from_api_version(&api_version).ok_or_else(|| {
            let why = format!("{version:?} is no API that muster knows: v1beta2, v1beta3, v1beta4");
            fail(Some(kind), "apiVersion", why)
        })?),
        _ => None,
    };
    let expected = match kind {
        Kind::KubeletConfiguration => Some("v1beta1"),
        Kind::KubeProxyConfiguration => Some("v1alpha1"),
        _ => None,
    };
    if let Some(expected) = expected.filter(|expected| *expected != version) {
        return Err(fail(
            Some(kind),
            "apiVersion",
            format!("{version:?} is not the one that kubeadm reads: {expected}"),
        ));
    }
    // A component's document has no API of kubeadm's, and its fields are in all of them.
    schema::check(kind, api.unwrap_or(ConfigApi::V1Beta4), &fields)
        .map_err(|wrong| fail(Some(kind), &wrong.field, wrong.what.to_string()))?;
    Ok((kind, UserDocument { place: file.name.clone(), api, fields }))
}
