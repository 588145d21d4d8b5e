//! An Ethernet for virtual machines that needs no card, no rights and no port: a switch, as it stands in any rack.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Longest frame in bytes: QEMU hands on what its card takes apart in one piece.
const FRAME_BYTES_MAX: usize = 1 << 16;

/// Most cards that are known: whoever makes addresses up fills no memory.
const KNOWN_MAX: usize = 1024;

/// How long a cable may be deaf to the end.
const LOOK: Duration = Duration::from_millis(200);

/// The address of a card (IEEE 802.3).
type Card = [u8; 6];

/// A switch, until it is dropped.
#[derive(Debug)]
pub(crate) struct Ethernet {
    sockets: tempfile::TempDir,
    ended: Arc<AtomicBool>,
    cables: Vec<JoinHandle<()>>,
}

/// Behind which socket each card is.
#[derive(Debug, Default)]
struct Known(Mutex<BTreeMap<Card, u32>>);

impl Ethernet {
    /// One with so many sockets, numbered from 0 on.
    pub(crate) fn begin(count: u32) -> Result<Self> {
        // Paths of sockets have 107 bytes at most, which a directory of somebody's choice may have by itself.
        let sockets = tempfile::Builder::new().prefix("muster-").tempdir_in("/tmp").context("no place for sockets")?;
        let (ended, known) = (Arc::new(AtomicBool::new(false)), Arc::new(Known::default()));
        let mut ethernet = Self { sockets, ended, cables: Vec::new() };
        for number in 0..count {
            let (_, switch) = ethernet.ends(number);
            let socket = UnixDatagram::bind(&switch).with_context(|| format!("{} cannot be made", switch.display()))?;
            socket.set_read_timeout(Some(LOOK)).context("a socket")?;
            let others =
                (0..count).filter(|other| *other != number).map(|other| (other, ethernet.ends(other).0)).collect();
            let (known, ended) = (known.clone(), ethernet.ended.clone());
            ethernet.cables.push(thread::spawn(move || carry(number, &socket, &others, &known, &ended)));
        }
        Ok(ethernet)
    }

    /// The ends of a cable: its machine's, and the switch's.
    pub(crate) fn ends(&self, number: u32) -> (PathBuf, PathBuf) {
        let at = |name: &str| -> PathBuf { Path::join(self.sockets.path(), format!("{name}{number}")) };
        (at("machine"), at("switch"))
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

impl Known {
    /// Notes where a frame came from; says where it is to go, if that is known of it.
    fn way(&self, frame: &[u8], from: u32) -> Option<u32> {
        let card = |at: usize| frame.get(at..at + 6).and_then(|bytes| Card::try_from(bytes).ok());
        let (to, source) = (card(0)?, card(6)?);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The lowest bit of the first byte says that it is for many.
        if source[0] & 1 == 0 && (known.len() < KNOWN_MAX || known.contains_key(&source)) {
            known.insert(source, from);
        }
        known.get(&to).copied().filter(|_| to[0] & 1 == 0)
    }
}

/// Hands on what comes by one cable.
fn carry(from: u32, cable: &UnixDatagram, others: &BTreeMap<u32, PathBuf>, known: &Known, ended: &AtomicBool) {
    let Ok(out) = UnixDatagram::unbound() else { return };
    // Whoever does not read in time loses frames, as on any cable.
    let _ = out.set_nonblocking(true);
    let mut frame = vec![0; FRAME_BYTES_MAX];
    while !ended.load(Ordering::Relaxed) {
        let Ok(length) = cable.recv(&mut frame) else { continue };
        let frame = &frame[..length];
        match known.way(frame, from) {
            Some(way) => _ = others.get(&way).map(|other| out.send_to(frame, other)),
            None => others.values().for_each(|other| _ = out.send_to(frame, other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(to: u8, from: u8) -> Vec<u8> {
        let card = |number: u8| if number == 255 { [255; 6] } else { [0x52, 0, 0, 0, 0, number] };
        [card(to).as_slice(), &card(from), b"\x08\x00"].concat()
    }

    #[test]
    fn a_frame_goes_where_its_card_is_and_else_to_all_others_and_never_back() {
        let known = Known::default();
        assert_eq!(known.way(&frame(255, 1), 1), None, "for all");
        assert_eq!(known.way(&frame(2, 1), 1), None, "nobody has heard of it");
        assert_eq!(known.way(&frame(1, 2), 2), Some(1));
        assert_eq!(known.way(&frame(2, 1), 1), Some(2));
        assert_eq!(known.way(&frame(1, 2)[..10], 2), None, "cut short");
        assert_eq!(known.way(&frame(2, 255), 3), Some(2));
        assert_eq!(known.way(&frame(255, 2), 2), None, "no card has that address");
    }

    #[test]
    fn three_machines_hear_each_other() {
        let ethernet = Ethernet::begin(3).expect("a switch");
        let machine = |number| {
            let (own, switch) = ethernet.ends(number);
            let socket = UnixDatagram::bind(own).expect("bound");
            socket.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
            (socket, switch)
        };
        let machines = [machine(0), machine(1), machine(2)];
        let send = |machine: usize, frame: &[u8]| {
            machines[machine].0.send_to(frame, &machines[machine].1).expect("sent");
        };
        let heard = |machine: usize| {
            let mut frame = [0; 64];
            let length = machines[machine].0.recv(&mut frame).expect("a frame");
            frame[..length].to_vec()
        };
        send(0, &frame(255, 1));
        assert_eq!((heard(1), heard(2)), (frame(255, 1), frame(255, 1)));
        send(2, &frame(1, 3));
        assert_eq!(heard(0), frame(1, 3));
        for (machine, _) in &machines {
            machine.set_nonblocking(true).expect("set");
            assert!(machine.recv(&mut [0; 64]).is_err(), "that was all");
        }
    }
}
