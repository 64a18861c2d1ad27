//! The spec's resources, written to the files of v2.
//!
//! Source of file names and meanings: the kernel's `admin-guide/cgroup-v2.rst`. What v2 has no word for is refused,
//! as it is by crun.

use nix::errno::Errno;
use oci_spec::runtime as oci;

use super::{
    super::{group::Group, usage::number},
    ContainerCgroupError, convert,
    slots::{put, read},
    v1::set_hugetlb,
};

type Result<T = ()> = std::result::Result<T, ContainerCgroupError>;

/// Everything but the device rules.
pub(super) fn apply(group: &Group, resources: &oci::LinuxResources) -> Result {
    check(resources)?;
    if let Some(pids) = resources.pids() {
        put(group, "pids.max", convert::pids(pids.limit()))?;
    }
    if let Some(memory) = resources.memory() {
        set_memory(group, memory)?;
    }
    if let Some(io) = resources.block_io() {
        set_io(group, io)?;
    }
    if let Some(cpu) = resources.cpu() {
        set_cpu(group, cpu)?;
        for (file, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
            if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
                put(group, file, list)?;
            }
        }
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        set_hugetlb(group, limit, "max")?;
    }
    for (device, limits) in resources.rdma().iter().flatten() {
        put(group, "rdma.max", convert::rdma(device, limits))?;
    }
    for (file, value) in resources.unified().iter().flatten() {
        set_unified(group, file, value)?;
    }
    Ok(())
}

/// Before anything is written, or made.
pub(super) fn check(resources: &oci::LinuxResources) -> Result {
    let refuse = |setting: &str| Err(ContainerCgroupError::value(setting, "there is no such thing on cgroup v2"));
    if let Some(memory) = resources.memory() {
        #[allow(deprecated, reason = "engines of the time when it was not still send it")]
        let kernel = memory.kernel();
        if kernel.is_some_and(|limit| limit > 0) {
            return refuse("memory.kernel");
        }
        if memory.kernel_tcp().is_some_and(|limit| limit > 0) {
            return refuse("memory.kernelTCP");
        }
        if memory.swappiness().is_some_and(|value| value != u64::MAX) {
            return refuse("memory.swappiness");
        }
        if memory.disable_oom_killer() == Some(true) {
            return refuse("memory.disableOOMKiller");
        }
    }
    if let Some(cpu) = resources.cpu() {
        if cpu.realtime_period().is_some_and(|period| period != 0) {
            return refuse("cpu.realtimePeriod");
        }
        if cpu.realtime_runtime().is_some_and(|runtime| runtime != 0) {
            return refuse("cpu.realtimeRuntime");
        }
    }
    if let Some(io) = resources.block_io() {
        let leaf = io.weight_device().iter().flatten().any(|device| device.leaf_weight().is_some_and(|w| w != 0));
        if leaf || io.leaf_weight().is_some_and(|weight| weight != 0) {
            return refuse("blockIO.leafWeight");
        }
    }
    if let Some(network) = resources.network()
        && (network.class_id().is_some_and(|class| class != 0)
            || network.priorities().as_ref().is_some_and(|list| !list.is_empty()))
    {
        return refuse("network");
    }
    resources.unified().iter().flatten().try_for_each(|(file, _)| check_unified(file))
}

fn check_unified(file: &str) -> Result {
    let wrong = |why: &str| Err(ContainerCgroupError::value(format!("unified resource {file:?}"), why));
    if file.contains('/') || file.contains('\0') || file.contains("..") {
        return wrong("must be a file name (no slashes)");
    }
    match file.split_once('.') {
        Some((controller, parameter)) if !controller.is_empty() && !parameter.is_empty() => Ok(()),
        _ => wrong("must be in the form CONTROLLER.PARAMETER"),
    }
}

