//! The programs of this host that a build calls.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::digest::is_program;

/// A program, and Debian's package that has it.
pub(crate) type Tool = (&'static str, &'static str);

pub(crate) const MMDEBSTRAP: Tool = ("mmdebstrap", "mmdebstrap");
pub(crate) const MKSQUASHFS: Tool = ("mksquashfs", "squashfs-tools");
pub(crate) const VERITYSETUP: Tool = ("veritysetup", "cryptsetup-bin");
pub(crate) const OBJCOPY: Tool = ("objcopy", "binutils");
pub(crate) const ZSTD: Tool = ("zstd", "zstd");
pub(crate) const UNSHARE: Tool = ("unshare", "util-linux");
pub(crate) const TAR: Tool = ("tar", "tar");
pub(crate) const XORRISO: Tool = ("xorriso", "xorriso");
pub(crate) const QEMU: Tool = ("qemu-system-x86_64", "qemu-system-x86");

/// Sees that all of the programs are there.
///
/// # Errors
/// With all that are not, and the line that installs them.
pub(crate) fn require(tools: &[Tool]) -> Result<()> {
    let missing: Vec<&Tool> = tools.iter().filter(|(program, _)| !is_there(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let programs = missing.iter().map(|(program, _)| *program).collect::<Vec<_>>().join(", ");
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    bail!("{programs}: not on this host. On Debian: apt install --no-install-recommends {}", packages.join(" "))
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian's users have no sbin in theirs, where some of the programs are.
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|directory| is_program(&directory.join(program)))
}

/// A program with arguments, in an environment that says nothing of this host's language, time zone or user.
pub(crate) fn command<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    command.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::piped());
    command.env("PATH", format!("{path}:/usr/sbin:/sbin:/usr/bin:/bin")).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    // https://reproducible-builds.org/specs/source-date-epoch: what writes a time writes this one.
    command.env("SOURCE_DATE_EPOCH", "0").env("DEBIAN_FRONTEND", "noninteractive").env("HOME", "/nonexistent");
    command
}

/// Runs it to its end, and gives what it printed.
///
/// # Errors
/// When it cannot be started or fails, with the last of what it said.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    const LINES: usize = 12;
    let program = Path::new(command.get_program()).display().to_string();
    let child = command.stderr(Stdio::piped()).spawn().with_context(|| format!("{program} cannot be started"))?;
    let ended = child.wait_with_output().with_context(|| format!("{program} cannot be waited for"))?;
    if ended.status.success() {
        return Ok(String::from_utf8_lossy(&ended.stdout).into_owned());
    }
    let said = [ended.stdout, ended.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines[lines.len().saturating_sub(LINES)..].join("\n    ");
    bail!("{program} failed ({}); the last it said:\n    {last}", ended.status)
}

/// Runs it with what it prints going to a new file that its owner alone can read.
///
/// # Errors
/// As [`output`].
pub(crate) fn into(command: &mut Command, path: &Path) -> Result<()> {
    let file = fs::File::options().write(true).create_new(true).mode(0o600).open(path);
    let file = file.with_context(|| format!("{} cannot be written", path.display()))?;
    output(command.stdout(file)).map(drop)
}

/// Runs a program for what it does.
///
/// # Errors
/// As [`output`].
pub(crate) fn run<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> Result<()> {
    output(&mut command(program, arguments)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_missing_is_named_with_one_line_that_installs_it() {
        let tools =
            [("sh", "dash"), ("no-such-program", "some-package"), ("nor-this", "some-package"), ("nor", "other")];
        let told = require(&tools).expect_err("three are missing").to_string();
        assert_eq!(
            told,
            "no-such-program, nor-this, nor: not on this host. On Debian: apt install --no-install-recommends other some-package"
        );
        require(&tools[..1]).expect("a shell");
    }

    #[test]
    fn a_failure_tells_the_last_that_was_said() {
        let script = "for line in $(seq 40); do echo $line; done; echo wrong >&2; exit 3";
        let told = output(&mut command("sh", ["-c", script])).expect_err("it fails").to_string();
        assert!(told.starts_with("sh failed (exit status: 3); the last it said:\n    30\n"), "{told}");
        assert!(told.ends_with("\n    wrong"), "{told}");
    }
}
