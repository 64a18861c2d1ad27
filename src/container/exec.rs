//! One more process in a container.

use std::{
    cell::{OnceCell, RefCell},
    os::fd::AsFd,
    path::PathBuf,
};

use oci_spec::runtime as oci;

use super::{
    Attention, check_terminal, connect, failed, guard_binary, guard_needed, guest, passed, send_pidfd, write_pid,
};
use crate::{
    Result,
    cgroup::container::Group,
    error::Hint,
    host::Host,
    launch::container as launch,
    plan::{container as plan, seccomp::KernelVersion},
    spec::container as spec,
    state::{
        container::{Record, Status},
        root::{ContainerId, StateRoot},
    },
};

/// What `exec` is asked for.
#[derive(Debug)]
pub struct Exec {
    pub root: StateRoot,
    pub id: ContainerId,
    pub detach: bool,
    pub pid_file: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    pub preserve_fds: u32,
    /// cgroups below the container's: `[CONTROLLER,…:]PATH` each.
    pub cgroups: Vec<String>,
    pub ignore_paused: bool,
    /// As in [`super::Create`].
    pub guard_binary: bool,
}

/// Adds a process. Returns its exit status, or 0 when detached.
///
/// `process` makes it of the container's specification, once: nothing that cannot be read twice is read before the
/// binary is out of reach.
pub fn exec(wanted: &Exec, process: impl FnOnce(&oci::Spec) -> Result<oci::Process>) -> Result<i32> {
    let dir = wanted.root.open(&wanted.id).map_err(Hint::into_error)?;
    let record = dir.load().map_err(Hint::into_error)?;
    let (Some(init), Some(pidfd)) = (&record.init, record.init_pidfd()) else {
        return Err(failed("cannot exec in a stopped container"));
    };
    match record.status() {
        Status::Paused if !wanted.ignore_paused => {
            return Err(failed("cannot exec in a paused container (use --ignore-paused to override)"));
        }
        Status::Stopped | Status::Creating => return Err(failed("cannot exec in a stopped container")),
        _ => {}
    }
    let host = Host::probe();
    let spec::Container { spec, controls, .. } =
        spec::parse(dir.read_config().map_err(Hint::into_error)?.into()).map_err(Hint::into_error)?;
    let linux = plan::linux(&spec).map_err(Hint::into_error)?;
    if wanted.guard_binary && guard_needed(plan::IdMaps::of(linux).as_ref()) {
        guard_binary()?;
    }
    let kernel = KernelVersion(host.kernel.major, host.kernel.minor);
    let asked = process(&spec)?;
    check_terminal(asked.terminal().unwrap_or(false), wanted.console_socket.as_deref(), wanted.detach)?;
    let asked = inherit(asked, spec.process().as_ref());
    let mut process = plan::process::Process::new(&asked, Some(linux), kernel).map_err(Hint::into_error)?;
    let shares_mounts = plan::shared::shares_mounts(linux);
    if shares_mounts {
        plan::shared::check_capabilities(&process.capabilities).map_err(Hint::into_error)?;
    }
    let guest = guest::Execution::of(&record, &asked, &mut process, wanted.preserve_fds)?;
    if guest.is_none() {
        plan::controls::tighten(&mut process, &controls, kernel, host.landlock_abi).map_err(Hint::into_error)?;
    }
    let call = guest.as_ref().map(guest::Execution::call);
    if let Some(egress) = &record.egress {
        plan::egress::check_exec(linux, &process.capabilities, !host.initial_user_namespace)
            .map_err(Hint::into_error)?;
        // Until its program runs, its process is seen where the engine makes its network.
        if launch::network_of(init.pid).map_err(failed)? == egress.engine {
            return Err(failed("cannot exec in a container whose network is filtered before it is started"));
        }
        let own_users = plan::IdMaps::of(linux).is_some();
        super::egress::check_passed(&process, own_users, passed(wanted.preserve_fds)?)?;
    }
    let group = RefCell::new(exec_group(&record, &wanted.cgroups, init.pid)?);
    let console = connect(wanted.console_socket.as_deref())?;
    let attention = if wanted.detach { Attention::None } else { Attention::Foreground(OnceCell::new()) };
    let own_console = attention.begin(process.terminal && console.is_none())?;
    let child = launch::exec(&launch::Exec {
        process: &process,
        init: pidfd.as_fd(),
        init_pid: init.pid,
        shares_mounts,
        group: &group,
        console: console.as_ref().map(AsFd::as_fd).or(own_console),
        preserve: passed(wanted.preserve_fds)?,
        keyring: record.keyring,
        privileged: host.privileged,
        host_root: host.privileged && host.initial_user_namespace,
        record: &record,
        call: call.as_ref(),
    })
    .map_err(failed)?;
    guest.map_or(Ok(()), guest::Execution::started)?;
    if let Some(path) = &wanted.pidfd_socket {
        send_pidfd(path, child.pidfd.as_fd())?;
    }
    if let Some(path) = &wanted.pid_file {
        write_pid(path, child.pid)?;
    }
    match attention {
        Attention::Foreground(cell) => match cell.into_inner() {
            Some(foreground) => foreground.attend(child).map_err(failed),
            None => Err(failed("nobody attends the process")),
        },
        Attention::None => {
            _ = child.keep();
            Ok(0)
        }
    }
}

/// What `exec` does not say of its process is as in the container: labels and capabilities above all.
fn inherit(mut process: oci::Process, container: Option<&oci::Process>) -> oci::Process {
    let Some(container) = container else { return process };
    let empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
    if empty(process.apparmor_profile()) {
        process.set_apparmor_profile(container.apparmor_profile().clone());
    }
    if empty(process.selinux_label()) {
        process.set_selinux_label(container.selinux_label().clone());
    }
    if process.capabilities().is_none() {
        process.set_capabilities(container.capabilities().clone());
    }
    if process.rlimits().as_ref().is_none_or(Vec::is_empty) {
        process.set_rlimits(container.rlimits().clone());
    }
    if process.no_new_privileges().is_none() {
        process.set_no_new_privileges(container.no_new_privileges());
    }
    if process.oom_score_adj().is_none() {
        process.set_oom_score_adj(container.oom_score_adj());
    }
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(container.exec_cpu_affinity().clone());
    }
    process
}

/// The group that one more process is to be in: the one asked for, below the container's, or where its first process
/// is.
fn exec_group(record: &Record, below: &[String], init: i32) -> Result<Option<Group>> {
    let Some(own) = &record.cgroup else { return Ok(None) };
    let mut place = own.clone();
    for text in below {
        let (controllers, path) = text.split_once(':').map_or((None, text.as_str()), |(list, path)| (Some(list), path));
        place = place.existing_below(controllers, path).map_err(Hint::into_error)?;
    }
    if below.is_empty()
        && let Some(moved) = own.of_process(init)
    {
        place = moved;
    }
    Group::open(&place).map(Some).map_err(Hint::into_error)
}
