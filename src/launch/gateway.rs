//! The init's cloning where the sandbox has a gateway: by a helper that has made the gateway's namespace and the
//! sandbox's, and stands in the latter.
//!
//! Without privilege the helper is in a user namespace of its own, which owns both networks and is the parent of the
//! sandbox's: what is root inside the sandbox is nobody to either. The helper is gone before the init builds anything,
//! and the init is the supervisor's own child (clone(2), CLONE_PARENT).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{LaunchError, ids, init::World, system};
use crate::{
    cgroup::Leaf,
    net::{
        Listeners,
        gateway::{Gateway, Step},
    },
    plan::{
        Plan,
        ids::{IdsKind, Map},
    },
    sys::{
        self, Errno,
        clone::{self, Cloned},
        process, socket,
    },
};

/// The init, and what its gateway listens on.
pub(super) struct Made {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub listeners: Listeners,
}

/// The helper's words: a tag, a step, an errno or a pid.
type Record = [u8; 6];
const FAILED: u8 = b'F';
const CLONE_FAILED: u8 = b'C';
const IDS_FAILED: u8 = b'I';
const MADE: u8 = b'M';

/// Makes the gateway and clones the init behind it. The child runs `world` and does not return.
pub(super) fn clone_init(plan: &Plan, leaf: Option<&Leaf>, world: &World<'_>) -> Result<Made, LaunchError> {
    let (ours, theirs) = socket::record_pair().map_err(system("make a socket pair"))?;
    let gateway = Gateway::new(ours.as_fd());
    let nested = plan.ids.kind != IdsKind::Range;
    let ids = nested.then(|| ids::Nested::new(&plan.ids));
    let flags = libc::CLONE_NEWNET | if nested { libc::CLONE_NEWUSER } else { 0 };
    let (pid, _pidfd) = match clone::clone_process(flags as u64, None).map_err(LaunchError::Clone)? {
        Cloned::Child => {
            let supervisor = theirs.as_fd();
            Helping { plan, leaf, world, gateway: &gateway, ids: ids.as_ref(), supervisor }.live(ours)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    let helper = Helper { pid, socket: Some(ours) };
    if nested {
        let (users, groups) = (outer(&plan.ids.users), outer(&plan.ids.groups));
        ids::write(plan.ids.kind, &users, &groups, pid)?;
    }
    // Should it be gone, there will be nothing to receive.
    helper.go();
    helper.receive()
}

/// The helper, as its parent has it.
struct Helper {
    pid: i32,
    socket: Option<OwnedFd>,
}

impl Helper {
    fn go(&self) {
        // Should it be gone, there will be nothing to receive.
        _ = self.socket.as_ref().map(|socket| socket::send(socket.as_fd(), b"g", None));
    }

    fn receive(&self) -> Result<Made, LaunchError> {
        let next = || {
            let mut record: Record = [0; 6];
            let (length, fd) = socket::receive(self.socket.as_ref().ok_or(Errno::EBADF)?.as_fd(), &mut record)?;
            Ok((length, record, fd))
        };
        let (length, [tag, step, number @ ..], pidfd) = next().map_err(system("hear of the gateway"))?;
        let number = i32::from_ne_bytes(number);
        if length != size_of::<Record>() {
            return Err(LaunchError::Lost);
        }
        let pidfd = match (tag, pidfd) {
            (MADE, Some(pidfd)) => pidfd,
            (FAILED, None) => {
                let what = Step::ALL.get(usize::from(step)).map_or("make the gateway", |step| step.what());
                return Err(LaunchError::Gateway { what, errno: Errno::from_raw(number) });
            }
            (CLONE_FAILED, None) => return Err(LaunchError::Clone(Errno::from_raw(number))),
            (IDS_FAILED, None) => {
                return Err(LaunchError::System { what: "map the sandbox's ids", errno: Errno::from_raw(number) });
            }
            _ => return Err(LaunchError::Lost),
        };
        let listener = || match next() {
            Ok((_, _, Some(fd))) => Ok(fd),
            Ok(_) => Err(LaunchError::Lost),
            Err(errno) => Err(LaunchError::System { what: "hear of the gateway", errno }),
        };
        let listeners =
            Listeners { tcp: listener()?, dns_udp: listener()?, dns_tcp: listener()?, explicit: listener()? };
        Ok(Made { pid: number, pidfd, listeners })
    }
}

impl Drop for Helper {
    /// It ends by itself once it has spoken, or has nobody left to listen to it.
    fn drop(&mut self) {
        self.socket = None;
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
        let listeners = match self.gateway.make(reserved) {
            Ok(listeners) => listeners,
            Err((step, errno)) => self.fail(FAILED, step as u8, errno),
        };
        let flags = self.plan.clone_flags() | libc::CLONE_PARENT as u64;
        let (pid, pidfd) = match clone::clone_process(flags, self.leaf.and_then(Leaf::clone_into)) {
            Ok(Cloned::Child) => self.world.run(),
            Ok(Cloned::Parent { pid, pidfd }) => (pid, pidfd),
            Err(errno) => self.fail(CLONE_FAILED, 0, errno),
        };
        // It waits for its ids, and goes when its supervisor does.
        if let Some(Err(error)) = self.ids.map(|ids| ids.write(pid)) {
            _ = process::signal(pidfd.as_fd(), libc::SIGKILL);
            self.fail(IDS_FAILED, 0, Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)));
        }
        let Listeners { tcp, dns_udp, dns_tcp, explicit } = &listeners;
        let fds = [&pidfd, tcp, dns_udp, dns_tcp, explicit];
        let sent = fds.into_iter().try_for_each(|fd| self.say(MADE, 0, pid, Some(fd.as_fd())));
        process::exit_now(i32::from(sent.is_err()))
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
