//! From values to an [`Image`]: what is missing, what does not fit together, what all machines must share.

use std::path::{Path, PathBuf};

use ipnet::IpNet;
use muster_protocol::BackupPlan;
use muster_wire::Digest;
use zeroize::Zeroizing;

use super::disk::{self, Disk};
use super::key::KEYS;
use super::kind::{Value, after, socket_address};
use super::problem::{Place, Problem};
use super::values::Values;
use super::{Image, Kubernetes, manifests, plan};

/// Longest document of the user's in bytes; kubelet's with every field set is about 8,000.
const DOCUMENT_BYTES_MAX: u64 = 256 * 1024;

/// Checks the values as a whole. None if anything is wrong; `problems` says what.
pub(crate) fn image(values: &Values, file: &Path, problems: &mut Vec<Problem>) -> Option<Image> {
    let (machines, control_planes) = sizes(values, problems);
    let cluster = values.text("cluster");
    if cluster.is_none() {
        problems.push(missing("cluster", "the cluster's name"));
    }
    let mesh_key = mesh_key(values, file, problems);
    let documents = documents(values, problems);
    let manifests = manifests::read(values, problems);
    ports(values, problems);
    own_subnets(values, problems);
    directories(values, problems);
    let durable = durable(values, problems);
    let address = |text: String| socket_address(&text);
    let path = |key: &str| values.text(key).map(PathBuf::from);
    let port = |key: &str| values.whole(key).and_then(|port| u16::try_from(port).ok());
    let kubernetes = Kubernetes {
        version: values.text("kubernetes.version").map(|version| format!("v{}", version.trim_start_matches('v'))),
        pod_subnet: values.text("kubernetes.pod_subnet"),
        service_subnet: values.text("kubernetes.service_subnet"),
        image_repository: values.text("kubernetes.image_repository"),
        cri_socket: values.text("kubernetes.cri_socket"),
        endpoint_port: port("kubernetes.endpoint_port")?,
        api_port: port("kubernetes.api_port")?,
        kubeadm: path("kubernetes.kubeadm")?,
        dir: path("kubernetes.dir")?,
        kubelet_dir: path("kubernetes.kubelet_dir")?,
        etcd_dir: path("kubernetes.etcd_dir")?,
        hosts_file: path("kubernetes.hosts_file")?,
        documents,
        manifests: manifests?,
        skip_phases: values.texts("kubernetes.skip_phases"),
        ignore_preflight: values.texts("kubernetes.ignore_preflight"),
    };
    let digest = digest(values, &kubernetes, control_planes?, durable?);
    let image = Image {
        cluster: cluster?,
        machines: machines?,
        control_planes: control_planes?,
        mesh_key: mesh_key?,
        name: values.text("name"),
        listen: values.text("discovery.listen").and_then(address)?,
        mdns: values.switch("discovery.mdns")?,
        subnets: values.texts("discovery.subnets").iter().filter_map(|subnet| subnet.parse().ok()).collect(),
        peers: values.texts("discovery.peers").into_iter().filter_map(address).collect(),
        dns: values.text("discovery.dns"),
        kubernetes,
        replace_after: values.text("repair.replace_after").and_then(|text| after(&text))?,
        backups: BackupPlan {
            every: values.text("backup.every").and_then(|text| after(&text))?,
            copies: values.whole("backup.copies")?,
            keep: values.whole("backup.keep")?,
        },
        state_dir: path("state.dir")?,
        durable: durable?,
        digest,
        shown: shown(values, control_planes?, durable?),
    };
    plan::check(&image, values, problems);
    Some(image)
}

/// No machine has an address of its own where Pods and Services have theirs, or where kubeadm takes none.
fn own_subnets(values: &Values, problems: &mut Vec<Problem>) {
    for own in values.texts("discovery.subnets").iter().filter_map(|subnet| subnet.parse::<IpNet>().ok()) {
        for key in ["kubernetes.pod_subnet", "kubernetes.service_subnet"] {
            let theirs = values.text(key).unwrap_or_default();
            let theirs = theirs.split(',').filter_map(|subnet| subnet.parse::<IpNet>().ok());
            if let Some(theirs) = theirs.into_iter().find(|theirs| theirs.contains(&own)) {
                let text = format!(
                    "`discovery.subnets` holds {own}, which lies in `{key}` = {theirs}: an address there counts as no machine's own"
                );
                problems.push(Problem::error(values.place("discovery.subnets"), text));
            }
        }
        let link_local = match own {
            IpNet::V4(own) => own.addr().is_link_local(),
            IpNet::V6(own) => own.addr().is_unicast_link_local(),
        };
        if link_local {
            let text = format!("`discovery.subnets` holds {own}: kubeadm takes no link-local address for a machine");
            problems.push(Problem::error(values.place("discovery.subnets"), text));
        }
    }
}

