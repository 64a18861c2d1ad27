//! What kept a program from being executed. An errno alone says little (EACCES is a directory, a missing bit, a mount),
//! so the init looks at the file once execve has failed, and the supervisor has the words.
//!
//! [`Obstacle::find`] runs in the init, where the path means what it meant to execve: it allocates nothing, reads no
//! more than the kernel would have, and that of regular files alone.

use std::{
    ffi::CStr,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use crate::{
    error::Error,
    sys::{Errno, fs},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// None that a look at the file shows.
    Unknown,
    Missing,
    Directory,
    /// Executable for nobody.
    Mode,
    /// Mounted noexec.
    FileSystem,
    Empty,
    /// Text without a `#!` line.
    Text,
    /// Neither text nor ELF.
    Data,
    /// It is a script, and something is wrong with what runs it.
    Interpreter,
    /// The `#!` line ends as Windows ends lines, so the interpreter's name does too.
    CarriageReturn,
    /// What loads a dynamically linked program (ld.so(8)).
    Loader,
    /// ELF for this machine, and still no program.
    Damaged,
    /// ELF for another machine (elf(5), e_machine).
    Machine(u16),
}

const PLAIN: [Obstacle; 12] = [
    Obstacle::Unknown,
    Obstacle::Missing,
    Obstacle::Directory,
    Obstacle::Mode,
    Obstacle::FileSystem,
    Obstacle::Empty,
    Obstacle::Text,
    Obstacle::Data,
    Obstacle::Interpreter,
    Obstacle::CarriageReturn,
    Obstacle::Loader,
    Obstacle::Damaged,
];
/// Marks a machine's number in a record.
const MACHINE: u16 = 1 << 15;

#[cfg(target_arch = "x86_64")]
const NATIVE: u16 = libc::EM_X86_64;
#[cfg(target_arch = "aarch64")]
const NATIVE: u16 = libc::EM_AARCH64;

/// As much as the kernel reads to tell what a file is (BINPRM_BUF_SIZE).
const HEAD: usize = 256;

impl Obstacle {
    /// What is in the way of `path`, which execve refused with `errno` in the directory `dir`.
    pub(super) fn find(dir: BorrowedFd<'_>, path: &CStr, errno: Errno) -> Self {
        let magic = libc::RESOLVE_NO_MAGICLINKS;
        let file = match fs::open_in(dir, path, libc::O_PATH, 0, magic) {
            Ok(file) => file,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Self::Missing,
            Err(_) => return Self::Unknown,
        };
        let Ok(found) = fs::stat(file.as_fd()) else { return Self::Unknown };
        match (found.st_mode & libc::S_IFMT, errno) {
            (libc::S_IFDIR, _) => return Self::Directory,
            (libc::S_IFREG, Errno::EACCES) if found.st_mode & 0o111 == 0 => return Self::Mode,
            (libc::S_IFREG, Errno::EACCES) if fs::forbids_programs(file.as_fd()) => return Self::FileSystem,
            (libc::S_IFREG, Errno::ENOENT | Errno::ENOEXEC) => {}
            _ => return Self::Unknown,
        }
        let mut head = [0; HEAD];
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
        match fs::open_in(dir, path, flags, 0, magic).and_then(|file| fs::read(file.as_fd(), &mut head)) {
            Ok(length) => Self::of_content(&head[..length], errno),
            Err(_) => Self::Unknown,
        }
    }

    /// Of a regular file that may be executed, by its beginning.
    fn of_content(head: &[u8], errno: Errno) -> Self {
        if let Some(line) = head.strip_prefix(b"#!") {
            let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
            return if line.ends_with(b"\r") { Self::CarriageReturn } else { Self::Interpreter };
        }
        if head.starts_with(b"\x7fELF") {
            let machine = match (head.get(5), head.get(18..20)) {
                (Some(2), Some(&[high, low])) | (Some(_), Some(&[low, high])) => u16::from_be_bytes([high, low]),
                _ => return Self::Damaged,
            };
            return match errno {
                Errno::ENOENT => Self::Loader,
                _ if machine == NATIVE || machine >= MACHINE => Self::Damaged,
                _ => Self::Machine(machine),
            };
        }
        match errno {
            Errno::ENOENT => Self::Unknown,
            _ if head.is_empty() => Self::Empty,
            _ if head.contains(&0) => Self::Data,
            _ => Self::Text,
        }
    }

    /// As it travels in a record.
    pub(super) fn code(self) -> u16 {
        match self {
            Self::Machine(number) => MACHINE | number,
            plain => PLAIN.iter().position(|known| *known == plain).unwrap_or(0) as u16,
        }
    }

    pub(super) fn from_code(code: u16) -> Self {
        match code & MACHINE {
            0 => PLAIN.get(usize::from(code)).copied().unwrap_or(Self::Unknown),
            _ => Self::Machine(code & !MACHINE),
        }
    }

    /// Why `program` was not executed, in a person's words.
    pub(super) fn tell(self, program: &str, errno: Errno, of_host: bool) -> Error {
        let error = |what: &str| Error::new(format!("`{program}` {what}"));
        let interpreter = |why: &str| error(&format!("is a script, and its `#!` interpreter {why}"));
        match self {
            _ if program.is_empty() => Error::new("the program's name is empty")
                .with_hint("what follows `--` is a program and its arguments, such as: fumehood run -- ls -l"),
            Self::Directory => error("is a directory, not a program")
                .with_hint(format!("name a program first, such as: fumehood run -- ls {program}")),
            Self::Mode => error("is not executable")
                .with_hint(format!("chmod +x it, or name what runs it, such as: fumehood run … -- sh {program}")),
            Self::FileSystem => error("is on a file system that is mounted noexec").with_hint(
                "programs can be executed in /sandbox, to which --file copies, but not in /tmp, nor where the host \
                 itself executes none",
            ),
            Self::Empty => {
                error("is an empty file").with_hint("a program is ELF, or text that begins with a `#!` line")
            }
            Self::Text => error("is text without a `#!` line").with_hint(format!(
                "begin it with one, such as #!/bin/sh, or name what runs it: fumehood run … -- sh {program}"
            )),
            Self::Data => error("is no program: it is neither ELF nor a script")
                .with_hint("what is executed is made for Linux, or begins with a `#!` line"),
            Self::Interpreter if errno == Errno::ENOENT => interpreter("is not there inside the sandbox")
                .with_hint("#!/usr/bin/env NAME finds it wherever PATH has it; --mount shows more of the host"),
            Self::Interpreter => interpreter("cannot be executed").with_hint("it must itself be an executable program"),
            Self::CarriageReturn => error("has a `#!` line that ends in a carriage return, as on Windows")
                .with_hint(format!("sed -i 's/\\r$//' {program}")),
            Self::Loader => error("needs a dynamic loader that is not there inside the sandbox")
                .with_hint("it is made for another C library: link it statically, or give its system with --rootfs"),
            Self::Damaged => error("is damaged: no whole ELF program").with_hint("copy or build it anew"),
            Self::Machine(number) => {
                error(&format!("is made for {}, and this is {}", machine(number), machine(NATIVE)))
                    .with_hint("build it for this machine")
            }
            Self::Missing | Self::Unknown => without_obstacle(program, errno, of_host),
        }
    }
}

/// By the errno alone.
fn without_obstacle(program: &str, errno: Errno, of_host: bool) -> Error {
    match errno {
        Errno::ENOENT => {
            let (error, hint) = if program.contains('/') {
                ("no such file or directory inside the sandbox", "paths are those inside; --file and --mount bring more")
            } else {
                let hint = if of_host {
                    "programs are looked for under /usr and /opt of the host; --mount shows more"
                } else {
                    "the root file system does not have it in its PATH; --env PATH=… names other directories"
                };
                ("executable file not found in the sandbox's PATH", hint)
            };
            Error::new(format!("`{program}`: {error}")).with_hint(of_the_host(program).unwrap_or(hint.to_owned()))
        }
        Errno::E2BIG => Error::new(format!("cannot execute `{program}`: arguments and environment are too long"))
            .with_hint("pass large data with --stdin or --file"),
        Errno::EACCES => Error::new(format!("cannot execute `{program}`: {}", errno.desc())).with_hint(
            "the user inside (--user) may not execute it, or not enter a directory on the way, or --landlock forbids it",
        ),
        _ => Error::new(format!("cannot execute `{program}`: {}", errno.desc())),
    }
}

/// What may have been meant by a name that is not there inside: a file here.
fn of_the_host(program: &str) -> Option<String> {
    let path = Path::new(program);
    let name = path.file_name().filter(|_| path.is_file())?.to_string_lossy();
    Some(format!(
        "it is a file of the host; source code: fumehood run {program}; a program: fumehood run --file {program} -- ./{name}"
    ))
}

fn machine(number: u16) -> String {
    match number {
        libc::EM_386 => "x86",
        libc::EM_X86_64 => "x86_64",
        libc::EM_ARM => "arm",
        libc::EM_AARCH64 => "aarch64",
        libc::EM_PPC64 => "ppc64",
        libc::EM_S390 => "s390x",
        libc::EM_RISCV => "riscv",
        other => return format!("another machine (ELF number {other})"),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use std::{ffi::CString, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn each_arrives_as_it_was_sent() {
        for obstacle in PLAIN.into_iter().chain([Obstacle::Machine(0), Obstacle::Machine(libc::EM_AARCH64)]) {
            assert_eq!(Obstacle::from_code(obstacle.code()), obstacle);
        }
        assert_eq!(Obstacle::from_code(77), Obstacle::Unknown, "hostile or newer");
    }

    #[test]
    fn a_file_is_known_by_its_beginning() {
        let elf = |data: u8, machine: [u8; 2]| [&[0x7f, b'E', b'L', b'F', 2, data], &[0; 12][..], &machine].concat();
        let other = if NATIVE == libc::EM_AARCH64 { libc::EM_X86_64 } else { libc::EM_AARCH64 };
        for (content, errno, expected) in [
            (b"".to_vec(), Errno::ENOEXEC, Obstacle::Empty),
            (b"echo hi\n".to_vec(), Errno::ENOEXEC, Obstacle::Text),
            (b"MZ\0\0".to_vec(), Errno::ENOEXEC, Obstacle::Data),
            (b"#!/no/such\nx".to_vec(), Errno::ENOENT, Obstacle::Interpreter),
            (b"#!/bin/sh\r\nx\n".to_vec(), Errno::ENOENT, Obstacle::CarriageReturn),
            (b"#!/bin/sh\nx\r\n".to_vec(), Errno::ENOENT, Obstacle::Interpreter),
            (elf(1, other.to_le_bytes()), Errno::ENOEXEC, Obstacle::Machine(other)),
            (elf(2, libc::EM_S390.to_be_bytes()), Errno::ENOEXEC, Obstacle::Machine(libc::EM_S390)),
            (elf(1, NATIVE.to_le_bytes()), Errno::ENOEXEC, Obstacle::Damaged),
            (elf(1, NATIVE.to_le_bytes()), Errno::ENOENT, Obstacle::Loader),
            (elf(1, [0xff, 0xff]), Errno::ENOEXEC, Obstacle::Damaged),
            (b"\x7fELF".to_vec(), Errno::ENOEXEC, Obstacle::Damaged),
        ] {
            assert_eq!(Obstacle::of_content(&content, errno), expected, "{content:?}");
        }
    }

    #[test]
    fn machines_have_names() {
        let told = Obstacle::Machine(libc::EM_S390).tell("./x", Errno::ENOEXEC, true);
        assert_eq!(told.message(), format!("`./x` is made for s390x, and this is {}", std::env::consts::ARCH));
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let place = tempfile::tempdir().unwrap();
        let dir = std::fs::File::open(place.path()).unwrap();
        let fifo = place.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::write(place.path().join("plain"), "text").unwrap();
        let find = |name: &str, errno| Obstacle::find(dir.as_fd(), &CString::new(name).unwrap(), errno);
        for errno in [Errno::EACCES, Errno::ENOEXEC, Errno::ENOENT] {
            assert_eq!(find("fifo", errno), Obstacle::Unknown, "and it does not wait for a writer");
            assert_eq!(find(".", errno), Obstacle::Directory);
            assert_eq!(find("missing", errno), Obstacle::Missing);
            assert_eq!(find("plain/x", errno), Obstacle::Missing);
        }
        assert_eq!(find("plain", Errno::EACCES), Obstacle::Mode);
        std::fs::set_permissions(place.path().join("plain"), PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(find("plain", Errno::ENOEXEC), Obstacle::Text);
        assert_eq!(find("plain", Errno::EPERM), Obstacle::Unknown);
    }
}
