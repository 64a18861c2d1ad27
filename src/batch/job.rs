//! A job: one request as a line of JSON says it. What it leaves out comes from the defaults.

use std::{borrow::Cow, collections::BTreeMap, fmt, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, IgnoredAny},
};
use serde_json::Value;

use super::{
    bounded::{self, Bounded},
    error::{BatchError, JobError},
    expect::Expect,
};

/// One program to be run, and what is expected of it.
///
/// ```
/// use fumehood::batch::Job;
///
/// let job = Job::parse(br#"{"id": "a", "code": "print(6 * 7)", "expect": {"stdout": "42\n"}}"#)?;
/// assert_eq!(job.id.unwrap().to_string(), "a");
/// # Ok::<(), fumehood::batch::JobError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Job {
    /// The caller's name for it, which need not be the only one of its kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Label>,
    /// Source code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Content>,
    /// A source file of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// A program that is inside, and its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// A line of shell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Content>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Files written below /sandbox before it starts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, Content>,
    /// Paths and patterns of files that are copied out after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub get: Option<Vec<String>>,
    #[serde(skip_serializing_if = "JobLimits::is_empty")]
    pub limits: JobLimits,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net: Option<Net>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Kernel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expect>,
    /// Several runs of the same program, each in a sandbox of its own.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "bounded::cases")]
    pub cases: Vec<Case>,
    /// Whether cases after one that did not pass are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_at_first: Option<bool>,
    /// The caller's own, given back.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "bounded::metadata")]
    pub metadata: Option<Value>,
}

/// One run of a program that has several. What it leaves out is the job's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Case {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Content>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, Content>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expect>,
}

/// Limits, in the words that the options of `run` take; plain numbers are bytes, milliseconds and counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobLimits {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<Quantity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Quantity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_time: Option<Quantity>,
    /// Of stdout, and again of stderr.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Quantity>,
    /// What /sandbox holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Quantity>,
    /// What /tmp holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmp: Option<Quantity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nofile: Option<Quantity>,
}

impl JobLimits {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How much network there is: a mode, or one with rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Net {
    Mode(String),
    Rules(NetRules),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetRules {
    /// By default `filtered`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kernel {
    Native,
    Gvisor,
}

/// A name that the caller gave: text or a whole number, given back as it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum Label {
    Text(String),
    Number(i64),
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// Text, or `{"base64": …}` for what is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content(pub Vec<u8>);

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_map([("base64", BASE64.encode(&self.0))]),
        }
    }
}

/// A limit as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Quantity(pub String);

macro_rules! visited {
    ($type:ident, $expects:literal, { $($method:ident($argument:ident: $of:ty) $body:block)+ }) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl<'de> de::Visitor<'de> for Visitor {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expects)
                    }
                    $(fn $method<E: de::Error>(self, $argument: $of) -> Result<$type, E> $body)+
                }
                deserializer.deserialize_any(Visitor)
            }
        }
    };
}

visited!(Label, "a string or a whole number", {
    visit_str(text: &str) { Ok(Label::Text(text.to_owned())) }
    visit_i64(number: i64) { Ok(Label::Number(number)) }
    visit_u64(number: u64) { i64::try_from(number).map(Label::Number).map_err(|_| E::custom("the number is too large")) }
});

visited!(Quantity, "a string such as \"512m\" or a number", {
    visit_str(text: &str) { Ok(Quantity(text.to_owned())) }
    visit_i64(number: i64) { Ok(Quantity(number.to_string())) }
    visit_u64(number: u64) { Ok(Quantity(number.to_string())) }
    visit_f64(number: f64) { Ok(Quantity(number.to_string())) }
});

