//! What runs on this machine, as its files say: for its card.

mod disk;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use muster_kubeadm::Settings;
use muster_kubeadm::kubeconfig::{Identity, Kubeconfig, Material};
use muster_kubeadm::renewal::{Certificate, Standing, Whose};
use muster_protocol::{Input, Reason, Topic};
use muster_wire::Digest;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

/// How often it is looked at: a certificate lasts for months, and whoever changes a kubelet's configuration waits for longer.
const PAUSE: Duration = Duration::from_secs(60);

/// Tells the machine at every look, for as long as the agent runs. What of it is news the machine knows.
pub(crate) async fn watch(settings: Settings, inputs: mpsc::Sender<Input>) {
    let disk = settings.etcd_dir.clone();
    // Before kubeadm's own work begins: what is measured beside it would be its work.
    let sync_us = tokio::task::spawn_blocking(move || disk::typical_sync_us(&disk)).await.unwrap_or_default();
    while inputs.send(look(&settings, sync_us)).await.is_ok() {
        tokio::time::sleep(PAUSE).await;
    }
}

/// What kubeadm wrote and has no content: nothing of Kubernetes says more than that it cannot be parsed.
pub(crate) fn torn(settings: &Settings) -> Option<Reason> {
    let manifests = std::fs::read_dir(settings.dir.join("manifests")).into_iter().flatten().flatten();
    let manifests =
        manifests.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "yaml"));
    let files = settings.certificates().into_iter().chain(settings.kubeconfigs()).chain(manifests);
    let files = files.chain([settings.kubelet_kubeconfig(), settings.kubelet_dir.join("config.yaml")]);
    let empty = |path: &PathBuf| path.metadata().is_ok_and(|file| file.is_file() && file.len() == 0);
    let named: Vec<String> = files.filter(empty).map(|path| path.display().to_string()).collect();
    if named.is_empty() {
        return None;
    }
    let text = format!(
        "nothing is in {}: a power cut may have left it so. `muster reset --rejoin` on this machine makes all of it anew",
        named.join(", ")
    );
    Some(Reason { about: Topic::Disk, text, machines: Vec::new() })
}

fn look(settings: &Settings, sync_us: u32) -> Input {
    let configuration = std::fs::read(settings.kubelet_dir.join("config.yaml"));
    let Standing { renewal, end_s, ca_ends_s } = Standing::of(&certificates(settings), SystemTime::now());
    Input::Observed {
        kubelet: configuration.ok().map(|bytes| Digest::of("muster/kubelet/v1", &[&bytes])),
        certificates_end_s: end_s,
        renewal,
        ca_ends_s,
        sync_us,
        etcd_gone: crate::guard::etcd_gone(settings),
    }
}

/// kubeadm's, and the kubelet's own: the one that it renews, or before that the one in its kubeconfig.
fn certificates(settings: &Settings) -> Vec<Certificate> {
    let mut all: Vec<Certificate> =
        settings.certificates().iter().flat_map(|file| in_file(file, Whose::Kubeadm)).collect();
    all.extend(settings.kubeconfigs().iter().flat_map(|file| in_kubeconfig(file, Whose::Kubeadm)));
    let renewed = settings.kubelet_dir.join("pki/kubelet-client-current.pem");
    let mut own = in_file(&renewed, Whose::Kubelet);
    if own.is_empty() {
        own = in_kubeconfig(&settings.kubelet_kubeconfig(), Whose::Kubelet);
    }
    // A renewal that was cut short has taken away what it was to replace, or a power cut has left a file without content: the kubelet syncs nothing.
    let kubeconfig = settings.kubelet_kubeconfig();
    let no_way = !kubeconfig.metadata().is_ok_and(|file| file.len() > 0) || renewed.exists();
    if own.is_empty() && no_way && settings.kubelet_dir.join("config.yaml").exists() {
        own.push(Certificate::MISSING);
    }
    all.extend(own);
    all
}

fn in_file(file: &Path, whose: Whose) -> Vec<Certificate> {
    // The kubelet's has its key beside it.
    let pem = Zeroizing::new(std::fs::read(file).unwrap_or_default());
    in_pem(&pem, whose)
}

fn in_kubeconfig(file: &Path, whose: Whose) -> Vec<Certificate> {
    let text = Zeroizing::new(std::fs::read_to_string(file).unwrap_or_default());
    match Kubeconfig::parse(&text).ok().and_then(|config| config.identity) {
        Some(Identity::Certificate { certificate: Material::Inline(pem), .. }) => in_pem(pem.expose(), whose),
        _ => Vec::new(),
    }
}

