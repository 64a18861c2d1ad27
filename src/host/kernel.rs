//! The kernel's version, for telling people what a newer one would give them. What a kernel *can do* is
//! always asked of the kernel itself: distributions backport.

use std::fmt;

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct KernelVersion {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl KernelVersion {
    #[must_use]
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor, patch: 0 }
    }

    /// Reads the head of a release such as `6.8.0-45-generic` or `6.6-rc1`; parts that are missing or no
    /// number count as 0, so that a strange release looks old, never new.
    #[must_use]
    pub fn parse(release: &str) -> Self {
        let mut rest = release;
        let mut part = || {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let number = rest[..end].parse().unwrap_or(0);
            // Only a dot leads to a further part: `6.6-rc1` has no patch level.
            rest = rest[end..].strip_prefix('.').unwrap_or("");
            number
        };
        Self { major: part(), minor: part(), patch: part() }
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Serialize for KernelVersion {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_in_the_wild() {
        for (release, version) in [
            ("6.18.44-fc-v657", (6, 18, 44)),
            ("5.15.153.1-microsoft-standard-WSL2", (5, 15, 153)),
            ("6.6-rc1", (6, 6, 0)),
            ("7.0", (7, 0, 0)),
            ("4.19.0-gvisor", (4, 19, 0)),
        ] {
            let (major, minor, patch) = version;
            assert_eq!(KernelVersion::parse(release), KernelVersion { major, minor, patch }, "{release}");
        }
    }

    #[test]
    fn nonsense_looks_old() {
        for release in ["", "linux", ".9.9", "99999999999999999999.1", "-6.8", "６.8"] {
            assert!(KernelVersion::parse(release) < KernelVersion::new(1, 0), "{release}");
        }
        assert!(KernelVersion::new(5, 12) < KernelVersion::parse("5.12.1"));
        assert!(KernelVersion::parse("5.9") < KernelVersion::parse("5.10"));
    }
}
