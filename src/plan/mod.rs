//! Everything that will be done, in order, as plain data: the third stage.
//!
//! [`make`] computes it from a spec and the facts of the host, without privilege and without touching
//! anything. `fumehood explain` prints it; [`crate::launch`] carries it out and decides nothing.

pub mod ahead;
pub mod container;
pub mod gvisor;
pub mod ids;
pub mod landlock;
mod mounts;
pub mod path;
pub mod profile;
pub mod seccomp;
pub mod setup;

use std::{borrow::Cow, ffi::CString, path::Path, time::Duration};

use serde::Serialize;

use crate::{
    host::Host,
    net::{policy::Policy, publish::Publish},
    report::Isolation,
    request::{Bytes, Limits, Network, SandboxId, StepLimits},
    spec::{Base, Spec},
};
use container::process::Capabilities;
use ids::{Ids, IdsKind, Needs};
use landlock::{Access, Layer};
use setup::{OnDisk, SetupOp};

#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    pub id: SandboxId,
    pub namespaces: Vec<Namespace>,
    pub ids: Ids,
    pub rootfs: &'static str,
    /// The digest of the image, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    pub setup: Vec<SetupOp>,
    pub identity: Identity,
    /// Those of root that installs packages, a bit each; nobody else has any.
    #[serde(skip_serializing_if = "is_none")]
    pub capabilities: u64,
    /// The program's other groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<u32>,
    pub rlimits: Vec<ResourceLimit>,
    pub landlock: Vec<Layer>,
    pub seccomp: Filter,
    /// Loaded beside it when the program can write to the host's own directories: no set-id files there.
    pub no_setuid: Option<Filter>,
    pub limits: Limits,
    pub terminal: bool,
    /// The program has its own kernel, gVisor's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gvisor: Option<Box<gvisor::Gvisor>>,
    /// The last is the program; before it may come a setup, and a compiler.
    pub steps: Vec<Step>,
    /// What names their working directory, for errors.
    #[serde(skip)]
    pub workdir_by: &'static str,
    pub network: &'static str,
    /// What the gateway lets out, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Box<Policy>>,
    /// And what it lets out before, while the setup runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setup_egress: Option<Box<Policy>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<Publish>,
    pub fetches: bool,
    #[serde(skip)]
    pub keeps: bool,
    /// What a bundle wanted and does not get.
    pub left_out: Vec<String>,
}

/// One namespace of its own.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Namespace {
    pub kind: &'static str,
    #[serde(skip)]
    pub flag: i32,
    pub why: &'static str,
}

fn is_none(capabilities: &u64) -> bool {
    *capabilities == 0
}

/// Who the program is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResourceLimit {
    pub name: &'static str,
    #[serde(skip)]
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// The system-call filter: refused calls are reported to the supervisor, allowed ones cost nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Filter {
    pub name: String,
    pub instructions: usize,
    #[serde(skip)]
    pub program: Cow<'static, seccomp::Filter>,
}

