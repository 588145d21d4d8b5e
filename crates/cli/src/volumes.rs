//! `muster config volumes`: reads the muster.toml of a volume that somebody put into this machine.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use muster_image::install::is_removable;
use muster_image::slots::own_disk;
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

/// Type of an EFI system partition: a disk that a machine starts from has one.
const ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";

/// A volume with the label.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Volume {
    device: PathBuf,
    file_system: String,
    whose: Whose,
}

/// Which volume comes before which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    /// The EFI system partition of a disk from which this machine does not run: another machine's, or an earlier one's.
    Another,
    /// That of the disk from which it runs.
    Own,
    /// Somebody brought it.
    Brought,
}

/// Its volume and what that says, or why there is none that could be meant.
type Chosen = Result<Option<(Volume, Zeroizing<String>)>, String>;

/// Reads volumes, and puts what one says where the agent reads it. With `restart` an agent that runs with something else is started anew.
/// What a machine was started with is not taken from it by what is done to its sticks later, unless that says something else.
///
/// # Errors
/// When it cannot be put there.
pub(crate) fn read(restart: bool, json: bool) -> anyhow::Result<Exit> {
    if !rustix::process::geteuid().is_root() {
        bail!("volumes can be looked into by root alone");
    }
    let (place, wrong) = (Path::new(config::VOLUME), Path::new(config::WRONG));
    let directory = place.parent().context("a place has a directory")?;
    // It is there from the first look of this start on.
    let is_first = fs::DirBuilder::new().mode(0o700).create(directory).is_ok();
    let before = fs::read(place).ok().map(Zeroizing::new);
    let mut found = Vec::new();
    for volume in volumes()? {
        if let Some(text) = text(&volume, &directory.join("volume")) {
            found.push((volume, text));
        }
    }
    let chosen = choose(found).and_then(right);
    let mut changed = false;
    match &chosen {
        Ok(Some((_, text))) => {
            changed = before.as_ref().is_none_or(|before| before.as_slice() != text.as_bytes());
            write(place, text)?;
        }
        Ok(None) => {}
        // An agent that runs is not stopped by a stick that nobody can read.
        Err(why) if is_first => write(wrong, why)?,
        Err(_) => {}
    }
    if chosen.is_ok() && fs::remove_file(wrong).is_ok() {
        changed = true;
    }
    tell(&chosen, changed, json)?;
    if changed && restart {
        let mut systemctl = Command::new("systemctl");
        systemctl.args(["--no-block", "try-restart", "muster.service"]).stdin(Stdio::null());
        if !systemctl.status().context("systemctl cannot be started")?.success() {
            bail!("muster.service cannot be started anew");
        }
    }
    Ok(if chosen.is_err() { Exit::Wrong } else { Exit::Done })
}

fn tell(chosen: &Chosen, changed: bool, json: bool) -> anyhow::Result<()> {
    if json {
        let device = chosen.as_ref().ok().and_then(Option::as_ref).map(|(volume, _)| &volume.device);
        print::line(&json!({ "volume": device, "why": chosen.as_ref().err(), "changed": changed }).to_string())?;
        return Ok(());
    }
    match chosen {
        Ok(Some((volume, _))) => _ = print::line(&format!("{FILE} of {} is this machine's", volume.device.display()))?,
        Ok(None) => _ = print::line(&format!("no volume labelled {LABEL} has a {FILE}"))?,
        Err(why) => print::complaint(why),
    }
    Ok(())
}

/// What is wrong takes nothing's place.
fn right(chosen: Option<(Volume, Zeroizing<String>)>) -> Chosen {
    let Some((volume, text)) = chosen else { return Ok(None) };
    match config::wrong_beside(Ok(text.clone())).first() {
        None => Ok(Some((volume, text))),
        Some(wrong) => {
            let line = wrong.line.map(|line| format!(", line {line}")).unwrap_or_default();
            Err(format!("{FILE} of {}{line}: {}", volume.device.display(), wrong.text))
        }
    }
}

/// One that was brought comes before the EFI system partition of the disk that runs, and others' count for nothing. Of two nobody knows
/// which is meant, unless they say the same.
fn choose(found: Vec<(Volume, Result<Zeroizing<String>, String>)>) -> Chosen {
    let best = found.iter().map(|(volume, _)| volume.whose).max().filter(|whose| *whose != Whose::Another);
    let mut candidates: Vec<_> = found.into_iter().filter(|(volume, _)| Some(volume.whose) == best).collect();
    candidates.dedup_by(|one, other| one.1.is_ok() && one.1 == other.1);
    if candidates.len() > 1 {
        let devices: Vec<String> = candidates.iter().map(|(volume, _)| volume.device.display().to_string()).collect();
        return Err(format!(
            "{} each have the label {LABEL} and another {FILE}: take all but one away",
            devices.join(" and ")
        ));
    }
    match candidates.pop() {
        None => Ok(None),
        Some((volume, Ok(text))) => Ok(Some((volume, text))),
        Some((volume, Err(why))) => Err(format!("{FILE} of {} {why}", volume.device.display())),
    }
}

