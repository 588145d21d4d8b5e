//! Lays the user's fields over muster's, and refuses those that would break what muster does.

use serde_json::Value;

use super::{DocumentError, Kind, Object, UserDocuments};
use crate::settings::Settings;
use crate::version::Version;

/// What a user's document may say of a field.
enum Rule {
    /// Nothing, and why.
    Never(&'static str),
    /// Only what muster says, and where to say it instead.
    Same(String, &'static str),
}

/// Refuses fields that are muster's to set.
pub(super) fn check(user: &UserDocuments, wanted: &Version, settings: &Settings) -> Result<(), DocumentError> {
    for (kind, document) in user {
        let scalar = |field: &&&str| document.fields.get(**field).is_some_and(|value| !is_map(value));
        if let Some(field) = MAPS.iter().find(scalar) {
            let (place, field) = (document.place.clone(), (*field).to_owned());
            return Err(DocumentError { place, kind: Some(*kind), field, why: "it must be a map".to_owned() });
        }
    }
    for (kind, path, rule) in rules(wanted, settings) {
        let Some(document) = user.get(&kind) else { continue };
        let Some(found) = lookup(&document.fields, path) else { continue };
        let why = match rule {
            Rule::Never(why) => why.to_owned(),
            Rule::Same(ours, _) if as_text(found) == ours => continue,
            Rule::Same(ours, instead) => format!("it is {} here but must be {ours:?}; {instead}", as_text(found)),
        };
        return Err(DocumentError { place: document.place.clone(), kind: Some(kind), field: path.into(), why });
    }
    Ok(())
}

/// Fields that muster writes into.
const MAPS: [&str; 5] = ["nodeRegistration", "localAPIEndpoint", "discovery", "networking", "etcd"];

fn is_map(value: &Value) -> bool {
    value.is_object() || value.is_null()
}

fn rules(wanted: &Version, settings: &Settings) -> Vec<(Kind, &'static str, Rule)> {
    use Kind::{ClusterConfiguration as Cluster, InitConfiguration as Init, JoinConfiguration as Join};
    const SAME_EVERYWHERE: &str = "the image is the same on every machine; muster sets it on each";
    const TOKENS: &str = "muster makes the tokens, one a machine";
    const NO_KEY: &str =
        "every holder of a token could read the certificates that it encrypts; muster seals them instead";
    const PHASES: &str = "set kubernetes.skip_phases in muster.toml";
    const REAL: &str = "muster's steps are real";
    const DISCOVERY: &str = "muster sets it from the machine's ticket";
    let pki = settings.pki_dir().display().to_string();
    let port = || Rule::Same(settings.api_port.to_string(), "set kubernetes.api_port in muster.toml");
    vec![
        (Init, "bootstrapTokens", Rule::Never(TOKENS)),
        (Init, "certificateKey", Rule::Never(NO_KEY)),
        (Init, "dryRun", Rule::Never(REAL)),
        (Init, "skipPhases", Rule::Never(PHASES)),
        (Init, "localAPIEndpoint.advertiseAddress", Rule::Never(SAME_EVERYWHERE)),
        (Init, "localAPIEndpoint.bindPort", port()),
        (Init, "nodeRegistration.name", Rule::Never(SAME_EVERYWHERE)),
        (
            Cluster,
            "controlPlaneEndpoint",
            Rule::Same(settings.endpoint.clone(), "every machine answers to that name itself"),
        ),
        (Cluster, "kubernetesVersion", Rule::Same(wanted.to_string(), "set kubernetes.version in muster.toml")),
        (Cluster, "certificatesDir", Rule::Same(pki.clone(), "set kubernetes.dir in muster.toml")),
        (
            Cluster,
            "etcd.external",
            Rule::Never(
                "muster runs etcd on the control planes and counts their members; an etcd elsewhere it cannot join",
            ),
        ),
        (
            Cluster,
            "etcd.local.dataDir",
            Rule::Same(settings.etcd_dir.display().to_string(), "set kubernetes.etcd_dir in muster.toml"),
        ),
        (Join, "discovery.bootstrapToken", Rule::Never(DISCOVERY)),
        (Join, "discovery.file", Rule::Never(DISCOVERY)),
        (Join, "discovery.tlsBootstrapToken", Rule::Never(DISCOVERY)),
        (Join, "controlPlane.certificateKey", Rule::Never(NO_KEY)),
        (Join, "controlPlane.localAPIEndpoint.bindPort", port()),
        (Join, "controlPlane", Rule::Never("muster decides which machines are control planes")),
        (Join, "caCertPath", Rule::Same(format!("{pki}/ca.crt"), "set kubernetes.dir in muster.toml")),
        (Join, "dryRun", Rule::Never(REAL)),
        (Join, "skipPhases", Rule::Never(PHASES)),
        (Join, "nodeRegistration.name", Rule::Never(SAME_EVERYWHERE)),
        (Kind::KubeProxyConfiguration, "hostnameOverride", Rule::Never(SAME_EVERYWHERE)),
        (
            Kind::KubeletConfiguration,
            "staticPodPath",
            Rule::Same(settings.dir.join("manifests").display().to_string(), "kubeadm writes the static Pods there"),
        ),
        (Kind::ResetConfiguration, "force", Rule::Same("true".into(), "nobody is there to be asked")),
        (Kind::ResetConfiguration, "certificatesDir", Rule::Same(pki, "set kubernetes.dir in muster.toml")),
        (Kind::ResetConfiguration, "dryRun", Rule::Never(REAL)),
        (Kind::ResetConfiguration, "skipPhases", Rule::Never("a machine must be clean after a reset")),
    ]
}

/// Lays `over` on `base`: maps are merged, everything else is replaced. `apiVersion` stays.
pub(super) fn over(base: &mut Object, over: &Object) {
    for (name, value) in over.iter().filter(|(name, _)| *name != "apiVersion") {
        match (base.get_mut(name), value) {
            // A field without a value says nothing.
            (Some(_), Value::Null) => {}
            (Some(Value::Object(base)), Value::Object(value)) => self::over(base, value),
            _ => {
                base.insert(name.clone(), value.clone());
            }
        }
    }
}

/// The fields of a value that is known to be a map.
pub(super) fn object(value: Value) -> Object {
    match value {
        Value::Object(fields) => fields,
        _ => Object::new(),
    }
}

/// The value at a dotted path.
pub(super) fn lookup<'a>(fields: &'a Object, path: &str) -> Option<&'a Value> {
    let mut parts = path.split('.');
    let first = fields.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

/// A value as people write it, without quotes; bounded.
pub(super) fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string().chars().take(80).collect(),
    }
}
