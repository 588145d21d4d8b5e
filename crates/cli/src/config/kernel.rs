//! The kernel command line: `muster.peers=10.0.0.1,10.0.0.2 muster.name=left`.

use super::key::{KEYS, nearest};
use super::kind::Kind;
use super::problem::{Place, Problem};
use super::values::Values;

/// Where the kernel shows its command line.
pub(crate) const PATH: &str = "/proc/cmdline";

/// Takes every `muster.*` parameter. Parameters of others are none of our business; what follows `--` is for init.
pub(crate) fn read(line: &str, values: &mut Values, problems: &mut Vec<Problem>) {
    for parameter in parameters(line) {
        let Some(rest) = parameter.strip_prefix("muster.") else { continue };
        let (name, text) = match rest.split_once('=') {
            Some((name, text)) => (name, Some(text.trim_matches('"'))),
            None => (rest, None),
        };
        let mut known = KEYS.iter().filter_map(|key| key.kernel.map(|kernel| (kernel, key)));
        let error = |text: String| Problem::error(Place::Kernel, text);
        match known.find(|(kernel, _)| *kernel == name) {
            Some((_, key)) => match (text, key.kind) {
                (Some(text), _) => values.override_with(key, &format!("muster.{name}"), text, Place::Kernel, problems),
                (None, Kind::Switch) => {
                    values.override_with(key, &format!("muster.{name}"), "true", Place::Kernel, problems)
                }
                (None, _) => {
                    problems.push(error(format!("`muster.{name}` needs a value; it must be {}", key.kind.accepts())))
                }
            },
            None if name.starts_with("mesh_key") => {
                problems.push(error(format!(
                    "`muster.{name}`: every user of a machine can read {PATH}; the key belongs in the image"
                )));
            }
            None => {
                let near = nearest(name, KEYS.iter().filter_map(|key| key.kernel));
                let hint = near.map(|near| format!("; did you mean `muster.{near}`?")).unwrap_or_default();
                problems.push(error(format!("unknown parameter `muster.{name}`{hint}")));
            }
        }
    }
}

/// Splits at spaces outside quotes, as the kernel does.
fn parameters(line: &str) -> Vec<&str> {
    let mut quoted = false;
    let outside = |c: char| {
        quoted ^= c == '"';
        c.is_ascii_whitespace() && !quoted
    };
    line.trim_end_matches('\0')
        .split(outside)
        .filter(|part| !part.is_empty())
        .take_while(|part| *part != "--")
        .collect()
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
        let (_, problems) = read_line("muster.mesh_key=00ff");
        assert_eq!(
            problems,
            ["`muster.mesh_key`: every user of a machine can read /proc/cmdline; the key belongs in the image"]
        );
    }
}
