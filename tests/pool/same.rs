//! Every program ends the same way in a sandbox that was made ahead as in one of its own.

use std::{collections::VecDeque, path::Path, sync::Mutex};

use fumehood::{Outcome, Pool, Sandbox, pool::Settings};

use crate::corpus::Program;

/// All of an outcome that is not time or memory.
fn told(outcome: &Outcome, work: &Path) -> String {
    let text = |bytes: &[u8]| {
        bytes.iter().flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect::<String>()
    };
    let text = |bytes| text(bytes).replace("\\n", "\n");
    let kept = |name: &str| {
        std::fs::read(work.join("fetched/it").join(name)).or_else(|_| std::fs::read(work.join("fetched/it")))
    };
    let files: Vec<_> = outcome.files.iter().map(|file| (&file.path, file.bytes, kept("file").ok())).collect();
    let denials: Vec<String> =
        outcome.denials.as_slice().iter().map(|denial| format!("{} {}", denial.target, denial.rule)).collect();
    format!(
        "verdict {:?}, exit {:?}, signal {:?}, error {:?}, files {files:?}, denials {denials:?}, limits {:?}, controls {:?}\n\
         --- stdout {}\n{}\n--- stderr {}\n{}",
        outcome.verdict,
        outcome.exit_code,
        outcome.signal,
        outcome.error,
        outcome.limits,
        outcome.controls,
        outcome.stdout.truncated,
        text(&outcome.stdout.bytes),
        outcome.stderr.truncated,
        text(&outcome.stderr.bytes),
    )
}

/// Programs that bring a file which Python would have loaded in place of what is loaded ahead; bash is not told later what
/// its arguments are, either.
const FOR_ITSELF: [&str; 3] =
    ["a file named as a module 0", "another named as a module 0", "a directory named as a module 0"];

fn both_ways(runtime: &str, least: usize) {
    if !nix::unistd::geteuid().is_root() {
        println!("as an ordinary user");
    }
    let programs = Program::all(runtime);
    assert!(programs.len() >= least, "{runtime}: {}", programs.len());
    let counts = compare(programs, Settings { most: 6, ..Settings::default() }, 3, &|_| {});
    if let Some((found, missed)) = counts {
        assert!(missed <= FOR_ITSELF.len() as u64 + 8, "{missed} of {} found none that waited", found + missed);
    }
}

/// How many found one of the `ahead` that waited for them, and how many did not, if all were run.
pub fn compare(
    programs: Vec<Program>,
    settings: Settings,
    ahead: usize,
    prepare: &(dyn Fn(&mut Sandbox) + Sync),
) -> Option<(u64, u64)> {
    let only = std::env::var("FUMEHOOD_TEST_PROGRAM").unwrap_or_default();
    let programs: VecDeque<_> = programs.into_iter().filter(|program| program.name.contains(&only)).collect();
    let (queue, differing) = (Mutex::new(programs), Mutex::new(Vec::new()));
    let pool = Pool::new(settings);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let work = tempfile::tempdir().unwrap();
                loop {
                    let Some(program) = queue.lock().unwrap().pop_front() else { break };
                    let make = || {
                        let mut sandbox = program.sandbox(work.path());
                        prepare(&mut sandbox);
                        sandbox
                    };
                    let run = |pool: Option<&Pool>| {
                        let mut sandbox = make();
                        let outcome = match pool {
                            None => sandbox.output(),
                            Some(pool) => {
                                pool.expect(&mut make(), ahead).unwrap();
                                pool.output(&mut sandbox)
                            }
                        };
                        told(&outcome.unwrap(), work.path())
                    };
                    let (alone, pooled) = (run(None), run(Some(&pool)));
                    if alone != pooled {
                        let again = run(None);
                        let kind = if again == alone { "" } else { " (and from run to run)" };
                        differing.lock().unwrap().push(format!(
                            "=== {}{kind}\n{}",
                            program.name,
                            difference(&alone, &pooled)
                        ));
                    }
                }
            });
        }
    });
    let (found, missed) = pool.counts();
    let differing = differing.into_inner().unwrap();
    assert!(differing.is_empty(), "{} of {} differ:\n{}", differing.len(), found + missed, differing.join("\n"));
    only.is_empty().then_some((found, missed))
}

/// The first lines that are not the same.
fn difference(one: &str, other: &str) -> String {
    let at = one
        .lines()
        .zip(other.lines())
        .position(|(one, other)| one != other)
        .unwrap_or(one.lines().count().min(other.lines().count()));
    let part = |text: &str| {
        text.lines()
            .skip(at)
            .take(4)
            .map(|line| line.chars().take(600).collect::<String>())
            .collect::<Vec<_>>()
            .join("\n  ")
    };
    format!("alone:\n  {}\nahead:\n  {}", part(one), part(other))
}

#[test]
fn python() {
    both_ways("python", 500);
}

#[test]
fn node() {
    both_ways("node", 60);
}

#[test]
fn bash() {
    both_ways("bash", 60);
}

#[test]
fn ruby() {
    both_ways("ruby", 60);
}
