//! Limits as a person writes them (`512m`, `0.5`, `30s`) and as the kernel wants them.
//!
//! Parsing is construction: a [`Limits`] that exists is within range, and no later stage checks again.

use std::{fmt, time::Duration};

use serde::Serialize;

/// What one sandbox may use. Defaults are DESIGN.md §3's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limits {
    /// Memory of all processes and tmpfs files together, swap counted as nothing.
    pub memory: Bytes,
    /// CPU bandwidth in CPUs, e.g. 0.5.
    pub cpus: f64,
    /// Processes and threads at once.
    pub pids: u32,
    /// Wall time, enforced from outside.
    pub timeout: Option<Duration>,
    /// CPU time of all processes together.
    pub cpu_time: Option<Duration>,
    /// Bytes kept and passed on of stdout, and again of stderr.
    pub output: Bytes,
    /// Size of the writable `/sandbox`.
    pub sandbox: Bytes,
    /// Size of `/tmp`.
    pub tmp: Bytes,
    /// Open files of one process (RLIMIT_NOFILE).
    pub nofile: u64,
    /// Which of these were asked for by name: what was asked for and can't be held is an error.
    #[serde(skip)]
    pub asked: Asked,
}

/// Limits that the caller named, as opposed to the defaults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    pub memory: bool,
    pub cpus: bool,
    pub pids: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: Bytes::mib(512),
            cpus: 1.0,
            pids: 128,
            timeout: Some(Duration::from_secs(30)),
            cpu_time: None,
            output: Bytes::mib(1),
            sandbox: Bytes::mib(512),
            tmp: Bytes::mib(256),
            nofile: 1024,
            asked: Asked::default(),
        }
    }
}

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Bytes(u64);

impl Bytes {
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Docker's notation: a number, a unit of `b k m g t` in either case, an optional `b` or `ib`
    /// after it. Powers of 1024; a fraction is allowed before a unit.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let bad = |why| QuantityError::form(text, "size", why);
        let range = Range { text, least: &"1 byte", most: &"8192t" };
        range.not_negative()?;
        let (number, unit) = split_unit(text);
        let shift = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(bad("the units are b, k, m, g, t")),
        };
        let value = parse_decimal(number).ok_or_else(|| bad("it has no number"))?;
        let bytes = value * (1u64 << shift) as f64;
        if bytes < 1.0 {
            return Err(range.small());
        }
        if bytes > (1u64 << 53) as f64 {
            return Err(range.large());
        }
        Ok(Self(bytes as u64))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "t"), (30, "g"), (20, "m"), (10, "k")] {
            if self.0 >= 1 << shift && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// A time span: `30s`, `1.5m`, `2h`, `250ms`, or a plain number of milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    let bad = |why| QuantityError::form(text, "time", why);
    let range = Range { text, least: &"1us", most: &"8760h" };
    range.not_negative()?;
    let (number, unit) = split_unit(text);
    let per_unit = match unit {
        "" | "ms" => 1e-3,
        "us" => 1e-6,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(bad("the units are us, ms, s, m, h; a plain number is milliseconds")),
    };
    let seconds = parse_decimal(number).ok_or_else(|| bad("it has no number"))? * per_unit;
    if seconds < 1e-6 {
        return Err(range.small());
    }
    if seconds > 365.0 * 86400.0 {
        return Err(range.large());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A number of CPUs, at least 0.01.
pub fn parse_cpus(text: &str) -> Result<f64, QuantityError> {
    let range = Range { text, least: &"0.01", most: &"8192" };
    range.not_negative()?;
    let why = "it is not a decimal number such as 0.5";
    let cpus = parse_decimal(text).ok_or_else(|| QuantityError::form(text, "number of CPUs", why))?;
    if cpus < 0.01 {
        return Err(range.small());
    }
    if cpus > 8192.0 {
        return Err(range.large());
    }
    Ok(cpus)
}

/// A whole number in `least..=most`.
pub fn parse_count(text: &str, least: u64, most: u64) -> Result<u64, QuantityError> {
    let range = Range { text, least: &least, most: &most };
    range.not_negative()?;
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(QuantityError::form(text, "number", "it is not a whole number"));
    }
    match text.parse::<u64>() {
        Ok(n) if n < least => Err(range.small()),
        Ok(n) if n <= most => Ok(n),
        _ => Err(range.large()),
    }
}

/// A quantity that does not parse, or is out of range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("`{text}` is no {what}: {why}")]
    Form { text: String, what: &'static str, why: &'static str },
    #[error("`{text}` is too small: the least is {least}")]
    Small { text: String, least: String },
    #[error("`{text}` is too large: the most is {most}")]
    Large { text: String, most: String },
}

impl crate::error::Hint for QuantityError {}

impl QuantityError {
    fn form(text: &str, what: &'static str, why: &'static str) -> Self {
        Self::Form { text: text.to_owned(), what, why }
    }

