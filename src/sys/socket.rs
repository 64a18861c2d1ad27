//! The control socket between the supervisor and the sandbox's init: short records, descriptors beside them.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Errno, Result, check};

/// A connected pair that keeps record boundaries; both ends close on exec.
pub fn record_pair() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: room for two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) }.into())?;
    // SAFETY: both are new.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// A connected pair that keeps no boundaries; both ends close on exec.
pub fn stream_pair() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: room for two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) }.into())?;
    // SAFETY: both are new.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Sends all of it over a stream. A closed peer is EPIPE, never a signal.
pub fn send_all(socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<()> {
    send_whole(socket, bytes, 0)
}

/// As [`send_all`], without waiting for anybody to read: what there is no room for is EAGAIN.
pub fn send_all_now(socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<()> {
    send_whole(socket, bytes, libc::MSG_DONTWAIT)
}

fn send_whole(socket: BorrowedFd<'_>, mut bytes: &[u8], flags: libc::c_int) -> Result<()> {
    let flags = flags | libc::MSG_NOSIGNAL;
    while !bytes.is_empty() {
        // SAFETY: the slice is valid for its length.
        let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
        match check(sent as libc::c_long) {
            Err(nix::errno::Errno::EINTR) => {}
            sent => bytes = &bytes[sent? as usize..],
        }
    }
    Ok(())
}

/// Reads what has come on a stream, without waiting. 0 bytes: the peer is gone.
pub fn receive_now(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the slice is valid for its length.
    let got = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
    check(got as libc::c_long).map(|got| got as usize)
}

/// Room for one control header with one descriptor, aligned as a `cmsghdr`.
type ControlBuffer = [u64; 3];

const _: () = assert!(
    // SAFETY: computes a size.
    unsafe { libc::CMSG_SPACE(size_of::<i32>() as u32) } as usize <= size_of::<ControlBuffer>()
);

/// Sends one record, with a descriptor if given. A closed peer is EPIPE, never a signal.
pub fn send(socket: BorrowedFd<'_>, record: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<()> {
    let mut part = libc::iovec { iov_base: record.as_ptr().cast_mut().cast(), iov_len: record.len() };
    let mut control: ControlBuffer = [0; 3];
    // SAFETY: `msghdr` is plain data for which all zeroes is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if let Some(fd) = fd {
        message.msg_control = (&raw mut control).cast();
        // SAFETY: the buffer has room for one header with one descriptor (asserted above).
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(size_of::<i32>() as u32) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<i32>() as u32) as _;
            libc::CMSG_DATA(header).cast::<i32>().write_unaligned(fd.as_raw_fd());
        }
    }
    loop {
        // SAFETY: `message` and all it points to are valid for the call.
        match check(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) } as libc::c_long)
        {
            Err(nix::errno::Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

/// Receives one record into `buffer`, and the descriptor beside it. 0 bytes: the peer is gone.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control: ControlBuffer = [0; 3];
    // SAFETY: `msghdr` is plain data for which all zeroes is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<ControlBuffer>() as _;
    let length = loop {
        // SAFETY: `message` and all it points to are valid for the call.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        match check(received as libc::c_long) {
            // A peer that went without having read all: said once, and before what it sent itself.
            Err(nix::errno::Errno::EINTR | nix::errno::Errno::ECONNRESET) => {}
            other => break other? as usize,
        }
    };
    // SAFETY: the kernel filled in `message`; a header it reports lies within the buffer.
    let fd = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if !header.is_null() && (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
            Some(OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<i32>().read_unaligned()))
        } else {
            None
        }
    };
    Ok((length, fd))
}

/// Takes the next caller of a listening socket.
pub fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd> {
    loop {
        // SAFETY: no address is asked for.
        let caller = unsafe {
            libc::accept4(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC)
        };
        match check(caller.into()) {
            Err(nix::errno::Errno::EINTR | nix::errno::Errno::ECONNABORTED) => {}
            // SAFETY: a new descriptor that nobody else owns.
            other => return other.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) }),
        }
    }
}

/// The process at the other end of a local socket, whose number `pid` is: of a kernel before 6.5, the one that has the
/// number now.
pub fn peer_process(socket: impl AsFd, pid: i32) -> Result<OwnedFd> {
    let mut process: libc::c_int = -1;
    let mut length = size_of_val(&process) as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes one int.
    let got = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERPIDFD, (&raw mut process).cast(), &raw mut length)
    };
    match check(got.into()) {
        // SAFETY: a new descriptor that nobody else owns.
        Ok(_) => Ok(unsafe { OwnedFd::from_raw_fd(process) }),
        Err(nix::errno::Errno::ENOPROTOOPT) => super::process::open_process(pid),
        Err(errno) => Err(errno),
    }
}

