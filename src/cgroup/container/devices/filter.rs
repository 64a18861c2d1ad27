//! v2: a BPF program that the kernel runs whenever a process of the group opens a device or makes a node.
//!
//! Of the rules that fit a device, the last that speaks of an access decides on it, so the program asks them from the
//! last to the first: one that forbids what is still asked for ends it, one that allows crosses off what it allows,
//! and nothing left ends it well. Unlike v1's list this can take one device out of many.

use std::os::fd::{AsFd, OwnedFd};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit},
};

use super::{
    super::{super::group::Group, ContainerCgroupError},
    Access, Kind, Rule,
};
use crate::sys::bpf::{self, Instruction};

/// Puts the rules in force, in place of those that are.
pub(crate) fn attach(group: &Group, rules: &[Rule]) -> Result<(), ContainerCgroupError> {
    let failed =
        |action| move |source| ContainerCgroupError::Filter { action, path: group.own_path().to_owned(), source };
    let program = compile(rules).ok_or(Errno::E2BIG).map_err(failed("compiling the rules"))?;
    let program = match bpf::load_device_program(&program) {
        // Before Linux 5.11 programs count as locked memory.
        Err(Errno::EPERM | Errno::ENOMEM) => without_memory_limit(|| bpf::load_device_program(&program)),
        result => result,
    }
    .map_err(failed("loading the program"))?;
    let dir = group.open_file(".", OFlag::O_RDONLY | OFlag::O_DIRECTORY).map_err(failed("opening the group"))?;
    let old = attached(&dir).map_err(failed("asking for the programs that are attached"))?;
    if let [one] = old.as_slice() {
        match bpf::attach_device_program(dir.as_fd(), program.as_fd(), Some(one.as_fd())) {
            // Before Linux 5.6: attached beside it, and the old one detached.
            Err(Errno::EINVAL) => {}
            result => return result.map_err(failed("replacing the program")),
        }
    }
    bpf::attach_device_program(dir.as_fd(), program.as_fd(), None).map_err(failed("attaching the program"))?;
    for one in old {
        bpf::detach_device_program(dir.as_fd(), one.as_fd()).map_err(failed("detaching an old program"))?;
    }
    Ok(())
}

/// The limit is put back after: the container would inherit it.
fn without_memory_limit<T>(act: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)?;
    let result = act();
    setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard)?;
    result
}

fn attached(dir: &OwnedFd) -> Result<Vec<OwnedFd>, Errno> {
    let open = |id| match bpf::open_program(id) {
        // A security module keeps it for itself, or it is gone. All programs must allow, so it loosens nothing.
        Err(Errno::EPERM | Errno::EACCES | Errno::ENOENT) => None,
        result => Some(result),
    };
    bpf::device_programs(dir.as_fd())?.into_iter().filter_map(open).collect()
}

/// Registers: the context, and what is taken from it.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
/// What is asked for and no rule has allowed yet.
const ASKED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;
/// Both numbers in one.
const NUMBERS: u8 = 7;

/// Operations on 32 bits (`BPF_ALU`, `BPF_JMP32`), and a load (`BPF_LDX | BPF_MEM | BPF_W`).
const LOAD: u8 = 0x61;
const MOVE: u8 = 0xb4;
const COPY: u8 = 0xbc;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_UNLESS: u8 = 0x56;
const JUMP_IF: u8 = 0x16;
const JUMP: u8 = 0x05;
const EXIT: u8 = 0x95;
/// Operations on 64 bits; the constant takes a second instruction for its upper half.
const COPY_WIDE: u8 = 0xbf;
const SHIFT_LEFT_WIDE: u8 = 0x67;
const OR_WIDE: u8 = 0x4f;
const CONSTANT_WIDE: u8 = 0x18;
const JUMP_IF_SAME_WIDE: u8 = 0x1d;

fn op(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset, immediate }
}

fn end(allow: bool) -> [Instruction; 2] {
    [op(MOVE, RESULT, 0, 0, i32::from(allow)), op(EXIT, 0, 0, 0, 0)]
}

/// The device that the rule allows everything with, when it is one device.
fn wholly_allowed(rule: &Rule) -> Option<(Kind, u64)> {
    let device = rule.device.filter(|_| rule.allow && Access::ALL.without(rule.access).is_empty())?;
    Some((device.kind, u64::from(device.major?) << 32 | u64::from(device.minor?)))
}

