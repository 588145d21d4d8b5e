//! A command line as a kubeadm of some version reads it: which command it is for, and what it refuses of it.
//!
//! The words of the refusals are those of the libraries `spf13/cobra` v1.10 and `spf13/pflag` v1.0, and of
//! `cmd/kubeadm/app/apis/kubeadm/validation/validation.go` (v1.34.4 to v1.37.2).

use std::collections::BTreeMap;

use super::flags::GLOBAL;
use super::{Flag, OTHERS, Row, Workflow};

/// A command line that kubeadm takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// The command: `init phase certs all`, `token delete`.
    pub command: Vec<String>,
    /// What follows it and is no flag.
    pub operands: Vec<String>,
    flags: BTreeMap<&'static str, String>,
}

/// Why kubeadm takes a command line not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The command has no such flag.
    #[error("unknown flag: --{0}")]
    UnknownFlag(String),
    /// Nor one of that letter.
    #[error("unknown shorthand flag: {0:?} in -{0}")]
    UnknownLetter(char),
    /// A value is missing.
    #[error("flag needs an argument: --{0}")]
    NoValue(String),
    /// There is no such command, or words follow one that takes none.
    #[error("unknown command {word:?} for \"{above}\"")]
    UnknownCommand {
        /// The word.
        word: String,
        /// The command it follows, with `kubeadm`.
        above: String,
    },
    /// More words than the command takes.
    #[error("accepts at most {most} arg(s), received {given}")]
    TooMany {
        /// How many it takes.
        most: usize,
        /// How many there are.
        given: usize,
    },
    /// The command is there for those below it alone; kubeadm prints its help first.
    #[error("subcommand is required")]
    NoCommand,
    /// `--config` says what these flags would.
    #[error("can not mix '--config' with arguments [{}]", .0.join(" "))]
    Mixed(Vec<String>),
}

impl CommandLine {
    /// Reads the arguments after kubeadm's own name.
    ///
    /// # Errors
    /// Whatever makes this minor version end before it has looked at any file.
    pub fn parse(args: &[String], minor: u32) -> Result<Self, Refusal> {
        let (words, given) = take_apart(args);
        let mut depth = 0;
        while words.get(depth).is_some_and(|_| exists(&words[..=depth], minor)) {
            depth += 1;
        }
        let (command, operands) = (words[..depth].to_vec(), words[depth..].to_vec());
        let above = ["kubeadm"].into_iter().chain(command.iter().map(String::as_str)).collect::<Vec<_>>().join(" ");
        let unknown = |word: &String| Refusal::UnknownCommand { word: word.clone(), above: above.clone() };
        if let (0, Some(word)) = (depth, operands.first()) {
            return Err(unknown(word));
        }
        let known = flags_of(&command, minor);
        let mut flags = BTreeMap::new();
        for (name, value) in given {
            let flag = known.iter().find(|flag| name.is(flag)).ok_or_else(|| name.unknown())?;
            flags.insert(flag.name, value.map_or_else(|| name.without_value(flag), Ok)?);
        }
        let line = Self { command, operands, flags };
        match (leaf(&line.command, minor), line.operands.first()) {
            (None, Some(word)) => return Err(unknown(word)),
            (None, None) => return Err(Refusal::NoCommand),
            (Some(Row { operands: 0, .. }), Some(word)) => return Err(unknown(word)),
            (Some(row), _) if line.operands.len() > row.operands => {
                return Err(Refusal::TooMany { most: row.operands, given: line.operands.len() });
            }
            _ => {}
        }
        line.is_not_mixed().map(|()| line)
    }

    /// The value of a flag that is given; `true` for one that takes none.
    pub fn flag(&self, name: &str) -> Option<&str> {
        self.flags.get(name).map(String::as_str)
    }

    /// The items of a flag that is a list.
    pub fn list(&self, name: &str) -> Vec<&str> {
        self.flag(name).map(|value| value.split(',').collect()).unwrap_or_default()
    }

    fn is_not_mixed(&self) -> Result<(), Refusal> {
        const BESIDE: [&str; 15] = [
            "config",
            "ignore-preflight-errors",
            "dry-run",
            "kubeconfig",
            "node-name",
            "kubeconfig-dir",
            "upload-certs",
            "print-manifest",
            "allow-missing-template-keys",
            "output",
            "show-managed-fields",
            "print-join-command",
            "rootfs",
            "v",
            "yes",
        ];
        // Its flags concern the check, not the configuration.
        if !self.flags.contains_key("config") || self.command == ["config", "validate"] {
            return Ok(());
        }
        let mixed = self.flags.keys().filter(|name| !BESIDE.contains(name) && !name.starts_with("skip-"));
        let mixed: Vec<String> = mixed.map(|&name| name.to_owned()).collect();
        if mixed.is_empty() { Ok(()) } else { Err(Refusal::Mixed(mixed)) }
    }
}

