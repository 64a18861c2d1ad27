//! `start`.

use std::process::ExitCode;

use fumehood::{Result, container};

use super::{Context, flags::Given, id};

pub fn run(context: &Context, given: &Given) -> Result<ExitCode> {
    container::start(&context.root()?, &id(given)?)?;
    Ok(ExitCode::SUCCESS)
}