impl<'de> Deserialize<'de> for Net {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(mode) => Ok(Self::Mode(mode)),
            rules @ Value::Object(_) => NetRules::deserialize(rules).map(Self::Rules).map_err(de::Error::custom),
            _ => Err(de::Error::custom("expected a mode such as \"filtered\", or an object with rules")),
        }
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or {\"base64\": …}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Content, E> {
                Ok(Content(text.as_bytes().to_vec()))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Content, A::Error> {
                let exact = Exact::deserialize(de::value::MapAccessDeserializer::new(map))?;
                BASE64.decode(exact.base64).map(Content).map_err(|error| de::Error::custom(format!("base64: {error}")))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exact {
    base64: String,
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl Job {
    /// Reads one line.
    ///
    /// # Errors
    /// When it is no JSON object, or has a field that there is none of, or one of another kind.
    pub fn parse(line: &[u8]) -> Result<Self, JobError> {
        // A list would do for a struct too, by the order of its fields.
        if line.trim_ascii_start().first() != Some(&b'{') {
            return Err(JobError::no_object());
        }
        let mut deserializer = serde_json::Deserializer::from_slice(line);
        let parsed = serde_path_to_error::deserialize::<_, Self>(&mut deserializer);
        let job = parsed.map_err(|error| JobError::misread(&error.path().to_string(), error.inner().to_string()))?;
        deserializer.end().map_err(|error| JobError::misread(".", error.to_string()))?;
        Ok(job)
    }

    /// As [`Self::parse`], of what is no text: a row of a table, a file of defaults.
    pub fn from_value(value: Value) -> Result<Self, JobError> {
        serde_path_to_error::deserialize(value)
            .map_err(|error| JobError::misread(&error.path().to_string(), error.inner().to_string()))
    }

    /// Reads what all jobs have in common, in TOML or JSON: any field of a job but what tells one from another.
    pub fn defaults(text: &str, toml: bool) -> Result<Self, BatchError> {
        let failed = |why: String| BatchError::Defaults { why };
        let value = if toml {
            let table: toml::Table =
                text.parse().map_err(|error: toml::de::Error| failed(error.message().to_owned()))?;
            serde_json::to_value(table).map_err(|error| failed(error.to_string()))?
        } else {
            serde_json::from_str(text).map_err(|error| failed(error.to_string()))?
        };
        let value = match value {
            Value::Object(mut map) if map.len() == 1 && map.contains_key("defaults") => map.remove("defaults"),
            value => Some(value),
        };
        let job = Self::from_value(value.unwrap_or_default()).map_err(|error| failed(error.to_string()))?;
        if job.id.is_some() {
            return Err(failed("`id` is what tells jobs apart".to_owned()));
        }
        Ok(job)
    }

    /// This job, with what it leaves out from `defaults`. Maps are joined.
    #[must_use]
    pub fn over(mut self, defaults: &Self) -> Self {
        let other = defaults.clone();
        if self.code.is_none() && self.file.is_none() && self.argv.is_none() && self.cmd.is_none() {
            (self.code, self.file, self.argv, self.cmd) = (other.code, other.file, other.argv, other.cmd);
        }
        self.runtime = self.runtime.or(other.runtime);
        self.args = self.args.or(other.args);
        self.stdin = self.stdin.or(other.stdin);
        other.env.into_iter().for_each(|(name, value)| _ = self.env.entry(name).or_insert(value));
        other.files.into_iter().for_each(|(path, content)| _ = self.files.entry(path).or_insert(content));
        self.get = self.get.or(other.get);
        let (own, given) = (&mut self.limits, other.limits);
        for (own, given) in [
            (&mut own.memory, given.memory),
            (&mut own.cpu, given.cpu),
            (&mut own.pids, given.pids),
            (&mut own.timeout, given.timeout),
            (&mut own.cpu_time, given.cpu_time),
            (&mut own.output, given.output),
            (&mut own.disk, given.disk),
            (&mut own.tmp, given.tmp),
            (&mut own.nofile, given.nofile),
        ] {
            if own.is_none() {
                *own = given;
            }
        }
        self.net = self.net.or(other.net);
        self.image = self.image.or(other.image);
        self.isolation = self.isolation.or(other.isolation);
        self.user = self.user.or(other.user);
        self.workdir = self.workdir.or(other.workdir);
        self.expect = self.expect.or(other.expect);
        if self.cases.is_empty() {
            self.cases = other.cases;
        }
        self.stop_at_first = self.stop_at_first.or(other.stop_at_first);
        self.metadata = self.metadata.or(other.metadata);
        self
    }

    /// What is expected of one of its runs.
    #[must_use]
    pub fn expects<'a>(&'a self, case: Option<&'a Case>) -> Option<Cow<'a, Expect>> {
        match (case.and_then(|case| case.expect.as_ref()), &self.expect) {
            (Some(own), Some(job)) => Some(Cow::Owned(own.clone().over(job))),
            (own, job) => own.or(job.as_ref()).map(Cow::Borrowed),
        }
    }
}

/// What can be told of a line that is no job, so that its result is known to be its.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Known {
    pub(super) id: Option<Label>,
    pub(super) metadata: Option<Value>,
    /// Whether anything was expected of it.
    pub(super) expects: bool,
}

impl Known {
    /// `None` for what is no JSON object.
    pub(super) fn of(line: &[u8]) -> Option<Self> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Lenient {
            id: Option<AnyLabel>,
            metadata: Option<Bounded>,
            expect: Option<IgnoredAny>,
        }
        let lenient = line.trim_ascii_start().first() == Some(&b'{');
        let lenient: Lenient = lenient.then(|| serde_json::from_slice(line).ok()).flatten()?;
        let id = lenient.id.and_then(|AnyLabel(id)| id);
        let metadata = lenient.metadata.map(|Bounded(metadata)| metadata);
        Some(Self { id, metadata, expects: lenient.expect.is_some() })
    }
}

/// A label, or what is none.
struct AnyLabel(Option<Label>);

impl<'de> Deserialize<'de> for AnyLabel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Any {
            Text(String),
            Number(i64),
            Other(IgnoredAny),
        }
        Any::deserialize(deserializer).map(|any| {
            Self(match any {
                Any::Text(text) => Some(Label::Text(text)),
                Any::Number(number) => Some(Label::Number(number)),
                Any::Other(_) => None,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str) -> String {
        let error = Job::parse(line.as_bytes()).unwrap_err();
        let error = crate::error::Hint::into_error(error);
        format!("{} / {}", error.message(), error.hint().unwrap_or_default())
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, told) in [
            (r#"{"cdoe": "x"}"#, "unknown field `cdoe` / did you mean `code`?"),
            (r#"{"code": "x", "limits": {"memroy": 1}}"#, "`limits`: unknown field `memroy` / did you mean `memory`?"),
            (
                r#"{"code": "x", "timeout": 1}"#,
                "unknown field `timeout` / limits are below it: {\"limits\": {\"timeout\": …}}",
            ),
            (
                r#"{"code": "x", "secrets": {}}"#,
                "unknown field `secrets` / a file of jobs is no place for secrets: give them with --secret",
            ),
            (r#"{"code": 1}"#, "`code`: invalid type: integer `1`, expected a string, or {\"base64\": …} / "),
            (r#"{"id": 1.5}"#, "`id`: invalid type: floating point `1.5`, expected a string or a whole number / "),
            (r#"{"code": {"base64": "!"}}"#, "`code`: base64: Invalid symbol 33, offset 0. / "),
            ("[]", "it is no JSON object / a job is one, on a line of its own"),
            ("", "it is no JSON object / a job is one, on a line of its own"),
            ("{\"id\": ", "`id`: EOF while parsing a value"),
        ] {
            let found = error(line);
            assert!(found.starts_with(told.trim_end_matches(" / ")), "{line}: {found}");
        }
        assert!(error(r#"{"code": "x"} {}"#).contains("trailing characters"));
    }

    #[test]
    fn what_a_job_leaves_out_is_from_the_defaults() {
        let toml = "[defaults]\nruntime = \"python\"\nenv = { A = \"1\", B = \"2\" }\n[defaults.limits]\nmemory = \"1g\"\npids = 7\n";
        let defaults = Job::defaults(toml, true).unwrap();
        let job = Job::parse(br#"{"code": "x", "env": {"B": "3"}, "limits": {"pids": 8}}"#).unwrap().over(&defaults);
        assert_eq!(job.runtime.as_deref(), Some("python"));
        assert_eq!(
            job.env.into_iter().collect::<Vec<_>>(),
            [("A", "1"), ("B", "3")].map(|(a, b)| (a.into(), b.into()))
        );
        assert_eq!(job.limits.memory, Some(Quantity("1g".into())));
        assert_eq!(job.limits.pids, Some(Quantity("8".into())));
        assert!(Job::defaults("id = 1", true).is_err());
        assert!(Job::defaults("{\"cmd\": \"x\", \"y\": 1}", false).is_err());
    }

    #[test]
    fn the_schema_has_every_field() {
        let keys =
            |value: &Value| value.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>();
        let schema: Value = serde_json::from_str(super::super::schema::JOB).unwrap();
        let content = || Some(Content::from("x"));
        let text = || Some("x".to_owned());
        let many = || BTreeMap::from([("x".to_owned(), Content::from("x"))]);
        let quantity = || Some(Quantity("1".to_owned()));
        let expect = Expect {
            verdict: text(),
            exit_code: Some(0),
            stdout: content(),
            stderr: content(),
            stdout_regex: text(),
            stderr_regex: text(),
            files: BTreeMap::from([("x".to_owned(), super::super::expect::FileContent::Content(Content::from("x")))]),
            compare: Some(super::super::expect::Compare::Lines),
        };
        let case = Case {
            id: Some(Label::Number(1)),
            stdin: content(),
            args: Some(Vec::new()),
            env: BTreeMap::from([("x".to_owned(), "x".to_owned())]),
            files: many(),
            expect: Some(expect.clone()),
        };
        let limits = JobLimits {
            memory: quantity(),
            cpu: quantity(),
            pids: quantity(),
            timeout: quantity(),
            cpu_time: quantity(),
            output: quantity(),
            disk: quantity(),
            tmp: quantity(),
            nofile: quantity(),
        };
        let job = Job {
            id: case.id.clone(),
            code: content(),
            file: Some("x".into()),
            argv: Some(Vec::new()),
            cmd: text(),
            runtime: text(),
            args: Some(Vec::new()),
            stdin: content(),
            env: case.env.clone(),
            files: many(),
            get: Some(Vec::new()),
            limits,
            net: Some(Net::Mode("none".into())),
            image: text(),
            isolation: Some(Kernel::Native),
            user: text(),
            workdir: Some("x".into()),
            expect: Some(expect),
            cases: vec![case],
            stop_at_first: Some(true),
            metadata: Some(Value::Bool(true)),
        };
        let job = serde_json::to_value(job).unwrap();
        assert_eq!(keys(&job), keys(&schema["properties"]));
        assert_eq!(keys(&job["limits"]), keys(&schema["properties"]["limits"]["properties"]));
        assert_eq!(keys(&job["expect"]), keys(&schema["$defs"]["expect"]["properties"]));
        assert_eq!(keys(&job["cases"][0]), keys(&schema["$defs"]["case"]["properties"]));
    }

    #[test]
    fn a_job_comes_back_as_it_was() {
        let line = r#"{"id":7,"code":"a","stdin":{"base64":"/w=="},"files":{"d/e":"f"},"limits":{"timeout":"1500"},"net":"filtered","metadata":[null]}"#;
        let job = Job::parse(line.as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&job).unwrap(), line);
    }
}