/// One program to be run.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    pub kind: StepKind,
    pub argv: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    /// Where the program is looked for, in order.
    pub candidates: Vec<String>,
    #[serde(skip)]
    pub limits: StepLimits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    Setup,
    Compile,
    Run,
}

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("the seccomp profile forbids {0}, without which no program can start")]
    FilterForbids(&'static str),
    #[error(transparent)]
    Ids(#[from] ids::IdError),
    #[error(transparent)]
    Landlock(#[from] landlock::PolicyError),
    #[error("mount on `{target}`: {why}")]
    Mount { target: String, why: Cow<'static, str> },
    #[error("there is no built-in filter called {0}")]
    NoFilter(&'static str),
    #[error("{0} has a NUL byte")]
    Nul(&'static str),
    #[error(transparent)]
    Path(#[from] path::PathError),
    #[error(transparent)]
    Seccomp(#[from] seccomp::SeccompError),
    #[error("{by}: `{path}` is not an absolute path without `..`")]
    Workdir { by: &'static str, path: String },
    #[error("sysctl `{key}`: {why}")]
    Sysctl { key: String, why: &'static str },
}

impl crate::error::Hint for PlanError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Ids(error) => error.hint(),
            Self::Seccomp(error) => error.hint(),
            Self::Workdir { .. } => Some("it is a path inside the sandbox, such as /sandbox or /tmp".to_owned()),
            Self::Landlock(landlock::PolicyError::Abi { .. }) => Some(
                "choose another --profile or --landlock, or a newer kernel; `fumehood doctor` tells what this one has"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// Computes the plan. Pure: the same spec and host give the same plan.
pub fn make(spec: Spec, host: &Host) -> Result<Plan, PlanError> {
    let Spec { oci, mut own } = spec;
    let capabilities = oci.process().as_ref().and_then(|process| process.capabilities().as_ref());
    let capabilities = capabilities.map_or(0, |spec| Capabilities::new(spec).permitted);
    let needs = match (&own.gvisor, capabilities) {
        (Some(_), _) => Needs::Gvisor,
        (None, 0) => Needs::Program,
        (None, _) => Needs::All,
    };
    let ids = Ids::choose(&own.id, own.user, needs, host)?;
    // An ordinary user has no groups to give: without them the program can do less.
    let (groups, withheld) = std::mem::take(&mut own.groups)
        .into_iter()
        .partition(|gid| ids.kind == IdsKind::Range && ids::outside(&ids.groups, *gid).is_some());
    let withheld: Vec<u32> = withheld;
    own.left_out.extend(withheld.iter().map(|gid| format!("group {gid}")));
    let mut setup = vec![SetupOp::Private];
    if let Some(name) = oci.hostname() {
        setup
            .push(SetupOp::Hostname { name: CString::new(name.as_str()).map_err(|_| PlanError::Nul("the hostname"))? });
    }
    let writable_root = !oci.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false);
    let mut layer = Layer::for_mounts(host.landlock_abi);
    layer.allow(Path::new("/"), if writable_root { Access::ReadWriteExecute } else { Access::ReadExecute })?;
    mounts::plan(&oci, &mut own, &ids, writable_root, &mut setup, &mut layer)?;

    let mut layers = Vec::new();
    if host.landlock_abi > 0 {
        layers.push(layer);
    }
    layers.extend(own.profile.landlock()?.layer(host.landlock_abi)?);
    if let Some(policy) = &own.landlock {
        layers.extend(policy.layer(host.landlock_abi)?);
    }

    let process = oci.process().clone().unwrap_or_default();
    let cwd = process.cwd().to_string_lossy().into_owned();
    if crate::request::mounts::inside_path(process.cwd()).is_none() {
        return Err(PlanError::Workdir { by: own.workdir_by, path: cwd });
    }
    let env = process.env().clone().unwrap_or_default();
    let step = |kind, argv: Vec<String>, limits| Step {
        kind,
        candidates: candidates(&argv, &env, &cwd),
        argv,
        env: env.clone(),
        cwd: cwd.clone(),
        limits,
    };
    let mut steps = Vec::with_capacity(3);
    if let Some((argv, limits)) = own.setup {
        steps.push(step(StepKind::Setup, argv, limits));
    }
    if let Some((argv, limits)) = own.compile {
        steps.push(step(StepKind::Compile, argv, limits));
    }
    steps.push(step(StepKind::Run, process.args().clone().unwrap_or_default(), own.run_limits));

    let mut filter = match own.seccomp {
        Some(profile) => Filter::custom(&profile, host)?,
        None => Filter::builtin(own.profile.name)?,
    };
    let identity = Identity { uid: own.user.uid, gid: own.user.gid };
    let rlimits = rlimits(&process);
    let gvisor = match &own.gvisor {
        Some(asked) => {
            // Its own are what gVisor's processes are under, and what runsc is started under. Landlock forbids mounts.
            layers.clear();
            filter = Filter::gvisor();
            let hostname = oci.hostname().as_deref();
            let program = gvisor::Program {
                id: &own.id,
                hostname,
                identity,
                groups: &groups,
                rlimits: &rlimits,
                network: &own.network,
                terminal: process.terminal().unwrap_or(false),
            };
            Some(Box::new(gvisor::plan(asked, &program, &steps, &mut setup)?))
        }
        None => None,
    };
    let writes_host = setup.iter().any(|op| matches!(op, SetupOp::Bind { writable: true, .. }));
    let no_setuid = if writes_host { Some(Filter::no_setuid()) } else { None };
    Ok(Plan {
        no_setuid,
        namespaces: namespaces(&own.network),
        rootfs: match own.base {
            Base::Host { .. } => "host",
            Base::Dir { image: true, .. } => "image",
            Base::Dir { .. } => "directory",
        },
        ids,
        setup,
        identity,
        capabilities,
        groups,
        rlimits,
        landlock: layers,
        seccomp: filter,
        limits: own.limits,
        terminal: process.terminal().unwrap_or(false),
        gvisor,
        steps,
        workdir_by: own.workdir_by,
        network: own.network.name(),
        egress: match own.network {
            Network::Gateway(policy) => Some(policy),
            Network::None | Network::Host => None,
        },
        setup_egress: own.setup_policy,
        publish: own.publish,
        fetches: own.fetches,
        keeps: own.keeps,
        image: own.image,
        left_out: own.left_out,
        id: own.id,
    })
}

impl Plan {
    /// The CLONE_NEW* bits of the namespaces that the sandbox's init is cloned into: not the network's, which is
    /// made aside, and not the cgroup's, which is made once the cgroup is entered.
    #[must_use]
    pub fn clone_flags(&self) -> u64 {
        let later = [libc::CLONE_NEWCGROUP, libc::CLONE_NEWNET];
        self.namespaces.iter().filter(|n| !later.contains(&n.flag)).map(|n| n.flag as u64).sum()
    }

    /// Where what is written to the root is, if not in memory.
    #[must_use]
    pub fn on_disk(&self) -> Option<&OnDisk> {
        // It is the second operation, if anything is.
        self.setup.iter().take(3).find_map(|operation| match operation {
            SetupOp::RootOverlay { on_disk, .. } => on_disk.as_ref(),
            _ => None,
        })
    }

    /// The memory of all of the sandbox's processes together while this step runs, with gVisor's own.
    #[must_use]
    pub fn memory(&self, step: &StepLimits) -> Bytes {
        let own = if self.gvisor.is_some() { gvisor::MEMORY.get() } else { 0 };
        Bytes::new(step.memory.unwrap_or(self.limits.memory).get().saturating_add(own))
    }

    /// The processes and threads that this kernel has of it.
    #[must_use]
    pub fn pids(&self, step: &StepLimits) -> u32 {
        let pids = step.pids.unwrap_or(self.limits.pids);
        if self.gvisor.is_some() { gvisor::Gvisor::threads(pids) } else { pids }
    }

    /// What runs the program.
    #[must_use]
    pub const fn isolation(&self) -> Isolation {
        if self.gvisor.is_some() { Isolation::Gvisor } else { Isolation::Native }
    }

    /// Whether the init is there after the last program until it is told to go on: files are fetched from its root, and
    /// what the program has sent is in its network namespace until it is out.
    #[must_use]
    pub const fn init_stays(&self) -> bool {
        self.fetches || self.egress.is_some()
    }

    /// Whether the init makes the sandbox's network namespace: that of a gateway's is there before.
    #[must_use]
    pub fn own_network(&self) -> bool {
        self.egress.is_none() && self.namespaces.iter().any(|n| n.flag == libc::CLONE_NEWNET)
    }

    /// The wall time that all steps together may take, for the backstop inside.
    #[must_use]
    pub fn longest(&self) -> Option<Duration> {
        self.steps.iter().map(|step| step.limits.timeout.or(self.limits.timeout)).sum()
    }
}

fn namespaces(network: &Network) -> Vec<Namespace> {
    let namespace = |kind, flag, why| Namespace { kind, flag, why };
    let mut all = vec![
        namespace("user", libc::CLONE_NEWUSER, "no id and no capability inside means anything outside"),
        namespace("mount", libc::CLONE_NEWNS, "a tree of its own, from which no host path can be named"),
        namespace("pid", libc::CLONE_NEWPID, "no process outside can be seen or signalled; all end together"),
        namespace("ipc", libc::CLONE_NEWIPC, "no System V or POSIX message queue or shared memory of the host"),
        namespace("uts", libc::CLONE_NEWUTS, "a hostname of its own"),
        namespace("cgroup", libc::CLONE_NEWCGROUP, "its place in the host's cgroup tree is not shown"),
    ];
    let why = match network {
        Network::None => "no interface but its own loopback",
        Network::Gateway(_) => "no way out but to a gateway that refuses what is not allowed",
        Network::Host => return all,
    };
    all.insert(3, namespace("network", libc::CLONE_NEWNET, why));
    all
}

pub(crate) fn rlimits(process: &oci_spec::runtime::Process) -> Vec<ResourceLimit> {
    use oci_spec::runtime::PosixRlimitType as Type;
    let known = |kind| {
        Some(match kind {
            Type::RlimitCpu => ("cpu", libc::RLIMIT_CPU),
            Type::RlimitFsize => ("fsize", libc::RLIMIT_FSIZE),
            Type::RlimitData => ("data", libc::RLIMIT_DATA),
            Type::RlimitStack => ("stack", libc::RLIMIT_STACK),
            Type::RlimitCore => ("core", libc::RLIMIT_CORE),
            Type::RlimitRss => ("rss", libc::RLIMIT_RSS),
            Type::RlimitNproc => ("nproc", libc::RLIMIT_NPROC),
            Type::RlimitNofile => ("nofile", libc::RLIMIT_NOFILE),
            Type::RlimitMemlock => ("memlock", libc::RLIMIT_MEMLOCK),
            Type::RlimitAs => ("as", libc::RLIMIT_AS),
            Type::RlimitLocks => ("locks", libc::RLIMIT_LOCKS),
            Type::RlimitSigpending => ("sigpending", libc::RLIMIT_SIGPENDING),
            Type::RlimitMsgqueue => ("msgqueue", libc::RLIMIT_MSGQUEUE),
            Type::RlimitNice => ("nice", libc::RLIMIT_NICE),
            Type::RlimitRtprio => ("rtprio", libc::RLIMIT_RTPRIO),
            Type::RlimitRttime => ("rttime", libc::RLIMIT_RTTIME),
        })
    };
    let all = process.rlimits().iter().flatten();
    all.filter_map(|limit| {
        // Signed with musl, unsigned with glibc.
        #[allow(clippy::unnecessary_cast)]
        known(limit.typ()).map(|(name, resource)| ResourceLimit {
            name,
            resource: resource as u32,
            soft: limit.soft(),
            hard: limit.hard(),
        })
    })
    .collect()
}

/// The paths that execve is tried with: the name itself if it has a slash, else one for each entry of the
/// PATH that the program will have (execvp(3)).
fn candidates(argv: &[String], env: &[String], cwd: &str) -> Vec<String> {
    // A name that is empty is no name of the directories that it would be looked for in.
    let Some(program) = argv.first().filter(|program| !program.is_empty()) else { return Vec::new() };
    if program.contains('/') {
        return vec![program.clone()];
    }
    let path =
        env.iter().find_map(|assignment| assignment.strip_prefix("PATH=")).unwrap_or("/usr/local/bin:/usr/bin:/bin");
    path.split(':').map(|dir| format!("{}/{program}", if dir.is_empty() { cwd } else { dir })).collect()
}

impl Filter {
    fn builtin(name: &'static str) -> Result<Self, PlanError> {
        let builtin = seccomp::builtin(name).ok_or(PlanError::NoFilter(name))?;
        Ok(Self::new(name, Cow::Borrowed(&builtin.filter)))
    }

    /// Also for filters of the caller's own, which know nothing of mounts.
    fn no_setuid() -> Self {
        Self::new("no-setuid", Cow::Borrowed(&seccomp::beside::NO_SETUID))
    }

    /// It is runsc that is refused; nobody wants to hear of that.
    fn gvisor() -> Self {
        Self::new("gvisor", Cow::Borrowed(&seccomp::beside::GVISOR))
    }

    /// For all of runsc's but a kernel on kvm.
    pub(crate) fn no_registration() -> Self {
        Self::new("no-registration", Cow::Borrowed(&seccomp::beside::NO_REGISTRATION))
    }

    fn compile(profile: &seccomp::Profile, host: &Host) -> Result<seccomp::Filter, PlanError> {
        let kernel = seccomp::KernelVersion(host.kernel.major, host.kernel.minor);
        Ok(seccomp::compile(profile, seccomp::Target { arch: seccomp::Arch::NATIVE, kernel })?)
    }

    fn custom(profile: &seccomp::Profile, host: &Host) -> Result<Self, PlanError> {
        let filter = Self::compile(profile, host)?;
        // The last steps to the program are made under the filter already.
        for (name, number) in [("execve", libc::SYS_execve), ("exit_group", libc::SYS_exit_group)] {
            if !filter.decide(number as u32, &[0; 6]).permits() {
                return Err(PlanError::FilterForbids(name));
            }
        }
        Ok(Self::new("custom", Cow::Owned(filter)))
    }

    fn new(name: &str, program: Cow<'static, seccomp::Filter>) -> Self {
        let filter = Self { name: name.to_owned(), instructions: 0, program };
        Self { instructions: filter.loaded().len(), ..filter }
    }

    /// The program that is loaded.
    #[must_use]
    pub fn loaded(&self) -> &[seccomp::Insn] {
        self.program.reporting().unwrap_or_else(|| self.program.quiet())
    }

    /// Whether refused calls come to the supervisor.
    #[must_use]
    pub fn reports(&self) -> bool {
        self.program.reporting().is_some()
    }
}
