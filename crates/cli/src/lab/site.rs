//! What the machines of a lab have in common: one muster.toml, one executable, one rehearsal kubeadm.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};

use anyhow::Context as _;
use std::io::Write as _;

use super::machine::{Image, Machine};
use super::place::{API_PORT, ENDPOINT_PORT, MESH_PORT, Place};
use crate::args::{Fault, LabArguments};
use crate::config::example::fresh_key;

/// Writes what the machines share.
///
/// # Errors
/// When the lab's directory cannot be written.
pub(crate) fn image(
    place: &Place,
    arguments: &LabArguments,
    control_planes: u32,
    machines: &[Machine],
) -> anyhow::Result<Image> {
    let muster = std::env::current_exe().context("this program's own file is not known")?;
    let kubeadm = place.dir.join("kubeadm");
    // By this name the program is the rehearsal kubeadm.
    symlink(&muster, &kubeadm)?;
    let peers: Vec<String> = machines.iter().map(|machine| format!("{}:{MESH_PORT}", machine.address)).collect();
    let config = place.dir.join("muster.toml");
    let key = fresh_key()?;
    let manifests = arguments.manifests.iter();
    let manifests = manifests.map(|path| path.canonicalize().with_context(|| path.display().to_string()));
    let manifests: Vec<_> = manifests.collect::<anyhow::Result<_>>()?;
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&config)?;
    // Loopback has no multicast, so the machines are told of each other. A lab is never rebooted: its state is durable
    // even where the temporary directory is in memory.
    write!(
        file,
        "cluster = \"lab\"\nmachines = {}\ncontrol_planes = {control_planes}\nmesh_key = \"{}\"\n\n\
         [discovery]\nmdns = false\npeers = {peers:?}\n\n\
         [kubernetes]\nversion = \"{}\"\nkubeadm = {kubeadm:?}\nendpoint_port = {ENDPOINT_PORT}\napi_port = {API_PORT}\n\
         manifests = {manifests:?}\n\n\
         [state]\ndurable = true\n",
        machines.len(),
        *key,
        VERSION
    )?;
    let environment = vec![("MUSTER_REHEARSAL_PACE".to_owned(), arguments.pace.to_string())];
    Ok(Image { muster, config, log: arguments.log.clone(), record: arguments.record.clone(), environment })
}

/// What one machine's rehearsal kubeadm is told to do wrong.
pub(crate) fn environment_of(machine: &str, faults: &[Fault]) -> Vec<(String, String)> {
    let faults: Vec<&str> =
        faults.iter().filter(|fault| fault.machine == machine).map(|fault| fault.what.as_str()).collect();
    if faults.is_empty() { Vec::new() } else { vec![("MUSTER_REHEARSAL_FAULT".to_owned(), faults.join(","))] }
}

/// The version that the rehearsal kubeadm says it is.
const VERSION: &str = "v1.31.4";
