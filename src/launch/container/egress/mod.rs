//! The process beside a container whose network is filtered: it makes the gateway, and is the proxy behind it for as long as
//! the container's first process lives.
//!
//! Invariant: the container's programs are only ever in a network namespace whose one link leads to the gateway, and the
//! gateway's leads nowhere. What the engine knows as the container's network is another namespace, in which the container
//! has no process; the proxy's sockets are made there. So nothing that is done inside, whatever the capabilities, opens
//! a way out, and when this process is killed there is none.
//!
//! It is made by `create`, holds nothing of the container's but its network, and what it is told comes from the container's
//! first process while that is still ours: the namespace, and that `start` was called.

mod gateway;

use std::{
    fs::File,
    io::Write,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    time::Duration,
};

use serde::Serialize;

use super::{
    super::{
        control::{Answer, Control, Request},
        egress::Egress,
        ids,
    },
    devices,
    program::{self, failed},
};
use crate::{
    error::Hint,
    net::{Contact, Outward, Policy},
    plan::container::egress::{self as plan, Network},
    state::container::{self as state, Init},
    sys::{
        clone::{self, Cloned},
        fs, process, socket,
    },
};

/// How long what a container sent last may take to go out when it has ended.
pub const GRACE: Duration = Duration::from_secs(3);

/// What the container says: here is my network; I begin.
const NETWORK: &[u8] = b"N";
const BEGIN: &[u8] = b"B";
/// What it is answered with: go on, or why not.
const GO: u8 = b'G';
const FAILED: u8 = b'F';
/// The longest reason.
const WORDS: usize = 4 << 10;

/// The container's end.
#[derive(Debug, Clone, Copy)]
pub struct Gate<'a> {
    pub socket: BorrowedFd<'a>,
    /// The engine's namespace is the one that the process is in: see [`Gate::leave`].
    pub engine_is_here: bool,
}

impl Gate<'_> {
    /// Has the network namespace that this thread is in linked to a gateway.
    pub fn link(self) -> Result<(), String> {
        let own = File::open("/proc/thread-self/ns/net").map_err(|error| format!("open network namespace: {error}"))?;
        socket::send(self.socket, NETWORK, Some(own.as_fd())).map_err(|_| gone())?;
        self.hear()
    }

    /// The program is about to run: from here on somebody listens behind the gateway. With write(2) and read(2), which
    /// every filter that is loaded by now lets by.
    pub fn begin(self) -> Result<(), String> {
        fs::write_all(self.socket, BEGIN).map_err(|_| gone())?;
        self.hear()
    }

    fn hear(self) -> Result<(), String> {
        let mut words = [0; WORDS];
        match fs::read(self.socket, &mut words).map(|length| words[..length].split_first()) {
            Ok(Some((&GO, []))) => Ok(()),
            Ok(Some((&FAILED, why))) => Err(String::from_utf8_lossy(why).into_owned()),
            _ => Err(gone()),
        }
    }
}

fn gone() -> String {
    "the process that filters the container's network has ended".to_owned()
}

/// What it is made of.
#[derive(Debug)]
pub struct Beside<'a> {
    pub id: &'a str,
    pub egress: &'a plan::Egress,
    /// The other end of the [`Gate`].
    pub gate: BorrowedFd<'a>,
    pub init: BorrowedFd<'a>,
    pub init_pid: i32,
    /// Whether we may enter namespaces that are no user namespace's of ours.
    pub privileged: bool,
    /// Where the policy is asked for and changed.
    pub door: Option<BorrowedFd<'a>>,
    /// Where each connection is a line.
    pub log: Option<BorrowedFd<'a>>,
}

/// The engine's namespace, by device and inode, as a process is seen in it.
pub fn network_of(pid: i32) -> Result<(u64, u64), String> {
    let found = std::fs::metadata(format!("/proc/{pid}/ns/net"));
    found.map(|found| (found.dev(), found.ino())).map_err(|error| format!("look at a network namespace: {error}"))
}

