//! What holds a program down once it runs: Landlock and seccomp.

use nix::errno::Errno;

use super::{
    Check,
    child::{Trial, in_child, step},
};
use crate::{
    host::{
        circumstances::{Circumstances, sysctl},
        explain::explain,
    },
    sys::{probe, process},
};

/// What each Landlock ABI brought, and with which kernel (landlock(7), Documentation/userspace-api/landlock.rst).
const LANDLOCK: [(u32, &str, &str); 6] = [
    (1, "5.13", "rules on files"),
    (2, "5.19", "rules on moving files between directories"),
    (3, "6.2", "rules on truncating"),
    (4, "6.7", "rules on TCP ports"),
    (5, "6.10", "rules on device ioctls"),
    (6, "6.12", "scoping of signals and abstract unix sockets"),
];

pub(super) fn check(around: &Circumstances, checks: &mut Vec<Check>) {
    checks.push(landlock(around, probe::landlock_version()));
    checks.push(Check::of_trial(around, "seccomp", in_child(filter), &format!("filters work: {}", known_actions())));
    checks.push(notify(around));
    checks.push(ptrace());
}

/// The mounts hold without Landlock: it is the second wall, so that its lack degrades and no more.
fn landlock(around: &Circumstances, version: Result<u32, Errno>) -> Check {
    let abi = match version {
        Ok(abi) => abi,
        Err(errno) => {
            let cause = explain(around, "landlock", "", errno);
            let why = cause.as_ref().map_or("unknown", |cause| &cause.why);
            let check = Check::degraded("landlock", format!("no second wall behind the mounts: {why}"));
            return match cause.and_then(|cause| cause.fix) {
                Some(fix) => check.or_fix(fix),
                None => check,
            };
        }
    };
    let missing: Vec<_> =
        LANDLOCK.iter().filter(|(of, ..)| *of > abi).map(|(_, since, what)| format!("{what} ({since})")).collect();
    if missing.is_empty() {
        Check::ok("landlock", format!("ABI {abi}"))
    } else {
        Check::degraded("landlock", format!("ABI {abi} lacks {}", missing.join(", "))).or_fix("use Linux 6.12 or later")
    }
}

fn filter() -> Trial {
    step("prctl", "no_new_privs", process::set_no_new_privileges())?;
    step("seccomp", "filter", probe::install_filter(probe::FILTER_LOG))?;
    match probe::filtered_call() {
        Err(probe::FILTERED) => Ok(()),
        // Installed and without effect: worse than none.
        _ => step("seccomp", "filter", Err(Errno::ENOTRECOVERABLE)),
    }
}

fn known_actions() -> String {
    let known: Vec<_> =
        probe::ACTIONS.into_iter().filter(|(_, action)| probe::knows_action(*action)).map(|(name, _)| name).collect();
    known.join(" ")
}

fn notify(around: &Circumstances) -> Check {
    let listen = |flags| {
        in_child(move || {
            step("prctl", "no_new_privs", process::set_no_new_privileges())?;
            step("seccomp", "listener", probe::install_filter(flags).map(drop))
        })
    };
    let whole = listen(probe::FILTER_NEW_LISTENER | probe::FILTER_WAIT_KILLABLE);
    if whole.is_err() && listen(probe::FILTER_NEW_LISTENER).is_ok() {
        return Check::degraded(
            "seccomp-notify",
            "a signal may interrupt a call while it is decided: no WAIT_KILLABLE_RECV",
        )
        .or_fix("use Linux 5.19 or later");
    }
    Check::of_trial(around, "seccomp-notify", whole, "user notification with WAIT_KILLABLE_RECV")
        .at_most_degraded("system calls cannot be decided from outside")
}

/// Yama's restriction is for the host's own programs: a sandbox's seccomp filter and pid namespace stand
/// before it either way.
fn ptrace() -> Check {
    let scope = sysctl("kernel/yama/ptrace_scope");
    let detail = match scope.as_deref() {
        None => "no Yama: processes of one user may trace each other on the host".to_owned(),
        Some("0") => "kernel.yama.ptrace_scope is 0: processes of one user may trace each other on the host".to_owned(),
        Some(scope) => format!("kernel.yama.ptrace_scope is {scope}"),
    };
    Check::info("ptrace", detail)
}

#[cfg(test)]
mod tests {
    use super::{super::Status, *};

    #[test]
    fn landlocks_lacks_are_named() {
        let around = Circumstances::default();
        assert_eq!(landlock(&around, Ok(9)).status, Status::Ok);
        assert_eq!(landlock(&around, Ok(6)).status, Status::Ok);
        let old = landlock(&around, Ok(3));
        assert_eq!(old.status, Status::Degraded);
        assert!(old.detail.contains("TCP") && old.detail.contains("signals") && !old.detail.contains("truncating"));
        let off = landlock(&around, Err(Errno::EOPNOTSUPP));
        assert!(off.detail.contains("switched off") && off.fix.is_some_and(|fix| fix.contains("lsm=")));
    }
}
