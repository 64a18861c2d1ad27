//! `delete`: removes what a container holds.

use std::process::ExitCode;

use fumehood::{
    Error, Result, container,
    error::Hint,
    state::{
        StateError,
        root::{ContainerId, StateRoot},
    },
};

use super::{Context, flags::Given, id, log};

pub fn run(context: &Context, given: &Given) -> Result<ExitCode> {
    let (root, force) = (context.root()?, given.is_on("force"));
    if given.is_on("regex") {
        for id in matching(&root, given)? {
            if let Err(error) = container::delete(&root, &id, force, log::warn) {
                log::warn(&format!("{id}: {error}"));
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    container::delete(&root, &id(given)?, force, log::warn)?;
    Ok(ExitCode::SUCCESS)
}

/// The containers in whose names the first word, a regular expression, is found.
pub fn matching(root: &StateRoot, given: &Given) -> Result<Vec<ContainerId>> {
    let text = given.words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    let pattern = regex::Regex::new(&text).map_err(|_| Error::new(format!("invalid regular expression {text:?}")))?;
    let mut ids = root.list().map_err(StateError::into_error)?;
    ids.retain(|id| pattern.is_match(id.as_str()));
    Ok(ids)
}
