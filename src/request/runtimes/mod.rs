//! Language runtimes as data: which program runs a file, with what arguments, and what it needs around it.
//!
//! ```text
//! name, #! line or extension ──► Choice ──► Located ──► Commands
//!                         (table)    (host or image)   (file and limits)
//! ```
//!
//! The table is compiled in. It is trusted; names, paths and `#!` lines are not. Nothing here runs a
//! program to learn about it.

mod commands;
mod locate;
mod search;
mod shebang;
mod table;

use std::path::PathBuf;

pub use commands::Commands;
pub use locate::{Located, Survey};
pub use search::SearchPath;
pub use table::{Choice, CompileLimits, Runtime, Table, table};

use crate::error::Hint;

/// Why there is no runtime for a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    #[error("profiles/runtimes.toml: {0}")]
    Table(String),
    #[error("no runtime is called `{name}`")]
    Unknown { name: String, nearest: Option<String>, names: Vec<String> },
    #[error("cannot tell which runtime `{}` is for: its extension and #! line name none", file.display())]
    Undetected { file: PathBuf, extensions: Vec<String> },
    /// `wanted` and `looked` are lists ready to print; `outside` has each program that was found where a
    /// sandbox cannot see it, with where it really is.
    #[error("no program for runtime `{runtime}`: no {wanted} in {looked}{}", outside_text(outside))]
    Missing { runtime: String, wanted: String, looked: String, outside: Vec<(PathBuf, PathBuf)>, get: String },
}

fn outside_text(outside: &[(PathBuf, PathBuf)]) -> String {
    let unseen = |(found, real): &(PathBuf, PathBuf)| {
        let leads = if found == real { String::new() } else { format!(" leads to {}, which", real.display()) };
        format!("; {}{leads} is out of a sandbox's sight", found.display())
    };
    outside.iter().map(unseen).collect()
}

impl Hint for RuntimeError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Table(_) => None,
            Self::Unknown { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            Self::Unknown { names, .. } => Some(format!("the runtimes are {}", names.join(", "))),
            Self::Undetected { extensions, .. } => {
                Some(format!("name it with --runtime; the extensions known are {}", extensions.join(", ")))
            }
            Self::Missing { get, .. } => Some(format!("{get}; or use an image that has it, with --image")),
        }
    }
}
