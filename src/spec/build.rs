//! From a request to a spec.

use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use oci_spec::runtime as oci;

use super::{Base, Own, Spec, SpecError, WORKDIR, load, root, text, trust};
use crate::{
    host::{Layout, TopLevel},
    image::Ready,
    net::gateway::GATEWAY,
    plan::setup::Kind,
    request::{
        Bytes, Hostname, Limits, Mount, Network, Placed, Request, Rootfs, Step, User, mounts::inside_path,
        user::LAST_ID,
    },
};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is over what else /proc is protected by: the program owns none of it, and it says too much
/// (runtime-spec, linux.maskedPaths; runc's and Docker's list).
const MASKED: [&str; 8] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/timer_list",
];

/// Turns a request into a spec. Looks at the host and at the root file system; changes nothing.
pub fn build(request: Request<'_>) -> Result<Spec, SpecError> {
    let Request { work, rootfs, mut placed, mounts, hidden, mut network, mut setup_policy, .. } = request;
    let mut spec = match rootfs {
        Rootfs::Bundle(dir) => load::load(dir)?,
        Rootfs::Host | Rootfs::Dir(_) | Rootfs::Image(_) => {
            load::Loaded { spec: blank()?, root: None, left_out: Vec::new() }
        }
    };
    let oci = &mut spec.spec;
    let mut limits = request.limits;
    tighten(&mut limits, oci);

    let mut all = Vec::new();
    let mut shown: Vec<(PathBuf, PathBuf)> = Vec::new();
    let mut links = Vec::new();
    if *rootfs == Rootfs::Host {
        let layout = Layout::probe();
        host_mounts(&layout, &work.etc, &mut all, &mut shown, &mut links)?;
        synthetic_etc(&request.user, request.hostname, &mut placed);
    }
    all.extend(own_mounts(&limits)?);
    let mut user = request.user;
    let image = match rootfs {
        Rootfs::Image(image) => Some(image),
        _ => None,
    };
    // Its own working directory is for its own programs: source code has a place to be and to write in /sandbox.
    let image_workdir = image.filter(|_| request.workdir.is_none() && work.runtime.is_none()).and_then(|i| i.workdir());
    let (mut needed, mut groups) = (Vec::new(), Vec::new());
    if let Some(image) = image {
        if !user.asked
            && let Some(who) = image.user()?
        {
            (user.uid, user.gid) = (who.uid, who.gid);
            groups = who.groups;
            if user.uid.max(user.gid) > LAST_ID {
                let what = format!("the image's user is {}:{}, beyond {LAST_ID}", user.uid, user.gid);
                return Err(SpecError::ImageUser { what });
            }
        }
        let (volumes, refused) = image.volumes()?;
        spec.left_out.extend(refused);
        let volumes = volumes.iter().filter(|path| {
            !all.iter().any(|own| own.destination() == *path) && !mounts.iter().any(|mount| mount.target == **path)
        });
        all.extend(volumes.map(|path| volume(path, &limits, user)).collect::<Result<Vec<_>, _>>()?);
        if let Some(dir) = image_workdir.as_deref().and_then(inside_path).filter(|dir| !image.has(dir)) {
            // As engines do, it is made where it is missing.
            let dir = image.resolve(&dir)?;
            if all.iter().any(|mount| dir.starts_with(mount.destination())) {
                placed.push(Placed::Dir { path: dir, mode: 0o755 });
            } else {
                needed.push((dir, Kind::Dir));
            }
        }
    }
    let mut env = work.env.clone();
    if let Network::Gateway(policy) = &mut network {
        let content = format!("nameserver {GATEWAY}\n").into_bytes().into();
        let path = Path::new("/etc/resolv.conf");
        let root = match rootfs {
            Rootfs::Host => None,
            Rootfs::Image(image) => Some(image.root()),
            Rootfs::Dir(path) => Some(path.as_path()),
            Rootfs::Bundle(_) => spec.root.as_deref(),
        };
        match root {
            None => placed.push(Placed::File { path: path.to_owned(), mode: 0o644, content }),
            Some(root) => {
                let path = crate::image::resolve(root, path)?;
                needed.push((path.clone(), Kind::File));
                placed.push(Placed::Over { path, content });
            }
        }
        if let Some(authority) = policy.take_authority(setup_policy.as_deref_mut())? {
            trust::place(authority, root, &mut placed, &mut needed)?;
            env.extend(trust::variables());
        }
    }
    for mount in mounts {
        shown.push((mount.source.clone(), mount.target.clone()));
        all.push(user_mount(mount)?);
    }
    // The bundle's own mounts come first, as OCI orders them, and ours stand over them.
    let bundled = oci.mounts().iter().flatten().filter(|m| !all.iter().any(|own| own.destination() == m.destination()));
    let all: Vec<_> = bundled.cloned().chain(all.iter().cloned()).collect();

    needed.extend(targets(&all, mounts));
    if request.gvisor.is_some() {
        // It has one of its own, and would make the place for it in the root, where it would be kept.
        needed.push(("/sys".into(), Kind::Dir));
    }
    let base = match (rootfs, &spec.root) {
        (Rootfs::Host, _) => Base::Host { links },
        (Rootfs::Dir(path), _) | (Rootfs::Bundle(_), Some(path)) => root::examine(path, &needed, false)?,
        (Rootfs::Image(image), _) => root::examine(image.root(), &needed, true)?,
        (Rootfs::Bundle(dir), None) => {
            return Err(SpecError::Config { path: dir.clone(), why: "it has no root".to_owned() });
        }
    };
    oci.set_mounts(Some(all));

    let mut process = oci.process().clone().unwrap_or_default();
    if !work.run.argv.is_empty() {
        let argv = work.run.argv.iter().map(|a| text("an argument", a)).collect::<Result<Vec<_>, _>>()?;
        process.set_args(Some(argv));
    }
    let given_env = match rootfs {
        Rootfs::Bundle(_) => process.env().clone().unwrap_or_default(),
        Rootfs::Image(image) => image_env(image, user.uid),
        Rootfs::Host | Rootfs::Dir(_) => Vec::new(),
    };
    process.set_env(Some(environment(request.env, request.secrets, &env, given_env, request.terminal)?));
    let workdir_by = match (request.workdir, rootfs) {
        (None, Rootfs::Bundle(_)) => "process.cwd in config.json",
        (None, Rootfs::Image(_)) if let Some(dir) = image_workdir => {
            process.set_cwd(dir);
            "WorkingDir of the image"
        }
        (dir, _) => {
            process.set_cwd(dir.unwrap_or(Path::new(WORKDIR)).to_owned());
            "--workdir"
        }
    };
    process.set_terminal(Some(request.terminal));
    process.set_no_new_privileges(Some(true));
    process.set_capabilities(if request.installs { Some(installing()?) } else { None });
    if matches!(rootfs, Rootfs::Bundle(_)) && !user.asked {
        (user.uid, user.gid) = (process.user().uid(), process.user().gid());
        if user.uid.max(user.gid) > LAST_ID {
            return Err(SpecError::Unsupported { what: format!("user {}:{}, beyond {LAST_ID}", user.uid, user.gid) });
        }
    }
    process.set_user(oci::UserBuilder::default().uid(user.uid).gid(user.gid).build()?);
    process.set_rlimits(Some(rlimits(&limits)?));
    oci.set_process(Some(process));
    oci.set_hostname(Some(request.hostname.to_string()));
    let kernel = oci.linux().clone().unwrap_or_default();
    oci.set_linux(Some(linux(kernel, &limits, &network)?));
    let root_path = match &base {
        Base::Host { .. } => PathBuf::from("rootfs"),
        Base::Dir { path, .. } => path.clone(),
    };
    oci.set_root(Some(oci::RootBuilder::default().path(root_path).readonly(!request.writable_root).build()?));

    let before = |step: Option<Step>| -> Result<_, SpecError> {
        let Some(step) = step else { return Ok(None) };
        let argv = step.argv.iter().map(|a| text("an argument", a)).collect::<Result<Vec<_>, _>>()?;
        Ok(Some((argv, step.limits)))
    };
    let (setup, compile) = (before(work.setup)?, before(work.compile)?);
    Ok(Spec {
        own: Own {
            id: request.id,
            base,
            placed,
            hidden: hide(hidden, &shown)?,
            setup,
            setup_policy,
            compile,
            run_limits: work.run.limits,
            limits,
            user,
            groups,
            workdir_by,
            network,
            publish: request.publish.to_vec(),
            gvisor: request.gvisor.cloned(),
            profile: request.profile.name,
            seccomp: request.profile.seccomp,
            landlock: request.profile.landlock,
            given_mounts: mounts.iter().filter(|m| m.given).map(|m| (m.target.clone(), m.owner)).collect(),
            fetches: !request.fetch.is_empty(),
            keeps: request.keeps,
            on_disk: request.on_disk.map(Path::to_owned),
            image: image.map(|image| image.digest().to_string()),
            left_out: spec.left_out,
        },
        oci: spec.spec,
    })
}

