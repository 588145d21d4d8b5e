//! The recipe: which step follows which, and what each is made of.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::cache::{self, Cache};
use crate::contents::{Contents, INITRD, KERNEL, LOADER, PROGRAM};
use crate::digest::{Key, sha256};
use crate::host::{self, Tool};
use crate::plan::{From, Kubernetes, Output, Plan};
use crate::progress::{Progress, step};
use crate::steps::live::Live;
use crate::steps::system::{self, System};
use crate::steps::{disk, initrd, iso, oci, root, tree};

/// What a build made.
#[derive(Debug, serde::Serialize)]
pub struct Built {
    /// The outputs, in the order of [`Output`], then `manifest.json` and `SHA256SUMS`.
    pub files: Vec<PathBuf>,
    /// What they say of themselves.
    pub contents: Contents,
}

/// Builds an image. The same inputs give the same bytes; Debian's packages are those that were fetched when the cache had none.
///
/// # Errors
/// When something is missing on this host or among the inputs, or a step fails: an output that was not made anew stays as it was.
pub fn build(plan: &Plan, progress: &dyn Progress) -> Result<Built> {
    check(plan)?;
    let plan = &resolved(plan)?;
    // Whoever builds has a umask of their own, and the image none of it.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    fs::create_dir_all(&plan.out).with_context(|| format!("{} cannot be made", plan.out.display()))?;
    let cache = Cache::open(&plan.cache)?;
    let tree_key = tree::key(&plan.from, plan.kernel)?;
    let tree = step(progress, "the system below", 60, || {
        cache.step("tree", tree_key.clone(), |path| tree::make(&plan.from, plan.kernel, path))
    })?;
    let initrd_key = initrd::key(tree_key.clone());
    let initrd = step(progress, "what starts before it", 40, || {
        cache.step("initrd", initrd_key.clone(), |path| initrd::make(&tree, path))
    })?;
    let base_key = system::base_key(root::key(tree_key, plan)?);
    let base = step(progress, "the root file system", 90, || {
        cache.step("base", base_key.clone(), |path| laid_out(&tree, plan, |root| system::base(root, path)))
    })?;
    let system = step(progress, "the site's own files, the hash tree, the kernel", 8, || {
        let key = system::key(base_key, initrd_key, plan)?;
        cache.step("system", key, |path| system::make(&base, &initrd, &tree, plan, path))
    })?;
    let system = System::at(system);
    let contents = contents(plan, &tree, &initrd, &system)?;
    let json = contents.json();
    let parts = Live { system: &system, tree: &tree, initrd: &initrd, contents: &json, plan };
    let mut files = Vec::new();
    for output in plan.outputs.iter().copied() {
        let path = plan.out.join(format!("{}{}", name(plan), output.suffix()));
        step(progress, &path.display().to_string(), about(output), || {
            write(output, &path, &parts).map(|()| ((), false))
        })?;
        files.push(path);
    }
    files.extend(tell(plan, &contents, &files)?);
    Ok(Built { files, contents })
}

/// What can be known before anything is done.
fn check(plan: &Plan) -> Result<()> {
    host::require(&tools(plan))?;
    if !rustix::process::geteuid().is_root() {
        bail!("files of many owners are put together, and dracut runs in their tree: run it as root");
    }
    plan.check()
}

/// The plan with what its links lead to: another target is another input.
fn resolved(plan: &Plan) -> Result<Plan> {
    let real =
        |path: &PathBuf| fs::canonicalize(path).with_context(|| format!("{} cannot be looked at", path.display()));
    let mut plan = plan.clone();
    plan.muster = real(&plan.muster)?;
    plan.add = plan.add.iter().map(real).collect::<Result<_>>()?;
    plan.from = match plan.from {
        From::Directory(path) => From::Directory(real(&path)?),
        From::Archive(path) => From::Archive(real(&path)?),
        debian => debian,
    };
    Ok(plan)
}

