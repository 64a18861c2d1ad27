//! The proxy of one sandbox: a thread of its own in the host's network.
//!
//! Invariant: a connection goes out only to an address that was checked for the name or address that the policy
//! allows, and of the client's bytes only what was read and found to be for that name. What ends a connection early is
//! a reset, on both sides.

mod account;
mod answer;
mod conceal;
mod connection;
mod datagrams;
mod dial;
mod drain;
mod engine;
mod exchange;
mod explicit;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod head;
mod hello;
mod inspect;
mod io;
mod looked_into;
mod outside;
mod publish;
mod questions;
mod relay;
mod request;
mod resolver;
mod shared;
mod sockets;
mod socks;
mod stream;
#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    pin::pin,
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use nix::sys::{
    resource::{Resource, getrlimit},
    signal::SigSet,
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
    sync::{mpsc, watch},
    task::{LocalSet, spawn_local},
    time::{Instant, sleep},
};

use self::{
    drain::Drain,
    outside::Outside,
    publish::Doors,
    relay::Means,
    resolver::Resolver,
    shared::{Place, Shared, Side},
    sockets::Sockets,
};
use super::{
    Contact, Denied, Listeners, NetError, Policy, Protocol,
    policy::{Host, Refusal},
    publish::Inward,
};
pub use engine::Outward;

/// What a sandbox may take of the proxy.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Connections at once; fewer where the process may have fewer descriptors.
    connections: usize,
    /// Of those to published ports.
    published: usize,
    /// From the first byte of a request or a hello to its last.
    head: Duration,
    /// To resolve a name, and again to be answered by one of its addresses.
    dial: Duration,
    /// To begin a request, for a client that is refused.
    refused: Duration,
    /// To hear why it was refused.
    farewell: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            published: 256,
            head: Duration::from_secs(10),
            dial: Duration::from_secs(15),
            refused: Duration::from_secs(1),
            farewell: Duration::from_secs(2),
        }
    }
}

/// Descriptors that are left to the rest of the process, which must not be in want of any: it looks at the sandbox through
/// them. Pipes and questions of DNS are not connections' own.
const OTHER_DESCRIPTORS: u64 = 128 + 2 * relay::PIPES as u64 + questions::CONNECTIONS as u64;
/// Of a connection: two sockets, and half of one for UDP.
const DESCRIPTORS_EACH: u64 = 3;

/// Hears of each connection when it has ended, and of each question. May wait; then all waits.
pub type Log = Box<dyn Fn(Contact) + Send>;

/// Passes on what the policy allows; everything ends when it is dropped.
pub struct Proxy {
    policies: watch::Sender<Arc<Policy>>,
    cuts: watch::Sender<()>,
    orders: Option<mpsc::UnboundedSender<Drain>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").finish_non_exhaustive()
    }
}

impl Proxy {
    /// On a thread of its own, in the calling thread's network namespace; what is dialled, from `outward`. `denied` is called
    /// on that thread, and so is `log`, which hears of everything.
    pub fn start(
        policy: Policy,
        listeners: Listeners,
        denied: impl Fn(Denied) + Send + 'static,
        log: Option<Log>,
        inward: Option<Inward>,
        outward: Option<Outward>,
    ) -> Result<Self, NetError> {
        let outside = Outside::real(outward).map_err(NetError::proxy("ask the kernel for routes"))?;
        Self::start_with(policy, listeners, Box::new(denied), log, inward, outside, Limits::default())
    }

