//! UDP, in the mode that lets it out: each flow of a client's with one address is a socket in the host's network, connected
//! to the one address that was checked.
//!
//! Nothing is read in it. What is refused is not answered, and told once in a while.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::{AsRawFd, OwnedFd},
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use nix::{
    cmsg_space,
    sys::socket::{AddressFamily, ControlMessageOwned, MsgFlags, SockType, SockaddrIn, recvmsg, sendto},
};
use tokio::{
    io::Interest,
    net::UdpSocket,
    sync::{mpsc, watch},
    task::spawn_local,
    time::{sleep, timeout},
};

use super::{
    Shared, Target,
    account::Account,
    dial::resolve,
    stream::{First, first, patient, with_room},
};
use crate::net::{
    Policy, Protocol,
    policy::{Host, Refusal, address},
};

/// Flows at once.
const FLOWS: usize = 256;
/// How long a silent one is kept.
const IDLE: Duration = Duration::from_secs(60);
/// How long a refused one is not looked at again.
const REFUSED: Duration = Duration::from_secs(2);
/// Packets that wait for a flow's socket, and bytes that wait for all of them; those beyond are lost, as they may be.
const WAITING: usize = 8;
const WAITING_BYTES: usize = 4 << 20;
const LARGEST: usize = 64 << 10;

/// Who sends, and whom to.
type Ends = (SocketAddrV4, SocketAddrV4);

pub(super) async fn pass_all(shared: Rc<Shared>, listener: UdpSocket, answers: OwnedFd) {
    let answers = Rc::new(answers);
    let flows: Rc<RefCell<HashMap<Ends, mpsc::Sender<Packet>>>> = Rc::default();
    let waiting = Rc::new(Cell::new(0));
    let most = FLOWS.min(shared.limits.connections / 2);
    let mut buffer = vec![0; LARGEST];
    loop {
        let received = listener.async_io(Interest::READABLE, || receive(&listener, &mut buffer)).await;
        let Ok((length, ends)) = received else {
            sleep(Duration::from_millis(1)).await;
            continue;
        };
        let Some(packet) = Packet::keep(&buffer[..length], &waiting) else { continue };
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
        let cut = shared.cut();
        spawn_local(async move {
            let carried = first(pin!(cut), pin!(carry(&shared, &answers, ends, packets))).await;
            if let First::Right(Err(())) = carried {
                sleep(REFUSED).await;
            }
            flows.borrow_mut().remove(&ends);
        });
    }
}

/// One that waits for its flow's socket.
struct Packet {
    bytes: Vec<u8>,
    waiting: Rc<Cell<usize>>,
}

impl Packet {
    /// `None`: too many bytes wait.
    fn keep(bytes: &[u8], waiting: &Rc<Cell<usize>>) -> Option<Self> {
        let all = waiting.get() + bytes.len();
        (all <= WAITING_BYTES).then(|| {
            waiting.set(all);
            Self { bytes: bytes.to_vec(), waiting: waiting.clone() }
        })
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        self.waiting.set(self.waiting.get() - self.bytes.len());
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

/// Both ways, until nobody says anything or it is forbidden, which is told.
async fn carry(shared: &Shared, answers: &OwnedFd, ends: Ends, packets: mpsc::Receiver<Packet>) -> Result<(), ()> {
    let target = match shared.target(ends.1.into()) {
        Ok(target) => target,
        Err(refusal) => {
            shared.deny(Protocol::Udp, ends.1.to_string(), refusal);
            return Err(());
        }
    };
    let mut policies = shared.policies.clone();
    let checked = policies.borrow_and_update().check_udp(&target.host, target.port);
    let account = match checked {
        Ok(()) => Account::open(shared, Protocol::Udp, &target),
        Err(refusal) => {
            shared.deny(Protocol::Udp, target.to_string(), refusal);
            return Err(());
        }
    };
    let passed = pass((answers, ends), &target, policies, packets, &account).await;
    passed.map_err(|refusal| shared.deny_open(&account, Protocol::Udp, &target, refusal))
}

async fn pass(
    (answers, (client, to)): (&OwnedFd, Ends),
    target: &Target,
    mut policies: watch::Receiver<Arc<Policy>>,
    mut packets: mpsc::Receiver<Packet>,
    account: &Account<'_>,
) -> Result<(), Refusal> {
    let Some((server, address)) = open(account, target).await? else { return Ok(()) };
    loop {
        // What is there is read below, into room that all flows share.
        let next = timeout(IDLE, first(pin!(packets.recv()), pin!(server.readable()))).await;
        let Ok(next) = next else { return Ok(()) };
        if policies.has_changed().unwrap_or(true) {
            let policy = policies.borrow_and_update().clone();
            policy.check_udp(&target.host, target.port)?;
            policy.check_address(&target.host, target.port, address, false)?;
        }
        match next {
            First::Left(Some(packet)) => {
                if let Ok(sent) = server.send(&packet.bytes).await {
                    account.count(sent as u64, 0);
                }
            }
            First::Left(None) => return Ok(()),
            First::Right(_) => {
                let received = with_room(|room| {
                    let length = server.try_recv(&mut room[..LARGEST])?;
                    answer(answers, to, client, &room[..length]);
                    Ok(length as u64)
                });
                match received {
                    Ok(length) => account.count(0, length),
                    Err(error) if io::Error::kind(&error) == io::ErrorKind::WouldBlock => {}
                    // Nobody listens there; the client finds out as it does everywhere.
                    Err(_) => sleep(Duration::from_millis(1)).await,
                }
            }
        }
    }
}

/// A socket to the first of the target's addresses that may be sent to.
async fn open(account: &Account<'_>, target: &Target) -> Result<Option<(UdpSocket, IpAddr)>, Refusal> {
    let shared = account.shared;
    let found = match &target.host {
        Host::Address(address) => [*address].into(),
        Host::Name(name) => match patient(shared.limits.dial, resolve(shared, name)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                account.failed(&error.to_string());
                return Ok(None);
            }
            Err(_) => {
                account.failed("its name is not resolved in time");
                return Ok(None);
            }
        },
    };
    let mut refusal = None;
    for address in found.iter().map(|address| address::normal(*address)) {
        let Ok(own) = shared.is_own(address) else { continue };
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
            account.dialled(address);
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
