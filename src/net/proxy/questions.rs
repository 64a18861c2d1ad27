//! Questions of DNS, over UDP and TCP: all are answered here, and none leaves the host.

use std::{
    cell::Cell,
    io::{self, IoSlice, IoSliceMut},
    os::fd::AsRawFd,
    rc::Rc,
    time::Duration,
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg},
};
use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream, UdpSocket},
    task::spawn_local,
    time::{sleep, timeout},
};

use super::{
    Shared, accept,
    stream::{end_writing, heard, read_more, write_all},
};
use crate::net::{Contact, Protocol, dns, policy::Host};

/// Connections for them, and how long one may be silent.
pub(super) const CONNECTIONS: usize = 64;
const SILENCE: Duration = Duration::from_secs(5);

impl Shared {
    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let now = std::time::Instant::now();
        let (answer, refused) = dns::answer(question, &self.policy(), &mut self.pool.borrow_mut(), now)?;
        if let Some((name, refusal)) = refused {
            self.deny(Protocol::Dns, name, refusal);
        } else if let Some(log) = &self.log
            && let Some(name) = dns::asked(question)
        {
            let host = Host::Name(name);
            let rule = self.policy().allowed_by(&host, None);
            log(Contact::new(Protocol::Dns, host.to_string(), rule));
        }
        Some(answer)
    }
}

pub(super) async fn answer_udp(shared: Rc<Shared>, socket: UdpSocket) {
    let mut buffer = [0; 1500];
    loop {
        match socket.async_io(Interest::READABLE, || receive(&socket, &mut buffer)).await {
            Ok((length, ends)) => {
                if let Some(answer) = shared.answer(&buffer[..length]) {
                    // One that is lost is asked for again.
                    _ = socket.async_io(Interest::WRITABLE, || send(&socket, &answer, ends)).await;
                }
            }
            // An answer that nobody wanted comes back as an error.
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
}

/// Who asked, and at which of all the addresses that the socket has.
type Ends = (SockaddrIn, libc::in_addr);

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Ends)> {
    let mut room = cmsg_space!(libc::in_pktinfo);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut slices, Some(&mut room), MsgFlags::MSG_DONTWAIT)?;
    let asked = message.cmsgs()?.find_map(|found| match found {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(info.ipi_addr),
        _ => None,
    });
    match (message.address, asked) {
        (Some(client), Some(asked)) => Ok((message.bytes, (client, asked))),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn send(socket: &UdpSocket, answer: &[u8], (client, asked): Ends) -> io::Result<()> {
    let from = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: asked, ipi_addr: asked };
    let control = [ControlMessage::Ipv4PacketInfo(&from)];
    let slices = [IoSlice::new(answer)];
    sendmsg(socket.as_raw_fd(), &slices, &control, MsgFlags::MSG_DONTWAIT, Some(&client))?;
    Ok(())
}

pub(super) async fn answer_tcp(shared: Rc<Shared>, listener: TcpListener) {
    let open = Rc::new(Cell::new(0));
    loop {
        let client = accept(&listener).await;
        if open.get() >= CONNECTIONS {
            _ = client.set_zero_linger();
            continue;
        }
        open.set(open.get() + 1);
        let (shared, open) = (shared.clone(), open.clone());
        spawn_local(async move {
            _ = answer_stream(&shared, &client).await;
            _ = end_writing(&client);
            if timeout(SILENCE, heard(&client)).await.is_err() {
                _ = client.set_zero_linger();
            }
            open.set(open.get() - 1);
        });
    }
}

/// Questions one after another, each behind its length.
async fn answer_stream(shared: &Shared, client: &TcpStream) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        while let Some(length) = buffer.first_chunk().map(|two| usize::from(u16::from_be_bytes(*two)))
            && let Some(question) = buffer.get(2..2 + length)
        {
            let Some(answer) = shared.answer(question) else { return Ok(()) };
            let framed = [&(answer.len() as u16).to_be_bytes()[..], &answer].concat();
            timeout(SILENCE, write_all(client, &framed)).await??;
            buffer.drain(..2 + length);
        }
        if timeout(SILENCE, read_more(client, &mut buffer, 1500)).await?? == 0 {
            return Ok(());
        }
    }
}
