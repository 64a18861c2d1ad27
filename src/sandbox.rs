//! The facade: builds a sandbox and runs it, shaped after [`std::process::Command`].

use std::{
    ffi::{OsStr, OsString},
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    Error, Result,
    cgroup::Hierarchy,
    error::Hint,
    host::Host,
    image::{Ready, store::Installed},
    launch::{self, Extras, Input, Keeper, Observer, Upper},
    net::{self, policy::Mode, publish::Publish},
    packages::{self, Manager, PackagesError},
    plan::{
        self, Plan,
        ids::{Needs, wants_granted},
        landlock::Policy,
        profile::Builtin,
        seccomp::Profile as SeccompProfile,
    },
    report::{Failure, Isolation, Outcome},
    request::{
        Bytes, Fetch, Fetched, Gvisor, Hostname, Limits, Mount, Network, Placed, Profile, Request, RequestError,
        Rootfs, SandboxId, Secret, Step, StepLimits, User, Work, files, gvisor,
        runtimes::{self, SearchPath},
    },
    spec::{self, Spec},
};

/// One sandbox to be made, for one program.
///
/// ```no_run
/// use fumehood::Sandbox;
///
/// let outcome = Sandbox::code("print(6 * 7)").runtime("python").output()?;
/// assert_eq!(outcome.stdout.bytes, b"42\n");
/// # Ok::<(), fumehood::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Sandbox {
    program: Program,
    part: Part,
    runtime: Option<String>,
    args: Vec<OsString>,
    id: Option<SandboxId>,
    rootfs: Rootfs,
    inputs: Vec<(PathBuf, Option<PathBuf>, Copied)>,
    placed: Vec<Placed>,
    mounts: Vec<Mount>,
    hidden: Vec<PathBuf>,
    /// As the root file system has it, unless somebody says.
    writable_root: Option<bool>,
    entrypoint: Option<Vec<OsString>>,
    limits: Limits,
    env: Vec<(OsString, OsString)>,
    secrets: Vec<Secret>,
    user: User,
    workdir: Option<PathBuf>,
    hostname: Hostname,
    network: Network,
    publish: Vec<Publish>,
    setup: Option<(String, Network)>,
    profile: &'static Builtin,
    seccomp: Option<SeccompProfile>,
    landlock: Option<Policy>,
    terminal: bool,
    gvisor: Option<Gvisor>,
    fetch: Vec<Fetch>,
    stdin: Stdin,
    /// Nobody removes them meanwhile.
    packages: Vec<Arc<Installed>>,
    on_disk: Option<PathBuf>,
    keeps: bool,
    installs: bool,
}

#[derive(Debug, Clone)]
enum Program {
    Command(OsString),
    Shell(String),
    Code(Vec<u8>),
    File(PathBuf),
    /// What the bundle's config.json names.
    Bundle,
    /// What the image says.
    Image,
    /// Said later, by the jobs of a batch.
    Unsaid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copied {
    File,
    Dir,
}

/// How much is done of source code that is compiled first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    /// The compiler is the program.
    Compile,
    /// What the compiler made is there already.
    Compiled,
}

/// What the program reads from its standard input.
#[derive(Debug, Clone)]
pub enum Stdin {
    Empty,
    Bytes(Vec<u8>),
    /// The caller's own standard input.
    Inherit,
}

impl Sandbox {
    fn with(program: Program) -> Self {
        Self {
            program,
            part: Part::Whole,
            runtime: None,
            args: Vec::new(),
            id: None,
            rootfs: Rootfs::Host,
            inputs: Vec::new(),
            placed: Vec::new(),
            mounts: Vec::new(),
            hidden: Vec::new(),
            writable_root: None,
            entrypoint: None,
            limits: Limits::default(),
            env: Vec::new(),
            secrets: Vec::new(),
            user: User::default(),
            workdir: None,
            hostname: Hostname::default(),
            network: Network::None,
            publish: Vec::new(),
            setup: None,
            profile: plan::profile::DEFAULT,
            seccomp: None,
            landlock: None,
            terminal: false,
            gvisor: None,
            fetch: Vec::new(),
            stdin: Stdin::Empty,
            packages: Vec::new(),
            on_disk: None,
            keeps: false,
            installs: false,
        }
    }

