//! Ctrl-C: asked for at safe moments, so that what was begun can be taken away again.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// How long a sleeper may be deaf.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What a shell says of a program that Ctrl-C ended.
pub(crate) const EXIT_CODE: u8 = 130;

static REQUESTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Somebody wants this command to stop.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// From now on the first Ctrl-C only asks; the second ends the program where it stands.
pub(crate) fn watch() -> Result<()> {
    let requested = Arc::clone(REQUESTED.get_or_init(Arc::default));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register_conditional_shutdown(signal, i32::from(EXIT_CODE), Arc::clone(&requested))
            .and_then(|_| flag::register(signal, Arc::clone(&requested)))
            .context("cannot watch for Ctrl-C")?;
    }
    Ok(())
}

/// Whether somebody wants this command to stop.
pub(crate) fn requested() -> bool {
    REQUESTED.get().is_some_and(|requested| requested.load(Ordering::Relaxed))
}

/// An error when somebody wants this command to stop.
pub(crate) fn check() -> Result<()> {
    if requested() { Err(Error::new(Interrupted)) } else { Ok(()) }
}

/// Sleeps, unless somebody wants this command to stop.
pub(crate) fn sleep(duration: Duration) -> Result<()> {
    let started = Instant::now();
    loop {
        check()?;
        let left = duration.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(LOOK_EVERY));
    }
}
