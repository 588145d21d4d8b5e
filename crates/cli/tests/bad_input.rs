//! What may be wrong with a machine, its disk, its clock, its kubeadm and its neighbours: real agents as processes.

#![forbid(unsafe_code)]

mod hosts_file;
#[allow(dead_code, reason = "other tests use the rest of it")]
mod site;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use site::{Agent, Image, Site};

fn ready(agents: &[Agent]) {
    for agent in agents {
        agent.until_phase("ready");
    }
}

#[test]
fn two_images_on_one_network_found_nothing_and_name_both() {
    let site = Site::new();
    let (three, five) = (site.image(3, 1), site.image(5, 1));
    let agents = [site.start(1, &three), site.start(2, &three), site.start(3, &five)];
    for agent in &agents {
        let text = agent.until_explained(&["machines = 3", "machines = 5"]);
        assert!(text.contains("halt"), "{text}");
        assert!(agent.status()["charter"].is_null());
    }
}

#[test]
fn a_machine_that_knows_no_dns_server_says_how_coredns_is_configured_and_becomes_ready() {
    let site = Site::new();
    let document = site.path().join("kubelet.yaml");
    let without = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nresolvConf: /no/such/file\n";
    fs::write(&document, without).expect("written");
    let image = Image { documents: vec![document], ..site.image(1, 1) };
    let agent = site.start(1, &image);
    agent.until_phase("ready");
    let log = agent.log();
    assert!(log.contains("/no/such/file names no DNS server that a Pod could reach"), "{log}");
}

#[test]
fn a_machine_with_another_mesh_key_stays_outside_and_is_told_of() {
    let site = Site::new();
    let image = site.image(2, 1);
    let other = Image { mesh_key: "77".repeat(32), ..image.clone() };
    let agents = [site.start(1, &image), site.start(2, &image)];
    let stranger = site.start(3, &other);
    ready(&agents);
    stranger.until_explained(&["another mesh key, or not muster"]);
    assert!(stranger.status()["charter"].is_null());
    agents[0].until_explained(&["was turned away", "another mesh key, or not muster"]);
}

#[test]
fn another_clusters_machine_is_refused_and_both_go_on() {
    let site = Site::new();
    let image = site.image(1, 1);
    let agents = [site.start(1, &image), site.start(2, &Image { cluster: "other", ..image })];
    ready(&agents);
    agents[0].until_explained(&["belongs to cluster \"other\", this is \"site\""]);
    agents[1].until_explained(&["belongs to cluster \"site\", this is \"other\""]);
}

#[test]
fn two_clusters_of_one_name_that_meet_do_not_mix() {
    let site = Site::new();
    let image = site.image(1, 1);
    // Each founds alone, as its image of one machine says, before it has met the other.
    let first = site.start(1, &image);
    let ours = first.until_phase("ready")["charter"].clone();
    first.kill();
    let second = site.start(2, &image);
    let theirs = second.until_phase("ready")["charter"].clone();
    assert_ne!(ours, theirs);
    let first = site.start(1, &image);
    first.until_explained(&["a machine never belongs to two clusters"]);
    second.until_explained(&["a machine never belongs to two clusters"]);
    assert_eq!((&first.status()["charter"], &second.status()["charter"]), (&ours, &theirs));
}

#[test]
fn a_state_directory_that_cannot_be_written_is_named() {
    let site = Site::new();
    let image = site.image(1, 1);
    let state = site.root(1).join("var/lib/muster");
    fs::create_dir_all(state.parent().expect("has one")).expect("made");
    fs::write(&state, "not a directory").expect("written");
    let (code, text) = site.refuse(1, &image);
    assert!(code == Some(1) && text.contains(&state.display().to_string()), "{code:?} {text}");
}

#[test]
fn a_full_disk_stops_the_machine_and_says_so() {
    let site = Site::new();
    let state = site.root(1).join("var/lib/muster");
    fs::create_dir_all(&state).expect("made");
    // Whatever is written beside the state, before it replaces it, finds no room.
    std::os::unix::fs::symlink("/dev/full", state.join("state.new")).expect("linked");
    let (code, text) = site.refuse(1, &site.image(1, 1));
    assert!(code == Some(1) && text.contains("state.new") && text.contains("No space left"), "{code:?} {text}");
}

