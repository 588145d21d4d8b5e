//! `muster image slots` and `factory-reset`: the images on this machine's disk, and what it is besides.

use anyhow::Context as _;
use muster_image::slots::{Machine, Slot};
use serde_json::json;

use super::confirm::{confirmed, restart};
use crate::args::ConfirmArguments;
use crate::exit::Exit;
use crate::{print, text};

/// systemd's variable by which systemd-repart is told to begin anew: systemd-repart(8), `FactoryReset=`.
const FACTORY_RESET: &str = "/sys/firmware/efi/efivars/FactoryReset-8cf2644b-4b0b-428f-9387-6d876050dc67";

/// Shows the slots of this machine's disk.
///
/// # Errors
/// When it has none, or standard output cannot be written.
pub(super) fn list(json: bool) -> anyhow::Result<Exit> {
    let machine = Machine::here()?;
    let slots = machine.slots()?;
    if json {
        print::line(&json!({ "disk": machine.disk, "running": machine.running, "slots": slots }).to_string())?;
        return Ok(Exit::Done);
    }
    print::line(&describe(&slots))?;
    Ok(Exit::Done)
}

fn describe(slots: &[Slot]) -> String {
    let mut rows = vec![["SLOT", "SETTINGS", "ROOT HASH", "KERNEL", "STATE"].map(str::to_owned).to_vec()];
    for slot in slots {
        let short = |text: Option<&String>| text.map_or("-".to_owned(), |text| text.chars().take(12).collect());
        rows.push(vec![
            slot.letter.to_string(),
            short(slot.contents.as_ref().map(|contents| &contents.settings)),
            short(slot.kernel.as_ref().map(|kernel| &kernel.root_hash)),
            slot.kernel.as_ref().map_or("-".to_owned(), |kernel| kernel.file.clone()),
            slot.state(),
        ]);
    }
    text::table(&rows).join("\n")
}

/// Has the next start make this machine's state anew.
///
/// # Errors
/// When this machine has no image's disk, or its firmware takes nothing.
pub(super) fn factory_reset(arguments: &ConfirmArguments) -> anyhow::Result<Exit> {
    Machine::here()?;
    let steps = "this machine forgets all that it is: its identity, etcd's data, containers, journals, what was written to /etc; \
                 `muster reset` would let it leave the cluster first. It starts anew, and asks to be admitted as another machine";
    if !confirmed(arguments, steps, "Forget all of it and start anew?")? {
        return Ok(if arguments.dry_run { Exit::Done } else { Exit::Failed });
    }
    // UEFI 2.10, 8.2: non-volatile, and there for the boot's programs and for the system; then the text, which systemd reads as yes.
    let mut value = 7u32.to_le_bytes().to_vec();
    value.extend("yes\0".encode_utf16().flat_map(u16::to_le_bytes));
    std::fs::write(FACTORY_RESET, value)
        .context("the firmware takes no variable: was this machine started by UEFI?")?;
    restart(arguments)
}
