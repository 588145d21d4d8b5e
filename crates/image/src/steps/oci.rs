//! The root file system as a container image: an archive in the layout of OCI's image specification, version 1.1.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::digest::{sha256, sha256_of};

/// Writes the archive at `path` of the root file system as one archive, the image's only layer.
pub(crate) fn make(layer: &Path, name: &str, path: &Path) -> Result<()> {
    let hash = hex::encode(sha256(layer)?);
    let configuration = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{hash}")] },
    });
    let configuration = configuration.to_string().into_bytes();
    let described = |kind: &str, hash: &str, length: u64| json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{hash}"), "size": length });
    let configuration_hash = hex::encode(sha256_of(&configuration));
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described("config.v1+json", &configuration_hash, configuration.len() as u64),
        "layers": [described("layer.v1.tar", &hash, layer.metadata()?.len())],
    });
    let manifest = manifest.to_string().into_bytes();
    let manifest_hash = hex::encode(sha256_of(&manifest));
    let mut listed: Value = described("manifest.v1+json", &manifest_hash, manifest.len() as u64);
    listed["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    let index =
        json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [listed] });
    let mut archive = tar::Builder::new(io::BufWriter::new(fs::File::create_new(path)?));
    add(&mut archive, "oci-layout", &mut &br#"{"imageLayoutVersion":"1.0.0"}"#[..], 30)?;
    let index = index.to_string().into_bytes();
    add(&mut archive, "index.json", &mut index.as_slice(), index.len() as u64)?;
    for (hash, bytes) in [(&configuration_hash, &configuration), (&manifest_hash, &manifest)] {
        add(&mut archive, &format!("blobs/sha256/{hash}"), &mut bytes.as_slice(), bytes.len() as u64)?;
    }
    add(&mut archive, &format!("blobs/sha256/{hash}"), &mut fs::File::open(layer)?, layer.metadata()?.len())?;
    archive.into_inner()?.into_inner().map(drop).map_err(io::IntoInnerError::into_error).context("the archive")
}

fn add(archive: &mut tar::Builder<impl io::Write>, name: &str, source: &mut dyn io::Read, length: u64) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(length);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    archive.append_data(&mut header, name, source).with_context(|| format!("{name} cannot be written"))
}
