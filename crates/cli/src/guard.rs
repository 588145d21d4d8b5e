//! `muster guard`: whether the kubelet may start.

use std::time::{Duration, Instant};

use muster_agent::guard::{Guarded, asks_first, before_kubelet, start_alone};
use muster_kubeadm::guard::{Asked, Asking, Word};
use serde::Deserialize;
use serde_json::json;

use crate::api::Agent;
use crate::args::GuardArguments;
use crate::exit::Exit;
use crate::print;

/// How long one answer may take, and the pause before the next question.
const ANSWER: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(200);

/// What the agent says.
#[derive(Debug, Deserialize)]
struct Says {
    starts: bool,
    why: Option<String>,
}

pub(crate) async fn carry_out(arguments: &GuardArguments) -> anyhow::Result<Exit> {
    if arguments.alone {
        start_alone(&arguments.root)?;
    }
    let mut waited = Waited::default();
    if asks_first(&arguments.root) {
        waited = wait(arguments).await?;
    }
    let guarded = match waited.why {
        Some(why) => Guarded { withheld: Some(why), ..Guarded::default() },
        None => before_kubelet(&arguments.root, arguments.dry_run),
    };
    let exit = if guarded.withheld.is_some() { Exit::Failed } else { Exit::Done };
    if arguments.json {
        let report = json!({
            "starts": guarded.withheld.is_none(),
            "why": guarded.withheld,
            "changed": guarded.changed,
            "troubles": guarded.troubles,
            "agent": waited.agent,
            "dry_run": arguments.dry_run,
        });
        print::line(&format!("{report:#}"))?;
        return Ok(exit);
    }
    let verb = if arguments.dry_run { "would write" } else { "wrote" };
    for path in &guarded.changed {
        print::line(&format!("{verb} {}", path.display()))?;
    }
    for trouble in &guarded.troubles {
        print::complaint(&format!("cannot write {trouble}; the kubelet starts all the same"));
    }
    if let Some(why) = &guarded.withheld {
        print::complaint(&format!("the kubelet must not start: {why}"));
    }
    Ok(exit)
}

/// What became of asking the agent.
#[derive(Debug, Default)]
struct Waited {
    /// Why the kubelet must not start yet.
    why: Option<String>,
    /// `starts`, `waits` or `silent`, if it was asked.
    agent: Option<&'static str>,
}

/// Asks the agent until it lets the kubelet start, or is silent for too long, or the time is over; once where nothing is to happen.
async fn wait(arguments: &GuardArguments) -> anyhow::Result<Waited> {
    let (agent, begun) = (Agent::at(&arguments.socket), Instant::now());
    let (mut asking, mut said) = (Asking::default(), None);
    loop {
        let answer = tokio::time::timeout(ANSWER, agent.json::<Says>("/v1/start")).await;
        let (word, silence) = match answer {
            Ok(Ok(Says { starts: true, .. })) => (Word::Starts, None),
            Ok(Ok(Says { why, .. })) => (Word::Waits(why.unwrap_or_default()), None),
            Ok(Err(unheard)) => (Word::Silence, Some(unheard.to_string())),
            Err(_) => (Word::Silence, Some(format!("the agent at {} does not answer", arguments.socket.display()))),
        };
        if let Word::Waits(why) = &word
            && said.as_ref() != Some(why)
            && !arguments.json
        {
            print::line(&format!("the kubelet waits: {why}"))?;
            said = Some(why.clone());
        }
        let since = if arguments.dry_run { Duration::MAX } else { begun.elapsed() };
        let asked = asking.hear(since, word);
        match asked {
            Asked::Starts => return Ok(Waited { why: None, agent: Some("starts") }),
            Asked::Unheard => {
                let silence = silence.unwrap_or_default();
                print::complaint(&format!("{silence}; the kubelet starts without its word"));
                return Ok(Waited { why: None, agent: Some("silent") });
            }
            // A person may have said so meanwhile, or what was here is gone.
            Asked::Again | Asked::GivesUp(_) if !asks_first(&arguments.root) => return Ok(Waited::default()),
            Asked::GivesUp(why) => return Ok(Waited { why: Some(why), agent: Some("waits") }),
            Asked::Again => tokio::time::sleep(PAUSE).await,
        }
    }
}
