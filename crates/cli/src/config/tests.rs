//! Every kind of mistake in muster.toml, with the line, the name and the suggestion that people get.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use proptest::prelude::*;

use super::problem::{Beside, Source};
use super::*;

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn with(rest: &str) -> String {
    format!("cluster = \"site\"\nmachines = 5\nmesh_key = \"{KEY}\"\n{rest}\n[state]\ndurable = true\n")
}

fn read_text(text: &str, set: &[&str]) -> Result<Loaded, Refused> {
    let set = set.iter().map(|text| (*text).to_owned()).collect();
    let overrides = Overrides { set, ..Overrides::default() };
    read(&Source { path: "muster.toml", text }, &overrides)
}

fn right(text: &str) -> Image {
    match read_text(text, &[]) {
        Ok(loaded) => loaded.image,
        Err(refused) => panic!("{refused}"),
    }
}

/// The problems of a text, without the lines that show them.
fn problems(text: &str, set: &[&str]) -> Vec<String> {
    let Err(refused) = read_text(text, set) else { panic!("this is not refused:\n{text}") };
    assert!(!refused.text.contains(KEY), "the key is shown: {refused}");
    refused
        .text
        .lines()
        .filter(|line| line.starts_with("error: "))
        .map(|line| line["error: ".len()..].to_owned())
        .collect()
}

#[test]
fn the_shortest_configuration_has_sensible_defaults() {
    let image = right(&format!("cluster = \"site\"\nmachines = 5\nmesh_key = \"{KEY}\"\n"));
    assert_eq!((image.machines, image.control_planes), (5, 3));
    assert_eq!(image.listen.to_string(), "0.0.0.0:7390");
    assert!(image.mdns && image.peers.is_empty() && image.dns.is_none() && image.name.is_none());
    assert_eq!(image.state_dir, Path::new("/var/lib/muster"));
    assert_eq!(image.kubernetes.kubeadm, Path::new("/usr/bin/kubeadm"));
    assert_eq!((image.kubernetes.endpoint_port, image.kubernetes.api_port), (7443, 6443));
    assert_eq!(image.kubernetes.version, None);
    assert_eq!(right(&with("").replace('5', "2")).control_planes, 1);
}

#[test]
fn every_unknown_key_is_named_with_its_line_and_what_was_meant() {
    let unknown = |rest: &str| problems(&with(rest), &[]);
    assert_eq!(unknown("machnes = 5"), ["muster.toml:4: unknown key `machnes`; did you mean `machines`?"]);
    assert_eq!(
        unknown("control-planes = 3"),
        ["muster.toml:4: unknown key `control-planes`; did you mean `control_planes`?"]
    );
    assert_eq!(unknown("peers = []"), ["muster.toml:4: unknown key `peers`; `peers` belongs in [discovery]"]);
    assert_eq!(
        unknown("[discovry]\nmdns = true"),
        ["muster.toml:4: unknown key `discovry`; did you mean `discovery`?"]
    );
    assert_eq!(
        unknown("[kubernetes]\n\nversoin = \"v1.31.4\""),
        ["muster.toml:6: unknown key `versoin` in [kubernetes]; did you mean `version`?"]
    );
    assert_eq!(
        unknown("[discovery]\ncontrol_planes = 3"),
        [
            "muster.toml:5: unknown key `control_planes` in [discovery]; `control_planes` belongs at the top, before the first section"
        ]
    );
    assert_eq!(unknown("colour = \"blue\""), ["muster.toml:4: unknown key `colour`"]);
    assert_eq!(
        unknown("discovery.mnds = true"),
        ["muster.toml:4: unknown key `mnds` in [discovery]; did you mean `mdns`?"]
    );
    let name = unknown("name = \"left\"");
    assert!(name[0].starts_with("muster.toml:4: `name` may not stand here"), "{name:?}");
}

