//! What is told of one connection when it has ended, where somebody wants to know.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
};

use tokio::{net::TcpStream, time::Instant};

use super::{Shared, Target};
use crate::{
    net::{
        Protocol,
        log::{Allowed, Contact},
        policy::{Host, Refusal, address},
        publish::Publish,
    },
    sys::socket,
};

/// Told as it is dropped, however its connection ends.
pub(super) struct Account<'a> {
    pub shared: &'a Shared,
    /// `None` where nobody wants to know.
    contact: RefCell<Option<Contact>>,
    began: Instant,
    written: Cell<(u64, u64)>,
}

impl<'a> Account<'a> {
    /// Of a connection that was allowed.
    pub fn open(shared: &'a Shared, protocol: Protocol, target: &Target) -> Self {
        Self::of(shared, || {
            let host = match &target.host {
                Host::Name(name) => name.to_string(),
                Host::Address(address) => address.to_string(),
            };
            let rule = shared.policy().allowed_by(&target.host, Some(target.port));
            Contact { port: Some(target.port), ..Contact::new(protocol, host, rule) }
        })
    }

    /// Of one from outside to a published port.
    pub fn of_published(shared: &'a Shared, client: &TcpStream, publish: Publish) -> Self {
        Self::of(shared, || {
            let host = client.peer_addr().map_or_else(|_| String::new(), |peer| address::normal(peer.ip()).to_string());
            let rule = format!("--publish {publish}");
            Contact { port: Some(publish.port), ..Contact::new(Protocol::Tcp, host, rule) }
        })
    }

    fn of(shared: &'a Shared, contact: impl FnOnce() -> Contact) -> Self {
        let contact = shared.log.is_some().then(contact);
        Self { shared, contact: RefCell::new(contact), began: Instant::now(), written: Cell::default() }
    }

    /// More that was passed on, to the server and to the client.
    pub fn count(&self, sent: u64, received: u64) {
        let (before_sent, before_received) = self.written.get();
        self.written.set((before_sent + sent, before_received + received));
    }

    fn note(&self, note: impl FnOnce(&mut Contact)) {
        if let Some(contact) = self.contact.borrow_mut().as_mut() {
            note(contact);
        }
    }

    pub fn dialled(&self, address: IpAddr) {
        self.note(|contact| contact.address = Some(address));
    }

    pub fn speaks(&self, protocol: Protocol) {
        self.note(|contact| contact.protocol = protocol);
    }

    pub fn failed(&self, why: &str) {
        self.note(|contact| contact.error = Some(why.to_owned()));
    }

    /// What was allowed at first.
    pub fn refused(&self, protocol: Protocol, refusal: &Refusal) {
        self.note(|contact| {
            contact.verdict = Allowed::Denied;
            contact.protocol = protocol;
            contact.rule.clone_from(&refusal.rule);
        });
    }

    /// Looks at what both sides got when the guard is dropped: they still have their sockets then.
    pub fn measure<'m>(&'m self, client: &'m TcpStream, server: &'m TcpStream) -> Measured<'m> {
        Measured { account: self, client, server }
    }
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        if let (Some(mut contact), Some(log)) = (self.contact.take(), &self.shared.log) {
            (contact.sent_bytes, contact.received_bytes) = self.written.get();
            contact.duration = self.began.elapsed();
            log(contact);
        }
    }
}

pub(super) struct Measured<'a> {
    account: &'a Account<'a>,
    client: &'a TcpStream,
    server: &'a TcpStream,
}

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        if self.account.contact.borrow().is_some() {
            // The kernel counts them where they pass without being read, too.
            let written = |stream| socket::written(stream).unwrap_or(0);
            self.account.written.set((written(self.server), written(self.client)));
        }
    }
}
