//! The result as JSON: the keys and their order are a contract (DESIGN.md §4), so they are written out
//! here, once, and not left to the fields' order.

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{
    Serialize, Serializer,
    ser::{Error, SerializeStruct},
};

use super::{
    controls::Controls,
    outcome::{Compile, Outcome, ProducedFile, Usage},
    stream::Captured,
};
use crate::request::limits::Limits;

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Outcome", 25)?;
        object.serialize_field("id", &self.id)?;
        self.serialize_fields(&mut object)?;
        exact_streams(&mut object, &self.stdout, &self.stderr)?;
        object.end()
    }
}

impl Outcome {
    /// All that has a key whatever happened, but for the id.
    pub(crate) fn serialize_fields<S: SerializeStruct>(&self, object: &mut S) -> Result<(), S::Error> {
        object.serialize_field("runtime", &self.runtime)?;
        object.serialize_field("isolation", &self.isolation)?;
        object.serialize_field("verdict", &self.verdict)?;
        object.serialize_field("exit_code", &self.exit_code)?;
        object.serialize_field("signal", &self.signal)?;
        object.serialize_field("stdout", &Text(&self.stdout.bytes))?;
        object.serialize_field("stderr", &Text(&self.stderr.bytes))?;
        object.serialize_field("stdout_truncated", &self.stdout.truncated)?;
        object.serialize_field("stderr_truncated", &self.stderr.truncated)?;
        object.serialize_field("duration_ms", &Millis(self.duration))?;
        object.serialize_field("setup_ms", &Millis(self.setup))?;
        object.serialize_field("usage", &self.usage)?;
        object.serialize_field("limits", &LimitsObject(&self.limits))?;
        object.serialize_field("controls", &ControlsObject(self.controls.as_ref()))?;
        object.serialize_field("denials", self.denials.as_slice())?;
        object.serialize_field("files", &self.files)?;
        object.serialize_field("error", &self.error)?;
        object.serialize_field("compile", &self.compile)?;
        object.serialize_field("denials_left_out", &self.denials.left_out())?;
        object.serialize_field("kept", &self.kept)?;
        object.serialize_field("ports", &self.ports)?;
        object.serialize_field("setup", &self.prepared)
    }
}

impl Serialize for Compile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Compile", 10)?;
        object.serialize_field("verdict", &self.verdict)?;
        object.serialize_field("exit_code", &self.exit_code)?;
        object.serialize_field("signal", &self.signal)?;
        object.serialize_field("stdout", &Text(&self.stdout.bytes))?;
        object.serialize_field("stderr", &Text(&self.stderr.bytes))?;
        object.serialize_field("duration_ms", &Millis(self.duration))?;
        object.serialize_field("stdout_truncated", &self.stdout.truncated)?;
        object.serialize_field("stderr_truncated", &self.stderr.truncated)?;
        exact_streams(&mut object, &self.stdout, &self.stderr)?;
        object.end()
    }
}

/// The streams whose text can't say what they hold.
pub(crate) fn exact_streams<S: SerializeStruct>(
    object: &mut S,
    stdout: &Captured,
    stderr: &Captured,
) -> Result<(), S::Error> {
    for (key, stream) in [("stdout_base64", stdout), ("stderr_base64", stderr)] {
        match std::str::from_utf8(&stream.bytes) {
            Ok(_) => object.skip_field(key)?,
            Err(_) => object.serialize_field(key, &Base64(&stream.bytes))?,
        }
    }
    Ok(())
}

impl Serialize for Usage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Usage", 2)?;
        object.serialize_field("cpu_ms", &Millis(self.cpu))?;
        object.serialize_field("peak_memory_bytes", &self.peak_memory_bytes)?;
        object.end()
    }
}

impl Serialize for ProducedFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("ProducedFile", 3)?;
        object.serialize_field("path", &self.path.to_string_lossy())?;
        object.serialize_field("bytes", &self.bytes)?;
        object.serialize_field("sha256", &Hex(&self.sha256))?;
        object.end()
    }
}

/// The limits, with the units in the keys.
pub(super) struct LimitsObject<'a>(pub(super) &'a Limits);

impl Serialize for LimitsObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let limits = self.0;
        let mut object = serializer.serialize_struct("Limits", 9)?;
        object.serialize_field("memory_bytes", &limits.memory)?;
        object.serialize_field("cpus", &limits.cpus)?;
        object.serialize_field("pids", &limits.pids)?;
        object.serialize_field("timeout_ms", &limits.timeout.map(Millis))?;
        object.serialize_field("output_bytes", &limits.output)?;
        object.serialize_field("cpu_time_ms", &limits.cpu_time.map(Millis))?;
        object.serialize_field("sandbox_bytes", &limits.sandbox)?;
        object.serialize_field("tmp_bytes", &limits.tmp)?;
        object.serialize_field("nofile", &limits.nofile)?;
        object.end()
    }
}