#[test]
fn every_wrong_value_is_named_with_its_line_and_what_is_accepted() {
    let wrong = |rest: &str| problems(&with(rest), &[]);
    let cases = [
        ("control_planes = 10", "`control_planes` is 10; it must be a whole number from 1 to 9"),
        ("control_planes = 0", "`control_planes` is 0; it must be a whole number from 1 to 9"),
        ("control_planes = -3", "`control_planes` is -3; it must be a whole number from 1 to 9"),
        ("control_planes = 3.0", "`control_planes` is a number with a fraction; it must be a whole number from 1 to 9"),
        ("control_planes = \"three\"", "`control_planes` is a text in quotes; it must be a whole number from 1 to 9"),
        ("control_planes = 7", "`control_planes` is 7, more than `machines`, which is 5"),
        ("discovery = true", "`discovery` must be a section: [discovery]"),
        ("discovery.mdns = \"yes\"", "`discovery.mdns` is a text in quotes; it must be true or false"),
        (
            "discovery.listen = \"7390\"",
            "`discovery.listen` is \"7390\"; it must be an address and a port, such as \"0.0.0.0:7390\"",
        ),
        (
            "discovery.peers = [\"10.0.0.1\", \"left\"]",
            "`discovery.peers` holds \"left\"; it must be a list of addresses, such as [\"10.0.0.1:7390\", \"[fd00::2]:7390\"]",
        ),
        (
            "discovery.peers = [1]",
            "`discovery.peers` holds a whole number; it must be a list of addresses, such as [\"10.0.0.1:7390\", \"[fd00::2]:7390\"]",
        ),
        (
            "discovery.peers = \"10.0.0.1\"",
            "`discovery.peers` is a text in quotes; it must be a list of addresses, such as [\"10.0.0.1:7390\", \"[fd00::2]:7390\"]",
        ),
        (
            "discovery.subnets = [\"10.0.0.1/24\"]",
            "`discovery.subnets` holds \"10.0.0.1/24\"; it must be a list of subnets, such as [\"192.168.50.0/24\", \"fd00:50::/64\"]",
        ),
        (
            "discovery.dns = \"no such name\"",
            "`discovery.dns` is \"no such name\"; it must be a host name, such as \"muster.example.org\"",
        ),
        (
            "kubernetes.version = \"1.31\"",
            "`kubernetes.version` is \"1.31\"; it must be a Kubernetes version, such as \"v1.31.4\"",
        ),
        (
            "kubernetes.version = 1.31",
            "`kubernetes.version` is a number with a fraction; it must be a Kubernetes version, such as \"v1.31.4\"",
        ),
        (
            "kubernetes.pod_subnet = \"10.244.0.1/16\"",
            "`kubernetes.pod_subnet` is \"10.244.0.1/16\", whose address lies inside the subnet 10.244.0.0/16; it must be a subnet, such as \"10.244.0.0/16\", or \"10.244.0.0/16,fd00:244::/56\" for two families",
        ),
        (
            "kubernetes.image_repository = \"https://x.org/k\"",
            "`kubernetes.image_repository` is \"https://x.org/k\"; it must be an image repository without a scheme, such as \"registry.example.org/kubernetes\"",
        ),
        ("kubernetes.api_port = 65536", "`kubernetes.api_port` is 65536; it must be a whole number from 1 to 65535"),
        ("kubernetes.api_port = 7443", "`kubernetes.api_port` and `kubernetes.endpoint_port` both use port 7443"),
        (
            "kubernetes.etcd_dir = \"/var/lib/kubelet\"",
            "`kubernetes.etcd_dir` and `kubernetes.kubelet_dir` are one directory, or one lies in the other",
        ),
        (
            "discovery.subnets = [\"192.168.50.0/24\"]\nkubernetes.pod_subnet = \"192.168.0.0/16\"",
            "`discovery.subnets` holds 192.168.50.0/24, which lies in `kubernetes.pod_subnet` = 192.168.0.0/16: an address there counts as no machine's own",
        ),
        (
            "discovery.subnets = [\"fe80::/10\"]",
            "`discovery.subnets` holds fe80::/10: kubeadm takes no link-local address for a machine",
        ),
        (
            "kubernetes.dir = \"etc\"",
            "`kubernetes.dir` is \"etc\"; it must be an absolute path, such as \"/var/lib/muster\"",
        ),
        (
            "kubernetes.documents = [\"/no/such\"]",
            "`documents`: /no/such cannot be read: No such file or directory (os error 2)",
        ),
        (
            "kubernetes.manifests = [\"/no/such\"]",
            "`manifests`: /no/such cannot be read: No such file or directory (os error 2)",
        ),
        (
            "kubernetes.skip_phases = [\"--all\"]",
            "`kubernetes.skip_phases` holds \"--all\"; it must be a list of kubeadm's names, such as [\"addon/coredns\"]",
        ),
        ("mesh_key_file = \"/etc/muster/mesh.key\"", "`mesh_key` and `mesh_key_file` are both given: keep one"),
    ];
    for (rest, expected) in cases {
        assert_eq!(wrong(rest), [format!("muster.toml:4: {expected}")], "{rest}");
    }
    let overlap = wrong("[kubernetes]\npod_subnet = \"10.0.0.0/8\"\nservice_subnet = \"10.96.0.0/12\"");
    assert_eq!(
        overlap,
        ["muster.toml:6: `kubernetes.service_subnet`: the Services' 10.96.0.0/12 and the Pods' 10.0.0.0/8 overlap"]
    );
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(
        problems("", &[]),
        [
            "muster.toml: `machines` is missing: how many machines carry this image",
            "muster.toml: `cluster` is missing: the cluster's name",
            "muster.toml: `mesh_key` is missing: a key that all machines share; `openssl rand -hex 32` makes one, or use `mesh_key_file`",
        ]
    );
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let text = "cluster = \"Site\"\nmachines = 0\nmesh_kye = 1\n";
    assert_eq!(
        problems(text, &[]),
        [
            "muster.toml:1: `cluster` is \"Site\"; it must be a name of at most 40 lower-case letters, digits and hyphens, such as \"site-1\"",
            "muster.toml:2: `machines` is 0; it must be a whole number from 1 to 10000",
            "muster.toml:3: unknown key `mesh_kye`; did you mean `mesh_key`?",
        ]
    );
}

