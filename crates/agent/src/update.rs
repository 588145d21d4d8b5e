//! Whether this machine was started again from the image that it had before an update: the loader goes back by itself, and says so to
//! nobody.

use std::path::Path;

use muster_protocol::{Reason, Topic};
use serde::{Deserialize, Serialize};

/// Where `muster image update` notes what the next start tries.
pub const RECORD: &str = "/var/lib/muster-update.json";

/// An update of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Root hash of the image that was written, in hexadecimal digits.
    pub to: String,
    /// Digest of its settings, in hexadecimal digits.
    pub settings: String,
    /// The slot that it was written to.
    pub slot: char,
    /// Linux's identity of the boot in which that was: `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
}

/// This boot's identity; empty where there is none.
#[must_use]
pub fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// What is to be said of the last update, if it was taken back.
pub(crate) fn taken_back() -> Option<Reason> {
    let line = std::fs::read_to_string("/proc/cmdline").ok()?;
    look(Path::new(RECORD), &line, &boot())
}

fn look(record: &Path, command_line: &str, boot: &str) -> Option<Reason> {
    let record: Record = serde_json::from_slice(&std::fs::read(record).ok()?).ok()?;
    let runs = command_line.split_ascii_whitespace().find_map(|word| word.strip_prefix("roothash="))?;
    // Until the next start it was not tried.
    if runs == record.to || boot == record.boot {
        return None;
    }
    let settings: String = record.settings.chars().take(12).collect();
    let text = format!(
        "the image with settings {settings} was written to slot {}, and this machine runs the one that it had before: it was not well with \
         the new one, or was started from the old by hand. `muster image slots` shows both; `muster image update` may try again",
        record.slot
    );
    Some(Reason { about: Topic::Update, text, machines: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_that_was_taken_back_is_told_from_the_next_start_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("record.json");
        let record = Record { to: "ab".repeat(32), settings: "5a".repeat(32), slot: 'B', boot: "first".into() };
        let old = format!("ro roothash={} quiet", "cd".repeat(32));
        let new = format!("roothash={}", record.to);
        assert_eq!(look(&path, &old, "second"), None, "nothing was updated");
        std::fs::write(&path, serde_json::to_vec(&record).expect("JSON")).expect("written");
        assert_eq!(look(&path, &old, "first"), None, "it is tried at the next start");
        assert_eq!(look(&path, &new, "second"), None, "it runs");
        let told = look(&path, &old, "second").expect("taken back").text;
        assert!(told.starts_with("the image with settings 5a5a5a5a5a5a was written to slot B, and"), "{told}");
        std::fs::write(&path, "{").expect("written");
        assert_eq!(look(&path, &old, "second"), None, "what is damaged says nothing");
    }
}
