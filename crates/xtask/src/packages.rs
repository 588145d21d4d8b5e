//! Debian's packages on this host.

use anyhow::Result;

use crate::command::{command, output, run};

/// Those of the packages that are not installed.
pub(crate) fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let installed = |package: &str| {
        run("dpkg-query", ["-W", "-f", "${db:Status-Status}", package]).is_ok_and(|status| status == "installed")
    };
    packages.iter().filter(|package| !installed(package)).copied().collect()
}

/// Installs those of the packages that are missing, and says so before.
pub(crate) fn install(packages: &[&str], say: impl Fn(String)) -> Result<()> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    say(format!("installing {}", missing.join(" ")));
    run("apt-get", ["update", "-qq"])?;
    let mut install = command("apt-get", ["install", "-qq", "--yes", "--no-install-recommends"]);
    output(install.args(missing).env("DEBIAN_FRONTEND", "noninteractive")).map(drop)
}
