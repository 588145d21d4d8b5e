//! Recording what the machine is given and what it does (`muster run --record DIR`), for a replay. It never holds the
//! machine up: what cannot be written ends the recording, not the machine.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;

use muster_protocol::{Boot, Effects, Input, Time, record};
use muster_wire::sign::Made;
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
    /// The signatures that the machine makes.
    made: Receiver<Made>,
}

impl Recorder {
    /// Begins a recording in `directory`, in a file of its own for every start. `made` tells of the machine's signatures.
    ///
    /// # Errors
    /// What the system said, with the path. Asked to record and unable to, an agent should not start.
    pub(crate) fn begin(directory: &Path, boot: &Boot, made: Receiver<Made>) -> Result<Self, String> {
        let name = format!("{}-boot-{}.recording", boot.identity.machine(), boot.durable.boot.next());
        let path = directory.join(name);
        let named = |why: std::io::Error| format!("{}: {why}", path.display());
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(named)?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path).map_err(named)?;
        let mut recorder = Self(Some(Open { path: path.clone(), file, room: BYTES_MAX, made }));
        recorder.write(&record::start(boot, Time(0)));
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

    /// Records what it does with that, or with its start.
    pub(crate) fn done(&mut self, effects: &Effects) {
        if let Some(open) = &self.0 {
            let bytes = record::done(effects, open.made.try_iter());
            self.write(&bytes);
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
    use std::sync::mpsc::channel;

    use muster_protocol::{Machine, Tuning};
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
            manifests: 0,
            level: muster_wire::level::KNOWN,
            raft_begun: false,
            tuning: Tuning::default(),
        }
    }

    #[test]
    fn what_was_recorded_can_be_replayed_without_the_key() {
        let directory = tempfile::tempdir().expect("a directory");
        let (tell, made) = channel();
        let mut boot = boot();
        boot.identity = boot.identity.telling(tell);
        let mut recorder = Recorder::begin(&directory.path().join("a"), &boot, made).expect("begins");
        let path = recorder.0.as_ref().expect("is open").path.clone();
        let mut effects = Effects::default();
        let mut machine = Machine::new(boot, Time(0), &mut effects).expect("starts");
        recorder.done(&effects);
        effects.drain().for_each(drop);
        recorder.input(Time(5), &Input::Wake);
        machine.handle(Time(5), Input::Wake, &mut effects);
        recorder.done(&effects);
        let bytes = std::fs::read(path).expect("reads");
        assert!(!bytes.windows(32).any(|window| window == [1; 32]), "the key is in the recording");

        let recording = record::Recording::open(&bytes).expect("opens");
        let doings =
            |effects: &mut Effects| effects.drain().map(|effect| record::Doing::from(&effect)).collect::<Vec<_>>();
        let mut effects = Effects::default();
        let mut machine = Machine::new(recording.boot().expect("reads"), Time(0), &mut effects).expect("starts");
        assert_eq!(recording.began().expect("was written"), doings(&mut effects));
        let turns: Vec<_> = recording.collect::<Result<_, _>>().expect("is whole");
        let [turn] = &turns[..] else { panic!("{turns:?}") };
        machine.handle(turn.now, turn.input.clone(), &mut effects);
        assert_eq!(turn.done.as_ref().expect("was written"), &doings(&mut effects));
    }

    #[test]
    fn a_full_disk_ends_the_recording_and_nothing_else() {
        let file = OpenOptions::new().write(true).open("/dev/full").expect("opens");
        let open = Open { path: "/dev/full".into(), file, room: BYTES_MAX, made: channel().1 };
        let mut recorder = Recorder(Some(open));
        recorder.input(Time(5), &Input::Wake);
        assert!(recorder.0.is_none());
        recorder.input(Time(6), &Input::Wake);
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("a"), b"").expect("writes");
        let refused = Recorder::begin(&directory.path().join("a"), &boot(), channel().1).err();
        let refused = refused.expect("is no directory");
        assert!(refused.contains("/a/"), "{refused}");
    }
}
