//! What a value of a configuration key must look like, and the sentence that says so.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

/// Where machines listen when an address names no port.
pub(crate) const PORT: u16 = 7390;

/// The form of a key's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A DNS label of at most so many bytes: it is, or becomes part of, a host name.
    Label(usize),
    /// A whole number within bounds, both allowed.
    Whole(u64, u64),
    /// `true` or `false`.
    Switch,
    /// 32 bytes as hexadecimal digits.
    Key,
    /// An absolute path.
    Path,
    /// Absolute paths.
    Paths,
    /// `address:port` of this machine.
    Listen,
    /// `address:port` of others.
    Peers,
    /// A host name.
    HostName,
    /// A Kubernetes version.
    Version,
    /// A subnet, or two with a comma between them: one of IPv4, one of IPv6.
    Subnet,
    /// Subnets, of either family.
    Subnets,
    /// A container image repository.
    Repository,
    /// A path or URL of the container runtime's socket.
    Socket,
    /// kubeadm's names of phases or preflight checks.
    Words,
    /// A time after which something is done, or `never`.
    After,
}

/// A value that has its key's form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Whole(u64),
    Switch(bool),
    Texts(Vec<String>),
}

impl Kind {
    /// What is accepted, to be read after "must be".
    pub(crate) fn accepts(self) -> String {
        match self {
            Kind::Label(max) => {
                format!("a name of at most {max} lower-case letters, digits and hyphens, such as \"site-1\"")
            }
            Kind::Whole(min, max) => format!("a whole number from {min} to {max}"),
            Kind::Switch => "true or false".into(),
            Kind::Key => "exactly 64 hexadecimal digits, as `openssl rand -hex 32` prints".into(),
            Kind::Path => "an absolute path, such as \"/var/lib/muster\"".into(),
            Kind::Paths => "a list of absolute paths, such as [\"/etc/muster/kubeadm.yaml\"]".into(),
            Kind::Listen => "an address and a port, such as \"0.0.0.0:7390\"".into(),
            Kind::Peers => "a list of addresses, such as [\"10.0.0.1:7390\", \"[fd00::2]:7390\"]".into(),
            Kind::HostName => "a host name, such as \"muster.example.org\"".into(),
            Kind::Version => "a Kubernetes version, such as \"v1.31.4\"".into(),
            Kind::Subnet => {
                "a subnet, such as \"10.244.0.0/16\", or \"10.244.0.0/16,fd00:244::/56\" for two families".into()
            }
            Kind::Subnets => "a list of subnets, such as [\"192.168.50.0/24\", \"fd00:50::/64\"]".into(),
            Kind::Repository => {
                "an image repository without a scheme, such as \"registry.example.org/kubernetes\"".into()
            }
            Kind::Socket => {
                "the path or unix:// URL of a socket, such as \"unix:///run/containerd/containerd.sock\"".into()
            }
            Kind::After => {
                "a time such as \"90s\", \"15m\" or \"2h\", at least a minute and at most 30 days, or \"never\"".into()
            }
            Kind::Words => "a list of kubeadm's names, such as [\"addon/coredns\"]".into(),
        }
    }

    /// Reads a value of muster.toml. The error is a clause to be read after the key's name: "is ...".
    pub(crate) fn read(self, value: &DeValue<'_>) -> Result<Value, String> {
        match (self, value) {
            (Kind::Switch, DeValue::Boolean(switch)) => Ok(Value::Switch(*switch)),
            (Kind::Whole(..), DeValue::Integer(number)) => {
                let digits: String = number.as_str().chars().filter(|c| *c != '_').collect();
                let number = i128::from_str_radix(&digits, number.radix()).ok();
                self.whole(number, &digits)
            }
            (_, DeValue::Array(items)) if self.is_list() => {
                let texts = items.iter().map(|item| match item.get_ref() {
                    DeValue::String(text) => Ok(text.to_string()),
                    other => Err(format!("holds {}", type_of(other))),
                });
                self.list(texts.collect::<Result<_, _>>()?)
            }
            (Kind::Switch | Kind::Whole(..), other) => Err(format!("is {}", type_of(other))),
            (_, other) if self.is_list() => Err(format!("is {}", type_of(other))),
            (_, DeValue::String(text)) => self.text(text),
            (_, other) => Err(format!("is {}", type_of(other))),
        }
    }

