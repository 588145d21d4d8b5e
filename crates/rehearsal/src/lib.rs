//! A test double of kubeadm. It has kubeadm's command line for what muster's plan runs, reads the same documents strictly,
//! uses a real CA on disk, and in the place of a control plane starts one small TLS server that checks tokens, serves
//! Nodes and keeps a membership list as etcd would. No container runs and no cluster is made, and it says so in every
//! output. What it is told by its environment: see `docs/rehearsal.md`.

#![forbid(unsafe_code)]

mod client;
mod config;
mod discovery;
mod document;
mod failure;
mod founders;
mod init;
mod join;
mod jws;
mod kubeconfig;
mod machine;
mod objects;
mod pki;
mod pods;
mod preflight;
mod reset;
mod say;
mod server;
mod setting;
mod state;
mod workflow;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use muster_kubeadm::Version;
use muster_kubeadm::versions::{self, CommandLine};
use serde_json::json;

use failure::{Failure, fail};
use init::Init;
use say::{complain, say};
use setting::Setting;

/// The first line of every output, on standard error so that what programs read stays readable.
const NOTICE: &str = "rehearsal kubeadm: a test double, no cluster is made";

/// The word by which a program called otherwise is the double: `muster rehearsal-kubeadm init ...`.
const SUBCOMMAND: &str = "rehearsal-kubeadm";

/// Whether a program called in this way is meant to be the double: by the name `kubeadm`, or with the word
/// `rehearsal-kubeadm` first.
pub fn is_called_by(args: impl IntoIterator<Item = OsString>) -> bool {
    let mut args = args.into_iter();
    let name = args.next().unwrap_or_default();
    Path::new(&name).file_name().is_some_and(|name| name == "kubeadm")
        || args.next().is_some_and(|word| word == SUBCOMMAND)
}

/// Runs the double: `args` are all arguments of the process, its own name first. The exit code is kubeadm's.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut words: Vec<_> = args.into_iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    if words.first().is_some_and(|word| word == SUBCOMMAND) {
        words.remove(0);
    }
    complain!("{NOTICE}");
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain!("error: {failure}");
            complain!("To see the stack trace of this error execute with --v=5 or higher");
            ExitCode::from(versions::EXIT_FAILED)
        }
    }
}

fn run(words: &[String]) -> Result<(), Failure> {
    if let [word, dir] = words
        && word == pods::SERVE
    {
        return server::Server::run(pods::Pods::read(Path::new(dir))?);
    }
    let setting = Setting::from_environment(words.first().is_none_or(|word| word != "version"))?;
    if words == ["rehearsal-start"] {
        // What the kubelet does when a machine has booted: start what its manifests say.
        return pods::start(&setting);
    }
    // One that muster refuses has to be able to say which version it is.
    let minor = setting.version.minor.clamp(Version::OLDEST_MINOR, Version::NEWEST_MINOR);
    let line = CommandLine::parse(words, minor).map_err(|refusal| fail(refusal.to_string()))?;
    match line.command.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["version"] => version(&setting, &line),
        ["init", ..] => init::run(&setting, &line),
        ["join", ..] => join::run(&setting, &line),
        ["reset", ..] => reset::run(&setting, &line),
        ["certs", "renew", "all"] => init::renew(&setting, &line),
        ["token", command] => token(&setting, &line, command),
        ["config", ..] => config::run(&setting, &line),
        _ => Err(fail("the rehearsal does nothing of this kind")),
    }
}

fn version(setting: &Setting, line: &CommandLine) -> Result<(), Failure> {
    let text = &setting.version.text;
    workflow::run(setting, "", "version", || {
        setting.take(0.1);
        match line.flag("output") {
            Some("short") => say!("{text}"),
            None | Some("json" | "yaml") => say!(
                "{:#}",
                json!({ "clientVersion": {
                    "major": "1",
                    "minor": setting.version.minor.to_string(),
                    "gitVersion": text,
                    "gitTreeState": NOTICE,
                    "platform": "linux/rehearsal",
                }})
            ),
            Some(other) => return Err(fail(format!("invalid output format: {other}"))),
        }
        Ok(())
    })
}

fn token(setting: &Setting, line: &CommandLine, command: &str) -> Result<(), Failure> {
    const PATTERN: (&str, &str) = (r"\A([a-z0-9]{6})\.([a-z0-9]{16})\z", r"\A([a-z0-9]{6})\z");
    let path = line.flag("kubeconfig").map_or_else(|| setting.admin_conf(), Into::into);
    let client = || {
        kubeconfig::client(&path, setting.hosts.clone())
            .map_err(|error| fail(format!("failed to load admin kubeconfig: {error}")))
    };
    match command {
        // A token that is malformed is still a secret.
        "create" if line.operands.first().is_some_and(|token| !document::is_token(token)) => {
            Err(fail(format!("the bootstrap token was not of the form {:?}", PATTERN.0)))
        }
        "create" if line.operands.is_empty() => workflow::run(setting, "", "token-create", || {
            let client = client()?;
            setting.take(0.3);
            for (token, ttl_seconds) in Init::load(setting, line)?.tokens() {
                let op = json!({ "op": "create-token", "token": token, "ttl_seconds": ttl_seconds, "replace": false });
                client.post("/rehearsal/v1/op", &op)?;
                say!("{token}");
            }
            Ok(())
        }),
        "delete" if line.operands.is_empty() => Err(fail(format!(
            "missing argument; 'token delete' is missing token of form {:?} or {:?}",
            PATTERN.0, PATTERN.1
        ))),
        "delete" => workflow::run(setting, "", "token-delete", || {
            let client = client()?;
            setting.take(0.3);
            for given in &line.operands {
                let id = given.split('.').next().unwrap_or_default();
                if !(given == id && document::is_token_part(id, 6) || document::is_token(given)) {
                    return Err(fail(format!("given token didn't match pattern {:?} or {:?}", PATTERN.0, PATTERN.1)));
                }
                client
                    .post("/rehearsal/v1/op", &json!({ "op": "delete-token", "id": id }))
                    .map_err(|error| fail(format!("failed to delete bootstrap token {id:?}: {error}")))?;
                say!("bootstrap token {id:?} deleted");
            }
            Ok(())
        }),
        "list" => {
            let ids = client()?.get("/rehearsal/v1/tokens")?;
            say!("{ids:#}");
            Ok(())
        }
        _ => Err(fail("the rehearsal makes the tokens of a document alone")),
    }
}
