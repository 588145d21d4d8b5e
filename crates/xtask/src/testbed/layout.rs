//! What is where: the paths of cache and state, and a testbed's description on disk.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::arguments::FormArguments;
use super::build::{self, Built};
use super::machine::Machine;
use super::network;
use super::release::Release;
use super::report::{Report, cannot_provision};
use crate::command::run;
use crate::interrupt;

/// Longest name of a testbed, in characters.
const NAME_CHARS_MAX: usize = 32;
/// The first number that is given to a machine whose lease ended.
const LEASES: u8 = 201;

/// The host's own address in a testbed's subnet; machines follow from `FIRST_MACHINE`.
const HOST: u8 = 1;
const FIRST_MACHINE: u8 = 11;

/// The places one testbed uses on this host.
pub(crate) struct Paths {
    /// What is built once and shared by every testbed.
    pub(crate) cache: PathBuf,
    /// All testbeds' state.
    pub(crate) states: PathBuf,
    /// This testbed's state.
    pub(crate) state: PathBuf,
    /// This testbed's name.
    pub(crate) name: String,
}

impl Paths {
    pub(crate) fn new(cache: PathBuf, states: PathBuf, name: &str) -> Result<Self> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(fits) || name.starts_with('-') {
            bail!("--name {name:?}: use 1 to {NAME_CHARS_MAX} letters, digits and dashes");
        }
        let (cache, states) = (std::path::absolute(cache)?, std::path::absolute(states)?);
        Ok(Self { state: states.join(name), cache, states, name: name.to_owned() })
    }

    /// The places of a second testbed beside this one.
    pub(crate) fn sibling(&self, suffix: &str) -> Result<Self> {
        Self::new(self.cache.clone(), self.states.clone(), &format!("{}-{suffix}", self.name))
    }

    pub(crate) fn is_root(&self) -> bool {
        fs::metadata("/proc/self").is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
    }

    /// The checkout this program was built from.
    pub(crate) fn checkout() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
    }

    /// The testbed's own files in the checkout.
    pub(crate) fn recipes() -> PathBuf {
        Self::checkout().join("tests/testbed")
    }

    /// The recipe of a part that is built from Go modules.
    pub(crate) fn part(name: &str) -> PathBuf {
        Self::recipes().join("build/parts").join(name)
    }

    fn description(&self) -> PathBuf {
        self.state.join("testbed.json")
    }

    /// Waits until no other command holds the lock of this name, and holds it while the returned file lives. Says so if it has to
    /// wait: the other may be building for minutes.
    pub(crate) fn lock(&self, directory: &Path, report: &Report) -> Result<File> {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let path = directory.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(why)) => {
                    return Err(why).with_context(|| format!("cannot lock {}", path.display()));
                }
                Err(TryLockError::WouldBlock) if !told => {
                    report.step(format!("waiting for another command of the testbed, which holds {}", path.display()));
                    told = true;
                }
                Err(TryLockError::WouldBlock) => interrupt::sleep(Duration::from_millis(200))?,
            }
        }
    }
}

/// The images that machines boot from: one for all, or another one for the last of them.
pub(crate) struct Images {
    pub(crate) release: Release,
    pub(crate) built: Built,
    /// An older one, for the machines that `--older` counts.
    pub(crate) older: Option<Built>,
}

impl Images {
    /// Builds what is missing of them.
    pub(crate) fn build(paths: &Paths, form: &FormArguments, report: &Report) -> Result<Self> {
        let older = form.older_release()?;
        let release = Release::read(&form.kubernetes)?;
        let built = build::build(paths, &release, None, report)?;
        let older = older.map(|release| build::build(paths, &release, Some(&built), report)).transpose()?;
        Ok(Self { release, built, older })
    }

    fn of(&self, number: u8, form: &FormArguments) -> &PathBuf {
        match &self.older {
            Some(older) if number > form.machines - form.older => &older.image,
            _ => &self.built.image,
        }
    }
}

