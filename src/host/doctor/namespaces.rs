//! Can a sandbox be made at all: namespaces, a root of its own, mounts by descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::CloneFlags;

use super::{
    Check, Status,
    child::{Failure, Trial, become_root_inside, in_child, in_namespaces, step, with_user_namespace},
};
use crate::{
    host::circumstances::Circumstances,
    sys::{self, fs, mount},
};

/// Every namespace of a sandbox beside the user namespace, by the name in /proc/PID/ns.
const KINDS: [(&str, CloneFlags); 6] = [
    ("mount", CloneFlags::CLONE_NEWNS),
    ("pid", CloneFlags::CLONE_NEWPID),
    ("net", CloneFlags::CLONE_NEWNET),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
];

/// What a trial that mounts things needs.
const MOUNTING: i32 = CloneFlags::CLONE_NEWNS.union(CloneFlags::CLONE_NEWPID).bits();

/// Whether there are namespaces to try anything else in: without them it would only fail for the same reason.
pub(super) fn check(host: &Circumstances, checks: &mut Vec<Check>) -> bool {
    let user = Check::of_trial(host, "user-namespace", in_namespaces(0, || Ok(())), "made and mapped");
    let user_works = user.status == Status::Ok;
    checks.push(user);
    if !user_works {
        return false;
    }
    let others = kinds(host);
    let others_work = others.status == Status::Ok;
    checks.push(others);
    if !others_work {
        return false;
    }
    checks.push(Check::of_trial(
        host,
        "root",
        in_namespaces(MOUNTING | CloneFlags::CLONE_NEWNET.bits(), own_root),
        "tmpfs, proc and pivot_root work in a user namespace",
    ));
    checks.push(Check::of_trial(
        host,
        "mount-api",
        in_namespaces(MOUNTING, bind_read_only),
        "open_tree, mount_setattr and move_mount work",
    ));
    let devpts = in_namespaces(MOUNTING, || {
        attach_at(HERE, new_filesystem(c"devpts", &[(c"ptmxmode", c"0666"), (c"mode", c"0620")])?.as_fd())
    });
    checks.push(
        Check::of_trial(host, "devpts", devpts, "terminals of its own (newinstance)").at_most_degraded("no --tty"),
    );
    let overlay = in_namespaces(MOUNTING, overlay);
    checks.push(
        Check::of_trial(host, "overlayfs", overlay, "works in a user namespace")
            .at_most_degraded("images are copied instead of layered"),
    );
    let idmap = in_namespaces(CloneFlags::CLONE_NEWNS.bits(), idmapped);
    checks.push(
        Check::of_trial(host, "idmapped-mounts", idmap, "tmpfs can be mounted with mapped owners")
            .at_most_degraded("files keep their host owners inside"),
    );
    true
}

fn kinds(host: &Circumstances) -> Check {
    for (kind, flag) in KINDS {
        if let Err(failure) = in_namespaces(flag.bits(), || Ok(())) {
            return Check::of_trial(
                host,
                "namespaces",
                Err(Failure { object: format!("{kind} namespace"), ..failure }),
                "",
            );
        }
    }
    Check::ok("namespaces", KINDS.map(|(kind, _)| kind).join(" "))
}

/// A directory that every root has and no trial needs again.
const HERE: &std::ffi::CStr = c"/usr";

fn own_root() -> Trial {
    private_mounts()?;
    let root = new_filesystem(c"tmpfs", &[(c"mode", c"0755")])?;
    step("mkdir", "proc", fs::make_dir(root.as_fd(), c"proc", 0o755))?;
    attach_at(HERE, root.as_fd())?;
    let target = step("open", "proc", fs::open_in(root.as_fd(), c"proc", PATH, 0, 0))?;
    let proc = new_filesystem(c"proc", &[])?;
    step("move_mount", "/proc", mount::attach(proc.as_fd(), target.as_fd()))?;
    step("chdir", "the new root", fs::change_dir(root.as_fd()))?;
    step("pivot_root", "/", mount::enter_root_here())?;
    // The old root is gone for good, and we are who the new proc says.
    let init = step("read", "/proc/self", std::fs::read_link("/proc/self"))?;
    let alone = init.as_os_str() == "1" && !std::path::Path::new("/usr").exists();
    if alone { Ok(()) } else { step("pivot_root", "/", Err(nix::errno::Errno::ENOTRECOVERABLE)) }
}

