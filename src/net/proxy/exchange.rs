//! Requests and answers of a connection whose requests are looked into, one after the other.
//!
//! Invariant: of each request nothing is sent before its head was read, found to be for the name, and allowed; what is
//! sent was written here. Of an answer nothing reaches the client in which a secret could be read.

use std::{cell::Cell, future::pending, pin::pin, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split},
    time::{Instant, sleep, timeout, timeout_at},
};
use zeroize::Zeroizing;

use super::{
    Shared, Target,
    answer::{self, Answer},
    conceal::{Conceal, Secrets},
    connection::{forbidden_page, page},
    head::{self, Body, Chunks, Kind, LAST_CHUNK, Sent, Upgrade, chunk},
    inspect::Stop,
    relay::Flow,
    request::Asked,
    stream::{First, first},
};
use crate::net::{
    Protocol,
    policy::{Granted, Name, Refusal},
};

const STEP: usize = 16 << 10;
/// How long nothing comes before what is held back of an answer is given out: between two events of a stream there is more,
/// between two packets of one less.
const PAUSE: Duration = Duration::from_millis(40);

/// One connection: what it is about, and its two sides.
pub(super) struct Exchange<'a, C, S> {
    pub shared: &'a Shared,
    pub name: &'a Name,
    pub target: &'a Target,
    /// Within TLS.
    pub secure: bool,
    pub flow: &'a Flow,
    client: Side<C>,
    server: Side<S>,
}