/// The volumes with the label, of all that this machine has just now: blkid(8) looks itself, where udev may not have come to them.
fn volumes() -> anyhow::Result<Vec<Volume>> {
    let labelled = blkid(&["-c", "/dev/null", "-o", "export"])?;
    let labelled = labelled.split("\n\n").filter_map(|text| property(text, "LABEL").zip(property(text, "DEVNAME")));
    let devices: Vec<&str> =
        labelled.filter(|(label, _)| label.eq_ignore_ascii_case(LABEL)).map(|(_, device)| device).collect();
    let mut volumes = Vec::new();
    let own = own_disk();
    for device in devices {
        volumes.extend(volume(&blkid(&["-p", "-o", "export", device])?, own.as_deref()));
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
fn volume(text: &str, own: Option<&Path>) -> Option<Volume> {
    let file_system = property(text, "TYPE")?;
    FILE_SYSTEMS.contains(&file_system).then_some(())?;
    let device = PathBuf::from(property(text, "DEVNAME")?);
    let about = Path::new("/sys/class/block").join(device.file_name()?);
    let is_esp = property(text, "PART_ENTRY_TYPE").is_some_and(|kind| kind.eq_ignore_ascii_case(ESP));
    let whose = match is_esp {
        _ if own.is_some_and(|own| is_part_of(&device, own)) => Whose::Own,
        true if !is_removable(&about) => Whose::Another,
        _ => Whose::Brought,
    };
    Some(Volume { file_system: file_system.to_owned(), whose, device })
}

/// Whether a device is a partition of a disk: sda1 of sda, nvme0n1p1 of nvme0n1.
fn is_part_of(device: &Path, disk: &Path) -> bool {
    let (device, disk) = (device.to_string_lossy(), disk.to_string_lossy());
    let rest = device.strip_prefix(&*disk).map(|rest| rest.strip_prefix('p').unwrap_or(rest));
    rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What a volume's file says; none if it has none.
fn text(volume: &Volume, at: &Path) -> Option<Result<Zeroizing<String>, String>> {
    let mounted = (|| {
        fs::create_dir_all(at)?;
        let flags = MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOSUID;
        let mount = |flags| rustix::mount::mount(&volume.device, at, volume.file_system.as_str(), flags, None);
        // What somebody else has mounted to write is the same file system, and not read-only.
        mount(flags | MountFlags::RDONLY).or_else(|error| match error {
            rustix::io::Errno::BUSY => mount(flags),
            error => Err(error),
        })?;
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
        let text = format!("DEVNAME={device}\nLABEL=MUSTER\nTYPE=vfat\nPART_ENTRY_TYPE={kind}\n");
        volume(&text, Some(Path::new("/dev/vda"))).expect("a volume")
    }

    #[test]
    fn what_blkid_says_of_a_volume_is_read() {
        assert_eq!(of("/dev/sda1", "0xc").whose, Whose::Brought);
        assert_eq!(of("/dev/vda1", ESP).whose, Whose::Own);
        assert_eq!(of("/dev/vdb1", ESP).whose, Whose::Another);
        for other in ["", "=\nTYPE\n", "DEVNAME=/dev/sda1\nTYPE=crypto_LUKS\n", "TYPE=vfat\n"] {
            assert_eq!(volume(other, None), None, "{other}");
        }
        assert_eq!(property("LABEL_FATBOOT=x\nLABEL=MUSTER\n", "LABEL"), Some("MUSTER"));
        let part = |device: &str, disk: &str| is_part_of(Path::new(device), Path::new(disk));
        assert!(part("/dev/sda12", "/dev/sda") && part("/dev/nvme0n1p1", "/dev/nvme0n1"));
        assert!(
            !part("/dev/sdaa1", "/dev/sda") && !part("/dev/sda", "/dev/sda") && !part("/dev/nvme0n10", "/dev/nvme0n1p")
        );
    }

    #[test]
    fn what_was_brought_comes_before_the_disks_own_and_of_two_none_is_taken() {
        let text = |text: &str| Ok(Zeroizing::new(text.to_owned()));
        let (own, stick, other) = (of("/dev/vda1", ESP), of("/dev/sda1", "0xc"), of("/dev/sdb1", "0xc"));
        let another = of("/dev/vdb1", ESP);
        let says = |found| choose(found).map(|chosen| chosen.map(|(volume, text)| (volume, text.to_string())));
        let so = |volume: &Volume, text: &str| Ok(Some((volume.clone(), text.to_owned())));
        assert_eq!(says(Vec::new()), Ok(None));
        assert_eq!(says(vec![(another.clone(), text("another"))]), Ok(None));
        assert_eq!(says(vec![(own.clone(), text("own")), (another, text("another"))]), so(&own, "own"));
        assert_eq!(says(vec![(own, text("own")), (stick.clone(), text("stick"))]), so(&stick, "stick"));
        assert_eq!(says(vec![(stick.clone(), text("one")), (other.clone(), text("one"))]), so(&stick, "one"));
        let why = says(vec![(stick.clone(), text("stick")), (other, text("other"))]).expect_err("two");
        assert!(why.starts_with("/dev/sda1 and /dev/sdb1 each have"), "{why}");
        assert!(says(vec![(stick, Err("is not UTF-8".to_owned()))]).is_err());
    }
}
