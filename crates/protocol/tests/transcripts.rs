//! The protocol's exchanges as they are read: `transcripts/*.txt` hold commands and, below each, all that it brought about.
//!
//! `cargo xtask transcripts --bless` writes what comes out; the diff is the review.
//!
//! - `site N C`: an image for N machines, C of them control planes; `watch TOPIC...` what is shown: `founding`, `ledger`, `polls`,
//!   `steps`, `notices`
//! - `boot I...`, `kill I`, `back I` (with its disk), `wipe I` (killed, and back as another identity with an empty disk)
//! - `run S`: so many seconds pass; `lose KIND N`: the next N frames of a kind are lost
//! - `fail I STEP`: it fails once; `hang I STEP`: it never ends, until `mend I STEP`
//! - `level I L`: from its next start on I knows the ledger's levels up to L; `other I`: I boots another image, with its disk if it
//!   has one; `accept I`: I is asked to accept that image, `accept-own I`: the image that it runs; `remove I J`: to
//!   remove J, for good unless `returns` follows; `withdraw I J`: not to; `recover I`: to rebuild the cluster from what it has, or, with `dry-run`, whether it would; `etcd-gone I`: I's device finds that etcd's data is gone from it; `certificates I fine|due|overdue`: how I's device finds its certificates;
//!   `images I`: what it says of images
//! - `phases`, `explain I`: what people see

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use muster_protocol::{ImageStatus, Input, Renewal};
use muster_wire::{CallNumber, Durable, Identity, Image, Wish};

#[allow(dead_code, reason = "other transcripts use the rest of it")]
mod site;
use site::Site;
use site::trace::Topic;

#[test]
fn every_transcript_is_what_happens() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<_> =
        fs::read_dir(&directory).expect("is there").map(|entry| entry.expect("is read").path()).collect();
    files.sort();
    assert!(files.len() >= 10, "founding, claim, etcd turn, replacement, poll, admission: {files:?}");
    let mut differ = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("is text");
        let now = play(&text, &file);
        if now == text {
            continue;
        }
        if env::var_os("MUSTER_BLESS").is_some() {
            fs::write(&file, now).expect("is written");
            continue;
        }
        let line = text.lines().zip(now.lines()).take_while(|(one, other)| one == other).count();
        differ.push(format!(
            "{} line {}: {:?} is now {:?}",
            file.display(),
            line + 1,
            text.lines().nth(line).unwrap_or_default(),
            now.lines().nth(line).unwrap_or_default()
        ));
    }
    assert!(differ.is_empty(), "{}\nMUSTER_BLESS=1 writes what comes out", differ.join("\n"));
}

/// The transcript as it comes out today.
fn play(text: &str, file: &Path) -> String {
    let mut out = String::new();
    let mut stage = Stage::default();
    for (number, line) in text.lines().enumerate() {
        if line.starts_with('#') || line.is_empty() {
            writeln!(out, "{line}").expect("fits");
        } else if let Some(command) = line.strip_prefix("> ") {
            writeln!(out, "{line}").expect("fits");
            let said = stage.obey(command).unwrap_or_else(|| panic!("{}:{}: {line}", file.display(), number + 1));
            for line in said {
                writeln!(out, "  {line}").expect("fits");
            }
        }
    }
    out
}

fn observed(renewal: Renewal, etcd_gone: bool) -> Input {
    Input::Observed { kubelet: None, certificates_end_s: 0, renewal, ca_ends_s: 0, sync_us: 0, etcd_gone }
}

#[derive(Default)]
struct Stage {
    site: Option<Site>,
    disks: BTreeMap<usize, Durable>,
}