    /// Whether it is zero or less, by which other programs mean that there is no limit.
    #[must_use]
    pub fn means_no_limit(&self) -> bool {
        match self {
            Self::Small { text, .. } => text.starts_with('-') || !text.contains(|c| ('1'..='9').contains(&c)),
            Self::Form { .. } | Self::Large { .. } => false,
        }
    }
}

/// What a quantity may be, in the words of its error.
struct Range<'a> {
    text: &'a str,
    least: &'a dyn fmt::Display,
    most: &'a dyn fmt::Display,
}

impl Range<'_> {
    fn small(&self) -> QuantityError {
        QuantityError::Small { text: self.text.to_owned(), least: self.least.to_string() }
    }

    fn large(&self) -> QuantityError {
        QuantityError::Large { text: self.text.to_owned(), most: self.most.to_string() }
    }

    /// A negative number is one, and too small.
    fn not_negative(&self) -> Result<(), QuantityError> {
        let number = self.text.strip_prefix('-').and_then(|rest| rest.chars().next());
        if number.is_some_and(|c| c.is_ascii_digit()) { Err(self.small()) } else { Ok(()) }
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.split_at(end)
}

/// Digits with at most one point: no sign, exponent, `inf` or `nan`, which `f64::from_str` would take.
fn parse_decimal(text: &str) -> Option<f64> {
    let plain = !text.is_empty()
        && text.len() <= 32
        && text.bytes().any(|b| b.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && text.bytes().filter(|b| *b == b'.').count() <= 1;
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_dockers_notation() {
        for (text, bytes) in [
            ("1", 1),
            ("1b", 1),
            ("512m", 512 << 20),
            ("1.5g", 3 << 29),
            ("2GB", 2 << 30),
            ("4KiB", 4096),
            ("1t", 1 << 40),
        ] {
            assert_eq!(Bytes::parse(text), Ok(Bytes::new(bytes)), "{text}");
        }
        for text in [
            "",
            "m",
            "-1",
            "1x",
            "0",
            "1e9",
            "nan",
            "inf",
            "99999999t",
            "1..5m",
            "1bb",
            "1kbbb",
            "1kii",
            "512 m",
            "0x10",
            "１m",
        ] {
            assert!(Bytes::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times() {
        for (text, ms) in [("30s", 30_000), ("250", 250), ("250ms", 250), ("1.5m", 90_000), ("2h", 7_200_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "0", "-5s", "5d", "9999999h", "1s1", "nan"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpus_and_counts() {
        assert_eq!(parse_cpus("0.5"), Ok(0.5));
        assert!(["0", "-1", "1e3", "inf", "", "."].iter().all(|t| parse_cpus(t).is_err()));
        assert_eq!(parse_count("64", 1, 100), Ok(64));
        assert!(["0", "101", "+1", " 1", "99999999999999999999"].iter().all(|t| parse_count(t, 1, 100).is_err()));
    }

    #[test]
    fn what_is_out_of_range_is_told_as_that() {
        let told = |error: QuantityError| (error.to_string(), error.means_no_limit());
        let size = |text| told(Bytes::parse(text).unwrap_err());
        assert_eq!(size("0"), ("`0` is too small: the least is 1 byte".to_owned(), true));
        assert_eq!(size("-5m"), ("`-5m` is too small: the least is 1 byte".to_owned(), true));
        assert_eq!(size("99999999t"), ("`99999999t` is too large: the most is 8192t".to_owned(), false));
        assert_eq!(size("-"), ("`-` is no size: the units are b, k, m, g, t".to_owned(), false));
        let count = |text| told(parse_count(text, 16, 100).unwrap_err());
        assert_eq!(count("-1"), ("`-1` is too small: the least is 16".to_owned(), true));
        assert_eq!(count("000"), ("`000` is too small: the least is 16".to_owned(), true));
        assert_eq!(count("15"), ("`15` is too small: the least is 16".to_owned(), false));
        assert_eq!(
            count("99999999999999999999"),
            ("`99999999999999999999` is too large: the most is 100".to_owned(), false)
        );
        assert_eq!(told(parse_cpus("0.0").unwrap_err()), ("`0.0` is too small: the least is 0.01".to_owned(), true));
        assert_eq!(
            told(parse_cpus("0.001").unwrap_err()),
            ("`0.001` is too small: the least is 0.01".to_owned(), false)
        );
        let time = |text| told(parse_duration(text).unwrap_err());
        assert_eq!(time("0s"), ("`0s` is too small: the least is 1us".to_owned(), true));
        assert_eq!(time("8761h"), ("`8761h` is too large: the most is 8760h".to_owned(), false));
    }

    #[test]
    fn sizes_print_as_they_are_written() {
        assert_eq!(Bytes::mib(512).to_string(), "512m");
        assert_eq!(Bytes::new(1000).to_string(), "1000");
    }
}
