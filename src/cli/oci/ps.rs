//! `ps`: a container's processes, as the host numbers them; the table is the host's own `ps`.

use std::process::{Command, ExitCode, Stdio};

use fumehood::{Error, Result, container};

use super::{Context, contract, flags::Given, id, print_json};
use crate::cli::message;

pub fn run(context: &Context, given: &Given) -> Result<ExitCode> {
    let (root, id) = (context.root()?, id(given)?);
    let pids = container::processes(&root, &id)?;
    match given.text("format")? {
        // As gVisor numbers them. An engine that asks for a table of its own way wants the host's.
        None | Some("table") if given.words.len() == 1 && container::guest_processes(&root, &id)? => {
            Ok(ExitCode::SUCCESS)
        }
        Some("json") => print_json(&pids, false),
        None | Some("table") => {
            let mut ps = Command::new("ps");
            match given.words.get(1..) {
                None | Some([]) => ps.arg("-ef"),
                Some(args) => ps.args(args),
            };
            let output = ps.stdin(Stdio::null()).output().map_err(|error| Error::new(format!("ps: {error}")))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', ": ");
                return Err(Error::new(format!("ps: {}: {said}", output.status)));
            }
            let text = String::from_utf8_lossy(&output.stdout);
            let shown = only(&text, &pids).ok_or_else(|| Error::new("couldn't find PID field in ps output"))?;
            Ok(message::print(&shown))
        }
        Some(_) => Err(contract::invalid_format()),
    }
}

/// The heading, and the lines of these processes.
fn only(text: &str, pids: &[i32]) -> Option<String> {
    let mut lines = text.lines();
    let heading = lines.next()?;
    let column = heading.split_whitespace().position(|name| name == "PID")?;
    let ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse::<i32>().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    Some(std::iter::once(heading).chain(lines.filter(ours)).map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::only;

    #[test]
    fn only_the_containers_processes_are_shown() {
        let text = "UID        PID  PPID CMD\nroot         1     0 init\nroot        12     1 2 12 x\n";
        assert_eq!(only(text, &[12, 2]).unwrap(), "UID        PID  PPID CMD\nroot        12     1 2 12 x\n");
        assert_eq!(only(text, &[]).unwrap().lines().count(), 1);
        assert_eq!(only("CMD\nx\n", &[1]), None);
        assert_eq!(only("", &[1]), None);
    }
}
