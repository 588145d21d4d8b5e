//! Turns a user's document of one API version into another, as far as the other can say the same.
//!
//! From kubeadm's types: v1beta3 dropped `dns.type` and `useHyperKubeImage` and brought `imagePullPolicy`, `patches` and
//! `skipPhases`; v1beta4 made lists of the argument maps and gathered the timeouts.

use serde_json::{Map, Value, json};

use super::{DocumentError, Kind, Object, UserDocument, UserDocuments};
use crate::version::ConfigApi;

/// Fields in which v1beta2 and v1beta3 have a map of arguments and v1beta4 a list of name and value.
const ARGUMENTS: [(Kind, &str); 6] = [
    (Kind::InitConfiguration, "nodeRegistration.kubeletExtraArgs"),
    (Kind::JoinConfiguration, "nodeRegistration.kubeletExtraArgs"),
    (Kind::ClusterConfiguration, "apiServer.extraArgs"),
    (Kind::ClusterConfiguration, "controllerManager.extraArgs"),
    (Kind::ClusterConfiguration, "scheduler.extraArgs"),
    (Kind::ClusterConfiguration, "etcd.local.extraArgs"),
];

/// A field of a kind of document.
type Place = (Kind, &'static str);

/// A timeout that has a place before v1beta4 as well: the old place and the new one.
const TIMEOUTS: [(Place, Place); 2] = [
    (
        (Kind::ClusterConfiguration, "apiServer.timeoutForControlPlane"),
        (Kind::InitConfiguration, "timeouts.controlPlaneComponentHealthCheck"),
    ),
    ((Kind::JoinConfiguration, "discovery.timeout"), (Kind::JoinConfiguration, "timeouts.discovery")),
];

/// Fields that came with v1beta4 and mean something that earlier APIs cannot say.
const SINCE_V1BETA4: [(Kind, &str); 16] = [
    (Kind::InitConfiguration, "timeouts"),
    (Kind::InitConfiguration, "nodeRegistration.imagePullSerial"),
    (Kind::JoinConfiguration, "timeouts"),
    (Kind::JoinConfiguration, "nodeRegistration.imagePullSerial"),
    (Kind::ClusterConfiguration, "apiServer.extraEnvs"),
    (Kind::ClusterConfiguration, "controllerManager.extraEnvs"),
    (Kind::ClusterConfiguration, "scheduler.extraEnvs"),
    (Kind::ClusterConfiguration, "etcd.local.extraEnvs"),
    (Kind::ClusterConfiguration, "etcd.external.httpEndpoints"),
    (Kind::ClusterConfiguration, "dns.disabled"),
    (Kind::ClusterConfiguration, "proxy"),
    (Kind::ClusterConfiguration, "encryptionAlgorithm"),
    (Kind::ClusterConfiguration, "certificateValidityPeriod"),
    (Kind::ClusterConfiguration, "caCertificateValidityPeriod"),
    (Kind::InitConfiguration, "dryRun"),
    (Kind::JoinConfiguration, "dryRun"),
];

/// Fields that came with v1beta3.
const SINCE_V1BETA3: [(Kind, &str); 4] = [
    (Kind::InitConfiguration, "nodeRegistration.imagePullPolicy"),
    (Kind::InitConfiguration, "patches"),
    (Kind::JoinConfiguration, "nodeRegistration.imagePullPolicy"),
    (Kind::JoinConfiguration, "patches"),
];

/// Fields that went with v1beta3, and the one value without which nothing is lost.
const UNTIL_V1BETA2: [(Kind, &str, &str); 2] =
    [(Kind::ClusterConfiguration, "dns.type", "CoreDNS"), (Kind::ClusterConfiguration, "useHyperKubeImage", "false")];

/// Turns all documents into `target`.
pub(super) fn all(user: &mut UserDocuments, target: ConfigApi) -> Result<(), DocumentError> {
    if target < ConfigApi::V1Beta4
        && let Some(reset) = user.get(&Kind::ResetConfiguration)
    {
        return Err(inexpressible(Kind::ResetConfiguration, reset, "", target));
    }
    for kind in [Kind::ClusterConfiguration, Kind::InitConfiguration, Kind::JoinConfiguration] {
        let Some(api) = user.get(&kind).and_then(|document| document.api).filter(|api| *api != target) else {
            continue;
        };
        if api < ConfigApi::V1Beta4 && target == ConfigApi::V1Beta4 {
            move_timeouts(user, kind, target, |old, new| (old, new))?;
        }
        if api == ConfigApi::V1Beta4 {
            move_timeouts(user, kind, target, |old, new| (new, old))?;
        }
        let document = user.get_mut(&kind).expect("it was just there");
        fields(document, kind, api, target)?;
        document.api = Some(target);
    }
    Ok(())
}

/// What stays within one document.
fn fields(document: &mut UserDocument, kind: Kind, from: ConfigApi, to: ConfigApi) -> Result<(), DocumentError> {
    let (old, new) = (ConfigApi::V1Beta3, ConfigApi::V1Beta4);
    for (_, path) in ARGUMENTS.iter().filter(|(of, _)| *of == kind) {
        let Some(found) = take(&mut document.fields, path) else { continue };
        let converted = match (from < new, to < new) {
            (true, false) => map_to_list(&found),
            (false, true) => list_to_map(&found),
            _ => Ok(found),
        };
        let value = converted.map_err(|why| error(kind, document, path, why.to_owned()))?;
        put(&mut document.fields, path, value);
    }
    let mut absent: Vec<_> = if to < new { SINCE_V1BETA4.to_vec() } else { Vec::new() };
    absent.extend(if to < old { SINCE_V1BETA3.to_vec() } else { Vec::new() });
    for (_, path) in absent.into_iter().filter(|(of, _)| *of == kind) {
        if take(&mut document.fields, path).is_some_and(|value| !is_nothing(&value)) {
            return Err(inexpressible(kind, document, path, to));
        }
    }
    for (_, path, harmless) in UNTIL_V1BETA2.iter().filter(|(of, ..)| *of == kind && from < old && to >= old) {
        let found = take(&mut document.fields, path).filter(|value| !is_nothing(value));
        if found.is_some_and(|value| super::merge::as_text(&value) != *harmless) {
            return Err(inexpressible(kind, document, path, to));
        }
    }
    Ok(())
}

/// Moves timeouts out of the document of `kind`, perhaps into another kind's.
fn move_timeouts(
    user: &mut UserDocuments,
    kind: Kind,
    target: ConfigApi,
    direction: impl Fn(Place, Place) -> (Place, Place),
) -> Result<(), DocumentError> {
    for (old, new) in TIMEOUTS {
        let ((from, from_path), (to, to_path)) = direction(old, new);
        if from != kind {
            continue;
        }
        let Some(document) = user.get_mut(&from) else { continue };
        let Some(value) = take(&mut document.fields, from_path) else { continue };
        let place = document.place.clone();
        let empty = || UserDocument { place: place.clone(), api: Some(target), fields: Object::new() };
        let receiver = user.entry(to).or_insert_with(empty);
        if super::merge::lookup(&receiver.fields, to_path).is_some_and(|there| *there != value) {
            let why = format!("{to} says something else in {to_path}");
            return Err(DocumentError { place, kind: Some(from), field: from_path.into(), why });
        }
        put(&mut receiver.fields, to_path, value);
    }
    Ok(())
}

fn map_to_list(map: &Value) -> Result<Value, &'static str> {
    match map {
        Value::Object(map) => Ok(map.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect()),
        Value::Null => Ok(json!([])),
        _ => Err("before v1beta4 this is a map from an argument's name to its value"),
    }
}

