//! `muster config volumes`: reads the muster.toml of a volume that somebody put into this machine.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::json;
use zeroize::Zeroizing;

use crate::config;
use crate::exit::Exit;
use crate::print;

/// How a volume is labelled, in capitals or not.
const LABEL: &str = "MUSTER";

/// Its file.
const FILE: &str = "muster.toml";

/// File systems that are read.
const FILE_SYSTEMS: [&str; 4] = ["vfat", "ext4", "exfat", "iso9660"];

/// Type of an EFI system partition: a disk that this machine starts from has one.
const ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";

/// A volume with the label.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Volume {
    device: PathBuf,
    file_system: String,
    is_of_a_boot_disk: bool,
}

/// Reads volumes, and puts what one says where the agent reads it. With `restart` an agent that runs with something else is started anew.
///
/// # Errors
/// When it cannot be put there.
pub(crate) fn read(restart: bool, json: bool) -> anyhow::Result<Exit> {
    let place = Path::new(config::VOLUME);
    let directory = place.parent().context("a place has a directory")?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).context("/run cannot be written")?;
    let before = fs::read(place).ok().map(Zeroizing::new);
    let mut found = Vec::new();
    for volume in volumes()? {
        if let Some(text) = text(&volume, &directory.join("volume")) {
            found.push((volume, text));
        }
    }
    let (told, text) = choose(found);
    match &text {
        Some(text) => write(place, text)?,
        None => match fs::remove_file(place) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        },
    }
    let changed = before.as_ref().map(|text| text.as_slice()) != text.as_ref().map(|text| text.as_bytes());
    tell(&told, changed, json)?;
    if changed && restart {
        let mut systemctl = Command::new("systemctl");
        systemctl.args(["--no-block", "try-restart", "muster.service"]).stdin(Stdio::null());
        if !systemctl.status().context("systemctl cannot be started")?.success() {
            bail!("muster.service cannot be started anew");
        }
    }
    Ok(if told.is_err() { Exit::Wrong } else { Exit::Done })
}

fn tell(told: &Result<Option<Volume>, String>, changed: bool, json: bool) -> anyhow::Result<()> {
    if json {
        let device = told.as_ref().ok().and_then(Option::as_ref).map(|volume| &volume.device);
        print::line(&json!({ "volume": device, "why": told.as_ref().err(), "changed": changed }).to_string())?;
        return Ok(());
    }
    match told {
        Ok(Some(volume)) => _ = print::line(&format!("{FILE} of {} is this machine's", volume.device.display()))?,
        Ok(None) => _ = print::line(&format!("no volume labelled {LABEL} has a {FILE}"))?,
        Err(why) => print::complaint(why),
    }
    Ok(())
}

/// One that was brought comes before the boot disk's. Of two nobody knows which is meant: then it is said in place of either, and the
/// agent does not start with a guess.
fn choose(
    found: Vec<(Volume, Result<Zeroizing<String>, String>)>,
) -> (Result<Option<Volume>, String>, Option<Zeroizing<String>>) {
    let (own, brought): (Vec<_>, Vec<_>) = found.into_iter().partition(|(volume, _)| volume.is_of_a_boot_disk);
    let mut candidates = if brought.is_empty() { own } else { brought };
    let wrong = |why: String| {
        // What is no TOML is refused with its place, and this is read there.
        let text = Zeroizing::new(format!("{why}\n"));
        (Err(why), Some(text))
    };
    match candidates.len() {
        0 => (Ok(None), None),
        1 => match candidates.remove(0) {
            (volume, Ok(text)) => (Ok(Some(volume)), Some(text)),
            (volume, Err(why)) => wrong(format!("{FILE} of {} {why}", volume.device.display())),
        },
        _ => {
            let devices: Vec<String> =
                candidates.iter().map(|(volume, _)| volume.device.display().to_string()).collect();
            wrong(format!("{} each have a {FILE} and the label {LABEL}: take all but one away", devices.join(" and ")))
        }
    }
}

/// The volumes with the label, of all that this machine has just now: blkid(8) looks itself, where udev may not have come to them.
fn volumes() -> anyhow::Result<Vec<Volume>> {
    let labelled = blkid(&["-c", "/dev/null", "-o", "export"])?;
    let labelled = labelled.split("\n\n").filter_map(|text| property(text, "LABEL").zip(property(text, "DEVNAME")));
    let devices: Vec<&str> =
        labelled.filter(|(label, _)| label.eq_ignore_ascii_case(LABEL)).map(|(_, device)| device).collect();
    let mut volumes = Vec::new();
    for device in devices {
        volumes.extend(volume(&blkid(&["-p", "-o", "export", device])?));
    }
    volumes.sort_by(|one: &Volume, other| one.device.cmp(&other.device));
    Ok(volumes)
}

