//! Sockets by which the proxy reaches the sandbox: only who stands in the gateway's namespace can make them.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::OUTER;
use crate::sys::{self, namespace, process, socket as records};

/// Makes one for each byte that comes from `wishes`, until nobody wants any more.
///
/// The process becomes one that does nothing else: it goes to `gateway`, and closes all that it has but `wishes`, for it is
/// a fork, and nothing of the sandbox's streams may be held open by it. Allocates nothing.
pub fn give_sockets(gateway: BorrowedFd<'_>, wishes: BorrowedFd<'_>) -> sys::Result<()> {
    namespace::enter(gateway, libc::CLONE_NEWNET)?;
    process::set_undumpable()?;
    process::set_name(c"fumehood-ports");
    let own = wishes.as_raw_fd() as u32;
    if own > 0 {
        process::close_range(0, own - 1)?;
    }
    process::close_range(own + 1, u32::MAX)?;
    loop {
        let mut wish = [0; 8];
        if records::receive(wishes, &mut wish)?.0 == 0 {
            return Ok(());
        }
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // None, where there can be none now: without the link, all addresses there are the gateway's own.
        let made = socket(AddressFamily::Inet, SockType::Stream, flags, None).ok();
        let made = made.filter(|socket| records::bind_to_device(socket.as_fd(), OUTER.index).is_ok());
        let sent = made.as_ref().is_some_and(|socket| records::send(wishes, b"s", Some(socket.as_fd())).is_ok());
        if !sent {
            records::send(wishes, b"s", None)?;
        }
    }
}
