//! A muster.toml beside the image's: what one machine is given without another image.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::FILE_BYTES_MAX;
use super::problem::{Beside, Place, Problem};
use super::values::Values;

/// Where what a volume says is put before the agent starts: `muster config volumes`.
pub(crate) const VOLUME: &str = "/run/muster-settings/muster.toml";

/// systemd's place for what the firmware or the hypervisor gives: systemd.exec(5), CREDENTIALS.
const CREDENTIALS: &str = "/run/credentials/@system";

/// Its name there.
const CREDENTIAL: &str = "muster.toml";

/// One of them.
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
    // A unit that passes credentials on has them in a place of its own.
    let own = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let credential = own.into_iter().chain([PathBuf::from(CREDENTIALS)]).map(|place| place.join(CREDENTIAL));
    let credential = credential.into_iter().find_map(|path| layer(Beside::Credential, &path));
    layer(Beside::Volume, Path::new(VOLUME)).into_iter().chain(credential).collect()
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
    Ok(Zeroizing::new(text.trim_start_matches('\u{feff}').to_owned()))
}
