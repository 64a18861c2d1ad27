//! A result as its line says it: the object of `run --json`, and what a batch adds to it.

use serde::{Serialize, Serializer, ser::SerializeStruct};
use serde_json::Value;

use super::job::Label;
use crate::{
    Outcome,
    report::json::{Millis, Text, exact_streams},
};

/// One job's result.
#[derive(Debug)]
pub(super) struct Record<'a> {
    /// None where the line could not be read.
    pub(super) id: Option<&'a Label>,
    /// Where in the input the job is, from 1.
    pub(super) line: u64,
    /// Of the job as it came, to know it again.
    pub(super) sha256: &'a str,
    pub(super) outcome: &'a Outcome,
    /// None where nothing was expected.
    pub(super) passed: Option<bool>,
    pub(super) failures: &'a [String],
    pub(super) metadata: Option<&'a Value>,
    pub(super) cases: Option<&'a [CaseRecord]>,
    pub(super) attempts: u32,
}

/// One case's result.
#[derive(Debug)]
pub(super) struct CaseRecord {
    pub(super) id: Label,
    pub(super) outcome: Outcome,
    pub(super) passed: Option<bool>,
    pub(super) failures: Vec<String>,
}

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Record", 32)?;
        object.serialize_field("id", &self.id)?;
        self.outcome.serialize_fields(&mut object)?;
        object.serialize_field("passed", &self.passed)?;
        object.serialize_field("failures", self.failures)?;
        object.serialize_field("cases", &self.cases)?;
        object.serialize_field("metadata", &self.metadata)?;
        object.serialize_field("attempts", &self.attempts)?;
        object.serialize_field("line", &self.line)?;
        object.serialize_field("job_sha256", self.sha256)?;
        exact_streams(&mut object, &self.outcome.stdout, &self.outcome.stderr)?;
        object.end()
    }
}

impl Serialize for CaseRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let outcome = &self.outcome;
        let mut object = serializer.serialize_struct("Case", 18)?;
        object.serialize_field("id", &self.id)?;
        object.serialize_field("passed", &self.passed)?;
        object.serialize_field("failures", &self.failures)?;
        object.serialize_field("verdict", &outcome.verdict)?;
        object.serialize_field("exit_code", &outcome.exit_code)?;
        object.serialize_field("signal", &outcome.signal)?;
        object.serialize_field("stdout", &Text(&outcome.stdout.bytes))?;
        object.serialize_field("stderr", &Text(&outcome.stderr.bytes))?;
        object.serialize_field("stdout_truncated", &outcome.stdout.truncated)?;
        object.serialize_field("stderr_truncated", &outcome.stderr.truncated)?;
        object.serialize_field("duration_ms", &Millis(outcome.duration))?;
        object.serialize_field("setup_ms", &Millis(outcome.setup))?;
        object.serialize_field("usage", &outcome.usage)?;
        object.serialize_field("denials", outcome.denials.as_slice())?;
        object.serialize_field("files", &outcome.files)?;
        object.serialize_field("error", &outcome.error)?;
        exact_streams(&mut object, &outcome.stdout, &outcome.stderr)?;
        object.end()
    }
}
