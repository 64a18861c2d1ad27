//! What is handed to gVisor's runsc: a bundle for each step and a command line. The one place that knows either.
//!
//! runsc is the program of a sandbox of ours, as far as that goes: its namespaces, cgroup, network and init are those of
//! any other. Around the program's tree is one more, the enclosure, which has runsc, its state and its bundles, none of
//! which the program's tree has. What runsc is told here is read by releases from 2022 on.

use std::{ffi::CString, path::Path};

use serde::Serialize;
use serde_json::json;

use super::{
    Filter, Identity, Plan, PlanError, ResourceLimit, Step,
    path::{BoxPath, HostPath},
    setup::{Content, Kind, Owner, SetupOp},
};
use crate::request::{
    Bytes, Network, SandboxId,
    gvisor::{Gvisor as Asked, Platform},
};

/// Where the program's tree is in the enclosure.
pub const ROOT: &std::ffi::CStr = c"/rootfs";
/// Where its terminals are there; the program sees gVisor's own.
pub const TERMINALS: &std::ffi::CStr = c"/rootfs/dev/pts/ptmx";
/// What gVisor's own processes take of the sandbox's memory, idle, and with what they keep of files in use.
pub const MEMORY: Bytes = Bytes::mib(96);
/// Threads of runsc, of its kernel and of its file server.
const OWN_THREADS: u32 = 128;
/// Threads of this kernel that stand for one of the program's.
const THREADS_EACH: u32 = 8;

/// A sandbox whose kernel is gVisor's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gvisor {
    pub platform: &'static str,
    /// Loaded beside the plan's: runsc is spared waits for what only kvm has a use for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_registration: Option<Filter>,
    /// How runsc is called, for each step.
    pub commands: Vec<Vec<String>>,
    /// Of all steps, in the program's tree.
    #[serde(skip)]
    pub cwd: String,
    #[serde(skip)]
    asked: Platform,
    /// Whether its own network stack has the sandbox's end of a link.
    #[serde(skip)]
    gateway: bool,
}

/// What is around the program's tree.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Enclosure {
    pub runsc: HostPath,
    /// A config.json for each step.
    pub bundles: Vec<Content>,
    /// What they are without the step's words.
    #[serde(skip)]
    pub(super) shape: String,
    /// What of the program's tree gVisor mounts by itself.
    pub inner: Vec<Inner>,
    /// Releases before 2025 take every network namespace in which this is shown for the host's, and refuse it.
    pub hides_network_settings: bool,
    /// The device of the platform.
    pub device: Option<HostPath>,
    /// Whether there are pseudo-terminals in it, at one of which the program may be.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub terminals: bool,
}

/// Something in the program's tree of which gVisor is told, since of the root's mount it would not know that no program
/// is run from there. It is held in the enclosure: the path to it may lead elsewhere by the time that a later step starts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inner {
    pub path: BoxPath,
    /// Where it is not known what is mounted, it is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    pub(super) writable: bool,
    pub(super) executable: bool,
    /// In the enclosure's `/mnt`.
    #[serde(skip)]
    pub name: CString,
}

impl Gvisor {
    /// But for the name by which runsc knows it.
    #[must_use]
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.asked, self.gateway) == (other.asked, other.gateway)
    }

    /// Threads at once that a sandbox may have on this kernel, for so many of the program's.
    #[must_use]
    pub const fn threads(pids: u32) -> u32 {
        pids.saturating_mul(THREADS_EACH).saturating_add(OWN_THREADS)
    }
}

impl Enclosure {
    /// But for what is run in it.
    #[must_use]
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let Self { runsc, bundles: _, shape, inner, hides_network_settings, device, terminals } = self;
        *runsc == other.runsc
            && *shape == other.shape
            && *inner == other.inner
            && *hides_network_settings == other.hides_network_settings
            && *device == other.device
            && *terminals == other.terminals
    }
}

