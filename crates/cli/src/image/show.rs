//! `muster image show` and `verify`.

use std::path::Path;

use serde_json::json;

use crate::exit::Exit;
use crate::{print, text};

/// Says what a disk image starts, and what it is made of.
///
/// # Errors
/// When it is none, or standard output cannot be written.
pub(super) fn show(file: &Path, packages: bool, json: bool) -> anyhow::Result<Exit> {
    let disk = muster_image::disk(file)?;
    let contents = muster_image::contents(file)?;
    if json {
        let mut told = json!({ "disk": disk, "contents": contents });
        if !packages {
            told["contents"]["packages"] = json!(contents.packages.len());
        }
        print::line(&told.to_string())?;
        return Ok(Exit::Done);
    }
    let places: Vec<String> =
        disk.partitions.iter().map(|(name, bytes)| format!("{name} {} MiB", bytes >> 20)).collect();
    let mut rows = vec![
        ("cluster".to_owned(), contents.cluster),
        ("settings".to_owned(), contents.settings),
        ("root hash".to_owned(), contents.root_hash),
        ("kernel".to_owned(), contents.kernel),
        ("disk".to_owned(), format!("{} MiB: {}", disk.bytes >> 20, places.join(", "))),
    ];
    rows.extend(contents.inputs.into_iter().map(|(name, value)| (format!("of {name}"), value)));
    rows.extend(contents.images.into_iter().map(|image| ("holds".to_owned(), image)));
    rows.push(("packages".to_owned(), contents.packages.len().to_string()));
    rows.extend(disk.slots.into_iter().map(|slot| (format!("starts {}", slot.file), slot.command_line)));
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name, value]).collect();
    print::line(&text::table(&rows).join("\n"))?;
    for package in contents.packages.iter().filter(|_| packages) {
        print::line(&format!("{} {} {}", package.name, package.version, package.licences.join(", ")))?;
    }
    Ok(Exit::Done)
}

/// Verifies a disk image.
///
/// # Errors
/// When standard output cannot be written.
pub(super) fn verify(file: &Path, json: bool) -> anyhow::Result<Exit> {
    match muster_image::verify(file) {
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