/// The builders of `oci-spec` fill in a whole default container, only for all of it to be replaced; a parsed one
/// has what it says.
fn blank() -> Result<oci::Spec, SpecError> {
    const BLANK: &str =
        r#"{"ociVersion":"1.2.0","process":{"cwd":"/","user":{"uid":0,"gid":0}},"linux":{},"mounts":[]}"#;
    serde_json::from_str(BLANK).map_err(|error| SpecError::Config { path: "(blank)".into(), why: error.to_string() })
}

/// Read-only views of the host's programs, and of the few files of its /etc that programs cannot do without.
fn host_mounts(
    layout: &Layout,
    runtime_etc: &[PathBuf],
    mounts: &mut Vec<oci::Mount>,
    shown: &mut Vec<(PathBuf, PathBuf)>,
    links: &mut Vec<(String, String)>,
) -> Result<(), SpecError> {
    let mut paths = vec![PathBuf::from("/usr")];
    for (name, kind) in &layout.top_level {
        match kind {
            TopLevel::Link(to) => links.push(((*name).to_owned(), text("a link of the host's root", to.as_os_str())?)),
            TopLevel::Directory => paths.push(Path::new("/").join(name)),
        }
    }
    if Path::new("/opt").is_dir() {
        paths.push("/opt".into());
    }
    paths.extend(layout.etc.iter().map(PathBuf::from));
    paths.extend(runtime_etc.iter().cloned());
    for path in paths {
        mounts.push(bind(&path, &path, false)?);
        shown.push((path.clone(), path));
    }
    Ok(())
}

