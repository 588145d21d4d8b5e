//! etcd's members, as its JSON gateway lists them. A machine whose join failed gives its membership up by this before it
//! is reset: `kubeadm reset` only warns when it could not, empties etcd's disk all the same, and of two members the one
//! that is left then has no quorum, ever.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use muster_wire::planted::planted;
use serde_json::{Value, json};

use crate::api::ANSWER_LIMIT;
use crate::kubeconfig::{Identity, Kubeconfig, Material};
use crate::secret::Secret;
use crate::settings::Settings;
use crate::work::{PATIENCE, Request};

/// Where a stacked etcd serves clients. kubeadm has no setting for it.
pub const CLIENT_PORT: u16 = 2379;

/// Where it serves its peers.
pub const PEER_PORT: u16 = 2380;

/// The request that lists the members; its body is an empty object.
pub const LIST: &str = "/v3/cluster/member/list";

/// The body of [`LIST`] with which a member answers only what a majority agrees on (etcd 3.5 and later; before, every answer is such).
pub const AGREED: &str = r#"{"linearizable":true}"#;

/// The request that removes one; its body comes from [`membership`].
pub const REMOVE: &str = "/v3/cluster/member/remove";

/// The request that asks a member for itself and for whom it follows; its body is an empty object.
pub const STATUS: &str = "/v3/maintenance/status";

/// The request that has a leader hand on to another member; its body comes from [`hand_on`].
pub const HAND_ON: &str = "/v3/maintenance/transfer-leadership";

/// What a list of members says of one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership {
    /// The machine is none of them.
    None,
    /// It is the only one: there is nothing to be taken from.
    Only,
    /// It is one of several; the body of the request that removes it.
    Of(String),
}

/// The files of the identity with which this machine asks etcd: CA, certificate, key. Without all of them kubeadm has not come far
/// enough to make it a member.
pub fn identity_files(settings: &Settings) -> [PathBuf; 3] {
    let names = ["etcd/ca.crt", "etcd/healthcheck-client.crt", "etcd/healthcheck-client.key"];
    names.map(|name| settings.pki_dir().join(name))
}

/// How this machine asks any etcd of the cluster.
pub(crate) fn identity(settings: &Settings) -> Kubeconfig {
    let [ca, certificate, key] = identity_files(settings).map(Material::File);
    let identity = Some(Identity::Certificate { certificate, key });
    Kubeconfig { server: settings.endpoint.clone(), ca, identity }
}

/// How a member is asked for something.
pub(crate) fn request(member: IpAddr, identity: &Kubeconfig, path: &str, body: &str) -> Request {
    let at = SocketAddr::new(member, CLIENT_PORT);
    Request {
        server: at.to_string(),
        at: Some(at),
        identity: identity.clone(),
        method: "POST",
        path: path.to_owned(),
        content_type: "application/json",
        body: Secret::new(body),
        patience: PATIENCE,
    }
}

/// Whether a member is that of the machine at `address`: it is known by its peers' URL, whether it has started or not.
fn is_of(member: &Value, address: IpAddr) -> bool {
    let peer = format!("https://{}", SocketAddr::new(address, PEER_PORT));
    member["peerURLs"].as_array().is_some_and(|urls| urls.iter().any(|url| *url == peer))
}

/// Whether an answer to [`LIST`] shows the machine as a member that has started and votes: its own name is in the list, which
/// a member writes there when it starts, and it is no learner any more.
pub fn votes(status: u16, body: &[u8], address: IpAddr) -> bool {
    let answer: Value = match status == 200 && body.len() <= ANSWER_LIMIT {
        true => serde_json::from_slice(body).unwrap_or_default(),
        false => return false,
    };
    let member = answer["members"].as_array().and_then(|members| members.iter().find(|member| is_of(member, address)));
    member.is_some_and(|member| {
        member["name"].as_str().is_some_and(|name| !name.is_empty()) && member["isLearner"] != true
    })
}

/// Reads an answer to [`STATUS`]: the member that answers, and the one that leads.
pub fn follows(status: u16, body: &[u8]) -> Option<(u64, u64)> {
    let answer: Value = serde_json::from_slice(body).ok().filter(|_| status == 200 && body.len() <= ANSWER_LIMIT)?;
    let number = |value: &Value| value.as_str()?.parse().ok();
    Some((number(&answer["header"]["member_id"])?, number(&answer["leader"])?))
}

