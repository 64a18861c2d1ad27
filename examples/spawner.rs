//! Many sandboxes from one small process: each line of standard input is a line of shell, run by one of N workers in a
//! sandbox of its own; how each ended is printed as it ends.
//!
//!     yes true | head -1000 | cargo run --example spawner -- 4
//!
//! With a directory after the number, it is the root of each sandbox, and each line is a program in there.

use std::{
    collections::VecDeque,
    io::{BufRead, Write},
    os::fd::AsFd,
};

use fumehood::{
    Observer, Sandbox,
    request::Rootfs,
    spawn::{Jobs, SpawnError, Spawner, Worker},
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

struct Deaf;
impl Observer for Deaf {}

/// Runs in the workers.
fn work(jobs: &mut Jobs) {
    let root = std::env::args().nth(2);
    while let Some(line) = jobs.next() {
        let line = String::from_utf8_lossy(&line).into_owned();
        let mut sandbox = if root.is_some() { Sandbox::command(line) } else { Sandbox::shell(line) };
        if let Some(root) = &root {
            sandbox.rootfs(Rootfs::Dir(root.into()));
        }
        let answer = match jobs.run(&mut sandbox, &mut Deaf) {
            Ok(outcome) => format!("{}: {}", outcome.verdict, String::from_utf8_lossy(&outcome.stdout.bytes)),
            Err(error) => format!("error: {error}"),
        };
        jobs.answer(answer.trim_end().as_bytes());
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Before anything else: what there is now, each worker has a copy of.
    let spawner = Spawner::start(work)?;
    let count = std::env::args().nth(1).map_or(Ok(2), |word| word.parse())?;
    println!("spawner {}", spawner.pid());
    let mut waiting: VecDeque<String> = std::io::stdin().lock().lines().collect::<Result<_, _>>()?;
    let mut workers = (0..count.min(waiting.len())).map(|_| spawner.worker()).collect::<Result<Vec<_>, _>>()?;
    for worker in &mut workers {
        next(worker, &mut waiting)?;
    }
    while workers.iter().any(Worker::is_busy) {
        let ready: Vec<usize> = ready(&workers)?;
        for number in ready {
            match workers[number].take() {
                Ok(Some(answer)) => {
                    println!("{}", String::from_utf8_lossy(&answer));
                    next(&mut workers[number], &mut waiting)?;
                }
                Ok(None) => {}
                Err(SpawnError::Died) => {
                    println!("lost");
                    workers[number] = spawner.worker()?;
                    next(&mut workers[number], &mut waiting)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn next(worker: &mut Worker, waiting: &mut VecDeque<String>) -> Result<(), SpawnError> {
    waiting.pop_front().map_or(Ok(()), |line| worker.give(line.as_bytes()))
}

fn ready(workers: &[Worker]) -> nix::Result<Vec<usize>> {
    let busy: Vec<usize> = (0..workers.len()).filter(|number| workers[*number].is_busy()).collect();
    let mut fds: Vec<PollFd<'_>> =
        busy.iter().map(|number| PollFd::new(workers[*number].as_fd(), PollFlags::POLLIN)).collect();
    poll(&mut fds, PollTimeout::NONE)?;
    Ok(busy.iter().zip(&fds).filter(|(_, fd)| fd.any() == Some(true)).map(|(number, _)| *number).collect())
}