fn bind_read_only() -> Trial {
    private_mounts()?;
    let tree = step("open_tree", "/usr", mount::clone_tree(fs::cwd(), c"/usr", true))?;
    step("mount_setattr", "/usr", mount::set_attributes(tree.as_fd(), mount::READ_ONLY | mount::NO_SUID, true))?;
    attach_at(HERE, tree.as_fd())
}

fn overlay() -> Trial {
    private_mounts()?;
    let base = new_filesystem(c"tmpfs", &[])?;
    for dir in [c"lower", c"upper", c"work"] {
        step("mkdir", "tmpfs", fs::make_dir(base.as_fd(), dir, 0o755))?;
    }
    attach_at(HERE, base.as_fd())?;
    let dirs = [(c"lowerdir", c"/usr/lower"), (c"upperdir", c"/usr/upper"), (c"workdir", c"/usr/work")];
    let context = step("fsopen", "overlay", mount::open_filesystem(c"overlay"))?;
    for (key, value) in dirs {
        step("fsconfig", "overlay", mount::configure(context.as_fd(), key, value))?;
    }
    step("fsconfig", "overlay", mount::configure_flag(context.as_fd(), c"userxattr"))?;
    let merged = step("fsmount", "overlay", mount::create(context.as_fd(), 0))?;
    step("mkdir", "overlay", fs::make_dir(merged.as_fd(), c"new", 0o755))
}

fn idmapped() -> Trial {
    let tree = new_filesystem(c"tmpfs", &[])?;
    with_user_namespace(|other| {
        become_root_inside(other)?;
        let namespace = step("open", "user namespace", std::fs::File::open(format!("/proc/{other}/ns/user")))?;
        step("mount_setattr", "tmpfs with MOUNT_ATTR_IDMAP", mount::map_ids(tree.as_fd(), namespace.as_fd(), false))
    })
}

/// O_PATH | O_DIRECTORY.
const PATH: i32 = nix::fcntl::OFlag::O_PATH.union(nix::fcntl::OFlag::O_DIRECTORY).bits();

fn private_mounts() -> Trial {
    let root = step("open", "/", fs::open_in(fs::cwd(), c"/", PATH, 0, 0))?;
    step("mount_setattr", "/", mount::make_private(root.as_fd()))
}

fn new_filesystem(kind: &std::ffi::CStr, options: &[(&std::ffi::CStr, &std::ffi::CStr)]) -> Result<OwnedFd, Failure> {
    let name = kind.to_string_lossy();
    let context = step("fsopen", &name, mount::open_filesystem(kind))?;
    for (key, value) in options {
        step("fsconfig", &name, mount::configure(context.as_fd(), key, value))?;
    }
    step("mount", &name, mount::create(context.as_fd(), mount::NO_SUID | mount::NO_EXEC))
}

fn attach_at(path: &std::ffi::CStr, tree: BorrowedFd<'_>) -> Trial {
    let name = path.to_string_lossy();
    let target = step("open", &name, fs::open_in(fs::cwd(), path, PATH, 0, 0))?;
    step("move_mount", &name, mount::attach(tree, target.as_fd()))
}

/// pidfd_open and a signal through it; clone3 has proved itself by then.
pub(super) fn pidfd(host: &Circumstances) -> Check {
    let trial = in_child(|| {
        let this = step("pidfd_open", "self", sys::process::open_process(nix::unistd::getpid().as_raw()))?;
        step("pidfd_send_signal", "self", sys::process::signal(this.as_fd(), 0))
    });
    Check::of_trial(host, "pidfd", trial, "processes are held by descriptor, never by number")
}
