//! Hooks: programs of the engine's that run at the six points of a container's life.
//!
//! Each gets the container's state on its standard input and exactly the environment and arguments it names,
//! nothing of ours or of the container's (CVE-2025-23266); only to those that run inside and as the program, at
//! `startContainer`, its environment may be given. Source: runtime-spec `config.md`, "POSIX-platform Hooks".

use std::{
    ffi::{CString, OsStr},
    io::Write,
    os::{
        fd::{AsFd, AsRawFd},
        unix::{
            ffi::OsStrExt,
            process::{CommandExt, ExitStatusExt},
        },
    },
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use oci_spec::runtime::{Hook, Hooks};

use crate::{
    state::container::{Record, State, Status},
    sys::{Errno, fs, process},
};

/// What hooks and agents are told of the container. `pid` is 0 when it has none any more.
#[must_use]
pub fn state(record: &Record, status: Status, pid: i32) -> Vec<u8> {
    serde_json::to_vec(&State { pid, ..record.oci_state(status) }).unwrap_or_default()
}

/// Whether some run outside while the container's tree is complete and not entered yet.
#[must_use]
pub fn of_the_runtime_wanted(hooks: &Hooks) -> bool {
    #[allow(deprecated)]
    let prestart = hooks.prestart();
    [prestart, hooks.create_runtime()].into_iter().flatten().any(|list| !list.is_empty())
}

/// Runs them in order; the first that fails ends it.
///
/// `state` is the container's state as JSON.
pub fn run(kind: &str, hooks: Option<&Vec<Hook>>, state: &[u8]) -> Result<(), String> {
    run_with(&[], kind, hooks, state)
}

/// As [`run`]; those that name no environment have `env`.
pub fn run_with(env: &[CString], kind: &str, hooks: Option<&Vec<Hook>>, state: &[u8]) -> Result<(), String> {
    for (number, hook) in hooks.into_iter().flatten().enumerate() {
        run_one(hook, env, state).map_err(|why| format!("error running {kind} hook #{number}: {why}"))?;
    }
    Ok(())
}

fn run_one(hook: &Hook, env: &[CString], state: &[u8]) -> Result<(), String> {
    let mut command = Command::new(hook.path());
    let args = hook.args().as_deref().unwrap_or_default();
    if let Some((name, rest)) = args.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear();
    let own = hook.env().as_ref().filter(|own| !own.is_empty());
    let own = own.into_iter().flatten().map(String::as_bytes);
    let env = env.iter().filter(|_| own.clone().next().is_none()).map(|variable| variable.to_bytes());
    for variable in own.clone().chain(env) {
        if let Some(at) = variable.iter().position(|byte| *byte == b'=') {
            command.env(OsStr::from_bytes(&variable[..at]), OsStr::from_bytes(&variable[at + 1..]));
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{}: {error}", hook.path().display()))?;
    if let Some(mut input) = child.stdin.take() {
        // One that does not read it has no need of it.
        _ = input.write_all(state);
    }
    let timeout = hook.timeout().filter(|seconds| *seconds > 0).map(|seconds| Duration::from_secs(seconds as u64));
    let (status, said) = wait(&mut child, timeout)?;
    if status.success() {
        return Ok(());
    }
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or(0)),
    };
    Err(format!("{how}, stderr: {}", String::from_utf8_lossy(&said).trim()))
}

/// Waits for its end, reading what it says so that it never waits for us; only the beginning of that is kept.
fn wait(child: &mut Child, timeout: Option<Duration>) -> Result<(ExitStatus, Vec<u8>), String> {
    const MOST: usize = 4096;
    let failed = |error: std::io::Error| error.to_string();
    let errno = |errno: Errno| errno.desc().to_owned();
    let pidfd = process::open_process(child.id() as i32).map_err(errno)?;
    let mut stderr = child.stderr.take().map(std::os::fd::OwnedFd::from);
    if let Some(stderr) = &stderr {
        fs::set_nonblocking(stderr.as_fd()).map_err(errno)?;
    }
    let end = timeout.map(|timeout| Instant::now() + timeout);
    let (mut said, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let ended = child.try_wait().map_err(failed)?;
        while let Some(stream) = &stderr {
            match fs::read(stream.as_fd(), &mut buffer) {
                Ok(0) => stderr = None,
                Ok(read) => said.extend(buffer[..read].iter().take(MOST - said.len().min(MOST))),
                Err(_) => break,
            }
        }
        if let Some(status) = ended {
            return Ok((status, said));
        }
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if let (Some(Duration::ZERO), Some(timeout)) = (left, timeout) {
            _ = child.kill();
            _ = child.wait();
            return Err(format!("hook ran past specified timeout of {:.1}s", timeout.as_secs_f64()));
        }
        let fds = [Some(pidfd.as_raw_fd()), stderr.as_ref().map(AsRawFd::as_raw_fd)];
        let mut fds = fds.map(|fd| libc::pollfd { fd: fd.unwrap_or(-1), events: libc::POLLIN, revents: 0 });
        process::poll(&mut fds, left).map_err(errno)?;
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::HookBuilder;

    use super::*;

    fn shell(script: &str, timeout: i64) -> Hook {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        HookBuilder::default().path("/bin/sh").args(args).env(vec!["A=b".to_owned()]).timeout(timeout).build().unwrap()
    }

    #[test]
    fn a_hook_gets_the_state_and_its_own_environment_alone() {
        let hook = shell(r#"test "$(cat)" = state && test "$A" = b && test -z "$HOME""#, 5);
        run("createRuntime", Some(&vec![hook.clone()]), b"state").unwrap();
        run_with(&[c"HOME=/root".into()], "startContainer", Some(&vec![hook]), b"state").unwrap();
        let mut bare = shell(r#"test "$HOME" = /root && test "$A" = c"#, 5);
        bare.set_env(Some(Vec::new()));
        let env = [c"HOME=/root".into(), c"A=c".into()];
        run_with(&env, "startContainer", Some(&vec![bare.clone()]), b"").unwrap();
        assert!(run("createContainer", Some(&vec![bare]), b"").is_err());
    }

    #[test]
    fn a_hook_that_fails_or_hangs_ends_it() {
        let error = run("poststart", Some(&vec![shell("echo no >&2; exit 3", 5)]), b"").unwrap_err();
        assert_eq!(error, "error running poststart hook #0: exit status 3, stderr: no");
        assert!(run("poststart", Some(&vec![shell("sleep 100", 1)]), b"").unwrap_err().contains("timeout"));
        assert!(run("poststart", Some(&vec![shell("true", 5); 3]), b"").is_ok());
    }
}
