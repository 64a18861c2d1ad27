//! `update`: other limits, from a document or from options.

use std::{fs::File, io::stdin, path::Path, process::ExitCode};

use fumehood::{Error, Result, container, error::Hint, spec::container as spec};
use oci_spec::runtime as oci;

use super::{Context, flags::Given, id, log};

pub fn run(context: &Context, given: &Given) -> Result<ExitCode> {
    let id = id(given)?;
    for flag in ["l3-cache-schema", "mem-bw-schema"] {
        if given.path(flag).is_some() {
            return Err(Error::new(format!("--{flag}: Intel RDT is not enabled for container {id}")));
        }
    }
    let resources = match given.path("resources") {
        Some(path) => {
            let bytes = if path == Path::new("-") {
                spec::read_from(stdin().lock(), Path::new("standard input"))
            } else {
                let opened = File::open(&path);
                let file = opened.map_err(|error| Error::new(format!("open {}: {error}", path.display())))?;
                spec::read_from(file, &path)
            };
            spec::parse_resources(&bytes.map_err(Hint::into_error)?).map_err(Hint::into_error)?
        }
        None => from_options(given)?,
    };
    container::update(&context.root()?, &id, &mended(resources))?;
    Ok(ExitCode::SUCCESS)
}

fn from_options(given: &Given) -> Result<oci::LinuxResources> {
    for flag in ["kernel-memory", "kernel-memory-tcp"] {
        if given.path(flag).is_some() {
            log::warn(&format!("--{flag}: limits of kernel memory are gone from Linux, and are left out"));
        }
    }
    let mut cpu = oci::LinuxCpu::default();
    cpu.set_shares(number(given, "cpu-share")?)
        .set_quota(number(given, "cpu-quota")?)
        .set_period(number(given, "cpu-period")?)
        .set_burst(number(given, "cpu-burst")?)
        .set_realtime_runtime(number(given, "cpu-rt-runtime")?)
        .set_realtime_period(number(given, "cpu-rt-period")?)
        .set_idle(number(given, "cpu-idle")?)
        .set_cpus(text(given, "cpuset-cpus")?)
        .set_mems(text(given, "cpuset-mems")?);
    let mut memory = oci::LinuxMemory::default();
    memory
        .set_limit(bytes(given, "memory")?)
        .set_reservation(bytes(given, "memory-reservation")?)
        .set_swap(bytes(given, "memory-swap")?);
    let mut resources = oci::LinuxResources::default();
    if cpu != oci::LinuxCpu::default() {
        resources.set_cpu(Some(cpu));
    }
    if memory != oci::LinuxMemory::default() {
        resources.set_memory(Some(memory));
    }
    if let Some(limit) = number::<i64>(given, "pids-limit")? {
        resources.set_pids(Some(oci::LinuxPidsBuilder::default().limit(limit).build().map_err(unbuilt)?));
    }
    if let Some(weight) = number::<u16>(given, "blkio-weight")?.filter(|weight| *weight != 0) {
        resources.set_block_io(Some(oci::LinuxBlockIoBuilder::default().weight(weight).build().map_err(unbuilt)?));
    }
    spec::check_resources(&resources).map_err(Hint::into_error)?;
    Ok(resources)
}

fn unbuilt(error: oci_spec::OciSpecError) -> Error {
    Error::new(error.to_string())
}

/// Without these, the kernel refuses what was meant (runc, too).
fn mended(mut resources: oci::LinuxResources) -> oci::LinuxResources {
    if let Some(memory) = resources.memory_mut()
        && memory.limit() == Some(-1)
        && memory.swap().is_none()
    {
        // No limit of memory alone is under the old one of both together.
        memory.set_swap(Some(-1));
    }
    resources
}

/// Engines give empty values for none.
fn text(given: &Given, flag: &str) -> Result<Option<String>> {
    Ok(given.text(flag)?.filter(|text| !text.is_empty()).map(str::to_owned))
}

fn number<T: std::str::FromStr>(given: &Given, flag: &str) -> Result<Option<T>> {
    match text(given, flag)? {
        None => Ok(None),
        Some(text) => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Error::new(format!("invalid value for {flag}: {text:?} is no number in its range"))),
        },
    }
}

fn bytes(given: &Given, flag: &str) -> Result<Option<i64>> {
    match text(given, flag)? {
        None => Ok(None),
        Some(text) => match ram(&text) {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(Error::new(format!("invalid value for {flag}: {text:?} is no size, such as 512m"))),
        },
    }
}

/// Docker's units: powers of 1024 with any of `b`, `k`, `kb`, `KiB`, and parts of them.
fn ram(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let lower = text.trim().to_ascii_lowercase();
    let (number, unit) = lower.split_at(lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len()));
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let (scale, rest) = match unit.chars().next() {
        None | Some('b') => (0, unit),
        Some(letter) => ("kmgtp".find(letter)? as i32 + 1, &unit[1..]),
    };
    let known = if scale == 0 { ["", "b"].contains(&rest) } else { ["", "b", "ib"].contains(&rest) };
    let number: f64 = number.parse().ok().filter(|_| known)?;
    let bytes = number * 1024_f64.powi(scale);
    (bytes < i64::MAX as f64).then_some(bytes as i64)
}

#[cfg(test)]
mod tests {
    use super::super::{flags, table::VERBS};
    use super::*;

    fn read(line: &[&str]) -> Result<oci::LinuxResources> {
        let verb = VERBS.iter().find(|verb| verb.name == "update").unwrap();
        let mut words = line.iter().chain(&["id"]).map(Into::into).collect::<Vec<_>>().into_iter();
        from_options(&flags::parse(verb.flags, &mut words, verb.until)?).map(mended)
    }

    #[test]
    fn sizes_are_dockers() {
        for (text, bytes) in [
            ("-1", -1),
            ("0", 0),
            ("1000", 1000),
            ("1k", 1024),
            ("32MB", 32 << 20),
            ("32MiB", 32 << 20),
            ("1.5g", 3 << 29),
            ("7b", 7),
            ("2 GB", 2 << 30),
        ] {
            assert_eq!(ram(text), Some(bytes), "{text}");
        }
        for text in ["", "m", "-2", "1x", "1kk", "1mbb", "1..2", "1ib", "99999999p"] {
            assert_eq!(ram(text), None, "{text}");
        }
    }

    #[test]
    fn only_what_was_said_is_changed() {
        assert_eq!(read(&[]).unwrap(), oci::LinuxResources::default());
        let resources = read(&["--memory", "64m", "--cpu-quota=-1", "--cpu-share", "", "--pids-limit", "-1"]).unwrap();
        assert_eq!(resources.memory().as_ref().unwrap().limit(), Some(64 << 20));
        assert_eq!(resources.memory().as_ref().unwrap().swap(), None);
        assert_eq!(resources.cpu().as_ref().unwrap().quota(), Some(-1));
        assert_eq!(resources.cpu().as_ref().unwrap().shares(), None);
        assert_eq!(resources.pids().as_ref().unwrap().limit(), -1);
        assert!(resources.block_io().is_none() && resources.devices().is_none());
        assert_eq!(read(&["--memory", "-1"]).unwrap().memory().as_ref().unwrap().swap(), Some(-1));
    }

    #[test]
    fn what_no_group_could_take_is_refused() {
        for line in [
            &["--memory", "lots"][..],
            &["--cpu-period", "-1"],
            &["--cpu-idle", "2"],
            &["--blkio-weight", "9"],
            &["--pids-limit", "-2"],
            &["--memory", "2g", "--memory-swap", "1g"],
        ] {
            assert!(read(line).is_err(), "{line:?}");
        }
    }
}
