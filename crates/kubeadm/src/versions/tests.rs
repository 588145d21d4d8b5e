use super::*;

fn lines(minor: u32, line: &str) -> Result<CommandLine, String> {
    let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
    CommandLine::parse(&args, minor).map_err(|refusal| refusal.to_string())
}

#[test]
fn every_version_has_each_phase_once_and_a_phase_before_its_parts() {
    for minor in Version::OLDEST_MINOR..=Version::NEWEST_MINOR {
        for workflow in [Workflow::Init, Workflow::Join, Workflow::Reset] {
            let names: Vec<_> = workflow.rows(minor).map(|row| row.name).collect();
            for (at, name) in names.iter().enumerate() {
                assert!(!names[..at].contains(name), "1.{minor}: {name} is there twice");
                let parent = name.split_once('/').map(|(parent, _)| parent);
                assert!(parent.is_none_or(|parent| names[..at].contains(&parent)), "1.{minor}: {name} has no parent");
            }
        }
        let adders = adds_member(minor);
        assert!(adders.iter().all(|name| Workflow::Join.row(name, minor).is_some()), "1.{minor}: {adders:?}");
        assert!(IMAGES.iter().all(|images| images.source.starts_with(&format!("v1.{}.", images.minor))));
    }
}

#[test]
fn the_order_changed_with_1_28() {
    let order = |minor| Workflow::Init.phases(minor).skip(3).take(3).collect::<Vec<_>>();
    assert_eq!(order(27), ["kubelet-start", "control-plane", "etcd"]);
    assert_eq!(order(28), ["etcd", "control-plane", "kubelet-start"]);
}

#[test]
fn takes_words_and_flags_apart() {
    let line = lines(37, "init phase certs all --config /x.yaml --v=5").expect("parses");
    assert_eq!(line.command, ["init", "phase", "certs", "all"]);
    assert_eq!(line.flag("config"), Some("/x.yaml"));
    assert_eq!(lines(20, "reset -f").expect("parses").flag("force"), Some("true"));
    assert_eq!(lines(20, "join --skip-phases=a,b").expect("parses").list("skip-phases"), ["a", "b"]);
    assert_eq!(lines(37, "token delete abcdef").expect("parses").operands, ["abcdef"]);
}

#[test]
fn refuses_in_kubeadms_words() {
    for (minor, line, words) in [
        (37, "init phase nosuch", "unknown command \"nosuch\" for \"kubeadm init phase\""),
        (37, "init phase certs nosuch", "unknown command \"nosuch\" for \"kubeadm init phase certs\""),
        (37, "init extra", "unknown command \"extra\" for \"kubeadm init\""),
        (37, "nosuch --config x", "unknown command \"nosuch\" for \"kubeadm\""),
        (37, "init phase certs", "subcommand is required"),
        (37, "init --config", "flag needs an argument: --config"),
        (37, "join phase wait-control-plane --config x", "unknown flag: --config"),
        (20, "join phase kubelet-start --ignore-preflight-errors=all", "unknown flag: --ignore-preflight-errors"),
        (37, "version -x", "unknown shorthand flag: 'x' in -x"),
        (37, "join phase check-etcd", "unknown command \"check-etcd\" for \"kubeadm join phase\""),
        (29, "init phase wait-control-plane", "unknown command \"wait-control-plane\" for \"kubeadm init phase\""),
        (37, "join a b", "accepts at most 1 arg(s), received 2"),
        (37, "init phase certs all --config x --cert-dir /y", "can not mix '--config' with arguments [cert-dir]"),
        (35, "config validate --config x --allow-deprecated-api", "unknown flag: --allow-deprecated-api"),
    ] {
        assert_eq!(lines(minor, line).expect_err("refused"), words, "{line}");
    }
    assert!(lines(31, "init phase wait-control-plane").is_ok());
    assert!(lines(33, "join phase etcd-join --config x").is_err(), "it is hidden");
    assert!(lines(34, "join phase etcd-join --config x").is_ok());
}
