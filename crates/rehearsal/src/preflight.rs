//! The checks that matter to whoever drives kubeadm: is something here already?

use std::net::TcpListener;
use std::path::Path;

use crate::failure::{Failure, fail};
use crate::say::{complain, say};
use crate::setting::Setting;

/// Checks, some of whose errors are only warnings.
pub(crate) struct Checks<'a> {
    setting: &'a Setting,
    ignored: Vec<String>,
    errors: Vec<String>,
}

impl<'a> Checks<'a> {
    pub(crate) fn new(setting: &'a Setting, ignored: Vec<String>) -> Self {
        say!("[preflight] Running pre-flight checks");
        Self { setting, ignored, errors: Vec::new() }
    }

    fn error(&mut self, name: String, words: String) {
        let ignored = self.ignored.iter().any(|ignored| ignored.eq_ignore_ascii_case(&name) || ignored == "all");
        match ignored {
            true => complain!("\t[WARNING {name}]: {words}"),
            false => self.errors.push(format!("\t[ERROR {name}]: {words}")),
        }
    }

    pub(crate) fn absent(&mut self, path: &Path) {
        if path.exists() {
            let name = format!("FileAvailable-{}", self.setting.check_name(path));
            self.error(name, format!("{} already exists", path.display()));
        }
    }

    pub(crate) fn empty(&mut self, path: &Path) {
        if std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
            let name = format!("DirAvailable-{}", self.setting.check_name(path));
            self.error(name, format!("{} is not empty", path.display()));
        }
    }

    pub(crate) fn free(&mut self, address: &str, port: u16) {
        if TcpListener::bind((address, port)).is_err() {
            self.error(format!("Port-{port}"), format!("Port {port} is in use"));
        }
    }

    /// All errors at once, as kubeadm reports them.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        match self.errors.is_empty() {
            true => Ok(()),
            false => {
                complain!("[preflight] Some fatal errors occurred:\n{}", self.errors.join("\n"));
                complain!(
                    "[preflight] If you know what you are doing, you can make a check non-fatal with \
                     `--ignore-preflight-errors=...`"
                );
                Err(fail("preflight checks failed"))
            }
        }
    }
}
