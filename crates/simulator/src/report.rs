//! One run as one self-contained HTML page: nothing in it is fetched from anywhere.

mod data;

use std::fmt::Write;

use crate::run::Outcome;
use crate::scenario::Scenario;
use crate::trace::Trace;
use crate::world::World;

const STYLE: &str = include_str!("report/page.css");
const BODY: &str = include_str!("report/page.html");
const SCRIPT: &str = include_str!("report/page.js");

/// The page. `command` is what gives the same run again.
pub fn html(scenario: &Scenario, outcome: &Outcome, world: &World, command: &str) -> String {
    let empty = Trace::default();
    let trace = world.watch().trace.as_ref().unwrap_or(&empty);
    let data = serde_json::to_string(&data::Data::new(outcome, world, trace)).unwrap_or_default();
    let title = escape(&scenario.title);
    let verdict = outcome.verdict.word();
    let mut page = String::with_capacity(data.len() + 64 * 1024);
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">\
         <title>{verdict}: {title}</title><link rel=\"icon\" href=\"data:,\"><style>{STYLE}</style></head><body>\n\
         <header class=\"{verdict}\"><h1>{title}</h1><p class=\"verdict\">{}</p><p>{}</p>\
         <p class=\"truth\">seed {} · {} machines · {:.1} virtual s · {} events · {} frames, {} of them lost · hash \
         <code>{}</code></p><p><code>{}</code></p></header>\n",
        verdict,
        escape(&outcome.what()),
        outcome.name,
        world.slots(),
        outcome.virtual_us as f64 / 1e6,
        outcome.events,
        outcome.frames,
        outcome.lost.values().sum::<u64>(),
        outcome.hash,
        escape(command),
    );
    page.push_str(&promises(outcome));
    page.push_str(BODY);
    let _ = writeln!(
        page,
        "<details><summary>The scenario</summary><pre tabindex=\"0\">{}</pre></details></main>",
        escape(&scenario.to_toml())
    );
    // `<` inside JSON strings could end the script element.
    let data = data.replace('<', "\\u003c");
    let _ = writeln!(page, "<script>\n\"use strict\";\nconst DATA = {data};\n{SCRIPT}</script></body></html>");
    page
}

fn promises(outcome: &Outcome) -> String {
    let mut text = String::from("<main><section><h2>Promises</h2><table>");
    let safety = outcome.broken.as_ref().filter(|broken| broken.promise.starts_with('S'));
    let said = safety.map_or("held".to_owned(), |broken| format!("{} broken: {}", broken.promise, broken.what));
    let _ = write!(text, "<tr><th scope=\"row\">S1 to S10</th><td>{}</td></tr>", escape(&said));
    for (promise, standing) in &outcome.liveness {
        let _ = write!(text, "<tr><th scope=\"row\">{promise}</th><td>{}</td></tr>", escape(&standing.to_string()));
    }
    let reached: Vec<String> = outcome.sometimes.iter().map(|(name, count)| format!("{name} ({count})")).collect();
    let _ = writeln!(text, "<tr><th scope=\"row\">Reached</th><td>{}</td></tr></table></section>", reached.join(", "));
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
