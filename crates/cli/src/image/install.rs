//! `muster image install`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use muster_image::install::{self, Disk, Source, Wipe};
use serde_json::json;
use zeroize::Zeroizing;

use super::confirm::{confirmed, restart};
use super::progress::Told;
use crate::args::{ConfirmArguments, InstallArguments, WipeWord};
use crate::config::{self, kernel};
use crate::exit::Exit;
use crate::print;

/// How often a machine that was told to install itself looks again: a disk may come, or somebody may take one away.
const AGAIN: Duration = Duration::from_secs(60);

/// Writes an image to a disk.
///
/// # Errors
/// When that is refused or fails, or standard output cannot be written.
pub(super) fn install(arguments: &InstallArguments) -> anyhow::Result<Exit> {
    if arguments.booted {
        return Ok(booted());
    }
    let source = match &arguments.image {
        Some(file) => Source::File(file.clone()),
        None => Source::Memory,
    };
    let Some(word) = &arguments.disk else {
        // What is not known of an image is only which disk has it.
        let contents = source.contents();
        list(&install::disks(contents.as_ref().ok())?, arguments.confirm.json)?;
        return Ok(Exit::Done);
    };
    let contents = source.contents()?;
    let wipe = match arguments.wipe {
        None => Wipe::Nothing,
        Some(WipeWord::Data) => Wipe::Data,
        Some(WipeWord::Machines) => Wipe::Machines,
    };
    let disk = install::choose(&install::disks(Some(&contents))?, word, wipe)?;
    let size = disk.bytes >> 30;
    let goes = if disk.occupied.is_some() { "what is on it is lost" } else { "nothing is on it" };
    let settings: String = contents.settings.chars().take(12).collect();
    let what = format!(
        "the image of cluster {} with settings {settings} is written to {} ({size} GiB); {goes}",
        contents.cluster,
        disk.path.display()
    );
    if !confirmed(&arguments.confirm, &what, "Write it?")? {
        return Ok(if arguments.confirm.dry_run { Exit::Done } else { Exit::Failed });
    }
    write(&source, &disk, arguments.settings.as_deref(), arguments.confirm.json)?;
    let stays = arguments.image.is_some();
    restart(&ConfirmArguments { no_reboot: arguments.confirm.no_reboot || stays, ..arguments.confirm.clone() })
}

fn write(source: &Source, disk: &Disk, settings: Option<&Path>, json: bool) -> anyhow::Result<()> {
    // A stick's settings go along: it is taken away afterwards.
    let settings = match (settings, source) {
        (None, Source::Memory) => {
            if let Ok(why) = std::fs::read_to_string(config::WRONG) {
                bail!("{}", why.trim());
            }
            Some(PathBuf::from(config::VOLUME)).filter(|volume| volume.exists())
        }
        (settings, _) => settings.map(Path::to_owned),
    };
    let read = |file: &PathBuf| -> anyhow::Result<Zeroizing<String>> {
        let opened = std::fs::File::open(file).with_context(|| format!("{} cannot be read", file.display()))?;
        let text = config::read_text(opened);
        match (config::wrong_beside(text.clone()).first(), text) {
            (None, Ok(text)) => Ok(text),
            (Some(wrong), _) => {
                let line = wrong.line.map(|line| format!(":{line}")).unwrap_or_default();
                bail!("{}{line}: {}", file.display(), wrong.text)
            }
            (None, Err(why)) => bail!("{} {why}", file.display()),
        }
    };
    let settings = settings.as_ref().map(read).transpose()?;
    install::write(source, disk, settings.as_ref().map(|text| text.as_bytes()), &Told::new(json))
}

fn list(disks: &[Disk], json: bool) -> anyhow::Result<()> {
    if json {
        print::line(&json!({ "disks": disks }).to_string())?;
        return Ok(());
    }
    for disk in disks {
        let kind = if disk.removable { " (a stick or a card)" } else { "" };
        print::line(&format!("{:>6} GiB  {}{kind}", disk.bytes >> 30, disk.why()))?;
    }
    if disks.is_empty() {
        print::complaint("this machine has no disk");
    }
    Ok(())
}

/// As the kernel's command line says, on a machine that has nobody to ask: what is wrong stands on its console until it is mended.
fn booted() -> Exit {
    loop {
        match ordered() {
            Ok(exit) => return exit,
            Err(error) => {
                print::complaint(&format!("muster: not installed: {error:#}; looking again in {} s", AGAIN.as_secs()))
            }
        }
        std::thread::sleep(AGAIN);
    }
}

fn ordered() -> anyhow::Result<Exit> {
    let line = std::fs::read_to_string(kernel::PATH).context("/proc is not there")?;
    let order = kernel::install(&line).context("the kernel's command line says nothing of muster.install=")?;
    let contents = Source::Memory.contents()?;
    order.check().map_err(anyhow::Error::msg)?;
    let wipe = order.wipe().map_err(anyhow::Error::msg)?;
    let disk = install::choose(&install::disks(Some(&contents))?, &order.disk, wipe)?;
    print::complaint(&format!("muster: writing {} ({} GiB)", disk.path.display(), disk.bytes >> 30));
    write(&Source::Memory, &disk, None, false)?;
    let confirm = ConfirmArguments { yes: true, ..ConfirmArguments::default() };
    restart(&confirm)
}
