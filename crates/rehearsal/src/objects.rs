//! Objects that somebody applied: enough of an API server's ways for whoever applies manifests. What an object says is
//! kept as it was said; nothing acts on it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::state::Refusal;

/// Objects by their path.
pub(crate) type Objects = BTreeMap<String, Value>;

/// Kinds that are served from the start: API version, kind, plural, and whether they live in Namespaces.
const KINDS: [(&str, &str, &str, bool); 17] = [
    ("v1", "ConfigMap", "configmaps", true),
    ("v1", "Namespace", "namespaces", false),
    ("v1", "Pod", "pods", true),
    ("v1", "Secret", "secrets", true),
    ("v1", "Service", "services", true),
    ("v1", "ServiceAccount", "serviceaccounts", true),
    ("apps/v1", "DaemonSet", "daemonsets", true),
    ("apps/v1", "Deployment", "deployments", true),
    ("apps/v1", "StatefulSet", "statefulsets", true),
    ("batch/v1", "CronJob", "cronjobs", true),
    ("batch/v1", "Job", "jobs", true),
    ("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", true),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", false),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", false),
    ("rbac.authorization.k8s.io/v1", "Role", "roles", true),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings", true),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", false),
];

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/";

/// Namespaces that every cluster has.
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

struct Kind {
    api_version: String,
    kind: String,
    plural: String,
    namespaced: bool,
}

fn kinds(objects: &Objects) -> Vec<Kind> {
    let known = KINDS.iter().map(|(api_version, kind, plural, namespaced)| Kind {
        api_version: (*api_version).to_owned(),
        kind: (*kind).to_owned(),
        plural: (*plural).to_owned(),
        namespaced: *namespaced,
    });
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let defined = objects.iter().filter(|(path, _)| path.starts_with(DEFINITIONS)).flat_map(|(_, definition)| {
        let spec = &definition["spec"];
        let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
        versions.iter().filter_map(move |version| {
            Some(Kind {
                api_version: format!("{}/{}", spec["group"].as_str()?, version["name"].as_str()?),
                kind: text(&spec["names"]["kind"])?,
                plural: text(&spec["names"]["plural"])?,
                namespaced: spec["scope"] == "Namespaced",
            })
        })
    });
    known.chain(defined).collect()
}

/// Answers a GET of a version's discovery or of an object.
pub(crate) fn get(objects: &Objects, path: &str) -> Option<Value> {
    if let Some(object) = objects.get(path) {
        return Some(object.clone());
    }
    let api_version = path.strip_prefix("/apis/").or_else(|| path.strip_prefix("/api/"))?;
    let served: Vec<Kind> = kinds(objects).into_iter().filter(|kind| kind.api_version == api_version).collect();
    let resource = |kind: &Kind| {
        let verbs = ["create", "get", "patch"];
        json!({ "name": kind.plural, "kind": kind.kind, "namespaced": kind.namespaced, "verbs": verbs })
    };
    let resources: Vec<Value> = served.iter().map(resource).collect();
    let list = || json!({ "kind": "APIResourceList", "groupVersion": api_version, "resources": resources });
    (!served.is_empty()).then(list)
}

