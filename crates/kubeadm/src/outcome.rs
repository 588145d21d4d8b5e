//! What a finished run of kubeadm means. Its exit code says only whether something failed: what failed is in its words.

use std::path::Path;

use crate::action::{Command, Settled};

/// Bytes of output, of each stream, that are kept and read: the last ones.
pub const OUTPUT_LIMIT: usize = 64 * 1024;

/// Longest excerpt of kubeadm's words in a [`Failure`], in characters.
const EXCERPT: usize = 600;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal, sent by somebody else.
    Signal(i32),
    /// Killed because [`Command::limit`] was over.
    TimedOut,
    /// It never ran, and why.
    NotStarted(String),
}

/// A failed run, with what people need to know and no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{phase}: {kind}{}", excerpt.is_empty().then(String::new).unwrap_or_else(|| format!(": {excerpt}")))]
pub struct Failure {
    /// kubeadm's phase, as far as its words tell; the command's otherwise.
    pub phase: String,
    /// What class of failure it is.
    pub kind: FailureKind,
    /// kubeadm's words, shortened, tokens and keys replaced by `[redacted]`.
    pub excerpt: String,
}

/// The classes of failure that muster tells apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FailureKind {
    /// The executable is missing or may not be run.
    #[error("kubeadm could not be started")]
    NotStarted,
    /// It hung and was killed.
    #[error("kubeadm did not end in time")]
    TimedOut,
    /// Something else killed it.
    #[error("kubeadm was killed by signal {0}")]
    Killed(i32),
    /// Preflight checks failed.
    #[error("preflight checks failed: {}", .0.join(", "))]
    Preflight(Vec<String>),
    /// A document, or a command line, is not one that this kubeadm reads.
    #[error("kubeadm refuses its configuration")]
    Configuration,
    /// Something else listens where a component should.
    #[error("a port is in use")]
    PortInUse,
    /// The CA on the other side is not the one expected.
    #[error("the cluster's CA is another one")]
    CaMismatch,
    /// The bootstrap token is not known to the cluster, or has expired.
    #[error("the bootstrap token is unknown or has expired")]
    TokenUnknown,
    /// What should be made exists.
    #[error("it exists already")]
    AlreadyExists,
    /// What should be there is not.
    #[error("it does not exist")]
    NotFound,
    /// etcd has a member that is being added, or no quorum.
    #[error("etcd takes no new member now")]
    EtcdBusy,
    /// kubeadm waited for something that did not come.
    #[error("what kubeadm waited for did not come")]
    Unreachable,
    /// kubeadm ended well without doing its work.
    #[error("kubeadm reported success but left its work undone")]
    LeftUndone,
    /// Anything else.
    #[error("kubeadm failed")]
    Other,
}

impl Failure {
    /// The failure of a run that ended well without making `path`.
    pub fn left_undone(phase: &str, path: &Path) -> Self {
        Self {
            phase: phase.to_owned(),
            kind: FailureKind::LeftUndone,
            excerpt: format!("{} does not exist", path.display()),
        }
    }

    /// The failure of a wait whose limit was over, `missing` being the last word of [`crate::Wait::met`] or of the
    /// network.
    pub fn waited(phase: &str, missing: &str) -> Self {
        Self { phase: phase.to_owned(), kind: FailureKind::Unreachable, excerpt: excerpt(missing) }
    }

    /// Whether the same run may well end better a second later: the API did not answer, or broke off, or was not whole yet.
    pub fn may_pass(&self) -> bool {
        matches!(
            self.kind,
            FailureKind::Unreachable | FailureKind::NotFound | FailureKind::Killed(_) | FailureKind::Other
        )
    }

    /// Whether trying again on this machine is pointless until somebody changes the machine or its image.
    pub fn is_hopeless(&self) -> bool {
        matches!(self.kind, FailureKind::NotStarted | FailureKind::Configuration)
    }
}

/// Judges a finished run.
///
/// # Errors
/// When it failed, and how.
pub fn outcome(command: &Command, exit: &Exit, stdout: &[u8], stderr: &[u8]) -> Result<(), Failure> {
    let text = format!("{}\n{}", tail(stdout), tail(stderr));
    let fail = |kind, excerpt| Err(Failure { phase: phase(command, exit, &text), kind, excerpt });
    match exit {
        Exit::Code(0) => Ok(()),
        Exit::Code(_) | Exit::TimedOut if command.settled == Settled::Anyhow => Ok(()),
        Exit::NotStarted(why) => fail(FailureKind::NotStarted, excerpt(why)),
        Exit::TimedOut => fail(FailureKind::TimedOut, excerpt(&last_words(&text))),
        Exit::Signal(signal) => fail(FailureKind::Killed(*signal), excerpt(&last_words(&text))),
        Exit::Code(_) => match (kind(&text), command.settled) {
            (FailureKind::AlreadyExists, Settled::Existing) | (FailureKind::NotFound, Settled::Missing) => Ok(()),
            (kind, _) => fail(kind, excerpt(&last_words(&text))),
        },
    }
}

