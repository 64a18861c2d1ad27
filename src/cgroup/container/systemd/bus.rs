//! A connection to systemd: one socket, one call at a time.
//!
//! Through the bus, or, where none is running, by systemd's own socket, on which it speaks the same. Who calls is
//! told by the socket (EXTERNAL without a name), so that it holds in a user namespace, too.

use std::{
    env,
    io::{Read, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixStream},
    },
    time::{Duration, Instant},
};

use super::{
    super::ContainerCgroupError,
    wire::{Body, Head, Kind, Message, Value, length, message},
};

type Result<T = ()> = std::result::Result<T, ContainerCgroupError>;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
/// For a job, as runc and crun have it.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    pub(super) serial: u32,
    /// Signals that came while an answer was awaited.
    signals: Vec<Message>,
    subscribed: bool,
    pub(super) end: Instant,
}

/// An answer that says no, by its name.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) name: String,
    pub(super) text: String,
}

fn failed(what: impl Into<String>) -> ContainerCgroupError {
    ContainerCgroupError::Systemd { what: what.into() }
}

impl Connection {
    pub(super) fn open(user: bool) -> Result<Self> {
        let addresses = addresses(user, |name| env::var(name).ok());
        let mut why =
            "there is no address of the user's bus: neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set"
                .to_owned();
        for (address, bus) in addresses {
            let shown = |address: &SocketAddr| match address.as_pathname() {
                Some(path) => path.display().to_string(),
                None => "an abstract socket".to_owned(),
            };
            match UnixStream::connect_addr(&address) {
                Ok(stream) => {
                    return Self::begin(stream, bus).map_err(|error| failed(format!("{}: {error}", shown(&address))));
                }
                Err(error) => why = format!("cannot connect to {}: {error}", shown(&address)),
            }
        }
        Err(failed(why))
    }

    fn begin(stream: UnixStream, bus: bool) -> std::result::Result<Self, String> {
        let end = Instant::now() + PATIENCE;
        let mut connection = Self { stream, serial: 0, signals: Vec::new(), subscribed: false, end };
        connection.send(b"\0AUTH EXTERNAL\r\n")?;
        connection.expect("DATA")?;
        connection.send(b"DATA\r\n")?;
        connection.expect("OK")?;
        connection.send(b"BEGIN\r\n")?;
        if bus {
            let refused = |error: Refusal| error.text;
            connection.ask("Hello", &Body::default())?.map_err(refused)?;
            let rule = format!("type='signal',interface='{MANAGER}',member='JobRemoved'");
            connection.ask("AddMatch", &Body::default().with(&Value::text(rule)))?.map_err(refused)?;
        }
        Ok(connection)
    }

    /// A line of the handshake, which must be of this kind.
    fn expect(&mut self, word: &str) -> std::result::Result<(), String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.receive(&mut byte)?;
            line.push(byte[0]);
            if line.len() > 4096 {
                return Err("no D-Bus server".to_owned());
            }
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if line.split(' ').next() == Some(word) { Ok(()) } else { Err(format!("it answered `{line}`, not {word}")) }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> std::result::Result<(), String> {
        self.stream.write_all(bytes).map_err(|error| error.to_string())
    }

    fn receive(&mut self, bytes: &mut [u8]) -> std::result::Result<(), String> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("no answer in {} s", PATIENCE.as_secs()));
        }
        self.stream.set_read_timeout(Some(left)).map_err(|error| error.to_string())?;
        self.stream.read_exact(bytes).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => format!("no answer in {} s", PATIENCE.as_secs()),
            _ => error.to_string(),
        })
    }

    pub(super) fn next(&mut self) -> std::result::Result<Message, String> {
        let mut bytes = vec![0; 16];
        self.receive(&mut bytes)?;
        let total = bytes.first_chunk().and_then(length).ok_or("what came is no D-Bus message")?;
        bytes.resize(total, 0);
        self.receive(&mut bytes[16..])?;
        Message::read(&bytes).ok_or_else(|| "what came is no D-Bus message".to_owned())
    }

    /// Calls the bus itself.
    pub(super) fn ask(
        &mut self,
        member: &str,
        body: &Body,
    ) -> std::result::Result<std::result::Result<Message, Refusal>, String> {
        const BUS: &str = "org.freedesktop.DBus";
        self.call_at(BUS, "/org/freedesktop/DBus", BUS, member, body)
    }

    fn call_at(
        &mut self,
        destination: &str,
        path: &str,
        interface: &str,
        member: &str,
        body: &Body,
    ) -> std::result::Result<std::result::Result<Message, Refusal>, String> {
        self.serial += 1;
        self.end = Instant::now() + PATIENCE;
        let head = Head {
            path: path.to_owned(),
            interface: interface.to_owned(),
            member: member.to_owned(),
            destination: destination.to_owned(),
            ..Head::default()
        };
        self.send(&message(Kind::Call, self.serial, &head, body))?;
        loop {
            let answer = self.next()?;
            match answer.kind {
                Kind::Signal => self.signals.push(answer),
                Kind::Reply if answer.head.reply_to == self.serial => return Ok(Ok(answer)),
                Kind::Error if answer.head.reply_to == self.serial => {
                    let text = answer.reader().string().unwrap_or_default().to_owned();
                    return Ok(Err(Refusal { name: answer.head.error, text }));
                }
                _ => {}
            }
        }
    }

    /// Calls systemd's manager.
    pub(super) fn call(&mut self, member: &str, body: &Body) -> Result<std::result::Result<Message, Refusal>> {
        self.call_at(SYSTEMD, OBJECT, MANAGER, member, body).map_err(|why| failed(format!("{member}: {why}")))
    }

    /// Where a refusal is a failure.
    pub(super) fn must(&mut self, member: &str, body: &Body) -> Result<Message> {
        self.call(member, body)?.map_err(|refusal| failed(format!("{member}: {}", refusal.text)))
    }

    /// A property of the manager's that is text.
    pub(super) fn property(&mut self, name: &str) -> Result<String> {
        let body = Body::default().with(&Value::text(MANAGER)).with(&Value::text(name));
        let answer = self.call_at(SYSTEMD, OBJECT, "org.freedesktop.DBus.Properties", "Get", &body);
        let wrong = |why: String| failed(format!("the manager's {name}: {why}"));
        let answer = answer.map_err(wrong)?.map_err(|refusal| wrong(refusal.text))?;
        let mut reader = answer.reader();
        let text = if reader.short_string() == Some("s") { reader.string() } else { None };
        text.map(str::to_owned).ok_or_else(|| wrong("is no text".to_owned()))
    }

    /// Calls for a job and waits for its end, whose result it returns (`done`, or another word).
    pub(super) fn job(&mut self, member: &str, body: &Body) -> Result<std::result::Result<String, Refusal>> {
        if !self.subscribed {
            // Without a subscriber systemd tells of no job's end.
            self.must("Subscribe", &Body::default())?;
            self.subscribed = true;
        }
        let answer = match self.call(member, body)? {
            Ok(answer) => answer,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let job = answer.reader().string().map(str::to_owned);
        let job = job.ok_or_else(|| failed(format!("{member}: the answer names no job")))?;
        loop {
            let signals: Vec<_> = self.signals.drain(..).collect();
            if let Some(result) = signals.iter().find_map(|signal| ended(signal, &job)) {
                return Ok(Ok(result));
            }
            let next = self.next().map_err(|why| failed(format!("{member}, waiting for its job: {why}")))?;
            if next.kind == Kind::Signal {
                self.signals.push(next);
            }
        }
    }
}

