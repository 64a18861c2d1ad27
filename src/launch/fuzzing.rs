//! What the fuzz targets (`fuzz/`) reach beyond the public interface. Only with the feature `fuzzing`.

use std::{fs::File, os::fd::AsFd};

use super::{LaunchError, protocol::SupervisorEnd};
use crate::{report::ProducedFile, request::Fetch, sys::socket};

/// The supervisor receives `bytes` as if the init had sent them.
pub fn record(bytes: &[u8]) {
    if let Ok((ours, theirs)) = socket::record_pair()
        && socket::send(theirs.as_fd(), bytes, None).is_ok()
    {
        _ = SupervisorEnd(ours).receive();
    }
}

/// Takes a file out of the tree at `root`, as after a run.
pub fn fetch(root: &File, wanted: Fetch) -> (Vec<ProducedFile>, Option<LaunchError>) {
    super::fetch::fetch(root.as_fd(), &[wanted])
}