/// Where a member serves, by an answer to [`LIST`].
pub fn address_of(status: u16, body: &[u8], number: u64) -> Option<IpAddr> {
    let members = members(status, body).ok()?;
    let member = members.iter().find(|member| member["ID"].as_str().is_some_and(|id| id.parse() == Ok(number)))?;
    let urls = member["clientURLs"].as_array()?;
    urls.iter().find_map(|url| url.as_str()?.strip_prefix("https://")?.parse::<SocketAddr>().ok()).map(|at| at.ip())
}

/// The body with which a leader hands on to a member.
pub fn hand_on(to: u64) -> String {
    json!({ "targetID": to.to_string() }).to_string()
}

/// How many members that vote an answer to [`LIST`] shows beside that of the machine at `address`.
///
/// # Errors
/// When it is not such an answer.
pub fn others(status: u16, body: &[u8], address: IpAddr) -> Result<usize, String> {
    let members = members(status, body)?;
    Ok(members.iter().filter(|member| !is_of(member, address) && member["isLearner"] != true).count())
}

fn members(status: u16, body: &[u8]) -> Result<Vec<Value>, String> {
    if status != 200 || body.len() > ANSWER_LIMIT {
        return Err(format!("etcd does not tell its members (status {status})"));
    }
    let mut answer: Value =
        serde_json::from_slice(body).map_err(|_| "etcd's list of members is not JSON".to_owned())?;
    match answer["members"].take() {
        Value::Array(members) if !members.is_empty() => Ok(members),
        _ => Err("etcd's answer lists no members".to_owned()),
    }
}

/// Reads an answer to [`LIST`].
///
/// # Errors
/// When it is not such an answer.
pub fn membership(status: u16, body: &[u8], address: IpAddr) -> Result<Membership, String> {
    let members = members(status, body)?;
    match members.iter().find(|member| is_of(member, address) || planted("etcd-strikes-another")) {
        None => Ok(Membership::None),
        Some(_) if members.len() == 1 => Ok(Membership::Only),
        Some(member) => match member["ID"].as_str().and_then(|id| id.parse::<u64>().ok()) {
            Some(id) => Ok(Membership::Of(json!({ "ID": id.to_string() }).to_string())),
            None => Err("etcd's list has a member without a number".to_owned()),
        },
    }
}

/// A member that nobody answers for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// Its peers' URLs, for people.
    pub at: String,
    /// The body of the request that removes it.
    pub request: String,
}

