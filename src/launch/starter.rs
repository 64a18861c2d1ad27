//! The program with which a sandbox on gVisor's kernel is made ahead: it stands there, ready, reads what it is to be from its
//! standard input, and becomes that by execve. So what is executed is process 1 of that kernel, as it would have been, with
//! the same three descriptors and nothing else of what was there before.
//!
//! It is in a file of the program's tree until it is told, and is removed before.

use std::path::Path;

use crate::{
    plan::{
        Plan, Step,
        path::BoxPath,
        setup::{Content, Owner, SetupOp},
    },
    sys::{Errno, process, starter},
};

/// Its memory: room for the words of a job.
const ROOM: u64 = 256 << 10;
/// MAX_ARG_STRLEN, which gVisor's kernel holds its programs to, and not the first.
const LONGEST: usize = 128 << 10;
const HEAD: usize = 56;
/// In front of the errno, by which it is known who says so: a program that was executed cannot know it any more.
const MARK: usize = 16;
const TOLD: usize = MARK + 8;
const PAGE: u64 = 4096;

/// By what a starter is known that has failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark([u8; MARK]);

impl Mark {
    pub(super) fn new() -> Option<Self> {
        let mut bytes = [0; MARK];
        process::random(&mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// Whether it failed, if this is the first that it said on its standard error.
    pub(super) fn told(&self, said: &[u8]) -> Option<Errno> {
        let (mark, errno) = said.get(..TOLD)?.split_at(MARK);
        let errno = i64::from_ne_bytes(errno.try_into().ok()?);
        (mark == self.0).then(|| Errno::from_raw(i32::try_from(errno.wrapping_neg()).unwrap_or(0)))
    }
}

/// In a directory of its own.
fn dir(plan: &Plan) -> Option<String> {
    plan.starter_place().map(|place| format!("{place}/.fumehood"))
}

/// How it is called.
pub(super) fn argv(plan: &Plan) -> Option<Vec<String>> {
    Some(vec![format!("{}/start", dir(plan)?)])
}

/// What is placed for it.
pub(super) fn files(plan: &Plan) -> Option<Vec<SetupOp>> {
    let dir = dir(plan)?;
    let dir = Path::new(&dir);
    let content = Content(file().into());
    Some(vec![
        SetupOp::Dir { path: BoxPath::new(dir).ok()?, mode: 0o755, owner: Owner::Setup },
        SetupOp::File { path: BoxPath::new(&dir.join("start")).ok()?, mode: 0o755, owner: Owner::Setup, content },
    ])
}

/// The file that is executed: two segments, its code as it is in the file, and its memory.
pub(super) fn file() -> Vec<u8> {
    const HEADERS: u64 = 64 + 2 * 56;
    const EXECUTABLE: u16 = 2;
    const X86_64: u16 = 62;
    const AARCH64: u16 = 183;
    let code = starter::code();
    let machine = if cfg!(target_arch = "x86_64") { X86_64 } else { AARCH64 };
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut put = |bytes: &[u8]| file.extend_from_slice(bytes);
    for half in [EXECUTABLE, machine] {
        put(&half.to_le_bytes());
    }
    put(&1u32.to_le_bytes());
    for number in [starter::CODE + HEADERS, 64, 0] {
        put(&number.to_le_bytes());
    }
    put(&0u32.to_le_bytes());
    for half in [64u16, 56, 2, 0, 0, 0] {
        put(&half.to_le_bytes());
    }
    let size = HEADERS + code.len() as u64;
    // PT_LOAD: what may be done, where it is in the file and in memory, and how much.
    for (access, at, in_file, in_memory) in [(5u32, starter::CODE, size, size), (6, starter::MEMORY, 0, ROOM)] {
        put(&1u32.to_le_bytes());
        put(&access.to_le_bytes());
        for number in [0, at, at, in_file, in_memory, PAGE] {
            put(&number.to_le_bytes());
        }
    }
    put(code);
    file
}

/// What it reads: which program it becomes. `None` if that is more than it has room for, or than may be executed.
pub(super) fn job(step: &Step, mark: Mark) -> Option<Vec<u8>> {
    let lists = [&step.argv, &step.env, &step.candidates];
    let pointers: usize = lists.iter().map(|list| list.len() + 1).sum();
    let (mut tables, mut texts) = (Vec::new(), Vec::new());
    let mut heads = Vec::new();
    let first_text = HEAD + pointers * 8;
    let candidates: Vec<_> = step.candidates.iter().map(|path| absolute(path, &step.cwd)).collect();
    for list in [&step.argv, &step.env, &candidates] {
        heads.push(starter::MEMORY + (HEAD + tables.len()) as u64);
        for text in list {
            if text.contains('\0') || text.len() >= LONGEST {
                return None;
            }
            tables.extend_from_slice(&(starter::MEMORY + (first_text + texts.len()) as u64).to_ne_bytes());
            texts.extend_from_slice(text.as_bytes());
            texts.push(0);
        }
        tables.extend_from_slice(&[0; 8]);
    }
    let length = (first_text + texts.len()) as u64;
    if length > ROOM {
        return None;
    }
    let mut job = length.to_ne_bytes().to_vec();
    heads.iter().for_each(|head| job.extend_from_slice(&head.to_ne_bytes()));
    job.extend_from_slice(&mark.0);
    job.extend_from_slice(&[0; 8]);
    job.append(&mut tables);
    job.append(&mut texts);
    Some(job)
}

/// As runsc names the file that it executes first: a script is told.
fn absolute(path: &str, cwd: &str) -> String {
    if path.starts_with('/') || !path.contains('/') {
        return path.to_owned();
    }
    Path::new(cwd).join(path).components().collect::<std::path::PathBuf>().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::fs::PermissionsExt,
        process::{Command, Stdio},
    };

    use super::*;
    use crate::plan::StepKind;

    fn step(argv: &[&str], candidates: &[&str]) -> Step {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Step {
            kind: StepKind::Run,
            argv: words(argv),
            env: words(&["A=b"]),
            cwd: "/".to_owned(),
            candidates: words(candidates),
            limits: crate::request::StepLimits::default(),
        }
    }

    /// On this kernel, which is to be the same to it.
    fn start(job: &[u8], rest: &[u8]) -> (String, Vec<u8>, Option<i32>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("start");
        std::fs::write(&path, file()).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let mut child = loop {
            // Another test's fork may have had the file open to write.
            match Command::new(&path).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
                Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => {}
                started => break started.unwrap(),
            }
        };
        let mut ready = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        assert_eq!(&ready, b"\n");
        let mut stdin = child.stdin.take().unwrap();
        // In parts, as a pipe may be full.
        for part in job.chunks(5000) {
            stdin.write_all(part).unwrap();
        }
        _ = stdin.write_all(rest);
        drop(stdin);
        let done = child.wait_with_output().unwrap();
        (String::from_utf8_lossy(&done.stdout).into_owned(), done.stderr, done.status.code())
    }

