//! One connection from its first byte to its last.

use std::{cell::Cell, net::SocketAddr, pin::pin, sync::Arc};

use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{
    Shared, Target,
    account::Account,
    dial::{DialError, Dialled, dial, hurry},
    drain::delivered,
    head::{self, Body, Looks},
    inspect::{Inspector, STEP, Stop},
    looked_into,
    relay::{self, Flow},
    socks,
    stream::{First, both, bound, farewell, finish, first, heard, read_more, read_now, write_all},
};
use crate::net::{
    Policy, Protocol,
    policy::{Host, Refusal, address},
    pool::is_fake,
};

/// A redirected connection: its destination says what it wants.
pub(super) async fn redirected(shared: &Shared, client: TcpStream) {
    let Ok(destination) = (shared.outside.destination)(&client) else { return };
    let target = shared.target(destination).map_err(|refusal| (destination.to_string(), refusal));
    carry(shared, client, target, Vec::new(), Opening::None).await;
}

impl Shared {
    /// What an address stands for.
    pub fn target(&self, destination: SocketAddr) -> Result<Target, Refusal> {
        let port = destination.port();
        if let SocketAddr::V4(v4) = destination
            && is_fake(*v4.ip())
        {
            let now = std::time::Instant::now();
            return match self.pool.borrow_mut().name(*v4.ip(), now) {
                Some(name) => Ok(Target { host: Host::Name(name.clone()), port }),
                None => Err(Refusal::new("no name stands behind this address")),
            };
        }
        Ok(Target { host: Host::Address(address::normal(destination.ip())), port })
    }
}

/// How the client named its target, and so what it waits for.
pub(super) enum Opening {
    /// By connecting: it doesn't know that there is a proxy.
    None,
    Connect,
    Socks,
    /// By a whole URL: this is what the server is sent for it, and nothing comes after its body.
    Plain {
        head: Vec<u8>,
        body: Body,
    },
}

impl Opening {
    fn protocol(&self) -> Protocol {
        match self {
            Self::None => Protocol::Tcp,
            Self::Socks => Protocol::Socks,
            Self::Connect | Self::Plain { .. } => Protocol::Http,
        }
    }
}

/// From what a client wants to the end of its connection. `buffer`: what it has said after it.
pub(super) async fn carry(
    shared: &Shared,
    client: TcpStream,
    target: Result<Target, (String, Refusal)>,
    buffer: Vec<u8>,
    opening: Opening,
) {
    let target = match target {
        Ok(target) => target,
        Err((target, refusal)) => return refuse(shared, client, &opening, &target, refusal).await,
    };
    let mut policies = shared.policies.clone();
    let checked = policies.borrow_and_update().check(&target.host, target.port);
    if let Err(refusal) = checked {
        return refuse(shared, client, &opening, &target.to_string(), refusal).await;
    }
    let state = State::default();
    let account = Account::open(shared, opening.protocol(), &target);
    let inspected = shared.policy().inspects(&target.host, target.port);
    let passing = pin!(pass(shared, client, &target, buffer, opening, &state, &account));
    match first(pin!(forbidden(policies, &target, inspected, &state)), passing).await {
        // Both ends are reset as they are dropped.
        First::Left(refusal) => shared.deny_open(&account, Protocol::Tcp, &target, refusal),
        First::Right(()) => {}
    }
}

/// What a new policy has to know of a connection.
#[derive(Default)]
struct State {
    dialled: Cell<Option<Dialled>>,
    /// What it says is not read: no rule was about that.
    opaque: Cell<bool>,
}

impl State {
    fn check(&self, policy: &Policy, target: &Target) -> Result<(), Refusal> {
        policy.check(&target.host, target.port)?;
        if let Some(Dialled { address, own }) = self.dialled.get() {
            policy.check_address(&target.host, target.port, address, own)?;
        }
        match self.opaque.get() && !may_be_opaque(policy, target) {
            true => Err(Refusal::new("what it says is now looked into, and was not so far")),
            false => Ok(()),
        }
    }
}

