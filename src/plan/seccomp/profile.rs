//! A seccomp profile as written: the OCI runtime spec's `linux.seccomp` object, and Docker's and Podman's
//! superset of it (`archMap`, `includes`, `excludes`, `comment`, `errno`).
//!
//! Parsing is construction: a [`Profile`] has known actions, operators, flags and errnos, argument indices
//! from 0 to 5, and no field that we don't know: a misspelt `args` would otherwise widen a rule in silence.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};

use super::names::Arch;

/// Linux's highest errno; the kernel clamps to it.
const MAX_ERRNO: u64 = 4095;
const EPERM: u16 = 1;

/// Why a profile can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeccompError {
    #[error("seccomp profile: {0}")]
    Json(String),
    #[error("seccomp profile: {0}")]
    Profile(String),
    #[error("seccomp profile: rule {rule}: {reason}")]
    Rule { rule: usize, reason: String },
    #[error("seccomp profile: rule {rule}: `{name}` is no system call")]
    UnknownCall { rule: usize, name: String },
    #[error("seccomp profile: it compiles to {0} instructions, the kernel takes 4096")]
    TooLong(usize),
}

/// What becomes of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    KillProcess,
    KillThread,
    Trap,
    /// The call fails with this errno.
    Errno(u16),
    /// A supervisor decides.
    Notify,
    /// A tracer decides; the number is its message.
    Trace(u16),
    Log,
    Allow,
}

impl Action {
    /// The filter's return value: `SECCOMP_RET_*` of linux/seccomp.h.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Action::KillProcess => 0x8000_0000,
            Action::KillThread => 0,
            Action::Trap => 0x0003_0000,
            Action::Errno(errno) => 0x0005_0000 | errno as u32,
            Action::Notify => 0x7fc0_0000,
            Action::Trace(message) => 0x7ff0_0000 | message as u32,
            Action::Log => 0x7ffc_0000,
            Action::Allow => 0x7fff_0000,
        }
    }

    /// The inverse of [`Action::code`]. Like the kernel, takes what it doesn't know for the strictest.
    #[must_use]
    pub const fn from_code(code: u32) -> Self {
        let data = (code & 0xffff) as u16;
        match code & 0xffff_0000 {
            0 => Action::KillThread,
            0x0003_0000 => Action::Trap,
            0x0005_0000 => Action::Errno(data),
            0x7fc0_0000 => Action::Notify,
            0x7ff0_0000 => Action::Trace(data),
            0x7ffc_0000 => Action::Log,
            0x7fff_0000 => Action::Allow,
            _ => Action::KillProcess,
        }
    }

    /// Whether the call runs without anybody else's consent.
    #[must_use]
    pub const fn permits(self) -> bool {
        matches!(self, Action::Allow | Action::Log)
    }

    fn parse(name: &str, errno: Option<u16>) -> Result<Self, String> {
        let action = match name {
            "SCMP_ACT_ERRNO" => return Ok(Action::Errno(errno.unwrap_or(EPERM))),
            "SCMP_ACT_TRACE" => return Ok(Action::Trace(errno.unwrap_or(EPERM))),
            "SCMP_ACT_ALLOW" => Action::Allow,
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
            "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
            "SCMP_ACT_LOG" => Action::Log,
            "SCMP_ACT_NOTIFY" => Action::Notify,
            "SCMP_ACT_TRAP" => Action::Trap,
            _ => return Err(format!("unknown action `{name}`")),
        };
        match errno {
            // The runtime spec: an errno for an action that takes none must be an error.
            Some(_) => Err(format!("action {name} takes no errno")),
            None => Ok(action),
        }
    }
}

/// How an argument is compared. Argument and value are 64 bits, unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    Ne,
    Lt,
    Le,
    Eq,
    Ge,
    Gt,
    /// `argument & mask == value`.
    MaskedEq {
        mask: u64,
    },
}

/// One comparison; those of a rule must all hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Condition {
    /// 0 to 5.
    pub index: u8,
    pub op: Op,
    pub value: u64,
}

/// One rule, still with every name it was written with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub names: Vec<String>,
    pub action: Action,
    pub conditions: Vec<Condition>,
    includes: Scope,
    excludes: Scope,
}

