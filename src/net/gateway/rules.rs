//! The gateway namespace's packet filter, as the messages that load it: one nftables transaction (nft(8)), in force
//! before the link is up.
//!
//! What the sandbox sends is answered by the gateway itself or refused at once; nothing is ever forwarded. All TCP is
//! steered to the proxy's socket, DNS to the responder's, whatever address it was meant for; where UDP is let out, a
//! socket of the proxy gets it as it is. IPv6, other UDP, ICMP and every other protocol are rejected before anything else of
//! the kernel sees them, so that clients fall back.
//!
//! Nothing is translated and no connection is kept in mind here: a socket has the address that its client meant for its
//! own ([`super::links::take_all`]). So what the kernel keeps of a sandbox is its sockets, which the proxy bounds.

use std::net::Ipv4Addr;

use super::Ports;
use crate::sys::netlink::{ACK, APPEND, CREATE, NESTED, write_attribute, write_message};

const TABLE: &str = "fumehood";

// linux/netfilter/nfnetlink.h
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NFTABLES: u16 = 10;

// linux/netfilter/nf_tables.h: messages
const NEW_TABLE: u16 = 0;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;

// linux/netfilter.h
const INET: u8 = 1;
const IPV4: u8 = 2;
const ACCEPT: u32 = 1;
const DROP: u32 = 0;

#[derive(Debug, Clone, Copy)]
enum Hook {
    Prerouting = 0,
    Forward = 2,
}

/// What a rule looks at, and what it does: the few expressions of nf_tables that are needed here.
#[derive(Debug, Clone, Copy)]
enum Expr {
    Ipv4,
    Protocol(u8),
    /// `ip saddr`
    From(Ipv4Addr),
    /// `ip daddr`
    To(Ipv4Addr),
    /// `th dport`
    Port(u16),
    /// `tcp flags & (syn | ack) != syn`: it doesn't ask for a connection.
    Within,
    Accept,
    /// `tproxy to`: a socket gets it, with the address that it was meant for.
    Steer(u16),
    /// `reject with icmpx port-unreachable`
    Reject,
}

const TCP: u8 = libc::IPPROTO_TCP as u8;
const UDP: u8 = libc::IPPROTO_UDP as u8;
const DNS: u16 = 53;
/// The whole transaction, and how many acknowledgements it is answered with.
#[must_use]
pub fn load(sandbox: Ipv4Addr, gateway: Ipv4Addr, ports: Ports, udp: bool) -> (Vec<u8>, usize) {
    use Expr::{Accept, From, Ipv4, Port, Protocol, Reject, Steer, To, Within};
    let taken: &[&[Expr]] = &[
        // To a socket of exactly these two ends, which was steered to before or was made here; or to none.
        &[Ipv4, From(sandbox), Protocol(TCP), Within, Accept],
        // These listen where they are asked for.
        &[Ipv4, From(sandbox), Protocol(TCP), Port(DNS), Accept],
        &[Ipv4, From(sandbox), Protocol(UDP), Port(DNS), Accept],
        &[Ipv4, From(sandbox), To(gateway), Protocol(TCP), Port(ports.explicit), Accept],
        &[Ipv4, From(sandbox), Protocol(TCP), Steer(ports.tcp), Accept],
    ];
    let datagrams: &[&[Expr]] =
        if udp { &[&[Ipv4, From(sandbox), Protocol(UDP), Steer(ports.udp), Accept]] } else { &[] };
    let refused: &[&[Expr]] = &[&[Ipv4, From(sandbox), Reject]];
    let steer = [taken, datagrams, refused].concat();
    let chain = |name, hook, priority, rules| Chain { name, hook, priority, rules };
    let chains = [chain("steer", Hook::Prerouting, -300, &steer[..]), chain("forward", Hook::Forward, 0, &[])];
    let mut batch = Batch::begin();
    batch.add(NEW_TABLE, |out| text(out, 1, TABLE));
    for Chain { name, hook, priority, .. } in &chains {
        batch.add(NEW_CHAIN, |out| {
            text(out, 1, TABLE);
            text(out, 3, name);
            nested(out, 4, |out| {
                number(out, 1, *hook as u32);
                number(out, 2, *priority as u32);
            });
            number(out, 5, DROP);
            text(out, 7, "filter");
        });
    }
    for Chain { name, rules, .. } in &chains {
        for rule in *rules {
            batch.add(NEW_RULE, |out| {
                text(out, 1, TABLE);
                text(out, 2, name);
                nested(out, 4, |out| rule.iter().for_each(|expr| expr.encode(out)));
            });
        }
    }
    batch.end()
}

struct Chain<'a> {
    name: &'static str,
    hook: Hook,
    priority: i32,
    rules: &'a [&'a [Expr]],
}

/// All in one buffer: this is on the way of every start.
struct Batch {
    bytes: Vec<u8>,
    messages: u32,
}

