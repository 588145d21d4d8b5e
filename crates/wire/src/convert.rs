//! Small steps between generated and checked types.

use bytes::{Buf, Bytes};
use prost::Message;

use crate::{MachineId, WireError, limits};

/// Decodes a generated message, naming it in the error.
pub(crate) fn decode<M: Message + Default>(what: &'static str, bytes: impl Buf) -> Result<M, WireError> {
    M::decode(bytes).map_err(|why| WireError::Malformed { what, why: why.to_string() })
}

/// A message field that must be there.
pub(crate) fn required<T>(value: Option<T>, field: &'static str) -> Result<T, WireError> {
    value.ok_or(WireError::Field { field, rule: "is missing" })
}

/// Text of at most [`limits::TEXT_BYTES_MAX`] bytes without control characters.
pub(crate) fn text(value: String, field: &'static str) -> Result<String, WireError> {
    if value.len() > limits::TEXT_BYTES_MAX {
        return Err(WireError::Field { field, rule: "is longer than 256 bytes" });
    }
    if value.chars().any(char::is_control) {
        return Err(WireError::Field { field, rule: "holds control characters" });
    }
    Ok(value)
}

/// At most `max` items.
pub(crate) fn bounded<T>(items: Vec<T>, max: usize, field: &'static str) -> Result<Vec<T>, WireError> {
    if items.len() > max { Err(WireError::Field { field, rule: "has too many items" }) } else { Ok(items) }
}

/// Bytes of at most `max`.
pub(crate) fn bounded_bytes(value: Bytes, max: usize, field: &'static str) -> Result<Bytes, WireError> {
    if value.len() > max { Err(WireError::Field { field, rule: "has too many bytes" }) } else { Ok(value) }
}

/// Exactly `N` bytes.
pub(crate) fn array<const N: usize>(value: &[u8], field: &'static str) -> Result<[u8; N], WireError> {
    value.try_into().map_err(|_| WireError::Field { field, rule: "has the wrong number of bytes" })
}

/// A machine id that may be absent (empty).
pub(crate) fn optional_machine(value: &[u8], field: &'static str) -> Result<Option<MachineId>, WireError> {
    if value.is_empty() { Ok(None) } else { MachineId::from_slice(value, field).map(Some) }
}

/// The bytes of a machine id.
pub(crate) fn machine_bytes(machine: &MachineId) -> Bytes {
    Bytes::copy_from_slice(&machine.0)
}
