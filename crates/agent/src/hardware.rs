//! What tells this hardware apart from other hardware, as well as software can.

use std::fs;
use std::path::Path;

use muster_wire::Digest;

/// A digest of the firmware's product UUID and of the addresses of the network cards that are real devices; without any,
/// of the first network interface that is not loopback, which in a container or virtual machine is the given one.
///
/// # Errors
/// When the machine has none of these.
pub fn fingerprint(sys: &Path) -> Result<Digest, String> {
    let uuid = fs::read_to_string(sys.join("class/dmi/id/product_uuid")).unwrap_or_default();
    let mut cards = cards(&sys.join("class/net"));
    let real: Vec<String> = cards.iter().filter(|card| card.device).map(|card| card.address.clone()).collect();
    cards.sort_by_key(|card| card.index);
    let mut addresses =
        if real.is_empty() { cards.into_iter().take(1).map(|card| card.address).collect() } else { real };
    addresses.sort_unstable();
    if uuid.trim().is_empty() && addresses.is_empty() {
        return Err("this machine has neither a product UUID nor a network card to be told apart by".to_owned());
    }
    let mut parts = vec![uuid.trim().as_bytes()];
    parts.extend(addresses.iter().map(String::as_bytes));
    Ok(Digest::of("muster/fingerprint/v1", &parts))
}

struct Card {
    index: u32,
    address: String,
    device: bool,
}

/// Ethernet interfaces (ARP type 1) with an address of their own.
fn cards(net: &Path) -> Vec<Card> {
    let read =
        |interface: &Path, file: &str| fs::read_to_string(interface.join(file)).unwrap_or_default().trim().to_owned();
    let Ok(entries) = fs::read_dir(net) else { return Vec::new() };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|interface| read(interface, "type") == "1")
        .filter_map(|interface| {
            let address = read(&interface, "address");
            let index = read(&interface, "ifindex").parse().ok()?;
            let card = Card { index, device: interface.join("device").exists(), address };
            (!card.address.is_empty() && card.address != "00:00:00:00:00:00").then_some(card)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(sys: &Path, name: &str, index: u32, address: &str, device: bool) {
        let interface = sys.join("class/net").join(name);
        fs::create_dir_all(&interface).expect("made");
        for (file, text) in [("type", "1"), ("address", address), ("ifindex", &index.to_string())] {
            fs::write(interface.join(file), text).expect("written");
        }
        if device {
            fs::create_dir_all(interface.join("device")).expect("made");
        }
    }

    #[test]
    fn interfaces_made_while_running_change_nothing() {
        let sys = tempfile::tempdir().expect("a directory");
        assert!(fingerprint(sys.path()).is_err());
        card(sys.path(), "eth0", 2, "02:00:00:00:00:01", false);
        let alone = fingerprint(sys.path()).expect("a card");
        card(sys.path(), "cni0", 7, "0a:00:00:00:00:09", false);
        assert_eq!(fingerprint(sys.path()), Ok(alone));
        card(sys.path(), "enp1s0", 3, "02:00:00:00:00:02", true);
        let real = fingerprint(sys.path()).expect("a real card");
        assert_ne!(real, alone);
        card(sys.path(), "veth1", 1, "0a:00:00:00:00:0a", false);
        assert_eq!(fingerprint(sys.path()), Ok(real));
    }
}
