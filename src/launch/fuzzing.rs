//! What the fuzz targets (`fuzz/`) reach beyond the public interface. Only with the feature `fuzzing`.

use std::{fs::File, os::fd::AsFd};

use super::{
    LaunchError,
    fetch::{self, Inside, Target},
    protocol::SupervisorEnd,
};
use crate::{
    report::ProducedFile,
    request::{Bytes, Fetch},
    sys::socket,
};

/// The supervisor receives `bytes` as if the init had sent them.
pub fn record(bytes: &[u8]) {
    if let Ok((ours, theirs)) = socket::record_pair()
        && socket::send(theirs.as_fd(), bytes, None).is_ok()
    {
        _ = SupervisorEnd(ours).receive();
    }
}

/// Takes files of at most `most` bytes out of the tree at `root`, as after a run.
pub fn fetch(root: &File, wanted: &Fetch, most: Bytes) -> (Vec<ProducedFile>, Option<LaunchError>) {
    match Target::open(wanted) {
        Ok(target) => fetch::fetch(Inside::new(root.as_fd(), None), &[target], most),
        Err(error) => (Vec::new(), Some(error)),
    }
}
