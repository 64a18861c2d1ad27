//! What a client may say to the server behind a name, and nothing of it gets there before it was read.
//! To one at an address it may say all but names that are denied.
//!
//! TLS must have the name on its hello; each request of cleartext HTTP must be for it; anything else goes through as
//! it is, since it is the name's own server at the other end.

use std::io;

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    Shared, Target,
    account::Account,
    dial::hurry,
    head::{self, Body, Chunks, Kind, Looks, Sent},
    hello,
    relay::{self, Flow},
    stream::{bound, end_writing, read_more, write_all},
};
use crate::net::{
    Protocol,
    policy::{Host, Name, Refusal},
};

/// Bytes read at once while they are looked at.
pub(super) const STEP: usize = 16 << 10;

/// Why a connection ends before its sides wanted.
#[derive(Debug)]
pub(super) enum Stop {
    /// One side went.
    Lost,
    Refused(Protocol, Refusal),
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Lost
    }
}

/// The client's direction of one connection.
pub(super) struct Inspector<'a> {
    pub shared: &'a Shared,
    pub client: &'a TcpStream,
    pub server: &'a TcpStream,
    pub target: &'a Target,
    pub flow: &'a Flow,
    pub account: &'a Account<'a>,
    /// Read and not sent.
    pub buffer: Vec<u8>,
}

