//! `muster-sim replay` of what real machines recorded.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use muster_protocol::record::MAGIC;
use serde::Serialize;

use super::pace::{Next, Pace};
use super::steps::state;
use super::{Failure, print_json, unless_missed};
use crate::changes::changes;
use crate::recording::{Player, Replayed};
use crate::run::Verdict;

/// Most differences that are printed of one recording.
const DIFFERENCES_MAX: usize = 20;

/// How a recording's file is called.
const EXTENSION: &str = "recording";

/// Whether `path` is to be replayed as a recording: a directory of them, one by its name, or by how it begins.
pub(super) fn is_recording(path: &Path) -> bool {
    let mut begin = [0; MAGIC.len()];
    path.is_dir()
        || path.extension().is_some_and(|extension| extension == EXTENSION)
        || File::open(path).and_then(|mut file| file.read_exact(&mut begin)).is_ok_and(|()| &begin == MAGIC)
}

/// What is shown of recordings, and how far.
pub(super) struct Shown {
    pub(super) machine: Option<String>,
    pub(super) pace: Pace,
    pub(super) verbose: bool,
    pub(super) json: bool,
}

/// What came of one recording.
#[derive(Serialize)]
struct Told {
    recording: String,
    machine: String,
    inputs: u64,
    effects: u64,
    until_us: u64,
    hash: String,
    same: bool,
    differences: Vec<String>,
    cut_at_byte: Option<usize>,
    damage: Option<String>,
    status: muster_protocol::Status,
}

impl Shown {
    pub(super) fn replay(mut self, path: &Path) -> Result<Verdict, Failure> {
        let mut verdict = Verdict::Held;
        let mut shown = 0;
        let mut others = Vec::new();
        let mut damaged = None;
        for file in files(path)? {
            let named = |why: &dyn std::fmt::Display| Failure(format!("{}: {why}", file.display()));
            let bytes = std::fs::read(&file).map_err(|why| named(&why))?;
            let (player, first) = match Player::start(&bytes) {
                Ok(begun) => begun,
                Err(why) if path.is_dir() => {
                    eprintln!("muster-sim: {}: {why}", file.display());
                    damaged = Some(file);
                    continue;
                }
                Err(why) => return Err(named(&why)),
            };
            if !self.wants(&player) {
                others.push(player.name());
                continue;
            }
            shown += 1;
            let result = self.one(&file, player, first)?;
            if !result.same {
                verdict = Verdict::SafetyBroken;
            }
            if let Some(why) = &result.damage {
                eprintln!("muster-sim: {}: {why}; what came before was replayed", file.display());
                damaged = Some(file);
            }
        }
        match (damaged, shown, &self.machine) {
            (Some(file), ..) => Err(Failure(format!("{} is damaged", file.display()))),
            (None, 0, Some(machine)) => {
                Err(Failure(format!("{}: no recording of {machine}, but of {}", path.display(), others.join(", "))))
            }
            (None, 0, None) => Err(Failure(format!("{}: there is no *.{EXTENSION} in it", path.display()))),
            _ => unless_missed(verdict, self.pace.missed().map(|why| self.hinted(why)), self.json),
        }
    }

    /// Where else the text may be.
    fn hinted(&self, why: String) -> String {
        if self.verbose { why } else { format!("{why}; --verbose shows every input and everything done") }
    }

    fn wants(&self, player: &Player<'_>) -> bool {
        let status = player.status();
        self.machine.as_deref().is_none_or(|wanted| {
            let id = wanted.strip_prefix("m-").unwrap_or(wanted);
            status.name == wanted || (id.len() >= 4 && status.machine.starts_with(id))
        })
    }

    fn one(&mut self, file: &Path, mut player: Player<'_>, first: Replayed) -> Result<Told, Failure> {
        if !self.json {
            println!("{}: {}", file.display(), player.name());
        }
        let (mut effects, mut differences, mut damage, mut inputs) = (0, Vec::new(), None, 0);
        let mut before = player.status();
        let mut turn = Some(first);
        let mut stopped = false;
        while let Some(now) = turn.take().filter(|turn| turn.now.0 <= self.pace.until_us()) {
            inputs = now.number;
            effects += now.does.len() as u64;
            if let Some(differs) = &now.differs {
                differences.push(format!("input {} at byte {}: {differs}", now.number, now.at));
            }
            let after = player.status();
            stopped = self.tell(&player, &now, &changes(&before, &after));
            if stopped {
                break;
            }
            before = after;
            match player.step() {
                Ok(next) => turn = next,
                Err(why) => damage = Some(why.to_string()),
            }
        }
        let stopped = stopped || self.pace.until.is_some();
        let result = Told {
            recording: file.display().to_string(),
            machine: player.name(),
            inputs,
            effects,
            until_us: player.now.0,
            hash: player.hash(),
            same: differences.is_empty(),
            cut_at_byte: player.cut().filter(|_| !stopped),
            differences,
            damage,
            status: player.status(),
        };
        self.end(&result)?;
        Ok(result)
    }

    /// Shows one step; whether the replay stops there.
    fn tell(&mut self, player: &Player<'_>, turn: &Replayed, changed: &[String]) -> bool {
        let at = |text: &str| format!("{:>11.6} s  {text}", turn.now.0 as f64 / 1e6);
        let mut lines = vec![at(&turn.input)];
        let told = |what: &str| self.verbose || what.starts_with("says ") || what.starts_with("begins ");
        lines.extend(turn.does.iter().filter(|doing| told(&doing.what)).map(|doing| at(&format!("  {doing}"))));
        let noted = |change: &&String| self.machine.is_some() || self.verbose || change.starts_with("phase");
        lines.extend(changed.iter().filter(noted).map(|change| at(&format!("  {change}"))));
        if let Some(differs) = &turn.differs {
            lines.push(at(&format!("  DIFFERS at byte {}: {differs}", turn.at)));
        }
        if turn.last_words {
            lines.push(at("  the recording does not say what it did then"));
        }
        let breaks = self.pace.break_on.as_ref().is_some_and(|wanted| turn.input.contains(wanted.as_str()));
        if lines.len() == 1 && !self.verbose && !breaks {
            return false;
        }
        if !self.json {
            lines.iter().for_each(|line| println!("{line}"));
        }
        loop {
            match self.pace.after(&lines.join("\n")) {
                Next::Line => return false,
                Next::Show => println!("{}", state(&player.status(), true)),
                Next::Stop => return true,
            }
        }
    }

    fn end(&self, result: &Told) -> Result<(), Failure> {
        if self.json {
            return print_json(result);
        }
        let seconds = result.until_us as f64 / 1e6;
        println!("\n{} at {seconds:.6} s: {}", result.machine, state(&result.status, self.machine.is_some()));
        if let Some(at) = result.cut_at_byte {
            println!("  the recording breaks off at byte {at}, within a part: the machine stopped while it wrote");
        }
        for difference in result.differences.iter().take(DIFFERENCES_MAX) {
            println!("  DIFFERS: {difference}");
        }
        let verdict = if result.same {
            "did the same again".to_owned()
        } else {
            format!("did something else {} times", result.differences.len())
        };
        let (inputs, effects) = (result.inputs, result.effects);
        println!("  {inputs} inputs, {effects} effects: it {verdict}, hash {}\n", result.hash);
        Ok(())
    }
}

/// The recordings that `path` names, in order.
fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(|why| Failure(format!("{}: {why}", path.display())))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION))
        .collect();
    files.sort();
    Ok(files)
}
