//! What runs on this machine, as its files say: for its card.

mod disk;

use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_kubeadm::Settings;
use muster_protocol::Input;
use muster_wire::Digest;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

/// How often it is looked at: a certificate lasts for months, and whoever changes a kubelet's configuration waits for longer.
const PAUSE: Duration = Duration::from_secs(60);

/// What was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Found {
    kubelet: Option<Digest>,
    certificates_end_s: u64,
    sync_us: u32,
    etcd_gone: bool,
}

/// Tells the machine whenever that changes, for as long as the agent runs.
pub(crate) async fn watch(settings: Settings, inputs: mpsc::Sender<Input>) {
    let (mut told, disk) = (Found::default(), settings.etcd_dir.clone());
    // Before kubeadm's own work begins: what is measured beside it would be its work.
    let sync_us = tokio::task::spawn_blocking(move || disk::typical_sync_us(&disk)).await.unwrap_or_default();
    loop {
        let now = Found { sync_us, ..look(&settings) };
        // That something is gone is said at every look: whoever was told may have found it there meanwhile.
        if now != told || now.etcd_gone {
            told = now;
            let Found { kubelet, certificates_end_s, sync_us, etcd_gone } = now;
            if inputs.send(Input::Observed { kubelet, certificates_end_s, sync_us, etcd_gone }).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn look(settings: &Settings) -> Found {
    let configuration = std::fs::read(settings.kubelet_dir.join("config.yaml"));
    let ends = certificates(settings).into_iter().filter_map(|file| first_end(&file)).min();
    Found {
        kubelet: configuration.ok().map(|bytes| Digest::of("muster/kubelet/v1", &[&bytes])),
        certificates_end_s: ends.unwrap_or_default(),
        sync_us: 0,
        etcd_gone: crate::guard::etcd_gone(settings),
    }
}

/// kubeadm's, and the kubelet's own.
fn certificates(settings: &Settings) -> Vec<PathBuf> {
    let pki = settings.pki_dir();
    let directories = [pki.join("etcd"), pki];
    let files = directories.iter().filter_map(|directory| std::fs::read_dir(directory).ok()).flatten().flatten();
    let mut all: Vec<PathBuf> =
        files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "crt")).collect();
    all.push(settings.kubelet_dir.join("pki/kubelet-client-current.pem"));
    all
}

/// When the first certificate in a file ends. What is no certificate ends never: whoever uses it says so.
fn first_end(file: &Path) -> Option<u64> {
    // The kubelet's has its key beside it.
    let pem = Zeroizing::new(std::fs::read(file).ok()?);
    let end = |certificate: CertificateDer<'_>| {
        let (_, certificate) = x509_parser::parse_x509_certificate(&certificate).ok()?;
        u64::try_from(certificate.validity().not_after.timestamp()).ok()
    };
    CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).filter_map(end).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_certificate_to_end_counts_and_what_is_none_does_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("both.crt");
        let made = |year| {
            let key = rcgen::KeyPair::generate().expect("a key");
            let mut params = rcgen::CertificateParams::default();
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            params.self_signed(&key).expect("signed").pem()
        };
        std::fs::write(&file, made(2040) + &made(2030)).expect("written");
        assert_eq!(first_end(&file), Some(1_893_456_000), "the first of January 2030");
        std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").expect("written");
        assert_eq!(first_end(&file), None);
        assert_eq!(first_end(&directory.path().join("missing.crt")), None);
    }
}
