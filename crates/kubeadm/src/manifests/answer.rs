//! What the API server's answers mean.

use serde_json::Value;

use super::Object;
use crate::outcome::redact;

/// Longest quotation of the API server's words, in characters.
const WORDS_MAX: usize = 300;

/// What became of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It is as the manifest says.
    Done,
    /// Not yet, and what is missing: it is worth another try soon.
    Later(String),
    /// Not as long as nobody changes the manifest or the cluster, and why, in the API server's words.
    Refused(String),
}

/// How a kind is called in paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Such as `daemonsets`.
    pub plural: String,
    /// Whether its objects live in Namespaces.
    pub namespaced: bool,
}

/// What is served of one API version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery(Result<Vec<(String, Resource)>, String>);

impl Discovery {
    /// Reads the answer to a GET of [`super::discovery_path`].
    pub fn read(status: u16, body: &[u8]) -> Self {
        Self(match status {
            200 => match serde_json::from_slice::<Value>(body) {
                Ok(list) => Ok(resources(&list)),
                Err(_) => Err("the API server's answer is not JSON".to_owned()),
            },
            404 => Ok(Vec::new()),
            _ => Err(format!("the API server answers with status {status}")),
        })
    }

    /// How the object's kind is called.
    ///
    /// # Errors
    /// Why that is not known yet. A kind that is not served now may be when its CustomResourceDefinition is established.
    pub fn resource(&self, object: &Object) -> Result<&Resource, String> {
        let served = self.0.as_ref().map_err(Clone::clone)?;
        let found = served.iter().find(|(kind, _)| *kind == object.kind);
        let missing = || format!("the API server does not serve {} of {} yet", object.kind, object.api_version);
        found.map(|(_, resource)| resource).ok_or_else(missing)
    }
}

/// The kinds that can be applied: those of an `APIResourceList` that are no part of another and take patches.
fn resources(list: &Value) -> Vec<(String, Resource)> {
    let entries = list["resources"].as_array().map(Vec::as_slice).unwrap_or_default();
    let plain = |plural: &str| {
        !plural.is_empty()
            && plural.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
    };
    let read = |entry: &Value| {
        let plural = entry["name"].as_str().filter(|plural| plain(plural))?.to_owned();
        let patched = entry["verbs"].as_array()?.iter().any(|verb| verb == "patch");
        let namespaced = entry["namespaced"].as_bool()?;
        patched.then(|| Some((entry["kind"].as_str()?.to_owned(), Resource { plural, namespaced })))?
    };
    entries.iter().filter_map(read).collect()
}

/// Judges the answer to an apply. Sources: `apiserver/pkg/endpoints/handlers/patch.go`,
/// `apimachinery/pkg/util/managedfields/internal/structuredmerge.go`, `apimachinery/pkg/api/errors/errors.go`,
/// `apiextensions-apiserver/pkg/apiserver/customresource_handler.go`; the same in 1.34 to 1.37.
pub fn judge(object: &Object, status: u16, body: &[u8]) -> Applied {
    if (200..300).contains(&status) {
        return Applied::Done;
    }
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = answer["message"].as_str().unwrap_or_default();
    let said = words(object, status, &answer);
    let later = match status {
        // Its Namespace is not there; or a server of several has not heard of the CustomResourceDefinition, and does not
        // know the path at all. Another object by name is nothing that time brings.
        404 => {
            answer["details"]["kind"] == "namespaces" || answer["details"]["name"].as_str().is_none_or(str::is_empty)
        }
        // A Namespace that is being deleted can come again, and each new one gets its ServiceAccount after a moment.
        403 => has_cause(&answer, "NamespaceTerminating") || message.contains("error looking up service account"),
        408 | 409 | 425 | 429 => true,
        // A field that the kind does not have comes as an internal error.
        500 => !message.contains("failed to create typed patch object"),
        _ => !(400..500).contains(&status),
    };
    if later { Applied::Later(said) } else { Applied::Refused(said) }
}

fn has_cause(answer: &Value, reason: &str) -> bool {
    let causes = answer["details"]["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
    causes.iter().any(|cause| cause["reason"] == reason)
}

/// The status and the server's words for it. Of a Secret they may quote what it holds: then only which fields are wrong.
fn words(object: &Object, status: u16, answer: &Value) -> String {
    let text = match (object.group(), object.kind.as_str()) {
        ("", "Secret") => {
            let causes = answer["details"]["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
            let fields: Vec<&str> = causes.iter().filter_map(|cause| cause["field"].as_str()).collect();
            format!("{} {}", answer["reason"].as_str().unwrap_or_default(), fields.join(", "))
        }
        _ => answer["message"].as_str().unwrap_or_default().to_owned(),
    };
    let plain: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    // Redacted before it is cut: half a token would not be known for one.
    let shown = redact(&plain);
    match shown.char_indices().nth(WORDS_MAX) {
        Some((end, _)) => format!("status {status}: {}...", &shown[..end]),
        None if shown.is_empty() => format!("status {status}"),
        None => format!("status {status}: {shown}"),
    }
}
