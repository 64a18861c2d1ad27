//! What a unit is told of a container's limits. The groups' own files are written as well, with everything there is;
//! this is so that systemd, when it writes them again (`daemon-reload`), writes the same.

use oci_spec::runtime as oci;

use super::{
    super::{ContainerCgroupError, convert, devices, place::Version},
    wire::Value,
};

type Result<T = ()> = std::result::Result<T, ContainerCgroupError>;
pub(super) type Properties = Vec<(String, Value)>;

/// systemd's word for no limit.
const INFINITY: u64 = u64::MAX;

/// Those that a systemd of this version knows.
pub(super) fn of_resources(resources: &oci::LinuxResources, host: Version, systemd: u32) -> Result<Properties> {
    let mut all = Properties::new();
    let mut push = |name: &str, value: Value| all.push((name.to_owned(), value));
    let v2 = host == Version::V2;
    if let Some(memory) = resources.memory() {
        let limit = memory.limit().unwrap_or(0);
        if limit != 0 {
            push(if v2 { "MemoryMax" } else { "MemoryLimit" }, Value::U64(bound(limit)));
        }
        if v2 {
            if let Some(reservation) = memory.reservation().filter(|limit| *limit != 0) {
                push("MemoryLow", Value::U64(bound(reservation)));
            }
            // An update of the swap alone is the files' business: only they tell the limit that it counts from.
            let swap = memory.swap().filter(|swap| *swap <= 0 || limit != 0).unwrap_or(0);
            let swap = convert::swap_alone(swap, limit);
            if let Some(swap) = swap.map_err(|why| ContainerCgroupError::value("memory.swap", why))? {
                push("MemorySwapMax", Value::U64(bound(swap)));
            }
        }
    }
    if let Some(cpu) = resources.cpu() {
        let shares = cpu.shares().unwrap_or(0);
        match (v2, convert::weight_of_shares(shares)) {
            // A weight of 0 is to be idle.
            (true, _) if cpu.idle() == Some(1) && systemd >= 252 => push("CPUWeight", Value::U64(0)),
            (true, Some(weight)) => push("CPUWeight", Value::U64(weight)),
            (false, Some(_)) => push("CPUShares", Value::U64(shares)),
            (_, None) => {}
        }
        let (quota, period) = (cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0));
        if period != 0 && systemd >= 242 {
            push("CPUQuotaPeriodUSec", Value::U64(period));
        }
        if quota != 0 || period != 0 {
            push("CPUQuotaPerSecUSec", Value::U64(quota_per_second(quota, period)));
        }
        if systemd >= 244 {
            for (name, list) in [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())] {
                if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
                    let wrong = || ContainerCgroupError::value(format!("cpu {name}"), format!("`{list}` is no list"));
                    push(name, Value::bytes(&bits(list).ok_or_else(wrong)?));
                }
            }
        }
    }
    if let Some(pids) = resources.pids() {
        // systemd takes no 0.
        push("TasksMax", Value::U64(if pids.limit() == 0 { 1 } else { bound(pids.limit()) }));
    }
    if let Some(weight) = resources.block_io().as_ref().and_then(oci::LinuxBlockIo::weight).filter(|w| *w != 0) {
        if v2 {
            push("IOWeight", Value::U64(convert::io_weight(weight)));
        } else {
            push("BlockIOWeight", Value::U64(weight.into()));
        }
    }
    for (file, value) in resources.unified().iter().flatten() {
        of_unified(file, value.trim(), systemd, &mut push)?;
    }
    Ok(all)
}

/// What is not known here is in the files all the same.
fn of_unified(file: &str, value: &str, systemd: u32, push: &mut impl FnMut(&str, Value)) -> Result {
    let wrong = || ContainerCgroupError::value(format!("unified resource {file:?}"), format!("`{value}` is no value"));
    let number = |text: &str| if text == "max" { Ok(INFINITY) } else { text.parse::<u64>().map_err(|_| wrong()) };
    let name = match file {
        "memory.high" => "MemoryHigh",
        "memory.low" => "MemoryLow",
        "memory.min" => "MemoryMin",
        "memory.max" => "MemoryMax",
        "memory.swap.max" => "MemorySwapMax",
        "cpu.weight" => "CPUWeight",
        // That of a device is the file's business.
        "io.weight" => match value.strip_prefix("default").unwrap_or(value).trim().parse() {
            Ok(weight) => {
                push("IOWeight", Value::U64(weight));
                return Ok(());
            }
            Err(_) => return Ok(()),
        },
        "pids.max" => {
            push("TasksMax", Value::U64(number(value)?.max(1)));
            return Ok(());
        }
        "cpu.idle" if value == "1" && systemd >= 252 => {
            push("CPUWeight", Value::U64(0));
            return Ok(());
        }
        "cpu.max" => {
            let mut words = value.split_ascii_whitespace();
            let quota = match words.next().ok_or_else(wrong)? {
                "max" => 0,
                quota => quota.parse().map_err(|_| wrong())?,
            };
            let period = words.next().map_or(Ok(100_000), |period| period.parse().map_err(|_| wrong()))?;
            if systemd >= 242 {
                push("CPUQuotaPeriodUSec", Value::U64(period));
            }
            push("CPUQuotaPerSecUSec", Value::U64(quota_per_second(quota, period)));
            return Ok(());
        }
        "cpuset.cpus" | "cpuset.mems" if systemd >= 244 => {
            let name = if file == "cpuset.cpus" { "AllowedCPUs" } else { "AllowedMemoryNodes" };
            push(name, Value::bytes(&bits(value).ok_or_else(wrong)?));
            return Ok(());
        }
        _ => return Ok(()),
    };
    push(name, Value::U64(number(value)?));
    Ok(())
}

