//! What machines do with an image: damage, forming, settings of a stick, updates and the way back, memory, and writing a disk.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::Test;
use crate::command::{self, output};

/// Runs on each machine of this test, beside muster.
const UNIT: &str = "\
[Unit]
Description=A test of images
After=muster.service

[Service]
StandardOutput=journal+console
StandardError=journal+console
ExecStart=/usr/bin/bash /usr/share/muster-test
";

/// Takes what a stick has for the machine, one image after the other, or begins anew once; and tells what came of it.
const SCRIPT: &str = r#"
muster image healthy --timeout 600
muster image slots
muster explain
if grep -q test=reset /proc/cmdline; then
    # The firmware alone remembers that it was done.
    done=/sys/firmware/efi/efivars/MusterTest-8cf2644b-4b0b-428f-9387-6d876050dc67
    if [ -e $done ]; then
        if [ -e /var/lib/was-here ]; then echo "it is as it was"; else echo "it began anew"; fi
        exit
    fi
    printf '\007\0\0\0x\0' >$done
    touch /var/lib/was-here
    muster image factory-reset --yes
    exit
fi
mount -o ro /dev/vdb /mnt || exit 0
for image in two.raw.zst three.raw; do
    until muster image slots | grep -q "runs, good"; do sleep 2; done
    if [ ! -e "/var/lib/taken-$image" ]; then
        touch "/var/lib/taken-$image"
        muster image update "/mnt/$image" --yes
        exit
    fi
done
muster explain
muster image slots
echo "both images were taken"
"#;

/// A kernel that ends at once, and starts again after a second.
const ENDS: &str = "rdinit=/nowhere panic=1";

impl Test {
    /// Lays out what images of this test have besides.
    pub(super) fn added(&self) -> Result<PathBuf> {
        let place = self.place("added");
        let units = place.join("etc/systemd/system");
        let wanted = units.join("multi-user.target.wants");
        fs::create_dir_all(&wanted)?;
        fs::create_dir_all(place.join("usr/share"))?;
        fs::write(units.join("muster-test.service"), UNIT)?;
        fs::write(place.join("usr/share/muster-test"), SCRIPT)?;
        let link = wanted.join("muster-test.service");
        if fs::read_link(&link).is_err() {
            std::os::unix::fs::symlink("/etc/systemd/system/muster-test.service", link)?;
        }
        Ok(place)
    }

    /// A machine takes its name from a stick, takes an image from there, and comes back from one that does not start.
    pub(super) fn updates(&self) -> Result<()> {
        self.say("one takes its name and another image from a stick, and comes back from one that does not start");
        let first = self.variant("one", "raw", "", "")?;
        let stick = self.place("stick");
        fs::create_dir_all(&stick)?;
        fs::write(stick.join("muster.toml"), "name = \"by-the-stick\"\n")?;
        for (name, form, keys, words) in [
            ("two", "raw-zst", "[discovery]\nmdns = false\n", ""),
            ("three", "raw", "[discovery]\nmdns = true\n", ENDS),
        ] {
            let made = self.variant(name, form, keys, words)?;
            let end = if form == "raw" { "raw" } else { "raw.zst" };
            fs::rename(made, stick.join(format!("{name}.{end}")))?;
        }
        let volume = self.place("stick.ext4");
        let _ = fs::remove_file(&volume);
        let words = ["-q", "-L", "MUSTER", "-d"].map(AsRef::as_ref);
        let words = words.into_iter().chain([stick.as_os_str(), volume.as_os_str(), "600M".as_ref()]);
        command::run("mkfs.ext4", words)?;
        fs::remove_dir_all(&stick)?;
        let told = self.boot_with(&first, "updated", 1, "both images were taken", &["--drive"], Some(&volume))?;
        for (what, texts) in [
            ("the stick's name", &["muster: by-the-stick of cluster"][..]),
            ("the second image", &["muster_2.efi", "runs, good"]),
            ("the third image", &["muster_3+0-3.efi", "was not well in 3 tries"]),
            ("the way back", &["was written to slot A, and this machine runs"]),
        ] {
            let is_seen = told.lines().any(|line| texts.iter().all(|text| line.contains(text)));
            anyhow::ensure!(is_seen, "{what} was not seen: no line of a console has {texts:?}");
        }
        Ok(fs::remove_file(volume)?)
    }

    /// A machine forgets all that it is, and is given a name by its firmware.
    pub(super) fn settings(&self) -> Result<()> {
        self.say("one is given its name by the firmware, and begins anew");
        let image = self.variant("reset", "raw", "", "test=reset")?;
        let settings = self.place("settings.toml");
        fs::write(&settings, "name = \"by-the-firmware\"\n")?;
        let told = self.boot_with(&image, "reset", 1, "it began anew", &["--settings"], Some(&settings))?;
        anyhow::ensure!(told.contains("muster: by-the-firmware of cluster"), "the firmware's name was not seen");
        anyhow::ensure!(!told.contains("it is as it was"), "the state stayed");
        Ok(fs::remove_dir_all(self.place("reset"))?)
    }

    /// Machines without anything on their disks: in memory, and by a medium that writes the disk.
    pub(super) fn without_disks(&self) -> Result<()> {
        self.say("machines with empty disks: in memory, and by a medium that writes the disk");
        for form in ["uki", "pxe"] {
            let made = self.variant(form, form, "", "")?;
            self.boot(&made, form, 1, ": Ready")?;
            fs::remove_dir_all(self.place(form))?;
        }
        let medium = self.variant("medium", "iso", "", "muster.install=smallest")?;
        let told = self.boot_with(&medium, "installed", 1, ": Ready", &[], None)?;
        anyhow::ensure!(told.contains("muster: writing /dev/vda"), "the disk was not written");
        Ok(fs::remove_dir_all(self.place("medium"))?)
    }

    /// An image for a machine alone. All of them differ in what every machine may have of its own: they are one cluster's.
    fn variant(&self, name: &str, form: &str, keys: &str, words: &str) -> Result<PathBuf> {
        let out = self.place(name);
        let _ = fs::remove_dir_all(&out);
        let mut build = self.build_command("alone", 1, keys, &self.place("steps"))?;
        build.args(["--output", form, "--command-line", words, "--out"]).arg(&out);
        output(&mut build)?;
        let made = fs::read_dir(&out)?.flatten().map(|entry| entry.path());
        let is_told = |path: &PathBuf| path.ends_with("SHA256SUMS") || path.ends_with("manifest.json");
        made.into_iter().find(|path| !is_told(path)).with_context(|| format!("nothing in {}", out.display()))
    }
}
