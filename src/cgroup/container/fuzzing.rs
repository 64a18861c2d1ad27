//! What the fuzz targets (`fuzz/`) reach beyond the public interface. Only with the feature `fuzzing`.

use super::systemd;

/// Reads a message as from a bus, and its body as that of each answer there is; returns how long it says it is.
#[must_use]
pub fn message(bytes: &[u8]) -> Option<usize> {
    systemd::fuzz_message(bytes)
}

/// Reads the value of a property as from an annotation.
pub fn property(text: &str) {
    systemd::fuzz_property(text);
}
