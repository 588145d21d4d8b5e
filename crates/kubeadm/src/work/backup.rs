//! A backup of this machine's own etcd member: it may lag behind the others, so what a majority agrees on is asked for first.

use std::net::IpAddr;
use std::time::SystemTime;

use muster_protocol::StepOutput;

use super::step::{Deed, clock_is_set};
use super::{Ask, Trouble};
use crate::backup::{self, Label};
use crate::etcd;

impl Deed {
    pub(super) async fn back_up(&self, number: u32, epoch: u32, charter: &[u8; 16]) -> Result<StepOutput, Trouble> {
        self.hands.at("etcd/read");
        let identity = self.etcd_identity().await?;
        let identity = identity.ok_or_else(|| Trouble::new("this machine has no identity for etcd"))?;
        let now = self.hands.clock().await?;
        clock_is_set(now).map_err(Trouble::new)?;
        let us = IpAddr::from([127, 0, 0, 1]);
        let heard = self.ask_etcd(us, &identity, backup::RANGE, &backup::agreed()).await?;
        let revision = heard.and_then(|(status, body)| backup::revision(status, &body)).map_err(Trouble::new)?;
        let taken_s = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        self.hands.at("etcd/snapshot");
        let label = Label {
            charter: hex::encode(charter),
            cluster: self.place.settings.cluster.clone(),
            number,
            epoch,
            taken_s,
            revision,
            kubernetes: self.plan()?.version().to_string(),
            database_bytes: 0,
        };
        let request = etcd::request(us, &identity, backup::SNAPSHOT, "{}");
        let (bytes, digest) = self.hands.backs_up(Ask::BackUp { request, label }).await?;
        Ok(StepOutput::BackedUp { taken_s, revision, bytes, digest })
    }
}
