//! `muster guard`: whether the kubelet may start.

use muster_agent::guard::before_kubelet;
use serde_json::json;

use crate::args::GuardArguments;
use crate::exit::Exit;
use crate::print;

pub(crate) fn carry_out(arguments: &GuardArguments) -> anyhow::Result<Exit> {
    let guarded = before_kubelet(&arguments.root, arguments.dry_run);
    let exit = if guarded.withheld.is_some() { Exit::Failed } else { Exit::Done };
    if arguments.json {
        let report = json!({
            "starts": guarded.withheld.is_none(),
            "why": guarded.withheld,
            "changed": guarded.changed,
            "troubles": guarded.troubles,
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
