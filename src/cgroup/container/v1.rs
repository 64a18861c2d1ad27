//! The spec's resources, written to the files of v1.
//!
//! Source of file names and meanings: the kernel's `admin-guide/cgroup-v1/*.rst` and `scheduler/sched-bwc.rst`,
//! `sched-rt-group.rst`. 0 is unset, as it is to runc; engines send it for what was not asked.

use nix::errno::Errno;
use oci_spec::runtime as oci;

use super::{
    super::{group::Group, usage::number},
    ContainerCgroupError, convert,
    slots::{Slots, either, put, read},
};

type Result<T = ()> = std::result::Result<T, ContainerCgroupError>;

/// Everything but the device rules. `absent` is what to say of a controller the container has no group of.
pub(super) fn apply(
    slots: &Slots,
    resources: &oci::LinuxResources,
    absent: impl Fn(&'static str) -> ContainerCgroupError,
) -> Result {
    if resources.unified().as_ref().is_some_and(|unified| !unified.is_empty()) {
        return Err(ContainerCgroupError::value("unified", "invalid configuration: cannot use unified on cgroup v1"));
    }
    let need = |controller: &'static str| slots.v1(controller).ok_or_else(|| absent(controller));
    if let Some(memory) = resources.memory()
        && asks_memory(memory)
    {
        set_memory(need("memory")?, memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        if asks_cpu(cpu) {
            set_cpu(need("cpu")?, cpu)?;
        }
        if asks_cpuset(cpu) {
            set_cpuset(need("cpuset")?, cpu)?;
        }
    }
    if let Some(pids) = resources.pids() {
        put(need("pids")?, "pids.max", convert::pids(pids.limit()))?;
    }
    if let Some(io) = resources.block_io()
        && asks_io(io)
    {
        set_io(need("blkio")?, io)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        set_hugetlb(need("hugetlb")?, limit, "limit_in_bytes")?;
    }
    for (device, limits) in resources.rdma().iter().flatten() {
        put(need("rdma")?, "rdma.max", convert::rdma(device, limits))?;
    }
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id().filter(|class| *class != 0) {
            put(need("net_cls")?, "net_cls.classid", class)?;
        }
        for priority in network.priorities().iter().flatten() {
            let line = format!("{} {}", priority.name(), priority.priority());
            put(need("net_prio")?, "net_prio.ifpriomap", line)?;
        }
    }
    Ok(())
}

fn asked(value: Option<i64>) -> Option<i64> {
    value.filter(|value| *value != 0)
}

#[allow(deprecated, reason = "engines of the time when it was not still send it")]
fn kernel_memory(memory: &oci::LinuxMemory) -> Option<i64> {
    asked(memory.kernel())
}

fn asks_memory(memory: &oci::LinuxMemory) -> bool {
    let limits = [memory.limit(), memory.swap(), memory.reservation(), memory.kernel_tcp()];
    limits.into_iter().any(|limit| asked(limit).is_some())
        || kernel_memory(memory).is_some()
        || memory.swappiness().is_some()
        || memory.disable_oom_killer() == Some(true)
        || memory.use_hierarchy() == Some(true)
}

fn asks_cpu(cpu: &oci::LinuxCpu) -> bool {
    let unsigned = [cpu.shares(), cpu.period(), cpu.realtime_period()];
    unsigned.into_iter().flatten().any(|value| value != 0)
        || [cpu.quota(), cpu.realtime_runtime()].into_iter().any(|value| asked(value).is_some())
        || cpu.burst().is_some()
        || cpu.idle().is_some()
}

fn asks_cpuset(cpu: &oci::LinuxCpu) -> bool {
    [cpu.cpus(), cpu.mems()].into_iter().flatten().any(|list| !list.is_empty())
}

fn asks_io(io: &oci::LinuxBlockIo) -> bool {
    let throttles = [
        io.throttle_read_bps_device(),
        io.throttle_write_bps_device(),
        io.throttle_read_iops_device(),
        io.throttle_write_iops_device(),
    ];
    [io.weight(), io.leaf_weight()].into_iter().flatten().any(|weight| weight != 0)
        || io.weight_device().as_ref().is_some_and(|devices| !devices.is_empty())
        || throttles.into_iter().flatten().any(|devices| !devices.is_empty())
}

fn set_memory(group: &Group, memory: &oci::LinuxMemory) -> Result {
    const SWAP: &str = "memory.memsw.limit_in_bytes";
    let limit = asked(memory.limit());
    let swap = match (limit, asked(memory.swap())) {
        // Unlimited memory is unlimited swap too, where swap is counted.
        (Some(-1), None) if group.has(SWAP) => Some(-1),
        (_, swap) => swap,
    };
    let set_limit = || limit.map_or(Ok(()), |limit| put(group, "memory.limit_in_bytes", limit));
    let set_swap = || swap.map_or(Ok(()), |swap| put(group, SWAP, swap));
    // Memory never exceeds memory and swap, so the order depends on the direction.
    let now = if limit.is_some() && swap.is_some() { number(&read(group, "memory.limit_in_bytes")?) } else { None };
    match (now, swap) {
        (Some(_), Some(-1)) => set_swap().and_then(|()| set_limit())?,
        (Some(now), Some(swap)) if now < swap.unsigned_abs() => set_swap().and_then(|()| set_limit())?,
        _ => set_limit().and_then(|()| set_swap())?,
    }
    if let Some(reservation) = asked(memory.reservation()) {
        put(group, "memory.soft_limit_in_bytes", reservation)?;
    }
    if let Some(kernel) = kernel_memory(memory) {
        put(group, "memory.kmem.limit_in_bytes", kernel)?;
    }
    if let Some(tcp) = asked(memory.kernel_tcp()) {
        put(group, "memory.kmem.tcp.limit_in_bytes", tcp)?;
    }
    if memory.use_hierarchy() == Some(true) {
        put(group, "memory.use_hierarchy", 1)?;
    }
    if memory.disable_oom_killer() == Some(true) {
        put(group, "memory.oom_control", 1)?;
    }
    match memory.swappiness() {
        None => Ok(()),
        // -1, in Go's words.
        Some(u64::MAX) => Ok(()),
        Some(value @ 0..=100) => put(group, "memory.swappiness", value),
        Some(value) => Err(ContainerCgroupError::value(
            "memory.swappiness",
            format!("invalid memory swappiness value: {value} (valid range is 0-100)"),
        )),
    }
}

fn set_cpu(group: &Group, cpu: &oci::LinuxCpu) -> Result {
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        put(group, "cpu.shares", shares)?;
        // The kernel takes any number and cuts it to its range.
        match number(&read(group, "cpu.shares")?) {
            Some(got) if got < shares => {
                let why = format!("the maximum allowed cpu-shares is {got}");
                return Err(ContainerCgroupError::value("cpu.shares", why));
            }
            Some(got) if got > shares => {
                let why = format!("the minimum allowed cpu-shares is {got}");
                return Err(ContainerCgroupError::value("cpu.shares", why));
            }
            _ => {}
        }
    }
    let period = cpu.period().filter(|period| *period != 0);
    let quota = asked(cpu.quota()).map(|quota| quota.max(-1));
    // What depends on the quota may be refused before it is set and taken after.
    let early = |file, value: Option<u64>| match value {
        Some(value) => match put(group, file, value) {
            Err(error) if error.errno() == Some(Errno::EINVAL) && quota.is_some() => Ok(Some(value)),
            result => result.map(|()| None),
        },
        None => Ok(None),
    };
    let period = early("cpu.cfs_period_us", period)?;
    let burst = early("cpu.cfs_burst_us", cpu.burst().filter(|burst| *burst != 0 || group.has("cpu.cfs_burst_us")))?;
    if let Some(quota) = quota {
        put(group, "cpu.cfs_quota_us", quota)?;
        period.map_or(Ok(()), |period| put(group, "cpu.cfs_period_us", period))?;
        burst.map_or(Ok(()), |burst| put(group, "cpu.cfs_burst_us", burst))?;
    }
    if let Some(idle) = cpu.idle() {
        put(group, "cpu.idle", idle)?;
    }
    let runtime = asked(cpu.realtime_runtime());
    let late = match cpu.realtime_period().filter(|period| *period != 0) {
        Some(period) => match put(group, "cpu.rt_period_us", period) {
            Err(error) if error.errno() == Some(Errno::EINVAL) && runtime.is_some() => Some(period),
            result => result.map(|()| None)?,
        },
        None => None,
    };
    runtime.map_or(Ok(()), |runtime| put(group, "cpu.rt_runtime_us", runtime))?;
    late.map_or(Ok(()), |period| put(group, "cpu.rt_period_us", period))
}

