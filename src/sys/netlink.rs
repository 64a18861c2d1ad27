//! Netlink messages: as much as it takes to ask the kernel for a network device or a rule (netlink(7)).
//!
//! Unlike the rest of this room it allocates, and is for processes that have not been cloned from a caller's; but for
//! [`Netlink::carry_out`], which may be given what was made before.
//! Whatever the kernel sends is read as hostile bytes are: what is cut short ends the reading.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

use super::{Errno, Result};

const REQUEST: u16 = 1;
/// Part of an answer that the kernel could not give of one moment.
const INTERRUPTED: u16 = 0x10;
pub const ACK: u16 = 4;
pub const REPLACE: u16 = 0x100;
pub const EXCLUSIVE: u16 = 0x200;
pub const DUMP: u16 = 0x300;
pub const CREATE: u16 = 0x400;
pub const APPEND: u16 = 0x800;
/// Of an attribute that holds others.
pub const NESTED: u16 = 0x8000;

/// A message: header, then payload.
#[must_use]
pub fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + payload.len().next_multiple_of(4));
    write_message(&mut bytes, kind, flags, sequence, |bytes| bytes.extend(payload));
    bytes
}

/// The same behind what is in `bytes`; `fill` appends its payload.
pub fn write_message(bytes: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    bytes.extend([0; 4]);
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | REQUEST).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    fill(bytes);
    let length = (bytes.len() - start) as u32;
    bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    pad(bytes);
}

/// A length-kind-value attribute.
#[must_use]
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + value.len().next_multiple_of(4));
    write_attribute(&mut bytes, kind, |bytes| bytes.extend(value));
    bytes
}

/// The same behind what is in `bytes`; `fill` appends its value.
pub fn write_attribute(bytes: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    bytes.extend([0; 2]);
    bytes.extend(kind.to_ne_bytes());
    fill(bytes);
    let length = (bytes.len() - start) as u16;
    bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    pad(bytes);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// The attributes that `bytes` hold, each with its kind.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & !NESTED, value))
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Message<'a> {
    kind: u16,
    flags: u16,
    payload: &'a [u8],
}

/// The first message in `bytes`, and what follows it.
fn split(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let flags = u16::from_ne_bytes(bytes.get(6..8)?.try_into().ok()?);
    let payload = bytes.get(16..length)?;
    Some((Message { kind, flags, payload }, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// A socket in the network namespace that it was opened in, wherever its owner goes.
#[derive(Debug)]
pub struct Netlink(OwnedFd);

impl Netlink {
    pub fn open(protocol: SockProtocol) -> Result<Self> {
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).map(Self)
    }

    /// Sends `messages` at once and reads until `acknowledgements` came or one error.
    pub fn transact(&self, messages: &[Vec<u8>], acknowledgements: usize) -> Result<()> {
        self.carry_out(&messages.concat(), acknowledgements)
    }

    /// The same of messages that are one after the other already. Allocates nothing.
    pub fn carry_out(&self, messages: &[u8], acknowledgements: usize) -> Result<()> {
        let mut seen = 0;
        self.send(messages)?;
        self.receive(&mut [0; 8 << 10], |message| {
            seen += usize::from(acknowledged(message)?.is_some());
            Ok(seen >= acknowledgements)
        })
    }

    /// What `read` finds in the one message with which the kernel answers `message`. Allocates nothing, and has room for
    /// 8 KiB.
    pub fn look<T>(&self, message: &[u8], read: impl Fn(&[u8]) -> Option<T>) -> Result<T> {
        let mut found = None;
        self.send(message)?;
        self.receive(&mut [0; 8 << 10], |answer| {
            acknowledged(answer)?;
            found = read(answer.payload);
            Ok(true)
        })?;
        found.ok_or(Errno::EBADMSG)
    }

    /// The payloads of all messages with which the kernel answers `message`, which asks for a dump, or is one for one
    /// object.
    pub fn ask(&self, message: &[u8]) -> Result<Vec<Vec<u8>>> {
        const DONE: u16 = 3;
        // What changes all the time is taken as it is found at last.
        for last in [false, false, true] {
            let (mut found, mut interrupted) = (Vec::new(), false);
            self.send(message)?;
            self.receive(&mut vec![0; 32 << 10], |answer| {
                interrupted |= answer.flags & INTERRUPTED != 0;
                if answer.kind == DONE || acknowledged(answer)?.is_some() {
                    return Ok(true);
                }
                found.push(answer.payload.to_vec());
                Ok(false)
            })?;
            if !interrupted || last {
                return Ok(found);
            }
        }
        Err(Errno::EINTR)
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        sendto(self.0.as_raw_fd(), bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty()).map(drop)
    }

    /// Hands on each message until `take` is content. The kernel has answered by the time that a send returns, or it
    /// answers the rest as it is read: there is nothing to wait for.
    fn receive(&self, buffer: &mut [u8], mut take: impl FnMut(&Message<'_>) -> Result<bool>) -> Result<()> {
        loop {
            let length = recv(self.0.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?;
            let mut rest = &buffer[..length];
            while let Some((message, next)) = split(rest) {
                if take(&message)? {
                    return Ok(());
                }
                rest = next;
            }
        }
    }
}

/// Whether it is an acknowledgement; an error where it is the contrary.
fn acknowledged(message: &Message<'_>) -> Result<Option<()>> {
    const ERROR: u16 = 2;
    if message.kind != ERROR {
        return Ok(None);
    }
    match message.payload.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
        Some(0) => Ok(Some(())),
        code => Err(Errno::from_raw(code.map_or(0, i32::wrapping_neg))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_are_written() {
        let two = [message(2, ACK, 1, b"abcde"), message(3, 0, 2, b"")].concat();
        let (first, rest) = split(&two).unwrap();
        assert_eq!(first, Message { kind: 2, flags: ACK | REQUEST, payload: b"abcde" });
        assert_eq!(split(rest), Some((Message { kind: 3, flags: REQUEST, payload: b"" }, &b""[..])));
    }

    #[test]
    fn attributes_are_read_as_they_are_written() {
        let two = [attribute(3, b"lo\0"), attribute(4 | NESTED, b"abcd"), attribute(5, b"")].concat();
        let read: Vec<_> = attributes(&two).collect();
        assert_eq!(read, [(3, &b"lo\0"[..]), (4, b"abcd"), (5, b"")]);
        assert_eq!(attributes(&two[..two.len() - 1]).count(), 2);
        assert_eq!(attributes(&[0; 8]).count(), 0);
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
    }

    #[test]
    fn truncated_messages_end_the_reading() {
        let whole = message(2, 0, 1, b"abcd");
        for length in 0..whole.len() {
            assert_eq!(split(&whole[..length]), None, "{length}");
        }
        assert_eq!(split(&[0xff; 20]), None);
        assert_eq!(split(&[0; 20]), None);
    }

    #[test]
    fn the_kernel_answers() {
        // RTM_GETLINK, all and one: every namespace has a loopback device.
        let socket = Netlink::open(SockProtocol::NetlinkRoute).unwrap();
        let links = socket.ask(&message(18, DUMP, 1, &[0; 16])).unwrap();
        let named = |link: &Vec<u8>| attributes(link.get(16..).unwrap_or_default()).any(|found| found == (3, b"lo\0"));
        assert_eq!(links.iter().filter(|link| named(link)).count(), 1);
        let none = [vec![0; 16], attribute(3, b"no-such-device\0")].concat();
        assert_eq!(socket.ask(&message(18, ACK, 2, &none)), Err(Errno::ENODEV));
    }
}
