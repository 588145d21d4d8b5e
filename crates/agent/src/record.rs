//! Recording what the machine is given (`muster run --record DIR`), for a replay. It never holds the machine up: what
//! cannot be written ends the recording, not the machine.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use muster_protocol::{Boot, Input, Time, record};
use tracing::{info, warn};

/// Longest recording in bytes. A machine at rest gets some hundred bytes a second, so this is days.
const BYTES_MAX: usize = 256 << 20;

/// One start's recording, or nothing.
#[derive(Default)]
pub(crate) struct Recorder(Option<Open>);

struct Open {
    path: PathBuf,
    file: File,
    room: usize,
}

impl Recorder {
    /// Begins a recording in `directory`, in a file of its own for every start.
    ///
    /// # Errors
    /// What the system said, with the path. Asked to record and unable to, an agent should not start.
    pub(crate) fn begin(directory: &Path, boot: &Boot) -> Result<Self, String> {
        let name = format!("{}-boot-{}.recording", boot.identity.machine(), boot.durable.boot + 1);
        let path = directory.join(name);
        let named = |why: std::io::Error| format!("{}: {why}", path.display());
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(named)?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path).map_err(named)?;
        let mut recorder = Self(Some(Open { path: path.clone(), file, room: BYTES_MAX }));
        recorder.write(&record::start(boot));
        match recorder.0 {
            Some(_) => info!(path = %path.display(), "records"),
            None => return Err(format!("{} cannot be written", path.display())),
        }
        Ok(recorder)
    }

    /// Records what the machine is given at `now`.
    pub(crate) fn input(&mut self, now: Time, input: &Input) {
        if self.0.is_some() {
            self.write(&record::input(now, input));
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        let Some(open) = &mut self.0 else { return };
        let written = match open.room.checked_sub(bytes.len()) {
            Some(room) => {
                open.room = room;
                // Whole parts at once: the end of the process cuts at most the last.
                open.file.write_all(bytes).map_err(|why| why.to_string())
            }
            None => Err(format!("it has {BYTES_MAX} bytes")),
        };
        if let Err(why) = written {
            warn!(path = %open.path.display(), why, "the recording ends here");
            self.0 = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_protocol::Tuning;
    use muster_wire::{Digest, Durable, Identity, Settings};

    use super::*;

    fn boot() -> Boot {
        Boot {
            identity: Identity::from_seed(&[1; 32]),
            sealing_key: [2; 32],
            durable: Durable::default(),
            cluster: "site".into(),
            settings: Settings {
                machines: 1,
                control_planes: 1,
                durable: true,
                kubernetes_version: String::new(),
                digest: Digest::default(),
            },
            hostname: "one".into(),
            addresses: Vec::new(),
            api_port: 6443,
            fingerprint: Digest::default(),
            seed: [4; 32],
            tuning: Tuning::default(),
        }
    }

    #[test]
    fn what_was_recorded_can_be_opened() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut recorder = Recorder::begin(&directory.path().join("a"), &boot()).expect("begins");
        recorder.input(Time(5), &Input::Wake);
        let path = recorder.0.as_ref().expect("is open").path.clone();
        let bytes = std::fs::read(path).expect("reads");
        let parts: Vec<_> = record::Recording::open(&bytes).expect("opens").collect();
        assert!(matches!(parts[..], [Ok((Time(5), Input::Wake))]));
    }

    #[test]
    fn a_full_disk_ends_the_recording_and_nothing_else() {
        let file = OpenOptions::new().write(true).open("/dev/full").expect("opens");
        let mut recorder = Recorder(Some(Open { path: "/dev/full".into(), file, room: BYTES_MAX }));
        recorder.input(Time(5), &Input::Wake);
        assert!(recorder.0.is_none());
        recorder.input(Time(6), &Input::Wake);
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("a"), b"").expect("writes");
        let refused = Recorder::begin(&directory.path().join("a"), &boot()).err().expect("is no directory");
        assert!(refused.contains("/a/"), "{refused}");
    }
}
