//! A container without a mount namespace: its root is only changed (chroot(2)), in the host's mounts.
//!
//! Whatever would have to be mounted would be mounted on the host, so all that needs a mount is refused, and so is
//! what leads out of a root that is only changed.

use oci_spec::runtime as oci;

use super::{ContainerError, Namespaces, process::Capabilities};

/// Whether that is what a specification asks for.
#[must_use]
pub fn shares_mounts(linux: &oci::Linux) -> bool {
    !linux.namespaces().iter().flatten().any(|namespace| namespace.typ() == oci::LinuxNamespaceType::Mount)
}

pub(super) fn check(
    spec: &oci::Spec,
    linux: &oci::Linux,
    namespaces: &Namespaces,
    rootless: bool,
) -> Result<(), ContainerError> {
    let set = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    let terminal = spec.process().as_ref().and_then(oci::Process::terminal).unwrap_or(false);
    let mounts = |field, asked| (field, asked, "it would be mounted on the host");
    for (field, asked, why) in [
        mounts("mounts", spec.mounts().as_ref().is_some_and(|mounts| !mounts.is_empty())),
        mounts("root.readonly", spec.root().as_ref().and_then(oci::Root::readonly).unwrap_or(false)),
        mounts("process.terminal", terminal),
        mounts("linux.rootfsPropagation", set(linux.rootfs_propagation())),
        mounts("linux.maskedPaths", linux.masked_paths().as_ref().is_some_and(|paths| !paths.is_empty())),
        mounts("linux.readonlyPaths", linux.readonly_paths().as_ref().is_some_and(|paths| !paths.is_empty())),
        ("linux.namespaces", rootless || namespaces.has(libc::CLONE_NEWUSER), "devices could not be made for its user"),
    ] {
        if asked {
            return Err(ContainerError::spec(field, format!("there is no mount namespace, and {why}")));
        }
    }
    Ok(())
}

/// Whoever may change the root once more, or the host's mounts, is out of it.
pub fn check_capabilities(capabilities: &Capabilities) -> Result<(), ContainerError> {
    for (number, name) in [(18, "CAP_SYS_CHROOT"), (21, "CAP_SYS_ADMIN")] {
        if capabilities.all() & 1 << number != 0 {
            let why = format!("there is no mount namespace, and with {name} the host's root is reached");
            return Err(ContainerError::spec("process.capabilities", why));
        }
    }
    Ok(())
}