/// The phase kubeadm names in its error, or, if it was cut off, in the last `[phase]` at the start of a line.
fn phase(command: &Command, exit: &Exit, text: &str) -> String {
    let clean = |name: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '/');
        (!name.is_empty() && name.len() <= 60 && name.chars().all(plain)).then(|| name.to_owned())
    };
    let (workflow, _) = command.phase.split_once('/').unwrap_or((&command.phase, ""));
    let named =
        text.rsplit_once("error execution phase ").and_then(|(_, rest)| clean(rest.split([':', '\n', ' ']).next()?));
    let begun = || {
        text.lines()
            .rev()
            .find_map(|line| clean(line.strip_prefix('[')?.split_once(']')?.0))
            .filter(|name| name != "preflight" || command.phase.contains("preflight"))
    };
    let found = match exit {
        Exit::Code(_) => named,
        Exit::Signal(_) | Exit::TimedOut => begun(),
        Exit::NotStarted(_) => None,
    };
    found.map_or_else(|| command.phase.clone(), |name| format!("{workflow}/{name}"))
}

/// Classes by kubeadm's own words, or those of the Go libraries that it passes on; the first that fits. They are the
/// same in all supported versions.
fn kind(text: &str) -> FailureKind {
    let checks = failed_checks(text);
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if !checks.is_empty() {
        let ports = checks.iter().all(|check| check.starts_with("Port-"));
        return if ports { FailureKind::PortInUse } else { FailureKind::Preflight(checks) };
    }
    if has(&["x509: certificate signed by unknown authority", "is not pinned", "cluster CA found in cluster-info"]) {
        FailureKind::CaMismatch
    } else if has(&[
        "is invalid for this cluster or it has expired",
        "could not find a JWS signature",
        "failed to verify JWS signature",
        "Unauthorized",
    ]) {
        FailureKind::TokenUnknown
    } else if has(&["address already in use"]) {
        FailureKind::PortInUse
    } else if has(&["too many learner members", "unhealthy cluster", "etcdserver: re-configuration failed"]) {
        FailureKind::EtcdBusy
    } else if has(&[
        "strict decoding error",
        "error unmarshaling",
        "unknown field",
        "no kind \"",
        "nor can be converted",
    ]) || has(&[
        "is invalid: ",
        "invalid configuration",
        "uses an old API spec",
        "can not mix '--config'",
        "Invalid value: ",
        "experimental API spec",
        "unknown configuration",
        "could not interpret GroupVersionKind",
        "found in the supplied config",
        "was found in the configuration file",
        "only supports deploying clusters with",
    ]) || has(&[
        // A command line that this kubeadm does not take is as hopeless as a document that it does not.
        "unknown flag: ",
        "unknown shorthand flag: ",
        "unknown command ",
        "invalid phase name: ",
        "must be ipv4 or ipv6 address",
    ]) {
        FailureKind::Configuration
    } else if has(&["already exists"]) {
        FailureKind::AlreadyExists
    } else if has(&["not found", "NotFound"]) {
        FailureKind::NotFound
    } else if has(&[
        "timed out",
        "deadline exceeded",
        "connection refused",
        "no route to host",
        "i/o timeout",
        "after timeout",
    ]) {
        FailureKind::Unreachable
    } else {
        FailureKind::Other
    }
}

/// The names in `[ERROR Name]: why` lines of the preflight report; at most 20.
fn failed_checks(text: &str) -> Vec<String> {
    let name = |line: &str| {
        let (name, _) = line.trim_start().strip_prefix("[ERROR ")?.split_once(']')?;
        (name.len() <= 100).then(|| redact(name))
    };
    text.lines().filter_map(name).take(20).collect()
}

/// The lines that say most: from the first error on, or else the last ones; without klog's own lines and advice.
fn last_words(text: &str) -> String {
    let advice = |line: &&str| {
        let klog =
            line.starts_with(['I', 'W']) && line.as_bytes().get(1..5).is_some_and(|b| b.iter().all(u8::is_ascii_digit));
        !klog && !line.trim().is_empty() && !line.starts_with("To see the stack trace")
    };
    let lines: Vec<&str> = text.lines().filter(advice).collect();
    let is_error =
        |line: &&str| line.contains("[ERROR ") || line.contains("error execution phase") || line.starts_with("error:");
    let from = lines.iter().position(is_error).unwrap_or(lines.len().saturating_sub(4));
    lines[from..].join(" | ")
}

