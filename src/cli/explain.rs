//! `fumehood explain`: what `run` would do, in order, and why.

use std::{ffi::OsString, fmt::Write, process::ExitCode};

use fumehood::{
    plan::{
        Plan, StepKind,
        gvisor::{self, Gvisor},
        ids::IdsKind,
    },
    request::Limits,
};

use super::{
    help, high,
    low::{self, Verb},
    message, verdict,
};

pub fn run(words: Vec<OsString>) -> ExitCode {
    let mut low = match low::parse(Verb::Explain, words) {
        Ok(low) => low,
        Err(error) => return message::fail(&error),
    };
    if low.help {
        return message::print(&help::text(Verb::Explain));
    }
    let explained = high::sandbox(Verb::Explain, &mut low).and_then(|mut sandbox| {
        if low.spec {
            return Ok(message::print_json(&sandbox.spec()?.oci));
        }
        let plan = sandbox.plan()?;
        Ok(if low.json { message::print_json(&plan) } else { message::print(&text(&plan)) })
    });
    explained.unwrap_or_else(|error| message::fail(&high::explain_file(&low, error)))
}

/// Where the reasons begin.
const COLUMN: usize = 52;

/// A numbered list under headings.
#[derive(Debug, Default)]
struct List {
    text: String,
    number: usize,
}

impl List {
    fn heading(&mut self, name: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        self.text.push_str(&format!("{gap}{name}\n"));
    }

    fn item(&mut self, what: &str, why: &str) {
        self.number += 1;
        let (number, what) = (self.number, message::plain(what));
        // Writing to a string cannot fail.
        _ = writeln!(self.text, "{}", format!("{number:4}  {what:COLUMN$}  {why}").trim_end());
    }
}

fn text(plan: &Plan) -> String {
    let mut list = List::default();
    list.heading("Namespaces of its own");
    for namespace in &plan.namespaces {
        list.item(namespace.kind, namespace.why);
    }
    if plan.egress.is_none() && !plan.own_network() {
        list.item(
            "no network namespace",
            "asked for with --net host: localhost services and abstract sockets are in reach",
        );
    }
    for publish in &plan.publish {
        list.item(&format!("port {} at {}", publish.port, publish.at()), "asked for with --publish");
    }
    ids(&mut list, plan);
    list.heading("Tree");
    if let Some(image) = &plan.image {
        list.item(&format!("image {image}"), "unpacked once; nothing of it runs or loads outside the sandbox");
    }
    for step in &plan.setup {
        list.item(&step.to_string(), step.why());
    }
    for left_out in &plan.left_out {
        list.item(&format!("leave out {left_out}"), "the bundle or image asks for it, and a sandbox does not get it");
    }
    program(&mut list, plan);
    match &plan.gvisor {
        Some(gvisor) => self::gvisor(&mut list, gvisor, plan),
        None => filter(&mut list, plan),
    }
    limits(&mut list, plan, &plan.limits);
    list.text
}

fn filter(list: &mut List, plan: &Plan) {
    list.heading("Filter");
    list.item(
        &format!("seccomp {}, {} instructions", plan.seccomp.name, plan.seccomp.instructions),
        "system calls that it does not list fail",
    );
    if plan.seccomp.reports() {
        list.item("report refused calls", "the result names them, with what would allow them");
    }
    landlock(list, plan);
}

fn gvisor(list: &mut List, gvisor: &Gvisor, plan: &Plan) {
    list.heading("Kernel of its own");
    for command in &gvisor.commands {
        list.item(&quoted(command), "gVisor answers the program's system calls; its kernel has a filter of its own");
    }
    list.item(
        &format!("seccomp {}, {} instructions", plan.seccomp.name, plan.seccomp.instructions),
        "runsc is kept from what it has no use for",
    );
    if let Some(filter) = &gvisor.no_registration {
        list.item(
            &format!("seccomp {}, {} instructions", filter.name, filter.instructions),
            "runsc does not wait for barriers that this platform never asks for",
        );
    }
    list.item(&format!("memory {}", gvisor::MEMORY), "of gVisor's own, on top of the program's");
}

