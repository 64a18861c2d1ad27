//! `hooks`: programs of the host's that are run beside the container's life.

use oci_spec::runtime as oci;

use super::{Check, absolute, bad, no_nul, process::variable};

/// The six points of a container's life at which there can be hooks, by their names in the specification.
pub(super) fn by_name(hooks: &oci::Hooks) -> [(&'static str, &[oci::Hook]); 6] {
    #[allow(deprecated, reason = "Docker's networking is a prestart hook")]
    let prestart = hooks.prestart();
    [
        ("prestart", prestart.as_deref().unwrap_or_default()),
        ("createRuntime", hooks.create_runtime().as_deref().unwrap_or_default()),
        ("createContainer", hooks.create_container().as_deref().unwrap_or_default()),
        ("startContainer", hooks.start_container().as_deref().unwrap_or_default()),
        ("poststart", hooks.poststart().as_deref().unwrap_or_default()),
        ("poststop", hooks.poststop().as_deref().unwrap_or_default()),
    ]
}

pub(super) fn check(hooks: &oci::Hooks) -> Check {
    for (name, hooks) in by_name(hooks) {
        for (index, hook) in hooks.iter().enumerate() {
            let at = |field: &str| format!("hooks.{name}[{index}].{field}");
            absolute(at("path"), hook.path())?;
            for (arg, text) in hook.args().iter().flatten().enumerate() {
                no_nul(at(&format!("args[{arg}]")), text)?;
            }
            for (assignment, text) in hook.env().iter().flatten().enumerate() {
                variable(&at(&format!("env[{assignment}]")), text)?;
            }
            if let Some(timeout) = hook.timeout()
                && timeout <= 0
            {
                return Err(bad(at("timeout"), format_args!("{timeout} is not greater than zero")));
            }
        }
    }
    Ok(())
}
