//! `create` and `run`.

use std::{path::PathBuf, process::ExitCode};

use fumehood::{Error, Result, container};

use super::{Context, flags::Given, id, log};

pub fn create(context: &Context, given: &Given) -> Result<ExitCode> {
    container::create(&wanted(context, given)?)?;
    Ok(ExitCode::SUCCESS)
}

pub fn run(context: &Context, given: &Given) -> Result<ExitCode> {
    let status = container::run(&wanted(context, given)?, given.is_on("detach"), given.is_on("keep"))?;
    Ok(ExitCode::from(status as u8))
}

fn wanted(context: &Context, given: &Given) -> Result<container::Create> {
    let bundle = absolute("bundle", given.path("bundle").unwrap_or_else(|| PathBuf::from(".")))?;
    Ok(container::Create {
        root: context.root()?,
        id: id(given)?,
        // crun's: of the bundle, unless it is absolute.
        config: given.path("config").map(|config| bundle.join(config)),
        bundle,
        pid_file: given.path("pid-file"),
        console_socket: given.path("console-socket"),
        pidfd_socket: given.path("pidfd-socket"),
        preserve_fds: given.number("preserve-fds")?.unwrap_or(0),
        no_pivot: given.is_on("no-pivot"),
        no_new_keyring: given.is_on("no-new-keyring"),
        driver: context.driver,
        rootless: context.rootless,
        isolation: context.isolation,
        egress: context.egress()?,
        guard_binary: true,
        warn: log::warn,
    })
}

fn absolute(name: &str, path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&path).map_err(|error| Error::new(format!("--{name} `{}`: {error}", path.display())))
}
