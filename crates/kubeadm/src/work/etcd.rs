//! This machine's etcd membership: whether it has one that votes, and how it gives it up before anything is wiped.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use super::step::Deed;
use super::{Ask, Trouble};
use crate::etcd::{self, AGREED, LIST, Membership, REMOVE};
use crate::guard::ETCD_DATA;
use crate::kubeconfig::Kubeconfig;

/// How long etcd is asked before the step counts as failed; the ladder then tries it again.
const LIMIT: Duration = Duration::from_secs(60);

/// Pause between two rounds.
const PAUSE: Duration = Duration::from_millis(250);

/// How a machine that was to be no member of etcd ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// etcd says that it is none.
    Out,
    /// It cannot ever have been one.
    NeverIn,
    /// It stays one: its data is there.
    DataIsThere,
}

impl Deed {
    /// Whether this machine's own etcd says that it is a member that votes.
    pub(super) async fn votes(&self, us: IpAddr) -> Result<bool, Trouble> {
        let Some(identity) = self.etcd_identity().await? else { return Ok(false) };
        let asked = self.ask_etcd(us, &identity, LIST, "{}").await?;
        Ok(asked.is_ok_and(|(status, body)| etcd::votes(status, &body, us)))
    }

    /// Returns once the machine at `them`, which leaves for good, is no member.
    pub(super) async fn strike_out(&self, them: IpAddr) -> Result<(), Trouble> {
        self.stand_without(them).await?;
        self.lead_without(them).await?;
        match self.leave(them, false).await? {
            Left::Out => Ok(()),
            _ => Err(Trouble::new("this machine has no identity for etcd, and can have nobody taken out of it")),
        }
    }

    /// Whether etcd has a member of the machine at `them`, as a majority has it.
    pub(super) async fn is_member(&self, them: IpAddr) -> Result<bool, Trouble> {
        self.hands.at("etcd/member-look");
        let nobody = || Trouble::new(format!("whether etcd has a member at {them} is not known: nobody answers"));
        let Some(identity) = self.etcd_identity().await? else { return Err(nobody()) };
        for address in self.hands.servers().await?.into_iter().filter(|address| *address != them) {
            let asked = self.ask_etcd(address, &identity, LIST, AGREED).await?;
            if let Ok(membership) = asked.and_then(|(status, body)| etcd::membership(status, &body, them)) {
                return Ok(!matches!(membership, Membership::None));
            }
        }
        Err(nobody())
    }

    /// A leader that takes a dead member out waits up to 5 s for what it was just writing to it, and leads nobody meanwhile (seen with etcd
    /// 3.6 and 3.7, `rafthttp`'s peer). So this machine's own member leads, and nothing is left to be written. Where that cannot be, it waits.
    async fn lead_without(&self, them: IpAddr) -> Result<(), Trouble> {
        let Some(identity) = self.etcd_identity().await? else { return Ok(()) };
        let us = IpAddr::from([127, 0, 0, 1]);
        let status = self.ask_etcd(us, &identity, etcd::STATUS, "{}").await?;
        if let Some((own, leader)) = status.ok().and_then(|(status, body)| etcd::follows(status, &body))
            && own != leader
        {
            let list = self.ask_etcd(us, &identity, LIST, "{}").await?;
            let at = list.ok().and_then(|(status, body)| etcd::address_of(status, &body, leader));
            if let Some(at) = at.filter(|at| *at != them) {
                let _ = self.ask_etcd(at, &identity, etcd::HAND_ON, &etcd::hand_on(own)).await?;
            }
        }
        let _ = self.hands.does(Ask::CutOff(SocketAddr::new(them, etcd::PEER_PORT))).await;
        Ok(())
    }

    /// Sees that a majority of the others answers, each with what a majority agrees on.
    async fn stand_without(&self, them: IpAddr) -> Result<(), Trouble> {
        let Some(identity) = self.etcd_identity().await? else { return Ok(()) };
        let (mut here, mut count) = (0, 0);
        for address in self.hands.servers().await?.into_iter().filter(|address| *address != them) {
            let asked = self.ask_etcd(address, &identity, LIST, AGREED).await?;
            if let Ok(others) = asked.and_then(|(status, body)| etcd::others(status, &body, them)) {
                (here, count) = (here + 1, others);
            }
        }
        if here * 2 > count || muster_wire::planted::planted("removal-costs-quorum") {
            return Ok(());
        }
        let why = match here {
            0 => "no other member of etcd answers".to_owned(),
            _ => format!("without it etcd would have {count} members, of which {here} answer"),
        };
        Err(Trouble::new(format!("{them} stays in etcd, which needs it: {why}")))
    }

    /// Whether etcd's data is on this machine. An empty directory is what a mount leaves that failed.
    pub(super) async fn has_data(&self) -> Result<bool, Trouble> {
        let directory = self.place.settings.etcd_dir.join(ETCD_DATA);
        Ok(!self.hands.list(Ask::List(directory)).await?.is_empty())
    }

