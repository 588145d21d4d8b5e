//! `muster-sim planted`.

use clap::Args;

use super::Failure;
use crate::run::Verdict;

/// Plant mistakes and look for them.
#[derive(Args)]
pub(super) struct Planted {
    /// Only this mistake.
    #[arg(long, value_name = "NAME")]
    bug: Option<String>,
    /// Most seeds that are run for each.
    #[arg(long, default_value_t = 1_000)]
    seeds_max: u64,
    /// Print one line of JSON for each.
    #[arg(long)]
    json: bool,
}

impl Planted {
    #[cfg(not(feature = "planted-bugs"))]
    pub(super) fn execute(&self) -> Result<Verdict, Failure> {
        let Self { bug, seeds_max, json } = self;
        let mut wanted = bug.as_ref().map_or(String::new(), |bug| format!(" --bug {bug}"));
        wanted.push_str(&format!(" --seeds-max {seeds_max}{}", if *json { " --json" } else { "" }));
        Err(Failure(format!(
            "this build has no mistakes in it; in a clone of muster's repository, run\n  \
             cargo run --package muster-simulator --features planted-bugs -- planted{wanted}"
        )))
    }

    #[cfg(feature = "planted-bugs")]
    pub(super) fn execute(&self) -> Result<Verdict, Failure> {
        use crate::planted::{look_for, names};
        let all: Vec<&str> = names().collect();
        if let Some(bug) = self.bug.as_deref().filter(|bug| !all.contains(bug)) {
            return Err(Failure(format!("no mistake is called {bug:?}; there are {}", all.join(", "))));
        }
        if !self.json {
            println!("{:<24} {:<6} {:>6}  {:<34} what it does", "mistake", "breaks", "seeds", "seen");
        }
        let mut unseen = 0;
        for name in all.into_iter().filter(|name| self.bug.as_deref().is_none_or(|bug| bug == *name)) {
            let Some(found) = look_for(name, self.seeds_max) else { continue };
            if self.json {
                super::print_json(&found)?;
                continue;
            }
            let seen = match &found.seen {
                Some((scenario, seed, promise)) => format!("{promise} in {scenario} seed {seed}"),
                None => "NOT SEEN".to_owned(),
            };
            unseen += u64::from(found.seen.is_none());
            println!("{:<24} {:<6} {:>6}  {seen:<34} {}", found.name, found.breaks, found.seeds, found.what);
        }
        Ok(if unseen == 0 { Verdict::Held } else { Verdict::NotEnoughSeen })
    }
}