impl Inspector<'_> {
    /// Until the client ends.
    pub async fn run(mut self) -> Result<(), Stop> {
        match self.classify().await? {
            Protocol::Tls => {
                self.account.speaks(Protocol::Tls);
                self.tls().await?;
            }
            Protocol::Http => {
                self.account.speaks(Protocol::Http);
                return self.http().await;
            }
            _ => {}
        }
        self.opaque().await
    }

    pub async fn classify(&mut self) -> Result<Protocol, Stop> {
        let mut deadline = None;
        loop {
            // No server of HTTP or TLS speaks first.
            if self.flow.is_foreign() && !self.buffer.is_empty() {
                return Ok(Protocol::Tcp);
            }
            if hello::is_tls(&self.buffer) {
                return Ok(Protocol::Tls);
            }
            let looks = if hello::may_be_tls(&self.buffer) { Looks::Open } else { head::looks(&self.buffer) };
            match looks {
                Looks::Http => return Ok(Protocol::Http),
                Looks::Other => return Ok(Protocol::Tcp),
                Looks::Open => {}
            }
            // A server with something to say first says it meanwhile.
            let why = "it begins as a request does and doesn't go on";
            if !self.more(&mut deadline, Protocol::Tcp, why).await? {
                // Too little to be a request.
                return Ok(Protocol::Tcp);
            }
        }
    }

    /// Goes through as it is from here on.
    pub async fn opaque(&mut self) -> Result<(), Stop> {
        write_all(self.server, &self.buffer).await?;
        self.buffer = Vec::new();
        relay::pass(self.client, self.server, &self.shared.means).await?;
        if !self.flow.received.get() {
            end_writing(self.server)?;
        }
        // Else both have ended, and that its stream is closed tells it as well.
        Ok(())
    }

    async fn tls(&mut self) -> Result<(), Stop> {
        let end = self.hello().await?;
        if self.flow.answered.get() > 0 {
            // No server of TLS speaks first.
            return Ok(());
        }
        // The server may ask for a second hello, and would then read the name from that one. Until it has said so,
        // the first one is all it gets.
        self.flow.watch(hello::is_retry);
        self.send(end).await?;
        if !self.flow.verdict().await {
            return Ok(());
        }
        let mut deadline = None;
        let before = loop {
            if let Some(before) = hello::before_second(&self.buffer) {
                break before;
            }
            if self.buffer.len() > hello::MOST {
                return Err(self.refused(Protocol::Tls, "too much comes before its second hello"));
            }
            if !self.more(&mut deadline, Protocol::Tls, "its second hello is not whole in time").await? {
                return Ok(());
            }
        };
        self.send(before).await?;
        let end = self.hello().await?;
        self.send(end).await
    }

    /// Where the hello ends that the buffer begins with, once it is whole and has the name on it.
    pub async fn hello(&mut self) -> Result<usize, Stop> {
        let mut deadline = None;
        let hello = loop {
            match hello::parse(&self.buffer).map_err(|why| self.refused(Protocol::Tls, why))? {
                Some(hello) => break hello,
                None => {
                    if !self.more(&mut deadline, Protocol::Tls, "its hello is not whole in time").await? {
                        return Err(self.refused(Protocol::Tls, "its hello is cut"));
                    }
                }
            }
        };
        match (hello.name, &self.target.host) {
            (Some(name), Host::Name(own)) if name == *own => {}
            (Some(name), Host::Name(_)) => {
                return Err(self.refused(Protocol::Tls, &format!("the name on its hello is {name}")));
            }
            (None, Host::Name(_)) => return Err(self.refused(Protocol::Tls, "there is no name on its hello")),
            (Some(name), Host::Address(_)) => self.check_asked(Protocol::Tls, &name)?,
            (None, Host::Address(_)) => {}
        }
        Ok(hello.end)
    }

    async fn http(&mut self) -> Result<(), Stop> {
        bound(self.server)?;
        for number in 0u64.. {
            let mut deadline = None;
            let head = loop {
                match head::parse(&self.buffer, Sent::Direct).map_err(|why| self.refused(Protocol::Http, why))? {
                    Some(head) => break head,
                    None => {
                        let nothing = self.buffer.is_empty();
                        if !self.more(&mut deadline, Protocol::Http, "its head is not whole in time").await? {
                            if nothing {
                                return Ok(end_writing(self.server)?);
                            }
                            return Err(self.refused(Protocol::Http, "its head is cut"));
                        }
                    }
                }
            };
            if let Host::Address(_) = self.target.host {
                if let Host::Name(name) = &head.host {
                    self.check_asked(Protocol::Http, name)?;
                }
            } else if !self.target.is(&head.host, head.port) {
                let other = match head.port {
                    Some(port) => format!("the request is for {}:{port}", head.host),
                    None => format!("the request is for {}", head.host),
                };
                return Err(self.refused(Protocol::Http, &other));
            }
            let Kind::Request { body, upgrade, .. } = head.kind else {
                return Err(self.refused(Protocol::Http, "it asks a server for a tunnel"));
            };
            let upgrades = upgrade.is_some();
            if let Some(upgrade) = upgrade {
                // Behind an earlier request the answer could be that request's.
                if number > 0 || self.flow.answered.get() > 0 {
                    return Err(self.refused(Protocol::Http, "WebSocket begins with a connection's first request"));
                }
                self.flow.watch(move |answer| head::is_switched(&upgrade, answer));
            }
            self.send(head.end).await?;
            if upgrades && self.flow.verdict().await {
                return self.opaque().await;
            }
            if !self.body(body).await? {
                return Ok(end_writing(self.server)?);
            }
        }
        Ok(())
    }

    /// Sends a request's body. `false`: the client ended in it.
    pub async fn body(&mut self, body: Body) -> Result<bool, Stop> {
        let mut chunks = Chunks::default();
        let mut left = if let Body::Length(length) = body { length } else { 0 };
        loop {
            match body {
                Body::Length(_) => {
                    let part = left.min(self.buffer.len() as u64);
                    self.send(part as usize).await?;
                    left -= part;
                    if left == 0 {
                        return Ok(true);
                    }
                }
                Body::Chunked => {
                    let mut out = Vec::new();
                    let renewed = chunks.renew(&self.buffer, &mut out);
                    let part = renewed.map_err(|why| self.refused(Protocol::Http, why))?;
                    write_all(self.server, &out).await?;
                    self.buffer.drain(..part);
                    if chunks.is_done() {
                        return Ok(true);
                    }
                }
            }
            if read_more(self.client, &mut self.buffer, 4 * STEP).await? == 0 {
                return Ok(false);
            }
        }
    }

    /// Sends the first bytes of the buffer.
    async fn send(&mut self, length: usize) -> Result<(), Stop> {
        write_all(self.server, &self.buffer[..length]).await?;
        self.buffer.drain(..length);
        Ok(())
    }

    /// Reads more; from the first byte on the time is limited. `false`: nothing more comes.
    async fn more(&mut self, deadline: &mut Option<Instant>, protocol: Protocol, late: &str) -> Result<bool, Stop> {
        let (client, buffer) = (self.client, &mut self.buffer);
        if buffer.is_empty() {
            // It may wait for long, and there may be many.
            *buffer = Vec::new();
            return Ok(read_more(client, buffer, STEP).await? > 0);
        }
        let until = *deadline.get_or_insert_with(|| {
            hurry(self.server);
            Instant::now() + self.shared.limits.head
        });
        match timeout_at(until, read_more(client, buffer, STEP)).await {
            Ok(read) => Ok(read? > 0),
            Err(_) => Err(self.refused(protocol, late)),
        }
    }

    fn check_asked(&self, protocol: Protocol, name: &Name) -> Result<(), Stop> {
        let checked = self.shared.policy().check_asked(name, self.target.port);
        checked.map_err(|refusal| Stop::Refused(protocol, refusal))
    }

    fn refused(&self, protocol: Protocol, why: &str) -> Stop {
        Stop::Refused(protocol, Refusal::new(why))
    }
}