#[test]
fn what_is_not_toml_is_named_with_its_line() {
    let told = problems("cluster = \"site\"\nmachines 5\n", &[]);
    assert!(told[0].starts_with("muster.toml:2: not TOML: "), "{told:?}");
    let twice = problems(&with("machines = 6"), &[]);
    assert!(twice[0].starts_with("muster.toml:4: not TOML: "), "{twice:?}");
}

#[test]
fn the_line_is_shown_with_a_mark_unless_it_may_hold_the_key() {
    let Err(refused) = read_text("cluster = \"site\"\nmachines = 5\ncontrol_planes = 12\n", &[]) else {
        panic!("not refused")
    };
    let expected = "error: muster.toml:3: `control_planes` is 12; it must be a whole number from 1 to 9\n 3 | control_planes = 12\n   |                  ^^";
    assert_eq!(refused.text, expected);
    for name in ["mesh_key", "mesh_kye", "password"] {
        let Err(refused) = read_text(&format!("{name} = \"{}\"\n", &KEY[..60]), &[]) else { panic!("not refused") };
        assert!(!refused.text.contains("0011223344"), "{refused}");
    }
}

#[test]
fn an_even_number_of_control_planes_is_only_warned_about() {
    let loaded = read_text(&with("control_planes = 4"), &[]);
    let Ok(loaded) = loaded else { panic!("refused") };
    assert_eq!(loaded.image.control_planes, 4);
    assert_eq!(loaded.findings.len(), 1);
    assert!(loaded.findings[0].warning && loaded.findings[0].line == Some(4), "{:?}", loaded.findings);
}

#[test]
fn the_mesh_key_is_exactly_32_bytes() {
    let key = |key: &str| problems(&format!("cluster = \"site\"\nmachines = 5\nmesh_key = \"{key}\"\n"), &[]);
    let short = key(&KEY[..63]);
    assert_eq!(
        short,
        [
            "muster.toml:3: `mesh_key` has 63 characters, or others than hexadecimal digits; it must be exactly 64 hexadecimal digits, as `openssl rand -hex 32` prints"
        ]
    );
    assert_eq!(key(&KEY.replace('a', "g")).len(), 1);
    assert_eq!(key("").len(), 1);
}

