//! An Ethernet for virtual machines that needs no card, no rights and no port: each frame goes to all others, and never back.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Longest frame in bytes: QEMU hands on what its card takes apart in one piece.
const FRAME_BYTES_MAX: usize = 1 << 16;

/// How long a cable may be deaf to the end.
const LOOK: Duration = Duration::from_millis(200);

/// A hub, until it is dropped.
#[derive(Debug)]
pub(crate) struct Ethernet {
    sockets: tempfile::TempDir,
    ended: Arc<AtomicBool>,
    cables: Vec<JoinHandle<()>>,
}

impl Ethernet {
    /// One for machines numbered from 1 on.
    pub(crate) fn begin(machines: u32) -> Result<Self> {
        // Paths of sockets have 107 bytes at most, which a directory of somebody's choice may have by itself.
        let sockets = tempfile::Builder::new().prefix("muster-").tempdir_in("/tmp").context("no place for sockets")?;
        let ended = Arc::new(AtomicBool::new(false));
        let mut ethernet = Self { sockets, ended, cables: Vec::new() };
        for machine in 1..=machines {
            let (_, hub) = ethernet.ends(machine);
            let hub = UnixDatagram::bind(&hub).with_context(|| format!("{} cannot be made", hub.display()))?;
            hub.set_read_timeout(Some(LOOK)).context("a socket")?;
            let others = (1..=machines).filter(|other| *other != machine).map(|other| ethernet.ends(other).0).collect();
            let ended = ethernet.ended.clone();
            ethernet.cables.push(thread::spawn(move || carry(&hub, others, &ended)));
        }
        Ok(ethernet)
    }

    /// The ends of a machine's cable: its own, and the hub's.
    pub(crate) fn ends(&self, machine: u32) -> (PathBuf, PathBuf) {
        let at = |name: &str| -> PathBuf { Path::join(self.sockets.path(), format!("{name}{machine}")) };
        (at("m"), at("hub"))
    }
}

impl Drop for Ethernet {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for cable in self.cables.drain(..) {
            let _ = cable.join();
        }
    }
}

/// Hands on what comes from one machine.
fn carry(hub: &UnixDatagram, others: Vec<PathBuf>, ended: &AtomicBool) {
    let Ok(out) = UnixDatagram::unbound() else { return };
    // Whoever does not read in time loses frames, as on any cable.
    let _ = out.set_nonblocking(true);
    let mut frame = vec![0; FRAME_BYTES_MAX];
    while !ended.load(Ordering::Relaxed) {
        if let Ok(length) = hub.recv(&mut frame) {
            for other in &others {
                let _ = out.send_to(&frame[..length], other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_to_all_others_and_never_back() {
        let ethernet = Ethernet::begin(3).expect("a hub");
        let machine = |number| {
            let (own, hub) = ethernet.ends(number);
            let socket = UnixDatagram::bind(own).expect("bound");
            socket.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
            (socket, hub)
        };
        let machines = [machine(1), machine(2), machine(3)];
        let send =
            |machine: usize, frame: &[u8]| machines[machine].0.send_to(frame, &machines[machine].1).expect("sent");
        send(0, b"one");
        send(2, b"three");
        let heard = |machine: usize| {
            let mut frame = [0; 16];
            let length = machines[machine].0.recv(&mut frame).expect("a frame");
            frame[..length].to_vec()
        };
        let mut second = [heard(1), heard(1)];
        second.sort_unstable();
        assert_eq!(second, [b"one".to_vec(), b"three".to_vec()]);
        // Each heard the other's and, since that was all, none of its own.
        assert_eq!((heard(0), heard(2)), (b"three".to_vec(), b"one".to_vec()));
        for (machine, _) in &machines {
            machine.set_nonblocking(true).expect("set");
            assert!(machine.recv(&mut [0; 16]).is_err());
        }
    }
}