impl Beside<'_> {
    /// Starts it; it goes on by itself.
    pub fn start(&self) -> Result<state::Egress, String> {
        let engine = self.open_engine()?;
        let found = engine.metadata().map_err(|error| format!("look at a network namespace: {error}"))?;
        let before = match self.egress.network {
            Network::New { .. } if self.privileged => devices::indices(&engine)?,
            _ => Vec::new(),
        };
        // An ordinary user has rights over the container's network as root of its user namespace alone, which is to be had
        // as long as its process may be looked into.
        let users = match self.privileged {
            true => None,
            false => Some(ids::namespace(self.init_pid).map_err(|error| error.into_error().message().to_owned())?),
        };
        let Cloned::Parent { pid, .. } = clone::clone_process(0, None).map_err(failed("start the proxy"))? else {
            let status = self.live(engine, &before, users).map_or(1, |()| 0);
            process::exit_now(status)
        };
        let proxy = Init::of(pid).map_err(|error| format!("look at the proxy: {error}"))?;
        Ok(state::Egress { proxy, engine: (found.dev(), found.ino()) })
    }

    fn open_engine(&self) -> Result<File, String> {
        let path = match &self.egress.network {
            Network::Path(path) => path.clone(),
            Network::New { .. } => format!("/proc/{}/ns/net", self.init_pid).into(),
        };
        let open = || {
            Ok((super::namespaces::open(&path, libc::CLONE_NEWNET)?.into(), std::fs::metadata("/proc/self/ns/net")?))
        };
        let (engine, own): (File, _) =
            open().map_err(|error: std::io::Error| format!("open network namespace {}: {error}", path.display()))?;
        let found = engine.metadata().map_err(|error| format!("look at a network namespace: {error}"))?;
        match (found.dev(), found.ino()) == (own.dev(), own.ino()) {
            true => Err(format!(
                "io.fumehood.egress: the network namespace {} is the host's, which is nobody's to filter",
                path.display()
            )),
            false => Ok(engine),
        }
    }

    fn live(&self, engine: File, before: &[u32], users: Option<OwnedFd>) -> Result<(), String> {
        self.part_from_caller(&engine, users.as_ref())?;
        let mut made = self.told(|| {
            let mut word = [0; 1];
            match socket::receive(self.gate, &mut word) {
                Ok((1, Some(network))) if word == NETWORK => gateway::make(self.egress, &network, users.as_ref()),
                // It has ended, and nobody hears this.
                _ => Err("nothing was heard of the container's network".to_owned()),
            }
        })?;
        let mut door = self.door.map(copy).transpose()?.map(Control::new);
        if !self.begins(door.as_mut()) {
            return Ok(());
        }
        let egress = self.told(|| {
            let outward = self.outward(engine, before)?;
            let inward = made.inward(&self.egress.publish, outward.as_ref())?;
            let policy = Policy::clone(&self.egress.policy);
            let started = Egress::start(policy, made.listeners, self.log.is_some(), inward, outward);
            started.map_err(|error| error.into_error().message().to_owned())
        })?;
        self.stay(egress, door)
    }

    /// Nobody who waits for the caller's end waits for ours, and nothing of the caller's is held.
    fn part_from_caller(&self, engine: &File, users: Option<&OwnedFd>) -> Result<(), String> {
        let null = File::options().read(true).write(true).open("/dev/null");
        let null = null.map_err(|error| format!("open /dev/null: {error}"))?;
        for number in 0..3 {
            process::install_fd(null.as_fd(), number).map_err(failed("leave the caller's streams"))?;
        }
        drop(null);
        let mut keep = vec![self.gate, self.init, engine.as_fd()];
        keep.extend(users.map(AsFd::as_fd));
        keep.extend(self.door);
        keep.extend(self.log);
        program::close_all_but(keep, 0).map_err(failed("close inherited descriptors"))?;
        process::new_session().map_err(failed("make a session"))?;
        process::set_name(c"fumehood-egress");
        process::reset_signals();
        process::set_undumpable().map_err(failed("set undumpable"))?;
        // Else it would keep in use whatever is mounted where the caller stood.
        std::env::set_current_dir("/").map_err(|error| format!("chdir: {error}"))
    }

    /// What comes of it, which the container is told.
    fn told<T>(&self, make: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        let made = make();
        let record = match &made {
            Ok(_) => vec![GO],
            Err(why) => std::iter::once(FAILED).chain(why.bytes()).take(WORDS).collect(),
        };
        socket::send(self.gate, &record, None).map_err(failed("tell the container"))?;
        made
    }

    /// Whether the container was started; false, where it has ended before. Who asks for its policy meanwhile is told to
    /// wait: what it says must not come into force later, unasked.
    fn begins(&self, mut door: Option<&mut Control>) -> bool {
        let mut word = [0; 1];
        loop {
            let waits = [self.init, self.gate].into_iter().chain(door.iter().flat_map(|door| door.sources()));
            let mut fds = polled(waits);
            if process::poll(&mut fds, None).is_err() || fds[0].revents != 0 {
                return false;
            }
            if fds[1].revents != 0 {
                return matches!(socket::receive(self.gate, &mut word), Ok((1, None)) if word == BEGIN);
            }
            if let Some(door) = &mut door {
                door.serve(|_| Answer::Error("it is not started yet: its policy is what it was made with".to_owned()));
            }
        }
    }

    /// From where the proxy dials: none for the host's network.
    fn outward(&self, engine: File, before: &[u32]) -> Result<Option<Outward>, String> {
        if let Network::New { or_host: true } = self.egress.network
            && (!self.privileged || devices::indices(&engine)?.iter().all(|index| before.contains(index)))
        {
            return Ok(None);
        }
        Ok(Some(Outward(engine.into())))
    }

    /// Until the container's first process has ended.
    fn stay(&self, mut egress: Egress, mut door: Option<Control>) -> Result<(), String> {
        let mut log = self.log.map(copy).transpose()?.map(File::from);
        loop {
            let waits = [self.init, egress.as_fd()].into_iter().chain(door.iter().flat_map(Control::sources));
            let mut fds = polled(waits);
            process::poll(&mut fds, None).map_err(failed("wait"))?;
            self.hear(&egress, log.as_mut())?;
            if fds[0].revents != 0 {
                break;
            }
            if let Some(door) = &mut door {
                door.serve(|request| answer(&egress, request));
            }
        }
        egress.drain(GRACE);
        while !egress.is_drained() {
            let mut fds = polled([egress.as_fd()].into_iter());
            process::poll(&mut fds, None).map_err(failed("wait"))?;
            self.hear(&egress, log.as_mut())?;
        }
        let last: Vec<_> = egress.end().collect();
        write_down(self.id, last.iter(), log.as_mut())
    }

    fn hear(&self, egress: &Egress, log: Option<&mut File>) -> Result<(), String> {
        egress.awake();
        egress.refused();
        let contacts: Vec<_> = egress.contacts().collect();
        write_down(self.id, contacts.iter(), log)
    }
}

