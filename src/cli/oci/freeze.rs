//! `pause` and `resume`.

use std::process::ExitCode;

use fumehood::{Result, container};

use super::{Context, flags::Given, id};

pub fn pause(context: &Context, given: &Given) -> Result<ExitCode> {
    container::pause(&context.root()?, &id(given)?)?;
    Ok(ExitCode::SUCCESS)
}

pub fn resume(context: &Context, given: &Given) -> Result<ExitCode> {
    container::resume(&context.root()?, &id(given)?)?;
    Ok(ExitCode::SUCCESS)
}
