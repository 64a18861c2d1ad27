//! What an option of `run`, `explain` and `batch` is. All of them are in one table, [`FLAGS`], and those of `batch` alone
//! in [`BATCH`]; from these parsing, `--help`, completions and suggestions come.

mod batch;
mod table;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use fumehood::{
    Error, Result,
    error::Hint,
    request::{Bytes, RequestError, files, limits::QuantityError},
};

use super::{low::Low, usage::UsageError};
pub use batch::BATCH;
use table::BOUNDED;
pub use table::FLAGS;

/// What a policy of the caller's may hold.
const LARGEST_POLICY: Bytes = Bytes::mib(4);

/// One option.
#[derive(Debug)]
pub struct Flag {
    pub long: &'static str,
    pub short: Option<char>,
    /// Other long names, which are taken and not shown.
    pub aliases: &'static [&'static str],
    pub kind: Kind,
    pub repeatable: bool,
    /// Belongs to `explain` alone.
    pub explain_only: bool,
    pub section: Section,
    /// Sentences for `--help`.
    pub doc: &'static str,
}

#[derive(Debug)]
pub enum Kind {
    Switch(fn(&mut Low)),
    Value { name: &'static str, of: Of, set: fn(&mut Low, Given) -> Result<()> },
}

/// What a value is, for completions.
#[derive(Debug, Clone, Copy)]
pub enum Of {
    Text,
    File,
    Dir,
    Any(&'static [&'static str]),
}

/// The headings of `--help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Batch,
    Code,
    Files,
    Root,
    Limits,
    Environment,
    Network,
    Isolation,
    Output,
}

impl Section {
    pub const ALL: [Self; 9] = [
        Self::Batch,
        Self::Code,
        Self::Files,
        Self::Root,
        Self::Limits,
        Self::Environment,
        Self::Network,
        Self::Isolation,
        Self::Output,
    ];
}

/// An option's value as it was typed.
#[derive(Debug)]
pub struct Given {
    pub flag: &'static Flag,
    pub raw: OsString,
}

impl Given {
    fn text(self) -> Result<String> {
        let flag = self.flag;
        self.raw.into_string().map_err(|raw| UsageError::NotUtf8 { flag: flag.long, raw }.into_error())
    }

    fn path(self) -> PathBuf {
        self.raw.into()
    }

    /// A limit; `unlimited` is for who wants none.
    fn limit<T>(self, unlimited: &str, parse: impl FnOnce(&str) -> Result<T, QuantityError>) -> Result<T> {
        let flag = self.flag.long;
        parse(&self.text()?).map_err(|error| {
            let told = Error::new(format!("--{flag}: {error}"));
            if error.means_no_limit() { told.with_hint(unlimited) } else { told }
        })
    }

    /// For errors that do say what was asked for.
    fn explained<T>(self, parse: impl FnOnce(&str) -> Result<T>) -> Result<T> {
        parse(&self.text()?)
    }

    /// For errors that do not say by themselves what was asked for.
    fn named<T, E: Hint>(self, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<T> {
        let flag = self.flag.long;
        parse(&self.text()?).map_err(|error| prefixed(&format!("--{flag}"), &error.into_error()))
    }

    fn parse<T, E: Into<RequestError>>(self, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<T> {
        parse(&self.text()?).map_err(|error| error.into().into_error())
    }

    /// The contents of the file it names.
    fn read(self) -> Result<(PathBuf, String)> {
        let (flag, path) = (self.flag.long, self.path());
        let fail = |why: String| Error::new(format!("--{flag}: {why}"));
        let (bytes, _) = files::read(&path, LARGEST_POLICY).map_err(|error| fail(error.to_string()))?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok((path, text.to_owned())),
            Err(_) => Err(fail(format!("`{}` is not text", path.display()))),
        }
    }
}

fn shown(path: &Path) -> String {
    format!("`{}`", path.display())
}

/// The error with what it is about before it.
fn prefixed(what: &str, error: &Error) -> Error {
    let named = Error::new(format!("{what}: {}", error.message()));
    match error.hint() {
        Some(hint) => named.with_hint(hint),
        None => named,
    }
}

const fn switch(long: &'static str, section: Section, doc: &'static str, set: fn(&mut Low)) -> Flag {
    flag(long, section, doc, Kind::Switch(set))
}

const fn value(
    long: &'static str,
    name: &'static str,
    of: Of,
    section: Section,
    doc: &'static str,
    set: fn(&mut Low, Given) -> Result<()>,
) -> Flag {
    flag(long, section, doc, Kind::Value { name, of, set })
}

const fn flag(long: &'static str, section: Section, doc: &'static str, kind: Kind) -> Flag {
    Flag { long, short: None, aliases: &[], kind, repeatable: false, explain_only: false, section, doc }
}

impl Flag {
    const fn short(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }

    const fn alias(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    const fn repeatable(self) -> Self {
        Self { repeatable: true, ..self }
    }

    const fn explain_only(self) -> Self {
        Self { explain_only: true, ..self }
    }

    pub fn is(&self, name: &str) -> bool {
        self.long == name || self.aliases.contains(&name)
    }
}