/// Devices of one kind, each with one comparison: the kernel's checker walks every way through a program, and so most
/// of what a container's program costs is its conditions.
fn allow_wholly(kind: Kind, devices: &[u64]) -> Option<Vec<Instruction>> {
    let jump = |from: usize, to: usize| i16::try_from(to - from - 1).ok();
    let allowed = 1 + 3 * devices.len() + 1;
    let mut program = vec![op(JUMP_UNLESS, KIND, 0, jump(0, allowed + 2)?, kind as i32)];
    for device in devices {
        program.push(op(CONSTANT_WIDE, SCRATCH, 0, 0, (*device as u32).cast_signed()));
        program.push(op(0, 0, 0, 0, ((device >> 32) as u32).cast_signed()));
        program.push(op(JUMP_IF_SAME_WIDE, NUMBERS, SCRATCH, jump(program.len(), allowed)?, 0));
    }
    program.push(op(JUMP, 0, 0, 2, 0));
    program.extend(end(true));
    Some(program)
}

fn compile(rules: &[Rule]) -> Option<Vec<Instruction>> {
    // struct bpf_cgroup_dev_ctx { u32 access_type; /* access << 16 | kind */ u32 major; u32 minor; }
    let mut program = vec![
        op(LOAD, KIND, CONTEXT, 0, 0),
        op(COPY, ASKED, KIND, 0, 0),
        op(AND, KIND, 0, 0, 0xffff),
        op(SHIFT_RIGHT, ASKED, 0, 0, 16),
        op(LOAD, MAJOR, CONTEXT, 4, 0),
        op(LOAD, MINOR, CONTEXT, 8, 0),
        op(COPY_WIDE, NUMBERS, MAJOR, 0, 0),
        op(SHIFT_LEFT_WIDE, NUMBERS, 0, 0, 32),
        op(OR_WIDE, NUMBERS, MINOR, 0, 0),
    ];
    let mut rules = rules.iter().rev().peekable();
    while let Some(rule) = rules.next() {
        if let Some((kind, first)) = wholly_allowed(rule) {
            let mut devices = vec![first];
            while let Some((_, device)) =
                rules.peek().and_then(|next| wholly_allowed(next)).filter(|next| next.0 == kind)
            {
                devices.push(device);
                rules.next();
            }
            program.extend(allow_wholly(kind, &devices)?);
            continue;
        }
        let Some(device) = rule.device else {
            program.extend(end(rule.allow));
            return Some(program);
        };
        let body = if rule.allow {
            let rest = Access::ALL.without(rule.access);
            let mut body = vec![op(AND, ASKED, 0, 0, i32::from(rest.0)), op(JUMP_UNLESS, ASKED, 0, 2, 0)];
            body.extend(end(true));
            body
        } else {
            let mut body = vec![
                op(COPY, SCRATCH, ASKED, 0, 0),
                op(AND, SCRATCH, 0, 0, i32::from(rule.access.0)),
                op(JUMP_IF, SCRATCH, 0, 2, 0),
            ];
            body.extend(end(false));
            body
        };
        let checks = [(KIND, Some(device.kind as u32)), (MAJOR, device.major), (MINOR, device.minor)];
        let checks: Vec<_> = checks.into_iter().filter_map(|(register, value)| Some((register, value?))).collect();
        for (index, (register, value)) in checks.iter().enumerate() {
            let past = i16::try_from(checks.len() - index - 1 + body.len()).ok()?;
            program.push(op(JUMP_UNLESS, *register, 0, past, value.cast_signed()));
        }
        program.extend(body);
    }
    // The first rule of all is one for everything, so this is not reached; the verifier wants an end.
    program.extend(end(false));
    Some(program)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{DEFAULTS, tests::parse},
        *,
    };

    /// Runs a program as the kernel would, for the instructions there are.
    fn run(program: &[Instruction], kind: Kind, access: Access, major: u32, minor: u32) -> bool {
        let context = [u32::from(access.0) << 16 | kind as u32, major, minor];
        let mut registers = [0_u64; 11];
        let mut at = 0;
        // Jumps lead forward only, so there is an end.
        loop {
            let Instruction { code, registers: pair, offset, immediate } = program[at];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let value = u64::from(immediate.cast_unsigned());
            let narrow = |number: u64| u64::from(number as u32);
            at += 1;
            let mut jump = |taken: bool| at = if taken { at.checked_add_signed(offset.into()).unwrap() } else { at };
            match code {
                LOAD => registers[to] = u64::from(context[usize::try_from(offset).unwrap() / 4]),
                MOVE => registers[to] = value,
                COPY => registers[to] = narrow(registers[from]),
                COPY_WIDE => registers[to] = registers[from],
                SHIFT_LEFT_WIDE => registers[to] <<= value,
                OR_WIDE => registers[to] |= registers[from],
                CONSTANT_WIDE => {
                    registers[to] = u64::from(program[at].immediate.cast_unsigned()) << 32 | value;
                    at += 1;
                }
                AND => registers[to] &= value,
                SHIFT_RIGHT => registers[to] >>= value,
                JUMP => jump(true),
                JUMP_UNLESS => jump(narrow(registers[to]) != value),
                JUMP_IF => jump(narrow(registers[to]) == value),
                JUMP_IF_SAME_WIDE => jump(registers[to] == registers[from]),
                EXIT => return registers[0] == 1,
                _ => panic!("unknown instruction {code:#x}"),
            }
        }
    }

    /// What the rules say, read from the first to the last.
    fn meant(rules: &[Rule], kind: Kind, access: Access, major: u32, minor: u32) -> bool {
        let mut allowed = Access(0);
        for rule in rules {
            let fits = rule.device.is_none_or(|device| {
                device.kind == kind
                    && device.major.is_none_or(|number| number == major)
                    && device.minor.is_none_or(|number| number == minor)
            });
            if fits && rule.allow {
                allowed = allowed.or(rule.access);
            } else if fits {
                allowed = allowed.without(rule.access);
            }
        }
        access.without(allowed).is_empty()
    }

    fn check(json: &str) {
        let rules = parse(json);
        let program = compile(&rules).unwrap();
        for kind in [Kind::Block, Kind::Char] {
            for access in (1..=7).map(Access) {
                for major in [0, 1, 5, 8, 10, 136, 4095, u32::MAX] {
                    for minor in [0, 1, 2, 3, 5, 200, 229, 1 << 20] {
                        assert_eq!(
                            run(&program, kind, access, major, minor),
                            meant(&rules, kind, access, major, minor),
                            "{kind:?} {major}:{minor} {access} by {json}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_program_does_what_the_rules_mean() {
        check("[]");
        check(r#"[{"allow": true, "access": "rwm"}]"#);
        check(r#"[{"allow": false, "access": "rwm"}, {"allow": true, "type": "b", "major": 8, "access": "rw"}]"#);
        check(
            r#"[{"allow": true, "type": "c", "major": 10, "access": "rwm"},
            {"allow": false, "type": "c", "major": 10, "minor": 229, "access": "w"}]"#,
        );
        check(
            r#"[{"allow": true, "access": "rwm"}, {"allow": false, "type": "b", "access": "w"},
            {"allow": true, "type": "b", "major": 8, "minor": 1, "access": "w"}]"#,
        );
        check(
            r#"[{"allow": true, "type": "c", "major": 4294967295, "minor": 3, "access": "r"},
            {"allow": true, "type": "a", "minor": 2, "access": "rw"}]"#,
        );
        check(
            r#"[{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
            {"allow": true, "type": "c", "major": 5, "minor": 0, "access": "rwm"},
            {"allow": true, "type": "b", "major": 1, "minor": 5, "access": "rwm"},
            {"allow": false, "type": "c", "major": 1, "access": "w"},
            {"allow": true, "type": "c", "major": 4294967295, "minor": 1048576, "access": "rwm"}]"#,
        );
    }

    #[test]
    fn nothing_but_the_defaults() {
        let program = compile(&parse("[]")).unwrap();
        let allowed = |kind, access, major, minor| run(&program, kind, access, major, minor);
        assert!(allowed(Kind::Char, Access::ALL, 1, 3) && allowed(Kind::Char, Access::READ, 136, 7));
        assert!(allowed(Kind::Block, Access::MKNOD, 8, 0));
        assert!(!allowed(Kind::Block, Access::READ, 8, 0) && !allowed(Kind::Char, Access::WRITE, 1, 1));
        assert!(!allowed(Kind::Block, Access::MKNOD.or(Access::READ), 1, 3));
        assert!(program.len() < 16 * DEFAULTS.len());
    }
}
