//! What tells this hardware apart from other hardware, as well as software can.
//!
//! Cards come and go: a USB card, a virtual function, a driver that is late. So the state file keeps a set of parts, what the
//! first boot saw, and one of them that is still here says that this is the same machine. To others a machine shows one
//! digest instead, made of what is least likely to come and go.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use muster_wire::Digest;

/// Most parts that are kept of a machine: a board and its cards, and room.
pub(crate) const PARTS_MAX: usize = 64;

/// Product UUIDs that many boards share because nobody set one (all digits alike are left out as well): SMBIOS 3.7, section
/// 7.2.1, and the value in the firmware that American Megatrends delivers.
const NO_UUIDS: [&str; 1] = ["03000200-0400-0500-0006-000700080009"];

/// This machine's hardware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// What others tell it apart by.
    pub(crate) fingerprint: Digest,
    /// What the state file keeps at the first boot. Never empty.
    pub(crate) parts: BTreeSet<Digest>,
    /// Everything here that may have been a part at an earlier boot.
    pub(crate) present: BTreeSet<Digest>,
    /// The digest that was kept before there were parts.
    pub(crate) former: Digest,
}

impl Hardware {
    /// Hardware that is told apart by one thing alone.
    pub fn of(one: Digest) -> Self {
        Self { fingerprint: one, parts: BTreeSet::from([one]), present: BTreeSet::from([one]), former: one }
    }

    /// Looks for the firmware's product UUID and the Ethernet cards below `/sys`.
    ///
    /// # Errors
    /// When there is neither. A card may still come.
    pub fn found(sys: &Path) -> Result<Self, String> {
        let uuid = fs::read_to_string(sys.join("class/dmi/id/product_uuid")).unwrap_or_default();
        let (cards, uuid) = (cards(&sys.join("class/net")), uuid.trim().to_ascii_lowercase());
        let former = former(&uuid, &cards);
        let uuid = Some(uuid.as_str()).filter(|uuid| is_uuid(uuid));
        let real: Vec<&Card> = cards.iter().filter(|card| card.device).collect();
        // In a container the UUID is the host's, and the given interface is what makes the difference.
        let given = cards.iter().filter(|_| real.is_empty()).min_by_key(|card| card.index);
        if uuid.is_none() && real.is_empty() && given.is_none() {
            return Err("this machine has neither a product UUID nor a network card to be told apart by; it is tried \
                        again"
                .to_owned());
        }
        let mut parts: BTreeSet<Digest> = match given {
            Some(given) => BTreeSet::from([together(uuid, given)]),
            None => uuid.map(board).into_iter().chain(real.iter().map(|card| alone(card))).collect(),
        };
        // Addresses that are drawn anew at each boot say nothing, and those of virtual functions little.
        let lasting = |card: &&Card| card.permanent && !card.function;
        if given.is_none() && (uuid.is_some() || real.iter().any(lasting)) {
            let passing: BTreeSet<Digest> = real.iter().filter(|card| !lasting(card)).map(|card| alone(card)).collect();
            parts = &parts - &passing;
        }
        let parts = parts.into_iter().take(PARTS_MAX).collect();
        let present = uuid.map(board).into_iter();
        let present = present.chain(cards.iter().flat_map(|card| [alone(card), together(uuid, card)])).collect();
        Ok(Self { fingerprint: fingerprint(uuid, &real, given), parts, present, former })
    }
}

/// A digest of the UUID and of the cards that are least likely to come and go: those on the board or in a slot; without any,
/// those that are plugged in; then virtual functions; else the given one.
fn fingerprint(uuid: Option<&str>, real: &[&Card], given: Option<&Card>) -> Digest {
    let grade = |card: &Card| (!card.permanent, card.function, card.usb);
    let best = real.iter().map(|card| grade(card)).min();
    let of_best = real.iter().filter(|card| Some(grade(card)) == best).copied();
    // Those whose addresses pass tell nothing beside a UUID.
    let of_best = of_best.filter(|card| uuid.is_none() || card.permanent && !card.function && !card.usb);
    let mut addresses: Vec<&str> = of_best.chain(given).map(|card| card.address.as_str()).collect();
    addresses.sort_unstable();
    let parts: Vec<&[u8]> = uuid.into_iter().chain(addresses).map(str::as_bytes).collect();
    Digest::of("muster/fingerprint/v2", &parts)
}

