//! Sandboxes that are made before anybody knows what for: all of the launch but the program.
//!
//! ```text
//! plan ──prepare──► Prepared ──go(plan of the job)──► Outcome
//! ```
//!
//! [`Prepared::make`] does what [`super::launch`] does up to the program's execution, without all that is only the
//! job's; the init then waits at its control socket. [`Prepared::go`] hands it the rest and supervises it as ever. What
//! fits is decided by the two whole plans ([`Plan::makes_the_same`]). Each is used once: it is consumed.
//!
//! With a [`Boot`], a program is executed at once, an interpreter under everything that will be in force, which gets
//! ready and then waits for its job at a socket. From its execution on it is as hostile as any program: nothing that it
//! says is believed but what can only harm itself, and one that does anything but wait is not used.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use super::{
    Before, Extras, Holds, HostSide, LaunchError, Made, controls,
    init::Ahead,
    late, make,
    observer::Observer,
    program::Image,
    protocol::{Order, Report},
    refused,
    starter::{self, Mark},
    supervise, system,
};
use crate::{
    cgroup::{Hierarchy, Leaf},
    net::{Policy, policy::Mode, publish::Published},
    plan::{Plan, Step, path::BoxPath, setup::SetupOp},
    report::{Means, Outcome},
    request::SandboxId,
    sys::{self, fs, process, seccomp, shared::Shared, socket},
};

/// Room for what a job brings. Only what is used of it is memory.
const ROOM: usize = 32 << 20;
/// An interpreter imports what it is told to, on a machine that may have much to do.
const BOOT_TIME: Duration = Duration::from_secs(30);
/// Of what an interpreter says when it is ready.
const MOST_SAID: usize = 64 << 10;

/// An interpreter to be started ahead.
#[derive(Debug, Clone)]
pub struct Boot {
    /// What it reads when it starts, with the directories that they are alone in; removed when it is used.
    pub files: Vec<SetupOp>,
    /// Its variables beside those of the plan's program; the number of the descriptor at which it hears of its job is
    /// put where one has `{fd}`: if that is its standard input, it answers at its standard output, and keeps both. The first may be set already, and is put in front with a colon then, if it is one that
    /// can be so.
    pub env: Vec<(String, String)>,
    pub joins: bool,
    /// Whether it can be told its arguments later, and nothing shows.
    pub takes_args: bool,
    /// A program that has this in it would notice.
    pub noticed_by: Option<&'static str>,
    /// Its variables are the environment: it can be told no others later than it can name, and has some of its own.
    pub is_shell: bool,
}

/// A sandbox that waits.
#[derive(Debug)]
pub struct Prepared {
    plan: Plan,
    hierarchy: Hierarchy,
    made: Made,
    shared: Shared,
    /// Our copy of the end at which the interpreter is told, if that is not its standard input.
    socket: Option<OwnedFd>,
    /// What was there for whatever has started, and is removed.
    files: Vec<BoxPath>,
    booted: Option<Booted>,
    logs: bool,
}

#[derive(Debug)]
struct Booted {
    takes_args: bool,
    noticed_by: Option<&'static str>,
    is_shell: bool,
    /// What it says that it has loaded.
    loaded: Vec<String>,
}

/// A sandbox that could not be used: nothing of the job has reached it, and here it is again.
#[derive(Debug)]
pub struct Gone<'a> {
    pub plan: Plan,
    pub extras: Extras<'a>,
}

