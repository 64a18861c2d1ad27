//! Clients that know of a proxy: HTTP's `CONNECT` and whole URLs, and SOCKS5, told apart by the first byte.
//!
//! They only name their target in another way. What they may reach, and what may be said there, is decided by the same
//! code as for those that don't know.

use std::net::SocketAddr;

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    Shared, Target,
    connection::{Opening, carry, page},
    head::{self, Kind, Sent},
    own_address, socks,
    stream::{farewell, read_more, write_all},
};
use crate::net::{
    Protocol,
    policy::{Host, Refusal},
};

/// The port of a URL that has none.
const HTTP_PORT: u16 = 80;
const STEP: usize = 4 << 10;

pub(super) async fn explicit(shared: &Shared, client: TcpStream) {
    let mut asking = Asking { shared, client, buffer: Vec::new(), deadline: None };
    if asking.more().await.is_none() {
        return;
    }
    if asking.buffer[0] == socks::VERSION { asking.socks().await } else { asking.http().await }
}

struct Asking<'a> {
    shared: &'a Shared,
    client: TcpStream,
    buffer: Vec<u8>,
    deadline: Option<Instant>,
}

impl Asking<'_> {
    /// Reads more; `None` when nothing comes, or not in time.
    async fn more(&mut self) -> Option<()> {
        let read = read_more(&self.client, &mut self.buffer, STEP);
        let length = match self.deadline {
            None => read.await,
            Some(deadline) => timeout_at(deadline, read).await.ok()?,
        };
        self.deadline.get_or_insert_with(|| Instant::now() + self.shared.limits.head);
        length.is_ok_and(|length| length > 0).then_some(())
    }

    async fn http(mut self) {
        let head = loop {
            match head::parse(&self.buffer, Sent::Proxied) {
                Ok(Some(head)) => break head,
                Ok(None) => {
                    if self.more().await.is_none() {
                        return;
                    }
                }
                Err(why) => {
                    self.shared.deny(Protocol::Http, own_address(&self.client), Refusal::new(why.to_string()));
                    let words = page("400 Bad Request", &format!("fumehood: the request was not understood: {why}"));
                    return farewell(self.client, &words, self.shared.limits.farewell).await;
                }
            }
        };
        let (host, port) = (head.host, head.port.unwrap_or(HTTP_PORT));
        let opening = match head.kind {
            Kind::Connect => Opening::Connect,
            Kind::Request { body, direct, .. } => Opening::Plain { head: direct.unwrap_or_default(), body },
        };
        self.buffer.drain(..head.end);
        self.carry(host, port, opening).await;
    }

    async fn socks(mut self) {
        let greeting = loop {
            match socks::greeting(&self.buffer) {
                Some(greeting) => break greeting,
                None if self.more().await.is_none() => return,
                None => {}
            }
        };
        if !greeting.open {
            let refusal = Refusal::new("it wants a name and a password, and there are none");
            self.shared.deny(Protocol::Socks, own_address(&self.client), refusal);
            return farewell(self.client, &socks::UNWELCOME, self.shared.limits.farewell).await;
        }
        self.buffer.drain(..greeting.end);
        if write_all(&self.client, &socks::WELCOME).await.is_err() {
            return;
        }
        let request = loop {
            match socks::request(&self.buffer) {
                Ok(Some(request)) => break request,
                Ok(None) => {
                    if self.more().await.is_none() {
                        return;
                    }
                }
                Err((code, why)) => {
                    self.shared.deny(Protocol::Socks, own_address(&self.client), Refusal::new(why));
                    return farewell(self.client, &socks::answer(code), self.shared.limits.farewell).await;
                }
            }
        };
        self.buffer.drain(..request.end);
        self.carry(request.host, request.port, Opening::Socks).await;
    }

    async fn carry(self, host: Host, port: u16, opening: Opening) {
        let target = match host {
            // One that was looked up stands for its name here too.
            Host::Address(address) => self.shared.target(SocketAddr::new(address, port)),
            Host::Name(_) => Ok(Target { host: host.clone(), port }),
        };
        carry(
            self.shared,
            self.client,
            target.map_err(|refusal| (format!("{host}:{port}"), refusal)),
            self.buffer,
            opening,
        )
        .await;
    }
}