fn tools(plan: &Plan) -> Vec<Tool> {
    let mut tools = vec![host::MKSQUASHFS, host::VERITYSETUP, host::OBJCOPY, host::UNSHARE];
    match plan.from {
        From::Debian(_) => tools.push(host::MMDEBSTRAP),
        From::Archive(_) => tools.push(host::TAR),
        From::Directory(_) => {}
    }
    if plan.outputs.contains(&Output::RawZst) {
        tools.push(host::ZSTD);
    }
    if plan.outputs.contains(&Output::Tar) || plan.outputs.contains(&Output::Oci) {
        tools.push(host::TAR);
    }
    if plan.outputs.contains(&Output::Iso) {
        tools.push(host::XORRISO);
    }
    tools
}

/// What all outputs of a plan are called: the cluster, and what its machines agree on.
fn name(plan: &Plan) -> String {
    format!("muster-{}-{}", plan.cluster.name, &plan.cluster.settings[..12.min(plan.cluster.settings.len())])
}

/// Lays the root file system out beside the tree for as long as `act` takes.
fn laid_out<T>(tree: &Path, plan: &Plan, act: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let place = plan.cache.join("root.part");
    cache::remove(&place)?;
    let done = root::lay_out(tree, plan, &place).and_then(|()| act(&place));
    cache::remove(&place)?;
    done
}

fn contents(plan: &Plan, tree: &Path, initrd: &Path, system: &System) -> Result<Contents> {
    let (_, kernel) = tree::kernel(tree)?;
    let starts = [(LOADER, system.loader()), (PROGRAM, system.kernel()), (KERNEL, kernel), (INITRD, initrd.to_owned())];
    let starts = starts.map(|(name, file)| Ok((name.to_owned(), hex::encode(sha256(&file)?))));
    let mut inputs = BTreeMap::new();
    let mut add = |name: &str, value: String| _ = inputs.insert(name.to_owned(), value);
    add(
        "system",
        match &plan.from {
            From::Debian(suite) => format!("Debian {suite}"),
            From::Directory(path) | From::Archive(path) => Key::of("from").path(path)?.name(),
        },
    );
    add("muster", hex::encode(sha256(&plan.muster)?));
    let mut images = Vec::new();
    match &plan.kubernetes {
        Kubernetes::Rehearsal => add("kubernetes", "rehearsal".to_owned()),
        Kubernetes::Directory(directory) => {
            add("kubernetes", Key::of("kubernetes").followed(directory)?.name());
            images = root::tags(&root::archives(directory)?)?;
        }
    }
    for (number, directory) in plan.add.iter().enumerate() {
        add(&format!("added {}", number + 1), Key::of("add").path(directory)?.name());
    }
    Ok(Contents {
        cluster: plan.cluster.name.clone(),
        settings: plan.cluster.settings.clone(),
        root_hash: hex::encode(system.root_hash()?),
        command_line: system.command_line()?,
        kernel: system::kernel_name(tree, plan.kernel)?,
        starts: starts.into_iter().collect::<Result<_>>()?,
        inputs,
        images,
        packages: tree::packages(tree),
    })
}

/// About how long it takes, in seconds.
fn about(output: Output) -> u64 {
    match output {
        Output::Raw => 4,
        Output::RawZst => 8,
        Output::Iso | Output::Uki | Output::Pxe => 5,
        Output::Tar | Output::Dir | Output::Oci => 15,
    }
}

/// Writes one output: beside its name first, so that what bears the name is whole. Root alone can read it: the mesh key is in it.
fn write(output: Output, path: &Path, parts: &Live<'_>) -> Result<()> {
    let mut place = path.as_os_str().to_owned();
    place.push(".part");
    let place = PathBuf::from(place);
    cache::remove(&place)?;
    let made = (|| {
        fs::DirBuilder::new().mode(0o700).create(&place)?;
        let part = place.join("made");
        write_part(output, &part, parts)?;
        // A directory that is a root file system has modes of its own.
        if output != Output::Dir {
            private(&part)?;
        }
        cache::remove(path)?;
        fs::rename(&part, path).with_context(|| format!("{} cannot be written", path.display()))
    })();
    cache::remove(&place)?;
    made
}

