//! fumehood's own controls on a container: layers more, never fewer.
//!
//! A filter is loaded beside the container's own, of which the kernel takes the stricter answer, and a Landlock
//! policy is one more layer. Neither can be had without no_new_privs, which is then set.

use std::borrow::Cow;

use super::{ContainerError, process::Process};
use crate::{
    plan::{landlock::Policy, profile, seccomp},
    spec::container::{Controls, Filter},
};

/// Adds what `controls` asks for.
///
/// # Errors
/// What cannot be enforced is not passed over.
pub fn tighten(
    process: &mut Process,
    controls: &Controls,
    kernel: seccomp::KernelVersion,
    landlock_abi: u32,
) -> Result<(), ContainerError> {
    let refuse = |name: &str, why: &str| ContainerError::spec(format!("annotations.io.fumehood.{name}"), why);
    let mut filters = Vec::new();
    let mut policies = Vec::new();
    if let Some(profile) = controls.profile {
        filters.push(builtin(profile).ok_or_else(|| refuse("profile", "it has no filter"))?);
        policies.push(profile.landlock().map_err(|error| refuse("profile", &error.to_string()))?);
    }
    match &controls.seccomp {
        Some(Filter::Builtin(profile)) => {
            filters.push(builtin(profile).ok_or_else(|| refuse("seccomp", "it has no filter"))?);
        }
        Some(Filter::Own(profile)) => {
            let target = seccomp::Target { arch: seccomp::Arch::NATIVE, kernel };
            filters.push(Cow::Owned(seccomp::compile(profile, target)?));
        }
        None => {}
    }
    policies.extend(controls.landlock.clone());
    let layers = policies.iter().map(|policy: &Policy| policy.layer(landlock_abi));
    let layers = layers.collect::<Result<Vec<_>, _>>().map_err(|error| refuse("landlock", &error.to_string()))?;
    process.landlock.extend(layers.into_iter().flatten());
    process.no_new_privileges |= !filters.is_empty() || !process.landlock.is_empty();
    process.tightening = filters;
    Ok(())
}

fn builtin(profile: &'static profile::Builtin) -> Option<Cow<'static, seccomp::Filter>> {
    profile.seccomp().map(|builtin| Cow::Borrowed(&builtin.filter))
}