/// Stores an object under the path of a server-side apply.
///
/// # Errors
/// As an API server's: the path or the Namespace is not there, or the object is not the one that the path names.
pub(crate) fn apply(objects: &mut Objects, path: &str, object: Value) -> Result<Value, Refusal> {
    let unknown = || (404, "404 page not found".to_owned());
    let (kind, namespace, name) = kinds(objects)
        .into_iter()
        .find_map(|kind| {
            let root = if kind.api_version.contains('/') { "/apis/" } else { "/api/" };
            let rest = path.strip_prefix(root)?.strip_prefix(kind.api_version.as_str())?;
            let (namespace, rest) = match kind.namespaced {
                true => rest.strip_prefix("/namespaces/")?.split_once('/').map(|(space, rest)| (Some(space), rest))?,
                false => (None, rest.strip_prefix('/')?),
            };
            let name = rest.strip_prefix(kind.plural.as_str())?.strip_prefix('/')?;
            // What lives in a Namespace is no Namespace.
            let name = (!name.contains('/')).then_some(name)?;
            Some((kind, namespace, name.to_owned()))
        })
        .ok_or_else(unknown)?;
    let there =
        |space: &str| NAMESPACES.contains(&space) || objects.contains_key(&format!("/api/v1/namespaces/{space}"));
    if let Some(space) = namespace.filter(|space| !there(space)) {
        return Err((404, format!("namespaces \"{space}\" not found")));
    }
    if object["apiVersion"] != kind.api_version || object["kind"] != kind.kind || object["metadata"]["name"] != name {
        return Err((400, "the object is not the one that the path names".to_owned()));
    }
    let roles = kind.api_version.starts_with("rbac.");
    if !roles && name.chars().any(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'))) {
        let rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'";
        let why = format!("{} \"{name}\" is invalid: metadata.name: Invalid value: \"{name}\": {rule}", kind.kind);
        return Err((422, why));
    }
    objects.insert(path.to_owned(), object.clone());
    Ok(object)
}

/// Creates an object in a collection.
///
/// # Errors
/// As [`apply`], and when an object of that name is there.
pub(crate) fn create(objects: &mut Objects, path: &str, object: Value) -> Result<Value, Refusal> {
    let name = object["metadata"]["name"].as_str().ok_or((422, "metadata.name is required".to_owned()))?.to_owned();
    let path = format!("{path}/{name}");
    if objects.contains_key(&path) {
        return Err((409, format!("{name:?} already exists")));
    }
    apply(objects, &path, object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(api_version: &str, kind: &str, name: &str) -> Value {
        json!({ "apiVersion": api_version, "kind": kind, "metadata": { "name": name } })
    }

    #[test]
    fn a_custom_resource_needs_its_definition_and_its_namespace() {
        let mut objects = Objects::new();
        let dog = "/apis/example.org/v1/namespaces/pets/dogs/rex";
        let mut put = |path: &str, object: Value| apply(&mut objects, path, object).map_err(|(status, _)| status);
        let rex = || object("example.org/v1", "Dog", "rex");
        assert_eq!(put(dog, rex()), Err(404));
        let mut definition = object("apiextensions.k8s.io/v1", "CustomResourceDefinition", "dogs.example.org");
        let names = json!({ "kind": "Dog", "plural": "dogs" });
        let versions = json!([{ "name": "v1" }]);
        definition["spec"] =
            json!({ "group": "example.org", "names": names, "scope": "Namespaced", "versions": versions });
        put(&format!("{DEFINITIONS}dogs.example.org"), definition).expect("is stored");
        assert_eq!(put(dog, rex()), Err(404));
        put("/api/v1/namespaces/pets", object("v1", "Namespace", "pets")).expect("is stored");
        put(dog, rex()).expect("is stored");
        assert_eq!(put(dog, object("example.org/v1", "Dog", "tom")), Err(400));
        put("/api/v1/namespaces/pets/secrets/collar", object("v1", "Secret", "collar")).expect("is stored");
        assert_eq!(put("/api/v1/namespaces/Pets", object("v1", "Namespace", "Pets")), Err(422));
        assert_eq!(get(&objects, dog), Some(rex()));
        let served = get(&objects, "/apis/example.org/v1").expect("is served");
        assert_eq!(
            (&served["resources"][0]["name"], &served["resources"][0]["namespaced"]),
            (&json!("dogs"), &json!(true))
        );
        assert_eq!(get(&objects, "/apis/example.org/v2"), None);
    }

    #[test]
    fn what_is_there_is_not_created_again() {
        let mut objects = Objects::new();
        let collection = "/api/v1/namespaces/kube-system/configmaps";
        create(&mut objects, collection, object("v1", "ConfigMap", "coredns")).expect("is created");
        let again = create(&mut objects, collection, object("v1", "ConfigMap", "coredns"));
        assert_eq!(again.expect_err("is there").0, 409);
        assert!(get(&objects, &format!("{collection}/coredns")).is_some());
    }
}
