//! `process`: what is run, and as whom.

use oci_spec::runtime as oci;
use serde_json::Value;

use super::{Check, absolute, bad, no_nul};

/// -1, which means "leave it as it is" to the kernel, and nobody as an id.
const NO_ID: u32 = u32::MAX;

pub(super) fn check(process: &oci::Process) -> Check {
    match process.args().as_deref() {
        None | Some([]) => return Err(bad("process.args", "args must not be empty")),
        Some(args) => {
            for (index, arg) in args.iter().enumerate() {
                no_nul(format_args!("process.args[{index}]"), arg)?;
            }
        }
    }
    if process.cwd().as_os_str().is_empty() {
        return Err(bad("process.cwd", "Cwd property must not be empty"));
    }
    if !process.cwd().is_absolute() {
        let why = format!("Cwd must be an absolute path, and `{}` is not", process.cwd().display());
        return Err(bad("process.cwd", why));
    }
    absolute("process.cwd", process.cwd())?;
    for (index, assignment) in process.env().iter().flatten().enumerate() {
        variable(&format!("process.env[{index}]"), assignment)?;
    }
    user(process.user())?;
    if let (Some(true), Some(size)) = (process.terminal(), process.console_size()) {
        for (name, side) in [("height", size.height()), ("width", size.width())] {
            if side > u64::from(u16::MAX) {
                return Err(bad(format_args!("process.consoleSize.{name}"), format_args!("{side} is more than 65535")));
            }
        }
    }
    limits(process.rlimits().as_deref().unwrap_or_default())?;
    if let Some(capabilities) = process.capabilities() {
        capable(capabilities)?;
    }
    for (name, label) in [("apparmorProfile", process.apparmor_profile()), ("selinuxLabel", process.selinux_label())] {
        if let Some(label) = label {
            no_nul(format_args!("process.{name}"), label)?;
            if label.contains('\n') {
                return Err(bad(format_args!("process.{name}"), "it contains a line break"));
            }
        }
    }
    if let Some(adjustment) = process.oom_score_adj()
        && !(-1000..=1000).contains(&adjustment)
    {
        return Err(bad("process.oomScoreAdj", format_args!("{adjustment} is not between -1000 and 1000")));
    }
    if let Some(scheduler) = process.scheduler() {
        schedule(scheduler)?;
    }
    if let Some(priority) = process.io_priority().as_ref().map(oci::LinuxIOPriority::priority)
        && !(0..=7).contains(&priority)
    {
        return Err(bad("process.ioPriority.priority", format_args!("{priority} is not between 0 and 7")));
    }
    Ok(())
}

/// `NAME=value`, and nothing else: what has no `=` would be taken for different things by different programs.
pub(super) fn variable(at: &str, assignment: &str) -> Check {
    no_nul(at, assignment)?;
    match assignment.split_once('=') {
        None => Err(bad(at, format_args!("`{}` has no `=`", assignment.escape_debug()))),
        Some(("", _)) => Err(bad(at, "it has no name before the `=`")),
        Some(_) => Ok(()),
    }
}

fn user(user: &oci::User) -> Check {
    let id = |at: &str, id: u32| match id {
        NO_ID => Err(bad(at, format_args!("{id} is nobody's id"))),
        _ => Ok(()),
    };
    id("process.user.uid", user.uid())?;
    id("process.user.gid", user.gid())?;
    for (index, gid) in user.additional_gids().iter().flatten().enumerate() {
        id(&format!("process.user.additionalGids[{index}]"), *gid)?;
    }
    match user.umask() {
        Some(umask) if umask > 0o777 => Err(bad("process.user.umask", format_args!("{umask:#o} is more than 0o777"))),
        _ => Ok(()),
    }
}

