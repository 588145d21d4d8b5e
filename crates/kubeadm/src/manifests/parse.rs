//! From a file to objects.

use serde_json::Value;

use super::{FILE_BYTES_MAX, ManifestError, ManifestFile, OBJECTS_MAX, Object};
use crate::secret::Secret;

/// Reads a file's objects, or what is wrong with it.
pub(super) fn file(file: &ManifestFile, objects: &mut Vec<Object>, errors: &mut Vec<ManifestError>) {
    let mut wrong = |place: &str, why: String| errors.push(ManifestError { place: place.to_owned(), why });
    if file.contents.expose().len() > FILE_BYTES_MAX {
        return wrong(&file.name, format!("it is longer than {FILE_BYTES_MAX} bytes"));
    }
    let Ok(text) = std::str::from_utf8(file.contents.expose()) else {
        return wrong(&file.name, "it is not UTF-8".to_owned());
    };
    let documents = if file.name.ends_with(".json") { json(text) } else { yaml(text) };
    let mut found = false;
    for (number, document) in documents.into_iter().enumerate() {
        let place = format!("{}, document {}", file.name, number + 1);
        let document = match document {
            Ok(Value::Null) => continue,
            Ok(document) => document,
            Err(why) => {
                found = true;
                wrong(&place, why);
                continue;
            }
        };
        found = true;
        for (place, value) in items(place, document) {
            match object(&place, value) {
                // More than this is told once, at the end.
                Ok(object) if objects.len() <= OBJECTS_MAX => objects.push(object),
                Ok(_) => {}
                Err(why) => wrong(&place, why),
            }
        }
    }
    if !found {
        wrong(&file.name, "there is no object in it".to_owned());
    }
}

/// Splits at lines that begin with `---`, as kubectl does (`apimachinery/pkg/util/yaml/decoder.go`), so that a document
/// which is no YAML spoils no other, and numbers are the same as those that people count.
fn yaml(text: &str) -> Vec<Result<Value, String>> {
    let mut documents = Vec::new();
    let (mut begin, mut first_line, mut line) = (0, 0, 0);
    let mut at = 0;
    for part in text.split_inclusive('\n') {
        if part.starts_with("---") && at > 0 {
            documents.push((&text[begin..at], first_line));
            (begin, first_line) = (at, line);
        }
        at += part.len();
        line += 1;
    }
    documents.push((&text[begin..], first_line));
    // What stands before the first mark is no document of its own unless there is something in it.
    if documents.len() > 1 && is_blank(documents[0].0) {
        documents.remove(0);
    }
    documents.into_iter().map(|(text, first_line)| one_yaml(text, first_line)).collect()
}

fn is_blank(text: &str) -> bool {
    text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#') || line.starts_with("---"))
}

fn one_yaml(text: &str, first_line: u64) -> Result<Value, String> {
    if is_blank(text) && text.lines().all(|line| !line.starts_with("---") || is_mark(line)) {
        return Ok(Value::Null);
    }
    // `0644` in its old meaning, as Kubernetes' own parser has it.
    let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        // The parser's own words may quote what is there, which may be secret.
        match error.location() {
            Some(at) => format!("it is no YAML at line {}, column {}", first_line + at.line(), at.column()),
            None => "it is no YAML".to_owned(),
        }
    })
}

/// A mark with nothing but a comment behind it.
fn is_mark(line: &str) -> bool {
    let rest = line.trim_start_matches('-').trim();
    rest.is_empty() || rest.starts_with('#')
}

fn json(text: &str) -> Vec<Result<Value, String>> {
    let mut documents = Vec::new();
    for document in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        let broken = document.is_err();
        documents.push(
            document.map_err(|error| format!("it is no JSON at line {}, column {}", error.line(), error.column())),
        );
        if broken {
            break;
        }
    }
    documents
}

/// A `v1 List` is its items; anything else is itself.
fn items(place: String, document: Value) -> Vec<(String, Value)> {
    match document {
        Value::Object(mut list)
            if list.get("kind").is_some_and(|kind| kind == "List") && list.contains_key("items") =>
        {
            let Some(Value::Array(items)) = list.remove("items") else { return vec![(place, Value::Null)] };
            let place = |number: usize| format!("{place}, item {}", number + 1);
            items.into_iter().enumerate().map(|(number, item)| (place(number), item)).collect()
        }
        other => vec![(place, other)],
    }
}

fn object(place: &str, value: Value) -> Result<Object, String> {
    let Value::Object(fields) = &value else { return Err("it is no object: not a map of fields".to_owned()) };
    let text = |field: &str| match fields.get(field) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        Some(_) => Err(format!("{field} is not a text")),
        None => Err(format!("{field} is missing")),
    };
    let (api_version, kind) = (text("apiVersion")?, text("kind")?);
    if !is_api_version(&api_version) {
        return Err("apiVersion is none: it must be like v1 or apps/v1".to_owned());
    }
    if kind.len() > 63 || !kind.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err("kind is none: it must be like DaemonSet".to_owned());
    }
    if kind == "List" {
        return Err("a List cannot be in a List".to_owned());
    }
    let Some(Value::Object(metadata)) = fields.get("metadata") else {
        return Err(format!("{kind}: metadata is missing"));
    };
    if metadata.contains_key("generateName") {
        let why = "the object would be made anew each time; give it a name";
        return Err(format!("{kind}: metadata.generateName: {why}"));
    }
    for field in ["managedFields", "resourceVersion", "uid"] {
        if metadata.contains_key(field) {
            return Err(format!("{kind}: metadata.{field} belongs to an object of one cluster; delete it"));
        }
    }
    let name = match metadata.get("name") {
        Some(Value::String(name)) => name.clone(),
        Some(_) => return Err(format!("{kind}: metadata.name is not a text; put it in quotes")),
        None => return Err(format!("{kind}: metadata.name is missing")),
    };
    if !is_path_segment(&name) {
        return Err(format!("{kind}: metadata.name is no name of an object"));
    }
    let namespace = match metadata.get("namespace") {
        None | Some(Value::Null) => None,
        Some(Value::String(namespace)) if is_label(namespace) => Some(namespace.clone()),
        Some(_) => return Err(format!("{kind} {name}: metadata.namespace is no name of a Namespace")),
    };
    let body = serde_json::to_vec(&value).map_err(|_| format!("{kind} {name}: it cannot be written as JSON"))?;
    Ok(Object { place: place.to_owned(), api_version, kind, namespace, name, body: Secret::new(body) })
}

/// `version` or `group/version`.
fn is_api_version(text: &str) -> bool {
    let (group, version) = text.split_once('/').unwrap_or(("v", text));
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let domain = group.len() <= 253 && group.split('.').all(is_label);
    domain && (1..=63).contains(&version.len()) && plain(version)
}

fn is_label(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('-') && !text.ends_with('-')
}

/// What may be a part of a path (`apimachinery/pkg/api/validation/path/name.go`), and is not long.
fn is_path_segment(name: &str) -> bool {
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && !matches!(c, '/' | '%');
    (1..=253).contains(&name.len()) && name.chars().all(plain) && !matches!(name, "." | "..")
}
