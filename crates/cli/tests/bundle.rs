//! `muster bundle`, from one of several real agents: what all of them say is in it, and no secret of any.

#![forbid(unsafe_code)]

#[allow(dead_code, reason = "other tests use the rest of it")]
mod site;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use flate2::read::GzDecoder;
use site::Site;

fn unpacked(archive: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(GzDecoder::new(fs::File::open(archive).expect("opened")));
    let file = |entry: std::io::Result<tar::Entry<'_, GzDecoder<fs::File>>>| {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a path").to_string_lossy().into_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("text");
        (name, text)
    };
    archive.entries().expect("entries").map(file).collect()
}

/// The lines of all private keys below a directory.
fn secrets(root: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            secrets(&path, found);
        } else if path.extension().is_some_and(|end| end == "key") {
            let text = fs::read_to_string(&path).unwrap_or_default();
            found.extend(text.lines().filter(|line| line.len() > 40).map(str::to_owned));
        }
    }
}

#[test]
fn what_every_machine_says_is_in_it_and_no_secret() {
    let site = Site::new();
    let image = site.image(2, 1);
    let log = site.root(1).join("var/log/pods/kube-system_web-1_0123/web/0.log");
    fs::create_dir_all(log.parent().expect("has one")).expect("made");
    let token = "abcdef.0123456789abcdef";
    fs::write(&log, format!("an ordinary line\njoin with {token}\nmesh_key = {}\n", image.mesh_key)).expect("written");
    let agents = [1, 2].map(|number| site.start(number, &image));
    for agent in &agents {
        agent.until_phase("ready");
    }
    agents[1].until("is connected", |status| status["peers"][0]["connected"] == true);
    let archive = site.path().join("bundle.tar.gz");
    let said = agents[1].ask(&["bundle", "--json", "--out", &archive.display().to_string()]);
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["machines"].as_array().map(Vec::len), Some(2), "{said}");
    assert!(said["machines"].as_array().into_iter().flatten().all(|machine| machine["why"].is_null()), "{said}");
    assert_eq!(fs::metadata(&archive).expect("is there").permissions().mode() & 0o777, 0o600);
    let files = unpacked(&archive);
    for file in ["status.json", "explain.json", "ledger.json", "events.txt", "log.txt"] {
        let found = files.iter().filter(|(name, text)| name.ends_with(file) && !text.is_empty()).count();
        assert_eq!(found, 2, "{file} of both machines: {:?}", files.keys());
    }
    let pods: Vec<&String> =
        files.iter().filter(|(name, _)| name.contains("pod-kube-system_web-1")).map(|(_, text)| text).collect();
    assert!(pods.len() == 1 && pods[0].contains("an ordinary line") && pods[0].contains("join with"), "{pods:?}");
    let mut kept_back = vec![image.mesh_key.clone(), token.to_owned()];
    secrets(site.path(), &mut kept_back);
    assert!(kept_back.len() > 10, "the machines have keys");
    for secret in kept_back {
        let leak = files.iter().find(|(_, text)| text.contains(&secret));
        assert!(leak.is_none(), "a secret is in {:?}", leak.map(|(name, _)| name));
    }
    let again = agents[1].ask_unread(&["bundle", "--only-this", "--out", &archive.display().to_string()]);
    assert_eq!(again.status.code(), Some(1), "what is there is not written over");
}