#[test]
fn the_mesh_key_may_be_in_a_file_of_its_own_that_nobody_else_reads() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("mesh.key");
    let text = format!("cluster = \"site\"\nmachines = 5\nmesh_key_file = {file:?}\n[state]\ndurable = true\n");
    assert!(problems(&text, &[])[0].contains("cannot be read"));
    std::fs::write(&file, format!("{KEY}\n")).expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("set");
    assert!(problems(&text, &[])[0].contains("can be read or changed by others"));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("set");
    assert_eq!(hex::encode(*right(&text).mesh_key), KEY);
    std::fs::write(&file, "nonsense").expect("written");
    assert!(problems(&text, &[])[0].contains("does not hold exactly 64 hexadecimal digits"));
}

#[test]
fn the_kernel_command_line_overrides_the_file_and_flags_override_both() {
    let overrides = Overrides {
        kernel: "muster.peers=10.0.0.7 muster.mdns=off muster.name=left muster.listen=10.0.0.1:99".to_owned(),
        set: vec!["discovery.listen=10.0.0.2:98".to_owned()],
        ..Overrides::default()
    };
    let Ok(loaded) = read(&Source { path: "muster.toml", text: &with("discovery.peers = [\"10.0.0.3\"]") }, &overrides)
    else {
        panic!("refused")
    };
    let image = loaded.image;
    assert_eq!(image.peers, ["10.0.0.7:7390".parse().expect("an address")]);
    assert!(!image.mdns);
    assert_eq!(image.name.as_deref(), Some("left"));
    assert_eq!(image.listen.to_string(), "10.0.0.2:98");
}

/// What is given beside the image, as `kind: text`.
fn beside(layers: &[(Beside, &str)], kernel: &str) -> Overrides {
    let layer = |(kind, text): &(Beside, &str)| Layer { kind: *kind, text: Ok(Zeroizing::new((*text).to_owned())) };
    Overrides { beside: layers.iter().map(layer).collect(), kernel: kernel.to_owned(), ..Overrides::default() }
}

#[test]
fn what_a_machine_is_given_is_layered_and_shown_with_its_origin() {
    let layers = [
        (Beside::Credential, "name = \"credential\"\n"),
        (
            Beside::Volume,
            "name = \"volume\"\n[discovery]\npeers = [\"10.0.0.1\"]\nmdns = false\n[backup]\ncopies = 2\n",
        ),
    ];
    let overrides = beside(&layers, "muster.peers=10.0.0.2 muster.name=kernel");
    let text = with("discovery.mdns = true\nbackup.keep = 4");
    let Ok(loaded) = read(&Source { path: "muster.toml", text: &text }, &overrides) else { panic!("refused") };
    let origin = |key: &str| {
        let row = loaded.image.shown.iter().find(|(name, ..)| *name == key);
        row.map(|(_, value, origin)| format!("{value} ({origin})")).unwrap_or_default()
    };
    assert_eq!(origin("name"), "\"credential\" (credential muster.toml)");
    assert_eq!(origin("discovery.peers"), "[\"10.0.0.2\"] (kernel command line)");
    assert_eq!(origin("discovery.mdns"), "false (volume MUSTER)");
    assert_eq!(origin("backup.copies"), "2 (volume MUSTER)");
    assert_eq!(origin("backup.keep"), "4 (file)");
}

#[test]
fn a_key_or_its_file_that_is_given_later_takes_the_place_of_either() {
    let other = "5b".repeat(32);
    let given = format!("mesh_key = \"{other}\"\n");
    let text = "cluster = \"site\"\nmachines = 5\nmesh_key_file = \"/nowhere\"\n[state]\ndurable = true\n";
    let overrides = beside(&[(Beside::Credential, &given)], "");
    let Ok(loaded) = read(&Source { path: "muster.toml", text }, &overrides) else { panic!("refused") };
    assert_eq!(hex::encode(*loaded.image.mesh_key), other);
    // In one place they are still two.
    let both = format!("{given}mesh_key_file = \"/nowhere\"\n");
    let refused =
        read(&Source { path: "muster.toml", text }, &beside(&[(Beside::Volume, &both)], "")).err().expect("two");
    assert!(refused.text.contains("are both given"), "{refused}");
}

