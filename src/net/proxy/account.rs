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
        policy::{Host, Refusal},
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
        let contact = shared.log.is_some().then(|| {
            let host = match &target.host {
                Host::Name(name) => name.to_string(),
                Host::Address(address) => address.to_string(),
            };
            let rule = shared.policy().allowed_by(&target.host, Some(target.port));
            Contact { port: Some(target.port), ..Contact::new(protocol, host, rule) }
        });
        Self { shared, contact: RefCell::new(contact), began: Instant::now(), written: Cell::default() }
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
