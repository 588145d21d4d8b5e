//! kubeadm's command line: words, then flags.

use std::collections::BTreeMap;

use crate::failure::{Failure, fail};

/// A command line taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// What is not a flag, in order: `init phase certs all`.
    pub(crate) words: Vec<String>,
    flags: BTreeMap<String, String>,
}

/// Flags that stand alone.
const SWITCHES: [&str; 4] = ["force", "skip-token-print", "upload-certs", "control-plane"];

/// Short names.
const SHORT: [(&str, &str); 2] = [("-f", "force"), ("-o", "output")];

impl Arguments {
    pub(crate) fn parse(given: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut parsed = Self::default();
        let mut given = given;
        while let Some(word) = given.next() {
            let short = SHORT.iter().find(|(short, _)| *short == word).map(|(_, long)| format!("--{long}"));
            let Some(flag) = short.as_deref().unwrap_or(&word).strip_prefix("--").map(str::to_owned) else {
                parsed.words.push(word);
                continue;
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None if SWITCHES.contains(&flag.as_str()) => (flag, "true".to_owned()),
                None => {
                    let value = given.next().ok_or_else(|| fail(format!("flag needs an argument: --{flag}")))?;
                    (flag, value)
                }
            };
            parsed.flags.insert(name, value);
        }
        Ok(parsed)
    }

    /// Refuses flags that the command does not have; all have `--v`.
    pub(crate) fn allow(&self, flags: &[&str]) -> Result<(), Failure> {
        match self.flags.keys().find(|name| *name != "v" && !flags.contains(&name.as_str())) {
            Some(name) => Err(fail(format!("unknown flag: --{name}"))),
            None => Ok(()),
        }
    }

    pub(crate) fn flag(&self, name: &str) -> Option<&str> {
        self.flags.get(name).map(String::as_str)
    }

    /// The items of a flag that is a list.
    pub(crate) fn list(&self, name: &str) -> Vec<&str> {
        self.flag(name).map(|value| value.split(',').collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, Failure> {
        Arguments::parse(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn takes_words_and_flags_apart() {
        let parsed = parse("init phase certs all --config /x.yaml --v=5").expect("parses");
        assert_eq!(parsed.words, ["init", "phase", "certs", "all"]);
        assert_eq!(parsed.flag("config"), Some("/x.yaml"));
        assert_eq!(parse("reset -f").expect("parses").flag("force"), Some("true"));
        assert_eq!(parse("join --skip-phases=a,b").expect("parses").list("skip-phases"), ["a", "b"]);
        assert!(parse("join --config").is_err());
        assert!(parsed.allow(&[]).is_err());
        assert!(parsed.allow(&["config"]).is_ok());
    }
}
