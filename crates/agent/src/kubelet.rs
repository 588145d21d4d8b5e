//! The kubelet's kubeconfig: see [`muster_kubeadm::kubelet`].

use muster_kubeadm::kubelet::KubeletServer;
use zeroize::Zeroizing;

use crate::files;

/// Rewrites it in place, readable by its owner alone.
///
/// # Errors
/// Names the file and what is wrong with it; it stays as it was.
pub(crate) fn change_server(change: &KubeletServer) -> Result<(), String> {
    let path = &change.path;
    let text = std::fs::read_to_string(path).map_err(|why| format!("{} cannot be read: {why}", path.display()))?;
    let text = Zeroizing::new(text);
    let renewed = change.renewed.as_deref().is_some_and(std::path::Path::exists);
    let after = change.rewrite(&text, renewed).map_err(|why| format!("{}: {why}", path.display()))?;
    files::write(path, 0o600, after.expose()).map_err(|why| format!("{} cannot be written: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_that_is_no_kubeconfig_stays_as_it_was() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("kubelet.conf");
        let change = KubeletServer { path: path.clone(), server: "https://api:7443".into(), renewed: None };
        assert!(change_server(&change).expect_err("it is missing").contains("kubelet.conf cannot be read"));
        std::fs::write(&path, "contexts: []").expect("written");
        let error = change_server(&change).expect_err("it names nothing");
        assert!(error.ends_with("kubelet.conf: kubeconfig: contexts lacks the context it names"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), "contexts: []");
    }

    #[test]
    fn the_owner_alone_may_read_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("kubelet.conf");
        let config = r#"{"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "site", "user": "me"}}],
            "clusters": [{"name": "site", "cluster": {"server": "https://old"}}], "users": [{"name": "me", "user": {}}]}"#;
        std::fs::write(&path, config).expect("written");
        let renewed = directory.path().join("renewed.pem");
        std::fs::write(&renewed, "").expect("written");
        let change =
            KubeletServer { path: path.clone(), server: "https://api:7443".into(), renewed: Some(renewed.clone()) };
        change_server(&change).expect("changed");
        let text = std::fs::read_to_string(&path).expect("reads");
        assert!(text.contains("https://api:7443") && text.contains(&renewed.display().to_string()), "{text}");
        assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, 0o600);
    }
}
