//! The init's cloning where the sandbox has a gateway: by a helper that has made the gateway's namespace and the
//! sandbox's, and stands in the latter.
//!
//! The link between the two, which takes the kernel a while, is made while the init builds and the proxy starts. Nothing of
//! the sandbox's runs before the supervisor says so, and that waits for [`Helper::whole`].
//!
//! Without privilege the helper is in a user namespace of its own, which owns both networks and is the parent of the
//! sandbox's: what is root inside the sandbox is nobody to either. The helper is gone before any program runs, and the init
//! is the supervisor's own child (clone(2), CLONE_PARENT).
//!
//! Where ports are published it stays, back in the gateway's namespace, and makes the sockets by which the proxy reaches
//! the sandbox: only who is in there can.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{LaunchError, Running, ids, init::World, system};
use crate::{
    cgroup::Leaf,
    net::{
        Listeners,
        gateway::{Gateway, Step, give_sockets},
    },
    plan::{
        Plan,
        ids::{IdsKind, Map},
    },
    sys::{
        self, Errno,
        clone::{self, Cloned},
        namespace, process, socket,
    },
};

/// The helper's words: a tag, a step, an errno or a pid.
type Record = [u8; 6];
const FAILED: u8 = b'F';
const CLONE_FAILED: u8 = b'C';
const IDS_FAILED: u8 = b'I';
const MADE: u8 = b'M';

fn copy(fd: &OwnedFd) -> Result<OwnedFd, LaunchError> {
    fd.try_clone().map_err(|error| LaunchError::System {
        what: "copy a descriptor",
        errno: Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)),
    })
}

/// Clones the init into a network without a way out, and the helper that makes one. The init is heard by `control`; it
/// runs `world` and does not return.
pub(super) fn clone_init(
    plan: &Plan,
    leaf: Option<&Leaf>,
    world: &World<'_>,
    control: OwnedFd,
) -> Result<(Running, Helper), LaunchError> {
    let (ours, theirs) = socket::record_pair().map_err(system("make a socket pair"))?;
    let reserved = copy(&theirs)?;
    let udp = plan.egress.iter().chain(&plan.setup_egress).any(|policy| policy.passes_udp());
    let gateway = Gateway::new(reserved.as_fd(), udp);
    let nested = plan.ids.kind != IdsKind::Range;
    let ids = nested.then(|| ids::Nested::new(&plan.ids));
    let flags = libc::CLONE_NEWNET | if nested { libc::CLONE_NEWUSER } else { 0 };
    let helper = match clone::clone_process(flags as u64, None).map_err(LaunchError::Clone)? {
        Cloned::Child => {
            // It hears of its supervisor's end by the end of what it reads.
            drop(ours);
            let supervisor = theirs.as_fd();
            Helping { plan, leaf, world, gateway: &gateway, ids: ids.as_ref(), supervisor }.live(reserved)
        }
        Cloned::Parent { pid, pidfd } => Helper { pid, pidfd, socket: ours, udp },
    };
    drop((theirs, reserved));
    if nested {
        let (users, groups) = (outer(&plan.ids.users), outer(&plan.ids.groups));
        ids::write(plan.ids.kind, &users, &groups, helper.pid)?;
    }
    // Should it be gone, there will be nothing to receive.
    _ = socket::send(helper.socket.as_fd(), b"g", None);
    // From here on the init is killed and waited for if anything fails.
    let (pid, pidfd) = helper.init()?;
    let running = Running::new(pid, pidfd, control);
    // Its ids are written by now, as far as the helper does that: it may build.
    helper.next()?;
    Ok((running, helper))
}

/// The helper, as its parent has it; dropped, it is gone.
#[derive(Debug)]
pub(super) struct Helper {
    pid: i32,
    pidfd: OwnedFd,
    socket: OwnedFd,
    /// Whether there are sockets for it.
    udp: bool,
}

impl Helper {
    fn init(&self) -> Result<(i32, OwnedFd), LaunchError> {
        match self.next()? {
            (pid, Some(pidfd)) => Ok((pid, pidfd)),
            _ => Err(LaunchError::Lost),
        }
    }

    /// What the gateway listens on, before there is a way there.
    pub fn listeners(&self) -> Result<Listeners, LaunchError> {
        let next = || self.next()?.1.ok_or(LaunchError::Lost);
        Listeners::receive(false, self.udp, next)
    }

    /// Waits until the gateway is whole.
    pub fn whole(&self) -> Result<(), LaunchError> {
        self.next().map(drop)
    }

    /// Where a socket in the gateway's namespace is had for each byte, if ports are published.
    pub fn sockets(&self) -> Result<OwnedFd, LaunchError> {
        copy(&self.socket)
    }

