//! The systemd driver.

use std::path::{Path, PathBuf};

use oci_spec::runtime as oci;

use super::{ContainerCgroupError, Want, place::Unit};

type Result<T = (), E = ContainerCgroupError> = std::result::Result<T, E>;

#[derive(Debug)]
pub(super) struct Properties;

fn absent<T>() -> Result<T> {
    Err(ContainerCgroupError::Systemd { what: "this build has no driver for it".to_owned() })
}

pub(super) fn place(_path: Option<&Path>, _id: &str, _user: bool) -> Result<(Unit, PathBuf)> {
    absent()
}

pub(super) fn properties(_unit: &Unit, _want: &Want<'_>) -> Result<Properties> {
    absent()
}

pub(super) fn start(_unit: &Unit, _properties: &Properties, _pid: i32) -> Result {
    absent()
}

pub(super) fn update(_unit: &Unit, _resources: &oci::LinuxResources) -> Result {
    absent()
}

pub(super) fn stop(_unit: &Unit) -> Result {
    absent()
}
