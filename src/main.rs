//! The program: its name and first word choose the command line.

mod cli;

use std::process::ExitCode;

#[global_allocator]
static HEAP: fumehood::sys::heap::Heap = fumehood::sys::heap::Heap::new();

fn main() -> ExitCode {
    cli::main(std::env::args_os())
}