#[test]
fn a_corrupt_state_is_detected_and_never_guessed_at() {
    let site = Site::new();
    let image = site.image(1, 1);
    let agent = site.start(1, &image);
    agent.until_phase("ready");
    agent.kill();
    let state = site.root(1).join("var/lib/muster/state");
    let whole = fs::read(&state).expect("reads");
    let mut rotten = whole.clone();
    rotten[whole.len() / 2] ^= 0x10;
    fs::write(&state, &rotten).expect("written");
    let (code, text) = site.refuse(1, &image);
    assert!(code == Some(1) && text.contains("is damaged") && text.contains("Wipe the directory"), "{code:?} {text}");
    assert_eq!(fs::read(&state).expect("reads"), rotten, "nothing is written over it");
    // Raft's votes were lost, and the identity knows that it had some.
    fs::write(&state, &whole).expect("written");
    let raft = site.root(1).join("var/lib/muster/raft.redb");
    fs::remove_file(&raft).expect("removed");
    let (code, text) = site.refuse(1, &image);
    assert!(code == Some(1) && text.contains(&raft.display().to_string()), "{code:?} {text}");
}

#[test]
fn the_state_of_another_cluster_is_refused() {
    let site = Site::new();
    let image = site.image(1, 1);
    let agent = site.start(1, &image);
    agent.until_phase("ready");
    agent.kill();
    let (code, text) = site.refuse(1, &Image { cluster: "other", ..image });
    assert!(code == Some(1) && text.contains("\"site\"") && text.contains("\"other\""), "{code:?} {text}");
}

#[test]
fn a_state_directory_copied_to_a_second_machine_is_refused_there() {
    let site = Site::new();
    let image = site.image(1, 1);
    let agent = site.start(1, &image);
    agent.until_phase("ready");
    let (from, to) = (site.root(1).join("var/lib/muster"), site.root(2).join("var/lib/muster"));
    fs::create_dir_all(&to).expect("made");
    fs::set_permissions(&to, fs::Permissions::from_mode(0o700)).expect("set");
    fs::copy(from.join("state"), to.join("state")).expect("copied");
    let (code, text) = site.refuse(2, &image);
    assert!(code == Some(1) && text.contains("must not be copied"), "{code:?} {text}");
    agent.until_phase("ready");
}

#[test]
fn a_missing_kubeadm_is_said_and_a_later_one_is_taken() {
    let site = Site::new();
    let late = site.path().join("late");
    fs::create_dir(&late).expect("made");
    let kubeadm = late.join("kubeadm");
    let image = Image { kubeadm: kubeadm.clone(), ..site.image(3, 1) };
    let agents = [site.start(1, &image), site.start(2, &image), site.start(3, &image)];
    for agent in &agents {
        agent.until_explained(&["kubeadm", kubeadm.to_str().expect("text")]);
    }
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_muster"), &kubeadm).expect("linked");
    ready(&agents);
}

#[test]
fn host_names_that_say_nothing_make_unique_nodes() {
    let site = Site::new();
    let image = Image { name: Some("localhost"), ..site.image(3, 1) };
    let agents = [site.start(1, &image), site.start(2, &image), site.start(3, &image)];
    let mut names: Vec<String> =
        agents.iter().map(|agent| agent.until_phase("ready")["name"].as_str().expect("a name").to_owned()).collect();
    names.sort();
    names.dedup();
    assert!(names.len() == 3 && names.iter().all(|name| name.starts_with("m-")), "{names:?}");
}

#[test]
fn a_reader_that_is_gone_ends_what_looks_into_a_machine_and_not_the_machine() {
    let site = Site::new();
    let image = site.image(1, 1);
    let agent = site.start_unread(1, &image);
    agent.until_phase("ready");
    for arguments in [
        vec!["status"],
        vec!["status", "--json"],
        vec!["status", "--watch"],
        vec!["status", "--watch", "--json"],
        vec!["explain"],
        vec!["explain", "--json"],
        vec!["logs"],
        vec!["logs", "--follow"],
    ] {
        let said = agent.ask_unread(&arguments);
        let complaint = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.code() == Some(0) && complaint.is_empty(), "{arguments:?}: {}: {complaint}", said.status);
    }
    agent.until_phase("ready");
}
