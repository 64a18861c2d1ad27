//! What is expected of a run, and whether it came so.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    fmt,
    path::{Path, PathBuf},
};

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::job::Content;
use crate::{Outcome, Verdict, report::Captured};

/// A run passes when all that is said here holds. Without an exit code and a verdict it has to end with `ok`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout: Option<Content>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<Content>,
    /// Found anywhere in it, unless it has `^` and `$`; a line is not a text: `(?m)` makes it one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout_regex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr_regex: Option<String>,
    /// By path, as for `get`; at its place below /sandbox.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, FileContent>,
    /// How `stdout` and `stderr` are compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compare: Option<Compare>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compare {
    /// Byte by byte.
    #[default]
    Exact,
    /// Without white space at the ends of lines, and empty lines at the end.
    Lines,
    /// Without regard to how much white space is between words.
    Words,
}

/// What a file has to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum FileContent {
    Content(Content),
    Hash { sha256: String },
}

impl<'de> Deserialize<'de> for FileContent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if let Some(hash) = value.as_object().filter(|map| map.len() == 1).and_then(|map| map.get("sha256")) {
            let hash = hash.as_str().filter(|text| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()));
            let hash = hash.ok_or_else(|| de::Error::custom("sha256: 64 hexadecimal digits are expected"))?;
            return Ok(Self::Hash { sha256: hash.to_ascii_lowercase() });
        }
        Content::deserialize(value).map(Self::Content).map_err(de::Error::custom)
    }
}

impl FileContent {
    fn sha256(&self) -> String {
        match self {
            Self::Content(content) => hex(&Sha256::digest(&content.0)),
            Self::Hash { sha256 } => sha256.clone(),
        }
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const VERDICTS: [Verdict; 11] = [
    Verdict::Ok,
    Verdict::Failed,
    Verdict::Signaled,
    Verdict::Timeout,
    Verdict::CpuTimeout,
    Verdict::Oom,
    Verdict::OutputLimit,
    Verdict::DiskLimit,
    Verdict::PidsLimit,
    Verdict::Denied,
    Verdict::SetupError,
];

/// The verdict of this name.
#[must_use]
pub fn verdict(name: &str) -> Option<Verdict> {
    VERDICTS.into_iter().find(|verdict| verdict.as_str() == name)
}

/// By its place in a record between processes.
pub(super) fn verdict_number(verdict: Verdict) -> u8 {
    VERDICTS.iter().position(|known| *known == verdict).unwrap_or(VERDICTS.len() - 1) as u8
}

pub(super) fn verdict_of(number: u8) -> Verdict {
    VERDICTS.get(usize::from(number)).copied().unwrap_or(Verdict::SetupError)
}

impl Expect {
    /// This, with what it leaves out from another.
    pub(super) fn over(mut self, other: &Self) -> Self {
        let other = other.clone();
        if self.verdict.is_none() && self.exit_code.is_none() {
            (self.verdict, self.exit_code) = (other.verdict, other.exit_code);
        }
        self.stdout = self.stdout.or(other.stdout);
        self.stderr = self.stderr.or(other.stderr);
        self.stdout_regex = self.stdout_regex.or(other.stdout_regex);
        self.stderr_regex = self.stderr_regex.or(other.stderr_regex);
        other.files.into_iter().for_each(|(path, content)| _ = self.files.entry(path).or_insert(content));
        self.compare = self.compare.or(other.compare);
        self
    }

    /// What can be wrong with the expectation itself.
    pub(super) fn check(&self) -> Result<(), String> {
        for (name, regex) in [("stdout_regex", &self.stdout_regex), ("stderr_regex", &self.stderr_regex)] {
            if let Some(Err(error)) = regex.as_deref().map(compiled) {
                return Err(format!("`expect.{name}`: {}", first_line(&error)));
            }
        }
        match self.verdict.as_deref() {
            Some(name) if verdict(name).is_none() => Err(format!("`expect.verdict`: there is no verdict `{name}`")),
            _ => Ok(()),
        }
    }

    /// What did not come as expected, nothing if all did. `files` were looked for in the sandbox.
    pub(super) fn unmet(&self, outcome: &Outcome) -> Vec<String> {
        let mut unmet = Vec::new();
        let ended = match (self.verdict.as_deref(), self.exit_code) {
            (Some(name), _) => outcome.verdict.as_str() == name,
            (None, Some(_)) => matches!(outcome.verdict, Verdict::Ok | Verdict::Failed),
            (None, None) => outcome.verdict == Verdict::Ok,
        };
        if !ended {
            unmet.push(format!("verdict: {}", outcome.verdict));
        }
        if let Some(code) = self.exit_code.filter(|code| outcome.exit_code != Some(*code)) {
            unmet.push(match outcome.exit_code {
                Some(other) => format!("exit_code: {other} instead of {code}"),
                None => format!("exit_code: none instead of {code}"),
            });
        }
        let compare = self.compare.unwrap_or_default();
        for (name, wanted, regex, stream) in [
            ("stdout", &self.stdout, &self.stdout_regex, &outcome.stdout),
            ("stderr", &self.stderr, &self.stderr_regex, &outcome.stderr),
        ] {
            if let Some(content) = wanted
                && (stream.truncated || !compare.holds(&content.0, &stream.bytes))
            {
                unmet.push(format!("{name}: {}", Difference(&content.0, stream)));
            }
            if let Some(regex) = regex
                && !compiled(regex).is_ok_and(|regex| regex.is_match(&stream.bytes))
            {
                unmet.push(format!("{name}_regex: it does not match"));
            }
        }
        for (path, content) in &self.files {
            let found = outcome.files.iter().find(|file| normal(&file.path) == normal(path));
            match found {
                None => unmet.push(format!("files: there is no {path}")),
                Some(file) if hex(&file.sha256) != content.sha256() => unmet.push(format!("files: {path} differs")),
                Some(_) => {}
            }
        }
        unmet
    }
}

/// All of it, however it is written.
fn normal(path: impl AsRef<Path>) -> PathBuf {
    Path::new(crate::spec::WORKDIR).join(path).components().collect()
}

/// So many are held for the next case, or the next job, that wants the same.
const MOST_COMPILED: usize = 32;

fn compiled(regex: &str) -> Result<Regex, String> {
    thread_local! {
        static COMPILED: RefCell<HashMap<String, Regex>> = RefCell::default();
    }
    COMPILED.with_borrow_mut(|compiled| {
        if let Some(found) = compiled.get(regex) {
            return Ok(found.clone());
        }
        let built = RegexBuilder::new(regex).size_limit(1 << 22).dfa_size_limit(1 << 22).build();
        let built = built.map_err(|error| error.to_string())?;
        if compiled.len() >= MOST_COMPILED {
            compiled.clear();
        }
        compiled.insert(regex.to_owned(), built.clone());
        Ok(built)
    })
}

fn first_line(text: &str) -> &str {
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim_start_matches("error: ")
}

impl Compare {
    fn holds(self, wanted: &[u8], found: &[u8]) -> bool {
        let words = |bytes: &'_ [u8]| -> Vec<Vec<u8>> {
            bytes.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).map(<[u8]>::to_vec).collect()
        };
        match self {
            Self::Exact => wanted == found,
            Self::Lines => lines(wanted) == lines(found),
            Self::Words => words(wanted) == words(found),
        }
    }
}

fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<_> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end).collect();
    while lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    lines
}

/// Where two texts part.
struct Difference<'a>(&'a [u8], &'a Captured);

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.1.truncated {
            return f.write_str("it is over its limit");
        }
        let common = self.0.iter().zip(&self.1.bytes).take_while(|(a, b)| a == b).count();
        let line = 1 + self.0[..common].iter().filter(|byte| **byte == b'\n').count();
        write!(f, "it differs in line {line}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_compared_as_is_asked_for() {
        for (wanted, found, exact, lines, words) in [
            ("1 2\n", "1 2\n", true, true, true),
            ("1 2\n", "1 2", false, true, true),
            ("1 2\n", "1 2 \r\n\n\n", false, true, true),
            ("1 2\n", "1  2\n", false, false, true),
            ("1 2\n", "1\n2\n", false, false, true),
            ("1 2\n", "12\n", false, false, false),
            ("", "\n", false, true, true),
            (" 1", "1", false, false, true),
        ] {
            let all = [Compare::Exact, Compare::Lines, Compare::Words]
                .map(|compare| compare.holds(wanted.as_bytes(), found.as_bytes()));
            assert_eq!(all, [exact, lines, words], "{wanted:?} {found:?}");
        }
    }

    #[test]
    fn a_bad_expectation_is_told() {
        let bad = Expect { stdout_regex: Some("(".into()), ..Expect::default() };
        assert_eq!(bad.check().unwrap_err(), "`expect.stdout_regex`: unclosed group");
        let bad = Expect { verdict: Some("fine".into()), ..Expect::default() };
        assert_eq!(bad.check().unwrap_err(), "`expect.verdict`: there is no verdict `fine`");
        let slow = Expect { stdout_regex: Some("(?:a{1000}){1000}".into()), ..Expect::default() };
        assert!(slow.check().unwrap_err().contains("size limit"), "{:?}", slow.check());
    }

    #[test]
    fn all_verdicts_have_numbers() {
        for verdict in VERDICTS {
            assert_eq!(
                (verdict_of(verdict_number(verdict)), super::verdict(verdict.as_str())),
                (verdict, Some(verdict))
            );
        }
    }
}