fn copy(fd: BorrowedFd<'_>) -> Result<OwnedFd, String> {
    fd.try_clone_to_owned().map_err(|error| format!("copy a descriptor: {error}"))
}

fn polled<'a>(waits: impl Iterator<Item = BorrowedFd<'a>>) -> Vec<libc::pollfd> {
    waits.map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect()
}

fn answer(egress: &Egress, request: Request) -> Answer {
    match request {
        Request::Show => Answer::Policy(Box::new(Policy::clone(&egress.policy()))),
        Request::Set(policy) if policy.inspects_any() => {
            Answer::Error("a container does not know the authority that rules about requests take".to_owned())
        }
        Request::Set(policy) => {
            egress.set_policy(*policy);
            Answer::Done
        }
    }
}

/// A line for each. One that cannot be written ends the proxy, and with it the network.
fn write_down<'a>(id: &str, contacts: impl Iterator<Item = &'a Contact>, log: Option<&mut File>) -> Result<(), String> {
    #[derive(Serialize)]
    struct Line<'a> {
        id: &'a str,
        #[serde(flatten)]
        contact: &'a Contact,
    }
    let Some(log) = log else { return Ok(()) };
    let mut text = Vec::new();
    for contact in contacts {
        serde_json::to_writer(&mut text, &Line { id, contact }).map_err(|error| error.to_string())?;
        text.push(b'\n');
    }
    log.write_all(&text).map_err(|error| format!("write the log of connections: {error}"))
}