/// As it was before there were parts: the UUID and the real cards, else the first interface.
fn former(uuid: &str, cards: &[Card]) -> Digest {
    let real = cards.iter().filter(|card| card.device);
    let given = cards.iter().min_by_key(|card| card.index).filter(|_| real.clone().next().is_none());
    let mut addresses: Vec<&str> = real.chain(given).map(|card| card.shown.as_str()).collect();
    addresses.sort_unstable();
    let parts: Vec<&[u8]> = std::iter::once(uuid).chain(addresses).map(str::as_bytes).collect();
    Digest::of("muster/fingerprint/v1", &parts)
}

fn board(uuid: &str) -> Digest {
    Digest::of("muster/hardware/uuid", &[uuid.as_bytes()])
}

fn alone(card: &Card) -> Digest {
    Digest::of("muster/hardware/card", &[card.address.as_bytes()])
}

fn together(uuid: Option<&str>, card: &Card) -> Digest {
    Digest::of("muster/hardware/given", &[uuid.unwrap_or_default().as_bytes(), card.address.as_bytes()])
}

/// Whether a UUID was given to this board and no other.
fn is_uuid(uuid: &str) -> bool {
    let mut digits = uuid.chars().filter(|digit| *digit != '-');
    let first = digits.next();
    !digits.all(|digit| Some(digit) == first) && !NO_UUIDS.contains(&uuid)
}

struct Card {
    index: u32,
    /// The permanent address where it is told apart from the present one, else that.
    address: String,
    /// The present one.
    shown: String,
    device: bool,
    /// Whether the address is the card's own, not drawn or set by software.
    permanent: bool,
    /// Whether it is a virtual function, which somebody may make and take away.
    function: bool,
    usb: bool,
}

