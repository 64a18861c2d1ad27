//! UDP, in the mode that lets it out: each flow of a client's with one address is a socket in the host's network, connected
//! to the one address that was checked.
//!
//! Nothing is read in it. What is refused is not answered, and told once in a while.

use std::{
    cell::RefCell,
    collections::HashMap,
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::{AsRawFd, OwnedFd},
    rc::Rc,
    time::Duration,
};

use nix::{
    cmsg_space,
    sys::socket::{AddressFamily, ControlMessageOwned, MsgFlags, SockType, SockaddrIn, recvmsg, sendto},
};
use tokio::{
    io::Interest,
    net::UdpSocket,
    sync::mpsc,
    task::spawn_local,
    time::{sleep, timeout},
};

use super::{
    Shared, Target,
    dial::resolve,
    stream::{First, first},
};
use crate::net::{
    Protocol,
    policy::{Host, Refusal, address},
};

/// Flows at once.
const FLOWS: usize = 256;
/// How long a silent one is kept.
const IDLE: Duration = Duration::from_secs(60);
/// How long a refused one is not looked at again.
const REFUSED: Duration = Duration::from_secs(2);
/// Packets that wait for a flow's socket; those beyond are lost, as they may be.
const WAITING: usize = 8;
const LARGEST: usize = 64 << 10;

/// Who sends, and whom to.
type Ends = (SocketAddrV4, SocketAddrV4);

pub(super) async fn pass_all(shared: Rc<Shared>, listener: UdpSocket, answers: OwnedFd) {
    let answers = Rc::new(answers);
    let flows: Rc<RefCell<HashMap<Ends, mpsc::Sender<Vec<u8>>>>> = Rc::default();
    let most = FLOWS.min(shared.limits.connections / 2);
    let mut buffer = vec![0; LARGEST];
    loop {
        let received = listener.async_io(Interest::READABLE, || receive(&listener, &mut buffer)).await;
        let Ok((length, ends)) = received else {
            sleep(Duration::from_millis(1)).await;
            continue;
        };
        let packet = buffer[..length].to_vec();
        if let Some(flow) = flows.borrow().get(&ends) {
            _ = flow.try_send(packet);
            continue;
        }
        if flows.borrow().len() >= most {
            let refusal = Refusal::new(format!("more than {most} flows of UDP at once"));
            shared.deny(Protocol::Udp, ends.1.to_string(), refusal);
            continue;
        }
        let (sender, packets) = mpsc::channel(WAITING);
        _ = sender.try_send(packet);
        flows.borrow_mut().insert(ends, sender);
        let (shared, answers, flows) = (shared.clone(), answers.clone(), flows.clone());
        spawn_local(async move {
            if let Err((target, refusal)) = carry(&shared, &answers, ends, packets).await {
                shared.deny(Protocol::Udp, target, refusal);
                sleep(REFUSED).await;
            }
            flows.borrow_mut().remove(&ends);
        });
    }
}

fn receive(listener: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Ends)> {
    let mut room = cmsg_space!(libc::sockaddr_in);
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrIn>(listener.as_raw_fd(), &mut slices, Some(&mut room), flags)?;
    let to = message.cmsgs()?.find_map(|found| match found {
        ControlMessageOwned::Ipv4OrigDstAddr(to) => {
            Some(SocketAddrV4::new(Ipv4Addr::from(u32::from_be(to.sin_addr.s_addr)), u16::from_be(to.sin_port)))
        }
        _ => None,
    });
    match (message.address, to) {
        (Some(from), Some(to)) => Ok((message.bytes, (SocketAddrV4::new(from.ip(), from.port()), to))),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Both ways, until nobody says anything or it is forbidden.
async fn carry(
    shared: &Shared,
    answers: &OwnedFd,
    ends: Ends,
    mut packets: mpsc::Receiver<Vec<u8>>,
) -> Result<(), (String, Refusal)> {
    let (client, to) = ends;
    let target = shared.target(to.into()).map_err(|refusal| (to.to_string(), refusal))?;
    let refused = |refusal| (target.to_string(), refusal);
    let mut policies = shared.policies.clone();
    policies.borrow_and_update().check_udp(&target.host, target.port).map_err(refused)?;
    let Some((server, address)) = open(shared, &target).await.map_err(refused)? else { return Ok(()) };
    let mut buffer = vec![0; LARGEST];
    loop {
        let next = first(packets.recv(), server.recv(&mut buffer));
        let Ok(next) = timeout(IDLE, next).await else { return Ok(()) };
        if policies.has_changed().unwrap_or(true) {
            let policy = policies.borrow_and_update().clone();
            let still = policy.check_udp(&target.host, target.port);
            still.and(policy.check_address(&target.host, target.port, address, false)).map_err(refused)?;
        }
        match next {
            First::Left(Some(packet)) => _ = server.send(&packet).await,
            First::Left(None) => return Ok(()),
            First::Right(Ok(length)) => answer(answers, to, client, &buffer[..length]),
            // Nobody listens there; the client finds out as it does everywhere.
            First::Right(Err(_)) => sleep(Duration::from_millis(1)).await,
        }
    }
}

/// A socket to the first of the target's addresses that may be sent to.
async fn open(shared: &Shared, target: &Target) -> Result<Option<(UdpSocket, IpAddr)>, Refusal> {
    let found = match &target.host {
        Host::Address(address) => [*address].into(),
        Host::Name(name) => match timeout(shared.limits.dial, resolve(shared, name)).await {
            Ok(Ok(found)) => found,
            _ => return Ok(None),
        },
    };
    let mut refusal = None;
    for address in found.iter().map(|address| address::normal(*address)) {
        let Ok(own) = (shared.outside.is_own)(address) else { continue };
        let checked = shared.policy().check_address(&target.host, target.port, address, own);
        // What --allow-private opens is a port of TCP.
        let special = address::special(address).map(|what| Refusal::new(what.to_string()));
        let special = special.or(own.then(|| Refusal::new("addresses of this host")));
        if let Some(why) = checked.err().or(special) {
            refusal = refusal.or(Some(why));
            continue;
        }
        let place = (shared.outside.route)(SocketAddr::new(address, target.port));
        let family = if place.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let Ok(socket) = shared.outside.socket(family, SockType::Datagram) else { continue };
        let Ok(socket) = UdpSocket::from_std(socket.into()) else { continue };
        if socket.connect(place).await.is_ok() {
            return Ok(Some((socket, address)));
        }
    }
    refusal.map_or(Ok(None), Err)
}

/// To the client, as from the address that it sent to. One that doesn't get through is lost, as it may be.
fn answer(answers: &OwnedFd, from: SocketAddrV4, to: SocketAddrV4, data: &[u8]) {
    const HEADERS: u16 = 28;
    const UDP: u8 = libc::IPPROTO_UDP as u8;
    let Some(length) = u16::try_from(data.len()).ok().and_then(|length| length.checked_add(HEADERS)) else { return };
    let mut packet = Vec::with_capacity(length.into());
    // The kernel fills in the sums that it wants; of UDP over IPv4, none says that there is none.
    packet.extend([0x45, 0]);
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    packet.extend(from.port().to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend((length - 20).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(data);
    let place = SockaddrIn::from(SocketAddrV4::new(*to.ip(), 0));
    _ = sendto(answers.as_raw_fd(), &packet, &place, MsgFlags::MSG_DONTWAIT);
}
