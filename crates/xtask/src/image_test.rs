//! `image-test`: the disk image that `muster image build` makes, built twice, compared, damaged, and booted.

mod machines;

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};

use crate::command::{self, command, output};
use crate::packages;

/// What building and reading images needs on the host.
const HOST_PACKAGES: [&str; 7] =
    ["binutils", "cryptsetup-bin", "mmdebstrap", "squashfs-tools", "util-linux", "xorriso", "zstd"];

/// And booting them.
const BOOT_PACKAGES: [&str; 3] = ["e2fsprogs", "ovmf", "qemu-system-x86"];

/// How long machines in software may take for what they are to do, in seconds: on two busy cores.
const BOOT_SECONDS: &str = "1500";

/// Forms that are compared between two builds.
const FORMS: [&str; 4] = ["raw", "iso", "uki", "oci"];

/// Builds a disk image twice, and sees that both are the same, that damage is found, and that machines start from it.
#[derive(Debug, Args)]
#[command(after_help = "Needs root on Debian 12. Exit codes: 0 all holds; 1 something does not, and is named.")]
pub(crate) struct Arguments {
    /// The muster to build with and to put into the image, in place of one built from this checkout
    #[arg(long, value_name = "FILE")]
    muster: Option<PathBuf>,
    /// Where steps and images are kept
    #[arg(long, value_name = "DIR", default_value = "/var/cache/muster-image-test")]
    cache: PathBuf,
    /// Fetch Debian's packages anew for the second build, too
    #[arg(long)]
    whole: bool,
    /// Boot nothing
    #[arg(long)]
    no_boot: bool,
    /// Only this part
    #[arg(long, value_enum, value_name = "PART")]
    only: Option<Part>,
    /// Boot so many machines, and see them become one cluster
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "no_boot")]
    machines: u32,
}

/// A part of the test that stands by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Another image, from a stick, and the way back
    Updates,
    /// What a firmware gives, and beginning anew
    Settings,
    /// Machines with empty disks
    EmptyDisks,
}

fn carry_out(arguments: &Arguments) -> Result<()> {
    let test = Test::begin(arguments)?;
    match arguments.only {
        None => {
            images(&test, arguments)?;
            if !arguments.no_boot {
                test.updates()?;
                test.settings()?;
                test.without_disks()?;
            }
        }
        Some(Part::Updates) => test.updates()?,
        Some(Part::Settings) => test.settings()?,
        Some(Part::EmptyDisks) => test.without_disks()?,
    }
    test.say("all holds");
    Ok(())
}

/// An image built twice, compared, damaged, and booted as it is.
fn images(test: &Test, arguments: &Arguments) -> Result<()> {
    test.say("building an image (one to four minutes)");
    let (first, _) = test.build("first", "site", &test.place("steps"))?;
    test.say("the same again, of the same packages, in a cache of its own");
    let second = test.build_again(arguments.whole)?;
    test.same(&second)?;
    fs::remove_dir_all(test.place("second"))?;
    test.say("another muster.toml: nothing but the site's part is made again");
    test.other_site(&first)?;
    test.say("it is what it says it is, and any damage is named");
    output(test.muster(["image", "verify"]).arg(&first))?;
    let damaged = test.damage(&first)?;
    if arguments.no_boot {
        return Ok(());
    }
    test.say("a machine with a damaged root does not start");
    test.boot(&damaged, "damaged", 1, "is corrupted")?;
    test.say("and the others do (some minutes: their processors are software)");
    test.boot(&first, "machines", arguments.machines, ": Ready")
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match carry_out(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask image-test: {error:#}");
            ExitCode::FAILURE
        }
    }
}

struct Test {
    cache: PathBuf,
    muster: PathBuf,
    started: Instant,
    machines: u32,
}

impl Test {
    fn begin(arguments: &Arguments) -> Result<Self> {
        let cache = arguments.cache.clone();
        let started = Instant::now();
        let needed = [&HOST_PACKAGES[..], if arguments.no_boot { &[] } else { &BOOT_PACKAGES }].concat();
        packages::install(&needed, |step| println!("    0.0 s  {step}"))?;
        fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
        let built = match &arguments.muster {
            Some(muster) => muster.clone(),
            None => {
                let mut build = Command::new("cargo");
                let status = build
                    .args(["build", "--release", "--locked", "--package", "muster"])
                    .stdin(Stdio::null())
                    .status()?;
                ensure!(status.success(), "muster does not build");
                PathBuf::from("target/release/muster")
            }
        };
        // What a debugger reads has no place on machines.
        let muster = cache.join("muster");
        command::run("strip", ["-o".as_ref(), muster.as_os_str(), built.as_os_str()])?;
        let test = Self { cache, muster, started, machines: arguments.machines };
        for place in ["first", "second", "other", "added", "second-cache"] {
            let _ = fs::remove_dir_all(test.place(place));
        }
        Ok(test)
    }

    fn say(&self, text: &str) {
        println!("{:7.1} s  {text}", self.started.elapsed().as_secs_f64());
    }

    fn place(&self, name: &str) -> PathBuf {
        self.cache.join(name)
    }

