//! The specification of a container that an engine hands in: read whole, and found sound before anything is done.
//!
//! Unlike a bundle of `run`, of which only the parts that a sandbox may have are taken ([`super::load`]), all of it
//! holds. An error says where in the document it is: `process.user.uid: …`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use oci_spec::runtime as oci;

use crate::request::{Bytes, files};

/// No real config.json comes near this.
const MOST: Bytes = Bytes::mib(4);

/// A container's specification, with the bytes it was read from.
#[derive(Debug)]
pub struct Container {
    pub spec: oci::Spec,
    /// To be kept: the file may be another by the time it is needed again.
    pub bytes: Arc<[u8]>,
    /// What is passed over, as the specification wants it; for the log.
    pub warnings: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ContainerSpecError {
    #[error("{at}: {why}")]
    Invalid { at: String, why: String },
    #[error("`{}`: {why}", path.display())]
    Read { path: PathBuf, why: String },
}

impl crate::error::Hint for ContainerSpecError {}

/// Reads and checks `path`, the config.json of a bundle.
pub fn load(path: &Path) -> Result<Container, ContainerSpecError> {
    let failed = |why: String| ContainerSpecError::Read { path: path.to_owned(), why };
    let (bytes, _) = files::read(path, MOST).map_err(|error| failed(error.to_string()))?;
    parse(bytes)
}

/// Checks the bytes of a config.json.
pub fn parse(bytes: Arc<[u8]>) -> Result<Container, ContainerSpecError> {
    let spec = serde_json::from_slice(&bytes)
        .map_err(|error| ContainerSpecError::Invalid { at: "config.json".to_owned(), why: error.to_string() })?;
    Ok(Container { spec, bytes, warnings: Vec::new() })
}

/// Checks the bytes of a process alone, as `exec --process` has it.
pub fn parse_process(bytes: &[u8]) -> Result<oci::Process, ContainerSpecError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ContainerSpecError::Invalid { at: "process".to_owned(), why: error.to_string() })
}
