//! `muster image install`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use muster_image::install::{self, Disk, Source};
use serde_json::json;

use super::progress::Told;
use super::slots::{confirmed, restart};
use crate::args::{ConfirmArguments, InstallArguments};
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
    let contents = source.contents()?;
    let disks = install::disks(&contents)?;
    let Some(word) = &arguments.disk else {
        list(&disks, arguments.confirm.json)?;
        return Ok(Exit::Done);
    };
    let disk = install::choose(&disks, word, arguments.wipe)?;
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
    let settings = settings.map(Path::to_owned).or_else(|| {
        let volume = PathBuf::from(config::VOLUME);
        (matches!(source, Source::Memory) && volume.exists()).then_some(volume)
    });
    let settings =
        settings.map(|file| std::fs::read(&file).with_context(|| format!("{} cannot be read", file.display())));
    let settings = settings.transpose()?.map(zeroize::Zeroizing::new);
    install::write(source, &disk.path, settings.as_ref().map(|text| text.as_slice()), &Told::new(json))
}

fn list(disks: &[Disk], json: bool) -> anyhow::Result<()> {
    if json {
        print::line(&json!({ "disks": disks }).to_string())?;
        return Ok(());
    }
    for disk in disks {
        print::line(&format!("{:>6} GiB  {}", disk.bytes >> 30, disk.why()))?;
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
    let disk = install::choose(&install::disks(&contents)?, &order.disk, order.wipe)?;
    print::complaint(&format!("muster: writing {} ({} GiB)", disk.path.display(), disk.bytes >> 30));
    write(&Source::Memory, &disk, None, false)?;
    let confirm = ConfirmArguments { yes: true, ..ConfirmArguments::default() };
    restart(&confirm)
}