impl Prepared {
    /// Makes the sandbox of `plan`, whose program and files are forgotten. `id` names its cgroup. What can be read from
    /// `interrupt` ends it.
    ///
    /// # Errors
    /// When it cannot be made, or the interpreter does not get ready.
    pub fn make(
        mut plan: Plan,
        id: SandboxId,
        hierarchy: &Hierarchy,
        boot: Option<&Boot>,
        logs: bool,
        interrupt: Option<BorrowedFd<'_>>,
    ) -> Result<Self, LaunchError> {
        let holds = Holds::decide(&plan, hierarchy)?;
        plan.without_late();
        plan.ids.choose_anew(&id);
        plan.id = id;
        if boot.is_some() && holds.memory != Means::Cgroup {
            // Who looks at its processes comes with the job.
            return Err(LaunchError::Lost);
        }
        if let Some(policy) = &mut plan.egress {
            // Nothing gets out before it is used. What UDP takes is made or not.
            let mode = if policy.passes_udp() { Mode::Open } else { Mode::Filtered };
            **policy = Policy::new(mode).map_err(|_| LaunchError::Lost)?;
        }
        let mut shared = Shared::new(ROOM).map_err(system("map memory"))?;
        let in_gvisor = plan.gvisor.is_some();
        // What waits on gVisor's kernel has its three streams and no more.
        let pair = boot.filter(|_| !in_gvisor).map(|_| socket::stream_pair()).transpose();
        let pair = pair.map_err(system("make a socket pair"))?;
        let files = match boot {
            Some(boot) => boot.files.clone(),
            None if in_gvisor => starter::files(&plan).ok_or(LaunchError::Lost)?,
            None => Vec::new(),
        };
        let hears = pair.as_ref().map_or(0, |(_, its)| its.as_raw_fd());
        let step = boot.map(|boot| boot_step(&plan, boot, hears)).transpose()?;
        let images = if in_gvisor { vec![waiting_in_gvisor(&mut plan, step.as_ref())?] } else { Vec::new() };
        if !files.is_empty() {
            let placed: Vec<_> = files.iter().enumerate().collect();
            let job = late::Writer::write(&[], &placed, step.as_slice(), None, &[]).filter(|job| shared.put(job));
            job.ok_or(LaunchError::Lost)?;
        }
        let ends = pair.as_ref().map(|(ours, its)| [ours.as_fd(), its.as_fd()]);
        let ahead = Ahead { shared: &shared, booted: ends };
        let host = HostSide { window: None, logs, published: Published::take(&[]).map_err(LaunchError::Egress)? };
        let (_, mut made) =
            make(&plan, hierarchy, holds, &images, Some(ahead), host, |running| running.reserve_record(&plan))?;
        // Those who are made later have nothing to do with it.
        shared.keep_to_these().map_err(system("keep memory to one sandbox"))?;
        made.oom = made.leaf.as_ref().map(Leaf::watch_oom).transpose().map_err(LaunchError::Cgroup)?.flatten();
        let booted = boot.map(|boot| Booted {
            takes_args: boot.takes_args,
            noticed_by: boot.noticed_by,
            is_shell: boot.is_shell,
            loaded: Vec::new(),
        });
        let (socket, files) = (pair.map(|(ours, _)| ours), files.iter().filter_map(file_path).collect());
        let mut prepared = Self { plan, hierarchy: hierarchy.clone(), made, shared, socket, files, booted, logs };
        prepared.wait_until_ready(interrupt)?;
        if let Some(leaf) = &prepared.made.leaf {
            prepared.made.before.events = leaf.events().map_err(LaunchError::Cgroup)?;
            prepared.made.before.usage = leaf.usage();
        }
        if prepared.has_started() {
            prepared.made.before.cpu = cpu_of_descendants(prepared.made.running.pid);
        }
        Ok(prepared)
    }

    /// Whether the sandbox is the one that this plan wants, and can be told all of it.
    #[must_use]
    pub fn fits(&self, plan: &Plan, logs: bool) -> bool {
        self.logs == logs
            && self.plan.makes_the_same(plan)
            && self.booted.as_ref().is_none_or(|booted| booted.fits(&self.plan, plan))
    }

    /// By which its cgroup is known.
    #[must_use]
    pub const fn id(&self) -> &SandboxId {
        &self.plan.id
    }

    #[must_use]
    pub const fn is_booted(&self) -> bool {
        self.booted.is_some()
    }

    /// Whether something runs in it that waits for the job, beside the init.
    const fn has_started(&self) -> bool {
        self.booted.is_some() || self.plan.gvisor.is_some()
    }

