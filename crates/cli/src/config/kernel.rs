//! The kernel command line: `muster.peers=10.0.0.1,10.0.0.2 muster.name=left`.

use muster_image::install::Wipe;

use super::key::{KEYS, Key, nearest};
use super::kind::Kind;
use super::problem::{Place, Problem};
use super::values::Values;

/// Where the kernel shows its command line.
pub(crate) const PATH: &str = "/proc/cmdline";

/// What has a machine that was started in memory write a disk. It is no key.
const INSTALL: [&str; 2] = ["install", "install.wipe"];

/// A disk that is to be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Install {
    /// Which: a device, or a word.
    pub(crate) disk: String,
    /// What may be written over, as somebody wrote it.
    pub(crate) wipe: Option<String>,
}

impl Install {
    /// What may be written over.
    ///
    /// # Errors
    /// With what it may be.
    pub(crate) fn wipe(&self) -> Result<Wipe, String> {
        match self.wipe.as_deref() {
            None | Some("no" | "false" | "off" | "0") => Ok(Wipe::Nothing),
            Some("yes" | "true" | "on" | "1" | "data") => Ok(Wipe::Data),
            Some("machines") => Ok(Wipe::Machines),
            Some(other) => Err(format!("muster.install.wipe is {other:?}; it must be yes, machines or no")),
        }
    }

    /// Whether a disk may be called so.
    ///
    /// # Errors
    /// With what it may be.
    pub(crate) fn check(&self) -> Result<(), String> {
        let disk = &self.disk;
        let may = ["smallest", "largest"].contains(&disk.as_str()) || disk.starts_with("/dev/");
        if may {
            Ok(())
        } else {
            Err(format!("muster.install is {disk:?}; it must be smallest, largest or a device such as /dev/sda"))
        }
    }
}

/// What the command line says of installing. What is given again takes the place of what was given before, as boot menus add words.
pub(crate) fn install(line: &str) -> Option<Install> {
    let parameters = parameters(line);
    let last = |name: &str| {
        let name = format!("muster.{name}");
        parameters.iter().rev().find(|one| one.name == name).map(|one| one.value.clone())
    };
    let disk = last(INSTALL[0])??;
    let wipe = last(INSTALL[1]).map(|value| value.unwrap_or_else(|| "yes".to_owned()));
    Some(Install { disk, wipe })
}

