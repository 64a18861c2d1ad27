//! Whom the container's group of the v2 tree is given to, by the runtime-spec's rules ("Cgroup ownership").

use std::path::{Component, Path};

use oci_spec::runtime as oci;

use super::{IdMaps, Namespaces};

/// The host's id of the user that the program runs as: where the container has a new cgroup namespace, and that tree
/// to write in. `None` where it is to stay the maker's.
#[must_use]
pub fn cgroup_owner(spec: &oci::Spec, namespaces: &Namespaces, ids: Option<&IdMaps>) -> Option<u32> {
    if namespaces.new & libc::CLONE_NEWCGROUP == 0 || !spec.mounts().iter().flatten().any(is_writable_tree) {
        return None;
    }
    let inside = spec.process().as_ref().map_or(0, |process| process.user().uid());
    match ids {
        Some(ids) => ids.users.iter().find_map(|map| {
            let offset = inside.checked_sub(map.inside).filter(|offset| *offset < map.count)?;
            map.outside.checked_add(offset)
        }),
        // Of another container's user namespace the ids are not known.
        None if namespaces.has(libc::CLONE_NEWUSER) => None,
        // Root has it already.
        None => Some(inside).filter(|uid| *uid != 0),
    }
}

fn is_writable_tree(mount: &oci::Mount) -> bool {
    let named = |part| matches!(part, Component::Normal(_));
    mount.source().as_deref() == Some(Path::new("cgroup"))
        && mount.destination().components().filter(|part| named(*part)).eq(Path::new("sys/fs/cgroup").components())
        && !mount.options().iter().flatten().any(|option| option == "ro")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn owner(uid: u32, namespaces: Value, mount: Value) -> Option<u32> {
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 10 }]);
        let spec: oci::Spec = serde_json::from_value(json!({
            "ociVersion": "1.1.0",
            "process": { "user": { "uid": uid, "gid": 0 }, "cwd": "/", "args": ["true"] },
            "mounts": [mount],
            "linux": { "namespaces": namespaces, "uidMappings": map, "gidMappings": map },
        }))
        .unwrap();
        let linux = spec.linux().as_ref().unwrap();
        cgroup_owner(&spec, &Namespaces::new(linux).unwrap(), IdMaps::of(linux).as_ref())
    }

    #[test]
    fn the_programs_user_where_it_may_write() {
        let both = || json!([{ "type": "cgroup" }, { "type": "user" }]);
        let tree = |options: Value| json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options });
        assert_eq!(owner(0, both(), tree(json!(["rw"]))), Some(100_000));
        assert_eq!(owner(7, both(), tree(json!([]))), Some(100_007));
        assert_eq!(owner(10, both(), tree(json!([]))), None, "it has no id");
        assert_eq!(owner(0, both(), tree(json!(["nosuid", "ro"]))), None);
        let elsewhere = json!({ "destination": "/cgroup", "type": "cgroup", "source": "cgroup" });
        assert_eq!(owner(0, both(), elsewhere), None);
        assert_eq!(owner(0, json!([{ "type": "user" }]), tree(json!([]))), None);
        let joined = json!([{ "type": "cgroup", "path": "/proc/1/ns/cgroup" }, { "type": "user" }]);
        assert_eq!(owner(0, joined, tree(json!([]))), None);
        let host = || json!([{ "type": "cgroup" }]);
        assert_eq!((owner(0, host(), tree(json!([]))), owner(7, host(), tree(json!([])))), (None, Some(7)));
        let others = json!([{ "type": "cgroup" }, { "type": "user", "path": "/proc/1/ns/user" }]);
        assert_eq!(owner(7, others, tree(json!([]))), None);
    }
}