/// The controls; every key is null where no sandbox stood.
pub(super) struct ControlsObject<'a>(pub(super) Option<&'a Controls>);

impl Serialize for ControlsObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let controls = self.0;
        let mut object = serializer.serialize_struct("Controls", 15)?;
        object.serialize_field("user_namespace", &controls.map(|c| c.user_namespace))?;
        object.serialize_field("seccomp", &controls.map(|c| &c.seccomp))?;
        object.serialize_field("landlock_abi", &controls.map(|c| c.landlock_abi))?;
        object.serialize_field("cgroup", &controls.map(|c| c.cgroup))?;
        object.serialize_field("memory", &controls.map(|c| c.memory))?;
        object.serialize_field("network", &controls.map(|c| c.network))?;
        object.serialize_field("pids", &controls.map(|c| c.pids))?;
        object.serialize_field("cpu", &controls.map(|c| c.cpu))?;
        object.serialize_field("landlock_scopes", &controls.map(|c| &c.landlock_scopes))?;
        object.serialize_field("no_new_privs", &controls.map(|c| c.no_new_privs))?;
        object.serialize_field("capabilities", &controls.map(|c| c.capabilities))?;
        object.serialize_field("id_map", &controls.map(|c| c.id_map))?;
        object.serialize_field("rootfs", &controls.map(|c| c.rootfs))?;
        object.serialize_field("secrets", &controls.map(|c| c.secrets))?;
        object.serialize_field("image", &controls.map(|c| &c.image))?;
        object.end()
    }
}

/// Milliseconds, rounded to a microsecond; without a point where there is no fraction.
pub(crate) struct Millis(pub(crate) Duration);

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let micros = u64::try_from((self.0.as_nanos() + 500) / 1000).map_err(S::Error::custom)?;
        if micros.is_multiple_of(1000) {
            serializer.serialize_u64(micros / 1000)
        } else {
            serializer.serialize_f64(micros as f64 / 1000.0)
        }
    }
}

/// Bytes as text, with U+FFFD for what is none.
pub(crate) struct Text<'a>(pub(crate) &'a [u8]);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(self.0))
    }
}

/// Bytes in RFC 4648's standard alphabet, padded.
pub(super) struct Base64<'a>(pub(super) &'a [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(self.0))
    }
}

struct Hex<'a>(&'a [u8]);