/// Bytes that were written to a TCP stream so far, whether the other side has them or not.
pub fn written(stream: impl AsFd) -> Result<u64> {
    // linux/tcp.h, struct tcp_info, as of Linux 4.19: tcpi_notsent_bytes, tcpi_bytes_sent, tcpi_bytes_retrans
    const WORDS: usize = 27;
    let mut info = [0_u64; WORDS];
    let mut length = size_of_val(&info) as libc::socklen_t;
    let fd = stream.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `length` bytes, for any of which all values are valid.
    let got =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length) };
    check(got.into())?;
    let [a, b, c, d, ..] = info[18].to_ne_bytes();
    let unsent = u64::from(u32::from_ne_bytes([a, b, c, d]));
    Ok(info[25].saturating_sub(info[26]) + unsent)
}

/// Whether the other side of a TCP stream is told at once that its packets came, or, for a moment, with what is sent next. Said
/// before it is connected, the latter holds for the last packet that makes the connection.
pub fn acknowledge_at_once(stream: impl AsFd, at_once: bool) -> Result<()> {
    let value = libc::c_int::from(at_once);
    let length = size_of_val(&value) as libc::socklen_t;
    let fd = stream.as_fd().as_raw_fd();
    // SAFETY: the kernel reads one int.
    let set = unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_QUICKACK, (&raw const value).cast(), length) };
    check(set.into()).map(drop)
}

/// Bytes that have come, at a stream or a pipe, and were not read: by these, tests know how far somebody is.
pub fn unread(stream: impl AsFd) -> Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int.
    check(unsafe { libc::ioctl(stream.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut bytes) }.into())?;
    Ok(bytes.try_into().unwrap_or(0))
}

/// Bytes of a TCP stream that the other side does not have yet, its end among them; none where it will never have them.
pub fn unacknowledged(stream: impl AsFd) -> Result<usize> {
    // linux/tcp.h: TCP_CLOSE, the first byte of struct tcp_info. What was on its way when a reset came is counted still.
    const CLOSED: u8 = 7;
    let fd = stream.as_fd().as_raw_fd();
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int (SIOCOUTQ is the same number).
    check(unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut bytes) }.into())?;
    if bytes <= 0 {
        return Ok(0);
    }
    let (mut state, mut length) = (0_u8, 1 as libc::socklen_t);
    // SAFETY: the kernel writes at most `length` bytes.
    let got =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut state).cast(), &raw mut length) };
    check(got.into())?;
    Ok(if state == CLOSED { 0 } else { bytes as usize })
}

/// Whom the holder of a descriptor may reach by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It is no socket.
    Nobody,
    /// A Unix socket that is connected for good.
    Peer,
    /// It can be connected, again or for the first time, where it was made.
    Anybody,
}

/// What is sent by it goes out by that device, and by no other; ENODEV if there is none (`SO_BINDTOIFINDEX`, socket(7)).
pub fn bind_to_device(socket: BorrowedFd<'_>, index: i32) -> Result<()> {
    // SAFETY: the option's value is an int, whose size is given.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTOIFINDEX,
            (&raw const index).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
        .into()
    })
    .map(drop)
}

/// Of the descriptor `number`, which need not be open.
#[must_use]
pub fn reach(number: i32) -> Reach {
    let option = |name: i32| {
        let (mut value, mut length) = (0_i32, size_of::<i32>() as libc::socklen_t);
        // SAFETY: both pointers are valid, and `length` is the value's; a number that is no socket is an error.
        let got = unsafe { libc::getsockopt(number, libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut length) };
        check(got.into()).map(|_| value)
    };
    let (domain, kind) = match (option(libc::SO_DOMAIN), option(libc::SO_TYPE)) {
        (Ok(domain), Ok(kind)) => (domain, kind),
        (Err(Errno::ENOTSOCK | Errno::EBADF), _) => return Reach::Nobody,
        _ => return Reach::Anybody,
    };
    // SAFETY: plain data for which all zeroes is valid.
    let mut peer: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: both pointers are valid, and `length` is the storage's.
    let connected = unsafe { libc::getpeername(number, (&raw mut peer).cast(), &raw mut length) } == 0;
    match domain == libc::AF_UNIX && matches!(kind, libc::SOCK_STREAM | libc::SOCK_SEQPACKET) && connected {
        true => Reach::Peer,
        false => Reach::Anybody,
    }
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsRawFd, os::unix::net::UnixDatagram};

    use super::*;

    #[test]
    fn who_is_reached_by_a_descriptor() {
        let (pair, _other) = stream_pair().unwrap();
        assert_eq!(reach(pair.as_raw_fd()), Reach::Peer);
        let (datagrams, _other) = UnixDatagram::pair().unwrap();
        assert_eq!(reach(datagrams.as_raw_fd()), Reach::Anybody);
        assert_eq!(reach(UdpSocket::bind("127.0.0.1:0").unwrap().as_raw_fd()), Reach::Anybody);
        assert_eq!(reach(std::fs::File::open("/dev/null").unwrap().as_raw_fd()), Reach::Nobody);
        assert_eq!(reach(-1), Reach::Nobody);
    }
}