fn missing(key: &str, what: &str) -> Problem {
    Problem::error(Place::Default, format!("`{key}` is missing: {what}"))
}

fn sizes(values: &Values, problems: &mut Vec<Problem>) -> (Option<u32>, Option<u32>) {
    let Some(machines) = values.whole("machines") else {
        problems.push(missing("machines", "how many machines carry this image"));
        return (None, None);
    };
    let given = values.whole("control_planes");
    let control_planes = given.unwrap_or(if machines >= 3 { 3 } else { 1 });
    let place = values.place("control_planes");
    if control_planes > machines {
        let text = format!("`control_planes` is {control_planes}, more than `machines`, which is {machines}");
        problems.push(Problem::error(place, text));
    } else if control_planes.is_multiple_of(2) {
        let fewer = control_planes - 1;
        let text = format!(
            "`control_planes` is {control_planes}: it survives no more losses than {fewer} would; choose an odd number"
        );
        problems.push(Problem::warning(place, text));
    }
    (Some(machines), Some(control_planes))
}

fn mesh_key(values: &Values, file: &Path, problems: &mut Vec<Problem>) -> Option<Zeroizing<[u8; 32]>> {
    let inline = values.text("mesh_key").map(Zeroizing::new);
    let beside = values.text("mesh_key_file");
    let decode = |text: &str| {
        let mut key = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.trim(), &mut *key).ok().map(|()| key)
    };
    match (inline, beside) {
        (Some(_), Some(_)) => {
            let text = "`mesh_key` and `mesh_key_file` are both given: keep one";
            problems.push(Problem::error(values.place("mesh_key_file"), text));
            None
        }
        (None, None) if values.are_of_others() => {
            let text = "no mesh key is in the image: each machine must be given one, by a credential or a volume";
            problems.push(Problem::warning(Place::Default, text));
            Some(Zeroizing::new([0; 32]))
        }
        (None, None) => {
            problems.push(missing(
                "mesh_key",
                "a key that all machines share; `openssl rand -hex 32` makes one, or use `mesh_key_file`",
            ));
            None
        }
        (Some(text), None) => {
            let in_the_image = matches!(values.place("mesh_key"), Place::File(_));
            if in_the_image && file.metadata().is_ok_and(|metadata| !disk::is_private(&metadata)) {
                let text = format!("others can read the mesh key in this file: chmod 600 {}", file.display());
                problems.push(Problem::warning(values.place("mesh_key"), text));
            }
            decode(&text)
        }
        (None, Some(path)) => {
            let place = values.place("mesh_key_file");
            match key_file(&values.file(&path))
                .and_then(|text| decode(&text).ok_or("does not hold exactly 64 hexadecimal digits".to_owned()))
            {
                Ok(key) => Some(key),
                Err(why) => {
                    let whose = if values.are_of_others() { " (below --add)" } else { "" };
                    problems.push(Problem::error(place, format!("`mesh_key_file`: {path}{whose} {why}")));
                    None
                }
            }
        }
    }
}

fn key_file(path: &Path) -> Result<Zeroizing<String>, String> {
    let metadata = path.metadata().map_err(|error| format!("cannot be read: {error}"))?;
    if !metadata.is_file() || metadata.len() > 1_024 {
        return Err("is not a file of one key".to_owned());
    }
    if !disk::is_private(&metadata) {
        return Err("can be read or changed by others: make it root's or your own, and chmod 600".to_owned());
    }
    std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| format!("cannot be read: {error}"))
}

fn documents(values: &Values, problems: &mut Vec<Problem>) -> Vec<(String, String)> {
    let mut documents = Vec::new();
    for path in values.texts("kubernetes.documents") {
        let file = values.file(&path);
        let read = match file.metadata() {
            Ok(metadata) if !metadata.is_file() => Err("is not a file".to_owned()),
            Ok(metadata) if metadata.len() > DOCUMENT_BYTES_MAX => {
                Err(format!("is longer than {DOCUMENT_BYTES_MAX} bytes"))
            }
            Ok(_) => std::fs::read_to_string(&file).map_err(|error| format!("cannot be read: {error}")),
            Err(error) => Err(format!("cannot be read: {error}")),
        };
        match read {
            Ok(text) => documents.push((path, text)),
            Err(why) => {
                let place = values.place("kubernetes.documents");
                let whose = if values.are_of_others() { " (below --add)" } else { "" };
                problems.push(Problem::error(place, format!("`documents`: {path}{whose} {why}")));
            }
        }
    }
    documents
}

