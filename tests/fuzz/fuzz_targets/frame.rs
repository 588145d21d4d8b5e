//! Bytes from the network: no panic, and what decodes comes back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster_wire::Frame;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(frame) = Frame::decode(bytes.to_vec().into()) {
        assert_eq!(Frame::decode(frame.encode().into()).as_ref(), Ok(&frame));
    }
});
