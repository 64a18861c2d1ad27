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
mod relay;
mod request;
mod resolver;
mod socks;
mod stream;
#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    fmt,
    os::fd::OwnedFd,
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::{
        resource::{Resource, getrlimit},
        signal::SigSet,
    },
};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    runtime,
    sync::{mpsc, watch},
    task::{LocalSet, spawn_local},
    time::{sleep, timeout},
};

use self::{
    account::Account,
    dial::Addresses,
    drain::Drain,
    outside::Outside,
    publish::Doors,
    relay::Means,
    resolver::Resolver,
    stream::{prepare, write_all},
};
use super::{
    Authority, Contact, Denied, Listeners, NetError, Policy, Protocol, dns,
    policy::{Host, Refusal},
    pool::Pool,
    publish::Inward,
};
pub use outside::Outward;

/// What a sandbox may take of the proxy.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Connections at once; fewer where the process may have fewer descriptors.
    connections: usize,
    /// From the first byte of a request or a hello to its last.
    head: Duration,
    /// To resolve a name and to be answered by one of its addresses.
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
            head: Duration::from_secs(10),
            dial: Duration::from_secs(15),
            refused: Duration::from_secs(1),
            farewell: Duration::from_secs(2),
        }
    }
}

/// Descriptors that are left to the rest of the process, which must not be in want of any: it looks at the sandbox through
/// them. Pipes and questions of DNS are not connections' own.
const OTHER_DESCRIPTORS: u64 = 128 + 2 * relay::PIPES as u64 + DNS_CONNECTIONS as u64;
/// Of a connection: two sockets, and half of one for UDP.
const DESCRIPTORS_EACH: u64 = 3;
/// Connections for questions of DNS, and how long one may be silent.
const DNS_CONNECTIONS: usize = 64;
const DNS_SILENCE: Duration = Duration::from_secs(5);

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
    /// On a thread of its own, in the calling thread's network namespace; what is dialled, from `outward`. `denied` is called on that thread, and so is
    /// `log`, which hears of everything.
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
            limits.connections = limits.connections.min(room.max(16) as usize);
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
                resolver,
                denied,
                log,
                outside,
                means: Means::default(),
                limits,
                connections: Cell::new(0),
                draining: watch::Sender::new(false),
            });
            let [tcp, explicit] = [sockets.tcp, sockets.explicit].map(Rc::new);
            let local = LocalSet::new();
            if let Some(doors) = doors {
                let _entered = local.enter();
                doors.open(&shared);
            }
            for (udp, tcp) in sockets.dns {
                local.spawn_local(answer_udp(shared.clone(), udp));
                local.spawn_local(answer_tcp(shared.clone(), tcp));
            }
            local.spawn_local(take(shared.clone(), explicit.clone(), Way::Explicit));
            local.spawn_local(take(shared.clone(), tcp.clone(), Way::Redirected));
            if let Some((listener, answers)) = sockets.udp {
                local.spawn_local(datagrams::pass_all(shared.clone(), listener, answers));
            }
            let done = local.block_on(&runtime, drain::until_end(&shared, [&tcp, &explicit], ordered));
            drop(local);
            drop(runtime);
            if let Some(done) = done {
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

    /// For when no client is left: what they sent goes on its way, for `grace` at most, and everything ends. Then `done`
    /// is called, on the proxy's thread; at once if there is no connection.
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

/// What all tasks of the one thread share.
struct Shared {
    policies: watch::Receiver<Arc<Policy>>,
    cuts: watch::Receiver<()>,
    /// What the sandbox was started with; later policies have none.
    authority: Option<Arc<Authority>>,
    pool: RefCell<Pool>,
    addresses: RefCell<Addresses>,
    resolver: Resolver,
    denied: Box<dyn Fn(Denied) + Send>,
    log: Option<Log>,
    outside: Outside,
    means: Means,
    limits: Limits,
    connections: Cell<usize>,
    /// All clients are gone.
    draining: watch::Sender<bool>,
}

impl Shared {
    /// Of this moment.
    fn policy(&self) -> Arc<Policy> {
        self.policies.borrow().clone()
    }

    /// When all connections that there are now are to end.
    fn cut(&self) -> impl Future<Output = ()> + use<> {
        let mut cuts = self.cuts.clone();
        cuts.mark_unchanged();
        async move {
            if cuts.changed().await.is_err() {
                // The proxy ends, and with it this.
                std::future::pending().await
            }
        }
    }

    fn deny(&self, protocol: Protocol, target: String, refusal: Refusal) {
        let denied = Denied { protocol, target, rule: refusal.rule, hint: refusal.hint };
        if let Some(log) = &self.log {
            log(Contact::denied(&denied));
        }
        (self.denied)(denied);
    }

    /// Of a connection that has an account of its own.
    fn deny_open(&self, account: &Account<'_>, protocol: Protocol, target: &Target, refusal: Refusal) {
        account.refused(protocol, &refusal);
        (self.denied)(Denied { protocol, target: target.to_string(), rule: refusal.rule, hint: refusal.hint });
    }
}

struct Sockets {
    tcp: TcpListener,
    dns: Vec<(UdpSocket, TcpListener)>,
    explicit: TcpListener,
    udp: Option<(UdpSocket, OwnedFd)>,
}

impl TryFrom<Listeners> for Sockets {
    type Error = std::io::Error;

    fn try_from(listeners: Listeners) -> std::io::Result<Self> {
        let waiting = |fd: OwnedFd| -> std::io::Result<OwnedFd> {
            let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
            fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
            Ok(fd)
        };
        let listener = |fd| TcpListener::from_std(waiting(fd)?.into());
        for clients in [&listeners.tcp, &listeners.explicit] {
            prepare(clients)?;
        }
        Ok(Self {
            tcp: listener(listeners.tcp)?,
            dns: [
                Some((listeners.dns_udp, listeners.dns_tcp)),
                listeners.within.map(|within| (within.udp, within.tcp)),
            ]
            .into_iter()
            .flatten()
            .map(|(udp, tcp)| Ok((UdpSocket::from_std(waiting(udp)?.into())?, listener(tcp)?)))
            .collect::<std::io::Result<_>>()?,
            explicit: listener(listeners.explicit)?,
            udp: match listeners.udp {
                Some(udp) => Some((UdpSocket::from_std(waiting(udp.listener)?.into())?, waiting(udp.answers)?)),
                None => None,
            },
        })
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
        let Some(place) = Place::take(&shared) else {
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
            stream::first(cut, carrying).await;
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

/// One of the connections there may be.
struct Place(Rc<Shared>);

impl Place {
    fn take(shared: &Rc<Shared>) -> Option<Self> {
        let taken = shared.connections.get();
        (taken < shared.limits.connections).then(|| {
            shared.connections.set(taken + 1);
            Self(shared.clone())
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
    }
}

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

async fn answer_udp(shared: Rc<Shared>, socket: UdpSocket) {
    let mut buffer = [0; 1500];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, client)) => {
                if let Some(answer) = shared.answer(&buffer[..length]) {
                    // One that is lost is asked for again.
                    _ = socket.send_to(&answer, client).await;
                }
            }
            // An answer that nobody wanted comes back as an error.
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
}

async fn answer_tcp(shared: Rc<Shared>, listener: TcpListener) {
    let open = Rc::new(Cell::new(0));
    loop {
        let client = accept(&listener).await;
        if open.get() >= DNS_CONNECTIONS {
            _ = client.set_zero_linger();
            continue;
        }
        open.set(open.get() + 1);
        let (shared, open) = (shared.clone(), open.clone());
        spawn_local(async move {
            _ = answer_stream(&shared, &client).await;
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
            timeout(DNS_SILENCE, write_all(client, &framed)).await??;
            buffer.drain(..2 + length);
        }
        if timeout(DNS_SILENCE, stream::read_more(client, &mut buffer, 1500)).await?? == 0 {
            return Ok(());
        }
    }
}
