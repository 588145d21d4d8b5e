//! `muster image build`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use muster_image::{Cluster, From, Kernel, Kubernetes, Output, Plan};
use serde_json::json;

use super::progress::Told;
use crate::args::{BuildArguments, KernelWord, OutputWord};
use crate::config::{self, Overrides, kernel};
use crate::exit::Exit;
use crate::print;

/// Where a machine has what is its site's own.
const SITE: &str = "etc/muster";

/// Builds an image.
///
/// # Errors
/// When it cannot be built, or standard output cannot be written.
pub(super) fn build(arguments: &BuildArguments) -> anyhow::Result<Exit> {
    let staging = super::private_directory()?;
    let site = staging.path().join(SITE);
    gather(arguments, &site)?;
    let mut below = vec![staging.path().to_owned()];
    // What was added last lies on top.
    below.extend(arguments.add.iter().rev().cloned());
    let image = match config::load(
        &arguments.config,
        &Overrides { kernel: arguments.command_line.clone(), ..Overrides::of_other_machines(below) },
    ) {
        Ok(loaded) => {
            if !loaded.warnings.is_empty() {
                print::complaint(&loaded.warnings);
            }
            loaded.image
        }
        Err(refused) => {
            if arguments.json {
                print::line(&json!({ "problems": refused.problems }).to_string())?;
            }
            print::complaint(&refused.to_string());
            return Ok(Exit::Wrong);
        }
    };
    if let Some(order) = kernel::install(&arguments.command_line)
        && let Err(why) = order.wipe().and_then(|_| order.check())
    {
        print::complaint(&format!("error: --command-line: {why}"));
        return Ok(Exit::Wrong);
    }
    let cluster = Cluster { name: image.cluster, settings: hex::encode(image.digest.0) };
    let plan = plan(arguments, cluster, site)?;
    plan.check()?;
    if arguments.dry_run {
        return tell_plan(&plan, arguments.json);
    }
    let built = muster_image::build(&plan, &Told::new(arguments.json))?;
    let sizes: BTreeMap<String, u64> = built
        .files
        .iter()
        .map(|file| {
            (file.display().to_string(), file.metadata().map_or(0, |seen| if seen.is_file() { seen.len() } else { 0 }))
        })
        .collect();
    if arguments.json {
        let contents = &built.contents;
        let told = json!({
            "files": sizes, "cluster": contents.cluster, "settings": contents.settings, "root_hash": contents.root_hash,
        });
        print::line(&told.to_string())?;
    } else {
        for (file, bytes) in sizes {
            let size = if bytes == 0 { String::new() } else { format!("  {} MiB", bytes.div_ceil(1 << 20)) };
            print::line(&format!("{file}{size}"))?;
        }
    }
    Ok(Exit::Done)
}

/// Puts together what is the site's own: what is added below `etc/muster`, and muster.toml.
fn gather(arguments: &BuildArguments, site: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(site)?;
    for directory in &arguments.add {
        if !directory.is_dir() {
            bail!("--add {}: is no directory", directory.display());
        }
        copy(&directory.join(SITE), site)?;
    }
    let to = site.join("muster.toml");
    match std::fs::copy(&arguments.config, &to) {
        // That is told when it is read.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        copied => copied.map(drop).with_context(|| format!("{} cannot be copied", arguments.config.display())),
    }
}

/// Copies what is in a directory, if it is there.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let entries = match std::fs::read_dir(from) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", from.display())),
    };
    std::fs::create_dir_all(to)?;
    for entry in entries {
        let (path, place) = {
            let entry = entry?;
            (entry.path(), to.join(entry.file_name()))
        };
        if path.is_dir() {
            copy(&path, &place)?;
        } else {
            std::fs::copy(&path, &place).with_context(|| format!("{} cannot be copied", path.display()))?;
        }
    }
    Ok(())
}

fn plan(arguments: &BuildArguments, cluster: Cluster, site: PathBuf) -> anyhow::Result<Plan> {
    let muster = match &arguments.muster {
        Some(muster) => muster.clone(),
        None => std::env::current_exe().context("this muster's own file is not known; say --muster")?,
    };
    Ok(Plan {
        cluster,
        site,
        from: from(&arguments.from)?,
        kernel: match arguments.kernel {
            KernelWord::Metal => Kernel::Metal,
            KernelWord::Vm => Kernel::Vm,
        },
        kubernetes: match &arguments.kubernetes {
            Some(directory) => Kubernetes::Directory(directory.clone()),
            None => Kubernetes::Rehearsal,
        },
        add: arguments.add.clone(),
        muster,
        command_line: arguments.command_line.clone(),
        outputs: arguments.output.iter().map(output).collect(),
        out: arguments.out.clone(),
        cache: arguments.cache.clone(),
    })
}

/// A directory and a file are those; a word is a release of Debian's.
fn from(text: &str) -> anyhow::Result<From> {
    let path = Path::new(text);
    if path.is_dir() {
        return Ok(From::Directory(path.to_owned()));
    }
    if path.is_file() {
        return Ok(From::Archive(path.to_owned()));
    }
    if !text.is_empty() && text.chars().all(|character| character.is_ascii_lowercase()) {
        return Ok(From::Debian(text.to_owned()));
    }
    bail!("--from {text}: neither a directory nor a file, and no name of a Debian release")
}

fn output(word: &OutputWord) -> Output {
    match word {
        OutputWord::Raw => Output::Raw,
        OutputWord::RawZst => Output::RawZst,
        OutputWord::Iso => Output::Iso,
        OutputWord::Uki => Output::Uki,
        OutputWord::Pxe => Output::Pxe,
        OutputWord::Oci => Output::Oci,
        OutputWord::Tar => Output::Tar,
        OutputWord::Dir => Output::Dir,
    }
}

fn tell_plan(plan: &Plan, json: bool) -> anyhow::Result<Exit> {
    let system = match &plan.from {
        From::Debian(suite) => format!(
            "Debian {suite}, kernel for {}",
            if plan.kernel == Kernel::Vm { "virtual machines" } else { "metal" }
        ),
        From::Directory(path) | From::Archive(path) => path.display().to_string(),
    };
    let kubernetes = match &plan.kubernetes {
        Kubernetes::Directory(directory) => directory.display().to_string(),
        Kubernetes::Rehearsal => "a rehearsal".to_owned(),
    };
    let outputs: Vec<String> = plan.outputs.iter().map(ToString::to_string).collect();
    if json {
        let told = json!({
            "cluster": plan.cluster.name, "settings": plan.cluster.settings, "system": system, "kubernetes": kubernetes,
            "muster": plan.muster, "added": plan.add, "outputs": outputs, "out": plan.out,
        });
        print::line(&told.to_string())?;
        return Ok(Exit::Done);
    }
    let added: Vec<String> = plan.add.iter().map(|directory| directory.display().to_string()).collect();
    let rows = [
        ("cluster", format!("{}, settings {}", plan.cluster.name, &plan.cluster.settings[..12])),
        ("system", system),
        ("kubernetes", kubernetes),
        ("muster", plan.muster.display().to_string()),
        ("added", if added.is_empty() { "nothing".to_owned() } else { added.join(", ") }),
        ("outputs", format!("{} in {}", outputs.join(", "), plan.out.display())),
    ];
    for (name, value) in rows {
        print::line(&format!("{name:<12}{value}"))?;
    }
    print::line("nothing was built")?;
    Ok(Exit::Done)
}