impl Rule {
    /// Its conditions as an architecture's arguments are compared: with those of 32 bits, what has no more, as with
    /// libseccomp.
    #[must_use]
    pub fn conditions_of(&self, arch: Arch) -> Cow<'_, [Condition]> {
        if !arch.has_short_arguments() || self.conditions.is_empty() {
            return Cow::Borrowed(&self.conditions);
        }
        let short = |value: u64| value & u64::from(u32::MAX);
        let shortened = |condition: &Condition| Condition {
            value: short(condition.value),
            op: match condition.op {
                Op::MaskedEq { mask } => Op::MaskedEq { mask: short(mask) },
                op => op,
            },
            ..*condition
        };
        Cow::Owned(self.conditions.iter().map(shortened).collect())
    }

    /// Whether the rule is meant for `target`, whose processes hold no capability.
    #[must_use]
    pub fn applies_to(&self, target: Target) -> bool {
        let (includes, excludes) = (&self.includes, &self.excludes);
        let names_arch = |arches: &[String]| arches.iter().any(|arch| arch == target.arch.go_name());
        includes.caps.is_empty()
            && (includes.arches.is_empty() || names_arch(&includes.arches))
            && includes.min_kernel.is_none_or(|least| target.kernel >= least)
            && !names_arch(&excludes.arches)
            && excludes.min_kernel.is_none_or(|least| target.kernel < least)
    }
}

/// Docker's `includes` or `excludes` of a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Scope {
    caps: Vec<String>,
    arches: Vec<String>,
    min_kernel: Option<KernelVersion>,
}

/// Where a filter is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub arch: Arch,
    pub kernel: KernelVersion,
}

/// A kernel's first two numbers, which `minKernel` compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion(pub u32, pub u32);

impl KernelVersion {
    /// Reads `4.8` and what uname(2) says, such as `6.18.44-amd64`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (first, rest) = text.split_once('.')?;
        let second = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some(Self(first.parse().ok()?, second.parse().ok()?))
    }
}