/// Reads an answer to [`LIST`] for members that were added and left behind, for the machine at `us` whose turn it is to be added: those
/// that never started, beside the ones of the machines that the ledger knows `with` a member, and whatever there is of machines that it
/// knows `without`. One that has started somewhere else is somebody's, and stays.
///
/// # Errors
/// When it is not such an answer.
pub fn strays(status: u16, body: &[u8], us: IpAddr, with: &[IpAddr], without: &[IpAddr]) -> Result<Vec<Stray>, String> {
    let members = members(status, body)?;
    let any_of = |member: &Value, addresses: &[IpAddr]| addresses.iter().any(|address| is_of(member, *address));
    let left_behind = |member: &&Value| {
        let started = member["name"].as_str().is_some_and(|name| !name.is_empty());
        !is_of(member, us) && !any_of(member, with) && (!started || any_of(member, without))
    };
    let stray = |member: &Value| {
        let id: u64 = member["ID"].as_str()?.parse().ok()?;
        let urls = member["peerURLs"].as_array()?.iter().filter_map(Value::as_str);
        let at = urls.collect::<Vec<_>>().join(", ").chars().filter(|c| !c.is_control()).take(100).collect();
        Some(Stray { at, request: json!({ "ID": id.to_string() }).to_string() })
    };
    Ok(members.iter().filter(left_behind).filter_map(stray).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const US: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    /// As etcd 3.4 and 3.5 answer.
    const TWO: &[u8] = br#"{"header": {"cluster_id": "7", "member_id": "8", "raft_term": "2"}, "members": [
        {"ID": "10276657743932975437", "name": "m1", "peerURLs": ["https://10.0.0.1:2380"], "clientURLs": ["https://10.0.0.1:2379"]},
        {"ID": "18249187646912138824", "peerURLs": ["https://10.0.0.2:2380"]}]}"#;

    #[test]
    fn a_member_is_known_by_its_peers_url_whether_it_has_started_or_not() {
        let of = |body, address| membership(200, body, address);
        assert_eq!(of(TWO, US), Ok(Membership::Of(r#"{"ID":"18249187646912138824"}"#.to_owned())));
        assert_eq!(of(TWO, "10.0.0.3".parse().expect("an address")), Ok(Membership::None));
        let alone = br#"{"members": [{"ID": "1", "peerURLs": ["https://10.0.0.2:2380"]}]}"#;
        assert_eq!(of(alone, US), Ok(Membership::Only));
    }

    #[test]
    fn only_a_member_that_started_and_is_no_learner_votes() {
        let at = |address: &str| address.parse().expect("an address");
        assert!(votes(200, TWO, at("10.0.0.1")));
        assert!(!votes(200, TWO, US), "it is added and has not started");
        assert!(!votes(200, TWO, at("10.0.0.3")) && !votes(503, TWO, at("10.0.0.1")) && !votes(200, b"<html>", US));
        let learner =
            br#"{"members": [{"ID": "1", "name": "m2", "peerURLs": ["https://10.0.0.2:2380"], "isLearner": true}]}"#;
        assert!(!votes(200, learner, US));
    }

    #[test]
    fn who_was_added_and_left_behind_is_told_from_everybody_elses() {
        let at = |last: u8| IpAddr::from([10, 0, 0, last]);
        let list = br#"{"members": [
            {"ID": "1", "name": "m1", "peerURLs": ["https://10.0.0.1:2380"]},
            {"ID": "2", "peerURLs": ["https://10.0.0.2:2380"], "isLearner": true},
            {"ID": "3", "name": "m3", "peerURLs": ["https://10.0.0.3:2380"]},
            {"ID": "4", "name": "theirs", "peerURLs": ["https://10.0.0.4:2380"], "isLearner": true},
            {"ID": "5", "name": "", "peerURLs": ["https://10.0.0.5:2380"]}]}"#;
        let ids = |us, with: &[IpAddr], without: &[IpAddr]| {
            let strays = strays(200, list, us, with, without).expect("a list");
            strays.into_iter().map(|stray| stray.request).collect::<Vec<_>>()
        };
        let id = |id: u8| format!(r#"{{"ID":"{id}"}}"#);
        assert_eq!(ids(at(9), &[at(1)], &[]), [id(2), id(5)], "never started");
        assert_eq!(ids(at(9), &[at(1)], &[at(3)]), [id(2), id(3), id(5)], "the ledger says that it has none");
        assert_eq!(
            ids(at(2), &[at(1), at(3), at(5)], &[]),
            Vec::<String>::new(),
            "a founder that is late, and ourselves"
        );
        assert!(strays(503, list, at(9), &[], &[]).is_err() && strays(200, b"{}", at(9), &[], &[]).is_err());
    }

    #[test]
    fn who_leads_and_where_it_serves_is_read() {
        let status = br#"{"header": {"cluster_id": "7", "member_id": "18249187646912138824"}, "leader": "10276657743932975437"}"#;
        assert_eq!(follows(200, status), Some((18249187646912138824, 10276657743932975437)));
        assert_eq!(address_of(200, TWO, 10276657743932975437), "10.0.0.1".parse().ok());
        assert_eq!((follows(503, status), address_of(200, TWO, 1)), (None, None));
        assert_eq!(hand_on(7), r#"{"targetID":"7"}"#);
    }

    #[test]
    fn what_is_no_list_is_not_taken_for_an_empty_one() {
        assert!(membership(503, TWO, US).is_err());
        assert!(membership(200, b"{}", US).is_err());
        assert!(membership(200, b"<html>", US).is_err());
        let unnumbered = br#"{"members": [{"peerURLs": ["https://10.0.0.2:2380"]}, {}]}"#;
        assert!(membership(200, unnumbered, US).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(status in any::<u16>(), body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (membership(status, &body, US), strays(status, &body, US, &[US], &[US]), others(status, &body, US), follows(status, &body), address_of(status, &body, 7));
        }
    }
}