impl Batch {
    fn begin() -> Self {
        let mut batch = Self { bytes: Vec::with_capacity(ROOM), messages: 0 };
        batch.message(BATCH_BEGIN, 0, header(0, NFTABLES), |_| ());
        batch
    }

    fn add(&mut self, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
        let flags = ACK | CREATE | if kind == NEW_RULE { APPEND } else { 0 };
        self.message(NFTABLES << 8 | kind, flags, header(INET, 0), fill);
    }

    fn message(&mut self, kind: u16, flags: u16, header: [u8; 4], fill: impl FnOnce(&mut Vec<u8>)) {
        write_message(&mut self.bytes, kind, flags, self.messages, |bytes| {
            bytes.extend(header);
            fill(bytes);
        });
        self.messages += 1;
    }

    fn end(mut self) -> (Vec<u8>, usize) {
        let acknowledged = self.messages as usize - 1;
        self.message(BATCH_END, 0, header(0, NFTABLES), |_| ());
        (self.bytes, acknowledged)
    }
}

const ROOM: usize = 12 << 10;

/// `struct nfgenmsg`
fn header(family: u8, subsystem: u16) -> [u8; 4] {
    let [high, low] = subsystem.to_be_bytes();
    [family, 0, high, low]
}

type Out = Vec<u8>;

fn text(out: &mut Out, kind: u16, value: &str) {
    write_attribute(out, kind, |out| {
        out.extend(value.as_bytes());
        out.push(0);
    });
}

fn number(out: &mut Out, kind: u16, value: u32) {
    write_attribute(out, kind, |out| out.extend(value.to_be_bytes()));
}

fn nested(out: &mut Out, kind: u16, fill: impl FnOnce(&mut Out)) {
    write_attribute(out, kind | NESTED, fill);
}

impl Expr {
    fn encode(self, out: &mut Out) {
        // enum nft_meta_keys, nft_ct_keys, nft_payload_bases
        const FAMILY: u32 = 15;
        const PROTOCOL: u32 = 16;
        const NETWORK: u32 = 1;
        const TRANSPORT: u32 = 2;
        match self {
            Self::Ipv4 => {
                meta(out, FAMILY);
                compare(out, true, &[IPV4]);
            }
            Self::Protocol(protocol) => {
                meta(out, PROTOCOL);
                compare(out, true, &[protocol]);
            }
            Self::From(address) => {
                payload(out, NETWORK, 12, 4);
                compare(out, true, &address.octets());
            }
            Self::To(address) => {
                payload(out, NETWORK, 16, 4);
                compare(out, true, &address.octets());
            }
            Self::Port(port) => {
                payload(out, TRANSPORT, 2, 2);
                compare(out, true, &port.to_be_bytes());
            }
            Self::Within => {
                const SYN: u8 = 2;
                const ACK: u8 = 16;
                payload(out, TRANSPORT, 13, 1);
                mask(out, SYN | ACK);
                compare(out, false, &[SYN]);
            }
            Self::Accept => expression(out, "immediate", |out| {
                number(out, 1, 0);
                nested(out, 2, |out| nested(out, 2, |out| number(out, 1, ACCEPT)));
            }),
            Self::Steer(port) => {
                expression(out, "immediate", |out| {
                    number(out, 1, REGISTER);
                    value(out, 2, &port.to_be_bytes());
                });
                expression(out, "tproxy", |out| {
                    number(out, 1, u32::from(IPV4));
                    number(out, 3, REGISTER);
                });
            }
            Self::Reject => expression(out, "reject", |out| {
                number(out, 1, 2);
                write_attribute(out, 2, |out| out.push(1));
            }),
        }
    }
}

const REGISTER: u32 = 1;

fn expression(out: &mut Out, name: &str, fill: impl FnOnce(&mut Out)) {
    nested(out, 1, |out| {
        text(out, 1, name);
        nested(out, 2, fill);
    });
}

fn value(out: &mut Out, kind: u16, bytes: &[u8]) {
    nested(out, kind, |out| write_attribute(out, 1, |out| out.extend(bytes)));
}

fn meta(out: &mut Out, key: u32) {
    expression(out, "meta", |out| {
        number(out, 2, key);
        number(out, 1, REGISTER);
    });
}

/// Leaves these bits alone of the byte that was looked at.
fn mask(out: &mut Out, bits: u8) {
    expression(out, "bitwise", |out| {
        number(out, 1, REGISTER);
        number(out, 2, REGISTER);
        number(out, 3, 1);
        value(out, 4, &[bits]);
        value(out, 5, &[0]);
    });
}

fn payload(out: &mut Out, base: u32, offset: u32, length: u32) {
    expression(out, "payload", |out| {
        number(out, 1, REGISTER);
        number(out, 2, base);
        number(out, 3, offset);
        number(out, 4, length);
    });
}

fn compare(out: &mut Out, equal: bool, bytes: &[u8]) {
    expression(out, "cmp", |out| {
        number(out, 1, REGISTER);
        number(out, 2, u32::from(!equal));
        value(out, 3, bytes);
    });
}