/// One testbed, as written to `testbed.json` before anything of it is made.
#[derive(Serialize, Deserialize)]
pub(crate) struct Testbed {
    pub(crate) name: String,
    /// Number of this testbed on this host; its bridge, namespaces and cgroups carry it.
    pub(crate) index: u8,
    pub(crate) cluster: String,
    pub(crate) control_planes: u8,
    /// The bridge's own address, which is the machines' gateway.
    pub(crate) host_address: Ipv4Addr,
    pub(crate) machines: Vec<Machine>,
    /// The API's name and port, as its certificate and the machines know it.
    pub(crate) endpoint_name: String,
    pub(crate) endpoint_port: u16,
    /// Whether it has neither add-ons nor a pod network.
    #[serde(default)]
    pub(crate) bare: bool,
    /// What its Kubernetes calls itself: `v1.37.2`.
    pub(crate) kubernetes: String,
    /// The container images that kubeadm must be told of, as a document for it.
    pub(crate) container_images: String,
    pub(crate) kubectl: PathBuf,
    pub(crate) state: PathBuf,
}

impl Testbed {
    /// Describes a new testbed, with a number and a subnet no other testbed of this host has, and writes it down.
    pub(crate) fn create(paths: &Paths, images: &Images, form: &FormArguments, report: &Report) -> Result<Self> {
        if form.control_planes > form.machines {
            bail!("--control-planes {} is more than --machines {}", form.control_planes, form.machines);
        }
        let _lock = paths.lock(&paths.states, report)?;
        Self::must_not_exist(paths)?;
        let taken = others(&paths.states)?;
        let routes = run("ip", ["-4", "route", "show", "table", "all"])?;
        let given = form.subnet.as_deref().map(parse_subnet).transpose()?;
        if let Some(subnet) = given.filter(|subnet| network::in_use(&routes, *subnet)) {
            return Err(cannot_provision(format!(
                "--subnet {subnet}/24: this host has it, or a part of it, in use already"
            )));
        }
        let subnet_of = |index| given.unwrap_or(Ipv4Addr::new(10, 199, index, 0));
        let is_free = |index: &u8| {
            let free = given.is_some() || !network::in_use(&routes, subnet_of(*index));
            free && !taken.contains(index) && !network::bridge_exists(*index)
        };
        let index = (0..=254).find(is_free).context("no testbed more: 255 are up, or 10.199.0.0/16 is in use here")?;
        let subnet = subnet_of(index);
        let mut testbed = Self {
            name: paths.name.clone(),
            index,
            cluster: form.cluster.clone(),
            control_planes: form.control_planes,
            host_address: host(subnet, HOST),
            machines: Vec::new(),
            endpoint_name: format!("api.{}.muster", form.cluster),
            // By hand the API's endpoint is the first control plane itself; muster balances on every machine.
            endpoint_port: if form.by_hand { 6443 } else { 7443 },
            bare: form.bare,
            kubernetes: images.release.version.clone(),
            container_images: images.release.documents()? + &form.certificates.map(short_lived).unwrap_or_default(),
            kubectl: images.built.kubernetes.join("kubectl"),
            state: paths.state.clone(),
        };
        for number in 1..=form.machines {
            let name = format!("{}{number}", form.prefix);
            testbed.machines.push(Machine {
                hostname: form.hostname.clone().unwrap_or_else(|| name.clone()),
                directory: paths.state.join("machines").join(&name),
                link: format!("mtb{index}-{number}"),
                bridge: testbed.bridge(),
                gateway: testbed.host_address,
                address: host(subnet, FIRST_MACHINE + number - 1),
                image: images.of(number, form).clone(),
                layer: paths.state.join("layer"),
                loss_percent: form.loss,
                delay_ms: form.delay,
                rate_kbit: form.rate,
                muster: form.with_muster(),
                name,
            });
        }
        fs::create_dir_all(&paths.state)?;
        testbed.save()?;
        Ok(testbed)
    }

    /// An error when a testbed of this name is up.
    pub(crate) fn must_not_exist(paths: &Paths) -> Result<()> {
        if paths.description().exists() {
            bail!("testbed {:?} is up already: `cargo xtask testbed down --name {}` first", paths.name, paths.name);
        }
        Ok(())
    }

