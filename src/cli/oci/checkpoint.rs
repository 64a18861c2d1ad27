//! `checkpoint` and `restore`: their options are known, since engines probe for them, and nothing is done yet.

use std::process::ExitCode;

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

pub fn save(context: &Context, given: &Given) -> Result<ExitCode> {
    container::record(&context.root()?, &id(given)?)?;
    Err(not_yet("checkpoint"))
}

pub fn restore(_: &Context, given: &Given) -> Result<ExitCode> {
    id(given)?;
    Err(not_yet("restore"))
}

fn not_yet(verb: &str) -> Error {
    Error::new(format!("{verb} is not supported by this version"))
}
