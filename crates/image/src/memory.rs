//! Reading what starts in memory without starting it: an EFI program, an initrd, or a medium with such a program on it.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use cpio::newc;
use object::read::pe::PeFile64;
use object::{Object as _, ObjectSection as _};

use crate::contents::{Contents, INITRD, KERNEL};
use crate::read::{self, Slot};
use crate::steps::iso;
use crate::steps::live::DISK;
use crate::steps::system::System;
use crate::verify::{self, Verified};

/// Longest program that is looked into, and most files of an archive.
const BYTES_MAX: u64 = 4 << 30;
const ENTRIES_MAX: usize = 256;
/// Longest description.
const CONTENTS_BYTES_MAX: u64 = 16 << 20;

/// What starts in memory, as far as it says what it is.
#[derive(Debug)]
pub struct Memory {
    /// What the image says of itself.
    pub contents: Contents,
    /// First byte after what is put before every machine's initrd.
    end: u64,
    root: (u64, u64),
    verity: (u64, u64),
}

/// Whether a file is one that [`read()`] can look into, by how it begins.
#[must_use]
pub fn starts_in_memory(path: &Path) -> bool {
    let mut begin = [0; 6];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut begin)).is_ok()
        && (&begin[..2] == b"MZ" || &begin == b"070701")
}

/// Reads an EFI program or an initrd.
///
/// # Errors
/// When it has no image in it.
pub fn read(path: &Path) -> Result<Memory> {
    let mut file = fs::File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let begin = archive(&mut file).with_context(|| format!("{} does not start in memory", path.display()))?;
    entries(file, begin).with_context(|| format!("{} has no image in its initrd", path.display()))
}

/// Copies the program of a medium into a file, where it can be read.
///
/// # Errors
/// When it is no medium.
pub fn of_medium(path: &Path, to: &Path) -> Result<()> {
    let program = read::esp_file(path, iso::PROGRAM).with_context(|| format!("{} is no medium", path.display()))?;
    fs::write(to, program).with_context(|| format!("{} cannot be written", to.display()))
}

/// Sees that the root file system is what its hash tree says, and the tree what the image says.
///
/// # Errors
/// When anything differs, with what and where.
pub fn verify(path: &Path) -> Result<Verified> {
    let memory = read(path)?;
    let slot = Slot {
        file: "its initrd".to_owned(),
        command_line: memory.contents.command_line.clone(),
        root_hash: memory.contents.root_hash.clone(),
        root: memory.root,
        verity: memory.verity,
    };
    let verified =
        verify::verify_slot(&mut fs::File::open(path)?, &slot).with_context(|| path.display().to_string())?;
    let (kernel, initrd) = rest(path, memory.end)?;
    for (name, bytes) in [(KERNEL, kernel), (INITRD, initrd)] {
        verify::same(&memory.contents, name, &bytes).with_context(|| path.display().to_string())?;
    }
    Ok(verified)
}

/// The kernel, and the initrd that every machine has: of a program both are in it, and beside an initrd alone lies its kernel.
fn rest(path: &Path, from: u64) -> Result<(Vec<u8>, Vec<u8>)> {
    let bytes = fs::read(path)?;
    let from = usize::try_from(from)?;
    if bytes.starts_with(b"MZ") {
        let program = PeFile64::parse(bytes.as_slice()).context("it is no EFI program")?;
        let section = |name: &str| program.section_by_name(name).with_context(|| format!("it has no section {name}"));
        let kernel = section(".linux")?.data().context("its kernel is cut short")?.to_vec();
        let (at, length) = section(".initrd")?.file_range().context("its initrd is cut short")?;
        let end = usize::try_from(at + length)?;
        return Ok((kernel, bytes.get(from..end).context("its initrd is cut short")?.to_vec()));
    }
    let kernel = path.with_file_name("vmlinuz");
    let kernel = fs::read(&kernel).with_context(|| format!("{} cannot be read", kernel.display()))?;
    Ok((kernel, bytes.get(from..).context("its initrd is cut short")?.to_vec()))
}

/// Where the initrd begins: of an EFI program in its section, else the file is one.
fn archive(file: &mut fs::File) -> Result<u64> {
    let length = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    if length > BYTES_MAX {
        bail!("it has {} GiB", length >> 30);
    }
    let mut begin = [0; 2];
    file.read_exact(&mut begin)?;
    file.rewind()?;
    if &begin != b"MZ" {
        return Ok(0);
    }
    // Its headers lie before all that it carries.
    let mut program = Vec::new();
    file.by_ref().take(length).read_to_end(&mut program)?;
    let program = PeFile64::parse(program.as_slice()).context("it is no EFI program")?;
    let section = program.section_by_name(".initrd").context("it has no initrd")?;
    section.file_range().map(|(at, _)| at).context("its initrd is cut short")
}

fn entries(mut file: fs::File, begin: u64) -> Result<Memory> {
    file.seek(SeekFrom::Start(begin))?;
    let (mut contents, mut root, mut verity, mut end) = (None, None, None, None);
    for _ in 0..ENTRIES_MAX {
        let mut reader = newc::Reader::new(file).context("its archive is damaged")?;
        if reader.entry().is_trailer() {
            // As it was written: up to where the next archive may begin.
            end = Some(begin + (reader.offset()? - begin).next_multiple_of(512));
            break;
        }
        let (name, length) = (reader.entry().name().to_owned(), u64::from(reader.entry().file_size()));
        let place = (reader.offset()?, length);
        match name.strip_prefix(DISK).and_then(|rest| rest.strip_prefix('/')) {
            Some(System::CONTENTS) if length <= CONTENTS_BYTES_MAX => {
                let mut text = Vec::new();
                reader.read_to_end(&mut text)?;
                contents = Some(serde_json::from_slice(&text).context("what it says of itself is damaged")?);
            }
            Some("root.squashfs") => root = Some(place),
            Some("root.verity") => verity = Some(place),
            _ => {}
        }
        file = reader.skip().context("its archive is cut short")?;
    }
    Ok(Memory {
        end: end.context("its archive has no end")?,
        contents: contents.context("it says nothing of itself")?,
        root: root.context("it has no root file system")?,
        verity: verity.context("it has no hash tree")?,
    })
}
