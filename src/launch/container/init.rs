//! The process that becomes the container's: it takes its place in the namespaces, builds the tree, waits for
//! `start`, and executes the program. Unlike in a sandbox it is the program then, and nobody of ours stays.
//!
//! It is a fork of the runtime process, which has one thread, so it may allocate. What it holds of the host while it
//! waits inside is a list of four descriptors, none of them a directory, and it is not dumpable.

use std::{
    io::Read,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use super::{
    channel::ChildEnd,
    console,
    egress::Gate,
    guest, hooks,
    pipes::Pipes,
    program::{self, Label, Program, failed},
};
use crate::{
    launch::{
        build::Builder,
        protocol::{InitEnd, Order},
    },
    plan::{
        container::{NEW_TIME, Plan},
        setup::SetupOp,
    },
    state::container::{Record, Status},
    sys::{Errno, attributes, clone, fs, namespace, process},
};

/// All that it uses, made before it exists.
#[derive(Debug)]
pub struct World<'a> {
    pub plan: &'a Plan,
    pub control: BorrowedFd<'a>,
    /// On which `start` says go, and is told why it did not; without, `control` does.
    pub start: Option<&'a Pipes>,
    /// Connected to whoever wants the terminal.
    pub console: Option<BorrowedFd<'a>>,
    /// Of the caller's descriptors, from 3 on.
    pub preserve: u32,
    pub keyring: bool,
    pub record: &'a Record,
    /// What gVisor brings the container back from.
    pub image: Option<BorrowedFd<'a>>,
    /// Where its network is filtered.
    pub gate: Option<Gate<'a>>,
}

/// What a thread needs that goes on in another network namespace than its process is seen in.
const STACK: usize = 4 << 20;

