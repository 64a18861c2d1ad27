//! `linux.seccomp`: what the types leave open. That it can be compiled is for [`crate::plan::seccomp`] to say.

use oci_spec::runtime as oci;
use oci_spec::runtime::LinuxSeccompAction as Action;

use super::{Check, bad, no_nul};

/// Linux's highest errno.
const LAST_ERRNO: u32 = 4095;

pub(super) fn check(seccomp: &oci::LinuxSeccomp) -> Check {
    let default = seccomp.default_action();
    errno("linux.seccomp.defaultErrnoRet", default, seccomp.default_errno_ret())?;
    if default == Action::ScmpActNotify {
        return Err(bad("linux.seccomp.defaultAction", "SCMP_ACT_NOTIFY cannot be used as default action"));
    }
    let mut notifies = false;
    for (index, rule) in seccomp.syscalls().iter().flatten().enumerate() {
        let at = |field: &str| format!("linux.seccomp.syscalls[{index}].{field}");
        if rule.names().is_empty() {
            return Err(bad(at("names"), "it is empty"));
        }
        errno(&at("errnoRet"), rule.action(), rule.errno_ret())?;
        if rule.action() == Action::ScmpActNotify {
            notifies = true;
            // The program's init itself writes, to the one who would have to let it.
            if rule.names().iter().any(|name| name == "write") {
                return Err(bad(at("action"), "SCMP_ACT_NOTIFY cannot be used for the write syscall"));
            }
        }
        for (number, arg) in rule.args().iter().flatten().enumerate() {
            if arg.index() > 5 {
                let why = format!("{} is no argument of a system call: there are 0 to 5", arg.index());
                return Err(bad(at(&format!("args[{number}].index")), why));
            }
        }
    }
    let listener = seccomp.listener_path().as_deref().filter(|path| !path.as_os_str().is_empty());
    match listener {
        Some(path) => no_nul("linux.seccomp.listenerPath", path.as_os_str().as_encoded_bytes())?,
        None if notifies => {
            return Err(bad("linux.seccomp.listenerPath", "it is missing, and SCMP_ACT_NOTIFY is used"));
        }
        None => {}
    }
    match seccomp.listener_metadata().as_deref().filter(|text| !text.is_empty()) {
        Some(_) if listener.is_none() => {
            Err(bad("linux.seccomp.listenerMetadata", "it is there without a listenerPath"))
        }
        Some(text) => no_nul("linux.seccomp.listenerMetadata", text),
        None => Ok(()),
    }
}

fn errno(at: &str, action: Action, errno: Option<u32>) -> Check {
    match errno {
        None => Ok(()),
        Some(_) if !matches!(action, Action::ScmpActErrno | Action::ScmpActTrace) => {
            Err(bad(at, format_args!("the action {action} takes no errno")))
        }
        Some(errno) if errno > LAST_ERRNO => Err(bad(at, format_args!("{errno} is no errno"))),
        Some(_) => Ok(()),
    }
}