/// Ethernet interfaces (ARP type 1) with an address of their own. The files are those of Documentation/ABI/testing in Linux
/// 6.12: sysfs-class-net for `addr_assign_type` (0 is permanent), `device` for a real one, `physfn` in it for a virtual
/// function; sysfs-class-net in drivers/net/bonding for `perm_hwaddr`, since a bond gives all its cards one address.
fn cards(net: &Path) -> Vec<Card> {
    let read =
        |interface: &Path, file: &str| fs::read_to_string(interface.join(file)).unwrap_or_default().trim().to_owned();
    let Ok(entries) = fs::read_dir(net) else { return Vec::new() };
    let mut cards: Vec<Card> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|interface| read(interface, "type") == "1")
        .filter_map(|interface| {
            let (shown, bonded) = (read(&interface, "address"), read(&interface, "bonding_slave/perm_hwaddr"));
            let assigned = read(&interface, "addr_assign_type");
            let device = interface.join("device");
            let parent = device.canonicalize().unwrap_or_default();
            let card = Card {
                index: read(&interface, "ifindex").parse().ok()?,
                permanent: !bonded.is_empty() || matches!(assigned.as_str(), "" | "0"),
                address: if bonded.is_empty() { shown.clone() } else { bonded }.to_ascii_lowercase(),
                shown,
                device: device.exists(),
                function: device.join("physfn").exists(),
                usb: parent.components().any(|part| part.as_os_str().to_string_lossy().starts_with("usb")),
            };
            (!card.address.is_empty() && card.address != "00:00:00:00:00:00").then_some(card)
        })
        .collect();
    cards.sort_by(|one, other| one.address.cmp(&other.address));
    cards
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sys(tempfile::TempDir);

    impl Sys {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a directory"))
        }

        fn put(&self, file: &str, text: &str) {
            let path = self.0.path().join("class").join(file);
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(path, text).expect("written");
        }

        fn card(&self, name: &str, index: u32, address: &str, device: bool) {
            for (file, text) in [("type", "1"), ("address", address), ("ifindex", &index.to_string())] {
                self.put(&format!("net/{name}/{file}"), text);
            }
            if device {
                self.put(&format!("net/{name}/device/vendor"), "0x1");
            }
        }

        fn uuid(&self, uuid: &str) {
            self.put("dmi/id/product_uuid", &format!("{uuid}\n"));
        }

        fn found(&self) -> Hardware {
            Hardware::found(self.0.path()).expect("something is here")
        }

        fn gone(&self, name: &str) {
            fs::remove_dir_all(self.0.path().join("class/net").join(name)).expect("removed");
        }
    }

    /// Whether a state of `first` is this machine's own.
    fn same(first: &Hardware, now: &Hardware) -> bool {
        !first.parts.is_disjoint(&now.present)
    }

    const UUID: &str = "4c4c4544-0042-3610-8052-b4c04f4d3132";

    #[test]
    fn cards_that_come_and_go_change_nothing() {
        let sys = Sys::new();
        sys.card("eth0", 2, "02:00:00:00:00:01", true);
        let first = sys.found();
        sys.card("eusb0", 3, "02:00:00:00:00:77", true);
        sys.put("net/eth0v0/device/physfn/vendor", "0x1");
        sys.card("eth0v0", 4, "02:00:00:00:00:78", true);
        sys.card("docker0", 5, "02:42:00:00:00:01", false);
        let more = sys.found();
        assert!(same(&first, &more));
        assert!(!more.parts.contains(&alone_of("02:00:00:00:00:78")), "a virtual function is no part");
        sys.gone("eth0v0");
        sys.gone("eth0");
        assert!(same(&more, &sys.found()), "one card of two is left");
        assert!(!same(&first, &sys.found()), "and it is none that the first boot saw");
        sys.gone("eusb0");
        sys.card("eth0", 2, "02:00:00:00:00:99", true);
        assert!(!same(&more, &sys.found()));
    }

    fn alone_of(address: &str) -> Digest {
        Digest::of("muster/hardware/card", &[address.as_bytes()])
    }

    #[test]
    fn a_board_without_its_cards_is_still_the_board() {
        let sys = Sys::new();
        assert!(Hardware::found(sys.0.path()).is_err());
        sys.uuid(UUID);
        let bare = sys.found();
        sys.card("eth0", 2, "02:00:00:00:00:01", true);
        let first = sys.found();
        assert!(same(&bare, &first));
        sys.gone("eth0");
        assert!(same(&first, &sys.found()));
        // Another board, and the card from the old one.
        sys.uuid(&UUID.to_uppercase().replace('4', "5"));
        assert!(!same(&first, &sys.found()));
        sys.card("eth5", 2, "02:00:00:00:00:01", true);
        assert!(same(&first, &sys.found()));
    }

    #[test]
    fn what_nobody_gave_to_this_board_is_no_part() {
        for uuid in ["00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", NO_UUIDS[0]] {
            let sys = Sys::new();
            sys.uuid(uuid);
            assert!(Hardware::found(sys.0.path()).is_err(), "{uuid}");
        }
        // An address that is drawn at each boot, beside one that is not.
        let sys = Sys::new();
        sys.card("eth0", 2, "02:00:00:00:00:01", true);
        let before = sys.found();
        sys.card("wlan0", 3, "02:00:00:00:00:02", true);
        sys.put("net/wlan0/addr_assign_type", "1");
        assert_eq!(sys.found().parts, before.parts);
        assert_eq!(sys.found().fingerprint, before.fingerprint);
    }

    #[test]
    fn in_a_container_the_given_interface_counts() {
        let (one, other) = (Sys::new(), Sys::new());
        for (sys, address) in [(&one, "0a:00:00:00:00:01"), (&other, "0a:00:00:00:00:02")] {
            sys.uuid(UUID);
            sys.card("host0", 2, address, false);
        }
        let first = one.found();
        assert!(!same(&first, &other.found()), "the host's UUID is the same in both");
        assert_ne!(first.fingerprint, other.found().fingerprint);
        one.card("cni0", 7, "0a:00:00:00:00:09", false);
        assert!(same(&first, &one.found()));
        assert_eq!(one.found().fingerprint, first.fingerprint);
        one.card("enp1s0", 3, "02:00:00:00:00:02", true);
        assert!(same(&first, &one.found()), "a real card came later");
    }

    #[test]
    fn others_see_the_same_hardware_while_usb_cards_and_functions_come_and_go() {
        let sys = Sys::new();
        sys.card("eth0", 2, "02:00:00:00:00:01", true);
        let first = sys.found().fingerprint;
        sys.card("eth0v0", 4, "02:00:00:00:00:78", true);
        sys.put("net/eth0v0/device/physfn/vendor", "0x1");
        assert_eq!(sys.found().fingerprint, first);
        sys.put("devices/usb1/1-1/vendor", "0x1");
        sys.card("eusb0", 3, "02:00:00:00:00:77", false);
        let usb = sys.0.path().join("class/devices/usb1/1-1");
        std::os::unix::fs::symlink(usb, sys.0.path().join("class/net/eusb0/device")).expect("links");
        assert_eq!(sys.found().fingerprint, first);
        // All cards of a bond show one address.
        sys.put("net/eth0/bonding_slave/perm_hwaddr", "02:00:00:00:00:01");
        sys.put("net/eth0/address", "02:00:00:00:00:42");
        assert_eq!(sys.found().fingerprint, first);
    }
}
