//! A test double of kubeadm. It has kubeadm's command line for what muster's plan runs, reads the same documents strictly,
//! uses a real CA on disk, and in the place of a control plane starts one small TLS server that checks tokens, serves
//! Nodes and keeps a membership list as etcd would. No container runs and no cluster is made, and it says so in every
//! output. What it is told by its environment: see `docs/rehearsal.md`.

#![forbid(unsafe_code)]

mod arguments;
mod client;
mod discovery;
mod document;
mod failure;
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
mod schema;
mod server;
mod setting;
mod state;
mod workflow;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use arguments::Arguments;
use failure::{Failure, fail};
use init::Init;
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

/// Runs the double: `args` are all arguments of the process, its own name first. The exit code is kubeadm's: 0 or 1.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words = args.into_iter().skip(1).map(|word| word.to_string_lossy().into_owned());
    let mut words = words.peekable();
    words.next_if(|word| word == SUBCOMMAND);
    eprintln!("{NOTICE}");
    match run(words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            eprintln!("To see the stack trace of this error execute with --v=5 or higher");
            ExitCode::FAILURE
        }
    }
}

fn run(words: impl Iterator<Item = String>) -> Result<(), Failure> {
    let arguments = Arguments::parse(words)?;
    let words: Vec<_> = arguments.words.iter().map(String::as_str).collect();
    if let [pods::SERVE, dir] = words[..] {
        return server::Server::run(pods::Pods::read(Path::new(dir))?);
    }
    let setting = Setting::from_environment(words != ["version"])?;
    match words[..] {
        ["version"] => version(&setting, &arguments),
        ["init", ..] => init::run(&setting, &arguments),
        ["join", ..] => join::run(&setting, &arguments),
        ["reset"] => reset::run(&setting, &arguments),
        ["token", ..] => token(&setting, &arguments),
        ["config", "images", "pull"] => {
            arguments.allow(&["config"])?;
            workflow::run(&setting, "", "images-pull", || {
                Init::load(&setting, &arguments)?;
                setting.take(5.0);
                println!("[config/images] Pulled nothing: no container will run");
                Ok(())
            })
        }
        ["config", "validate"] if setting.version.minor >= 28 => {
            arguments.allow(&["config"])?;
            let path = arguments.flag("config").ok_or_else(|| fail("the --config flag is mandatory"))?;
            document::Documents::read(path, &setting.version)?;
            println!("ok");
            Ok(())
        }
        // What the kubelet does when a machine has booted: start what its manifests say.
        ["rehearsal-start"] => pods::start(&setting),
        _ => Err(fail(format!("unknown command {:?} for \"kubeadm\"", words.join(" ")))),
    }
}

fn version(setting: &Setting, arguments: &Arguments) -> Result<(), Failure> {
    arguments.allow(&["output"])?;
    let text = &setting.version.text;
    workflow::run(setting, "", "version", || {
        setting.take(0.1);
        match arguments.flag("output") {
            Some("short") => println!("{text}"),
            _ => println!(
                "{:#}",
                json!({ "clientVersion": {
                    "major": "1",
                    "minor": setting.version.minor.to_string(),
                    "gitVersion": text,
                    "gitTreeState": NOTICE,
                    "platform": "linux/rehearsal",
                }})
            ),
        }
        Ok(())
    })
}

fn token(setting: &Setting, arguments: &Arguments) -> Result<(), Failure> {
    arguments.allow(&["config", "kubeconfig"])?;
    let path = arguments.flag("kubeconfig").map_or_else(|| setting.admin_conf(), Into::into);
    let words: Vec<_> = arguments.words.iter().map(String::as_str).collect();
    match words[1..] {
        ["create"] => workflow::run(setting, "", "token-create", || {
            let client = kubeconfig::client(&path, setting.hosts.clone())?;
            setting.take(0.3);
            for (token, ttl_seconds) in Init::load(setting, arguments)?.tokens() {
                let op = json!({ "op": "create-token", "token": token, "ttl_seconds": ttl_seconds, "replace": false });
                client.post("/rehearsal/v1/op", &op)?;
                println!("{token}");
            }
            Ok(())
        }),
        ["delete", id] => workflow::run(setting, "", "token-delete", || {
            let client = kubeconfig::client(&path, setting.hosts.clone())?;
            setting.take(0.3);
            let id = id.split('.').next().unwrap_or_default();
            client.post("/rehearsal/v1/op", &json!({ "op": "delete-token", "id": id }))?;
            println!("bootstrap token {id:?} deleted");
            Ok(())
        }),
        ["list"] => {
            let ids = kubeconfig::client(&path, setting.hosts.clone())?.get("/rehearsal/v1/tokens")?;
            println!("{ids:#}");
            Ok(())
        }
        _ => Err(fail(format!("unknown command {:?} for \"kubeadm token\"", words[1..].join(" ")))),
    }
}
