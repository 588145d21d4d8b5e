//! etcd's log from the disk: no panic, and what is written at its end is read as its end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster_kubeadm::wal::Wal;

fuzz_target!(|bytes: &[u8]| {
    let mut wal = Wal::default();
    if wal.read(bytes).is_err() {
        return;
    }
    if let Ok(Some((at, record))) = wal.raised() {
        let mut file = bytes[..at].to_vec();
        file.extend_from_slice(&record);
        let mut again = Wal::default();
        assert_eq!(again.read(&file), Ok(()));
        assert_eq!((again.last(), again.raised()), (wal.last(), Ok(None)));
    }
});