    /// Runs a program that is in the sandbox, looked up in its PATH.
    pub fn command(program: impl Into<OsString>) -> Self {
        Self::with(Program::Command(program.into()))
    }

    /// Runs a line of shell.
    pub fn shell(line: impl Into<String>) -> Self {
        Self::with(Program::Shell(line.into()))
    }

    /// Runs source code; its runtime is Python unless [`Self::runtime`] or its `#!` line says otherwise.
    pub fn code(source: impl Into<Vec<u8>>) -> Self {
        Self::with(Program::Code(source.into()))
    }

    /// Runs a source file of the host; its runtime is found by its `#!` line or its extension.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::with(Program::File(path.into()))
    }

    /// Runs what an OCI bundle's config.json says.
    pub fn bundle(dir: impl Into<PathBuf>) -> Self {
        let mut sandbox = Self::with(Program::Bundle);
        sandbox.rootfs = Rootfs::Bundle(dir.into());
        sandbox
    }

    /// Runs what an OCI image says, as whom it says, where it says: its root is this sandbox's, and writable, in memory.
    pub fn image(image: Arc<Ready>) -> Self {
        let mut sandbox = Self::with(Program::Image);
        sandbox.rootfs = Rootfs::Image(image);
        sandbox
    }

    /// A sandbox for programs that the jobs of a [`crate::Batch`] name. It runs none by itself.
    #[must_use]
    pub fn template() -> Self {
        Self::with(Program::Unsaid)
    }

    /// In place of an image's own entrypoint and its arguments; nothing, for none.
    pub fn entrypoint(&mut self, words: impl IntoIterator<Item = impl Into<OsString>>) -> &mut Self {
        self.entrypoint = Some(words.into_iter().map(Into::into).collect());
        self
    }

    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub fn args(&mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub fn runtime(&mut self, name: impl Into<String>) -> &mut Self {
        self.runtime = Some(name.into());
        self
    }

    pub fn id(&mut self, id: SandboxId) -> &mut Self {
        self.id = Some(id);
        self
    }

    /// What it will be called: a random name is chosen now, if none was given.
    pub fn known_as(&mut self) -> Result<SandboxId> {
        let id = match self.id.take() {
            Some(id) => id,
            None => SandboxId::random().map_err(RequestError::Random).map_err(Hint::into_error)?,
        };
        Ok(self.id.insert(id).clone())
    }

    /// The root file system; for a bundle, [`Self::bundle`].
    pub fn rootfs(&mut self, rootfs: Rootfs) -> &mut Self {
        self.rootfs = rootfs;
        self
    }

    /// Copies a host file in, to `inside` or `/sandbox/<its name>`.
    pub fn copy_file(&mut self, host: impl Into<PathBuf>, inside: Option<PathBuf>) -> &mut Self {
        self.inputs.push((host.into(), inside, Copied::File));
        self
    }

    /// Copies a host directory in, without its links.
    pub fn copy_dir(&mut self, host: impl Into<PathBuf>, inside: Option<PathBuf>) -> &mut Self {
        self.inputs.push((host.into(), inside, Copied::Dir));
        self
    }

    /// Writes a file of this content at `inside`, which is below `/sandbox`; for its owner also executable.
    pub fn place(&mut self, inside: impl AsRef<Path>, content: impl Into<Arc<[u8]>>) -> Result<&mut Self> {
        let inside = inside.as_ref();
        let path = files::place(inside, Some(inside)).map_err(|error| RequestError::from(error).into_error())?;
        self.placed.push(Placed::File { path, mode: 0o744, content: content.into() });
        Ok(self)
    }

    /// The same sandbox for another program.
    pub(crate) fn becomes(&mut self, other: Self) -> &mut Self {
        (self.program, self.args) = (other.program, other.args);
        self
    }

    /// As [`Self::args`], in place of those there are.
    pub(crate) fn new_args(&mut self, args: &[String]) -> &mut Self {
        self.args = args.iter().map(OsString::from).collect();
        self
    }

    /// On this kernel, whatever was asked for before.
    pub(crate) fn native(&mut self) -> &mut Self {
        self.gvisor = None;
        self
    }

    pub(crate) const fn its_limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) const fn isolation(&self) -> Isolation {
        if self.gvisor.is_some() { Isolation::Gvisor } else { Isolation::Native }
    }

    pub(crate) const fn is_source(&self) -> bool {
        matches!(self.program, Program::Code(_) | Program::File(_))
    }

    pub(crate) const fn is_said(&self) -> bool {
        !matches!(self.program, Program::Unsaid)
    }

    /// For the compiler alone, with what it leaves in /sandbox held in the result; `None` where there is none.
    pub(crate) fn compiler(&self, most: Bytes) -> Result<Option<Self>> {
        if self.work(&mut Vec::new()).map_err(Hint::into_error)?.compile.is_none() {
            return Ok(None);
        }
        let mut sandbox = self.clone();
        sandbox.part = Part::Compile;
        sandbox.stdin = Stdin::Empty;
        sandbox.fetch = vec![Fetch { pattern: "**/*".to_owned(), to: None, how: Fetched::Held(most) }];
        Ok(Some(sandbox))
    }

    /// For what a compiler has made, without it.
    pub(crate) fn compiled(&self, made: &[(PathBuf, Arc<[u8]>)]) -> Self {
        let mut sandbox = self.clone();
        sandbox.part = Part::Compiled;
        sandbox.inputs.clear();
        let base = Path::new(spec::WORKDIR);
        let placed = made.iter().map(|(path, content)| Placed::File {
            path: base.join(path),
            mode: 0o755,
            content: content.clone(),
        });
        sandbox.placed = placed.collect();
        sandbox
    }

    pub fn mount(&mut self, mount: Mount) -> &mut Self {
        self.mounts.push(mount);
        self
    }

    /// Hides a host path wherever a mount would show it.
    pub fn exclude(&mut self, path: impl Into<PathBuf>) -> &mut Self {
        self.hidden.push(path.into());
        self
    }

    /// Lets the program write to its root, in memory. Unasked it may do so to an image's.
    pub fn writable(&mut self, writable: bool) -> &mut Self {
        self.writable_root = Some(writable);
        self
    }

    /// Plans for [`Self::run_kept`]; a run without a keeper keeps nothing.
    pub fn keeps(&mut self, keeps: bool) -> &mut Self {
        self.keeps = keeps;
        self
    }

    /// Gives its root what a system's package manager needs: all ids that a sandbox can have, and the capabilities to give
    /// files to them and to become them. For an ordinary user that takes subordinate ids.
    pub(crate) fn installs(&mut self, installs: bool) -> &mut Self {
        self.installs = installs;
        self
    }

    /// Has what is written to the root in this directory instead of in memory: one that is there, empty, of the caller's
    /// alone, on a disk that overlayfs takes. It is empty again when the run has ended. The disk's size is the limit then.
    pub fn writable_on_disk(&mut self, dir: impl Into<PathBuf>) -> &mut Self {
        self.writable_root = Some(true);
        self.on_disk = Some(dir.into());
        self
    }

    pub fn limits(&mut self, limits: Limits) -> &mut Self {
        self.limits = limits;
        self
    }

    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// An environment variable whose value is masked in everything the program prints.
    pub fn secret(&mut self, secret: Secret) -> &mut Self {
        self.secrets.push(secret);
        self
    }

    pub fn user(&mut self, user: User) -> &mut Self {
        self.user = user;
        self
    }

    pub fn workdir(&mut self, dir: impl Into<PathBuf>) -> &mut Self {
        self.workdir = Some(dir.into());
        self
    }

    pub fn hostname(&mut self, name: Hostname) -> &mut Self {
        self.hostname = name;
        self
    }

    pub fn network(&mut self, network: Network) -> &mut Self {
        self.network = network;
        self
    }

    /// Runs a line of shell before the program, in the same sandbox and with this network; then its processes are ended,
    /// its connections cut, and the network is the program's. If it fails, the program does not run.
    pub fn setup(&mut self, line: impl Into<String>, network: Network) -> &mut Self {
        self.setup = Some((line.into(), network));
        self
    }

    /// Opens a port of the program's on the host. What has no network gets one for that, which lets nothing out.
    pub fn publish(&mut self, publish: Publish) -> &mut Self {
        self.publish.push(publish);
        self
    }

    pub fn profile(&mut self, profile: &'static Builtin) -> &mut Self {
        self.profile = profile;
        self
    }

    /// A filter in place of the profile's.
    pub fn seccomp(&mut self, profile: SeccompProfile) -> &mut Self {
        self.seccomp = Some(profile);
        self
    }

    /// Landlock rules on top of the profile's.
    pub fn landlock(&mut self, policy: Policy) -> &mut Self {
        self.landlock = Some(policy);
        self
    }

    /// Gives the program a terminal of its own.
    pub fn terminal(&mut self, terminal: bool) -> &mut Self {
        self.terminal = terminal;
        self
    }

    /// Runs the program on gVisor's kernel instead of this one's.
    pub fn gvisor(&mut self, gvisor: Gvisor) -> &mut Self {
        self.gvisor = Some(gvisor);
        self
    }

    /// Reads files out after the run.
    pub fn fetch(&mut self, fetch: Fetch) -> &mut Self {
        self.fetch.push(fetch);
        self
    }

    pub fn stdin(&mut self, stdin: Stdin) -> &mut Self {
        self.stdin = stdin;
        self
    }

    /// Shows packages of its language to the program, read-only. A variable that leads to them and is set later stands
    /// over them.
    pub fn packages(&mut self, manager: Manager, installed: Installed) -> Result<&mut Self> {
        let (mount, variable, value) = packages::install::shown(manager, &installed).map_err(Hint::into_error)?;
        self.packages.push(Arc::new(installed));
        Ok(self.mount(mount).env(variable, value))
    }

    /// The language of the source code that it runs, and the program for it; of a command, those of the program.
    pub fn language(&self) -> Result<(String, OsString)> {
        let work = self.work(&mut Vec::new()).map_err(Hint::into_error)?;
        let program = work.run.argv.into_iter().next().unwrap_or_default();
        if let Some(runtime) = work.runtime {
            return Ok((runtime, program));
        }
        let name = Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let known = runtimes::table().by_name(&name).map_err(|_| PackagesError::NoRuntime { what: name });
        let known = known.map_err(Hint::into_error)?;
        let found = match &self.rootfs {
            Rootfs::Host => SearchPath::host().find(&program.to_string_lossy()).map_or(program, OsString::from),
            _ => program,
        };
        Ok((known.runtime.name().to_owned(), found))
    }

    /// The OCI spec of this sandbox, and what it has beyond OCI.
    pub fn spec(&mut self) -> Result<Spec> {
        let request = self.request(self.keeps).map_err(Hint::into_error)?;
        spec::build::build(request).map_err(Hint::into_error)
    }

    /// Everything that [`Self::run`] would do, in order. Changes nothing.
    pub fn plan(&mut self) -> Result<Plan> {
        let spec = self.spec()?;
        plan::make(spec, &self.host()).map_err(Hint::into_error)
    }

    /// This host, and of the ids it grants as much as this sandbox needs to know.
    fn host(&self) -> Host {
        let mut host = Host::probe();
        let needs = match (&self.gvisor, self.installs) {
            (Some(_), _) => Needs::Gvisor,
            (None, true) => Needs::All,
            (None, false) => Needs::Program,
        };
        if wants_granted(self.user, needs, &host) {
            host.read_granted();
        }
        host
    }

    /// Runs the program to its end and returns what happened, with all it printed.
    ///
    /// # Errors
    /// When the sandbox could not be made. How the program ended is never an error.
    pub fn output(&mut self) -> Result<Outcome> {
        struct Deaf;
        impl Observer for Deaf {}
        self.run(None, &mut Deaf)
    }

    /// As [`Self::output`], seen by `observer` as it happens. What can be read from `signals` (a signalfd(2))
    /// ends the run.
    pub fn run(&mut self, signals: Option<BorrowedFd<'_>>, observer: &mut dyn Observer) -> Result<Outcome> {
        self.run_with(signals, observer, None)
    }

    /// As [`Self::run`], with what the program wrote to its root given to `keeper` when it has ended, however it did; not
    /// when it could not be started. An error of the keeper's is in the outcome, as [`Failure::keep`].
    pub fn run_kept(
        &mut self,
        signals: Option<BorrowedFd<'_>>,
        observer: &mut dyn Observer,
        keeper: impl FnOnce(&Upper<'_>) -> Result<()>,
    ) -> Result<Outcome> {
        self.run_with(signals, observer, Some(Keeper(Box::new(keeper))))
    }

    fn run_with(
        &mut self,
        signals: Option<BorrowedFd<'_>>,
        observer: &mut dyn Observer,
        keeper: Option<Keeper<'_>>,
    ) -> Result<Outcome> {
        let began = Instant::now();
        let (plan, runtime) = self.planned(keeper.is_some())?;
        let input = self.take_input()?;
        let extras = Extras { keeper, ..self.extras(runtime, input, signals, began) };
        launch::launch(&plan, &Hierarchy::detect(), extras, observer).map_err(launch::LaunchError::explain)
    }

    /// The plan, and the runtime's name.
    pub(crate) fn planned(&mut self, keeps: bool) -> Result<(Plan, Option<String>)> {
        let request = self.request(keeps).map_err(Hint::into_error)?;
        let runtime = request.work.runtime.clone();
        let spec = spec::build::build(request).map_err(Hint::into_error)?;
        let plan = plan::make(spec, &self.host()).map_err(Hint::into_error)?;
        Ok((plan, runtime))
    }

    pub(crate) fn take_input(&mut self) -> Result<Input> {
        Ok(match std::mem::replace(&mut self.stdin, Stdin::Empty) {
            Stdin::Empty => Input::Empty,
            Stdin::Bytes(bytes) => Input::Bytes(bytes),
            Stdin::Inherit => Input::Stream(own_stdin()?),
        })
    }

    pub(crate) fn extras<'a>(
        &'a self,
        runtime: Option<String>,
        input: Input,
        signals: Option<BorrowedFd<'a>>,
        began: Instant,
    ) -> Extras<'a> {
        Extras {
            runtime,
            secrets: &self.secrets,
            fetch: &self.fetch,
            input,
            signals,
            began,
            keeper: None,
            remains: None,
        }
    }

    /// How many of the program's words are the caller's, and which variables.
    pub(crate) fn own_words(&self) -> (usize, impl Iterator<Item = &[u8]>) {
        use std::os::unix::ffi::OsStrExt;
        let secrets = self.secrets.iter().map(|secret| secret.name().as_bytes());
        (self.args.len(), self.env.iter().map(|(name, _)| name.as_bytes()).chain(secrets))
    }

    /// The result object of a run that failed with `error` before its program ran.
    pub fn failed(&self, error: &Error) -> Result<Outcome> {
        let id = match &self.id {
            Some(id) => id.clone(),
            None => SandboxId::random().map_err(|source| Error::new(format!("no random id: {source}")))?,
        };
        Ok(Outcome::setup_error(id, self.runtime.clone(), self.isolation(), self.limits.clone(), Failure::setup(error)))
    }

    fn request(&mut self, keeps: bool) -> Result<Request<'_>, RequestError> {
        let id = match &self.id {
            Some(id) => id.clone(),
            None => SandboxId::random().map_err(RequestError::Random)?,
        };
        self.id = Some(id.clone());
        if self.gvisor.is_some() {
            let (filter, rules) = (self.seccomp.is_some(), self.landlock.is_some());
            gvisor::check(self.profile, filter, rules, &self.limits, &self.network, &self.mounts)?;
        }
        let writable_root = self.writable_root.unwrap_or(matches!(self.rootfs, Rootfs::Image(_)));
        let wanted = [(keeps, "kept"), (self.on_disk.is_some(), "on a disk")];
        for (_, what) in wanted.into_iter().filter(|(wanted, _)| *wanted) {
            let refused = |why| Err(RequestError::NotKept { what, why });
            match self.rootfs {
                Rootfs::Host => return refused("/ is made for each run, and has no image below it"),
                _ if !writable_root => return refused("/ is read-only"),
                _ => {}
            }
        }
        let network = match (&self.network, self.publish.first()) {
            (Network::Host, Some(publish)) => return Err(RequestError::NoPublish(*publish)),
            (Network::None, Some(_)) => closed_network()?,
            (network, _) => network.clone(),
        };
        let (network, setup_policy) = match (network, self.setup.as_ref().map(|(_, network)| network)) {
            (network, None) => (network, None),
            (Network::Host, Some(_)) | (_, Some(Network::Host)) => return Err(RequestError::NoSetup),
            (Network::None, Some(Network::None)) => (Network::None, None),
            // What is none is shut by the gateway that the other one takes.
            (Network::None, Some(Network::Gateway(setup))) => (closed_network()?, Some(setup.clone())),
            (network, Some(Network::Gateway(setup))) => (network, Some(setup.clone())),
            (network, Some(Network::None)) => (network, Some(Box::new(net::Policy::new(Mode::Filtered)?))),
        };
        let mut placed = Vec::new();
        let mut work = self.work(&mut placed)?;
        placed.extend(self.placed.iter().cloned());
        work.setup = self.setup.as_ref().map(|(line, _)| setup_step(line, &self.limits));
        for (host, inside, kind) in &self.inputs {
            let path = files::place(host, inside.as_deref())?;
            match kind {
                Copied::File => {
                    let (content, mode) = files::read(host, self.limits.sandbox)?;
                    placed.push(Placed::File { path, mode, content });
                }
                Copied::Dir => placed.extend(files::read_dir(host, &path, self.limits.sandbox)?),
            }
        }
        Ok(Request {
            id,
            work,
            rootfs: &self.rootfs,
            placed,
            mounts: &self.mounts,
            hidden: &self.hidden,
            writable_root,
            limits: self.limits.clone(),
            env: &self.env,
            secrets: &self.secrets,
            user: self.user,
            workdir: self.workdir.as_deref(),
            hostname: &self.hostname,
            network,
            publish: &self.publish,
            setup_policy,
            profile: Profile { name: self.profile, seccomp: self.seccomp.clone(), landlock: self.landlock.clone() },
            terminal: self.terminal,
            gvisor: self.gvisor.as_ref(),
            fetch: &self.fetch,
            keeps,
            on_disk: self.on_disk.as_deref(),
            installs: self.installs,
        })
    }

    fn work(&self, placed: &mut Vec<Placed>) -> Result<Work, RequestError> {
        let plain = |argv: Vec<OsString>| Work {
            runtime: None,
            setup: None,
            compile: None,
            run: Step { argv, limits: StepLimits::default() },
            etc: Vec::new(),
            env: Vec::new(),
        };
        let (source, host, mode) = match &self.program {
            Program::Command(program) => {
                let own = [program].into_iter().chain(&self.args).cloned();
                return Ok(plain(self.entrypoint_words().into_iter().chain(own).collect()));
            }
            Program::Image => {
                let mut argv = self.entrypoint_words();
                match &self.rootfs {
                    // An entrypoint of one's own does not get the arguments that were meant for the image's.
                    Rootfs::Image(image) if self.args.is_empty() && self.entrypoint.is_none() => {
                        argv.extend(image.cmd().iter().map(OsString::from));
                    }
                    _ => argv.extend(self.args.iter().cloned()),
                }
                if argv.is_empty() {
                    return Err(RequestError::NoProgram);
                }
                return Ok(plain(argv));
            }
            Program::Unsaid => return Err(RequestError::NothingSaid),
            Program::Bundle => return Ok(plain(self.args.clone())),
            Program::Shell(line) => {
                let mut argv: Vec<OsString> = vec!["/bin/sh".into(), "-c".into(), line.into()];
                if !self.args.is_empty() {
                    argv.push("sh".into());
                    argv.extend(self.args.iter().cloned());
                }
                return Ok(plain(argv));
            }
            Program::Code(source) => (source.as_slice().into(), None, 0o644),
            Program::File(path) => {
                let (source, mode) = files::read(path, self.limits.sandbox)?;
                (source, Some(path.as_path()), mode)
            }
        };
        let table = runtimes::table();
        let choice = match (&self.runtime, host) {
            (Some(name), _) => table.by_name(name)?,
            (None, Some(path)) => table.detect(path, &source)?,
            (None, None) => match table.by_shebang(&source)? {
                Some(choice) => choice,
                None => table.by_name("python")?,
            },
        };
        let located = match &self.rootfs {
            Rootfs::Host => choice.locate(&SearchPath::host())?,
            Rootfs::Dir(root) => choice.unlocated(|name| in_root(root, name))?,
            Rootfs::Bundle(_) => choice.unlocated(|_| true)?,
            Rootfs::Image(image) => choice.unlocated(|name| image.has_program(name))?,
        };
        let name = table.file_name(choice.runtime, host)?;
        let path = files::place(Path::new(&name), None)?;
        let compile_limits = located.compile_limits();
        let commands = located.commands(&path.to_string_lossy(), self.limits.memory, self.limits.cpus);
        if self.part != Part::Compiled {
            placed.push(Placed::File { path, mode: mode | 0o400, content: source });
        }
        let words = |argv: Vec<String>| argv.into_iter().map(OsString::from).collect::<Vec<_>>();
        let limits = compile_limits.map_or_else(StepLimits::default, |limits| StepLimits {
            memory: Some(limits.memory),
            pids: Some(limits.pids),
            timeout: Some(limits.timeout),
        });
        let compile = commands.compile.map(|argv| Step { argv: words(argv), limits });
        let run = Step {
            argv: words(commands.run).into_iter().chain(self.args.iter().cloned()).collect(),
            limits: StepLimits::default(),
        };
        let (compile, run) = match (self.part, compile) {
            (Part::Compile, Some(compile)) => (None, compile),
            (Part::Compiled, _) => (None, run),
            (_, compile) => (compile, run),
        };
        Ok(Work {
            runtime: Some(located.runtime.name().to_owned()),
            setup: None,
            compile,
            run,
            etc: located.etc(),
            env: commands.env,
        })
    }

    /// What comes before a command: of an image, its entrypoint.
    fn entrypoint_words(&self) -> Vec<OsString> {
        match (&self.entrypoint, &self.rootfs) {
            (Some(words), _) => words.clone(),
            (None, Rootfs::Image(image)) => image.entrypoint().iter().map(OsString::from).collect(),
            (None, _) => Vec::new(),
        }
    }
}

/// A gateway that lets nothing out.
fn closed_network() -> Result<Network, RequestError> {
    Ok(Network::Gateway(Box::new(net::Policy::new(Mode::Filtered)?)))
}

/// What is installed takes longer than most programs that use it.
const SETUP_TIME: Duration = Duration::from_secs(300);

fn setup_step(line: &str, limits: &Limits) -> Step {
    // What there is to be read is the program's.
    let line = format!("exec </dev/null; {line}");
    let timeout = limits.timeout.map(|timeout| timeout.max(SETUP_TIME));
    Step {
        argv: ["/bin/sh", "-c", &line].map(OsString::from).to_vec(),
        limits: StepLimits { timeout, ..StepLimits::default() },
    }
}

/// Whether a root file system has a program; its answer is only a guess at what exec will find.
fn in_root(root: &Path, name: &str) -> bool {
    ["usr/local/bin", "usr/bin", "bin"].iter().any(|dir| root.join(dir).join(name).symlink_metadata().is_ok())
}

fn own_stdin() -> Result<OwnedFd> {
    use std::os::fd::AsFd;
    std::io::stdin().as_fd().try_clone_to_owned().map_err(|error| Error::new(format!("standard input: {error}")))
}
