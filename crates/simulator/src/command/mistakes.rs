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
    /// Most seeds that are run for each, variations of them among them.
    #[arg(long, default_value_t = 1_000)]
    seeds_max: u64,
    /// Only in these scenarios, which take turns.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    scenario: Vec<String>,
    /// Begin with this seed of each scenario: to see how much of a result is luck.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    first: u64,
    /// Only seeds, no variations of runs that came to states of the protocol which few others came to.
    #[arg(long)]
    unguided: bool,
    /// Print one line of JSON for each.
    #[arg(long)]
    json: bool,
}

impl Planted {
    #[cfg(not(feature = "planted-bugs"))]
    pub(super) fn execute(&self) -> Result<Verdict, Failure> {
        let Self { bug, seeds_max, scenario, first, unguided, json } = self;
        let mut wanted = bug.as_ref().map_or(String::new(), |bug| format!(" --bug {bug}"));
        wanted.push_str(&format!(" --seeds-max {seeds_max}"));
        if !scenario.is_empty() {
            wanted.push_str(&format!(" --scenario {}", scenario.join(",")));
        }
        if *first > 0 {
            wanted.push_str(&format!(" --first {first}"));
        }
        for (given, word) in [(unguided, " --unguided"), (json, " --json")] {
            wanted.push_str(if *given { word } else { "" });
        }
        Err(Failure(format!(
            "this build has no mistakes in it; in a clone of muster's repository, run\n  \
             cargo run --package muster-simulator --features planted-bugs -- planted{wanted}"
        )))
    }

    #[cfg(feature = "planted-bugs")]
    pub(super) fn execute(&self) -> Result<Verdict, Failure> {
        use crate::planted::{Search, look_for, names};
        let all: Vec<&str> = names().collect();
        if let Some(bug) = self.bug.as_deref().filter(|bug| !all.contains(bug)) {
            return Err(Failure(format!("no mistake is called {bug:?}; there are {}", all.join(", "))));
        }
        if !self.json {
            println!("{:<24} {:<6} {:>6}  {:<34} what it does", "mistake", "breaks", "seeds", "seen");
        }
        let mut search = Search::everywhere(self.seeds_max);
        (search.first, search.guided) = (self.first, !self.unguided);
        if !self.scenario.is_empty() {
            search.scenarios.clone_from(&self.scenario);
        }
        if let Some(name) = search.scenarios.iter().find(|name| crate::built_in::text(name).is_none()) {
            return Err(Failure(format!("no scenario is called {name:?}; `muster-sim list` names all there are")));
        }
        let mut unseen = 0;
        for name in all.into_iter().filter(|name| self.bug.as_deref().is_none_or(|bug| bug == *name)) {
            let Some(found) = look_for(name, &search) else { continue };
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
