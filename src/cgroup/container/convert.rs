//! What the spec says in v1 terms, in v2 terms; and the lines that the kernel's files take.

use oci_spec::runtime as oci;

/// CPU shares (2 to 262144, by default 1024) as a weight (1 to 10000, by default 100), so that the least, the
/// default and the most of one are those of the other: `10^((l² + 125·l)/612 − 7/34)` with `l = log2(shares)`,
/// rounded up. 0 is unset.
pub(super) fn weight_of_shares(shares: u64) -> Option<u64> {
    match shares {
        0 => None,
        1 | 2 => Some(1),
        262_144.. => Some(10_000),
        _ => {
            let l = (shares as f64).log2();
            Some(10_f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0).ceil() as u64)
        }
    }
}

/// A blkio weight (10 to 1000) as an io weight (1 to 10000).
pub(super) fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight).saturating_sub(10) * 9999 / 990
}

/// The spec's swap is memory and swap together, the kernel's on v2 is swap alone. `memory` is the limit that is or
/// will be in force; 0 is unset, -1 unlimited, in what comes and in what is returned as `None` and `Some(-1)`.
pub(super) fn swap_alone(swap: i64, memory: i64) -> Result<Option<i64>, &'static str> {
    match (swap, memory) {
        // What made both unlimited on v1.
        (0, -1) | (-1, _) => Ok(Some(-1)),
        (0, _) => Ok(None),
        (swap, -1) => Ok(Some(swap)),
        (_, 0) => Err("unable to set swap limit without memory limit"),
        (swap, memory) if swap < -1 || memory < -1 => Err("a limit below -1"),
        (swap, memory) if swap < memory => Err("memory+swap limit should be >= memory limit"),
        (swap, memory) => Ok(Some(swap - memory)),
    }
}

/// -1 is unlimited; `None` where nothing is asked.
pub(super) fn limit(value: Option<i64>) -> Option<String> {
    match value? {
        0 => None,
        -1 => Some("max".to_owned()),
        value => Some(value.to_string()),
    }
}

/// Below 0 is unlimited. 0 leaves the one process there is, which is what 1 says; systemd knows no 0.
pub(super) fn pids(limit: i64) -> String {
    match limit {
        ..0 => "max".to_owned(),
        0 => "1".to_owned(),
        limit => limit.to_string(),
    }
}

/// `cpu.max`: `$MAX $PERIOD`. 0 is unset, a quota below it unlimited.
pub(super) fn cpu_max(quota: i64, period: u64) -> Option<String> {
    if quota == 0 && period == 0 {
        return None;
    }
    let period = if period == 0 { 100_000 } else { period };
    Some(if quota > 0 { format!("{quota} {period}") } else { format!("max {period}") })
}

/// A line of `rdma.max`.
pub(super) fn rdma(device: &str, limits: &oci::LinuxRdma) -> String {
    let mut line = device.to_owned();
    if let Some(handles) = limits.hca_handles() {
        line.push_str(&format!(" hca_handle={handles}"));
    }
    if let Some(objects) = limits.hca_objects() {
        line.push_str(&format!(" hca_object={objects}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_meet_at_the_least_the_default_and_the_most() {
        let cases = [(0, None), (1, Some(1)), (2, Some(1)), (1024, Some(100)), (262_144, Some(10_000))];
        for (shares, weight) in cases {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
        assert_eq!(weight_of_shares(u64::MAX), Some(10_000));
        // As runc's and crun's tests have it.
        assert_eq!((weight_of_shares(512), weight_of_shares(2048)), (Some(59), Some(174)));
        let weights: Vec<_> = (2..=262_144).step_by(97).map(|shares| weight_of_shares(shares).unwrap()).collect();
        assert!(weights.is_sorted() && weights.iter().all(|weight| (1..=10_000).contains(weight)));
    }

    #[test]
    fn io_weights() {
        assert_eq!([10, 100, 500, 1000].map(io_weight), [1, 910, 4950, 10_000]);
        assert_eq!(io_weight(0), 1);
    }

    #[test]
    fn swap_without_memory() {
        assert_eq!(swap_alone(300, 100), Ok(Some(200)));
        assert_eq!(swap_alone(100, 100), Ok(Some(0)));
        assert_eq!(swap_alone(0, 100), Ok(None));
        assert_eq!(swap_alone(-1, 100), Ok(Some(-1)));
        assert_eq!(swap_alone(0, -1), Ok(Some(-1)));
        assert_eq!(swap_alone(500, -1), Ok(Some(500)));
        assert_eq!(swap_alone(0, 0), Ok(None));
        assert!(swap_alone(100, 0).is_err() && swap_alone(99, 100).is_err() && swap_alone(5, -2).is_err());
    }

    #[test]
    fn what_the_files_take() {
        assert_eq!([None, Some(0), Some(-1), Some(7)].map(limit), [None, None, Some("max".into()), Some("7".into())]);
        assert_eq!([-1, 0, 1, 32].map(pids), ["max", "1", "1", "32"]);
        assert_eq!(cpu_max(0, 0), None);
        assert_eq!(cpu_max(50_000, 0).as_deref(), Some("50000 100000"));
        assert_eq!(cpu_max(-1, 20_000).as_deref(), Some("max 20000"));
        assert_eq!(cpu_max(0, 20_000).as_deref(), Some("max 20000"));
        let limits = serde_json::from_str(r#"{"hcaHandles": 3, "hcaObjects": 10000}"#).unwrap();
        assert_eq!(rdma("mlx5_1", &limits), "mlx5_1 hca_handle=3 hca_object=10000");
        let limits = serde_json::from_str(r#"{"hcaObjects": 5}"#).unwrap();
        assert_eq!(rdma("mlx5_1", &limits), "mlx5_1 hca_object=5");
    }
}
