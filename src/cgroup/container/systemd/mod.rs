//! The systemd driver: a transient scope with the container in it, which systemd lists, keeps out of, and takes down.
//!
//! systemd is spoken to in D-Bus, by a client of our own ([`wire`], [`bus`]). What is needed is six calls, each waited
//! for, and one signal. The zbus crate does that and all the rest, with an executor and threads that would be up for
//! one call and then gone; it brings dozens of crates, minutes of building, and 1.4 MB of binary.

mod bus;
mod properties;
mod variant;
mod wire;

use std::path::{Path, PathBuf};

use oci_spec::runtime as oci;

use super::{
    ContainerCgroupError, Want, devices,
    place::{Unit, Version},
};
use bus::Connection;
use wire::{Body, Value};

type Result<T = ()> = std::result::Result<T, ContainerCgroupError>;

/// What is fixed about the unit, whatever is limited. Told at its start.
#[derive(Debug)]
pub(super) struct Properties(properties::Properties);

/// Which unit it is to be, and its path in each tree: from `SLICE:PREFIX:NAME`, or of the id alone.
pub(super) fn place(path: Option<&Path>, id: &str, user: bool) -> Result<(Unit, PathBuf)> {
    let text = path.map(|path| path.to_string_lossy()).unwrap_or_default();
    let parts: Vec<&str> = text.split(':').collect();
    let (slice, prefix, name) = match parts.as_slice() {
        [""] => ("", "fumehood", id),
        [slice, prefix, name] => (*slice, *prefix, *name),
        _ => {
            let why = r#"expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups"#;
            return Err(ContainerCgroupError::BadPath { path: text.into_owned(), why });
        }
    };
    let slice = match (slice, user) {
        ("", true) => "user.slice",
        ("", false) => "system.slice",
        (slice, _) => slice,
    };
    let unit = if is_slice(name) { name.to_owned() } else { format!("{prefix}-{name}.scope") };
    let bad = |why| ContainerCgroupError::BadPath { path: text.to_string(), why };
    if unit.contains('/') || unit.contains('\0') {
        return Err(bad("it names no unit"));
    }
    let mut below = PathBuf::new();
    if user {
        // Everything of a user's manager is below its own group, which only it knows for sure.
        let own = Connection::open(true)?.property("ControlGroup")?;
        below.push(own.trim_matches('/'));
        if below.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
            return Err(ContainerCgroupError::Systemd { what: format!("the manager says that it is in `{own}`") });
        }
    }
    below.extend(expand(slice).ok_or_else(|| bad("invalid slice name"))?);
    below.push(&unit);
    Ok((Unit { name: unit, slice: slice.to_owned(), user }, below))
}

fn is_slice(name: &str) -> bool {
    name.ends_with(".slice")
}

/// A slice lies within those that its name begins with: `a-b.slice` is `a.slice/a-b.slice`.
fn expand(slice: &str) -> Option<Vec<String>> {
    let stem = slice.strip_suffix(".slice").filter(|stem| !stem.is_empty() && !stem.contains(['/', '\0']))?;
    if stem == "-" {
        return Some(Vec::new());
    }
    if stem.split('-').any(|part| part.is_empty() || part == "." || part == "..") {
        return None;
    }
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    Some(ends.map(|end| format!("{}.slice", &stem[..end])).collect())
}

pub(super) fn properties(unit: &Unit, want: &Want<'_>, host: Version) -> Result<Properties> {
    let name = |name: &str, value: Value| (name.to_owned(), value);
    let mut all = vec![name("Description", Value::text(format!("fumehood container {}", unit.name)))];
    if is_slice(&unit.name) {
        all.push(name("Wants", Value::List("s", vec![Value::text(&unit.slice)])));
    } else {
        all.push(name("Slice", Value::text(&unit.slice)));
        // systemd stays out of what is below.
        all.push(name("Delegate", Value::Bool(true)));
    }
    let io = if host == Version::V2 { "IOAccounting" } else { "BlockIOAccounting" };
    all.extend(["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"].map(|one| name(one, Value::Bool(true))));
    all.push(name("DefaultDependencies", Value::Bool(false)));
    // Only to be had at the start of a unit.
    match want.resources.and_then(|resources| resources.unified().as_ref()?.get("memory.oom.group")).map(|v| v.trim()) {
        Some("0") => all.push(name("OOMPolicy", Value::text("continue"))),
        Some("1") => all.push(name("OOMPolicy", Value::text("kill"))),
        _ => {}
    }
    let mut asked: Vec<_> = want.annotations.into_iter().flatten().collect();
    asked.sort();
    for (key, text) in asked {
        if let Some(property) = variant::property(key, text) {
            let property = property.map_err(|what| ContainerCgroupError::Systemd { what })?;
            all.retain(|(name, _)| *name != property.0);
            all.push(property);
        }
    }
    Ok(Properties(all))
}