/// The flags of a command and of those above it.
fn flags_of(command: &[String], minor: u32) -> Vec<Flag> {
    let mut flags: Vec<Flag> = GLOBAL.to_vec();
    if let Some(row) = leaf(command, minor) {
        flags.extend(row.flags);
    }
    // Of the commands with others below them only these hand their flags down.
    if command.len() > 1 && matches!(command[0].as_str(), "token" | "config") {
        flags.extend(OTHERS.iter().filter(|row| row.name == command[0]).flat_map(|row| row.flags));
    }
    flags.retain(|flag| flag.first <= minor);
    flags
}

fn workflow(name: &str) -> Option<Workflow> {
    [Workflow::Init, Workflow::Join, Workflow::Reset].into_iter().find(|workflow| workflow.name() == name)
}

/// Whether a command is there, be it for those below it alone.
fn exists(command: &[String], minor: u32) -> bool {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    match words[..] {
        [name, "phase"] => workflow(name).is_some(),
        [name, "phase", ref phase @ ..] => {
            workflow(name).is_some_and(|workflow| workflow.is_command(&phase.join("/"), minor))
        }
        _ => OTHERS.iter().any(|row| row.name == words.join(" ") && row.is_in(minor)),
    }
}

/// The row of a command that does something.
fn leaf(command: &[String], minor: u32) -> Option<&'static Row> {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    match words[..] {
        [] | ["token"] | ["config"] | ["config", "images"] => None,
        [name, "phase", ref phase @ ..] => {
            let (workflow, name) = (workflow(name)?, phase.join("/"));
            // A phase with parts is a command for them.
            workflow.row(&name, minor).filter(|_| workflow.parts(&name, minor).next().is_none())
        }
        _ => OTHERS.iter().find(|row| row.name == words.join(" ") && row.is_in(minor)),
    }
}

/// A flag with the value that follows it, if any does.
type Given = (Name, Option<String>);

/// A flag as it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Long(String),
    Letter(char),
}

impl Name {
    fn is(&self, flag: &Flag) -> bool {
        match self {
            Name::Long(name) => flag.name == name,
            Name::Letter(letter) => flag.short == Some(*letter),
        }
    }

    fn unknown(&self) -> Refusal {
        match self {
            Name::Long(name) => Refusal::UnknownFlag(name.clone()),
            Name::Letter(letter) => Refusal::UnknownLetter(*letter),
        }
    }

    fn without_value(&self, flag: &Flag) -> Result<String, Refusal> {
        if flag.takes_value { Err(Refusal::NoValue(flag.name.to_owned())) } else { Ok("true".to_owned()) }
    }
}

/// Words and flags. Whether a flag takes a value is the same wherever there is a flag of its name; what is none takes none.
fn take_apart(args: &[String]) -> (Vec<String>, Vec<Given>) {
    let rows = [super::INIT, super::JOIN, super::RESET, OTHERS];
    let all = || rows.iter().flat_map(|rows| rows.iter()).flat_map(|row| row.flags).chain(GLOBAL);
    let (mut words, mut given) = (Vec::new(), Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let (name, value) = match (arg.strip_prefix("--"), arg.strip_prefix('-')) {
            (Some(long), _) => match long.split_once('=') {
                Some((name, value)) => (Name::Long(name.to_owned()), Some(value.to_owned())),
                None => (Name::Long(long.to_owned()), None),
            },
            (None, Some(short)) if !short.is_empty() => {
                let (letter, rest) = short.split_at(short.chars().next().map_or(0, char::len_utf8));
                let letter = letter.chars().next().unwrap_or_default();
                (Name::Letter(letter), (!rest.is_empty()).then(|| rest.trim_start_matches('=').to_owned()))
            }
            _ => {
                words.push(arg.clone());
                continue;
            }
        };
        let takes_value = all().any(|flag| name.is(flag) && flag.takes_value);
        let value = if value.is_none() && takes_value { args.next().cloned() } else { value };
        given.push((name, value));
    }
    (words, given)
}
