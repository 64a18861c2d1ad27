//! `linux.resources`: what no hierarchy of control groups could take. What only one version of them cannot take is
//! for the room that writes them to say ([`crate::cgroup`]).

use oci_spec::runtime as oci;

use super::{Check, bad};

pub(super) fn check(resources: &oci::LinuxResources, at: &str) -> Check {
    for (index, rule) in resources.devices().iter().flatten().enumerate() {
        device_rule(&format!("{at}.devices[{index}]"), rule)?;
    }
    if let Some(memory) = resources.memory() {
        self::memory(&format!("{at}.memory"), memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        self::cpu(&format!("{at}.cpu"), cpu)?;
    }
    if let Some(limit) = resources.pids().as_ref().map(oci::LinuxPids::limit) {
        least(&format!("{at}.pids.limit"), limit, -1)?;
    }
    if let Some(block) = resources.block_io() {
        block_io(&format!("{at}.blockIO"), block)?;
    }
    let pages = resources.hugepage_limits().as_deref().unwrap_or_default();
    for (index, limit) in pages.iter().enumerate() {
        let at = |field: &str| format!("{at}.hugepageLimits[{index}].{field}");
        let size = limit.page_size();
        if !is_page_size(size) {
            return Err(bad(at("pageSize"), format_args!("`{}` is no page size, such as 2MB", size.escape_debug())));
        }
        if pages[..index].iter().any(|other| other.page_size() == size) {
            return Err(bad(at("pageSize"), format_args!("{size} is there twice")));
        }
        least(&at("limit"), limit.limit(), 0)?;
    }
    for key in resources.unified().iter().flatten().map(|(key, _)| key) {
        // A name of one file in the group's own directory.
        if key.is_empty() || key.starts_with('.') || key.contains(['/', '\0', '\n']) || key.contains("..") {
            return Err(bad(format_args!("{at}.unified.{}", key.escape_debug()), "it is no file of a control group"));
        }
    }
    for (name, _) in resources.rdma().iter().flatten() {
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
            return Err(bad(format_args!("{at}.rdma.{}", name.escape_debug()), "it is no name of a device"));
        }
    }
    Ok(())
}

fn least(at: &str, number: i64, least: i64) -> Check {
    match number < least {
        true => Err(bad(at, format_args!("{number} is less than {least}"))),
        false => Ok(()),
    }
}

fn device_rule(at: &str, rule: &oci::LinuxDeviceCgroup) -> Check {
    match rule.access().as_deref() {
        // Left out, it is everything; runc and the schema say so of a rule for all devices alone.
        None => {}
        Some("") => return Err(bad(format_args!("{at}.access"), "it is empty: it is made of r, w and m")),
        Some(access) if !access.bytes().all(|byte| b"rwm".contains(&byte)) => {
            let why = format!("`{}` is not made of r, w and m", access.escape_debug());
            return Err(bad(format_args!("{at}.access"), why));
        }
        Some(_) => {}
    }
    use oci::LinuxDeviceType as Type;
    if matches!(rule.typ(), Some(Type::U | Type::P)) {
        return Err(bad(format_args!("{at}.type"), "a rule is for a, b or c"));
    }
    for (name, number) in [("major", rule.major()), ("minor", rule.minor())] {
        if let Some(number) = number
            && !(-1..=i64::from(u32::MAX)).contains(&number)
        {
            return Err(bad(format_args!("{at}.{name}"), format_args!("{number} is no number of a device")));
        }
    }
    Ok(())
}

fn memory(at: &str, memory: &oci::LinuxMemory) -> Check {
    for (name, number) in [
        ("limit", memory.limit()),
        ("reservation", memory.reservation()),
        ("swap", memory.swap()),
        ("kernelTCP", memory.kernel_tcp()),
    ] {
        if let Some(number) = number {
            least(&format!("{at}.{name}"), number, -1)?;
        }
    }
    if let (Some(limit @ 1..), Some(swap @ 1..)) = (memory.limit(), memory.swap())
        && swap < limit
    {
        let why = format!("{swap} is less than the memory limit, {limit}, which it includes");
        return Err(bad(format_args!("{at}.swap"), why));
    }
    match memory.swappiness() {
        Some(swappiness) if swappiness > 200 => {
            Err(bad(format_args!("{at}.swappiness"), format_args!("{swappiness} is more than 200")))
        }
        _ => Ok(()),
    }
}

fn cpu(at: &str, cpu: &oci::LinuxCpu) -> Check {
    if let Some(idle) = cpu.idle()
        && !(0..=1).contains(&idle)
    {
        return Err(bad(format_args!("{at}.idle"), format_args!("{idle} is neither 0 nor 1")));
    }
    for (name, list) in [("cpus", cpu.cpus()), ("mems", cpu.mems())] {
        if list.as_deref().is_some_and(|list| list.contains(|c: char| c.is_control())) {
            return Err(bad(format_args!("{at}.{name}"), "it contains a control character"));
        }
    }
    Ok(())
}

fn block_io(at: &str, block: &oci::LinuxBlockIo) -> Check {
    let weight = |at: String, weight: Option<u16>| match weight {
        Some(weight) if weight != 0 && !(10..=1000).contains(&weight) => {
            Err(bad(at, format_args!("{weight} is not between 10 and 1000")))
        }
        _ => Ok(()),
    };
    weight(format!("{at}.weight"), block.weight())?;
    weight(format!("{at}.leafWeight"), block.leaf_weight())?;
    for (index, device) in block.weight_device().iter().flatten().enumerate() {
        weight(format!("{at}.weightDevice[{index}].weight"), device.weight())?;
        weight(format!("{at}.weightDevice[{index}].leafWeight"), device.leaf_weight())?;
        least(&format!("{at}.weightDevice[{index}].major"), device.major(), 0)?;
        least(&format!("{at}.weightDevice[{index}].minor"), device.minor(), 0)?;
    }
    for (name, list) in [
        ("throttleReadBpsDevice", block.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", block.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", block.throttle_read_iops_device()),
        ("throttleWriteIOPSDevice", block.throttle_write_iops_device()),
    ] {
        for (index, device) in list.iter().flatten().enumerate() {
            least(&format!("{at}.{name}[{index}].major"), device.major(), 0)?;
            least(&format!("{at}.{name}[{index}].minor"), device.minor(), 0)?;
        }
    }
    Ok(())
}

/// `2MB`, `1GB`: as the files of the controller are called.
fn is_page_size(text: &str) -> bool {
    ["KB", "MB", "GB"].iter().filter_map(|unit| text.strip_suffix(unit)).any(|number| {
        !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit()) && !number.is_empty()
    })
}