/// Takes every `muster.*` parameter. Parameters of others are none of our business; what follows `--` is for init. A list
/// that is given again grows; anything else may be given again only with the same value.
pub(crate) fn read(line: &str, values: &mut Values, problems: &mut Vec<Problem>) {
    let mut given: Vec<(&'static Key, Vec<Option<String>>)> = Vec::new();
    let parameters = parameters(line);
    for (at, Parameter { name, value, quoted, .. }) in parameters.iter().enumerate() {
        let (value, quoted) = (value.clone(), *quoted);
        let Some(name) = name.strip_prefix("muster.") else { continue };
        let mut known = KEYS.iter().filter_map(|key| key.kernel.map(|kernel| (kernel, key)));
        if INSTALL.contains(&name) {
            continue;
        }
        let error = |text: String| Problem::error(Place::Kernel, text);
        let Some((_, key)) = known.find(|(kernel, _)| *kernel == name) else {
            problems.push(error(unknown(name)));
            continue;
        };
        if let Some(value) = value.as_deref().filter(|_| !quoted && key.kind.is_list()) {
            let next = parameters.get(at + 1).filter(|next| next.value.is_none());
            problems.extend(cut_short(name, key.kind, value, next.map(|next| next.word.as_str())));
        }
        match given.iter_mut().find(|(other, _)| other.path == key.path) {
            Some((_, values)) => values.push(value),
            None => given.push((key, vec![value])),
        }
    }
    for (key, given) in given {
        take(key, &given, values, problems);
    }
}

/// A space ends a parameter, so a list with spaces and no quotes loses what follows them. That shows by a comma at its end, or by the
/// next word's reading like one more of the list.
fn cut_short(name: &str, kind: Kind, value: &str, next: Option<&str>) -> Option<Problem> {
    let next = next.filter(|next| kind.read_text(next).is_ok());
    let ends = match value.trim_end().ends_with(',') {
        true => "ends with a comma",
        false if next.is_some() && (value.is_empty() || next.is_some_and(|next| next.starts_with(','))) => {
            "ends with a space"
        }
        false => return None,
    };
    let lost = next.map(|next| format!(", and {next:?} is none of its values")).unwrap_or_default();
    let whole = format!("{value}{}", next.map(|next| format!(" {next}")).unwrap_or_default());
    let text = format!(
        "`muster.{name}` {ends}: to the kernel a space ends a parameter{lost}; put quotes around the whole, as in \
         \"muster.{name}={}\"",
        whole.trim().trim_end_matches(',')
    );
    Some(Problem::warning(Place::Kernel, text))
}

/// Takes all values of one parameter, in their order. A switch without one is on.
fn take(key: &'static Key, given: &[Option<String>], values: &mut Values, problems: &mut Vec<Problem>) {
    let name = format!("muster.{}", key.kernel.unwrap_or_default());
    let alone = (key.kind == Kind::Switch).then_some("true");
    let texts: Option<Vec<&str>> = given.iter().map(|text| text.as_deref().or(alone)).collect();
    let Some(texts) = texts else {
        let text = format!("`{name}` needs a value; it must be {}", key.kind.accepts());
        return problems.push(Problem::error(Place::Kernel, text));
    };
    if key.kind.is_list() {
        return values.override_with(key, &name, &texts.join(","), Place::Kernel, problems);
    }
    match texts.iter().find(|text| key.kind.read_text(text) != key.kind.read_text(texts[0])) {
        Some(other) => {
            let text = format!("`{name}` is given {} times, as {:?} and as {other:?}: keep one", texts.len(), texts[0]);
            problems.push(Problem::error(Place::Kernel, text));
        }
        None => values.override_with(key, &name, texts[0], Place::Kernel, problems),
    }
}

fn unknown(name: &str) -> String {
    if name.starts_with("mesh_key") {
        return format!("`muster.{name}`: every user of a machine can read {PATH}; the key belongs in the image");
    }
    let near = nearest(name, KEYS.iter().filter_map(|key| key.kernel));
    let hint = near.map(|near| format!("; did you mean `muster.{near}`?")).unwrap_or_default();
    format!("unknown parameter `muster.{name}`{hint}")
}

struct Parameter {
    /// As it stands on the line.
    word: String,
    /// Whether quotes stand around it, or around its value.
    quoted: bool,
    /// With `_` for `-`, which are one to the kernel.
    name: String,
    value: Option<String>,
}

/// Splits as the kernel does (`next_arg` in lib/cmdline.c, `parameq` and `parse_args` in kernel/params.c, Linux 6.12): at
/// white space outside quotes; quotes may stand around the value, or around name and value together.
/// A word `--`, also in quotes, which the kernel takes away before it looks, ends what is the kernel's.
fn parameters(line: &str) -> Vec<Parameter> {
    // `isspace` of C, which has one more than Rust's.
    let is_space = |c: char| c.is_ascii_whitespace() || c == '\x0b';
    let mut quoted = false;
    let outside = |c: char| {
        quoted ^= c == '"';
        is_space(c) && !quoted
    };
    let words = line.trim_end_matches('\0').split(outside).filter(|word| !word.is_empty());
    let unquoted = |word: &str| word.strip_prefix('"').map(|word| word.strip_suffix('"').unwrap_or(word).to_owned());
    words.take_while(|word| unquoted(word).as_deref().unwrap_or(word) != "--").map(parameter).collect()
}

fn parameter(word: &str) -> Parameter {
    let (word, whole) = match word.strip_prefix('"') {
        Some(inside) => (inside, true),
        None => (word, false),
    };
    let unquoted = |text: &str| text.strip_suffix('"').unwrap_or(text).to_owned();
    let (name, value, quoted) = match word.split_once('=') {
        Some((name, value)) => match value.strip_prefix('"') {
            Some(inside) => (name.to_owned(), Some(unquoted(inside)), true),
            None => (name.to_owned(), Some(if whole { unquoted(value) } else { value.to_owned() }), whole),
        },
        None => (if whole { unquoted(word) } else { word.to_owned() }, None, whole),
    };
    Parameter { word: word.to_owned(), quoted, name: name.replace('-', "_"), value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_line(line: &str) -> (Values, Vec<String>) {
        let (mut values, mut problems) = (Values::default(), Vec::new());
        read(line, &mut values, &mut problems);
        (values, problems.into_iter().map(|problem| problem.text).collect())
    }

    #[test]
    fn takes_what_is_ours_and_leaves_the_rest() {
        let (values, problems) = read_line(
            "BOOT_IMAGE=/vmlinuz quiet muster.peers=10.0.0.1,10.0.0.2:99 muster.name=\"left\" muster.mdns ro -- muster.dns=x\n",
        );
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(values.texts("discovery.peers"), ["10.0.0.1", "10.0.0.2:99"]);
        assert_eq!(values.text("name").as_deref(), Some("left"));
        assert_eq!(values.switch("discovery.mdns"), Some(true));
        assert_eq!(values.text("discovery.dns"), None);
    }

    #[test]
    fn reads_quotes_and_names_as_the_kernel_does() {
        for line in [
            "quiet \"muster.peers=10.0.0.1,10.0.0.2\" ro",
            "quiet \"muster.peers=10.0.0.1, 10.0.0.2\" ro",
            "muster.peers=\"10.0.0.1 ,\t10.0.0.2,\"",
            "muster.peers=10.0.0.1\x0bmuster.peers=10.0.0.2 -- muster.peers=10.0.0.3",
            "\"muster.peers=10.0.0.1, 10.0.0.2",
        ] {
            let (values, problems) = read_line(line);
            assert_eq!(problems, Vec::<String>::new(), "{line}");
            assert_eq!(values.texts("discovery.peers"), ["10.0.0.1", "10.0.0.2"], "{line}");
        }
        let (values, problems) = read_line("\"muster.mdns\" muster.control-planes=3 x=\"a b muster.name=c\"");
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(values.switch("discovery.mdns"), Some(true));
        assert_eq!(values.whole("control_planes"), Some(3));
        assert_eq!(values.text("name"), None);
        // Quotes within a value are part of it.
        let (_, problems) = read_line("muster.name=le\"f\"t");
        assert!(problems[0].contains("`muster.name` is \"le\\\"f\\\"t\""), "{problems:?}");
    }

    #[test]
    fn two_dashes_end_what_is_the_kernels_in_quotes_or_not_and_nothing_else_does() {
        for end in ["--", "\"--\"", "\"--"] {
            let (values, problems) = read_line(&format!("muster.name=a {end} muster.name=b muster.nope"));
            assert_eq!((values.text("name").as_deref(), problems), (Some("a"), Vec::new()), "{end}");
        }
        for other in ["__", "-", "---", "--=1", "\"-- \""] {
            let (values, _) = read_line(&format!("quiet {other} muster.name=b"));
            assert_eq!(values.text("name").as_deref(), Some("b"), "{other}");
        }
    }

    #[test]
    fn a_list_that_a_space_cuts_short_is_warned_about() {
        for (line, lost) in [
            (
                "muster.peers=10.0.0.1, 10.0.0.2 quiet",
                "ends with a comma: to the kernel a space ends a parameter, and \"10.0.0.2\"",
            ),
            (
                "muster.subnets=10.0.0.0/8, muster.mdns",
                "ends with a comma: to the kernel a space ends a parameter; put",
            ),
            (
                "muster.peers= 10.0.0.1,10.0.0.2",
                "ends with a space: to the kernel a space ends a parameter, and \"10.0.0.1,",
            ),
            (
                "muster.peers=10.0.0.1 ,10.0.0.2",
                "ends with a space: to the kernel a space ends a parameter, and \",10.0.0.2\"",
            ),
        ] {
            let (_, problems) = read_line(line);
            assert_eq!(problems.len(), 1, "{line}: {problems:?}");
            assert!(problems[0].contains(lost) && problems[0].contains("put quotes around the whole"), "{problems:?}");
        }
        for line in [
            "muster.peers= quiet",
            "muster.peers=10.0.0.1 quiet",
            "muster.peers=\"10.0.0.1,\" 10.0.0.2",
            "muster.peers=",
        ] {
            assert_eq!(read_line(line).1, Vec::<String>::new(), "{line}");
        }
    }

    #[test]
    fn what_is_given_again_adds_up_or_is_named() {
        let (values, problems) = read_line("muster.name=a muster.mdns muster.mdns=yes muster.name=a muster.dns=x.org");
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(values.text("name").as_deref(), Some("a"));
        let (values, problems) = read_line("muster.machines=3 muster.name=a muster.machines=5 muster.name=\"b\"");
        assert_eq!(
            problems,
            [
                "`muster.machines` is given 2 times, as \"3\" and as \"5\": keep one",
                "`muster.name` is given 2 times, as \"a\" and as \"b\": keep one",
            ]
        );
        assert_eq!(values.text("name"), None);
    }

    #[test]
    fn names_may_be_as_long_as_host_names_and_end_in_a_dot() {
        let name = "a".repeat(63);
        let (values, problems) = read_line(&format!("muster.name={name} muster.dns=muster.example.org."));
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(values.text("name"), Some(name.clone()));
        assert_eq!(values.text("discovery.dns").as_deref(), Some("muster.example.org."));
        let (_, problems) = read_line(&format!("muster.name={name}a muster.dns=. muster.dns=a..b"));
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("at most 63"), "{problems:?}");
    }

    #[test]
    fn a_disk_to_write_is_no_setting() {
        let (values, problems) = read_line("muster.install=/dev/sda muster.install.wipe muster.name=a");
        assert_eq!((values.text("name").as_deref(), problems), (Some("a"), Vec::new()));
        let order = |line: &str| install(line).map(|order| (order.disk, order.wipe.unwrap_or_default()));
        let some = |disk: &str, wipe: &str| Some((disk.to_owned(), wipe.to_owned()));
        assert_eq!(order("ro muster.install=smallest"), some("smallest", ""));
        assert_eq!(
            order("muster.install=smallest muster.install=/dev/sda muster.install.wipe=no"),
            some("/dev/sda", "no")
        );
        assert_eq!(order("muster.install=largest muster.install.wipe"), some("largest", "yes"));
        assert_eq!(order("muster.install muster.install.wipe"), None);
        assert_eq!(order("quiet -- muster.install=largest"), None);
        let order = |line: &str| install(line).expect("an order");
        assert!(order("muster.install=smalest").check().is_err() && order("muster.install=/dev/sda").check().is_ok());
        assert_eq!(order("muster.install=smallest muster.install.wipe").wipe(), Ok(Wipe::Data));
        assert!(order("muster.install=smallest muster.install.wipe=machine").wipe().is_err());
    }

    #[test]
    fn names_what_is_wrong() {
        let (_, problems) = read_line("muster.peer=10.0.0.1");
        assert_eq!(problems, ["unknown parameter `muster.peer`; did you mean `muster.peers`?"]);
        let (_, problems) = read_line("muster.listen=everywhere muster.dns");
        assert_eq!(
            problems,
            [
                "`muster.listen` is \"everywhere\"; it must be an address and a port, such as \"0.0.0.0:7390\"",
                "`muster.dns` needs a value; it must be a host name, such as \"muster.example.org\"",
            ]
        );
        let (_, problems) = read_line("muster.machines= muster.control_planes=\"\" muster.name= muster.mdns=");
        assert_eq!(problems.len(), 4, "{problems:?}");
        for problem in &problems {
            assert!(problem.contains("` is empty; it must be "), "{problem}");
        }
        let (_, problems) = read_line("muster.mesh_key=00ff");
        assert_eq!(
            problems,
            ["`muster.mesh_key`: every user of a machine can read /proc/cmdline; the key belongs in the image"]
        );
    }
}
