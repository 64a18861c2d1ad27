//! Grace periods: the kernel's waits, of some 10 ms each, until all CPUs have been somewhere else. In a start of runsc
//! there are four, one after the other, that are for nothing. The filter `no-registration` spares it three of them; what
//! spares it the fourth is here.

use std::os::fd::{AsFd, OwnedFd};

use crate::sys::{fs, process};

/// A number over all of gVisor's, in a table of 512.
const HIGH: i32 = 511;

/// A descriptor of nothing, for runsc to inherit. gVisor's kernel moves its streams to numbers from 256 on when it has
/// threads already; for these the table is made larger, and the old one is thrown away when no thread can be using it. One
/// that is inherited has room for all that is open, and so for those too. Without the descriptor it starts as well, and
/// later.
pub(super) fn high_descriptor() -> Option<OwnedFd> {
    let (nothing, _) = fs::pipe().ok()?;
    process::copy_above(nothing.as_fd(), HIGH).ok()
}