/// The keys that name a port of this machine, with their ports.
pub(super) fn own_ports(values: &Values) -> [(&'static str, Option<u32>); 3] {
    let listen =
        values.text("discovery.listen").and_then(|text| socket_address(&text)).map(|address| u32::from(address.port()));
    [
        ("discovery.listen", listen),
        ("kubernetes.endpoint_port", values.whole("kubernetes.endpoint_port")),
        ("kubernetes.api_port", values.whole("kubernetes.api_port")),
    ]
}

fn ports(values: &Values, problems: &mut Vec<Problem>) {
    let ports = own_ports(values);
    for (at, (key, port)) in ports.iter().enumerate() {
        if let Some((other, _)) = ports[..at].iter().find(|(_, other)| other == port) {
            let place = [*key, *other].map(|key| values.place(key)).into_iter().find(|place| *place != Place::Default);
            let port = port.unwrap_or_default();
            let text = format!("`{key}` and `{other}` both use port {port}");
            problems.push(Problem::error(place.unwrap_or(Place::Default), text));
        }
    }
}

/// Whoever empties one of them, as a reset does, must not empty another one's.
fn directories(values: &Values, problems: &mut Vec<Problem>) {
    let keys = ["kubernetes.dir", "kubernetes.kubelet_dir", "kubernetes.etcd_dir", "state.dir"];
    let paths = keys.map(|key| (key, values.text(key).map(PathBuf::from)));
    for (at, (key, path)) in paths.iter().enumerate() {
        let same = |(_, other): &&(&str, Option<PathBuf>)| match (path, other) {
            (Some(path), Some(other)) => path.starts_with(other) || other.starts_with(path),
            _ => false,
        };
        if let Some((other, _)) = paths[..at].iter().find(same) {
            let place = [*key, *other].map(|key| values.place(key)).into_iter().find(|place| *place != Place::Default);
            let text = format!("`{key}` and `{other}` are one directory, or one lies in the other");
            problems.push(Problem::error(place.unwrap_or(Place::Default), text));
        }
    }
}

/// What the user says, or what the disk below the state directory is.
fn durable(values: &Values, problems: &mut Vec<Problem>) -> Option<bool> {
    let dir = values.text("state.dir")?;
    let disk = match disk::below(Path::new(&dir)) {
        Ok(_) if values.are_of_others() => Disk::Lasting,
        Ok(disk) => disk,
        Err(error) => {
            problems.push(Problem::error(
                values.place("state.dir"),
                format!("`state.dir`: {dir} cannot be looked at: {error}"),
            ));
            return None;
        }
    };
    let place = values.place("state.durable");
    match (values.switch("state.durable"), disk) {
        (Some(true), Disk::Memory) => {
            let text = format!("`durable` is true, yet {dir} is in memory: a restart forgets this machine's promises");
            problems.push(Problem::warning(place, text));
            Some(true)
        }
        (Some(durable), _) => Some(durable),
        (None, Disk::Lasting) => Some(true),
        (None, Disk::Memory) => Some(false),
        (None, Disk::Unseen) => {
            let text = format!(
                "{dir} is on an overlay whose upper layer cannot be seen from here; it is taken to be in memory, so that all \
                 machines must vote. Say `durable = true` in [state] if it survives a restart"
            );
            problems.push(Problem::warning(Place::Default, text));
            Some(false)
        }
    }
}

/// Everything that all machines must share: the values of the shared keys, defaults included, and the documents' texts.
fn digest(values: &Values, kubernetes: &Kubernetes, control_planes: u32, durable: bool) -> Digest {
    let mut parts: Vec<String> = Vec::new();
    for key in KEYS.iter().filter(|key| key.shared) {
        let value = match key.path {
            "control_planes" => Some(Value::Whole(control_planes.into())),
            "state.durable" => Some(Value::Switch(durable)),
            "kubernetes.version" => kubernetes.version.clone().map(Value::Text),
            // Where they lie is a machine's own business, what they say is not.
            "kubernetes.documents" => {
                Some(Value::Texts(kubernetes.documents.iter().map(|(_, text)| text.clone()).collect()))
            }
            path => values.get(path).map(|(value, _)| value),
        };
        parts.push(key.path.to_owned());
        parts.push(value.map(|value| format!("{value:?}")).unwrap_or_default());
    }
    let parts: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
    Digest::of("muster/settings/v1", &parts)
}

/// The effective values with their origins.
fn shown(values: &Values, control_planes: u32, durable: bool) -> Vec<(&'static str, String, &'static str)> {
    let mut shown = Vec::new();
    for key in KEYS {
        let (value, place) = match (values.get(key.path), key.path) {
            (Some((_, place)), "mesh_key") => ("[redacted]".to_owned(), place),
            (Some((value, place)), _) => (value.to_string(), place),
            (None, "control_planes") => (control_planes.to_string(), Place::Default),
            (None, "state.durable") => (durable.to_string(), Place::Default),
            (None, _) => continue,
        };
        let origin = match place {
            Place::Default if key.path == "state.durable" => "found out",
            Place::Default => "default",
            Place::File(_) => "file",
            Place::Kernel => "kernel command line",
            Place::Beside(beside, _) => beside.into(),
            Place::Flag => "flag",
        };
        shown.push((key.path, value, origin));
    }
    shown
}
