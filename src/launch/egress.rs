//! The proxy behind the sandbox's gateway, on a thread of its own, and what it has refused.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{LaunchError, system};
use crate::net::{Denied, Listeners, Policy, Proxy};

/// Dropped, it lets nothing out any more.
#[derive(Debug)]
pub struct Egress {
    proxy: Proxy,
    denied: Arc<Mutex<Vec<Denied>>>,
    /// Ready when there is something in `denied`, and when it has drained.
    woken: Arc<EventFd>,
    drained: Arc<AtomicBool>,
}

/// Refusals that wait to be told: a program makes them faster than anybody reads, and those beyond are lost.
const WAITING: usize = 256;

impl Egress {
    pub fn start(policy: Policy, listeners: Listeners) -> Result<Self, LaunchError> {
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
        let proxy = Proxy::start(policy, listeners, tell).map_err(LaunchError::Egress)?;
        Ok(Self { proxy, denied, woken, drained: Arc::default() })
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

    /// What was refused since the last time.
    pub fn refused(&self) -> Vec<Denied> {
        _ = self.woken.read();
        std::mem::take(&mut self.denied.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AsFd for Egress {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }
}