#[test]
fn what_is_wrong_beside_the_image_is_named_by_its_place_and_no_key_is_shown() {
    let wrong = format!("machines = 3\n\nmesh_kay = \"{}\"\n", "5b".repeat(32));
    for (kind, place) in [
        (Beside::Volume, "error: volume MUSTER, line 3: "),
        (Beside::Credential, "error: credential muster.toml, line 3: "),
    ] {
        let refused = read(&Source { path: "muster.toml", text: &with("") }, &beside(&[(kind, &wrong)], ""));
        let refused = refused.err().expect("wrong");
        assert_eq!(refused.text, format!("{place}unknown key `mesh_kay`; did you mean `mesh_key`?"));
        assert_eq!((refused.problems[0].line, refused.problems[0].beside), (Some(3), Some(kind.into())));
    }
    let unread = Layer { kind: Beside::Volume, text: Err("is not UTF-8".to_owned()) };
    let overrides = Overrides { beside: vec![unread], ..Overrides::default() };
    let refused = read(&Source { path: "muster.toml", text: &with("") }, &overrides).err().expect("unreadable");
    assert_eq!(refused.text, "error: volume MUSTER: is not UTF-8");
}

#[test]
fn a_machine_without_a_file_goes_by_what_it_is_given() {
    let given = with("");
    let overrides = beside(&[(Beside::Credential, &given)], "");
    assert!(load(std::path::Path::new("/nowhere/muster.toml"), &overrides).is_ok());
    assert!(load(std::path::Path::new("/nowhere/muster.toml"), &Overrides::default()).is_err());
}

#[test]
fn an_image_may_leave_the_key_to_what_machines_are_given() {
    let text = "cluster = \"site\"\nmachines = 5\n";
    let others = Overrides::of_other_machines(Vec::new());
    let Ok(loaded) = read(&Source { path: "muster.toml", text }, &others) else { panic!("refused") };
    assert!(loaded.warnings.contains("no mesh key is in the image"), "{}", loaded.warnings);
    let refused = read(&Source { path: "muster.toml", text }, &Overrides::default()).err().expect("no key");
    assert!(refused.text.contains("`mesh_key` is missing"), "{refused}");
}

#[test]
fn a_mesh_key_in_another_keys_place_is_not_told() {
    let key = "5b".repeat(32);
    let texts = [format!("cluster = \"{key}\"\nmachines = 3\n"), with(&format!("mesh_key_file = \"{key}\""))];
    for text in texts {
        let refused = read(&Source { path: "muster.toml", text: &text }, &Overrides::default()).err().expect("wrong");
        assert!(!refused.text.contains(&key[..24]), "{refused}");
        assert!(refused.problems.iter().all(|problem| !problem.text.contains(&key[..24])), "{:?}", refused.problems);
    }
}

#[test]
fn a_wrong_override_is_named() {
    let set = |assignment: &str| problems(&with(""), &[assignment]);
    assert_eq!(
        set("discovery.peer=10.0.0.1"),
        ["command line: --set: unknown key `discovery.peer`; did you mean `discovery.peers`?"]
    );
    assert_eq!(
        set("machines=many"),
        ["command line: `--set machines` is many; it must be a whole number from 1 to 10000"]
    );
    assert_eq!(
        set("machines"),
        ["command line: --set \"machines\" must be KEY=VALUE, such as --set discovery.mdns=false"]
    );
    assert_eq!(
        set(&format!("mesh_key={KEY}")),
        ["command line: --set mesh_key: every user of a machine can read command lines; use mesh_key_file"]
    );
}

