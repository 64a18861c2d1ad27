//! Content digests, `sha256:HEX` and `sha512:HEX` (image-spec `descriptor.md`): the one thing that an image is
//! trusted by.

use std::{
    fmt,
    io::{self, Read, Write},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// A digest of an algorithm that is known, in its one form: it is safe as a file's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no digest of a kind that is known: sha256: and 64, or sha512: and 128 of 0-9 a-f")]
pub struct DigestError(String);

impl Digest {
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    #[must_use]
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// As people abbreviate it.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.hex[..12]
    }

    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish()
    }

    /// A hasher that can confirm it.
    #[must_use]
    pub fn hasher(&self) -> Hasher {
        Hasher::new(self.algorithm)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let known = [Algorithm::Sha256, Algorithm::Sha512].into_iter().find_map(|algorithm| {
            let hex = text.strip_prefix(algorithm.name())?.strip_prefix(':')?;
            let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            (hex.len() == algorithm.digits() && hex.bytes().all(lower)).then(|| Self { algorithm, hex: hex.to_owned() })
        });
        known.ok_or_else(|| DigestError(text.escape_debug().take(200).collect()))
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

/// Counts and hashes what passes.
#[derive(Debug, Clone)]
pub struct Hasher {
    state: State,
    count: u64,
}

#[derive(Debug, Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Hasher {
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        let state = match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Box::new(Sha512::new())),
        };
        Self { state, count: 0 }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.count += bytes.len() as u64;
        match &mut self.state {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    #[must_use]
    pub fn finish(self) -> Digest {
        let (algorithm, bytes) = match self.state {
            State::Sha256(state) => (Algorithm::Sha256, state.finalize().to_vec()),
            State::Sha512(state) => (Algorithm::Sha512, state.finalize().to_vec()),
        };
        Digest { algorithm, hex: bytes.iter().map(|byte| format!("{byte:02x}")).collect() }
    }
}

/// What is read through it is hashed.
#[derive(Debug)]
pub struct Hashing<R> {
    pub from: R,
    pub hasher: Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.from.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.from.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn one_form_and_no_other() {
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(b""));
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        let long = format!("sha512:{}", "0".repeat(128));
        assert_eq!(long.parse::<Digest>().unwrap().to_string(), long);
        let upper = EMPTY.to_uppercase().replace("SHA", "sha");
        for text in ["", "sha256:", &EMPTY[..70], "md5:00", &upper, &format!("{EMPTY}0"), &EMPTY.replace(':', "-")] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        let traversal = format!("sha256:{}", "../".repeat(21) + "x");
        assert!(traversal.parse::<Digest>().is_err());
    }

    #[test]
    fn what_passes_is_hashed_and_counted() {
        let mut hashing = Hashing { from: &b"abc"[..], hasher: Hasher::new(Algorithm::Sha512) };
        io::copy(&mut hashing, &mut io::sink()).unwrap();
        assert_eq!(hashing.hasher.count(), 3);
        assert!(hashing.hasher.finish().hex().starts_with("ddaf35a193617abacc417349ae204131"));
    }
}
