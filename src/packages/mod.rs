//! Packages of languages, put in a directory by their own managers, which run in a sandbox: what a package brings to be
//! run when it is installed is nobody's one has looked at.
//!
//! It reaches registries alone, and nothing at all where the packages come from a directory.

mod bare;
mod error;
mod index;
pub mod install;
mod network;
mod settings;

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::sys::resource::{Resource, getrlimit};

pub use bare::names_user;
pub use error::PackagesError;
pub use index::Index;
pub use install::Install;
pub use network::{Registries, connect, connect_to_host};

use crate::{
    Observer, Outcome, Sandbox,
    image::Ready,
    report::{Denial, DenialKind, Stream, Verdict},
    request::{
        Bytes, Limits, Mount, Rootfs,
        runtimes::{self, SearchPath},
    },
};

type Result<T = ()> = std::result::Result<T, PackagesError>;

/// Whose packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    Pip,
    Npm,
    Gem,
}

/// Where they come to lie below the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// As they do below `/`, when they are installed for all.
    System,
    /// By themselves.
    Apart,
}

/// Packages to be installed.
#[derive(Debug)]
pub struct Job<'a> {
    pub manager: Manager,
    /// The language's own program, where it is not the usual one.
    pub program: Option<&'a str>,
    pub packages: &'a [String],
    pub index: Option<&'a Index>,
    /// For whom they are; none: for this host.
    pub image: Option<Arc<Ready>>,
    pub shape: Shape,
    /// An empty directory of the caller's.
    pub into: &'a Path,
    /// Another, for what is needed meanwhile.
    pub scratch: &'a Path,
}

const OUT: &str = "/fumehood/out";
const SCRATCH: &str = "/fumehood/scratch";
const INDEX: &str = "/fumehood/index";
const OWN: &str = "/fumehood/own";
const OWN_PIP: &str = "/fumehood/own/pip";
/// Of what a manager says, as much as tells why it failed.
const KEPT: usize = 16 << 10;

impl Manager {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pip => "pip",
            Self::Npm => "npm",
            Self::Gem => "gem",
        }
    }

    /// Of a language of the table of runtimes, if it has one here.
    #[must_use]
    pub fn of_runtime(name: &str) -> Option<Self> {
        match name {
            "python" => Some(Self::Pip),
            "node" | "bun" | "typescript" => Some(Self::Npm),
            "ruby" => Some(Self::Gem),
            _ => None,
        }
    }

    const fn needs(self) -> &'static str {
        match self {
            Self::Pip => "apt install python3-pip",
            Self::Npm => "apt install npm",
            Self::Gem => "apt install ruby",
        }
    }
}