/// A checked profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The file's own one-line description, or nothing.
    pub comment: String,
    pub default: Action,
    pub rules: Vec<Rule>,
    /// Those it is meant for, as specifications call them. For [`super::compile_listed`] alone.
    pub architectures: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_*` to install with.
    pub flags: u32,
    /// The socket that an OCI engine waits on for the listener of [`Action::Notify`].
    pub listener_path: Option<String>,
    /// What is sent along with the listener, as given.
    pub listener_metadata: Option<String>,
}

impl Profile {
    /// Reads a profile from JSON.
    ///
    /// `archMap` is checked and then has no effect: it says what `architectures` of a specification an engine makes of
    /// it.
    pub fn parse(json: &str) -> Result<Self, SeccompError> {
        let raw: RawProfile = serde_json::from_str(json).map_err(|error| SeccompError::Json(error.to_string()))?;
        raw.check()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a seccomp profile object")]
struct RawProfile {
    comment: Option<String>,
    default_action: String,
    default_errno_ret: Option<u64>,
    default_errno: Option<String>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<RawArch>>,
    flags: Option<Vec<String>>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<RawRule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an architecture object")]
struct RawArch {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a rule object")]
struct RawRule {
    #[serde(rename = "comment")]
    _comment: Option<IgnoredAny>,
    name: Option<String>,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u64>,
    errno: Option<String>,
    args: Option<Vec<RawCondition>>,
    includes: Option<RawScope>,
    excludes: Option<RawScope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an argument condition object")]
struct RawCondition {
    index: u64,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object of caps, arches and minKernel")]
struct RawScope {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

impl RawProfile {
    fn check(self) -> Result<Profile, SeccompError> {
        let bad = SeccompError::Profile;
        let errno = check_errno(self.default_errno.as_deref(), self.default_errno_ret).map_err(bad)?;
        let default = Action::parse(&self.default_action, errno).map_err(bad)?;
        if default == Action::Notify {
            // The process could not even hand its listener over.
            return Err(bad("SCMP_ACT_NOTIFY can't be the default action".into()));
        }
        if self.architectures.is_some() && self.arch_map.is_some() {
            return Err(bad("`architectures` and `archMap` exclude each other".into()));
        }
        let mapped = self.arch_map.unwrap_or_default().into_iter();
        let mapped =
            mapped.flat_map(|map| map.sub_architectures.unwrap_or_default().into_iter().chain([map.architecture]));
        let architectures = self.architectures.unwrap_or_default();
        for arch in architectures.iter().cloned().chain(mapped) {
            if !ARCHITECTURES.contains(&arch.as_str()) {
                return Err(bad(format!("unknown architecture `{arch}`")));
            }
        }
        let mut flags = 0;
        for flag in self.flags.unwrap_or_default() {
            flags |= match flag.as_str() {
                "SECCOMP_FILTER_FLAG_TSYNC" => 1,
                "SECCOMP_FILTER_FLAG_LOG" => 1 << 1,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => 1 << 2,
                "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => 1 << 5,
                _ => return Err(bad(format!("unknown flag `{flag}`"))),
            };
        }
        let rules = self.syscalls.unwrap_or_default().into_iter().enumerate();
        let rules = rules.map(|(at, raw)| raw.check().map_err(|reason| SeccompError::Rule { rule: at + 1, reason }));
        Ok(Profile {
            comment: self.comment.unwrap_or_default(),
            default,
            architectures,
            rules: rules.collect::<Result<_, _>>()?,
            flags,
            listener_path: self.listener_path,
            listener_metadata: self.listener_metadata,
        })
    }
}

impl RawRule {
    fn check(self) -> Result<Rule, String> {
        let names = match (self.name, self.names) {
            (Some(_), Some(_)) => return Err("`name` and `names` exclude each other".into()),
            (Some(name), None) => vec![name],
            (None, names) => names.unwrap_or_default(),
        };
        if names.is_empty() {
            return Err("it names no system call".into());
        }
        let errno = check_errno(self.errno.as_deref(), self.errno_ret)?;
        let conditions = self.args.unwrap_or_default().into_iter().map(RawCondition::check);
        Ok(Rule {
            action: Action::parse(&self.action, errno)?,
            conditions: conditions.collect::<Result<_, _>>()?,
            includes: self.includes.unwrap_or_default().check()?,
            excludes: self.excludes.unwrap_or_default().check()?,
            names,
        })
    }
}

impl RawCondition {
    fn check(self) -> Result<Condition, String> {
        if self.index > 5 {
            return Err(format!("argument index {} is not 0 to 5", self.index));
        }
        let index = self.index as u8;
        let op = match self.op.as_str() {
            "SCMP_CMP_NE" => Op::Ne,
            "SCMP_CMP_LT" => Op::Lt,
            "SCMP_CMP_LE" => Op::Le,
            "SCMP_CMP_EQ" => Op::Eq,
            "SCMP_CMP_GE" => Op::Ge,
            "SCMP_CMP_GT" => Op::Gt,
            // libseccomp masks both sides; bits outside the mask would make a rule that never holds.
            "SCMP_CMP_MASKED_EQ" => {
                return Ok(Condition {
                    index,
                    op: Op::MaskedEq { mask: self.value },
                    value: self.value & self.value_two,
                });
            }
            _ => return Err(format!("unknown operator `{}`", self.op)),
        };
        Ok(Condition { index, op, value: self.value })
    }
}

impl RawScope {
    fn check(self) -> Result<Scope, String> {
        let min_kernel = match self.min_kernel {
            None => None,
            Some(text) => {
                let version = KernelVersion::parse(&text);
                Some(version.ok_or_else(|| format!("minKernel `{text}` is not a version such as 4.8"))?)
            }
        };
        Ok(Scope { caps: self.caps.unwrap_or_default(), arches: self.arches.unwrap_or_default(), min_kernel })
    }
}

/// An errno by name (Podman's way, which wins), by number, or none.
fn check_errno(name: Option<&str>, number: Option<u64>) -> Result<Option<u16>, String> {
    match (name.filter(|name| !name.is_empty()), number) {
        (Some(name), _) => {
            let named = |errno: &u16| syscalls::Errno::new(i32::from(*errno)).name() == Some(name);
            (1..=MAX_ERRNO as u16).find(named).map(Some).ok_or_else(|| format!("unknown errno `{name}`"))
        }
        (None, Some(number)) if number > MAX_ERRNO => Err(format!("errno {number} is over {MAX_ERRNO}")),
        (None, number) => Ok(number.map(|number| number as u16)),
    }
}

/// The runtime spec's list.
const ARCHITECTURES: &[&str] = &[
    "SCMP_ARCH_NATIVE",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn message(json: &str) -> String {
        Profile::parse(json).expect_err(json).to_string()
    }

    fn rule(fields: &str) -> String {
        format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{{{fields}}}]}}"#)
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            ("", "EOF"),
            ("7", "expected a seccomp profile object"),
            ("{}", "missing field `defaultAction`"),
            (r#"{"defaultAction": "ALLOW"}"#, "unknown action `ALLOW`"),
            (r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#, "can't be the default"),
            (r#"{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}"#, "takes no errno"),
            (r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}"#, "errno 4096 is over 4095"),
            (r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "EWHAT"}"#, "unknown errno `EWHAT`"),
            (r#"{"defaultAction": "SCMP_ACT_LOG", "defaultAction": "SCMP_ACT_LOG"}"#, "duplicate field"),
            (r#"{"defaultAction": "SCMP_ACT_LOG", "architectures": ["SCMP_ARCH_Z80"]}"#, "`SCMP_ARCH_Z80`"),
            (r#"{"defaultAction": "SCMP_ACT_LOG", "architectures": [], "archMap": []}"#, "exclude each other"),
            (r#"{"defaultAction": "SCMP_ACT_LOG", "flags": ["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}"#, "unknown flag"),
        ];
        for (json, part) in cases {
            assert!(message(json).contains(part), "{json}: {}", message(json));
        }
    }

    #[test]
    fn what_is_wrong_in_a_rule_is_said_with_its_number() {
        let cases = [
            (r#""action": "SCMP_ACT_ALLOW""#, "names no system call"),
            (r#""names": [], "action": "SCMP_ACT_ALLOW""#, "names no system call"),
            (r#""name": "a", "names": ["b"], "action": "SCMP_ACT_ALLOW""#, "exclude each other"),
            (r#""names": ["a"], "action": "SCMP_ACT_KILL", "errnoRet": 1"#, "takes no errno"),
            (
                r#""names": ["a"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]"#,
                "index 6",
            ),
            (
                r#""names": ["a"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 0, "op": "=="}]"#,
                "unknown operator `==`",
            ),
            (r#""names": ["a"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "new"}"#, "minKernel `new`"),
        ];
        for (fields, part) in cases {
            let message = message(&rule(fields));
            assert!(message.contains(part) && message.contains("rule 1"), "{fields}: {message}");
        }
    }

    #[test]
    fn a_misspelt_field_does_not_widen_a_rule() {
        let json = rule(r#""names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "arg": []"#);
        assert!(message(&json).contains("unknown field `arg`"), "{}", message(&json));
    }

    #[test]
    fn values_are_taken_whole_or_not_at_all() {
        let value = |text: &str| {
            Profile::parse(&rule(&format!(
                r#""names": ["a"], "action": "SCMP_ACT_ALLOW", "args": [{{"index": 0, "value": {text}, "op": "SCMP_CMP_EQ"}}]"#
            )))
        };
        assert_eq!(value("18446744073709551615").expect("largest").rules[0].conditions[0].value, u64::MAX);
        for text in ["18446744073709551616", "-1", "1.5", "1e3", "\"1\""] {
            assert!(value(text).is_err(), "{text}");
        }
    }

    #[test]
    fn actions_survive_their_codes() {
        let every = [
            Action::KillProcess,
            Action::KillThread,
            Action::Trap,
            Action::Errno(38),
            Action::Notify,
            Action::Trace(7),
            Action::Log,
            Action::Allow,
        ];
        for action in every {
            assert_eq!(Action::from_code(action.code()), action);
        }
        assert_eq!(Action::from_code(0x1234_5678), Action::KillProcess);
    }

    #[test]
    fn rules_are_for_processes_without_capabilities() {
        let applies = |scope: &str, arch, kernel| {
            let json = rule(&format!(r#""names": ["read"], "action": "SCMP_ACT_ALLOW", {scope}"#));
            Profile::parse(&json).expect(scope).rules[0].applies_to(Target { arch, kernel })
        };
        let (old, new) = (KernelVersion(4, 7), KernelVersion(5, 0));
        for (scope, arch, kernel, expected) in [
            (r#""includes": {"caps": ["CAP_BPF"]}"#, Arch::X86_64, new, false),
            (r#""excludes": {"caps": ["CAP_BPF"]}"#, Arch::X86_64, new, true),
            (r#""includes": {"arches": ["amd64"]}"#, Arch::X86_64, new, true),
            (r#""includes": {"arches": ["amd64"]}"#, Arch::Aarch64, new, false),
            (r#""excludes": {"arches": ["arm64"]}"#, Arch::Aarch64, new, false),
            (r#""includes": {"minKernel": "4.8"}"#, Arch::X86_64, old, false),
            (r#""includes": {"minKernel": "4.8"}"#, Arch::X86_64, new, true),
            (r#""excludes": {"minKernel": "4.8"}"#, Arch::X86_64, new, false),
            (r#""includes": {}, "excludes": null"#, Arch::X86_64, old, true),
        ] {
            assert_eq!(applies(scope, arch, kernel), expected, "{scope} {arch:?} {kernel:?}");
        }
    }

    #[test]
    fn kernel_versions_are_read_as_uname_says_them() {
        assert_eq!(KernelVersion::parse("4.8"), Some(KernelVersion(4, 8)));
        assert_eq!(KernelVersion::parse("6.18.44-amd64"), Some(KernelVersion(6, 18)));
        assert_eq!(KernelVersion::parse("5.10+deb"), Some(KernelVersion(5, 10)));
        for text in ["", "6", "6.", ".6", "x.y"] {
            assert_eq!(KernelVersion::parse(text), None, "{text}");
        }
    }
}