/// Shortens and redacts words for an error.
fn excerpt(words: &str) -> String {
    let plain: String = words.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let redacted = redact(&plain);
    match redacted.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}...", &redacted[..end]),
        None => redacted,
    }
}

/// Replaces whatever looks like a bootstrap token, a certificate key (64 hexadecimal digits) or base64 of a key, and who is
/// named in a URL with a password: kubeadm repeats the proxy's.
pub fn redact(text: &str) -> String {
    let text = &without_users(text);
    let mut redacted = String::with_capacity(text.len());
    let mut word = String::new();
    let flush = |word: &mut String, redacted: &mut String| {
        redacted.push_str(if is_secret(word) { "[redacted]" } else { word });
        word.clear();
    };
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '/' | '=' | '_' | '-') {
            word.push(c);
        } else {
            flush(&mut word, &mut redacted);
            redacted.push(c);
        }
    }
    flush(&mut word, &mut redacted);
    redacted
}

/// `https://user:password@host` as `https://[redacted]@host`.
fn without_users(text: &str) -> String {
    let (mut kept, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + "://".len());
        kept.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'')).unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(user) => {
                kept.push_str("[redacted]");
                &after[user..]
            }
            None => after,
        };
    }
    kept.push_str(rest);
    kept
}

/// Whether a word is or contains a token, or is a long run of base64 or hexadecimal digits.
fn is_secret(word: &str) -> bool {
    let bytes = word.as_bytes();
    let token_at = |dot: usize| {
        let part = |range: std::ops::Range<usize>| {
            bytes.get(range).is_some_and(|part| part.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
        };
        dot >= 6 && part(dot - 6..dot) && part(dot + 1..dot + 17)
    };
    let token = bytes.iter().enumerate().any(|(at, byte)| *byte == b'.' && token_at(at));
    // Base64 has a slash every 64 digits, a path many more.
    let slashes = |part: &str| part.bytes().filter(|byte| *byte == b'/').count();
    let long = word.split(['.', '-', '_']).any(|part| part.len() >= 48 && slashes(part) <= part.len() / 16);
    token || long
}

fn tail(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(OUTPUT_LIMIT)..]).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_with_a_slash_in_it_is_one_all_the_same_and_a_path_is_none() {
        let key = "MHcCAQEEIIRZwSpQvFr2y1sHq9Qm3u8Yb0JxK/6vT4nCwWkQeXyloAoGCCqGSM49";
        assert_eq!(redact(&format!("key: {key}")), "key: [redacted]");
        let path = "/var/lib/kubelet/pods/volumes/kubernetes/configuration/data/current";
        assert_eq!(redact(path), path);
    }

    #[test]
    fn a_proxys_password_is_not_repeated() {
        let said = "uses proxy \"http://user:hunter2@proxy:3128\". https://a@b@c/d http://e/f@g http://x:hunter2@";
        let told = redact(said);
        assert_eq!(
            told,
            "uses proxy \"http://[redacted]@proxy:3128\". https://[redacted]@c/d http://e/f@g http://[redacted]@"
        );
    }

    fn failed(phase: &str, output: &str) -> Failure {
        let command = Command::new(phase, "kubeadm".into(), [], std::time::Duration::ZERO);
        outcome(&command, &Exit::Code(1), b"", output.as_bytes()).expect_err("it failed")
    }

    /// Words of kubeadm 1.20 and later, each with the class it belongs to.
    #[test]
    fn tells_kubeadms_failures_apart() {
        let cases = [
            (
                "error execution phase preflight: [preflight] Some fatal errors occurred:\n\t[ERROR Port-6443]: Port 6443 is in use\n",
                FailureKind::PortInUse,
            ),
            (
                "error execution phase preflight: couldn't validate the identity of the API Server: could not find a JWS signature in the cluster-info ConfigMap for token ID \"abcdef\"\n",
                FailureKind::TokenUnknown,
            ),
            (
                "error execution phase preflight: couldn't validate the identity of the API Server: cluster CA found in cluster-info ConfigMap is invalid: none of the public keys \"sha256:00\" are pinned\n",
                FailureKind::CaMismatch,
            ),
            (
                "error execution phase preflight: unable to fetch the kubeadm-config ConfigMap: failed to get config map: Unauthorized\n",
                FailureKind::TokenUnknown,
            ),
            (
                "error execution phase control-plane-join/etcd: error creating local etcd static pod manifest file: etcdserver: unhealthy cluster\n",
                FailureKind::EtcdBusy,
            ),
            (
                "error execution phase etcd-join: error adding member: etcdserver: too many learner members in cluster\n",
                FailureKind::EtcdBusy,
            ),
            (
                "error execution phase kubelet-start: a Node with name \"m2\" and status \"Ready\" already exists in the cluster.\n",
                FailureKind::AlreadyExists,
            ),
            (
                "error execution phase kubelet-start: error uploading crisocket: timed out waiting for the condition\n",
                FailureKind::Unreachable,
            ),
            (
                "error execution phase wait-control-plane: couldn't initialize a Kubernetes cluster\n",
                FailureKind::Other,
            ),
            (
                "no kind \"InitConfiguration\" is registered for version \"kubeadm.k8s.io/v1beta4\" in scheme\n",
                FailureKind::Configuration,
            ),
            ("error: unknown flag: --config\n", FailureKind::Configuration),
            ("error: no JoinConfiguration found in the supplied config\n", FailureKind::Configuration),
            (
                "your configuration file uses an old API spec: \"kubeadm.k8s.io/v1beta2\". Please use kubeadm v1.22 instead\n",
                FailureKind::Configuration,
            ),
            ("Segmentation fault\n", FailureKind::Other),
            ("", FailureKind::Other),
        ];
        for (words, kind) in cases {
            assert_eq!(failed("join/x", words).kind, kind, "{words}");
        }
    }

    #[test]
    fn names_every_failed_check() {
        let output = "[preflight] Running pre-flight checks\n\t[WARNING Hostname]: no\nerror execution phase preflight: \
                      [preflight] Some fatal errors occurred:\n\t[ERROR Swap]: running with swap on is not supported\n\t\
                      [ERROR FileAvailable--etc-kubernetes-kubelet.conf]: /etc/kubernetes/kubelet.conf already exists\n";
        let failure = failed("join/preflight+kubelet-start", output);
        let checks = vec!["Swap".to_owned(), "FileAvailable--etc-kubernetes-kubelet.conf".to_owned()];
        assert_eq!(failure.kind, FailureKind::Preflight(checks));
        assert_eq!(failure.phase, "join/preflight");
        assert!(failure.excerpt.starts_with("error execution phase preflight"), "{failure}");
    }

    #[test]
    fn a_killed_run_is_placed_by_its_last_phase() {
        let command = Command::new("join/preflight+kubelet-start", "kubeadm".into(), [], std::time::Duration::ZERO);
        let said = b"[preflight] Running pre-flight checks\n[kubelet-start] Waiting for the kubelet\n";
        let failure = outcome(&command, &Exit::TimedOut, said, b"").expect_err("it was killed");
        assert_eq!((failure.phase.as_str(), failure.kind), ("join/kubelet-start", FailureKind::TimedOut));
        let failure = outcome(&command, &Exit::Signal(9), b"\xff\xfe[", b"").expect_err("it was killed");
        assert_eq!(failure.phase, "join/preflight+kubelet-start");
    }

    #[test]
    fn what_is_done_already_is_done() {
        let mut command = Command::new("token/create", "kubeadm".into(), [], std::time::Duration::ZERO);
        let exists = b"a token with id \"abcdef\" already exists";
        assert!(outcome(&command, &Exit::Code(1), b"", exists).is_err());
        command.settled = Settled::Existing;
        assert!(outcome(&command, &Exit::Code(1), b"", exists).is_ok());
        assert!(outcome(&command, &Exit::Code(1), b"", b"connection refused").is_err());
        command.settled = Settled::Anyhow;
        assert!(outcome(&command, &Exit::Code(1), b"", b"connection refused").is_ok());
        assert!(outcome(&command, &Exit::NotStarted("no such file".into()), b"", b"").is_err());
    }

    #[test]
    fn no_secret_is_quoted() {
        let key = "6a".repeat(32);
        let words = format!(
            "error execution phase preflight: token abcdef.0123456789abcdef refused, --certificate-key {key} and \
             {{\"token\":\"ghijkl.0123456789abcdef\"}} too"
        );
        let shown = failed("join/preflight", &words).to_string();
        for secret in ["0123456789abcdef", key.as_str()] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(shown.contains("[redacted]"));
    }

    proptest! {
        #[test]
        fn never_panics_and_stays_short(stdout in proptest::collection::vec(any::<u8>(), 0..300), stderr in ".{0,300}") {
            let command = Command::new("init/certs", "kubeadm".into(), [], std::time::Duration::ZERO);
            for exit in [Exit::Code(1), Exit::Signal(9), Exit::TimedOut] {
                let failure = outcome(&command, &exit, &stdout, stderr.as_bytes()).expect_err("it failed");
                prop_assert!(failure.excerpt.chars().count() <= EXCERPT + 3);
                prop_assert!(!failure.to_string().chars().any(char::is_control));
            }
        }

        #[test]
        fn a_token_anywhere_is_redacted(before in "[a-z0-9 =:\"/]{0,20}", after in "[A-Z =:\"]{0,20}") {
            let shown = redact(&format!("{before}abcdef.0123456789abcdef{after}"));
            prop_assert!(!shown.contains("0123456789abcdef"), "{}", shown);
        }
    }
}