impl Plan {
    /// Has runsc run this, and nothing else, under the plan's name.
    pub fn run_in_gvisor(&mut self, argv: &[String], env: &[String]) {
        let Some(gvisor) = &mut self.gvisor else { return };
        gvisor.commands = vec![command(gvisor.asked, gvisor.gateway, &self.id, 0)];
        for op in &mut self.setup {
            if let SetupOp::Enclose(enclosure) = op {
                enclosure.bundles = vec![bundle(&enclosure.shape, argv, env)];
            }
        }
    }
}

impl Inner {
    /// As runsc is told of it.
    pub(super) fn mount(&self) -> serde_json::Value {
        let access = if self.writable { "rw" } else { "ro" };
        let mut options = vec!["rbind", access, "nosuid", "nodev"];
        if !self.executable {
            options.push("noexec");
        }
        let source = format!("/mnt/{}", self.name.to_string_lossy());
        json!({ "destination": self.path.shown(), "type": "bind", "source": source, "options": options })
    }
}

/// What a bundle says of the program beside its command.
pub(super) struct Program<'a> {
    pub id: &'a SandboxId,
    pub hostname: Option<&'a str>,
    pub identity: Identity,
    pub groups: &'a [u32],
    pub rlimits: &'a [ResourceLimit],
    pub network: &'a Network,
    pub terminal: bool,
}

/// Has `setup` end in the enclosure instead of the program's root.
pub(super) fn plan(
    asked: &Asked,
    program: &Program<'_>,
    steps: &[Step],
    setup: &mut Vec<SetupOp>,
) -> Result<Gvisor, PlanError> {
    let gateway = matches!(program.network, Network::Gateway(_));
    let inner = inner(setup)?;
    leave_out(setup, program.terminal)?;
    // All steps have the same.
    let cwd = steps.first().map_or("/", |step| &step.cwd);
    let shape = config(program, cwd, &inner, gateway);
    let enclosure = Enclosure {
        runsc: HostPath::new(asked.runsc())?,
        bundles: steps.iter().map(|step| bundle(&shape, &step.argv, &step.env)).collect(),
        shape,
        inner,
        hides_network_settings: gateway,
        device: match asked.platform() {
            Platform::Kvm => Some(HostPath::new(Path::new("/dev/kvm"))?),
            Platform::Auto | Platform::Systrap | Platform::Ptrace => None,
        },
        terminals: false,
    };
    if matches!(setup.last(), Some(SetupOp::Enter)) {
        setup.pop();
    }
    setup.push(SetupOp::Enclose(Box::new(enclosure)));
    setup.push(SetupOp::Enter);
    let commands = (0..steps.len()).map(|number| command(asked.platform(), gateway, program.id, number)).collect();
    let (asked, cwd) = (asked.platform(), cwd.to_owned());
    let no_registration = (asked != Platform::Kvm).then(Filter::no_registration);
    Ok(Gvisor { platform: asked.name(), no_registration, commands, cwd, asked, gateway })
}

/// The command line. Every option of it is known to all releases since 2022; what is left out is the release's own to
/// choose.
fn command(platform: Platform, gateway: bool, id: &SandboxId, number: usize) -> Vec<String> {
    let mut words = vec![
        "runsc".to_owned(),
        "--root=/run".to_owned(),
        // The leaf is ours, and all of runsc is in it.
        "--ignore-cgroups".to_owned(),
        format!("--network={}", if gateway { "sandbox" } else { "none" }),
        // What is written goes to the tree, at once: that is where its limits are, and where it is fetched from.
        "--overlay2=none".to_owned(),
        "--file-access=shared".to_owned(),
        format!("--debug-log=/log/%COMMAND%.{number}"),
        // Nobody reads what the file server and its helpers would say, line by line.
        "--debug-command=run,boot".to_owned(),
    ];
    if platform != Platform::Auto {
        words.push(format!("--platform={}", platform.name()));
    }
    words.extend(["run".to_owned(), format!("--bundle=/bundle/{number}"), format!("{id}-{number}")]);
    words
}