fn list_to_map(list: &Value) -> Result<Value, &'static str> {
    let mut map = Map::new();
    let entries = match list {
        Value::Array(entries) => entries.as_slice(),
        Value::Null => &[],
        _ => return Err("since v1beta4 this is a list of name and value"),
    };
    for entry in entries {
        let name = entry["name"].as_str().ok_or("an argument has no name")?;
        if map.insert(name.to_owned(), entry["value"].clone()).is_some() {
            return Err("this kubeadm cannot give an argument twice");
        }
    }
    Ok(map.into())
}

/// Removes the value at a dotted path, and maps that are empty without it.
fn take(fields: &mut Object, path: &str) -> Option<Value> {
    let Some((first, rest)) = path.split_once('.') else { return fields.remove(path) };
    let inner = fields.get_mut(first)?.as_object_mut()?;
    let value = take(inner, rest);
    if value.is_some() && inner.is_empty() {
        fields.remove(first);
    }
    value
}

fn put(fields: &mut Object, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            fields.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = fields.entry(first).or_insert_with(|| json!({}));
            if !inner.is_object() {
                *inner = json!({});
            }
            put(inner.as_object_mut().expect("it was just made one"), rest, value);
        }
    }
}

/// Absent, as far as kubeadm can tell.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn inexpressible(kind: Kind, document: &UserDocument, path: &str, target: ConfigApi) -> DocumentError {
    let api = target.api_version().rsplit('/').next().unwrap_or_default();
    error(kind, document, path, format!("this image's kubeadm reads {api}, which cannot say it"))
}

fn error(kind: Kind, document: &UserDocument, path: &str, why: String) -> DocumentError {
    DocumentError { place: document.place.clone(), kind: Some(kind), field: path.to_owned(), why }
}
