//! `muster image show` and `verify`.

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use muster_image::{Verified, memory};
use serde_json::json;

use crate::exit::Exit;
use crate::{print, text};

/// An output in a form that can be looked into.
enum Output {
    Disk(PathBuf),
    Memory(PathBuf),
}

/// What a file is: a disk image, also a compressed one; or what starts in memory, also on a medium or in a directory for network boot. What
/// must be unpacked for that is put into `place`.
fn opened(file: &Path, place: &Path) -> anyhow::Result<Output> {
    let file = if file.is_dir() { file.join("initrd.img") } else { file.to_owned() };
    let kind = file.metadata().with_context(|| format!("{} cannot be read", file.display()))?.file_type();
    anyhow::ensure!(kind.is_file() || kind.is_block_device(), "{} is neither a file nor a disk", file.display());
    if memory::starts_in_memory(&file) {
        return Ok(Output::Memory(file));
    }
    if file.extension().is_some_and(|end| end == "iso") {
        let program = place.join("live.efi");
        memory::of_medium(&file, &program)?;
        return Ok(Output::Memory(program));
    }
    Ok(Output::Disk(muster_image::unpacked(&file, &place.join("image"))?))
}

/// Says what an image starts, and what it is made of.
///
/// # Errors
/// When it is none, or standard output cannot be written.
pub(super) fn show(file: &Path, packages: bool, json: bool) -> anyhow::Result<Exit> {
    let place = super::private_directory()?;
    let (disk, contents) = match opened(file, place.path())? {
        Output::Disk(disk) => (Some(muster_image::disk(&disk)?), muster_image::contents(&disk)?),
        Output::Memory(program) => (None, memory::read(&program)?.contents),
    };
    if json {
        let mut told = json!({ "disk": disk, "contents": contents });
        if !packages {
            told["contents"]["packages"] = json!(contents.packages.len());
        }
        print::line(&told.to_string())?;
        return Ok(Exit::Done);
    }
    let size = disk.as_ref().map_or("starts in memory, or writes a disk".to_owned(), |disk| {
        let places: Vec<String> =
            disk.partitions.iter().map(|(name, bytes)| format!("{name} {} MiB", bytes >> 20)).collect();
        format!("{} MiB: {}", disk.bytes >> 20, places.join(", "))
    });
    let mut rows = vec![
        ("cluster".to_owned(), contents.cluster),
        ("settings".to_owned(), contents.settings),
        ("root hash".to_owned(), contents.root_hash),
        ("kernel".to_owned(), contents.kernel),
        ("disk".to_owned(), size),
    ];
    rows.extend(contents.inputs.into_iter().map(|(name, value)| (format!("of {name}"), value)));
    rows.extend(contents.images.into_iter().map(|image| ("holds".to_owned(), image)));
    rows.push(("packages".to_owned(), contents.packages.len().to_string()));
    let slots = disk.map(|disk| disk.slots).unwrap_or_default();
    rows.extend(slots.into_iter().map(|slot| (format!("starts {}", slot.file), slot.command_line)));
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name, value]).collect();
    print::line(&text::table(&rows).join("\n"))?;
    for package in contents.packages.iter().filter(|_| packages) {
        print::line(&format!("{} {} {}", package.name, package.version, package.licences.join(", ")))?;
    }
    Ok(Exit::Done)
}

fn verified(file: &Path) -> anyhow::Result<Vec<Verified>> {
    let place = super::private_directory()?;
    let verified = match opened(file, place.path())? {
        Output::Disk(disk) => muster_image::verify(&disk),
        Output::Memory(program) => memory::verify(&program).map(|one| vec![one]),
    };
    // What was unpacked is called by what it was unpacked from.
    let unpacked = [place.path().join("image"), place.path().join("live.efi")].map(|path| path.display().to_string());
    let called =
        |text: String| unpacked.iter().fold(text, |text, path| text.replace(path, &file.display().to_string()));
    verified.map_err(|error| anyhow::anyhow!(called(format!("{error:#}"))))
}

/// Verifies an image.
///
/// # Errors
/// When standard output cannot be written.
pub(super) fn verify(file: &Path, json: bool) -> anyhow::Result<Exit> {
    match verified(file) {
        Ok(verified) => {
            if json {
                print::line(&json!({ "right": true, "slots": verified }).to_string())?;
                return Ok(Exit::Done);
            }
            for slot in verified {
                let size = slot.bytes >> 20;
                print::line(&format!("{}: all of {size} MiB is what root hash {} says", slot.file, slot.root_hash))?;
            }
            Ok(Exit::Done)
        }
        Err(error) => {
            let why = format!("{error:#}");
            if json {
                print::line(&json!({ "right": false, "why": why }).to_string())?;
            }
            print::complaint(&why);
            Ok(Exit::Failed)
        }
    }
}
