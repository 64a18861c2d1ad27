//! The open groups of one container: one, or one a tree.

use nix::errno::Errno;

use super::{super::group::Group, ContainerCgroupError};

#[derive(Debug)]
pub(super) struct Slot {
    /// The controllers of the tree; none is the v2 tree.
    pub(super) names: Vec<String>,
    pub(super) group: Group,
}

#[derive(Debug, Default)]
pub(super) struct Slots(pub(super) Vec<Slot>);

impl Slots {
    /// The group in the v1 tree of this controller.
    pub(super) fn v1(&self, controller: &str) -> Option<&Group> {
        self.0.iter().find(|slot| slot.names.iter().any(|name| name == controller)).map(|slot| &slot.group)
    }

    /// The group in the v2 tree; on a hybrid host it has no controllers.
    pub(super) fn v2(&self) -> Option<&Group> {
        self.0.iter().find(|slot| slot.names.is_empty()).map(|slot| &slot.group)
    }

    /// The one to ask which processes there are: that which can be frozen, if possible.
    pub(super) fn main(&self) -> Option<&Group> {
        self.v1("freezer").or_else(|| self.v1("devices")).or_else(|| self.0.first().map(|slot| &slot.group))
    }
}

/// Writes a setting. A file that is not there is a controller, or a feature of one, that is not there.
pub(super) fn put(group: &Group, file: &str, value: impl ToString) -> Result<(), ContainerCgroupError> {
    let value = value.to_string();
    group.write(file, &value).map_err(|errno| match errno {
        Errno::ENOENT => {
            let controller = file.split('.').next().unwrap_or(file).to_owned();
            ContainerCgroupError::NoController { setting: file.to_owned(), controller }
        }
        source => ContainerCgroupError::Write { value, path: group.path(file), source },
    })
}

pub(super) fn read(group: &Group, file: &str) -> Result<String, ContainerCgroupError> {
    group.read(file).map_err(|source| ContainerCgroupError::Io { action: "read", path: group.path(file), source })
}

/// The first of these files that is there.
pub(super) fn either<'a>(group: &Group, files: [&'a str; 2]) -> &'a str {
    if group.has(files[0]) { files[0] } else { files[1] }
}
