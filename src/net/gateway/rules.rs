//! The gateway namespace's packet filter, as the messages that load it: one nftables transaction (nft(8)), in force
//! before the link is up.
//!
//! What the sandbox sends is answered by the gateway itself or refused at once; nothing is ever forwarded. All TCP is
//! redirected to the proxy, DNS to the responder, whatever address it was meant for; where UDP is let out, a socket of the
//! proxy gets it as it is. IPv6, other UDP, ICMP and every other protocol are rejected before anything else of the kernel
//! sees them, so that clients fall back.

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
    Input = 1,
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
    /// `ct state established`
    Established,
    /// `ct status dnat`: it was redirected.
    Redirected,
    /// `ct count over`
    MoreThan(u32),
    Accept,
    Redirect(u16),
    /// `tproxy to`: a socket gets it, with the address that it was meant for.
    Steer(u16),
    /// `reject with tcp reset`
    Reset,
    /// `reject with icmpx port-unreachable`
    Reject,
}

const TCP: u8 = libc::IPPROTO_TCP as u8;
const UDP: u8 = libc::IPPROTO_UDP as u8;
const DNS: u16 = 53;
/// Connections of one sandbox that the kernel keeps in mind: more than the proxy takes, and a bound to its memory.
const MOST_CONNECTIONS: u32 = 4096;
/// Questions, each of which it keeps in mind for a while after it was answered.
const MOST_QUESTIONS: u32 = 16384;

/// The whole transaction, and how many acknowledgements it is answered with.
#[must_use]
pub fn load(sandbox: Ipv4Addr, gateway: Ipv4Addr, ports: Ports, udp: bool) -> (Vec<u8>, usize) {
    use Expr::{
        Accept, Established, From, Ipv4, MoreThan, Port, Protocol, Redirect, Redirected, Reject, Reset, Steer, To,
    };
    let early: &[&[Expr]] = &[
        &[Ipv4, From(sandbox), Protocol(TCP), Accept],
        if udp {
            &[Ipv4, From(sandbox), Protocol(UDP), Accept]
        } else {
            &[Ipv4, From(sandbox), Protocol(UDP), Port(DNS), Accept]
        },
        &[Ipv4, From(sandbox), Reject],
    ];
    let steer: &[&[Expr]] = &[&[Protocol(UDP), Port(DNS), Accept], &[Ipv4, Protocol(UDP), Steer(ports.udp), Accept]];
    let divert: &[&[Expr]] = &[
        &[Protocol(UDP), Port(DNS), Redirect(ports.dns)],
        &[Protocol(TCP), Port(DNS), Redirect(ports.dns)],
        &[Ipv4, To(gateway), Protocol(TCP), Port(ports.explicit), Accept],
        &[Protocol(TCP), Redirect(ports.tcp)],
    ];
    // What was meant for the gateway's own DNS was not redirected by being redirected.
    let input: &[&[Expr]] = &[
        &[Established, Accept],
        &[Protocol(UDP), MoreThan(MOST_QUESTIONS), Reject],
        &[Protocol(TCP), MoreThan(MOST_CONNECTIONS), Reset],
        &[Protocol(TCP), Redirected, Accept],
        &[Protocol(UDP), Redirected, Accept],
        &[Ipv4, To(gateway), Protocol(UDP), Port(ports.dns), Accept],
        &[Ipv4, To(gateway), Protocol(TCP), Port(ports.dns), Accept],
        &[Ipv4, To(gateway), Protocol(TCP), Port(ports.explicit), Accept],
        if udp { &[Protocol(UDP), Accept] } else { &[Protocol(UDP), Reject] },
        &[Protocol(TCP), Reset],
        &[Reject],
    ];
    let chain = |name, kind, hook, priority, policy, rules| Chain { name, kind, hook, priority, policy, rules };
    let mut chains = vec![
        chain("early", "filter", Hook::Prerouting, -300, DROP, early),
        chain("divert", "nat", Hook::Prerouting, -100, ACCEPT, divert),
        chain("input", "filter", Hook::Input, 0, DROP, input),
        chain("forward", "filter", Hook::Forward, 0, DROP, &[]),
    ];
    if udp {
        chains.push(chain("steer", "filter", Hook::Prerouting, -150, ACCEPT, steer));
    }
    let mut batch = Batch::begin();
    batch.add(NEW_TABLE, |out| text(out, 1, TABLE));
    for Chain { name, kind, hook, priority, policy, .. } in &chains {
        batch.add(NEW_CHAIN, |out| {
            text(out, 1, TABLE);
            text(out, 3, name);
            nested(out, 4, |out| {
                number(out, 1, *hook as u32);
                number(out, 2, *priority as u32);
            });
            number(out, 5, *policy);
            text(out, 7, kind);
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
    kind: &'static str,
    hook: Hook,
    priority: i32,
    policy: u32,
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
        const STATE: u32 = 0;
        const STATUS: u32 = 2;
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
            Self::Established => conntrack(out, STATE, 1 << 1),
            Self::Redirected => conntrack(out, STATUS, 1 << 5),
            Self::MoreThan(count) => expression(out, "connlimit", |out| {
                number(out, 1, count);
                number(out, 2, 1);
            }),
            Self::Accept => expression(out, "immediate", |out| {
                number(out, 1, 0);
                nested(out, 2, |out| nested(out, 2, |out| number(out, 1, ACCEPT)));
            }),
            Self::Redirect(port) => {
                expression(out, "immediate", |out| {
                    number(out, 1, REGISTER);
                    value(out, 2, &port.to_be_bytes());
                });
                expression(out, "redir", |out| {
                    number(out, 1, REGISTER);
                    // NF_NAT_RANGE_PROTO_SPECIFIED
                    number(out, 3, 2);
                });
            }
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
            Self::Reset => reject(out, 1, 0),
            Self::Reject => reject(out, 2, 1),
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

/// Whether any of `bits` is set there.
fn conntrack(out: &mut Out, key: u32, bits: u32) {
    expression(out, "ct", |out| {
        number(out, 2, key);
        number(out, 1, REGISTER);
    });
    expression(out, "bitwise", |out| {
        number(out, 1, REGISTER);
        number(out, 2, REGISTER);
        number(out, 3, 4);
        value(out, 4, &bits.to_ne_bytes());
        value(out, 5, &[0; 4]);
    });
    compare(out, false, &[0; 4]);
}

fn payload(out: &mut Out, base: u32, offset: u32, length: u32) {
    expression(out, "payload", |out| {
        number(out, 1, REGISTER);
        number(out, 2, base);
        number(out, 3, offset);
        number(out, 4, length);
    });
}

fn reject(out: &mut Out, kind: u32, code: u8) {
    expression(out, "reject", |out| {
        number(out, 1, kind);
        write_attribute(out, 2, |out| out.push(code));
    });
}

fn compare(out: &mut Out, equal: bool, bytes: &[u8]) {
    expression(out, "cmp", |out| {
        number(out, 1, REGISTER);
        number(out, 2, u32::from(!equal));
        value(out, 3, bytes);
    });
}