/// Whether a controller must be there, of those that would hold these limits.
pub(super) fn needs(resources: &oci::LinuxResources) -> bool {
    let lists = resources.hugepage_limits().as_ref().is_some_and(|list| !list.is_empty())
        || resources.rdma().as_ref().is_some_and(|list| !list.is_empty())
        || resources.unified().as_ref().is_some_and(|list| !list.is_empty());
    let memory = resources.memory().is_some_and(|memory| {
        [memory.limit(), memory.swap(), memory.reservation()].into_iter().flatten().any(|limit| limit != 0)
    });
    let cpu = resources.cpu().as_ref().is_some_and(|cpu| {
        let numbers = cpu.shares().is_some_and(|shares| shares != 0)
            || cpu.quota().is_some_and(|quota| quota != 0)
            || cpu.period().is_some_and(|period| period != 0);
        let sets = [cpu.cpus(), cpu.mems()].into_iter().flatten().any(|list| !list.is_empty());
        numbers || sets || cpu.burst().is_some() || cpu.idle().is_some()
    });
    lists || memory || cpu || needs_io(resources) || resources.pids().is_some()
}

fn needs_io(resources: &oci::LinuxResources) -> bool {
    resources.block_io().as_ref().is_some_and(|io| {
        let throttles = [
            io.throttle_read_bps_device(),
            io.throttle_write_bps_device(),
            io.throttle_read_iops_device(),
            io.throttle_write_iops_device(),
        ];
        io.weight().is_some_and(|weight| weight != 0)
            || io.weight_device().as_ref().is_some_and(|devices| !devices.is_empty())
            || throttles.into_iter().flatten().any(|devices| !devices.is_empty())
    })
}

/// Whether only a domain has the controllers for these limits: a threaded group has `cpu` and `pids`, no more.
pub(super) fn needs_domain(resources: &oci::LinuxResources) -> bool {
    let memory = resources.memory().is_some_and(|memory| {
        [memory.limit(), memory.swap(), memory.reservation()].into_iter().flatten().any(|limit| limit != 0)
    });
    memory || needs_io(resources) || resources.hugepage_limits().as_ref().is_some_and(|list| !list.is_empty())
}

fn set_memory(group: &Group, memory: &oci::LinuxMemory) -> Result {
    let asked = memory.limit().unwrap_or(0);
    let swap = memory.swap().unwrap_or(0);
    if memory.check_before_update() == Some(true) {
        check_use(group, asked, swap)?;
    }
    // An update may leave the limit as it is.
    let limit = if asked == 0 && swap > 0 { limit_now(group) } else { asked };
    let swap = convert::swap_alone(swap, limit).map_err(|why| ContainerCgroupError::value("memory.swap", why))?;
    let set_swap = || match swap {
        None => Ok(()),
        Some(swap) => match put(group, "memory.swap.max", if swap < 0 { "max".to_owned() } else { swap.to_string() }) {
            // Without swap accounting there is no file; neither all nor nothing of it needs one.
            Err(ContainerCgroupError::NoController { .. }) if swap <= 0 && group.has("memory.max") => Ok(()),
            result => result,
        },
    };
    set_swap()?;
    if let Some(limit) = convert::limit(memory.limit()) {
        put(group, "memory.max", limit)?;
    }
    if let Some(reservation) = convert::limit(memory.reservation()) {
        put(group, "memory.low", reservation)?;
    }
    Ok(())
}

fn limit_now(group: &Group) -> i64 {
    match group.read("memory.max").ok().as_deref().map(str::trim_end) {
        Some("max") => -1,
        Some(text) => text.parse().unwrap_or(0),
        None => 0,
    }
}

/// v2 takes a limit below what is in use, and kills until it holds.
fn check_use(group: &Group, limit: i64, swap: i64) -> Result {
    // A group that is not limited yet, or that cannot tell.
    let Some(used) = group.read("memory.current").ok().and_then(|text| number(&text)) else { return Ok(()) };
    let used = i64::try_from(used).unwrap_or(i64::MAX);
    for (what, limit) in [("memory+swap", swap), ("memory", limit)] {
        if limit > 0 && limit <= used {
            let why = format!("rejecting {what} limit {limit} <= usage {used}");
            return Err(ContainerCgroupError::value("memory.checkBeforeUpdate", why));
        }
    }
    Ok(())
}

