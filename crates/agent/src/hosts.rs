//! The hosts file, kept as it should be: the endpoint's name means this machine, whoever rewrites the file.
//!
//! A state and not a step: an image with its own hosts file brings it back at every boot, a lease may change, and
//! provisioning tools write the file anew. So it is compared when the core names an address, and now and then.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use muster_protocol::Input;
use tokio::sync::mpsc;

mod block;
mod file;

use block::Block;
use file::HostsFile;

/// Pause between two looks at the file. A look reads a small file that is in memory.
pub(crate) const LOOK_PAUSE: Duration = Duration::from_secs(15);

/// Most lines of others that people are told of.
const OTHERS_MAX: usize = 4;

/// The file, what it should say, and whom to tell what is wrong with it.
pub(crate) struct Hosts {
    path: PathBuf,
    cluster: String,
    name: String,
    state: Mutex<State>,
    inputs: mpsc::Sender<Input>,
}

#[derive(Default)]
struct State {
    /// What the name is to mean; none before the core or a step named it.
    address: Option<IpAddr>,
    /// What the core was told last.
    told: Vec<String>,
}

impl Hosts {
    /// Nothing is written before an address is named.
    pub(crate) fn new(path: PathBuf, cluster: String, name: String, inputs: mpsc::Sender<Input>) -> Self {
        Self { path, cluster, name, state: Mutex::default(), inputs }
    }

    /// From now on the name means `address`. What is wrong is told to the core.
    pub(crate) fn mean(&self, address: IpAddr) {
        self.state.lock().expect("no holder panics").address = Some(address);
        self.look();
    }

    /// Sees to it that the name resolves before kubeadm needs it, to `address` if the core has named no other.
    ///
    /// # Errors
    /// When the file cannot be read or written; it says which.
    pub(crate) fn require(&self, address: IpAddr) -> Result<(), String> {
        self.state.lock().expect("no holder panics").address.get_or_insert(address);
        self.mend().map(|troubles| self.tell(troubles))
    }

    /// Compares the file with what it should say, mends it, and tells the core what is wrong with it.
    pub(crate) fn look(&self) {
        let troubles = self.mend().unwrap_or_else(|why| vec![why]);
        self.tell(troubles);
    }

    /// Returns what else the file says of the name.
    fn mend(&self) -> Result<Vec<String>, String> {
        // Held while the file is written: a step and a look may come at once.
        let state = self.state.lock().expect("no holder panics");
        let Some(address) = state.address else { return Ok(Vec::new()) };
        let shown = self.path.display();
        let failed = |why: std::io::Error| format!("{shown}: {} cannot be given an address: {why}", self.name);
        let file = HostsFile::read(&self.path).map_err(failed)?;
        let block = Block { cluster: &self.cluster, name: &self.name, address };
        let edited = block.put_into(file.contents());
        if edited.after != file.contents() {
            tracing::info!(path = %shown, name = self.name, %address, "the hosts file is mended");
            file.replace(&edited.after).map_err(failed)?;
        }
        let count = edited.others.len();
        let others = edited.others.into_iter().take(OTHERS_MAX).map(|other| {
            format!(
                "{shown}:{}: {:?} is not muster's and gives {} another address than this machine's {address}: delete \
                 that line, for programs may take either",
                other.line, other.text, self.name
            )
        });
        let mut troubles: Vec<String> = others.collect();
        if count > OTHERS_MAX {
            troubles.push(format!("{shown}: {} more such lines", count - OTHERS_MAX));
        }
        Ok(troubles)
    }

    /// Tells the core if it is news. With a full queue it is told after the next look.
    fn tell(&self, troubles: Vec<String>) {
        let mut state = self.state.lock().expect("no holder panics");
        if state.told != troubles && self.inputs.try_send(Input::HostsFile { troubles: troubles.clone() }).is_ok() {
            state.told = troubles;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn told(inputs: &mut mpsc::Receiver<Input>) -> Option<Vec<String>> {
        match inputs.try_recv() {
            Ok(Input::HostsFile { troubles }) => Some(troubles),
            other => {
                assert!(other.is_err(), "{other:?}");
                None
            }
        }
    }

    #[test]
    fn what_was_taken_out_comes_back_and_what_is_wrong_is_told_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("hosts");
        let (inputs, mut heard) = mpsc::channel(8);
        let hosts = Hosts::new(path.clone(), "site".into(), "api.site.muster".into(), inputs);
        hosts.look();
        assert!(!path.exists(), "nobody named an address yet");
        let first: IpAddr = "10.0.0.1".parse().expect("an address");
        hosts.require(first).expect("writes");
        let whole = "# begin muster site\n10.0.0.1 api.site.muster\n# end muster site\n";
        assert_eq!(fs::read_to_string(&path).expect("reads"), whole);
        fs::write(&path, "127.0.0.1 localhost\n").expect("the image's own file comes back");
        hosts.look();
        assert_eq!(fs::read_to_string(&path).expect("reads"), format!("127.0.0.1 localhost\n{whole}"));
        assert_eq!(told(&mut heard), None);
        hosts.mean("10.0.0.2".parse().expect("an address"));
        hosts.require(first).expect("a step does not know better than the core");
        assert!(fs::read_to_string(&path).expect("reads").contains("10.0.0.2 api.site.muster\n"));
        fs::write(&path, "::1 localhost\n10.9.9.9 x api.site.muster\n").expect("writes");
        hosts.look();
        hosts.look();
        let troubles = told(&mut heard).expect("something is wrong");
        assert!(troubles[0].contains("hosts:5: \"10.9.9.9 x api.site.muster\""), "{troubles:?}");
        assert_eq!(told(&mut heard), None);
        fs::remove_file(&path).expect("removes");
        fs::create_dir(&path).expect("makes");
        hosts.look();
        let troubles = told(&mut heard).expect("something is wrong");
        assert!(troubles[0].contains("hosts: api.site.muster cannot be given an address"), "{troubles:?}");
        assert!(hosts.require(first).is_err());
    }
}
