//! A medium that starts as a stick and as a compact disc: one EFI system partition with a program that lives in memory.

use std::fs;
use std::io::Seek as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::disk::{self, Part};
use super::live::Live;
use crate::cache;
use crate::contents::CONTENTS;
use crate::host;
use crate::install::MEDIUM;
use crate::layout::MIB;

/// Where the program is: not among those that the loader lists by itself.
pub(crate) const PROGRAM: &str = "EFI/muster/live.efi";

/// The name of the partition's image among the medium's files.
const PARTITION: &str = "efi.img";

/// Somebody may choose for so long.
const LOADER: &str = "timeout 10\ndefault live.conf\nconsole-mode keep\n";

/// Writes the medium at `path`.
pub(crate) fn make(live: &Live<'_>, path: &Path) -> Result<()> {
    let place = path.with_extension("medium");
    cache::remove(&place)?;
    fs::create_dir(&place)?;
    let made = (|| {
        let program = place.join("live.efi");
        live.program(&program)?;
        let tree = place.join("tree");
        fs::create_dir(&tree)?;
        efi(live, &program, &tree.join(PARTITION))?;
        // What a computer without UEFI shows of it.
        fs::write(tree.join("README.TXT"), "muster starts from here on computers with UEFI.\n")?;
        pack(live, &tree, path)
    })();
    cache::remove(&place)?;
    made
}

/// The loader, the program, and the two ways to start it.
fn efi(live: &Live<'_>, program: &Path, path: &Path) -> Result<()> {
    let hash = live.system.root_hash()?;
    let length = program.metadata()?.len() + live.system.part("loader.efi").metadata()?.len();
    // FAT32 has clusters of its own, and the description some packages.
    let bytes = (length + length / 64 + 8 * MIB).next_multiple_of(MIB).max(48 * MIB);
    let mut file = fs::File::options().read(true).write(true).create_new(true).open(path)?;
    file.set_len(bytes)?;
    file.rewind()?;
    let mut part = Part::of(&mut file, 0, bytes);
    let line = live.command_line();
    let entry = |title: &str, more: &str| format!("title {title}\nefi /{PROGRAM}\noptions {line}{more}\n");
    let start = entry("muster: start in memory", "");
    let install = entry("muster: write the smallest disk that is empty, and start from it", " muster.install=smallest");
    disk::fat(&mut part, u32::from_le_bytes([hash[4], hash[5], hash[6], hash[7]]), |write| {
        write("EFI/BOOT/BOOTX64.EFI", &mut fs::File::open(live.system.part("loader.efi"))?)?;
        write(PROGRAM, &mut fs::File::open(program)?)?;
        write("loader/loader.conf", &mut LOADER.as_bytes())?;
        write("loader/entries/live.conf", &mut start.as_bytes())?;
        write("loader/entries/install.conf", &mut install.as_bytes())?;
        write(CONTENTS, &mut &live.contents[..])
    })
    .context("the EFI system partition")
}

/// Puts it together as firmware looks for it on a disc (El Torito) and on a stick (GPT).
fn pack(live: &Live<'_>, tree: &Path, path: &Path) -> Result<()> {
    let id = hex::encode(disk::named(&live.system.root_hash()?, b"iso"));
    let mut xorriso = host::command("xorriso", ["-as", "mkisofs", "-quiet", "-volid", MEDIUM]);
    // All of its times (the beginning of time counts as none), and the identity of its partition table.
    xorriso.args(["--modification-date=1980010100000000", "--set_all_file_dates", "1980010100000000"]);
    // The catalog counts blocks with 16 bits, and the image has more: 0 has firmware take all that follows.
    xorriso.args(["--gpt_disk_guid", &id, "-e", PARTITION, "-no-emul-boot", "-boot-load-size", "0"]);
    xorriso.args(["-efi-boot-part", "--efi-boot-image"]);
    host::output(xorriso.arg("-o").arg(path).arg(tree)).map(drop)
}