impl Stage {
    /// Does what a line says. None if it says nothing that is known.
    fn obey(&mut self, command: &str) -> Option<Vec<String>> {
        let words: Vec<&str> = command.split(' ').collect();
        let (word, rest) = words.split_first()?;
        let numbers: Vec<usize> = rest.iter().map_while(|number| number.parse().ok()).collect();
        if *word == "site" {
            self.site = Some(Site::new(*numbers.first()? as u32, *numbers.get(1)? as u32));
            return Some(Vec::new());
        }
        let site = self.site.as_mut()?;
        match *word {
            "watch" => site.trace.topics = rest.iter().map(|topic| self::topic(topic)).collect::<Option<_>>()?,
            "boot" => numbers.iter().for_each(|seat| site.boot(*seat)),
            "kill" => drop(self.disks.insert(*numbers.first()?, site.kill(*numbers.first()?))),
            "back" => {
                let seat = *numbers.first()?;
                let settings = site.settings.clone();
                site.boot_with(seat, self.disks.remove(&seat)?, settings, &format!("node-{seat}"));
            }
            "wipe" => {
                let (seat, settings) = (*numbers.first()?, site.settings.clone());
                site.backups.remove(&seat);
                site.kill(seat);
                site.boot_as(seat, seat + 100, Durable::default(), settings, &format!("node-{seat}"));
            }
            "run" => site.run(Duration::from_secs_f64(rest.first()?.parse().ok()?)),
            "lose" => drop(site.lose.insert(known(rest.first()?)?, rest.get(1)?.parse().ok()?)),
            "fail" => drop(site.fail.insert((*numbers.first()?, known(rest.get(1)?)?))),
            "hang" => drop(site.hang.insert((*numbers.first()?, known(rest.get(1)?)?))),
            "mend" => drop(site.hang.remove(&(*numbers.first()?, known(rest.get(1)?)?))),
            "level" => drop(site.levels.insert(*numbers.first()?, *numbers.get(1)? as u32)),
            "other" => {
                let (seat, settings) = (*numbers.first()?, site.other_settings());
                let durable = self.disks.remove(&seat).unwrap_or_default();
                site.boot_with(seat, durable, settings, &format!("node-{seat}"));
            }
            "accept" | "accept-own" => {
                let image = if *word == "accept" { site.other_settings() } else { site.settings.clone() };
                let image = Image { digest: image.digest, kubernetes_version: image.kubernetes_version };
                let wish = Input::Wish { call: CallNumber(1), wish: Wish::AcceptImage(image), dry_run: rest.len() > 1 };
                site.feed(*numbers.first()?, wish);
                site.run(Duration::ZERO);
            }
            "remove" | "withdraw" => {
                let machine = Identity::from_seed(&site::seed(*numbers.get(1)?)).machine();
                let wish = match *word {
                    "remove" => Wish::RemoveMachine { machine, returns: rest.len() > 2 },
                    _ => Wish::WithdrawRemoval { machine },
                };
                let wish = Input::Wish { call: CallNumber(1), wish, dry_run: false };
                site.feed(*numbers.first()?, wish);
                site.run(Duration::ZERO);
            }
            "recover" => {
                site.feed(
                    *numbers.first()?,
                    Input::Recover {
                        call: CallNumber(1),
                        dry_run: rest.get(1) == Some(&"dry-run"),
                        backup: None,
                        works: rest.get(1).filter(|word| **word == "works").map(|_| "10.0.0.2:6443".to_owned()),
                    },
                );
                site.run(Duration::ZERO);
            }
            "restore" => {
                let backup = *site.backups.get(numbers.first()?)?.get(&(*numbers.get(1)? as u32))?;
                site.feed(
                    *numbers.first()?,
                    Input::Recover { call: CallNumber(1), dry_run: false, backup: Some(backup), works: None },
                );
                site.run(Duration::ZERO);
            }
            // A machine has another address; others reach it there.
            "move" => {
                let (seat, address) = (*numbers.first()?, rest.get(1)?.to_string());
                let (machine, at) = (site.id(seat), address.parse().ok()?);
                site.listed.insert(seat, vec![format!("{address}:7390")]);
                site.stands.insert(seat, at);
                site.feed(seat, Input::Addresses(vec![format!("{address}:7390")]));
                let others: Vec<usize> = site.seats.keys().copied().filter(|other| *other != seat).collect();
                others.iter().for_each(|other| site.feed(*other, Input::Reached { machine, address: at }));
                site.run(Duration::from_secs(3));
            }
            // A disk loses its backups.
            "forget-backups" => {
                let seat = *numbers.first()?;
                site.backups.remove(&seat);
                site.feed(seat, Input::Backups(Default::default()));
                site.run(Duration::ZERO);
            }
            "etcd-gone" => {
                site.feed(*numbers.first()?, observed(Renewal::NotYet, true));
                site.run(Duration::ZERO);
            }
            "certificates" => {
                let renewal = match *rest.get(1)? {
                    "due" => Renewal::Due,
                    "overdue" => Renewal::Overdue,
                    _ => Renewal::NotYet,
                };
                site.feed(*numbers.first()?, observed(renewal, false));
                site.run(Duration::ZERO);
            }
            "images" => {
                let images = site.seats[numbers.first()?].machine.images();
                let runs =
                    |image: &ImageStatus| image.machines.iter().map(|one| format!(" {}", one.name)).collect::<String>();
                let line = |image: &ImageStatus| {
                    let accepted = if image.accepted { "accepted" } else { "not accepted" };
                    format!("{} {} {accepted}:{}", &image.digest[..12], image.kubernetes_version, runs(image))
                };
                return Some(images.iter().map(line).collect());
            }
            "phases" => {
                let phase = |(seat, one): (&usize, &site::Seat)| format!("m{seat} {}", one.machine.phase().word());
                return Some(site.seats.iter().map(phase).collect());
            }
            "may-start" => {
                let said = site.seats[numbers.first()?].machine.may_start(site.now);
                let said = said.map_or_else(|why| site.trace.rename(&format!("no: {why}")), |()| "yes".to_owned());
                return Some(vec![said]);
            }
            "explain" => {
                let reasons = site.seats[numbers.first()?].machine.reasons(site.now);
                return Some(
                    reasons
                        .iter()
                        .map(|reason| format!("[{}] {}", reason.about, site.trace.rename(&reason.text)))
                        .collect(),
                );
            }
            _ => return None,
        }
        Some(std::mem::take(&mut site.trace.lines))
    }
}

fn topic(word: &str) -> Option<Topic> {
    Some(match word {
        "founding" => Topic::Founding,
        "ledger" => Topic::Ledger,
        "polls" => Topic::Polls,
        "steps" => Topic::Steps,
        "notices" => Topic::Notices,
        _ => return None,
    })
}

/// The name of a step or of a frame's kind, as the core spells it.
fn known(word: &str) -> Option<&'static str> {
    const NAMES: [&str; 22] = [
        "back-up",
        "register",
        "renew",
        "renew-kubelet",
        "check",
        "prepare",
        "make-pki",
        "init",
        "init-finish",
        "found",
        "found-finish",
        "join",
        "join-etcd",
        "join-finish",
        "await-ready",
        "leave-etcd",
        "drain",
        "open",
        "strike",
        "reset",
        "accepted",
        "ledger-news",
    ];
    NAMES.into_iter().find(|name| *name == word)
}