    #[test]
    fn it_becomes_the_program_and_leaves_it_its_input() {
        let mark = Mark::new().unwrap();
        let long = "x".repeat(100_000);
        let script = "echo $0 $A ${#1}; cat";
        let job = job(&step(&["name", "-c", script, "zero", &long], &["/none", "/etc/passwd/sh", "/bin/sh"]), mark);
        let (said, complaint, code) = start(&job.unwrap(), b"the rest\n");
        assert_eq!((&said[..], code), ("zero b 100000\nthe rest\n", Some(0)), "{complaint:?}");
        assert_eq!(mark.told(&complaint), None);
    }

    #[test]
    fn it_says_why_it_could_not() {
        let mark = Mark::new().unwrap();
        for (candidates, errno) in [
            (&["/none", "/nor/this"][..], Errno::ENOENT),
            (&["/none", "/etc/passwd", "/none"], Errno::EACCES),
            (&[], Errno::ENOENT),
        ] {
            let (_, complaint, code) = start(&job(&step(&["x"], candidates), mark).unwrap(), b"");
            assert_eq!((mark.told(&complaint), code), (Some(errno), Some(127)), "{candidates:?}");
            assert_eq!(Mark::new().unwrap().told(&complaint), None);
        }
        let (_, complaint, code) = start(&[], b"");
        assert_eq!((complaint.len(), code), (0, Some(127)));
        for length in [LONGEST, 300_000] {
            assert!(job(&step(&["x".repeat(length).as_str()], &[]), mark).is_none());
        }
    }

    #[test]
    fn a_file_is_called_by_its_whole_name() {
        for (path, whole) in
            [("./s.sh", "/sandbox/s.sh"), ("a/../b", "/sandbox/a/../b"), ("/x/./y", "/x/./y"), ("sh", "sh")]
        {
            assert_eq!(absolute(path, "/sandbox"), whole);
        }
    }
}