/// JobRemoved(u id, o job, s unit, s result)
pub(super) fn ended(signal: &Message, job: &str) -> Option<String> {
    if signal.head.member != "JobRemoved" || signal.head.interface != MANAGER {
        return None;
    }
    let mut reader = signal.reader();
    reader.u32()?;
    let ours = reader.string()? == job;
    let (_, result) = (reader.string()?, reader.string()?);
    ours.then(|| result.to_owned())
}

/// Where systemd may be heard, in order, and whether by way of a bus.
fn addresses(user: bool, variable: impl Fn(&str) -> Option<String>) -> Vec<(SocketAddr, bool)> {
    let mut found = Vec::new();
    let path = |path: String, bus| SocketAddr::from_pathname(path).ok().map(|address| (address, bus));
    if user {
        if let Some(list) = variable("DBUS_SESSION_BUS_ADDRESS") {
            found.extend(list.split(';').filter_map(parse).map(|address| (address, true)));
        }
        if let Some(dir) = variable("XDG_RUNTIME_DIR") {
            found.extend(path(format!("{dir}/bus"), true));
            found.extend(path(format!("{dir}/systemd/private"), false));
        }
    } else {
        let list = variable("DBUS_SYSTEM_BUS_ADDRESS");
        match list {
            Some(list) => found.extend(list.split(';').filter_map(parse).map(|address| (address, true))),
            None => found.extend(path("/run/dbus/system_bus_socket".to_owned(), true)),
        }
        found.extend(path("/run/systemd/private".to_owned(), false));
    }
    found
}

/// `unix:path=/run/user/1000/bus,guid=…`, with `%20` for what has a meaning.
fn parse(address: &str) -> Option<SocketAddr> {
    let pairs = address.strip_prefix("unix:")?.split(',').filter_map(|pair| pair.split_once('='));
    for (key, value) in pairs {
        let value = unescape(value)?;
        match key {
            "path" => return SocketAddr::from_pathname(String::from_utf8(value).ok()?).ok(),
            "abstract" => return SocketAddr::from_abstract_name(value).ok(),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(address: &SocketAddr) -> Option<&str> {
        address.as_pathname().and_then(|path| path.to_str())
    }

    #[test]
    fn addresses_of_buses() {
        let parsed = |text: &str| parse(text).and_then(|address| path(&address).map(str::to_owned));
        assert_eq!(parsed("unix:path=/run/user/1000/bus").as_deref(), Some("/run/user/1000/bus"));
        assert_eq!(parsed("unix:guid=12,path=/tmp/a%20b").as_deref(), Some("/tmp/a b"));
        assert_eq!(parse("unix:abstract=/tmp/dbus-x,guid=1").unwrap().as_abstract_name(), Some(&b"/tmp/dbus-x"[..]));
        for nonsense in ["tcp:host=a", "unix:", "unix:path=/a%2", "unix:path=/a%zz", ""] {
            assert!(parse(nonsense).is_none(), "{nonsense}");
        }
    }

    #[test]
    fn the_users_bus_and_the_systems() {
        let variable = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| "/run/user/7".to_owned());
        let user = addresses(true, variable);
        let paths: Vec<_> = user.iter().map(|(address, bus)| (path(address).unwrap(), *bus)).collect();
        assert_eq!(paths, [("/run/user/7/bus", true), ("/run/user/7/systemd/private", false)]);
        let system = addresses(false, variable);
        let paths: Vec<_> = system.iter().map(|(address, bus)| (path(address).unwrap(), *bus)).collect();
        assert_eq!(paths, [("/run/dbus/system_bus_socket", true), ("/run/systemd/private", false)]);
        assert!(addresses(true, |_| None).is_empty());
    }
}