fn set_cpuset(group: &Group, cpu: &oci::LinuxCpu) -> Result {
    for (file, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            put(group, file, list)?;
        }
    }
    Ok(())
}

fn set_io(group: &Group, io: &oci::LinuxBlockIo) -> Result {
    let weight = either(group, ["blkio.weight", "blkio.bfq.weight"]);
    if let Some(value) = io.weight().filter(|weight| *weight != 0) {
        put(group, weight, value)?;
    }
    if let Some(value) = io.leaf_weight().filter(|weight| *weight != 0) {
        put(group, "blkio.leaf_weight", value)?;
    }
    for device in io.weight_device().iter().flatten() {
        let line = |weight| format!("{}:{} {weight}", device.major(), device.minor());
        if let Some(value) = device.weight().filter(|weight| *weight != 0) {
            put(group, either(group, ["blkio.weight_device", "blkio.bfq.weight_device"]), line(value))?;
        }
        if let Some(value) = device.leaf_weight().filter(|weight| *weight != 0) {
            put(group, "blkio.leaf_weight_device", line(value))?;
        }
    }
    let throttles = [
        ("blkio.throttle.read_bps_device", io.throttle_read_bps_device()),
        ("blkio.throttle.write_bps_device", io.throttle_write_bps_device()),
        ("blkio.throttle.read_iops_device", io.throttle_read_iops_device()),
        ("blkio.throttle.write_iops_device", io.throttle_write_iops_device()),
    ];
    for (file, devices) in throttles {
        for device in devices.iter().flatten() {
            put(group, file, format!("{}:{} {}", device.major(), device.minor(), device.rate()))?;
        }
    }
    Ok(())
}

/// The limit of pages used, and, where the kernel can tell them apart (5.7), of pages reserved.
pub(super) fn set_hugetlb(group: &Group, limit: &oci::LinuxHugepageLimit, suffix: &str) -> Result {
    let size = limit.page_size();
    if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(ContainerCgroupError::value("hugepageLimits", format!("`{size}` is no page size")));
    }
    put(group, &format!("hugetlb.{size}.{suffix}"), limit.limit())?;
    match put(group, &format!("hugetlb.{size}.rsvd.{suffix}"), limit.limit()) {
        Err(ContainerCgroupError::NoController { .. }) => Ok(()),
        result => result,
    }
}
