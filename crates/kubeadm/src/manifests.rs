//! Manifests of the image: objects that the cluster is to have besides what kubeadm makes, such as its pod network.
//!
//! Here they are read and ordered, the questions to the API server are made of them, and its answers are judged. They are
//! applied by server-side apply (`PATCH`, content type [`CONTENT_TYPE`]), so that doing it twice is doing it once.
//!
//! What they hold may be secret: it is kept as [`Secret`] and is in no error.

mod answer;
mod parse;
mod path;

use crate::secret::Secret;

pub use answer::{Applied, Discovery, Resource, judge};
pub use path::{discovery_path, object_path};

/// Server-side apply takes YAML, of which JSON is a part (`apimachinery/pkg/types/patch.go`, since 1.16).
pub const CONTENT_TYPE: &str = "application/apply-patch+yaml";

/// Most files.
pub const FILES_MAX: usize = 256;

/// Longest file, in bytes.
pub const FILE_BYTES_MAX: usize = 4 << 20;

/// All files together, in bytes: the agent holds them for as long as it runs.
pub const BYTES_MAX: usize = 8 << 20;

/// Most objects.
pub const OBJECTS_MAX: usize = 2_000;

/// Most mistakes that are told at once.
const ERRORS_MAX: usize = 20;

/// A file of manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFile {
    /// Its path: its extension says whether it is YAML or JSON, and errors name it.
    pub name: String,
    /// What is in it.
    pub contents: Secret,
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Where it is from: the file and the document's number, counted from 1.
    pub place: String,
    /// Such as `v1` or `apps/v1`.
    pub api_version: String,
    /// Such as `DaemonSet`.
    pub kind: String,
    /// Its namespace, if it names one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// All of it, as JSON.
    pub body: Secret,
}

/// All objects, in the order in which they are applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifests(Vec<Object>);

/// What is wrong in a file. Quotes nothing of its contents but names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {why}")]
pub struct ManifestError {
    /// The file, and the document's number or the line as far as they are known.
    pub place: String,
    /// What is wrong and what to do.
    pub why: String,
}

impl Manifests {
    /// Reads the files, in their order. Documents without anything in them are passed over.
    ///
    /// # Errors
    /// Every mistake, up to 20 of them: what is no YAML, is no Kubernetes object, lacks a name, has fields that only a
    /// cluster may set, is there twice, or is more than the bounds above.
    pub fn read(files: &[ManifestFile]) -> Result<Self, Vec<ManifestError>> {
        let mut errors = Vec::new();
        let mut objects: Vec<Object> = Vec::new();
        let total: usize = files.iter().map(|file| file.contents.expose().len()).sum();
        if files.len() > FILES_MAX || total > BYTES_MAX {
            let why = format!("{} files of {total} bytes; {FILES_MAX} and {BYTES_MAX} are the most", files.len());
            return Err(vec![ManifestError { place: "all manifests together".to_owned(), why }]);
        }
        for file in files {
            parse::file(file, &mut objects, &mut errors);
        }
        if objects.len() > OBJECTS_MAX {
            let why = format!("{} objects; {OBJECTS_MAX} are the most", objects.len());
            errors.push(ManifestError { place: "all manifests together".to_owned(), why });
        }
        twice(&objects, &mut errors);
        if errors.is_empty() {
            objects.sort_by_key(Object::turn);
            return Ok(Self(objects));
        }
        errors.truncate(ERRORS_MAX);
        Err(errors)
    }

    /// How many objects there are; at most [`OBJECTS_MAX`].
    pub fn count(&self) -> u32 {
        self.0.len() as u32
    }

    /// The object of that number, counted from 0 in the order in which they are applied.
    pub fn get(&self, number: u32) -> Option<&Object> {
        self.0.get(number as usize)
    }
}

impl Object {
    /// The API's group: empty for the core's.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// What others live in or are instances of comes first. The rest stays as it is in the files: those who wrote them
    /// had their reasons.
    fn turn(&self) -> u8 {
        match (self.group(), self.kind.as_str()) {
            ("", "Namespace") => 0,
            ("apiextensions.k8s.io", "CustomResourceDefinition") => 1,
            _ => 2,
        }
    }
}

impl std::fmt::Display for Object {
    /// As people name it: `DaemonSet kube-system/flannel (/etc/muster/manifests/cni.yaml, document 5)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let namespace = self.namespace.iter().map(|namespace| format!("{namespace}/")).collect::<String>();
        write!(f, "{} {namespace}{} ({})", self.kind, self.name, self.place)
    }
}

/// The same object in two places would be what the later one says, and nobody would know.
fn twice(objects: &[Object], errors: &mut Vec<ManifestError>) {
    let mut known = std::collections::BTreeMap::new();
    for object in objects {
        // Without a namespace an object of a kind that has one lands in this one.
        let namespace = object.namespace.as_deref().unwrap_or("default");
        let key = (object.group(), object.kind.as_str(), namespace, object.name.as_str());
        if let Some(earlier) = known.insert(key, object.place.as_str()) {
            let why = format!("{} {} is in {earlier} already", object.kind, object.name);
            errors.push(ManifestError { place: object.place.clone(), why });
        }
    }
}

#[cfg(test)]
mod tests;