    fn muster<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        command(&self.muster, arguments)
    }

    /// A muster.toml with a key that is the same each time.
    fn configuration(&self, name: &str, machines: u32, keys: &str) -> Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.cache.join(format!("{name}.toml"));
        let key = "5a".repeat(32);
        fs::write(&path, format!("cluster = \"{name}\"\nmachines = {machines}\nmesh_key = \"{key}\"\n{keys}"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }

    fn build_command(&self, site: &str, machines: u32, keys: &str, cache: &Path) -> Result<Command> {
        let mut build = self.muster(["image", "build", "--json", "--rehearsal", "--kernel", "vm", "--config"]);
        build.arg(self.configuration(site, machines, keys)?).arg("--cache").arg(cache).arg("--add").arg(self.added()?);
        Ok(build)
    }

    /// Builds an image in all forms that are compared, and gives the disk and what was told.
    fn build(&self, name: &str, site: &str, cache: &Path) -> Result<(PathBuf, String)> {
        let mut build = self.build_command(site, self.machines, "", cache)?;
        let out = self.place(name);
        build.args(FORMS.iter().flat_map(|form| ["--output", form])).arg("--out").arg(&out);
        let told = output(&mut build)?;
        let disk = fs::read_dir(&out)?.flatten().map(|entry| entry.path());
        let disk = disk.into_iter().find(|path| path.extension().is_some_and(|end| end == "raw"));
        Ok((disk.with_context(|| format!("no disk in {}", out.display()))?, told))
    }

    /// Sees that two builds made the same bytes.
    fn same(&self, second: &Path) -> Result<()> {
        let directory = second.parent().context("a disk has a directory")?;
        let mut compared = 0;
        for entry in fs::read_dir(directory)?.flatten() {
            let (one, other) = (self.place("first").join(entry.file_name()), entry.path());
            let same = command::run("cmp", [&one, &other]);
            same.with_context(|| format!("{} and {} differ", one.display(), other.display()))?;
            compared += 1;
        }
        ensure!(compared == FORMS.len() + 2, "{compared} files were compared");
        Ok(())
    }

    fn build_again(&self, whole: bool) -> Result<PathBuf> {
        let cache = self.place("second-cache");
        fs::create_dir_all(&cache)?;
        if !whole {
            for entry in fs::read_dir(self.place("steps"))?.flatten() {
                if entry.file_name().to_string_lossy().starts_with("tree-") {
                    command::run("cp", ["-al".as_ref(), entry.path().as_os_str(), cache.as_os_str()])?;
                }
            }
        }
        let made = self.build("second", "site", &cache)?.0;
        fs::remove_dir_all(cache)?;
        Ok(made)
    }

    fn other_site(&self, first: &Path) -> Result<()> {
        let (disk, told) = self.build("other", "elsewhere", &self.place("steps"))?;
        let kept = told.lines().filter(|line| line.contains("\"kept\":true")).count();
        ensure!(kept == 3, "{kept} steps were kept, not three: {told}");
        ensure!(
            command::run("cmp", ["-s".as_ref(), first.as_os_str(), disk.as_os_str()]).is_err(),
            "another site has the same disk"
        );
        Ok(fs::remove_dir_all(self.place("other"))?)
    }

    /// Changes single bytes, sees each found, and gives a disk whose root file system is damaged at its begin.
    fn damage(&self, disk: &Path) -> Result<PathBuf> {
        let damaged = self.place("damaged.raw");
        command::run("cp", ["--sparse=always".as_ref(), disk.as_os_str(), damaged.as_os_str()])?;
        let shown = output(self.muster(["image", "show", "--json"]).arg(disk))?;
        let shown: serde_json::Value = serde_json::from_str(&shown)?;
        let begin = |what: &str| shown["disk"]["slots"][0][what][0].as_u64().context("no slot");
        // Each is damaged, found, and mended.
        for (what, at, told) in [("verity", 4096 + 40, "hash tree"), ("root", 3 * 4096 + 17, "block 3 ")] {
            let at = begin(what)? + at;
            flip(&damaged, at)?;
            let failed = self.muster(["image", "verify"]).arg(&damaged).output()?;
            let said = String::from_utf8_lossy(&failed.stderr).into_owned();
            ensure!(failed.status.code() == Some(1) && said.contains(told), "byte {at} ({what}) was changed: {said}");
            flip(&damaged, at)?;
        }
        output(self.muster(["image", "verify"]).arg(&damaged))?;
        flip(&damaged, begin("root")? + 8)?;
        Ok(damaged)
    }

    /// Boots machines until each has said something.
    fn boot(&self, image: &Path, name: &str, machines: u32, until: &str) -> Result<()> {
        self.boot_with(image, name, machines, until, &[], None).map(drop)
    }

    /// The same, with more arguments; gives what their consoles said.
    fn boot_with(
        &self,
        image: &Path,
        name: &str,
        machines: u32,
        until: &str,
        words: &[&str],
        file: Option<&Path>,
    ) -> Result<String> {
        let mut boot = self.muster(["image", "boot", "--machines", &machines.to_string(), "--until", until]);
        let place = self.place(&format!("{name}-machines"));
        // Those of a test that was stopped are other machines.
        let _ = fs::remove_dir_all(&place);
        boot.args(["--timeout", BOOT_SECONDS, "--dir"]).arg(&place).args(words).args(file).arg(image);
        let begun = Instant::now();
        let ended = boot.output()?;
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        if !ended.status.success() {
            let lines: Vec<&str> = said.lines().collect();
            let last = lines[lines.len().saturating_sub(60)..].join("\n");
            bail!(
                "no {until:?} on each console; {} the last they said:\n{last}",
                String::from_utf8_lossy(&ended.stderr)
            );
        }
        self.say(&format!("{until:?} after {:.0} s", begun.elapsed().as_secs_f64()));
        fs::remove_dir_all(place)?;
        Ok(said)
    }
}

/// Changes a byte of a file; twice is once too many.
fn flip(path: &Path, at: u64) -> Result<()> {
    let mut file = fs::File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::Start(at))?;
    Ok(file.write_all(&[byte[0] ^ 0x10])?)
}
