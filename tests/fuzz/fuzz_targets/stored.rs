//! Bytes from the disk and the log: no panic, and what decodes comes back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster_protocol::Ledger;
use muster_wire::{Durable, Entry, level};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(durable) = Durable::decode(bytes) {
        assert_eq!(Durable::decode(&durable.encode()).as_ref(), Ok(&durable));
    }
    if let Ok(entry) = Entry::decode(bytes) {
        assert_eq!(Entry::decode(entry.encode()).as_ref(), Ok(&entry));
    }
    if let Ok(ledger) = Ledger::decode(bytes, level::KNOWN) {
        assert_eq!(Ledger::decode(&ledger.encode(), level::KNOWN).as_ref(), Ok(&ledger));
    }
});
