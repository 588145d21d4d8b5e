//! The values of all keys, layered: muster.toml, a volume's, the kernel command line, a credential's, flags.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::key::{self, KEYS, Key, nearest};
use super::kind::Value;
use super::problem::{self, Beside, Place, Problem};

/// Values by dotted key, each with where it comes from.
#[derive(Debug, Default)]
pub(crate) struct Values {
    values: BTreeMap<&'static str, (Value, Place)>,
    /// As [`super::Overrides::elsewhere`].
    elsewhere: Option<Vec<PathBuf>>,
}

impl Values {
    /// None yet, of this machine or of others.
    pub(crate) fn of(elsewhere: Option<Vec<PathBuf>>) -> Self {
        Self { elsewhere, ..Self::default() }
    }

    /// Whether they are other machines' own.
    pub(crate) fn are_of_others(&self) -> bool {
        self.elsewhere.is_some()
    }

    /// What such a file is called where it is read: on the machine that it is for.
    pub(crate) fn called(&self, file: &Path) -> String {
        let there = self.elsewhere.iter().flatten().find_map(|directory| file.strip_prefix(directory).ok());
        there.map_or_else(|| file.display().to_string(), |path| format!("/{}", path.display()))
    }

    /// Where a file that a value names is on this machine.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        let below = |directory: &PathBuf| directory.join(path.trim_start_matches('/'));
        let mut places = self.elsewhere.iter().flatten().map(below);
        let first = places.next().unwrap_or_else(|| PathBuf::from(path));
        if first.exists() { first } else { places.find(|place| place.exists()).unwrap_or(first) }
    }

    /// Reads a muster.toml: the image's, or one beside it. Everything wrong in it is reported at once.
    pub(crate) fn read_file(&mut self, text: &str, beside: Option<Beside>, problems: &mut Vec<Problem>) {
        let mut file = File { text, beside, values: self, problems };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let text = format!("not TOML: {}", error.message().trim());
            file.problem(error.span().unwrap_or(0..0), text);
        }
        file.read_table("", table.get_ref());
    }

    fn insert(&mut self, key: &'static Key, value: Value, place: Place) {
        // Whoever gives a key, or its file, in a later place does not mean the other of an earlier one.
        let other = match key.path {
            "mesh_key" => Some("mesh_key_file"),
            "mesh_key_file" => Some("mesh_key"),
            _ => None,
        };
        let is_earlier = |(_, was): &(Value, Place)| !was.is_beside(&place);
        if let Some(other) = other.filter(|other| self.values.get(other).is_some_and(is_earlier)) {
            self.values.remove(other);
        }
        self.values.insert(key.path, (value, place));
    }

    /// Takes one override, its value as text. `name` is how the user wrote the key.
    pub(crate) fn override_with(
        &mut self,
        key: &'static Key,
        name: &str,
        text: &str,
        place: Place,
        problems: &mut Vec<Problem>,
    ) {
        match key.kind.read_text(text) {
            Ok(value) => self.insert(key, value, place),
            Err(why) => problems.push(wrong(key, name, &why, place)),
        }
    }

    /// Takes `KEY=VALUE` of `--set`.
    pub(crate) fn set(&mut self, assignment: &str, problems: &mut Vec<Problem>) {
        let Some((path, text)) = assignment.split_once('=') else {
            let text = format!("--set {assignment:?} must be KEY=VALUE, such as --set discovery.mdns=false");
            return problems.push(Problem::error(Place::Flag, text));
        };
        match key::find(path) {
            Some(key) if key.path == "mesh_key" => {
                let text = "--set mesh_key: every user of a machine can read command lines; use mesh_key_file";
                problems.push(Problem::error(Place::Flag, text));
            }
            Some(key) => self.override_with(key, &format!("--set {path}"), text, Place::Flag, problems),
            None => {
                let hint = suggestion(nearest(path, KEYS.iter().map(|key| key.path)));
                problems.push(Problem::error(Place::Flag, format!("--set: unknown key `{path}`{hint}")));
            }
        }
    }

    /// A key's value and place; its default if it has one and nobody gave another.
    pub(crate) fn get(&self, path: &str) -> Option<(Value, Place)> {
        if let Some((value, place)) = self.values.get(path) {
            return Some((value.clone(), place.clone()));
        }
        let key = key::find(path)?;
        Some((key.kind.read_text(key.default?).ok()?, Place::Default))
    }

    /// Where a key's value comes from.
    pub(crate) fn place(&self, path: &str) -> Place {
        self.values.get(path).map_or(Place::Default, |(_, place)| place.clone())
    }

    /// A text.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        match self.get(path)?.0 {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A list of texts; empty if there is none.
    pub(crate) fn texts(&self, path: &str) -> Vec<String> {
        match self.get(path) {
            Some((Value::Texts(texts), _)) => texts,
            _ => Vec::new(),
        }
    }

    /// A whole number. Every number in the table fits 32 bits.
    pub(crate) fn whole(&self, path: &str) -> Option<u32> {
        match self.get(path)?.0 {
            Value::Whole(number) => u32::try_from(number).ok(),
            _ => None,
        }
    }

    /// A switch.
    pub(crate) fn switch(&self, path: &str) -> Option<bool> {
        match self.get(path)?.0 {
            Value::Switch(switch) => Some(switch),
            _ => None,
        }
    }
}

