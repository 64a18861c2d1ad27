//! Can a network of a sandbox's own be made: the gateway's veth pair and nftables redirect (see the egress
//! design), tried over netlink in a namespace of their own. No program of the host is needed for them.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::{
    errno::Errno,
    sched::CloneFlags,
    sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket},
};

use super::{
    Check,
    child::{Failure, Trial, in_namespaces, step},
};
use crate::{host::circumstances::Circumstances, sys};

const NEW_NET: i32 = CloneFlags::CLONE_NEWNET.bits();

pub(super) fn check(around: &Circumstances, checks: &mut Vec<Check>) {
    let loopback = in_namespaces(NEW_NET, || step("loopback", "lo", loopback()));
    checks.push(
        Check::of_trial(around, "loopback", loopback, "comes up in a network namespace")
            .at_most_degraded("no localhost inside"),
    );
    let egress = in_namespaces(NEW_NET, || {
        veth()?;
        redirect()
    });
    checks.push(
        Check::of_trial(around, "egress", egress, "veth and nftables redirect work in a network namespace")
            .at_most_degraded("--allow is refused, offline sandboxes run")
            .or_fix("sudo modprobe -a veth nf_tables nft_chain_nat nft_redir"),
    );
}

/// As a launch does it: a namespace more, made aside.
fn loopback() -> sys::Result<()> {
    let mut network = sys::aside::Network::new();
    network.start()?;
    network.join()
}

fn veth() -> Trial {
    const NEWLINK: u16 = 16;
    const LINKINFO: u16 = 18;
    const INFO_KIND: u16 = 1;
    let socket = open("veth", SockProtocol::NetlinkRoute)?;
    let link = [vec![0; 16], attribute(LINKINFO, &attribute(INFO_KIND, b"veth"))].concat();
    transact(&socket, "veth", &[message(NEWLINK, CREATE | EXCLUSIVE | ACK, 1, &link)], 1)
}

/// A table with a NAT chain and a `redirect` rule, as one transaction (linux/netfilter/nf_tables.h).
fn redirect() -> Trial {
    const BATCH_BEGIN: u16 = 16;
    const BATCH_END: u16 = 17;
    const NFTABLES: u16 = 10 << 8;
    const NEWTABLE: u16 = NFTABLES;
    const NEWCHAIN: u16 = NFTABLES | 3;
    const NEWRULE: u16 = NFTABLES | 6;
    const INET: u8 = 1;
    let socket = open("nft", SockProtocol::NetlinkNetFilter)?;
    let table = b"fumehood\0";
    let hook = [attribute(1, &0u32.to_be_bytes()), attribute(2, &(-100i32).to_be_bytes())].concat();
    let chain = [attribute(1, table), attribute(3, b"gate\0"), attribute(4 | NESTED, &hook), attribute(7, b"nat\0")];
    let expression = attribute(1 | NESTED, &attribute(1, b"redir\0"));
    let rule = [attribute(1, table), attribute(2, b"gate\0"), attribute(4 | NESTED, &expression)];
    let general =
        |family: u8, resource: u16, attributes: &[u8]| [&[family, 0][..], &resource.to_be_bytes(), attributes].concat();
    let batch = [
        message(BATCH_BEGIN, 0, 0, &general(0, 10, &[])),
        message(NEWTABLE, CREATE | ACK, 1, &general(INET, 0, &attribute(1, table))),
        message(NEWCHAIN, CREATE | ACK, 2, &general(INET, 0, &chain.concat())),
        message(NEWRULE, CREATE | APPEND | ACK, 3, &general(INET, 0, &rule.concat())),
        message(BATCH_END, 0, 4, &general(0, 10, &[])),
    ];
    transact(&socket, "nft", &batch, 3)
}

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;

/// A netlink message (netlink(7)): header, then payload.
fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let length = 16 + payload.len() as u32;
    let mut bytes = Vec::with_capacity(length as usize);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | REQUEST).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend(payload);
    pad(&mut bytes);
    bytes
}

/// A length-kind-value attribute.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    pad(&mut bytes);
    bytes
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn open(object: &str, protocol: SockProtocol) -> Result<OwnedFd, Failure> {
    step("netlink", object, socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol))
}

/// Sends `messages` at once and reads until `acknowledgements` came or one error. The kernel has answered by
/// the time the send returns, so that not waiting is enough.
fn transact(socket: &OwnedFd, object: &str, messages: &[Vec<u8>], acknowledgements: usize) -> Trial {
    const ERROR: u16 = 2;
    let fd = socket.as_raw_fd();
    step("netlink", object, sendto(fd, &messages.concat(), &NetlinkAddr::new(0, 0), MsgFlags::empty()))?;
    let mut seen = 0;
    let mut buffer = [0; 8192];
    while seen < acknowledgements {
        let length = step("netlink", object, recv(fd, &mut buffer, MsgFlags::MSG_DONTWAIT))?;
        let mut rest = &buffer[..length];
        while let Some((kind, payload, next)) = split_message(rest) {
            if kind == ERROR {
                match payload.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
                    Some(0) => seen += 1,
                    code => {
                        let errno = Errno::from_raw(code.map_or(0, i32::wrapping_neg));
                        return step("netlink", object, Err(errno));
                    }
                }
            }
            rest = next;
        }
    }
    Ok(())
}

/// The kind and payload of the first message in `bytes`, and what follows it.
fn split_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let payload = bytes.get(16..length)?;
    Some((kind, payload, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_are_written() {
        let two = [message(2, ACK, 1, b"abcde"), message(3, 0, 2, b"")].concat();
        let (kind, payload, rest) = split_message(&two).unwrap();
        assert_eq!((kind, payload), (2, &b"abcde"[..]));
        assert_eq!(split_message(rest), Some((3, &b""[..], &b""[..])));
    }

    #[test]
    fn truncated_messages_end_the_reading() {
        let whole = message(2, 0, 1, b"abcd");
        for length in 0..whole.len() {
            assert_eq!(split_message(&whole[..length]), None, "{length}");
        }
        assert_eq!(split_message(&[0xff; 20]), None);
        assert_eq!(split_message(&[0; 20]), None);
    }
}