fn may_be_opaque(policy: &Policy, target: &Target) -> bool {
    let nameless = matches!(target.host, Host::Address(_)) && !policy.denies_names(target.port);
    nameless || policy.is_proxy(&target.host, target.port)
}

/// Until a new policy forbids what the old one allowed.
async fn forbidden(
    mut policies: watch::Receiver<Arc<Policy>>,
    target: &Target,
    inspected: bool,
    state: &State,
) -> Refusal {
    loop {
        if policies.changed().await.is_err() {
            // The proxy ends, and with it this.
            return std::future::pending().await;
        }
        let policy = policies.borrow_and_update().clone();
        if let Err(refusal) = state.check(&policy, target) {
            return refusal;
        }
        if policy.inspects(&target.host, target.port) != inspected {
            return Refusal::new("its requests are now looked into, or no more");
        }
    }
}

async fn pass(
    shared: &Shared,
    client: TcpStream,
    target: &Target,
    mut buffer: Vec<u8>,
    opening: Opening,
    state: &State,
    account: &Account<'_>,
) {
    let dialled = match dial(shared, target).await {
        Ok((server, checked)) => {
            state.dialled.set(Some(checked));
            account.dialled(checked.address);
            // A policy that came meanwhile was not asked about this address: it was not known yet.
            match state.check(&shared.policy(), target) {
                Ok(()) => Ok(server),
                Err(refusal) => {
                    hurry(&server);
                    Err(DialError::Refused(refusal))
                }
            }
        }
        Err(error) => Err(error),
    };
    let server = match dialled {
        Ok(server) => server,
        Err(DialError::Refused(refusal)) => {
            let words = forbidden_page(&target.to_string(), &refusal);
            shared.deny_open(account, opening.protocol(), target, refusal);
            return tell_refused(shared, client, &opening, &words).await;
        }
        Err(DialError::Failed(why)) => {
            account.failed(&why);
            return fail(shared, client, &opening, &why).await;
        }
    };
    // What an unwitting client says first.
    let begins = match opening {
        Opening::None => read_now(&client, &mut buffer, STEP),
        Opening::Plain { .. } => true,
        Opening::Connect | Opening::Socks => false,
    };
    if !begins {
        hurry(&server);
    }
    let flow = Flow::default();
    let ended = {
        let _measured = account.measure(&client, &server);
        let conversing = pin!(converse((&client, &server), target, buffer, opening, &flow, account, &state.opaque));
        match first(pin!(delivered(shared, &server, &flow)), conversing).await {
            First::Left(delivered) => delivered.map_err(Stop::from),
            First::Right(ended) => ended,
        }
    };
    match ended {
        Ok(()) => {
            finish(server);
            let heard = matches!(first(pin!(heard(&client)), pin!(shared.gone())).await, First::Left(()));
            // Nothing is left to be reset where both have ended, and both know.
            let over = heard && flow.sent.get() && flow.received.get();
            // One that is gone, and its network with it, would have its end sent again and again.
            if !over && !*shared.draining.borrow() {
                finish(client);
            }
        }
        // Dropped, both are reset: the one side as the other was.
        Err(Stop::Lost) => {}
        Err(Stop::Refused(protocol, refusal)) => {
            // It sees the connection come and go, whatever it was not sent.
            hurry(&server);
            drop(server);
            let words = forbidden_page(&target.to_string(), &refusal);
            shared.deny_open(account, protocol, target, refusal);
            if protocol == Protocol::Http && flow.answered.get() == 0 {
                farewell(client, &words, shared.limits.farewell).await;
            }
        }
    }
}