fn set_cpu(group: &Group, cpu: &oci::LinuxCpu) -> Result {
    if let Some(idle) = cpu.idle() {
        put(group, "cpu.idle", idle)?;
    }
    if let Some(weight) = convert::weight_of_shares(cpu.shares().unwrap_or(0)) {
        match put(group, "cpu.weight", weight) {
            // An idle group has no weight.
            Err(error) if error.errno() == Some(Errno::EINVAL) && cpu.idle() == Some(1) => {}
            result => result?,
        }
    }
    let max = convert::cpu_max(cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0));
    let mut late = None;
    if let Some(burst) = cpu.burst() {
        match put(group, "cpu.max.burst", burst) {
            // More than the old quota, and maybe not more than the new one.
            Err(error) if error.errno() == Some(Errno::EINVAL) && max.is_some() => late = Some(burst),
            result => result?,
        }
    }
    if let Some(max) = max {
        put(group, "cpu.max", max)?;
    }
    late.map_or(Ok(()), |burst| put(group, "cpu.max.burst", burst))
}

fn set_io(group: &Group, io: &oci::LinuxBlockIo) -> Result {
    // BFQ takes the spec's weights as they are, and has its own file only where it is in use.
    let bfq = group.has("io.bfq.weight");
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        if bfq {
            put(group, "io.bfq.weight", weight)?;
        } else {
            put(group, "io.weight", convert::io_weight(weight))?;
        }
    }
    for device in io.weight_device().iter().flatten() {
        let Some(weight) = device.weight().filter(|weight| *weight != 0) else { continue };
        let number = format!("{}:{}", device.major(), device.minor());
        if bfq {
            put(group, "io.bfq.weight", format!("{number} {weight}"))?;
        } else {
            put(group, "io.weight", format!("{number} {}", convert::io_weight(weight)))?;
        }
    }
    let throttles = [
        ("rbps", io.throttle_read_bps_device()),
        ("wbps", io.throttle_write_bps_device()),
        ("riops", io.throttle_read_iops_device()),
        ("wiops", io.throttle_write_iops_device()),
    ];
    for (key, devices) in throttles {
        for device in devices.iter().flatten() {
            // As on v1, 0 takes a throttle away; here it would be refused.
            let rate = if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
            put(group, "io.max", format!("{}:{} {key}={rate}", device.major(), device.minor()))?;
        }
    }
    Ok(())
}

/// Verbatim, a line at a time, since many of these files take one.
fn set_unified(group: &Group, file: &str, value: &str) -> Result {
    check_unified(file)?;
    let lines = value.lines().filter(|line| !line.trim().is_empty());
    let mut any = false;
    for line in lines {
        any = true;
        write_unified(group, file, line)?;
    }
    if any { Ok(()) } else { write_unified(group, file, "\n") }
}

fn write_unified(group: &Group, file: &str, line: &str) -> Result {
    put(group, file, line).map_err(|error| {
        let controller = file.split('.').next().unwrap_or(file);
        let missing = || {
            let list = read(group, "cgroup.controllers").unwrap_or_default();
            controller != "cgroup" && !list.split_ascii_whitespace().any(|name| name == controller)
        };
        let unable = matches!(error, ContainerCgroupError::NoController { .. }) || error.is_permission();
        if unable && missing() {
            let why = format!("can't be set: controller {controller:?} not available");
            return ContainerCgroupError::value(format!("unified resource {file:?}"), why);
        }
        if matches!(error, ContainerCgroupError::NoController { .. }) {
            return ContainerCgroupError::value(format!("unified resource {file:?}"), "the kernel has no such file");
        }
        error
    })
}