/// The list, which cannot say all that the rules can, is as wide as they are, or wider: the rules hold beside it.
pub(super) fn of_devices(rules: &[devices::Rule], systemd: u32) -> Properties {
    let pair = |(path, access): (String, String)| Value::Struct(vec![Value::Text(path), Value::Text(access)]);
    let list = |entries: Vec<_>| ("DeviceAllow".to_owned(), Value::List("(ss)", entries));
    let policy = |name: &str| ("DevicePolicy".to_owned(), Value::text(name));
    match devices::for_systemd(rules, systemd) {
        // An empty list takes away what there was.
        None => vec![list(Vec::new()), policy("auto")],
        Some(entries) => {
            vec![list(Vec::new()), policy("strict"), list(entries.into_iter().map(pair).collect())]
        }
    }
}

fn bound(limit: i64) -> u64 {
    u64::try_from(limit).unwrap_or(INFINITY)
}

/// Microseconds per second, in whole hundredths of a CPU, since that is all that a unit file can say.
fn quota_per_second(quota: i64, period: u64) -> u64 {
    let Some(quota) = u64::try_from(quota).ok().filter(|quota| *quota != 0) else { return INFINITY };
    let period = if period == 0 { 100_000 } else { period };
    let exact = u128::from(quota) * 1_000_000 / u128::from(period);
    u64::try_from(exact).unwrap_or(INFINITY).checked_next_multiple_of(10_000).unwrap_or(INFINITY)
}

/// `0-3,7` as a set of bits, the first eight in the first byte.
fn bits(list: &str) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u16, u16) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        if from > to {
            return None;
        }
        for number in usize::from(from)..=usize::from(to) {
            if bits.len() <= number / 8 {
                bits.resize(number / 8 + 1, 0);
            }
            bits[number / 8] |= 1 << (number % 8);
        }
    }
    (!bits.is_empty()).then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str, host: Version, systemd: u32) -> Properties {
        of_resources(&serde_json::from_str(json).unwrap(), host, systemd).unwrap()
    }

    fn named(pairs: &[(&str, Value)]) -> Properties {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    #[test]
    fn limits_in_systemds_words() {
        let json = r#"{"memory": {"limit": 100, "swap": 300, "reservation": 50},
            "cpu": {"shares": 1024, "quota": 25000, "period": 50000, "cpus": "0-1,9"}, "pids": {"limit": 0},
            "blockIO": {"weight": 1000}}"#;
        let cpus = Value::bytes(&[3, 2]);
        let expected = [
            ("MemoryMax", Value::U64(100)),
            ("MemoryLow", Value::U64(50)),
            ("MemorySwapMax", Value::U64(200)),
            ("CPUWeight", Value::U64(100)),
            ("CPUQuotaPeriodUSec", Value::U64(50_000)),
            ("CPUQuotaPerSecUSec", Value::U64(500_000)),
            ("AllowedCPUs", cpus),
            ("TasksMax", Value::U64(1)),
            ("IOWeight", Value::U64(10_000)),
        ];
        assert_eq!(of(json, Version::V2, 252), named(&expected));
        let old = ["MemoryLimit", "CPUShares", "CPUQuotaPerSecUSec", "TasksMax", "BlockIOWeight"];
        assert_eq!(of(json, Version::V1, 239).into_iter().map(|(name, _)| name).collect::<Vec<_>>(), old);
    }

    #[test]
    fn no_limit_is_infinity() {
        let json = r#"{"memory": {"limit": -1}, "cpu": {"quota": -1}, "pids": {"limit": -1}}"#;
        let names = ["MemoryMax", "MemorySwapMax", "CPUQuotaPerSecUSec", "TasksMax"];
        assert_eq!(of(json, Version::V2, 252), named(&names.map(|name| (name, Value::U64(INFINITY)))));
        assert_eq!(of("{}", Version::V2, 252), []);
        // Nothing to subtract from.
        assert_eq!(of(r#"{"memory": {"swap": 300}}"#, Version::V2, 252), []);
    }

    #[test]
    fn unified_in_systemds_words() {
        let one = |file: &str, value: &str| of(&format!(r#"{{"unified": {{"{file}": "{value}"}}}}"#), Version::V2, 252);
        assert_eq!(one("memory.high", "max"), named(&[("MemoryHigh", Value::U64(INFINITY))]));
        assert_eq!(one("pids.max", " 7 "), named(&[("TasksMax", Value::U64(7))]));
        let max = [("CPUQuotaPeriodUSec", Value::U64(100_000)), ("CPUQuotaPerSecUSec", Value::U64(INFINITY))];
        assert_eq!(one("cpu.max", "max"), named(&max));
        assert_eq!(one("cpuset.cpus", "2"), named(&[("AllowedCPUs", Value::bytes(&[4]))]));
        assert_eq!(one("io.max", "8:0 rbps=1"), []);
        assert_eq!(one("io.weight", "8:0 200"), []);
        for weight in ["200", "default 200"] {
            assert_eq!(one("io.weight", weight), named(&[("IOWeight", Value::U64(200))]));
        }
        let resources = serde_json::from_str(r#"{"unified": {"memory.max": "much"}}"#).unwrap();
        assert!(of_resources(&resources, Version::V2, 252).is_err());
    }

    #[test]
    fn quotas_are_rounded_to_what_a_unit_file_can_say() {
        assert_eq!(quota_per_second(25_001, 100_000), 260_000);
        assert_eq!(quota_per_second(200_000, 0), 2_000_000);
        assert_eq!(quota_per_second(i64::MAX, 1), INFINITY);
        assert_eq!(bits("3-1"), None);
        assert_eq!(bits(""), None);
        assert_eq!(bits("15, 0"), Some(vec![1, 128]));
    }
}
