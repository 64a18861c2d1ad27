//! `fumehood install`: registers fumehood with a container engine, in the engine's own configuration.
//!
//! What is there stays as it is, to the byte where nothing is changed; what was there before is kept beside it. To
//! install twice changes nothing the second time, and `--uninstall` takes out what was put in.

mod containerd;
mod docker;
mod file;
mod podman;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::ValueEnum;
use fumehood::{Error, Result};

use self::file::Change;
use super::{message, oci};

/// What fumehood is called in an engine's configuration, and the name under which this program is that runtime.
#[derive(Debug, Clone, Copy)]
struct Names {
    entry: &'static str,
    program: &'static str,
}

impl Names {
    fn each(self) -> impl Iterator<Item = &'static str> {
        [self.entry, self.program].into_iter().take(if self.entry == self.program { 1 } else { 2 })
    }
}

const NATIVE: Names = Names { entry: "fumehood", program: "fumehood-oci" };
const GVISOR: Names = Names { entry: oci::GVISOR, program: oci::GVISOR };

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The engine to register with
    engine: Engine,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Take the registration out again
    #[arg(long)]
    uninstall: bool,
    /// Make fumehood the runtime of all containers that name none
    #[arg(long, conflicts_with = "uninstall")]
    default: bool,
    /// Whose kernel its containers are on; with gvisor it is one more runtime, `fumehood-gvisor`
    #[arg(long, value_name = "KIND", default_value = "native")]
    isolation: Isolation,
    /// The engine's configuration, if it is not where it usually is
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// The program to register: `fumehood-oci` or `fumehood-gvisor` beside this one by default, a link that is made where it is not there
    #[arg(long, value_name = "PATH")]
    runtime: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    Docker,
    Podman,
    Containerd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Isolation {
    Native,
    Gvisor,
}

impl Isolation {
    const fn names(self) -> Names {
        match self {
            Self::Native => NATIVE,
            Self::Gvisor => GVISOR,
        }
    }
}

/// What is to be in a configuration.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    runtime: &'a str,
    default: bool,
}

pub fn run(args: &Args) -> ExitCode {
    match install(args) {
        Ok(text) => message::print(&text),
        Err(error) => message::fail(&error),
    }
}

fn install(args: &Args) -> Result<String> {
    let config = match &args.config {
        Some(path) => path.clone(),
        None => args.engine.config()?,
    };
    let before = file::read(&config)?;
    let (runtime, link) = runtime(args)?;
    let wanted = (!args.uninstall).then_some(Wanted { runtime: &runtime, default: args.default });
    let names = args.isolation.names();
    let text = before.text.as_deref().unwrap_or_default();
    let edited = match args.engine {
        Engine::Docker => docker::edit(text, names, wanted),
        Engine::Podman => podman::edit(text, names, wanted),
        Engine::Containerd => containerd::edit(text, names, wanted),
    };
    let after =
        edited.map_err(|why| Error::new(format!("`{}`: {why}", config.display())).with_hint("nothing was changed"))?;
    let change = before.change(after);
    let mut said = String::new();
    if let Some((link, to)) = link.filter(|_| !args.uninstall) {
        said.push_str(&format!("link {} -> {}\n", link.display(), to.display()));
        if !args.dry_run {
            std::os::unix::fs::symlink(&to, &link).map_err(|error| {
                Error::new(format!("link `{}`: {error}", link.display()))
                    .with_hint("--runtime names a link that is there already")
            })?;
        }
    }
    said.push_str(&change.tell(&config, args.dry_run));
    if !args.dry_run {
        before.apply(&change)?;
    }
    if change != Change::None {
        said.push_str(args.engine.then());
    }
    Ok(said)
}

/// The program to register, and the link to make for it.
#[allow(clippy::type_complexity)]
fn runtime(args: &Args) -> Result<(String, Option<(PathBuf, PathBuf)>)> {
    let text = |path: &Path| {
        let absolute = path.is_absolute().then(|| path.to_str()).flatten();
        absolute.map(str::to_owned).ok_or_else(|| {
            Error::new(format!("`{}` cannot be registered: it is not an absolute path in UTF-8", path.display()))
        })
    };
    if let Some(path) = &args.runtime {
        if !args.uninstall && !path.is_file() {
            return Err(Error::new(format!("`{}` is no program", path.display())));
        }
        return Ok((text(path)?, None));
    }
    let own = std::env::current_exe().map_err(|error| Error::new(format!("cannot find this program: {error}")))?;
    let link = own.with_file_name(args.isolation.names().program);
    if link.exists() {
        return Ok((text(&link)?, None));
    }
    let target = PathBuf::from(own.file_name().unwrap_or_default());
    Ok((text(&link)?, Some((link, target))))
}

impl Engine {
    /// root's, or the user's own.
    fn config(self) -> Result<PathBuf> {
        if nix::unistd::geteuid().is_root() {
            return Ok(PathBuf::from(match self {
                Self::Docker => "/etc/docker/daemon.json",
                Self::Podman => "/etc/containers/containers.conf",
                Self::Containerd => "/etc/containerd/config.toml",
            }));
        }
        let of_home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
        let dir = std::env::var_os("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from).or_else(of_home);
        let dir =
            dir.ok_or_else(|| Error::new("there is no HOME to find the configuration in").with_hint("--config"))?;
        Ok(dir.join(match self {
            Self::Docker => "docker/daemon.json",
            Self::Podman => "containers/containers.conf",
            Self::Containerd => "containerd/config.toml",
        }))
    }

    /// What is left to be done by hand.
    fn then(self) -> &'static str {
        match (self, nix::unistd::geteuid().is_root()) {
            (Self::Docker, true) => "then: systemctl reload docker\n",
            (Self::Docker, false) => "then: systemctl --user reload docker\n",
            (Self::Podman, _) => "Podman reads it with its next command\n",
            (Self::Containerd, true) => "then: systemctl restart containerd\n",
            (Self::Containerd, false) => "then: systemctl --user restart containerd\n",
        }
    }
}

#[cfg(test)]
mod tests;