#[test]
fn the_digest_covers_what_all_machines_share_and_nothing_else() {
    let digest = |rest: &str| right(&with(rest)).digest;
    let plain = digest("");
    for own in [
        "discovery.mdns = false",
        "discovery.peers = [\"10.0.0.1\"]",
        "kubernetes.kubeadm = \"/opt/kubeadm\"",
        "control_planes = 3",
    ] {
        assert_eq!(digest(own), plain, "{own}");
    }
    for shared in [
        "control_planes = 1",
        "kubernetes.version = \"v1.31.4\"",
        "kubernetes.pod_subnet = \"10.1.0.0/16\"",
        "kubernetes.skip_phases = [\"addon/coredns\"]",
    ] {
        assert_ne!(digest(shared), plain, "{shared}");
    }
    assert_eq!(digest("kubernetes.version = \"v1.31.4\""), digest("kubernetes.version = \"1.31.4\""));
    assert_ne!(right(&with("").replace("true", "false")).digest, plain);
    let other_key = with("").replace("00112233", "ffffffff");
    assert_eq!(right(&other_key).digest, plain, "the key is a secret and no part of what is shown to others");
    let dir = tempfile::tempdir().expect("a directory");
    let (one, two) = (dir.path().join("one.yaml"), dir.path().join("two.yaml"));
    std::fs::write(&one, "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n").expect("written");
    std::fs::write(&two, "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n").expect("written");
    let documents = |path: &Path| digest(&format!("kubernetes.documents = [{path:?}]"));
    let before = documents(&one);
    assert_eq!(before, documents(&two), "where a document lies does not matter");
    assert_ne!(before, plain);
    std::fs::write(&one, "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n")
        .expect("written");
    assert_ne!(before, documents(&one), "what it says does");
    std::fs::write(&one, "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n").expect("written");
    let manifests = digest(&format!("kubernetes.manifests = [{one:?}]"));
    assert_eq!(manifests, plain, "a later image may bring other manifests");
}

#[test]
fn manifests_are_read_from_files_and_directories_and_their_mistakes_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
    let object = |name: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n");
    let all = format!("kubernetes.manifests = [{:?}]", dir.path());
    let told = problems(&with(&all), &[]);
    let path = dir.path().display();
    assert_eq!(told, [format!("muster.toml:4: `manifests`: {path} holds no file named *.yaml, *.yml or *.json")]);
    write("b.yml", &object("b"));
    write("a.yaml", &object("a"));
    write(".c.yaml", "an editor's");
    write("notes.txt", "a person's");
    let image = right(&with(&all));
    let names = |number| image.kubernetes.manifests.get(number).map(|object| object.name.clone());
    assert_eq!((image.kubernetes.manifests.count(), names(0), names(1)), (2, Some("a".into()), Some("b".into())));
    write("c.yaml", "kind: Secret\n---\nstringData: {a: hush, b: [}\n");
    write(
        "d.json",
        &serde_json::json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" } }).to_string(),
    );
    let told = problems(&with(&all), &[]);
    let expected = [
        format!("muster.toml:4: `manifests`: {path}/c.yaml, document 1: apiVersion is missing"),
        format!("muster.toml:4: `manifests`: {path}/c.yaml, document 2: it is no YAML at line 3, column 26"),
        format!(
            "muster.toml:4: `manifests`: {path}/d.json, document 1: ConfigMap a is in {path}/a.yaml, document 1 already"
        ),
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_no_kubeadm_of_the_wanted_version_takes_is_found_before_any_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("kubeadm.yaml");
    let problems = |version: &str, document: &str| {
        std::fs::write(&path, document).expect("written");
        let version = if version.is_empty() { String::new() } else { format!("kubernetes.version = {version:?}\n") };
        match read_text(&with(&format!("{version}kubernetes.documents = [{path:?}]")), &[]) {
            Ok(_) => Vec::new(),
            Err(refused) => refused.problems,
        }
    };
    let of =
        |api: &str, field: &str| format!("apiVersion: kubeadm.k8s.io/{api}\nkind: ClusterConfiguration\n{field}\n");
    assert_eq!(problems("v1.31.4", &of("v1beta4", "clusterName: edge")), []);
    let [problem] = &problems("v1.31.4", &of("v1beta4", "controlPlaneEndpoint: elsewhere:6443"))[..] else {
        panic!("the endpoint is muster's")
    };
    assert!(problem.text.contains("kubeadm.yaml") && problem.text.contains("controlPlaneEndpoint"), "{problem:?}");
    assert!(problem.line.is_some());
    // kubeadm 1.31 may deploy 1.30, so its documents may be either's.
    assert_eq!(problems("v1.30.0", &of("v1beta4", "certificateValidityPeriod: 8760h0m0s")), []);
    assert_ne!(problems("v1.28.0", &of("v1beta4", "certificateValidityPeriod: 8760h0m0s")), []);
    // Without a version kubeadm's own holds, and what no kubeadm takes is wrong all the same.
    assert_ne!(problems("", &of("v1beta4", "controlPlaneEndpoint: elsewhere:6443")), []);
    assert_eq!(problems("", &of("v1beta4", "certificateValidityPeriod: 8760h0m0s")), []);
    assert_eq!(problems("", &of("v1beta2", "useHyperKubeImage: true")), [], "kubeadm 1.20 takes it");
}

