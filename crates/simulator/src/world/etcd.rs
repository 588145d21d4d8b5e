//! etcd's members: who is one, by etcd's own list, and how the agent gives a membership up before a reset. The list is read by
//! the agent's own code.

use std::net::IpAddr;

use muster_kubeadm::etcd::{Membership, membership};
use serde_json::{Value, json};

use super::World;
use super::deeds::Trouble;
use super::event::Slot;
use super::program::{ETCD_IDENTITY, at};
use crate::watch::Seen;

impl World {
    /// Gives the membership of this machine up. False if it cannot ever have had one. While no member answers it is asked for
    /// again.
    pub(super) fn leave_etcd(&mut self, slot: Slot, address: &str) -> Result<bool, Trouble> {
        let us: IpAddr = address.parse().map_err(|_| Trouble::new(format!("{address:?} is not an address")))?;
        if !self.has(slot, &at(ETCD_IDENTITY)) {
            return Ok(false);
        }
        let mut answered = false;
        let asked: Vec<Slot> = self.etcd_of(slot).collect();
        for other in asked {
            let Some(cluster) = self.hosts[other as usize].kube.cluster else { continue };
            match membership(200, self.member_list(cluster).to_string().as_bytes(), us).map_err(Trouble::new)? {
                Membership::None => answered = true,
                Membership::Only => {}
                Membership::Of(request) => {
                    let request: Value = serde_json::from_str(&request).unwrap_or_default();
                    let gone = request["ID"].as_str().and_then(|id| id.parse::<Slot>().ok());
                    let Some(gone) = gone.and_then(|id| id.checked_sub(1)) else {
                        return Err(Trouble::new("etcd: member not found"));
                    };
                    self.site.clusters[cluster].etcd.remove(&gone);
                    self.see(Seen::EtcdLeft { slot, gone });
                    return Ok(true);
                }
            }
        }
        if answered { Ok(true) } else { Err(Trouble::NoApi) }
    }

    /// What etcd lists, as its gateway says it. A member's number is one more than its machine's.
    fn member_list(&self, cluster: usize) -> Value {
        let member = |slot: &Slot| {
            let url = format!("https://{}:2380", Self::address(*slot));
            json!({ "ID": (slot + 1).to_string(), "peerURLs": [url] })
        };
        json!({ "members": self.site.clusters[cluster].etcd.iter().map(member).collect::<Vec<_>>() })
    }

    /// The machines with an etcd member that this one reaches: others first.
    pub(super) fn etcd_of(&self, slot: Slot) -> impl Iterator<Item = Slot> + '_ {
        let us = &self.hosts[slot as usize];
        let runs = |other: Slot| self.hosts[other as usize].kube.etcd;
        let others =
            us.api_servers.iter().filter_map(|server| self.slot_at(server)).filter(move |other| *other != slot);
        let reached = others.filter(move |other| {
            runs(*other) && !self.dark[*other as usize] && !self.net.cuts(slot, *other) && !self.net.cuts(*other, slot)
        });
        reached.chain(Some(slot).filter(move |_| runs(slot)))
    }
}
