//! Counters of v2 (kernel, `admin-guide/cgroup-v2.rst`), told in v1's terms.

use super::{
    super::super::{
        group::Group,
        usage::{keyed, number},
    },
    Blkio, BlkioEntry, Cpu, CpuUsage, Hugetlb, Memory, MemoryEntry, Pids, Psi, PsiData, Stats, Throttling, page_sizes,
    table,
};

const MICROSECOND: u64 = 1000;

pub(super) fn read(group: &Group) -> Stats {
    Stats {
        cpu: cpu(group),
        memory: memory(group),
        pids: pids(group),
        blkio: Blkio { psi: pressure(group, "io.pressure"), ..blkio(&text(group, "io.stat")) },
        hugetlb: hugetlb(group),
        ..Stats::default()
    }
}

fn text(group: &Group, file: &str) -> String {
    group.read(file).unwrap_or_default()
}

/// A limit of `max` is as high as a number goes.
fn count(group: &Group, file: &str) -> u64 {
    let text = text(group, file);
    if text.trim_end() == "max" { u64::MAX } else { number(&text).unwrap_or(0) }
}

fn cpu(group: &Group) -> Cpu {
    let text = text(group, "cpu.stat");
    let nanoseconds = |key| keyed(&text, key).saturating_mul(MICROSECOND);
    Cpu {
        usage: CpuUsage {
            total: nanoseconds("usage_usec"),
            kernel: nanoseconds("system_usec"),
            user: nanoseconds("user_usec"),
            ..CpuUsage::default()
        },
        throttling: Throttling {
            periods: keyed(&text, "nr_periods"),
            throttled_periods: keyed(&text, "nr_throttled"),
            throttled_time: nanoseconds("throttled_usec"),
        },
        psi: pressure(group, "cpu.pressure"),
    }
}

fn memory(group: &Group) -> Memory {
    let raw = table(&text(group, "memory.stat"));
    let entry = |name: &str| MemoryEntry {
        limit: count(group, &format!("{name}.max")),
        usage: count(group, &format!("{name}.current")),
        max: count(group, &format!("{name}.peak")),
        failcnt: 0,
    };
    let usage = entry("memory");
    let mut swap = entry("memory.swap");
    swap.usage = swap.usage.saturating_add(usage.usage);
    swap.limit = swap.limit.saturating_add(usage.limit);
    // The peaks of the two may have been at different times.
    swap.max = 0;
    Memory {
        cache: raw.get("file").copied().unwrap_or(0),
        usage,
        swap,
        raw,
        psi: pressure(group, "memory.pressure"),
        ..Memory::default()
    }
}

fn pids(group: &Group) -> Pids {
    if !group.has("pids.current") {
        // Counted by hand where the controller is not enabled.
        let listed = group.read("cgroup.procs").or_else(|_| group.read("cgroup.threads"));
        return Pids { current: listed.map_or(0, |text| text.lines().count() as u64), limit: 0 };
    }
    let limit = count(group, "pids.max");
    Pids { current: count(group, "pids.current"), limit: if limit == u64::MAX { 0 } else { limit } }
}

fn hugetlb(group: &Group) -> std::collections::BTreeMap<String, Hugetlb> {
    let sizes = page_sizes().into_iter().filter(|size| group.has(&format!("hugetlb.{size}.current")));
    let stats = |size: String| {
        let rsvd = if group.has(&format!("hugetlb.{size}.rsvd.current")) { ".rsvd" } else { "" };
        let usage = count(group, &format!("hugetlb.{size}{rsvd}.current"));
        let failcnt = keyed(&text(group, &format!("hugetlb.{size}.events")), "max");
        (size, Hugetlb { usage, max: 0, failcnt })
    };
    sizes.map(stats).collect()
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`.
fn blkio(text: &str) -> Blkio {
    let mut blkio = Blkio::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else { continue };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut blkio.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut blkio.io_service_bytes_recursive, "Write"),
                "rios" => (&mut blkio.io_serviced_recursive, "Read"),
                "wios" => (&mut blkio.io_serviced_recursive, "Write"),
                _ => continue,
            };
            if let Ok(value) = value.parse() {
                list.push(BlkioEntry { major, minor, op: op.to_owned(), value });
            }
        }
    }
    blkio
}

/// Nothing where the kernel does not count it, or not for this group.
fn pressure(group: &Group, file: &str) -> Option<Psi> {
    group.read(file).ok().map(|text| psi(&text))
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and a line `full` alike.
fn psi(text: &str) -> Psi {
    let mut psi = Psi::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let data: &mut PsiData = match words.next() {
            Some("some") => &mut psi.some,
            Some("full") => &mut psi.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => data.avg10 = value.parse().unwrap_or_default(),
                "avg60" => data.avg60 = value.parse().unwrap_or_default(),
                "avg300" => data.avg300 = value.parse().unwrap_or_default(),
                "total" => data.total = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
    }
    psi
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_counters() {
        let blkio = blkio("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n253:1\nx\n259:0 rbytes=9\n");
        let entry = |major, op: &str, value| BlkioEntry { major, minor: 0, op: op.to_owned(), value };
        assert_eq!(
            blkio.io_service_bytes_recursive,
            [entry(8, "Read", 1), entry(8, "Write", 2), entry(259, "Read", 9)]
        );
        assert_eq!(blkio.io_serviced_recursive, [entry(8, "Read", 3), entry(8, "Write", 4)]);
    }

    #[test]
    fn pressures() {
        let psi =
            psi("some avg10=1.50 avg60=0.25 avg300=0.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n");
        assert_eq!(psi.some, PsiData { avg10: 1.5, avg60: 0.25, avg300: 0.0, total: 42 });
        assert_eq!(psi.full.total, 7);
    }
}