impl Job<'_> {
    /// Installs them; `tell` is told what the manager says.
    pub fn run(&self, tell: &mut dyn FnMut(&str)) -> Result {
        let mut sandbox = self.sandbox(tell)?;
        let mut said = Said { tell, kept: Vec::new() };
        let done = sandbox.run(None, &mut said).map_err(PackagesError::Sandbox)?;
        let said = String::from_utf8_lossy(&said.kept).into_owned();
        match done.verdict {
            Verdict::Ok => Ok(()),
            _ => Err(self.failure(&done, &said)),
        }
    }

    fn sandbox(&self, tell: &mut dyn FnMut(&str)) -> Result<Sandbox> {
        let mut mounts = vec![(self.into.to_owned(), OUT, true), (self.scratch.to_owned(), SCRATCH, true)];
        let mut env: Vec<(&str, OsString)> = vec![("TMPDIR", SCRATCH.into()), ("PYTHONDONTWRITEBYTECODE", "1".into())];
        let (program, args, image) = match self.manager {
            Manager::Pip => self.pip(&mut mounts, &mut env)?,
            Manager::Npm => self.npm()?,
            Manager::Gem => self.gem()?,
        };
        if let Some(Index::Dir(dir)) = self.index {
            mounts.push((dir.clone(), INDEX, false));
        }
        let mut sandbox = Sandbox::command(program);
        sandbox.args(args).limits(limits()).workdir(SCRATCH);
        match (self.manager, self.index) {
            (Manager::Gem, Some(Index::Dir(_))) => _ = sandbox.workdir(INDEX),
            (_, Some(Index::Dir(_))) => {}
            (manager, index) => {
                let settings = settings::find(manager, index);
                let mut registries = Registries::of(manager, settings, self.packages);
                if let Some(Index::Url(url)) = index {
                    registries.add([url.as_str()].into_iter());
                }
                network::connect(&mut sandbox, registries, tell)?;
            }
        }
        for (name, value) in env {
            sandbox.env(name, value);
        }
        for (source, target, writable) in mounts {
            let mount = Mount::new(&source, Path::new(target), writable)?;
            sandbox.mount(if target == INDEX { mount.given() } else { mount });
        }
        if let Some(image) = image {
            sandbox.rootfs(Rootfs::Image(image)).entrypoint(Vec::<OsString>::new()).writable(false);
        }
        Ok(sandbox)
    }

    fn pip(
        &self,
        mounts: &mut Vec<(PathBuf, &'static str, bool)>,
        env: &mut Vec<(&str, OsString)>,
    ) -> Result<(OsString, Vec<OsString>, Option<Arc<Ready>>)> {
        let program: OsString = match (&self.image, self.program) {
            (_, Some(program)) => program.into(),
            (Some(image), None) => {
                let found = ["python3", "python"].into_iter().find(|name| image.has_program(name));
                found.ok_or(PackagesError::NoLanguage { what: "the image has no python3" })?.into()
            }
            (None, None) => {
                let table = runtimes::table();
                let located = table.by_name("python").and_then(|choice| choice.locate(&SearchPath::host()));
                located.map_err(|error| PackagesError::Runtime(Box::new(error)))?.program().into()
            }
        };
        // An image is smaller without: any Python can run the host's.
        let has = |image: &Arc<Ready>| image.has_program("pip3") || image.has_program("pip");
        if self.image.as_ref().is_some_and(|image| !has(image)) {
            let own = settings::host_pip().ok_or(PackagesError::NoManager { manager: Manager::Pip })?;
            mounts.push((own, OWN_PIP, false));
            env.push(("PYTHONPATH", OWN.into()));
        }
        let mut args: Vec<OsString> =
            ["-m", "pip", "install", "--quiet", "--no-input", "--no-compile", "--no-cache-dir"].map(Into::into).into();
        args.extend(["--disable-pip-version-check", "--no-warn-script-location"].map(Into::into));
        args.push(if self.shape == Shape::System { "--root" } else { "--target" }.into());
        args.push(OUT.into());
        if let Some(Index::Dir(_)) = self.index {
            args.extend(["--no-index", "--find-links", INDEX].map(Into::into));
        }
        args.extend(self.packages.iter().map(OsString::from));
        Ok((program, args, self.image.clone()))
    }

    fn npm(&self) -> Result<(OsString, Vec<OsString>, Option<Arc<Ready>>)> {
        // The host's will do for an image, too: nothing of a package is run by it.
        let image = self.image.clone().filter(|image| image.has_program("npm"));
        let program: OsString = match &image {
            Some(_) => "npm".into(),
            None => host_program("npm").ok_or(PackagesError::NoManager { manager: Manager::Npm })?,
        };
        let mut args: Vec<OsString> = ["install", "--ignore-scripts", "--no-audit", "--no-fund"].map(Into::into).into();
        args.extend(["--no-update-notifier", "--loglevel=error", "--cache", "/fumehood/scratch/npm"].map(Into::into));
        match self.shape {
            Shape::System => args.extend(["--global", "--prefix", "/fumehood/out/usr/local"].map(Into::into)),
            Shape::Apart => args.extend(["--no-package-lock", "--prefix", OUT].map(Into::into)),
        }
        match self.index {
            Some(Index::Dir(dir)) => {
                args.push("--offline".into());
                for package in self.packages {
                    args.push(Path::new(INDEX).join(index::tarball(dir, package)?).into());
                }
            }
            _ => args.extend(self.packages.iter().map(OsString::from)),
        }
        Ok((program, args, image))
    }

    fn gem(&self) -> Result<(OsString, Vec<OsString>, Option<Arc<Ready>>)> {
        let program: OsString = match &self.image {
            Some(image) if image.has_program("gem") => "gem".into(),
            Some(_) => return Err(PackagesError::NoLanguage { what: "the image has no gem" }),
            None => host_program("gem").ok_or(PackagesError::NoManager { manager: Manager::Gem })?,
        };
        let mut args: Vec<OsString> = ["install", "--norc", "--no-document", "--quiet"].map(Into::into).into();
        args.extend(["--install-dir", OUT, "--bindir", "/fumehood/out/bin"].map(Into::into));
        match self.index {
            Some(Index::Dir(_)) => args.push("--local".into()),
            Some(Index::Url(url)) => {
                args.extend(["--clear-sources", "--source", url].map(Into::into));
                // It asks no proxy of the environment for what is on loopback.
                let proxy = network::way_to(url).into_iter().flat_map(|proxy| ["--http-proxy".to_owned(), proxy]);
                args.extend(proxy.map(OsString::from));
            }
            None => {}
        }
        args.extend(self.packages.iter().map(OsString::from));
        Ok((program, args, self.image.clone()))
    }

    fn failure(&self, done: &Outcome, said: &str) -> PackagesError {
        if let Some(error) = &done.error {
            return PackagesError::Setup { message: error.message.clone(), hint: error.hint.clone() };
        }
        if said.contains("No module named pip") {
            return PackagesError::NoManager { manager: Manager::Pip };
        }
        let marks = ["ERROR:", "npm error", "npm ERR!", "error:"];
        let line = said.lines().find(|line| marks.iter().any(|mark| line.starts_with(mark)));
        let line = line.or_else(|| said.lines().rev().find(|line| !line.trim().is_empty()));
        let why = match done.verdict {
            Verdict::Failed => line.unwrap_or("it failed").to_owned(),
            verdict => format!("{verdict:?}").to_lowercase(),
        };
        PackagesError::Failed { manager: self.manager, packages: self.packages.join(" "), why }
    }
}

