//! Runs a line of Python in a sandbox and prints what happened.

use fumehood::Sandbox;

fn main() -> fumehood::Result<()> {
    let code = std::env::args().nth(1).unwrap_or_else(|| "print(6 * 7)".to_owned());
    let outcome = Sandbox::code(code).runtime("python").output()?;
    print!("{}", String::from_utf8_lossy(&outcome.stdout.bytes));
    eprint!("{}", String::from_utf8_lossy(&outcome.stderr.bytes));
    eprintln!("{} in {:?}, set up in {:?}", outcome.verdict, outcome.duration, outcome.setup);
    Ok(())
}