    /// Reads a value given on a command line, where lists have commas between their items.
    pub(crate) fn read_text(self, text: &str) -> Result<Value, String> {
        match self {
            // The key is never told of, not even that it is empty.
            _ if text.is_empty() && !self.is_list() && self != Kind::Key => Err("is empty".to_owned()),
            Kind::Switch => match text {
                "true" | "yes" | "on" | "1" => Ok(Value::Switch(true)),
                "false" | "no" | "off" | "0" => Ok(Value::Switch(false)),
                _ => Err(format!("is {text:?}")),
            },
            Kind::Whole(..) => self.whole(text.parse().ok(), text),
            _ if self.is_list() => {
                self.list(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
            }
            _ => self.text(text),
        }
    }

    /// Whether its values are lists.
    pub(crate) fn is_list(self) -> bool {
        matches!(self, Kind::Paths | Kind::Peers | Kind::Subnets | Kind::Words)
    }

    fn whole(self, number: Option<i128>, shown: &str) -> Result<Value, String> {
        let Kind::Whole(min, max) = self else { return Err("is a number".to_owned()) };
        let fits = number.and_then(|number| u64::try_from(number).ok()).filter(|number| (min..=max).contains(number));
        fits.map(Value::Whole).ok_or_else(|| format!("is {}", clip(shown)))
    }

    fn list(self, texts: Vec<String>) -> Result<Value, String> {
        /// More than anybody needs, and few enough to dial and to hash.
        const ITEMS_MAX: usize = 1_000;
        if texts.len() > ITEMS_MAX {
            return Err(format!("holds {} items, at most {ITEMS_MAX} are allowed", texts.len()));
        }
        let right = |text: &String| match self {
            Kind::Paths => is_path(text),
            Kind::Peers => socket_address(text).is_some(),
            Kind::Subnets => text.parse().is_ok_and(|subnet: IpNet| subnet.addr() == subnet.network()),
            _ => is_word(text),
        };
        match texts.iter().find(|text| !right(text)) {
            Some(wrong) => Err(format!("holds {:?}", clip(wrong))),
            None => Ok(Value::Texts(texts)),
        }
    }

    fn text(self, text: &str) -> Result<Value, String> {
        let right = match self {
            Kind::Label(max) => is_label(text, max),
            // A key is secret even when it is wrong: it is never repeated.
            Kind::Key if text.len() == 64 && hex::decode(text).is_ok() => true,
            Kind::Key => {
                return Err(format!("has {} characters, or others than hexadecimal digits", text.chars().count()));
            }
            Kind::Path => is_path(text),
            Kind::Listen => socket_address(text).is_some(),
            Kind::HostName => is_host_name(text),
            Kind::Version => is_version(text),
            Kind::Subnet => return subnet(text),
            Kind::Repository => is_repository(text),
            Kind::After => after(text).is_some(),
            Kind::Socket => is_path(text.strip_prefix("unix://").unwrap_or(text)),
            _ => false,
        };
        if right { Ok(Value::Text(text.to_owned())) } else { Err(format!("is {:?}", clip(text))) }
    }
}

/// Reads a time after which something is done: none within is `never`.
pub(crate) fn after(text: &str) -> Option<Option<Duration>> {
    if text == "never" {
        return Some(None);
    }
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let seconds = number.parse::<u64>().ok()?.checked_mul(match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    })?;
    (60..=30 * 86_400).contains(&seconds).then(|| Some(Duration::from_secs(seconds)))
}

/// Reads `address`, `address:port`, `[v6]` or `[v6]:port`; the port is [`PORT`] when none is named.
pub(crate) fn socket_address(text: &str) -> Option<SocketAddr> {
    let bare = || text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    text.parse()
        .ok()
        .filter(|address: &SocketAddr| address.port() != 0)
        .or_else(|| Some(SocketAddr::new(bare()?, PORT)))
}

fn subnet(text: &str) -> Result<Value, String> {
    let mut families = Vec::new();
    for part in text.split(',') {
        let net: IpNet = part.trim().parse().map_err(|_| format!("is {:?}", clip(text)))?;
        if net.addr() != net.network() {
            return Err(format!("is {:?}, whose address lies inside the subnet {}", clip(text), net.trunc()));
        }
        families.push(net.addr().is_ipv4());
    }
    match families[..] {
        [_] | [true, false] | [false, true] => Ok(Value::Text(text.replace(' ', ""))),
        _ => Err(format!("is {:?}", clip(text))),
    }
}

fn is_label(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A final dot says that nothing is to be appended to the name (RFC 1034, section 3.1); it does not count.
fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    name.len() <= 253 && name.split('.').all(|label| is_label(&label.to_lowercase(), 63))
}

fn is_path(text: &str) -> bool {
    Path::new(text).is_absolute() && text.len() <= 4_096 && !text.contains(['\0', '\n'])
}

fn is_version(text: &str) -> bool {
    let numbers = text.strip_prefix('v').unwrap_or(text);
    let numbers = &numbers[..numbers.find(['-', '+']).unwrap_or(numbers.len())];
    let parts: Vec<&str> = numbers.split('.').collect();
    parts.len() == 3
        && parts.iter().all(|part| !part.is_empty() && part.len() <= 5 && part.bytes().all(|b| b.is_ascii_digit()))
}

fn is_repository(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '/');
    (1..=255).contains(&text.len())
        && text.chars().all(plain)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !text.contains("//")
        && !text.ends_with('/')
}

/// These become part of kubeadm's command line, so none may look like a flag.
fn is_word(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    (1..=253).contains(&text.len()) && text.chars().all(plain) && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// What a TOML value is, with its article.
fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text in quotes",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The beginning of a text that may be endless.
fn clip(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

impl std::fmt::Display for Value {
    /// As TOML writes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Whole(number) => write!(f, "{number}"),
            Value::Switch(switch) => write!(f, "{switch}"),
            Value::Texts(texts) => write!(f, "{texts:?}"),
        }
    }
}