    /// Where what has started says that it is ready.
    fn speaks(&self) -> Option<BorrowedFd<'_>> {
        let stdout = self.has_started().then_some(&self.made.streams.stdout);
        self.socket.as_ref().or(stdout).map(AsFd::as_fd)
    }

    /// Whether it still waits, and has done nothing else.
    #[must_use]
    pub fn waits(&self) -> bool {
        let streams = &self.made.streams;
        let mut fds = vec![
            readable(self.made.running.pidfd.as_fd()),
            readable(self.made.running.control.0.as_fd()),
            readable(streams.stdout.as_fd()),
            readable(streams.stderr.as_fd()),
        ];
        fds.extend(self.socket.as_ref().map(|socket| readable(socket.as_fd())));
        process::poll(&mut fds, Some(Duration::ZERO)) == Ok(0)
    }

    /// Does what `plan` wants done in it, which must be one that it [fits](Self::fits). All times count from here.
    ///
    /// # Errors
    /// As [`super::launch`]. One that could not be used is none: [`Gone`].
    pub fn go<'a>(
        self,
        mut plan: Plan,
        extras: Extras<'a>,
        observer: &mut dyn Observer,
    ) -> Result<Result<Outcome, Box<Gone<'a>>>, LaunchError> {
        if !self.waits() {
            return Ok(Err(Box::new(Gone { plan, extras })));
        }
        let has_started = self.has_started();
        let Some(message) = self.message(&plan) else { return Ok(Err(Box::new(Gone { plan, extras }))) };
        let Self { plan: own, hierarchy, mut made, mut shared, socket, files: removed, booted: _, logs: _ } = self;
        let message = if own.gvisor.is_some() {
            (made.before.first, made.before.mark) = message;
            Vec::new()
        } else {
            message.0
        };
        let steps = if has_started { &[][..] } else { &plan.steps[..] };
        let placed: Vec<_> = plan.placed_late().collect();
        let job = late::Writer::write(&removed, &placed, steps, plan.longest(), &message);
        if !job.is_some_and(|job| shared.put(&job)) {
            return Ok(Err(Box::new(Gone { plan, extras })));
        }
        let files = extras.fetch.iter().map(super::fetch::Target::open).collect::<Result<Vec<_>, _>>()?;
        let ids = std::mem::replace(&mut plan.ids, own.ids);
        if let (Some(policy), Some(egress)) = (&plan.egress, &made.running.egress) {
            egress.set_policy(Policy::clone(policy));
        }
        made.running.enter_record(&plan, extras.runtime.as_deref())?;
        let first = plan.steps.first().map(|step| step.limits).unwrap_or_default();
        if let Some(leaf) = &made.leaf {
            // Of a compiler, which has its own.
            if made.holds.memory == Means::Cgroup && first.memory.is_some() {
                leaf.set_memory(plan.memory(&first)).map_err(LaunchError::Cgroup)?;
            }
            if made.holds.pids == Means::Cgroup && first.pids.is_some() {
                leaf.set_pids(plan.pids(&first).saturating_add(1)).map_err(LaunchError::Cgroup)?;
            }
        }
        let controls = controls(&plan, &hierarchy, &made.holds, extras.secrets.len());
        // What the interpreter reads ends when the init has written it.
        drop(socket);
        _ = made.running.control.order(Order::Go);
        if own.gvisor.is_some() && !answers(made.running.control.0.as_fd()) {
            drop(made);
            plan.ids = ids;
            return Ok(Err(Box::new(Gone { plan, extras })));
        }
        let supervisor = supervise::Supervisor::new(&plan, made, files, controls, extras)?;
        supervisor.run(observer).map(Ok)
    }

    /// What tells the interpreter, or whatever else has started, of its job.
    fn message(&self, plan: &Plan) -> Option<(Vec<u8>, Option<Mark>)> {
        match (&self.booted, &plan.steps[..]) {
            (Some(_), _) => Some((booted_message(&self.plan, plan), None)),
            (None, [step]) if self.plan.gvisor.is_some() => {
                let mark = Mark::new()?;
                starter::job(step, mark).map(|job| (job, Some(mark)))
            }
            (None, _) => self.plan.gvisor.is_none().then(Default::default),
        }
    }

    /// Hears of the init and of the program until both wait.
    fn wait_until_ready(&mut self, interrupt: Option<BorrowedFd<'_>>) -> Result<(), LaunchError> {
        let until = Instant::now() + BOOT_TIME;
        let (mut made, mut said, mut has_spoken) = (false, Vec::new(), !self.has_started());
        while !(made && has_spoken) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(LaunchError::Lost);
            }
            let speaks = self.speaks().filter(|_| !has_spoken).map(readable);
            let Made { running, before, .. } = &mut self.made;
            let mut fds = vec![readable(running.control.0.as_fd()), readable(running.pidfd.as_fd())];
            let number = fds.len();
            fds.extend(speaks);
            let listener = fds.len();
            fds.extend(before.listener.as_ref().map(|listener| readable(listener.as_fd())));
            let interrupted = fds.len();
            fds.extend(interrupt.map(readable));
            process::poll(&mut fds, Some(left)).map_err(system("poll"))?;
            let ready = |at: usize| fds.get(at).is_some_and(|fd| fd.revents != 0);
            if ready(interrupted) {
                return Err(LaunchError::Lost);
            }
            if listener < interrupted && ready(listener) {
                answer(&self.plan, before);
            }
            if ready(0) {
                match running.control.receive() {
                    Some(Report::Ready) => made = true,
                    Some(Report::Listener(fd)) => before.listener = Some(fd),
                    Some(Report::Root(fd)) => before.root = Some(fd),
                    Some(Report::Failed(failure)) => return Err(LaunchError::at(&self.plan, 0, failure)),
                    _ => return Err(LaunchError::Lost),
                }
                continue;
            }
            if ready(1) {
                return Err(LaunchError::Lost);
            }
            if number < listener && ready(number) {
                has_spoken = self.hear(&mut said)?;
            }
        }
        Ok(())
    }

    /// Takes what it says: names, each on a line, and an empty line at the end. They are its own affair: an interpreter that
    /// lies about them differs from one that was started for its job, which it may as well do without a lie.
    fn hear(&mut self, said: &mut Vec<u8>) -> Result<bool, LaunchError> {
        let mut part = [0; 4096];
        // There is something, or the end.
        let got = match self.speaks() {
            Some(from) => fs::read(from, &mut part),
            None => Ok(0),
        };
        match got {
            Ok(1..) if said.len() > MOST_SAID => Err(LaunchError::Lost),
            Ok(got @ 1..) => {
                said.extend_from_slice(&part[..got]);
                if !(said.ends_with(b"\n\n") || *said == b"\n") {
                    return Ok(false);
                }
                let names = String::from_utf8_lossy(said);
                if let Some(booted) = &mut self.booted {
                    booted.loaded = names.lines().filter(|name| !name.is_empty()).map(str::to_owned).collect();
                    booted.loaded.sort_unstable();
                }
                Ok(true)
            }
            Err(sys::Errno::EAGAIN | sys::Errno::EINTR) => Ok(false),
            _ => Err(LaunchError::Lost),
        }
    }
}

