//! Counters of v1 (kernel, `admin-guide/cgroup-v1/*.rst`). What a kernel does not count stays 0.

use super::{
    super::{
        super::{
            group::Group,
            usage::{keyed, number},
        },
        slots::Slots,
    },
    Blkio, BlkioEntry, Cpu, Cpuset, Hugetlb, Memory, MemoryEntry, Pids, Stats, page_sizes, ranges, table,
};

/// `USER_HZ`, the same everywhere: what the kernel shows to programs does not depend on its own clock.
const TICK: u64 = 1_000_000_000 / 100;

pub(super) fn read(slots: &Slots) -> Stats {
    let mut stats = Stats::default();
    if let Some(group) = slots.v1("cpu") {
        throttling(group, &mut stats.cpu);
    }
    if let Some(group) = slots.v1("cpuacct") {
        usage(group, &mut stats.cpu);
    }
    stats.cpuset = slots.v1("cpuset").map(cpuset).unwrap_or_default();
    stats.memory = slots.v1("memory").map(memory).unwrap_or_default();
    stats.blkio = slots.v1("blkio").map(blkio).unwrap_or_default();
    if let Some(group) = slots.v1("pids") {
        // `max`, for which there is no number, is 0.
        stats.pids = Pids { current: count(group, "pids.current"), limit: count(group, "pids.max") };
    }
    if let Some(group) = slots.v1("hugetlb") {
        stats.hugetlb = page_sizes().into_iter().map(|size| (size.clone(), hugetlb(group, &size))).collect();
    }
    stats
}

fn text(group: &Group, file: &str) -> String {
    group.read(file).unwrap_or_default()
}

fn count(group: &Group, file: &str) -> u64 {
    number(&text(group, file)).unwrap_or(0)
}

fn throttling(group: &Group, cpu: &mut Cpu) {
    let text = text(group, "cpu.stat");
    cpu.throttling.periods = keyed(&text, "nr_periods");
    cpu.throttling.throttled_periods = keyed(&text, "nr_throttled");
    cpu.throttling.throttled_time = keyed(&text, "throttled_time");
}

fn usage(group: &Group, cpu: &mut Cpu) {
    let ticks = text(group, "cpuacct.stat");
    cpu.usage.user = keyed(&ticks, "user").saturating_mul(TICK);
    cpu.usage.kernel = keyed(&ticks, "system").saturating_mul(TICK);
    cpu.usage.total = count(group, "cpuacct.usage");
    let per_cpu = text(group, "cpuacct.usage_percpu");
    cpu.usage.percpu = per_cpu.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
    (cpu.usage.percpu_user, cpu.usage.percpu_kernel) = modes(&text(group, "cpuacct.usage_all"));
}

/// `cpu user system`, and a line per CPU.
fn modes(text: &str) -> (Vec<u64>, Vec<u64>) {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1).map(|word| word.parse::<u64>().ok());
        Some((words.next()??, words.next()??))
    };
    text.lines().skip(1).filter_map(line).unzip()
}

fn cpuset(group: &Group) -> Cpuset {
    let number = |file: &str| count(group, &format!("cpuset.{file}"));
    Cpuset {
        cpus: ranges(&text(group, "cpuset.cpus")),
        cpu_exclusive: number("cpu_exclusive"),
        mems: ranges(&text(group, "cpuset.mems")),
        mem_hardwall: number("mem_hardwall"),
        mem_exclusive: number("mem_exclusive"),
        memory_migrate: number("memory_migrate"),
        memory_spread_page: number("memory_spread_page"),
        memory_spread_slab: number("memory_spread_slab"),
        memory_pressure: number("memory_pressure"),
        sched_load_balance: number("sched_load_balance"),
        sched_relax_domain_level: text(group, "cpuset.sched_relax_domain_level").trim().parse().unwrap_or(0),
    }
}

fn memory(group: &Group) -> Memory {
    let raw = table(&text(group, "memory.stat"));
    let entry = |kind: &str| MemoryEntry {
        limit: count(group, &format!("memory.{kind}limit_in_bytes")),
        usage: count(group, &format!("memory.{kind}usage_in_bytes")),
        max: count(group, &format!("memory.{kind}max_usage_in_bytes")),
        failcnt: count(group, &format!("memory.{kind}failcnt")),
    };
    Memory {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: entry(""),
        swap: entry("memsw."),
        kernel: entry("kmem."),
        kernel_tcp: entry("kmem.tcp."),
        raw,
        psi: None,
    }
}

fn hugetlb(group: &Group, size: &str) -> Hugetlb {
    // Reservations include what is used of them (5.7).
    let rsvd = if group.has(&format!("hugetlb.{size}.rsvd.usage_in_bytes")) { "rsvd." } else { "" };
    let number = |what: &str| count(group, &format!("hugetlb.{size}.{rsvd}{what}"));
    Hugetlb { usage: number("usage_in_bytes"), max: number("max_usage_in_bytes"), failcnt: number("failcnt") }
}

/// From whichever scheduler counts: BFQ, with its debug counters or without, CFQ of old kernels, or the throttling
/// layer, which always does, but sees only what is limited by it.
fn blkio(group: &Group) -> Blkio {
    let entries = |file: &str| group.read(file).map(|text| blkio_entries(&text)).unwrap_or_default();
    let first =
        |files: &[&str]| files.iter().map(|file| entries(file)).find(|list| !list.is_empty()).unwrap_or_default();
    let both = |name: &str| first(&[&format!("blkio.bfq.{name}_recursive"), &format!("blkio.{name}_recursive")]);
    let throttled = |name: &str| {
        let list = both(name);
        let throttle = format!("blkio.throttle.{name}");
        if list.is_empty() { first(&[&format!("{throttle}_recursive"), &throttle]) } else { list }
    };
    Blkio {
        io_service_bytes_recursive: throttled("io_service_bytes"),
        io_serviced_recursive: throttled("io_serviced"),
        io_queued_recursive: both("io_queued"),
        io_service_time_recursive: both("io_service_time"),
        io_wait_time_recursive: both("io_wait_time"),
        io_merged_recursive: both("io_merged"),
        io_time_recursive: both("time"),
        sectors_recursive: both("sectors"),
        psi: None,
    }
}

/// `8:0 Read 100`, `8:0 100`, and totals.
fn blkio_entries(text: &str) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let mut words = line.split(' ');
        let (major, minor) = words.next()?.split_once(':')?;
        let (op, value) = match (words.next()?, words.next()) {
            (value, None) => ("", value),
            (op, Some(value)) => (op, value),
        };
        let [major, minor, value] = [major, minor, value].map(|number| number.trim().parse().ok());
        Some(BlkioEntry { major: major?, minor: minor?, op: op.to_owned(), value: value? })
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_counters() {
        let list = blkio_entries("8:0 Read 100\n8:0 Total 100\n8:16 7\nTotal 107\nnonsense\n8 Read 1\n");
        let entry = |major, minor, op: &str, value| BlkioEntry { major, minor, op: op.to_owned(), value };
        assert_eq!(list, [entry(8, 0, "Read", 100), entry(8, 0, "Total", 100), entry(8, 16, "", 7)]);
    }

    #[test]
    fn modes_of_each_cpu() {
        assert_eq!(modes("cpu user system\n0 5 6\n1 7 8\n"), (vec![5, 7], vec![6, 8]));
        assert_eq!(modes(""), (vec![], vec![]));
    }
}
