//! Where the API server has what is asked for.

use std::fmt::Write as _;

use super::Object;
use super::answer::Resource;

/// Who says that he manages what the manifests say. Also the name that `kubectl apply` shows in a conflict.
const FIELD_MANAGER: &str = "muster";

/// What is served of an API version: a GET of it answers with an `APIResourceList`.
pub fn discovery_path(api_version: &str) -> String {
    match api_version.contains('/') {
        true => format!("/apis/{api_version}"),
        false => format!("/api/{api_version}"),
    }
}

/// Path and query that apply an object. `force` takes fields over from whoever else applied them: the image is what holds.
pub fn object_path(object: &Object, resource: &Resource) -> String {
    let mut path = discovery_path(&object.api_version);
    if resource.namespaced {
        let _ = write!(path, "/namespaces/{}", object.namespace.as_deref().unwrap_or("default"));
    }
    let _ = write!(path, "/{}/{}?fieldManager={FIELD_MANAGER}&force=true", resource.plural, encoded(&object.name));
    path
}

/// RFC 3986, section 2.1.
fn encoded(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => encoded.push(byte as char),
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}
