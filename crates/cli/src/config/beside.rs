//! A muster.toml beside the image's: what one machine is given without another image.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::FILE_BYTES_MAX;
use super::problem::{Beside, Place, Problem};
use super::values::Values;

/// Where what a volume says is put before the agent starts: `muster config volumes`.
pub(crate) const VOLUME: &str = "/run/muster-settings/muster.toml";

/// And why nothing was, where somebody must do something before the agent can know what it is to be.
pub(crate) const WRONG: &str = "/run/muster-settings/wrong";

/// systemd's place for what the firmware or the hypervisor gives: systemd.exec(5), CREDENTIALS.
const CREDENTIALS: &str = "/run/credentials/@system";

/// Its name there.
const CREDENTIAL: &str = "muster.toml";

/// What a machine is given in one place.
pub(crate) struct Layer {
    /// Whose it is.
    pub(crate) kind: Beside,
    /// What it says, or why it cannot be read.
    pub(crate) text: Result<Zeroizing<String>, String>,
}

impl Layer {
    /// Takes what it says.
    pub(super) fn read(&self, values: &mut Values, problems: &mut Vec<Problem>) {
        match &self.text {
            Ok(text) => values.read_file(text, Some(self.kind), problems),
            Err(why) => problems.push(Problem::error(Place::Beside(self.kind, 0), why.clone())),
        }
    }
}

/// Those of this machine.
pub(super) fn of_this_machine() -> Vec<Layer> {
    let wrong = std::fs::read_to_string(WRONG).ok().map(|why| Layer { kind: Beside::Volume, text: Err(why) });
    let volume = wrong.or_else(|| layer(Beside::Volume, Path::new(VOLUME)));
    volume.into_iter().chain(credentials().find_map(|path| layer(Beside::Credential, &path))).collect()
}

/// Where a credential may be: a unit that passes some on has them in a place of its own.
fn credentials() -> impl Iterator<Item = PathBuf> {
    let own = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    own.into_iter().chain([PathBuf::from(CREDENTIALS)]).map(|place| place.join(CREDENTIAL))
}

/// Which of them this user may not look into.
pub(crate) fn hidden() -> Option<String> {
    let is_hidden = |path: &Path| {
        std::fs::File::open(path).is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    };
    let volume = is_hidden(Path::new(VOLUME)).then(|| Beside::Volume.to_string());
    let credential = credentials().any(|path| is_hidden(&path)).then(|| Beside::Credential.to_string());
    let both: Vec<String> = volume.into_iter().chain(credential).collect();
    (!both.is_empty()).then(|| both.join(", or "))
}

/// What a file says; none where there is no such file, or one that another user of this machine may not read.
fn layer(kind: Beside, path: &Path) -> Option<Layer> {
    let text = match std::fs::File::open(path) {
        Ok(file) => read(file),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied && !rustix::process::geteuid().is_root() => {
            return None;
        }
        Err(error) => Err(format!("cannot be read: {error}")),
    };
    Some(Layer { kind, text })
}

/// Reads a muster.toml of which nothing is known.
pub(crate) fn read(file: std::fs::File) -> Result<Zeroizing<String>, String> {
    let mut bytes = Zeroizing::new(Vec::new());
    let read = file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(format!("is longer than {FILE_BYTES_MAX} bytes"));
    }
    // Some editors begin a text with a mark of its encoding.
    let text = std::str::from_utf8(&bytes).map_err(|error| format!("is not UTF-8: {error}"))?;
    if text.contains('\0') {
        return Err("has characters of no text: is it UTF-16? It must be UTF-8".to_owned());
    }
    Ok(Zeroizing::new(text.trim_start_matches('\u{feff}').to_owned()))
}