fn host_program(name: &str) -> Option<OsString> {
    SearchPath::host().find(name).map(OsString::from)
}

/// Enough for what packages need to be built; a sandbox that is the user's own wish is not hurried.
#[must_use]
pub fn limits() -> Limits {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Limits {
        memory: Bytes::mib(4096),
        cpus: cpus as f64,
        pids: 1024,
        timeout: None,
        output: Bytes::mib(64),
        nofile: getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(_, most)| most.min(1 << 16)),
        ..Limits::default()
    }
}

/// Passes on what is said, and keeps the end of it.
struct Said<'a> {
    tell: &'a mut dyn FnMut(&str),
    kept: Vec<u8>,
}

impl Observer for Said<'_> {
    fn output(&mut self, _stream: Stream, bytes: &[u8]) -> io::Result<()> {
        (self.tell)(&harmless(bytes));
        self.kept.extend_from_slice(bytes);
        let over = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..over);
        Ok(())
    }

    fn denied(&mut self, denial: &Denial) -> io::Result<()> {
        if denial.kind == DenialKind::Network {
            (self.tell)(&format!("fumehood: denied: connection to {} ({})\n", denial.target, denial.rule));
        }
        Ok(())
    }
}

/// Without what would do something to a terminal.
#[must_use]
pub fn harmless(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { ' ' } else { c }).collect()
}
