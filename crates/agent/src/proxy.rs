//! The proxies of the agent's own environment, which kubeadm inherits: what muster has it dial is never behind one.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;

use muster_kubeadm::Settings;

/// Most addresses of machines that are named: an environment variable has 128 KiB at most, and so has everything that
/// kubeadm passes on of it to the control plane's Pods.
const ADDRESSES_MAX: usize = 1_000;

/// Variables that name a proxy, as Go's net/http and curl read them.
const PROXIES: [&str; 3] = ["http_proxy", "https_proxy", "all_proxy"];

/// kubeadm's own when nobody names one: `DefaultServicesSubnet` of `apis/kubeadm/v1beta4/defaults.go`, Kubernetes 1.37.
const SERVICES: &str = "10.96.0.0/12";

/// What the agent's environment says of proxies, and what must not be behind one.
pub(crate) struct Proxies {
    /// Each proxy variable with its value, less any password.
    set: Vec<(String, String)>,
    /// What people except from it.
    excepted: Vec<String>,
    /// What muster excepts from the beginning: loopback, the endpoint's name, the subnets.
    always: Vec<String>,
    addresses: Mutex<BTreeSet<IpAddr>>,
}

impl Proxies {
    /// Of this process's environment.
    pub(crate) fn of_environment(settings: &Settings) -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        };
        Self::new(std::env::vars_os().filter_map(text), settings)
    }

    fn new(environment: impl Iterator<Item = (String, String)>, settings: &Settings) -> Self {
        let (mut set, mut excepted) = (Vec::new(), Vec::new());
        for (name, value) in environment.filter(|(_, value)| !value.trim().is_empty()) {
            let lower = name.to_lowercase();
            if PROXIES.contains(&lower.as_str()) {
                set.push((name, without_user(&value)));
            } else if lower == "no_proxy" {
                let items = value.split(',').map(|item| item.trim().to_owned());
                excepted.extend(items.filter(|item| !item.is_empty()));
            }
        }
        set.sort();
        let mut always: Vec<String> = ["localhost", "127.0.0.0/8", "::1"].map(str::to_owned).into();
        let endpoint = settings.endpoint.rsplit_once(':').map_or(settings.endpoint.as_str(), |(name, _)| name);
        always.push(endpoint.trim_matches(['[', ']']).to_owned());
        always.extend(settings.service_subnet.is_none().then(|| SERVICES.to_owned()));
        always.extend(muster_kubeadm::subnets(settings).unwrap_or_default().iter().map(ToString::to_string));
        Self { set, excepted, always, addresses: Mutex::default() }
    }

    /// Takes addresses of machines, `address` or `address:port`; names are not machines' and are left out.
    pub(crate) fn except<'a>(&self, addresses: impl IntoIterator<Item = &'a str>) {
        if self.set.is_empty() {
            return;
        }
        let mut known = self.addresses.lock().expect("no holder panics");
        for text in addresses {
            let ip = text.parse::<SocketAddr>().map(|at| at.ip()).or_else(|_| text.parse());
            if let Ok(ip) = ip
                && known.len() < ADDRESSES_MAX
            {
                known.insert(ip);
            }
        }
    }

    /// What kubeadm is told besides the agent's own environment: nothing where there is no proxy.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        if self.set.is_empty() {
            return Vec::new();
        }
        let known = self.addresses.lock().expect("no holder panics");
        let mut items: Vec<String> = Vec::new();
        let all = self.excepted.iter().chain(&self.always).cloned().chain(known.iter().map(ToString::to_string));
        for item in all {
            if !items.contains(&item) {
                items.push(item);
            }
        }
        let value = items.join(",");
        // Programs differ in which of the two they read first.
        vec![("NO_PROXY".to_owned(), value.clone()), ("no_proxy".to_owned(), value)]
    }

    /// What people should know when a run failed; none where there is no proxy. It holds no password.
    pub(crate) fn note(&self) -> Option<String> {
        let set: Vec<String> = self.set.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (!set.is_empty()).then(|| format!("a proxy is set in the agent's environment: {}", set.join(", ")))
    }
}