    fn start_with(
        policy: Policy,
        listeners: Listeners,
        denied: Box<dyn Fn(Denied) + Send>,
        log: Option<Log>,
        inward: Option<Inward>,
        outside: Outside,
        mut limits: Limits,
    ) -> Result<Self, NetError> {
        if let Ok((most, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
            let room = most.saturating_sub(OTHER_DESCRIPTORS) / DESCRIPTORS_EACH;
            let room = room.max(16) as usize;
            let inside = if inward.is_some() { room - room / 3 } else { room };
            limits.connections = limits.connections.min(inside);
            limits.published = limits.published.min(room / 3);
        }
        let authority = policy.authority().cloned();
        let (policies, seen) = watch::channel(Arc::new(policy));
        let (cuts, cut) = watch::channel(());
        let (orders, ordered) = mpsc::unbounded_channel();
        let runtime = runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_io_events_per_tick(64)
            .build()
            .map_err(NetError::proxy("start the proxy"))?;
        let (sockets, doors) = {
            // Sockets are registered where they are made.
            let _entered = runtime.enter();
            let doors = inward.map(Doors::new).transpose().map_err(NetError::proxy("listen for the host"))?;
            (Sockets::try_from(listeners).map_err(NetError::proxy("listen for the sandbox"))?, doors)
        };
        let resolver =
            Resolver::start(outside.resolve.clone()).map_err(NetError::proxy("start the resolver's thread"))?;
        let run = move || {
            // Signals are for the thread that waits for them.
            _ = SigSet::all().thread_block();
            let shared = Rc::new(Shared {
                policies: seen,
                cuts: cut,
                authority,
                pool: RefCell::default(),
                addresses: RefCell::default(),
                own: RefCell::new((Instant::now(), HashMap::new())),
                resolver,
                denied,
                log,
                outside,
                means: Means::default(),
                limits,
                connections: Cell::new(0),
                published: Cell::new(0),
                draining: watch::Sender::new(false),
            });
            let waiting = sockets.all();
            let [tcp, explicit] = [sockets.tcp, sockets.explicit].map(Rc::new);
            let local = LocalSet::new();
            if let Some(doors) = doors {
                let _entered = local.enter();
                doors.open(&shared);
            }
            for (udp, tcp) in sockets.dns {
                local.spawn_local(questions::answer_udp(shared.clone(), udp));
                local.spawn_local(questions::answer_tcp(shared.clone(), tcp));
            }
            local.spawn_local(take(shared.clone(), explicit.clone(), Way::Explicit));
            local.spawn_local(take(shared.clone(), tcp.clone(), Way::Redirected));
            if let Some((listener, answers)) = sockets.udp {
                local.spawn_local(datagrams::pass_all(shared.clone(), listener, answers));
            }
            // Nothing is left to be sent then, so nobody waits for the rest to be taken down.
            if let Some(done) = local.block_on(&runtime, drain::until_end(&shared, &waiting, ordered)) {
                done();
            }
        };
        let thread = std::thread::Builder::new()
            .name("fumehood-proxy".to_owned())
            .spawn(run)
            .map_err(NetError::proxy("start the proxy's thread"))?;
        Ok(Self { policies, cuts, orders: Some(orders), thread: Some(thread) })
    }

    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.policies.borrow().clone()
    }

    /// From now on; open connections that the new policy forbids are cut.
    pub fn set_policy(&self, policy: Policy) {
        self.policies.send_replace(Arc::new(policy));
    }

    /// Resets the connections that there are, whatever the policy says of them; not those that come later.
    pub fn cut(&self) {
        self.cuts.send_replace(());
    }

    /// Ends everything, and does not wait for that as dropping it does.
    pub fn stop(&mut self) {
        self.orders.take();
    }

    /// For when no client is left: what they sent goes on its way, for `grace` at most. Then `done` is called, on the
    /// proxy's thread, at once if there is no connection, and everything ends.
    pub fn drain(&self, grace: Duration, done: impl FnOnce() + Send + 'static) {
        if let Some(orders) = &self.orders {
            _ = orders.send(Drain { grace, done: Box::new(done) });
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.orders.take();
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

/// Where a client wants to go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    host: Host,
    port: u16,
}

impl Target {
    /// Whether `host` and what port was written with it mean this.
    fn is(&self, host: &Host, port: Option<u16>) -> bool {
        self.host == *host && port.is_none_or(|port| port == self.port)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// By which listener a client came.
#[derive(Clone, Copy)]
enum Way {
    Redirected,
    Explicit,
}

async fn take(shared: Rc<Shared>, listener: Rc<TcpListener>, way: Way) {
    loop {
        let client = accept(&listener).await;
        let Some(place) = Place::take(&shared, Side::Inside) else {
            let target = match way {
                Way::Redirected => {
                    (shared.outside.destination)(&client).map_or_else(|_| String::new(), |to| to.to_string())
                }
                Way::Explicit => own_address(&client),
            };
            let refusal = Refusal::new(format!("more than {} connections at once", shared.limits.connections));
            shared.deny(Protocol::Tcp, target, refusal);
            continue;
        };
        let cut = place.0.cut();
        spawn_local(async move {
            let carrying = async {
                match way {
                    Way::Redirected => connection::redirected(&place.0, client).await,
                    Way::Explicit => explicit::explicit(&place.0, client).await,
                }
            };
            stream::first(pin!(cut), pin!(carrying)).await;
        });
    }
}

/// Where a client found the proxy, for one that has named no target.
fn own_address(client: &TcpStream) -> String {
    client.local_addr().map_or_else(|_| String::new(), |address| address.to_string())
}

/// The next client, however long descriptors are short.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((client, _)) => return client,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}
