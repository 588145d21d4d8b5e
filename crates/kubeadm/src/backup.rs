//! Backups of etcd: what one says of itself, and how etcd is asked for its revision.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::ANSWER_LIMIT;

/// The request that reads a key.
pub const RANGE: &str = "/v3/kv/range";

/// The request that streams a member's whole database; its body is an empty object.
pub const SNAPSHOT: &str = "/v3/maintenance/snapshot";

/// What a backup says of itself, for whoever has nothing but the file. None of it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// The charter's id in hexadecimal: whose it is.
    pub charter: String,
    /// The cluster's name.
    pub cluster: String,
    /// Its number.
    pub number: u32,
    /// The epoch of etcd's data.
    pub epoch: u32,
    /// When it was taken, in seconds since 1970.
    pub taken_s: u64,
    /// etcd's revision before it was taken.
    pub revision: u64,
    /// The Kubernetes version of kubeadm where it was taken.
    pub kubernetes: String,
    /// Length of etcd's database in bytes.
    pub database_bytes: u64,
}

/// The body of a [`RANGE`] that reads a key which nobody has, and is answered when a majority agrees.
pub fn agreed() -> String {
    json!({ "key": BASE64_STANDARD.encode("muster/backup"), "countOnly": true }).to_string()
}

/// Reads the answer to that: etcd's revision.
///
/// # Errors
/// When it is no such answer.
pub fn revision(status: u16, body: &[u8]) -> Result<u64, String> {
    let answer: Option<Value> = serde_json::from_slice(body).ok().filter(|_| body.len() <= ANSWER_LIMIT);
    let revision = answer.as_ref().and_then(|answer| answer["header"]["revision"].as_str()?.parse().ok());
    revision
        .filter(|_| status == 200)
        .ok_or_else(|| format!("etcd does not say what a majority of it agrees on (status {status})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_read_from_an_answer_alone() {
        let answer = br#"{"header":{"cluster_id":"1","member_id":"2","revision":"4711","raft_term":"3"}}"#;
        assert_eq!(revision(200, answer), Ok(4711));
        assert!(revision(503, answer).is_err() && revision(200, b"{}").is_err() && revision(200, b"<html>").is_err());
        assert_eq!(agreed(), r#"{"countOnly":true,"key":"bXVzdGVyL2JhY2t1cA=="}"#);
    }
}