/// Starts the unit with the process in it and its limits in force.
pub(super) fn start(
    unit: &Unit,
    properties: &Properties,
    resources: Option<&oci::LinuxResources>,
    rules: &[devices::Rule],
    host: Version,
    pid: i32,
) -> Result {
    let mut connection = Connection::open(unit.user)?;
    let systemd = version(&mut connection)?;
    let mut all = properties.0.clone();
    if systemd < 253 {
        all.retain(|(name, _)| name != "OOMPolicy");
    }
    all.push(("PIDs".to_owned(), Value::List("u", vec![Value::U32(pid.cast_unsigned())])));
    if let Some(resources) = resources {
        all.extend(properties::of_resources(resources, host, systemd)?);
    }
    all.extend(properties::of_devices(rules, systemd));
    let body = Body::default()
        .with(&Value::text(&unit.name))
        .with(&Value::text("replace"))
        .with_properties(&all)
        .with_no_more_units();
    let mut again = true;
    let result = loop {
        match connection.job("StartTransientUnit", &body)? {
            Ok(result) => break result,
            // One that failed is kept to be looked at, and is in the way.
            Err(refusal) if again && refusal.name.ends_with(".UnitExists") => {
                again = false;
                reset(&mut connection, unit)?;
            }
            Err(refusal) => {
                return Err(ContainerCgroupError::Systemd {
                    what: format!("unable to start unit {}: {}", unit.name, refusal.text),
                });
            }
        }
    };
    if result == "done" {
        return Ok(());
    }
    reset(&mut connection, unit)?;
    Err(ContainerCgroupError::Systemd { what: format!("error creating systemd unit `{}`: got `{result}`", unit.name) })
}

/// Tells the unit what has changed, for as long as it is there.
pub(super) fn update(
    unit: &Unit,
    resources: &oci::LinuxResources,
    rules: Option<&[devices::Rule]>,
    host: Version,
) -> Result {
    let mut connection = Connection::open(unit.user)?;
    let systemd = version(&mut connection)?;
    let mut all = properties::of_resources(resources, host, systemd)?;
    all.extend(rules.into_iter().flat_map(|rules| properties::of_devices(rules, systemd)));
    if all.is_empty() {
        return Ok(());
    }
    let body = Body::default().with(&Value::text(&unit.name)).with(&Value::Bool(true)).with_properties(&all);
    connection.must("SetUnitProperties", &body).map(drop)
}

/// Stops the unit, and with it whatever is still in it. One that is not there is stopped.
pub(super) fn stop(unit: &Unit) -> Result {
    let mut connection = Connection::open(unit.user)?;
    let body = Body::default().with(&Value::text(&unit.name)).with(&Value::text("replace"));
    match connection.job("StopUnit", &body)? {
        // A unit that failed to stop is looked after by the group's removal.
        Ok(_) => {}
        Err(refusal) if refusal.name.ends_with(".NoSuchUnit") => return Ok(()),
        Err(refusal) => {
            return Err(ContainerCgroupError::Systemd {
                what: format!("unable to stop unit {}: {}", unit.name, refusal.text),
            });
        }
    }
    reset(&mut connection, unit)
}

/// Forgets that it failed.
fn reset(connection: &mut Connection, unit: &Unit) -> Result {
    // It is no failed unit, or is gone: just as well.
    connection.call("ResetFailedUnit", &Body::default().with(&Value::text(&unit.name))).map(drop)
}

/// `252.39-1~deb12u1` is 252.
fn version(connection: &mut Connection) -> Result<u32> {
    let text = connection.property("Version")?;
    let digits: String =
        text.chars().skip_while(|char| !char.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().map_err(|_| ContainerCgroupError::Systemd { what: format!("its version is `{text}`") })
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz_message(bytes: &[u8]) -> Option<usize> {
    let message = wire::Message::read(bytes)?;
    _ = bus::ended(&message, "/job/1");
    let mut reader = message.reader();
    _ = (reader.short_string(), reader.string());
    bytes.first_chunk().and_then(wire::length)
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz_property(text: &str) {
    for name in ["KillSignal", "TimeoutStopSec"] {
        _ = variant::property(&format!("org.systemd.property.{name}"), text);
    }
}

#[cfg(test)]
mod tests;