impl Booted {
    /// Whether the job is for the interpreter as it was started: the same words but for arguments at the end, the same
    /// variables but for others at the end that no interpreter looks at when it starts.
    fn fits(&self, own: &Plan, job: &Plan) -> bool {
        let ([own], [step]) = (&own.steps[..], &job.steps[..]) else { return false };
        let more = |own: &[String], step: &[String]| step.strip_prefix(own).map(<[String]>::to_vec);
        let Some(variables) = more(&own.env, &step.env) else { return false };
        let file = own.argv.last().map_or("", String::as_str);
        own.cwd == step.cwd
            && (self.takes_args || own.argv == step.argv)
            && own.candidates == step.candidates
            && more(&own.argv, &step.argv).is_some_and(|args| args.iter().map(String::len).sum::<usize>() < MOST_SAID)
            && variables.iter().all(|variable| !is_looked_at(variable))
            && (!self.is_shell || variables.iter().all(|variable| is_plain_in_shells(variable)))
            && variables.iter().map(String::len).sum::<usize>() < MOST_SAID
            && !job
                .placed_late()
                .any(|(_, op)| is_looked_for(op) || self.is_hidden_by(op, file) || self.is_noticed_by(op))
    }

    fn is_noticed_by(&self, op: &SetupOp) -> bool {
        let (SetupOp::File { content, .. }, Some(words)) = (op, self.noticed_by) else { return false };
        content.0.windows(words.len()).any(|part| part == words.as_bytes())
    }

