//! The fields that documents may have, and what each holds. What is not here is refused: kubeadm only warns of a field
//! that it does not know, and goes on without what was meant.

mod components;
mod documents;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

use serde_json::{Map, Value};

use crate::document::Kind;
use crate::version::ConfigApi;

/// What a field holds.
#[derive(Debug, Clone, Copy)]
enum Type {
    Text,
    /// A port, up to 65535.
    Port,
    Integer,
    Switch,
    /// Go's notation: `4m0s`.
    Duration,
    /// `[a-z0-9]{6}.[a-z0-9]{16}`.
    Token,
    /// An IP address.
    Address,
    TextMap,
    SwitchMap,
    List(&'static Type),
    Object(&'static [Field]),
    /// Something of Kubernetes' own that is not looked into.
    Any,
}

/// A field, and the first and last of kubeadm's APIs that have it.
#[derive(Debug, Clone, Copy)]
struct Field(&'static str, Type, ConfigApi, ConfigApi);

const fn all(name: &'static str, holds: Type) -> Field {
    Field(name, holds, ConfigApi::V1Beta2, ConfigApi::V1Beta4)
}

/// A field that a document must not have, or not so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Where, dotted from the document's top.
    pub field: String,
    /// What is wrong. It never repeats the value, which may be a token.
    pub what: Mistake,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mistake {
    /// There is no such field, and perhaps one with a name like it.
    Unknown(Option<&'static str>),
    /// There is one in another API.
    OtherApi(ConfigApi),
    /// It holds something else than this.
    Form(&'static str),
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mistake::Unknown(None) => f.write_str("there is no such field"),
            Mistake::Unknown(Some(near)) => write!(f, "there is no such field; did you mean {near}?"),
            Mistake::OtherApi(api) => write!(f, "this API has no such field; {} has", api.api_version()),
            Mistake::Form(form) => write!(f, "it must be {form}"),
        }
    }
}

/// Checks the fields of a document; `api` is kubeadm's, and without meaning for a component's document.
///
/// # Errors
/// Names the first field that is unknown, misplaced or mistyped.
pub fn check(kind: Kind, api: ConfigApi, document: &Map<String, Value>) -> Result<(), Mismatch> {
    let fields = match kind {
        Kind::InitConfiguration => documents::INIT,
        Kind::ClusterConfiguration => documents::CLUSTER,
        Kind::JoinConfiguration => documents::JOIN,
        Kind::ResetConfiguration => documents::RESET,
        Kind::KubeletConfiguration => components::KUBELET,
        Kind::KubeProxyConfiguration => components::KUBE_PROXY,
    };
    object_fields(document, fields, api, "")
}

fn object_fields(object: &Map<String, Value>, fields: &[Field], api: ConfigApi, path: &str) -> Result<(), Mismatch> {
    for (name, value) in object {
        let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if path.is_empty() && matches!(name.as_str(), "apiVersion" | "kind") {
            continue;
        }
        let named = || fields.iter().filter(|field| field.0 == name);
        let Some(field) = named().find(|field| (field.2..=field.3).contains(&api)) else {
            let elsewhere = named().map(|field| if field.3 < api { field.3 } else { field.2 }).next();
            let what = elsewhere.map_or_else(|| Mistake::Unknown(nearest(name, fields)), Mistake::OtherApi);
            return Err(Mismatch { field: clip(&at), what });
        };
        if !value.is_null() {
            form(value, &field.1, api, &at)?;
        }
    }
    Ok(())
}

fn form(value: &Value, holds: &Type, api: ConfigApi, at: &str) -> Result<(), Mismatch> {
    let wrong = |what: &'static str| Err(Mismatch { field: clip(at), what: Mistake::Form(what) });
    match (holds, value) {
        (Type::Any, _) | (Type::Text, Value::String(_)) | (Type::Switch, Value::Bool(_)) => Ok(()),
        (Type::Port, Value::Number(number)) if number.as_u64().is_some_and(|number| number <= 65535) => Ok(()),
        (Type::Integer, Value::Number(number)) if number.is_i64() => Ok(()),
        (Type::Duration, Value::String(text)) if is_duration(text) => Ok(()),
        (Type::Token, Value::String(text)) if is_token(text) => Ok(()),
        (Type::Address, Value::String(text)) if text.parse::<IpAddr>().is_ok() => Ok(()),
        (Type::TextMap, Value::Object(map)) if map.values().all(Value::is_string) => Ok(()),
        (Type::SwitchMap, Value::Object(map)) if map.values().all(Value::is_boolean) => Ok(()),
        (Type::List(item), Value::Array(items)) => {
            items.iter().enumerate().try_for_each(|(n, value)| form(value, item, api, &format!("{at}[{n}]")))
        }
        (Type::Object(fields), Value::Object(object)) => object_fields(object, fields, api, at),
        (Type::Text, _) => wrong("a string, in quotes if it looks like a number"),
        (Type::Port, _) => wrong("a number up to 65535"),
        (Type::Integer, _) => wrong("a whole number"),
        (Type::Switch, _) => wrong("true or false"),
        (Type::Duration, _) => wrong("a duration as \"4m0s\""),
        // A token that is malformed is still a secret.
        (Type::Token, _) => wrong("a token of the form \"[a-z0-9]{6}.[a-z0-9]{16}\""),
        (Type::Address, _) => wrong("an IP address"),
        (Type::TextMap, _) => wrong("a map of strings, in quotes if they look like numbers"),
        (Type::SwitchMap, _) => wrong("a map of true and false"),
        (Type::List(Type::Object(fields)), Value::Object(_))
            if fields.first().is_some_and(|first| first.0 == "name") =>
        {
            wrong("a list of maps with `name` and `value`")
        }
        (Type::List(_), _) => wrong("a list"),
        (Type::Object(_), _) => wrong("a map"),
    }
}

/// The field that was meant by a name that is at most two slips away.
fn nearest(wrong: &str, fields: &[Field]) -> Option<&'static str> {
    let names = fields
        .iter()
        .map(|field| (strsim::damerau_levenshtein(&wrong.to_lowercase(), &field.0.to_lowercase()), field.0));
    names.min().filter(|(slips, _)| *slips <= 2).map(|(_, name)| name)
}

/// A name out of a document may be endless.
fn clip(name: &str) -> String {
    name.chars().take(120).collect()
}

/// A duration as Go reads it: `-1h2.5m`, `300ms`, `0`.
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |at| digits + at);
        let number = &rest[..digits];
        let right = number.bytes().any(|byte| byte.is_ascii_digit()) && number.matches('.').count() <= 1;
        if !right || !["ns", "us", "µs", "μs", "ms", "s", "m", "h"].contains(&&rest[digits..unit]) {
            return false;
        }
        rest = &rest[unit..];
    }
    true
}

fn is_token(text: &str) -> bool {
    let part = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    text.split_once('.').is_some_and(|(id, secret)| part(id, 6) && part(secret, 16))
}