impl Serialize for Hex<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf};

    use serde_json::Value;

    use super::super::{
        controls::{Capabilities, Cgroup, IdMap, LandlockScope, Means, Network, Rootfs},
        denials::{DenialKind, Denials},
        outcome::{Failure, Isolation},
        verdict::Verdict,
    };
    use super::*;
    use crate::request::id::SandboxId;

    pub(in crate::report) fn captured(bytes: &[u8]) -> Captured {
        Captured { bytes: bytes.to_vec(), truncated: false }
    }

    pub(in crate::report) fn controls() -> Controls {
        Controls {
            user_namespace: true,
            seccomp: Some("default".into()),
            landlock_abi: Some(7),
            cgroup: Cgroup::V2,
            memory: Means::Cgroup,
            network: Network::None,
            pids: Means::Cgroup,
            cpu: Means::Cgroup,
            landlock_scopes: vec![LandlockScope::AbstractUnixSocket, LandlockScope::Signal],
            no_new_privs: true,
            capabilities: Capabilities::None,
            id_map: Some(IdMap::Range),
            rootfs: Some(Rootfs::Host),
            secrets: 1,
            image: None,
        }
    }

    pub(in crate::report) fn outcome() -> Outcome {
        let mut denials = Denials::default();
        denials.record(DenialKind::Network, "example.com:443", "default deny", || Some("--allow example.com".into()));
        Outcome {
            id: SandboxId::parse("s1").unwrap(),
            runtime: Some("python".into()),
            isolation: Isolation::Native,
            verdict: Verdict::Ok,
            exit_code: Some(0),
            signal: None,
            stdout: captured(b"42\n"),
            stderr: captured(b""),
            duration: Duration::from_micros(14_200),
            setup: Duration::from_nanos(1_900_499),
            usage: Usage { cpu: Duration::from_nanos(12_100_500), peak_memory_bytes: Some(9_437_184) },
            limits: Limits::default(),
            controls: Some(controls()),
            denials,
            files: vec![ProducedFile { path: "plot.png".into(), bytes: 10213, sha256: [0xa0; 32], content: None }],
            error: None,
            prepared: None,
            compile: None,
            kept: None,
            ports: Vec::new(),
        }
    }

    fn keys(value: &Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    /// Text, so that the keys' order is compared too.
    #[test]
    fn a_whole_result() {
        let golden = r#"
{"id":"s1","runtime":"python","isolation":"native",
"verdict":"ok","exit_code":0,"signal":null,
"stdout":"42\n","stderr":"","stdout_truncated":false,"stderr_truncated":false,
"duration_ms":14.2,"setup_ms":1.9,
"usage":{"cpu_ms":12.101,"peak_memory_bytes":9437184},
"limits":{"memory_bytes":536870912,"cpus":1.0,"pids":128,"timeout_ms":30000,"output_bytes":1048576,
"cpu_time_ms":null,"sandbox_bytes":536870912,"tmp_bytes":268435456,"nofile":1024},
"controls":{"user_namespace":true,"seccomp":"default","landlock_abi":7,"cgroup":"v2","memory":"cgroup","network":"none",
"pids":"cgroup","cpu":"cgroup","landlock_scopes":["abstract_unix_socket","signal"],"no_new_privs":true,
"capabilities":"none","id_map":"range","rootfs":"host","secrets":1,"image":null},
"denials":[{"kind":"network","target":"example.com:443","rule":"default deny","hint":"--allow example.com","count":1}],
"files":[{"path":"plot.png","bytes":10213,"sha256":"a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0"}],
"error":null,"compile":null,"denials_left_out":0,"kept":null,"ports":[],"setup":null}"#;
        assert_eq!(serde_json::to_string(&outcome()).unwrap(), golden.replace('\n', ""));
    }

    #[test]
    fn keys_never_disappear() {
        let error = crate::Error::new("mount /proc: permission denied").with_hint("do this");
        let outcome = outcome();
        let bare = Outcome::setup_error(
            outcome.id.clone(),
            None,
            Isolation::Gvisor,
            Limits::default(),
            Failure::setup(&error),
        );
        let (full, bare) = (serde_json::to_value(outcome).unwrap(), serde_json::to_value(bare).unwrap());
        assert_eq!(keys(&full), keys(&bare));
        for key in ["usage", "limits", "controls"] {
            assert_eq!(keys(&full[key]), keys(&bare[key]), "{key}");
        }
        let expected = serde_json::json!({"kind": "setup", "message": error.message(), "hint": "do this"});
        assert_eq!(bare["error"], expected);
        let controls = bare["controls"].as_object().unwrap();
        assert!(controls.values().all(Value::is_null), "none held, and none was missing: {controls:?}");
        assert_eq!(bare["usage"]["peak_memory_bytes"], Value::Null);
    }

    #[test]
    fn what_is_not_utf8_is_lossy_in_text_and_exact_beside_it() {
        let mut outcome = outcome();
        outcome.stdout = captured(b"a\xffb");
        outcome.stderr = captured("é\0\u{1b}[31m\n".as_bytes());
        outcome.files[0].path = PathBuf::from(OsStr::from_bytes(b"\xff.txt"));
        outcome.compile = Some(Compile {
            verdict: Verdict::Failed,
            exit_code: Some(1),
            signal: None,
            stdout: captured(b""),
            stderr: captured(b"\xfe"),
            duration: Duration::from_millis(5),
        });
        let text = serde_json::to_string(&outcome).unwrap();
        assert!(
            text.ends_with(r#""denials_left_out":0,"kept":null,"ports":[],"setup":null,"stdout_base64":"Yf9i"}"#),
            "{text}"
        );
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["stdout"], "a\u{fffd}b");
        assert_eq!(value["stderr"], "é\0\u{1b}[31m\n");
        assert_eq!(value["files"][0]["path"], "\u{fffd}.txt");
        let compile = r#""compile":{"verdict":"failed","exit_code":1,"signal":null,"stdout":"","stderr":"�","duration_ms":5,"stdout_truncated":false,"stderr_truncated":false,"stderr_base64":"/g=="}"#;
        assert!(text.contains(compile), "{text}");
    }

    #[test]
    fn times_are_milliseconds_to_the_microsecond() {
        for (nanos, text) in [(0, "0"), (499, "0"), (500, "0.001"), (30_000_000_000, "30000"), (1_234_567, "1.235")] {
            assert_eq!(serde_json::to_string(&Millis(Duration::from_nanos(nanos))).unwrap(), text);
        }
    }
}