    /// Whether a file beside the program would have been loaded in place of what is loaded already.
    fn is_hidden_by(&self, op: &SetupOp, program: &str) -> bool {
        let (SetupOp::File { path, .. } | SetupOp::Dir { path, .. }) = op else { return false };
        let beside = program.trim_start_matches('/').rsplit_once('/').map_or("", |(dir, _)| dir);
        let name = path.name().to_string_lossy();
        let stem = name.split('.').next().unwrap_or_default();
        path.parent().to_bytes() == beside.as_bytes()
            && self.loaded.binary_search_by(|loaded| loaded.as_str().cmp(stem)).is_ok()
    }
}

/// What is looked at by an interpreter, a C library or what is imported when they start, and not again.
pub fn is_looked_at(variable: &str) -> bool {
    const STARTS: [&str; 32] = [
        "PYTHON", "NODE", "RUBY", "GEM_", "BUNDLE", "BASH", "LANG", "LC_", "TZ", "LD_", "GLIBC", "MALLOC_", "OPENSSL",
        "SSL_", "OMP_", "OPENBLAS", "MKL", "GOTO", "NUMEXPR", "BLIS", "VECLIB", "KMP_", "UV_", "HOME", "PATH", "TMP",
        "TEMP", "TERM", "IFS", "ENV=", "SHELL", "FUMEHOOD",
    ];
    const ALONE: [&str; 20] = [
        "NO_COLOR",
        "FORCE_COLOR",
        "COLUMNS",
        "LINES",
        "PS4",
        "POSIXLY_CORRECT",
        "CDPATH",
        "OPTIND",
        "OPTERR",
        "PWD",
        "OLDPWD",
        "SECONDS",
        "RANDOM",
        "SHLVL",
        "USER",
        "LOGNAME",
        "http_proxy",
        "GCONV_PATH",
        "HOSTALIASES",
        "RES_OPTIONS",
    ];
    let name = variable.split('=').next().unwrap_or_default();
    STARTS.iter().any(|start| variable.starts_with(start)) || ALONE.contains(&name)
}

/// Whether it can be set in a shell that has started, and is then as it would be had the shell found it: not what it
/// cannot name, keeps for itself, or gives a meaning of its own when it starts.
fn is_plain_in_shells(variable: &str) -> bool {
    const OWN: [&str; 28] = [
        "UID",
        "EUID",
        "PPID",
        "GROUPS",
        "DIRSTACK",
        "FUNCNAME",
        "SHELLOPTS",
        "HOSTNAME",
        "HOSTTYPE",
        "MACHTYPE",
        "OSTYPE",
        "HISTCMD",
        "HISTSIZE",
        "HISTFILE",
        "HISTFILESIZE",
        "LINENO",
        "EPOCHSECONDS",
        "EPOCHREALTIME",
        "SRANDOM",
        "COMP_WORDBREAKS",
        "COPROC",
        "MAPFILE",
        "PIPESTATUS",
        "MAILCHECK",
        "IGNOREEOF",
        "ignoreeof",
        "TMOUT",
        "_",
    ];
    let name = variable.split('=').next().unwrap_or_default();
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(is_part)
        && !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && !OWN.contains(&name)
}