#[test]
fn subnets_and_ports_that_no_cluster_can_use_are_named_with_and_without_a_version() {
    for (key, expected) in [
        ("pod_subnet = \"fd00:10::/40\"", "`kubernetes.pod_subnet`: fd00:10::/40 is too large"),
        ("pod_subnet = \"10.244.0.0/26\"", "`kubernetes.pod_subnet`: 10.244.0.0/26 is smaller than"),
        ("pod_subnet = \"10.96.0.0/16\"", "`kubernetes.pod_subnet`: the Services' 10.96.0.0/12"),
        ("service_subnet = \"10.0.0.0/8\"", "`kubernetes.service_subnet`: 10.0.0.0/8 is too large"),
        ("service_subnet = \"10.96.0.0/30\"", "`kubernetes.service_subnet`: 10.96.0.0/30 is too small"),
        ("service_subnet = \"fd00:20::/64\"", "`kubernetes.service_subnet`: fd00:20::/64 is too large"),
        ("endpoint_port = 2379", "`kubernetes.endpoint_port` is port 2379, which is that of etcd"),
        ("endpoint_port = 10250", "`kubernetes.endpoint_port` is port 10250, which is that of the kubelet"),
        ("api_port = 10259", "`kubernetes.api_port` is port 10259, which is that of the scheduler"),
        ("api_port = 10257", "`kubernetes.api_port` is port 10257, which is that of the controller manager"),
        (
            "endpoint_port = 10256",
            "`kubernetes.endpoint_port` is port 10256, which is that of kube-proxy's health check",
        ),
    ] {
        for version in ["", "version = \"v1.31.4\"\n"] {
            let told = problems(&with(&format!("[kubernetes]\n{version}{key}")), &[]);
            let line = if version.is_empty() { 5 } else { 6 };
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].starts_with(&format!("muster.toml:{line}: {expected}")), "{told:?}");
        }
    }
    let told = problems(&with("discovery.listen = \"0.0.0.0:2380\""), &[]);
    assert_eq!(
        told,
        ["muster.toml:4: `discovery.listen` is port 2380, which is that of etcd's members among themselves"]
    );
}

#[test]
fn a_port_that_a_document_gives_to_the_kubelet_is_taken_and_its_usual_one_is_free() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("kubelet.yaml");
    let text = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nport: 7443\n";
    std::fs::write(&path, text).expect("written");
    let with_port = |port: u16| with(&format!("[kubernetes]\nendpoint_port = {port}\ndocuments = [{path:?}]"));
    assert_eq!(
        problems(&with_port(7443), &[]),
        ["muster.toml:5: `kubernetes.endpoint_port` is port 7443, which is that of the kubelet"]
    );
    assert_eq!(right(&with_port(10250)).kubernetes.endpoint_port, 10250);
    std::fs::write(&path, text.replace("7443", "2379")).expect("written");
    assert_eq!(
        problems(&with_port(7443), &[]),
        ["muster.toml:6: `documents`: etcd and the kubelet would both use port 2379"]
    );
}