/// Empty, and the program's own.
fn volume(path: &Path, limits: &Limits, user: User) -> Result<oci::Mount, SpecError> {
    let mut options: Vec<String> = ["nosuid", "nodev", "mode=755"].map(str::to_owned).into();
    options.extend([format!("uid={}", user.uid), format!("gid={}", user.gid)]);
    options.push(format!("size={}", limits.sandbox.get()));
    Ok(oci::MountBuilder::default().destination(path).typ("tmpfs").source("tmpfs").options(options).build()?)
}

/// What the image says stands over what is known without it.
fn image_env(image: &Ready, uid: u32) -> Vec<String> {
    let home = image.home(uid).unwrap_or_else(|| WORKDIR.to_owned());
    let known = [PATH.to_owned(), format!("HOME={home}"), "LANG=C.UTF-8".to_owned(), "TMPDIR=/tmp".to_owned()];
    // A name alone is no variable.
    let own = image.env().iter().filter(|assignment| assignment.find('=').is_some_and(|at| at > 0));
    known.into_iter().chain(own.cloned()).collect()
}

/// The mounts that every sandbox has.
fn own_mounts(limits: &Limits) -> Result<Vec<oci::Mount>, SpecError> {
    let mount = |target: &str, kind: &str, options: Vec<String>| {
        oci::MountBuilder::default().destination(target).typ(kind).source(kind).options(options).build()
    };
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let sized = |list: &[&str], bytes: u64| {
        let mut options = words(list);
        options.push(format!("size={bytes}"));
        options
    };
    Ok(vec![
        mount("/proc", "proc", words(&["nosuid", "nodev", "noexec", "ro", "hidepid=2"]))?,
        mount("/dev", "tmpfs", words(&["nosuid", "noexec", "mode=755"]))?,
        mount("/dev/pts", "devpts", words(&["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]))?,
        mount("/dev/shm", "tmpfs", sized(&["nosuid", "nodev", "noexec", "mode=1777"], limits.tmp.get()))?,
        mount("/tmp", "tmpfs", sized(&["nosuid", "nodev", "noexec", "mode=1777"], limits.tmp.get()))?,
        mount(WORKDIR, "tmpfs", sized(&["nosuid", "nodev", "mode=755"], limits.sandbox.get()))?,
    ])
}

fn user_mount(mount: &Mount) -> Result<oci::Mount, SpecError> {
    bind(&mount.source, &mount.target, mount.writable)
}

fn bind(source: &Path, target: &Path, writable: bool) -> Result<oci::Mount, SpecError> {
    let access = if writable { "rw" } else { "ro" };
    let options: Vec<String> = ["rbind", access, "nosuid", "nodev"].map(str::to_owned).into();
    Ok(oci::MountBuilder::default().destination(target).typ("bind").source(source).options(options).build()?)
}

/// What a program may ask of /etc without learning about the host.
fn synthetic_etc(user: &crate::request::User, hostname: &Hostname, placed: &mut Vec<Placed>) {
    let (uid, gid) = (user.uid, user.gid);
    let home = WORKDIR;
    let mut passwd =
        String::from("root:x:0:0:root:/root:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n");
    let mut group = String::from("root:x:0:\nnogroup:x:65534:\n");
    if uid != 0 {
        passwd.push_str(&format!("sandbox:x:{uid}:{gid}:sandbox:{home}:/bin/sh\n"));
    }
    if gid != 0 {
        group.push_str(&format!("sandbox:x:{gid}:\n"));
    }
    let mut add = |path: &str, content: String| {
        placed.push(Placed::File { path: path.into(), mode: 0o644, content: content.into_bytes().into() });
    };
    add("/etc/passwd", passwd);
    add("/etc/group", group);
    add("/etc/hosts", format!("127.0.0.1 localhost {hostname}\n::1 localhost\n"));
    add("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n".to_owned());
}

/// What must be there to be mounted on or written to. /dev's own insides are made on its tmpfs.
fn targets(mounts: &[oci::Mount], user: &[Mount]) -> Vec<(PathBuf, Kind)> {
    // A bundle may bind one.
    let shows_file = |mount: &oci::Mount| {
        !matches!(mount.typ().as_deref(), Some("tmpfs" | "proc" | "devpts"))
            && mount.source().as_ref().is_some_and(|source| source.is_file())
    };
    let is_file = |path: &Path| user.iter().any(|mount| mount.target == path && !mount.is_dir);
    let mut targets: Vec<_> = mounts
        .iter()
        .map(|mount| {
            let path = mount.destination();
            (path, is_file(path) || shows_file(mount))
        })
        .filter(|(path, _)| !path.starts_with("/dev") || *path == Path::new("/dev"))
        .map(|(path, is_file)| (path.clone(), if is_file { Kind::File } else { Kind::Dir }))
        .collect();
    // Longer ones may lie on a mount that comes later in the list, and then need nothing of the root.
    let tops: Vec<PathBuf> = targets.iter().map(|(path, _)| path.clone()).collect();
    targets.retain(|(path, _)| !tops.iter().any(|top| top != path && path.starts_with(top)));
    targets
}

fn environment(
    own: &[(std::ffi::OsString, std::ffi::OsString)],
    secrets: &[crate::request::Secret],
    runtime: &[(String, String)],
    bundle: Vec<String>,
    terminal: bool,
) -> Result<Vec<String>, SpecError> {
    let mut env: Vec<String> = Vec::with_capacity(8 + own.len() + runtime.len());
    let mut set = |name: &str, value: &str| {
        let assignment = format!("{name}={value}");
        match env.iter_mut().find(|known| known.split('=').next() == Some(name)) {
            Some(known) => *known = assignment,
            None => env.push(assignment),
        }
    };
    if bundle.is_empty() {
        for assignment in [PATH, "HOME=/sandbox", "USER=sandbox", "LANG=C.UTF-8", "TMPDIR=/tmp"] {
            let (name, value) = assignment.split_once('=').unwrap_or((assignment, ""));
            set(name, value);
        }
    }
    for assignment in &bundle {
        let (name, value) = assignment.split_once('=').unwrap_or((assignment, ""));
        set(name, value);
    }
    if terminal {
        set("TERM", &std::env::var("TERM").unwrap_or_else(|_| "xterm-256color".to_owned()));
    }
    for (name, value) in runtime {
        set(name, value);
    }
    for (name, value) in own {
        set(&text("an environment variable's name", name)?, &text("an environment variable", value)?);
    }
    for secret in secrets {
        set(secret.name(), &text("a secret's value", std::ffi::OsStr::from_bytes(secret.value().as_bytes()))?);
    }
    Ok(env)
}

fn rlimits(limits: &Limits) -> Result<Vec<oci::PosixRlimit>, SpecError> {
    use oci::PosixRlimitType as Type;
    let limit = |kind, value: u64| oci::PosixRlimitBuilder::default().typ(kind).soft(value).hard(value).build();
    let mut all = vec![
        limit(Type::RlimitNofile, limits.nofile)?, // One byte is no core dump either, and unlike 0 keeps the host's handler from being run (core(5)).
        limit(Type::RlimitCore, 1)?,
    ];
    if let Some(time) = limits.cpu_time {
        // One process alone must not go past it; all together are watched from outside.
        all.push(limit(Type::RlimitCpu, time.as_secs_f64().ceil() as u64 + 1)?);
    }
    Ok(all)
}

/// A bundle's own limits hold where they are the tighter ones.
fn tighten(limits: &mut Limits, bundle: &oci::Spec) {
    let Some(resources) = bundle.linux().as_ref().and_then(|linux| linux.resources().as_ref()) else { return };
    let positive = |limit: Option<i64>| limit.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0);
    if let Some(memory) = positive(resources.memory().as_ref().and_then(|memory| memory.limit())) {
        limits.memory = limits.memory.min(Bytes::new(memory));
    }
    if let Some(pids) = positive(resources.pids().as_ref().map(|pids| pids.limit())) {
        limits.pids = limits.pids.min(u32::try_from(pids).unwrap_or(u32::MAX));
    }
    if let Some(cpu) = resources.cpu()
        && let (Some(quota), period) = (positive(cpu.quota()), cpu.period().unwrap_or(100_000).max(1))
    {
        limits.cpus = limits.cpus.min(quota as f64 / period as f64);
    }
}

/// What a bundle says of the kernel's side is replaced: a sandbox has all namespaces, and limits of its own.
fn linux(mut linux: oci::Linux, limits: &Limits, network: &Network) -> Result<oci::Linux, SpecError> {
    use oci::LinuxNamespaceType as Type;
    let mut namespaces = vec![Type::User, Type::Mount, Type::Pid, Type::Ipc, Type::Uts, Type::Cgroup];
    if *network != Network::Host {
        namespaces.push(Type::Network);
    }
    let namespaces: Vec<_> = namespaces
        .into_iter()
        .map(|kind| oci::LinuxNamespaceBuilder::default().typ(kind).build())
        .collect::<Result<_, _>>()?;
    let memory = i64::try_from(limits.memory.get()).unwrap_or(i64::MAX);
    const PERIOD: u64 = 100_000;
    let resources = oci::LinuxResourcesBuilder::default()
        .memory(oci::LinuxMemoryBuilder::default().limit(memory).swap(memory).build()?)
        .pids(oci::LinuxPidsBuilder::default().limit(i64::from(limits.pids)).build()?)
        .cpu(oci::LinuxCpuBuilder::default().quota((limits.cpus * PERIOD as f64) as i64).period(PERIOD).build()?)
        .build()?;
    let mut masked = linux.masked_paths().clone().unwrap_or_default();
    masked.extend(
        MASKED
            .iter()
            .filter(|path| !masked.iter().any(|known| known == *path))
            .map(|path| (*path).to_owned())
            .collect::<Vec<_>>(),
    );
    linux.set_namespaces(Some(namespaces)).set_resources(Some(resources)).set_masked_paths(Some(masked));
    Ok(linux)
}

/// What dpkg needs to give files their owners and rights, and apt to fetch as nobody that matters: no more than root of a
/// container has.
fn installing() -> Result<oci::LinuxCapabilities, SpecError> {
    use oci::Capability::{Chown, DacOverride, Fowner, Fsetid, Setgid, Setuid};
    let all: oci::Capabilities = [Chown, DacOverride, Fowner, Fsetid, Setgid, Setuid].into();
    let none = oci::Capabilities::new;
    let sets = oci::LinuxCapabilitiesBuilder::default().bounding(all.clone()).permitted(all.clone()).effective(all);
    Ok(sets.inheritable(none()).ambient(none()).build()?)
}

/// Where each excluded host path is seen inside.
fn hide(excluded: &[PathBuf], shown: &[(PathBuf, PathBuf)]) -> Result<Vec<PathBuf>, SpecError> {
    let mut hidden = Vec::new();
    for path in excluded {
        let found = std::fs::canonicalize(path).map_err(|source| SpecError::Root { path: path.clone(), source })?;
        let before = hidden.len();
        for (source, target) in shown {
            if let Ok(rest) = found.strip_prefix(source) {
                let inside = if rest.as_os_str().is_empty() { target.clone() } else { target.join(rest) };
                if !hidden.contains(&inside) {
                    hidden.push(inside);
                }
            }
        }
        if hidden.len() == before {
            return Err(SpecError::NothingToHide { path: path.clone() });
        }
    }
    Ok(hidden)
}