/// Both directions, until both have ended.
async fn converse(
    (client, server): (&TcpStream, &TcpStream),
    target: &Target,
    buffer: Vec<u8>,
    opening: Opening,
    flow: &Flow,
    account: &Account<'_>,
    opaque: &Cell<bool>,
) -> Result<(), Stop> {
    let shared = account.shared;
    if let Host::Name(name) = &target.host
        && shared.policy().inspects(&target.host, target.port)
    {
        let buffer = match opening {
            Opening::Plain { mut head, .. } => {
                head.extend(buffer);
                head
            }
            other => {
                greet(client, &other).await?;
                buffer
            }
        };
        let inspector = Inspector { shared, client, server, target, flow, account, buffer };
        // Large, and for few: all others' tasks would have room for it.
        return Box::pin(looked_into::converse(inspector, name)).await;
    }
    let down = async { Ok::<_, Stop>(relay::down(server, client, &shared.means, flow).await?) };
    let mut inspector = Inspector { shared, client, server, target, flow, account, buffer };
    greet(client, &opening).await?;
    match opening {
        Opening::None | Opening::Connect | Opening::Socks => {}
        Opening::Plain { head, body } => {
            bound(server)?;
            let up = async {
                write_all(server, &head).await?;
                inspector.body(body).await?;
                relay::discard(client).await?;
                flow.sent.set(true);
                // The server was told that this request is the last, and ends.
                std::future::pending::<Result<(), Stop>>().await
            };
            return match first(pin!(up), pin!(down)).await {
                First::Left(ended) | First::Right(ended) => ended,
            };
        }
    }
    let up = async {
        opaque.set(may_be_opaque(&shared.policy(), target));
        if opaque.get() {
            inspector.opaque().await?
        } else {
            inspector.run().await?
        }
        flow.sent.set(true);
        Ok(())
    };
    both(pin!(up), pin!(down)).await
}

/// Tells a client that asked for it that its target is reached.
async fn greet(client: &TcpStream, opening: &Opening) -> Result<(), Stop> {
    match opening {
        Opening::None | Opening::Plain { .. } => {}
        Opening::Connect => write_all(client, b"HTTP/1.1 200 Connection established\r\n\r\n").await?,
        Opening::Socks => write_all(client, &socks::answer(socks::CONNECTED)).await?,
    }
    Ok(())
}

/// Tells of a refusal, the client too in its own words; one that has none is reset.
async fn refuse(shared: &Shared, client: TcpStream, opening: &Opening, target: &str, refusal: Refusal) {
    let words = forbidden_page(target, &refusal);
    shared.deny(opening.protocol(), target.to_owned(), refusal);
    tell_refused(shared, client, opening, &words).await;
}

async fn tell_refused(shared: &Shared, client: TcpStream, opening: &Opening, words: &[u8]) {
    match opening {
        Opening::None => say_in_http(shared, client, words).await,
        Opening::Connect | Opening::Plain { .. } => farewell(client, words, shared.limits.farewell).await,
        Opening::Socks => farewell(client, &socks::answer(socks::REFUSED), shared.limits.farewell).await,
    }
}

async fn fail(shared: &Shared, client: TcpStream, opening: &Opening, why: &str) {
    let words = page("502 Bad Gateway", &format!("fumehood: {why}"));
    match opening {
        Opening::None => say_in_http(shared, client, &words).await,
        Opening::Connect | Opening::Plain { .. } => farewell(client, &words, shared.limits.farewell).await,
        Opening::Socks => farewell(client, &socks::answer(socks::UNREACHABLE), shared.limits.farewell).await,
    }
}

/// Says `words` if the client begins a request soon.
async fn say_in_http(shared: &Shared, client: TcpStream, words: &[u8]) {
    let deadline = Instant::now() + shared.limits.refused;
    let mut buffer = Vec::new();
    loop {
        match head::looks(&buffer) {
            Looks::Http => return farewell(client, words, shared.limits.farewell).await,
            Looks::Other => return,
            Looks::Open => match timeout_at(deadline, read_more(&client, &mut buffer, 1024)).await {
                Ok(Ok(1..)) => {}
                _ => return,
            },
        }
    }
}

pub(super) fn forbidden_page(target: &str, refusal: &Refusal) -> Vec<u8> {
    let mut text = format!("fumehood: denied: {target} ({})", refusal.rule);
    if let Some(hint) = &refusal.hint {
        text.push_str("; hint: ");
        text.push_str(hint);
    }
    page("403 Forbidden", &text)
}

pub(super) fn page(status: &str, text: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}\n",
        text.len() + 1
    )
    .into_bytes()
}
