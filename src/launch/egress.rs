//! The proxy behind the sandbox's gateway, on a thread of its own, and what it has refused.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, TrySendError},
    },
    time::Duration,
};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{LaunchError, system};
use crate::net::{Contact, Denied, Listeners, Log, Outward, Policy, Proxy, publish::Inward};

/// Dropped, it lets nothing out any more.
#[derive(Debug)]
pub struct Egress {
    /// Dropped before the proxy is, which may wait to be heard.
    contacts: Option<Receiver<Contact>>,
    proxy: Proxy,
    denied: Arc<Mutex<Vec<Denied>>>,
    /// Ready when there is something in `denied`, and when it has drained.
    woken: Arc<EventFd>,
    drained: Arc<AtomicBool>,
}

/// Refusals that wait to be told: a program makes them faster than anybody reads, and those beyond are lost.
const WAITING: usize = 256;
/// Entries of the log that wait: of these none is lost, and the proxy waits.
const CONTACTS: usize = 1024;

impl Egress {
    /// `logs`: whether all contacts are wanted, and not only what was refused. `outward`: from where is dialled, if not from
    /// here.
    pub fn start(
        policy: Policy,
        listeners: Listeners,
        logs: bool,
        inward: Option<Inward>,
        outward: Option<Outward>,
    ) -> Result<Self, LaunchError> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let woken = Arc::new(EventFd::from_flags(flags).map_err(system("make an event"))?);
        let denied = Arc::new(Mutex::new(Vec::new()));
        let (waiting, waker) = (Arc::clone(&denied), Arc::clone(&woken));
        let tell = move |refused| {
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.len() < WAITING {
                waiting.push(refused);
                _ = waker.write(1);
            }
        };
        let (log, contacts) = logs.then(|| log(&woken)).unzip();
        let proxy = Proxy::start(policy, listeners, tell, log, inward, outward).map_err(LaunchError::Egress)?;
        Ok(Self { contacts, denied, proxy, woken, drained: Arc::default() })
    }

    /// The sandbox is gone: lets out what it sent last, for `grace` at most, and then nothing any more.
    pub fn drain(&self, grace: Duration) {
        let (drained, waker) = (Arc::clone(&self.drained), Arc::clone(&self.woken));
        self.proxy.drain(grace, move || {
            drained.store(true, Ordering::Release);
            _ = waker.write(1);
        });
    }

    pub fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Acquire)
    }

    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.proxy.policy()
    }

    /// From now on; open connections that it forbids are cut.
    pub fn set_policy(&self, policy: Policy) {
        self.proxy.set_policy(policy);
    }

    /// Ends all connections that there are.
    pub fn cut(&self) {
        self.proxy.cut();
    }

    /// Before it is asked what there is: what comes after this wakes again.
    pub fn awake(&self) {
        _ = self.woken.read();
    }

    /// What was refused since the last time.
    pub fn refused(&self) -> Vec<Denied> {
        std::mem::take(&mut self.denied.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The connections that have ended and the questions that were asked since the last time, or so many of them.
    pub fn contacts(&self) -> impl Iterator<Item = Contact> + '_ {
        self.contacts.iter().flat_map(Receiver::try_iter).take(CONTACTS)
    }

    /// Ends all connections; those that were open are the last contacts.
    pub fn end(&mut self) -> impl Iterator<Item = Contact> + '_ {
        self.proxy.stop();
        self.contacts.iter().flatten()
    }
}

fn log(woken: &Arc<EventFd>) -> (Log, Receiver<Contact>) {
    let (sender, contacts) = mpsc::sync_channel(CONTACTS);
    let waker = Arc::clone(woken);
    let log = move |contact| {
        let full = match sender.try_send(contact) {
            Err(TrySendError::Full(contact)) => Some(contact),
            Ok(()) | Err(TrySendError::Disconnected(_)) => None,
        };
        _ = waker.write(1);
        if let Some(contact) = full {
            // What comes between the first look and this has to be seen, too.
            _ = sender.send(contact);
            _ = waker.write(1);
        }
    };
    (Box::new(log), contacts)
}

impl AsFd for Egress {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }
}