impl World<'_> {
    /// Never returns.
    pub fn run(&self) -> ! {
        let end = ChildEnd(self.control);
        if let Err(why) = self.begin() {
            end.failed(&why);
            process::exit_now(1)
        }
        if !self.goes_on_in_thread() {
            self.go_on();
        }
        // What the engine finds by our number, until the program runs, is the namespace that it puts its devices in. This
        // thread stays there, and is gone with execve.
        let mut stack = Vec::with_capacity(STACK);
        let gone = clone::go_on_in_thread(stack.spare_capacity_mut(), |world: &Self| -> i32 { world.go_on() }, self);
        end.failed(&gone.map_or_else(failed("make a thread"), |()| "container init ended".to_owned()));
        process::exit_now(1)
    }

    fn go_on(&self) -> ! {
        let end = ChildEnd(self.control);
        let Err(why) = self.become_program(end);
        end.failed(&why);
        process::exit_now(1)
    }

    /// Leaves the runtime behind.
    fn begin(&self) -> Result<(), String> {
        let mut keep = vec![self.control];
        keep.extend(self.start.into_iter().flat_map(Pipes::ends));
        keep.extend(self.console);
        keep.extend(self.image);
        keep.extend(self.gate.map(|gate| gate.socket));
        program::close_all_but(keep, self.preserve).map_err(failed("close inherited descriptors"))?;
        process::reset_signals();
        let orders = InitEnd(self.control);
        if !orders.wait_for(Order::Build) {
            process::exit_now(1);
        }
        // Of all threads that there will be.
        if self.goes_on_in_thread() { self.enter_groups(orders) } else { Ok(()) }
    }

    fn goes_on_in_thread(&self) -> bool {
        self.gate.is_some_and(|gate| gate.engine_is_here)
    }

    fn enter_groups(&self, orders: InitEnd<'_>) -> Result<(), String> {
        while let Some(tasks) = orders.next_cgroup().map_err(failed("wait for the cgroup"))? {
            fs::write_all(tasks.as_fd(), b"0").map_err(failed("join cgroup"))?;
        }
        program::reset_affinity();
        Ok(())
    }

    fn become_program(&self, end: ChildEnd<'_>) -> Result<std::convert::Infallible, String> {
        let plan = self.plan;
        let orders = InitEnd(self.control);
        let label = match Label::is_wanted(&plan.process) {
            true => Some(Label::open(&plan.process, program::host_proc()?.as_fd())?),
            false => None,
        };
        // The maps are written: from here on nobody inside may look into what is still a copy of the runtime.
        process::set_undumpable().map_err(failed("set undumpable"))?;
        self.take_place()?;
        if !self.goes_on_in_thread() {
            self.enter_groups(orders)?;
        }
        if plan.namespaces.new & libc::CLONE_NEWCGROUP != 0 {
            clone::unshare_cgroup_namespace().map_err(failed("make a cgroup namespace"))?;
        }
        let terminal = self.build(end, orders)?;
        if let Some(terminal) = &terminal {
            program::take_terminal(terminal.as_fd()).map_err(failed("set up the terminal"))?;
        }
        drop(terminal);
        if let Some(guest) = &plan.gvisor {
            return guest::run(guest, &plan.process, self.start, self.image, end);
        }
        let mut env = plan.process.env.clone();
        if plan.process.variable("HOME").is_none() {
            env.push(home_of(plan.process.user.uid));
        }
        let state = hooks::state(self.record, Status::Created, process::id());
        let hooks = plan.hooks.start_container().as_ref();
        let hooked = hooks.is_some_and(|hooks| !hooks.is_empty());
        let for_hooks = if hooked { env.clone() } else { Vec::new() };
        let (argv, env) = (process::StringVector::new(plan.process.argv.clone()), process::StringVector::new(env));
        let program = Program { process: &plan.process, label, keep: self.preserve, hooked };
        let hand = |listener: OwnedFd| end.listener(listener.as_fd()).map_err(failed("hand over the seccomp listener"));
        let path = program.prepare(&hand)?;
        drop(program.label);
        let program = Program { label: None, ..program };
        end.ready().map_err(failed("tell that the container is ready"))?;
        // Only a container that is on record may outlive the runtime that made it.
        if !end.released() || !self.start.is_none_or(Pipes::wait) {
            process::exit_now(1);
        }
        let told = |why: String| {
            match self.start {
                Some(start) => start.tell(&why),
                None => end.failed_confined(&why),
            }
            why
        };
        if let Some(gate) = self.gate {
            gate.begin().map_err(told)?;
        }
        hooks::run_with(&for_hooks, "startContainer", hooks, &state).map_err(told)?;
        program.confine(&hand).map_err(told)?;
        let errno = process::exec(&path, &argv, &env);
        Err(told(format!("exec {}: {}", path.to_string_lossy(), errno.desc().to_lowercase())))
    }

    /// What is neither a mount nor the program's own.
    fn take_place(&self) -> Result<(), String> {
        let plan = self.plan;
        let new = plan.namespaces.new;
        if new & NEW_TIME != 0 && new & libc::CLONE_NEWUSER != 0 {
            // While what is below /proc/self is still ours: a change of user takes it away.
            super::namespaces::make_time(&plan.namespaces)?;
        }
        if plan.namespaces.has(libc::CLONE_NEWUSER) {
            // Root of the namespace, if it has one: who builds must own what it mounts. Where groups may not be
            // changed, those of an ordinary user stay.
            match attributes::set_groups(&[]) {
                Ok(()) | Err(Errno::EPERM) => {}
                Err(errno) => return Err(failed("drop groups")(errno)),
            }
            attributes::become_root().map_err(failed("become root of the user namespace"))?;
        }
        process::new_session().map_err(failed("make a session"))?;
        if self.keyring {
            process::new_keyring().map_err(failed("unable to join session keyring"))?;
        }
        if new & libc::CLONE_NEWNET != 0 {
            namespace::raise_loopback().map_err(failed("bring loopback up"))?;
        }
        if let Some(gate) = self.gate {
            if gate.engine_is_here {
                namespace::leave(libc::CLONE_NEWNET).map_err(failed("make a network namespace"))?;
            }
            gate.link()?;
        }
        if let Some(name) = &plan.hostname {
            process::set_hostname(name).map_err(failed("set hostname"))?;
        }
        if let Some(name) = &plan.domainname {
            attributes::set_domain_name(name).map_err(failed("set domainname"))?;
        }
        Ok(())
    }

    fn build(&self, end: ChildEnd<'_>, orders: InitEnd<'_>) -> Result<Option<OwnedFd>, String> {
        let plan = self.plan;
        process::set_file_mask(0);
        let mut builder = Builder::for_container(orders);
        let mut terminal = None;
        for operation in &plan.setup {
            if let (SetupOp::Console, Some(console)) = (operation, self.console) {
                let (master, ours) = builder.open_terminal().map_err(failed("open a terminal in the container"))?;
                console::send(&plan.process, master, ours.as_fd(), console).map_err(failed("send the terminal"))?;
                builder.set_console(ours.try_clone().map_err(|error| error.to_string())?);
                terminal = Some(ours);
            }
            carry_out(&mut builder, operation)?;
        }
        if hooks::of_the_runtime_wanted(&plan.hooks) {
            end.hooks().map_err(failed("tell that the tree is built"))?;
        }
        // Only now do the device rules hold for sure, and from here on we open what the root calls its files.
        if !orders.wait_for(Order::Next) {
            process::exit_now(1);
        }
        let state = hooks::state(self.record, Status::Creating, process::id());
        hooks::run("createContainer", plan.hooks.create_container().as_ref(), &state)?;
        for operation in &plan.entry {
            carry_out(&mut builder, operation)?;
            if let (SetupOp::Enclose(_), true, Some(console)) = (operation, plan.process.terminal, self.console) {
                // The program's own are gVisor's; this one is what that kernel is at.
                let (master, ours) = builder.open_terminal().map_err(failed("open a terminal"))?;
                console::send(&plan.process, master, ours.as_fd(), console).map_err(failed("send the terminal"))?;
                terminal = Some(ours);
            }
        }
        process::set_file_mask(0o022);
        Ok(terminal)
    }
}

fn carry_out<'a>(builder: &mut Builder<'a, InitEnd<'_>>, operation: &'a SetupOp) -> Result<(), String> {
    builder.carry_out(operation).map_err(|errno| {
        let detail = builder.detail().map_or_else(String::new, |detail| format!(" ({detail})"));
        format!("error during container init: {operation}: {}{detail}", errno.desc().to_lowercase())
    })
}

/// `HOME=` of this user by the container's own /etc/passwd, `/` if it is not there. The file is hostile.
pub(super) fn home_of(uid: u32) -> std::ffi::CString {
    const MOST: u64 = 1 << 20;
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    let text = fs::open_in(fs::cwd(), c"/etc/passwd", flags, 0, libc::RESOLVE_NO_MAGICLINKS).ok().and_then(|file| {
        let regular = fs::stat(file.as_fd()).ok()?.st_mode & libc::S_IFMT == libc::S_IFREG;
        let mut text = Vec::new();
        if regular {
            std::fs::File::from(file).take(MOST).read_to_end(&mut text).ok()?;
        }
        Some(text)
    });
    let text = text.unwrap_or_default();
    let home = text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':').skip(2);
        let found: u32 = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        (found == uid).then(|| fields.nth(2).unwrap_or_default())
    });
    let home = home.filter(|home| home.starts_with(b"/")).unwrap_or(b"/");
    std::ffi::CString::new([b"HOME=", home].concat()).unwrap_or_default()
}
