//! A recording from anybody's disk: no panic, and it ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster_protocol::record::Recording;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(recording) = Recording::open(bytes) {
        assert!(recording.count() <= bytes.len(), "every turn has some bytes of its own");
    }
});