/// Keeps a file, or a directory's files, from everybody but their owner.
fn private(path: &Path) -> Result<()> {
    let is_directory = path.is_dir();
    if is_directory {
        for entry in fs::read_dir(path)? {
            private(&entry?.path())?;
        }
    }
    let mode = if is_directory { 0o700 } else { 0o600 };
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

fn write_part(output: Output, part: &Path, parts: &Live<'_>) -> Result<()> {
    let raw = |part: &Path| disk::make(parts.system, parts.contents, part);
    let plan = parts.plan;
    match output {
        Output::Raw => raw(part),
        Output::RawZst => {
            let disk = plan.cache.join("disk.part");
            cache::remove(&disk)?;
            raw(&disk)?;
            let options = ["--quiet", "--threads=0", "-6", "--stdout"].map(AsRef::as_ref);
            host::into(&mut host::command("zstd", options.into_iter().chain([disk.as_os_str()])), part)?;
            cache::remove(&disk)
        }
        Output::Iso => iso::make(parts, part),
        Output::Uki => parts.program(part),
        Output::Pxe => parts.network_boot(part),
        Output::Tar => archive(parts.tree, plan, part),
        Output::Oci => {
            let layer = plan.cache.join("layer.part");
            cache::remove(&layer)?;
            archive(parts.tree, plan, &layer)?;
            oci::make(&layer, &name(plan), part)?;
            cache::remove(&layer)
        }
        Output::Dir => laid_out(parts.tree, plan, |root| {
            sited(plan, root)?;
            let options = ["-a", "--reflink=auto"].map(AsRef::as_ref);
            host::run("cp", options.into_iter().chain([root.as_os_str(), part.as_os_str()]))
        }),
    }
}

/// Writes the root file system as an archive.
fn archive(tree: &Path, plan: &Plan, path: &Path) -> Result<()> {
    laid_out(tree, plan, |root| {
        sited(plan, root)?;
        // Names of extended headers have the program's number in them, and what they say a time of this host's.
        let same = "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime";
        let options = ["--sort=name", "--mtime=@0", "--numeric-owner", "--xattrs", same, "-C"].map(AsRef::as_ref);
        let words = [root.as_os_str(), "-cf".as_ref(), "-".as_ref(), ".".as_ref()];
        host::into(&mut host::command("tar", options.into_iter().chain(words)), path)
    })
}

/// A root file system that is no disk's has the site's files among the others.
fn sited(plan: &Plan, root: &Path) -> Result<()> {
    system::lay_out(&plan.site, &root.join("site"))
}

/// Writes what is told beside the outputs.
fn tell(plan: &Plan, contents: &Contents, outputs: &[PathBuf]) -> Result<[PathBuf; 2]> {
    let paths = ["manifest.json", "SHA256SUMS"].map(|name| plan.out.join(name));
    fs::write(&paths[0], contents.json()).with_context(|| format!("{} cannot be written", paths[0].display()))?;
    // Those of other outputs that lie there still.
    let before = fs::read_to_string(&paths[1]).unwrap_or_default();
    let is_new = |name: &str| {
        let file = plan.out.join(name);
        file == paths[0] || outputs.iter().any(|output| file.starts_with(output))
    };
    let kept = before
        .lines()
        .filter(|line| line.split_once("  ").is_some_and(|(_, name)| plan.out.join(name).is_file() && !is_new(name)));
    let mut sums: String = kept.map(|line| format!("{line}\n")).collect();
    for file in summed(outputs)?.iter().chain([&paths[0]]) {
        let name = file.strip_prefix(&plan.out).unwrap_or(file);
        sums += &format!("{}  {}\n", hex::encode(sha256(file)?), name.display());
    }
    fs::write(&paths[1], sums).with_context(|| format!("{} cannot be written", paths[1].display()))?;
    Ok(paths)
}

/// The files among outputs, and those of a directory that is served as it is.
fn summed(outputs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for output in outputs {
        if output.is_file() {
            files.push(output.clone());
        } else if output.to_string_lossy().ends_with(Output::Pxe.suffix()) {
            let served = fs::read_dir(output)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
            files.extend(served);
        }
    }
    files.sort_unstable();
    Ok(files)
}
