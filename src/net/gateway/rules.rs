//! The gateway namespace's packet filter, as the messages that load it: one nftables transaction (nft(8)), in force
//! before the link is up.
//!
//! What the sandbox sends is answered by the gateway itself or refused at once; nothing is ever forwarded. All TCP is
//! redirected to the proxy, DNS to the responder, whatever address it was meant for. IPv6, other UDP, ICMP and every
//! other protocol are rejected before anything else of the kernel sees them, so that clients fall back.

use std::net::Ipv4Addr;

use super::Ports;
use crate::sys::netlink::{ACK, APPEND, CREATE, NESTED, attribute, message};

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
pub fn load(sandbox: Ipv4Addr, gateway: Ipv4Addr, ports: Ports) -> (Vec<Vec<u8>>, usize) {
    use Expr::{Accept, Established, From, Ipv4, MoreThan, Port, Protocol, Redirect, Redirected, Reject, Reset, To};
    let early: &[&[Expr]] = &[
        &[Ipv4, From(sandbox), Protocol(TCP), Accept],
        &[Ipv4, From(sandbox), Protocol(UDP), Port(DNS), Accept],
        &[Ipv4, From(sandbox), Reject],
    ];
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
        &[Protocol(TCP), Reset],
        &[Reject],
    ];
    let chain = |name, kind, hook, priority, policy, rules| Chain { name, kind, hook, priority, policy, rules };
    let chains = [
        chain("early", "filter", Hook::Prerouting, -300, DROP, early),
        chain("divert", "nat", Hook::Prerouting, -100, ACCEPT, divert),
        chain("input", "filter", Hook::Input, 0, DROP, input),
        chain("forward", "filter", Hook::Forward, 0, DROP, &[]),
    ];
    let mut batch = Batch::begin();
    batch.add(NEW_TABLE, &[text(1, TABLE)]);
    for Chain { name, kind, hook, priority, policy, .. } in &chains {
        let hook = nested(4, &[number(1, *hook as u32), number(2, *priority as u32)]);
        batch.add(NEW_CHAIN, &[text(1, TABLE), text(3, name), hook, number(5, *policy), text(7, kind)]);
    }
    for Chain { name, rules, .. } in &chains {
        for rule in *rules {
            let expressions: Vec<_> = rule.iter().flat_map(|expr| expr.encode()).collect();
            batch.add(NEW_RULE, &[text(1, TABLE), text(2, name), nested(4, &expressions)]);
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

struct Batch {
    messages: Vec<Vec<u8>>,
}

impl Batch {
    fn begin() -> Self {
        Self { messages: vec![message(BATCH_BEGIN, 0, 0, &header(0, NFTABLES))] }
    }

    fn add(&mut self, kind: u16, attributes: &[Vec<u8>]) {
        let payload = [header(INET, 0).to_vec(), attributes.concat()].concat();
        let flags = ACK | CREATE | if kind == NEW_RULE { APPEND } else { 0 };
        let sequence = self.messages.len() as u32;
        self.messages.push(message(NFTABLES << 8 | kind, flags, sequence, &payload));
    }

    fn end(mut self) -> (Vec<Vec<u8>>, usize) {
        let acknowledged = self.messages.len() - 1;
        self.messages.push(message(BATCH_END, 0, 0, &header(0, NFTABLES)));
        (self.messages, acknowledged)
    }
}

/// `struct nfgenmsg`
fn header(family: u8, subsystem: u16) -> [u8; 4] {
    let [high, low] = subsystem.to_be_bytes();
    [family, 0, high, low]
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), b"\0"].concat())
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn nested(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NESTED, &attributes.concat())
}

impl Expr {
    fn encode(self) -> Vec<Vec<u8>> {
        // enum nft_meta_keys, nft_ct_keys, nft_payload_bases
        const FAMILY: u32 = 15;
        const PROTOCOL: u32 = 16;
        const STATE: u32 = 0;
        const STATUS: u32 = 2;
        const NETWORK: u32 = 1;
        const TRANSPORT: u32 = 2;
        match self {
            Self::Ipv4 => vec![meta(FAMILY), compare(true, &[IPV4])],
            Self::Protocol(protocol) => vec![meta(PROTOCOL), compare(true, &[protocol])],
            Self::From(address) => vec![payload(NETWORK, 12, 4), compare(true, &address.octets())],
            Self::To(address) => vec![payload(NETWORK, 16, 4), compare(true, &address.octets())],
            Self::Port(port) => vec![payload(TRANSPORT, 2, 2), compare(true, &port.to_be_bytes())],
            Self::Established => vec![conntrack(STATE), mask(1 << 1), compare(false, &[0; 4])],
            Self::Redirected => vec![conntrack(STATUS), mask(1 << 5), compare(false, &[0; 4])],
            Self::MoreThan(count) => vec![expression("connlimit", &[number(1, count), number(2, 1)])],
            Self::Accept => {
                let verdict = nested(2, &[number(1, ACCEPT)]);
                vec![expression("immediate", &[number(1, 0), nested(2, &[verdict])])]
            }
            Self::Redirect(port) => vec![
                expression("immediate", &[number(1, REGISTER), value(2, &port.to_be_bytes())]),
                // NF_NAT_RANGE_PROTO_SPECIFIED
                expression("redir", &[number(1, REGISTER), number(3, 2)]),
            ],
            Self::Reset => vec![expression("reject", &[number(1, 1), attribute(2, &[0])])],
            Self::Reject => vec![expression("reject", &[number(1, 2), attribute(2, &[1])])],
        }
    }
}

const REGISTER: u32 = 1;

fn expression(name: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    nested(1, &[text(1, name), nested(2, attributes)])
}

fn value(kind: u16, bytes: &[u8]) -> Vec<u8> {
    nested(kind, &[attribute(1, bytes)])
}

fn meta(key: u32) -> Vec<u8> {
    expression("meta", &[number(2, key), number(1, REGISTER)])
}

fn conntrack(key: u32) -> Vec<u8> {
    expression("ct", &[number(2, key), number(1, REGISTER)])
}

fn payload(base: u32, offset: u32, length: u32) -> Vec<u8> {
    expression("payload", &[number(1, REGISTER), number(2, base), number(3, offset), number(4, length)])
}

fn mask(bits: u32) -> Vec<u8> {
    let parts = [number(1, REGISTER), number(2, REGISTER), number(3, 4), value(4, &bits.to_ne_bytes())];
    expression("bitwise", &[parts.concat(), value(5, &[0; 4])])
}

fn compare(equal: bool, bytes: &[u8]) -> Vec<u8> {
    expression("cmp", &[number(1, REGISTER), number(2, u32::from(!equal)), value(3, bytes)])
}
