//! `checkpoint` and `restore`: by CRIU, where it is installed.

use std::{path::PathBuf, process::ExitCode};

use fumehood::{Error, Result, container};

use super::{
    Context,
    flags::{Flag, Given, switch, value},
    id,
};

pub static SAVE: &[Flag] = &[
    value("image-path", "DIR", "where the image is written to"),
    value("work-path", "DIR", "where logs are written to"),
    value("parent-path", "DIR", "an earlier image that this one adds to"),
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
    value("image-path", "DIR", "where the image is"),
    value("work-path", "DIR", "where logs are written to"),
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

/// The program, where there is one.
pub fn criu() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin".into());
    std::env::split_paths(&path).map(|dir| dir.join("criu")).find(|program| program.is_file())
}

pub fn save(context: &Context, given: &Given) -> Result<ExitCode> {
    container::record(&context.root()?, &id(given)?)?;
    Err(without_criu("checkpoint"))
}

pub fn restore(_: &Context, given: &Given) -> Result<ExitCode> {
    id(given)?;
    Err(without_criu("restore"))
}

fn without_criu(verb: &str) -> Error {
    match criu() {
        None => Error::new(format!("{verb}: there is no `criu`")).with_hint("it is in the package criu"),
        Some(_) => Error::new(format!("{verb} is not there yet")),
    }
}
