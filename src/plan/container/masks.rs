//! What of a container's tree is not to be seen, and what not to be written to.

use std::path::Path;

use oci_spec::runtime as oci;

use super::inside;
use crate::plan::{PlanError, path::BoxPath, setup::SetupOp};

pub(super) fn plan(oci: &oci::Spec, setup: &mut Vec<SetupOp>) -> Result<(), PlanError> {
    // These were writable as long as something was put below them.
    for mount in oci.mounts().iter().flatten() {
        let (target, path) = inside(mount.destination())?;
        let options = mount.options().iter().flatten();
        let mut last = options.filter(|option| *option == "ro" || *option == "rw");
        if super::mounts::is_sealed_late(&target, mount) && last.next_back().is_some_and(|word| word == "ro") {
            setup.push(SetupOp::Seal { path });
        }
    }
    if oci.root().as_ref().and_then(oci::Root::readonly).unwrap_or(false) {
        setup.push(SetupOp::Seal { path: BoxPath::new(Path::new("/"))? });
    }
    let linux = oci.linux().as_ref();
    for path in each_once(linux.and_then(|linux| linux.readonly_paths().as_ref()))? {
        setup.push(SetupOp::ReadOnly { path });
    }
    for path in each_once(linux.and_then(|linux| linux.masked_paths().as_ref()))? {
        setup.push(SetupOp::Mask { path, required: false });
    }
    Ok(())
}

/// A second mount over the first would hide nothing more.
fn each_once(paths: Option<&Vec<String>>) -> Result<Vec<BoxPath>, PlanError> {
    let mut once: Vec<BoxPath> = Vec::new();
    for path in paths.into_iter().flatten() {
        let path = inside(Path::new(path))?.1;
        if !once.contains(&path) {
            once.push(path);
        }
    }
    Ok(once)
}