fn ids(list: &mut List, plan: &Plan) {
    list.heading("Ids");
    let maps = [("users", &plan.ids.users, "/etc/subuid"), ("groups", &plan.ids.groups, "/etc/subgid")];
    for (kind, lines, granted_by) in maps {
        for (number, map) in lines.iter().enumerate() {
            let last = |first: u32| first + (map.count - 1);
            let what = match map.count {
                1 => format!("{kind} {} is {} outside", map.inside, map.outside),
                _ => format!(
                    "{kind} {}-{} are {}-{} outside",
                    map.inside,
                    last(map.inside),
                    map.outside,
                    last(map.outside)
                ),
            };
            let why = match plan.ids.kind {
                IdsKind::Range => "ids that belong to nobody outside",
                IdsKind::Single => "one id is all that an ordinary user has to give",
                IdsKind::Subuid if number == 0 && plan.gvisor.is_some() => "your own",
                IdsKind::Subuid if number == 0 => "your own, and who builds the sandbox",
                IdsKind::Subuid => &format!("{granted_by} grants you these"),
            };
            list.item(&what, why);
        }
    }
    if plan.ids.kind == IdsKind::Subuid {
        list.item("map them with newuidmap and newgidmap", "setuid helpers, since only root could else");
    }
}

fn program(list: &mut List, plan: &Plan) {
    list.heading("Program");
    let groups: Vec<_> = plan.groups.iter().map(u32::to_string).collect();
    let groups = if groups.is_empty() { String::new() } else { format!(", groups {}", groups.join(" ")) };
    let who = format!("user {}, group {}{groups}", plan.identity.uid, plan.identity.gid);
    let what = if plan.capabilities == 0 { "with no capability in any set" } else { "with those that packages need" };
    list.item(&who, what);
    list.item("no_new_privs", "set-user-ID programs give nothing");
    list.item("a session and a keyring of its own", "no terminal and no key of yours");
    list.item("no descriptor but 0, 1 and 2", "nothing that is open outside is open inside");
    if plan.terminal {
        list.item("a terminal of its own", "what it does to its terminal does not reach yours");
    }
    for step in &plan.steps {
        let kind = match step.kind {
            StepKind::Setup => "setup",
            StepKind::Compile => "compile",
            StepKind::Run => "run",
        };
        let network = plan.setup_egress.as_ref().filter(|_| step.kind == StepKind::Setup);
        let network =
            network.map_or_else(String::new, |policy| format!(", with the network of --net {}", policy.mode()));
        list.item(&format!("{kind} {}", quoted(&step.argv)), &format!("in {}{network}", step.cwd));
    }
    if let Some(step) = plan.steps.last() {
        let names: Vec<_> = step.env.iter().filter_map(|assignment| assignment.split('=').next()).collect();
        list.item(&format!("environment {}", names.join(" ")), "nothing else of yours is passed on");
    }
}

fn landlock(list: &mut List, plan: &Plan) {
    list.heading("Landlock");
    if plan.landlock.is_empty() {
        list.item("none", "this kernel has no Landlock: the mounts alone hold");
    }
    for (number, layer) in plan.landlock.iter().enumerate() {
        let whose = if number == 0 {
            "what the mounts allow, said a second time"
        } else {
            "what the profile or you forbid beyond"
        };
        list.item(&format!("layer {} (ABI {})", number + 1, layer.abi), whose);
        for rule in &layer.rules {
            let access = serde_json::to_value(rule.access).unwrap_or_default();
            list.item(&format!("{:4} {}", access.as_str().unwrap_or_default(), rule.path.to_string_lossy()), "");
        }
        if layer.handled_tcp != 0 {
            list.item("no TCP", "neither bind nor connect");
        }
        if layer.scoped != 0 {
            list.item("scopes", "no abstract socket and no signal leads out");
        }
    }
}

fn limits(list: &mut List, plan: &Plan, limits: &Limits) {
    list.heading("Limits");
    list.item(&format!("memory {}", limits.memory), "all processes and files together");
    list.item(&format!("cpu {}", limits.cpus), "CPUs");
    list.item(&format!("pids {}", limits.pids), "processes and threads at once");
    list.item(&format!("timeout {}", limits.timeout.map_or("none".to_owned(), verdict::time)), "wall time");
    if let Some(cpu_time) = limits.cpu_time {
        list.item(&format!("cpu-time {}", verdict::time(cpu_time)), "of all processes together");
    }
    list.item(&format!("max-output {}", limits.output), "of each stream");
    for limit in &plan.rlimits {
        list.item(&format!("{} {}", limit.name, limit.soft), "of each process");
    }
}

/// Words as a shell would take them.
fn quoted(argv: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,+@%".contains(c);
    let quote = |word: &String| match word.as_str() {
        word if !word.is_empty() && word.chars().all(plain) => word.to_owned(),
        word => format!("'{}'", word.replace('\'', r"'\''")),
    };
    argv.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_command_can_be_pasted_into_a_shell() {
        let words = ["/usr/bin/python3", "-c", "print('a b')", ""].map(str::to_owned);
        assert_eq!(quoted(&words), r"/usr/bin/python3 -c 'print('\''a b'\'')' ''");
    }
}