    /// The next thing made: a number and a descriptor.
    fn next(&self) -> Result<(i32, Option<OwnedFd>), LaunchError> {
        let mut record: Record = [0; 6];
        let received = socket::receive(self.socket.as_fd(), &mut record);
        let (length, fd) = received.map_err(system("hear of the gateway"))?;
        if length != size_of::<Record>() {
            return Err(LaunchError::Lost);
        }
        let [tag, step, number @ ..] = record;
        let number = i32::from_ne_bytes(number);
        let errno = Errno::from_raw(number);
        Err(match tag {
            MADE => return Ok((number, fd)),
            FAILED => {
                let step = Step::ALL.get(usize::from(step)).copied().ok_or(LaunchError::Lost)?;
                LaunchError::Gateway { step, errno }
            }
            CLONE_FAILED => LaunchError::Clone(errno),
            IDS_FAILED => LaunchError::System { what: "map the sandbox's ids", errno },
            _ => LaunchError::Lost,
        })
    }
}

impl Drop for Helper {
    /// It has done all there is to do, or will not be listened to any more.
    fn drop(&mut self) {
        _ = process::signal(self.pidfd.as_fd(), libc::SIGKILL);
        _ = process::wait(self.pid, true);
    }
}

/// Each id of the host's that is used, as itself.
fn outer(maps: &[Map]) -> Vec<Map> {
    maps.iter().map(|map| Map { inside: map.outside, ..*map }).collect()
}

/// What the helper uses, all of it made before: it is a fork of a process that may have other threads, and so allocates
/// nothing.
struct Helping<'a> {
    plan: &'a Plan,
    leaf: Option<&'a Leaf>,
    world: &'a World<'a>,
    gateway: &'a Gateway,
    ids: Option<&'a ids::Nested>,
    supervisor: BorrowedFd<'a>,
}

impl Helping<'_> {
    /// `reserved`: a descriptor that nobody else uses here.
    fn live(&self, reserved: OwnedFd) -> ! {
        let mut go = [0];
        if !matches!(socket::receive(self.supervisor, &mut go), Ok((1, None))) {
            process::exit_now(1);
        }
        let mut made = None;
        // gVisor takes packets off the link itself, which only the owner of the namespace's may do: it is then the
        // init's own.
        let enter = || {
            if self.plan.gvisor.is_none() {
                return namespace::leave(libc::CLONE_NEWNET);
            }
            let init = self.clone_init(libc::CLONE_NEWNET as u64);
            namespace::enter(made.insert(init).1.as_fd(), libc::CLONE_NEWNET)
        };
        let begun = match self.gateway.begin(reserved, enter) {
            Ok(begun) => begun,
            Err((step, errno)) => self.fail(FAILED, step as u8, errno),
        };
        let (pid, _pidfd) = made.unwrap_or_else(|| self.clone_init(0));
        if let Some(Err(error)) = self.ids.map(|ids| ids.write(pid)) {
            self.fail(IDS_FAILED, 0, Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)));
        }
        let mut sent = self.say(MADE, 0, 0, None);
        for fd in begun.listeners().descriptors() {
            sent = sent.and_then(|()| self.say(MADE, 0, 0, Some(fd.as_fd())));
        }
        // The proxy is started meanwhile.
        let namespace = match begun.finish() {
            Ok((_, namespace)) => namespace,
            Err((step, errno)) => self.fail(FAILED, step as u8, errno),
        };
        sent = sent.and_then(|()| self.say(MADE, 0, 0, None));
        if sent.is_ok() && !self.plan.publish.is_empty() {
            _ = give_sockets(namespace.as_fd(), self.supervisor);
        }
        process::exit_now(i32::from(sent.is_err()))
    }

    /// Who is told of it at once ends it whatever happens; it waits for its ids meanwhile.
    fn clone_init(&self, more: u64) -> (i32, OwnedFd) {
        let flags = self.plan.clone_flags() | libc::CLONE_PARENT as u64 | more;
        let (pid, pidfd) = match clone::clone_process(flags, self.leaf.and_then(Leaf::clone_into)) {
            Ok(Cloned::Child) => self.world.run(),
            Ok(Cloned::Parent { pid, pidfd }) => (pid, pidfd),
            Err(errno) => self.fail(CLONE_FAILED, 0, errno),
        };
        if self.say(MADE, 0, pid, Some(pidfd.as_fd())).is_err() {
            process::exit_now(1)
        }
        (pid, pidfd)
    }

    fn say(&self, tag: u8, step: u8, number: i32, fd: Option<BorrowedFd<'_>>) -> sys::Result<()> {
        let [a, b, c, d] = number.to_ne_bytes();
        socket::send(self.supervisor, &[tag, step, a, b, c, d], fd)
    }

    fn fail(&self, tag: u8, step: u8, errno: Errno) -> ! {
        _ = self.say(tag, step, errno as i32, None);
        process::exit_now(1)
    }
}
