//! Can a network of a sandbox's own be made: the gateway's veth pair and nftables redirect (see the egress
//! design), tried over netlink in a namespace of their own. No program of the host is needed for them.

use nix::{sched::CloneFlags, sys::socket::SockProtocol};

use super::{
    Check,
    child::{Failure, Trial, in_namespaces, step},
};
use crate::{
    host::circumstances::Circumstances,
    sys::{
        self,
        netlink::{ACK, APPEND, CREATE, EXCLUSIVE, NESTED, Netlink, attribute, message},
    },
};

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

fn open(object: &str, protocol: SockProtocol) -> Result<Netlink, Failure> {
    step("netlink", object, Netlink::open(protocol))
}

fn transact(socket: &Netlink, object: &str, messages: &[Vec<u8>], acknowledgements: usize) -> Trial {
    step("netlink", object, socket.transact(messages, acknowledgements))
}
