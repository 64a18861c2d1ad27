//! A refused system call in words: its name, and what would have let it through.

use crate::{
    plan::seccomp::explain_refused,
    report::{Denial, DenialKind, Denials},
    sys::seccomp::Notification,
};

/// Notes a call that the filter `filter` refused. `Some` when it is the first of its kind.
pub(super) fn record<'a>(denials: &'a mut Denials, filter: &str, call: &Notification) -> Option<&'a Denial> {
    let refused = explain_refused(call.number, &call.args);
    let unknown;
    let name = match refused.name {
        Some(name) => name,
        None => {
            unknown = format!("#{}", call.number);
            &unknown
        }
    };
    let hint = || {
        Some(match refused.allowed_by {
            Some(profile) if profile != filter => format!("--profile {profile}"),
            _ => "--seccomp FILE with a filter that allows it".to_owned(),
        })
    };
    denials.record(DenialKind::Syscall, name, &format!("seccomp {filter}"), hint)
}