/// The halves of a stream, and what was read of it and not used.
struct Side<S> {
    read: ReadHalf<S>,
    write: WriteHalf<S>,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite> Side<S> {
    fn new(stream: S) -> Self {
        let (read, write) = split(stream);
        Self { read, write, buffer: Vec::new() }
    }
}

/// Appends what comes next. `false`: nothing more comes.
async fn more<R: AsyncRead>(from: &mut ReadHalf<R>, buffer: &mut Vec<u8>) -> Result<bool, Stop> {
    more_or_end(from, buffer, false).await
}

/// `said`: TLS that just stops has not ended, since anybody on the way can cut it.
async fn more_or_end<R: AsyncRead>(from: &mut ReadHalf<R>, buffer: &mut Vec<u8>, said: bool) -> Result<bool, Stop> {
    if buffer.is_empty() {
        // It may wait for long, and there may be many.
        *buffer = Vec::new();
    }
    buffer.reserve(STEP);
    match from.read_buf(buffer).await {
        Ok(length) => Ok(length > 0),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof && !said => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn send<W: AsyncWrite>(to: &mut WriteHalf<W>, bytes: &[u8]) -> Result<(), Stop> {
    to.write_all(bytes).await?;
    Ok(to.flush().await?)
}

/// A request that was let through, as far as its answer depends on it.
struct Passed {
    method: String,
    closes: bool,
    upgrade: Option<Upgrade>,
}

impl<'a, C, S> Exchange<'a, C, S>
where
    C: AsyncRead + AsyncWrite,
    S: AsyncRead + AsyncWrite,
{
    pub fn new(shared: &'a Shared, target: (&'a Target, &'a Name), flow: &'a Flow, secure: bool, ends: (C, S)) -> Self {
        let (target, name) = target;
        Self { shared, name, target, secure, flow, client: Side::new(ends.0), server: Side::new(ends.1) }
    }

    /// Until one side ends, or a request is refused.
    pub async fn run(mut self) -> Result<(), Stop> {
        loop {
            let Some(length) = self.head().await? else { return self.end().await };
            let head = Zeroizing::new(self.client.buffer.drain(..length.end).collect::<Vec<_>>());
            let judged = self.judge(&length, &head);
            let (asked, granted) = match judged {
                Ok(judged) => judged,
                Err(refusal) => return self.refuse(refusal).await,
            };
            let Kind::Request { body, upgrade, .. } = length.kind else { return Ok(()) };
            // Also of other requests to that name: a server may have kept what it tells.
            let secrets = Secrets::new(self.shared.policy().secrets(self.name));
            let head = asked.head(&head, &granted, upgrade.is_some(), !secrets.is_empty());
            let before = self.flow.answered.get();
            let forbidden = self.forbidden(&asked, &granted);
            let passed = Passed { method: asked.method.clone(), closes: asked.closes, upgrade };
            let carried = async {
                send(&mut self.server.write, &head).await?;
                drop(head);
                self.converse(body, passed, &secrets).await
            };
            let carried = first(pin!(forbidden), pin!(carried)).await;
            match carried {
                First::Right(carried) => {
                    if !carried? {
                        return self.end().await;
                    }
                }
                First::Left(refusal) if self.flow.answered.get() == before => return self.refuse(refusal).await,
                First::Left(refusal) => {
                    self.shared.deny(self.protocol(), self.target.to_string(), refusal);
                    return Err(Stop::Lost);
                }
            }
        }
    }

    /// Until a new policy forbids the request that is carried, or has another say about it.
    fn forbidden(&self, asked: &Asked, granted: &Granted) -> impl Future<Output = Refusal> + use<'a, C, S> {
        let (mut policies, name, port, secure) =
            (self.shared.policies.clone(), self.name, self.target.port, self.secure);
        let (method, target, granted) = (asked.method.clone(), asked.target.clone(), granted.clone());
        // The request was held against the one of a moment ago: nothing has waited since.
        policies.mark_unchanged();
        async move {
            loop {
                if policies.changed().await.is_err() {
                    // The proxy ends, and with it this.
                    return pending().await;
                }
                let policy = policies.borrow_and_update().clone();
                match policy.check_request(name, port, secure, &method, &target) {
                    Ok(now) if now == granted => {}
                    Ok(_) => return Refusal::new("the rules about its requests are now others"),
                    Err(refusal) => return refusal,
                }
            }
        }
    }

    fn protocol(&self) -> Protocol {
        if self.secure { Protocol::Https } else { Protocol::Http }
    }

    /// Says why there is no server to be asked, when something is asked.
    pub async fn fail(mut self, why: &str) -> Result<(), Stop> {
        if self.head().await?.is_some() {
            let words = page("502 Bad Gateway", &format!("fumehood: {}: {why}", self.target));
            self.farewell(&words).await;
        }
        Ok(())
    }

    /// The next request's head; `None`: the client ends.
    async fn head(&mut self) -> Result<Option<head::Head>, Stop> {
        let mut deadline = None;
        loop {
            match head::parse(&self.client.buffer, Sent::Direct) {
                Ok(Some(head)) => {
                    self.flow.sent.set(false);
                    return Ok(Some(head));
                }
                Ok(None) => {}
                Err(why) => {
                    self.refuse(Refusal::new(why)).await?;
                    return Ok(None);
                }
            }
            let begun = !self.client.buffer.is_empty();
            let read = more(&mut self.client.read, &mut self.client.buffer);
            let read = if begun {
                let until = *deadline.get_or_insert_with(|| Instant::now() + self.shared.limits.head);
                timeout_at(until, read).await.unwrap_or(Ok(false))?
            } else {
                read.await?
            };
            if !read {
                self.flow.sent.set(true);
                return if begun { Err(Stop::Lost) } else { Ok(None) };
            }
        }
    }

    /// Whether it may be made, and what becomes of it.
    fn judge(&self, head: &head::Head, bytes: &[u8]) -> Result<(Asked, Granted), Refusal> {
        if !self.target.is(&head.host, head.port) {
            let port = head.port.map(|port| format!(":{port}")).unwrap_or_default();
            return Err(Refusal::new(format!("the request is for {}{port}", head.host)));
        }
        if let Kind::Connect = head.kind {
            return Err(Refusal::new("it asks a server for a tunnel"));
        }
        let asked = Asked::read(bytes).ok_or_else(|| Refusal::new("its head is not well-formed"))?;
        let policy = self.shared.policy();
        let granted = policy.check_request(self.name, self.target.port, self.secure, &asked.method, &asked.target)?;
        match Asked::overridden(bytes, &granted) {
            Some(why) => Err(Refusal::new(why)),
            None => Ok((asked, granted)),
        }
    }

    /// A request's body, and its answer. Whether another request may follow.
    async fn converse(&mut self, body: Body, passed: Passed, secrets: &Secrets) -> Result<bool, Stop> {
        let Self { client, server, flow, .. } = self;
        let whole = Cell::new(false);
        let up = async {
            match upload(body, &mut client.read, &mut client.buffer, &mut server.write).await {
                Ok(Upload::Whole) => whole.set(true),
                // It answers what it has; or ends, which is heard.
                Ok(Upload::Unwanted) => {}
                Ok(Upload::Cut) | Err(_) => return,
            }
            flow.sent.set(whole.get());
            pending().await
        };
        let mut down = Down { read: &mut server.read, buffer: &mut server.buffer, write: &mut client.write, flow };
        // In this order: an answer may be there before anything else was done.
        let answered = match first(pin!(up), pin!(down.answer(&passed, secrets))).await {
            First::Left(()) => return Err(Stop::Lost),
            First::Right(answered) => answered?,
        };
        match answered {
            Answered::Switched if whole.get() => self.opaque(secrets).await,
            Answered::Switched => Err(Stop::Lost),
            Answered::Whole { closes } => Ok(whole.get() && !closes && !passed.closes),
            Answered::Nothing(why) => {
                let words = page("502 Bad Gateway", &format!("fumehood: {}: {why}", self.target));
                self.farewell(&words).await;
                Err(Stop::Lost)
            }
        }
    }

    /// Both ways until one ends: it is HTTP no more.
    async fn opaque(&mut self, secrets: &Secrets) -> Result<bool, Stop> {
        let Self { client, server, flow, .. } = self;
        let up = async {
            loop {
                send(&mut server.write, &client.buffer).await?;
                client.buffer.clear();
                if !more(&mut client.read, &mut client.buffer).await? {
                    server.write.shutdown().await?;
                    flow.sent.set(true);
                    return Ok::<(), Stop>(());
                }
            }
        };
        let down = async {
            let conceal = Conceal::new(secrets);
            let mut down = Down { read: &mut server.read, buffer: &mut server.buffer, write: &mut client.write, flow };
            // Their own words say where it ends.
            down.until_end(conceal, false).await
        };
        match first(pin!(up), pin!(down)).await {
            First::Left(ended) | First::Right(ended) => ended.map(|()| false),
        }
    }

    /// Tells of it and says so to the client.
    async fn refuse(&mut self, refusal: Refusal) -> Result<(), Stop> {
        let target = self.target.to_string();
        let words = forbidden_page(&target, &refusal);
        self.shared.deny(self.protocol(), target, refusal);
        self.farewell(&words).await;
        Ok(())
    }

    /// The last words to the client, and a moment to hear them: bytes of its that nobody reads would reset the line.
    async fn farewell(&mut self, words: &[u8]) {
        const MOST: usize = 1 << 20;
        let said = async {
            send(&mut self.client.write, words).await?;
            self.client.write.shutdown().await?;
            let mut drained = 0;
            while drained < MOST && more(&mut self.client.read, &mut self.client.buffer).await? {
                drained += self.client.buffer.len();
                self.client.buffer.clear();
            }
            Ok::<_, Stop>(())
        };
        _ = timeout(self.shared.limits.farewell, said).await;
    }

    /// Both sides are told that nothing more comes.
    async fn end(&mut self) -> Result<(), Stop> {
        let told = async {
            _ = self.server.write.shutdown().await;
            _ = self.client.write.shutdown().await;
        };
        _ = timeout(self.shared.limits.farewell, told).await;
        Ok(())
    }
}

enum Upload {
    Whole,
    /// The client ended within it.
    Cut,
    /// The server takes no more of it.
    Unwanted,
}

async fn upload<R: AsyncRead, W: AsyncWrite>(
    body: Body,
    from: &mut ReadHalf<R>,
    buffer: &mut Vec<u8>,
    to: &mut WriteHalf<W>,
) -> Result<Upload, Stop> {
    let (mut chunks, mut left) = (Chunks::default(), if let Body::Length(length) = body { length } else { 0 });
    loop {
        let mut renewed = Vec::new();
        let (part, done) = match body {
            Body::Length(_) => {
                let part = left.min(buffer.len() as u64);
                left -= part;
                (part as usize, left == 0)
            }
            Body::Chunked => {
                let part = chunks.renew(buffer, &mut renewed).map_err(|_| Stop::Lost)?;
                (part, chunks.is_done())
            }
        };
        let out = if let Body::Chunked = body { &renewed[..] } else { &buffer[..part] };
        if !out.is_empty() && send(to, out).await.is_err() {
            return Ok(Upload::Unwanted);
        }
        buffer.drain(..part);
        if done {
            return Ok(Upload::Whole);
        }
        if !more(from, buffer).await? {
            return Ok(Upload::Cut);
        }
    }
}

enum Answered {
    Whole {
        closes: bool,
    },
    Switched,
    /// Nothing was passed on, and why.
    Nothing(&'static str),
}

/// From the server to the client.
struct Down<'a, C, S> {
    read: &'a mut ReadHalf<S>,
    buffer: &'a mut Vec<u8>,
    write: &'a mut WriteHalf<C>,
    flow: &'a Flow,
}

impl<C: AsyncWrite, S: AsyncRead> Down<'_, C, S> {
    async fn answer(&mut self, passed: &Passed, secrets: &Secrets) -> Result<Answered, Stop> {
        loop {
            let answer = loop {
                match answer::parse(self.buffer, &passed.method, passed.upgrade.as_ref()) {
                    Ok(Some(answer)) => break answer,
                    Ok(None) => {}
                    Err(why) => return Ok(Answered::Nothing(why)),
                }
                if !more(self.read, self.buffer).await? {
                    return match self.buffer.is_empty() {
                        true => Err(Stop::Lost),
                        false => Ok(Answered::Nothing("its answer is cut")),
                    };
                }
            };
            if answer.encoded && !secrets.is_empty() {
                return Ok(Answered::Nothing(
                    "its answer is compressed, and what must not come back is not found in that",
                ));
            }
            if answer.code == 101 && !answer.switches {
                return Ok(Answered::Nothing("it goes on in another protocol than the request asked for"));
            }
            let mut head = Vec::with_capacity(answer.end);
            let mut conceal = Conceal::new(secrets);
            conceal.push(&self.buffer[..answer.end], &mut head);
            conceal.finish(&mut head);
            self.buffer.drain(..answer.end);
            self.flow.answered.set(self.flow.answered.get() + head.len() as u64);
            send(self.write, &head).await?;
            if answer.switches {
                return Ok(Answered::Switched);
            }
            if answer.is_interim() {
                continue;
            }
            self.body(&answer, conceal).await?;
            return Ok(Answered::Whole { closes: answer.closes });
        }
    }

    async fn body(&mut self, answer: &Answer, mut conceal: Conceal<'_>) -> Result<(), Stop> {
        let mut out = Vec::new();
        match answer.body {
            answer::Body::Length(0) => {}
            answer::Body::Length(mut left) => loop {
                let part = left.min(self.buffer.len() as u64);
                left -= part;
                conceal.push(&self.buffer[..part as usize], &mut out);
                self.buffer.drain(..part as usize);
                if left == 0 {
                    conceal.finish(&mut out);
                    return send(self.write, &out).await;
                }
                // What was announced comes: nothing need be given out before.
                self.pass(&mut out).await?;
            },
            answer::Body::End => return self.until_end(conceal, true).await,
            answer::Body::Chunked if conceal.is_needed() => return self.chunks(conceal).await,
            answer::Body::Chunked => {
                let mut chunks = Chunks::default();
                loop {
                    let part = chunks.feed(self.buffer).map_err(|_| Stop::Lost)?;
                    out.extend_from_slice(&self.buffer[..part]);
                    self.buffer.drain(..part);
                    if chunks.is_done() {
                        return send(self.write, &out).await;
                    }
                    self.pass(&mut out).await?;
                }
            }
        }
        Ok(())
    }

    /// Sends what is decided, and reads more of what must come.
    async fn pass(&mut self, out: &mut Vec<u8>) -> Result<(), Stop> {
        send(self.write, out).await?;
        out.clear();
        if more(self.read, self.buffer).await? { Ok(()) } else { Err(Stop::Lost) }
    }

    /// A body in chunks, passed on in others: where a secret is cut by the end of one it is a secret still.
    async fn chunks(&mut self, mut conceal: Conceal<'_>) -> Result<(), Stop> {
        let (mut chunks, mut out) = (Chunks::default(), Vec::new());
        loop {
            let mut data = Vec::new();
            let part = chunks.feed_with(self.buffer, |bytes| conceal.push(bytes, &mut data)).map_err(|_| Stop::Lost)?;
            self.buffer.drain(..part);
            if chunks.is_done() {
                conceal.finish(&mut data);
                chunk(&data, &mut out);
                out.extend_from_slice(LAST_CHUNK);
                return send(self.write, &out).await;
            }
            chunk(&data, &mut out);
            send(self.write, &out).await?;
            out.clear();
            // Within one, what was announced comes.
            let paused = async { if chunks.is_between() { pause(&conceal).await } else { pending().await } };
            let next = first(pin!(more(self.read, self.buffer)), pin!(paused)).await;
            let read = match next {
                First::Left(read) => read?,
                First::Right(()) => {
                    data.clear();
                    conceal.pause(&mut data);
                    chunk(&data, &mut out);
                    send(self.write, &out).await?;
                    out.clear();
                    more(self.read, self.buffer).await?
                }
            };
            if !read {
                return Err(Stop::Lost);
            }
        }
    }

    /// All that comes. `said`: only an end that is said is one.
    async fn until_end(&mut self, mut conceal: Conceal<'_>, said: bool) -> Result<(), Stop> {
        let mut out = Vec::new();
        loop {
            conceal.push(self.buffer, &mut out);
            self.buffer.clear();
            send(self.write, &out).await?;
            out.clear();
            let next = first(pin!(more_or_end(self.read, self.buffer, said)), pin!(pause(&conceal))).await;
            let read = match next {
                First::Left(read) => read?,
                First::Right(()) => {
                    conceal.pause(&mut out);
                    send(self.write, &out).await?;
                    out.clear();
                    more_or_end(self.read, self.buffer, said).await?
                }
            };
            if !read {
                conceal.finish(&mut out);
                return send(self.write, &out).await;
            }
        }
    }
}

/// When what is held back is no longer held for nothing but what could come.
async fn pause(conceal: &Conceal<'_>) {
    if conceal.is_holding() { sleep(PAUSE).await } else { pending().await }
}
