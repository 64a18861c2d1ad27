//! `checkpoint` and `restore`.

use std::{fs::File, os::fd::OwnedFd, path::PathBuf, process::ExitCode};

use fumehood::{
    Error, Result, container,
    criu::{CgroupMode, Options, PageServer},
};

use super::{
    Context,
    flags::{Flag, Given, switch, value},
    id, log,
};

pub static SAVE: &[Flag] = &[
    value("image-path", "DIR", "where the image is written to; `checkpoint` here by default"),
    value("work-path", "DIR", "where logs are written to; beside the image by default"),
    value("parent-path", "DIR", "an earlier image that this one adds to, relative to --image-path"),
    switch("leave-running", "let it go on afterwards"),
    switch("tcp-established", "with open TCP connections"),
    switch("tcp-skip-in-flight", "leave out TCP connections that are being made"),
    switch("link-remap", "with files that have no name any more"),
    switch("ext-unix-sk", "with sockets to outside"),
    switch("shell-job", "with a terminal of outside"),
    switch("lazy-pages", "memory is fetched when it is used"),
    value("status-fd", "FD", "where a byte is written to once it is ready"),
    value("page-server", "ADDRESS:PORT", "where memory is sent to"),
    switch("file-locks", "with locks of files"),
    switch("pre-dump", "memory alone, and let it go on"),
    value("manage-cgroups-mode", "MODE", "soft (default), full, strict or ignore"),
    value("empty-ns", "KIND", "save a namespace without what is in it: network"),
    switch("auto-dedup", "keep memory once"),
];

pub static RESTORE: &[Flag] = &[
    value("console-socket", "SOCKET", "where the terminal's master end is sent to"),
    value("image-path", "DIR", "where the image is; `checkpoint` here by default"),
    value("work-path", "DIR", "where logs are written to; beside the image by default"),
    switch("tcp-established", "with open TCP connections"),
    switch("tcp-close", "close TCP connections"),
    switch("ext-unix-sk", "with sockets to outside"),
    switch("shell-job", "with a terminal of outside"),
    switch("file-locks", "with locks of files"),
    value("manage-cgroups-mode", "MODE", "soft (default), full, strict or ignore"),
    value("bundle", "DIR", "the directory of the bundle; this one by default").short(b'b'),
    switch("detach", "do not wait for the program").short(b'd'),
    value("pid-file", "FILE", "where the process's number is written to"),
    switch("no-subreaper", ""),
    switch("no-pivot", "do not change the root by pivot_root(2)"),
    value("empty-ns", "KIND", "make a namespace without what was in it: network"),
    switch("auto-dedup", "keep memory once"),
    switch("lazy-pages", "memory is fetched when it is used"),
    value("lsm-profile", "TYPE:NAME", "another profile of AppArmor or label of SELinux"),
    value("lsm-mount-context", "CONTEXT", "another context for mounts"),
];

pub fn save(context: &Context, given: &Given) -> Result<ExitCode> {
    let lazy = given.is_on("lazy-pages");
    let status = given.number::<i32>("status-fd")?.filter(|number| lazy && *number >= 0);
    let status = status.map(|number| {
        let path = format!("/proc/self/fd/{number}");
        let opened = File::options().write(true).open(&path);
        opened.map(OwnedFd::from).map_err(|error| Error::new(format!("invalid --status-fd argument {number}: {error}")))
    });
    let options = Options {
        tcp_skip_in_flight: on(given, "tcp-skip-in-flight"),
        link_remap: on(given, "link-remap"),
        page_server: page_server(given)?,
        ..options(given)?
    };
    container::checkpoint(&container::Checkpoint {
        root: context.root()?,
        id: id(given)?,
        criu: context.criu.clone(),
        images: images(given),
        work: given.path("work-path"),
        parent: given.path("parent-path"),
        pre_dump: given.is_on("pre-dump"),
        leave_running: given.is_on("leave-running"),
        status: status.transpose()?,
        options,
        warn: log::warn,
    })?;
    Ok(ExitCode::SUCCESS)
}

pub fn restore(context: &Context, given: &Given) -> Result<ExitCode> {
    let options = Options {
        tcp_close: on(given, "tcp-close"),
        lsm_profile: given.text("lsm-profile")?.filter(|text| !text.is_empty()).map(str::to_owned),
        lsm_mount_context: given.text("lsm-mount-context")?.filter(|text| !text.is_empty()).map(str::to_owned),
        ..options(given)?
    };
    let status = container::restore(&container::Restore {
        root: context.root()?,
        id: id(given)?,
        bundle: given.path("bundle").unwrap_or_else(|| PathBuf::from(".")),
        criu: context.criu.clone(),
        images: images(given),
        work: given.path("work-path"),
        pid_file: given.path("pid-file"),
        console_socket: given.path("console-socket"),
        detach: given.is_on("detach"),
        driver: context.driver,
        rootless: context.rootless,
        isolation: context.isolation,
        egress: context.egress()?,
        options,
        warn: log::warn,
    })?;
    Ok(ExitCode::from(status as u8))
}

/// runc's default: below the working directory.
fn images(given: &Given) -> PathBuf {
    given.path("image-path").unwrap_or_else(|| PathBuf::from("checkpoint"))
}

fn on(given: &Given, name: &str) -> Option<bool> {
    given.is_on(name).then_some(true)
}

/// What both take.
fn options(given: &Given) -> Result<Options> {
    if let Some(kind) = given.texts("empty-ns")?.into_iter().find(|kind| *kind != "network") {
        return Err(Error::new(format!("namespace {kind:?} is not supported")).with_hint("--empty-ns knows `network`"));
    }
    let mode = match given.text("manage-cgroups-mode")? {
        None | Some("") => None,
        Some("soft") => Some(CgroupMode::Soft),
        Some("full") => Some(CgroupMode::Full),
        Some("strict") => Some(CgroupMode::Strict),
        Some("ignore") => Some(CgroupMode::Ignore),
        Some(other) => {
            return Err(Error::new(format!("invalid --manage-cgroups-mode {other:?}"))
                .with_hint("there are soft, full, strict and ignore"));
        }
    };
    Ok(Options {
        outside_sockets: on(given, "ext-unix-sk"),
        tcp_established: on(given, "tcp-established"),
        shell_job: on(given, "shell-job"),
        file_locks: on(given, "file-locks"),
        auto_dedup: on(given, "auto-dedup"),
        lazy_pages: on(given, "lazy-pages"),
        cgroup_mode: mode.map(|mode| mode as i32),
        ..Options::default()
    })
}

fn page_server(given: &Given) -> Result<Option<PageServer>> {
    let Some(text) = given.text("page-server")?.filter(|text| !text.is_empty()) else { return Ok(None) };
    let parts = text.rsplit_once(':').filter(|(address, _)| !address.is_empty());
    let (Some((address, _)), Some(port)) = (parts, parts.and_then(|(_, port)| port.parse::<u16>().ok())) else {
        return Err(Error::new(format!("invalid --page-server {text:?}")).with_hint("Use --page-server ADDRESS:PORT"));
    };
    let address = address.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(Some(PageServer { address: Some(address), port: Some(port.into()) }))
}
