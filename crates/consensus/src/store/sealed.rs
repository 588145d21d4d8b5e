//! Values with a checksum before them.

use xxhash_rust::xxh3::Xxh3;

/// Length of the checksum in bytes.
const CHECKSUM_BYTES: usize = 8;

fn checksum(table: &str, key: &[u8], payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hash = Xxh3::new();
    for part in [table.as_bytes(), key] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.update(payload);
    hash.digest().to_le_bytes()
}

/// The checksum of `payload` at its place, and `payload`.
pub(super) fn seal(table: &str, key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(CHECKSUM_BYTES + payload.len());
    value.extend_from_slice(&checksum(table, key, payload));
    value.extend_from_slice(payload);
    value
}

/// The payload, if it is what [`seal`] was given for this place.
pub(super) fn unseal<'a>(table: &str, key: &[u8], value: &'a [u8]) -> Result<&'a [u8], &'static str> {
    let (sum, payload) = value.split_first_chunk::<CHECKSUM_BYTES>().ok_or("it is too short")?;
    if *sum == checksum(table, key, payload) { Ok(payload) } else { Err("its checksum is wrong") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_flipped_bit_or_another_place_is_found(payload: Vec<u8>, at: prop::sample::Index, bit in 0..8_u8) {
            let value = seal("t", b"k", &payload);
            prop_assert_eq!(unseal("t", b"k", &value), Ok(payload.as_slice()));
            prop_assert!(unseal("t", b"l", &value).is_err());
            prop_assert!(unseal("u", b"k", &value).is_err());
            let mut rotten = value;
            let at = at.index(rotten.len());
            rotten[at] ^= 1 << bit;
            prop_assert!(unseal("t", b"k", &rotten).is_err());
        }

        #[test]
        fn any_bytes_are_survived(value: Vec<u8>) {
            let _ = unseal("t", b"k", &value);
        }
    }
}