/// What an interpreter looks for when it starts, and not again: Python its user's packages, node what a directory of ours
/// is part of.
fn is_looked_for(op: &SetupOp) -> bool {
    let (SetupOp::File { path, .. } | SetupOp::Dir { path, .. }) = op else { return false };
    let path = path.full().to_bytes();
    path.split(|byte| *byte == b'/').any(|part| part == b".local") || path == b"tmp/package.json"
}

/// What all of a sandbox's processes have used but its init.
fn cpu_of_descendants(pid: i32) -> Duration {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let pids = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
    pids.map(|pid| process::cpu_time(pid).unwrap_or_default() + cpu_of_descendants(pid)).sum()
}

/// What waits on gVisor's kernel: the interpreter, or what can become any program.
fn waiting_in_gvisor(plan: &mut Plan, booted: Option<&Step>) -> Result<Image, LaunchError> {
    let argv = starter::argv(plan).ok_or(LaunchError::Lost)?;
    let (argv, env) = booted.map_or((&argv[..], &[][..]), |step| (&step.argv[..], &step.env[..]));
    plan.run_in_gvisor(argv, env);
    let gvisor = plan.gvisor.as_ref().ok_or(LaunchError::Lost)?;
    let command = gvisor.commands.first().ok_or(LaunchError::Lost)?;
    Image::runsc(&gvisor.cwd, command).map_err(LaunchError::Plan)
}

/// The program that is executed at once: the plan's, with the variables by which it finds what to do first.
fn boot_step(plan: &Plan, boot: &Boot, hears: i32) -> Result<Step, LaunchError> {
    let [step] = &plan.steps[..] else { return Err(LaunchError::Lost) };
    let mut step = step.clone();
    for (name, value) in &boot.env {
        let value = value.replace("{fd}", &hears.to_string());
        let start = format!("{name}=");
        match step.env.iter_mut().find(|known| known.starts_with(&start)) {
            // In front of what is there, as search paths have it.
            Some(known) if boot.joins => *known = format!("{start}{value}:{}", &known[start.len()..]),
            Some(_) => return Err(LaunchError::Lost),
            None => step.env.push(format!("{start}{value}")),
        }
    }
    Ok(step)
}

/// How long the rest is, in ten digits, and that: the numbers of arguments and of variables, the arguments, the variables:
/// each with a NUL.
fn booted_message(own: &Plan, job: &Plan) -> Vec<u8> {
    let ([own], [step]) = (&own.steps[..], &job.steps[..]) else { return Vec::new() };
    let args = step.argv.get(own.argv.len()..).unwrap_or_default();
    let env = step.env.get(own.env.len()..).unwrap_or_default();
    let counts = [args.len(), env.len()].map(|count| count.to_string());
    let words: String = counts.iter().chain(args).chain(env).flat_map(|text| [text.as_str(), "\0"]).collect();
    format!("{:010}{words}", words.len()).into_bytes()
}

fn file_path(op: &SetupOp) -> Option<BoxPath> {
    match op {
        SetupOp::File { path, .. } => Some(path.clone()),
        _ => None,
    }
}

/// Whether an init behind gVisor has taken the order, which it does if what waits there lives. Nothing of the job is there before
/// the supervisor has heard that.
fn answers(control: BorrowedFd<'_>) -> bool {
    let mut ready = [readable(control)];
    process::poll(&mut ready, Some(BOOT_TIME)) == Ok(1) && ready[0].revents & libc::POLLHUP == 0
}

fn readable(fd: BorrowedFd<'_>) -> libc::pollfd {
    libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }
}

/// Calls that are refused while an interpreter starts are refused as ever.
fn answer(plan: &Plan, before: &mut Before) {
    let Some(listener) = &before.listener else { return };
    if let Ok(Some(call)) = seccomp::recv(listener.as_fd()) {
        let errno = plan.seccomp.program.errno(call.number, &call.args);
        // A caller that is gone needs no answer.
        _ = seccomp::reply_errno(listener.as_fd(), call.id, errno);
        refused::record(&mut before.denials, &plan.seccomp.name, &call);
    }
}