#[test]
fn documents_are_read_and_checked_by_their_fields_whatever_the_version() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("k.yaml");
    const KUBEADM: &str = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n";
    const KUBELET: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
    let old = KUBEADM.replace("v1beta4", "v1beta3");
    for (text, expected) in [
        ("apiVersion: kubeadm.k8s.io/v1beta4\nkind: [\n".to_owned(), "k.yaml:"),
        (
            format!("{KUBEADM}apiServer:\n  extraArgs: {{profiling: \"false\"}}\n"),
            "apiServer.extraArgs: it must be a list",
        ),
        (
            format!("{old}controllerManager:\n  extraArgs: {{node-cidr-mask-size: 24}}\n"),
            "controllerManager.extraArgs: it must",
        ),
        (
            format!("{KUBEADM}networking: {{podSubnets: 10.1.0.0/16}}\n"),
            "networking.podSubnets: there is no such field",
        ),
        (format!("{KUBEADM}networking: {{podSubnet: 10.96.0.0/16}}\n"), "networking.podSubnet: the Services'"),
        (format!("{KUBEADM}clusterName: a\nclusterName: b\n"), "k.yaml:4"),
        (
            format!("{KUBEADM}etcd: {{external: {{endpoints: [\"https://e:2379\"]}}}}\n"),
            "etcd.external: muster runs etcd",
        ),
        (format!("{KUBEADM}etcd: {{local: {{dataDir: /data}}}}\n"), "etcd.local.dataDir: it is /data here"),
        (format!("{KUBELET}maxPods: many\n"), "KubeletConfiguration: maxPods: it must be a whole number"),
        (format!("{KUBELET}clusterDNSs: []\n"), "clusterDNSs: there is no such field; did you mean clusterDNS?"),
        ("a: b\n".to_owned(), "none that muster passes to kubeadm"),
        ("\t\u{0}".to_owned(), "k.yaml"),
    ] {
        std::fs::write(&path, &text).expect("written");
        for version in ["", "version = \"v1.31.4\"\n", "version = \"v1.37.2\"\n"] {
            let told = problems(&with(&format!("[kubernetes]\n{version}documents = [{path:?}]")), &[]);
            assert!(told.len() == 1 && told[0].contains(expected), "{version}{text}: {told:?}\nshould name {expected}");
        }
    }
}

#[test]
fn without_a_word_about_it_memory_is_not_durable() {
    let text = format!("cluster = \"site\"\nmachines = 5\nmesh_key = \"{KEY}\"\n[state]\ndir = \"/dev/shm/muster\"\n");
    assert!(!right(&text).durable);
    let Ok(insisting) = read_text(&format!("{text}durable = true\n"), &[]) else { panic!("refused") };
    assert!(insisting.image.durable && insisting.findings.iter().any(|finding| finding.text.contains("in memory")));
}

#[test]
fn the_example_is_right_as_it_stands_and_with_every_comment_made_a_line() {
    let text = example::example("site", 5, 3, KEY);
    assert_eq!((right(&text).machines, right(&text).cluster.as_str()), (5, "site"));
    let set: String = text
        .lines()
        .map(|line| format!("{}\n", line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line)))
        .collect();
    let told = problems(&set, &[]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("both given"), "{told:?}");
}

#[test]
fn the_documentation_names_every_key_and_its_meaning() {
    let page = include_str!("../../../../docs/configuration.md");
    for key in key::KEYS {
        let name = key.path.rsplit('.').next().unwrap_or(key.path);
        assert!(page.contains(&format!("`{name}`")), "docs/configuration.md does not name {}", key.path);
        if let Some(kernel) = key.kernel {
            assert!(
                page.contains(&format!("`muster.{kernel}=`")),
                "docs/configuration.md does not name muster.{kernel}="
            );
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}", kernel in "\\PC{0,80}", set in "\\PC{0,40}") {
        let _ = read(&Source { path: "muster.toml", text: &text }, &Overrides { kernel, set: vec![set], ..Overrides::default() });
    }

    #[test]
    fn no_value_makes_it_panic(index in 0..key::KEYS.len(), value in "[\"\\[\\]{}0-9a-z.:/,=é\n -]{0,40}") {
        let text = with(&format!("{} = {value}", key::KEYS[index].path));
        let _ = read(&Source { path: "muster.toml", text: &text }, &Overrides::default());
    }
}
