//! Booting a disk image in virtual machines on one Ethernet of their own: how three bare machines become a cluster.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;

use crate::ethernet::Ethernet;
use crate::host;
use crate::read;

/// OVMF's places in Debian, Fedora and Arch.
const FIRMWARE: [&str; 3] =
    ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/x64/OVMF_CODE.4m.fd"];

/// The machines' network, and the first address that is given away: QEMU gives sixteen (`NB_BOOTP_CLIENTS` of libslirp).
const ADDRESSES: &str = "net=10.77.0.0/24,dhcpstart=10.77.0.11";
/// Most machines at once, therefore.
pub const MACHINES_MAX: u32 = 16;

/// How long a kernel may take to find that it has no root file system, where the processor runs it itself.
const TRIAL: Duration = Duration::from_secs(10);

/// What is booted.
#[derive(Debug, Clone)]
pub struct Site {
    /// What they start from. It is not written to.
    pub from: Start,
    /// More disks that each of them has, read-only.
    pub drives: Vec<PathBuf>,
    /// A muster.toml that each is given by its firmware, as systemd's credential of that name.
    pub settings: Option<PathBuf>,
    /// How many machines.
    pub machines: u32,
    /// Memory of each, in MiB.
    pub memory_mib: u32,
    /// Processors of each. Two that are emulated on two busy ones stall each other.
    pub processors: u32,
    /// Length of each machine's disk, in bytes.
    pub disk_bytes: u64,
    /// Where their disks and consoles' logs are.
    pub directory: PathBuf,
}

/// What a machine starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// A disk image, of which each has a copy.
    Disk(PathBuf),
    /// A medium to install from, in a drive of compact discs. The disk is empty at first, and comes before it.
    Medium(PathBuf),
    /// An EFI program, as HTTP boot would load it. The disk is empty at first.
    Program(PathBuf),
    /// Kernel, initrd and command line in a directory, as network boot would load them. The disk is empty at first.
    Network(PathBuf),
}

impl Start {
    /// What an output is, by its name.
    #[must_use]
    pub fn of(output: &Path) -> Self {
        let output = output.to_owned();
        match output.extension().and_then(|end| end.to_str()) {
            _ if output.is_dir() => Self::Network(output),
            Some("iso") => Self::Medium(output),
            Some("efi") => Self::Program(output),
            _ => Self::Disk(output),
        }
    }
}

/// A line of a machine's console, or its end.
#[derive(Debug)]
pub struct Line {
    /// Which machine, from 1 on.
    pub machine: u32,
    /// What it said, without control characters; none when the machine has ended.
    pub text: Option<String>,
}

/// Virtual machines that run. They end with it.
#[derive(Debug)]
pub struct Machines {
    children: Vec<Child>,
    /// After them, who may still send.
    ethernet: Ethernet,
}

/// What carries a virtual machine out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Accelerator {
    /// The processor itself.
    Kvm,
    /// Software, some ten times slower.
    Tcg,
}

/// Chooses what carries machines out, by trying: a device that is there may still not work.
///
/// # Errors
/// When QEMU is not there, or there is nothing to try it with.
pub fn accelerator(from: &Start) -> Result<Accelerator> {
    host::require(&[host::QEMU])?;
    if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(Accelerator::Tcg);
    }
    // Without a root file system a kernel ends at once, and with it QEMU: one that works says so by ending.
    let place = tempfile::tempdir()?;
    let kernel = place.path().join("kernel");
    let program = match from {
        Start::Disk(image) => read::kernel(image)?,
        Start::Program(program) => read::kernel_of(&fs::read(program)?)?,
        Start::Network(directory) => {
            let kernel = directory.join("vmlinuz");
            fs::read(&kernel).with_context(|| format!("{} cannot be read", kernel.display()))?
        }
        // Its kernel is not looked for; what is slow works everywhere.
        Start::Medium(_) => return Ok(Accelerator::Tcg),
    };
    fs::write(&kernel, program)?;
    let mut qemu = host::command("qemu-system-x86_64", ["-accel", "kvm", "-cpu", "host", "-m", "256", "-nodefaults"]);
    qemu.args(["-display", "none", "-no-reboot", "-append", "panic=-1", "-kernel"]).arg(kernel);
    let mut child = qemu.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("QEMU cannot be started")?;
    let begun = Instant::now();
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(Accelerator::Kvm),
            Some(_) => return Ok(Accelerator::Tcg),
            None if begun.elapsed() > TRIAL => {
                let _ = child.kill();
                let _ = child.wait();
                return Ok(Accelerator::Tcg);
            }
            None => thread::sleep(Duration::from_millis(50)),
        }
    }
}