/// gVisor mounts a /proc and a /dev of its own over these, which show nothing of this kernel: what is in ours would be seen
/// by nobody, and each mount costs whenever runsc copies or ends a mount namespace.
fn leave_out(setup: &mut Vec<SetupOp>, terminal: bool) -> Result<(), PlanError> {
    let below = |path: &BoxPath, dir: &str| Path::new(&path.shown()).starts_with(dir);
    setup.retain(|op| match op {
        SetupOp::Device { path, .. } | SetupOp::Symlink { path, .. } => !below(path, "/dev"),
        SetupOp::Terminals { .. } => terminal,
        SetupOp::Mask { path, required: false } => !below(path, "/proc"),
        _ => true,
    });
    for op in setup {
        if let SetupOp::Proc { path } = op {
            *op = SetupOp::Dir { path: BoxPath::new(Path::new(&path.shown()))?, mode: 0o555, owner: Owner::Setup };
        }
    }
    Ok(())
}

/// From where no program is run, and what is mounted over or below that. /dev is gVisor's, but for its shared memory, of
/// which there is to be no more than of ours.
fn inner(setup: &[SetupOp]) -> Result<Vec<Inner>, PlanError> {
    let mut all: Vec<Inner> = Vec::new();
    for op in setup {
        let (path, kind, writable, executable) = match op {
            SetupOp::Tmpfs { path, executable, .. } if path.shown() != "/dev" => (path, Kind::Dir, true, *executable),
            SetupOp::Bind { path, kind, writable, .. } => (path, *kind, *writable, true),
            _ => continue,
        };
        let below = |inner: &Inner| Path::new(&path.shown()).starts_with(inner.path.shown());
        if !executable || all.iter().any(below) {
            let name = CString::new(all.len().to_string()).map_err(|_| PlanError::Nul("a number"))?;
            all.push(Inner { path: path.clone(), kind: Some(kind), writable, executable, name });
        }
    }
    Ok(all)
}

/// Where the words of a step go: at the beginning of an object that has more.
const PROCESS: &str = "\"process\":{";

/// With the words of a step.
fn bundle(shape: &str, argv: &[String], env: &[String]) -> Content {
    // In no text of it there can be such a thing, where a quote has a backslash before it.
    let at = shape.find(PROCESS).map_or(0, |at| at + PROCESS.len());
    let (before, after) = shape.split_at(at);
    Content(format!("{before}\"args\":{},\"env\":{},{after}", json!(argv), json!(env)).into_bytes().into())
}

/// A bundle but for the words of a step.
fn config(program: &Program<'_>, cwd: &str, inner: &[Inner], gateway: bool) -> String {
    let rlimits: Vec<_> = program
        .rlimits
        .iter()
        .map(|limit| {
            let kind = format!("RLIMIT_{}", limit.name.to_ascii_uppercase());
            json!({ "type": kind, "soft": limit.soft, "hard": limit.hard })
        })
        .collect();
    let mut all = vec![json!({ "destination": "/proc", "type": "proc", "source": "proc" })];
    all.extend(inner.iter().map(Inner::mount));
    let mut namespaces: Vec<_> = ["pid", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind })).into();
    if gateway {
        namespaces.push(json!({ "type": "network", "path": "/proc/self/ns/net" }));
    }
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "cwd": cwd, "noNewPrivileges": true, "rlimits": rlimits,
            "user": {
                "uid": program.identity.uid, "gid": program.identity.gid, "additionalGids": program.groups,
            },
            "capabilities": {}, "terminal": program.terminal,
        },
        "root": { "path": "/rootfs", "readonly": false },
        "hostname": program.hostname.unwrap_or_default(),
        "mounts": all,
        "linux": { "namespaces": namespaces },
    })
    .to_string()
}