/// What blkid says; nothing where there is nothing (its exit code 2).
fn blkid(arguments: &[&str]) -> anyhow::Result<String> {
    let said = Command::new("/usr/sbin/blkid").args(arguments).stdin(Stdio::null()).output();
    let said = said.context("blkid cannot be started (Debian's package util-linux)")?;
    match said.status.code() {
        Some(0 | 2) => Ok(String::from_utf8_lossy(&said.stdout).into_owned()),
        _ => bail!("blkid failed: {}", String::from_utf8_lossy(&said.stderr).trim()),
    }
}

/// A line `NAME=VALUE`.
fn property<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

/// What blkid found on a device.
fn volume(text: &str) -> Option<Volume> {
    let file_system = property(text, "TYPE")?;
    FILE_SYSTEMS.contains(&file_system).then_some(())?;
    Some(Volume {
        device: PathBuf::from(property(text, "DEVNAME")?),
        file_system: file_system.to_owned(),
        is_of_a_boot_disk: property(text, "PART_ENTRY_TYPE").is_some_and(|kind| kind.eq_ignore_ascii_case(ESP)),
    })
}

/// What a volume's file says; none if it has none.
fn text(volume: &Volume, at: &Path) -> Option<Result<Zeroizing<String>, String>> {
    let mounted = (|| {
        fs::create_dir_all(at)?;
        let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOSUID;
        rustix::mount::mount(&volume.device, at, volume.file_system.as_str(), flags, None)?;
        std::io::Result::Ok(())
    })();
    if let Err(error) = mounted {
        return Some(Err(format!("cannot be looked at: {error}")));
    }
    // A link would lead into this machine.
    let no_links = i32::from_ne_bytes(rustix::fs::OFlags::NOFOLLOW.bits().to_ne_bytes());
    let text = match fs::File::options().read(true).custom_flags(no_links).open(at.join(FILE)) {
        Ok(file) => Some(config::read_text(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(format!("cannot be read: {error}"))),
    };
    if let Err(error) = rustix::mount::unmount(at, UnmountFlags::DETACH) {
        print::complaint(&format!("{} cannot be unmounted: {error}", volume.device.display()));
    }
    text
}

/// The mesh key may be in it.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let part = path.with_extension("part");
    let _ = fs::remove_file(&part);
    let written = fs::File::options().write(true).create_new(true).mode(0o600).open(&part);
    written.and_then(|mut file| file.write_all(text.as_bytes())).context("/run cannot be written")?;
    fs::rename(part, path).context("/run cannot be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(device: &str, kind: &str) -> Volume {
        volume(&format!("DEVNAME={device}\nLABEL=MUSTER\nTYPE=vfat\nPART_ENTRY_TYPE={kind}\n")).expect("a volume")
    }

    #[test]
    fn what_blkid_says_of_a_volume_is_read() {
        let stick = of("/dev/sda1", "0xc");
        assert_eq!((stick.file_system.as_str(), stick.is_of_a_boot_disk), ("vfat", false));
        assert!(of("/dev/vda1", ESP).is_of_a_boot_disk);
        for other in ["", "=\nTYPE\n", "DEVNAME=/dev/sda1\nTYPE=crypto_LUKS\n", "TYPE=vfat\n"] {
            assert_eq!(volume(other), None, "{other}");
        }
        assert_eq!(property("LABEL_FATBOOT=x\nLABEL=MUSTER\n", "LABEL"), Some("MUSTER"));
    }

    #[test]
    fn what_was_brought_comes_before_the_boot_disks_and_of_two_none_is_taken() {
        let text = |text: &str| Ok(Zeroizing::new(text.to_owned()));
        let (own, stick, other) = (of("/dev/vda1", ESP), of("/dev/sda1", "0xc"), of("/dev/sdb1", "0xc"));
        assert_eq!(choose(Vec::new()), (Ok(None), None));
        let (whose, says) = choose(vec![(own.clone(), text("own")), (stick.clone(), text("stick"))]);
        assert_eq!((whose, says.expect("a text").as_str()), (Ok(Some(stick.clone())), "stick"));
        assert_eq!(choose(vec![(own.clone(), text("own"))]).0, Ok(Some(own)));
        let (why, says) = choose(vec![(stick.clone(), text("stick")), (other, text("other"))]);
        let why = why.expect_err("two");
        assert!(why.starts_with("/dev/sda1 and /dev/sdb1 each have"), "{why}");
        // The agent reads it, and refuses it by its place.
        assert_eq!(says.expect("a text").trim(), why);
        assert!(choose(vec![(stick, Err("is not UTF-8".to_owned()))]).0.is_err());
    }
}