/// What is no certificate ends never: whoever uses it says so.
fn in_pem(pem: &[u8], whose: Whose) -> Vec<Certificate> {
    let read = |certificate: CertificateDer<'_>| {
        let (_, certificate) = x509_parser::parse_x509_certificate(&certificate).ok()?;
        let validity = certificate.validity();
        Some(Certificate {
            begins_s: validity.not_before.timestamp(),
            ends_s: validity.not_after.timestamp(),
            whose: if certificate.is_ca() { Whose::Ca } else { whose },
        })
    };
    CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_found_with_whose_they_are_and_what_is_none_is_not_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("both.crt");
        let made = |year, ca| {
            let key = rcgen::KeyPair::generate().expect("a key");
            let mut params = rcgen::CertificateParams::default();
            (params.not_before, params.not_after) =
                (rcgen::date_time_ymd(2026, 1, 1), rcgen::date_time_ymd(year, 1, 1));
            if ca {
                params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            }
            params.self_signed(&key).expect("signed").pem()
        };
        std::fs::write(&file, made(2040, true) + &made(2030, false)).expect("written");
        let begins_s = 1_767_225_600;
        let expected = [(2_208_988_800, Whose::Ca), (1_893_456_000, Whose::Kubeadm)];
        let expected = expected.map(|(ends_s, whose)| Certificate { begins_s, ends_s, whose });
        assert_eq!(in_file(&file, Whose::Kubeadm), expected);
        std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").expect("written");
        assert_eq!(in_file(&file, Whose::Kubeadm), []);
        assert_eq!(in_file(&directory.path().join("missing.crt"), Whose::Kubeadm), []);
    }

    #[test]
    fn a_file_without_content_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let settings = Settings::of("site", directory.path());
        std::fs::create_dir_all(settings.dir.join("manifests")).expect("made");
        std::fs::write(settings.dir.join("manifests/kube-apiserver.yaml"), "kind: Pod\n").expect("written");
        std::fs::write(settings.dir.join("manifests/.kubelet-keep"), "").expect("written");
        assert_eq!(torn(&settings), None);
        std::fs::write(settings.dir.join("manifests/kube-scheduler.yaml"), "").expect("written");
        std::fs::write(settings.dir.join("scheduler.conf"), "").expect("written");
        let text = torn(&settings).expect("named").text;
        assert!(text.contains("manifests/kube-scheduler.yaml") && text.contains("scheduler.conf"), "{text}");
    }

    #[test]
    fn a_kubeconfigs_own_certificate_counts() {
        use base64::Engine as _;
        let directory = tempfile::tempdir().expect("a directory");
        let settings = Settings::of("site", directory.path());
        let key = rcgen::KeyPair::generate().expect("a key");
        let pem = rcgen::CertificateParams::default().self_signed(&key).expect("signed").pem();
        let text = |data: &str| {
            format!(
                "current-context: c\ncontexts: [{{name: c, context: {{cluster: s, user: u}}}}]\n\
                 clusters: [{{name: s, cluster: {{server: 'https://a', certificate-authority-data: Q0E=}}}}]\n\
                 users: [{{name: u, user: {{client-certificate-data: {data}, client-key-data: S0VZ}}}}]\n"
            )
        };
        std::fs::create_dir_all(&settings.dir).expect("made");
        let data = base64::engine::general_purpose::STANDARD.encode(&pem);
        std::fs::write(settings.dir.join("scheduler.conf"), text(&data)).expect("written");
        std::fs::write(settings.kubelet_kubeconfig(), text(&data)).expect("written");
        let whose = || certificates(&settings).iter().map(|one| one.whose).collect::<Vec<Whose>>();
        assert_eq!(whose(), [Whose::Kubeadm, Whose::Kubelet]);
        std::fs::create_dir_all(settings.pki_dir()).expect("made");
        std::fs::write(settings.pki_dir().join("somebodys.crt"), &pem).expect("written");
        assert_eq!(whose(), [Whose::Kubeadm, Whose::Kubelet], "what somebody has laid there is nobody's affair");
        std::fs::write(settings.pki_dir().join("apiserver.crt"), &pem).expect("written");
        assert_eq!(whose().len(), 3);
        std::fs::remove_file(settings.pki_dir().join("apiserver.crt")).expect("removed");
        std::fs::remove_file(settings.kubelet_kubeconfig()).expect("removed");
        assert_eq!(whose(), [Whose::Kubeadm], "no kubelet is to run here");
        std::fs::create_dir_all(&settings.kubelet_dir).expect("made");
        std::fs::write(settings.kubelet_dir.join("config.yaml"), "").expect("written");
        assert_eq!(certificates(&settings)[1], Certificate::MISSING);
        std::fs::write(settings.kubelet_kubeconfig(), "").expect("written");
        assert_eq!(certificates(&settings)[1], Certificate::MISSING, "a power cut has left nothing in it");
        std::fs::write(settings.kubelet_kubeconfig(), text("bm9uZQ==")).expect("written");
        assert_eq!(certificates(&settings).len(), 1, "it may be of a kind that is not known here");
        std::fs::create_dir_all(settings.kubelet_dir.join("pki")).expect("made");
        std::fs::write(settings.kubelet_dir.join("pki/kubelet-client-current.pem"), "").expect("written");
        assert_eq!(certificates(&settings)[1], Certificate::MISSING);
    }
}