    /// Reads the description of a testbed that is up.
    pub(crate) fn load(paths: &Paths) -> Result<Self> {
        let path = paths.description();
        let text = fs::read(&path)
            .with_context(|| format!("no testbed {:?} is up: {} is not there", paths.name, path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    pub(crate) fn save(&self) -> Result<()> {
        let path = self.state.join("testbed.json");
        let part = path.with_extension("part");
        fs::write(&part, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("cannot write {}", part.display()))?;
        fs::rename(&part, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    pub(crate) fn machine(&self, name: &str) -> Result<&Machine> {
        let names = || self.machines.iter().map(|machine| machine.name.as_str()).collect::<Vec<_>>().join(", ");
        let found = self.machines.iter().find(|machine| machine.name == name);
        found.with_context(|| format!("no machine {name:?} in testbed {:?}; it has {}", self.name, names()))
    }

    /// Gives a machine another address of its network, from its next start on.
    pub(crate) fn lease_again(&mut self, name: &str) -> Result<()> {
        self.machine(name)?;
        let taken: Vec<Ipv4Addr> = self.machines.iter().map(|machine| machine.address).collect();
        let subnet = self.host_address;
        let address = (LEASES..=254).map(|number| host(subnet, number)).find(|address| !taken.contains(address));
        let address = address.context("every address of the network was given away")?;
        self.machines.iter_mut().filter(|machine| machine.name == name).for_each(|machine| machine.address = address);
        self.save()
    }

    /// Gives all machines addresses of another network, from their next starts on. The host gets one there as well.
    pub(crate) fn move_elsewhere(&mut self) -> Result<()> {
        let [a, b, c, _] = self.host_address.octets();
        let subnet = Ipv4Addr::new(a, b, c ^ 0x80, 0);
        let routes = run("ip", ["-4", "route", "show", "table", "all"])?;
        if network::in_use(&routes, subnet) {
            return Err(cannot_provision(format!("{subnet}/24 is in use on this host")));
        }
        self.host_address = host(subnet, HOST);
        network::move_bridge(self)?;
        for machine in &mut self.machines {
            let [.., number] = machine.address.octets();
            (machine.address, machine.gateway) = (host(subnet, number), self.host_address);
        }
        self.save()
    }

    pub(crate) fn bridge(&self) -> String {
        network::bridge_name(self.index)
    }
}

/// The numbers of all testbeds that are described on this host.
fn others(states: &Path) -> Result<BTreeSet<u8>> {
    let mut taken = BTreeSet::new();
    for entry in fs::read_dir(states)? {
        let path = entry?.path().join("testbed.json");
        if let Some(index) = index_of(&path) {
            taken.insert(index);
        }
    }
    Ok(taken)
}

/// The number in a description, also in one this version cannot read otherwise.
pub(crate) fn index_of(description: &Path) -> Option<u8> {
    let value: serde_json::Value = serde_json::from_slice(&fs::read(description).ok()?).ok()?;
    u8::try_from(value["index"].as_u64()?).ok()
}

fn host(subnet: Ipv4Addr, number: u8) -> Ipv4Addr {
    let [a, b, c, _] = subnet.octets();
    Ipv4Addr::new(a, b, c, number)
}

fn parse_subnet(text: &str) -> Result<Ipv4Addr> {
    let address = text.strip_suffix(".0/24").map(|start| format!("{start}.0"));
    let address = address.and_then(|text| text.parse::<Ipv4Addr>().ok()).filter(Ipv4Addr::is_private);
    address.with_context(|| format!("--subnet {text:?}: a private network such as 10.77.3.0/24 is needed"))
}

/// What belongs to the cluster's document so that certificates end soon.
fn short_lived(life: Duration) -> String {
    let life = format!("{}s", life.as_secs());
    format!(
        "certificateValidityPeriod: {life}\ncontrollerManager:\n  extraArgs:\n  - name: cluster-signing-duration\n    value: {life}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_private_and_a_24() {
        assert_eq!(parse_subnet("10.77.3.0/24").unwrap(), Ipv4Addr::new(10, 77, 3, 0));
        for wrong in ["10.77.3.0", "10.77.3.1/24", "8.8.8.0/24", "10.77.0.0/16", "x.0/24"] {
            assert!(parse_subnet(wrong).unwrap_err().to_string().contains(wrong));
        }
    }

    #[test]
    fn names_that_would_leave_the_state_directory_are_refused() {
        for wrong in ["", "..", "a/b", "-x", "a b"] {
            assert!(Paths::new("/c".into(), "/s".into(), wrong).is_err(), "{wrong}");
        }
        assert_eq!(Paths::new("/c".into(), "/s".into(), "A").unwrap().state, Path::new("/s/A"));
    }

    #[test]
    fn each_testbed_gets_a_number_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("a")).unwrap();
        fs::write(directory.path().join("a/testbed.json"), r#"{"index": 4}"#).unwrap();
        fs::create_dir(directory.path().join("b")).unwrap();
        assert_eq!(others(directory.path()).unwrap(), BTreeSet::from([4]));
    }
}