/// A proxy's URL without a user and a password; bounded.
fn without_user(url: &str) -> String {
    let url = match (url.rsplit_once('@'), url.split_once("://")) {
        (Some((_, host)), Some((scheme, _))) => format!("{scheme}://{host}"),
        (Some((_, host)), None) => host.to_owned(),
        (None, _) => url.to_owned(),
    };
    url.chars().filter(|c| !c.is_control()).take(100).collect()
}

/// Whether kubeadm is not to see a variable of the agent's environment: those that would make it, its kubectl, crictl or etcd's
/// client talk to another cluster or container runtime than this machine's, those that would make it other code, and those with
/// which a service manager means the agent alone.
pub(crate) fn is_kept_back(name: &str) -> bool {
    const PREFIXES: [&str; 6] = ["KUBE", "ETCD", "CRI_", "LD_", "LISTEN_", "WATCHDOG_"];
    const NAMES: [&str; 3] = ["CONTAINER_RUNTIME_ENDPOINT", "IMAGE_SERVICE_ENDPOINT", "NOTIFY_SOCKET"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            pod_subnet: Some("10.244.0.0/16,fd00:10::/56".into()),
            ..Settings::of("site", std::path::Path::new("/"))
        }
    }

    fn proxies(environment: &[(&str, &str)]) -> Proxies {
        Proxies::new(environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())), &settings())
    }

    #[test]
    fn all_that_muster_dials_is_excepted_in_both_spellings_and_what_people_except_stays() {
        let proxies = proxies(&[
            ("HTTPS_PROXY", "http://proxy:3128"),
            ("NO_PROXY", "example.org, .corp"),
            ("no_proxy", "10.1.1.1,.corp"),
        ]);
        proxies.except(["10.0.0.2:7390", "[fd00::2]:7390", "10.0.0.3", "10.0.0.2:6443", "a name", ""]);
        let expected = "example.org,.corp,10.1.1.1,localhost,127.0.0.0/8,::1,api.site.muster,10.96.0.0/12,10.244.0.0/16,\
                        fd00:10::/56,10.0.0.2,10.0.0.3,fd00::2";
        let variables = proxies.variables();
        assert_eq!(variables.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["NO_PROXY", "no_proxy"]);
        assert!(variables.iter().all(|(_, value)| value == expected), "{variables:?}");
    }

    #[test]
    fn without_a_proxy_nothing_is_said() {
        for environment in [&[][..], &[("NO_PROXY", "a")], &[("https_proxy", " ")], &[("HTTP_PROXY_X", "http://a")]] {
            let proxies = proxies(environment);
            proxies.except(["10.0.0.2"]);
            assert!(proxies.variables().is_empty() && proxies.note().is_none(), "{environment:?}");
        }
    }

    #[test]
    fn a_password_is_never_told() {
        for value in ["http://user:hunter2@proxy:3128", "user:hunter2@proxy:3128", "http://u:a@hunter2@proxy:3128/x"] {
            for name in ["HTTP_PROXY", "https_proxy", "All_Proxy"] {
                let note = proxies(&[(name, value)]).note().expect("a proxy is set");
                assert!(note.contains(name) && note.contains("proxy:3128") && !note.contains("hunter2"), "{note}");
            }
        }
    }

    #[test]
    fn so_many_addresses_still_fit_into_an_environment() {
        let proxies = proxies(&[("https_proxy", "http://proxy:3128")]);
        for number in 0..20_000_u128 {
            proxies.except([std::net::Ipv6Addr::from(u128::MAX - number).to_string().as_str()]);
        }
        assert!(proxies.variables()[0].1.len() < 100_000);
    }

    #[test]
    fn what_points_at_another_cluster_is_kept_back() {
        for name in [
            "KUBECONFIG",
            "KUBERNETES_SERVICE_HOST",
            "KUBERNETES_MASTER",
            "KUBEADM_INIT_DRYRUN_DIR",
            "ETCDCTL_ENDPOINTS",
        ] {
            assert!(is_kept_back(name), "{name}");
        }
        for name in ["PATH", "HOME", "HTTPS_PROXY", "MUSTER_REHEARSAL_DIR", "LANG"] {
            assert!(!is_kept_back(name), "{name}");
        }
    }
}
