//! `muster config example`: a muster.toml to begin with, made from the table of keys.

use zeroize::Zeroizing;

use super::key::{KEYS, Key};
use super::kind::Kind;

/// 32 bytes of fresh entropy as hexadecimal digits.
///
/// # Errors
/// When the operating system has none.
pub(crate) fn fresh_key() -> std::io::Result<Zeroizing<String>> {
    let mut key = Zeroizing::new([0_u8; 32]);
    getrandom::fill(&mut *key).map_err(std::io::Error::other)?;
    Ok(Zeroizing::new(hex::encode(*key)))
}

/// A complete file with this mesh key. What has a default is a comment.
pub(crate) fn example(cluster: &str, machines: u32, control_planes: u32, key: &str) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::from("# muster.toml: the same on every machine of the site.\n"));
    let mut section = "";
    for entry in KEYS.iter().filter(|entry| entry.path != "name") {
        let (home, name) = entry.path.split_once('.').unwrap_or(("", entry.path));
        if home != section {
            section = home;
            text.push_str(&format!("\n[{home}]\n"));
        } else if home.is_empty() {
            text.push('\n');
        }
        for line in wrapped(entry.about) {
            text.push_str(&format!("# {line}\n"));
        }
        match name {
            "cluster" => text.push_str(&format!("cluster = {cluster:?}\n")),
            "machines" => text.push_str(&format!("machines = {machines}\n")),
            "control_planes" => text.push_str(&format!("control_planes = {control_planes}\n")),
            "mesh_key" => text.push_str(&format!("mesh_key = \"{key}\"\n")),
            _ => text.push_str(&format!("#{name} = {}\n", sample(entry))),
        }
    }
    text
}

/// A key's default, or something of its form, as TOML writes it.
pub(crate) fn sample(key: &Key) -> String {
    let text = key.default.unwrap_or(match key.path {
        "mesh_key_file" => "/etc/muster/mesh.key",
        "discovery.dns" => "muster.example.org",
        "kubernetes.version" => "v1.31.4",
        "kubernetes.pod_subnet" => "10.244.0.0/16",
        "kubernetes.service_subnet" => "10.96.0.0/12",
        "kubernetes.image_repository" => "registry.k8s.io",
        "kubernetes.cri_socket" => "unix:///run/containerd/containerd.sock",
        "state.durable" => "true",
        "control_planes" => "3",
        "machines" => "5",
        _ => "site",
    });
    match (key.kind, text) {
        (Kind::Whole(..) | Kind::Switch, _) => text.to_owned(),
        (kind, _) if kind.is_list() => {
            let items: Vec<&str> = text.split(',').filter(|item| !item.is_empty()).collect();
            format!("{items:?}")
        }
        _ => format!("{text:?}"),
    }
}

/// Breaks a sentence into lines of at most 110 characters.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is a line");
        if line.len() + word.len() > 110 {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}
