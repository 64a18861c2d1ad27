//! How much memory the groups that we are in leave us, such as that of a container: less than the host has.

use std::path::Path;

use super::{
    Controller, Hierarchy,
    usage::{keyed, number},
};
use crate::request::limits::Bytes;

impl Hierarchy {
    /// What is left of the tightest limit above the sandboxes, with what the kernel can take back at any time, the contents of
    /// files. `None`: there is no limit.
    #[must_use]
    pub fn room(&self) -> Option<Bytes> {
        let room = match self {
            Self::V2(tree) => {
                let within = |path: &&Path| path.join("cgroup.controllers").exists();
                tree.path("").ancestors().take_while(within).filter_map(room_v2).min()
            }
            Self::V1(tree) => tree.path(Controller::Memory).and_then(|path| room_v1(&path)),
            Self::None { .. } => None,
        };
        room.map(Bytes::new)
    }
}

/// Of one group, if it has a limit.
fn room_v2(group: &Path) -> Option<u64> {
    let limit = number(&read(group, "memory.max")?)?;
    let stat = read(group, "memory.stat").unwrap_or_default();
    let files = keyed(&stat, "inactive_file") + keyed(&stat, "active_file");
    Some(left(limit, read(group, "memory.current"), files))
}

/// Of a group and all above it, whose limits v1 tells at once.
fn room_v1(group: &Path) -> Option<u64> {
    /// The kernel says so where there is none, in pages.
    const NONE: u64 = i64::MAX as u64 >> 16 << 16;
    let stat = read(group, "memory.stat")?;
    let limit = keyed(&stat, "hierarchical_memory_limit");
    let files = keyed(&stat, "total_inactive_file") + keyed(&stat, "total_active_file");
    (1..NONE).contains(&limit).then(|| left(limit, read(group, "memory.usage_in_bytes"), files))
}

fn left(limit: u64, used: Option<String>, files: u64) -> u64 {
    let used = used.and_then(|text| number(&text)).unwrap_or(0);
    limit.saturating_sub(used.saturating_sub(files))
}

fn read(group: &Path, file: &str) -> Option<String> {
    std::fs::read_to_string(group.join(file)).ok()
}
