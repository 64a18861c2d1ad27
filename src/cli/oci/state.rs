//! `state`: what a container is doing, as JSON.

use std::{path::Path, process::ExitCode};

use fumehood::{
    Result, container,
    state::container::{Record, State},
};
use serde::Serialize;

use super::{Context, flags::Given, id, print_json};

/// The specification's state, and what runc adds; in runc's order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown<'a> {
    oci_version: &'a str,
    pub id: &'a str,
    pub pid: i32,
    pub status: String,
    pub bundle: &'a Path,
    rootfs: &'a Path,
    pub created: &'a str,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    annotations: &'a std::collections::BTreeMap<String, String>,
    pub owner: String,
}

impl<'a> Shown<'a> {
    pub fn of(record: &'a Record) -> Self {
        let State { oci_version, id, pid, status, bundle, annotations } = record.oci_state(record.status());
        Self {
            oci_version,
            id,
            pid,
            status: status.to_string(),
            bundle,
            rootfs: &record.rootfs,
            created: &record.created,
            annotations,
            owner: owner(record.owner),
        }
    }
}

/// By name, where there is one.
fn owner(uid: u32) -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid));
    user.ok().flatten().map_or_else(|| format!("#{uid}"), |user| user.name)
}

pub fn run(context: &Context, given: &Given) -> Result<ExitCode> {
    let record = container::record(&context.root()?, &id(given)?)?;
    print_json(&Shown::of(&record), true)
}