impl Machines {
    /// Starts them, and sends every line that their consoles print.
    ///
    /// # Errors
    /// When QEMU or its firmware is not there, the image is none, or there is no room for the disks.
    pub fn start(site: &Site, accelerator: Accelerator, lines: &Sender<Line>) -> Result<Self> {
        host::require(&[host::QEMU])?;
        let firmware = FIRMWARE.iter().find(|path| Path::new(path).exists());
        let firmware = firmware.context("no UEFI firmware on this host. On Debian: apt install ovmf")?;
        for drive in &site.drives {
            fs::File::open(drive).with_context(|| format!("{} cannot be read", drive.display()))?;
        }
        if let Start::Disk(image) = &site.from {
            let bytes = read::disk(image)?.bytes;
            if site.disk_bytes < bytes {
                let disks = site.disk_bytes >> 20;
                bail!("the image has {} MiB, and the machines' disks are to have {disks}", bytes >> 20);
            }
        }
        let cannot = || format!("{} cannot be made", site.directory.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&site.directory).with_context(cannot)?;
        let mut machines = Self { children: Vec::new(), ethernet: Ethernet::begin(site.machines + 1)? };
        machines.children.push(server(&machines.ethernet)?);
        for machine in 1..=site.machines {
            let child = start(site, machine, &machines.ethernet, firmware, accelerator, lines)?;
            machines.children.push(child);
        }
        Ok(machines)
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn start(
    site: &Site,
    machine: u32,
    ethernet: &Ethernet,
    firmware: &str,
    by: Accelerator,
    lines: &Sender<Line>,
) -> Result<Child> {
    let disk = disk_of(site, machine)?;
    let processor = match by {
        Accelerator::Kvm => "host",
        Accelerator::Tcg => "max",
    };
    let mut qemu = host::command("qemu-system-x86_64", ["-nodefaults", "-display", "none", "-serial", "stdio"]);
    qemu.args(["-machine", &format!("q35,accel={by}"), "-cpu", processor, "-smp", &site.processors.to_string()]);
    qemu.args(["-m", &site.memory_mib.to_string(), "-device", "virtio-rng-pci"]);
    qemu.args(["-drive", &format!("if=pflash,format=raw,readonly=on,file={firmware}")]);
    qemu.args(["-drive", &format!("if=none,id=disk,format=raw,file={}", escaped(&disk))]);
    qemu.args(["-device", "virtio-blk-pci,drive=disk,bootindex=1"]);
    for (number, drive) in site.drives.iter().enumerate() {
        let drive = escaped(drive);
        qemu.args(["-drive", &format!("if=none,id=more{number},format=raw,readonly=on,file={drive}")]);
        qemu.args(["-device", &format!("virtio-blk-pci,drive=more{number}")]);
    }
    started(&mut qemu, &site.from)?;
    if let Some(settings) = &site.settings {
        qemu.args(["-smbios", &format!("type=11,path={}", escaped(&credential(site, settings)?))]);
    }
    // Without it a machine has no identity of its own but its card's.
    qemu.args(["-uuid", &format!("6d757374-6572-4000-8000-{machine:012x}")]);
    qemu.args(["-netdev", &cable(ethernet, machine)]);
    // Without the card's own boot program, which only costs time.
    qemu.args(["-device", &format!("virtio-net-pci,netdev=cable,romfile=,mac=52:54:00:6d:00:{machine:02x}")]);
    let log = fs::File::create(site.directory.join(format!("m{machine}.log")))?;
    let mut child = qemu.stdout(Stdio::piped()).stderr(log.try_clone()?).spawn().context("QEMU cannot be started")?;
    let console = child.stdout.take().context("QEMU has no console")?;
    let lines = lines.clone();
    thread::spawn(move || follow(console, log, |text| lines.send(Line { machine, text }).is_ok()));
    Ok(child)
}

/// What a machine starts from besides its disk.
fn started(qemu: &mut std::process::Command, from: &Start) -> Result<()> {
    match from {
        Start::Disk(_) => {}
        Start::Medium(medium) => {
            let medium = escaped(medium);
            qemu.args(["-drive", &format!("if=none,id=medium,media=cdrom,readonly=on,format=raw,file={medium}")]);
            qemu.args(["-device", "ide-cd,drive=medium,bootindex=2"]);
        }
        Start::Program(program) => _ = qemu.arg("-kernel").arg(program),
        Start::Network(directory) => {
            let line = fs::read_to_string(directory.join("cmdline")).context("it has no command line")?;
            qemu.arg("-kernel").arg(directory.join("vmlinuz")).arg("-initrd").arg(directory.join("initrd.img"));
            qemu.args(["-append", line.trim()]);
        }
    }
    Ok(())
}

/// A muster.toml as a string of the firmware's: systemd.system-credentials(7). It is no word of QEMU's command line, where everybody would read it.
fn credential(site: &Site, settings: &Path) -> Result<PathBuf> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let text = fs::read(settings).with_context(|| format!("{} cannot be read", settings.display()))?;
    let path = site.directory.join("credential");
    let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    write!(
        file,
        "io.systemd.credential.binary:muster.toml={}",
        base64::engine::general_purpose::STANDARD.encode(text)
    )?;
    Ok(path)
}

/// The end of a cable, as QEMU takes it.
fn cable(ethernet: &Ethernet, number: u32) -> String {
    let (own, switch) = ethernet.ends(number);
    let end = |end: &str, path: &Path| format!("{end}.type=unix,{end}.path={}", path.display());
    format!("dgram,id=cable,{},{}", end("local", &own), end("remote", &switch))
}

/// Who answers DHCP, at the first socket: kubeadm takes no link-local address. Nothing goes beyond it.
fn server(ethernet: &Ethernet) -> Result<Child> {
    let mut qemu = host::command("qemu-system-x86_64", ["-machine", "none", "-nodefaults", "-display", "none"]);
    qemu.args(["-netdev", &cable(ethernet, 0), "-netdev", &format!("user,id=dhcp,restrict=on,ipv6=off,{ADDRESSES}")]);
    qemu.args(["-netdev", "hubport,id=one,hubid=0,netdev=cable", "-netdev", "hubport,id=other,hubid=0,netdev=dhcp"]);
    qemu.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("QEMU cannot be started")
}

/// A machine's disk: the one that it had, a copy of the image, or an empty one.
fn disk_of(site: &Site, machine: u32) -> Result<PathBuf> {
    let disk = site.directory.join(format!("m{machine}.raw"));
    let image = match &site.from {
        Start::Disk(image) => Some(image),
        _ => None,
    };
    if !disk.exists() {
        let part = disk.with_extension("part");
        match image {
            Some(image) => host::run(
                "cp",
                ["--sparse=always".as_ref(), "--reflink=auto".as_ref(), image.as_os_str(), part.as_os_str()],
            )?,
            None => _ = fs::File::create(&part)?,
        }
        fs::File::options().write(true).open(&part)?.set_len(site.disk_bytes)?;
        fs::rename(part, &disk)?;
        return Ok(disk);
    }
    let Some(image) = image else { return Ok(disk) };
    let roots =
        |path: &Path| Ok::<_, anyhow::Error>(read::disk(path)?.slots.into_iter().map(|slot| slot.root_hash).collect());
    let (there, wanted): (Vec<String>, Vec<String>) = (roots(&disk)?, roots(image)?);
    if wanted.iter().any(|root| !there.contains(root)) {
        bail!("{} is a machine's disk of another image: remove it, or choose another directory", disk.display());
    }
    Ok(disk)
}

/// QEMU reads a comma as the end of a value, and two as one.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// Hands on a console's lines until it ends or nobody listens.
fn follow(console: impl std::io::Read, mut log: fs::File, mut tell: impl FnMut(Option<String>) -> bool) {
    use std::io::Write as _;
    const LINE_BYTES_MAX: u64 = 4096;
    let mut console = BufReader::new(console);
    loop {
        let mut bytes = Vec::new();
        let read = std::io::Read::take(&mut console, LINE_BYTES_MAX).read_until(b'\n', &mut bytes);
        if !matches!(read, Ok(1..)) {
            tell(None);
            return;
        }
        let text = plain(&String::from_utf8_lossy(&bytes));
        let _ = writeln!(log, "{text}");
        if !text.is_empty() && !tell(Some(text)) {
            return;
        }
    }
}

/// A console's line without what only moves a cursor or chooses colours.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            // ECMA-48: a control sequence ends with a character from @ to ~; other escapes have one character.
            '\u{1b}' => match characters.next() {
                Some('[') => _ = characters.by_ref().find(|character| ('@'..='~').contains(character)),
                Some(']') => _ = characters.by_ref().find(|character| *character == '\u{7}' || *character == '\u{9c}'),
                _ => {}
            },
            character if character.is_control() => {}
            character => plain.push(character),
        }
    }
    plain.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_console_are_text() {
        let line = "\u{1b}[0m[\u{1b}[0;32m  OK  \u{1b}[0m] Started \u{1b}[0;1;39mmuster.service\u{1b}[0m.\r\n";
        assert_eq!(plain(line), "[  OK  ] Started muster.service.");
        assert_eq!(plain("\u{1b}"), "");
        assert_eq!(plain("\u{1b}["), "");
        assert_eq!(plain("\u{1b}]0;title\u{7}text"), "text");
    }

    #[test]
    fn a_console_is_followed_to_its_end_whatever_it_prints() {
        let long = "x".repeat(10_000);
        let console = format!("one\r\n\r\n\u{1b}[2J\n{long}");
        let mut told = Vec::new();
        follow(console.as_bytes(), tempfile::tempfile().expect("a file"), |line| {
            told.push(line);
            true
        });
        let lengths: Vec<Option<usize>> = told.iter().map(|line| line.as_ref().map(String::len)).collect();
        assert_eq!(lengths, [Some(3), Some(4096), Some(4096), Some(10_000 - 8192), None]);
    }
}