/// A muster.toml that is being read.
struct File<'a> {
    text: &'a str,
    beside: Option<Beside>,
    values: &'a mut Values,
    problems: &'a mut Vec<Problem>,
}

impl File<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        match self.beside {
            Some(beside) => Place::Beside(beside, problem::line(self.text, span.start)),
            None => Place::File(span),
        }
    }

    fn problem(&mut self, span: Range<usize>, text: impl Into<String>) {
        let place = self.place(span);
        self.problems.push(Problem::error(place, text));
    }

    fn read_table(&mut self, section: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let path =
                if section.is_empty() { name.get_ref().to_string() } else { format!("{section}.{}", name.get_ref()) };
            if section.is_empty() && key::sections().any(|section| section == path) {
                match value.get_ref() {
                    DeValue::Table(inner) => self.read_table(&path, inner),
                    _ => self.problem(value.span(), format!("`{path}` must be a section: [{path}]")),
                }
            } else if path == "name" && self.beside.is_none() {
                let text = "`name` may not stand here, for this file is the same on every machine; use the host name, muster.name= on the \
                            kernel command line, or --name";
                self.problem(name.span(), text);
            } else if let Some(key) = key::find(&path) {
                self.read_value(key, value);
            } else {
                self.problem(name.span(), unknown(section, &path));
            }
        }
    }

    fn read_value(&mut self, key: &'static Key, value: &Spanned<DeValue<'_>>) {
        let place = self.place(value.span());
        match key.kind.read(value.get_ref()) {
            Ok(value) => self.values.insert(key, value, place),
            Err(why) => self.problems.push(wrong(key, key.path, &why, place)),
        }
    }
}

fn wrong(key: &Key, name: &str, why: &str, place: Place) -> Problem {
    // A mesh key that slipped into another key's place is not told either.
    let why = if problem::may_hold_key(why) { "has a value that may be a mesh key" } else { why };
    Problem::error(place, format!("`{name}` {why}; it must be {}", key.kind.accepts()))
}

fn suggestion(name: Option<&str>) -> String {
    name.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

/// A key nobody knows: with the one that was meant, or the section where it belongs.
fn unknown(section: &str, path: &str) -> String {
    let name = path.rsplit('.').next().unwrap_or(path);
    let elsewhere = KEYS.iter().find(|key| key.path != "name" && key.path.rsplit('.').next() == Some(name));
    let place = if section.is_empty() { String::new() } else { format!(" in [{section}]") };
    let hint = match elsewhere.map(|key| key.path.split_once('.')) {
        Some(Some((home, _))) => format!("; `{name}` belongs in [{home}]"),
        Some(None) => format!("; `{name}` belongs at the top, before the first section"),
        None => {
            let prefix = if section.is_empty() { String::new() } else { format!("{section}.") };
            let here = KEYS
                .iter()
                .filter_map(|key| key.path.strip_prefix(&prefix))
                .filter(|name| !name.contains('.') && *name != "name");
            let sections = key::sections().filter(|_| section.is_empty());
            suggestion(nearest(name, here.chain(sections)))
        }
    };
    format!("unknown key `{name}`{place}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_other_machines_are_looked_for_where_they_are_laid_out() {
        let (one, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        std::fs::create_dir_all(other.path().join("etc")).expect("made");
        std::fs::write(other.path().join("etc/a.yaml"), "").expect("written");
        let values = Values::of(Some(vec![one.path().to_owned(), other.path().to_owned()]));
        let found = values.file("/etc/a.yaml");
        assert_eq!(found, other.path().join("etc/a.yaml"));
        assert_eq!(values.called(&found), "/etc/a.yaml");
        assert_eq!(values.file("/etc/b.yaml"), one.path().join("etc/b.yaml"));
        assert_eq!(Values::default().file("/etc/a.yaml"), PathBuf::from("/etc/a.yaml"));
    }
}
