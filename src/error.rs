//! The one error a caller sees: what failed, on which object, why, and what to do about it.
//!
//! Every room has an error enum of its own; each turns into this one at the room's door, and it is
//! reported once, at the edge (the command line, or the caller of the library).

use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of fumehood itself, never of the program it ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    message: String,
    hint: Option<String>,
}

impl Error {
    /// `message` is one line that names the object and the reason, in lower case, without a full stop.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: without_number(message.into()), hint: None }
    }

    /// Adds the one thing a person can do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Room errors that know what a person can do about them.
pub trait Hint: std::error::Error {
    fn hint(&self) -> Option<String> {
        None
    }

    fn into_error(self) -> Error
    where
        Self: Sized,
    {
        let error = Error::new(one_line(&self));
        match self.hint() {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

/// Takes out `(os error 2)`, which the standard library adds to every reason and which helps nobody.
fn without_number(mut message: String) -> String {
    while let Some(start) = message.find(" (os error ") {
        let Some(length) = message[start..].find(')') else { break };
        message.replace_range(start..=start + length, "");
    }
    message
}

/// The error and its causes on one line, `outer: cause: cause`, leaving out a cause already said.
fn one_line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = inner.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_in_words_alone() {
        let missing = std::io::Error::from_raw_os_error(libc::ENOENT);
        let shown = |text: String| Error::new(text).message().to_owned();
        assert_eq!(shown(format!("`a`: {missing}")), "`a`: No such file or directory");
        assert_eq!(shown(format!("`a`: {missing}: b")), "`a`: No such file or directory: b");
        assert_eq!(shown("cut off (os error 2".to_owned()), "cut off (os error 2");
    }
}
