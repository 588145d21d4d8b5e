//! Where everything lies on a machine's disk.

use uuid::{Uuid, uuid};

/// Bytes of a block, of the disk and of file systems' and verity's.
pub(crate) const SECTOR: u64 = 512;
pub(crate) const MIB: u64 = 1 << 20;

/// The EFI system partition: two kernels with their initrds fit, and a third while one is replaced.
pub(crate) const ESP_BYTES: u64 = 192 * MIB;
/// A root file system's place. `files/usr/lib/repart.d` makes the second one of the same size.
pub(crate) const ROOT_BYTES: u64 = 1024 * MIB;
/// A hash tree's: 32 bytes for each 4,096 of the root's, and the levels above.
pub(crate) const VERITY_BYTES: u64 = 16 * MIB;

/// The state partition's shortest, as `files/usr/lib/repart.d` has it.
pub(crate) const STATE_BYTES_MIN: u64 = 1024 * MIB;
/// The shortest disk on which a machine can make all that it needs.
pub(crate) const MACHINE_BYTES_MIN: u64 = ESP_BYTES + 2 * (ROOT_BYTES + VERITY_BYTES) + STATE_BYTES_MIN + 8 * ALIGNMENT;

/// Types of partitions: <https://uapi-group.org/specifications/specs/discoverable_partitions_specification>.
pub(crate) const ESP: Uuid = uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
pub(crate) const ROOT: Uuid = uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709");
pub(crate) const VERITY: Uuid = uuid!("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5");

/// Attribute of a partition that nobody writes to, by the same specification.
pub(crate) const READ_ONLY: u64 = 1 << 60;

/// Where the first partition begins, and how each is aligned.
pub(crate) const ALIGNMENT: u64 = MIB;

/// The parts of a root hash that are the identities of its two partitions: the loader's command line has the whole.
pub(crate) fn identities(root_hash: &[u8; 32]) -> (Uuid, Uuid) {
    let half = |bytes: &[u8]| {
        let mut half = [0; 16];
        half.copy_from_slice(bytes);
        Uuid::from_bytes(half)
    };
    (half(&root_hash[..16]), half(&root_hash[16..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_that_machines_make() {
        let sizes: u64 = crate::files::ROOT
            .iter()
            .filter(|file| file.path.starts_with("usr/lib/repart.d/"))
            .filter_map(|file| file.text.lines().find_map(|line| line.strip_prefix("SizeMinBytes=")))
            .map(|size| {
                let (number, unit) = size.split_at(size.len() - 1);
                number.parse::<u64>().expect("a number") * if unit == "G" { 1024 * MIB } else { MIB }
            })
            .sum();
        assert_eq!(ESP_BYTES + sizes + 8 * ALIGNMENT, MACHINE_BYTES_MIN);
    }
}
