//! Runs many small programs, each in a sandbox that was made before there was a program for it.
//!
//! ```sh
//! cargo run --release --example pool -- 200
//! ```

use std::time::Instant;

use fumehood::{Pool, Sandbox, pool::Settings};

fn main() -> fumehood::Result<()> {
    let count: usize = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(100);
    let pool = Pool::new(Settings::default());
    pool.expect(Sandbox::code("").runtime("python"), 2)?;
    let mut times = Vec::new();
    for number in 0..count {
        let began = Instant::now();
        let code = "import sys, json; print(json.dumps({'number': int(sys.argv[1])}))";
        let outcome = pool.output(Sandbox::code(code).runtime("python").arg(number.to_string()))?;
        times.push(began.elapsed());
        assert_eq!(String::from_utf8_lossy(&outcome.stdout.bytes), format!("{{\"number\": {number}}}\n"));
        // Half of the time there is nothing to do.
        std::thread::sleep(began.elapsed().max(std::time::Duration::from_millis(15)));
    }
    times.sort_unstable();
    let (found, missed) = pool.counts();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    println!("median {:?}, 99 % within {:?}; {found} found one that waited, {missed} did not", at(50), at(99));
    Ok(())
}