fn limits(limits: &[oci::PosixRlimit]) -> Check {
    for (index, limit) in limits.iter().enumerate() {
        let at = |field: &str| format!("process.rlimits[{index}].{field}");
        if limits[..index].iter().any(|other| other.typ() == limit.typ()) {
            return Err(bad(at("type"), format_args!("{} is there twice", limit.typ())));
        }
        if limit.soft() > limit.hard() {
            return Err(bad(
                at("soft"),
                format_args!("{} is more than the hard limit, {}", limit.soft(), limit.hard()),
            ));
        }
    }
    Ok(())
}

/// The kernel's rule (capabilities(7)), said with a name instead of EPERM.
fn capable(capabilities: &oci::LinuxCapabilities) -> Check {
    let Some(effective) = capabilities.effective() else { return Ok(()) };
    let permitted = |one: &&oci::Capability| capabilities.permitted().as_ref().is_some_and(|set| set.contains(one));
    let mut missing: Vec<String> =
        effective.iter().filter(|one| !permitted(one)).map(|one| format!("CAP_{one}")).collect();
    missing.sort();
    match missing.first() {
        None => Ok(()),
        Some(one) => Err(bad("process.capabilities.effective", format_args!("{one} is not in the permitted set"))),
    }
}

/// sched_setattr(2).
fn schedule(scheduler: &oci::Scheduler) -> Check {
    use oci::LinuxSchedulerPolicy as Policy;
    let policy = scheduler.policy();
    let other = matches!(policy, Policy::SchedOther | Policy::SchedBatch);
    let realtime = matches!(policy, Policy::SchedFifo | Policy::SchedRr);
    let set = |number: &Option<u64>| number.is_some_and(|number| number != 0);
    if let Some(nice) = *scheduler.nice()
        && other
        && !(-20..=19).contains(&nice)
    {
        return Err(bad("process.scheduler.nice", format_args!("{nice} is not between -20 and 19")));
    }
    match *scheduler.priority() {
        Some(priority) if priority != 0 && !realtime => {
            return Err(bad("process.scheduler.priority", "it is for SCHED_FIFO and SCHED_RR alone"));
        }
        Some(priority) if realtime && !(1..=99).contains(&priority) => {
            return Err(bad("process.scheduler.priority", format_args!("{priority} is not between 1 and 99")));
        }
        None if realtime => return Err(bad("process.scheduler.priority", "SCHED_FIFO and SCHED_RR need one")),
        _ => {}
    }
    for (name, time) in
        [("runtime", scheduler.runtime()), ("deadline", scheduler.deadline()), ("period", scheduler.period())]
    {
        if set(time) && *policy != Policy::SchedDeadline {
            return Err(bad(format_args!("process.scheduler.{name}"), "it is for SCHED_DEADLINE alone"));
        }
    }
    Ok(())
}

/// Passes over what a runtime is to pass over with a warning, and writes what `oci-spec` wants in another way: a
/// process without a user is root's, as in every runtime and in the specification's schema.
pub(super) fn mend(process: &mut Value, warnings: &mut Vec<String>) {
    if let Some(user) = process.as_object_mut().map(|process| process.entry("user").or_insert(Value::Null))
        && user.is_null()
    {
        *user = Value::Object(serde_json::Map::new());
    }
    for set in ["bounding", "effective", "inheritable", "permitted", "ambient"] {
        let Some(Value::Array(names)) = process.pointer_mut(&format!("/capabilities/{set}")) else { continue };
        names.retain(|name| {
            let unknown = name.is_string() && serde_json::from_value::<oci::Capability>(name.clone()).is_err();
            if unknown {
                warnings.push(format!("process.capabilities.{set}: {name} is not known and is left out"));
            }
            !unknown
        });
    }
    if let Some(Value::Array(flags)) = process.pointer_mut("/scheduler/flags") {
        for flag in flags.iter_mut().filter(|flag| *flag == "SCHED_FLAG_DL_OVERRUN") {
            *flag = Value::from("SCHED_FLAG_D_L_OVERRUN");
        }
    }
}