    /// Takes this machine's own member out, as long as its data is gone: it may be put back at any moment. Says whether it did.
    pub(super) async fn give_up_member(&self, us: IpAddr) -> Result<bool, Trouble> {
        match self.leave(us, true).await? {
            Left::Out => Ok(true),
            Left::DataIsThere => Ok(false),
            Left::NeverIn => Err(Trouble::new("this machine has no identity for etcd, and cannot take its member out")),
        }
    }

    /// Returns once the machine at `us` is no member: true, or false if it cannot ever have been one.
    pub(super) async fn leave_etcd(&self, us: IpAddr) -> Result<bool, Trouble> {
        Ok(self.leave(us, false).await? == Left::Out)
    }

    /// The machines with members are asked for in every round: after a start none may be known yet. `without_data`: only while this
    /// machine holds nothing of etcd's, which is looked at in every round as well.
    async fn leave(&self, us: IpAddr, without_data: bool) -> Result<Left, Trouble> {
        self.hands.at("etcd/member-remove");
        let begun = self.hands.now();
        loop {
            if without_data && self.has_data().await? {
                return Ok(Left::DataIsThere);
            }
            // Without an identity for etcd there was never a request to join it.
            let Some(identity) = self.etcd_identity().await? else { return Ok(Left::NeverIn) };
            match self.round(us, &identity).await? {
                Ok(()) => return Ok(Left::Out),
                Err(why) if self.hands.now() - begun >= LIMIT => {
                    let why = format!("etcd's membership of {us} cannot be given up, so nothing is wiped: {why}");
                    return Err(Trouble::new(why));
                }
                Err(_) => self.hands.pause(PAUSE).await?,
            }
        }
    }

    /// Asks every member once. A member may know an old list; what the others agree on is what counts.
    async fn round(&self, us: IpAddr, identity: &Kubeconfig) -> Result<Result<(), String>, Trouble> {
        let mut answered = false;
        let mut last = "no other machine with etcd is known".to_owned();
        let others = self.hands.servers().await?.into_iter().filter(|other| *other != us);
        for address in others.chain([us]) {
            let asked = self.ask_etcd(address, identity, LIST, "{}").await?;
            match asked.and_then(|(status, body)| etcd::membership(status, &body, us)) {
                Ok(Membership::None) => answered = true,
                // Whatever happened to the others: what the cluster knows is here alone.
                Ok(Membership::Only) => last = "this machine is etcd's only member".to_owned(),
                Ok(Membership::Of(request)) => return self.strike(us, address, identity, &request).await,
                Err(why) => last = why,
            }
        }
        Ok(if answered { Ok(()) } else { Err(last) })
    }

    /// Takes out whoever was added and left behind, see [`etcd::strays`]: etcd takes one learner at a time, and this machine would wait for it
    /// for ever. What cannot be taken out kubeadm then meets, and says so.
    pub(super) async fn make_room(&self, us: IpAddr, with: &[IpAddr], without: &[IpAddr]) -> Result<(), Trouble> {
        let Some(identity) = self.etcd_identity().await?.filter(|_| !muster_wire::planted::planted("stray-stays"))
        else {
            return Ok(());
        };
        for address in with.iter().copied() {
            let asked = self.ask_etcd(address, &identity, LIST, AGREED).await?;
            let strays = asked.and_then(|(status, body)| etcd::strays(status, &body, us, with, without));
            let Ok(strays) = strays else { continue };
            for stray in strays {
                let what = format!("etcd has a member at {} that was added and left behind", stray.at);
                self.hands.say(match self.ask_etcd(address, &identity, REMOVE, &stray.request).await? {
                    Ok((200, _)) => format!("{what}: it is taken out, at {address}"),
                    Ok((status, body)) => {
                        format!("{what}, and {address} refuses with status {status}: {}", words(&body))
                    }
                    Err(why) => format!("{what}, and stays: {why}"),
                });
            }
            break;
        }
        Ok(())
    }

    /// Has the member at `address` remove that of `us`.
    async fn strike(
        &self,
        us: IpAddr,
        address: IpAddr,
        identity: &Kubeconfig,
        request: &str,
    ) -> Result<Result<(), String>, Trouble> {
        Ok(match self.ask_etcd(address, identity, REMOVE, request).await? {
            Ok((200, _)) => {
                self.hands.say(format!("the etcd membership of {us} is given up, at {address}"));
                Ok(())
            }
            Ok((status, body)) => Err(format!("{address} refuses with status {status}: {}", words(&body))),
            Err(why) => Err(why),
        })
    }

    /// Nothing if kubeadm has not come far enough to make this machine a member.
    pub(super) async fn etcd_identity(&self) -> Result<Option<Kubeconfig>, Trouble> {
        for file in etcd::identity_files(&self.place.settings) {
            if !self.hands.exists(&file).await? {
                return Ok(None);
            }
        }
        Ok(Some(etcd::identity(&self.place.settings)))
    }

    pub(super) async fn ask_etcd(
        &self,
        address: IpAddr,
        identity: &Kubeconfig,
        path: &str,
        body: &str,
    ) -> Result<Result<(u16, Bytes), String>, Trouble> {
        self.hands.send(etcd::request(address, identity, path, body)).await
    }
}

fn words(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(200).collect()
}
